"""The REST addresses; what they answer is described in ``openapi.yaml``.

They read and change nothing, so their only verb is GET. Who is let in, which origins and which cookies, is decided by
Jupyter Server's own base class.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado.web import HTTPError, authenticated

if TYPE_CHECKING:
    from eaf_inference.server.clusters import Clusters
    from eaf_inference.server.facility import ServedFacility
    from eaf_inference.server.usage import OwnUsage

__all__ = ["RESOURCE", "ClustersHandler", "FacilityHandler", "HistoryHandler", "UsageHandler"]

RESOURCE = "eaf-inference"  # for who decides what a user may do
_LONGEST = 600  # seconds of history


class _Handler(APIHandler):
    auth_resource = RESOURCE
    _track_activity = False  # a panel that asks by itself must not keep an idle server alive

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Give the reason as JSON, and with 405 what is allowed."""
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", "GET, OPTIONS")
        super().write_error(status_code, **kwargs)

    def reply(self, content: Any) -> None:
        self.finish(json.dumps(content, allow_nan=False))


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
        self.finish(await self._facility.history(self._seconds(), self._clusters.workers))

    def _seconds(self) -> int:
        text = self.get_query_argument("seconds", str(_LONGEST))
        if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= _LONGEST):
            raise HTTPError(HTTPStatus.BAD_REQUEST, f"seconds is not a whole number from 1 to {_LONGEST}")
        return int(text)
