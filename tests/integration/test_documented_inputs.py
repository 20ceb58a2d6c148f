"""docs/how-to/model-inputs.md: each call gives scores, and every way of passing the same rows gives the same ones."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import recipe_family
from builders_of_types import save_tags
from coffea.nanoevents import NanoEventsFactory, PFNanoAODSchema
from graph_zoo import make_graph_zoo
from nano_models import make_nano_models
from onnx import helper
from recipe_family import Group, Input, Network
from test_pair_matrices import save_models
from zoo import FLOAT, LAST_AXIS, NODE, save_model

import eaf_inference
from eaf_facility.local.demo import NOTEBOOKS
from eaf_facility.servers.triton import TritonServer

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "model-inputs.md").read_text(encoding="utf-8")
CALLS = re.findall(r"^\|.*\| `(.+)` \|$", PAGE, re.MULTILINE)
PF = Group((Input("pf_features", "pf_pt pf_d0", (2, -1), {"min_length": 1, "max_length": 9}),))
NETWORKS = {
    "one_collection": Network({"pf": PF}),  # another model is called tagger
    "flavour": Network(
        {
            "pf": PF,
            "sv": Group((Input("sv_features", "sv_pt sv_mass", (2, -1), {"max_length": 4}),)),
            "jet": Group((Input("jet_features", "jet_pt jet_eta", (2,)),), per_row=True),
        }
    ),
    "partial": Network({"pf": PF, "x": Group((Input("x", "a b", (2,), described=False),), per_row=True)}),
    "momenta": Network({"pf": Group((Input("pf_features", "part_deta part_dphi part_e_log", (3, -1)),))}),
}
# What the page's names of models stand for.
NAMES = {"tagger": "one_collection", "gnn": "by_batch", "pairs": "attention"}


@pytest.fixture(scope="module")
def triton(tmp_path_factory):
    path = tmp_path_factory.mktemp("documented")
    for name, network in NETWORKS.items():
        recipe_family.save(path, name, network)
    for save in (make_graph_zoo, make_nano_models, save_models, save_tags):
        save(path)
    save_model(
        path / "sums",
        nodes=[NODE("ReduceSum", ["x", "axis"], ["y"], keepdims=0)],
        inputs=[("x", FLOAT, ["n", 2, "p"])],
        outputs=[("y", FLOAT, ["n", 2])],
        constants=[LAST_AXIS],
    )
    save_model(
        path / "bdt",
        nodes=[NODE("MatMul", ["x", "weights"], ["y"])],
        inputs=[("x", FLOAT, ["n", 3])],
        outputs=[("y", FLOAT, ["n", 1])],
        constants=[helper.make_tensor("weights", FLOAT, [3, 1], [0.01, 1.0, 0.1])],
        config='parameters { key: "features" value { string_value: "[\\"pt\\", \\"eta\\", \\"mass\\"]" } }',
    )
    save_model(
        path / "axis",
        nodes=[NODE("Softmax", ["x"], ["prob"], axis=1), NODE("Neg", ["x"], ["negative"])],
        inputs=[("x", FLOAT, ["n", 5])],
        outputs=[("prob", FLOAT, ["n", 5]), ("negative", FLOAT, ["n", 5])],
        batched=False,
    )
    with TritonServer.start([path]) as server, eaf_inference.connect(server.grpc) as connection:
        yield connection


@pytest.fixture(scope="module")
def names(triton):
    """The names that the page's examples use."""
    (arrays,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found = {"triton": triton}
    exec(arrays, found)  # noqa: S102
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Missing cross-reference", RuntimeWarning)
        file = {str(NOTEBOOKS / "cms_pfnano.root"): "Events"}
        found["cms"] = NanoEventsFactory.from_root(file, schemaclass=PFNanoAODSchema, mode="eager").events()
    for model in {call.partition("(")[0] for call in CALLS} - {"triton.model"}:
        found[model] = triton.model(NAMES.get(model, model))
    return found


def flat(scores):
    """Return all numbers of some scores, without the lists around them and without missing rows."""
    if isinstance(scores, dict) or getattr(scores, "fields", ()):
        parts = scores.values() if isinstance(scores, dict) else ak.unzip(scores)
        return np.concatenate([flat(part) for part in parts])
    return np.asarray(ak.to_numpy(ak.drop_none(ak.flatten(ak.Array(scores), axis=None)))).astype(np.float64)


@pytest.mark.parametrize("call", CALLS)
def test_each_documented_call_gives_scores(names, call):
    scores = flat(eval(call, names))  # noqa: S307
    assert len(scores)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("model", ["tagger", "flavour", "momenta", "bdt"])
def test_documented_ways_of_passing_the_same_rows_give_the_same_scores(names, model):
    first, *others = [flat(eval(call, names)) for call in CALLS if call.startswith(f"{model}(")]  # noqa: S307
    same = [scores for scores in others if len(scores) == len(first)]
    assert len(same) > 1
    for scores in same:
        np.testing.assert_allclose(scores, first, rtol=1e-5, atol=1e-6)
