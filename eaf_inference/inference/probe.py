"""A few fixed rows or one fixed graph that any model can score: equal models give equal scores.

The values are those that a network sees after its recipe. They are the same on every machine and need no data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from eaf_inference.inference.lengths import Declared
from eaf_inference.inference.recipe import is_mask
from eaf_inference.inference.wire import sent_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from eaf_inference.inference.spec import ModelSpec, TensorSpec

__all__ = ["Probe", "Shape", "Values", "probe_of", "sampled", "shapes"]

_ROWS = 3  # positive values, values of both signs, and larger ones
_LENGTHS = (8, 32, 128, 512)  # constituents, nodes or edges; a network that looks for k neighbours needs more than k
_LARGE = 1 << 20  # bytes of a row of which one is enough
_LARGEST = 64 << 20  # bytes
_SAMPLED = 64  # values of an output

Number: TypeAlias = "int | float | str"  # text for NaN, infinities and strings
Values: TypeAlias = "tuple[tuple[int, ...], tuple[Number, ...]]"  # the shape of an output, and some of its values


@dataclass(frozen=True, slots=True)
class Shape:
    """How a probe is made.

    Attributes
    ----------
    length : int
        The size of axes of variable size, within what the model declares.
    plain : bool
        Integers are 0 and strings empty, and optional inputs are left out; for models that refuse anything else.
    cached : bool
        The server keeps replies, and gives them again when the model has been overwritten: there is one more row,
        whose values may be new each time.
    """

    length: int
    plain: bool = False
    cached: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """The inputs of one request; of its rows, the first `size` are always the same."""

    names: tuple[str, ...]
    tensors: tuple[NDArray[Any], ...]
    size: int

    remark = ""

    @property
    def nbytes(self) -> int:
        return sum(map(sent_size, self.tensors))

    @property
    def cells(self) -> float:
        return 0.0

    def halves(self) -> tuple[()]:
        return ()

    def repeated(self, times: int) -> Probe:
        """Return a probe with the same rows several times."""
        size = self.size
        tensors = tuple(np.concatenate([*[tensor[:size]] * times, tensor[size:]]) for tensor in self.tensors)
        return Probe(self.names, tensors, self.size * times)


def shapes(spec: ModelSpec, *, cached: bool = False) -> Iterator[Shape]:
    """Return how a model's probe may be made, the most telling first."""
    varies = any(-1 in tensor.shape for tensor in spec.inputs)
    lengths = _LENGTHS if varies else _LENGTHS[:1]
    for plain in (False, True):
        for length in lengths:
            yield Shape(length, plain, cached)


def probe_of(spec: ModelSpec, shape: Shape, *, fresh: bool = False) -> Probe | None:
    """Make a probe; None if it would be too large to be sent now and then, or would tell nothing.

    Parameters
    ----------
    spec : ModelSpec
    shape : Shape
    fresh : bool
        If the server keeps replies, make a probe for which it cannot have one.
    """
    wanted = [tensor for tensor in spec.inputs if not (shape.plain and tensor.optional)]
    sizes = {tensor.name: _sizes(spec, tensor, shape.length) for tensor in wanted}
    row_bytes = sum(math.prod(sizes[tensor.name]) * tensor.dtype.itemsize for tensor in wanted)
    rows = 1
    if spec.largest_batch:
        rows = min((_ROWS if row_bytes < _LARGE else 1) + shape.cached, spec.largest_batch)
        rows = next((size for size in spec.pad_batches_to if size >= rows), rows)
    if not wanted or row_bytes * rows > _LARGEST or (shape.cached and (rows == 1 or not _has_floats(spec))):
        return None
    around = (rows,) if spec.largest_batch else ()
    tensors = [
        _values(spec, tensor, (*around, *sizes[tensor.name]), place, plain=shape.plain)
        for place, tensor in enumerate(wanted)
    ]
    if spec.graph is not None:  # one graph
        nodes = sizes[spec.graph.nodes[0]][0]
        whole = {spec.graph.batch: np.zeros(nodes), spec.graph.ptr: np.array([0, nodes])}
        tensors = [
            whole[tensor.name].astype(tensor.dtype) if tensor.name in whole else values
            for tensor, values in zip(wanted, tensors, strict=True)
        ]
    if fresh and shape.cached:
        random = np.random.default_rng()
        for values in tensors:
            if values.dtype.kind == "f":  # masks too: what this row gives is not looked at
                values[-1] = random.uniform(0, 1, values[-1].shape)
    return Probe(tuple(tensor.name for tensor in wanted), tuple(tensors), rows - shape.cached)


def sampled(values: NDArray[Any]) -> Values:
    """Return the shape of an output, and at most 64 of its values, evenly spaced."""
    flat = values.reshape(-1)
    places = np.linspace(0, len(flat) - 1, min(len(flat), _SAMPLED)).round().astype(np.int64)
    return values.shape, tuple(map(_number, flat[places].tolist()))


def _number(value: Any) -> Number:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else str(value)
    return value if isinstance(value, str) else int(value)


def _has_floats(spec: ModelSpec) -> bool:
    return any(tensor.dtype.kind == "f" and not tensor.optional for tensor in spec.inputs)


def _sizes(spec: ModelSpec, tensor: TensorSpec, length: int) -> tuple[int, ...]:
    """Return the shape of an input whose axes of variable size have this length, or the nearest that it takes."""
    declared = next((each.declared for each in spec.collections if tensor.name in each.inputs), Declared())
    nearest = int(declared.unpadded.padded(length))
    if declared.maximum is not None:
        nearest = min(nearest, declared.maximum)
    return tuple(nearest if size == -1 else size for size in tensor.shape)


def _values(spec: ModelSpec, tensor: TensorSpec, shape: tuple[int, ...], place: int, *, plain: bool) -> NDArray[Any]:
    number = math.prod(shape)
    # Knuth's multiplicative hash, which is the same everywhere; numpy's generators may change
    hashed = (np.arange(1 + 7919 * place, 1 + 7919 * place + number, dtype=np.uint64) * 2654435761) % (1 << 32)
    if tensor.datatype == "BYTES":
        texts = [b"" if plain else b"%d" % (each >> 31) for each in hashed.tolist()]
        return np.array(texts, object).reshape(shape)
    if is_mask(tensor.name):
        return np.ones(shape, tensor.dtype)
    if tensor.dtype.kind != "f":  # often positions in a table, of which 0 and 1 exist
        return ((hashed >> 31) * (not plain)).astype(tensor.dtype).reshape(shape)
    signed = (hashed.astype(np.float64) / (1 << 31) - 1).reshape(shape)
    if spec.largest_batch:
        signed[::_ROWS] = np.abs(signed[::_ROWS])
        signed[2::_ROWS] *= 3
    _set_masks(spec, tensor, signed)
    return np.ascontiguousarray(signed, tensor.dtype)


def _set_masks(spec: ModelSpec, tensor: TensorSpec, values: NDArray[np.float64]) -> None:
    """Set the channels that are masks to 1."""
    variables: Mapping[str, Any] = spec.recipe.inputs if spec.recipe else {}
    channels = variables.get(tensor.name, ())
    masks = [at for at, variable in enumerate(channels) if variable.is_mask]
    if len(masks) == len(channels):
        values[...] = 1 if masks else values
    elif len(channels) in tensor.shape:
        axis = values.ndim - len(tensor.shape) + tensor.shape.index(len(channels))
        np.moveaxis(values, axis, 0)[masks] = 1
