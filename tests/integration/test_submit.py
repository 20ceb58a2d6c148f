"""Data sets on real Dask workers: workers and Triton are killed, and every score is returned once and in order."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import signal
import threading
import time
from functools import partial

import awkward as ak
import cloudpickle
import distributed
import numpy as np
import pytest
import uproot
from rows import chunks, sums
from waiting import until

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_inference.dask.submit import submit
from eaf_inference.errors import ConfigurationError, InferenceError, InvalidInput, UnreadableFile
from eaf_inference.notebook.session import work_of

KINEMATICS = ["pt", "eta", "phi", "energy"]
WORKERS = 4


@pytest.fixture(scope="module")
def cluster():
    """Four workers with one thread each, and nannies that replace lost ones."""
    with distributed.LocalCluster(
        n_workers=WORKERS, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=":0"
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(WORKERS, timeout=60)
        yield client


@pytest.fixture
def model(connection):
    return connection.model("sums")


@pytest.fixture(scope="module")
def jets(events):
    """The leading jets of 240 events: jets × constituents."""
    return events.jets.constituents[ak.num(events.jets) > 0][:240, 0, :100]


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
def test_scores_of_files_and_arrays_equal_the_local_ones_in_order(client, particlenet, jets, tmp_path, stored):
    given = [stored(part, tmp_path / f"{number}.parquet") for number, part in enumerate(chunks(jets, 6))]
    submission = submit(particlenet, given, client=client)
    scores = list(submission)
    assert len(scores) == 6
    assert_same(ak.concatenate(scores), particlenet(jets))
    summary = submission.summary
    assert (summary.chunks, summary.jets, summary.restarts, summary.retries) == (6, len(jets), 0, 0)


def test_select_extracts_the_models_input_from_files(client, particlenet, few, tmp_path):
    paths = []
    for number, part in enumerate(chunks(few, 3)):
        paths.append(tmp_path / f"{number}.parquet")
        ak.to_parquet(part, paths[-1])
    with submit(particlenet, paths, client=client, select=lambda events: events.jets.constituents) as submission:
        scores = ak.concatenate(list(submission))
    expected = particlenet(few.jets.constituents)
    assert_same(scores, expected)
    assert submission.summary.jets == ak.count(expected.top)  # jets, not events
    leading = few.jets.constituents[ak.num(few.jets) > 0][:, 0]
    paths = [as_root(part, tmp_path / str(number)) for number, part in enumerate(chunks(leading, 3))]
    zipped = submit(particlenet, paths, client=client, select=lambda tree: ak.zip({n: tree[n] for n in KINEMATICS}))
    assert_same(ak.concatenate(list(zipped)), particlenet(leading))


def test_the_iterable_is_consumed_as_chunks_are_sent(client, model, jagged):
    asked = itertools.count()
    taken = []

    def endless():
        for number in asked:
            taken.append(number)
            yield {"x": jagged[number % 100 : number % 100 + 5]}

    submission = submit(model, endless(), client=client, in_flight=3)
    assert taken == []
    for number in range(10):
        np.testing.assert_allclose(next(submission), sums(jagged[number : number + 5]), atol=1e-4)
        assert len(taken) == number + 3
    submission.close()
    assert submission.summary.chunks == 10
    default = submit(model, endless(), client=client)
    next(default)
    assert len(taken) == 12 + 2 * WORKERS
    del default


@pytest.mark.parametrize("end", ["close", "collect", "interrupt"])
def test_stopping_early_leaves_nothing_on_the_cluster(client, model, jagged, end):
    def interrupted():
        yield from [jagged[:10]] * 6
        raise KeyboardInterrupt

    submission = submit(
        model, interrupted() if end == "interrupt" else [jagged[:10]] * 12, client=client, in_flight=5
    )
    topic = submission._place._topic
    next(submission)
    if end == "close":
        submission.close()
    elif end == "interrupt":
        with pytest.raises(KeyboardInterrupt, match="Stopped after . chunks .*; the other chunks are cancelled"):
            list(submission)
    del submission
    gc.collect()
    until(lambda: client.run_on_scheduler(on_the_cluster, topic=topic) == (0, 0))
    assert client.futures == {}


def on_the_cluster(dask_scheduler, topic):
    return len(dask_scheduler.tasks), len(dask_scheduler._broker._topics[topic].subscribers)


def hold_one(chunk, mark):
    """Return the rows; the first worker with chunk 20 writes its process id and waits to be killed."""
    number, rows = chunk
    if number == 20 and not mark.exists():
        mark.write_text(str(os.getpid()))
        time.sleep(600)
    return rows


def test_lost_workers_and_a_lost_triton_neither_lose_nor_repeat_jets(client, sums_models, jagged, tmp_path):
    mark = tmp_path / "pid"
    given = chunks(jagged, 64)
    with TritonServer.start([sums_models]) as server, eaf_inference.connect(server.grpc) as connection:
        model = connection.model("sums")
        expected = model(jagged)
        select = partial(hold_one, mark=mark)
        submission = submit(model, enumerate(given), client=client, select=select, in_flight=8)  # more will follow
        scores = list(itertools.islice(submission, 20))
        until(lambda: (20, 0, None) in submission._place._starts._started and mark.exists() and mark.read_text())
        os.kill(int(mark.read_text()), signal.SIGKILL)
        scores += itertools.islice(submission, 20)
        server.kill()
        reviver = threading.Thread(target=server.restart)
        reviver.start()
        scores += submission
        reviver.join()
        server.kill()  # faster than stopping it
    assert [len(part) for part in scores] == [len(part) for part in given]
    assert_same(ak.concatenate(scores), expected)
    summary = submission.summary
    assert summary.chunks == 64
    assert summary.jets == len(jagged)
    assert summary.restarts >= 1  # a lost Triton may show first in the check of the model, which waits


def unreachable_once(rows, mark):
    """Return the rows, unless no worker has failed yet: then fail for a while, as storage does."""
    worker = str(distributed.get_worker().name)
    if len(rows) == 4 and not mark.exists():
        mark.write_text(worker)
        error = UnreadableFile("the storage does not answer")
        error.temporary = True
        raise error
    assert len(rows) != 4 or worker != mark.read_text()
    return rows


def test_storage_that_does_not_answer_is_tried_again_on_another_worker(client, model, jagged, tmp_path):
    select = partial(unreachable_once, mark=tmp_path / "worker")
    submission = submit(model, [jagged[:3], jagged[:4], jagged[:5]], client=client, select=select)
    assert [len(scores) for scores in submission] == [3, 4, 5]
    assert submission.summary.failed == 0


@pytest.mark.parametrize(
    ("content", "name", "error", "message"),
    [
        (
            {"pt": [[1.0]]},
            "a.parquet",
            InvalidInput,
            "a.parquet lacks part_deta, .*; it has pt. Expected .*pass select=",
        ),
        ({"pt": [[1.0]]}, "a.root", InvalidInput, "a.root lacks part_deta, .*; it has pt."),  # of its only tree
        ({"pt": [[1.0]]}, "a.root:jets", InvalidInput, "a.root:jets has no tree 'jets'.*with one of events"),
        (
            {"pt": [[1.0]]},
            "a.root:events",
            InvalidInput,
            "a.root:events lacks part_deta, .*; it has pt. Expected these columns, or eta, phi, energy or mass",
        ),
        (None, "none.parquet", InvalidInput, "none.parquet cannot be read: "),
        (None, "none.root:events", InvalidInput, "none.root:events cannot be read: FileNotFoundError"),
        (b"no parquet", "a.parquet", InvalidInput, "a.parquet cannot be read: ArrowInvalid"),
        (b"no ROOT file", "a.root:events", InvalidInput, "a.root:events cannot be read: "),
        (b"", "a.csv", InvalidInput, "a.csv has an unsupported type. Expected a .parquet file or file.root:tree"),
        (
            {n: [[1.0]] if n == "pt" else [[1.0, 2]] for n in KINEMATICS},
            "a.parquet",
            InvalidInput,
            "of different lengths",
        ),
    ],
)
def test_an_unusable_file_is_named(client, particlenet, jets, tmp_path, content, name, error, message):
    path = tmp_path / name.partition(":")[0]
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content and path.suffix == ".root":
        with uproot.recreate(path) as file:
            file["events"] = {name: ak.Array(values) for name, values in content.items()}
    elif content:
        ak.to_parquet(ak.zip({name: ak.Array(values) for name, values in content.items()}, depth_limit=1), path)
    submission = submit(particlenet, [jets[:3], str(tmp_path / name), jets[:3]], client=client, on_error="raise")
    assert len(next(submission)) == 3
    with pytest.raises(error, match=f"(?s)^Chunk 1 \\(.*{name}\\) failed: .*{message}"):
        next(submission)


def test_other_failures_of_a_chunk_are_named(client, model, jagged):
    with pytest.raises(InvalidInput, match="Chunk 0 failed: .*(lacks|channels|takes 2 features)"):
        next(submit(model, [jagged[["a"]]], client=client, on_error="raise"))
    with pytest.raises(InferenceError, match="Chunk 0 failed: ZeroDivisionError"):
        next(submit(model, [jagged], client=client, select=lambda _: 1 // 0, on_error="raise"))

    def lacking(rows):
        import no_such_package  # noqa: F401

    with pytest.raises(ConfigurationError, match="a package is missing .*'no_such_package'"):
        next(submit(model, [jagged], client=client, select=lacking, retries=0))


def test_invalid_data_sets_and_clients_are_refused(client, cluster, model, jagged):
    for chunk in ({"x": jagged}, {}, jagged, np.ones((2, 2, 2)), 3):
        with pytest.raises(InvalidInput, match="The chunks are an? .*. Expected an iterable"):
            submit(model, chunk, client=client)
    with pytest.raises(InvalidInput, match="in_flight is 0"):
        submit(model, [], client=client, in_flight=0)
    with pytest.raises(ConfigurationError, match="There is no Dask client"):
        submit(model, [])
    with pytest.raises(ConfigurationError, match=r"client is a .*\. Expected a distributed\.Client"):
        submit(model, [], client=cluster)
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


def test_an_estimate_has_the_threads_of_the_cluster(client, connection, model, jagged):
    estimate = connection.estimate(model, chunks(jagged, 12), client=client, progress=False)
    assert (estimate.threads, estimate.chunks) == (WORKERS, 12)
    assert (estimate.jets.value, estimate.jets.error) == (len(jagged), 0)
    assert estimate.requests.value > 0  # although the workers send them


def test_the_summary_adds_up(client, model, jagged):
    given = chunks(jagged, 12)
    submission = submit(model, given, client=client)
    assert submission.summary.chunks == 0
    list(submission)
    summary = submission.summary
    assert sum(share.chunks for share in summary.workers) == summary.chunks == 12
    assert sum(share.jets for share in summary.workers) == summary.jets == len(jagged)
    assert 0 < summary.seconds * summary.inferences_per_second == pytest.approx(len(jagged))
    assert all(share.inferences_per_second * share.seconds == pytest.approx(share.jets) for share in summary.workers)
    assert "3,000 jets in 12 chunks" in str(summary)
    assert "jets/s a thread" in str(summary)
    assert "3,000 jets in 12 chunks" in summary._repr_html_()
    assert "3,000 jets" in repr(submission)


def test_the_panel_shows_the_workers_rate_before_the_first_chunk(client, triton, jets):
    # with a timeout that no other test uses, so that the workers get a connection of their own to count on
    with eaf_inference.connect(triton.grpc, timeout=9.0) as connection:
        connection.configure(client)
        work, many = work_of(connection), ak.concatenate([jets] * 6)
        submission = submit(connection.model("particlenet"), [many] * WORKERS, client=client)
        submission._sending.fill(None)  # without waiting for the scores
        first = work.look()
        assert (first["busy"], first["inferences"]) == (True, 0)
        assert first["inferences_per_second"] is None  # not 0, because no worker has reported yet
        until(lambda: work.look()["inferences_per_second"])
        assert submission.summary.chunks == 0
        assert connection.traffic.inferences == 0  # in this process
        list(submission)
        assert work.look()["inferences"] == WORKERS * len(many)
        assert work.look()["busy"] is False


def test_the_panel_counts_chunks_if_workers_report_nothing(client, model, connection, jagged):
    submission, work = submit(model, chunks(jagged, 4), client=client), work_of(connection)
    assert work.look()["inferences_per_second"] is None
    time.sleep(0.3)  # a rate needs some time
    next(submission)
    told = work.look()
    assert told["inferences"] == submission.summary.jets > 0
    assert told["inferences_per_second"] > 0
    submission.close()


def test_large_arrays_travel_without_a_warning(client, model, jagged):
    large = ak.concatenate([jagged] * 7)
    assert large.nbytes > 10_000_000  # above which distributed warns
    [scores] = submit(model, [large], client=client)
    assert len(scores) == len(large)


def test_only_the_slice_of_an_array_is_sent(client, model, jagged):
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


def test_truncated_jets_are_counted_and_warned_about(client, particlenet, events):
    constituents = ak.flatten(events.jets.constituents)
    too_long = constituents[ak.num(constituents) > particlenet.spec.recipe.max_length][:3]
    submission = submit(particlenet, [too_long[:1], too_long[1:]], client=client)
    with pytest.warns(UserWarning, match="3 jets have more than the 128 constituents that 'particlenet' takes"):
        list(submission)
    assert submission.summary.truncated == 3


def test_task_keys_contain_the_model_and_nothing_else(client, model, jagged):
    submission = submit(model, [jagged[:3]], client=client)
    submission._sending.fill(None)  # without waiting for the scores
    [key] = client.futures
    assert key.startswith("sums-")
    assert key.endswith("-0")
    list(submission)
