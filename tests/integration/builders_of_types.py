"""Models with tensors of types other than numbers that numpy knows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeAlias

import onnx
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Tensors: TypeAlias = Sequence[tuple[str, str, tuple[int, ...]]]

NODE = helper.make_node
_ONNX = {
    "STRING": TensorProto.STRING,
    "FP32": TensorProto.FLOAT,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
}

# Triton's Python backend exchanges bfloat16 by DLPack alone, and numpy reads its bits once the capsule says uint16.
_HALVES = """
import ctypes
import numpy as np
import triton_python_backend_utils as pb_utils

class Tensor(ctypes.Structure):  # DLPack's DLTensor
    _fields_ = [("data", ctypes.c_void_p), ("device", ctypes.c_int * 2), ("axes", ctypes.c_int),
                ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]

UINT, BFLOAT = 1, 4
pointer = ctypes.pythonapi.PyCapsule_GetPointer
pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
USED = b"used_dltensor"
rename = ctypes.pythonapi.PyCapsule_SetName
rename.restype, rename.argtypes = ctypes.c_int, (ctypes.py_object, ctypes.c_char_p)

class Capsule:
    def __init__(self, capsule, code):
        self.capsule = capsule
        Tensor.from_address(pointer(capsule, b"dltensor")).code = code
    def __dlpack__(self, **_):
        return self.capsule
    def __dlpack_device__(self):
        return 1, 0

def read(tensor):
    bits = np.from_dlpack(Capsule(tensor.to_dlpack(), UINT))
    return (bits.astype("<u4") << 16).view("<f4")

def as_tensor(name, values):
    bits = values.view("<u4")
    near = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")
    capsule = Capsule(near.__dlpack__(), BFLOAT).capsule
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    rename(capsule, USED)  # as in eaf_facility/servers/python_backend/numpy2_tensors.py
    return tensor

class TritonPythonModel:
    def execute(self, requests):
        replies = []
        for request in requests:
            x = read(pb_utils.get_input_tensor_by_name(request, "x"))
            y = np.stack([2 * row.sum(axis=1) for row in x]) if len(x) else np.zeros((0, 2), "f4")
            replies.append(pb_utils.InferenceResponse([as_tensor("y", np.ascontiguousarray(y, "f4"))]))
        return replies
"""


def save_halves(directory: Path, *, variables: Sequence[str] = ()) -> None:
    """Save a model of bfloat16 [2, -1] that doubles each channel's sum; a recipe triples the variables."""
    config = """
backend: "python"
max_batch_size: 64
input [{ name: "x", data_type: TYPE_BF16, dims: [2, -1] }]
output [{ name: "y", data_type: TYPE_BF16, dims: [2] }]
"""
    if variables:
        infos = {name: {"median": 0.0, "norm_factor": 3.0} for name in variables}
        recipe = {"input_names": ["x"], "x": {"var_names": list(variables), "var_infos": infos}}
        text = json.dumps(json.dumps(recipe))
        config += f'parameters {{ key: "preprocess" value: {{ string_value: {text} }} }}\n'
    (directory / "1").mkdir(parents=True)
    (directory / "config.pbtxt").write_text(config)
    (directory / "1" / "model.py").write_text(_HALVES)


def save_onnx(
    directory: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Tensors,
    outputs: Tensors,
    *,
    batched: bool = True,
    more: str = "",
) -> Path:
    """Save an ONNX model, and return its file. A tensor is (name, Triton type, shape without a batch axis)."""

    def infos(tensors: Tensors) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(
                name,
                _ONNX[kind],
                [*(["n"] * batched), *(f"{name}_{axis}" if size == -1 else size for axis, size in enumerate(shape))],
            )
            for name, kind, shape in tensors
        ]

    graph = helper.make_graph(list(nodes), directory.name, infos(inputs), infos(outputs))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    file = directory / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), file)
    sections = [("input", each) for each in inputs] + [("output", each) for each in outputs]
    (directory / "config.pbtxt").write_text(
        f'backend: "onnxruntime"\nmax_batch_size: {64 if batched else 0}\n{more}'
        + "".join(
            f'{section} {{ name: "{name}", data_type: TYPE_{kind}, dims: {list(shape)} }}\n'
            for section, (name, kind, shape) in sections
        )
    )
    return file


def save_tags(repository: Path) -> Path:
    """Save `tags`: the names [2] come back, with a number for each name, and each channel's sum of x [2, -1]."""
    nodes = [
        NODE("Identity", ["name"], ["same"]),
        NODE(
            "LabelEncoder",
            ["name"],
            ["number"],
            domain="ai.onnx.ml",
            keys_strings=["top", "größe", ""],
            values_floats=[1.0, 2.0, 3.0],
            default_float=-1.0,
        ),
        NODE("Constant", [], ["axis"], value_ints=[2]),
        NODE("ReduceSum", ["x", "axis"], ["total"], keepdims=0),
    ]
    inputs = [("name", "STRING", (2,)), ("x", "FP32", (2, -1))]
    outputs = [("same", "STRING", (2,)), ("number", "FP32", (2,)), ("total", "FP32", (2,))]
    return save_onnx(repository / "tags", nodes, inputs, outputs)


def save_spelled(repository: Path) -> Path:
    """Save `spelled`: the digits of each whole number of x [-1], and nothing else."""
    return save_onnx(
        repository / "spelled",
        [NODE("Cast", ["x"], ["y"], to=TensorProto.STRING)],
        [("x", "INT32", (-1,))],
        [("y", "STRING", (-1,))],
    )
