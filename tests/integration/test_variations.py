"""Variations with a real Triton: the scores are those of a plain loop, and only rows that changed are sent."""

from __future__ import annotations

import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor

import awkward as ak
import numpy as np
import pytest
from builders_of_types import save_onnx
from graph_zoo import make_graph_zoo
from test_graph_networks import graphs_of, taken
from test_pair_matrices import save_models
from zoo import FLOAT, LAST_AXIS, NODE, save_model

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_inference.dataset import columns
from eaf_inference.errors import IncompleteRun, InvalidInput
from eaf_inference.inference.traffic import Traffic
from eaf_inference.inference.variations import score_variations


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Give a connection to a Triton with graph networks, pair matrices, two collections, and strings."""
    repository = make_graph_zoo(tmp_path_factory.mktemp("varied"))
    save_models(repository)
    save_model(
        repository / "two",
        nodes=[
            NODE("ReduceSum", ["pf_x", "axis"], ["pf"], keepdims=0),
            NODE("Mul", ["sv_x", "sv_x"], ["each"]),
            NODE("ReduceSum", ["each", "axis"], ["sv"], keepdims=0),
            NODE("Sub", ["pf", "sv"], ["difference"]),
            NODE("Mul", ["difference", "jet"], ["y"]),
        ],
        inputs=[("pf_x", FLOAT, ["n", 1, "p"]), ("sv_x", FLOAT, ["n", 1, "s"]), ("jet", FLOAT, ["n", 1])],
        outputs=[("y", FLOAT, ["n", 1]), ("each", FLOAT, ["n", 1, "s"])],
        constants=[LAST_AXIS],
    )
    for each in repository.iterdir():
        if each.name not in ("by_ptr", "one_at_a_time", "attention", "two"):
            shutil.rmtree(each)  # fewer start faster
    save_onnx(repository / "echo", [NODE("Identity", ["s"], ["t"])], [("s", "STRING", (2,))], [("t", "STRING", (2,))])
    with TritonServer.start([repository]) as server, eaf_inference.connect(server.grpc) as connection:
        yield connection


def scored(model, pairs):
    """Return the scores by name, and the rows that were sent."""
    traffic = Traffic()
    scores = score_variations(model, pairs, traffic=traffic)
    return scores, traffic.inferences


def assert_equal(mine, plain):
    if isinstance(mine, dict):
        assert list(mine) == list(plain)
        for name in mine:
            assert_equal(mine[name], plain[name])
    elif isinstance(mine, ak.Array):
        assert mine.type == plain.type
        assert ak.array_equal(mine, plain, equal_nan=True)
    else:
        assert np.array_equal(mine, plain, equal_nan=True)


def moved(jets, at):
    """Return the jets with other values in these rows."""
    factor = np.ones((len(jets), 1), np.float32)
    factor[at] = 1.25
    return times(jets, factor)


def times(rows, factor):
    return ak.zip({name: rows[name] * factor for name in rows.fields}) if rows.fields else rows * factor


def varied_tenths(jets, number=3):
    """Return the jets, and the jets with another tenth of them changed in each variation."""
    rng = np.random.default_rng(17)
    changed = [rng.choice(len(jets), len(jets) // 10, replace=False) for _ in range(number)]
    return {"nominal": jets} | {f"jes{n}": moved(jets, at) for n, at in enumerate(changed)}


@pytest.mark.filterwarnings("ignore:Model .* scores depend on the padding", "ignore:.* jets have NaN")
@pytest.mark.parametrize("name", ["sums", "neighbours", "squares", "ratio"])
def test_scores_equal_the_plain_loop_and_a_tenth_of_the_rows_is_sent(connection, jagged, name):
    model = connection.model(name)
    jets = {"neighbours": jagged[["a"]], "squares": jagged.a, "ratio": jagged[:300]}.get(name, jagged)
    number = len(jets)
    nesting = [100, 0, number - 101, 1]
    inputs = {key: ak.unflatten(each, nesting) for key, each in varied_tenths(jets).items()}
    plain = {key: model(each) for key, each in inputs.items()}
    scores, sent = scored(model, inputs.items())
    assert number < sent <= 1.3 * number  # rows without constituents do not change
    assert_equal(scores, plain)


@pytest.mark.filterwarnings("ignore:Model .* scores depend on the padding", "ignore:.* jets have NaN")
def test_unchanged_rows_have_the_nominals_very_scores(connection, jagged):
    model, rng, jagged = connection.model("means"), np.random.default_rng(1), jagged[:600]
    order = rng.permutation(len(jagged))[:500]  # another selection, in another order
    at = rng.choice(len(order), 50, replace=False)
    scores, sent = scored(model, [("nominal", jagged), ("jes", moved(jagged[order], at))])
    mine, nominal = ak.to_numpy(scores["jes"]), ak.to_numpy(scores["nominal"])[order]
    same = np.delete(np.arange(len(order)), at)
    assert 600 < sent <= 600 + 50
    assert np.array_equal(mine[same], nominal[same], equal_nan=True)
    np.testing.assert_allclose(
        mine, ak.to_numpy(model(moved(jagged[order], at))), atol=1e-6
    )  # ONNX Runtime's last bit


def test_shifted_energies_of_jets_give_particlenets_own_scores(triton, events):
    jets = events.jets.constituents[:40]
    number = ak.sum(ak.num(jets))

    def shift(jets, at):
        factor = ak.unflatten(np.where(np.arange(number) % 10 == at, np.float32(1.02), np.float32(1)), ak.num(jets))
        return ak.zip(
            {name: jets[name] * (factor if name in ("pt", "energy") else np.float32(1)) for name in jets.fields}
        )

    with eaf_inference.connect(triton.grpc) as connection:
        model = connection.model("particlenet")
        inputs = {"nominal": jets, "up": shift(jets, 3), "other": shift(jets, 7)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # jets that are cut are counted each time
            scores, sent = scored(model, inputs.items())
            plain = {name: model(each) for name, each in inputs.items()}
    assert number < sent <= number * 1.3
    for name, expected in plain.items():
        for of in ("top", "qcd"):
            np.testing.assert_allclose(ak.flatten(scores[name][of]), ak.flatten(expected[of]), atol=1e-6)
    assert not ak.array_equal(scores["up"], scores["nominal"])


@pytest.mark.parametrize("name", ["by_ptr", "one_at_a_time"])
def test_graphs_are_varied_too(others, name):
    model, graphs = others.model(name), graphs_of(200)
    factor = np.where(np.arange(200) % 10 == 5, 2.0, 1.0).astype(np.float32)
    x = graphs["x"] * factor[:, None, None]
    kept = np.arange(200) % 7 != 3
    inputs = {"nominal": graphs, "shift": {**graphs, "x": x * factor}, "fewer": taken(graphs, kept), "same": graphs}
    plain = {key: model(each) for key, each in inputs.items()}
    scores, sent = scored(model, inputs.items())
    assert sent <= 200 + 20
    assert_equal(scores["same"], scores["nominal"])
    assert_equal(scores["fewer"], scores["nominal"][kept])
    for key, expected in plain.items():  # the last bits depend on the graphs of a union
        assert ak.almost_equal(scores[key], expected, rtol=1e-5, atol=1e-5)


def test_matrices_are_varied_with_their_rows(others):
    model, rng = others.model("attention"), np.random.default_rng(3)
    sizes = rng.integers(1, 9, 60)
    x = [rng.normal(size=(2, size)).astype(np.float32) for size in sizes]
    u = [rng.normal(size=(4, size, size)).astype(np.float32) for size in sizes]
    other = [each + np.float32(number % 6 == 2) for number, each in enumerate(u)]
    inputs = {"nominal": {"x": ak.Array(x), "u": ak.Array(u)}, "shift": {"x": ak.Array(x), "u": ak.Array(other)}}
    plain = {key: model(each) for key, each in inputs.items()}
    scores, sent = scored(model, inputs.items())
    assert sent == 60 + 10
    assert_equal(scores, plain)


def test_each_collection_and_the_values_of_a_row_count(others, jagged):
    model, number = others.model("two"), len(jagged)
    sv = ak.Array([[float(at)] * (at % 4) for at in range(number)])
    given = {"pf_x": jagged[["a"]], "sv_x": sv, "jet": ak.Array(np.ones((number, 1), np.float32))}
    factor = np.where(np.arange(number) % 100 == 7, 2.0, 1.0).astype(np.float32)[:, None]
    inputs = {"nominal": given} | {name: {**given, name: times(given[name], factor)} for name in given}
    plain = {key: model(each) for key, each in inputs.items()}
    scores, sent = scored(model, inputs.items())
    assert number < sent <= number + 90
    assert_equal(scores, plain)
    few = {name: rows[:40] for name, rows in given.items()}
    alike = {**few, "sv_x": few["pf_x"]}  # whose lengths make one collection of two
    none = {name: rows[:0] for name, rows in few.items()}
    for first in (few, alike, none):
        inputs = {"nominal": first, "few": few, "alike": alike, "none": none}
        assert_equal(scored(model, inputs.items())[0], {key: model(each) for key, each in inputs.items()})


def test_numpy_arrays_strings_and_missing_rows_are_varied(connection, others):
    fixed, numbers = connection.model("fixed"), np.arange(20, dtype=np.int32).reshape(20, 1)
    values = np.ones((20, 3), np.float32)
    scores = fixed.variations(
        {"values": values, "number": numbers}, {"minus": lambda each: {**each, "number": -each["number"]}}
    )
    assert_equal(scores["minus"], fixed({"values": values, "number": -numbers}))
    words = np.array([["a", "b"], ["c", "d"]])
    echoed, sent = scored(others.model("echo"), [("nominal", words), ("other", np.array([["c", "d"], ["c", "x"]]))])
    assert echoed["other"].tolist() == [["c", "d"], ["c", "x"]]
    assert sent == 3
    squares = connection.model("squares")
    some = ak.Array([[1.0, 2.0], None, [3.0], None])
    scores, sent = scored(squares, [("nominal", some), ("none", ak.mask(some, [False] * 4)), ("rev", some[::-1])])
    assert scores["none"].to_list() == [None] * 4
    assert scores["rev"].to_list() == [None, [9], None, [1, 4]]
    assert sent == 2


def test_variations_of_any_selection_and_nesting_are_right(connection):
    model = connection.model("squares")
    events = ak.Array([[[1.0, 2.0], [1.0, 2.0]], [], [[3.0]]])  # a jet that occurs twice
    scores = model.variations(
        events,
        {
            "none": lambda jets: jets[:0],
            "flat": lambda jets: ak.flatten(jets),
            "more": lambda jets: ak.concatenate([jets, jets, ak.Array([[[4.0]]])]),
            "same": lambda jets: jets,
            "empty": lambda jets: jets[:, :0],
        },
    )
    squared = [[[1, 4], [1, 4]], [], [[9]]]
    assert {name: each.to_list() for name, each in scores.items()} == {
        "nominal": squared,
        "none": [],
        "flat": [[1, 4], [1, 4], [9]],
        "more": [*squared, *squared, [[16]]],
        "same": squared,
        "empty": [[], [], []],
    }
    after, sent = scored(model, [("nominal", events[:0]), ("more", events)])  # nothing is known
    assert after["more"].to_list() == squared
    assert sent == 3


def test_a_variation_cannot_change_the_nominal_input(connection):
    model = connection.model("squares")
    jets = ak.Array([np.arange(3, dtype=np.float32), np.arange(2, dtype=np.float32)])

    def in_place(jets):
        values = ak.to_numpy(ak.flatten(jets))
        values *= 2
        return jets

    with pytest.raises(InvalidInput, match="'up' failed: .*read-only.* changes its input in place.*a new array"):
        model.variations(jets, {"up": in_place})
    with pytest.raises(InvalidInput, match="'up' failed: .*read-only.* in place"):
        model.variations({"x": np.ones((4, 3), np.float32)}, {"up": lambda given: given["x"].__imul__(2)})

    def select(jets):  # a generator whose arrays are its own, and one and the same
        values = np.ones((4, 3), np.float32)
        yield "nominal", values
        values[1] = 2
        yield "up", values
        values[1] = 1
        values[2] = 3
        yield "down", values

    scores, sent = scored(model, select(None))
    assert scores["nominal"].tolist() == [[1] * 3] * 4
    assert scores["up"].tolist() == [[1] * 3, [4] * 3, [1] * 3, [1] * 3]
    assert scores["down"].tolist() == [[1] * 3, [1] * 3, [9] * 3, [1] * 3]
    assert sent == 6
    fields = ak.zip({"a": jets, "b": jets})

    def new_field(events):
        events["a"] = events.a * 2
        return events

    sums = connection.model("sums")
    scores = sums.variations(fields, {"up": new_field, "up again": new_field})
    assert scores["up again"].to_list() == scores["up"].to_list() == [[6, 3], [2, 1]]


def fail(_jets):
    raise KeyError("jec")


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ({"nominal": abs}, "called 'nominal'.*Choose another name"),
        ({"up": ak.Array([[1.0]])}, "variation 'up' is an awkward array.*Expected a function"),
        ([abs], "The variations are a list.*Expected {name: function}"),
        ({"up": fail}, "variation 'up' failed: KeyError: 'jec'"),
        ({"up": lambda _: None}, "Variation 'up': "),
        ({"up": lambda _: ak.Array([["a"]])}, "Variation 'up': .*strings"),
    ],
)
def test_wrong_variations_are_named(connection, functions, message):
    with pytest.raises(InvalidInput, match=message):
        connection.model("squares").variations(ak.Array([[1.0]]), functions)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "no variation at all"),
        ([ak.Array([[1.0]])], "Expected pairs of a name and the model's input"),
        ([("a", ak.Array([[1.0]])), ("a", ak.Array([[1.0]]))], "Two variations are called 'a'"),
        ([("a", ak.Array([[1.0]])), (1, ak.Array([[1.0]]))], "Expected pairs"),
    ],
)
def test_wrong_pairs_are_refused(connection, pairs, message):
    with pytest.raises(InvalidInput, match=message):
        score_variations(connection.model("squares"), pairs)


def select(events):
    """Yield the nominal jets, those with greater momenta, and those of a tighter selection."""
    yield "nominal", events.jets[["a", "b"]]
    for at in (3, 4):
        factor = ak.values_astype(ak.where(events.other % 10 == at, 1.25, 1), np.float32)
        yield f"jes{at}", ak.zip({name: events.jets[name] * factor for name in ("a", "b")})
    yield "none", events.jets[["a", "b"]][:, :0]


def test_select_yields_variations_of_files_and_arrays(connection, jagged, tmp_path, monkeypatch):
    model, asked = connection.model("sums"), []
    given = [jagged[:400], jagged[400:600]]
    for number, part in enumerate(given):
        jets = ak.zip({"a": part.a, "b": part.b, "unused": part.a})
        given[number] = ak.zip({"jets": jets, "other": np.arange(len(part))}, depth_limit=1)
        ak.to_parquet(given[number], tmp_path / f"{number}.parquet")
    touched = columns.touched
    monkeypatch.setattr(columns, "touched", lambda *args: asked.append(touched(*args)) or asked[-1])
    paths = [str(tmp_path / f"{number}.parquet") for number in range(2)]
    with ThreadPoolExecutor(2) as pool:
        of_files = list(connection.submit(model, paths, client=pool, select=select))
        run = connection.submit(model, given, client=pool, select=select)
        of_arrays = list(run)
    assert asked == [[("jets", "a"), ("jets", "b"), ("other",)]] * 2
    assert run.summary.jets < 2 * 600
    for part, mine, also in zip(given, of_files, of_arrays, strict=True):
        expected = {name: model(jets) for name, jets in select(part)}
        assert_equal(mine, expected)
        assert_equal(also, expected)


def test_a_failing_generator_is_the_parts_failure(connection, jagged):
    def broken(jets):
        yield "nominal", jets
        raise KeyError("no jec")

    def wrong(jets):
        yield "nominal", jets
        yield "up", jets.a

    for function, message in ((broken, "no jec"), (wrong, "Variation 'up'")):
        with ThreadPoolExecutor(1) as pool:
            run = connection.submit(connection.model("sums"), [jagged[:5]], client=pool, select=function)
            with pytest.raises(IncompleteRun, match=message):
                list(run)
