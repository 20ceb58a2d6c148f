"""The Dask plugins that bring Triton's address and the user's token to a cluster, kept only in memory.

A plugin that a worker cannot load kills that worker and every later one. Therefore these classes travel as the source
text of this file, and a worker needs neither eaf_inference nor the client's version of Python. For the same reason
this file imports only the standard library and distributed, whose plugin classes it must extend.

`Plugin` brings the values to each worker, `TokenRelay` keeps the scheduler's copy for future workers, and
`WorkerState` holds the values of a worker process. A younger token is never replaced by an older one.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
import ssl
import sys
import threading
import time
import types
from collections import deque
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from distributed.diagnostics.plugin import SchedulerPlugin, WorkerPlugin
from distributed.protocol.serialize import ToPickle

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed.scheduler import Scheduler
    from distributed.worker import Worker

log = logging.getLogger(__name__)

NAME = "eaf_inference"  # of the worker plugin, its metrics and its events
_RELAY = "eaf_inference_keeper"  # of the scheduler plugin
_MODULE = "_eaf_inference_held"  # the synthetic module whose attribute `held` is the process's `WorkerState`

_RATE_OVER = 10.0  # seconds
_AT_LEAST = 1.0  # seconds between two reports that give a rate, and between two pulls
_LONGEST_PAUSE = 60.0  # seconds between failed pulls
_ANSWER_WITHIN = 10.0  # seconds for the token service to answer
_LARGEST_REPLY = 1024 * 1024  # bytes
RENEW_FRACTION = 0.45  # of a token's lifetime, after which it is renewed
_SOURCE = globals().get("_SOURCE") or Path(__file__).read_text(encoding="utf-8")
_LOAD = (
    "(lambda space: (exec(source, space), space[kind](values))[1])"
    "({'__name__': 'eaf_inference.dask.worker_plugin', '_SOURCE': source})"
)


def by_source(kind: str, values: object) -> tuple[Any, ...]:
    """Return what `__reduce__` must for a process that may not have this file."""
    return eval, (_LOAD, {"source": _SOURCE, "kind": kind, "values": values})


def age(values: dict[str, Any] | None) -> float:
    """Return when the values' token was issued, in seconds since the epoch; 0 if no server is known yet."""
    return values["issued"] if values and values["urls"] else 0.0


class Secret:
    """A text that no repr shows; `reveal` returns it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "<secret>"

    def __reduce__(self) -> tuple[Any, ...]:
        return by_source("Secret", self._text)

    def reveal(self) -> str:
        return self._text


class WorkerState:
    """The newest values that this process received.

    Attributes
    ----------
    values : dict or None
        ``urls`` (empty while the client has no connection), the ``reason`` for that, ``ca`` (PEM text),
        ``token`` (Secret or None), ``issued``, ``expires`` (seconds since the epoch), ``user``, ``settings``.
    changed : threading.Condition
        Notified when the values change.
    totals : callable or None
        Returns the counters of this process; set by eaf_inference when it connects.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.values: dict[str, Any] | None = None
        self.totals: Callable[[], dict[str, Any]] | None = None
        self._owner: object = None
        self._announce: Callable[[dict[str, Any]], None] | None = None
        self._refused: float | None = None  # when the token that a server refused was issued
        self._reports: deque[tuple[float, int]] = deque()
        self._installed = _installed_version()

    def __repr__(self) -> str:
        return f"<WorkerState {describe(self.values)}>"

    def take(self, values: dict[str, Any], owner: object, announce: Callable[[dict[str, Any]], None]) -> None:
        """Take the values unless they are older. The owner may drop them later."""
        with self.changed:
            self._owner, self._announce = owner, announce
            if age(values) >= age(self.values):
                self.values = values
            self.changed.notify_all()

    def drop(self, owner: object) -> None:
        """Forget the values, unless another owner has brought values since."""
        with self.changed:
            if self._owner is owner:
                self.values = self._owner = self._announce = self._refused = None
                self.changed.notify_all()

    def wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until a change makes the condition true, and return whether it did."""
        with self.changed:
            return self.changed.wait_for(condition, timeout)

    def refuse(self, issued: float) -> None:
        """Report that a server refused the token issued at this time, so that the client renews it."""
        with self.changed:
            self._refused, announce = issued, self._announce
        if announce is not None:
            announce({"refused": issued})

    def report(self, _: Worker) -> dict[str, Any]:
        """Return the metrics on this worker's heartbeat. Dashboards are public, so none is secret."""
        values, now = self.values, time.time()
        token = values is not None and values["token"] is not None
        status = {
            "state": "none" if values is None else "connected" if values["urls"] else "waiting",
            "server": ", ".join(values["urls"]) if values else None,
            "token_age": round(now - age(values), 1) if token else None,
            "token_left": round(values["expires"] - now, 1) if values and values["expires"] is not None else None,
            "token_refused": token and self._refused is not None and self._refused >= age(values),
            "installed": self._installed,
        }
        return {**status, **self._work(time.monotonic())}

    def _work(self, now: float) -> dict[str, Any]:
        """Return the counters and the rate, if anything has been counted."""
        if self.totals is None:
            return {}
        totals = self.totals()
        reports = self._reports
        if reports and totals["inferences"] < reports[-1][1]:
            reports.clear()  # another connection counts from 0
        reports.append((now, totals["inferences"]))
        while now - reports[0][0] > _RATE_OVER and len(reports) > 2:
            reports.popleft()
        seconds = now - reports[0][0]
        rate = (totals["inferences"] - reports[0][1]) / seconds if seconds >= _AT_LEAST else None
        return {**totals, "inferences_per_second": rate}


def worker_state() -> WorkerState:
    """Return this process's `WorkerState`."""
    module = sys.modules.setdefault(_MODULE, types.ModuleType(_MODULE))
    if "held" not in module.__dict__:
        module.__dict__["held"] = WorkerState()
    return module.__dict__["held"]  # type: ignore[no-any-return]


def describe(values: dict[str, Any] | None) -> str:
    """Describe the values, without secrets."""
    if not values:
        return "no connection"
    if not values["urls"]:
        return f"no connection yet: {values['reason']}"
    return f"{', '.join(values['urls'])} as {values['user'] or 'an unknown user'}"


class Plugin(WorkerPlugin):
    """Brings the values to a worker."""

    name = NAME
    idempotent = False

    def __init__(self, values: dict[str, Any]) -> None:
        token = values["token"]
        self.values = {**values, "token": Secret(token) if isinstance(token, str) else token}

    def __repr__(self) -> str:
        return f"<eaf_inference plugin with {describe(self.values)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        token = self.values["token"]
        return by_source("Plugin", {**self.values, "token": token and token.reveal()})

    def setup(self, worker: Worker) -> None:
        """Run on the worker: take the values, and report refusals to the client through the event log."""
        state = worker_state()
        state.take(self.values, self, lambda event: worker.log_event(NAME, event))
        worker.metrics[NAME] = state.report

    def teardown(self, worker: Worker) -> None:  # noqa: ARG002  (distributed's signature)
        """Run on the worker: drop the values in the loop's next turn, when a replacing plugin has been set up."""
        asyncio.get_running_loop().call_soon(worker_state().drop, self)


class TokenRelay(SchedulerPlugin):
    """Runs on the scheduler: passes the youngest token that clients push on to the workers, until it is removed.

    Its operations are RPC handlers of the scheduler. At the level DEBUG, distributed logs the arguments as they
    arrive, so secrets come in `distributed.protocol.serialize.ToPickle`, which arrives as an object that hides them.
    """

    name = _RELAY
    idempotent = True  # the plugin of the first client stays

    def __init__(self, _: object = None) -> None:
        self._scheduler: Any = None
        self._newest: Plugin | None = None
        self._lock = asyncio.Lock()
        self._pulling: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<eaf_inference token relay for {self._newest}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return by_source("TokenRelay", None)

    async def start(self, scheduler: Scheduler) -> None:
        """Run on the scheduler for the first client: add the handlers."""
        self._scheduler = scheduler
        scheduler.handlers |= {f"{NAME}_push": self.push, f"{NAME}_remove": self.remove, f"{NAME}_pull": self.pull}

    async def push(self, values: dict[str, Any]) -> dict[str, Any]:
        """Send the values to all present and future workers, unless those have younger ones."""
        async with self._lock:
            newest = age(self._newest.values) if self._newest else 0.0
            if age(values) < newest:
                return {"accepted": False, "failed": []}
            plugin = Plugin(values)
            replies = await self._scheduler.register_worker_plugin(
                comm=None, plugin=ToPickle(plugin), name=NAME, idempotent=False
            )
            self._newest = plugin
        failed = [worker for worker, reply in replies.items() if reply["status"] != "OK"]
        return {"accepted": True, "failed": failed}

    async def remove(self) -> None:
        """Remove plugin and values from all workers."""
        async with self._lock:
            self._stop_pulling()
            self._newest = None
            if NAME in self._scheduler.worker_plugins:
                await self._scheduler.unregister_worker_plugin(comm=None, name=NAME)

    async def pull(self, service: str, hub_token: Secret, ca: str | None) -> None:
        """Renew the token on the scheduler from now on, so that the client may leave."""
        self._stop_pulling()
        self._pulling = asyncio.create_task(self._keep_pulling(service, hub_token, ca))

    async def close(self) -> None:
        """Run on the scheduler when it closes."""
        self._stop_pulling()

    def _stop_pulling(self) -> None:
        if self._pulling is not None:
            self._pulling.cancel()
            self._pulling = None

    async def _keep_pulling(self, service: str, hub_token: Secret, ca: str | None) -> None:
        pause = _AT_LEAST
        while True:
            if self._newest is not None and self._newest.values["expires"] is not None:
                issued, expires = age(self._newest.values), self._newest.values["expires"]
                await asyncio.sleep(max(issued + RENEW_FRACTION * (expires - issued) - time.time(), pause))
            else:
                await asyncio.sleep(pause)
            if self._newest is None:
                continue  # no client has pushed Triton's address yet
            try:
                token = await asyncio.to_thread(fetch_token, service, hub_token, ca)
                await self.push({**self._newest.values, "token": token, **times_of(token)})
                pause = _AT_LEAST
            except Exception as error:  # noqa: BLE001  (of the scheduler too; the task must not end)
                log.warning("The token was not renewed from %s: %s: %s", service, type(error).__name__, error)
                pause = min(2 * pause, _LONGEST_PAUSE)


def fetch_token(service: str, hub_token: Secret, ca: str | None) -> str:
    """Request a new token from the token service at this base URL.

    Only that server receives the Hub token: proxies of the environment are ignored and redirects are not followed. No
    error quotes the service's answer, because the answer may contain the Hub token.
    """
    parts = urlsplit(f"{service.rstrip('/')}/token")
    host, port = parts.hostname or "", parts.port
    connection = (
        HTTPSConnection(host, port, timeout=_ANSWER_WITHIN, context=ssl.create_default_context(cadata=ca))
        if parts.scheme == "https"
        else HTTPConnection(host, port, timeout=_ANSWER_WITHIN)
    )
    with closing(connection):
        connection.connect()
        # interrupts reading from a service that sends single bytes slowly
        timer = threading.Timer(_ANSWER_WITHIN, socket.socket.shutdown, (connection.sock, socket.SHUT_RDWR))
        timer.start()
        try:
            connection.request("POST", parts.path, headers={"Authorization": f"token {hub_token.reveal()}"})
            reply = connection.getresponse()
            body = reply.read(_LARGEST_REPLY)
        except (HTTPException, ValueError):  # ValueError: the Hub token is no valid header, and the error quotes it
            raise ValueError("its answer is not HTTP, or took too long") from None
        finally:
            timer.cancel()
    if reply.status != HTTPStatus.OK:
        raise ValueError(f"it answers {reply.status}")
    try:
        token = json.loads(body)["access_token"]
        times_of(token)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError("its reply holds no token") from None
    return str(token)


def times_of(token: str) -> dict[str, float]:
    """Return when a JWT was issued and when it expires."""
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return {"issued": float(claims["iat"]), "expires": float(claims["exp"])}


def _installed_version() -> str | None:
    try:
        return metadata.version("eaf-inference")
    except metadata.PackageNotFoundError:
        return None
