"""The user's own usage in the REST API, with a stand-in for the token service."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from integration.token_service import HUB_TOKEN, token_service
from tokens import MARK

from eaf_inference.server import usage as server_usage

COUNTS = {"requests": 3, "inferences": 48, "failures": 1, "bytes_in": 900, "bytes_out": 800}
ROW = {"model": "particlenet", **COUNTS, "estimated": False}
OWNED = {"model": "alice.tagger", "users": 2, "requests": 5, "inferences": 320, "failures": 0, "estimated": True}
NOTHING = {"since": "1d", "at": None, "models": [], "owned": []}


@pytest.fixture
def service(monkeypatch):
    """A token service, with the Hub token of this server's user."""
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", HUB_TOKEN)
    with token_service({}) as running:
        monkeypatch.setenv("EAF_TOKEN_SERVICE", running.url)
        yield running


async def test_one_request_to_the_token_service_serves_all_panels(browser, service):
    models = [ROW, {**ROW, "model": "x" * 10_000}]
    service.usage = {"since": "1d", "at": 1000.5, "models": models, "owned": [{**OWNED, "user": "bob"}]}
    answers = await asyncio.gather(*(browser.get("usage") for _ in range(20)))
    assert answers == [answers[0]] * 20
    first, clipped = answers[0].pop("models")
    assert answers[0].pop("owned") == [OWNED]
    assert answers[0] == {"offered": True, "since": "1d", "at": 1000.5, "problem": None}
    assert first == ROW
    assert len(clipped["model"]) == 200
    assert service.told == 1


async def test_the_service_is_not_contacted_without_a_request(browser, service):
    await browser.get("history")
    assert (service.told, service.documents) == (0, 0)


async def test_without_a_token_service_it_is_not_offered(browser, monkeypatch):
    monkeypatch.delenv("EAF_TOKEN_SERVICE", raising=False)
    problem = "This facility does not report usage to its users."
    assert await browser.get("usage") == {**NOTHING, "offered": False, "problem": problem}


async def test_a_service_without_usage_offers_none(browser, service):
    assert (await browser.get("usage"))["offered"] is False


async def test_the_last_usage_stays_while_the_service_is_unavailable(browser, service, monkeypatch):
    monkeypatch.setattr(server_usage, "_FRESH", 0.0)
    service.usage = {"since": "1d", "at": 1000.5, "models": [ROW]}
    before = await browser.get("usage")
    service.usage = (503, {"error": "usage_unavailable", "message": "Prometheus is away."})
    reply = await browser.get("usage")
    assert reply.pop("problem").endswith("gives no usage: Prometheus is away.")
    assert reply | {"problem": None} == before


async def test_a_user_without_access_sees_only_whom_to_ask(browser, service, monkeypatch):
    monkeypatch.setattr(server_usage, "_FRESH", 0.0)
    service.usage = {"since": "1d", "at": 1000.5, "models": [ROW]}
    assert (await browser.get("usage"))["models"]
    service.usage = (403, {"message": "not authorised for inference: ask us."})
    assert await browser.get("usage") == {
        **NOTHING,
        "offered": True,
        "problem": "not authorised for inference: ask us.",
    }


async def test_a_broken_configuration_is_reported_and_jupyter_survives(browser, configure, service):
    configure("import sys; sys.exit(3)")
    assert "SystemExit" in (await browser.get("usage"))["problem"]
    assert (await browser.get("facility"))["state"] == "misconfigured"


async def test_the_hub_token_is_in_no_response_and_no_log(browser, service, caplog):
    caplog.set_level(logging.DEBUG)
    service.usage = (503, {"message": f"who is token={HUB_TOKEN}?"})
    reply = await browser.get("usage")
    assert "who is" in reply["problem"]
    assert MARK not in json.dumps(reply)
    assert MARK not in caplog.text
