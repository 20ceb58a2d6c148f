"""No response contains a password of the configuration, or a token that a server quotes."""

from __future__ import annotations

import json

import pytest
from pretender import repeating
from recorded.replay import serve
from tokens import MARK, make_token

AUTHORITY = f"alice:{MARK}@127.0.0.1:9"


@pytest.mark.parametrize(
    "settings",
    [
        {"urls": [f"grpc://{AUTHORITY}"]},
        {"urls": {"first": f"grpc://{AUTHORITY}"}},  # of the wrong type
        {"metrics_urls": [f"http://{AUTHORITY}/metrics"]},
        {"metrics_urls": {"first": f"http://{AUTHORITY}/metrics"}},
        {"prometheus_url": f"http://{AUTHORITY}"},
        {"documentation_url": f"http://{AUTHORITY}"},
    ],
    ids=str,
)
async def test_a_password_in_the_configuration_is_in_no_response(browser, configure, settings, caplog):
    configure(**settings)
    async with browser.stream() as stream:
        frame = await stream.next()
        reply = stream.facility
    assert reply["state"] == "misconfigured" or frame["snapshot"]["sources"][0]["error"]
    answers = [reply, frame, await browser.get("facility"), await browser.get("history")]
    assert MARK not in json.dumps(answers)
    assert MARK not in caplog.text


@pytest.mark.parametrize("token", [make_token(), f"opaque-{MARK}-of-some-length"], ids=["JWT", "opaque"])
async def test_a_token_quoted_by_a_server_is_in_no_response(browser, configure, tmp_path, token):
    (tmp_path / "token").write_text(token)
    with repeating() as url:
        configure(urls=[url], token_file=str(tmp_path / "token"))
        reply = await browser.get("facility")
    assert reply["state"] == "not-authorised"
    assert MARK not in json.dumps(reply)
    [attempt] = [each for each in reply["attempts"] if each["value"] == url]
    assert "who is Bearer …" in attempt["outcome"]
    assert max(len(reply["problem"]), len(attempt["outcome"])) <= 1000


async def test_the_prometheus_token_is_in_no_response(browser, configure, tmp_path):
    token = f"opaque-{MARK}-of-some-length"
    (tmp_path / "token").write_text(token)
    with serve() as site:
        site.pages["/api/v1/query"] = json.dumps({"status": "error", "error": f"no Bearer {token}"})
        configure(prometheus_url=site.url, prometheus_token_file=str(tmp_path / "token"))
        async with browser.stream() as stream:
            frame = await stream.until(lambda each: each["snapshot"]["sources"][0]["error"])
            answers = [frame, stream.facility, await browser.get("history")]
        assert site.headers[-1]["Authorization"] == f"Bearer {token}"
    assert "the query failed: no Bearer …" in frame["snapshot"]["sources"][0]["error"]
    assert MARK not in json.dumps(answers)
