"""What carries a secret goes to nobody but the server that is meant, whatever proxies the environment names."""

from __future__ import annotations

import asyncio
import functools

import dask.config
import pytest
from dask_facility import ONES, THREES
from door import door
from hostile_http import hostile_proxy, saying
from jupyterhub.services.auth import HubAuth
from recorded.replay import serve
from token_service import HUB_TOKEN, token_service
from tokens import MARK, make_token

import eaf_inference
from eaf_inference.config import Facility
from eaf_inference.credentials import Credentials, StaticToken
from eaf_inference.dask.gateway import use_facility_gateway
from eaf_inference.dask.worker_plugin import Secret, fetch_token
from eaf_inference.errors import InferenceError, NoServerFound
from eaf_inference.hub.callers import caller_of
from eaf_inference.hub.jupyterhub import configure
from eaf_inference.metrics.http import fetching
from eaf_inference.metrics.prometheus import Prometheus
from eaf_inference.token_service import TokenService

HUB = {"JUPYTERHUB_API_TOKEN": HUB_TOKEN}
USER = b'{"name": "alice", "kind": "user", "scopes": ["access:services"], "groups": []}'


def in_a_loop(test):
    """A test that is a coroutine."""

    @functools.wraps(test)
    def run(*arguments, **fixtures):
        asyncio.run(test(*arguments, **fixtures))

    return run


@pytest.fixture
def proxy(monkeypatch):
    """What a proxy was sent, which is nothing."""
    with hostile_proxy(monkeypatch) as seen:
        yield seen
    assert seen == []


@pytest.mark.parametrize("ask", [TokenService.read, TokenService.facility, lambda it: it.usage("1d")])
def test_the_token_service_alone_sees_the_hub_token(proxy, ask):
    with token_service({}) as service:
        service.usage, service.facility = {"at": 1.0, "models": []}, {"max_in_flight": 4}
        assert ask(TokenService(service.url, environment=HUB))


def test_the_token_service_alone_sees_the_hub_token_of_a_scheduler(proxy):
    with token_service({}) as service:
        assert fetch_token(service.url, Secret(HUB_TOKEN), None) == service.given[0]


@pytest.mark.parametrize("scheme", ["grpc", "grpcs"])
def test_grpc_sends_no_token_through_a_proxy(proxy, scheme):
    with pytest.raises(NoServerFound):
        eaf_inference.connect(f"{scheme}://triton.invalid:8001", token=make_token(), allow_insecure_token=True)


def test_a_notebook_finds_its_facility_and_infers_past_a_proxy(proxy, zoo, monkeypatch):
    with door(zoo.grpc.removeprefix("grpc://")) as (handler, port):
        handler.tokens = {"none-yet": 0.0}
        with token_service(handler.tokens) as service:
            service.facility = {"urls": [f"grpc://127.0.0.1:{port}"]}
            monkeypatch.setenv("EAF_TOKEN_SERVICE", service.url)
            monkeypatch.setenv("JUPYTERHUB_API_TOKEN", HUB_TOKEN)
            with eaf_inference.connect() as triton:
                assert triton.model("sums")(ONES).tolist() == THREES.tolist()


@in_a_loop
async def test_prometheus_alone_sees_its_token(proxy):
    with serve() as site:
        prometheus = Prometheus(site.url, credentials=Credentials(StaticToken(make_token())))
        async with fetching() as fetch:
            with pytest.raises(InferenceError):
                await prometheus.read(fetch)
        assert MARK in site.headers[-1]["Authorization"]


@in_a_loop
async def test_the_hub_alone_sees_its_users_tokens(proxy):
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(USER)}\r\n\r\n".encode()
    with saying(head + USER) as url:
        hub = HubAuth(api_url=url, access_scopes={"access:services"}, api_token="its own")  # noqa: S106
        caller = await caller_of(f"token {HUB_TOKEN}", hub, "us")
    assert caller.name == "alice"


@in_a_loop
async def test_the_dask_gateway_alone_sees_the_hub_token(proxy, monkeypatch):
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
async def test_the_panels_server_shows_the_hub_token_to_the_dask_gateway_alone(proxy, monkeypatch):
    from eaf_inference.server.clusters import Clusters

    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", HUB_TOKEN)
    refusal = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with saying(refusal) as url, dask.config.set({"gateway.address": url, "gateway.auth.type": "jupyterhub"}):
        assert "401" in (await Clusters().look())["problem"]


def test_users_servers_under_the_hub_are_told_to_use_no_proxy_for_the_gateway_but_what_an_operator_names():
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
