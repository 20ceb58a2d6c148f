"""Clusters without a gateway, and workers with and without eaf_inference."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
from dask_facility import (
    ONES,
    THREES,
    all_hold_a_token_since,
    classify,
    eventually,
    meet_a_refusal,
    typed_in_a_notebook,
)
from distributed import Client, LocalCluster

import eaf_inference
from eaf_inference.errors import ConfigurationError


def test_a_client_without_a_gateway_is_configured_only_on_request(facility):
    with (
        eaf_inference.connect() as triton,
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster.scheduler_address) as client,
    ):
        assert triton.linked_clusters == []
        assert client.submit(lambda: "_eaf_inference_held" in sys.modules).result() is False
        triton.configure(client)
        np.testing.assert_array_equal(client.submit(classify, ONES).result(), THREES)
    with (
        eaf_inference.connect() as triton,
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        with pytest.raises(ConfigurationError, match="threads of this process"):
            triton.configure(client)
        with pytest.raises(ConfigurationError, match="client is a distributed LocalCluster"):
            triton.configure(cluster)


@typed_in_a_notebook
def clients_inside_a_task():
    """Return the links of a client inside a task."""
    from distributed import get_client

    import eaf_inference.registry

    get_client()
    return [str(each) for each in eaf_inference.registry.linked_clusters]


def test_a_token_is_not_sent_unencrypted_to_a_remote_scheduler(facility, monkeypatch):
    from eaf_inference.address import Address

    with (
        eaf_inference.connect() as triton,
        LocalCluster(n_workers=0, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        monkeypatch.setattr(Address, "is_loopback", False)  # as if the scheduler were elsewhere
        with pytest.raises(ConfigurationError, match="unencrypted to the cluster at tcp://"):
            triton.configure(client)


def test_a_schedulers_error_is_reported_and_ends_nothing(facility, workers_in_this_process, monkeypatch):
    async def fail(**_):
        raise KeyError("of the scheduler")

    with (
        eaf_inference.connect() as triton,
        LocalCluster(
            n_workers=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        with monkeypatch.context() as patched:
            patched.setattr(cluster.scheduler, "register_worker_plugin", fail)
            with pytest.raises(ConfigurationError, match="cannot take the token: KeyError: 'of the scheduler'"):
                triton.configure(client)
        eventually(lambda: triton.linked_clusters[0].state.value, lambda state: state == "configured")


def test_the_preload_is_added_to_dasks_configuration(facility):
    with dask.config.set({"distributed.client.preload": ["somebody.elses"]}):
        with eaf_inference.connect(), eaf_inference.connect():
            pass
        assert dask.config.get("distributed.client.preload") == ["somebody.elses", "eaf_inference.dask.preload"]


@pytest.fixture
def python_without_us(tmp_path):
    """A Python with all packages of this environment except eaf_inference."""
    here, there = Path(dask.__file__).parents[1], tmp_path / "site-packages"
    there.mkdir()
    for path in here.iterdir():
        if "eaf_inference" not in path.name and path.suffix != ".pth":
            (there / path.name).symlink_to(path)
    start = "import sys; sys.path.insert(0, sys.argv.pop(1)); from distributed.cli.dask_worker import main; main()"
    return [sys.executable, "-I", "-S", "-c", start, str(there)]


def test_a_worker_without_eaf_inference_starts_and_reports_that(facility, python_without_us, tmp_path):
    with (
        eaf_inference.connect() as triton,
        LocalCluster(n_workers=0, dashboard_address=":0") as cluster,
        Client(cluster) as client,
        (tmp_path / "worker.log").open("wb") as log,
    ):
        triton.configure(client)
        command = [*python_without_us, cluster.scheduler_address, "--no-nanny", "--nthreads=1", "--no-dashboard"]
        worker = subprocess.Popen([*command, f"--local-directory={tmp_path}"], stdout=log, stderr=log)
        try:
            client.wait_for_workers(1, timeout=30)
            assert client.submit(sum, [1, 2]).result() == 3
            with pytest.raises(ModuleNotFoundError, match="eaf_inference"):
                client.submit(classify, ONES).result()
            client.run(meet_a_refusal)  # again, with the plugin in place
            assert all_hold_a_token_since(client, triton.credentials.known.issued_at)
            assert client.submit(sum, [2, 2]).result() == 4
            row = eventually(lambda: triton.clusters()[0], lambda row: row.configured == 1)
            assert row.workers == 1
            [remark] = row.remarks
            assert remark == f"eaf-inference {eaf_inference.__version__} here, missing on 1 of 1 workers"
        finally:
            worker.terminate()
            assert worker.wait(30) == 0


@pytest.mark.parametrize("which", ["all", "none"])
def test_the_facility_chooses_which_clusters_are_configured(facility, tmp_path, which):
    path = tmp_path / "jupyter" / "eaf_inference_config.json"
    settings = json.loads(path.read_text())
    settings["Facility"]["configure_clusters"] = which
    path.write_text(json.dumps(settings))
    with (
        eaf_inference.connect() as triton,
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        assert [each.state.value for each in triton.linked_clusters] == (["configured"] if which == "all" else [])
        assert client.submit(clients_inside_a_task).result() == []
        with Client(processes=False, dashboard_address=":0"):  # its workers run in this process
            assert len(triton.linked_clusters) == (which == "all")
            assert "explicit" in repr(triton) or "configuration" in repr(triton)


def test_a_scheduler_without_eaf_inference_is_named_as_the_reason(facility, python_without_us, tmp_path):
    python_without_us[-2] = python_without_us[-2].replace("dask_worker", "dask_scheduler")
    found = tmp_path / "scheduler.json"
    with eaf_inference.connect() as triton, (tmp_path / "scheduler.log").open("wb") as log:
        command = [*python_without_us, "--host=127.0.0.1", "--port=0", "--no-dashboard", f"--scheduler-file={found}"]
        scheduler = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            with Client(scheduler_file=str(found)) as client:
                triton.configure(client)
                [row] = triton.clusters()
                assert row.remarks == (f"eaf-inference {eaf_inference.__version__} here, missing on the scheduler",)
                with pytest.raises(ConfigurationError, match="scheduler cannot read it .*eaf_inference"):
                    next(triton.submit(triton.model("sums"), [ONES], client=client))
        finally:
            scheduler.terminate()
            assert scheduler.wait(30) == 0


def test_an_asynchronous_client_is_configured_too(facility):
    async def use(triton):
        async with (
            LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", asynchronous=True) as cluster,
            Client(cluster, asynchronous=True) as client,
        ):
            await triton.configure(client)
            assert "configured" in repr(triton)
            assert triton.clusters()[0].state == "configured"
            return await client.submit(classify, ONES)

    with eaf_inference.connect() as triton:
        np.testing.assert_array_equal(asyncio.run(use(triton)), THREES)
        assert triton.linked_clusters == []
