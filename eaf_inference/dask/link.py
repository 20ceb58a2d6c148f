"""The link of one cluster to Triton: it pushes address and token to the workers, and renews the token.

A link lives on the event loop of the cluster's client. Discovery and token requests run in threads.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import random
import threading
import time
import weakref
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from distributed.protocol.serialize import ToPickle

from eaf_inference._redact import redact
from eaf_inference.address import Address
from eaf_inference.auth.token import describe_expiry
from eaf_inference.auth.token_service import TokenService
from eaf_inference.connecting import connect, current
from eaf_inference.dask.worker_plugin import NAME, RENEW_FRACTION, Secret, TokenRelay
from eaf_inference.errors import ConfigurationError, InferenceError, NoServerFound
from eaf_inference.registry import linked_clusters

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from distributed import Client

    from eaf_inference._redact import SecretText
    from eaf_inference.auth.token import Token
    from eaf_inference.connection import Connection

__all__ = ["Link", "State", "scheduler_of"]

log = logging.getLogger(__name__)

_RENEW_AGAIN = (1.0, 30.0)  # seconds between attempts to get a younger token, shortest and longest
_WITHOUT_EXPIRY = 60.0  # seconds between two checks of a token without expiry
_PAUSES = (1.0, 30.0)  # seconds between failed attempts, first and longest
_REMOVE_WITHIN = 3.0  # seconds to remove the credentials from the workers
_finding = threading.Lock()

T = TypeVar("T")


class State(enum.Enum):
    """Whether a cluster's workers have what they need."""

    WAITING = "waiting"
    CONFIGURED = "configured"
    FAILED = "failed"
    DISCONNECTED = "disconnected"


class Link:
    """Keeps one cluster configured.

    Parameters
    ----------
    client : distributed.Client
        Held weakly; the link ends with the client.
    name : str
        Name of the cluster, for messages.
    """

    def __init__(self, client: Client, name: str) -> None:
        self._client = weakref.ref(client)
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._attempted = asyncio.Event()
        self._pushed: tuple[Any, ...] = ()
        self._first_seen: tuple[Connection | None, Token | None, float] = (None, None, 0.0)
        self._refused = 0.0  # when the youngest token that was refused on a worker was issued
        self.name = name
        self.connection: Connection | None = None
        self.state = State.WAITING
        self.reason = ""
        self.error: InferenceError | None = None

    @property
    def words(self) -> str:
        """The state and its reason, in words."""
        because = {State.WAITING: ", as ", State.FAILED: " because "}.get(self.state, ", but ")
        return f"{self.state.value}{because + self.reason if self.reason else ''}"

    def __str__(self) -> str:
        return f"cluster {self.name} {self.words}"

    def __repr__(self) -> str:
        return f"<Link to {self}>"

    @property
    def client(self) -> Client | None:
        return self._client()

    def start(self) -> None:
        """Start to keep the cluster configured."""
        client = self._client()
        assert client is not None  # noqa: S101  (the caller has it)
        client.subscribe_topic(NAME, self._on_refusal)  # type: ignore[no-untyped-call]
        linked_clusters.append(self)
        self._task = self._loop.create_task(self._run())

    async def first_attempt(self, timeout: float) -> None:
        """Wait until the workers are configured or the attempt failed, at most for the timeout."""
        try:
            await asyncio.wait_for(self._attempted.wait(), timeout)
        except asyncio.TimeoutError:
            self.reason = "discovery or the token request is not finished yet"
            await self._tell_workers_to_wait()

    def stop(self) -> None:
        """End with the client."""
        if self in linked_clusters:
            linked_clusters.remove(self)
        if self._task is not None:
            self._task.cancel()

    async def use(self, connection: Connection) -> None:
        """Use this connection from now on, and raise the error if that fails."""
        self.connection = connection
        self._attempted.clear()
        self._woken.set()
        await self._attempted.wait()
        if self.error is not None:
            raise self.error

    async def pull(self, hub_token: SecretText) -> None:
        """Let the scheduler renew the token without the client."""
        client, connection = self._client(), self.connection
        source = connection.credentials.source if connection else None
        if client is None or connection is None or not isinstance(source, TokenService):
            raise ConfigurationError(
                "The scheduler can renew tokens only from a token service. Set Facility.token_service."
            )
        await scheduler_of(client).eaf_inference_pull(
            service=source.url, hub_token=ToPickle(Secret(hub_token[:])), ca=source.authorities
        )

    def connection_made(self) -> None:
        """See `eaf_inference.registry.LinkedCluster`. Any thread may call it."""
        if self.connection is None:
            self._loop.call_soon_threadsafe(self._woken.set)

    def connection_closed(self) -> None:
        """See `eaf_inference.registry.LinkedCluster`. Any thread may call it."""
        if self.ask(self._remove(), _REMOVE_WITHIN) is None:
            log.info("Cluster %s has not answered yet; its workers keep the token until it does", self.name)

    def ask(self, answer: Coroutine[Any, Any, T], timeout: float) -> T | None:
        """Run a coroutine on the client's loop from another thread, and return None if it times out.

        On the loop's own thread (with an asynchronous client) the coroutine is started but not waited for.
        """
        if self._loop.is_closed():
            answer.close()
            return None
        future = asyncio.run_coroutine_threadsafe(answer, self._loop)
        try:
            if asyncio.get_running_loop() is self._loop:
                return None
        except RuntimeError:  # no loop runs in this thread
            pass
        try:
            return future.result(timeout)
        except (FutureTimeoutError, OSError):
            future.cancel()
            return None

    async def _remove(self) -> bool:
        """Remove the credentials from the workers, unless another connection is open."""
        self.connection, self._pushed = None, ()
        self._woken.set()
        client = self._client()
        if current() is None and client is not None:
            self.state, self.reason = State.DISCONNECTED, ""
            try:
                await scheduler_of(client).eaf_inference_remove()
            except OSError as error:
                log.warning("The token could not be removed from the workers of cluster %s: %s", self.name, error)
        return True

    def _on_refusal(self, event: tuple[float, dict[str, Any]]) -> None:
        """Renew the token, because a server refused it on a worker."""
        self._refused = max(self._refused, float(event[1]["refused"]))
        self._woken.set()

    async def _run(self) -> None:
        pause, longest = _PAUSES
        while self._client() is not None:
            self._woken.clear()
            try:
                rest = await self._push()
                pause = _PAUSES[0]
                self.error = None
            except (InferenceError, OSError, ValueError) as error:
                self._note(error)
                rest = pause * random.uniform(0.8, 1.2)  # noqa: S311
                pause = min(2 * pause, longest)
                await self._tell_workers_to_wait()
            self._attempted.set()
            try:
                await asyncio.wait_for(self._woken.wait(), rest)
            except asyncio.TimeoutError:
                continue

    def _note(self, error: Exception) -> None:
        """Keep the error, and log it unless it was the last one too."""
        reason = getattr(error, "reason", "") or str(error).split("\n")[0]
        if reason != self.reason:
            configured = not isinstance(error, NoServerFound) or error.named
            level = logging.WARNING if configured else logging.INFO  # the cluster may not be for inference
            log.log(level, "Cluster %s has no connection to Triton: %s. Retrying.", self.name, reason)
        self.reason = reason
        self.error = error if isinstance(error, InferenceError) else ConfigurationError(str(error))
        if self._pushed:
            return  # the workers keep what was pushed last
        self.state = State.FAILED if isinstance(error, ConfigurationError) else State.WAITING

    async def _push(self) -> float:
        """Push what changed, and return the seconds until the next check."""
        if self.state is State.DISCONNECTED and current() is None:
            return _WITHOUT_EXPIRY
        connection = self.connection
        if connection is None:
            connection = await asyncio.to_thread(_any_connection)
        if connection.closed:  # in the meantime
            return 0.0
        self.connection = connection
        try:
            values = await asyncio.to_thread(self._values, connection)
        except ConfigurationError:
            if connection.closed:
                return 0.0
            raise
        client = self._client()
        if client is None:
            return _WITHOUT_EXPIRY
        self._may_travel(client, values)
        version = (connection, values["urls"], values["issued"], values["token"] is None)
        if version != self._pushed:
            await self._send(client, values)
            self._pushed = version
        trouble = connection.credentials.trouble if values["token"] else ""
        if trouble:
            trouble = f"the token cannot be renewed ({trouble}); it {describe_expiry(values['expires'])}"
        elif self._refused >= values["issued"] and values["token"]:
            trouble = "Triton refuses the token on the workers"
        self.state, self.reason = State.CONFIGURED, trouble
        return _rest(values, time.time())

    def _values(self, connection: Connection) -> dict[str, Any]:
        """Return the values for the workers; renews the token if it is due or was refused."""
        credentials = connection.credentials
        token = credentials.token(renew_fraction=RENEW_FRACTION)
        if token is not None and self._issued(connection, token) <= self._refused:
            credentials.renewed_after(token)
            token = credentials.known
        authorities = connection.tls.authorities
        return {
            "urls": list(connection.endpoint.urls),
            "reason": "",
            "ca": authorities and authorities.decode(),
            "token": token and Secret(token.reveal()),
            "issued": self._issued(connection, token),
            "expires": token.expires_at if token else None,
            "user": token.user if token else None,
            "allow_insecure_token": connection.may_send_token_unencrypted,
            "settings": asdict(connection.limits),
        }

    def _issued(self, connection: Connection, token: Token | None) -> float:
        """Return when the token was issued or, without that claim, first seen."""
        if token is not None and token.issued_at is not None:
            return token.issued_at
        if self._first_seen[:2] != (connection, token):
            self._first_seen = (connection, token, time.time())
        return self._first_seen[2]

    def _may_travel(self, client: Client, values: dict[str, Any]) -> None:
        address = scheduler_of(client).address
        parts = urlsplit(str(address))
        encrypted = parts.scheme in ("gateway", "tls", "wss")
        loopback = Address(parts.hostname or "", 0, tls=False).is_loopback
        if values["token"] is not None and not (encrypted or loopback or values["allow_insecure_token"]):
            raise ConfigurationError(
                f"Your token would travel unencrypted to the cluster at {address}. Expected tls://…; on a network "
                "you trust, connect with allow_insecure_token=True."
            )

    async def _send(self, client: Client, values: dict[str, Any]) -> None:
        """Send the values to the scheduler's `TokenRelay`, which the first push installs."""
        try:
            await client.register_plugin(TokenRelay())
            reply = await scheduler_of(client).eaf_inference_push(values=ToPickle(values))
        except OSError:
            raise
        except Exception as error:  # what the scheduler raised, which may be anything
            raise ConfigurationError(
                f"The scheduler of cluster {self.name} cannot take the token: "
                f"{type(error).__name__}: {redact(str(error))}. See its log, and the versions in triton.clusters()."
            ) from error
        if not reply["accepted"]:
            log.info("Cluster %s already has a younger token from another client of yours", self.name)
        elif reply["failed"]:
            log.warning("Cluster %s: these workers did not take the token: %s", self.name, reply["failed"])

    async def _tell_workers_to_wait(self) -> None:
        """Tell the workers that a connection is pending, so that tasks wait for it instead of failing."""
        client = self._client()
        if client is None or self._pushed:
            return
        pending: dict[str, Any] = {"ca": None, "token": None, "issued": 0.0, "expires": None, "user": None}
        pending |= {"urls": [], "reason": self.reason, "allow_insecure_token": False, "settings": {}}
        try:
            await self._send(client, pending)
        except (OSError, ConfigurationError) as error:
            log.info("Cluster %s did not receive that its connection is pending: %s", self.name, error)


def scheduler_of(client: Client) -> Any:
    """Return the RPC interface of the client's scheduler."""
    return client.scheduler


def _any_connection() -> Connection:
    """Return the process's current connection, or a new one to the discovered server."""
    with _finding:
        return current() or connect()


def _rest(values: dict[str, Any], now: float) -> float:
    """Return the seconds until the token is due for renewal, a little before half of its lifetime."""
    if values["expires"] is None:
        return _WITHOUT_EXPIRY
    issued, expires = float(values["issued"]), float(values["expires"])
    due = issued + RENEW_FRACTION * (expires - issued) * random.uniform(0.95, 1.0) - now  # noqa: S311
    if due > 0:
        return due
    least, most = _RENEW_AGAIN
    return min(max((expires - now) / 10, least), most)
