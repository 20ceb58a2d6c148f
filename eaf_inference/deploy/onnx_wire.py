"""Read what is needed of an ONNX file without its weights: a file of gigabytes takes no memory.

An ONNX file is one protobuf message, up to 2 GiB. Parsing it as a whole copies every weight. Here only the outer
levels are walked on the mapped file; what is small, such as an input's type or a node, is given to `onnx`.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["Content", "NotOnnx", "content_of"]

# Numbers of fields in onnx.proto
_IR_VERSION, _OPSET_IMPORT, _GRAPH, _METADATA, _TRAINING, _FUNCTION = 1, 8, 7, 14, 20, 25  # of a model
_NODE, _INITIALIZER, _SPARSE, _INPUT, _OUTPUT = 1, 5, 15, 11, 12  # of a graph
_TENSOR_NAME, _EXTERNAL, _LOCATION = 8, 13, 14  # of a tensor
_INITIALIZATION, _ALGORITHM = 1, 2  # the graphs of a training
_VALUES, _INDICES = 1, 2  # of a sparse tensor
_VARINT, _EIGHT_BYTES, _COUNTED, _FOUR_BYTES = 0, 1, 2, 5  # protobuf's wire types
_LONGEST_VARINT = 10  # bytes
_MOST_NODES = 1_000_000


class NotOnnx(ValueError):
    """The bytes are not those of an ONNX model; the message is the rest of a sentence about the file.

    Attributes
    ----------
    do : str
        What to do.
    """

    do: str = "Export it again, or copy it again if the copy stopped early"


class EndlessFunctions(NotOnnx):
    """The model's functions call each other too often to be written out."""

    do = "Export it without functions, or write them out with onnx.inliner.inline_local_functions"


@dataclass(slots=True)
class Content:
    """What a file holds besides its weights.

    Attributes
    ----------
    inputs, outputs : list of onnx.ValueInfoProto
    initializers : set of str
        The names of weights, which may be listed among the inputs.
    opset, metadata : dict
    external : dict of str to int
        Location -> bytes that the model needs of that file; 0 for all of it.
    calls : list of str
        What the nodes of the graphs call: domain, operator or function, and overload.
    functions : dict of str to list of str
        The same of the nodes of each function of the file.
    """

    ir_version: int = 0
    opset: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    initializers: set[str] = field(default_factory=set)
    external: dict[str, int] = field(default_factory=dict)
    graphs: int = 0
    calls: list[str] = field(default_factory=list)
    functions: dict[str, list[str]] = field(default_factory=dict)


def content_of(path: Path) -> Content:
    """Read a file.

    Raises
    ------
    NotOnnx
    OSError
    """
    from google.protobuf.message import DecodeError

    found = Content()
    with _mapped(path) as data:
        try:
            _read_model(data, found)
        except (DecodeError, UnicodeDecodeError) as error:
            raise NotOnnx(f"is damaged, or no ONNX model ({error})") from error
    _check_functions(found)
    return found


@contextmanager
def _mapped(path: Path) -> Iterator[mmap]:
    with path.open("rb") as file:
        if not file.seek(0, 2):
            raise NotOnnx("is empty")
        with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            yield data


def _read_model(data: mmap, found: Content) -> None:
    import onnx

    for number, value in _fields(data, 0, len(data)):
        if number == _IR_VERSION and isinstance(value, int):
            found.ir_version = value
        elif number == _OPSET_IMPORT:
            opset = onnx.OperatorSetIdProto.FromString(_bytes(data, value))
            found.opset["" if opset.domain == "ai.onnx" else opset.domain] = opset.version
        elif number == _METADATA:
            entry = onnx.StringStringEntryProto.FromString(_bytes(data, value))
            found.metadata[entry.key] = entry.value
        elif number == _GRAPH:
            found.graphs += 1
            _read_graph(data, value, found, main=True)
        elif number == _TRAINING:
            for part, graph in _fields(data, *_span(value)):
                if part in (_INITIALIZATION, _ALGORITHM):
                    _read_graph(data, graph, found, main=False)
        elif number == _FUNCTION:
            function = onnx.FunctionProto.FromString(_bytes(data, value))
            own = found.functions.setdefault(_called(function, function.name), [])
            _note_nodes(function.node, found, own)


def _read_graph(data: mmap, value: int | tuple[int, int], found: Content, *, main: bool) -> None:
    import onnx

    for number, inner in _fields(data, *_span(value)):
        if number == _NODE:
            _note_nodes([onnx.NodeProto.FromString(_bytes(data, inner))], found, found.calls)
        elif number == _INITIALIZER:
            _read_tensor(data, inner, found, main=main)
        elif number == _SPARSE:
            for part, tensor in _fields(data, *_span(inner)):
                if part in (_VALUES, _INDICES) and isinstance(tensor, tuple):
                    _read_tensor(data, tensor, found, main=main)
        elif number in (_INPUT, _OUTPUT) and main:
            info = onnx.ValueInfoProto.FromString(_bytes(data, inner))
            for text in (info.name, *(axis.dim_param for axis in info.type.tensor_type.shape.dim)):
                _text(text)
            (found.inputs if number == _INPUT else found.outputs).append(info)


def _read_tensor(data: mmap, value: int | tuple[int, int], found: Content, *, main: bool) -> None:
    """Note a weight's name and where it is stored, and skip its numbers."""
    import onnx

    short = onnx.TensorProto()
    for number, inner in _fields(data, *_span(value)):
        if number == _TENSOR_NAME:
            short.name = _bytes(data, inner).decode()
        elif number == _EXTERNAL:
            short.external_data.append(onnx.StringStringEntryProto.FromString(_bytes(data, inner)))
        elif number == _LOCATION and isinstance(inner, int):
            short.data_location = onnx.TensorProto.EXTERNAL if inner else onnx.TensorProto.DEFAULT
    if main:
        found.initializers.add(short.name)
    _note_external(short, found)


def _note_nodes(nodes: Iterable[Any], found: Content, calls: list[str]) -> None:
    """Note what nodes call and the external data in their attributes, and of the nodes of graphs inside them."""
    for node in nodes:
        calls.append(_called(node, node.op_type))
        for attribute in node.attribute:
            for tensor in (attribute.t, *attribute.tensors):
                _note_external(tensor, found)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                _note_external(sparse.values, found)
                _note_external(sparse.indices, found)
            for graph in (attribute.g, *attribute.graphs):
                for tensor in graph.initializer:
                    _note_external(tensor, found)
                for sparse in graph.sparse_initializer:
                    _note_external(sparse.values, found)
                    _note_external(sparse.indices, found)
                _note_nodes(graph.node, found, calls)


def _called(message: Any, name: str) -> str:
    """Return what a node calls, or a function is: its overload too, as functions of one name may call each other."""
    return f"{message.domain} {name} {getattr(message, 'overload', '')}".rstrip()


def _check_functions(found: Content) -> None:
    """Check that the graph stays small when each call of a function is replaced by its nodes, as ONNX Runtime does.

    Raises
    ------
    EndlessFunctions
        It does not, or functions call each other in a circle.
    """
    if not found.functions:
        return
    order = TopologicalSorter({name: found.functions.keys() & set(calls) for name, calls in found.functions.items()})
    sizes: dict[str, int] = {}
    try:
        for name in order.static_order():
            nodes = sum(sizes.get(each, 1) for each in found.functions[name])
            sizes[name] = min(nodes, _MOST_NODES + 1)  # a number of thousands of digits cannot be written
    except CycleError as error:
        raise EndlessFunctions(
            f"has functions that call each other in a circle: {', '.join(error.args[1])[:200]}"
        ) from error
    nodes = sum(sizes.get(each, 1) for each in found.calls)
    if nodes > _MOST_NODES:
        raise EndlessFunctions(f"has more than {_MOST_NODES:,} nodes, with those of its functions at each call")


def _note_external(tensor: Any, found: Content) -> None:
    if not tensor.external_data and not tensor.data_location:
        return
    said = {entry.key: entry.value for entry in tensor.external_data}
    try:
        offset, length = int(said.get("offset") or 0), int(said.get("length") or 0)
    except ValueError as error:
        raise NotOnnx(f"is damaged: the place of the weights {tensor.name!r} is no number ({error})") from error
    location = _text(said.get("location", ""))
    needed = offset + length if length else offset
    found.external[location] = max(found.external.get(location, 0), needed)


def _fields(data: mmap, start: int, end: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """Yield the fields of a message: the number, and its value if that is an integer, or where its bytes are."""
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        if not number:  # as in zeros, which an upload that stopped may leave
            raise NotOnnx("is cut off, or no ONNX model")
        if kind == _VARINT:
            value, at = _varint(data, at, end)
            yield number, value
            continue
        if kind == _COUNTED:
            length, at = _varint(data, at, end)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise NotOnnx("is no ONNX model")
        if at + length > end:
            if end == len(data) and kind == _COUNTED and number == _GRAPH:
                raise NotOnnx(f"is cut off: it has {end:,} bytes, and its graph ends at {at + length:,}")
            raise NotOnnx("is cut off, or no ONNX model")
        yield number, (at, at + length)
        at += length


def _varint(data: mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for place in range(_LONGEST_VARINT):
        if at + place >= end:
            raise NotOnnx("is cut off, or no ONNX model")
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise NotOnnx("is no ONNX model")


def _text(text: str | bytes) -> str:
    """Return a text of a message: protobuf gives bytes if it is not UTF-8."""
    if isinstance(text, bytes):
        raise NotOnnx(f"is damaged: its text {text[:100]!r} is not UTF-8")
    return text


def _span(value: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(value, int):
        raise NotOnnx("is no ONNX model")
    return value


def _bytes(data: mmap, value: int | tuple[int, int]) -> bytes:
    start, end = _span(value)
    return data[start:end]
