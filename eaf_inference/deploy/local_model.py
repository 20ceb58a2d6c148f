"""A model that runs here, in ONNX Runtime, in place of the server.

It takes the batches that the client would send and gives the outputs that the client would read, so that the checks
and the expected scores use the client's own code.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference._text import printable, shortened
from eaf_inference.errors import BadReply, ConfigurationError, InvalidInput
from eaf_inference.inference.spec import DTYPES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from eaf_inference.errors import InferenceError
    from eaf_inference.inference.request import Sendable
    from eaf_inference.inference.spec import ModelSpec, TensorSpec

__all__ = ["Endless", "LocalModel", "WrongOutput", "reason"]

_MOST_THREADS = 8
_MOST_SECONDS = 300  # for one request
_LOOK_EVERY = 1.0  # seconds
_SHOWN = 400  # characters of a message of ONNX Runtime
_QUIET = 4  # ONNX Runtime logs what is fatal only; its errors are raised


class Endless(ConfigurationError):
    """The model does not give scores in reasonable time, such as one with a loop that does not end."""


class WrongOutput(BadReply):
    """An output does not have the declared shape or type.

    Attributes
    ----------
    rows : int or None
        The entries along its first axis, if that alone is wrong; it should have one for each row.
    """

    rows: int | None = None


class LocalModel:
    """An ONNX model in ONNX Runtime on this machine's CPU.

    Parameters
    ----------
    path : pathlib.Path
        The ONNX file.
    spec : ModelSpec

    Raises
    ------
    ConfigurationError
        ONNX Runtime does not load it, or the model has a data type that cannot be computed here.
    """

    def __init__(self, path: Path, spec: ModelSpec) -> None:
        import onnxruntime

        unsupported = [each for each in (*spec.inputs, *spec.outputs) if each.datatype == "BF16"]
        if unsupported:
            raise ConfigurationError(f"{unsupported[0]} cannot be computed here: numpy has no bfloat16.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = min(_cores(), _MOST_THREADS)
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = _QUIET
        self.path = path
        self.spec = spec
        self._outputs = [each.name for each in spec.outputs]
        try:
            self._session = onnxruntime.InferenceSession(
                str(path),
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=0,  # it prints a second attempt
            )
        except Exception as error:  # each of its errors has a class of its own, without a common base
            raise ConfigurationError(f"ONNX Runtime does not load it: {reason(error)}") from error
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = _QUIET
        self._began: list[float] = []  # when the request began that runs
        ended = threading.Event()
        weakref.finalize(self, ended.set)
        threading.Thread(target=_watch, args=(self._began, self._options, ended), daemon=True).start()

    def run(self, sent: Sendable) -> dict[str, NDArray[Any]]:
        """Return the outputs of a batch or union, as the client reads them from a reply.

        Raises
        ------
        InvalidInput
            The model refuses it.
        WrongOutput
            An output does not have the declared shape or type.
        Endless
            It takes too long.
        """
        types = {each.name: each.datatype for each in self.spec.inputs}
        feeds = {name: _fed(tensor, types[name]) for name, tensor in zip(sent.names, sent.tensors, strict=True)}
        values = self._outputs_of(feeds)
        batched = self.spec.largest_batch > 0
        rows = len(sent.tensors[0]) if batched else None  # with copies that fill the batch
        found = {spec.name: _checked(spec, each, rows) for spec, each in zip(self.spec.outputs, values, strict=True)}
        return {name: each[: sent.size] if batched else each[None] for name, each in found.items()}

    def _outputs_of(self, feeds: dict[str, NDArray[Any]]) -> Any:
        self._began.append(time.monotonic())
        try:
            return self._session.run(self._outputs, feeds, self._options)
        except Exception as error:
            if self._options.terminate:
                raise Endless(f"it has not scored one request within {_MOST_SECONDS} s") from error
            raise InvalidInput(reason(error)) from error
        finally:
            self._began.clear()

    def send(self, batches: Sequence[Sendable]) -> list[dict[str, NDArray[Any]] | InferenceError]:
        """Run several, and return for each its outputs or the model's refusal."""
        outcomes: list[dict[str, NDArray[Any]] | InferenceError] = []
        for each in batches:
            try:
                outcomes.append(self.run(each))
            except (InvalidInput, BadReply) as error:
                outcomes.append(error)
        return outcomes


def _watch(began: list[float], options: Any, ended: threading.Event) -> None:
    """End a request that takes too long: Python cannot interrupt it."""
    while not ended.wait(_LOOK_EVERY):
        if any(time.monotonic() - each > _MOST_SECONDS for each in began[:]):
            options.terminate = True
            return


def reason(error: Exception) -> str:
    """Return the message of ONNX Runtime without its prefixes and without a final period."""
    text = printable(str(error)).strip()
    text = text.rpartition("Status Message: ")[2] or text
    if text.startswith("[ONNXRuntimeError]"):
        text = text.split(" : ", 3)[-1]
    return shortened(text.removesuffix("."), _SHOWN)


def _fed(tensor: NDArray[Any], datatype: str) -> NDArray[Any]:
    if datatype != "BYTES":
        return tensor
    texts = [each.decode("utf-8", "replace") for each in tensor.reshape(-1).tolist()]
    return np.array(texts, object).reshape(tensor.shape)


def _checked(spec: TensorSpec, values: Any, rows: int | None) -> NDArray[Any]:
    """Check an output's shape and type; `rows`: how many it should have, if an axis counts them."""
    declared = spec.shape if rows is None else (rows, *spec.shape)
    if not isinstance(values, np.ndarray):
        raise WrongOutput(f"Output {spec.name!r} is {type(values).__name__} and no tensor.")
    fits = [want in (got, -1) for got, want in zip(values.shape, declared, strict=False)]
    if len(values.shape) != len(declared) or not all(fits):
        wrong = WrongOutput(f"Output {spec.name!r} came with the shape {list(values.shape)}, not {list(declared)}.")
        if rows is not None and values.shape[:1] != (rows,) and (not values.ndim or all(fits[1:])):
            wrong.rows = values.shape[0] if values.ndim else 1
        raise wrong
    if spec.datatype != "BYTES" and values.dtype != DTYPES[spec.datatype]:
        raise WrongOutput(f"Output {spec.name!r} has the type {values.dtype}, not {spec.datatype}.")
    return values


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
