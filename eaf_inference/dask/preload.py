"""The preload module of Dask clients (`distributed.client.preload`): Dask calls it in every `Client` that starts.

A failure here would affect every Client, so modules are imported only when they are needed and nothing raises. The
outcome is in `%triton_status` and in the connection's repr.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client

    from eaf_inference._redact import SecretText
    from eaf_inference.connection import Connection
    from eaf_inference.dask.link import Link

log = logging.getLogger(__name__)

_MADE_IN_A_TASK = "Client-worker-"  # the prefix of ids of distributed.get_client() and worker_client()
_FIRST_ATTEMPT = 2.0  # seconds that a Client waits for its cluster's first configuration

_links: dict[str, Link] = {}  # by client id


async def dask_setup(client: Client) -> None:
    """Configure the cluster of a new client, if the configuration asks for it."""
    try:
        if _is_to_be_configured(client):
            link = _link_of(client)
            await link.first_attempt(_FIRST_ATTEMPT)
    except Exception:  # the user's Client must start in any case
        log.exception("The cluster was not connected to Triton")


async def dask_teardown(client: Client) -> None:
    """Stop the link with its client; tasks that continue without it keep the token until it expires."""
    link = _links.pop(client.id, None)
    if link is not None:
        link.stop()


def configure(client: Client, connection: Connection, hub_token: SecretText | None) -> Any:
    """Configure a cluster with this connection, or raise the error; see `Connection.configure`."""
    from eaf_inference.errors import ConfigurationError
    from eaf_inference.inference.wrong_input import kind_of

    distributed = sys.modules.get("distributed")  # imported if there is a client
    if distributed is None or not isinstance(client, distributed.Client):
        raise ConfigurationError(
            f"client is {kind_of(client)}. Expected a distributed.Client, as cluster.get_client() returns it."
        )
    if _address(client).startswith("inproc://"):
        raise ConfigurationError(
            "This cluster's workers are threads of this process and use its connection already. "
            "There is nothing to configure."
        )

    async def use() -> None:
        link = _links.get(client.id) or _link_of(client)
        await link.use(connection)
        if hub_token is not None:
            await link.pull(hub_token)

    return client.sync(use)


def _link_of(client: Client) -> Link:
    from eaf_inference.dask.link import Link

    name = getattr(client.cluster, "name", None) or _address(client)
    link = _links[client.id] = Link(client, name)
    link.start()
    return link


def _is_to_be_configured(client: Client) -> bool:
    from eaf_inference.auth.worker_session import worker_session
    from eaf_inference.config import load_facility

    if worker_session() is not None or client.id.startswith(_MADE_IN_A_TASK):
        return False
    scheme, which = _address(client).partition("://")[0], load_facility().configure_clusters
    if scheme == "inproc":  # its workers run in this process and use its connection
        return False
    return which == "all" or (which == "gateway" and scheme == "gateway")


def _address(client: Client) -> str:
    scheduler: Any = client.scheduler
    return str(scheduler.address)
