"""A model that this client cannot use is named with the reason, by `up` and by clients, and blocks no other."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_models import PLAIN_CONFIG, save_affine, save_mirror

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_inference.errors import ConfigurationError, InferenceError, ModelNotReady

X = np.arange(6, dtype=np.float32).reshape(3, 2)
RECIPE = {"input_names": ["x"], "x": {"var_names": list("abc"), "var_infos": {name: {} for name in "abc"}}}


def parameter(key, text):
    return f"parameters {{ key: {json.dumps(key)} value: {{ string_value: {json.dumps(text)} }} }}"


# Name -> lines that are added to the configuration, and a part of the reason.
SERVED_BY_TRITON = {
    "streams": ("model_transaction_policy { decoupled: true }", "it answers in a stream"),
    "remembers": ("sequence_batching { }", "it keeps state between requests"),
    "recipe": (parameter("preprocess", '{"input_names": ['), "recipe"),
    "other_recipe": (parameter("preprocess", json.dumps(RECIPE)), "gives 3 variables for input 'x'"),
    "labels": (parameter("labels", '{"y": ["a"]}'), "1 names for 'y'"),
    "collections": (parameter("collections", "[]"), "'collections'"),
    "graph": (parameter("graph", "{}"), "graph"),
    "axis": (parameter("batch_axis", "1"), "batch_axis"),
}
MISSING = "without the model 'missing', which cannot be loaded: its version 1 has no model.py"  # Triton would hang
LEFT_OUT = {
    "corrupt": "Protobuf parsing failed",
    "negative": "not loaded",
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Start a Triton with models of every kind, and give it with its start-up messages."""
    repository = tmp_path_factory.mktemp("unusable")
    save_mirror(repository / "mirror")
    for name, (lines, _) in SERVED_BY_TRITON.items():
        save_mirror(repository / name)
        (repository / name / "config.pbtxt").write_text(f"{PLAIN_CONFIG}\n{lines}\n")
    save_mirror(repository / "missing")
    (repository / "missing" / "1" / "model.py").unlink()
    save_affine(repository / "corrupt")
    network = repository / "corrupt" / "1" / "model.onnx"
    network.write_bytes(network.read_bytes()[:50])
    save_mirror(repository / "negative")
    (repository / "negative" / "config.pbtxt").write_text(PLAIN_CONFIG.replace("64", "-3"))
    said = []
    with TritonServer.start([repository], progress=said.append) as server:
        yield server, said


@pytest.fixture
def connection(mixed):
    with eaf_inference.connect(mixed[0].grpc) as connection:
        yield connection


def test_the_table_lists_every_model_with_the_reason(connection):
    rows = {row.name: row for row in connection.models()}
    assert set(rows) == {"mirror", *SERVED_BY_TRITON, *LEFT_OUT}
    assert (rows["mirror"].ready, rows["mirror"].state) == (True, "ready")
    for name, (_, reason) in SERVED_BY_TRITON.items():
        assert not rows[name].ready
        assert reason in rows[name].state
    for name, reason in LEFT_OUT.items():
        assert not rows[name].ready
        assert reason in rows[name].state
        assert ".py" not in rows[name].state  # Triton's own stack
    np.testing.assert_array_equal(connection.model("mirror")(X), X[:, ::-1])


@pytest.mark.parametrize("name", SERVED_BY_TRITON)
def test_a_model_that_cannot_be_used_gives_the_typed_reason(connection, name):
    with pytest.raises(ConfigurationError) as caught:
        connection.model(name)
    assert SERVED_BY_TRITON[name][1] in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_model_that_triton_cannot_load_gives_the_typed_reason(connection, name):
    with pytest.raises(ModelNotReady, match=LEFT_OUT[name]) as caught:
        connection.model(name)
    assert isinstance(caught.value, InferenceError)


def test_starting_names_each_of_them_once(mixed):
    _, said = mixed
    for name, (_, reason) in SERVED_BY_TRITON.items():
        (line,) = (line for line in said if f"serves the model '{name}', which eaf_inference cannot use" in line)
        assert reason in line
    assert sum(MISSING in line for line in said) == 1
    for name in LEFT_OUT:
        (line,) = (line for line in said if f"without the model '{name}', which cannot be loaded" in line)
    assert not any("'mirror'" in line for line in said)
