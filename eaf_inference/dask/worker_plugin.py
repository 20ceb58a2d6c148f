"""What travels to a cluster: where Triton is and who the user is, held in the workers' memory alone.

A plugin that a worker cannot load kills that worker and every later one, so these classes travel as this file's
source text: a worker needs neither eaf_inference nor the client's version of Python. Hence the rule of this file:
it imports the standard library and distributed (which takes no plugins of other descent), nothing else.

`Plugin` brings the values to each worker, `Keeper` guards the scheduler's copy for workers to come, and `Held` is
what a worker process has, whoever brought it. Values never go back to an older token.
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

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed.scheduler import Scheduler
    from distributed.worker import Worker

log = logging.getLogger(__name__)

NAME = "eaf_inference"  # of the plugin, of its metrics and of its events
KEEPER = "eaf_inference_keeper"
HELD = "_eaf_inference_held"  # where a process keeps it: a module of that name, which nobody wrote

_RATE_OVER = 10.0  # seconds
_AT_LEAST = 1.0  # seconds between two reports that make a rate, and between two pulls
_LONGEST_PAUSE = 60.0  # seconds between pulls that fail
_ANSWER_WITHIN = 10.0  # seconds for the token service
_LARGEST_REPLY = 1024 * 1024  # bytes
SPENT = 0.45  # of a token's life, after which it is renewed
_SOURCE = globals().get("_SOURCE") or Path(__file__).read_text(encoding="utf-8")
_LOAD = (
    "(lambda space: (exec(source, space), space[kind](values))[1])"
    "({'__name__': 'eaf_inference.dask.worker_plugin', '_SOURCE': source})"
)


def by_source(kind: str, values: object) -> tuple[Any, ...]:
    """What pickle makes an object of this file from, in a process that may not have this file."""
    return eval, (_LOAD, {"source": _SOURCE, "kind": kind, "values": values})


def age(values: dict[str, Any] | None) -> float:
    """When the values' token was issued, in seconds since the epoch; 0 for values that wait for one."""
    return values["issued"] if values and values["urls"] else 0.0


class Secret:
    """A text that shows itself nowhere; `reveal` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "<secret>"

    def reveal(self) -> str:
        return self._text


class Held:
    """The newest values that reached this process.

    Attributes
    ----------
    values : dict or None
        ``urls`` (empty while the client has no connection itself), ``reason`` why not, ``ca`` (PEM text),
        ``token`` (Secret or None), ``issued``, ``expires`` (seconds since the epoch), ``user``, ``settings``.
    changed : threading.Condition
        Notified when the values are.
    totals : callable or None
        Gives what this process has sent and got back; set by eaf_inference when it connects.
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
        return f"<Held {describe(self.values)}>"

    def take(self, values: dict[str, Any], owner: object, announce: Callable[[dict[str, Any]], None]) -> None:
        """Take values over, unless these are older; whoever brought them may drop them."""
        with self.changed:
            self._owner, self._announce = owner, announce
            if age(values) >= age(self.values):
                self.values = values
            self.changed.notify_all()

    def drop(self, owner: object) -> None:
        """Forget the values, unless somebody else has brought some meanwhile."""
        with self.changed:
            if self._owner is owner:
                self.values = self._owner = self._announce = self._refused = None
                self.changed.notify_all()

    def wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait for a change that makes the condition true."""
        with self.changed:
            return self.changed.wait_for(condition, timeout)

    def refuse(self, issued: float) -> None:
        """Say that a server refused the token issued then: the client brings a younger one."""
        with self.changed:
            self._refused, announce = issued, self._announce
        if announce is not None:
            announce({"refused": issued})

    def report(self, _: Worker) -> dict[str, Any]:
        """The metrics on this worker's heartbeat; dashboards are public, so nothing secret."""
        values, now = self.values, time.time()
        token = values is not None and values["token"] is not None
        given = {
            "state": "none" if values is None else "connected" if values["urls"] else "waiting",
            "server": ", ".join(values["urls"]) if values else None,
            "token_age": round(now - age(values), 1) if token else None,
            "token_left": round(values["expires"] - now, 1) if values and values["expires"] is not None else None,
            "token_refused": token and self._refused is not None and self._refused >= age(values),
            "installed": self._installed,
        }
        return {**given, **self._work(now)}

    def _work(self, now: float) -> dict[str, Any]:
        """What was done and how fast, where anything has been counted."""
        if self.totals is None:
            return {}
        totals = self.totals()
        reports = self._reports
        reports.append((now, totals["inferences"]))
        while now - reports[0][0] > _RATE_OVER and len(reports) > 2:
            reports.popleft()
        seconds = now - reports[0][0]
        rate = (totals["inferences"] - reports[0][1]) / seconds if seconds >= _AT_LEAST else None
        return {**totals, "inferences_per_s": rate}


def held() -> Held:
    """This process's `Held`."""
    module = sys.modules.setdefault(HELD, types.ModuleType(HELD))
    if "held" not in module.__dict__:
        module.__dict__["held"] = Held()
    return module.__dict__["held"]  # type: ignore[no-any-return]


def describe(values: dict[str, Any] | None) -> str:
    """The values in words, without secrets."""
    if not values:
        return "nothing"
    if not values["urls"]:
        return f"nothing yet: {values['reason']}"
    return f"{', '.join(values['urls'])} as {values['user'] or 'nobody in particular'}"


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
        """On the worker, whose event log carries what the client is asked."""
        here = held()
        here.take(self.values, self, lambda said: worker.log_event(NAME, said))
        worker.metrics[NAME] = here.report

    def teardown(self, worker: Worker) -> None:  # noqa: ARG002  (distributed's signature)
        """On the worker; the plugin that replaces this one, if any, is set up before the loop's next turn."""
        asyncio.get_running_loop().call_soon(held().drop, self)


class Keeper(SchedulerPlugin):
    """On the scheduler: hands on what clients push, the youngest token only, and forgets it when told so.

    Its operations are calls of the scheduler's own protocol, which keeps no record of them.
    """

    name = KEEPER
    idempotent = True  # the first client's stays

    def __init__(self, _: object = None) -> None:
        self._scheduler: Any = None
        self._newest: Plugin | None = None
        self._lock = asyncio.Lock()
        self._pulling: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<eaf_inference keeper of {self._newest}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return by_source("Keeper", None)

    async def start(self, scheduler: Scheduler) -> None:
        """On the scheduler, when the first client comes."""
        self._scheduler = scheduler
        scheduler.handlers |= {f"{NAME}_push": self.push, f"{NAME}_remove": self.remove, f"{NAME}_pull": self.pull}

    async def push(self, values: dict[str, Any]) -> dict[str, Any]:
        """Give the values to all workers, present and future, unless younger ones are there."""
        from distributed.protocol.pickle import dumps

        async with self._lock:
            newest = age(self._newest.values) if self._newest else 0.0
            if age(values) < newest:
                return {"accepted": False, "failed": []}
            self._newest = Plugin(values)
            plugin = dumps(self._newest)  # type: ignore[no-untyped-call]
            replies = await self._scheduler.register_worker_plugin(
                comm=None, plugin=plugin, name=NAME, idempotent=False
            )
        failed = [worker for worker, reply in replies.items() if reply["status"] != "OK"]
        return {"accepted": True, "failed": failed}

    async def remove(self) -> None:
        """Take plugin and values away from all workers."""
        async with self._lock:
            self._stop_pulling()
            self._newest = None
            if NAME in self._scheduler.worker_plugins:
                await self._scheduler.unregister_worker_plugin(comm=None, name=NAME)

    async def pull(self, service: str, hub_token: str, ca: str | None) -> None:
        """From now on, renew the token without the client, which may go away."""
        self._stop_pulling()
        self._pulling = asyncio.create_task(self._keep_pulling(service, Secret(hub_token), ca))

    async def close(self) -> None:
        """On the scheduler, when it ends."""
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
                await asyncio.sleep(max(issued + SPENT * (expires - issued) - time.time(), pause))
            else:
                await asyncio.sleep(pause)
            if self._newest is None:
                continue  # no client has said yet where Triton is
            try:
                token = await asyncio.to_thread(fetch_token, service, hub_token, ca)
                await self.push({**self._newest.values, "token": token, **times_of(token)})
                pause = _AT_LEAST
            except (OSError, ValueError) as error:
                log.warning("The token service %s gives no token: %s", service, error)
                pause = min(2 * pause, _LONGEST_PAUSE)


def fetch_token(service: str, hub_token: Secret, ca: str | None) -> str:
    """A new token from the token service at this base URL.

    The Hub token goes to that server alone: no proxy of the environment is used, no redirection is followed. What the
    service says besides a token is not repeated, as it may repeat the Hub token.
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
        # it ends what is read from a service that sends a byte now and then
        timer = threading.Timer(_ANSWER_WITHIN, socket.socket.shutdown, (connection.sock, socket.SHUT_RDWR))
        timer.start()
        try:
            connection.request("POST", parts.path, headers={"Authorization": f"token {hub_token.reveal()}"})
            reply = connection.getresponse()
            body = reply.read(_LARGEST_REPLY)
        except (HTTPException, ValueError):  # ValueError: the Hub token is no header, and the error shows it
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
    """When a JWT was issued and expires."""
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return {"issued": float(claims["iat"]), "expires": float(claims["exp"])}


def _installed_version() -> str | None:
    try:
        return metadata.version("eaf-inference")
    except metadata.PackageNotFoundError:
        return None
