"""The user's clusters in the panel, from a real gateway, without one, and with one that fails."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
import threading
import time
import warnings
from contextlib import contextmanager

import dask
import numpy as np
import pytest
from browser import CLUSTERS
from dask_gateway import BasicAuth, Gateway, GatewayWarning
from tokens import MARK, make_token
from tornado.httpclient import AsyncHTTPClient

import eaf_inference
from eaf_facility.process.ports import free_ports
from eaf_inference.discovery import local_facility
from eaf_inference.discovery.local_facility import LocalFacility
from eaf_inference.metrics.snapshot import Busy, Gpu, ModelLoad, Snapshot
from eaf_inference.server.clusters import Clusters
from eaf_inference.server.inquiry import Inquiry

KEYS = {"name", "status", "started", "workers", "configured", "inferences_per_second", "oldest_token", "dashboard"}


async def test_without_a_gateway_the_list_is_empty(browser, jp_environ):
    assert await browser.clusters() == {"type": "clusters", "clusters": [], "problem": None}


async def test_without_dask_gateway_the_list_is_empty(browser, jp_environ, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_gateway", None)
    assert (await browser.clusters())["clusters"] == []


async def test_an_unavailable_gateway_is_reported(browser, jp_environ):
    (port,) = free_ports(1)
    with dask.config.set({"gateway.address": f"http://127.0.0.1:{port}"}):
        reply = await browser.clusters()
    assert reply["clusters"] == []
    assert "The request to the Dask Gateway failed" in reply["problem"]


async def test_only_browsers_that_show_clusters_receive_them(browser, jp_environ):
    (port,) = free_ports(1)
    with dask.config.set({"gateway.address": f"http://127.0.0.1:{port}"}):
        async with browser.stream() as panel, browser.stream() as status_bar:
            assert await status_bar.next() is not None
            assert await panel.next() is not None
            await panel.say(CLUSTERS)
            reply = await panel.next("clusters")
            kinds = {json.loads(await status_bar.connection.read_message())["type"] for _ in range(3)}
    assert "The request to the Dask Gateway failed" in reply["problem"]
    assert "clusters" not in kinds


async def test_clusters_do_not_wait_for_a_slow_facility(browser, jp_environ, monkeypatch):
    ask, may_answer = Inquiry.ask, threading.Event()
    monkeypatch.setattr(Inquiry, "ask", lambda inquiry: may_answer.wait(30) and ask(inquiry))
    async with browser.stream() as panel:
        await panel.say(CLUSTERS)
        assert await panel.next("clusters") == {"type": "clusters", "clusters": [], "problem": None}
        assert panel.facility is None
        may_answer.set()
        assert (await panel.next("facility"))["facility"]["state"] == "no-facility"


def infer():
    """Infer on a worker, as a user's task does."""
    import time

    import eaf_inference

    model = eaf_inference.connect().model("mirror")
    for _ in range(20):
        model({"x": np.ones((4, 2), np.float32)})
        time.sleep(0.1)


infer.__module__ = "__main__"  # as if typed in a notebook, so that it travels by value


@contextmanager
def cluster_of(user, server, triton):
    """Start two configured workers that have inferred."""
    auth = BasicAuth(user, server.password_file.read_text())
    with (
        eaf_inference.connect(triton.grpc) as connection,
        Gateway(server.address, auth=auth) as gateway,
        gateway.new_cluster() as cluster,
        cluster.get_client() as client,
    ):
        cluster.scale(2)
        client.wait_for_workers(2, timeout=60)
        connection.configure(client)
        client.gather(
            [client.submit(infer, workers=worker, pure=False) for worker in client.scheduler_info()["workers"]]
        )
        yield cluster.name


@contextmanager
def another_users_cluster(server, user="bob"):
    """Start a cluster without waiting until it runs."""
    with Gateway(server.address, auth=BasicAuth(user, server.password_file.read_text())) as gateway:
        name = gateway.submit()
        try:
            assert [report.name for report in gateway.list_clusters()] == [name]
            yield name
        finally:
            gateway.stop_cluster(name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
async def test_a_local_facilitys_gateway_lists_only_this_users_clusters(
    browser, configure, tiny_triton, gateway_server, tmp_path, jp_serverapp
):
    (tmp_path / "token").write_text(make_token("alice", age=300))
    configure(urls=[tiny_triton.grpc], token_file=str(tmp_path / "token"))
    facility = LocalFacility(
        pid=1, started=1.0, replicas=(tiny_triton.replica,), models=(), gateway=gateway_server.description
    )
    password = gateway_server.password_file.read_text()
    ended, up, loop = threading.Event(), asyncio.Event(), asyncio.get_running_loop()

    def run():
        with (
            another_users_cluster(gateway_server) as bobs,
            cluster_of(getpass.getuser(), gateway_server, tiny_triton) as ours,
        ):
            loop.call_soon_threadsafe(up.set)
            ended.wait(90)
            return bobs, ours

    with local_facility.announced(facility):
        work = asyncio.create_task(asyncio.to_thread(run))
        try:
            await asyncio.wait([work, asyncio.create_task(up.wait())], return_when="FIRST_COMPLETED")
            async with browser.stream() as stream:
                await stream.say(CLUSTERS)
                reply = await stream.until(
                    lambda each: each["clusters"] and each["clusters"][0]["inferences_per_second"], "clusters"
                )
            advice = await advice_of_a_server_with_room(browser, jp_serverapp)
            as_bob = {"type": "basic", "kwargs": {"username": "bob", "password": password}}
            with dask.config.set({"gateway.address": gateway_server.address, "gateway.auth": as_bob}):
                clusters_of_bob = Clusters()
                await clusters_of_bob.look_soon()
                list_of_bob = json.loads(clusters_of_bob.text)
        finally:
            ended.set()
        bobs, name = await work
    assert reply["problem"] is None
    [cluster] = reply["clusters"]
    assert set(cluster) == KEYS
    assert (cluster["name"], cluster["status"]) == (name, "running")
    assert (cluster["workers"], cluster["configured"]) == (2, 2)
    assert cluster["inferences_per_second"] > 0
    assert 300 <= cluster["oldest_token"] < 400
    assert 0 < time.time() - cluster["started"] < 300
    assert name in cluster["dashboard"]
    assert "workers like your 2" in advice["text"]
    assert [cluster["name"] for cluster in list_of_bob["clusters"]] == [
        bobs
    ]  # as Dask's configuration names the user
    assert password not in str((reply, list_of_bob))
    assert MARK not in str(reply)


async def advice_of_a_server_with_room(browser, app):
    """Return the advice for a simulated GPU that is idle most of the time."""
    [point] = app.extension_manager.extensions["eaf_inference.server"].extension_points.values()
    await browser.get("facility")
    model = ModelLoad("mirror", "1", 1e6, 1e3, 0.0, batch=1e3, queue_ms=0.1, compute_ms=2.0)
    now, busy = time.time(), Busy(0.2, "GPU", estimated=False)
    gpus = (Gpu("GPU-0", utilization=0.2),)
    point.app._facility.sampler._history = tuple(
        Snapshot(now - 60 + second, window=1.0, busy=busy, gpus=gpus, models=(model,)) for second in range(60)
    )
    return (await browser.get("history"))["advice"]


@pytest.fixture
def as_alice(gateway_server):
    """Configure Dask for the gateway as alice."""
    password = gateway_server.password_file.read_text()
    auth = {"type": "basic", "kwargs": {"username": "alice", "password": password}}
    with dask.config.set({"gateway.address": gateway_server.address, "gateway.auth": auth}):
        yield password


@contextmanager
def running_cluster(user, server):
    """Start a cluster without workers; yields its name and the user's gateway client."""
    with Gateway(server.address, auth=BasicAuth(user, server.password_file.read_text())) as gateway:
        name = gateway.submit()
        try:
            gateway.connect(name).close()  # returns when it runs
            yield name, gateway
        finally:
            gateway.stop_cluster(name)


async def dashboard_page(url):
    """Return the page that a browser without credentials receives."""
    answer = await AsyncHTTPClient().fetch(f"{url.removesuffix('/status')}/status", follow_redirects=True)
    return answer.body.decode()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
async def test_a_user_scales_and_shuts_down_a_cluster(browser, gateway_server, as_alice, jp_serverapp):
    with running_cluster("alice", gateway_server) as (name, gateway):
        assert await browser.post(f"clusters/{name}/scale", {"workers": 1}) == (200, {"remark": ""})
        async with browser.stream() as stream:
            await stream.say(CLUSTERS)
            reply = await stream.until(
                lambda each: each["clusters"] and each["clusters"][0]["workers"] == 1, "clusters"
            )
            assert "Dask" in await dashboard_page(reply["clusters"][0]["dashboard"])
            assert await browser.post(f"clusters/{name}/shutdown") == (200, {"remark": ""})
            await stream.until(lambda each: not each["clusters"], "clusters")
        assert await asyncio.to_thread(gateway.list_clusters) == []
        assert as_alice not in str(reply)
        status, answer = await browser.post(f"clusters/{name}/shutdown")
        assert (status, answer["message"]) == (
            404,
            f"You have no running cluster '{name}'. It may have been shut down.",
        )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
async def test_another_users_cluster_is_neither_scaled_nor_shut_down(browser, gateway_server, as_alice):
    with another_users_cluster(gateway_server) as bobs:
        for action, body in ("scale", {"workers": 3}), ("shutdown", {}):
            of_bob = await browser.post(f"clusters/{bobs}/{action}", body)
            unknown = await browser.post(f"clusters/unknown/{action}", body)
            assert of_bob[0] == unknown[0] == 404
            assert of_bob[1]["message"].replace(bobs, "unknown") == unknown[1]["message"]
        bob = Gateway(gateway_server.address, auth=BasicAuth("bob", as_alice))
        assert [each.name for each in await asyncio.to_thread(bob.list_clusters)] == [bobs]
        bob.close()


async def test_a_starting_cluster_is_not_scaled_and_limits_are_reported(
    browser, gateway_server, as_alice, monkeypatch
):
    with another_users_cluster(gateway_server, "alice") as name:
        status, answer = await browser.post(f"clusters/{name}/scale", {"workers": 3})
        assert status == 409
        assert answer["message"].startswith("The Dask Gateway refused: ")
        assert answer["message"].endswith("Try again once the cluster is running.")

        async def limited(*_):
            warnings.warn(GatewayWarning("Scaling to 2 instead."), stacklevel=2)

        monkeypatch.setattr(Gateway, "_scale_cluster", limited)
        assert await browser.post(f"clusters/{name}/scale", {"workers": 3}) == (
            200,
            {"remark": "Scaling to 2 instead."},
        )


async def test_the_reason_for_a_failed_change_is_reported(browser, jp_environ):
    with dask.config.set({"gateway.address": None}):  # an earlier test may have left one
        assert (await browser.post("clusters/any/shutdown"))[0] == 404
    (port,) = free_ports(1)
    with dask.config.set({"gateway.address": f"http://127.0.0.1:{port}"}):
        status, answer = await browser.post("clusters/any/shutdown")
    assert status == 502
    assert "The request to the Dask Gateway failed" in answer["message"]


@pytest.mark.parametrize("body", [{}, [], 3, {"workers": -1}, {"workers": "3"}, {"workers": True}, {"workers": 1e9}])
async def test_an_invalid_number_of_workers_is_refused(browser, jp_environ, body):
    status, answer = await browser.post("clusters/any/scale", body)
    assert status == 400
    assert 'Expected {"workers": n}' in answer["message"]
