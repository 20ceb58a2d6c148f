"""Collections: how a model's inputs are grouped, and what mistakes in the data say."""

from __future__ import annotations

import json

import awkward as ak
import numpy as np
import pytest
from builders import tensor

from eaf_inference.errors import InvalidInput
from eaf_inference.inference.marshal import columns, prepare
from eaf_inference.inference.recipe import Recipe
from eaf_inference.inference.spec import ModelSpec

LENGTHS = {"pf": (1, 4), "sv": (1, 2), "jet": (1, 1)}
VARIABLES = {
    "pf_features": ["pf_pt", "pf_d0"],
    "pf_mask": ["pf_mask"],
    "sv_features": ["sv_pt", "sv_mass"],
    "jet_features": ["jet_pt", "jet_eta"],
}


def described(inputs, lengths):
    """Return a recipe: by input, its variables, and the part of its text that declares lengths."""
    parts = {name: {"var_names": each, "var_infos": {}, **lengths(name)} for name, each in inputs.items()}
    return Recipe.parse(json.dumps({"input_names": list(inputs)} | parts), model="tagger")


def model_of(inputs, shapes, lengths):
    tensors = tuple(tensor(name, *shape) for name, shape in shapes.items())
    return ModelSpec("tagger", "", 64, tensors, (tensor("y", 1),), described(inputs, lengths), {})


def between(name):
    least, most = LENGTHS[name.partition("_")[0]]
    return {"min_length": least, "max_length": most}


SPEC = model_of(
    VARIABLES, {"pf_features": (2, -1), "pf_mask": (1, -1), "sv_features": (2, -1), "jet_features": (2,)}, between
)


def lists(*counts):
    return ak.unflatten(np.arange(float(sum(counts))), counts)


PF = ak.zip({"pf_pt": lists(2, 3), "pf_d0": lists(2, 3)})
SV = ak.zip({"sv_pt": lists(1, 0), "sv_mass": lists(1, 0)})
JET = ak.zip({"jet_pt": [1.0, 2.0], "jet_eta": [1.0, 2.0]})
COLUMNS = {name: each[name] for each in (PF, SV, JET) for name in each.fields}
EXPECTED = (
    r"Expected \{'pf': records of pf_pt, pf_d0, 'sv': records of sv_pt, sv_mass, "
    r"'jet': records of jet_pt, jet_eta\}, or one record array with these fields"
)

MISTAKES = {
    "a collection is missing": (
        {"pf": PF, "jet": JET},
        f"'tagger' lacks 'sv' with sv_pt, sv_mass. Got 'pf', 'jet'. {EXPECTED}",
    ),
    "only one collection": (PF, f"lacks 'sv' with sv_pt, sv_mass; 'jet' with jet_pt, jet_eta. Got an .* {EXPECTED}"),
    "no records": (np.ones((2, 2, 3)), f"lacks 'pf' with pf_pt, pf_d0; .* Got a numpy array of shape .* {EXPECTED}"),
    "nothing": ({}, f"lacks 'pf' .* Got nothing. {EXPECTED}"),
    "an unknown key": ({"pf": PF, "svs": SV, "jet": JET}, r"no collection or input 'svs'. Did you mean 'sv'\?"),
    "a collection twice": (
        {"pf": PF, "sv": SV, "sv_features": SV, "jet": JET},
        "got 'sv' twice, also as 'sv_features'",
    ),
    "a variable is missing": (
        {"pf": PF, "sv": SV[["sv_pt"]], "jet": JET},
        "for 'sv' lacks sv_mass. Add `sv_mass`. The records have sv_pt",
    ),
    "a variable has another name": (
        {"pf": PF, "sv": ak.zip({"sv_pt": SV.sv_pt, "sv_mas": SV.sv_mass}), "jet": JET},
        "for 'sv' lacks sv_mass. Did you mean 'sv_mas' for 'sv_mass'",
    ),
    "rows differ": (
        {"pf": PF, "sv": SV[:1], "jet": JET},
        "do not belong to the same rows: 'pf_features' has 2 and 'sv_features' has 1",
    ),
    "events differ": (
        {"pf": ak.unflatten(PF, [1, 1]), "sv": SV, "jet": JET},
        "the same events × jets in all, and one list per row: 'sv_features' has fewer levels",
    ),
    "a row's variables per constituent": (
        {"pf": PF, "sv": SV, "jet": ak.zip({"jet_pt": lists(2, 3), "jet_eta": lists(2, 3)})},
        "one value of each variable per row: 'jet_features' has more levels",
    ),
    "a constituent's variables per row": (
        {"pf": PF, "sv": ak.zip({"sv_pt": [1.0, 2.0], "sv_mass": [1.0, 2.0]}), "jet": JET},
        "'sv_pt' has type .* one number per row. Expected a list per row",
    ),
    "lists of other lengths": (
        COLUMNS | {"pf_d0": lists(3, 2)},
        "'pf_d0' has lists of other lengths than the field 'pf_pt'. Expected one value per constituent",
    ),
    "a mask of another length": (
        {"pf_features": PF, "pf_mask": lists(2, 2), "sv": SV, "jet": JET},
        "'pf_features' and 'pf_mask' of 'tagger' belong to one collection, 'pf', but have lists of different lengths",
    ),
    "one row in some columns": (
        COLUMNS | {"sv_pt": lists(1), "sv_mass": lists(1)},
        "columns of 'tagger' have different numbers of rows: 'pf_pt' has 2, 'sv_pt' has 1",
    ),
    "a number for a column": (
        COLUMNS | {"jet_eta": 1},
        "column 'jet_eta' of 'tagger' is a number. Expected an array",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_says_what_was_given_and_expected(mistake):
    data, message = MISTAKES[mistake]
    with pytest.raises(InvalidInput, match=message):
        prepare(data, SPEC)


TWO = model_of({"pf": ["pf_pt", "pf_d0"], "sv": ["sv_pt", "sv_energy"]}, {"pf": (2, -1), "sv": (2, -1)}, lambda _: {})


def test_a_field_of_one_collection_is_never_read_for_another():
    shared = ak.zip({"pt": lists(2, 1), "pf_d0": lists(2, 1), "sv_energy": lists(2, 1)})
    with pytest.raises(InvalidInput, match="for 'pf' lacks pf_pt"):
        prepare(shared, TWO)
    own = ak.with_field(shared, 2 * shared.pt, "sv_pt")  # now only pf can mean pt
    pf, sv = prepare(own, TWO).inputs.arrays
    np.testing.assert_array_equal(sv.columns[0], 2 * pf.columns[0])
    computed = model_of(
        {"pf": ["pt", "eta", "phi", "mass"], "sv": ["sv_energy"]}, {"pf": (4, -1), "sv": (1, -1)}, lambda _: {}
    )
    with pytest.raises(InvalidInput, match="for 'sv' lacks sv_energy"):
        prepare(ak.zip({name: lists(2, 1) for name in ("pt", "eta", "phi", "mass")}), computed)


def test_columns_of_one_collection_are_not_read_for_another():
    assert columns(TWO, ["pt", "pf_d0", "sv_energy"]) == ("pf_d0", "pf_pt", "sv_energy", "sv_pt")
    assert columns(TWO, ["pt", "pf_d0", "sv_energy", "sv_pt"]) == ("pt", "pf_d0", "sv_pt", "sv_energy")


WAYS = {
    "by collection": {"pf": PF, "sv": SV, "jet": JET},
    "columns of a collection": {"pf": {name: PF[name].to_list() for name in PF.fields}, "sv": SV, "jet": JET},
    "a table of any name": {"pf": PF, "sv": SV, "fj": JET},
    "records and columns": {"pf": PF, "sv_pt": SV.sv_pt, "sv_mass": SV.sv_mass, "jet": JET},
    "columns": COLUMNS,
    "lists": {name: each.to_list() for name, each in COLUMNS.items()},
    "objects": {name: np.array([*each, None], object)[:-1] for name, each in COLUMNS.items()},
    "one record array": ak.zip({"pf": PF, "sv": SV, "pt": JET.jet_pt, "eta": JET.jet_eta}, depth_limit=1),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_rows_are_made_from_every_way_of_passing(way):
    first, *others = prepare(WAYS["by collection"], SPEC).inputs.arrays
    made = prepare(WAYS[way], SPEC).inputs.arrays
    for one, other in zip([first, *others], made, strict=True):
        assert one.spec == other.spec
        columns = [(each.columns if hasattr(each, "columns") else [each.rows]) for each in (one, other)]
        np.testing.assert_array_equal(*columns)


PARTICLENET = ("points", "features", "mask")
TRANSFORMER = ("features", "vectors", "mask")


def particlenet(parts=PARTICLENET, **collections):
    """Return inputs, their number of variables and lengths, of a tagger: name=(variables, least, most)."""
    sizes = dict(zip(("points", "vectors", "mask"), (2, 4, 1), strict=True))
    return [
        (f"{name}_{part}", sizes.get(part, number), least, most)
        for name, (number, least, most) in collections.items()
        for part in parts
    ]


def exported(inputs):
    return [(f"{name}__{at}", *rest) for at, (name, *rest) in enumerate(inputs)]


# The inputs of the 33 recipes of CMS's tagger repository (cms-data/RecoBTag-Combined), by their shape: the number of
# variables, and the least and greatest length, or None and `var_length`.
CMS = {
    "ParT AK8, PUPPI V03": (
        [
            *particlenet(TRANSFORMER, cpf=(30, 12, 90), npf=(7, 8, 60), sv=(11, 1, 10)),
            ("jet_features", 3, 1, 1),
        ],
        {"cpf": 3, "npf": 3, "sv": 3, "jet": 1},
    ),
    "scouting ParT AK8 and AK15": (particlenet(TRANSFORMER, pf=(21, 16, 200)), {"pf": 3}),
    "HLT AK4 V00, V01": (particlenet(pf=(23, 16, 50), sv=(11, 1, 5)), {"pf": 3, "sv": 3}),
    "HLT AK8 V00": (particlenet(pf=(23, 16, 120), sv=(11, 1, 10)), {"pf": 3, "sv": 3}),
    "HLT AK8 V01": (particlenet(pf=(23, 24, 100), sv=(10, 1, 10)), {"pf": 3, "sv": 3}),
    "HLT AK8 V02": (particlenet(pf=(23, None, 120), sv=(10, None, 10)), {"pf": 3, "sv": 3}),
    "AK4 CHS": (particlenet(pf=(20, 8, 50), sv=(11, 1, 5)), {"pf": 3, "sv": 3}),
    "AK4 CHS, PyTorch": (exported(particlenet(pf=(20, 8, 50), sv=(11, 1, 5))), {"pf": 3, "sv": 3}),
    "AK4 CHS, not ragged": (particlenet(pf=(20, 50, 50), sv=(11, 5, 5)), {"pf": 3, "sv": 3}),
    "AK8 V00": (
        particlenet(("features", "mask", "points"), pf=(25, None, 100), sv=(12, None, 7)),
        {"pf": 3, "sv": 3},
    ),
    "AK8 V01, mass": (particlenet(pf=(25, 16, 100), sv=(11, 1, 10)), {"pf": 3, "sv": 3}),
    "AK8 V01, mass, PyTorch": (exported(particlenet(pf=(25, 16, 100), sv=(11, 1, 10))), {"pf": 3, "sv": 3}),
    "AK8 V01, mass, not ragged": (particlenet(pf=(25, 100, 100), sv=(11, 10, 10)), {"pf": 3, "sv": 3}),
    "AK8 MiniAOD": (particlenet(pf=(32, 24, 100), sv=(10, 1, 10)), {"pf": 3, "sv": 3}),
    "AK4 MiniAOD, central": (
        particlenet(pf=(41, 16, 50), sv=(10, 1, 5), lt=(19, 1, 5)),
        {"pf": 3, "sv": 3, "lt": 3},
    ),
    "AK4 MiniAOD, forward": (
        particlenet(pf=(40, 16, 35), sv=(10, 1, 5), lt=(19, 1, 5)),
        {"pf": 3, "sv": 3, "lt": 3},
    ),
    "scouting AK4": (particlenet(pf=(21, 16, 100)), {"pf": 3}),
    "scouting AK8, mass": (particlenet(pf=(16, 17, 100)), {"pf": 3}),
    "Higgs interaction network": ([("input_cpf", 30, 60, 60), ("input_sv", 14, 5, 5)], {"cpf": 1, "sv": 1}),
}


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("tagger", CMS)
def test_every_shape_of_cms_recipes_is_read_and_grouped(tagger, fixed):
    inputs, groups = CMS[tagger]
    names = {name: [f"{name}_{at}" for at in range(number)] for name, number, _, _ in inputs}
    bounds = {
        name: {"var_length": most} if least is None else {"min_length": least, "max_length": most}
        for name, _, least, most in inputs
    }
    shapes = {name: (number, most if fixed else -1) for name, number, _, most in inputs}
    spec = model_of(names, shapes, bounds.get)
    assert {each.name: len(each.inputs) for each in spec.collections} == groups
    rows = {
        each.name: ak.zip({variable: lists(0, 3, most) for name in each.inputs for variable in names[name]})
        for each in spec.collections
        if (most := each.declared.maximum or 1)
    }
    if "jet" in groups:
        rows["jet"] = ak.zip({variable: [1.0, 2.0, 3.0] for variable in names["jet_features"]})
    job = prepare(rows, spec)
    assert job.rows == 3
    assert {each.spec.name for each in job.inputs.arrays} == set(names)
    assert len(job.inputs.collections) == len(groups) - ("jet" in groups and fixed)
