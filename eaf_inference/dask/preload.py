"""What Dask calls inside every `Client` that starts: `distributed.client.preload` names this module.

A failure here would be every Client's, so that nothing is imported before it is needed, and nothing raises; how it
went is in `%triton_status` and in the connection's repr.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client

    from eaf_inference.connection import Connection
    from eaf_inference.credentials import SecretText
    from eaf_inference.dask.link import Link

log = logging.getLogger(__name__)

_MADE_IN_A_TASK = "Client-worker-"  # how the ids of distributed.get_client() and worker_client() begin
_FIRST_ATTEMPT = 2.0  # seconds that a Client waits for its cluster's first configuration

_links: dict[str, Link] = {}  # by the client's id


async def dask_setup(client: Client) -> None:
    """Configure the cluster of a client that starts, where it is one of those to configure."""
    try:
        if _is_to_be_configured(client):
            link = _link_of(client)
            await link.first_attempt(_FIRST_ATTEMPT)
    except Exception:  # whatever it is, the user's Client is of more worth
        log.exception("The cluster was not connected to Triton")


async def dask_teardown(client: Client) -> None:
    """End with the client; tasks that go on without it have the token for as long as it lives."""
    link = _links.pop(client.id, None)
    if link is not None:
        link.stop()


def configure(client: Client, connection: Connection, hub_token: SecretText | None) -> Any:
    """Configure a cluster with this connection, and raise what prevents it; see `Connection.configure`."""
    from eaf_inference.errors import ConfigurationError

    if _address(client).startswith("inproc://"):
        raise ConfigurationError(
            "This cluster's workers are threads of this process: they have its connection already. "
            "Nothing is to be configured."
        )

    async def use() -> None:
        link = _links.get(client.id) or _link_of(client)
        await link.use(connection)
        if hub_token is not None:
            await link.pull(hub_token)

    return client.sync(use)  # type: ignore[no-untyped-call]


def _link_of(client: Client) -> Link:
    from eaf_inference.dask.link import Link

    name = getattr(client.cluster, "name", None) or _address(client)
    link = _links[client.id] = Link(client, name)
    link.start()
    return link


def _is_to_be_configured(client: Client) -> bool:
    from eaf_inference.config import load_facility
    from eaf_inference.injected import injected

    if injected() is not None or client.id.startswith(_MADE_IN_A_TASK):
        return False
    scheme, which = _address(client).partition("://")[0], load_facility().configure_clusters
    if scheme == "inproc":  # its workers are this process, and have what it has
        return False
    return which == "all" or (which == "gateway" and scheme == "gateway")


def _address(client: Client) -> str:
    scheduler: Any = client.scheduler
    return str(scheduler.address)
