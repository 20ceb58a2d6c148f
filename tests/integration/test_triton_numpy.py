"""Triton's Python backend under numpy 1, for which it was built, and under numpy 2: no number changes.

Under numpy 2 the backend of Triton's wheel repeats the first value of an input and sends no bytes, without an error.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from plain_client import datatype_of
from tiny_models import ask, save_typed

from eaf_facility.servers.triton import TritonServer
from eaf_facility.servers.triton_environment import make_installation

TYPES = tuple(map(np.dtype, ("?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")))
# Does what a user's model may do: it changes its input in place and answers with a view.
USERS_MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        outputs = []
        for tensor in request.inputs():
            value = tensor.as_numpy()
            value[:1] = value[-1:]
            outputs.append(pb_utils.Tensor("y" + tensor.name()[1:], value.T[::-1]))
            assert isinstance(outputs[-1], pb_utils.Tensor)
        return pb_utils.InferenceResponse(outputs)
"""
USERS_STRINGS = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(request, "x")) for request in requests]

    def answer(self, x):
        try:
            upper = np.array([value.upper() for value in x.as_numpy()], dtype=object)
            return pb_utils.InferenceResponse([pb_utils.Tensor("y", upper)])
        except TypeError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
"""


def config(types, shape, *, backend):
    tensors = {
        kind: ", ".join(
            f'{{ name: "{letter}{number}", data_type: TYPE_{name}, dims: {shape} }}'
            for number, name in enumerate(types)
        )
        for kind, letter in (("input", "x"), ("output", "y"))
    }
    return f'backend: "{backend}"\ninput [{tensors["input"]}]\noutput [{tensors["output"]}]\n'


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    path = tmp_path_factory.mktemp("typed")
    names = [datatype_of(each) for each in TYPES]
    save_typed(path / "onnx", TYPES)
    for name, code, text in (
        ("users", USERS_MODEL, config(names, "[-1, -1]", backend="python")),
        (
            "strings",
            USERS_STRINGS,
            config(["STRING"], "[-1]", backend="python").replace("x0", "x").replace("y0", "y"),
        ),
    ):
        (path / name / "1").mkdir(parents=True)
        (path / name / "config.pbtxt").write_text(text)
        (path / name / "1" / "model.py").write_text(code)
    return path


@pytest.fixture(scope="module", params=[1, 2], ids=["numpy 1", "numpy 2"])
def numpy_version(request):
    return request.param


@pytest.fixture(scope="module")
def server(repository, numpy_version):
    """A Triton whose models run in its own environment, or in that of the tests, which has numpy 2."""
    installation = make_installation(progress=print)
    if numpy_version == 2:
        if f"python{sys.version_info[0]}.{sys.version_info[1]}" not in str(installation.server):
            pytest.skip("Triton's environment is made with another Python than this")
        installation = replace(installation, bin=Path(sys.prefix) / "bin")
    elif sys.version_info[:2] == (3, 13):
        pytest.skip("there is no numpy 1 for this Python")
    with TritonServer.start([repository], installation=installation) as server:
        yield server
        server.kill()


def every_type(shape):
    values = np.arange(1, 1 + np.prod(shape)).reshape(shape)
    return {
        f"x{number}": (values % 2 if kind.kind == "b" else values).astype(kind) for number, kind in enumerate(TYPES)
    }


SHAPES = [(3, 2), (2, 1), (1, 3), (1, 1), (0, 2), (3, 0), (0, 0)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_onnx_model_gives_every_type_and_shape_back(server, shape):
    sent = every_type(shape)
    got = ask(server, "onnx", sent)
    for name, value in sent.items():
        answer = got["y" + name[1:]]
        assert answer.dtype == value.dtype
        np.testing.assert_array_equal(answer, value)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_users_model_in_python_needs_no_change(server, shape):
    sent = every_type(shape)
    got = ask(server, "users", sent)
    for name, value in sent.items():
        expected = np.concatenate([value[-1:], value[1:]]).T[::-1]
        assert got["y" + name[1:]].dtype == value.dtype
        np.testing.assert_array_equal(got["y" + name[1:]], expected)


def test_a_single_number_without_axes_is_served(server):
    np.testing.assert_array_equal(ask(server, "onnx", every_type((3, 2)))["total"], [21.0])


def test_strings_are_exchanged_or_refused_without_killing_the_model(server, numpy_version):
    strings = np.array([b"top", "größe".encode(), b""], dtype=object)
    for _ in range(2):
        if numpy_version == 1:
            np.testing.assert_array_equal(
                ask(server, "strings", {"x": strings})["y"], [b"TOP", "größe".encode().upper(), b""]
            )
        else:
            with pytest.raises(grpc.RpcError, match=r"'x' holds strings.*Python 3\.12 or older"):
                ask(server, "strings", {"x": strings})


def test_requests_leak_no_memory_and_write_no_log_lines(server):
    sent = {"x10": np.ones((500, 500), np.float32)}
    everything = every_type((0, 0)) | sent
    stubs = [each for each in psutil.Process(server.pid).children() if "onnx/1" in " ".join(each.cmdline())]
    assert stubs
    sizes, lines = [], []
    for count in (20, 100, 100):
        for _ in range(count):
            ask(server, "onnx", everything)
        sizes.append(sum(each.memory_full_info().uss for each in stubs))
        lines.append(server.log.read_bytes().count(b"\n"))
    assert sizes[2] - sizes[1] < 20e6  # a leak would be 100 MB
    assert lines[2] == lines[0]
