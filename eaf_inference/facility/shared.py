"""A facility for several users on this machine: what a shared one runs, as real processes on loopback.

JupyterHub with its token service, Envoy with TLS in front of the Tritons, a Dask Gateway whose users are the Hub's,
and Prometheus where it is installed. Everything but the machine is as it is at a facility; users' notebooks, clusters
and files belong to the one account that started it, so that the Hub keeps users apart and the operating system does
not.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from eaf_inference.envoy.configuration import configuration
from eaf_inference.envoy.settings import Envoy
from eaf_inference.errors import ConfigurationError
from eaf_inference.facility.envoy import EnvoyServer, Place
from eaf_inference.facility.gateway import GatewayServer
from eaf_inference.facility.jupyterhub import GROUP, HubServer, Services
from eaf_inference.facility.machine import make_tritons
from eaf_inference.facility.processes import ignore, owned_directory
from eaf_inference.facility.prometheus import NotInstalled, PrometheusServer, prometheus_program
from eaf_inference.facility.restarts import keep_running
from eaf_inference.facility.token_service import TokenServiceServer
from eaf_inference.policy import TokenPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from eaf_inference.facility.processes import Server
    from eaf_inference.facility.triton import TritonServer

__all__ = ["ONE_ACCOUNT", "SharedFacility", "up_for"]

ONE_ACCOUNT = (
    "All users' notebooks, clusters and files belong to this one account of the machine: the Hub keeps users apart, "
    "the operating system does not."
)


@dataclass(frozen=True, slots=True)
class SharedFacility:
    """What `up_for` started."""

    users: Mapping[str, Sequence[str]]
    tritons: tuple[TritonServer, ...]
    door: EnvoyServer
    tokens: TokenServiceServer
    gateway: GatewayServer
    hub: HubServer
    prometheus: PrometheusServer | None

    @property
    def servers(self) -> tuple[Server, ...]:
        """All of them, in the order in which they depend on one another."""
        prometheus = (self.prometheus,) if self.prometheus else ()
        behind = (*self.tritons, self.tokens, self.door, *prometheus)
        return (*behind, self.gateway.proxy, self.gateway, self.hub.proxy, self.hub)

    @property
    def addresses(self) -> dict[str, str]:
        """Server -> where it is, for people."""
        found = {triton.name: triton.grpc for triton in self.tritons}
        found |= {self.door.name: self.door.url, self.tokens.name: self.tokens.base_url}
        found |= {self.gateway.name: self.gateway.address, self.hub.name: self.hub.url}
        return found | ({self.prometheus.name: self.prometheus.url} if self.prometheus else {})

    def as_dict(self) -> dict[str, Any]:
        """What `eaf-inference up --users … --json` prints; holds no secret."""
        return {
            "pid": os.getpid(),
            "users": {user: list(groups) for user, groups in self.users.items()},
            "url": self.hub.url,
            "password_file": str(self.hub.password_file),
            "operator_token_file": str(self.hub.operator_token_file),
            "ca": str(self.door.ca),
            "access_log": str(self.door.access_log),
            "cluster_logs": str(self.gateway.cluster_logs),
            "servers": {
                server.name: {"url": self.addresses.get(server.name), "pid": server.pid, "log": str(server.log)}
                for server in self.servers
            },
            "note": ONE_ACCOUNT,
        }

    def watch(self, *, progress: Callable[[str], None] = ignore) -> Server:
        """Start again whatever dies, for as long as that helps; see `restarts.keep_running`."""
        return keep_running(self.servers, progress=progress)


@contextmanager
def up_for(
    users: Sequence[str],
    models: Sequence[Path | str] = (),
    *,
    replicas: int = 2,
    triton_server: Path | str | None = None,
    progress: Callable[[str], None] = ignore,
) -> Iterator[SharedFacility]:
    """Run a facility for these users for the length of a `with` block; all is ready when the block begins.

    Parameters
    ----------
    users
        Names; all may use inference. Their password is in a file, see `SharedFacility.as_dict`.
    models, replicas, triton_server, progress
        As for `eaf_inference.facility.machine.up`.

    Raises
    ------
    ConfigurationError
        Something cannot be as it was asked for, or is not installed.
    ServerUnavailable
        A server neither became ready nor ended.
    """
    members = {user: [GROUP] for user in check_names(users)}
    tritons = make_tritons(models, replicas=replicas, triton_server=triton_server, progress=progress)
    with ExitStack() as stack:
        directory = stack.enter_context(owned_directory("eaf-inference-facility-"))
        hub = HubServer(members, progress=progress)
        tokens = TokenServiceServer(hub.api_url, {}, directory / "tokens")
        gateway = GatewayServer(hub_api_url=hub.api_url)
        door = EnvoyServer(_door_of(tritons, tokens))
        prometheus = _prometheus(tritons, door, directory, progress)
        facility = SharedFacility(members, tritons, door, tokens, gateway, hub, prometheus)
        for server in facility.servers:
            stack.callback(server.stop)
        for server in facility.servers:  # comes before those: all end at the same time
            stack.callback(server.ask_to_stop)
        tokens.configuration = _told_to_users(facility)
        hub.services = Services(tokens.url, gateway.address)
        for server in (*tritons, tokens, gateway, hub):  # gateway and Hub launch their proxies
            server.launch()
        tokens.wait_until_ready(progress=progress)  # before those who ask it for its keys
        for server in (door, *filter(None, [prometheus])):
            server.launch()
        for server in facility.servers:
            server.wait_until_ready(progress=progress)
        yield facility


def check_names(users: Sequence[str]) -> list[str]:
    """The users, if the Hub can have such names and a home directory can be called so.

    Raises
    ------
    ConfigurationError
        There are none, one is there twice, or one is no name.
    """
    names = [user.strip() for user in users]
    wrong = [name for name in names if not (name.isascii() and name.isalnum() and name == name.lower())]
    if not names or wrong or len(set(names)) < len(names):
        raise ConfigurationError(
            f"{', '.join(users) or 'nothing'!r} are not the names of users. Expected one or several different names "
            "of lower-case letters and digits, separated by commas: --users alice,bob"
        )
    return names


def _door_of(tritons: Sequence[TritonServer], tokens: TokenServiceServer) -> Callable[[Place], Mapping[str, Any]]:
    models = sorted(each.name for path in tritons[0].repositories for each in path.iterdir() if each.is_dir())

    def configure(place: Place) -> Mapping[str, Any]:
        settings = Envoy(upstreams=[triton.grpc for triton in tritons], models=models, **asdict(place))
        return configuration(settings, TokenPolicy(jwks_url=tokens.jwks_url))

    return configure


def _told_to_users(facility: SharedFacility) -> dict[str, dict[str, Any]]:
    """What the token service is configured with, and tells every user in its facility document."""
    told = {
        "urls": [facility.door.url],
        "ca": facility.door.authority,
        "metrics_urls": [triton.metrics for triton in facility.tritons],
    }
    if facility.prometheus:
        told["usage_prometheus_url"] = facility.prometheus.url
    return {"Facility": told, "TokenIssuer": {"contact": "whoever started this facility"}}


def _prometheus(
    tritons: Sequence[TritonServer], door: EnvoyServer, directory: Path, progress: Callable[[str], None]
) -> PrometheusServer | None:
    try:
        prometheus_program()
    except NotInstalled as error:
        progress(f"no Prometheus, so that usage is not recorded: {error}")
        return None
    targets = {"triton": [triton.metrics for triton in tritons], "envoy": [door.metrics]}
    return PrometheusServer(targets, directory / "prometheus")
