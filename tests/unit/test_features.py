"""The constituents' variables against their formulas in double precision, one jet at a time."""

from __future__ import annotations

import math

import awkward as ak
import numpy as np
import pytest
from hypothesis import given
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
    """Events × jets × constituents of (pt, eta, phi, energy over its least)."""
    counts = [[len(jet) for jet in event] for event in data]
    flat = np.array([each for event in data for jet in event for each in jet], np.float64).reshape(-1, 4)
    pt, eta, phi, excess = flat.T.astype(np.float32)
    parts = ak.zip({"pt": pt, "eta": eta, "phi": phi, "energy": pt * np.cosh(eta) * excess})
    jets = ak.unflatten(parts, np.array([count for event in counts for count in event], np.int64))
    return ak.unflatten(jets, np.array([len(event) for event in counts], np.int64))


def reference(jet) -> list[dict[str, float]]:
    """The variables of one jet's constituents, from the definitions."""
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
def test_the_variables_are_those_of_the_formulas_and_the_nesting_is_kept(data):
    data = [[jet for jet in event if not jet or balanced(jet)] for event in data]
    given_ones = records(data)
    made = features(given_ones)
    assert made.fields == list(FEATURES)
    assert ak.num(made, axis=1).to_list() == [len(event) for event in data]
    assert ak.num(made, axis=2).to_list() == [[len(jet) for jet in event] for event in data]
    for event_given, event_made in zip(given_ones, made, strict=True):
        for jet_given, jet_made in zip(event_given, event_made, strict=True):
            for expected, got in zip(reference(jet_given) if len(jet_given) else [], jet_made.to_list(), strict=True):
                angle = abs(abs(expected["part_dphi"]) - math.pi)
                for name, value in expected.items():
                    if name == "part_dphi" and angle < 1e-3:  # a half turn has two signs
                        got[name] = math.copysign(got[name], value)
                    assert got[name] == pytest.approx(value, rel=1e-4, abs=2e-4), name


def test_phi_wraps_at_the_half_turn():
    data = [[[(1.0, 0.1, 3.1, 1.0), (1.0, 0.1, -3.1, 1.0)]]]
    dphi = features(records(data))["part_dphi"].to_list()[0][0]
    expected = math.pi - 3.1
    assert dphi == pytest.approx([-expected, expected], abs=1e-5)


def test_eta_is_mirrored_so_that_the_jets_is_positive():
    forward = [[[(5.0, 1.0, 0.0, 1.0), (1.0, 1.5, 0.0, 1.0)]]]
    backward = [[[(5.0, -1.0, 0.0, 1.0), (1.0, -1.5, 0.0, 1.0)]]]
    one, other = (features(records(data))["part_deta"].to_list()[0][0] for data in (forward, backward))
    assert one == pytest.approx(other, abs=1e-6)
    assert one[1] > 0


def test_a_single_constituent_is_its_jet():
    jet = features(records([[[(7.0, -0.5, 2.0, 1.5)]]])).to_list()[0][0][0]
    for name in ("part_deta", "part_dphi", "part_deltaR", "part_logptrel", "part_logerel"):
        assert jet[name] == pytest.approx(0.0, abs=1e-6)
    assert jet["part_pt_log"] == pytest.approx(math.log(7.0))


def test_a_constituent_without_or_with_boundless_momentum_gives_no_warning():
    nothing = {"pt": 0.0, "eta": 200.0, "phi": 0.0, "energy": 0.0}
    something = {"pt": 1.0, "eta": 0.0, "phi": 0.0, "energy": 1.0}
    assert features(ak.Array([[nothing, something]]))["part_pt_log"].to_list()[0][0] == -math.inf


def test_only_the_named_variables_are_computed_in_float32_and_in_that_order():
    made = features(records([[[(1.0, 0.0, 0.0, 1.0)]]]), ["part_e_log", "part_deta"])
    assert made.fields == ["part_e_log", "part_deta"]
    assert "float32" in str(made.type)


def test_an_unknown_variable_is_refused_with_those_there_are():
    with pytest.raises(InvalidInput, match=r"no features \['part_charge'\]. Expected some of part_deta, part_dphi"):
        features(records([]), ["part_charge"])


def test_a_missing_field_is_named_with_those_there_are():
    with pytest.raises(
        InvalidInput,
        match=r"lacks energy. Add `energy`: .*The records have pt, eta, phi, mass\.",
    ):
        eaf_inference.features(ak.Array([[{"pt": 1.0, "eta": 1.0, "phi": 1.0, "mass": 1.0}]]))


def test_a_jets_own_variable_is_told_from_its_constituents():
    with pytest.raises(InvalidInput, match=r"The field 'pt' has type 1 \* float64: one number a row"):
        features(ak.Array([{"pt": 1.0, "eta": 1.0, "phi": 1.0, "energy": 1.0}]))
