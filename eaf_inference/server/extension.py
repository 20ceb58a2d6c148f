"""The Jupyter Server extension: it adds the REST handlers and the socket for kernels, and contacts no server.

Discovery starts when the first browser asks, so that a broken or missing facility neither prevents nor delays the
start of `jupyter lab`, `jupyter server` or `jupyterhub-singleuser`.
"""

from __future__ import annotations

from jupyter_server.extension.application import ExtensionApp

from eaf_inference.server.clusters import Clusters
from eaf_inference.server.facility import ServedFacility
from eaf_inference.server.handlers import (
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
    """The objects that all browsers of this server share: facility, clusters, usage and broadcast."""

    name = "eaf_inference"

    def initialize_handlers(self) -> None:
        """Register the handlers."""
        facility, clusters = ServedFacility(), Clusters()
        self._facility, self._clusters, self._broadcast = facility, clusters, Broadcast(facility, clusters)
        self._kernels = KernelServer(self._broadcast, facility, clusters)
        self.handlers.extend(
            [
                (f"{_API}/facility", FacilityHandler, {"facility": facility}),
                (f"{_API}/clusters/([^/]+)/scale", ScaleHandler, {"clusters": clusters}),
                (f"{_API}/clusters/([^/]+)/shutdown", ShutdownHandler, {"clusters": clusters}),
                (f"{_API}/usage", UsageHandler, {"usage": OwnUsage()}),
                (f"{_API}/history", HistoryHandler, {"facility": facility, "clusters": clusters}),
                (f"{_API}/timeline", TimelineHandler, {"facility": facility}),
                (f"{_API}/stream", StreamHandler, {"broadcast": self._broadcast}),
            ]
        )

    async def stop_extension(self) -> None:
        """Close everything when Jupyter Server stops, without delaying it."""
        self._kernels.close()
        await self._broadcast.close()
        await self._clusters.close()
        await self._facility.close()
