"""Parts of files: ranges of entries of ROOT and parquet files, what is read of them, and NanoEvents."""

from __future__ import annotations

import gc
import re
import weakref
from decimal import Decimal
from functools import partial
from itertools import pairwise
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
from builders import tensor
from test_typetracer import model_of

from eaf_inference.dataset.parts import File, Part
from eaf_inference.dataset.reading import Ranges, read
from eaf_inference.dataset.table import Piece, cut
from eaf_inference.errors import ConfigurationError, UnreadableFile
from eaf_inference.inference.named_inputs import selected

pq = pytest.importorskip("pyarrow.parquet")
uproot = pytest.importorskip("uproot")

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
IDS = ("run", "luminosityBlock", "event")
ENTRIES = 1000
pytestmark = pytest.mark.filterwarnings("ignore:Missing cross-reference index:RuntimeWarning")
RECIPE = {"pf_x": {"pt": {}, "eta": {}, "phi": {}}, "pf_mask": {"pf_mask": {}}}


@pytest.fixture(scope="module")
def model():
    inputs = (tensor("pf_x", 3, -1), tensor("pf_mask", 1, -1))
    return model_of(inputs, (tensor("softmax", 2),), recipe=RECIPE)


@pytest.fixture(scope="module")
def entries():
    """Some entries: jagged pt, eta and phi, flat numbers that identify them, and a column that is not used."""
    random = np.random.default_rng(1)
    counts = random.integers(0, 30, ENTRIES)
    columns = {
        name: ak.unflatten(random.normal(size=counts.sum()), counts) for name in ("pt", "eta", "phi", "unused")
    }
    return ak.zip({**columns, **{name: np.arange(ENTRIES) * (at + 1) for at, name in enumerate(IDS)}}, depth_limit=1)


def as_tree(entries, path):
    jagged = {name for name in entries.fields if entries[name].ndim > 1}
    with uproot.recreate(path) as file:
        types = {name: "var * float64" if name in jagged else "int64" for name in entries.fields}
        file.mktree("events", types, counter_name=lambda name: f"n_{name}")
        for start in range(0, len(entries), 150):
            file["events"].extend({name: entries[name][start : start + 150] for name in entries.fields})
    return File(str(path), "events")


def as_rntuple(entries, path):
    if not hasattr(uproot.WritableDirectory, "mkrntuple"):
        pytest.skip("this uproot writes no RNTuple")
    with uproot.recreate(path) as file:
        file.mkrntuple("events", {name: entries[name][:150] for name in entries.fields})
        for start in range(150, len(entries), 150):
            file["events"].extend({name: entries[name][start : start + 150] for name in entries.fields})
    return File(str(path))


def as_row_groups(entries, path):
    ak.to_parquet(entries, path, row_group_size=150)
    return File(str(path))


def as_one_row_group(entries, path):
    ak.to_parquet(entries, path)
    return File(str(path))


@pytest.fixture(scope="module", params=[as_tree, as_rntuple, as_row_groups, as_one_row_group])
def file(request, entries, tmp_path_factory):
    ending = "parquet" if "row_group" in request.param.__name__ else "root"
    return request.param(entries, tmp_path_factory.mktemp("files") / f"events.{ending}")


def momenta(array):
    return ak.zip({name: array[name] for name in ("pt", "eta", "phi")})


def assert_same(found, expected):
    assert len(found) == len(expected)
    assert ak.all(ak.num(found) == ak.num(expected))
    for name in ("pt", "eta", "phi"):
        np.testing.assert_array_equal(ak.flatten(found[name]), ak.flatten(expected[name]))


@pytest.mark.parametrize("select", [None, momenta, lambda array: momenta(array[np.arange(len(array)) >= 0])])
@pytest.mark.parametrize(
    ("start", "stop"), [(0, None), (0, 1), (149, 151), (150, 300), (7, 990), (999, 1000), (5, 5)]
)
def test_ranges_have_the_entries_of_the_file(file, entries, model, select, start, stop):
    got = read(Part(0, file, start, stop), model, select, ids=True)
    assert got.entries == len(entries[start:stop])
    assert_same(got.data, momenta(entries[start:stop]))
    assert got.ids.keys() == {*IDS}
    for name in IDS:
        np.testing.assert_array_equal(got.ids[name], entries[name][start:stop])
    assert read(Part(0, file, start, stop), model, select).ids == {}


@pytest.mark.parametrize("select", [None, momenta])
def test_a_large_file_is_cut_into_ranges_of_bounded_size(file, entries, model, select):
    used = sum(entries[name].nbytes for name in ("pt", "eta", "phi"))
    assert read(Part(0, file), model, select, most_bytes=2 * used).entries == ENTRIES  # not cut for what is unused
    cut_up = read(Part(0, file), model, select, most_bytes=used // 5)
    assert isinstance(cut_up, Ranges)
    assert cut_up.entries == ENTRIES
    edges = [edge for both in cut_up.ranges for edge in both]
    assert edges[0] == 0
    assert edges[-1] == ENTRIES
    assert edges[1:-1:2] == edges[2::2]  # without gaps
    sizes = [3 * 8 * ak.sum(ak.num(entries.pt[start:stop])) for start, stop in cut_up.ranges]
    assert max(sizes) < 0.3 * used
    assert 5 <= len(cut_up.ranges) <= 12
    parts = [read(Part(0, file, *each), model, select, most_bytes=1).data for each in cut_up.ranges]  # not cut again
    assert_same(ak.concatenate(parts), momenta(entries))


def test_steps_are_read_one_by_one_and_cut_only_inside(file, entries, model):
    stepped = File(file.path, file.tree, steps=((0, 100), (100, 100), (300, 700)))
    assert read(Part(0, stepped), model, None) == Ranges(ENTRIES, ((0, 100), (300, 700)))
    used = sum(entries[name].nbytes for name in ("pt", "eta", "phi"))
    ranges = read(Part(0, stepped), model, None, most_bytes=used // 5).ranges
    assert ranges[0] == (0, 100)
    assert (ranges[1][0], ranges[-1][1]) == (300, 700)
    none = read(Part(0, File(file.path, file.tree, steps=((0, 0),))), model, None)
    assert (none.entries, len(none.data)) == (0, 0)


@pytest.mark.parametrize(
    "asks",
    [
        lambda events: "event" in events.fields,
        lambda events: hasattr(events, "event"),
        lambda events: any(name.startswith("eve") for name in events.fields),
        lambda events: "nothing" not in events.fields,
    ],
)
def test_a_column_that_select_only_asks_about_is_there(file, entries, model, asks):
    def select(events):
        return momenta(events) if asks(events) else momenta(events[:0])

    got = read(Part(0, file, 0, 50), model, select)
    assert_same(got.data, momenta(entries[:50]))
    varied = read(
        Part(0, file, 0, 50), model, partial(selected, lambda events: (("a", select(each)) for each in (events,)))
    )
    [(_, named)] = varied.data
    assert_same(named, momenta(entries[:50]))


def test_what_was_read_is_freed_with_its_last_reference(file, model):
    gc.collect()
    gc.disable()  # a circle of references would keep the arrays of many parts in memory
    try:
        got = read(Part(0, file, 0, 100), model, momenta)
        data = weakref.ref(got.data.layout.content.content("pt").data)
        assert data() is not None
        del got
        assert data() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("part", [(0, ENTRIES + 1), (ENTRIES + 5, None)])
def test_entries_that_a_file_lacks_are_not_left_out_silently(file, model, part):
    with pytest.raises(UnreadableFile, match="has 1000 entries, not the range") as caught:
        read(Part(0, file, *part), model, None)
    assert (caught.value.reason, caught.value.temporary) == ("1000 entries", False)
    with pytest.raises(UnreadableFile, match="has 1000 entries, not the range 900 to 1001"):
        read(Part(0, File(file.path, file.tree, steps=((900, 1001),))), model, None)


@pytest.mark.parametrize("write", [as_tree, as_row_groups, as_one_row_group])
def test_a_file_without_entries_has_no_rows_and_is_no_fault(entries, model, tmp_path, write):
    ending = "root" if write is as_tree else "parquet"
    file = write(entries[:0], tmp_path / f"none.{ending}")
    for select in (None, momenta):
        got = read(Part(0, file), model, select, most_bytes=1, ids=True)
        assert (got.entries, len(got.data)) == (0, 0)
        assert got.data.ndim == 2
        assert [len(got.ids[name]) for name in IDS] == [0, 0, 0]


def test_ranges_cover_all_entries_whatever_the_pieces():
    random = np.random.default_rng(5)
    for _ in range(300):
        edges = np.unique(np.concatenate([[0], random.integers(1, 1000, random.integers(1, 9))])).tolist()
        pieces = [Piece(a, b, float(random.exponential(1e4))) for a, b in pairwise(edges)]
        most = float(random.choice([1.0, 1e3, 1e4, 1e6]))
        ranges = list(cut([Piece(0, 0, 5.0), *pieces], most, [(0, edges[-1])]))
        assert all(start < stop for start, stop in ranges)
        assert [0, *(stop for _, stop in ranges)] == [*(start for start, _ in ranges), edges[-1]]
        for start, stop in ranges:
            size = sum(p.size * max(0, min(stop, p.stop) - max(start, p.start)) / (p.stop - p.start) for p in pieces)
            rounding = max(p.size / (p.stop - p.start) for p in pieces)
            assert size <= most + rounding or stop - start == 1


def test_names_of_records_are_kept_in_ranges_of_parquet(tmp_path, model):
    vectors = ak.zip({name: ak.Array([[1.0, 2], [3]]) for name in ("pt", "eta", "phi")}, with_name="Momentum4D")
    ak.to_parquet(ak.zip({"jets": vectors}, depth_limit=1), tmp_path / "a.parquet")
    for stop in (2, 1):
        got = read(Part(0, File(str(tmp_path / "a.parquet")), 0, stop), model, lambda array: array.jets).data
        assert got.layout.content.parameters == {"__record__": "Momentum4D"}


def test_columns_of_other_types_do_not_matter(tmp_path, model):
    pa = pytest.importorskip("pyarrow")
    jagged = {name: [[1.0, 2], [3.0]] for name in ("pt", "eta", "phi")}
    maps = pa.array([[("a", 1)], []], type=pa.map_(pa.string(), pa.int64()))
    others = {"maps": maps, "exact": pa.array([Decimal("1.5")] * 2), "views": pa.array(["a", "b"], pa.string_view())}
    pq.write_table(pa.table({**others, **jagged}), tmp_path / "a.parquet")
    for select in (None, momenta, lambda table: momenta(table[np.arange(len(table)) >= 0])):
        got = read(Part(0, File(str(tmp_path / "a.parquet"))), model, select).data
        assert ak.to_list(got.phi) == jagged["phi"]


def test_a_branch_that_select_does_not_use_may_be_unreadable(entries, model, tmp_path):
    file = as_tree(entries, tmp_path / "a.root")
    content = bytearray(Path(file.path).read_bytes())
    with uproot.open(file.path) as opened:
        [start, *_] = opened["events"]["unused"].member("fBasketSeek")
    content[start : start + 300] = bytes(300)
    Path(file.path).write_bytes(content)
    assert_same(read(Part(0, file), model, momenta).data, momenta(entries))
    with pytest.raises(UnreadableFile, match="cannot be read"):
        read(Part(0, file), model, lambda array: ak.zip({"pt": array.unused, "eta": array.eta, "phi": array.phi}))


def test_a_branch_that_is_no_array_is_left_out(entries, model, tmp_path, monkeypatch):
    interpretation = uproot.interpretation
    numbers = iter(range(ENTRIES))

    def form(self, *arguments, original=interpretation.jagged.AsJagged.awkward_form, **options):
        if next(numbers) == 3:  # pt, eta, phi, unused
            raise interpretation.objects.CannotBeAwkward("arbitrary pointer")
        return original(self, *arguments, **options)

    monkeypatch.setattr(interpretation.jagged.AsJagged, "awkward_form", form)
    columns = []

    def select(table):
        columns.append(table.fields)
        return momenta(table[np.arange(len(table)) >= 0])  # which needs data, so that all columns are read

    data = read(Part(0, as_tree(entries, tmp_path / "a.root")), model, select).data
    assert_same(data, momenta(entries))
    assert "unused" not in columns[-1]


def test_a_branch_inside_another_has_its_own_name(entries, model, tmp_path, monkeypatch):
    file = as_tree(entries, tmp_path / "a.root")
    keys = uproot.TTree.keys

    def inside(self, *, full_paths=True, **options):
        return [f"outer/{name}" if full_paths else name for name in keys(self, full_paths=False, **options)]

    monkeypatch.setattr(uproot.TTree, "keys", inside)
    got = read(Part(0, file), model, None, ids=True)
    assert_same(got.data, momenta(entries))
    assert [*got.ids] == [*IDS]


def test_names_of_columns_are_no_patterns(entries, model, tmp_path):
    odd = ak.zip({f"{name}[{at}]": entries[name] for at, name in enumerate(("pt", "eta", "phi"))}, depth_limit=1)
    file = as_rntuple(odd, tmp_path / "a.root")
    got = read(Part(0, file), model, lambda array: ak.zip({name[:-3]: array[name] for name in odd.fields}))
    assert_same(got.data, momenta(entries))


def candidates(events):
    return events.FatJet.constituents.pf


def flat(events):
    return ak.zip({name: events[f"PFCands_{name}"] for name in ("pt", "eta", "phi")})


@pytest.fixture
def pf_schema():
    return pytest.importorskip("coffea.nanoevents").PFNanoAODSchema


NANO = File(str(NOTEBOOKS / "cms_pfnano.root"), "Events", dataset="tt", metadata={"year": 2018})


def test_select_receives_nanoevents_of_a_range_and_little_is_read(model, pf_schema, monkeypatch):
    asked = []

    def select(events):
        asked.append(events.metadata)
        return candidates(events)

    loaded = []
    array = uproot.behaviors.TBranch.TBranch.array
    monkeypatch.setattr(
        uproot.behaviors.TBranch.TBranch,
        "array",
        lambda self, *arguments, **options: loaded.append(self.name) or array(self, *arguments, **options),
    )
    whole = read(Part(0, NANO), model, select, schema=pf_schema, ids=True)
    assert {"PFCands_pt", "PFCands_eta", "PFCands_phi"} <= {*loaded}
    assert not {"PFCands_mass", "PFCands_d0", "Jet_pt", "FatJet_pt"} & {*loaded}
    assert whole.entries == 10
    part = read(Part(0, NANO, 3, 7), model, select, schema=pf_schema, ids=True)
    assert ak.almost_equal(part.data, whole.data[3:7])
    np.testing.assert_array_equal(part.ids["event"], whole.ids["event"][3:7])
    assert {"dataset": "tt", "year": 2018, "entrystart": 3, "entrystop": 7}.items() <= asked[-1].items()
    both = read(Part(0, NANO, 3, 7), model, lambda events: {"pf": candidates(events)}, schema=pf_schema).data
    assert ak.almost_equal(both["pf"], part.data)
    nested = read(Part(0, NANO, 3, 7), model, lambda ev: [{"pf": candidates(ev)}, 1], schema=pf_schema).data
    assert ak.almost_equal(nested[0]["pf"].pt, part.data.pt)
    uneven = read(
        Part(0, NANO), model, lambda ev: {"pf": candidates(ev), "sv": ev.FatJet.pt[:1]}, schema=pf_schema
    ).data
    assert [len(each) for each in uneven.values()] == [10, 1]  # and not broadcast
    varied = partial(selected, lambda events: ((str(n), candidates(events)) for n in range(2)))
    named = read(Part(0, NANO), model, varied, schema=pf_schema).data
    assert [(name, len(each)) for name, each in named] == [("0", 10), ("1", 10)]  # the file is closed by now


def test_nanoevents_are_cut_by_the_columns_that_select_uses(model, pf_schema):
    with uproot.open(f"{NANO.path}:Events") as tree:
        used = sum(tree[f"PFCands_{name}"].uncompressed_bytes for name in ("pt", "eta", "phi"))
        total = sum(branch.uncompressed_bytes for branch in tree.branches)
    assert read(Part(0, NANO), model, candidates, schema=pf_schema, most_bytes=(used + total) // 2).entries == 10
    ranges = read(Part(0, NANO), model, candidates, schema=pf_schema, most_bytes=used // 2).ranges
    assert (ranges[0][0], ranges[-1][1]) == (0, 10)
    assert 2 <= len(ranges) <= 5


def test_nanoevents_of_parquet_are_read(model, tmp_path):
    schema = pytest.importorskip("coffea.nanoevents").NanoAODSchema
    names = ("run", "luminosityBlock", "event", "nJet", "Jet_pt", "Jet_eta", "Jet_phi", "Jet_mass")
    with uproot.open(f"{NANO.path}:Events") as tree:
        stored = tree.arrays(names)
    ak.to_parquet(stored, tmp_path / "nano.parquet", row_group_size=4, extensionarray=False)
    file = File(str(tmp_path / "nano.parquet"))
    for start, stop in ((0, 10), (2, 7)):
        got = read(Part(0, file, start, stop), model, lambda events: events.Jet, schema=schema, ids=True)
        np.testing.assert_array_equal(ak.flatten(got.data.pt), ak.flatten(stored.Jet_pt[start:stop]))
        np.testing.assert_array_equal(got.ids["event"], stored.event[start:stop])
        assert got.aligned
        first = stored.event[start]
        dropping = read(
            Part(0, file, start, stop),
            model,
            lambda events, first=first: events.Jet[events.event != first],
            schema=schema,
            ids=True,
        )
        assert not dropping.aligned
        descending = read(
            Part(0, file, start, stop),
            model,
            lambda events: events.Jet[ak.argsort(events.event, ascending=False)],
            schema=schema,
            ids=True,
        )
        assert not descending.aligned


def test_a_schema_needs_a_select_and_a_file_that_suits_it(file, model, pf_schema):
    with pytest.raises(ConfigurationError, match="There is a schema but no select"):
        read(Part(0, NANO), model, None, schema=pf_schema)
    with pytest.raises(ConfigurationError, match="The schema is 'NanoAODSchema'. Expected a class"):
        read(Part(0, NANO), model, candidates, schema="NanoAODSchema")
    with pytest.raises(UnreadableFile, match=re.escape(file.path)) as caught:
        read(Part(0, file), model, candidates, schema=pf_schema)
    assert caught.value.reason in ("not as PFNanoAODSchema expects", "lacks FatJet")


@pytest.mark.parametrize("nano", [False, True])
def test_a_column_that_select_uses_and_the_file_lacks_is_named(model, nano, request):
    schema = request.getfixturevalue("pf_schema") if nano else None
    with pytest.raises(UnreadableFile, match="lacks Nope; select uses it. The file has run, ") as caught:
        read(Part(0, NANO), model, lambda events: events.Nope.pt, schema=schema)
    assert (caught.value.reason, caught.value.temporary) == ("lacks Nope", False)


def test_an_array_is_the_input_itself_or_what_select_makes_of_it(model):
    array = ak.Array([[1.0], [2.0, 3.0]])
    got = read(Part(0, None), model, None, array)
    assert got.data is array
    assert (got.entries, got.ids) == (2, {})
    made = read(Part(0, None), model, lambda chunk: chunk[1], (7, {"x": np.ones((3, 2))}))
    assert (made.entries, [*made.data]) == (3, ["x"])
