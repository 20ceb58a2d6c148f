"""Variables that records lack and the client computes: in collections, of rows, and to choose what is kept."""

from __future__ import annotations

import json

import awkward as ak
import numpy as np
import pytest
from builders import recipe_text, tensor

from eaf_inference.errors import InvalidInput
from eaf_inference.inference.marshal import columns, prepare
from eaf_inference.inference.recipe import Recipe
from eaf_inference.inference.spec import ModelSpec

SHORT, LONG = [[3.0], [4.0]], [[3.0, 30.0, 6.0], [4.0]]


def spec_of(recipe, *shapes, sort_by=None):
    text = json.loads(recipe)
    if sort_by:
        for name in text["input_names"]:
            text[name]["sort_by"] = sort_by
    inputs = tuple(tensor(name, *shape) for name, shape in zip(text["input_names"], shapes, strict=True))
    parsed = Recipe.parse(json.dumps(text), model="jets")
    return ModelSpec(
        name="jets", version="", max_batch_size=4, inputs=inputs, outputs=(tensor("y", 2),), recipe=parsed, labels={}
    )


def sent(data, spec):
    """Return the columns of each input, of the constituents that are kept."""
    arrays = prepare(data, spec).inputs.arrays
    return {each.spec.name: each.rows.T if hasattr(each, "rows") else np.array(each.columns) for each in arrays}


def test_a_collections_own_momenta_and_a_rows_own_are_used():
    recipe = recipe_text(
        {"pf": {"part_e_log": {}}, "sv": {"sv_energy": {}, "sv_ntracks": {}}, "jet": {"jet_energy": {}}}
    )
    spec = spec_of(recipe, (1, -1), (2, -1), (1,))
    pf = ak.zip({"px": SHORT, "py": SHORT, "pz": SHORT, "E": [[7.0], [8.0]]})
    sv = ak.zip({"pt": SHORT, "eta": [[0.0], [1.0]], "phi": SHORT, "mass": [[4.0], [0.0]], "ntracks": [[2], [3]]})
    jet = ak.zip({"pt": [6.0, 1.0], "eta": [0.0, 0.0], "phi": [0.0, 0.0], "mass": [8.0, 0.0]})
    values = sent({"pf": pf, "sv": sv, "jet": jet}, spec)
    np.testing.assert_allclose(values["pf"], [np.log([7, 8])], rtol=1e-6)
    np.testing.assert_allclose(values["sv"], [[5, 4 * np.cosh(1)], [2, 3]], rtol=1e-6)
    np.testing.assert_allclose(values["jet"], [[10, 1]], rtol=1e-6)


def test_a_rows_own_fields_are_no_constituents_with_an_axis():
    spec = spec_of(recipe_text({"jet": {"part_deta": {}}}), (1,))
    with pytest.raises(InvalidInput, match="lacks part_deta"):
        prepare(ak.zip({"pt": [6.0], "eta": [0.0], "phi": [0.0], "mass": [8.0]}), spec)


@pytest.mark.parametrize(
    ("names", "sort_by", "kept"),
    [
        (("px", "py", "pz", "E"), None, [3, 6]),
        (("x", "y", "z", "t"), None, [3, 6]),
        (("rho", "phi", "eta", "tau"), None, [3, 6]),
        (("part_px", "part_py", "part_pz", "part_energy"), None, [3, 6]),
        (("px", "py", "pz", "E"), "part_eta", [2, 3]),
        (("x", "y", "z", "t"), "-eta", [6, 7]),
    ],
)
def test_long_rows_are_cut_by_a_variable_that_has_to_be_computed(names, sort_by, kept):
    energies = [[7.0, 3.0, 6.0, 2.0]]
    first = [[2.0, 5.0, 4.0, 3.0]]  # of x and y, or pt
    longitudinal = [[0.0, 8.0, 0.5, 9.0]]
    records = ak.zip(dict(zip(names, (first, [[0.0, 0.0, 0.0, 0.0]], longitudinal, energies), strict=True)))
    spec = spec_of(recipe_text({"pf": {"part_energy": {}}}, max_length=2), (1, -1), sort_by=sort_by)
    job = prepare(records, spec)
    [(truncation, rows)] = job.truncations
    assert rows == 1
    assert truncation.rule == (
        f"{'smallest' if sort_by == '-eta' else 'largest'} {(sort_by or 'pt').removeprefix('-')}"
    )
    if names[0] != "rho":
        assert sorted(job.inputs.arrays[0].columns[0]) == kept
    assert set(columns(spec, records.fields)) <= set(names)


def test_long_rows_of_positions_keep_their_leading_constituents():
    spec = spec_of(recipe_text({"hits": {"x": {}, "y": {}, "z": {}, "t": {}}}, max_length=2), (4, -1))
    records = ak.zip(dict.fromkeys("xyzt", LONG))
    job = prepare(records, spec)
    assert job.truncations[0][0].rule == ""
    np.testing.assert_array_equal(job.inputs.arrays[0].columns[0][:2], [3, 30])


def test_jetclass_records_have_fields_of_the_jet_beside_lists():
    spec = spec_of(recipe_text({"x": {"part_logptrel": {}, "part_deltaR": {}}}), (2, -1))
    names = ("part_px", "part_py", "part_deta", "part_dphi", "jet_pt")
    values = ([[3.0], []], [[4.0], []], [[0.6], []], [[-0.8], []], [10.0, 1.0])
    records = ak.zip(dict(zip(names, values, strict=True)), depth_limit=1)
    assert set(columns(spec, records.fields)) == set(names)
    np.testing.assert_allclose(sent(records, spec)["x"], [np.log([0.5]), [1.0]], rtol=1e-6)


def test_a_refusal_names_only_what_cannot_be_computed():
    variables = {"part_deta": {}, "part_e_log": {}, "charge": {}}
    spec = spec_of(recipe_text({"x": variables}), (3, -1))
    with pytest.raises(
        InvalidInput,
        match="lacks charge; and energy, from which part_e_log is computed. Add `charge`, `energy` or `mass`",
    ):
        prepare(ak.zip(dict.fromkeys(("pt", "eta", "phi"), SHORT)), spec)
    with pytest.raises(InvalidInput, match="lacks charge. Add `charge`. The records have pt, eta, phi, mass"):
        prepare(ak.zip(dict.fromkeys(("pt", "eta", "phi", "mass"), SHORT)), spec)


def test_jets_with_momenta_are_not_mistaken_for_their_constituents():
    spec = spec_of(recipe_text({"x": {"part_deta": {}}}), (1, -1))
    names = ("pt", "eta", "phi", "mass")
    constituents = ak.zip(dict.fromkeys(names, SHORT))
    jets = ak.zip({**{name: [1.0, 2.0] for name in names}, "constituents": constituents}, depth_limit=1)
    with pytest.raises(InvalidInput, match="is an array of jets. .* Pass jets.constituents, or"):
        prepare(jets, spec)
