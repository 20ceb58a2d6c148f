"""Users of a real JupyterHub, through its proxy: who gets a token, who does not, and what survives."""

from __future__ import annotations

import json
import secrets
import stat
import subprocess
import sys
import time
import urllib.error
from pathlib import Path

import jwt
import pytest
from dask_facility import eventually
from hub_facility import CONTACT, SCOPE, ask, hub_facility, processes_with

import eaf_inference.hub.service
from eaf_inference.errors import ConfigurationError
from eaf_inference.facility.http_proxy import proxy_program
from eaf_inference.facility.jupyterhub import GROUP
from eaf_inference.facility.ports import free_ports
from eaf_inference.facility.processes import Child, plain_environment
from eaf_inference.facility.token_service import TokenServiceServer

OPENAPI = Path(eaf_inference.hub.service.__file__).with_name("openapi.yaml")
REFUSED = f"not authorised for inference: ask {CONTACT}."


@pytest.fixture(scope="session")
def facility(zoo):
    with hub_facility(zoo) as facility:
        facility.start_servers("alice", "carol")
        yield facility


def claims_of(facility, token):
    """Verified with what is published."""
    key = jwt.PyJWKClient(facility.tokens.jwks_url).get_signing_key_from_jwt(token)
    return jwt.decode(token, key, algorithms=["EdDSA"], audience="triton", issuer="eaf-inference")


def test_a_hub_token_becomes_a_short_lived_one_in_that_users_name(facility):
    hub_token, _ = facility.token_of("alice")
    reply = facility.mint(hub_token)
    assert (reply.status, reply.headers["Cache-Control"]) == (200, "no-store")
    assert (reply.data["token_type"], reply.data["expires_in"]) == ("Bearer", 600)
    claims = claims_of(facility, reply.data["access_token"])
    assert (claims["sub"], claims["tier"], claims["exp"] - claims["iat"]) == ("alice", "batch", 600)
    line = facility.minted()[-1]
    assert (line["user"], line["jti"], line["tier"]) == ("alice", claims["jti"], "batch")
    assert line["forwarded_for"] == line["peer"] == "127.0.0.1"
    assert facility.mint(hub_token, around_the_proxy=True, scheme="Bearer").status == 200
    bobs = facility.mint(facility.token_of("bob")[0])
    assert claims_of(facility, bobs.data["access_token"])["tier"] == "interactive"


def test_what_a_request_says_of_its_sender_is_not_believed(facility):
    hub_token, _ = facility.token_of("alice")
    claims = {"X-Forwarded-User": "bob", "x-user": "bob", "Remote-User": "bob", "X-Forwarded-For": "10.1.2.3"}
    reply = facility.mint(hub_token, headers=claims, around_the_proxy=True)
    assert claims_of(facility, reply.data["access_token"])["sub"] == "alice"
    assert (facility.minted()[-1]["forwarded_for"], facility.minted()[-1]["peer"]) == ("10.1.2.3", "127.0.0.1")


def no_token(facility):
    return {"hub_token": None}


def bogus_token(facility):
    return {"hub_token": "0123456789abcdef"}


def not_a_token(facility):
    return {"hub_token": "two words"}


def another_scheme(facility):
    return {"hub_token": "YWxpY2U6YWxpY2U=", "scheme": "Basic"}


def revoked_token(facility):
    token, name = facility.token_of("alice")
    assert facility.mint(token).status == 200
    facility.operate(f"users/alice/tokens/{name}", "DELETE")
    return {"hub_token": token}


def expired_token(facility):
    token, _ = facility.token_of("alice", expires_in=1)
    ends = time.monotonic() + 10
    while ask(f"{facility.hub.api_url}/user", token).status == 200:
        assert time.monotonic() < ends
        time.sleep(0.1)
    return {"hub_token": token}


def its_own_token(facility):
    return {"hub_token": facility.mint(facility.token_of("alice")[0]).data["access_token"]}


def token_without_the_scope(facility):
    return {"hub_token": facility.token_of("alice", ["read:users!user"])[0]}


def user_outside_the_group(facility):
    return {"hub_token": facility.environment_of("carol")["JUPYTERHUB_API_TOKEN"]}


def services_token(facility):
    return {"hub_token": facility.hub.operator_token_file.read_text()}


def somebody_elses_name(facility):
    return {"hub_token": facility.token_of("alice")[0], "data": b'{"user": "bob"}'}


@pytest.mark.parametrize("around_the_proxy", [False, True])
@pytest.mark.parametrize(
    ("request_of", "status", "reason", "user", "says"),
    [
        (no_token, 401, "no_token", None, "There is no token"),
        (bogus_token, 401, "invalid_token", None, "does not know your token any more"),
        (not_a_token, 401, "invalid_token", None, "holds no token of the Hub"),
        (another_scheme, 401, "invalid_token", None, "holds no token of the Hub"),
        (revoked_token, 401, "invalid_token", None, "does not know your token any more"),
        (expired_token, 401, "invalid_token", None, "does not know your token any more"),
        (its_own_token, 401, "invalid_token", None, "does not know your token any more"),
        (token_without_the_scope, 403, "not_authorised", "alice", REFUSED),
        (user_outside_the_group, 403, "not_authorised", "carol", REFUSED),
        (services_token, 403, "not_a_user", "facility-operator", "this is a service's"),
        (somebody_elses_name, 400, "unexpected_body", "alice", "takes no body"),
    ],
)
def test_who_may_not_is_told_why_and_noted(facility, request_of, status, reason, user, says, around_the_proxy):
    asked = request_of(facility)
    reply = facility.mint(asked.pop("hub_token"), around_the_proxy=around_the_proxy, **asked)
    assert (reply.status, reply.data["error"]) == (status, reason)
    assert says in reply.data["message"]
    assert reply.headers["Cache-Control"] == "no-store"
    line = facility.refusals()[-1]
    assert (line["status"], line["reason"], line["user"], line["peer"]) == (status, reason, user, "127.0.0.1")


def test_the_hub_does_not_take_a_token_for_triton(facility):
    token = facility.mint(facility.token_of("alice")[0]).data["access_token"]
    for scheme in ("token", "Bearer"):
        assert ask(f"{facility.hub.api_url}/user", token, scheme=scheme).status == 403


def test_who_leaves_the_group_gets_no_further_token_and_who_comes_gets_one_at_once(facility):
    hub_token = facility.environment_of("alice")["JUPYTERHUB_API_TOKEN"]
    assert facility.mint(hub_token).status == 200
    facility.operate(f"groups/{GROUP}/users", "DELETE", users=["alice"])
    refused = facility.mint(hub_token)
    facility.operate(f"groups/{GROUP}/users", "POST", users=["alice"])
    assert (refused.status, refused.data["message"]) == (403, REFUSED)
    assert facility.mint(hub_token).status == 200


def test_a_loop_that_asks_for_tokens_is_slowed_down_and_nobody_else(facility, tmp_path):
    facility.tokens.configuration = {
        **(before := facility.tokens.configuration),
        "TokenIssuer": {"contact": CONTACT, "burst": 3, "tokens_per_minute": 6},
    }
    hub_token, _ = facility.token_of("alice")
    try:
        facility.tokens.restart()
        replies = [facility.mint(hub_token) for _ in range(4)]
        assert [reply.status for reply in replies] == [200, 200, 200, 429]
        assert 1 <= int(replies[-1].headers["Retry-After"]) <= 10
        assert "too many tokens" in replies[-1].data["message"]
        assert facility.refusals()[-1]["reason"] == "too_many_tokens"
        assert facility.mint(facility.token_of("bob")[0]).status == 200
    finally:
        facility.tokens.configuration = before
        facility.tokens.restart()


def test_keys_rotate_with_overlap_and_survive_a_restart(facility):
    """Quick keys: each signs for two seconds, and is known one second before."""
    hub_token, _ = facility.token_of("alice")
    before = facility.tokens.configuration
    facility.tokens.configuration = {
        **before,
        "TokenIssuer": {**before["TokenIssuer"], "rotate_every": 2.0, "publish_ahead": 1.0},
    }
    try:
        old = facility.mint(hub_token).data["access_token"]
        facility.tokens.restart()
        ends = time.monotonic() + 20
        seen = []
        while True:
            published = {key["kid"] for key in ask(facility.tokens.jwks_url).data["keys"]}
            token = facility.mint(hub_token).data["access_token"]
            kid = jwt.get_unverified_header(token)["kid"]
            assert kid in published, "a key signs that was not published the moment before"
            seen = seen if kid in seen else [*seen, kid]
            if len(seen) == 3:
                break
            assert time.monotonic() < ends
            time.sleep(0.1)
        assert claims_of(facility, old)["sub"] == claims_of(facility, token)["sub"] == "alice"
    finally:
        facility.tokens.configuration = before
        facility.tokens.kill()
        facility.tokens.restart()
    assert claims_of(facility, old)["sub"] == "alice"
    assert set(seen) <= {key["kid"] for key in ask(facility.tokens.jwks_url).data["keys"]}


def test_keys_that_others_can_read_keep_it_from_starting(facility, tmp_path):
    server = TokenServiceServer(facility.hub.api_url, {}, tmp_path)
    try:
        server.launch()
        server.wait_until_ready()
        server.stop()
        (server.keys / "keys.json").chmod(0o644)
        server.launch()
        with pytest.raises(ConfigurationError, match="keys.json can be read by others .*chmod 600"):
            server.wait_until_ready()
    finally:
        server.stop()


def test_a_large_or_slow_request_does_not_hold_the_service(facility):
    import socket

    with socket.create_connection(("127.0.0.1", int(facility.tokens.url.rpartition(":")[2]))) as half:
        half.sendall(b"POST /services/triton-token/token HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nslow")
        assert facility.mint(facility.token_of("alice")[0]).status == 200
        half.settimeout(20)
        assert half.recv(1000) == b"", "it is closed"
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        facility.mint(None, data=b"x" * 10_000_000, around_the_proxy=True)


def test_the_description_holds(facility, tmp_path):
    hub_token, _ = facility.token_of("bob")
    command = [
        *(Path(sys.executable).with_name("schemathesis"), "run", OPENAPI),
        *("--url", f"{facility.tokens.url}/services/triton-token", "--header", f"Authorization: token {hub_token}"),
        *("--max-examples", "10", "--no-color", "--suppress-health-check", "all", "--generation-database", "none"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_nothing_secret_is_in_logs_arguments_environments_or_files_that_others_read(facility):
    hub, alice = facility.hub, facility.environment_of("alice")["JUPYTERHUB_API_TOKEN"]
    minted = facility.mint(alice).data["access_token"]
    keys = json.loads((facility.tokens.keys / "keys.json").read_text())["keys"]
    ours = {
        "alice's Hub token": alice,
        "the operator's token": hub.operator_token_file.read_text(),
        "the password": hub.password_file.read_text(),
        "the proxy's token": hub.proxy.token,
        "a token for Triton": minted.rpartition(".")[2],
        "a signing key": keys[-1]["private"].splitlines()[1],
    }
    logs = {log: log.read_text(errors="replace") for log in (hub.log, hub.proxy.log, facility.tokens.log)}
    found = [(name, str(log)) for name, text in ours.items() for log in logs if text in logs[log]]
    for pid, command, environment in processes_with(""):
        found += [(name, pid, command) for name, text in ours.items() if text in command]
        shown = [name for name, text in ours.items() if text in environment]
        # what JupyterHub itself sets: a user's server has her token, as her kernels do, and the proxy its own
        expected = ["the proxy's token"] if "configurable-http-proxy" in command else ["alice's Hub token"]
        if shown and (
            shown != expected or not ("singleuser" in command or "proxy" in command or "kernel" in command)
        ):
            found.append((shown, pid, command))
    for path in [hub.password_file.parent, *hub.password_file.parent.glob("*"), *facility.tokens.keys.rglob("*")]:
        private = stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
        if path.is_file() and not private and any(text.encode() in path.read_bytes() for text in ours.values()):
            found.append(str(path))
    assert found == []


CONNECT = """
import eaf_inference
triton = eaf_inference.connect(explain=True)
print(triton.user, triton.endpoint.source, triton.endpoint.url)
print(triton.attempts)
print(triton.facility.metrics_urls)
"""


def test_who_starts_python_on_the_hub_is_connected_as_herself_with_nothing_typed(facility, zoo):
    said = facility.runs("alice", CONNECT)
    url = facility.tokens.configuration["Facility"]["urls"][0]
    assert f"alice Hub facility document {url}" in said
    assert "ready" in said
    assert zoo.metrics in said
    assert set(facility.door.users) == {"alice"}


def test_who_is_not_in_the_group_is_told_whom_to_ask_by_magic_and_panel(facility):
    code = "import IPython; IPython.start_ipython(['-c', '%load_ext eaf_inference\\n%triton_connect'])"
    said = facility.runs("carol", code)
    assert f"NotAuthorized: {REFUSED}" in said
    assert "Traceback" not in said
    token = facility.environment_of("carol")["JUPYTERHUB_API_TOKEN"]
    told = ask(f"{facility.hub.url}/user/carol/eaf-inference/api/facility", token).data
    assert (told["state"], told["problem"]) == ("not-authorised", REFUSED)
    token = facility.environment_of("alice")["JUPYTERHUB_API_TOKEN"]
    told = ask(f"{facility.hub.url}/user/alice/eaf-inference/api/facility", token).data
    assert (told["state"], told["user"]) == ("connected", "alice")
    assert told["metrics"]["sources"]
    assert ask(f"{facility.hub.url}/user/alice/api/contents", token).status == 200
    assert "JupyterLab" in ask(f"{facility.hub.url}/user/alice/lab", token).text


LIST = "import dask_gateway; print([report.name for report in dask_gateway.Gateway().list_clusters()])"
MAKE = "import dask_gateway; print(dask_gateway.Gateway().new_cluster(shutdown_on_close=False).name)"
STOP = "import dask_gateway; dask_gateway.Gateway().stop_cluster('{}')"


def test_a_users_clusters_are_hers_alone_and_a_gateway_that_restarts_is_where_it_was(facility):
    bob = {"JUPYTERHUB_API_TOKEN": facility.token_of("bob", ["access:services!service=dask-gateway"])[0]}
    name = facility.runs("alice", MAKE).split()[0]
    assert facility.runs("alice", LIST).split("\n")[0] == f"['{name}']"
    assert facility.runs("alice", LIST, **bob).split("\n")[0] == "[]"
    assert "403, message='Forbidden'" in facility.runs("alice", STOP.format(name), **bob)
    assert "401, message=" in facility.runs("carol", LIST)
    facility.gateway.restart()
    assert facility.runs("alice", LIST).split("\n")[0] == f"['{name}']"
    facility.runs("alice", STOP.format(name))
    eventually(lambda: facility.runs("alice", LIST).split("\n")[0], lambda listed: listed == "[]")


def test_the_scope_alone_is_what_a_token_needs(facility):
    """For a scheduler that renews by itself: `triton.configure(client, hub_token=…)`."""
    from eaf_inference.dask.worker_plugin import Secret, fetch_token

    hub_token, _ = facility.token_of("bob", [SCOPE])
    assert claims_of(facility, fetch_token(facility.tokens.base_url, Secret(hub_token), None))["sub"] == "bob"


def test_the_token_of_a_server_that_was_stopped_is_worth_nothing(facility):
    """After the tests that need carol's, and before the Hub restarts: it then forgets which token was whose."""
    hub_token = facility.environment_of("carol")["JUPYTERHUB_API_TOKEN"]
    assert facility.mint(hub_token).data["error"] == "not_authorised", "it is known"
    facility.operate("users/carol/server", "DELETE")
    refused = eventually(
        lambda: facility.mint(hub_token), lambda reply: reply.status != 403
    )  # the Hub takes its time
    assert (refused.status, refused.data["error"]) == (401, "invalid_token")


def test_a_hub_or_proxy_that_is_gone_is_said_and_forgotten_when_it_is_back(facility):
    environment = facility.environment_of("alice")
    hub_token, pid = environment["JUPYTERHUB_API_TOKEN"], facility.hub.pid
    facility.hub.kill()
    while_away = facility.mint(hub_token, around_the_proxy=True)
    facility.hub.wait_until_ready()
    assert facility.hub.pid != pid
    assert (while_away.status, while_away.data["error"]) == (503, "hub_unavailable")
    assert int(while_away.headers["Retry-After"]) > 0
    assert facility.mint(hub_token).status == 200
    facility.hub.restart()
    assert facility.mint(hub_token).status == 200
    hers = f"{facility.hub.url}/user/alice/api/status"
    assert ask(hers, hub_token).status == 200, "her server is the same"
    facility.hub.proxy.kill()
    facility.hub.proxy.restart()
    eventually(lambda: ask(hers, hub_token).status, lambda status: status == 200)


MANAGED = """
from eaf_inference.hub.jupyterhub import configure

c = get_config()
c.JupyterHub.bind_url, c.JupyterHub.hub_port = "http://127.0.0.1:{public}/jupyter/", {hub}
c.ConfigurableHTTPProxy.command, c.ConfigurableHTTPProxy.api_url = [{proxy!r}], "http://127.0.0.1:{api}"
c.JupyterHub.authenticator_class, c.SharedPasswordAuthenticator.user_password = "shared-password", "not a secret here"
c.Authenticator.allowed_users = {{"alice"}}
c.JupyterHub.services = [{{"name": "operator", "api_token": {token!r}}}]
c.JupyterHub.load_roles = [{{"name": "operator", "scopes": ["admin:users", "tokens"], "services": ["operator"]}}]
c.JupyterHub.load_groups = {{"cms": {{"users": ["alice"]}}}}
configure(c, service_url="http://127.0.0.1:{service}", groups=["cms"], environment={{"JUPYTER_CONFIG_PATH": {etc!r}}})
"""


def test_a_hub_starts_the_service_by_itself_under_a_base_url(tmp_path):
    public, hub, api, service = free_ports(4)
    token, log = secrets.token_hex(16), tmp_path / "log"
    proxy = str(proxy_program())
    settings = {"TokenIssuer": {"key_directory": str(tmp_path / "keys")}}
    (tmp_path / "eaf_inference_config.json").write_text(json.dumps(settings))
    (tmp_path / "hub").mkdir()
    configuration = tmp_path / "jupyterhub_config.py"
    names = {"public": public, "hub": hub, "api": api, "service": service}
    configuration.write_text(MANAGED.format(**names, proxy=proxy, token=token, etc=str(tmp_path)))
    child = Child(
        [sys.executable, "-m", "jupyterhub", "--config", configuration],
        environment=plain_environment(first_on_path=Path(sys.executable).parent),
        log=log,
        directory=tmp_path / "hub",
    )
    try:
        base = f"http://127.0.0.1:{public}/jupyter"
        ends = time.monotonic() + 40
        while True:
            try:
                if ask(f"{base}/services/triton-token/healthz").status == 200:
                    break
            except OSError:
                pass  # it is on its way
            assert child.wait(0.1) is None, log.read_text()
            assert time.monotonic() < ends, log.read_text()
        made = ask(f"{base}/hub/api/users/alice/tokens", token, method="POST", data=b"{}")
        minted = ask(f"{base}/services/triton-token/token", made.data["token"], method="POST", data=b"")
        assert jwt.decode(minted.data["access_token"], options={"verify_signature": False})["sub"] == "alice"
    finally:
        child.stop()
