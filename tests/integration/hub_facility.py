"""A real JupyterHub, token service and Dask Gateway, and a stand-in for the edge proxy that verifies tokens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import jwt
from edge_proxy import EdgeProxy, edge_proxy

from eaf_facility.process.server import owned_directory
from eaf_facility.servers.dask_gateway import DaskGatewayServer
from eaf_facility.servers.jupyterhub import GROUP, JupyterHubServer, Services
from eaf_facility.servers.token_service import TokenServiceServer

if TYPE_CHECKING:
    from email.message import Message

SCOPE = "access:services!service=triton-token"
CONTACT = "triton-help@facility.example"
USERS = {"alice": [GROUP, "production"], "bob": [GROUP], "carol": []}


class VerifyingProxy(EdgeProxy):
    """Accepts tokens signed by a published key."""

    jwks_url = ""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.users: list[str] = []

    def _enter(self, context, is_inference):
        token = dict(context.invocation_metadata()).get("authorization", "").removeprefix("Bearer ")
        try:
            key = jwt.PyJWKClient(self.jwks_url, cache_keys=False).get_signing_key_from_jwt(token)
            claims = jwt.decode(token, key, algorithms=["EdDSA"], audience="triton", issuer="eaf-inference")
        except jwt.PyJWTError:
            return grpc.StatusCode.UNAUTHENTICATED, "Jwt verification fails", ()
        self.users.append(claims["sub"])
        return super()._enter(context, is_inference)


@dataclass
class Reply:
    status: int
    text: str
    headers: Message

    @property
    def data(self):
        return json.loads(self.text)


def ask(url, token=None, *, method=None, data=None, headers=None, scheme="token"):
    """Return a server's answer, whatever its status."""
    headers = dict(headers or {}) | ({"Authorization": f"{scheme} {token}"} if token else {})
    request = urllib.request.Request(url, method=method, data=data, headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310
            return Reply(reply.status, reply.read().decode(), reply.headers)
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.read().decode(), error.headers)


@dataclass
class HubFacility:
    """The servers and the stand-in edge proxy."""

    hub: JupyterHubServer
    tokens: TokenServiceServer
    gateway: DaskGatewayServer
    edge_proxy: VerifyingProxy

    def operate(self, path, method="GET", **data):
        """Send a request to the Hub's API as the operator."""
        body = json.dumps(data).encode() if method != "GET" else None
        token = self.hub.operator_token_file.read_text()
        reply = ask(f"{self.hub.api_url}/{path}", token, method=method, data=body)
        assert reply.status < 400, reply
        return reply.data if reply.text else None

    def token_of(self, user, scopes=(SCOPE,), **options):
        """Create a Hub token; return it and its id."""
        made = self.operate(f"users/{user}/tokens", "POST", scopes=list(scopes), **options)
        return made["token"], made["id"]

    def mint(self, hub_token, *, around_the_proxy=False, **options):
        base = self.tokens.url if around_the_proxy else self.hub.url
        return ask(f"{base}/services/triton-token/token", hub_token, method="POST", **{"data": b"", **options})

    def refusals(self):
        """Return the refusals in the audit log."""
        lines = [json.loads(line) for line in self.tokens.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == "refusal"]

    def minted(self):
        lines = [json.loads(line) for line in self.tokens.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == "mint"]

    def start_servers(self, *users):
        """Start these users' servers and wait until all are ready."""
        for user in users:
            self.operate(f"users/{user}/server", "POST")
        ends = time.monotonic() + 60
        for user in users:
            while not self.operate(f"users/{user}")["servers"].get("", {}).get("ready"):
                assert time.monotonic() < ends, self.hub.log.read_text()[-3000:]
                time.sleep(0.1)

    def environment_of(self, user):
        """Return the environment that the Hub gave the user's server."""
        pid = self.operate(f"users/{user}")["servers"][""]["state"]["pid"]
        pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
        return dict(pair.split("=", 1) for pair in pairs if "=" in pair)

    def runs(self, user, code, **environment):
        """Run a program with only the user's environment and these variables; return its output."""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            env=self.environment_of(user) | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout + done.stderr


@contextmanager
def hub_facility(zoo):
    """Run the facility, with the edge proxy's address in its document; alice and bob may infer, carol may not."""
    with (
        edge_proxy(zoo.grpc.removeprefix("grpc://"), handler=VerifyingProxy) as (handler, port),
        owned_directory("eaf-inference-tokens-") as directory,
    ):
        hub = JupyterHubServer(USERS)
        configuration = {
            "Facility": {"urls": [f"grpc://127.0.0.1:{port}"], "metrics_urls": [zoo.metrics]},
            "TokenPolicy": {"tiers": {"production": "batch"}},
            "TokenIssuer": {"contact": CONTACT, "burst": 200},
        }
        tokens = TokenServiceServer(hub.api_url, configuration, directory)
        handler.jwks_url = tokens.jwks_url
        gateway = DaskGatewayServer(hub_api_url=hub.api_url)
        try:
            tokens.launch()
            gateway.launch()
            gateway.wait_until_ready()
            hub.services = Services(tokens.url, gateway.address)
            hub.launch()
            tokens.wait_until_ready()
            hub.wait_until_ready()
            yield HubFacility(hub, tokens, gateway, handler)
        finally:
            for server in (hub, gateway, tokens):
                server.ask_to_stop()
            for server in (hub, gateway, tokens):
                server.stop()


def processes_with(word: str) -> list[tuple[int, str, str]]:
    """Return (pid, command line, environment) of processes whose command line contains this word."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and path.name != str(os.getpid()):
            try:
                command, environment = (path / "cmdline").read_text(), (path / "environ").read_text()
            except (OSError, UnicodeDecodeError):
                continue
            if word in command:
                found.append((int(path.name), command, environment))
    return found
