"""What `connect` changes in the running Dask configuration, so that clusters come up connected.

Imports Dask's configuration only: a client without clusters does not wait for the rest.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import dask.config

from eaf_inference import local
from eaf_inference.dask.gateway import use_facility_gateway, use_local_gateway

if TYPE_CHECKING:
    from eaf_inference.connection import Connection

__all__ = ["PRELOAD", "bring_clusters_up_connected"]

PRELOAD = "eaf_inference.dask.preload"  # also in etc/dask/eaf_inference.yaml, which the wheel installs
_CLIENT_PRELOADS = "distributed.client.preload"


def bring_clusters_up_connected(connection: Connection) -> None:
    """Have every Dask client that is made from now on look at its cluster (see `preload`).

    A configuration file of the facility's may have replaced the list in ours, so the running one is appended to.
    Where the connection is to a facility on this machine, or one that names its gateway, ``Gateway()`` finds that.
    """
    there = dask.config.get(_CLIENT_PRELOADS, None) or []
    preloads = [there] if isinstance(there, str) else list(there)
    if PRELOAD not in preloads and connection.facility.configure_clusters != "none":
        dask.config.set({_CLIENT_PRELOADS: [*preloads, PRELOAD]})
    announcements = logging.getLogger("distributed.preloading")
    if announcements.level == logging.NOTSET:  # three lines for each client that a notebook makes
        announcements.setLevel(logging.WARNING)
    here = local.serving(connection.endpoint.urls)
    if here is None:
        use_facility_gateway(connection.facility)
    else:
        use_local_gateway(here)
