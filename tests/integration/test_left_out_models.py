"""A model that cannot be loaded is left out and named; the others are served."""

from __future__ import annotations

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tiny_models import ask, infer, save_affine, save_mirror

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_facility.servers.triton_environment import find_interpreter
from eaf_inference.errors import ModelNotFound, ModelNotReady, ServerUnavailable

X = np.arange(6, dtype=np.float32).reshape(3, 2)
HAS_STRINGS = find_interpreter().version < (3, 13)  # with numpy 1
ENSEMBLE = """
platform: "ensemble"
max_batch_size: 4
input [{ name: "x", data_type: TYPE_FP32, dims: [2] }]
output [{ name: "y", data_type: TYPE_FP32, dims: [2] }]
ensemble_scheduling { step [{
  model_name: "other_output" model_version: -1
  input_map { key: "x" value: "x" } output_map { key: "y" value: "y" } }] }
"""
# Name -> config.pbtxt, and a part of the expected reason.
BROKEN = {
    "other_output": ('output [{ name: "z", data_type: TYPE_FP32, dims: [2] }]', "lists the output 'z'"),
    "not_text": ('backend "onnx', "failed to read text proto"),
    "other_name": ('name: "x"', "directory name must equal model name"),
    "other_backend": ('backend: "tensorrt"', "unable to find backend library"),
    "needs_gpu": ("instance_group [{ kind: KIND_GPU }]", "no GPUs are available"),
    "of_others": (ENSEMBLE, "depends on 'other_output'"),
    **({} if HAS_STRINGS else {"texts": ("", "takes strings, ['x']")}),
    "größer": ('output [{ name: "z", data_type: TYPE_FP32, dims: [2] }]', "lists the output 'z'"),
}
UNFIT = "two words"  # Triton's start would hang
CLASSES = ["b", "c", "größe", ""]


def save_classifier(directory, *, listed):
    """Save a model like an exported scikit-learn classifier: probabilities, the class name, and a sequence."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["prob"], axis=1),
        helper.make_node("ArgMax", ["x"], ["number"], axis=1, keepdims=1),
        helper.make_node(
            "LabelEncoder",
            ["number"],
            ["label"],
            domain="ai.onnx.ml",
            keys_int64s=range(len(CLASSES)),
            values_strings=CLASSES,
        ),
        helper.make_node("SequenceConstruct", ["prob"], ["each"]),
    ]
    values = helper.make_tensor_value_info
    outputs = [
        values("prob", TensorProto.FLOAT, ["n", 4]),
        values("label", TensorProto.STRING, ["n", 1]),
        helper.make_tensor_sequence_value_info("each", TensorProto.FLOAT, ["n", 4]),
    ]
    graph = helper.make_graph(nodes, "classifier", [values("x", TensorProto.FLOAT, ["n", 4])], outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    (directory / "1").mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), directory / "1" / "model.onnx")
    if listed:
        tensors = ("input", "x", "FP32", 4), ("output", "prob", "FP32", 4), ("output", "label", "STRING", 1)
        (directory / "config.pbtxt").write_text(
            'backend: "onnxruntime"\nmax_batch_size: 16\n'
            + "\n".join(
                f'{kind} {{ name: "{name}", data_type: TYPE_{type_}, dims: [{size}] }}'
                for kind, name, type_, size in tensors
            )
        )


def save_texts(directory):
    """Save a model that returns the strings it gets."""
    values = [helper.make_tensor_value_info(name, TensorProto.STRING, ["n", 1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "texts", values[:1], values[1:])
    (directory / "1").mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, directory / "1" / "model.onnx")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Start a Triton with some models that cannot be loaded, and give it with its start-up messages."""
    repository = tmp_path_factory.mktemp("mixed") / "my models; and others"  # a path that a shell would split
    save_affine(repository / UNFIT)
    for name, (config, _) in BROKEN.items():
        if name != "texts":
            save_affine(repository / name, config=config)
    save_affine(repository / "affine")
    save_affine(repository / "größe")
    save_mirror(repository / "spiegel_für_größe")
    save_classifier(repository / "listed", listed=True)
    save_classifier(repository / "unlisted", listed=False)
    save_texts(repository / "texts")
    said = []
    with TritonServer.start([repository], progress=said.append) as server:
        yield server, said
        server.kill()


def test_models_that_cannot_be_loaded_are_named_and_others_served(mixed):
    server, said = mixed
    served = {"affine", "größe", "spiegel_für_größe", "listed", "unlisted"}
    assert set(server.models()) == served | ({"texts"} if HAS_STRINGS else set())
    assert set(server.left_out()) == {UNFIT, *BROKEN}
    assert any(f"'{UNFIT}', which cannot be loaded: its name has a space" in line for line in said)
    for name, (_, reason) in BROKEN.items():
        (line,) = (line for line in said if f"'{name}', which cannot be loaded" in line)
        assert reason in line
    assert any("leave instance_group out of its config.pbtxt" in line for line in said)  # what to do
    np.testing.assert_array_equal(infer(server, "affine", X)["y"], 2 * X + 1)


def test_clients_see_which_models_are_not_ready_and_why(mixed):
    with eaf_inference.connect(mixed[0].grpc) as connection:
        rows = {row.name: row for row in connection.models()}
        assert not any(rows[name].ready for name in BROKEN)
        assert "lists the output 'z'" in rows["other_output"].state
        with pytest.raises(ModelNotReady, match="lists the output 'z'"):
            connection.model("other_output")
        with pytest.raises((ModelNotFound, ModelNotReady)):
            connection.model("not_text")


def test_models_and_directories_may_have_non_ascii_names(mixed):
    with eaf_inference.connect(mixed[0].grpc) as connection:
        np.testing.assert_array_equal(connection.model("größe")(X)["y"], 2 * X + 1)
        np.testing.assert_array_equal(connection.model("spiegel_für_größe")(X), X[:, ::-1])


@pytest.mark.parametrize("name", ["listed", "unlisted"])
def test_a_classifier_that_also_outputs_class_names_is_served(mixed, name):
    x = np.eye(4, dtype=np.float32)
    with eaf_inference.connect(mixed[0].grpc) as connection:
        model = connection.model(name)
        prob = model(x)
        rows = {row.name: row for row in connection.models()}
        if HAS_STRINGS:
            both = connection.model(name, outputs=["label", "prob"])(x)
            assert both["label"].tolist() == [[label] for label in CLASSES]
            np.testing.assert_array_equal(both["prob"], prob)
    np.testing.assert_allclose(prob, np.exp(x) / np.exp(x).sum(axis=1, keepdims=True), rtol=1e-6)
    assert "leaves out label: BYTES" in repr(model)
    assert "(label: BYTES)" in rows[name].outputs
    assert "each" not in str(rows[name].outputs)


@pytest.mark.skipif(not HAS_STRINGS, reason="Triton's environment has numpy 2")
def test_other_clients_get_strings_where_triton_has_numpy_1(mixed):
    server, _ = mixed
    named = ask(server, "listed", {"x": np.eye(4, dtype=np.float32)})["label"]
    np.testing.assert_array_equal(named[:, 0], [name.encode() for name in CLASSES])
    texts = np.array([["größe".encode()], [b""], [b"a b"]], dtype=object)
    np.testing.assert_array_equal(ask(server, "texts", {"x": texts})["y"], texts)
    with pytest.raises(grpc.RpcError, match="codec can't decode byte"):
        ask(server, "texts", {"x": np.array([[b"\xff"]], dtype=object)})


def test_a_model_that_is_stuck_is_named(tmp_path):
    save_mirror(tmp_path / "stuck")
    (tmp_path / "stuck" / "1" / "model.py").write_text("import signal; signal.pause()")
    with (
        pytest.raises(ServerUnavailable, match="still loading: stuck"),
        TritonServer.start([tmp_path], timeout=3),
    ):
        pass
