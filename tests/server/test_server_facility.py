"""What the panel is told of the facility: where, as whom, what; and in each state why, and what to do."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from email.message import Message

import pytest
from browser import until
from pretender import models_called, refusing, starting
from recorded.replay import serve
from tokens import MARK, make_token

import eaf_inference
from eaf_inference import local
from eaf_inference.facility.ports import free_ports
from eaf_inference.local import LocalFacility
from eaf_inference.server import inquiry
from eaf_inference.server.cells import cell_for
from eaf_inference.server.facility import ServedFacility

KEYS = {
    *("state", "problem", "endpoint", "user", "identity", "token_expires_at", "token_renews"),
    *("models", "attempts", "metrics", "documentation"),
}


async def test_a_connected_facility_is_described(browser, configure, tiny_triton):
    configure(urls=[tiny_triton.grpc], metrics_urls=[tiny_triton.metrics])
    told = await browser.get("facility")
    assert set(told) == KEYS
    assert (told["state"], told["problem"]) == ("connected", None)
    assert told["endpoint"] == {
        "url": tiny_triton.grpc,
        "urls": [tiny_triton.grpc],
        "source": "facility configuration",
    }
    assert (told["user"], told["identity"], told["token_expires_at"]) == (None, "no token needed", None)
    assert told["metrics"] == {"configured": True, "sources": [tiny_triton.metrics], "gpu": None}
    affine, mirror = told["models"]
    assert (affine["name"], affine["version"], affine["ready"], affine["state"]) == ("affine", "1", True, "ready")
    assert mirror["inputs"] == ["x: FP32 [2]"]
    assert mirror["outputs"] == ["y: FP32 [2]"]
    chosen = [attempt for attempt in told["attempts"] if attempt["chosen"]]
    assert [(each["source"], each["value"]) for each in chosen] == [("facility configuration", tiny_triton.grpc)]
    assert chosen[0]["seconds"] > 0


async def test_the_cells_run_as_they_are(browser, configure, tiny_triton):
    configure(urls=[tiny_triton.grpc])
    told = await browser.get("facility")
    assert len(told["models"]) == 2
    with eaf_inference.connect(tiny_triton.grpc) as triton:
        for model in told["models"]:
            names = {"triton": triton}
            exec(model["cell"], names)  # noqa: S102
            assert len(names["example"]["x"]) == 4
            assert names["scores"] is not None


def test_the_cell_of_a_model_with_a_recipe_runs_as_it_is(triton):
    with eaf_inference.connect(triton.grpc) as connection:
        recipes = [spec for name in connection.names() if (spec := connection.model(name).spec).recipe]
        assert recipes
        for spec in recipes:
            names = {"triton": connection}
            exec(cell_for(spec.name, None, spec), names)  # noqa: S102
            assert len(names["scores"]) == 4


def test_a_name_in_a_cell_is_a_literal_whatever_it_holds():
    name = '\'); import os #\n\u2028"""<img src=x onerror=alert(1)>'
    assert len(cell_for(name, None, None).splitlines()) == 1
    assert eval(cell_for(name, "2", None), {"triton": Told()}) == (name, "2")  # noqa: S307


class Told:
    """Gives back what it is asked for."""

    def model(self, name, version=None):
        return name, version


async def test_a_facility_on_this_machine_is_found_with_its_metrics(browser, configure, tiny_triton):
    facility = LocalFacility(pid=1, started=1.0, replicas=(tiny_triton.replica,), models=())
    with local.announced(facility):
        told = await browser.get("facility")
    assert told["endpoint"]["source"] == "local facility"
    assert told["metrics"]["sources"] == [tiny_triton.metrics]


async def test_without_a_facility_it_says_what_to_do(browser, configure):
    told = await browser.get("facility")
    assert set(told) == KEYS
    assert told["state"] == "no-facility"
    assert "eaf-inference up" in told["problem"]
    assert told["endpoint"] is None
    assert told["models"] == []
    assert told["metrics"] == {"configured": False, "sources": [], "gpu": None}


async def test_a_server_that_does_not_answer_is_unreachable(browser, configure):
    (port,) = free_ports(1)
    configure(urls=[f"grpc://127.0.0.1:{port}"])
    told = await browser.get("facility")
    assert told["state"] == "unreachable"
    assert "is named" in told["problem"]


async def test_a_server_that_is_starting_is_there_and_unreachable(browser, configure):
    with starting() as url:
        configure(urls=[url])
        told = await browser.get("facility")
    assert told["state"] == "unreachable"
    assert "not ready" in told["problem"]


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
async def test_a_broken_configuration_is_said(browser, configure, text, problem):
    configure(text)
    told = await browser.get("facility")
    assert told["state"] == "misconfigured"
    assert problem in told["problem"]


async def test_a_configuration_is_read_again_when_it_is_mended(browser, configure, tiny_triton):
    configure("1 / 0")
    assert (await browser.get("facility"))["state"] == "misconfigured"
    configure(urls=[tiny_triton.grpc])
    await asyncio.sleep(1.1)
    assert (await browser.get("facility"))["state"] == "connected"


async def test_what_was_tried_is_told_of_a_url_that_is_none(browser, configure, monkeypatch):
    monkeypatch.setenv("EAF_TRITON_URL", "http://triton:8000")
    told = await browser.get("facility")
    assert told["state"] == "misconfigured"
    assert told["problem"].startswith("EAF_TRITON_URL: The Triton URL 'http://triton:8000' cannot be used")
    assert [each["source"] for each in told["attempts"]][:3] == [
        "EAF_TRITON_URL",
        "TRITON_URL",
        "facility configuration",
    ]
    assert "this client speaks gRPC" in told["attempts"][0]["outcome"]


async def test_what_was_tried_is_told_of_a_server_that_must_not_see_the_token(browser, configure, tmp_path):
    (tmp_path / "token").write_text(make_token())
    configure(urls=["grpc://192.0.2.1:8001"], token_file=str(tmp_path / "token"))
    told = await browser.get("facility")
    assert told["state"] == "misconfigured"
    assert "would travel unencrypted to grpc://192.0.2.1:8001" in told["problem"]
    [attempt] = [each for each in told["attempts"] if each["value"]]
    assert (attempt["source"], attempt["value"]) == ("facility configuration", "grpc://192.0.2.1:8001")
    assert "would travel unencrypted" in attempt["outcome"]


async def test_without_the_client_it_is_said_what_is_missing(browser, configure, monkeypatch):
    configure(urls=["grpc://127.0.0.1:1"])
    monkeypatch.setitem(sys.modules, "grpc", None)
    told = await browser.get("facility")
    assert told["state"] == "misconfigured"
    assert "import of grpc halted" in told["problem"]


async def test_the_facilitys_own_page_is_told_in_every_state(browser, configure, tiny_triton):
    page = "https://facility.example/triton"
    configure(documentation_url=page)
    told = await browser.get("facility")
    assert (told["state"], told["documentation"]) == ("no-facility", page)
    configure(documentation_url=page, urls=[tiny_triton.grpc])
    await asyncio.sleep(1.1)
    told = await browser.get("facility")
    assert (told["state"], told["documentation"]) == ("connected", page)


@pytest.mark.parametrize(
    ("headers", "page"),
    [
        (["Source, https://code.example", "Documentation, https://docs.example"], "https://docs.example"),
        (["Source, https://code.example"], ""),
        (None, ""),
    ],
)
def test_where_the_facility_has_no_page_the_projects_is_told_if_it_has_one(monkeypatch, headers, page):
    message = Message()
    for each in headers or ():
        message.add_header("Project-URL", each)
    monkeypatch.setattr(inquiry, "metadata", lambda _: message)
    assert inquiry._documentation_of_the_project.__wrapped__() == page


async def test_metrics_that_cannot_be_read_leave_the_rest_alone(browser, configure, tiny_triton):
    configure(urls=[tiny_triton.grpc], metrics_urls=["ftp://nowhere"])
    told = await browser.get("facility")
    assert told["state"] == "connected"
    async with browser.stream() as stream:
        frame = await stream.next()
    assert "ftp://nowhere" in frame["snapshot"]["sources"][0]["error"]
    assert "ftp://nowhere" in frame["advice"]["text"]


async def test_a_server_that_refuses_this_user_is_said_to(browser, configure, tmp_path):
    token = tmp_path / "token"
    token.write_text(make_token())
    with refusing() as url:
        configure(urls=[url], token_file=str(token))
        told = await browser.get("facility")
    assert told["state"] == "not-authorised"
    assert url in told["problem"]
    assert [each["value"] for each in told["attempts"] if each["value"]] == [url]


async def test_the_token_is_in_no_answer_and_no_log(browser, configure, tiny_triton, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    token = tmp_path / "token"
    token.write_text(make_token("alice", lives=600))
    configure(urls=[tiny_triton.grpc], metrics_urls=[tiny_triton.metrics], token_file=str(token))
    told = await browser.get("facility")
    assert told["user"] == "alice"
    assert told["identity"] == "alice, renewed automatically, 10 min left"
    assert told["token_expires_at"] > 0
    assert told["token_renews"]
    async with browser.stream() as stream:
        frames = [await stream.next("facility"), await stream.next(), await stream.next()]
    token.write_text("not a token")
    answers = [told, frames, await browser.get("history"), await browser.get("clusters")]
    token.unlink()
    await asyncio.sleep(1.1)
    answers.append(await browser.get("facility"))
    assert frames[0]["facility"]["user"] == "alice"
    assert MARK not in json.dumps(answers)
    assert MARK not in caplog.text


HOSTILE = "<img src=x onerror=alert(1)>\"'); import os #\n\u2028é"


async def test_hostile_names_pass_untouched_and_bounded(browser, configure):
    long = "x" * 10_000
    escaped = HOSTILE.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    with models_called(HOSTILE, long) as url, serve() as site:
        rows = [f'nv_inference_count{{model="{name}",version="1"}} 5' for name in (escaped, long)]
        site.pages["/metrics"] = "\n".join(["# TYPE nv_inference_count counter", *rows, ""])
        configure(urls=[url], metrics_urls=[f"{site.url}/metrics"])
        told = await browser.get("facility")
        async with browser.stream() as stream:
            frame = await stream.until(lambda each: each["snapshot"]["models"])
    ours, clipped = told["models"]
    assert ours["name"] == HOSTILE
    assert ours["inputs"] == [f"{HOSTILE}: FP32 [2]"]
    assert len(clipped["name"]) == 200
    assert len(json.dumps(told)) < 10_000
    compile(ours["cell"], "cell", "exec")
    assert repr(HOSTILE) in ours["cell"]
    assert {each["name"] for each in frame["snapshot"]["models"]} == {HOSTILE, clipped["name"]}


async def test_five_hundred_models_are_listed(browser, configure):
    with models_called(*(f"model_{number:03}" for number in range(500))) as url:
        configure(urls=[url])
        told = await browser.get("facility")
    assert [model["name"] for model in told["models"]] == [f"model_{number:03}" for number in range(500)]
    assert all("np.zeros((4, 2)" in model["cell"] for model in told["models"])


def test_a_server_that_is_down_is_asked_every_few_seconds_and_no_more_than_once_a_second():
    facility = ServedFacility()
    pauses = []
    for facility._failures in range(1, 100):
        pauses.append(facility._pause)
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (1.0, 5.0)
    facility._hurried = True
    assert facility._pause == 1.0


async def test_a_hurry_during_a_look_leads_to_another(configure, tiny_triton):
    configure(urls=[tiny_triton.grpc])
    facility = ServedFacility()
    looking = facility.look_soon()
    assert facility.look_soon(hurry=True) is looking  # which may have asked already
    await looking
    assert facility.reply["state"] == "connected"
    await until(lambda: facility.look_soon(), 5)  # long before what it found is old
    await facility.close()


async def test_a_killed_triton_is_unreachable_and_comes_back_without_a_restart_of_jupyter(
    browser, configure, tiny_triton
):
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
        finally:  # the tests after this one need it too
            await asyncio.to_thread(tiny_triton.restart)
        frame = await stream.until(lambda each: each["facility"]["state"] == "connected", "facility")
        assert len(frame["facility"]["models"]) == 2
        await stream.until(lambda each: [i["up"] for i in each["snapshot"]["instances"]] == [True])
    assert (await browser.get("facility"))["state"] == "connected"
