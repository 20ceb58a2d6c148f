"""Write tiny ONNX models and their configurations, in milliseconds, as cases for the checks of models."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
ROWS = np.random.default_rng(7).normal(size=(20, 2)).astype("f4")


@dataclass(frozen=True)
class Case:
    """One model.

    Attributes
    ----------
    make : callable
        Writes it into a directory, whose name is the model's.
    code : str
        The only finding that is expected; empty for a good model.
    fix : tuple of str
        Words of the remedy.
    example : Any
        None for generated rows.
    """

    make: Callable[[Path], None]
    code: str = ""
    fix: tuple[str, ...] = ()
    example: Any = None
    directory: str = "tagger"
    rules: dict[str, Any] = field(default_factory=dict)


BROKEN: dict[str, Case] = {}
GOOD: dict[str, Case] = {}


def broken(code: str, *fix: str, example: Any = None, directory: str = "tagger", **rules: Any):
    """Register the function below as a broken model."""

    def register(make: Callable[[Path], None]) -> Callable[[Path], None]:
        BROKEN[make.__name__] = Case(make, code, fix, example, directory, rules)
        return make

    return register


def good(*, example: Any = None, **rules: Any):
    """Register the function below as a good model."""

    def register(make: Callable[[Path], None]) -> Callable[[Path], None]:
        GOOD[make.__name__] = Case(make, example=example, rules=rules)
        return make

    return register


def tensor(name: str, *shape: int | str, kind: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


def constant(name: str, values: Any, kind: int = FLOAT) -> Any:
    return numpy_helper.from_array(np.asarray(values, helper.tensor_dtype_to_np_dtype(kind)), name)


def node(kind: str, inputs: str, outputs: str = "y", **more: Any) -> Any:
    return helper.make_node(kind, inputs.split(), outputs.split(), **more)


def graph_of(nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], constants: Sequence[Any] = ()):
    graph = helper.make_graph(list(nodes), "tiny", list(inputs), list(outputs), list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def dims(kind: str, name: str, shape: Sequence[int], datatype: str = "FP32") -> str:
    return f'{kind} {{ name: "{name}" data_type: TYPE_{datatype} dims: {list(shape)} }}\n'


def config(*tensors: str, size: int = 64, **parameters: Any) -> str:
    """Write a configuration; the tensors are those of `dims`."""
    text = f'backend: "onnxruntime"\nmax_batch_size: {size}\n' + "".join(tensors)
    for key, value in parameters.items():
        quoted = json.dumps(value if isinstance(value, str) else json.dumps(value))
        text += f'parameters {{ key: "{key}" value {{ string_value: {quoted} }} }}\n'
    return text


X2, Y2 = dims("input", "x", [2]), dims("output", "y", [2])
DOUBLE = [node("Add", "x x")]
JAGGED = dims("input", "x", [2, -1])


def save(directory: Path, model: Any, text: str | None = config(X2, Y2), *, version: str = "1") -> None:
    (directory / version).mkdir(parents=True)
    onnx.save(model, directory / version / "model.onnx")
    if text is not None:
        (directory / "config.pbtxt").write_text(text, encoding="utf-8")


def double(rows: int | str = "rows", **change: Any) -> Any:
    model = graph_of(DOUBLE, [tensor("x", rows, 2)], [tensor("y", rows, 2)])
    for name, value in change.items():
        setattr(model, name, value)
    return model


def dense(nodes: Sequence[Any], constants: Sequence[Any] = (), outputs: Sequence[Any] | None = None) -> Any:
    """Make a model of two numbers per row."""
    return graph_of(nodes, [tensor("x", "rows", 2)], outputs or [tensor("y", "rows", 2)], constants)


def jagged(nodes: Sequence[Any], constants: Sequence[Any] = ()) -> Any:
    """Make a model of two variables of each constituent, with two scores per row."""
    axes = constant("axes", [2], INT64)
    return graph_of(nodes, [tensor("x", "rows", 2, "n")], [tensor("y", "rows", 2)], [axes, *constants])


def recipe(names: Sequence[str] = ("pt", "eta"), *, inputs: str = "x", **lengths: int) -> str:
    return json.dumps({"input_names": [inputs], inputs: {"var_names": list(names), **lengths}})
