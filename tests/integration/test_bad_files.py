"""Data sets with bad files, in a local pool: what is handed over, what is listed, and what is tried again."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import awkward as ak
import numpy as np
import pytest
from rows import chunks, sums

from eaf_inference.dataset.place import Pool
from eaf_inference.errors import ConfigurationError, IncompleteRun, InvalidInput

BAD = 2


@pytest.fixture
def files(jagged, tmp_path):
    """Six files, of which the third is cut off."""
    paths = [tmp_path / f"{number}.parquet" for number in range(6)]
    for path, part in zip(paths, chunks(jagged, 6), strict=True):
        ak.to_parquet(ak.zip({"x": part}, depth_limit=1), path)
    whole = paths[BAD].read_bytes()
    paths[BAD].write_bytes(whole[:200])
    return paths, whole


@pytest.fixture
def expected(jagged):
    return [sums(part) for part in chunks(jagged, 6)]


def select(table):
    return table.x


def assert_equal(scores, expected):
    assert len(scores) == len(expected)
    for one, other in zip(scores, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def take(run):
    """Return the scores until the error at the end, and its message."""
    scores = []
    with pytest.raises(IncompleteRun) as error:
        scores.extend(run)
    return scores, str(error.value)


def test_the_run_goes_on_and_ends_with_the_list_of_what_failed(connection, pool, files, expected):
    paths, _ = files
    run = connection.submit(connection.model("sums"), paths, client=pool, select=select)
    scores, message = take(run)
    assert message.startswith("1 of 6 chunks were not scored; the scores of all others were returned.")
    assert str(paths[BAD]) in message
    assert "retry_failed()" in message
    assert_equal(scores, expected[:BAD] + expected[BAD + 1 :])
    assert list(run) == []
    [failure] = run.failed
    assert failure.file == str(paths[BAD])
    assert (failure.entries, failure.tries) == ("all", 1)
    assert run.summary.failed == 1
    assert str(paths[BAD]) in str(run.failed)
    assert "2.parquet" in run.failed._repr_html_()


def test_who_looks_at_what_failed_gets_no_error(connection, pool, files):
    paths, _ = files
    run = connection.submit(connection.model("sums"), paths, client=pool, select=select)
    seen = [len(run.failed) for _ in run]
    assert seen == [0, 0, 1, 1, 1]


def test_a_run_that_is_closed_early_tells_what_failed(connection, pool, files):
    paths, _ = files
    model = connection.model("sums")
    with (
        pytest.warns(UserWarning, match=r"(?s)1 of 4 chunks were not scored.*2\.parquet"),
        connection.submit(model, paths, client=pool, select=select) as run,
    ):
        assert len([next(run) for _ in range(3)]) == 3
    run.close()  # says nothing again
    with connection.submit(model, paths, client=pool, select=select) as run:
        assert len([next(run) for _ in range(3)]) == len(run.failed) + 2
    with pytest.raises(KeyError), connection.submit(model, paths, client=pool, select=select) as run:
        raise KeyError([next(run) for _ in range(3)])


def test_skip_warns_and_raise_ends_the_run(connection, pool, files, expected):
    paths, _ = files
    model = connection.model("sums")
    with pytest.warns(UserWarning, match=r"(?s)1 of 6 chunks were not scored.*2\.parquet"):
        assert len(list(connection.submit(model, paths, client=pool, select=select, on_error="skip"))) == 5
    run = connection.submit(model, paths, client=pool, select=select, on_error="raise")
    assert_equal([next(run), next(run)], expected[:BAD])
    with pytest.raises(InvalidInput, match=r"Chunk 2 \(.*2\.parquet\) failed: "):
        next(run)
    with pytest.raises(ConfigurationError, match="This run ended before all scores were returned"):
        next(run)
    with pytest.raises(InvalidInput, match="on_error is 'ignore'. Expected 'collect', 'skip' or 'raise'"):
        connection.submit(model, paths, client=pool, on_error="ignore")


@pytest.mark.parametrize("requested", [0, 1])
def test_a_run_that_was_closed_early_does_not_pass_for_complete(connection, pool, jagged, requested):
    with connection.submit(connection.model("sums"), [jagged[:3]] * 4, client=pool) as run:
        assert len([next(run) for _ in range(requested)]) == requested
    for take_scores in (next, list, lambda run: list(run.in_order()), lambda run: list(run.as_completed())):
        with pytest.raises(ConfigurationError, match="ended before all scores were returned"):
            take_scores(run)
    whole = connection.submit(connection.model("sums"), [jagged[:3]] * 4, client=pool)
    assert len(list(whole)) == 4
    whole.close()
    assert list(whole) == []


def test_a_thread_whose_run_is_closed_by_another_gets_an_error(connection, pool, jagged):
    sent, closed = threading.Event(), threading.Event()

    def given():
        yield from [jagged[:3]] * 4
        sent.set()

    def wait(rows):
        assert closed.wait(60)
        return rows

    run = connection.submit(connection.model("sums"), given(), client=pool, select=wait)
    with ThreadPoolExecutor(1) as other:
        scores = other.submit(list, run)
        assert sent.wait(60)
        run.close()
        closed.set()
        with pytest.raises(ConfigurationError, match="ended before all scores were returned"):
            scores.result()


def test_failed_files_are_scored_again_once_they_are_whole(connection, pool, files, expected):
    paths, whole = files
    run = connection.submit(connection.model("sums"), paths, client=pool, select=select)
    take(run)
    again = run.retry_failed()
    assert take(again)[0] == []
    paths[BAD].write_bytes(whole)
    assert_equal(list(again.retry_failed()), [expected[BAD]])


def test_a_bad_array_fails_alone_and_is_kept_for_another_try(connection, pool, jagged):
    run = connection.submit(connection.model("sums"), [jagged[:3], jagged[["a"]], jagged[3:5]], client=pool)
    scores, message = take(run)
    assert [len(each) for each in scores] == [3, 2]
    assert "array 1" in message
    assert ak.fields(run.failed[0].data) == ["a"]


def test_results_come_with_their_places(connection, pool, files, expected):
    paths, _ = files
    model = connection.model("sums")
    for results in ("as_completed", "in_order"):
        run = connection.submit(model, paths, client=pool, select=select, on_error="skip")
        with pytest.warns(UserWarning, match="not scored"):
            found = list(getattr(run, results)())
        numbers = [result.part.number for result in found]
        assert sorted(numbers) == [0, 1, 3, 4, 5]
        assert results == "as_completed" or numbers == sorted(numbers)
        for result in found:
            assert result.part.file.path == str(paths[result.part.number])
            assert (result.part.start, result.part.stop, result.last) == (0, result.entries, True)
            np.testing.assert_allclose(result.scores, expected[result.part.number], atol=1e-4)


def test_a_pool_of_processes_gives_the_same_scores(connection, files, expected):
    paths, _ = files
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        run = connection.submit(connection.model("sums"), paths[:BAD], client=pool)
        before = connection.traffic.elsewhere
        assert_equal(list(run), expected[:BAD])
    assert connection.traffic.elsewhere - before == run.summary.jets
    assert str(os.getpid()) not in str(run.summary.workers[0].worker)
    with pytest.raises(ConfigurationError, match="The pool takes no more work"):
        next(connection.submit(connection.model("sums"), paths, client=pool))


def test_what_concerns_every_file_ends_the_run(connection, pool, jagged):
    def lacking(_):
        import no_such_package  # noqa: F401

    run = connection.submit(connection.model("sums"), [jagged[:3]] * 5, client=pool, select=lacking)
    with pytest.raises(ConfigurationError, match="a package is missing"):
        next(run)
    assert len(run.failed) == 1


def test_a_run_into_a_directory_goes_on_where_it_ended(connection, pool, files, expected, tmp_path):
    paths, whole = files
    model, directory = connection.model("sums"), tmp_path / "scores"
    run = connection.submit(model, paths, client=pool, select=select)
    with pytest.raises(IncompleteRun, match=r"2\.parquet"):
        run.write(directory)
    paths[BAD].write_bytes(whole)
    written = run.retry_failed().write(directory)
    assert (written.files, written.skipped) == (1, 0)
    again = connection.submit(model, paths, client=pool, select=select)
    written = again.write(directory)
    assert (written.files, written.skipped, again.summary.chunks) == (0, 6, 0)
    outputs = sorted(directory.glob("*.parquet"), key=lambda path: path.name)
    found = [ak.from_parquet(path) for path in outputs]
    assert_equal([each.scores for each in found], expected)
    assert all(each.entry.to_list() == list(range(len(each))) for each in found)
    with pytest.raises(ConfigurationError, match="call triton.submit again"):
        again.write(directory)


def test_what_is_written_is_scored_once_and_never_again(connection, files, tmp_path):
    paths = [path for number, path in enumerate(files[0]) if number != BAD]
    for sent in (len(paths), 0):
        before = connection.traffic.inferences
        with ThreadPoolExecutor(2) as pool:  # waits for all that was begun
            run = connection.submit(connection.model("sums"), paths, client=pool, select=select)
            run.write(tmp_path / "scores")
        assert connection.traffic.inferences - before == run.summary.jets
        assert run.summary.chunks == sent
        assert run._stopped().startswith("Stopped after 5 of 5 files")
        assert run._bar.unit == "file"  # although there may be none to send


def test_a_file_is_written_whole_after_one_of_its_ranges_failed(connection, pool, jagged, tmp_path, monkeypatch):
    monkeypatch.setattr(Pool, "most_bytes", lambda _: 20_000)
    path, broken = tmp_path / "a.parquet", [True]
    table = ak.zip({"x": jagged, "number": np.arange(len(jagged))}, depth_limit=1)
    ak.to_parquet(table, path, row_group_size=500)

    def first_is_broken(table):
        if broken and ak.any(table.number == 0):
            raise InvalidInput("broken")
        return table.x

    run = connection.submit(connection.model("sums"), [path], client=pool, select=first_is_broken)
    assert len(take(run)[0]) > 1
    assert run.failed[0].part.start == 0
    broken.clear()
    assert run.retry_failed().write(tmp_path / "scores").entries == len(jagged)
    [output] = (tmp_path / "scores").glob("*.parquet")
    assert_equal([ak.from_parquet(output).scores], [sums(jagged)])


def test_a_file_that_changes_while_it_is_scored_is_listed(connection, pool, files, expected, tmp_path):
    paths, whole = files
    paths[BAD].write_bytes(whole)
    mark = tmp_path / "changed"

    def select_and_change(table):
        if not mark.exists() and np.allclose(sums(table.x), expected[1]):
            paths[1].write_bytes(whole)
            mark.touch()
        return table.x

    run = connection.submit(connection.model("sums"), paths, client=pool, select=select_and_change, in_flight=1)
    with pytest.raises(IncompleteRun, match=r"1 of 6 chunks.*\n.*\n.*1\.parquet *all *changed") as error:
        run.write(tmp_path / "scores")
    assert (error.value.written.files, error.value.written.incomplete) == (5, [str(paths[1])])
    assert run.retry_failed().write(tmp_path / "scores").files == 1


def test_a_function_that_no_process_can_import_is_refused_at_once(connection, files):
    with ProcessPoolExecutor(1) as processes, pytest.raises(ConfigurationError, match="`select` cannot be sent to"):
        next(connection.submit(connection.model("sums"), files[0], client=processes, select=lambda table: table.x))


def test_a_run_of_which_nothing_was_scored_says_what_to_do(connection, pool, jagged, tmp_path):
    ak.to_parquet(ak.zip({"jets": ak.zip({"x": jagged[:3]}, depth_limit=1)}, depth_limit=1), tmp_path / "0.parquet")
    _, message = take(connection.submit(connection.model("sums"), [tmp_path / "0.parquet"], client=pool))
    assert message.startswith("1 of 1 chunks were not scored")
    assert "The first in full: " in message
    assert "pass select=" in message


def test_without_dask_a_run_says_what_to_install(connection, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "eaf_inference.dask.cluster_place", raising=False)
    with pytest.raises(ConfigurationError, match=r"needs distributed, which is missing: pip install .*ThreadPool"):
        connection.submit(connection.model("sums"), [])


@pytest.mark.parametrize("use", ["submit", "estimate"])
def test_a_models_name_is_not_taken_for_the_model(connection, pool, use):
    with pytest.raises(InvalidInput, match=r"is a string\. Expected what triton\.model\('sums'\) returns"):
        getattr(connection, use)("sums", [], client=pool)


@pytest.mark.parametrize("use", ["submit", "estimate"])
def test_a_select_that_is_no_function_is_refused_at_once(connection, pool, use):
    with pytest.raises(InvalidInput, match=r"select is a string\. Expected a function"):
        getattr(connection, use)(connection.model("sums"), ["a.parquet"], client=pool, select="jets")
