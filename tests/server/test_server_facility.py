"""The facility in the REST API: endpoint, user and models, and the reason and advice in every other state."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from email.message import Message

import pytest
from browser import until
from pretender import models_called, refusing, starting
from recorded.replay import serve
from tokens import MARK, make_token

import eaf_inference
from eaf_facility.process.ports import free_ports
from eaf_inference.discovery import local_facility
from eaf_inference.discovery.local_facility import LocalFacility
from eaf_inference.server import inquiry
from eaf_inference.server.cells import cell_for
from eaf_inference.server.facility import ServedFacility

KEYS = {
    *("state", "problem", "endpoint", "user", "identity", "token_expires_at", "token_renews"),
    *("models", "attempts", "metrics", "documentation"),
}


async def test_a_connected_facility_is_described(browser, configure, tiny_triton):
    configure(urls=[tiny_triton.grpc], metrics_urls=[tiny_triton.metrics])
    reply = await browser.get("facility")
    assert set(reply) == KEYS
    assert (reply["state"], reply["problem"]) == ("connected", None)
    assert reply["endpoint"] == {
        "url": tiny_triton.grpc,
        "urls": [tiny_triton.grpc],
        "source": "facility configuration",
    }
    assert (reply["user"], reply["identity"], reply["token_expires_at"]) == (None, "no token needed", None)
    assert reply["metrics"] == {"configured": True, "sources": [tiny_triton.metrics], "gpu": None}
    affine, mirror = reply["models"]
    assert (affine["name"], affine["version"], affine["ready"], affine["state"]) == ("affine", "1", True, "ready")
    assert mirror["inputs"] == ["x: FP32 [2]"]
    assert mirror["outputs"] == ["y: FP32 [2]"]
    assert (mirror["owner"], mirror["mine"], mirror["deployed"]) == ("", False, None)
    assert 0 <= mirror["last_used"] <= time.time()  # other tests may have used it
    chosen = [attempt for attempt in reply["attempts"] if attempt["chosen"]]
    assert [(each["source"], each["value"]) for each in chosen] == [("facility configuration", tiny_triton.grpc)]
    assert chosen[0]["seconds"] > 0


async def test_the_cells_run_unchanged(browser, configure, tiny_triton):
    configure(urls=[tiny_triton.grpc])
    reply = await browser.get("facility")
    assert len(reply["models"]) == 2
    with eaf_inference.connect(tiny_triton.grpc) as triton:
        for model in reply["models"]:
            names = {"triton": triton}
            exec(model["cell"], names)  # noqa: S102
            assert len(names["example"]["x"]) == 4
            assert names["scores"] is not None


def test_the_cell_of_a_model_with_a_recipe_runs_unchanged(triton):
    with eaf_inference.connect(triton.grpc) as connection:
        recipes = [spec for name in connection.names() if (spec := connection.model(name).spec).recipe]
        assert recipes
        for spec in recipes:
            names = {"triton": connection}
            exec(cell_for(spec.name, None, spec), names)  # noqa: S102
            assert len(names["scores"]) == 4


def test_any_name_is_a_literal_in_its_cell():
    name = '\'); import os #\n\u2028"""<img src=x onerror=alert(1)>'
    assert len(cell_for(name, None, None).splitlines()) == 1
    assert eval(cell_for(name, "2", None), {"triton": Echo()}) == (name, "2")  # noqa: S307
    assert eval(cell_for("alice.my_tagger", "3", None), {"triton": Echo()}) == ("alice.my_tagger", "3")  # noqa: S307


class Echo:
    """Returns its arguments."""

    def model(self, name, version=None):
        return name, version


async def test_a_local_facility_is_found_with_its_metrics(browser, configure, tiny_triton):
    facility = LocalFacility(pid=1, started=1.0, replicas=(tiny_triton.replica,), models=())
    with local_facility.announced(facility):
        reply = await browser.get("facility")
    assert reply["endpoint"]["source"] == "local facility"
    assert reply["metrics"]["sources"] == [tiny_triton.metrics]


async def test_without_a_facility_the_reply_says_what_to_do(browser, configure):
    reply = await browser.get("facility")
    assert set(reply) == KEYS
    assert reply["state"] == "no-facility"
    assert "eaf-inference up" in reply["problem"]
    assert reply["endpoint"] is None
    assert reply["models"] == []
    assert reply["metrics"] == {"configured": False, "sources": [], "gpu": None}


async def test_a_server_that_does_not_answer_is_unreachable(browser, configure):
    (port,) = free_ports(1)
    configure(urls=[f"grpc://127.0.0.1:{port}"])
    reply = await browser.get("facility")
    assert reply["state"] == "unreachable"
    assert "does not answer" in reply["problem"]


async def test_a_starting_server_is_unreachable(browser, configure):
    with starting() as url:
        configure(urls=[url])
        reply = await browser.get("facility")
    assert reply["state"] == "unreachable"
    assert "not ready" in reply["problem"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("c.Facility.urls = 7", "expected a list, not the int 7"),
        ("c.Facility.urls = [", "SyntaxError"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("1 / 0", "division by zero"),
        ("c.Facility.token_file = '/no/such/file'", "/no/such/file"),
    ],
)
async def test_a_broken_configuration_is_reported(browser, configure, text, problem):
    configure(text)
    reply = await browser.get("facility")
    assert reply["state"] == "misconfigured"
    assert problem in reply["problem"]


async def test_a_repaired_configuration_is_read_again(browser, configure, tiny_triton):
    configure("1 / 0")
    assert (await browser.get("facility"))["state"] == "misconfigured"
    configure(urls=[tiny_triton.grpc])
    await asyncio.sleep(1.1)
    assert (await browser.get("facility"))["state"] == "connected"


async def test_attempts_are_listed_for_an_invalid_url(browser, configure, monkeypatch):
    monkeypatch.setenv("EAF_TRITON_URL", "http://triton:8000")
    reply = await browser.get("facility")
    assert reply["state"] == "misconfigured"
    assert reply["problem"].startswith("EAF_TRITON_URL: The Triton URL 'http://triton:8000' cannot be used")
    assert [each["source"] for each in reply["attempts"]][:3] == [
        "EAF_TRITON_URL",
        "TRITON_URL",
        "facility configuration",
    ]
    assert "this client speaks gRPC" in reply["attempts"][0]["outcome"]


async def test_attempts_are_listed_for_a_server_that_must_not_get_a_token(browser, configure, tmp_path):
    (tmp_path / "token").write_text(make_token())
    configure(urls=["grpc://192.0.2.1:8001"], token_file=str(tmp_path / "token"))
    reply = await browser.get("facility")
    assert reply["state"] == "misconfigured"
    assert "would travel unencrypted to grpc://192.0.2.1:8001" in reply["problem"]
    [attempt] = [each for each in reply["attempts"] if each["value"]]
    assert (attempt["source"], attempt["value"]) == ("facility configuration", "grpc://192.0.2.1:8001")
    assert "would travel unencrypted" in attempt["outcome"]


async def test_a_missing_package_is_named(browser, configure, monkeypatch):
    configure(urls=["grpc://127.0.0.1:1"])
    monkeypatch.setitem(sys.modules, "grpc", None)
    reply = await browser.get("facility")
    assert reply["state"] == "misconfigured"
    assert "import of grpc halted" in reply["problem"]


async def test_the_facilitys_documentation_is_in_every_state(browser, configure, tiny_triton):
    page = "https://facility.example/triton"
    configure(documentation_url=page)
    reply = await browser.get("facility")
    assert (reply["state"], reply["documentation"]) == ("no-facility", page)
    configure(documentation_url=page, urls=[tiny_triton.grpc])
    await asyncio.sleep(1.1)
    reply = await browser.get("facility")
    assert (reply["state"], reply["documentation"]) == ("connected", page)


@pytest.mark.parametrize(
    ("headers", "page"),
    [
        (["Source, https://code.example", "Documentation, https://docs.example"], "https://docs.example"),
        (["Source, https://code.example"], ""),
        (None, ""),
    ],
)
def test_the_projects_documentation_is_the_default(monkeypatch, headers, page):
    message = Message()
    for each in headers or ():
        message.add_header("Project-URL", each)
    monkeypatch.setattr(inquiry, "metadata", lambda _: message)
    assert inquiry._documentation_of_the_project.__wrapped__() == page


async def test_unreadable_metrics_leave_the_rest_intact(browser, configure, tiny_triton):
    configure(urls=[tiny_triton.grpc], metrics_urls=["ftp://nowhere"])
    reply = await browser.get("facility")
    assert reply["state"] == "connected"
    async with browser.stream() as stream:
        frame = await stream.next()
    assert "ftp://nowhere" in frame["snapshot"]["sources"][0]["error"]
    assert "ftp://nowhere" in frame["advice"]["text"]


async def test_a_refusal_of_the_user_is_reported(browser, configure, tmp_path):
    token = tmp_path / "token"
    token.write_text(make_token())
    with refusing() as url:
        configure(urls=[url], token_file=str(token))
        reply = await browser.get("facility")
    assert reply["state"] == "not-authorised"
    assert url in reply["problem"]
    assert [each["value"] for each in reply["attempts"] if each["value"]] == [url]


async def test_the_token_is_in_no_response_and_no_log(browser, configure, tiny_triton, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    token = tmp_path / "token"
    token.write_text(make_token("alice", lives=600))
    configure(urls=[tiny_triton.grpc], metrics_urls=[tiny_triton.metrics], token_file=str(token))
    reply = await browser.get("facility")
    assert reply["user"] == "alice"
    assert reply["identity"] == "alice, renewed automatically, 10 min left"
    assert reply["token_expires_at"] > 0
    assert reply["token_renews"]
    async with browser.stream() as stream:
        frames = [await stream.next("facility"), await stream.next(), await stream.next()]
    token.write_text("not a token")
    answers = [reply, frames, await browser.get("history"), await browser.clusters()]
    token.unlink()
    await asyncio.sleep(1.1)
    answers.append(await browser.get("facility"))
    assert frames[0]["facility"]["user"] == "alice"
    assert MARK not in json.dumps(answers)
    assert MARK not in caplog.text


HOSTILE = "<img src=x onerror=alert(1)>\"'); import os #\n\u2028é"


async def test_hostile_names_are_unchanged_but_clipped(browser, configure):
    long = "x" * 10_000
    escaped = HOSTILE.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    with models_called(HOSTILE, long) as url, serve() as site:
        rows = [f'nv_inference_count{{model="{name}",version="1"}} 5' for name in (escaped, long)]
        site.pages["/metrics"] = "\n".join(["# TYPE nv_inference_count counter", *rows, ""])
        configure(urls=[url], metrics_urls=[f"{site.url}/metrics"])
        reply = await browser.get("facility")
        async with browser.stream() as stream:
            frame = await stream.until(lambda each: each["snapshot"]["models"])
    ours, clipped = reply["models"]
    assert ours["name"] == HOSTILE
    assert ours["inputs"] == [f"{HOSTILE}: FP32 [2]"]
    assert len(clipped["name"]) == 200
    assert len(json.dumps(reply)) < 10_000
    compile(ours["cell"], "cell", "exec")
    assert repr(HOSTILE) in ours["cell"]
    assert {each["name"] for each in frame["snapshot"]["models"]} == {HOSTILE, clipped["name"]}


async def test_five_hundred_models_are_listed(browser, configure):
    with models_called(*(f"model_{number:03}" for number in range(500))) as url:
        configure(urls=[url])
        reply = await browser.get("facility")
    assert [model["name"] for model in reply["models"]] == [f"model_{number:03}" for number in range(500)]
    assert all("np.zeros((4, 2)" in model["cell"] for model in reply["models"])


def test_an_unavailable_server_is_retried_every_few_seconds():
    facility = ServedFacility()
    pauses = []
    for facility._failures in range(1, 100):
        pauses.append(facility._pause)
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (1.0, 5.0)
    facility._hurried = True
    assert facility._pause == 1.0


async def test_hurry_during_an_update_leads_to_another_update(configure, tiny_triton):
    configure(urls=[tiny_triton.grpc])
    facility = ServedFacility()
    looking = facility.look_soon()
    assert facility.look_soon(hurry=True) is looking  # the pending update, which may be outdated already
    await looking
    assert facility.reply["state"] == "connected"
    await until(lambda: facility.look_soon(), 5)  # long before the result is outdated
    await facility.close()


async def test_a_killed_triton_comes_back_without_restarting_jupyter(browser, configure, tiny_triton):
    configure(urls=[tiny_triton.grpc], metrics_urls=[tiny_triton.metrics])
    async with browser.stream() as stream:
        await stream.until(lambda each: each["facility"]["state"] == "connected", "facility")
        await stream.until(lambda each: [i["up"] for i in each["snapshot"]["instances"]] == [True])
        tiny_triton.kill()
        try:
            frame = await stream.until(lambda each: each["facility"]["state"] != "connected", "facility")
            assert frame["facility"]["state"] == "unreachable"
            assert frame["facility"]["metrics"]["sources"] == [tiny_triton.metrics]
            frame = await stream.until(lambda each: [i["up"] for i in each["snapshot"]["instances"]] == [False])
            assert frame["snapshot"]["sources"][0]["error"]
        finally:  # later tests need it too
            await asyncio.to_thread(tiny_triton.restart)
        frame = await stream.until(lambda each: each["facility"]["state"] == "connected", "facility")
        assert len(frame["facility"]["models"]) == 2
        await stream.until(lambda each: [i["up"] for i in each["snapshot"]["instances"]] == [True])
    assert (await browser.get("facility"))["state"] == "connected"
