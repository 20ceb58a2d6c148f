"""Triton's "onnxruntime" backend for a Triton that has none, such as the CPU build of the PyPI wheel.

Triton serves every model with `backend: "onnxruntime"` or `platform: "onnxruntime_onnx"` through the
`TritonPythonModel` in `backends/onnxruntime/model.py`. `eaf-inference up` puts this file there, so that a repository
for a facility's own ONNX backend is served unchanged. Missing parts of a configuration are completed by the rules of
that backend. One instance is one session on one thread: the number of instances is the number of cores that a model
may use.

This file runs inside Triton's environment and imports nothing from this package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_MAX_BATCH_SIZE = 4  # Triton's default for a model that can be batched
TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}


class TritonPythonModel:
    """One instance of an ONNX model."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Add the inputs, outputs and batching that the model's configuration leaves out."""
        given = config.as_dict()
        if given["input"] and given["output"]:
            return config
        session = open_session(model_file_of_this_process())
        outputs = served(session.get_outputs(), given["name"])
        batched = all(dims(node)[:1] == [-1] for node in session.get_inputs() + outputs)
        if batched:
            config.set_max_batch_size(given["max_batch_size"] or DEFAULT_MAX_BATCH_SIZE)
            if given["max_batch_size"] > 1 and "sequence_batching" not in given:
                config.set_dynamic_batching()
        elif given["max_batch_size"]:
            raise ValueError(
                f"max_batch_size is {given['max_batch_size']}, but not every input and output of the ONNX "
                "model has a free first dimension: export it with one, or set max_batch_size to 0"
            )
        skip = 1 if given["max_batch_size"] else 0
        for kind, nodes, add in (
            ("input", session.get_inputs(), config.add_input),
            ("output", outputs, config.add_output),
        ):
            if not given[kind]:
                for node in nodes:
                    add({"name": node.name, "data_type": type_of(node), "dims": dims(node)[skip:] or [1]})
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session, and check that it has the inputs and outputs in the configuration."""
        config = json.loads(args["model_config"])
        self.batched = config["max_batch_size"] > 0
        file = Path(args["model_repository"]) / args["model_version"] / config["default_model_filename"]
        self.session = open_session(file)
        self.inputs = self.session.get_inputs()
        self.outputs = {node.name: node for node in self.session.get_outputs()}
        nodes = (*self.inputs, *self.outputs.values())
        # one number per row: [rows] for ONNX, [rows, 1] for Triton
        self.squeezed = {node.name for node in nodes if self.batched and len(node.shape) == 1}
        check("input", config["input"], {node.name: node for node in self.inputs})
        check("output", config["output"], self.outputs)
        missing = {node.name for node in self.inputs} - {item["name"] for item in config["input"]}
        if missing:
            raise ValueError(f"the ONNX model takes {sorted(missing)}, which its config.pbtxt does not list")
        if args["model_instance_name"].endswith("_0"):  # once for all instances
            report_features(config, self.session)
        strings = [node.name for node in self.inputs if type_of(node) == "TYPE_STRING"]
        if strings and int(np.__version__.partition(".")[0]) >= 2:
            raise ValueError(
                f"the ONNX model takes strings, {strings}, and Triton's Python backend cannot read them with numpy "
                f"{np.__version__}. Run Triton with Python 3.12 or older, which has numpy 1"
            )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request; a request that fails does not affect the others.

        Requests that Triton's batcher hands over together are run one by one: on a CPU, joining them was no faster
        (small and large networks, 1 to 256 rows per request), and it costs a copy.
        """
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        names = [name for name in self.outputs if name in request.requested_output_names()]
        try:
            values = self.session.run(names, {node.name: self.read(request, node.name) for node in self.inputs})
            tensors = [
                pb_utils.Tensor(name, self.shaped(name, each)) for name, each in zip(names, values, strict=True)
            ]
        except Exception as error:  # noqa: BLE001 - any error of ONNX Runtime is this request's answer
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        return pb_utils.InferenceResponse(tensors)

    def read(self, request: Any, name: str) -> np.ndarray[Any, Any]:
        value: np.ndarray[Any, Any] = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
        if value.dtype == object:  # bytes; ONNX Runtime needs text, and would turn b"top" into "b'top'"
            value = np.array([each.decode() for each in value.flat], dtype=object).reshape(value.shape)
        return value.reshape(len(value)) if name in self.squeezed else value  # Triton may have done it

    def shaped(self, name: str, value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return value[:, np.newaxis] if name in self.squeezed else value


def open_session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def model_file_of_this_process() -> Path:
    """Return the ONNX file that this stub was started for, which only the command line has at that point."""
    return Path(Path("/proc/self/cmdline").read_bytes().split(b"\0")[1].decode())


def dims(node: Any) -> list[int]:
    """Return a node's shape, with -1 for its free dimensions."""
    return [size if isinstance(size, int) else -1 for size in node.shape]


def type_of(node: Any) -> str:
    if node.type not in TYPES:
        raise ValueError(f"'{node.name}' is a {node.type}; expected one of {sorted(TYPES)}")
    return TYPES[node.type]


def served(outputs: list[Any], model: str) -> list[Any]:
    """Return the outputs that Triton can send; if there are none, return all, so that `type_of` reports why."""
    left_out = [node for node in outputs if node.type not in TYPES]
    for node in left_out:
        pb_utils.Logger.log_warn(f"model '{model}': its output '{node.name}' is left out, a {node.type}")
    return [node for node in outputs if node.type in TYPES] or left_out


def report_features(config: dict[str, Any], session: onnxruntime.InferenceSession) -> None:
    """Log names that only the ONNX file has: Triton lets no backend add a parameter that clients could read."""
    names = session.get_modelmeta().custom_metadata_map.get("feature_names")
    if names and "features" not in config["parameters"]:
        pb_utils.Logger.log_warn(
            f"model '{config['name']}': clients cannot see the feature_names of its ONNX file, so they match no "
            f"columns by name. Declare them in the parameter 'features' of its config.pbtxt: {names}"
        )


def check(kind: str, listed: list[dict[str, Any]], nodes: dict[str, Any]) -> None:
    for item in listed:
        node = nodes.get(item["name"])
        if node is None:
            raise ValueError(
                f"config.pbtxt lists the {kind} '{item['name']}', but the ONNX model has {sorted(nodes)}"
            )
        if item["data_type"] != type_of(node):
            raise ValueError(
                f"config.pbtxt gives the {kind} '{item['name']}' as {item['data_type']}, "
                f"but the ONNX model has {type_of(node)}"
            )
