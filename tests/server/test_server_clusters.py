"""The user's clusters as the panel lists them: from a real gateway, or nothing, or why not."""

from __future__ import annotations

import asyncio
import sys

import dask
import pytest
from dask_gateway import BasicAuth, Gateway

import eaf_inference
from eaf_inference import local
from eaf_inference.facility.ports import free_ports
from eaf_inference.local import LocalFacility

KEYS = {"name", "status", "workers", "configured", "inferences_per_second", "oldest_token", "dashboard"}


async def test_without_a_gateway_there_is_nothing_to_list(browser, jp_environ):
    assert await browser.get("clusters") == {"clusters": [], "problem": None}


async def test_without_dask_gateway_there_is_nothing_to_list(browser, jp_environ, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_gateway", None)
    assert (await browser.get("clusters"))["clusters"] == []


async def test_a_gateway_that_is_away_is_said_to_be(browser, jp_environ):
    (port,) = free_ports(1)
    with dask.config.set({"gateway.address": f"http://127.0.0.1:{port}"}):
        told = await browser.get("clusters")
    assert told["clusters"] == []
    assert "The Dask Gateway cannot be asked" in told["problem"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
async def test_a_cluster_is_listed_with_its_workers_and_how_many_are_configured(
    browser, configure, tiny_triton, gateway_server
):
    configure(urls=[tiny_triton.grpc])
    facility = LocalFacility(
        pid=1, started=1.0, replicas=(tiny_triton.replica,), models=(), gateway=gateway_server.description
    )
    password = gateway_server.password_file.read_text()
    ended = asyncio.Event()
    loop, up = asyncio.get_running_loop(), asyncio.Event()

    def run():
        auth = BasicAuth("alice", password)
        with (
            eaf_inference.connect(tiny_triton.grpc) as connection,
            Gateway(gateway_server.address, auth=auth) as gateway,
            gateway.new_cluster() as cluster,
            cluster.get_client() as client,
        ):
            cluster.scale(2)
            client.wait_for_workers(2, timeout=60)
            connection.configure(client)
            loop.call_soon_threadsafe(up.set)
            asyncio.run_coroutine_threadsafe(ended.wait(), loop).result(90)

    with (
        local.announced(facility),
        dask.config.set(
            {
                "gateway.address": gateway_server.address,
                "gateway.auth": {"type": "basic", "kwargs": {"username": "alice", "password": password}},
            }
        ),
    ):
        work = asyncio.create_task(asyncio.to_thread(run))
        try:
            await asyncio.wait([work, asyncio.create_task(up.wait())], return_when="FIRST_COMPLETED")
            for _ in range(10):
                told = await browser.get("clusters")
                if told["clusters"] and told["clusters"][0]["configured"] == 2:
                    break
                await asyncio.sleep(1)
        finally:
            ended.set()
        await work
    assert told["problem"] is None
    [cluster] = told["clusters"]
    assert set(cluster) == KEYS
    assert (cluster["status"], cluster["workers"], cluster["configured"]) == ("running", 2, 2)
    assert password not in str(told)
