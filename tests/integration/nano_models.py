"""Models of the fields that the experiments' files hold, and their scores for each row alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NODE = helper.make_node
# The variables of a model's constituents, and the factors that bring them to about 1.
MODELS = {
    "candidates": {"pt": 0.05, "eta": 1.0, "phi": 1.0, "d0": 2.0, "charge": 1.0, "puppiWeight": 1.0},  # of CMS, GeV
    "tagger": {"pt": 0.05, "eta": 1.0, "phi": 1.0},
    "tracks": {"pt": 5e-4, "theta": 1.0, "phi": 1.0, "d0": 2.0, "z0": 0.02},  # of ATLAS, MeV
}
JETS = {"tagger": {"pt": 1e-3, "mass": 0.01}}  # the variables of the jet itself, where a model has some
LABELS = ("signal", "background")


def make_nano_models(repository: Path) -> Path:
    """Write the models into a Triton repository."""
    random = np.random.default_rng(20231206)
    for name, variables in MODELS.items():
        inputs = {"pf_x": variables, "pf_mask": {"pf_mask": 1.0}} | ({"jet_x": JETS[name]} if name in JETS else {})
        shapes = {each: [len(own), *([] if each == "jet_x" else [-1])] for each, own in inputs.items()}
        constants = {
            "into": random.normal(size=(len(variables), 8)).astype(np.float32),
            "out": random.normal(size=(8, 2)).astype(np.float32) / 4,
            "of_jet": random.normal(size=(len(JETS.get(name, ())), 2)).astype(np.float32),
            "axis": np.array([1]),
        }
        _save(repository / name, shapes, constants)
        recipe: dict[str, Any] = {"input_names": list(inputs)}
        for each, own in inputs.items():
            infos = {variable: {"norm_factor": factor} for variable, factor in own.items()}
            recipe[each] = {"var_names": list(own), "var_infos": infos}
            if each != "jet_x":
                recipe[each] |= {"min_length": 1, "max_length": 256}
        lines = [
            'backend: "onnxruntime"',
            "max_batch_size: 256",
            *(f'input [{{ name: "{each}", data_type: TYPE_FP32, dims: {shape} }}]' for each, shape in shapes.items()),
            'output [{ name: "scores", data_type: TYPE_FP32, dims: [2] }]',
        ]
        for key, value in (("preprocess", recipe), ("labels", {"scores": LABELS})):
            text = json.dumps(json.dumps(value))
            lines.append(f'parameters {{ key: "{key}" value: {{ string_value: {text} }} }}')
        (repository / name / "config.pbtxt").write_text("\n".join(lines))
    return repository


def _save(directory: Path, shapes: Mapping[str, list[int]], constants: Mapping[str, np.ndarray]) -> None:
    """Write a network: one layer for each constituent, their sum, another layer and a softmax."""
    nodes = [
        NODE("Transpose", ["pf_x"], ["rows"], perm=[0, 2, 1]),
        NODE("MatMul", ["rows", "into"], ["layer"]),
        NODE("Sigmoid", ["layer"], ["hidden"]),  # not 0 at 0, so that padding needs the mask
        NODE("Transpose", ["pf_mask"], ["real"], perm=[0, 2, 1]),
        NODE("Mul", ["hidden", "real"], ["kept"]),
        NODE("ReduceSum", ["kept", "axis"], ["sums"], keepdims=0),
        NODE("MatMul", ["sums", "out"], ["logits"]),
    ]
    if "jet_x" in shapes:
        nodes += [NODE("MatMul", ["jet_x", "of_jet"], ["more"]), NODE("Add", ["logits", "more"], ["all"])]
    nodes.append(NODE("Softmax", [nodes[-1].output[0]], ["scores"], axis=-1))
    taken = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *("p" if size < 0 else size for size in shape)])
        for name, shape in shapes.items()
    ]
    given = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])]
    initial = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, directory.name, taken, given, initial)
    (directory / "1").mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, directory / "1" / "model.onnx")


def each_alone(repository: Path, name: str, rows: ak.Array, jets: ak.Array | None = None) -> np.ndarray:
    """Return the first score of every row of rows × constituents, each sent to ONNX Runtime by itself."""
    network = onnxruntime.InferenceSession(repository / name / "1" / "model.onnx")
    scores = []
    for number, row in enumerate(rows):
        values = [np.float32(factor) * ak.to_numpy(row[each]) for each, factor in MODELS[name].items()]
        inputs = {"pf_x": np.stack(values)[np.newaxis].astype(np.float32)}
        inputs["pf_mask"] = np.ones((1, 1, len(row)), np.float32)
        if jets is not None:
            own = [[factor * jets[number][each] for each, factor in JETS[name].items()]]
            inputs["jet_x"] = np.array(own, np.float32)
        scores.append(network.run(None, inputs)[0][0, 0])
    return np.array(scores, np.float32)
