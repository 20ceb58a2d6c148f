"""Models in Dask's own collections and functions, and clusters that grow or lose all workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import awkward as ak
import dask
import dask_awkward
import distributed
import numpy as np
import pyarrow.parquet
import pytest
from edge_proxy import edge_proxy
from rows import chunks, sums

import eaf_inference
from eaf_inference.dask.submit import submit
from eaf_inference.dataset.parts import File, Part
from eaf_inference.dataset.reading import read
from eaf_inference.errors import ConfigurationError, InferenceError, InvalidInput

SAMPLE = Path(__file__).parents[2] / "notebooks" / "jets.parquet"
KINEMATICS = ["pt", "eta", "phi", "energy"]


@pytest.fixture
def model(connection):
    return connection.model("sums")


def test_dasks_own_functions_accept_a_model(client, model, jagged):
    given = chunks(jagged, 4)
    mapped = client.map(model, given)
    single = client.submit(model, jagged)
    assert {future.key.split("-")[0] for future in (*mapped, single)} == {"sums"}
    delayed = client.compute([dask.delayed(model)(part) for part in given])
    for scores in (ak.concatenate(client.gather(mapped)), single.result(), ak.concatenate(client.gather(delayed))):
        np.testing.assert_allclose(ak.to_numpy(scores), sums(jagged), atol=1e-4)


def test_dask_awkward_needs_no_server_and_reads_only_used_columns(client, triton, particlenet, few, tmp_path):
    part = tmp_path / "events.parquet"
    ak.to_parquet(few, part)
    with (
        edge_proxy(triton.grpc.removeprefix("grpc://")) as (handler, port),
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
        with pytest.raises(InvalidInput, match="lacks eta, phi, energy, from which part_deta and 5 others"):
            dask_awkward.map_partitions(model, read.jets.constituents[["pt"]])
        assert handler.calls == calls
        # under dask 2026.8, dask-awkward 2025.3 cannot fuse a reader with any following step
        with dask.config.set({"awkward.optimization.which": ["columns"]}):
            [ready] = dask.optimize(scores)
        computed = client.compute(ready, optimize_graph=False).result()
    assert handler.calls > calls
    expected = particlenet(few.jets.constituents)
    assert computed.type == expected.type
    assert ak.almost_equal(computed, expected, atol=1e-5, rtol=0)


def test_a_run_becomes_a_dask_awkward_array(client, model, jagged):
    given = chunks(jagged, 4)
    run = submit(model, given, client=client)
    scores = run.to_dask_awkward()
    assert scores.npartitions == 4
    assert str(scores.form.type) == "2 * float32"
    with pytest.raises(ConfigurationError, match="Expected a new one"):
        next(run)
    [computed] = dask.compute(scores, scheduler="sync", optimize_graph=False)
    np.testing.assert_allclose(ak.to_numpy(computed), sums(jagged), atol=1e-4)
    with pytest.raises(ConfigurationError, match="call triton.submit again"):
        run.to_dask_awkward()
    with pytest.raises(InvalidInput, match="^Chunk 0 failed: "):
        submit(model, [jagged[["a"]]], client=client).to_dask_awkward()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("sums", lambda jagged: jagged),
        ("sums", lambda jagged: {"x": ak.unflatten(jagged, [1000, 0, 2000])}),
        ("squares", lambda jagged: ak.unflatten(jagged.a, [1000, 0, 2000])),
        ("fixed", lambda _: {"values": ak.from_numpy(np.ones((5, 3))), "number": ak.Array([1, 2, 3, 4, 5])}),
    ],
)
def test_the_type_without_data_equals_the_type_with_data(connection, jagged, name, data):
    model, arrays = connection.model(name), data(jagged)
    expected = model(arrays)
    without = {key: tracer(each) for key, each in arrays.items()} if isinstance(arrays, dict) else tracer(arrays)
    assert str(model(without).type.content) == str(expected.type.content)
    assert model(without).layout.form == expected.layout.to_packed().form


def tracer(array):
    return ak.Array(ak.to_layout(array).to_typetracer(forget_length=True))


def test_columns_that_select_does_not_use_are_not_read(particlenet, monkeypatch):
    asked = []
    original = pyarrow.parquet.ParquetFile.read_row_groups

    def read_row_groups(self, row_groups, columns):
        if len(row_groups):  # not only for the types
            asked.append({column.replace(".list.element", "") for column in columns})
        return original(self, row_groups, columns=columns)

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "read_row_groups", read_row_groups)
    part = Part(0, File(str(SAMPLE)))
    for select in (
        lambda events: events.jets.constituents,
        lambda events: events[events.jets.pt[:, 0] > 100].jets.constituents,
        lambda events: events[np.arange(len(events)) % 2 == 0].jets.constituents,
    ):
        read(part, particlenet, select)
    needed = {f"jets.constituents.{name}" for name in KINEMATICS}
    assert asked[0] == needed
    assert asked[1] == needed | {"jets.pt"}
    assert asked[2] > asked[1]  # a selection that needs data gets all columns


def test_a_cluster_without_workers_gets_enough_tasks_to_grow(model, jagged):
    with (
        distributed.LocalCluster(n_workers=0, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0") as own,
        distributed.Client(own, set_as_default=False) as client,
    ):
        run = submit(model, chunks(jagged, 10), client=client)
        assert run._sending.task.most_bytes == 256 << 20  # a large file is cut, whatever workers come
        own.adapt(minimum=0, maximum=1, interval="100ms")
        scores = list(run)
    np.testing.assert_allclose(ak.to_numpy(ak.concatenate(scores)), sums(jagged), atol=1e-4)


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
        given = [jagged[:5], jagged[:7]]
        submission = submit(model, given, client=client, select=kill_all, in_flight=1, on_error="raise")
        assert len(next(submission)) == 5
        with pytest.raises(InferenceError, match="(?s)^Chunk 1 was given up because its workers died"):
            next(submission)
        # by default, the cluster is asked for its size
        runs = [submit(model, [jagged[:5]] * 3, client=client, in_flight=each) for each in (1, None)]
        client.close()
        for run in runs:
            with pytest.raises(InferenceError, match="The Dask cluster does not answer: the client is closed"):
                next(run)
