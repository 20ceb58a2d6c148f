"""Messages for wrong inputs: they name the shortest cure."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest

from eaf_inference.errors import InvalidInput
from eaf_inference.inference.features import features
from eaf_inference.inference.layout import flatten_fields
from eaf_inference.inference.wrong_input import kind_of, lacking

KINEMATICS = ("pt", "eta", "phi", "energy")
CONSTITUENTS = ak.zip({key: [[1.0, 2.0]] for key in KINEMATICS})
JETS = ak.zip({"pt": [1.0], "eta": [0.5], "constituents": CONSTITUENTS}, depth_limit=1)
EVENTS = ak.zip({"run": [1], "jets": ak.unflatten(JETS, [1])}, depth_limit=1)
NO_RECORDS = (
    "without fields. Expected an awkward record array of … × jets × constituents with the fields pt, eta, phi, "
    "energy, as ak.zip makes it, not one of its fields."
)


def jets(*names):
    """Make a record array of one jet with these fields, each a list per jet."""
    return ak.Array([{key: [1.0, 2.0] for key in names}])


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (
            jets("pt", "eta", "phi", "mass"),
            ("The input lacks energy. Add `energy`. The records have pt, eta, phi, mass."),
        ),
        (jets("pt", "phi"), "The input lacks eta, energy. Add `eta`, `energy`. The records have pt, phi."),
        (
            jets("pt", "Eta", "phi", "E"),
            (
                "The input lacks eta, energy. Did you mean 'Eta' for 'eta', 'E' for 'energy'? Rename them. The "
                "records have pt, Eta, phi, E."
            ),
        ),
        (
            jets("pt", "eta", "phi", "enegry"),
            (
                "The input lacks energy. Did you mean 'enegry' for 'energy'? Rename it. The records have pt, "
                "eta, phi, enegry."
            ),
        ),
        (
            JETS,
            (
                "The input lacks phi, energy. Did you mean its field 'constituents'? Pass jets.constituents. The "
                "records have pt, eta, constituents."
            ),
        ),
        (
            EVENTS,
            (
                "The input lacks pt, eta, phi, energy. Did you mean its field 'jets.constituents'? Pass "
                "events.jets.constituents. The records have run, jets."
            ),
        ),
        (
            np.zeros((3, 4), np.float32),
            f"The input is a numpy array of shape (3, 4) and dtype float32, {NO_RECORDS}",
        ),
        (CONSTITUENTS.pt, f"The input is an awkward array of type 1 * var * float64, {NO_RECORDS}"),
    ],
)
def test_missing_fields_come_with_the_shortest_cure(records, message):
    with pytest.raises(InvalidInput) as raised:
        flatten_fields(records, KINEMATICS, what="The input")
    assert str(raised.value) == message


def test_missing_features_are_answered_with_their_source_fields():
    computed = ("part_deta", "part_dphi")
    error = lacking(jets("pt", "eta", "phi"), computed, "The input", sources=KINEMATICS, computed=computed)
    assert str(error).startswith(
        "The input lacks energy, from which part_deta, part_dphi are computed. Add `energy` or `mass`. "
    )
    error = lacking(jets("charge"), computed, "The input", sources=KINEMATICS, computed=computed)
    assert str(error).startswith(
        "The input lacks part_deta, part_dphi; or pt, eta, phi, energy, from which they are computed. "
    )
    assert "Pass jets.constituents" in str(lacking(JETS, computed, "", sources=KINEMATICS, computed=computed))


def test_a_jets_own_variables_are_answered_with_its_constituents():
    flat = ak.zip({**{key: [1.0] for key in KINEMATICS}, "constituents": CONSTITUENTS}, depth_limit=1)
    with pytest.raises(InvalidInput, match="has one pt per row, .*Did you mean its field 'constituents'"):
        flatten_fields(flat, KINEMATICS)


def test_events_are_answered_with_constituents_although_jets_have_momenta():
    jets = ak.zip({**{key: [1.0] for key in KINEMATICS}, "constituents": CONSTITUENTS}, depth_limit=1)
    events = ak.zip({"jets": ak.unflatten(jets, [1])}, depth_limit=1)
    assert "Pass events.jets.constituents." in str(lacking(events, KINEMATICS, "The input"))
    plain = events[["jets"]]
    plain["jets"] = events.jets[[*KINEMATICS]]
    assert "Pass events.jets." in str(lacking(plain, KINEMATICS, "The input"))


@pytest.mark.parametrize("temporal", ["energy", "mass"])  # mass needs the package vector, which is not the fault
@pytest.mark.parametrize("outer", [lambda jets: jets, lambda jets: ak.unflatten(jets, [2, 1])])
def test_jets_that_have_momenta_are_not_taken_for_constituents(temporal, outer):
    own = {key: [1.0, 2.0, 3.0] for key in ("pt", "eta", "phi", temporal)}
    constituents = ak.zip({key: [[1.0, 2.0], [3.0], [4.0]] for key in KINEMATICS})
    jets = outer(ak.zip({**own, "constituents": constituents}, depth_limit=1))
    with pytest.raises(InvalidInput, match=r"is an array of jets\. .* Pass jets\.constituents, or"):
        features(jets, ["part_deta"])
    assert features(jets.constituents, ["part_deta"]).fields == ["part_deta"]


def test_momenta_beside_vertices_are_not_taken_for_jets():
    columns = {f"part_{key}": [[1.0, 2.0]] for key in ("px", "py", "pz", "energy")}
    jet = ak.zip({**columns, "jet_pt": [3.0], "sv": CONSTITUENTS}, depth_limit=1)
    assert len(features(jet, ["part_pt_log"])) == 1
    assert len(features(jet, ["part_logptrel"])) == 1


def test_particles_with_a_track_each_are_not_taken_for_jets():
    particles = ak.with_field(CONSTITUENTS, CONSTITUENTS, "track")
    assert len(features(particles, ["part_pt_log"])) == 1


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (3, "a number"),
        (None, "None"),
        ("jets", "a string"),
        ([1], "a list"),
        (KeyError(), "a KeyError"),
        (np.zeros(2), "a numpy array of shape (2,) and dtype float64"),
        (np.float32(1), "a numpy float32"),
        (ak.Array([1]), "an awkward array of type 1 * int64"),
        (ak.Record({"pt": 1}), "a single awkward record"),
        (ak.ArrayBuilder(), "an awkward ArrayBuilder"),
    ],
)
def test_values_are_described_in_the_users_terms(value, words):
    assert kind_of(value) == words
