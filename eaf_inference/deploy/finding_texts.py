"""The findings of checks of scores in words: each says what to change in the export or the recipe."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from eaf_inference.deploy.findings import ERROR, WARNING, Finding
from eaf_inference.deploy.graph_suspects import fixing_size, mixing_rows, randomness

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = [
    *("constant", "depends_on_batch", "depends_on_graphs", "depends_on_padding", "differs_from_source"),
    *("does_not_load", "empty_example", "endless", "small_example", "source_fails"),
    *("empty_rows_not_finite", "example_does_not_fit", "fixed_batch", "not_per_row", "output_differs"),
    *("random_scores", "refused_rows", "refuses_all", "refuses_graph", "refuses_long", "refuses_short"),
    *("scores_not_finite",),
]

FREE_BATCH = (
    'Export it with a free first axis: torch.onnx.export(…, dynamic_axes={"x": {0: "batch"}}) for every input and '
    'output, or with dynamo=True dynamic_shapes={"x": {0: torch.export.Dim("batch")}}; in skl2onnx FloatTensorType'
    "([None, features])"
)


def does_not_load(name: str, why: str) -> Finding:
    return Finding(
        "does-not-load",
        ERROR,
        f"{name!r} cannot be run here: {why}.",
        "a model that ONNX Runtime loads",
        "Export it again, and try it with onnxruntime.InferenceSession(PATH) before.",
    )


def endless(name: str, why: str) -> Finding:
    return Finding(
        "endless",
        ERROR,
        f"{name!r} is too slow here: {why}.",
        "a model whose loops end after a number of rounds that depends on the input's shape alone",
        "Bound the loops in forward, and export it again.",
    )


def example_does_not_fit(name: str, why: str) -> Finding:
    return Finding(
        "example-does-not-fit",
        ERROR,
        f"The example is not what {name!r} takes: {why}",
        "arrays such as you will score",
        "Correct the example, or the recipe or the export's input shapes if these are wrong.",
    )


def empty_example(name: str) -> Finding:
    return Finding(
        "empty-example",
        ERROR,
        f"The example for {name!r} has no rows.",
        "some rows to score",
        "Pass a few hundred rows of your data: example=jets[:1000].",
    )


def small_example(name: str, rows: int) -> Finding:
    return Finding(
        "small-example",
        WARNING,
        f"The example for {name!r} has {rows} row{'s' * (rows != 1)}, too few to show what is wrong.",
        "a few hundred typical rows, with short and long ones and missing values if there are any",
        "Pass more rows of your data: example=jets[:1000].",
    )


def refused_rows(name: str, number: int, lengths: Sequence[int], why: str) -> Finding:
    at = f" (of length {', '.join(map(str, lengths))})" if lengths else ""
    return Finding(
        "refused-rows",
        ERROR,
        f"{name!r} refuses {number} rows of the example{at}: {why}.",
        "scores for every row",
        "Make the network accept such rows, set min_length and max_length in the recipe to the lengths that it "
        "takes, or leave such rows out.",
    )


def refuses_all(name: str, why: str) -> Finding:
    return Finding(
        "refuses-every-row",
        ERROR,
        f"{name!r} refuses every row of the example: {why}.",
        "scores for a single row",
        "Compare the export's input shapes and types with what you pass; the axes of rows and of constituents must "
        f"be free. {FREE_BATCH}.",
    )


def output_differs(name: str, why: str) -> Finding:
    return Finding(
        "output-differs",
        ERROR,
        f"{name!r} does not give what its configuration declares: {why}",
        "outputs of the declared shapes and types",
        "Correct the output's dims and data_type in config.pbtxt, or export the model again so that the file "
        "declares what it gives.",
    )


def fixed_batch(name: str, what: str, why: str, path: Path) -> Finding:
    return Finding(
        "fixed-batch-axis",
        ERROR,
        f"The batch axis of {name!r} is not free: {what} ({why}).",
        "any number of rows in a request",
        f"{FREE_BATCH}; and in the network write x.reshape(x.shape[0], …) or x.flatten(1), never a size that was "
        f"known only when it was traced.{fixing_size(path)}",
    )


def not_per_row(name: str, got: int, rows: int, path: Path) -> Finding:
    return Finding(
        "output-not-per-row",
        ERROR,
        f"{name!r} gives {got} entries along the first axis of an output for {rows} row{'s' * (rows != 1)}.",
        "one entry for each row",
        "Keep the first axis in the network: take means, sums and reshapes over the later axes only (dim=1, never "
        f"dim=0 or all), and leave out outputs that are not per row.{mixing_rows(path)}{fixing_size(path)}",
    )


def depends_on_batch(name: str, change: float, path: Path) -> Finding:
    return Finding(
        "depends-on-batch",
        ERROR,
        f"A row's scores of {name!r} change by {change:.2g} with the other rows of its request.",
        "scores that depend on the row alone: on the server, requests of several users are merged",
        "Call net.eval() before the export (a BatchNorm in training mode uses the batch's own mean), and let no "
        "softmax, mean, sum or reshape go over axis 0; quantise with fixed scales instead of those of each batch."
        f"{mixing_rows(path)}{fixing_size(path)}",
    )


def depends_on_padding(name: str) -> Finding:
    return Finding(
        "depends-on-padding",
        ERROR,
        f"The scores of {name!r} depend on the padded length.",
        "the same scores at any padded length, or one length to pad to",
        "Mask the padding in the network: set padded constituents to 0 after each layer with a bias, take means over "
        "the real constituents only and maxima with -inf in padded places. If it was trained on rows padded to one "
        'length N, say so in the recipe, "var_length": N, or in the parameter \'lengths\' of config.pbtxt, "[N]".',
    )


def depends_on_graphs(name: str, why: str) -> Finding:
    return Finding(
        "depends-on-other-graphs",
        ERROR,
        f"{name!r} scores a graph differently beside others: {why}.",
        "the same scores for a graph alone and in a union",
        "Pool with the input 'batch' (global_mean_pool(x, batch)), normalise per graph or call net.eval() before the "
        "export; or leave 'batch' and 'ptr' out of the parameter 'graph', and each graph gets a request of its own.",
    )


def random_scores(name: str, path: Path) -> Finding:
    return Finding(
        "random-scores",
        ERROR,
        f"{name!r} gives other scores each time for the same row.",
        "the same scores for the same row",
        "Call net.eval() before the export, so that dropout is off and a BatchNorm keeps its trained mean, and draw "
        "no random numbers in the network."
        f"{randomness(path)}",
    )


def refuses_short(name: str, lengths: Sequence[int], why: str) -> Finding:
    return Finding(
        "refuses-short-rows",
        WARNING,
        f"{name!r} refuses rows of length {', '.join(map(str, lengths))} without padding ({why}), so they are padded "
        "to a length that was found by trial.",
        "the least length in the recipe",
        'Set "min_length" of the input in the recipe to the least length that the network takes.',
    )


def refuses_long(name: str, lengths: Sequence[int], why: str) -> Finding:
    return Finding(
        "refuses-long-rows",
        ERROR,
        f"{name!r} refuses a row of length {', '.join(map(str, lengths))}, which its recipe or shape allows: {why}.",
        "scores at every declared length",
        'Leave the axis of the constituents free in the export, dynamic_axes={"x": {0: "batch", 2: "constituents"}}; '
        'or set "max_length" in the recipe to the longest row that the network takes.',
    )


def refuses_graph(name: str, at: int, why: str) -> Finding:
    return Finding(
        "refused-graph",
        ERROR,
        f"{name!r} refuses graph {at} of the example: {why}.",
        "scores for every graph",
        "Leave the axes of nodes and edges free in the export: dynamic_axes={'x': {0: 'nodes'}, 'edge_index': "
        "{1: 'edges'}}; and make the network accept graphs without edges, or leave such graphs out.",
    )


def source_fails(name: str, rows: int, why: str) -> Finding:
    return Finding(
        "source-fails",
        WARNING,
        f"Your own model fails for {rows} row{'s' * (rows != 1)} of the example that {name!r} scores: {why}.",
        "the same rows for both, to compare their scores",
        "Leave such rows out of the example and of the data, or make the network accept them.",
    )


def differs_from_source(
    name: str,
    wrong: int,
    rows: int,
    first: int,
    change: float,
    severity: Literal["error", "warning"],
    *,
    finite: bool,
) -> Finding:
    much = (
        f"by up to {change:.2g}"
        if math.isfinite(change)
        else "in shape, in whole numbers, or with NaN or infinity in one"
    )
    kind = "finite numbers" if finite else "NaN or infinity"
    return Finding(
        "differs-from-source",
        severity,
        f"{name!r} gives other scores than your own model for {wrong} of {rows} rows of {kind}, {much}, first for "
        f"row {first}.",
        "the scores of the network or estimator that was exported",
        "Call net.eval() before torch.export.export or torch.jit.trace, use operations on tensors alone in forward, "
        "or pass the network itself."
        if finite
        else "Replace NaN and infinity before the network: replace_inf_value in the recipe, or torch.nan_to_num.",
    )


def empty_rows_not_finite(name: str) -> Finding:
    return Finding(
        "empty-rows-not-finite",
        WARNING,
        f"{name!r} gives NaN or infinity for a row without constituents.",
        "numbers, or no such rows",
        "Divide by the number of constituents clamped to at least 1, or leave such rows out before scoring.",
    )


def scores_not_finite(name: str, number: int, rows: int, first: int, *, generated: bool) -> Finding:
    return Finding(
        "not-finite",
        WARNING if generated else ERROR,
        f"{name!r} gives NaN or infinity for {number} of {rows} {'generated ' * generated}rows of finite numbers, "
        f"first for row {first}.",
        "finite scores of finite inputs",
        "Guard divisions, logarithms and square roots in the network (x.clamp(min=1e-6)), check that no weight is "
        "NaN, and set lower_bound, upper_bound and replace_inf_value in the recipe.",
    )


def constant(name: str, output: str, rows: int, *, generated: bool) -> Finding:
    return Finding(
        "constant-scores",
        WARNING,
        f"Output {output!r} of {name!r} is the same for all {rows} {'generated ' * generated}rows that were tried.",
        "scores that depend on the input",
        "Check that the weights are the trained ones (load_state_dict before the export), and that the recipe's "
        "lower_bound and upper_bound do not cut every value to the same one.",
    )
