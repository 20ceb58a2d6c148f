"""The model store of a facility on this machine: models that are put into it are served, replaced and removed."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_models import infer, save_affine

from eaf_facility.local import single_user
from eaf_inference.discovery import local_facility

X = np.arange(6, dtype=np.float32).reshape(3, 2)
CONFIG = """backend: "onnxruntime"
max_batch_size: 64
input [{{ name: "x", data_type: TYPE_FP32, dims: [2] }}]
output [{{ name: "y", data_type: TYPE_FP32, dims: [2] }}]
version_policy: {{ specific: {{ versions: [{version}] }} }}
"""


def until(what, seconds=20.0):
    """Wait until this returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


def save_version_two(directory):
    """Save y = 3x + 1 as the second version, which no configuration names yet."""
    model = onnx.load(directory / "1" / "model.onnx")
    two = next(each for each in model.graph.initializer if each.name == "two")
    two.CopyFrom(onnx.helper.make_tensor("two", onnx.TensorProto.FLOAT, [], [3.0]))
    (directory / "2").mkdir()
    onnx.save(model, directory / "2" / "model.onnx")


@pytest.fixture(scope="module")
def facility(tiny_models):
    with single_user.up([tiny_models], gateway=False) as facility:
        yield facility


@pytest.fixture(scope="module")
def directory(facility):
    """The store's directory, as clients find it."""
    (announced,) = local_facility.running()
    assert announced.model_store == facility.store.url
    assert (announced.model_store_endpoint, announced.model_store_keys) == ("", "")
    return Path(announced.model_store.removeprefix("file://"))


def test_a_model_in_the_store_is_served_replaced_and_removed(facility, directory, tmp_path):
    (triton,) = facility.servers
    mine = save_affine(tmp_path / "mine", config=CONFIG.format(version=1))
    shutil.copytree(mine, directory.parent / "mine")
    (directory.parent / "mine").rename(directory / "mine")  # all of it at once
    until(lambda: "mine" in triton.models())
    np.testing.assert_array_equal(infer(triton, "mine", X)["y"], 2 * X + 1)

    save_version_two(directory / "mine")
    new = directory.parent / "config.pbtxt"
    new.write_text(CONFIG.format(version=2), encoding="utf-8")
    new.rename(directory / "mine" / "config.pbtxt")
    until(lambda: (infer(triton, "mine", X)["y"] == 3 * X + 1).all())

    triton.kill()
    triton.restart()
    np.testing.assert_array_equal(infer(triton, "mine", X)["y"], 3 * X + 1)

    (directory / "mine").rename(directory.parent / "gone")
    until(lambda: "mine" not in triton.models())
    assert triton.left_out() == {}
    assert set(triton.models()) == {"affine", "mirror"}
