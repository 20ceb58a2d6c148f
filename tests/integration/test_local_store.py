"""The model store of a facility on this machine: models that are put into it are served, replaced and removed."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from tiny_models import infer, save_affine
from waiting import until

from eaf_facility.local import single_user
from eaf_facility.process.http import ask
from eaf_inference.deploy.store import Store
from eaf_inference.discovery import local_facility
from eaf_inference.errors import NotAuthorized

X = np.arange(6, dtype=np.float32).reshape(3, 2)
CONFIG = """backend: "onnxruntime"
max_batch_size: 64
input [{{ name: "x", data_type: TYPE_FP32, dims: [2] }}]
output [{{ name: "y", data_type: TYPE_FP32, dims: [2] }}]
version_policy: {{ specific: {{ versions: [{version}] }} }}
"""


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """The files of y = 2x + 1 and y = 3x + 1."""
    first = save_affine(tmp_path_factory.mktemp("versions") / "mine") / "1" / "model.onnx"
    model = onnx.load(first)
    two = next(each for each in model.graph.initializer if each.name == "two")
    two.CopyFrom(onnx.helper.make_tensor("two", onnx.TensorProto.FLOAT, [], [3.0]))
    second = first.with_name("second.onnx")
    onnx.save(model, second)
    return first, second


def deploy(store, file):
    version = store.upload("mine", {"model.onnx": file})
    store.publish("mine", version, CONFIG.format(version=version))


def test_a_model_in_the_store_is_served_replaced_and_removed(sums_models, versions):
    with single_user.up([sums_models], gateway=False) as facility:
        (announced,) = local_facility.running()
        assert (announced.model_store_endpoint, announced.model_store_keys) == ("", "")
        directory = Path(announced.model_store.removeprefix("file://"))
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        (triton,) = facility.servers
        store = Store(announced.model_store)
        deploy(store, versions[0])
        until(lambda: "mine" in triton.models())
        np.testing.assert_array_equal(infer(triton, "mine", X)["y"], 2 * X + 1)
        deploy(store, versions[1])
        until(lambda: (infer(triton, "mine", X)["y"] == 3 * X + 1).all())

        triton.kill()
        triton.restart()
        np.testing.assert_array_equal(infer(triton, "mine", X)["y"], 3 * X + 1)

        store.remove("mine")
        until(lambda: set(triton.models()) == {"sums"})
        assert triton.left_out() == {}
        triton.kill()
    assert not directory.exists()


@pytest.mark.extended
def test_triton_reads_a_model_from_the_s3_stand_in(sums_models, versions):
    for needed in ("moto.server", "flask_cors", "s3fs"):
        pytest.importorskip(needed)
    with single_user.up([sums_models], gateway=False, store="s3") as facility:
        (announced,) = local_facility.running()
        key_file = Path(announced.model_store_keys)
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
        keys = json.loads(key_file.read_text(encoding="utf-8"))
        status, _ = ask(int(announced.model_store_endpoint.rpartition(":")[2]), "/eaf-inference?list-type=2")
        assert status == 403  # nobody is let in without a key

        (triton,) = facility.servers
        store = Store(
            announced.model_store, endpoint=announced.model_store_endpoint, key=(keys["key"], keys["secret"])
        )
        deploy(store, versions[0])
        until(lambda: "mine" in triton.models())
        np.testing.assert_array_equal(infer(triton, "mine", X)["y"], 2 * X + 1)

        seen = psutil.Process(triton.pid).environ()
        reader = Store(
            announced.model_store,
            endpoint=announced.model_store_endpoint,
            key=(seen["AWS_ACCESS_KEY_ID"], seen["AWS_SECRET_ACCESS_KEY"]),
        )
        assert reader.models(None) == ["mine"]
        with pytest.raises(NotAuthorized):
            reader.remove("mine")
        (stand_in,) = facility.store.servers
        assert keys["secret"] not in "".join(
            [*psutil.Process(stand_in.pid).cmdline(), *seen.values(), repr(stand_in.reader)]
        )
        triton.kill()
    assert not key_file.exists()
