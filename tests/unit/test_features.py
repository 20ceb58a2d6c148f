"""The constituents' variables, compared with their formulas in double precision."""

from __future__ import annotations

import math

import awkward as ak
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eaf_inference
from eaf_inference.errors import InvalidInput
from eaf_inference.inference.features import FEATURES, features

constituent = st.tuples(
    st.floats(0.125, 500, width=32),
    st.floats(-2.5, 2.5, width=32),
    st.floats(-math.pi, math.pi),
    st.floats(1.0, 3.0),
)
events = st.lists(st.lists(st.lists(constituent, max_size=5), max_size=3), max_size=3)


def records(data) -> ak.Array:
    """Make events × jets × constituents from (pt, eta, phi, energy relative to its minimum)."""
    counts = [[len(jet) for jet in event] for event in data]
    flat = np.array([each for event in data for jet in event for each in jet], np.float64).reshape(-1, 4)
    pt, eta, phi, excess = flat.T.astype(np.float32)
    parts = ak.zip({"pt": pt, "eta": eta, "phi": phi, "energy": pt * np.cosh(eta) * excess})
    jets = ak.unflatten(parts, np.array([count for event in counts for count in event], np.int64))
    return ak.unflatten(jets, np.array([len(event) for event in counts], np.int64))


def reference(jet) -> list[dict[str, float]]:
    """Compute the variables of one jet's constituents from their definitions."""
    parts = [{name: float(part[name]) for name in ("pt", "eta", "phi", "energy")} for part in jet]
    px = math.fsum(part["pt"] * math.cos(part["phi"]) for part in parts)
    py = math.fsum(part["pt"] * math.sin(part["phi"]) for part in parts)
    pz = math.fsum(part["pt"] * math.sinh(part["eta"]) for part in parts)
    energy = math.fsum(part["energy"] for part in parts)
    jet_pt = math.hypot(px, py)
    theta = math.atan2(jet_pt, pz)
    jet_eta, jet_phi = -math.log(math.tan(theta / 2)), math.atan2(py, px)
    made = []
    for part in parts:
        deta = (part["eta"] - jet_eta) * (1 if jet_eta >= 0 else -1)
        dphi = math.remainder(part["phi"] - jet_phi, 2 * math.pi)
        made.append(
            {
                "part_deta": deta,
                "part_dphi": dphi,
                "part_deltaR": math.hypot(deta, dphi),
                "part_pt_log": math.log(part["pt"]),
                "part_e_log": math.log(part["energy"]),
                "part_logptrel": math.log(part["pt"] / jet_pt),
                "part_logerel": math.log(part["energy"] / energy),
            }
        )
    return made


def balanced(jet) -> bool:
    """Whether the jet's direction is well defined in single precision."""
    px, py = (sum(pt * f(phi) for pt, _, phi, _ in jet) for f in (math.cos, math.sin))
    pz = sum(pt * math.sinh(eta) for pt, eta, _, _ in jet)
    return math.hypot(px, py) > 0.05 * sum(pt for pt, *_ in jet) and abs(pz) > 1e-3 * math.hypot(px, py)


@given(events)
def test_variables_follow_the_formulas_and_keep_the_nesting(data):
    data = [[jet for jet in event if not jet or balanced(jet)] for event in data]
    constituents = records(data)
    made = features(constituents)
    assert made.fields == list(FEATURES)
    assert ak.num(made, axis=1).to_list() == [len(event) for event in data]
    assert ak.num(made, axis=2).to_list() == [[len(jet) for jet in event] for event in data]
    for event_given, event_made in zip(constituents, made, strict=True):
        for jet_given, jet_made in zip(event_given, event_made, strict=True):
            for expected, got in zip(reference(jet_given) if len(jet_given) else [], jet_made.to_list(), strict=True):
                angle = abs(abs(expected["part_dphi"]) - math.pi)
                for name, value in expected.items():
                    if name == "part_dphi" and angle < 1e-3:  # the sign of a half turn is arbitrary
                        got[name] = math.copysign(got[name], value)
                    assert got[name] == pytest.approx(value, rel=1e-4, abs=2e-4), name


def four_momenta(data) -> dict[str, ak.Array]:
    """Make all coordinates of the constituents."""
    made = ak.values_astype(records(data), np.float64)
    pt, eta, phi, energy = (made[name] for name in ("pt", "eta", "phi", "energy"))
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    mass = np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0))
    names = {"pt": pt, "eta": eta, "phi": phi, "energy": energy, "px": px, "py": py, "pz": pz, "mass": mass}
    return names | {"theta": 2 * np.arctan(np.exp(-eta))}


@pytest.mark.parametrize(
    "spelled",
    [
        {"pt": "pt", "eta": "eta", "phi": "phi", "mass": "mass"},
        {"pt": "pt", "eta": "eta", "phi": "phi", "m": "mass"},
        {"px": "px", "py": "py", "pz": "pz", "E": "energy"},
        {"px": "px", "py": "py", "pz": "pz", "mass": "mass"},
        {"part_px": "px", "part_py": "py", "part_pz": "pz", "part_energy": "energy"},
        {"part_pt": "pt", "part_eta": "eta", "part_phi": "phi", "part_mass": "mass"},
        {"x": "px", "y": "py", "z": "pz", "t": "energy"},
        {"rho": "pt", "phi": "phi", "eta": "eta", "tau": "mass"},
        {"rho": "pt", "phi": "phi", "theta": "theta", "e": "energy"},
        {"pt": "pt", "phi": "phi", "pz": "pz", "e": "energy"},
    ],
    ids=" ".join,
)
@settings(max_examples=30)
@given(data=events)
def test_every_set_of_coordinates_gives_the_same_variables(spelled, data):
    data = [[jet for jet in event if not jet or balanced(jet)] for event in data]
    momenta = four_momenta(data)
    usual = features(ak.zip({name: momenta[name] for name in ("pt", "eta", "phi", "energy")}))
    made = features(ak.zip({name: momenta[of] for name, of in spelled.items()}))
    for name in FEATURES:
        np.testing.assert_allclose(ak.flatten(made[name], None), ak.flatten(usual[name], None), atol=2e-6, rtol=1e-6)


def test_phi_wraps_at_the_half_turn():
    data = [[[(1.0, 0.1, 3.1, 1.0), (1.0, 0.1, -3.1, 1.0)]]]
    dphi = features(records(data))["part_dphi"].to_list()[0][0]
    expected = math.pi - 3.1
    assert dphi == pytest.approx([-expected, expected], abs=1e-5)


def test_eta_is_mirrored_to_make_the_jets_eta_positive():
    forward = [[[(5.0, 1.0, 0.0, 1.0), (1.0, 1.5, 0.0, 1.0)]]]
    backward = [[[(5.0, -1.0, 0.0, 1.0), (1.0, -1.5, 0.0, 1.0)]]]
    one, other = (features(records(data))["part_deta"].to_list()[0][0] for data in (forward, backward))
    assert one == pytest.approx(other, abs=1e-6)
    assert one[1] > 0


def test_the_variables_of_a_single_constituent_are_relative_to_itself():
    jet = features(records([[[(7.0, -0.5, 2.0, 1.5)]]])).to_list()[0][0][0]
    for name in ("part_deta", "part_dphi", "part_deltaR", "part_logptrel", "part_logerel"):
        assert jet[name] == pytest.approx(0.0, abs=1e-6)
    assert jet["part_pt_log"] == pytest.approx(math.log(7.0))


def test_zero_or_infinite_momentum_gives_no_warning():
    nothing = {"pt": 0.0, "eta": 200.0, "phi": 0.0, "energy": 0.0}
    something = {"pt": 1.0, "eta": 0.0, "phi": 0.0, "energy": 1.0}
    assert features(ak.Array([[nothing, something]]))["part_pt_log"].to_list()[0][0] == -math.inf


def test_only_the_named_variables_are_computed_in_their_order():
    made = features(records([[[(1.0, 0.0, 0.0, 1.0)]]]), ["part_e_log", "part_deta"])
    assert made.fields == ["part_e_log", "part_deta"]
    assert "float32" in str(made.type)


def test_an_unknown_variable_is_refused_with_the_known_ones():
    with pytest.raises(InvalidInput, match=r"Unknown features: \['part_charge'\]. Expected some of part_deta"):
        features(records([]), ["part_charge"])


@pytest.mark.parametrize(
    ("present", "message"),
    [
        (
            ("pt", "eta", "phi"),
            "lacks energy, from which part_e_log, part_logerel are computed. Add `energy` or `mass`",
        ),
        (("pt", "eta", "phi", "t"), "lacks energy, .* Did you mean 't' for 'energy'"),
        (("pt", "eta", "mass"), "lacks phi, from which part_deta and 5 others are computed. Add `phi`"),
        (("px", "py", "E"), "lacks pz, from which part_deta, part_deltaR are computed"),
        (("part_px", "part_py", "part_energy"), "lacks part_pz, from which"),
        (
            ("charge",),
            "lacks pt, eta, phi, energy, from which part_deta and 6 others are computed. Add `pt`, `eta`, ",
        ),
        (("x", "y", "z"), "lacks pt, eta, phi, energy, from which"),
    ],
)
def test_what_is_missing_for_the_variables_is_named(present, message):
    with pytest.raises(InvalidInput, match=rf"{message}.*The records have {', '.join(present)}\."):
        eaf_inference.features(ak.Array([{name: [1.0] for name in present}]))


def test_a_jets_own_variable_is_not_mistaken_for_its_constituents():
    with pytest.raises(InvalidInput, match=r"The field 'pt' has type 1 \* float64 and has one number per row"):
        features(ak.Array([{"pt": 1.0, "eta": 1.0, "phi": 1.0, "energy": 1.0}]))
