"""A facility for several users on this machine: the servers of a shared facility, as real processes on loopback.

They are JupyterHub with its token service, Envoy with TLS in front of the Tritons, a Dask Gateway for the Hub's
users, and Prometheus if it is installed. The one difference from a shared facility: users' notebooks, clusters and
files belong to the account that started it, so that the Hub isolates users from one another but the operating system
does not.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from eaf_facility.envoy.configuration import configuration
from eaf_facility.envoy.settings import Envoy
from eaf_facility.local.model_store import ModelStore, model_store
from eaf_facility.local.single_user import make_tritons
from eaf_facility.process.restarts import keep_running
from eaf_facility.process.server import ignore, owned_directory
from eaf_facility.servers.dask_gateway import DaskGatewayServer
from eaf_facility.servers.envoy import EnvoyServer, Place
from eaf_facility.servers.jupyterhub import GROUP, JupyterHubServer, Services
from eaf_facility.servers.prometheus import NotInstalled, PrometheusServer, prometheus_program
from eaf_facility.servers.token_service import TokenServiceServer
from eaf_facility.token_policy import TokenPolicy
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from eaf_facility.process.server import Server
    from eaf_facility.servers.triton import TritonServer

__all__ = ["ONE_ACCOUNT", "SharedFacility", "up_for"]

ONE_ACCOUNT = (
    "All users' notebooks, clusters and files belong to this one account of the machine: the Hub isolates users from "
    "one another, but the operating system does not."
)


@dataclass(frozen=True, slots=True)
class SharedFacility:
    """What `up_for` started."""

    users: Mapping[str, Sequence[str]]
    tritons: tuple[TritonServer, ...]
    envoy: EnvoyServer
    token_service: TokenServiceServer
    gateway: DaskGatewayServer
    hub: JupyterHubServer
    prometheus: PrometheusServer | None
    store: ModelStore

    @property
    def servers(self) -> tuple[Server, ...]:
        """All servers, each after those it depends on."""
        prometheus = (self.prometheus,) if self.prometheus else ()
        behind = (*self.store.servers, *self.tritons, self.token_service, self.envoy, *prometheus)
        return (*behind, self.gateway.proxy, self.gateway, self.hub.proxy, self.hub)

    @property
    def addresses(self) -> dict[str, str]:
        """The address of each server, by its name, for people to read."""
        found = {triton.name: triton.grpc for triton in self.tritons}
        found |= {server.name: server.endpoint for server in self.store.servers}
        found |= {self.envoy.name: self.envoy.url, self.token_service.name: self.token_service.base_url}
        found |= {self.gateway.name: self.gateway.address, self.hub.name: self.hub.url}
        return found | ({self.prometheus.name: self.prometheus.url} if self.prometheus else {})

    def as_dict(self) -> dict[str, Any]:
        """Return the output of `eaf-inference up --users … --json`; it holds no secret."""
        return {
            "pid": os.getpid(),
            "users": {user: list(groups) for user, groups in self.users.items()},
            "url": self.hub.url,
            "password_file": str(self.hub.password_file),
            "operator_token_file": str(self.hub.operator_token_file),
            "ca": str(self.envoy.ca),
            "access_log": str(self.envoy.access_log),
            "cluster_logs": str(self.gateway.cluster_logs),
            "model_store": self.store.url,
            "model_store_endpoint": self.store.endpoint,
            "servers": {
                server.name: {"url": self.addresses.get(server.name), "pid": server.pid, "log": str(server.log)}
                for server in self.servers
            },
            "note": ONE_ACCOUNT,
        }

    def watch(self, *, progress: Callable[[str], None] = ignore) -> Server:
        """Restart every server that dies, until one keeps crashing; see `restarts.keep_running`."""
        return keep_running(self.servers, progress=progress)


@contextmanager
def up_for(
    users: Sequence[str],
    models: Sequence[Path | str] = (),
    *,
    replicas: int = 2,
    triton_server: Path | str | None = None,
    store: Path | str | None = None,
    progress: Callable[[str], None] = ignore,
) -> Iterator[SharedFacility]:
    """Run a facility for these users for the duration of a `with` block, which begins when it is ready.

    Parameters
    ----------
    users
        Their names; all may use inference. Their common password is in a file, see `SharedFacility.as_dict`.
    models, replicas, triton_server, store, progress
        As for `eaf_facility.local.single_user.up`.

    Raises
    ------
    ConfigurationError
        An argument is invalid, a server did not start, or something is not installed.
    ServerUnavailable
        A server neither became ready nor ended.
    """
    members = {user: [GROUP] for user in check_names(users)}
    with ExitStack() as stack:
        models_of_users = stack.enter_context(model_store(store, progress=progress))
        tritons = make_tritons(
            models,
            replicas=replicas,
            triton_server=triton_server,
            store=models_of_users,
            # the token service writes users' configurations: nothing else may make Triton load a model
            complete_configs=models_of_users.stand_in is None,
            progress=progress,
        )
        directory = stack.enter_context(owned_directory("eaf-inference-facility-"))
        hub = JupyterHubServer(members, progress=progress)
        token_service = TokenServiceServer(hub.api_url, {}, directory / "tokens")
        gateway = DaskGatewayServer(hub_api_url=hub.api_url)
        envoy = EnvoyServer(_envoy_for(tritons, token_service))
        prometheus = _prometheus(tritons, envoy, directory, progress)
        facility = SharedFacility(members, tritons, envoy, token_service, gateway, hub, prometheus, models_of_users)
        for server in facility.servers:
            stack.callback(server.stop)
        for server in facility.servers:  # runs before the stops above, so that all end at the same time
            stack.callback(server.ask_to_stop)
        token_service.configuration = _token_service_configuration(facility)
        hub.services = Services(token_service.url, gateway.address)
        for server in (*tritons, token_service, gateway, hub):  # gateway and Hub launch their proxies
            server.launch()
        token_service.wait_until_ready(progress=progress)  # before Envoy, which fetches its keys
        for server in (envoy, *filter(None, [prometheus])):
            server.launch()
        for server in facility.servers:
            server.wait_until_ready(progress=progress)
        yield facility


def check_names(users: Sequence[str]) -> list[str]:
    """Return the users' names if the Hub accepts them and they can be names of home directories.

    Raises
    ------
    ConfigurationError
        There are none, a name is invalid, or two are equal.
    """
    names = [user.strip() for user in users]
    wrong = [name for name in names if not (name.isascii() and name.isalnum() and name == name.lower())]
    if not names or wrong or len(set(names)) < len(names):
        raise ConfigurationError(
            f"{', '.join(users) or 'nothing'!r} is not a list of user names. Expected one or several different names "
            "of lower-case letters and digits, separated by commas: --users alice,bob"
        )
    return names


def _envoy_for(
    tritons: Sequence[TritonServer], token_service: TokenServiceServer
) -> Callable[[Place], Mapping[str, Any]]:
    models = sorted(each.name for path in tritons[0].repositories for each in path.iterdir() if each.is_dir())

    def configure(place: Place) -> Mapping[str, Any]:
        settings = Envoy(upstreams=[triton.grpc for triton in tritons], models=models, **asdict(place))
        return configuration(settings, TokenPolicy(jwks_url=token_service.jwks_url))

    return configure


def _token_service_configuration(facility: SharedFacility) -> dict[str, dict[str, Any]]:
    """Return the token service's sections; it serves `Facility` to every user as the facility document."""
    document = {
        "urls": [facility.envoy.url],
        "ca": facility.envoy.authority,
        "metrics_urls": [triton.metrics for triton in facility.tritons],
        "model_store_service": True,
        **facility.store.served_settings(),
    }
    if facility.prometheus:
        document["usage_prometheus_url"] = facility.prometheus.url
    return {
        "Facility": document,
        "ModelStore": facility.store.service_settings(),
        "TokenIssuer": {"contact": "the person who started this facility"},
    }


def _prometheus(
    tritons: Sequence[TritonServer], envoy: EnvoyServer, directory: Path, progress: Callable[[str], None]
) -> PrometheusServer | None:
    try:
        prometheus_program()
    except NotInstalled as error:
        progress(f"without Prometheus, usage is not recorded: {error}")
        return None
    targets = {"triton": [triton.metrics for triton in tritons], "envoy": [envoy.metrics]}
    return PrometheusServer(targets, directory / "prometheus")
