"""Data sets as coffea and uproot write them, scored in a local pool: every entry once, and in its place."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
import uproot
from rows import chunks, sums

from eaf_inference.dataset.place import Pool
from eaf_inference.errors import InvalidInput

NAMES = ("a", "b")


def as_tree(rows, path):
    with uproot.recreate(path) as file:
        columns = {name: rows[name] for name in NAMES}
        file.mktree("dir/events", dict.fromkeys(NAMES, "var * float32"), counter_name=lambda name: f"n_{name}")
        for start in range(0, len(rows), 50):
            part = {name: column[start : start + 50] for name, column in columns.items()}
            file["dir/events"].extend(part)


@pytest.fixture
def fileset(jagged, tmp_path):
    """A data set of two ROOT files, the second in steps, and one of two parquet files; and the rows of each part."""
    rows = chunks(jagged, 4)
    (tmp_path / "w").mkdir()
    as_tree(rows[0], tmp_path / "tt0.root")
    as_tree(rows[1], tmp_path / "tt1.root")
    for number in (2, 3):
        table = ak.zip({name: rows[number][name] for name in NAMES}, depth_limit=1)
        ak.to_parquet(table, tmp_path / "w" / f"{number}.parquet", row_group_size=50)
    steps = [[0, 10], [300, 310], [310, len(rows[1])]]
    return {
        "tt": {
            "files": {
                str(tmp_path / "tt0.root"): "dir/events",
                str(tmp_path / "tt1.root"): {"object_path": "dir/events", "steps": steps},
            },
            "metadata": {"year": 2018},
        },
        "w": f"{tmp_path}/w/*.parquet",
    }, [rows[0], *(rows[1][start:stop] for start, stop in steps), rows[2], rows[3]]


def select(table):
    return ak.zip({name: table[name] for name in NAMES})


def test_a_fileset_is_scored_in_order_with_the_place_of_each_part(connection, pool, fileset):
    files, rows = fileset
    results = list(connection.submit(connection.model("sums"), files, client=pool, select=select).in_order())
    assert [each.part.file.dataset for each in results] == ["tt"] * 4 + ["w"] * 2
    assert [(each.part.start, each.part.stop) for each in results[1:4]] == [
        (0, 10),
        (300, 310),
        (310, len(rows[3]) + 310),
    ]
    assert [each.last for each in results] == [True, False, False, True, True, True]
    assert results[0].part.file.metadata == {"year": 2018}
    for result, part in zip(results, rows, strict=True):
        np.testing.assert_allclose(result.scores, sums(part), atol=1e-4)


def test_files_too_large_for_the_memory_are_scored_in_ranges(connection, pool, fileset, monkeypatch):
    files, rows = fileset
    monkeypatch.setattr(Pool, "most_bytes", lambda _: 100_000)
    run = connection.submit(connection.model("sums"), files, client=pool, select=select)
    scores = list(run)
    assert len(scores) > 12
    assert run.summary.restarts == 0
    np.testing.assert_allclose(np.concatenate(scores), sums(ak.concatenate(rows)), atol=1e-4)


def test_only_the_columns_of_variations_are_read(connection, pool, fileset, monkeypatch):
    files, rows = fileset
    asked = []
    arrays = uproot.behaviors.TBranch.HasBranches.arrays

    def noting(self, expressions=None, *arguments, **options):
        if options.get("entry_stop"):
            asked.append(expressions)
        return arrays(self, expressions, *arguments, **options)

    monkeypatch.setattr(uproot.behaviors.TBranch.HasBranches, "arrays", noting)

    def varied(table):
        yield "nominal", select(table)
        yield "up", ak.zip({"a": table.a * 2, "b": table.b})

    tt0 = dict([next(iter(files["tt"]["files"].items()))])
    [scores] = connection.submit(connection.model("sums"), tt0, client=pool, select=varied)
    np.testing.assert_allclose(scores["nominal"], sums(rows[0]), atol=1e-4)
    assert [{*names} for names in asked] == [{"a", "b"}]


def test_an_empty_pattern_ends_before_anything_is_sent(connection, pool, fileset, tmp_path):
    with pytest.raises(InvalidInput, match="The pattern .* has no files"):
        connection.submit(connection.model("sums"), [str(tmp_path / "tt0.root"), f"{tmp_path}/v/*.root"], client=pool)
