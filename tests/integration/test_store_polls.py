"""A real Triton that polls a model store serves complete versions only, and meanwhile the old one."""

from __future__ import annotations

import time

import numpy as np
import pytest
from polled_store import Killed, watch_files
from tiny_models import infer, save_mirror

from eaf_facility.servers.triton import TritonServer
from eaf_inference.deploy.store import Store

pytestmark = pytest.mark.extended

MODEL = "alice.shift"
X = np.zeros((1, 2), dtype=np.float32)
# Loads with half of its data, too; then it adds less.
CODE = """
from pathlib import Path
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        text = Path(args["model_repository"], args["model_version"], "data", "shift.txt").read_text()
        self.shift = np.float32(sum(map(int, text.split())))

    def execute(self, requests):
        values = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", value + self.shift)]) for value in values]
"""
CONFIG = """name: "alice.shift"
backend: "python"
max_batch_size: 64
input [{{ name: "x", data_type: TYPE_FP32, dims: [2] }}]
output [{{ name: "y", data_type: TYPE_FP32, dims: [2] }}]
version_policy {{ specific {{ versions: [{}] }} }}
"""


class PolledTriton:
    """A Triton and its log, in which each poll leaves a line about a model that has no version."""

    def __init__(self, triton, canary):
        self.triton, self.canary = triton, canary

    def log(self):
        return self.triton.log.read_text(encoding="utf-8", errors="replace")

    def wait_for_a_poll(self):
        """Return when a poll that began after this call is over, and so are the loads that it started."""
        polls = self._polls()
        deadline = time.monotonic() + 20
        while self._polls() < polls + 2 or self._busy():
            assert time.monotonic() < deadline, "Triton does not poll"
            time.sleep(0.05)

    def _polls(self):
        return self.log().count(f"backend for model '{self.canary}'")

    def _busy(self):
        return any(each.get("state") in ("LOADING", "UNLOADING") for each in self.triton._index())

    def shift(self):
        """Return what the served version adds; None if none is served."""
        self.wait_for_a_poll()
        return float(infer(self.triton, MODEL, X)["y"][0, 0]) if MODEL in self.triton.models() else None

    def starts(self):
        """Return how often the model was really loaded; Triton says so of a new file beside it, too."""
        return self.log().count(f"TRITONBACKEND_ModelInstanceInitialize: {MODEL}")


@pytest.fixture(scope="module")
def polled(tmp_path_factory):
    directory = tmp_path_factory.mktemp("store")
    (directory / "canary").mkdir()
    mirror = tmp_path_factory.mktemp("others")
    save_mirror(mirror / "mirror")
    with TritonServer.start([mirror], store=str(directory)) as triton:
        yield PolledTriton(triton, "canary"), directory


@pytest.fixture
def deploy(tmp_path):
    def deployed(store, data):
        (tmp_path / "model.py").write_text(CODE, encoding="utf-8")
        (tmp_path / "shift.txt").write_text(data, encoding="utf-8")
        version = store.upload(MODEL, {"model.py": tmp_path / "model.py", "data/shift.txt": tmp_path / "shift.txt"})
        store.publish(MODEL, version, CONFIG.format(version))
        return version

    return deployed


def test_triton_serves_complete_versions_only(polled, deploy, monkeypatch):
    triton, directory = polled
    store = Store(str(directory))
    seen = []

    def stopped_at(what, action):
        """Do this until its process is killed before the operation with this name, and note what is served then."""
        with monkeypatch.context() as patch:
            watch = watch_files(patch, directory)
            patch.setattr(watch, "poll", lambda: None)  # a real one polls
            watch.reset(what, Killed)
            with pytest.raises(Killed):
                action(Store(str(directory)))
        seen.append(triton.shift())

    stopped_at("write the rest of shift.txt", lambda store: deploy(store, "1 1"))  # half of its data, no config.pbtxt
    deploy(store, "1 1")
    seen.append(triton.shift())
    triton.wait_for_a_poll()  # its Python wrote __pycache__ beside model.py, so Triton loads the version once more
    before = triton.starts()
    stopped_at("write the rest of shift.txt", lambda store: deploy(store, "2 3"))
    assert triton.starts() == before
    version = deploy(store, "2 3")
    seen.append(triton.shift())
    assert store.rollback(MODEL) == 2
    seen.append(triton.shift())
    stopped_at("rmdir 2", lambda store: store.remove(MODEL))
    store.remove(MODEL)
    seen.append(triton.shift())
    assert version == 4
    assert seen == [None, 2, 2, 5, 2, 2, None]
