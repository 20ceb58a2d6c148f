"""How Jupyter Server loads the extension: its addresses and a socket for kernels, and nobody is asked for anything.

The facility is looked for when the first browser wants to know, so that a broken or absent one neither stops nor
slows the start of `jupyter lab`, `jupyter server` or `jupyterhub-singleuser`.
"""

from __future__ import annotations

from jupyter_server.extension.application import ExtensionApp

from eaf_inference.server.clusters import Clusters
from eaf_inference.server.facility import ServedFacility
from eaf_inference.server.handlers import (
    ClustersHandler,
    FacilityHandler,
    HistoryHandler,
    ScaleHandler,
    ShutdownHandler,
    TimelineHandler,
    UsageHandler,
)
from eaf_inference.server.kernels import KernelServer
from eaf_inference.server.stream import Broadcast, StreamHandler
from eaf_inference.server.usage import OwnUsage

__all__ = ["InferenceExtension"]

_API = "/eaf-inference/api"  # below the server's base URL


class InferenceExtension(ExtensionApp):
    """What all browsers of this server share: one facility, one list of clusters, one usage, one broadcast."""

    name = "eaf_inference"

    def initialize_handlers(self) -> None:
        """Make the addresses known."""
        facility, clusters = ServedFacility(), Clusters()
        self._facility, self._clusters, self._broadcast = facility, clusters, Broadcast(facility, clusters)
        self._kernels = KernelServer(self._broadcast, facility, clusters)
        self.handlers.extend(
            [
                (f"{_API}/facility", FacilityHandler, {"facility": facility}),
                (f"{_API}/clusters", ClustersHandler, {"clusters": clusters}),
                (f"{_API}/clusters/([^/]+)/scale", ScaleHandler, {"clusters": clusters}),
                (f"{_API}/clusters/([^/]+)/shutdown", ShutdownHandler, {"clusters": clusters}),
                (f"{_API}/usage", UsageHandler, {"usage": OwnUsage()}),
                (f"{_API}/history", HistoryHandler, {"facility": facility, "clusters": clusters}),
                (f"{_API}/timeline", TimelineHandler, {"facility": facility}),
                (f"{_API}/stream", StreamHandler, {"broadcast": self._broadcast}),
            ]
        )

    async def stop_extension(self) -> None:
        """When Jupyter Server ends: nothing of ours holds it up."""
        self._kernels.close()
        await self._broadcast.close()
        await self._clusters.close()
        await self._facility.close()
