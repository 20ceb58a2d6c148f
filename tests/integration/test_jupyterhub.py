"""The token service under a real JupyterHub and its proxy: issued and refused tokens, restarts and outages."""

from __future__ import annotations

import json
import secrets
import sqlite3
import stat
import subprocess
import sys
import time
import urllib.error
from contextlib import closing
from pathlib import Path

import jwt
import pytest
from dask_facility import eventually
from hub_facility import CONTACT, SCOPE, ask, hub_facility, processes_with

import eaf_facility.hub.service
from eaf_facility.process.ports import free_ports
from eaf_facility.process.server import Child, plain_environment
from eaf_facility.servers.jupyterhub import GROUP
from eaf_facility.servers.jupyterhub_proxy import proxy_program
from eaf_facility.servers.token_service import TokenServiceServer
from eaf_inference._files import write_private
from eaf_inference.errors import ConfigurationError

OPENAPI = Path(eaf_facility.hub.service.__file__).with_name("openapi.yaml")
REFUSED = f"not authorised for inference: ask {CONTACT}."


@pytest.fixture(scope="session")
def facility(zoo):
    with hub_facility(zoo) as facility:
        facility.start_servers("alice", "carol")
        yield facility


def claims_of(facility, token):
    """Return the token's claims, verified with the published keys."""
    key = jwt.PyJWKClient(facility.tokens.jwks_url).get_signing_key_from_jwt(token)
    return jwt.decode(token, key, algorithms=["EdDSA"], audience="triton", issuer="eaf-inference")


def test_a_hub_token_is_exchanged_for_a_short_lived_token(facility):
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


def test_identity_headers_of_a_request_are_ignored(facility):
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
    ("request_of", "status", "reason", "user", "message"),
    [
        (no_token, 401, "no_token", None, "No token was sent"),
        (bogus_token, 401, "invalid_token", None, "no longer knows your token"),
        (not_a_token, 401, "invalid_token", None, "does not contain a Hub token"),
        (another_scheme, 401, "invalid_token", None, "does not contain a Hub token"),
        (revoked_token, 401, "invalid_token", None, "no longer knows your token"),
        (expired_token, 401, "invalid_token", None, "no longer knows your token"),
        (its_own_token, 401, "invalid_token", None, "no longer knows your token"),
        (token_without_the_scope, 403, "not_authorised", "alice", REFUSED),
        (user_outside_the_group, 403, "not_authorised", "carol", REFUSED),
        (services_token, 403, "not_a_user", "facility-operator", "belongs to a service"),
        (somebody_elses_name, 400, "unexpected_body", "alice", "takes no body"),
    ],
)
def test_a_refused_caller_learns_the_reason_and_is_logged(
    facility, request_of, status, reason, user, message, around_the_proxy
):
    asked = request_of(facility)
    reply = facility.mint(asked.pop("hub_token"), around_the_proxy=around_the_proxy, **asked)
    assert (reply.status, reply.data["error"]) == (status, reason)
    assert message in reply.data["message"]
    assert reply.headers["Cache-Control"] == "no-store"
    line = facility.refusals()[-1]
    assert (line["status"], line["reason"], line["user"], line["peer"]) == (status, reason, user, "127.0.0.1")


def test_the_hub_refuses_a_token_for_triton(facility):
    token = facility.mint(facility.token_of("alice")[0]).data["access_token"]
    for scheme in ("token", "Bearer"):
        assert ask(f"{facility.hub.api_url}/user", token, scheme=scheme).status == 403


def test_a_change_of_group_membership_takes_effect_at_once(facility):
    hub_token = facility.environment_of("alice")["JUPYTERHUB_API_TOKEN"]
    assert facility.mint(hub_token).status == 200
    facility.operate(f"groups/{GROUP}/users", "DELETE", users=["alice"])
    refused = facility.mint(hub_token)
    facility.operate(f"groups/{GROUP}/users", "POST", users=["alice"])
    assert (refused.status, refused.data["message"]) == (403, REFUSED)
    assert facility.mint(hub_token).status == 200


def test_a_loop_of_token_requests_is_slowed_down_for_its_user_only(facility, tmp_path):
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
    """Each key signs for two seconds, and is published one second before."""
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
            assert kid in published, "a key signs tokens before it is published"
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


def test_it_does_not_start_if_others_can_read_its_keys(facility, tmp_path):
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


def test_a_large_or_slow_request_does_not_block_the_service(facility):
    import socket

    with socket.create_connection(("127.0.0.1", int(facility.tokens.url.rpartition(":")[2]))) as half:
        half.sendall(b"POST /services/triton-token/token HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nslow")
        assert facility.mint(facility.token_of("alice")[0]).status == 200
        half.settimeout(20)
        assert half.recv(1000) == b"", "the connection is closed"
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        facility.mint(None, data=b"x" * 10_000_000, around_the_proxy=True)


def test_the_service_conforms_to_openapi(facility, tmp_path):
    hub_token, _ = facility.token_of("bob")
    command = [
        *(Path(sys.executable).with_name("schemathesis"), "run", OPENAPI),
        *("--url", f"{facility.tokens.url}/services/triton-token", "--header", f"Authorization: token {hub_token}"),
        *("--max-examples", "10", "--no-color", "--suppress-health-check", "all", "--generation-database", "none"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_no_secret_leaks_into_logs_arguments_environments_or_files(facility):
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
        # set by JupyterHub itself: users' servers and kernels have the user's token, and the proxy its own
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


def test_python_on_the_hub_connects_as_its_user_without_configuration(facility, zoo):
    output = facility.runs("alice", CONNECT)
    url = facility.tokens.configuration["Facility"]["urls"][0]
    assert f"alice Hub facility document {url}" in output
    assert "ready" in output
    assert zoo.metrics in output
    assert set(facility.edge_proxy.users) == {"alice"}


def test_magic_and_panel_name_the_contact_to_a_user_without_access(facility):
    code = "import IPython; IPython.start_ipython(['-c', '%load_ext eaf_inference\\n%triton_connect'])"
    output = facility.runs("carol", code)
    assert f"NotAuthorized: {REFUSED}" in output
    assert "Traceback" not in output
    token = facility.environment_of("carol")["JUPYTERHUB_API_TOKEN"]
    shown = ask(f"{facility.hub.url}/user/carol/eaf-inference/api/facility", token).data
    assert (shown["state"], shown["problem"]) == ("not-authorised", REFUSED)
    token = facility.environment_of("alice")["JUPYTERHUB_API_TOKEN"]
    shown = ask(f"{facility.hub.url}/user/alice/eaf-inference/api/facility", token).data
    assert (shown["state"], shown["user"]) == ("connected", "alice")
    assert shown["metrics"]["sources"]
    assert ask(f"{facility.hub.url}/user/alice/api/contents", token).status == 200
    assert "JupyterLab" in ask(f"{facility.hub.url}/user/alice/lab", token).text


LIST = "import dask_gateway; print([report.name for report in dask_gateway.Gateway().list_clusters()])"
MAKE = "import dask_gateway; print(dask_gateway.Gateway().new_cluster(shutdown_on_close=False).name)"
STOP = "import dask_gateway; dask_gateway.Gateway().stop_cluster('{}')"


@pytest.mark.slow
def test_clusters_are_private_and_survive_a_restart_of_the_gateway(facility):
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


def test_a_hub_token_with_only_the_scope_is_sufficient(facility):
    """As for a scheduler that renews tokens itself: `triton.configure(client, hub_token=…)`."""
    from eaf_inference.dask.worker_plugin import Secret, fetch_token

    hub_token, _ = facility.token_of("bob", [SCOPE])
    assert claims_of(facility, fetch_token(facility.tokens.base_url, Secret(hub_token), None))["sub"] == "bob"


def test_the_token_of_a_stopped_server_is_refused(facility):
    """Runs after the tests that use carol's server, and before the Hub restarts and forgets whose token it was."""
    hub_token = facility.environment_of("carol")["JUPYTERHUB_API_TOKEN"]
    assert facility.mint(hub_token).data["error"] == "not_authorised", "the Hub knows the token"
    facility.operate("users/carol/server", "DELETE")
    refused = eventually(
        lambda: facility.mint(hub_token), lambda reply: reply.status != 403
    )  # the Hub revokes it after a while
    assert (refused.status, refused.data["error"]) == (401, "invalid_token")


@pytest.mark.slow
def test_an_outage_of_the_hub_or_its_proxy_is_reported_and_temporary(facility):
    environment = facility.environment_of("alice")
    hub_token, pid = environment["JUPYTERHUB_API_TOKEN"], facility.hub.pid
    facility.hub.kill()
    meanwhile = facility.mint(hub_token, around_the_proxy=True)
    facility.hub.wait_until_ready()
    assert facility.hub.pid != pid
    assert (meanwhile.status, meanwhile.data["error"]) == (503, "hub_unavailable")
    assert int(meanwhile.headers["Retry-After"]) > 0
    assert facility.mint(hub_token).status == 200
    facility.hub.restart()
    assert facility.mint(hub_token).status == 200
    hers = f"{facility.hub.url}/user/alice/api/status"
    assert ask(hers, hub_token).status == 200, "her server kept running"
    facility.hub.proxy.kill()
    facility.hub.proxy.restart()
    eventually(lambda: ask(hers, hub_token).status, lambda status: status == 200)


@pytest.mark.slow
def test_a_hub_with_a_restored_database_knows_its_users_and_servers(facility, tmp_path):
    """The database is lost, and restored from a copy that was made while the Hub ran."""
    hers = facility.environment_of("alice")["JUPYTERHUB_API_TOKEN"]
    database, copy_of_it = facility.hub.directory / "jupyterhub.sqlite", tmp_path / "copy.sqlite"
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy_of_it)) as target:
        source.backup(target)
    later, _ = facility.token_of("bob")
    assert facility.mint(later).status == 200
    write_private(database, copy_of_it.read_bytes())
    facility.hub.kill()
    facility.hub.wait_until_ready()
    assert facility.mint(hers).status == 200
    assert ask(f"{facility.hub.url}/user/alice/api/status", hers).status == 200, "her server kept running"
    assert facility.mint(later).data["error"] == "invalid_token", "made after the copy"


MANAGED = """
from eaf_facility.hub.jupyterhub import configure

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


def test_a_hub_with_a_base_url_starts_the_service(tmp_path):
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
                pass  # it is still starting
            assert child.wait(0.1) is None, log.read_text()
            assert time.monotonic() < ends, log.read_text()
        made = ask(f"{base}/hub/api/users/alice/tokens", token, method="POST", data=b"{}")
        minted = ask(f"{base}/services/triton-token/token", made.data["token"], method="POST", data=b"")
        assert jwt.decode(minted.data["access_token"], options={"verify_signature": False})["sub"] == "alice"
    finally:
        child.stop()
