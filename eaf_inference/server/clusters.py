"""This user's Dask clusters: as the gateway lists them and their schedulers describe them; scaled and shut down.

Clusters that were made in notebooks are seen too, because the gateway is asked and not this process's memory. Their
schedulers are reached with the certificates that the gateway gives to the cluster's owner. No `distributed.Client` is
made: it would be another client of the cluster, which our own preload would configure.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import time
import warnings
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from eaf_inference import local
from eaf_inference._redact import redact
from eaf_inference.metrics.advice import Workers
from eaf_inference.metrics.reading import clip

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

__all__ = ["ClusterError", "Clusters"]

log = logging.getLogger(__name__)

_METRICS = "eaf_inference"  # the name of ours among a worker's, see eaf_inference.dask.worker_plugin
_LOCAL_AUTH = "eaf_inference.dask.auth.LocalGatewayAuth"  # which dask_gateway finds by its name
_FRESH = 5.0  # seconds for which a list is good
_KNOWN = 60.0  # seconds for which it serves advice, and a browser that has just come
_WITHIN = 8.0  # seconds for all of it, and …
_SCHEDULER_WITHIN = 4.0  # … for one scheduler
_MOST = 20  # clusters that are asked
_LATE = f"The Dask Gateway does not answer within {_WITHIN:.0f} s."

T = TypeVar("T")


class ClusterError(Exception):
    """Why a cluster was not changed.

    Attributes
    ----------
    status : HTTPStatus
        Not found, in conflict with the cluster's state, or the gateway failed or did not answer.
    """

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Clusters:
    """The list, asked for when somebody wants it and the last one is old; and what changes a cluster.

    Attributes
    ----------
    changed : callable
        Called after each look.
    """

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._reply: dict[str, Any] = {"clusters": [], "problem": None}
        self._text = ""
        self._asked = self._due = float("-inf")
        self._asking: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    async def look(self) -> dict[str, Any]:
        """The clusters, at most a few seconds old; ``problem`` says why there are none to see."""
        task = self.look_soon()
        if task is not None:
            await asyncio.shield(task)
        return self._reply

    def look_soon(self) -> asyncio.Task[None] | None:
        """Begin to look, if the last list is old and none is under way; what is under way then."""
        if self._asking is None and time.monotonic() >= self._due:
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        return self._asking

    @property
    def text(self) -> str:
        """The list, for a browser; empty where none is known."""
        return self._text if time.monotonic() - self._asked < _KNOWN else ""

    @property
    def workers(self) -> Workers | None:
        """All clusters' workers and what they get together, where that is known."""
        if time.monotonic() - self._asked > _KNOWN:
            return None
        rows = [row for row in self._reply["clusters"] if row["inferences_per_second"] is not None]
        count = sum(row["configured"] or 0 for row in rows)
        return Workers(count, sum(row["inferences_per_second"] for row in rows)) if count else None

    async def scale(self, name: str, workers: int) -> str:
        """Ask the gateway for this many workers.

        Returns
        -------
        str
            What the gateway remarks, such as a limit that it applies; empty if nothing.

        Raises
        ------
        ClusterError
        """
        return await self._change(name, lambda gateway: _scale(gateway, name, workers))

    async def shut_down(self, name: str) -> None:
        """Have the gateway stop the cluster.

        Raises
        ------
        ClusterError
        """
        await self._change(name, lambda gateway: gateway.stop_cluster(name))

    async def close(self) -> None:
        """End a look that is under way."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    async def _change(self, name: str, change: Callable[[Any], Awaitable[T]]) -> T:
        """Change one cluster, one at a time, and look at all of them again."""
        try:
            async with self._changing:
                return await asyncio.wait_for(_changed(name, change), _WITHIN)
        except ClusterError:
            raise
        except asyncio.TimeoutError:
            raise ClusterError(HTTPStatus.GATEWAY_TIMEOUT, _LATE) from None
        except Exception as error:  # as below
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
        except Exception as error:  # whatever a gateway's client of any version raises: this is one list of a panel
            log.debug("the Dask Gateway cannot be asked", exc_info=True)
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
            # it stops unknown clusters without complaint; the list has this user's only
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
        warnings.simplefilter("error", GatewayWarning)  # how the gateway's client passes on what it did differently
        try:
            await gateway.scale_cluster(name, workers)
        except GatewayWarning as remark:
            return clip(redact(str(remark)))
    return ""


def _failed(error: Exception) -> str:
    return redact(f"The Dask Gateway cannot be asked ({type(error).__name__}: {error}).")


def _configured_gateway() -> Callable[[], Any] | None:
    """The gateway of the user's Dask configuration, else of the facility on this machine; None without either."""
    if importlib.util.find_spec("dask_gateway") is None:
        return None
    import dask.config
    from dask_gateway import Gateway  # a second, at its first import

    address, auth = None, None  # those of Dask's configuration
    if dask.config.get("gateway.address", None) is None:
        address = next((each.gateway.address for each in local.running() if each.gateway), None)
        auth = _LOCAL_AUTH
        if address is None:
            return None

    def make() -> Any:
        # the proxy of http_proxy would see the password or Hub token; one that Dask's configuration names is used
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
    except Exception:  # one cluster that is about to end must not hide the others
        log.debug("the scheduler of %s cannot be asked", report.name, exc_info=True)
        return row
    return row | _described(identity["workers"].values())


async def _identity(gateway: Any, name: str) -> Mapping[str, Any]:
    from distributed.core import rpc

    report = await gateway.get_cluster(name)  # with its certificates, which the list does not have
    arguments = await asyncio.to_thread(report.security.get_connection_args, "client")
    scheduler = rpc(report.scheduler_address, deserialize=False, connection_args=arguments)  # type: ignore[no-untyped-call]
    try:
        identity: Mapping[str, Any] = await scheduler.identity(n_workers=-1)
        return identity
    finally:
        with contextlib.suppress(OSError):
            await scheduler.close_rpc()  # type: ignore[no-untyped-call]


def _described(workers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums of what the workers report; what none reports is None."""
    metrics = [worker["metrics"].get(_METRICS) for worker in workers]
    reports = [each for each in metrics if each]
    rates = [each["inferences_per_s"] for each in reports if each.get("inferences_per_s") is not None]
    ages = [each["token_age"] for each in reports if each.get("token_age") is not None]
    return {
        "workers": len(metrics),
        "configured": sum(each.get("state") == "connected" for each in reports) if reports or not metrics else None,
        "inferences_per_second": sum(rates) if rates else None,
        "oldest_token": max(ages, default=None),
    }
