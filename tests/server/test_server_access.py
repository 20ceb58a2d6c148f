"""Access: authentication, origin, allowed methods and parameters, all below the base URL."""

from __future__ import annotations

import json
from http.cookies import SimpleCookie

import pytest
from browser import API
from jupyter_server.auth.authorizer import Authorizer
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

REST = ("facility", "usage", "history", "timeline")
CHANGING = (("clusters", "any", "scale"), ("clusters", "any", "shutdown"))
NOBODY = {"Authorization": ""}


async def status_of(fetch, *parts, **options) -> int:
    try:
        return (await fetch(*parts, **options)).code
    except HTTPClientError as error:
        return error.code


async def socket_status(port, path="/user/alice/eaf-inference/api/stream", **headers) -> int:
    try:
        connection = await websocket_connect(HTTPRequest(f"ws://127.0.0.1:{port}{path}", headers=headers))
    except HTTPClientError as error:
        return error.code
    connection.close()
    return 101


async def cookie_of(app, fetch) -> dict[str, str]:
    """Return the cookies of a logged-in user's browser."""
    parameters = {"token": app.identity_provider.token}
    login = await fetch("login", params=parameters, headers=NOBODY, follow_redirects=False, raise_error=False)
    cookies = [cookie.partition(";")[0] for cookie in login.headers.get_list("Set-Cookie")]
    return {"Cookie": "; ".join(cookies)}


@pytest.mark.parametrize("name", REST)
async def test_a_request_without_a_token_is_refused(jp_fetch, name):
    assert await status_of(jp_fetch, *API, name, headers=NOBODY) == 403
    assert await status_of(jp_fetch, *API, name, headers={"Authorization": "token guessed"}) == 403


@pytest.mark.parametrize("name", REST)
async def test_unauthenticated_access_is_never_allowed(jp_serverapp, jp_fetch, name):
    jp_serverapp.web_app.settings["allow_unauthenticated_access"] = True
    assert await status_of(jp_fetch, *API, name, headers=NOBODY) == 403


async def test_a_socket_without_a_token_is_refused(jp_serverapp, jp_fetch, jp_http_port, jp_auth_header):
    assert await socket_status(jp_http_port) == 403
    jp_serverapp.web_app.settings["allow_unauthenticated_access"] = True
    assert await socket_status(jp_http_port) == 403
    assert await socket_status(jp_http_port, **jp_auth_header) == 101


async def test_another_site_cannot_use_the_users_cookie(jp_serverapp, jp_fetch):
    known = {**NOBODY, **await cookie_of(jp_serverapp, jp_fetch)}
    assert await status_of(jp_fetch, *API, "usage", headers=dict(known)) == 200
    elsewhere = {**known, "Origin": "https://elsewhere.example"}
    assert await status_of(jp_fetch, *API, "usage", headers=elsewhere) == 404


@pytest.mark.parametrize("parts", CHANGING)
async def test_a_cluster_is_changed_only_from_a_page_of_this_server(jp_serverapp, jp_fetch, parts):
    post = {"method": "POST", "body": '{"workers": 1}'}
    assert await status_of(jp_fetch, *API, *parts, headers=NOBODY, **post) == 403
    known = {**NOBODY, **await cookie_of(jp_serverapp, jp_fetch)}
    page = await jp_fetch("login", headers=NOBODY)  # sets the cookie that requests of a page repeat in a header
    xsrf = SimpleCookie(page.headers["Set-Cookie"])["_xsrf"].value
    known["Cookie"] += f"; _xsrf={xsrf}"
    assert await status_of(jp_fetch, *API, *parts, headers=dict(known), **post) == 403
    known["X-XSRFToken"] = xsrf
    elsewhere = {**known, "Origin": "https://elsewhere.example"}
    assert await status_of(jp_fetch, *API, *parts, headers=elsewhere, **post) == 404
    answer = await jp_fetch(*API, *parts, headers=known, raise_error=False, **post)
    assert (answer.code, "no running cluster" in answer.body.decode()) == (404, True)  # the request passed the checks
    answer = await jp_fetch(*API, *parts, raise_error=False)
    assert (answer.code, answer.headers["Allow"]) == (405, "POST, OPTIONS")


async def test_another_site_cannot_open_a_socket_with_the_users_cookie(jp_serverapp, jp_fetch, jp_http_port):
    known = await cookie_of(jp_serverapp, jp_fetch)
    assert await socket_status(jp_http_port, **known, Origin=f"http://127.0.0.1:{jp_http_port}") == 101
    for origin in ("https://elsewhere.example", f"http://127.0.0.1.elsewhere.example:{jp_http_port}", "null"):
        assert await socket_status(jp_http_port, **known, Origin=origin) == 403


@pytest.mark.parametrize("name", REST)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD"])
async def test_other_methods_are_not_allowed(jp_fetch, name, method):
    options = {"method": method, "allow_nonstandard_methods": True, "raise_error": False}
    answer = await jp_fetch(*API, name, **options)
    assert answer.code == 405
    assert answer.headers["Allow"] == "GET, OPTIONS"


async def test_everything_is_below_the_base_url(http_server_client, jp_fetch, jp_http_port, jp_auth_header):
    for path in ("/eaf-inference/api/facility", "/user/bob/eaf-inference/api/facility"):
        assert await status_of(http_server_client.fetch, path, headers=dict(jp_auth_header)) == 404
    assert await socket_status(jp_http_port, "/eaf-inference/api/stream", **jp_auth_header) == 404


@pytest.mark.parametrize("seconds", ["0", "601", "-1", "nan", "1e2", "ten", "", "²", "9" * 1000, "1.5"])
async def test_an_invalid_length_of_history_is_refused(jp_fetch, seconds):
    assert await status_of(jp_fetch, *API, "history", params={"seconds": seconds}) == 400
    longer = {"601": "3601"}.get(seconds, seconds)
    assert await status_of(jp_fetch, *API, "timeline", params={"seconds": longer}) == 400


class Refusing(Authorizer):
    asked: list = []  # noqa: RUF012

    def is_authorized(self, handler, user, action, resource):  # noqa: ARG002
        self.asked.append((action, resource))
        return resource != "eaf-inference"


async def test_an_unauthorised_user_is_refused(jp_serverapp, jp_fetch, jp_http_port, jp_auth_header):
    jp_serverapp.web_app.settings["authorizer"] = Refusing(parent=jp_serverapp)
    for name in REST:
        assert await status_of(jp_fetch, *API, name) == 403
    assert await socket_status(jp_http_port, **jp_auth_header) == 403
    assert set(Refusing.asked) == {("read", "eaf-inference")}
    for parts in CHANGING:
        assert await status_of(jp_fetch, *API, *parts, method="POST", body='{"workers": 1}') == 403
    assert set(Refusing.asked) == {("read", "eaf-inference"), ("write", "eaf-inference")}


async def test_a_request_cannot_choose_the_server(browser, configure, jp_fetch):
    answer = await jp_fetch(*API, "facility", params={"url": "http://127.0.0.1:1/", "metrics_urls": "http://x"})
    assert json.loads(answer.body)["state"] == "no-facility"
    assert json.loads(answer.body)["metrics"]["sources"] == []


async def test_periodic_requests_do_not_keep_an_idle_server_alive(browser, jp_serverapp):
    await browser.get("facility")
    await browser.get("usage")
    assert "api_last_activity" not in jp_serverapp.web_app.settings
