"""Nodes of an ONNX graph that often mix the rows of a batch, draw random numbers or fix a size.

They are named in findings, so that a user finds the line of her network; nothing is concluded from them alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["fixing_size", "mixing_rows", "randomness"]

_SHOWN = 3
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
_OVER_AXES = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd")


def mixing_rows(path: Path) -> str:
    """Return a sentence about nodes that may mix rows; empty if none is known to."""
    return _named(
        path,
        lambda node, constants: (
            _is_training(node)
            or (
                node.op_type in ("Softmax", "LogSoftmax", "Hardmax", "ArgMax", "TopK")
                and _attribute(node, "axis", -1) == 0
            )
            or (node.op_type == "CumSum" and _constant(node, 1, constants) == [0])
            or (node.op_type in _OVER_AXES and 0 in _axes(node, constants))
            or node.op_type == "DynamicQuantizeLinear"
        ),
    )


def randomness(path: Path) -> str:
    """Return a sentence about nodes that draw random numbers; empty if there is none."""
    return _named(path, lambda node, _: node.op_type in (*_RANDOM, "Dropout") or _is_training(node))


def fixing_size(path: Path) -> str:
    """Return a sentence about nodes that fix the first axis; empty if there is none."""
    return _named(
        path,
        lambda node, constants: (
            node.op_type in ("Reshape", "Expand")
            and (_constant(node, 1, constants) or [-1])[0] > 0
            and len(_constant(node, 1, constants)) > 1
        ),
    )


def _is_training(node: Any) -> bool:
    return bool(node.op_type == "BatchNormalization" and _attribute(node, "training_mode", 0) == 1)


def _named(path: Path, fits: Any) -> str:
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception:  # noqa: BLE001 - what is wrong with the file is a finding of its own
        return ""
    constants = _constants(model.graph)
    names = [
        f"{node.name or node.output[0]!r} ({node.op_type})" for node in _nodes(model.graph) if fits(node, constants)
    ]
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} others" if len(names) > _SHOWN else ""
    return f" Look at the node{'s' if len(names) > 1 else ''} {', '.join(names[:_SHOWN])}{more}."


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _constants(graph: Any) -> dict[str, list[int]]:
    """Return the small integer constants by name."""
    from onnx import numpy_helper

    found = {each.name: each for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    found[node.output[0]] = attribute.t
    return {
        name: numpy_helper.to_array(tensor).reshape(-1).tolist()
        for name, tensor in found.items()
        if tensor.data_type in (6, 7) and len(tensor.dims) <= 1 and not tensor.external_data
    }


def _constant(node: Any, at: int, constants: dict[str, list[int]]) -> list[int]:
    return constants.get(node.input[at], []) if len(node.input) > at else []


def _attribute(node: Any, name: str, default: Any) -> Any:
    import onnx

    found = next((each for each in node.attribute if each.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)


def _axes(node: Any, constants: dict[str, list[int]]) -> list[int]:
    """Return the axes that a reduction goes over; all axes count as the first one too."""
    axes = list(_attribute(node, "axes", [])) or _constant(node, 1, constants)
    if axes or (len(node.input) > 1 and node.input[1]):
        return axes
    return [] if _attribute(node, "noop_with_empty_axes", 0) else [0]
