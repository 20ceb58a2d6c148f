"""Data sets over real Dask workers, which die and come back, as does Triton: every score once, and in order."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import awkward as ak
import cloudpickle
import dask
import dask_awkward
import distributed
import numpy as np
import pytest
import uproot
from door import door
from test_faults import chunks, sums

import eaf_inference
from eaf_inference.dask.submit import submit
from eaf_inference.errors import ConfigurationError, InferenceError, InvalidInput
from eaf_inference.facility.triton import TritonServer
from eaf_inference.notebook.session import work_of

SAMPLE = Path(__file__).parents[2] / "notebooks" / "jets.parquet"
KINEMATICS = ["pt", "eta", "phi", "energy"]
WORKERS = 4


@pytest.fixture(scope="module")
def cluster():
    """Four workers with a thread each, and nannies that replace the lost."""
    with distributed.LocalCluster(
        n_workers=WORKERS, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=":0"
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(WORKERS, timeout=60)
        yield client


@pytest.fixture(scope="module")
def particlenet(triton):
    with eaf_inference.connect(triton.grpc) as connection:
        yield connection.model("particlenet")


@pytest.fixture
def model(connection):
    return connection.model("sums")


@pytest.fixture(scope="module")
def jets(events):
    """The leading jets of 240 events: jets × constituents."""
    return events.jets.constituents[ak.num(events.jets) > 0][:240, 0, :100]


def parts(array, number):
    edges = np.linspace(0, len(array), number + 1).astype(int)
    return [array[start:stop] for start, stop in itertools.pairwise(edges)]


def until(condition):
    """Return when it holds, which it does soon."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_same(scores, expected):
    assert scores.type == expected.type
    assert ak.almost_equal(scores, expected, atol=1e-5, rtol=0)


def as_parquet(array, path):
    ak.to_parquet(ak.zip({name: array[name] for name in array.fields}, depth_limit=1), path)
    return path


def as_records(array, path):
    ak.to_parquet(array, path)
    return str(path.rename(path.with_suffix(".pq")))


def as_root(array, path):
    path = path.with_suffix(".root")
    with uproot.recreate(path) as file:
        file["events"] = {**{name: array[name] for name in KINEMATICS}, "run": np.arange(len(array))}
    return f"{path}:events"


def as_array(array, path):
    return array


@pytest.mark.parametrize("stored", [as_parquet, as_records, as_root, as_array])
def test_scores_of_files_and_arrays_are_the_local_ones_in_order(client, particlenet, jets, tmp_path, stored):
    given = [stored(part, tmp_path / f"{number}.parquet") for number, part in enumerate(parts(jets, 6))]
    submission = submit(particlenet, given, client=client)
    scores = list(submission)
    assert len(scores) == 6
    assert_same(ak.concatenate(scores), particlenet(jets))
    summary = submission.summary
    assert (summary.chunks, summary.jets, summary.restarts, summary.retries) == (6, len(jets), 0, 0)


@pytest.fixture(scope="module")
def few(events):
    """60 events without a jet that is longer than the model takes."""
    return events[ak.all(ak.num(events.jets.constituents, axis=2) <= 128, axis=1)][:60]


def test_select_takes_what_the_model_needs_from_the_files(client, particlenet, few, tmp_path):
    paths = []
    for number, part in enumerate(parts(few, 3)):
        paths.append(tmp_path / f"{number}.parquet")
        ak.to_parquet(part, paths[-1])
    with submit(particlenet, paths, client=client, select=lambda events: events.jets.constituents) as submission:
        scores = ak.concatenate(list(submission))
    expected = particlenet(few.jets.constituents)
    assert_same(scores, expected)
    assert submission.summary.jets == ak.count(expected.top)  # the jets, not the events
    leading = few.jets.constituents[ak.num(few.jets) > 0][:, 0]
    paths = [as_root(part, tmp_path / str(number)) for number, part in enumerate(parts(leading, 3))]
    zipped = submit(particlenet, paths, client=client, select=lambda tree: ak.zip({n: tree[n] for n in KINEMATICS}))
    assert_same(ak.concatenate(list(zipped)), particlenet(leading))


def test_what_the_selection_does_not_touch_is_not_read(particlenet, monkeypatch):
    from eaf_inference.dask import reading

    asked = []

    def from_parquet(path, columns):
        asked.append(columns)
        return original(path, columns=columns)

    original = ak.from_parquet
    monkeypatch.setattr(ak, "from_parquet", from_parquet)
    reading.read(str(SAMPLE), particlenet, lambda events: events.jets.constituents)
    reading.read(str(SAMPLE), particlenet, lambda events: events[events.jets.pt[:, 0] > 100].jets.constituents)
    reading.read(str(SAMPLE), particlenet, lambda events: events[np.arange(len(events)) % 2 == 0].jets.constituents)
    needed = {f"jets.constituents.{name}" for name in KINEMATICS}
    assert set(asked[0]) == needed
    assert set(asked[1]) == needed | {"jets.pt"}
    assert asked[2] is None  # a selection that needs data gets all of it


def test_chunks_are_asked_for_as_there_is_room(client, model, jagged):
    asked = itertools.count()
    taken = []

    def endless():
        for number in asked:
            taken.append(number)
            yield {"x": jagged[number % 100 : number % 100 + 5]}

    submission = submit(model, endless(), client=client, in_flight=3)
    assert taken == [0, 1, 2]
    for number in range(10):
        np.testing.assert_allclose(next(submission), sums(jagged[number : number + 5]), atol=1e-4)
        assert len(taken) == number + 3
    submission.close()
    assert list(submission) == []
    assert submission.summary.chunks == 10
    default = submit(model, endless(), client=client)
    assert len(taken) == 12 + 2 * WORKERS
    del default


@pytest.mark.parametrize("end", ["close", "collect", "interrupt"])
def test_who_stops_leaves_nothing_on_the_cluster(client, model, jagged, end):
    def interrupted():
        yield from [jagged[:10]] * 6
        raise KeyboardInterrupt

    submission = submit(
        model, interrupted() if end == "interrupt" else [jagged[:10]] * 12, client=client, in_flight=5
    )
    topic = submission._task.topic
    next(submission)
    if end == "close":
        submission.close()
    elif end == "interrupt":
        with pytest.raises(KeyboardInterrupt, match="Stopped after . chunks .*; the cluster gives up the others"):
            list(submission)
    del submission
    gc.collect()
    until(lambda: client.run_on_scheduler(on_the_cluster, topic=topic) == (0, 0))
    assert client.futures == {}


def on_the_cluster(dask_scheduler, topic):
    return len(dask_scheduler.tasks), len(dask_scheduler._broker._topics[topic].subscribers)


def hold_one(chunk, mark):
    """The rows; the first worker that gets number 20 writes its process's number, and waits for its end."""
    number, rows = chunk
    if number == 20 and not mark.exists():
        mark.write_text(str(os.getpid()))
        time.sleep(600)
    return rows


def test_a_lost_worker_and_a_lost_triton_lose_and_double_nothing(client, zoo_models, jagged, tmp_path):
    mark = tmp_path / "pid"
    given = chunks(jagged, 64)
    with TritonServer.start([zoo_models]) as server, eaf_inference.connect(server.grpc) as connection:
        model = connection.model("sums")
        expected = model(jagged)
        select = partial(hold_one, mark=mark)
        submission = submit(model, enumerate(given), client=client, select=select, in_flight=8)  # some are to come
        scores = list(itertools.islice(submission, 20))
        until(lambda: 20 in submission._starts._begun and mark.exists() and mark.read_text())
        os.kill(int(mark.read_text()), signal.SIGKILL)
        scores += itertools.islice(submission, 20)
        server.kill()
        reviver = threading.Thread(target=server.restart)
        reviver.start()
        scores += submission
        reviver.join()
        server.kill()  # quicker than stopping it
    assert [len(part) for part in scores] == [len(part) for part in given]
    assert_same(ak.concatenate(scores), expected)
    summary = submission.summary
    assert summary.chunks == 64
    assert summary.jets == len(jagged)
    assert summary.restarts >= 1
    assert summary.retries >= 1


def test_a_chunk_that_kills_its_workers_is_named(model, jagged):
    def kill_all(chunk):
        if len(chunk) == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return chunk

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0") as own,
        distributed.Client(own, set_as_default=False) as client,
    ):
        submission = submit(model, [jagged[:5], jagged[:7]], client=client, select=kill_all, in_flight=1)
        assert len(next(submission)) == 5
        with pytest.raises(InferenceError, match="(?s)^Chunk 1 was given up, as its workers died of it"):
            next(submission)
        assert next(submission, None) is None
        submission = submit(model, [jagged[:5]] * 3, client=client, in_flight=1)
        client.close()
        with pytest.raises(InferenceError, match="Chunk 0 was cancelled|does not answer|is closed"):
            next(submission)


@pytest.mark.parametrize(
    ("content", "name", "error", "message"),
    [
        (
            {"pt": [[1.0]]},
            "a.parquet",
            InvalidInput,
            "a.parquet lacks part_deta, .*; it has pt. Expected .*pass select=",
        ),
        ({"pt": [[1.0]]}, "a.root", InvalidInput, "a.root holds trees, of which none is named.*with one of events"),
        ({"pt": [[1.0]]}, "a.root:jets", InvalidInput, "a.root:jets has no tree 'jets'.*with one of events"),
        (
            {"pt": [[1.0]]},
            "a.root:events",
            InvalidInput,
            "a.root:events lacks part_deta, .*; it has pt. Expected the columns part_deta",
        ),
        (None, "none.parquet", InvalidInput, "none.parquet cannot be read: "),
        (None, "none.root:events", InvalidInput, "none.root:events cannot be read: FileNotFoundError"),
        (b"no parquet", "a.parquet", InvalidInput, "a.parquet cannot be read: ArrowInvalid"),
        (b"no ROOT file", "a.root:events", InvalidInput, "a.root:events cannot be read: "),
        (b"", "a.csv", InvalidInput, "a.csv is of no kind that is read. Expected a .parquet file or file.root:tree"),
        (
            {n: [[1.0]] if n == "pt" else [[1.0, 2]] for n in KINEMATICS},
            "a.parquet",
            InvalidInput,
            "of other lengths",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_named(client, particlenet, jets, tmp_path, content, name, error, message):
    path = tmp_path / name.partition(":")[0]
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content and path.suffix == ".root":
        with uproot.recreate(path) as file:
            file["events"] = {name: ak.Array(values) for name, values in content.items()}
    elif content:
        ak.to_parquet(ak.zip({name: ak.Array(values) for name, values in content.items()}, depth_limit=1), path)
    submission = submit(particlenet, [jets[:3], str(tmp_path / name), jets[:3]], client=client)
    assert len(next(submission)) == 3
    with pytest.raises(error, match=f"(?s)^Chunk 1 \\(.*{name}\\) failed: .*{message}"):
        next(submission)
    assert list(submission) == []


def test_other_failures_of_a_chunk_are_named_too(client, model, jagged):
    with pytest.raises(InvalidInput, match="Chunk 0 failed: .*lacks|Chunk 0 failed: .*channels"):
        next(submit(model, [jagged[["a"]]], client=client))
    with pytest.raises(InferenceError, match="Chunk 0 failed on its worker: ZeroDivisionError"):
        next(submit(model, [jagged], client=client, select=lambda rows: rows / 0 if len(rows) == 1 else 1 // 0))

    def lacking(rows):
        import no_such_package  # noqa: F401

    with pytest.raises(ConfigurationError, match="lacks a package: No module named 'no_such_package'"):
        next(submit(model, [jagged], client=client, select=lacking, retries=0))


def test_what_is_no_data_set_and_no_client_is_refused(client, cluster, model, jagged):
    for chunk in ("a.parquet", Path("a.parquet"), {"x": jagged}, jagged, np.ones((2, 2, 2)), 3):
        with pytest.raises(InvalidInput, match="The chunks are an? .*. Expected an iterable"):
            submit(model, chunk, client=client)
    with pytest.raises(InvalidInput, match="in_flight is 0"):
        submit(model, [], client=client, in_flight=0)
    with pytest.raises(ConfigurationError, match="There is no Dask client"):
        submit(model, [])
    closed = distributed.Client(cluster, set_as_default=False)
    closed.close()
    with pytest.raises(ConfigurationError, match="The Dask client is closed"):
        submit(model, [], client=closed)

    async def ask():
        async with distributed.Client(cluster.scheduler_address, asynchronous=True, set_as_default=False) as waiting:
            submit(model, [], client=waiting)

    with pytest.raises(ConfigurationError, match="is asynchronous"):
        asyncio.run(ask())
    assert list(submit(model, [], client=client)) == []


def test_the_figures_add_up(client, model, jagged):
    given = chunks(jagged, 12)
    submission = submit(model, given, client=client)
    assert submission.summary.chunks == 0
    list(submission)
    summary = submission.summary
    assert sum(share.chunks for share in summary.workers) == summary.chunks == 12
    assert sum(share.jets for share in summary.workers) == summary.jets == len(jagged)
    assert 0 < summary.seconds * summary.jets_per_second == pytest.approx(len(jagged))
    assert all(share.jets_per_second * share.seconds == pytest.approx(share.jets) for share in summary.workers)
    assert "3,000 jets in 12 chunks" in str(summary)
    assert "jets/s a thread" in str(summary)
    assert "3,000 jets in 12 chunks" in summary._repr_html_()
    assert "3,000 jets" in repr(submission)


def test_the_panel_is_told_of_jets_that_workers_score_while_the_first_chunks_are_under_way(client, triton, jets):
    # of a timeout that no other test has: workers count what passes through a connection that they were given
    with eaf_inference.connect(triton.grpc, timeout=9.0) as connection:
        connection.configure(client)
        work, many = work_of(connection), ak.concatenate([jets] * 6)
        submission = submit(connection.model("particlenet"), [many] * WORKERS, client=client)
        first = work.look()
        assert (first["busy"], first["inferences"]) == (True, 0)
        assert first["inferences_per_second"] is None  # not 0: no worker has reported yet
        until(lambda: work.look()["inferences_per_second"])
        assert submission.summary.chunks == 0
        assert connection.traffic.inferences == 0  # of this process
        list(submission)
        assert work.look()["inferences"] == WORKERS * len(many)
        assert work.look()["busy"] is False


def test_where_workers_report_nothing_the_panel_is_told_of_chunks(client, model, connection, jagged):
    submission, work = submit(model, parts(jagged, 4), client=client), work_of(connection)
    assert work.look()["inferences_per_second"] is None
    time.sleep(0.3)  # a rate takes a time
    next(submission)
    told = work.look()
    assert told["inferences"] == submission.summary.jets > 0
    assert told["inferences_per_second"] > 0
    submission.close()


def test_large_arrays_travel_without_a_warning(client, model, jagged):
    large = ak.concatenate([jagged] * 7)
    assert large.nbytes > 10_000_000  # where distributed begins to warn
    [scores] = submit(model, [large], client=client)
    assert len(scores) == len(large)


def test_of_a_slice_only_the_slice_travels(client, model, jagged):
    large = ak.concatenate([jagged] * 7)
    graphs = []
    send = client._send_to_scheduler
    client._send_to_scheduler = lambda message: (graphs.append(len(cloudpickle.dumps(message))), send(message))
    try:
        [scores, more] = submit(model, [large[:10], {"x": large[10:20]}], client=client)
    finally:
        del client._send_to_scheduler
    assert len(scores) + len(more) == 20
    assert sum(graphs) < large.nbytes / 10


def test_jets_that_are_too_long_are_counted_and_warned_of_where_somebody_sees_it(client, particlenet, events):
    constituents = ak.flatten(events.jets.constituents)
    too_long = constituents[ak.num(constituents) > particlenet.longest][:3]
    submission = submit(particlenet, [too_long[:1], too_long[1:]], client=client)
    with pytest.warns(UserWarning, match="3 jets have more than the 128 constituents that 'particlenet' takes"):
        list(submission)
    assert submission.summary.truncated == 3


def test_a_cluster_without_workers_gets_the_tasks_it_grows_by(model, jagged):
    with (
        distributed.LocalCluster(n_workers=0, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0") as own,
        distributed.Client(own, set_as_default=False) as client,
    ):
        own.adapt(minimum=0, maximum=1, interval="100ms")
        scores = list(submit(model, chunks(jagged, 10), client=client))
    np.testing.assert_allclose(ak.to_numpy(ak.concatenate(scores)), sums(jagged), atol=1e-4)


def test_keys_tell_the_model_and_nothing_else(client, model, jagged):
    submission = submit(model, [jagged[:3]], client=client)
    [key] = client.futures
    assert key.startswith("sums-")
    assert key.endswith("-0")
    list(submission)


def test_dask_s_own_ways_take_a_model(client, model, jagged):
    given = chunks(jagged, 4)
    mapped = client.map(model, given)
    single = client.submit(model, jagged)
    assert {future.key.split("-")[0] for future in (*mapped, single)} == {"sums"}
    delayed = client.compute([dask.delayed(model)(part) for part in given])
    for scores in (ak.concatenate(client.gather(mapped)), single.result(), ak.concatenate(client.gather(delayed))):
        np.testing.assert_allclose(ak.to_numpy(scores), sums(jagged), atol=1e-4)


def test_dask_awkward_builds_its_graph_without_the_server_and_reads_what_is_needed(
    client, triton, particlenet, few, tmp_path
):
    part = tmp_path / "events.parquet"
    ak.to_parquet(few, part)
    with (
        door(triton.grpc.removeprefix("grpc://")) as (handler, port),
        eaf_inference.connect(f"grpc://127.0.0.1:{port}") as connection,
    ):
        model = connection.model("particlenet")
        calls = handler.calls
        read = dask_awkward.from_parquet(part)
        scores = dask_awkward.map_partitions(model, read.jets.constituents)
        assert handler.calls == calls
        assert str(scores.form.type) == "var * {top: float32, qcd: float32}"
        [columns] = dask_awkward.report_necessary_columns(scores).values()
        assert columns == {f"jets.constituents.{name}" for name in KINEMATICS}
        with pytest.raises(InvalidInput, match="lacks eta, phi, energy, of which part_deta and 6 others"):
            dask_awkward.map_partitions(model, read.jets.constituents[["pt"]])
        assert handler.calls == calls
        # dask-awkward 2025.3 cannot fuse a reader with what follows under dask 2026.8, whatever follows
        with dask.config.set({"awkward.optimization.which": ["columns"]}):
            [ready] = dask.optimize(scores)
        computed = client.compute(ready, optimize_graph=False).result()
    assert handler.calls > calls
    assert_same(computed, particlenet(few.jets.constituents))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("sums", lambda jagged: jagged),
        ("sums", lambda jagged: {"x": ak.unflatten(jagged, [1000, 0, 2000])}),
        ("squares", lambda jagged: ak.unflatten(jagged.a, [1000, 0, 2000])),
        ("fixed", lambda _: {"values": ak.from_numpy(np.ones((5, 3))), "number": ak.Array([1, 2, 3, 4, 5])}),
    ],
)
def test_the_type_without_data_is_the_type_with_data(connection, jagged, name, data):
    model, arrays = connection.model(name), data(jagged)
    expected = model(arrays)
    without = {key: tracer(each) for key, each in arrays.items()} if isinstance(arrays, dict) else tracer(arrays)
    assert str(model(without).type.content) == str(expected.type.content)
    assert model(without).layout.form == expected.layout.to_packed().form


def tracer(array):
    return ak.Array(ak.to_layout(array).to_typetracer(forget_length=True))
