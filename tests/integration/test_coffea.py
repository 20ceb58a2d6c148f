"""coffea's NanoEvents given to models as they are: eager, virtual and with Dask, of CMS and of ATLAS."""

from __future__ import annotations

from types import MappingProxyType

import awkward as ak
import dask
import dask_awkward
import numpy as np
import pytest
from coffea.nanoevents import NanoAODSchema, NanoEventsFactory, PFNanoAODSchema, PHYSLITESchema
from nano_models import MODELS, each_alone, make_nano_models

import eaf_facility.servers.triton
import eaf_inference
from eaf_facility.local.demo import NOTEBOOKS
from eaf_facility.servers.triton import TritonServer
from eaf_inference.errors import InvalidInput

pytestmark = pytest.mark.filterwarnings("ignore:Missing cross-reference:RuntimeWarning")
MODES = ("eager", "virtual", "dask")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return make_nano_models(tmp_path_factory.mktemp("nano"))


@pytest.fixture(scope="module")
def triton(repository):
    with (
        TritonServer.start([repository, eaf_facility.servers.triton.MODELS]) as server,
        eaf_inference.connect(server.grpc) as connection,
    ):
        yield connection


@pytest.fixture(scope="module")
def candidates(triton):
    return triton.model("candidates")


@pytest.fixture(autouse=True)
def no_fusion(configuration):
    """dask-awkward before 2025.9 cannot fuse tasks of a newer Dask: see docs/how-to/dask-collections.md."""
    configuration.set({"awkward.optimization.which": ["columns"]})


def cms(mode, **options):
    path = {str(NOTEBOOKS / "cms_pfnano.root"): "Events"}
    return NanoEventsFactory.from_root(path, schemaclass=PFNanoAODSchema, mode=mode, **options).events()


def atlas(mode):
    path = {str(NOTEBOOKS / "atlas_physlite.root"): "CollectionTree"}
    return NanoEventsFactory.from_root(path, schemaclass=PHYSLITESchema, mode=mode).events()


def columns_of(model):
    """Return the columns of a file that a model of the candidates of fat jets needs."""
    links = {"nFatJet", "FatJet_nConstituents", "nFatJetPFCands", "FatJetPFCands_pFCandsIdx", "nPFCands"}
    return links | {f"PFCands_{name}" for name in MODELS[model]}


def computed(array):
    if not isinstance(array, dask_awkward.Array):
        return array
    (ready,) = dask.optimize(array)
    return ready.compute(scheduler="sync", optimize_graph=False)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("collection", ["FatJet", "Jet"])
def test_the_candidates_of_jets_are_scored_as_each_jet_alone(candidates, repository, mode, collection):
    scores = computed(candidates(cms(mode)[collection].constituents.pf))
    jets = cms("eager")[collection]
    assert ak.num(scores).to_list() == ak.num(jets).to_list()
    assert scores.fields == ["signal", "background"]
    expected = each_alone(repository, "candidates", ak.flatten(jets.constituents.pf))
    np.testing.assert_allclose(ak.flatten(scores.signal), expected, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_selected_and_sorted_jets_are_scored_as_each_jet_alone(candidates, repository, mode):
    def selected(events):
        jets = events.FatJet[events.FatJet.pt > 1600]
        jets = jets[ak.argsort(jets.mass, axis=1)]
        return jets[ak.num(jets) > 1].constituents.pf

    scores = computed(candidates(selected(cms(mode))))
    jets = selected(cms("eager"))
    assert 0 < len(jets) < 10
    assert ak.num(scores).to_list() == ak.num(jets).to_list()
    expected = each_alone(repository, "candidates", ak.flatten(jets))
    np.testing.assert_allclose(ak.flatten(scores.signal), expected, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_no_selected_jets_give_no_scores(candidates, mode):
    scores = computed(candidates(cms(mode).FatJet.constituents.pf[:, :0]))
    assert ak.num(scores).to_list() == [0] * 10
    assert str(scores.type) == "10 * var * {signal: float32, background: float32}"


@pytest.mark.parametrize("mode", MODES)
def test_energies_come_from_the_masses_of_candidates(triton, mode):
    model = triton.model("particlenet")
    candidates = cms("eager").FatJet.constituents.pf
    names = ("pt", "eta", "phi")
    by_hand = ak.zip({name: candidates[name] for name in names} | {"energy": candidates.energy})
    scores = computed(model(cms(mode).FatJet.constituents.pf))
    np.testing.assert_allclose(ak.flatten(scores.top), ak.flatten(model(by_hand).top), atol=1e-5)


def test_only_the_columns_of_the_model_are_read_from_a_file(candidates):
    log = []
    events = cms("virtual", access_log=log)
    candidates(events.FatJet.constituents.pf)
    assert {each.branch for each in log} == columns_of("candidates")


def test_a_graph_of_dask_reads_only_the_columns_of_the_model(candidates):
    scores = candidates(cms("dask").FatJet.constituents.pf)
    assert isinstance(scores, dask_awkward.Array)
    assert str(scores.type) == "?? * var * {signal: float32, background: float32}"
    (columns,) = dask_awkward.necessary_columns(scores).values()
    assert set(columns) == columns_of("candidates")


@pytest.mark.parametrize("mode", MODES)
def test_candidates_may_be_given_by_input_name(candidates, mode):
    jets = cms(mode).Jet.constituents.pf
    channels = [jets[name] * factor for name, factor in MODELS["candidates"].items()]
    named = MappingProxyType({"pf_x": channels, "pf_mask": [jets.pt * 0 + 1]})  # Dask looks into dictionaries only
    scores = computed(candidates(named))
    by_recipe = candidates(cms("eager").Jet.constituents.pf)
    np.testing.assert_allclose(ak.flatten(scores.signal), ak.flatten(by_recipe.signal), atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_candidates_of_nanoaod_15_are_grouped_by_jet(triton, mode):
    path = {str(NOTEBOOKS / "cms_nano_v15.root"): "Events"}

    def grouped(mode):
        events = NanoEventsFactory.from_root(path, schemaclass=NanoAODSchema, mode=mode).events()
        return candidates_of(events)

    model = triton.model("particlenet")
    jets = grouped("eager")
    scores = computed(model(grouped(mode)))
    assert ak.num(scores).to_list() == ak.num(jets).to_list()
    alone = [model(jet[np.newaxis]).top[0] for jet in ak.flatten(jets)]
    assert len(alone) == 64
    np.testing.assert_allclose(ak.flatten(scores.top), alone, atol=2e-6)


def candidates_of(events):
    """Return jets × candidates, as docs/how-to/coffea.md does."""
    links = events.FatJetPFCand
    candidates = ak.with_field(events.PFCand[links.pfCandIdx], links.jetIdx, "jetIdx")
    number, candidate = ak.unzip(ak.cartesian([ak.local_index(events.FatJet.pt), candidates], nested=True))
    return candidate[candidate.jetIdx == number]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("missing", ["jets", "first jets of events"])
def test_missing_jets_have_no_scores(candidates, repository, mode, missing):
    def hard(events):
        jets = events.FatJet
        if missing == "jets":
            return ak.mask(jets.constituents.pf, jets.pt > 1600)
        return ak.firsts(jets[jets.pt > 1600], axis=1).constituents.pf

    scores = computed(candidates(hard(cms(mode))))
    jets = hard(cms("eager"))
    axis = int(missing == "jets")
    none = ak.is_none(jets, axis=axis)
    assert 0 < ak.count_nonzero(none) < ak.count(none)
    assert ak.is_none(scores, axis=axis).to_list() == none.to_list()
    present = ak.drop_none(ak.flatten(jets) if missing == "jets" else jets, axis=0)
    alone = each_alone(repository, "candidates", present)
    np.testing.assert_allclose(ak.flatten(scores.signal, axis=None), alone, atol=1e-6)


def test_lazy_and_computed_arrays_cannot_be_mixed(candidates):
    lazy, jets = cms("dask").Jet.constituents.pf, cms("eager").Jet.constituents.pf
    with pytest.raises(InvalidInput, match="'pf_mask' is an awkward .* 'pf_x', channel 0 is a dask-awkward array"):
        candidates({"pf_x": [lazy[name] for name in MODELS["candidates"]], "pf_mask": jets.pt})


def test_partitions_of_lazy_events_keep_their_order(candidates):
    path = {str(NOTEBOOKS / "cms_pfnano.root"): {"object_path": "Events", "steps": [[0, 1], [1, 1], [1, 6], [6, 10]]}}
    events = NanoEventsFactory.from_root(path, schemaclass=PFNanoAODSchema, mode="dask").events()
    scores = candidates(events.FatJet.constituents.pf)
    assert scores.npartitions == 4
    expected = candidates(cms("eager").FatJet.constituents.pf)
    np.testing.assert_allclose(ak.flatten(computed(scores).signal), ak.flatten(expected.signal), atol=1e-6)
    kept = events.FatJet[scores.signal > 0.5].pt  # the scores select the jets of the same events
    jets = cms("eager").FatJet
    assert computed(kept).to_list() == jets.pt[expected.signal > 0.5].to_list()


def test_a_lazy_chunk_of_many_is_refused(candidates):
    with pytest.raises(InvalidInput, match="A chunk is a dask-awkward array. .*call the model with it"):
        list(candidates.map([cms("dask").Jet.constituents.pf]))


@pytest.mark.parametrize("mode", MODES)
def test_jets_and_their_candidates_are_scored_together(triton, repository, mode):
    jets = cms(mode).FatJet
    scores = computed(triton.model("tagger")({"pf": jets.constituents.pf, "jet": jets}))
    jets = ak.flatten(cms("eager").FatJet)
    expected = each_alone(repository, "tagger", jets.constituents.pf, jets)
    np.testing.assert_allclose(ak.flatten(scores.signal), expected, atol=1e-6)


def test_only_the_columns_of_both_collections_are_read(triton):
    log = []
    jets = cms("virtual", access_log=log).FatJet
    triton.model("tagger")({"pf": jets.constituents.pf, "jet": jets})
    assert {each.branch for each in log} == columns_of("tagger") | {"FatJet_pt", "FatJet_mass"}


@pytest.mark.parametrize("mode", MODES)
def test_jets_are_not_taken_for_their_candidates(triton, mode):
    model = triton.model("particlenet")
    jets = cms(mode).FatJet
    with pytest.raises(InvalidInput, match="is an array of jets. .*Pass the candidates: jets.constituents.pf"):
        model(jets)
    with pytest.raises(InvalidInput, match="lacks pt, .*Pass the candidates: jets.constituents.pf"):
        model(jets.constituents)


def test_features_are_not_computed_for_jets_in_place_of_candidates():
    with pytest.raises(InvalidInput, match="is an array of jets. .*Pass the candidates: jets.constituents.pf"):
        eaf_inference.features(cms("virtual").FatJet)


@pytest.mark.parametrize("mode", MODES)
def test_tracks_of_atlas_events(triton, repository, mode):
    scores = computed(triton.model("tracks")(atlas(mode).InDetTrackParticles))
    expected = each_alone(repository, "tracks", atlas("eager").InDetTrackParticles)
    np.testing.assert_allclose(scores.signal, expected, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_tracks_in_atlas_jets(triton, repository, mode):
    def tracks_in_jets(events):
        jets, tracks = events.Jets, events.InDetTrackParticles
        jet, track = ak.unzip(ak.cartesian([jets, tracks], axis=1, nested=True))
        return track[jet.delta_r(track) < 0.4]

    scores = computed(triton.model("tracks")(tracks_in_jets(atlas(mode))))
    jets = tracks_in_jets(atlas("eager"))
    assert ak.num(scores).to_list() == ak.num(jets).to_list()
    expected = each_alone(repository, "tracks", ak.flatten(jets))
    np.testing.assert_allclose(ak.flatten(scores.signal), expected, atol=1e-6)
