"""Exports whose scores are wrong on a server, each with the expected finding and words of its remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import awkward as ak
import numpy as np
from model_cases import (
    DOUBLE,
    FLOAT,
    INT64,
    JAGGED,
    ROWS,
    X2,
    Y2,
    broken,
    config,
    constant,
    dense,
    dims,
    double,
    graph_of,
    jagged,
    node,
    recipe,
    save,
    tensor,
)
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from pathlib import Path


# The batch axis


@broken("fixed-batch-axis", "dynamic_axes", "dynamic_shapes")
def batch_of_one(directory: Path) -> None:
    save(directory, double(1))


@broken("fixed-batch-axis", "dynamic_axes")
def batch_of_the_example(directory: Path) -> None:
    save(directory, double(1000))


@broken("fixed-batch-axis", "dynamic_axes")
def batch_axis_free_in_the_input_only(directory: Path) -> None:
    save(directory, graph_of(DOUBLE, [tensor("x", "rows", 2)], [tensor("y", 1, 2)]))


@broken("fixed-batch-axis", "dynamic_axes")
def fixed_batch_in_a_config_without_batching(directory: Path) -> None:
    save(directory, double(1), config(dims("input", "x", [1, 2]), dims("output", "y", [1, 2]), size=0))


@broken("fixed-batch-axis", "reshape", "'flat' (Reshape)")
def reshape_to_one_row(directory: Path) -> None:
    nodes = [node("Reshape", "x shape", "flat"), node("Add", "flat flat")]
    model = dense(nodes, [constant("shape", [1, 2], INT64)], [tensor("y", "other", 2)])
    save(directory, model)


@broken("fixed-batch-axis", "reshape", example=ROWS)
def reshape_to_the_traced_batch(directory: Path) -> None:
    nodes = [node("Reshape", "x shape", "flat"), node("Add", "flat flat")]
    save(directory, dense(nodes, [constant("shape", [8, 2], INT64)], [tensor("y", "other", 2)]))


@broken("output-not-per-row", "first axis", "dim=1")
def mean_over_the_batch(directory: Path) -> None:
    save(directory, dense([node("ReduceMean", "x", axes=[0], keepdims=1)], outputs=[tensor("y", "other", 2)]))


@broken("output-not-per-row", "first axis")
def rows_folded_together(directory: Path) -> None:
    model = dense([node("Reshape", "x shape")], [constant("shape", [-1, 1], INT64)], [tensor("y", "more", 1)])
    save(directory, model, config(X2, dims("output", "y", [1])))


# Other rows of the batch


@broken("depends-on-batch", "axis 0", "(Softmax)")
def softmax_over_the_batch(directory: Path) -> None:
    save(directory, dense([node("Softmax", "x", axis=0)]))


@broken("random-scores", "net.eval()", "(BatchNormalization)")  # ONNX Runtime moves its mean with each call
def batch_norm_in_training_mode(directory: Path) -> None:
    ones, zeros = constant("one", [1, 1]), constant("zero", [0, 0])
    nodes = [node("BatchNormalization", "x one zero zero one", "y mean var", training_mode=1)]
    save(directory, dense(nodes, [ones, zeros]))


@broken("depends-on-batch", "axis 0", "(ReduceMean)")
def minus_the_mean_of_the_batch(directory: Path) -> None:
    save(directory, dense([node("ReduceMean", "x", "mean", axes=[0]), node("Sub", "x mean")]))


@broken("depends-on-batch", "axis 0")
def normalised_by_all(directory: Path) -> None:
    save(directory, dense([node("ReduceMax", "x", "most"), node("Sub", "x most")]))


@broken("depends-on-batch", "axis 0", "(CumSum)")
def sum_of_the_rows_before(directory: Path) -> None:
    save(directory, dense([node("CumSum", "x first")], [constant("first", 0, INT64)]))


@broken("depends-on-batch", "fixed scales", "(DynamicQuantizeLinear)")
def quantised_by_the_batch(directory: Path) -> None:
    nodes = [node("DynamicQuantizeLinear", "x", "q scale zero"), node("DequantizeLinear", "q scale zero")]
    save(directory, dense(nodes))


@broken("depends-on-batch", "axis 0")
def divided_by_the_batch_size(directory: Path) -> None:
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape first", "size"),
        node("Cast", "size", "number", to=FLOAT),
        node("Div", "x number"),
    ]
    save(directory, dense(nodes, [constant("first", 0, INT64)]))


# Padding


@broken("depends-on-padding", "Mask", "var_length")
def mean_over_the_padded_length(directory: Path) -> None:
    save(directory, jagged([node("ReduceMean", "x", axes=[2], keepdims=0)]), config(JAGGED, Y2))


@broken("depends-on-padding", "Mask", "var_length")
def bias_before_the_sum(directory: Path) -> None:
    nodes = [node("Add", "x bias", "moved"), node("ReduceSum", "moved axes", keepdims=0)]
    save(directory, jagged(nodes, [constant("bias", 0.5)]), config(JAGGED, Y2))


@broken("depends-on-padding", "-inf")
def maximum_with_padding(directory: Path) -> None:
    save(directory, jagged([node("ReduceMax", "x", axes=[2], keepdims=0)]), config(JAGGED, Y2))


@broken("depends-on-padding", "var_length")
def mean_with_a_recipe_of_any_length(directory: Path) -> None:
    text = config(JAGGED, Y2, preprocess=recipe(min_length=1, max_length=50))
    save(directory, jagged([node("ReduceMean", "x", axes=[2], keepdims=0)]), text)


@broken("refuses-short-rows", "min_length")
def neighbours_without_a_least_length(directory: Path) -> None:
    nodes = [
        node("Abs", "x", "size"),
        node("TopK", "size k", "top place", axis=2),
        node("ReduceSum", "top axes", keepdims=0),
    ]
    save(directory, jagged(nodes, [constant("k", [3], INT64)]), config(JAGGED, Y2))


VALUES = ak.unflatten(np.random.default_rng(0).normal(size=44).astype("f4"), [5, 9, 30])


@broken("refuses-long-rows", "max_length", example=ak.zip({"pt": VALUES, "eta": VALUES}))
def fewer_positions_than_the_recipe_allows(directory: Path) -> None:
    # a table of 40 positions, as of a transformer's embedding
    nodes = [
        node("Shape", "x", "length", start=2),
        node("Slice", "table zero length zero", "weights"),
        node("Mul", "x weights", "weighted"),
        node("ReduceSum", "weighted axes", keepdims=0),
    ]
    constants = [constant("table", np.ones(40)), constant("zero", [0], INT64)]
    text = config(JAGGED, Y2, preprocess=recipe(min_length=1, max_length=60))
    save(directory, jagged(nodes, constants), text)


@broken("empty-rows-not-finite", "at least 1")
def mean_divided_by_no_constituents(directory: Path) -> None:
    # Σx / Σ|x| of the real constituents: 0/0 for none
    nodes = [
        node("ReduceSum", "x axes", "sum", keepdims=0),
        node("Abs", "x", "size"),
        node("ReduceSum", "size axes", "sizes", keepdims=0),
        node("Div", "sum sizes"),
    ]
    save(directory, jagged(nodes), config(JAGGED, Y2))


# Numbers


@broken("not-finite", "clamp", example=ROWS)
def logarithm_of_negative_numbers(directory: Path) -> None:
    save(directory, dense([node("Log", "x")]))


@broken("not-finite", "weight", example=ROWS)
def weight_that_is_nan(directory: Path) -> None:
    save(directory, dense([node("Mul", "x weight")], [constant("weight", [float("nan"), 1.0])]))


@broken("random-scores", "net.eval()", "(RandomNormalLike)")
def noise_in_the_network(directory: Path) -> None:
    save(directory, dense([node("RandomNormalLike", "x", "noise"), node("Add", "x noise")]))


@broken("random-scores", "dropout", "(Dropout)")
def dropout_in_training_mode(directory: Path) -> None:
    constants = [constant("ratio", 0.5), constant("training", 1, TensorProto.BOOL)]
    save(directory, dense([node("Dropout", "x ratio training")], constants))


@broken("constant-scores", "weights")
def weights_of_zero(directory: Path) -> None:
    save(directory, dense([node("Mul", "x zero")], [constant("zero", 0.0)]))


@broken("refuses-every-row", "shapes")
def layer_of_another_width(directory: Path) -> None:
    # the width is known only when it runs
    nodes = [node("Reshape", "x shape", "wide"), node("MatMul", "wide weights")]
    model = dense(nodes, [constant("shape", [-1, 3], INT64), constant("weights", np.ones((3, 2)))])
    save(directory, model)


@broken("example-does-not-fit", "example", example=np.zeros((5, 3), "f4"))
def example_of_another_width(directory: Path) -> None:
    save(directory, double())


@broken("empty-example", "rows", example=np.zeros((0, 2), "f4"))
def example_without_rows(directory: Path) -> None:
    save(directory, double())


@broken("depends-on-other-graphs", "global_mean_pool")
def graph_with_a_mean_over_all_nodes(directory: Path) -> None:
    nodes = [node("ReduceMean", "x", "mean", axes=[0]), node("Sub", "x mean")]
    inputs = [tensor("x", "nodes", 2), tensor("edge_index", 2, "edges", kind=INT64)]
    tensors = dims("input", "x", [-1, 2]), dims("input", "edge_index", [2, -1], "INT64"), dims("output", "y", [-1, 2])
    declared = {"x": "x", "edge_index": "edge_index", "outputs": {"y": "node"}}
    save(directory, graph_of(nodes, inputs, [tensor("y", "nodes", 2)]), config(*tensors, size=0, graph=declared))


# What the server reads


@broken("opset", "opset_version=15", opset_limit=15)
def newer_opset_than_the_server(directory: Path) -> None:
    save(directory, double())


@broken("ir-version", "ir_version = 10", opset_limit=21)
def newer_ir_version_than_the_server(directory: Path) -> None:
    save(directory, double(ir_version=11))


@broken("custom-operators", "custom_translation_table")
def operator_of_an_own_library(directory: Path) -> None:
    model = dense([node("DeltaR", "x", domain="my.physics")])
    model.opset_import.append(helper.make_opsetid("my.physics", 1))
    save(directory, model)


@broken("does-not-load", "onnxruntime.InferenceSession")
def graph_that_contradicts_itself(directory: Path) -> None:
    save(directory, dense([node("MatMul", "x weights")], [constant("weights", np.ones((3, 2)))]))


@broken("client-cannot-use", "configuration")
def model_that_streams(directory: Path) -> None:
    save(directory, double(), config(X2, Y2) + "model_transaction_policy { decoupled: true }")
