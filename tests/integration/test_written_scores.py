"""docs/how-to/write-scores.md: its code reads scores beside their events; runs and jobs write the same bytes."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from rows import chunks, sums

import eaf_inference
from eaf_inference.dataset.output import Unfinished

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "write-scores.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def files(jagged, tmp_path):
    """Four files; the second is cut into three row groups."""
    paths = [tmp_path / "data" / str(number) / "nano.parquet" for number in range(4)]
    for number, (path, part) in enumerate(zip(paths, chunks(jagged, 4), strict=True)):
        path.parent.mkdir(parents=True)
        event = np.arange(len(part), dtype=np.uint64) + 1000 * number
        table = ak.zip({"event": event, "x": part}, depth_limit=1)
        ak.to_parquet(table, path, row_group_size=300 if number == 1 else 10_000)
    return paths


def test_the_page_reads_scores_beside_their_events(connection, pool, files, jagged, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = {"triton": connection, "model": connection.model("sums"), "files": files, "client": pool}
    for block in BLOCKS[:2]:
        exec(block, space)  # noqa: S102
    assert (space["written"].files, space["written"].entries, len(space["outputs"])) == (4, 3000, 4)
    for path, part in zip(files, chunks(jagged, 4), strict=True):
        table = ak.from_parquet(space["outputs"][str(path)])
        assert table.event.tolist() == ak.from_parquet(path).event.tolist()
        np.testing.assert_allclose(table.scores, sums(part), atol=1e-4)
    events = space["events"]
    np.testing.assert_allclose(events.scores, sums(events.x), atol=1e-4)
    connection.submit(space["model"], files, client=pool, select=lambda events: events.x).write(
        "friends", format="root"
    )
    exec(BLOCKS[2], space)  # noqa: S102
    assert space["scores"].fields == ["entry", "event", "scores"]
    assert len(list(Path("friends").rglob("*.root"))) == 4
    found = np.concatenate([uproot.open(path)["scores"]["event"].array() for path in Path("friends").rglob("*.root")])
    assert len(np.unique(found)) == 3000


def test_two_jobs_write_the_bytes_of_one_run(zoo, connection, pool, files, tmp_path):
    def select(table):
        return table.x

    def write(number, directory, chosen):
        with eaf_inference.connect(zoo.grpc) as each, ThreadPoolExecutor(2) as own:
            each.submit(each.model("sums"), chosen, client=own, select=select).write(tmp_path / directory)

    write(0, "one", files)
    list(pool.map(write, range(2), ["two"] * 2, [files[0::2], files[1::2]]))
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()}
        for name in ("one", "two")
    )
    assert len(one) == 5
    assert one == two


def test_stop_during_the_writing_says_what_was_done(connection, pool, files, tmp_path, monkeypatch):
    finish, finished = Unfinished.finish, []

    def interrupted(self, facts):
        if finished:
            raise KeyboardInterrupt
        finished.append(self)
        return finish(self, facts)

    def write():
        run = connection.submit(connection.model("sums"), files, client=pool, select=lambda table: table.x)
        return run.write(tmp_path / "scores")

    with monkeypatch.context() as patch:
        patch.setattr(Unfinished, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt, match=r"^Stopped after 2 of 4 files .*; the other files are cancelled"):
            write()
    assert (write().files, len(list((tmp_path / "scores").rglob("*.parquet")))) == (3, 4)


def test_scores_of_flattened_lists_are_beside_no_event(connection, pool, tmp_path):
    """Two events, of which the first has both jets: as many scores as events, by chance."""
    x = ak.Array([[[[1.0, 2.0], [3.0, 4.0]], [[1.0], [2.0]]], []])  # events × jets × channels × constituents
    ak.to_parquet(ak.zip({"jets": x}, depth_limit=1), tmp_path / "a.parquet")
    run = connection.submit(
        connection.model("sums"), [tmp_path / "a.parquet"], client=pool, select=lambda events: ak.flatten(events.jets)
    )
    with pytest.warns(UserWarning, match="no entry numbers") as caught:
        assert run.write(tmp_path / "out").not_aligned == 1
    assert [each.filename for each in caught if each.category is UserWarning] == [__file__]
    [path] = (tmp_path / "out").glob("*.parquet")
    assert ak.from_parquet(path).fields == ["scores"]


def test_warnings_at_the_end_name_the_line_that_writes(connection, pool, tmp_path):
    files = [tmp_path / "a.parquet", tmp_path / "none.parquet"]
    ak.to_parquet(ak.Array({"x": [[[1.0, 2.0], [3.0, 4.0]]]}), files[0])
    run = connection.submit(
        connection.model("sums"), files, client=pool, select=lambda events: {"x": events.x}, on_error="skip"
    )
    with pytest.warns(UserWarning, match="1 of 2 chunks were not scored") as caught:
        assert run.write(tmp_path / "out").files == 1
    assert [each.filename for each in caught if each.category is UserWarning] == [__file__]
