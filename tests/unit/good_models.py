"""Models of several kinds in which the checks find nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broken_repositories import ensemble_of_a_missing_model, model_in_python, with_external_weights
from model_cases import (
    INT64,
    JAGGED,
    ROWS,
    X2,
    Y2,
    config,
    constant,
    dense,
    dims,
    double,
    good,
    graph_of,
    jagged,
    node,
    recipe,
    save,
    tensor,
)
from onnx import TensorProto

if TYPE_CHECKING:
    from pathlib import Path


# Good ones


@good(example=ROWS)
def rows_of_numbers(directory: Path) -> None:
    save(directory, double(), config(X2, Y2, labels={"y": ["top", "qcd"]}, features={"x": ["pt", "eta"]}))


@good()
def generated_rows_of_numbers(directory: Path) -> None:
    save(directory, double())


@good()
def logarithm_of_generated_rows(directory: Path) -> None:
    save(directory, dense([node("Log", "x")]))


@good()
def sum_over_constituents(directory: Path) -> None:
    save(directory, jagged([node("ReduceSum", "x axes", keepdims=0)]), config(JAGGED, Y2))


@good()
def sum_with_a_recipe(directory: Path) -> None:
    text = config(JAGGED, Y2, preprocess=recipe(min_length=1, max_length=50))
    save(directory, jagged([node("ReduceSum", "x axes", keepdims=0)]), text)


@good()
def mean_that_was_trained_at_one_length(directory: Path) -> None:
    text = config(JAGGED, Y2, preprocess=recipe(var_length=50))
    save(directory, jagged([node("ReduceMean", "x", axes=[2], keepdims=0)]), text)


@good()
def mean_with_declared_lengths(directory: Path) -> None:
    text = config(JAGGED, Y2, lengths=[64])
    save(directory, jagged([node("ReduceMean", "x", axes=[2], keepdims=0)]), text)


@good()
def value_of_each_constituent(directory: Path) -> None:
    model = graph_of([node("Add", "x x")], [tensor("x", "r", 2, "n")], [tensor("y", "r", 2, "n")])
    save(directory, model, config(JAGGED, dims("output", "y", [2, -1])))


@good()
def masked_mean(directory: Path) -> None:
    # (Σ x·mask) / max(Σ mask, 1)
    nodes = [
        node("Mul", "pf_x pf_mask", "real"),
        node("ReduceSum", "real axes", "sum", keepdims=0),
        node("ReduceSum", "pf_mask axes", "number", keepdims=0),
        node("Max", "number one", "least"),
        node("Div", "sum least"),
    ]
    inputs = [tensor("pf_x", "r", 2, "n"), tensor("pf_mask", "r", 1, "n")]
    model = graph_of(nodes, inputs, [tensor("y", "r", 2)], [constant("axes", [2], INT64), constant("one", 1.0)])
    save(directory, model, config(dims("input", "pf_x", [2, -1]), dims("input", "pf_mask", [1, -1]), Y2))


@good()
def batch_norm_in_evaluation_mode(directory: Path) -> None:
    ones, zeros = constant("one", [1, 1]), constant("zero", [0.5, 0])
    save(directory, dense([node("BatchNormalization", "x one zero zero one")], [ones, zeros]))


@good()
def graph_network(directory: Path) -> None:
    nodes = [node("Add", "x x")]
    inputs = [tensor("x", "nodes", 2), tensor("edge_index", 2, "edges", kind=INT64)]
    tensors = dims("input", "x", [-1, 2]), dims("input", "edge_index", [2, -1], "INT64"), dims("output", "y", [-1, 2])
    declared = {"x": "x", "edge_index": "edge_index", "outputs": {"y": "node"}}
    save(directory, graph_of(nodes, inputs, [tensor("y", "nodes", 2)]), config(*tensors, size=0, graph=declared))


@good()
def weights_in_a_file_of_their_own(directory: Path) -> None:
    with_external_weights(directory)


@good()
def batches_of_one_size(directory: Path) -> None:
    tensors = dims("input", "x", [8, 2]), dims("output", "y", [8, 2])
    save(directory, double(8), config(*tensors, size=0, batch_axis="0", pad_batches_to=8))


@good(allow_python=True)
def python_where_it_is_allowed(directory: Path) -> None:
    model_in_python(directory)


@good()
def ensemble_of_itself(directory: Path) -> None:
    ensemble_of_a_missing_model(directory)
    path = directory / "config.pbtxt"
    path.write_text(path.read_text(encoding="utf-8").replace("preprocessing", directory.name), encoding="utf-8")


@good()
def two_collections_and_a_jet(directory: Path) -> None:
    # one is padded to its training's length, on which its scores depend; the other to any
    nodes = [
        node("ReduceSum", "pf_x axes", "pf", keepdims=0),
        node("ReduceMean", "sv_x", "sv", axes=[2], keepdims=0),
        node("Add", "pf sv", "both"),
        node("Add", "both jet_x"),
    ]
    inputs = [tensor("pf_x", "r", 2, "n"), tensor("sv_x", "r", 1, "m"), tensor("jet_x", "r", 2)]
    described = {
        "input_names": ["pf_x", "sv_x", "jet_x"],
        "pf_x": {"var_names": ["pf_pt", "pf_eta"], "var_infos": {"pf_pt": {"median": 3, "norm_factor": 0.5}}},
        "sv_x": {"var_names": ["sv_pt"], "var_length": 10},
        "jet_x": {"var_names": ["jet_pt", "jet_eta"]},
    }
    tensors = dims("input", "pf_x", [2, -1]), dims("input", "sv_x", [1, -1]), dims("input", "jet_x", [2]), Y2
    model = graph_of(nodes, inputs, [tensor("y", "r", 2)], [constant("axes", [2], INT64)])
    save(directory, model, config(*tensors, preprocess=described))


@good()
def pairs_of_constituents(directory: Path) -> None:
    inputs = [tensor("pairs", "r", "n", "n"), tensor("x", "r", 2)]
    nodes = [
        node("ReduceSum", "pairs axes", "total", keepdims=0),
        node("Unsqueeze", "total last", "sum"),
        node("Mul", "sum x"),
    ]
    constants = [constant("axes", [1, 2], INT64), constant("last", [1], INT64)]
    model = graph_of(nodes, inputs, [tensor("y", "r", 2)], constants)
    save(directory, model, config(dims("input", "pairs", [-1, -1]), X2, Y2))


@good()
def integers_half_precision_and_two_outputs(directory: Path) -> None:
    half = TensorProto.FLOAT16
    nodes = [node("Add", "x x"), node("Add", "number number", "twice")]
    inputs = [tensor("x", "r", 2, kind=half), tensor("number", "r", 1, kind=INT64)]
    outputs = [tensor("y", "r", 2, kind=half), tensor("twice", "r", 1, kind=INT64)]
    tensors = dims("input", "x", [2], "FP16"), dims("output", "y", [2], "FP16")
    more = dims("input", "number", [1], "INT64"), dims("output", "twice", [1], "INT64")
    save(directory, graph_of(nodes, inputs, outputs), config(*tensors, *more))


@good()
def strings_are_not_run(directory: Path) -> None:
    kind = TensorProto.STRING
    model = graph_of([node("Identity", "x")], [tensor("x", "r", 1, kind=kind)], [tensor("y", "r", 1, kind=kind)])
    save(directory, model, config(dims("input", "x", [1], "STRING"), dims("output", "y", [1], "STRING")))


@good()
def one_row_per_request(directory: Path) -> None:
    save(directory, double(), config(X2, Y2, size=1))


@good()
def model_without_a_batch_axis(directory: Path) -> None:
    model = graph_of([node("Add", "x x")], [tensor("x", 2)], [tensor("y", 2)])
    save(directory, model, config(X2, Y2, size=0))
