"""List, scale and shut down this user's Dask clusters, through the gateway and the clusters' schedulers.

The gateway also lists clusters that notebooks created. Their schedulers are reached with the certificates that the
gateway gives to a cluster's owner. No `distributed.Client` is created, because our preload would configure the
cluster of every client.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import time
import warnings
from dataclasses import asdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from eaf_inference._redact import redact
from eaf_inference.discovery import local_facility
from eaf_inference.metrics.reading import clip
from eaf_inference.metrics.workers import Workers, sums_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

__all__ = ["ClusterError", "Clusters"]

log = logging.getLogger(__name__)

_FRESH = 5.0  # seconds for which a list is current
_KNOWN = 60.0  # seconds for which it is used for advice and for new browsers
_WITHIN = 8.0  # seconds for the gateway and all schedulers to answer
_SCHEDULER_WITHIN = 4.0  # seconds for one scheduler to answer
_MOST = 20  # clusters that are listed
_LATE = f"The Dask Gateway did not answer within {_WITHIN:.0f} s. Try again, or tell its operators."

T = TypeVar("T")


class ClusterError(Exception):
    """A cluster was not changed.

    Attributes
    ----------
    status : HTTPStatus
        Not found, conflict with the cluster's state, bad gateway, or gateway timeout.
    """

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Clusters:
    """The list of clusters, requested on demand when the last one is outdated, and changes to clusters.

    Attributes
    ----------
    changed : callable
        Called after each request for the list.
    """

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._reply: dict[str, Any] = {"clusters": [], "problem": None}
        self._text = ""
        self._asked = self._due = float("-inf")
        self._asking: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    def look_soon(self) -> asyncio.Task[None] | None:
        """Start a request unless the list is current; return the pending request, if any."""
        if self._asking is None and time.monotonic() >= self._due:
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        return self._asking

    @property
    def text(self) -> str:
        """The list as a frame for browsers; empty if none is known."""
        return self._text if time.monotonic() - self._asked < _KNOWN else ""

    @property
    def workers(self) -> Workers | None:
        """The number of all clusters' workers and their total rate, if known."""
        if time.monotonic() - self._asked > _KNOWN:
            return None
        return Workers.of(self._reply["clusters"])

    async def scale(self, name: str, workers: int) -> str:
        """Ask the gateway for this many workers.

        Returns
        -------
        str
            The gateway's remark, such as a limit that it applied, or empty.

        Raises
        ------
        ClusterError
        """
        return await self._change(name, lambda gateway: _scale(gateway, name, workers))

    async def shut_down(self, name: str) -> None:
        """Ask the gateway to stop the cluster.

        Raises
        ------
        ClusterError
        """
        await self._change(name, lambda gateway: gateway.stop_cluster(name))

    async def close(self) -> None:
        """Cancel a pending request."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    async def _change(self, name: str, change: Callable[[Any], Awaitable[T]]) -> T:
        """Change one cluster at a time, then request the list again."""
        try:
            async with self._changing:
                return await asyncio.wait_for(_changed(name, change), _WITHIN)
        except ClusterError:
            raise
        except asyncio.TimeoutError:
            raise ClusterError(HTTPStatus.GATEWAY_TIMEOUT, _LATE) from None
        except Exception as error:  # dask_gateway raises various errors, depending on its version
            log.debug("cluster %s cannot be changed", name, exc_info=True)
            raise ClusterError(HTTPStatus.BAD_GATEWAY, _failed(error)) from error
        finally:
            self._due = float("-inf")
            self.look_soon()

    async def _ask(self) -> None:
        problem, rows = None, []
        try:
            rows = await asyncio.wait_for(_clusters(), _WITHIN)
        except asyncio.TimeoutError:
            problem = _LATE
        except Exception as error:  # likewise; the panel shows the rest without the list
            log.debug("the request to the Dask Gateway failed", exc_info=True)
            problem = _failed(error)
        finally:
            self._asked, self._asking = time.monotonic(), None
            self._due = self._asked + _FRESH
            self._reply = {"clusters": rows, "problem": problem}
            self._text = json.dumps({"type": "clusters", **self._reply}, allow_nan=False)
        self.changed()


async def _clusters() -> list[dict[str, Any]]:
    make_gateway = await asyncio.to_thread(_configured_gateway)
    if make_gateway is None:
        return []
    async with make_gateway() as gateway:
        reports = await gateway.list_clusters()
        return list(await asyncio.gather(*(_row(gateway, report) for report in reports[:_MOST])))


async def _changed(name: str, change: Callable[[Any], Awaitable[T]]) -> T:
    make_gateway = await asyncio.to_thread(_configured_gateway)
    if make_gateway is not None:
        from dask_gateway import GatewayClusterError

        async with make_gateway() as gateway:
            # the gateway reports no error for unknown clusters, and its list has only this user's
            if any(report.name == name for report in await gateway.list_clusters()):
                try:
                    return await change(gateway)
                except GatewayClusterError as error:
                    message = redact(f"The Dask Gateway refused: {error}. Try again once the cluster is running.")
                    raise ClusterError(HTTPStatus.CONFLICT, message) from error
    raise ClusterError(
        HTTPStatus.NOT_FOUND, f"You have no running cluster {clip(name)!r}. It may have been shut down."
    )


async def _scale(gateway: Any, name: str, workers: int) -> str:
    from dask_gateway import GatewayWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", GatewayWarning)  # the client's way to report what the gateway changed
        try:
            await gateway.scale_cluster(name, workers)
        except GatewayWarning as remark:
            return clip(redact(str(remark)))
    return ""


def _failed(error: Exception) -> str:
    return redact(
        f"The request to the Dask Gateway failed ({type(error).__name__}: {error}). Try again, or tell its operators."
    )


def _configured_gateway() -> Callable[[], Any] | None:
    """Return a factory for the gateway in the Dask configuration, or of a facility on this machine, if any."""
    if importlib.util.find_spec("dask_gateway") is None:
        return None
    import dask.config
    from dask_gateway import Gateway  # its first import takes a second

    address, auth = None, None  # Gateway then uses Dask's configuration
    if dask.config.get("gateway.address", None) is None:
        address = next((each.gateway.address for each in local_facility.running() if each.gateway), None)
        auth = local_facility.GATEWAY_AUTH
        if address is None:
            return None

    def make() -> Any:
        # a proxy in http_proxy would see the password or Hub token; only one in Dask's configuration is used
        proxy = dask.config.get("gateway.http-client.proxy", None)
        with dask.config.set({"gateway.http-client.proxy": False if proxy in (None, True) else proxy}):
            return Gateway(address, auth=auth, asynchronous=True)

    return make


async def _row(gateway: Any, report: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": clip(report.name),
        "status": report.status.name.lower(),
        "started": report.start_time.timestamp(),
        "workers": None,
        "configured": None,
        "inferences_per_second": None,
        "oldest_token": None,
        "dashboard": report.dashboard_link,
    }
    if report.scheduler_address is None:
        return row
    try:
        identity = await asyncio.wait_for(_identity(gateway, report.name), _SCHEDULER_WITHIN)
    except Exception:  # one cluster that is ending must not hide the others
        log.debug("the scheduler of %s does not answer", report.name, exc_info=True)
        return row
    return row | asdict(sums_of(identity["workers"].values()))


async def _identity(gateway: Any, name: str) -> Mapping[str, Any]:
    from distributed.core import rpc

    report = await gateway.get_cluster(name)  # with its certificates, which the list lacks
    arguments = await asyncio.to_thread(report.security.get_connection_args, "client")
    scheduler = rpc(report.scheduler_address, deserialize=False, connection_args=arguments)  # type: ignore[no-untyped-call]
    try:
        identity: Mapping[str, Any] = await scheduler.identity(n_workers=-1)
        return identity
    finally:
        with contextlib.suppress(OSError):
            await scheduler.close_rpc()  # type: ignore[no-untyped-call]
