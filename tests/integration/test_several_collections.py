"""Recipes of several collections and of rows: each row has the scores that ONNX Runtime gives for it alone.

A real Triton serves models whose recipes are shaped as CMS's. Set EXAMPLES=2000 for a longer run.
"""

from __future__ import annotations

import os
import re
import warnings

import awkward as ak
import distributed
import numpy as np
import onnxruntime
import pytest
import recipe_family
import uproot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recipe_family import NETWORKS

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_inference.server.cells import cell_for

EXAMPLES = int(os.environ.get("EXAMPLES", "120"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipes")
    for name, network in NETWORKS.items():
        recipe_family.save(path, name, network)
    return path


@pytest.fixture(scope="module")
def server(repository):
    with TritonServer.start([repository]) as triton:
        yield triton


@pytest.fixture(scope="module")
def sessions(repository):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return {name: onnxruntime.InferenceSession(repository / name / "1" / "model.onnx", options) for name in NETWORKS}


WAYS = ("collections", "short names", "inputs", "columns", "nested record", "flat record")


def rows_of(network, rng, number, *, masks):
    """Draw rows: by variable, the values of the constituents, or a number for the row."""
    whole = {name for each in network.inputs if each.whole for name in each.names}
    rows = []
    for _ in range(number):
        row = {}
        for group in network.groups.values():
            least, most = (1, 1) if group.per_row else group.bounds
            longest = most or 9
            choices = [0, 1, least, max(least - 1, 0), longest, int(rng.integers(0, longest + 1))]
            choices += [longest + int(rng.integers(1, 4))] if group.kept and most else []
            length = 1 if group.per_row else int(rng.choice(choices))
            for name in group.variables:
                if name.endswith("mask"):
                    values = rng.integers(0, 2, length).astype(np.float32)
                elif name in whole:
                    values = rng.integers(-5, 6, length)
                else:
                    values = rng.normal(0, 2, length).astype(np.float32)
                    if name != group.kept.removeprefix("-") and rng.random() < 0.2:
                        values[: length // 2] = rng.choice([np.nan, np.inf, -np.inf, 0.0])
                if masks or not name.endswith("mask"):
                    row[name] = values[0] if group.per_row else values
        rows.append(row)
    return rows


def levels_of(rng, rows, depth):
    """Draw the counts of outer lists around rows, from the inside."""
    levels = []
    for _ in range(depth):
        cuts = np.sort(rng.integers(0, rows + 1, rng.integers(0, 3)))
        levels.append(np.diff([0, *cuts, rows]))
        rows = len(levels[-1])
    return levels


def nested(values, levels):
    """Return the values of some rows inside outer lists."""
    array = (
        ak.Array(np.array(values))
        if np.ndim(values[0]) == 0
        else ak.unflatten(np.concatenate(values), ak.num(values))
    )
    for counts in levels:
        array = ak.unflatten(array, counts)
    return array


def passed(network, rows, levels, way):
    """Return the rows as a user would pass them in one of the ways."""
    depth = len(levels) + 1
    columns = {name: nested([row[name] for row in rows], levels) for name in rows[0]}
    described, records, by_name = {}, {}, {}
    for key, group in network.groups.items():
        own = {name: columns[name] for name in group.variables if name in columns}
        if not group.inputs[0].described:
            parts = ak.zip(own, depth_limit=depth + (not group.per_row))
            dense = [values[..., np.newaxis] for values in own.values()]
            by_name[group.inputs[0].name] = ak.concatenate(dense, axis=-1) if group.per_row else parts
            continue
        described |= own
        if way == "short names":
            own = {name.removeprefix(f"{key}_"): values for name, values in own.items()}
        records[key] = ak.zip(own, depth_limit=depth + (not group.per_row))
    if way in ("collections", "short names"):
        return records | by_name
    if way == "inputs":
        return {network.groups[key].inputs[0].name: each for key, each in records.items()} | by_name
    if way == "columns":
        return described | by_name
    if way == "flat record":
        return ak.zip(described | by_name, depth_limit=depth)
    per_row = {name: columns[name] for group in network.groups.values() if group.per_row for name in group.variables}
    jagged = {key: each for key, each in records.items() if not network.groups[key].per_row}
    return ak.zip(jagged | per_row | by_name, depth_limit=depth)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(
    name=st.sampled_from(sorted(NETWORKS)),
    seed=st.integers(0, 10_000),
    calls=st.lists(st.integers(1, 12), min_size=1, max_size=2),
    way=st.sampled_from(WAYS),
    depth=st.integers(0, 2),
    masks=st.booleans(),
)
def test_rows_have_their_own_scores_in_any_batch_and_nesting(server, sessions, name, seed, calls, way, depth, masks):
    network, rng = NETWORKS[name], np.random.default_rng(seed)
    with eaf_inference.connect(server.grpc) as connection, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = connection.model(name)
        for number in calls:
            rows = rows_of(network, rng, number, masks=masks)
            levels = levels_of(rng, number, depth)
            scores = model(passed(network, rows, levels, way))
            for counts in reversed(levels):
                assert ak.num(scores, axis=1).to_list() == counts.tolist()
                scores = ak.flatten(scores, axis=1)
            expected = [recipe_family.score(sessions[name], network, row) for row in rows]
            np.testing.assert_allclose(ak.to_numpy(scores), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_missing_rows_get_no_scores_and_change_no_others(server, sessions, name):
    network, rng = NETWORKS[name], np.random.default_rng(3)
    rows = rows_of(network, rng, 6, masks=False)
    expected = [recipe_family.score(sessions[name], network, rows[at]) for at in (5, 2, 0)]
    with eaf_inference.connect(server.grpc) as connection, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = connection.model(name)
        for way in WAYS:
            given_data = passed(network, rows, [], way)
            for places in ([5, None, 2, 0, None], [None, None], []):
                index = ak.values_astype(ak.Array([0, *places]), np.int64)[1:]
                taken = (
                    {key: each[index] for key, each in given_data.items()}
                    if isinstance(given_data, dict)
                    else given_data[index]
                )
                scores = model(taken)
                assert ak.is_none(scores).to_list() == [place is None for place in places]
                if any(places):
                    np.testing.assert_allclose(ak.to_numpy(ak.drop_none(scores)), expected, rtol=1e-6, atol=1e-6)
            empty = {key: ak.Array([]) for key in given_data} if isinstance(given_data, dict) else ak.Array([])
            assert str(model(empty).type) == str(model(taken).type).replace("?", "").replace("option", "")


CUT = {
    "flavour": [
        "the 12 constituents of 'pf' .* 12 of largest pt",
        "the 5 constituents of 'sv' .* 5 of largest pt",
    ],
    "trained": [
        "the 9 constituents of 'pf' .* 9 of largest pt",
        "the 3 constituents of 'sv' .* leading 3 were used",
    ],
    "unmasked": ["the 3 constituents of 'sv' .* 3 of smallest sv_mass were used"],
    "bare": ["the 16 constituents that 'bare' takes; their 16 of largest pt"],
}


@pytest.mark.parametrize("name", CUT)
def test_long_rows_are_cut_by_each_collections_own_rule(server, sessions, name):
    network, rng = NETWORKS[name], np.random.default_rng(4)
    longest = {key: (group.bounds[1] or 5) for key, group in network.groups.items()}
    rows = [
        {
            variable: rng.normal(size=longest[key] + extra).astype(np.float32)
            for key, group in network.groups.items()
            for variable in group.variables
            if not variable.endswith("mask")
        }
        for extra in (3, 0, 1)
    ]
    with eaf_inference.connect(server.grpc) as connection, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chunks = [passed(network, each, [], "collections") for each in (rows[:2], rows[2:])]
        scores = np.concatenate([ak.to_numpy(part) for part in connection.model(name).map(chunks)])
    expected = [recipe_family.score(sessions[name], network, row) for row in rows]
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6)
    remarks = [str(each.message) for each in caught if "constituents" in str(each.message)]
    assert len(remarks) == len(CUT[name])
    for remark, text in zip(remarks, CUT[name], strict=True):
        assert re.match(f"2 jets have more than {text}", remark), remark


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_cell_of_a_dragged_model_runs_unchanged(server, name):
    with eaf_inference.connect(server.grpc) as connection, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {"triton": connection}
        exec(cell_for(name, None, connection.model(name).spec), names)  # noqa: S102
    assert len(names["scores"]) == 4


def as_flat_columns(jets, path):
    ak.to_parquet(jets, path)
    return str(path)


def as_root(jets, path):
    path = path.with_suffix(".root")
    with uproot.recreate(path) as file:
        file["events"] = {name: jets[name] for name in jets.fields}
    return f"{path}:events"


def as_nested_records(jets, path):
    """Store records of each collection, beside columns of the jets themselves with the same names."""
    groups = {"pf": ("pf_deta", "pf_dphi", "pf_pt", "pf_d0"), "sv": ("sv_deta", "sv_dphi", "sv_pt", "sv_d0")}
    columns = {
        key: ak.zip({name.removeprefix(f"{key}_"): jets[name] for name in names}) for key, names in groups.items()
    }
    ak.to_parquet(ak.zip(columns | {"pt": ak.num(jets.pf_pt), "run": 1}, depth_limit=1), path)
    return str(path)


@pytest.mark.parametrize("store", [as_flat_columns, as_root, as_nested_records])
def test_files_of_several_collections_are_read_and_long_rows_reported(server, sessions, tmp_path, store):
    network, rng = NETWORKS["flavour"], np.random.default_rng(7)
    rows = rows_of(network, rng, 60, masks=False)
    jets = passed(network, rows, [], "flat record")
    files = [store(jets[start : start + 20], tmp_path / f"{start}.parquet") for start in (0, 20, 40)]
    with (
        eaf_inference.connect(server.grpc) as connection,
        distributed.Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as client,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        run = connection.submit(connection.model("flavour"), files, client=client)
        scores = np.concatenate([ak.to_numpy(part) for part in run])
        cut = {(each.collection, each.most, each.rule): number for each, number in run.summary.truncations.items()}
    expected = [recipe_family.score(sessions["flavour"], network, row) for row in rows]
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6)
    long = {key: sum(len(row[f"{key}_pt"]) > most for row in rows) for key, most in (("pf", 12), ("sv", 5))}
    assert {(collection, most): number for (collection, most, _), number in cut.items()} == {
        ("pf", 12): long["pf"],
        ("sv", 5): long["sv"],
    }
