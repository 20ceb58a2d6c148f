"""The REST addresses; what they answer is described in ``openapi.yaml``.

Most of them only read, with GET. Two change a Dask cluster of this user's, with POST. Who is let in, from which
origins and with which cookies (XSRF), is decided by Jupyter Server's own base class.
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
    "ClustersHandler",
    "FacilityHandler",
    "HistoryHandler",
    "ScaleHandler",
    "ShutdownHandler",
    "TimelineHandler",
    "UsageHandler",
]

RESOURCE = "eaf-inference"  # for who decides what a user may do
_LONGEST_HISTORY, _LONGEST_TIMELINE = 600, 3600  # seconds
_MOST_WORKERS = 10_000  # that may be asked for; the gateway has limits of its own


class _Handler(APIHandler):
    auth_resource = RESOURCE
    _track_activity = False  # a panel that asks by itself must not keep an idle server alive
    verb = "GET"

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Give the reason as JSON, and with 405 what is allowed."""
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", f"{self.verb}, OPTIONS")
        super().write_error(status_code, **kwargs)

    def reply(self, content: Any) -> None:
        self.finish(json.dumps(content, allow_nan=False))

    def seconds(self, longest: int) -> int:
        """How many are asked for; all there are, if the query does not say."""
        said = self.request.query_arguments.get("seconds", [b"%d" % longest])[
            -1
        ]  # tornado's text lacks some characters
        text = said.decode("latin-1")
        if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= longest):
            raise HTTPError(HTTPStatus.BAD_REQUEST, f"seconds is not a whole number from 1 to {longest}")
        return int(text)


class FacilityHandler(_Handler):
    """Where Triton is, what it serves, and as whom it is reached; or why not."""

    def initialize(self, facility: ServedFacility) -> None:
        """Take what is served."""
        self._facility = facility

    @authenticated
    @authorized
    async def get(self) -> None:
        """Answer once that is known; who asks again after a failure does not wait for the back-off."""
        self.reply(await self._facility.look(hurry=True))


class ClustersHandler(_Handler):
    """This user's Dask clusters."""

    def initialize(self, clusters: Clusters) -> None:
        """Take what is served."""
        self._clusters = clusters

    @authenticated
    @authorized
    async def get(self) -> None:
        """Answer with what the gateway says, or said a few seconds ago."""
        self.reply(await self._clusters.look())


class _ClusterHandler(_Handler):
    """Changes one of this user's clusters."""

    _track_activity = True
    verb = "POST"

    def initialize(self, clusters: Clusters) -> None:
        """Take what is served."""
        self._clusters = clusters

    def refuse(self, error: ClusterError) -> None:
        """Say why it was not done."""
        self.set_status(error.status)
        self.reply({"message": str(error)})


class ScaleHandler(_ClusterHandler):
    """Asks for more workers, or for fewer."""

    @authenticated
    @authorized
    async def post(self, name: str) -> None:
        """Answer once the gateway has taken the wish; workers come and go later."""
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
                f'Expected {{"workers": n}}, n being a whole number from 0 to {_MOST_WORKERS}.',
            )
        return workers


class ShutdownHandler(_ClusterHandler):
    """Shuts a cluster down."""

    @authenticated
    @authorized
    async def post(self, name: str) -> None:
        """Answer once the gateway stops it."""
        try:
            await self._clusters.shut_down(name)
        except ClusterError as error:
            self.refuse(error)
        else:
            self.reply({"remark": ""})


class UsageHandler(_Handler):
    """What this user had of the facility."""

    def initialize(self, usage: OwnUsage) -> None:
        """Take what is served."""
        self._usage = usage

    @authenticated
    @authorized
    async def get(self) -> None:
        """Answer with what the token service says, or said within this minute."""
        self.reply(await self._usage.look())


class HistoryHandler(_Handler):
    """The last minutes, as far as anybody listened."""

    def initialize(self, facility: ServedFacility, clusters: Clusters) -> None:
        """Take what is served."""
        self._facility = facility
        self._clusters = clusters

    @authenticated
    @authorized
    async def get(self) -> None:
        """Answer with the last ten minutes, or as many seconds as are asked for."""
        self.finish(await self._facility.history(self.seconds(_LONGEST_HISTORY), self._clusters.workers))


class TimelineHandler(_Handler):
    """The last hour in columns, as far as anybody listened."""

    def initialize(self, facility: ServedFacility) -> None:
        """Take what is served."""
        self._facility = facility

    @authenticated
    @authorized
    async def get(self) -> None:
        """Answer with the last hour, or as many seconds as are asked for."""
        self.finish(await self._facility.timeline(self.seconds(_LONGEST_TIMELINE)))
