"""Requests with a secret go only to the intended server, whatever proxies the environment names."""

from __future__ import annotations

import asyncio
import functools

import dask.config
import pytest
from dask_facility import ONES, THREES
from edge_proxy import edge_proxy
from hostile_http import hostile_proxy, saying
from jupyterhub.services.auth import HubAuth
from recorded.replay import serve
from token_service import HUB_TOKEN, token_service
from tokens import MARK, make_token

import eaf_inference
from eaf_facility.hub.callers import caller_of
from eaf_facility.hub.jupyterhub import configure
from eaf_inference.auth.credentials import Credentials
from eaf_inference.auth.sources import StaticToken
from eaf_inference.auth.token_service import TokenService
from eaf_inference.config import Facility
from eaf_inference.dask.gateway import use_facility_gateway
from eaf_inference.dask.worker_plugin import Secret, fetch_token
from eaf_inference.errors import InferenceError, NoServerFound
from eaf_inference.metrics.http import make_fetch
from eaf_inference.metrics.prometheus import Prometheus

HUB = {"JUPYTERHUB_API_TOKEN": HUB_TOKEN}
USER = b'{"name": "alice", "kind": "user", "scopes": ["access:services"], "groups": []}'


def in_a_loop(test):
    """Run a test that is a coroutine."""

    @functools.wraps(test)
    def run(*arguments, **fixtures):
        asyncio.run(test(*arguments, **fixtures))

    return run


@pytest.fixture
def proxy(monkeypatch):
    """A hostile proxy in the environment, which must get no request."""
    with hostile_proxy(monkeypatch) as seen:
        yield seen
    assert seen == []


@pytest.mark.parametrize("ask", [TokenService.read, TokenService.facility, lambda it: it.usage("1d")])
def test_only_the_token_service_sees_the_hub_token(proxy, ask):
    with token_service({}) as service:
        service.usage, service.facility = {"at": 1.0, "models": []}, {"max_in_flight": 4}
        assert ask(TokenService(service.url, environment=HUB))


def test_only_the_token_service_sees_a_schedulers_hub_token(proxy):
    with token_service({}) as service:
        assert fetch_token(service.url, Secret(HUB_TOKEN), None) == service.given[0]


@pytest.mark.parametrize("scheme", ["grpc", "grpcs"])
def test_grpc_sends_no_token_through_a_proxy(proxy, scheme):
    with pytest.raises(NoServerFound):
        eaf_inference.connect(f"{scheme}://triton.invalid:8001", token=make_token(), allow_insecure_token=True)


def test_a_notebook_bypasses_a_proxy_to_its_facility(proxy, zoo, monkeypatch):
    with edge_proxy(zoo.grpc.removeprefix("grpc://")) as (handler, port):
        handler.tokens = {"none-yet": 0.0}
        with token_service(handler.tokens) as service:
            service.facility = {"urls": [f"grpc://127.0.0.1:{port}"]}
            monkeypatch.setenv("EAF_TOKEN_SERVICE", service.url)
            monkeypatch.setenv("JUPYTERHUB_API_TOKEN", HUB_TOKEN)
            with eaf_inference.connect() as triton:
                assert triton.model("sums")(ONES).tolist() == THREES.tolist()


@in_a_loop
async def test_only_prometheus_sees_its_token(proxy):
    with serve() as site:
        prometheus = Prometheus(site.url, credentials=Credentials(StaticToken(make_token())))
        with pytest.raises(InferenceError):
            await prometheus.read(make_fetch())
        assert MARK in site.headers[-1]["Authorization"]


@in_a_loop
async def test_only_the_hub_sees_its_users_tokens(proxy):
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(USER)}\r\n\r\n".encode()
    with saying(head + USER) as url:
        hub = HubAuth(api_url=url, access_scopes={"access:services"}, api_token="its own")  # noqa: S106
        caller = await caller_of(f"token {HUB_TOKEN}", hub, "us")
    assert caller.name == "alice"


@in_a_loop
async def test_only_the_dask_gateway_sees_the_hub_token(proxy, monkeypatch):
    from dask_gateway import Gateway

    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", HUB_TOKEN)
    refusal = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with (
        saying(refusal) as url,
        dask.config.set({"gateway.address": None, "gateway.auth.type": "basic", "gateway.http-client.proxy": True}),
    ):
        assert use_facility_gateway(Facility(gateway_url=url))
        async with Gateway(asynchronous=True) as gateway:
            with pytest.raises(Exception, match="401"):
                await gateway.list_clusters()


@in_a_loop
async def test_the_panels_server_sends_the_hub_token_only_to_the_gateway(proxy, monkeypatch):
    from eaf_inference.server.clusters import Clusters

    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", HUB_TOKEN)
    refusal = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with saying(refusal) as url, dask.config.set({"gateway.address": url, "gateway.auth.type": "jupyterhub"}):
        clusters = Clusters()
        await clusters.look_soon()
        assert "401" in clusters.text


def test_users_servers_use_only_the_operators_proxy_for_the_gateway():
    from traitlets.config import Config

    c = Config()
    configure(c, service_url="http://10.0.0.1:8010", gateway_url="http://gateway")
    assert dask.config.collect_env(c.Spawner.environment)["gateway"]["http_client"]["proxy"] is False
    with dask.config.set(dask.config.collect_env(c.Spawner.environment)):
        assert dask.config.get("gateway.http-client.proxy") is False
    c = Config()
    c.Spawner.environment = {"DASK_GATEWAY__HTTP_CLIENT__PROXY": "http://proxy:3128"}
    configure(c, service_url="http://10.0.0.1:8010", gateway_url="http://gateway")
    assert c.Spawner.environment["DASK_GATEWAY__HTTP_CLIENT__PROXY"] == "http://proxy:3128"
