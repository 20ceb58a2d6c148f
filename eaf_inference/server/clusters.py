"""This user's Dask clusters, as the gateway lists them and their schedulers describe them.

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
from typing import TYPE_CHECKING, Any

from eaf_inference import local
from eaf_inference._redact import redact
from eaf_inference.metrics.advice import Workers
from eaf_inference.metrics.reading import clip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["Clusters"]

log = logging.getLogger(__name__)

_METRICS = "eaf_inference"  # the name of ours among a worker's, see eaf_inference.dask.worker_plugin
_LOCAL_AUTH = "eaf_inference.dask.auth.LocalGatewayAuth"  # which dask_gateway finds by its name
_FRESH = 5.0  # seconds for which a list is good
_KNOWN = 60.0  # seconds for which it serves advice, and a browser that has just come
_WITHIN = 8.0  # seconds for all of it, and …
_SCHEDULER_WITHIN = 4.0  # … for one scheduler
_MOST = 20  # clusters that are asked


class Clusters:
    """The list, asked for when somebody wants it and the last one is old.

    Attributes
    ----------
    changed : callable
        Called after each look.
    """

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._reply: dict[str, Any] = {"clusters": [], "problem": None}
        self._text = ""
        self._asked = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def look(self) -> dict[str, Any]:
        """The clusters, at most a few seconds old; ``problem`` says why there are none to see."""
        task = self.look_soon()
        if task is not None:
            await asyncio.shield(task)
        return self._reply

    def look_soon(self) -> asyncio.Task[None] | None:
        """Begin to look, if the last list is old and none is under way; what is under way then."""
        if self._asking is None and time.monotonic() - self._asked >= _FRESH:
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

    async def _ask(self) -> None:
        problem, rows = None, []
        try:
            rows = await asyncio.wait_for(_clusters(), _WITHIN)
        except asyncio.TimeoutError:
            problem = f"The Dask Gateway does not answer within {_WITHIN:.0f} s."
        except Exception as error:  # whatever a gateway's client of any version raises: this is one list of a panel
            log.debug("the Dask Gateway cannot be asked", exc_info=True)
            problem = redact(f"The Dask Gateway cannot be asked ({type(error).__name__}: {error}).")
        finally:
            self._asked, self._asking = time.monotonic(), None
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
