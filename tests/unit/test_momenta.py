"""Coordinates of momenta, compared with vector on awkward arrays, and where they end: no pt, no mass, NaN."""

from __future__ import annotations

import math
import sys

import awkward as ak
import numpy as np
import pytest
import vector
from hypothesis import assume, given
from hypothesis import strategies as st

from eaf_inference.errors import ConfigurationError, InvalidInput
from eaf_inference.inference import features as module
from eaf_inference.inference.features import FEATURES, VARIABLES, compute, features, sources
from eaf_inference.inference.layout import flatten_fields
from eaf_inference.inference.momenta import COORDINATES, convert, coordinate_fields

SETS = [
    {**dict.fromkeys(transverse), **dict.fromkeys((longitudinal, temporal))}.keys()
    for transverse in (("pt", "phi"), ("px", "py"))
    for longitudinal in ("eta", "pz", "theta")
    for temporal in ("energy", "mass")
]
momentum = st.tuples(
    st.floats(1e-3, 1e4), st.floats(-4.5, 4.5), st.floats(-math.pi, math.pi, exclude_min=True), st.floats(0, 200)
)


def coordinates(*momenta):
    """Make all coordinates of (pt, eta, phi, mass), by their formulas."""
    pt, eta, phi, mass = np.array(momenta, np.float64).reshape(-1, 4).T
    made = {"pt": pt, "eta": eta, "phi": phi, "mass": mass}
    made |= {
        "px": pt * np.cos(phi),
        "py": pt * np.sin(phi),
        "pz": pt * np.sinh(eta),
        "theta": 2 * np.arctan(np.exp(-eta)),
    }
    return made | {"energy": np.sqrt((pt * np.cosh(eta)) ** 2 + mass**2)}


@pytest.mark.parametrize("names", SETS, ids=" ".join)
@given(momenta=st.lists(momentum, min_size=1, max_size=5))
def test_any_complete_set_gives_all_other_coordinates(names, momenta):
    whole = coordinates(*momenta)
    have = {name: whole[name] for name in names}
    for name in COORDINATES:
        way = coordinate_fields(name, have)
        assert way is not None
        got = (
            convert(name, {each: have[field] for each, field in way.items()})[name] if name not in way else have[name]
        )
        # the mass is the small difference of large squares
        scale = whole["energy"] * 2e-7 if name == "mass" else np.abs(whole[name]) * 1e-9 + 1e-9 * whole["pt"] + 1e-12
        assert (np.abs(got - whole[name]) <= scale).all(), name


@given(st.lists(momentum, min_size=1, max_size=5))
def test_coordinates_agree_with_vector_on_awkward_arrays(momenta):
    have = {name: values for name, values in coordinates(*momenta).items() if name in ("pt", "eta", "phi", "mass")}
    theirs = vector.zip({name: ak.unflatten(values, [len(values)]) for name, values in have.items()})
    made = features(theirs, COORDINATES)  # its fields are rho, eta, phi and tau
    for name in COORDINATES:
        expected = ak.to_numpy(getattr(theirs, name)[0]).astype(np.float32)
        np.testing.assert_allclose(ak.to_numpy(made[name][0]), expected, rtol=2e-7, atol=1e-12)


@given(st.lists(momentum, min_size=1, max_size=8))
def test_the_jets_axis_is_vectors_sum(momenta):
    have = coordinates(*momenta)
    parts = vector.array({name: have[name] for name in ("px", "py", "pz", "energy")})
    jet = parts.sum()
    assume(jet.pt > 1e-3 * have["pt"].sum())
    made = features(ak.zip({name: have[name][None] for name in ("pt", "eta", "phi", "mass")}), FEATURES)
    sign = 1 if jet.eta > -1e-12 else -1
    expected = {
        "part_deta": (parts.eta - jet.eta) * sign,
        "part_deltaR": parts.deltaR(jet),
        "part_logptrel": np.log(parts.pt / jet.pt),
        "part_logerel": np.log(parts.energy / jet.energy),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(ak.to_numpy(made[name][0]), values, rtol=1e-6, atol=1e-6)
    turns = (ak.to_numpy(made["part_dphi"][0]) - parts.deltaphi(jet)) / (2 * np.pi)
    np.testing.assert_allclose(turns, np.rint(turns), atol=1e-6)  # a half turn has either sign


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_is_computed_from_the_fields_it_names(name):
    present = {
        "pt": 40.0,
        "eta": 0.3,
        "phi": 1.0,
        "mass": 0.14,
        "part_d0val": 0.2,
        "part_dzval": -3.0,
        "part_pid": 22,
        "charge": 1.0,
    }
    needed = sources(present, [name])
    assert needed is not None
    assert "charge" not in needed
    jets = ak.Array([{each: [value, value] for each, value in present.items() if each in needed}])
    assert np.isfinite(ak.to_numpy(features(jets, [name])[name])).all()


def test_impact_parameters_are_squeezed_as_in_jetclass():
    jets = ak.Array([{"part_d0val": [0.0, 0.5, -40.0], "part_dzval": [1.0, 2.0, 3.0]}])
    made = features(jets, ["part_d0", "part_dz"])
    np.testing.assert_allclose(made["part_d0"][0], np.tanh([0.0, 0.5, -40.0]), rtol=1e-7)
    np.testing.assert_allclose(made["part_dz"][0], np.tanh([1.0, 2.0, 3.0]), rtol=1e-7)


def test_hadrons_are_weighted_as_in_the_quark_gluon_data():
    pid = [211, -211, 321, -2212, 130, 2112, -2112, 22, 11, 0]
    made = features(ak.Array([{"part_pid": pid}]), ["part_isCHad", "part_isNHad"])[0]
    np.testing.assert_allclose(made["part_isCHad"], [1, 1, 0.5, 0.2, 0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(made["part_isNHad"], [0, 0, 0, 0, 1, 0.2, 0.2, 0, 0, 0])


def test_without_pt_there_is_no_direction_and_no_warning():
    jets = ak.Array([{"px": [0.0, 3.0], "py": [0.0, 4.0], "pz": [0.0, 1.0], "E": [0.0, 6.0]}])
    made = features(jets)[0]
    assert made["part_pt_log"].to_list()[0] == made["part_e_log"].to_list()[0] == -math.inf
    assert made["part_pt_log"].to_list()[1] == pytest.approx(math.log(5))
    assert features(jets, ["eta", "phi", "mass"])[0].to_list()[0] == {"eta": 0.0, "phi": 0.0, "mass": 0.0}


def test_along_the_beam_eta_is_infinite():
    jets = ak.Array([{"px": [0.0, 0.0], "py": [0.0, 0.0], "pz": [5.0, -5.0], "mass": [0.0, 0.0]}])
    made = features(jets, ["eta", "energy", "part_deta"])[0]
    assert made["eta"].to_list() == [math.inf, -math.inf]
    assert made["energy"].to_list() == [5.0, 5.0]


def test_massless_particles_have_the_energy_of_their_momentum():
    eta = np.linspace(-5, 5, 11)
    jets = ak.Array({"pt": [np.full(11, 2.0)], "eta": [eta], "phi": [np.zeros(11)], "mass": [np.zeros(11)]})
    np.testing.assert_allclose(features(jets, ["energy"])["energy"][0], 2 * np.cosh(eta), rtol=1e-6)


def test_a_squared_mass_below_zero_gives_a_negative_mass():
    jets = ak.Array([{"px": [3.0], "py": [0.0], "pz": [4.0], "energy": [4.0]}])
    assert features(jets, ["mass"])["mass"].to_list() == [[-3.0]]
    back = ak.Array([{"px": [3.0], "py": [0.0], "pz": [4.0], "mass": [-3.0]}])
    assert features(back, ["energy"])["energy"].to_list() == [[4.0]]


@pytest.mark.parametrize("field", ["px", "py", "pz", "E"])
def test_nan_stays_nan_and_does_not_become_a_number(field):
    momenta = {"px": [0.0, 3.0], "py": [0.0, 4.0], "pz": [0.0, 1.0], "E": [1.0, 6.0]}
    momenta[field][0] = math.nan
    made = features(ak.Array([momenta]), COORDINATES)[0]
    dependent = {"px": ("pt", "phi", "eta", "mass"), "pz": ("eta", "mass"), "E": ("energy", "mass")}
    for name in dependent.get(field, dependent["px"]):
        assert math.isnan(made[name][0]), name
        assert not math.isnan(made[name][1]), name


def test_nan_angles_do_not_become_numbers():
    jets = ak.Array([{"pt": [1.0], "phi": [0.0], "theta": [math.nan], "mass": [0.0]}])
    assert all(math.isnan(value) for value in features(jets, ["eta", "pz", "energy"])[0].to_list()[0].values())


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint16, np.float16, np.float32, np.bool_])
def test_every_real_type_is_computed_as_float64(dtype):
    momenta = {"px": [3, 1], "py": [4, 0], "pz": [1, 1], "energy": [9, 7]}
    own = {name: np.array(values).astype(dtype) for name, values in momenta.items()}
    jets = ak.zip({name: ak.Array([values]) for name, values in own.items()})
    wide = ak.zip({name: ak.Array([values.astype(np.float64)]) for name, values in own.items()})
    assert features(jets).to_list() == features(wide).to_list()


def random_jets(lengths, seed=0):
    random = np.random.default_rng(seed)
    total = int(lengths.sum())
    pt, eta, phi = (
        random.exponential(8, total) + 0.1,
        random.normal(0, 1.5, total),
        random.uniform(-np.pi, np.pi, total),
    )
    flat = {"pt": pt, "eta": eta, "phi": phi, "energy": pt * np.cosh(eta) * 1.01}
    return ak.unflatten(ak.zip({name: values.astype(np.float32) for name, values in flat.items()}), lengths)


def test_blocks_change_nothing_at_all(monkeypatch):
    lengths = np.random.default_rng(3).integers(0, 40, 300)
    fields, nested = flatten_fields(random_jets(lengths), ("pt", "eta", "phi", "energy"))
    mass = {**{name: fields[name] for name in ("pt", "eta", "phi")}, "mass": fields["energy"] * np.float32(0.01)}
    for given_fields in (fields, mass):
        expected = compute(given_fields, nested, FEATURES)
        for block in (1, 7, 64, 1000, 4096):
            monkeypatch.setattr(module, "_BLOCK", block)
            got = compute(given_fields, nested, FEATURES)
            for name in FEATURES:
                np.testing.assert_array_equal(got[name], expected[name])
        monkeypatch.undo()


def test_the_order_of_constituents_changes_nothing():
    lengths = np.random.default_rng(4).integers(1, 60, 500)
    jets = random_jets(lengths, seed=5)
    order = np.argsort(np.repeat(np.arange(500), lengths) + np.random.default_rng(6).random(lengths.sum()))
    shuffled = ak.unflatten(ak.flatten(jets)[order], lengths)
    one, other = features(jets), features(shuffled)
    for name in FEATURES:
        np.testing.assert_allclose(
            ak.to_numpy(ak.flatten(one[name]))[order], ak.flatten(other[name]), atol=1e-6, rtol=0
        )


@given(st.permutations([(10.0, 1.0, 0.0), (10.0, -1.0, 0.1), (3.3, 0.7, -0.1), (3.3, -0.7, 0.05)]))
def test_a_jet_at_eta_zero_has_the_same_sign_in_any_order(parts):
    pt, eta, phi = np.array(parts).T
    jet = ak.zip({"pt": pt[None], "eta": eta[None], "phi": phi[None], "energy": (pt * np.cosh(eta))[None]})
    deta = ak.to_numpy(features(jet)["part_deta"][0])
    np.testing.assert_allclose(deta, eta, atol=1e-6)


def test_a_jets_own_fields_are_its_axis():
    jets = ak.Array(
        [
            {
                "part_px": [3.0, 1.0],
                "part_py": [4.0, 0.0],
                "part_pz": [1.0, 1.0],
                "part_energy": [9.0, 7.0],
                "jet_pt": 10.0,
                "jet_eta": -2.0,
            },
            {"part_px": [], "part_py": [], "part_pz": [], "part_energy": [], "jet_pt": 1.0, "jet_eta": 1.0},
        ]
    )
    made = features(jets)[0]
    np.testing.assert_allclose(made["part_logptrel"], np.log([0.5, 0.1]), rtol=1e-6)
    eta = np.arcsinh([1 / 5, 1.0])
    np.testing.assert_allclose(made["part_deta"], -(eta + 2), rtol=1e-6)
    np.testing.assert_allclose(made["part_logerel"], np.log([9 / 16, 7 / 16]), rtol=1e-6)  # no jet_energy: the sum
    np.testing.assert_allclose(made["part_dphi"], np.arctan2([4, 0], [3, 1]) - np.arctan2(4, 4), rtol=1e-6)
    broadcast = ak.zip({name: jets[name] for name in jets.fields})  # a jet's number for each constituent
    assert features(broadcast).to_list() == features(jets).to_list()


def test_part_names_go_before_those_that_may_be_the_jets():
    lists = {"part_px": [3.0], "part_py": [4.0], "part_pz": [0.0], "part_energy": [6.0]}
    jets = ak.Array([{**lists, "pt": 50.0, "eta": 1.0, "phi": 2.0, "mass": 8.0}])
    assert features(jets).to_list() == features(ak.Array([lists])).to_list()


def test_what_the_records_hold_is_taken_from_there():
    jets = ak.Array([{"part_deta": [0.3], "part_dphi": [0.4], "pt": [2.0]}])
    made = features(jets, ["part_deltaR", "part_pt_log"])[0]
    assert made["part_deltaR"].to_list() == pytest.approx([0.5])
    assert made["part_pt_log"].to_list() == pytest.approx([math.log(2)])


@pytest.mark.parametrize(
    "present",
    [
        ("pt", "eta", "phi", "t"),  # a time
        ("pt", "eta", "phi", "x", "y", "z", "t"),  # a vertex
        ("px", "py", "z", "energy"),  # a fraction
        ("x", "y", "z"),  # a position
        ("x", "y", "E"),
    ],
)
def test_a_position_or_a_time_is_not_taken_for_a_momentum(present):
    assert sources(present, ["part_logerel", "part_deta"]) is None
    with pytest.raises(InvalidInput, match="The records have"):
        features(ak.Array([{name: [1.0] for name in present}]))


def test_a_missing_package_is_named_with_its_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "vector", None)
    usual = random_jets(np.array([2, 0, 1]))
    assert features(usual, [*FEATURES, "part_px", "part_py", "part_pz", "part_energy"]).type.length == 3
    empty = ak.zip({name: ak.Array([[]]) for name in ("pt", "eta", "phi", "mass")})
    for jets in (empty, ak.zip({"pt": usual.pt, "eta": usual.eta, "phi": usual.phi, "mass": usual.pt})):
        with pytest.raises(
            ConfigurationError,
            match=r"energy from pt, phi, eta, mass needs .*vector.*pip install 'eaf-inference\[vector\]'",
        ):
            features(jets)
    assert features(empty, ["part_deta", "part_pt_log"]).fields == ["part_deta", "part_pt_log"]
