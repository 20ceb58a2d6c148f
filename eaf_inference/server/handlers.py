"""The REST handlers; ``openapi.yaml`` describes their responses.

Two of them change one of the user's Dask clusters, with POST; the others only read. Jupyter Server's base class
checks authentication, origin and XSRF cookie.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado.web import HTTPError, authenticated

from eaf_inference.server.clusters import ClusterError

if TYPE_CHECKING:
    from eaf_inference.server.clusters import Clusters
    from eaf_inference.server.facility import ServedFacility
    from eaf_inference.server.usage import OwnUsage

__all__ = [
    "RESOURCE",
    "FacilityHandler",
    "HistoryHandler",
    "ScaleHandler",
    "ShutdownHandler",
    "TimelineHandler",
    "UsageHandler",
]

RESOURCE = "eaf-inference"  # the resource name for Jupyter Server's authorizer
_LONGEST_HISTORY, _LONGEST_TIMELINE = 600, 3600  # seconds
_MOST_WORKERS = 10_000  # per request; the gateway has its own limits


class _Handler(APIHandler):
    auth_resource = RESOURCE
    _track_activity = False  # periodic requests of a panel must not keep an idle server alive
    verb = "GET"

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Send the reason as JSON, and the allowed methods with status 405."""
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", f"{self.verb}, OPTIONS")
        super().write_error(status_code, **kwargs)

    def reply(self, content: Any) -> None:
        self.finish(json.dumps(content, allow_nan=False))

    def seconds(self, longest: int) -> int:
        """Return the query's seconds; the longest range by default."""
        # the raw bytes, because tornado's text lacks some characters
        text = self.request.query_arguments.get("seconds", [b"%d" % longest])[-1].decode("latin-1")
        if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= longest):
            raise HTTPError(HTTPStatus.BAD_REQUEST, f"Expected seconds to be a whole number from 1 to {longest}.")
        return int(text)


class FacilityHandler(_Handler):
    """The Triton service, its models and the user's identity, or why there is none."""

    def initialize(self, facility: ServedFacility) -> None:
        """Keep the shared objects."""
        self._facility = facility

    @authenticated
    @authorized
    async def get(self) -> None:
        """Send the state of the facility; after a failure, try again without waiting for the back-off."""
        self.reply(await self._facility.look(hurry=True))


class _ClusterHandler(_Handler):
    """Changes one of this user's clusters."""

    _track_activity = True
    verb = "POST"

    def initialize(self, clusters: Clusters) -> None:
        """Keep the shared objects."""
        self._clusters = clusters

    def refuse(self, error: ClusterError) -> None:
        """Send the reason why the cluster was not changed."""
        self.set_status(error.status)
        self.reply({"message": str(error)})


class ScaleHandler(_ClusterHandler):
    """Scales a cluster."""

    @authenticated
    @authorized
    async def post(self, name: str) -> None:
        """Answer when the gateway has accepted the number; workers start and stop later."""
        workers = self._workers()
        try:
            self.reply({"remark": await self._clusters.scale(name, workers)})
        except ClusterError as error:
            self.refuse(error)

    def _workers(self) -> int:
        try:
            content = json.loads(self.request.body)
        except (ValueError, RecursionError):  # ValueError: not JSON, or not UTF-8
            content = None
        workers = content.get("workers") if isinstance(content, dict) and len(content) == 1 else None
        if type(workers) is not int or not 0 <= workers <= _MOST_WORKERS:
            raise HTTPError(
                HTTPStatus.BAD_REQUEST,
                f'Expected {{"workers": n}} with a whole number from 0 to {_MOST_WORKERS}.',
            )
        return workers


class ShutdownHandler(_ClusterHandler):
    """Shuts a cluster down."""

    @authenticated
    @authorized
    async def post(self, name: str) -> None:
        """Answer when the gateway has accepted the request."""
        try:
            await self._clusters.shut_down(name)
        except ClusterError as error:
            self.refuse(error)
        else:
            self.reply({"remark": ""})


class UsageHandler(_Handler):
    """This user's own usage of the facility."""

    def initialize(self, usage: OwnUsage) -> None:
        """Keep the shared objects."""
        self._usage = usage

    @authenticated
    @authorized
    async def get(self) -> None:
        """Send the token service's answer, at most half a minute old."""
        self.reply(await self._usage.look())


class HistoryHandler(_Handler):
    """The snapshots of the last minutes, as far as they were recorded."""

    def initialize(self, facility: ServedFacility, clusters: Clusters) -> None:
        """Keep the shared objects."""
        self._facility = facility
        self._clusters = clusters

    @authenticated
    @authorized
    async def get(self) -> None:
        """Send the last ten minutes, or the requested seconds."""
        self.finish(await self._facility.history(self.seconds(_LONGEST_HISTORY), self._clusters.workers))


class TimelineHandler(_Handler):
    """The last hour in columns, as far as it was recorded."""

    def initialize(self, facility: ServedFacility) -> None:
        """Keep the shared objects."""
        self._facility = facility

    @authenticated
    @authorized
    async def get(self) -> None:
        """Send the last hour, or the requested seconds."""
        self.finish(await self._facility.timeline(self.seconds(_LONGEST_TIMELINE)))
