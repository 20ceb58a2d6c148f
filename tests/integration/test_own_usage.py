"""Each user's own usage, with a real Hub, token service, Envoy and Prometheus."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from envoy_facility import Caller, envoy
from hub_facility import CONTACT, HubFacility, ask, hub_facility
from recorded.replay import serve
from test_usage import needs_prometheus, until_all_is_seen

import eaf_facility.hub.usage
from eaf_facility.hub.usage import FRESH, OwnUsage
from eaf_facility.servers.prometheus import PrometheusServer
from eaf_inference.config import Facility

OPENAPI = Path(eaf_facility.hub.usage.__file__).with_name("openapi.yaml")
PATH = "/api/v1/query"
INJECTED = quote('1d]) or {user="bob"}')


@pytest.fixture(scope="module")
def hub(pair):
    with hub_facility(pair[0]) as facility:
        facility.start_servers("alice", "bob", "carol")
        yield facility


def usage_in_lab(hub, user, *, by=None):
    """Return the usage that this user's server gives its panel, requested with her token or with that of `by`."""
    token = hub.environment_of(by or user)["JUPYTERHUB_API_TOKEN"]
    return ask(f"{hub.hub.url}/user/{user}/eaf-inference/api/usage", token)


def test_without_prometheus_usage_is_not_offered_and_nothing_is_logged(hub):
    before = len(hub.refusals())
    reply = ask(f"{hub.tokens.base_url}usage", hub.token_of("bob")[0])
    assert (reply.status, reply.data["error"]) == (404, "not_offered")
    assert reply.data["message"] == "This facility does not record usage."
    assert len(hub.refusals()) == before
    shown = usage_in_lab(hub, "bob").data
    assert (shown["offered"], shown["models"]) == (False, [])
    assert shown["problem"] == "This facility does not report usage to its users."


@contextmanager
def counted_by(hub, prometheus_url):
    """Configure the token service with this Prometheus for the length of a `with` block."""
    before = hub.tokens.configuration
    hub.tokens.configuration = {**before, "Facility": {**before["Facility"], "prometheus_url": prometheus_url}}
    try:
        hub.tokens.restart()
        yield
    finally:
        hub.tokens.configuration = before
        hub.tokens.restart()


@dataclass
class Counted:
    """A facility where users have made requests."""

    hub: HubFacility
    alice: str
    bob: str

    def usage(self, token, query="", **options):
        return ask(f"{self.hub.tokens.base_url}usage{query}", token, **options)


@pytest.fixture(scope="module")
def counted(hub, pair):
    """Alice sent three requests with 48 rows and a failing one, bob one with 5 rows; Prometheus has recorded them."""
    alice, bob = (hub.token_of(user)[0] for user in ("alice", "bob"))
    tokens = [hub.mint(each).data["access_token"] for each in (alice, bob)]
    with (
        envoy(SimpleNamespace(url=hub.tokens.jwks_url), pair, share=10_000, models=["nap"]) as proxy,
        PrometheusServer.start({"envoy": [proxy.metrics]}, interval=1) as prometheus,
        counted_by(hub, prometheus.url),
    ):
        with Caller(proxy) as caller:
            for rows in (1, 7, 40):
                assert caller.infer(tokens[0], rows=rows).status == "OK"
            assert caller.ask("ModelInfer", b"\n\x03nap", tokens[0]).status == "INVALID_ARGUMENT"
            assert caller.infer(tokens[1], "rest", rows=5).status == "OK"
        for user in ("alice", "bob"):
            until_all_is_seen(proxy, prometheus, user)
        yield Counted(hub, alice, bob)


@needs_prometheus
def test_each_user_gets_her_own_usage(counted):
    began = time.time()
    reply = counted.usage(counted.alice)
    (nap,) = reply.data["models"]
    assert (reply.status, reply.headers["Cache-Control"], reply.data["since"]) == (200, "no-store", "1d")
    assert began - FRESH < reply.data["at"] <= time.time()
    assert nap.pop("bytes_in") > 8 * 48
    assert nap.pop("bytes_out") > 8 * 48
    assert nap == {"model": "nap", "requests": 3, "inferences": 48, "failures": 1, "estimated": False}
    (rest,) = counted.usage(counted.bob, "?since=1h").data["models"]
    assert (rest["model"], rest["requests"], rest["inferences"]) == ("rest", 1, 5)


@needs_prometheus
@pytest.mark.parametrize(
    ("query", "options", "status"),
    [
        ("?user=bob", {}, 200),
        ("?since=1d&user=bob&sub=bob", {}, 200),
        ("", {"headers": {"X-Forwarded-User": "bob", "Remote-User": "bob", "x-user": "bob"}}, 200),
        ("", {"data": b'{"user": "bob"}', "method": "GET"}, 200),
        (f"?since={INJECTED}", {}, 400),
        ("?since=1d&since=2y", {}, 400),
        ("?since=%ff", {}, 400),
        ("/bob", {}, 404),
        ("", {"method": "POST", "data": b"user=bob"}, 405),
    ],
)
def test_no_query_reveals_the_usage_of_another_user(counted, query, options, status):
    reply = counted.usage(counted.alice, query, **options)
    assert reply.status == status
    assert '"rest"' not in reply.text
    if status == 200:
        assert [row["model"] for row in reply.data["models"]] == ["nap"]
    else:
        assert reply.data["message"]


@needs_prometheus
def test_a_user_without_access_gets_no_usage(counted):
    refused = counted.usage(counted.hub.environment_of("carol")["JUPYTERHUB_API_TOKEN"])
    assert (refused.status, refused.data["message"]) == (403, f"not authorised for inference: ask {CONTACT}.")
    assert (counted.usage(None).status, counted.usage("0123456789abcdef").status) == (401, 401)
    assert [line["path"] for line in counted.hub.refusals()[-3:]] == ["/services/triton-token/usage"] * 3


@needs_prometheus
def test_the_service_conforms_to_openapi(counted, tmp_path):
    command = [
        *(Path(sys.executable).with_name("schemathesis"), "run", OPENAPI, "--include-path", "/usage"),
        *("--url", counted.hub.tokens.base_url.rstrip("/"), "--header", f"Authorization: token {counted.alice}"),
        *("--max-examples", "10", "--no-color", "--suppress-health-check", "all", "--generation-database", "none"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@needs_prometheus
def test_the_panel_shows_each_user_her_own_usage(counted):
    hers = usage_in_lab(counted.hub, "alice").data
    assert (hers["offered"], hers["problem"], hers["since"]) == (True, None, "1d")
    assert [(row["model"], row["inferences"], row["failures"]) for row in hers["models"]] == [("nap", 48, 1)]
    assert usage_in_lab(counted.hub, "alice", by="bob").status == 403
    carols = usage_in_lab(counted.hub, "carol").data
    assert (carols["models"], carols["problem"]) == ([], f"not authorised for inference: ask {CONTACT}.")


def answer_of(rows, field="rows"):
    """Return a Prometheus answer: a counter's growth by user and model."""
    result = [
        {"metric": {"user": user, "model": model, "eaf_field": field}, "value": [0, str(value)]}
        for user, model, value in rows
    ]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


@pytest.fixture
def site():
    """A stand-in for Prometheus that counts its queries."""
    with serve() as site:
        site.pages[PATH] = answer_of([("alice", "nap", 48), ("alice", "sums", 1000)])
        yield site


def test_fifty_panels_cause_one_query_to_prometheus(hub, site):
    alice, bob = (hub.token_of(user)[0] for user in ("alice", "bob"))
    with counted_by(hub, site.url), ThreadPoolExecutor(50) as pool:
        replies = list(pool.map(lambda _: ask(f"{hub.tokens.base_url}usage", alice), range(50)))
        assert {reply.status for reply in replies} == {200}
        assert [row["model"] for row in replies[0].data["models"]] == ["sums", "nap"]
        assert site.asked[PATH] == 1
        assert ask(f"{hub.tokens.base_url}usage", bob).status == 200
        assert site.asked[PATH] == 2


@pytest.mark.parametrize(
    ("page", "why"),
    [((500, "no"), "it answers 500"), ("<html>", ""), (30.0, "no answer within 8 s"), (None, "refused")],
)
def test_a_failing_prometheus_is_reported_in_time(hub, site, page, why):
    site.pages[PATH] = page
    with counted_by(hub, site.url if page is not None else "http://127.0.0.1:1"):
        began = time.monotonic()
        reply = ask(f"{hub.tokens.base_url}usage", hub.token_of("alice")[0])
        assert time.monotonic() - began < 12
        assert hub.mint(hub.token_of("alice")[0]).status == 200, "tokens are still issued"
    assert (reply.status, reply.data["error"]) == (503, "usage_unavailable")
    assert int(reply.headers["Retry-After"]) == FRESH
    assert "Prometheus cannot be read" in reply.data["message"]
    assert why in reply.data["message"]


def test_answers_and_failures_are_cached_for_a_few_seconds(site):
    now = [0.0]

    async def ask_often():
        usage = OwnUsage(Facility(prometheus_url=site.url), clock=lambda: now[0])
        first = await usage.of("alice", "1d")
        assert await usage.of("alice", "1d") is first
        site.pages[PATH] = (500, "")
        now[0] = FRESH + 1.0
        failed = await usage.of("alice", "1d")
        assert (failed.rows, bool(failed.problem)) == ((), True)
        assert await usage.of("alice", "1d") is failed
        assert site.asked[PATH] == 2

    asyncio.run(ask_often())


def test_an_owner_gets_the_use_of_her_models_without_names(site):
    used = [("alice", "alice.tagger", 7), ("bob", "alice.tagger", 5), ("alice", "nap", 1)]
    site.pages[PATH] = answer_of(used, field="requests")

    async def ask(**settings):
        usage = OwnUsage(Facility(prometheus_url=site.url, **settings))
        return (await usage.of("alice", "1d")).as_dict()

    found = asyncio.run(ask(model_store="s3://models/eaf"))
    (owned,) = found["owned"]
    assert owned.items() >= {"model": "alice.tagger", "users": 2, "requests": 12, "inferences": 0}.items()
    assert {row["model"]: row["requests"] for row in found["models"]} == {"alice.tagger": 7, "nap": 1}
    assert "bob" not in str(found)
    assert asyncio.run(ask())["owned"] == []  # no model store, so nothing is asked about other users


def test_the_number_of_cached_answers_is_bounded(site, monkeypatch):
    monkeypatch.setattr(eaf_facility.hub.usage, "_MAX_ANSWERS", 3)

    async def ask_for_many():
        usage = OwnUsage(Facility(prometheus_url=site.url))
        await asyncio.gather(*(usage.of(f"user{number}", "1d") for number in range(20)))
        assert len(usage._asked) == 3
        await usage.of("user19", "1d")
        assert site.asked[PATH] == 20

    asyncio.run(ask_for_many())
