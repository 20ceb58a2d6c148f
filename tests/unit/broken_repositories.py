"""Broken files, names and configurations, each with the expected finding and words of its remedy."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from typing import TYPE_CHECKING

import onnx
from model_cases import (
    FLOAT,
    INT64,
    JAGGED,
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
from onnx import helper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


# The configuration against the file


@broken("dims-differ", "dims: [2]")
def wrong_dims(directory: Path) -> None:
    save(directory, double(), config(dims("input", "x", [3]), Y2))


@broken("dims-differ", "dims: [2]")
def batch_axis_in_the_dims(directory: Path) -> None:
    save(directory, double(), config(dims("input", "x", [-1, 2]), Y2))


@broken("dims-differ", "dynamic_axes")
def length_that_is_fixed_in_the_file(directory: Path) -> None:
    model = graph_of(
        [node("ReduceSum", "x axes", keepdims=0)],
        [tensor("x", "rows", 2, 100)],
        [tensor("y", "rows", 2)],
        [constant("axes", [2], INT64)],
    )
    save(directory, model, config(JAGGED, Y2))


@broken("type-differs", "TYPE_FP32", "float()")
def wrong_type(directory: Path) -> None:
    save(directory, double(), config(dims("input", "x", [2], "FP64"), Y2))


@broken("input-unknown", "input_names", "Did you mean 'features'")
def misspelled_input(directory: Path) -> None:
    model = graph_of([node("Add", "features features")], [tensor("features", "r", 2)], [tensor("y", "r", 2)])
    save(directory, model, config(dims("input", "feature", [2]), Y2))


@broken("output-unknown", "output_names")
def output_that_is_missing(directory: Path) -> None:
    save(directory, double(), config(X2, Y2, dims("output", "regression", [1])))


@broken("input-missing", "config.pbtxt")
def input_that_the_config_lacks(directory: Path) -> None:
    model = graph_of([node("Add", "x mask")], [tensor("x", "r", 2), tensor("mask", "r", 2)], [tensor("y", "r", 2)])
    save(directory, model, config(X2, Y2))


@broken("no-batching", "max_batch_size: 1024")
def no_batching_although_the_axis_is_free(directory: Path) -> None:
    save(directory, double(), config(dims("input", "x", [-1, 2]), dims("output", "y", [-1, 2]), size=0))


@broken("max-batch-size", "max_batch_size: 1024")
def negative_batch_size(directory: Path) -> None:
    save(directory, double(), config(X2, Y2, size=-1))


@broken("labels", "labels=[")
def three_labels_for_two_scores(directory: Path) -> None:
    save(directory, double(), config(X2, Y2, labels={"y": ["top", "qcd", "w"]}))


@broken("labels", "labels=[")
def labels_of_another_output(directory: Path) -> None:
    save(directory, double(), config(X2, Y2, labels={"scores": ["top", "qcd"]}))


@broken("features", "features=[")
def three_features_for_two_columns(directory: Path) -> None:
    save(directory, double(), config(X2, Y2, features={"x": ["pt", "eta", "phi"]}))


@broken("recipe", "input_names")
def recipe_of_another_input(directory: Path) -> None:
    model = jagged([node("ReduceSum", "x axes", keepdims=0)])
    save(directory, model, config(JAGGED, Y2, preprocess=recipe(inputs="pf_features")))


@broken("recipe", "var_names")
def recipe_with_a_variable_too_many(directory: Path) -> None:
    model = jagged([node("ReduceSum", "x axes", keepdims=0)])
    save(directory, model, config(JAGGED, Y2, preprocess=recipe(("pt", "eta", "phi"))))


@broken("recipe", "recipe")
def recipe_that_is_no_json(directory: Path) -> None:
    save(directory, jagged([node("ReduceSum", "x axes", keepdims=0)]), config(JAGGED, Y2, preprocess="{'pt'}"))


@broken("collections", "collections")
def collection_of_no_input(directory: Path) -> None:
    model = jagged([node("ReduceSum", "x axes", keepdims=0)])
    save(directory, model, config(JAGGED, Y2, collections={"pf": ["particles"]}))


@broken("graph", "graph")
def graph_without_edges_in_the_parameter(directory: Path) -> None:
    save(
        directory,
        double(),
        config(dims("input", "x", [-1, 2]), dims("output", "y", [-1, 2]), size=0, graph={"x": "x"}),
    )


@broken("lengths", "lengths")
def lengths_of_a_model_without_any(directory: Path) -> None:
    save(directory, double(), config(X2, Y2, lengths=[64]))


# Names


@broken("model-name", "my_tagger", directory="my tagger")
def name_with_a_space(directory: Path) -> None:
    save(directory, double())


@broken("model-name", "my_tagger", directory="tagger..v2")
def name_with_two_dots(directory: Path) -> None:
    save(directory, double())


@broken("config-name", 'name: "tagger"')
def name_of_another_model(directory: Path) -> None:
    save(directory, double(), 'name: "other"\n' + config(X2, Y2))


@broken("tensor-name", "input_names")
def input_with_a_line_break(directory: Path) -> None:
    model = graph_of([node("Add", "x x")], [tensor("x", "r", 2)], [tensor("y", "r", 2)])
    save(directory, model, config(dims("input", "x\\n", [2]), Y2))


# The repository


@broken("config-unreadable", "config.pbtxt", "line 1")
def config_that_cannot_be_parsed(directory: Path) -> None:
    save(directory, double(), 'backend: onnxruntime" max_batch_size')


@broken("config-missing", "config.pbtxt")
def no_config(directory: Path) -> None:
    save(directory, double(), None)


@broken("unknown-backend", "onnxruntime", "Did you mean 'onnxruntime'")
def misspelled_backend(directory: Path) -> None:
    save(directory, double(), config(X2, Y2).replace("onnxruntime", "onnx_runtime"))


@broken("unknown-backend", "platform")
def unknown_platform(directory: Path) -> None:
    save(directory, double(), config(X2, Y2).replace('backend: "onnxruntime"', 'platform: "caffe2_netdef"'))


@broken("upload-unfinished", "deploy")
def placeholder_of_an_upload(directory: Path) -> None:
    save(directory, double(), 'backend: "upload_in_progress"')


@broken("upload-unfinished", "deploy")
def model_that_is_being_removed(directory: Path) -> None:
    save(directory, double(), 'backend: "removal_in_progress"')


@broken("python-backend", "ONNX", "--allow-python")
def model_in_python(directory: Path) -> None:
    (directory / "1").mkdir(parents=True)
    (directory / "1" / "model.py").write_text("import os", encoding="utf-8")
    (directory / "config.pbtxt").write_text(config(X2, Y2).replace("onnxruntime", "python"), encoding="utf-8")


@broken("no-version", "1")
def model_without_versions(directory: Path) -> None:
    directory.mkdir()
    (directory / "config.pbtxt").write_text(config(X2, Y2), encoding="utf-8")


@broken("no-version", "Rename 01 to 1")
def version_with_a_leading_zero(directory: Path) -> None:
    save(directory, double(), version="01")


@broken("version-name", "whole number")
def version_that_is_no_number(directory: Path) -> None:
    save(directory, double())
    (directory / "v2").mkdir()


@broken("empty-version", "version")
def version_without_files(directory: Path) -> None:
    save(directory, double())
    (directory / "2").mkdir()


@broken("pinned-version-missing", "versions: [1]")
def pinned_version_that_is_not_there(directory: Path) -> None:
    save(directory, double(), config(X2, Y2) + "version_policy { specific { versions: [3] } }")


@broken("member-missing", "model_name")
def ensemble_of_a_missing_model(directory: Path) -> None:
    (directory / "1").mkdir(parents=True)
    step = 'ensemble_scheduling { step { model_name: "preprocessing" model_version: -1 } }\n'
    text = f'platform: "ensemble"\nmax_batch_size: 8\n{X2}{Y2}{step}'
    (directory / "config.pbtxt").write_text(text, encoding="utf-8")


# Files


@broken("empty-file", "Upload it again")
def file_of_zero_bytes(directory: Path) -> None:
    save(directory, double())
    (directory / "1" / "model.onnx").write_bytes(b"")


@broken("onnx-unreadable", "again")
def file_that_is_cut_off(directory: Path) -> None:
    save(directory, double())
    path = directory / "1" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-30])


@broken("onnx-unreadable", "again")
def file_of_zeros(directory: Path) -> None:
    save(directory, double())
    path = directory / "1" / "model.onnx"
    path.write_bytes(bytes(path.stat().st_size))  # its place was reserved, and nothing came


@broken("onnx-unreadable", "git lfs pull")
def pointer_of_git_lfs(directory: Path) -> None:
    save(directory, double())
    (directory / "1" / "model.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")


@broken("onnx-unreadable", "zipmap")
def probabilities_as_maps(directory: Path) -> None:
    maps = helper.make_value_info(
        "y",
        helper.make_sequence_type_proto(helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, []))),
    )
    model = graph_of(
        [node("ZipMap", "x", classlabels_int64s=[0, 1], domain="ai.onnx.ml")], [tensor("x", "r", 2)], [maps]
    )
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    save(directory, model)


@broken("partial-upload", "Delete it")
def upload_that_stopped(directory: Path) -> None:
    save(directory, double())
    (directory / "1" / "model.onnx.part").write_bytes(b"\x08")


@broken("model-file-missing", "Rename", "default_model_filename")
def file_of_another_name(directory: Path) -> None:
    save(directory, double())
    (directory / "1" / "model.onnx").rename(directory / "1" / "tagger.onnx")


def with_external_weights(directory: Path) -> Path:
    model = dense([node("Mul", "x weight")], [constant("weight", [[2.0, 3.0]] * 1)])
    (directory / "1").mkdir(parents=True)
    onnx.save(
        model,
        directory / "1" / "model.onnx",
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=0,
    )
    (directory / "config.pbtxt").write_text(config(X2, Y2), encoding="utf-8")
    return directory / "1" / "model.onnx.data"


@broken("external-data-missing", "external_data=False")
def weights_that_were_not_uploaded(directory: Path) -> None:
    with_external_weights(directory).unlink()


@broken("truncated-file", "Upload it again")
def weights_that_are_cut_off(directory: Path) -> None:
    with_external_weights(directory).write_bytes(b"\x00")


@broken("external-data-outside", "save_as_external_data")
def weights_outside_of_the_version(directory: Path) -> None:
    with_external_weights(directory)
    path = directory / "1" / "model.onnx"
    path.write_bytes(path.read_bytes().replace(b"model.onnx.data", b"../../other.dat"))


@broken("protobuf-limit", "external_data=True")
def file_above_two_gib(directory: Path) -> None:
    save(directory, double())
    with (directory / "1" / "model.onnx").open("r+b") as file:
        file.truncate((2 << 30) + 1)  # sparse


@broken("too-large", "half", most_bytes=1 << 30)
def weights_above_the_limit(directory: Path) -> None:
    with with_external_weights(directory).open("r+b") as file:
        file.truncate(20 << 30)  # sparse


@broken("pickle", "torch.onnx.export")
def pickle_beside_the_model(directory: Path) -> None:
    save(directory, double())
    (directory / "1" / "scaler.pkl").write_bytes(pickle.dumps([1.0]))


@broken("pickle", "torch.jit.script")
def state_saved_by_torch(directory: Path) -> None:
    (directory / "1").mkdir(parents=True)
    (directory / "config.pbtxt").write_text(config(X2, Y2).replace("onnxruntime", "pytorch"), encoding="utf-8")
    with zipfile.ZipFile(directory / "1" / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02")


@broken("truncated-file", "Upload it again")
def torchscript_that_is_cut_off(directory: Path) -> None:
    (directory / "1").mkdir(parents=True)
    (directory / "config.pbtxt").write_text(config(X2, Y2).replace("onnxruntime", "pytorch"), encoding="utf-8")
    (directory / "1" / "model.pt").write_bytes(b"PK\x03\x04 and no end")


@broken("code", "ONNX")
def script_beside_the_model(directory: Path) -> None:
    save(directory, double())
    (directory / "1" / "preprocess.py").write_text("import os", encoding="utf-8")


@broken("archive", "Unpack")
def archive_beside_the_model(directory: Path) -> None:
    save(directory, double())
    (directory / "1" / "model.tar.gz").write_bytes(b"\x1f\x8b")


@broken("link-outside", "cp -L -r")
def link_out_of_the_repository(directory: Path) -> None:
    save(directory, double())
    (directory / "1" / "weights.bin").symlink_to("/etc/hostname")


# What only an attacker writes: each would hang the check, or take all memory


@broken("unreadable", "put the file itself there")
def configuration_that_is_a_pipe(directory: Path) -> None:
    save(directory, double(), None)
    os.mkfifo(directory / "config.pbtxt")


@broken("unreadable", "put the file itself there")
def configuration_of_a_terabyte(directory: Path) -> None:
    save(directory, double())
    with (directory / "config.pbtxt").open("r+b") as file:
        file.truncate(1 << 40)  # sparse


@broken("file-missing", "in place of a link or a device")
def model_that_is_a_pipe(directory: Path) -> None:
    save(directory, double())
    (directory / "1" / "model.onnx").unlink()
    os.mkfifo(directory / "1" / "model.onnx")


@broken("truncated-file", "Upload it again")
def archive_whose_directory_is_elsewhere(directory: Path) -> None:
    save(directory, double())
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 64, 1, 0)
    (directory / "1" / "weights.pt").write_bytes(b"PK\3\4" + end)


@broken("file-name", "Rename the file")
def file_whose_name_is_no_text(directory: Path) -> None:
    save(directory, double())
    (directory / "1" / os.fsdecode(b"notes\xff.txt")).write_text("x", encoding="utf-8")


def with_functions(directory: Path, called: Callable[[int], Sequence[str]], number: int) -> None:
    """Save a model with functions of which each calls others."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = graph_of([node(f"F{number}", "x", domain="own")], [tensor("x", "r", 2)], [tensor("y", "r", 2)])
    model.opset_import.append(opsets[1])
    for each in range(number + 1):
        names = ["in", *(f"t{step}" for step in range(len(called(each)) - 1)), "out"]
        nodes = [
            node(kind, before, after, domain="own" if kind.startswith("F") else "")
            for kind, before, after in zip(called(each), names[:-1], names[1:], strict=True)
        ]
        model.functions.append(helper.make_function("own", f"F{each}", ["in"], ["out"], nodes, opsets))
    save(directory, model)


@broken("onnx-unreadable", "has more than 1,000,000 nodes", "inline_local_functions")
def functions_that_double_22_times(directory: Path) -> None:
    with_functions(directory, lambda each: [f"F{each - 1}"] * 2 if each else ["Relu", "Relu"], 21)


@broken("onnx-unreadable", "has more than 1,000,000 nodes", "inline_local_functions")
def functions_whose_nodes_are_a_number_of_4400_digits(directory: Path) -> None:
    with_functions(directory, lambda each: [f"F{each - 1}"] * 10 if each else ["Relu"], 4400)


@broken("onnx-unreadable", "in a circle: own F0, own F1", "inline_local_functions")
def functions_that_call_each_other(directory: Path) -> None:
    with_functions(directory, lambda each: [f"F{1 - each}"], 1)


@broken("external-data-outside", "save_as_external_data")
def sparse_weights_of_a_branch_outside_of_the_version(directory: Path) -> None:
    weights = onnx.SparseTensorProto(dims=[2])
    weights.values.CopyFrom(onnx.TensorProto(name="w", dims=[2], data_type=FLOAT, data_location=1))
    weights.values.external_data.add(key="location", value="../../../secret")
    weights.indices.CopyFrom(constant("", [0, 1], INT64))
    branch = helper.make_graph([node("Add", "x w", "z")], "b", [], [tensor("z", "r", 2)])
    branch.sparse_initializer.append(weights)
    choice = helper.make_node("If", ["true"], ["y"], then_branch=branch, else_branch=branch)
    model = graph_of(
        [choice], [tensor("x", "r", 2)], [tensor("y", "r", 2)], [constant("true", 1, onnx.TensorProto.BOOL)]
    )
    save(directory, model)


@broken("input-unknown", "Correct the name", "nnnnn…")
def input_with_a_name_of_a_megabyte(directory: Path) -> None:
    name = "n" * (1 << 20)
    save(directory, graph_of([node("Identity", name)], [tensor(name, "r", 2)], [tensor("y", "r", 2)]))


@broken("file-outside", "write its name alone")
def compiled_file_that_is_outside_of_the_model(directory: Path) -> None:
    save(directory, double(), config(X2, Y2) + 'cc_model_filenames { key: "8.0" value: "/etc/passwd" }\n')


@broken("file-outside", "write its name alone")
def warm_up_from_another_file(directory: Path) -> None:
    value = 'data_type: TYPE_FP32 dims: [2] input_data_file: "../../../secret"'
    text = f'model_warmup {{ name: "w" batch_size: 1 inputs {{ key: "x" value {{ {value} }} }} }}\n'
    save(directory, double(), config(X2, Y2) + text)


@broken("code", "Delete runtime")
def library_of_the_models_own(directory: Path) -> None:
    save(directory, double(), config(X2, Y2) + 'runtime: "own.bin"\n')


@broken("code", "Delete model_operations")
def library_of_operators(directory: Path) -> None:
    save(directory, double(), config(X2, Y2) + 'model_operations { op_library_filename: "/tmp/own.bin" }\n')


@broken("code", "ONNX")
def library_with_a_version(directory: Path) -> None:
    save(directory, double())
    (directory / "1" / "libown.so.1").write_bytes(b"\x7fELF")


@broken("onnx-unreadable", "not UTF-8", "Export it again")
def place_of_the_weights_that_is_no_text(directory: Path) -> None:
    with_external_weights(directory)
    path = directory / "1" / "model.onnx"
    path.write_bytes(path.read_bytes().replace(b"model.onnx.data", b"model.onnx.\xff\xff\xff\xff"))


@broken("config-unreadable", "cannot be read: Value out of range", "Correct this place")
def number_that_is_no_data_type(directory: Path) -> None:
    save(directory, double(), config(X2, Y2).replace("TYPE_FP32", "9" * 25))


@broken("onnx-unreadable", "not UTF-8", "Export it again")
def input_whose_name_is_no_text(directory: Path) -> None:
    save(directory, graph_of([node("Identity", "name")], [tensor("name", "r", 2)], [tensor("y", "r", 2)]))
    path = directory / "1" / "model.onnx"
    path.write_bytes(path.read_bytes().replace(b"name", b"n\xff\xfee"))
