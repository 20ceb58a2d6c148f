"""What is read of an ONNX file: tensors, versions and where its weights are, but not the weights."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from eaf_inference.deploy.onnx_file import OnnxFile
from eaf_inference.errors import ConfigurationError

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FLOAT = TensorProto.FLOAT


def tensor(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(inputs, outputs, *, nodes=(), initializers=(), opset=17, **metadata):
    nodes = nodes or [helper.make_node("Identity", [inputs[0].name], [outputs[0].name])]
    graph = helper.make_graph(list(nodes), "graph", inputs, outputs, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, metadata)
    return model


@pytest.fixture
def saved(tmp_path):
    def save(*args, **kwargs):
        onnx.save(model_of(*args, **kwargs), tmp_path / "model.onnx")
        return tmp_path / "model.onnx"

    return save


def test_inputs_and_outputs_have_tritons_types_and_free_axes(saved):
    path = saved(
        [tensor("x", ["rows", 7, "p"]), tensor("n", [None, 1], TensorProto.INT64)],
        [tensor("y", ["rows", 2], TensorProto.DOUBLE), tensor("name", ["rows"], TensorProto.STRING)],
    )
    file = OnnxFile.read(path)
    assert [str(each) for each in file.inputs] == ["x: FP32 [rows, 7, p]", "n: INT64 [-1, 1]"]
    assert [(each.name, each.datatype, each.dims) for each in file.outputs] == [
        ("y", "FP64", (-1, 2)),
        ("name", "BYTES", (-1,)),
    ]
    assert file.inputs[0].symbols == ("rows", "", "p")
    assert (file.batched, file.ir_version, file.opset) == (True, 8, {"": 17})
    assert file.size == path.stat().st_size
    assert file.external_data == {}


@pytest.mark.parametrize("shape", [[8, 2], []])
def test_a_fixed_or_missing_first_axis_is_no_batch(saved, shape):
    assert not OnnxFile.read(saved([tensor("x", ["rows", 2])], [tensor("y", shape)])).batched


def test_weights_listed_as_inputs_are_no_inputs(saved):
    weight = numpy_helper.from_array(np.ones(2, "f4"), "w")
    add = helper.make_node("Add", ["x", "w"], ["y"])
    path = saved(
        [tensor("x", ["n", 2]), tensor("w", [2])], [tensor("y", ["n", 2])], nodes=[add], initializers=[weight]
    )
    assert [each.name for each in OnnxFile.read(path).inputs] == ["x"]


def test_inputs_with_one_named_axis_are_found(saved):
    path = saved(
        [
            tensor("a", ["n", 3, "p"]),
            tensor("b", ["n", "p"]),
            tensor("c", ["n", 2, "q"]),
            tensor("d", ["n", 2, None]),
        ],
        [tensor("y", ["n", 3, "p"])],
    )
    assert OnnxFile.read(path).shared_axes == {"p": ("a", "b")}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (json.dumps(["pt", "η"]), {"x": ("pt", "η")}),
        (json.dumps({"x": ["pt", "eta"], "other": ["z"]}), {"x": ("pt", "eta")}),
        ("pt, eta", {}),
        ("[1, 2]", {}),
        ("[" * 100_000, {}),
    ],
)
def test_feature_names_come_from_the_metadata(saved, text, names):
    path = saved([tensor("x", ["n", 2])], [tensor("y", ["n", 2])], feature_names=text)
    assert OnnxFile.read(path).feature_names == names


def big(path, megabytes):
    """Save a model whose weights have this size."""
    weights = numpy_helper.from_array(np.zeros((megabytes << 18,), "f4"), "w")
    slow = helper.make_node("Add", ["x", "w"], ["y"])
    onnx.save(
        model_of([tensor("x", ["n", 1])], [tensor("y", ["n", None])], nodes=[slow], initializers=[weights]), path
    )


def test_weights_take_no_memory(tmp_path):
    big(tmp_path / "model.onnx", 64)
    OnnxFile.read(tmp_path / "model.onnx")  # imports what it needs
    tracemalloc.start()
    try:
        assert OnnxFile.read(tmp_path / "model.onnx").size > 64 << 20
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_external_weights_are_listed_and_not_read(tmp_path):
    weight = numpy_helper.from_array(np.ones((300, 2), "f4"), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = model_of([tensor("x", ["n", 300])], [tensor("y", ["n", 2])], nodes=nodes, initializers=[weight])
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="model.onnx.data")
    (tmp_path / "model.onnx.data").unlink()
    file = OnnxFile.read(tmp_path / "model.onnx")
    assert file.external_data == {"model.onnx.data": 2400}
    assert file.is_contained


def external(name, **place):
    weight = TensorProto(name=name, data_type=FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    for key, value in place.items():
        weight.external_data.add(key=key, value=str(value))
    return weight


def hidden_places(weight):
    """The same weight as an initializer, in a node, in a graph inside a node, and in a function."""
    constant = helper.make_node("Constant", [], ["w"], value=weight)
    inner = helper.make_graph([constant], "inner", [], [tensor("w", [1])])
    listed = helper.make_graph([], "listed", [], [tensor("w", [1])], [weight])
    yield {"initializers": [weight]}
    yield {"nodes": [constant]}
    yield {"nodes": [helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=listed)]}
    yield {"nodes": [helper.make_node("If", ["x"], ["y"], then_branch=listed)]}


@pytest.mark.parametrize("location", ["/etc/passwd", "../other", "a/../../b", "..\\b", "a\\..\\b", ""])
def test_weights_outside_of_the_directory_are_found_anywhere(saved, location):
    for place in hidden_places(external("w", location=location, offset=4096, length=4)):
        file = OnnxFile.read(saved([tensor("x", ["n"])], [tensor("y", ["n"])], **place))
        assert file.external_data == {location: 4100}
        assert not file.is_contained


def test_weights_of_functions_and_training_are_found(tmp_path):
    constant = helper.make_node("Constant", [], ["w"], value=external("w", location="../a"))
    model = model_of([tensor("x", ["n"])], [tensor("y", ["n"])])
    model.functions.append(helper.make_function("d", "f", [], ["w"], [constant], [helper.make_opsetid("", 17)]))
    graph = helper.make_graph([], "g", [], [], [external("v", location="../b")])
    training = model.training_info.add()
    training.algorithm.CopyFrom(graph)
    training.update_binding.add(key="w", value="new")
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert set(OnnxFile.read(tmp_path / "model.onnx").external_data) == {"../a", "../b"}


def test_functions_of_one_name_may_call_each_other_by_overload(tmp_path):
    model = model_of([tensor("x", ["n"])], [tensor("y", ["n"])])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("pkg", 1)]
    for overload, called in (
        ("a", {"op_type": "Norm", "domain": "pkg", "overload": "b"}),
        ("b", {"op_type": "Relu"}),
    ):
        inner = helper.make_node(inputs=["x"], outputs=["y"], **called)
        model.functions.append(helper.make_function("pkg", "Norm", ["x"], ["y"], [inner], opsets, overload=overload))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert [each.name for each in OnnxFile.read(path).inputs] == ["x"]
    model.functions[1].node[0].CopyFrom(helper.make_node("Norm", ["x"], ["y"], domain="pkg", overload="a"))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ConfigurationError, match="in a circle: pkg Norm [ab], pkg Norm [ab]"):
        OnnxFile.read(path)


@pytest.mark.parametrize("cut", [1, 40, -1])
def test_a_file_that_was_cut_off_says_so(saved, cut):
    path = saved([tensor("x", ["n", 2])], [tensor("y", ["n", 2])])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ConfigurationError, match="cut off|no ONNX model|has no graph"):
        OnnxFile.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty. Expected an ONNX model"),
        (b"PK\x03\x04rest", "is a TorchScript, torch.export or Keras archive"),
        (b"\x80\x05rest", "is a pickle, which is never loaded"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<html></html>", "is a web page"),
        (b"hello, this is no model", "no ONNX model"),
        (b"\x08\x08", "has no graph"),
        (bytes(range(8, 200)), "no ONNX model"),
    ],
)
def test_other_files_are_named(tmp_path, content, message):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        OnnxFile.read(tmp_path / "model.onnx")


def test_a_missing_file_and_a_directory_are_errors(tmp_path):
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(ConfigurationError, match="cannot be read.*Expected a file"):
            OnnxFile.read(path)


def test_a_model_without_input_is_refused(saved):
    node = helper.make_node("Constant", [], ["y"], value_float=1.0)
    with pytest.raises(ConfigurationError, match="takes no input"):
        OnnxFile.read(saved([], [tensor("y", [])], nodes=[node]))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (tensor("y", ["n", 2], TensorProto.BFLOAT16), "data type BFLOAT16.*Cast it"),
        (tensor("y", ["n", 2], TensorProto.COMPLEX64), "data type COMPLEX64"),
        (tensor("y", ["n", 0]), "always empty"),
        (helper.make_tensor_sequence_value_info("y", FLOAT, None), "is a sequence.*'zipmap': False"),
        (helper.make_value_info("y", helper.make_optional_type_proto(tensor("a", [1]).type)), "is optional"),
        (tensor("y", None), "has no shape.*infer_shapes_path"),
    ],
)
def test_what_triton_cannot_send_names_the_fix(saved, output, message):
    with pytest.raises(ConfigurationError, match=message):
        OnnxFile.read(saved([tensor("x", ["n", 2])], [output]))


def test_free_sizes_are_those_that_onnx_runtime_finds(saved):
    pytest.importorskip("onnxruntime")
    two = numpy_helper.from_array(np.ones((3, 2), "f4"), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    path = saved([tensor("x", ["n", 3])], [tensor("y", ["n", "classes"])], nodes=[node], initializers=[two])
    file = OnnxFile.read(path)
    assert file.outputs[0].dims == (-1, -1)
    assert file.inferred().outputs[0].dims == (-1, 2)
    path.write_bytes(b"")
    assert file.inferred() == file  # what cannot be opened changes nothing
