"""What an ONNX file says of itself: inputs, outputs, versions and where its weights are, read without the weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from eaf_inference.deploy.onnx_wire import NotOnnx, content_of
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from eaf_inference.deploy.onnx_wire import Content

__all__ = ["OnnxFile", "OnnxTensor"]

# ONNX's number of a data type -> Triton's name. Others cannot be sent to Triton's ONNX Runtime backend.
_DATATYPES = {
    1: "FP32",
    2: "UINT8",
    3: "INT8",
    4: "UINT16",
    5: "INT16",
    6: "INT32",
    7: "INT64",
    8: "BYTES",
    9: "BOOL",
    10: "FP16",
    11: "FP64",
    12: "UINT32",
    13: "UINT64",
}
# What a file is that is no ONNX model, by its first bytes, and what to do.
_OTHERS = (
    (b"PK\x03\x04", "a TorchScript, torch.export or Keras archive", "Give it the extension .pt, .pt2 or .keras"),
    (
        b"version https://git-lfs",
        "a Git LFS pointer instead of the model",
        "Get the model itself with `git lfs pull`",
    ),
    (b"\x89HDF", "an HDF5 file", "Load it with Keras, and export it with model.export(PATH, format='onnx')"),
    (b"\x80", "a pickle, which is never loaded", "Load it yourself, and pass the estimator or module"),
    (b"\x1f\x8b", "compressed", "Unpack it"),
    (b"<", "a web page or XML", "Download the model itself"),
)


@dataclass(frozen=True, slots=True)
class OnnxTensor:
    """One input or output.

    Attributes
    ----------
    name : str
    datatype : str
        Triton's name of it, such as ``FP32``, as in `TensorSpec`.
    dims : tuple of int
        All axes, with -1 for those of free size.
    symbols : tuple of str
        The names of the free axes; empty for fixed and for unnamed ones. Axes of one name have one size.
    """

    name: str
    datatype: str
    dims: tuple[int, ...]
    symbols: tuple[str, ...] = ()

    def __str__(self) -> str:
        sizes = (
            name or str(size) for name, size in zip(self.symbols or [""] * len(self.dims), self.dims, strict=True)
        )
        return f"{self.name}: {self.datatype} [{', '.join(sizes)}]"


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """One ONNX model.

    Attributes
    ----------
    inputs, outputs : tuple of OnnxTensor
        What a caller gives and gets; weights that are listed as inputs are left out.
    opset : mapping of str to int
        The version by domain; ONNX's own domain is the empty text.
    ir_version : int
    external_data : mapping of str to int
        For each other file that holds weights, relative to the directory of this one: the bytes that are needed of
        it, or 0 if the file does not say. As written in the file, so possibly outside of the directory.
    feature_names : mapping of str to tuple of str
        Names of an input's columns, from the file's metadata.
    size : int
        Bytes of the file itself.
    path : Path or None
    """

    inputs: tuple[OnnxTensor, ...]
    outputs: tuple[OnnxTensor, ...]
    opset: Mapping[str, int] = field(default_factory=dict)
    ir_version: int = 0
    external_data: Mapping[str, int] = field(default_factory=dict)
    feature_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    size: int = 0
    path: Path | None = None

    @property
    def batched(self) -> bool:
        """Whether the first axis of every input and output is free, so that it can count rows."""
        return all(tensor.dims[:1] == (-1,) for tensor in (*self.inputs, *self.outputs))

    @property
    def is_contained(self) -> bool:
        """Whether every other file that it needs is in its directory or below, by name."""
        return all(
            location
            and "\\" not in location
            and not PurePosixPath(location).is_absolute()
            and ".." not in PurePosixPath(location).parts
            for location in self.external_data
        )

    @property
    def shared_axes(self) -> dict[str, tuple[str, ...]]:
        """The inputs, two or more, whose only free axis after the first has one name, by this name."""
        found: dict[str, list[str]] = {}
        for tensor in self.inputs:
            free = [symbol for size, symbol in zip(tensor.dims[1:], tensor.symbols[1:], strict=False) if size == -1]
            if len(free) == 1 and free[0]:
                found.setdefault(free[0], []).append(tensor.name)
        return {symbol: tuple(names) for symbol, names in found.items() if len(names) > 1}

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> OnnxFile:
        """Read a file, without its weights and without any other file.

        Raises
        ------
        ConfigurationError
            It is no ONNX model, or has inputs or outputs that Triton cannot send; the message says what to do.
        """
        try:
            import onnx  # noqa: F401
        except ImportError as error:
            raise ConfigurationError(
                "ONNX files are read with the package onnx, which is not installed. Install it with "
                "pip install 'eaf-inference[deploy]'."
            ) from error
        path = Path(path).expanduser()
        try:
            found, size = content_of(path), path.stat().st_size
        except OSError as error:
            raise ConfigurationError(
                f"The ONNX file {path} cannot be read: {error.strerror or error}. Expected a file that you may read."
            ) from error
        except NotOnnx as error:
            raise ConfigurationError(f"The file {path.name} {_what_it_is(path, error)}.") from error
        if not found.graphs or not found.outputs:
            raise ConfigurationError(
                f"The file {path.name} {_what_it_is(path, 'is no ONNX model: it has no graph')}."
            )
        inputs = tuple(_tensor(path, "input", each) for each in found.inputs if each.name not in found.initializers)
        if not inputs:
            raise ConfigurationError(
                f"The ONNX model {path.name} takes no input: its outputs are constants. Export it with the example "
                "as an argument of the model's call."
            )
        return cls(
            inputs,
            tuple(_tensor(path, "output", each) for each in found.outputs),
            found.opset,
            found.ir_version,
            found.external,
            _feature_names(found, inputs),
            size,
            path,
        )

    def inferred(self) -> OnnxFile:
        """Return the same with the sizes that ONNX Runtime finds for axes which the file leaves free.

        Triton compares its configuration with these. Where ONNX Runtime is missing or cannot open the file, nothing
        changes. Loads the weights.
        """
        if self.path is None or not self.is_contained:
            return self
        try:
            import onnxruntime
        except ImportError:
            return self
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        except Exception:  # noqa: BLE001 - any error of ONNX Runtime; the checks of the model report it
            return self
        shapes = {node.name: node.shape for node in (*session.get_inputs(), *session.get_outputs())}
        return replace(
            self,
            inputs=tuple(_with_sizes(tensor, shapes.get(tensor.name)) for tensor in self.inputs),
            outputs=tuple(_with_sizes(tensor, shapes.get(tensor.name)) for tensor in self.outputs),
        )


def _with_sizes(tensor: OnnxTensor, shape: Sequence[object] | None) -> OnnxTensor:
    if shape is None or len(shape) != len(tensor.dims):
        return tensor
    dims = tuple(
        found if size == -1 and isinstance(found, int) and found > 0 else size
        for size, found in zip(tensor.dims, shape, strict=True)
    )
    symbols = tuple(symbol if size == -1 else "" for size, symbol in zip(dims, tensor.symbols, strict=True))
    return replace(tensor, dims=dims, symbols=symbols)


def _what_it_is(path: Path, otherwise: object) -> str:
    with path.open("rb") as file:
        start = file.read(64)
    for first, what, remedy in _OTHERS:
        if start.startswith(first):
            return f"is {what}. Expected an ONNX model. {remedy}"
    return f"{otherwise}. Expected an ONNX model. {getattr(otherwise, 'do', NotOnnx.do)}"


def _tensor(path: Path, kind: str, info: Any) -> OnnxTensor:
    from onnx import TensorProto

    what = f"The {kind} {info.name!r} of {path.name}"
    value = info.type.WhichOneof("value")
    if value != "tensor_type":
        found = {"sequence_type": "a sequence", "map_type": "a map", "optional_type": "optional"}
        raise ConfigurationError(
            f"{what} is {found.get(value, 'no dense tensor')}. Triton sends tensors only. Export the model without "
            "it; for probabilities of scikit-learn and LightGBM: to_onnx(..., options={'zipmap': False}) or "
            "convert_lightgbm(..., zipmap=False)."
        )
    number = info.type.tensor_type.elem_type
    if number not in _DATATYPES:
        known = {each: name for name, each in TensorProto.DataType.items()}
        raise ConfigurationError(
            f"{what} has the data type {known.get(number, number)}. Triton's ONNX Runtime takes "
            f"{', '.join(_DATATYPES.values())}. Cast it in the model, to float32 for instance, and export it again."
        )
    if not info.type.tensor_type.HasField("shape"):
        raise ConfigurationError(
            f"{what} has no shape. Expected the number of its axes. Export it with shapes, or add them with "
            f"onnx.shape_inference.infer_shapes_path({path.name!r})."
        )
    axes = info.type.tensor_type.shape.dim
    dims = tuple(axis.dim_value if axis.HasField("dim_value") and axis.dim_value >= 0 else -1 for axis in axes)
    if 0 in dims:
        raise ConfigurationError(
            f"{what} has the shape {list(dims)}, so it is always empty. Export the model with an example that has "
            "rows and constituents."
        )
    return OnnxTensor(info.name, _DATATYPES[number], dims, tuple(axis.dim_param for axis in axes))


def _feature_names(found: Content, inputs: Sequence[OnnxTensor]) -> dict[str, tuple[str, ...]]:
    """Read the names in the metadata; a list is for the only input. What cannot be read names nothing."""
    try:
        names = json.loads(found.metadata.get("feature_names", "null"))
    except (ValueError, RecursionError):
        return {}
    if isinstance(names, list) and len(inputs) == 1:
        names = {inputs[0].name: names}
    if not isinstance(names, dict):
        return {}
    known = {tensor.name for tensor in inputs}
    return {
        name: tuple(own)
        for name, own in names.items()
        if name in known and isinstance(own, list) and all(isinstance(each, str) and each for each in own)
    }
