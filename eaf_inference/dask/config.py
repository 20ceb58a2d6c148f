"""Changes of `connect` to the running Dask configuration, so that new clusters are connected to Triton.

Imports only Dask's configuration, because a client without clusters should not wait for the rest of Dask.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import dask.config

from eaf_inference.dask.gateway import use_facility_gateway, use_local_gateway
from eaf_inference.discovery import local_facility

if TYPE_CHECKING:
    from eaf_inference.connection import Connection

__all__ = ["bring_clusters_up_connected"]

_PRELOAD = "eaf_inference.dask.preload"  # also in etc/dask/eaf_inference.yaml, which the wheel installs
_CLIENT_PRELOADS = "distributed.client.preload"


def bring_clusters_up_connected(connection: Connection) -> None:
    """Make every new Dask client configure its cluster (see `preload`).

    The running configuration is extended because a configuration file of the facility may have replaced the list in
    ours. If the facility is on this machine, or names its gateway, ``Gateway()`` will connect to its gateway.
    """
    configured = dask.config.get(_CLIENT_PRELOADS, None) or []
    preloads = [configured] if isinstance(configured, str) else list(configured)
    if _PRELOAD not in preloads and connection.facility.configure_clusters != "none":
        dask.config.set({_CLIENT_PRELOADS: [*preloads, _PRELOAD]})
    announcements = logging.getLogger("distributed.preloading")
    if announcements.level == logging.NOTSET:  # Dask would log three lines for each client in a notebook
        announcements.setLevel(logging.WARNING)
    local = local_facility.serving(connection.endpoint.urls)
    if local is None:
        use_facility_gateway(connection.facility)
    else:
        use_local_gateway(local)
