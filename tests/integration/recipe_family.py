"""Models whose recipes are shaped as CMS's, and the scores of one row by numpy and ONNX Runtime alone.

Every output depends on every value of every input. An input's `reading` says how its part depends on padding.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    import onnxruntime

NODE = helper.make_node
DTYPES = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "INT32": np.int32, "INT64": np.int64}


@dataclass(frozen=True)
class Input:
    """An input: its variables, its shape and lengths, and how the score depends on padding.

    Readings: ``masked`` (not at all), ``sum`` (each padded value counts), ``mean``, ``greatest``, and ``least``: only
    padding up to the least length counts, so longer padding is harmless.
    """

    name: str
    variables: str
    shape: tuple[int, ...]
    lengths: dict = field(default_factory=dict)
    reading: str = "masked"
    kind: str = "FP32"
    pad: float = 0.0
    described: bool = True  # by the recipe

    @property
    def names(self) -> list[str]:
        return self.variables.split()

    @property
    def whole(self) -> bool:
        return self.kind.startswith("INT")

    @property
    def turned(self) -> bool:
        """Whether the variables are on the last of two axes."""
        return len(self.shape) == 2 and self.shape[1] == len(self.names) != self.shape[0]

    @property
    def bounds(self) -> tuple[int, int | None]:
        """Return the least and the greatest length."""
        if -1 not in self.shape:
            return (self.shape[0 if self.turned else -1],) * 2
        only = self.lengths.get("var_length")
        return self.lengths.get("min_length", only or 0), self.lengths.get("max_length", only)

    def info(self, variable: str) -> dict:
        """Return the recipe's numbers for a variable; those of different inputs differ."""
        if variable.endswith("mask"):
            return {"pad": 0}
        at, whole = len(self.name) + self.names.index(variable), self.whole
        info = {"median": at % 3 if whole else 0.3 * at, "norm_factor": at % 2 + 1 if whole else 0.7}
        bounds = {"lower_bound": -3, "upper_bound": 4, "replace_inf_value": -1}
        return info | bounds | {"pad": self.pad}


@dataclass(frozen=True)
class Group:
    """The inputs that are read from one record array."""

    inputs: tuple[Input, ...]
    per_row: bool = False
    kept: str = ""  # the variable whose largest values are kept, or with "-" its smallest

    @property
    def variables(self) -> list[str]:
        return list(dict.fromkeys(name for each in self.inputs for name in each.names))

    @property
    def bounds(self) -> tuple[int, int | None]:
        """Return the least and the greatest length."""
        least = max(each.bounds[0] for each in self.inputs)
        return least, min((each.bounds[1] for each in self.inputs if each.bounds[1]), default=None)


@dataclass(frozen=True)
class Network:
    groups: dict[str, Group]
    parameter: bool = False  # declare the groups as the parameter `collections`
    more: dict = field(default_factory=dict)  # of the recipe

    @property
    def inputs(self) -> list[Input]:
        return [each for group in self.groups.values() for each in group.inputs]


def _pf(prefix, *, shapes=((2, -1), (3, -1), (1, -1)), mark=("", "", ""), reading="masked", **lengths):
    """Return points, features and mask, as ParticleNet takes them."""
    a, b, c = prefix, f"{prefix}_", f"{prefix}_mask"
    names = [f"{b}{each}{end}" for each, end in zip(("points", "features", "mask"), mark, strict=True)]
    variables = (f"{a}_deta {a}_dphi", f"{a}_pt {a}_deta {a}_d0", c)
    readings = (reading, reading, "masked")
    return tuple(
        Input(name, own, shape, lengths, how)
        for name, own, shape, how in zip(names, variables, shapes, readings, strict=True)
    )


def lengths(least=None, most=None, only=None):
    found = {"min_length": least, "max_length": most, "var_length": only}
    return {key: value for key, value in found.items() if value is not None}


TURNED = ((-1, 2), (-1, 3), (-1, 1))
NETWORKS = {
    "flavour": Network(
        {
            "pf": Group(_pf("pf", **lengths(3, 12)), kept="pf_pt"),
            "sv": Group(_pf("sv", **lengths(1, 5)), kept="sv_pt"),
        }
    ),
    "central": Network(
        {
            "pf": Group(_pf("pf", shapes=TURNED, reading="least", **lengths(4, 20)), kept="pf_pt"),
            "sv": Group(_pf("sv", reading="least", **lengths(1, 5)), kept="sv_pt"),
            "lt": Group(_pf("lt", shapes=TURNED, **lengths(1, 5)), kept="lt_pt"),
        }
    ),
    "transformer": Network(
        {
            "cpf": Group(
                (
                    Input("cpf_features", "cpf_pt cpf_d0", (2, -1), lengths(2, 9), kind="FP16", pad=0.5),
                    Input("cpf_mask", "cpf_mask", (1, -1), lengths(2, 9)),
                ),
                kept="cpf_pt",
            ),
            "npf": Group((Input("npf_features", "npf_pt", (1, -1), lengths(2, 9), "mean", "FP64"),), kept="npf_pt"),
            "sv": Group(
                (Input("sv_features", "sv_pt sv_mass", (-1, 2), lengths(1, 3), "sum", pad=-2),), kept="sv_pt"
            ),
            "jet": Group((Input("jet_features", "jet_pt jet_eta jet_mass", (3,), lengths(1, 1)),), per_row=True),
        }
    ),
    "regular": Network(
        {
            "pf": Group(
                (
                    Input("pf_features", "pf_pt pf_d0 pf_dz", (3, 8), lengths(8, 8), "mean", pad=1),
                    Input("pf_mask", "pf_mask", (1, 8), lengths(8, 8)),
                ),
                kept="pf_pt",
            ),
            "sv": Group((Input("sv_features", "sv_pt sv_mass", (4, 2), lengths(4, 4), "sum", pad=3),), kept="sv_pt"),
        }
    ),
    "trained": Network(
        {
            "pf": Group((Input("pf_features", "pf_pt pf_d0", (2, -1), lengths(only=9), "mean"),), kept="pf_pt"),
            "sv": Group((Input("sv_features", "sv_mass", (1, -1), lengths(only=3), "sum", pad=2),)),
        }
    ),
    "rows": Network(
        {
            "jet": Group(
                (
                    Input("jet_features", "jet_pt jet_eta jet_mass", (3,), lengths(1, 1), kind="FP64"),
                    Input("jet_more", "jet_area jet_pt", (2, 1), lengths(1, 1), kind="FP16"),
                ),
                per_row=True,
            ),
            "event": Group((Input("event_rho", "rho", (1,)),), per_row=True),
            "pf": Group((Input("pf_features", "pf_pt pf_d0", (2, -1), lengths(1), "mean"),)),
        }
    ),
    "axes": Network(
        {
            "pf": Group(
                (Input("pf_features", "pf_pt pf_d0", (1, 2, -1), lengths(1, 6), "sum", pad=9),), kept="pf_pt"
            ),
            "sv": Group((Input("sv_pt", "sv_pt", (-1,), lengths(most=4), "sum", pad=1),), kept="sv_pt"),
        }
    ),
    "integers": Network(
        {
            "pf": Group(
                (
                    Input("pf_number", "pf_charge pf_kind", (2, -1), lengths(2, 8), "sum", "INT32", pad=2),
                    Input("pf_features", "pf_pt", (-1, 1), lengths(2, 8), kind="FP64"),
                    Input("pf_mask", "pf_mask", (1, -1), lengths(2, 8), kind="INT64"),
                ),
                kept="pf_pt",
            ),
            "jet": Group((Input("jet_number", "jet_count", (1,), kind="INT64"),), per_row=True),
        }
    ),
    "export": Network(
        {
            "pf": Group(_pf("pf", mark=("__0", "__1", "__2"), **lengths(4, 10)), kept="pf_pt"),
            "sv": Group(_pf("sv", mark=("__3", "__4", "__5"), **lengths(4, 10)), kept="sv_pt"),
        }
    ),
    "interaction": Network(
        {
            "cpf": Group((Input("input_cpf", "pfcand_ptrel pfcand_d0", (2, -1), lengths(6, 6), "sum", pad=1),)),
            "sv": Group((Input("input_sv", "sv_ptrel", (1, 3), lengths(3, 3), "mean"),)),
        }
    ),
    "bare": Network(
        {
            "points": Group(
                (
                    Input("points", "deta dphi", (2, -1), lengths(2, 16)),
                    Input("features", "pt deta", (2, -1), lengths(2, 16)),
                    Input("mask", "mask", (1, -1), lengths(2, 16)),
                ),
                kept="pt",
            )
        }
    ),
    "named": Network(
        {
            "tracks": Group(
                (
                    Input("a", "track_pt track_d0", (2, -1), lengths(1, 9), "sum", pad=1),
                    Input("b", "track_dz", (-1, 1), lengths(3, 7), "sum", pad=4),
                ),
                kept="track_pt",
            ),
            "muons": Group((Input("c", "muon_iso", (1, -1), lengths(2, 4), "greatest", pad=-9),)),
        },
        parameter=True,
    ),
    "partial": Network(
        {
            "pf": Group((Input("pf_features", "pf_pt pf_d0", (2, -1), lengths(1, 6), "sum", pad=1),), kept="pf_pt"),
            "sv": Group((Input("sv_features", "sv_pt sv_mass", (2, -1), reading="mean", described=False),)),
            "jet": Group(
                (Input("jet_features", "jet_pt jet_eta", (2,), kind="FP64", described=False),), per_row=True
            ),
        }
    ),
    "unmasked": Network(
        {
            "pf": Group((Input("pf_features", "pf_pt pf_d0", (2, -1), reading="sum", pad=0.5),)),
            "sv": Group((Input("sv_features", "sv_mass", (1, -1), lengths(0, 3), "mean"),), kept="-sv_mass"),
        },
        more={"sv_features": {"sort_by": "-sv_mass"}},
    ),
    "alone": Network({"x": Group((Input("x", "a b", (2, -1), reading="sum", pad=1, kind="FP16"),))}),
    "single": Network(
        {
            "pf": Group((Input("pf", "pf_pt pf_d0", (2, -1), lengths(2, 6), "least", pad=3),), kept="pf_pt"),
            "jet": Group((Input("jet", "jet_pt jet_eta jet_mass", (3, -1), lengths(1, 1)),), per_row=True),
        }
    ),
}


def text_of(network: Network) -> str:
    """Return the network's ``preprocess.json``."""
    described = [each for each in network.inputs if each.described]
    inputs = {
        each.name: {
            "var_names": each.names,
            "var_infos": {name: each.info(name) for name in each.names},
            **each.lengths,
            **network.more.get(each.name, {}),
        }
        for each in described
    }
    return json.dumps({"input_names": list(inputs), "output_names": ["y"], **inputs})


def save(repository, name: str, network: Network) -> None:
    """Write the model of a network into a repository."""
    nodes, parts, constants = [], [], {"two": np.array([2]), "tenth": np.array(0.1)}
    masks = {each.name: group.inputs[-1].name for group in network.groups.values() for each in group.inputs}
    for each in network.inputs:
        _stand(nodes, constants, each)
    for number, each in enumerate(network.inputs):
        x = f"{each.name}_in"
        mask = masks[each.name]
        features = f"{x}_f"
        nodes += [NODE("Mul", [x, x], [f"{x}_2"]), NODE("Mul", [f"{x}_2", "tenth"], [f"{x}_3"])]
        nodes.append(NODE("Add", [x, f"{x}_3"], [features]))
        if each.reading == "mean":
            nodes.append(NODE("ReduceMean", [features], [f"{x}_s"], axes=[2], keepdims=0))
        elif each.reading == "greatest":
            nodes.append(NODE("ReduceMax", [x], [f"{x}_s"], axes=[2], keepdims=0))
        elif each.reading == "least":
            least = next(group.bounds[0] for group in network.groups.values() if each in group.inputs)
            constants |= {f"{x}_end": np.array([least]), "zero": np.array([0])}
            nodes.append(NODE("Slice", [features, "zero", f"{x}_end", "two"], [f"{x}_first"]))
            nodes.append(NODE("ReduceSum", [f"{x}_first", "two"], [f"{x}_s"], keepdims=0))
            if "mask" in mask:
                nodes[-1].output[0] = f"{x}_part"
                nodes.append(NODE("Mul", [features, f"{mask}_in"], [f"{x}_m"]))
                nodes.append(NODE("ReduceSum", [f"{x}_m", "two"], [f"{x}_other"], keepdims=0))
                nodes.append(NODE("Add", [f"{x}_part", f"{x}_other"], [f"{x}_s"]))
        else:
            if each.reading == "masked" and "mask" in mask and each.name != mask:
                nodes.append(NODE("Mul", [features, f"{mask}_in"], [f"{x}_m"]))
                features = f"{x}_m"
            nodes.append(NODE("ReduceSum", [features, "two"], [f"{x}_s"], keepdims=0))
        constants[f"{x}_w"] = np.linspace(0.5, 1 + number, 2 * len(each.names)).reshape(-1, 2)
        nodes.append(NODE("MatMul", [f"{x}_s", f"{x}_w"], [f"{x}_y"]))
        parts.append(f"{x}_y")
    nodes += [NODE("Concat", parts, ["all"], axis=1), NODE("ReduceMean", ["all"], ["mean"], axes=[1], keepdims=1)]
    nodes += [NODE("Tanh", ["mean"], ["t"]), NODE("Add", ["all", "t"], ["sum"])]
    nodes.append(NODE("Cast", ["sum"], ["y"], to=TensorProto.FLOAT))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2 * len(parts)])]
    inputs = [
        helper.make_tensor_value_info(
            each.name,
            helper.np_dtype_to_tensor_dtype(np.dtype(DTYPES[each.kind])),
            ["n", *(f"{each.name}_{axis}" if size == -1 else size for axis, size in enumerate(each.shape))],
        )
        for each in network.inputs
    ]
    initial = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (repository / name / "1").mkdir(parents=True)
    onnx.save(model, repository / name / "1" / "model.onnx")
    lines = ['backend: "onnxruntime"', "max_batch_size: 64"]
    lines += [
        f'input {{ name: "{each.name}" data_type: TYPE_{each.kind} dims: {list(each.shape)} }}'
        for each in network.inputs
    ]
    lines.append(f'output {{ name: "y" data_type: TYPE_FP32 dims: [{2 * len(parts)}] }}')
    parameters = {"preprocess": text_of(network)}
    if network.parameter:
        groups = {key: [each.name for each in group.inputs] for key, group in network.groups.items()}
        parameters["collections"] = json.dumps(groups)
    lines += [
        f'parameters {{ key: "{key}" value {{ string_value: {json.dumps(text)} }} }}'
        for key, text in parameters.items()
    ]
    (repository / name / "config.pbtxt").write_text("\n".join(lines), encoding="utf-8")


def _stand(nodes: list, constants: dict, each: Input) -> None:
    """Bring an input to double precision and the shape rows × variables × constituents, as ``NAME_in``."""
    before, after = f"{each.name}_cast", [f"{each.name}_in"]
    nodes.append(NODE("Cast", [each.name], [before], to=TensorProto.DOUBLE))
    constants["one"] = np.array([1])
    if each.turned:
        nodes.append(NODE("Transpose", [before], after, perm=[0, 2, 1]))
    elif len(each.shape) == 3:
        nodes.append(NODE("Squeeze", [before, "one"], after))
    elif len(each.shape) == 1:
        nodes.append(NODE("Unsqueeze", [before, "one" if each.shape[0] == -1 else "two"], after))
    else:
        nodes.append(NODE("Identity", [before], after))


def score(session: onnxruntime.InferenceSession, network: Network, row: dict[str, np.ndarray]) -> np.ndarray:
    """Score one row with ONNX Runtime, prepared by numpy alone.

    Parameters
    ----------
    row : dict of str to numpy.ndarray
        By variable: one value per constituent, or a number for the row. A missing mask is 1.
    """
    arrays = {}
    for group in network.groups.values():
        number = next(np.size(row[name]) for name in group.variables if name in row)
        least, most = (1, 1) if group.per_row else group.bounds
        kept = np.arange(number)
        if most is not None and number > most:
            if group.kept:
                by = row[group.kept.removeprefix("-")]
                order = np.argsort(by if group.kept.startswith("-") else -by, kind="stable")
                kept = np.sort(order[:most])
            kept = kept[:most]
        for each in group.inputs:
            wide = np.float32 if each.kind in ("FP16", "FP32") else np.float64
            channels = []
            for name in each.names:
                values = np.atleast_1d(row.get(name, np.ones(number)))[kept].astype(wide)
                info = each.info(name)
                if each.described and "median" in info:
                    values = np.where(np.isfinite(values), values, wide(info["replace_inf_value"]))
                    values = (values - wide(info["median"])) * wide(info["norm_factor"])
                    values = np.clip(values, wide(info["lower_bound"]), wide(info["upper_bound"]))
                missing = max(least - len(values), 0) if each.described else 0
                channels.append(np.pad(values, (0, missing), constant_values=info["pad"]))
            made = np.array(channels).astype(DTYPES[each.kind])
            length = made.shape[1]
            shape = [length if size == -1 else size for size in each.shape]
            arrays[each.name] = (made.T if each.turned else made).reshape(1, *shape)
    return session.run(None, arrays)[0][0]
