"""One cluster's link to Triton: what was pushed to its workers, when the next push is due, and how it went.

Lives on the event loop of the cluster's client. What may take time (finding a server, asking for a token) runs in
threads.
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

from eaf_inference.config import Address
from eaf_inference.connection import Connection, connect
from eaf_inference.credentials import SecretText, describe_expiry
from eaf_inference.dask.worker_plugin import NAME, SPENT, Keeper, Secret
from eaf_inference.errors import ConfigurationError, InferenceError, NoServerFound
from eaf_inference.registry import current, followers
from eaf_inference.token_service import TokenService

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from distributed import Client

    from eaf_inference.credentials import Token

__all__ = ["Link", "State", "scheduler_of"]

log = logging.getLogger(__name__)

_LOOK_AGAIN = (1.0, 30.0)  # seconds: for a younger token where the source has none yet
_WITHOUT_EXPIRY = 60.0  # seconds between two looks at a token that says nothing of its life
_PAUSES = (1.0, 30.0)  # seconds between attempts that fail
_LET_GO_WITHIN = 3.0  # seconds to take the credentials from the workers
_finding = threading.Lock()

T = TypeVar("T")


class State(enum.Enum):
    """What a cluster's workers have."""

    WAITING = "waiting"
    CONFIGURED = "configured"
    FAILED = "failed"
    DISCONNECTED = "disconnected"


class Link:
    """Keeps one cluster configured.

    Parameters
    ----------
    client : distributed.Client
        Held weakly: the link ends with it.
    name : str
        The cluster's, for messages.
    """

    def __init__(self, client: Client, name: str) -> None:
        self._client = weakref.ref(client)
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._attempted = asyncio.Event()
        self._pushed: tuple[Any, ...] = ()
        self._first_seen: tuple[Connection | None, Token | None, float] = (None, None, 0.0)
        self._refused = 0.0  # when the youngest token that workers say is refused was issued
        self.name = name
        self.connection: Connection | None = None
        self.state = State.WAITING
        self.reason = ""
        self.error: InferenceError | None = None

    @property
    def words(self) -> str:
        """The state and its reason."""
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
        """Begin to keep the cluster configured."""
        client = self._client()
        assert client is not None  # noqa: S101  (the caller has it)
        client.subscribe_topic(NAME, self._hear)  # type: ignore[no-untyped-call]
        followers.append(self)
        self._task = self._loop.create_task(self._run())

    async def first_attempt(self, timeout: float) -> None:
        """Wait until the workers have what they need, or it is known why not; not for longer than the timeout."""
        try:
            await asyncio.wait_for(self._attempted.wait(), timeout)
        except asyncio.TimeoutError:
            self.reason = "finding Triton, or a token for it, takes its time"
            await self._tell_workers_to_wait()

    def stop(self) -> None:
        """End with the client."""
        if self in followers:
            followers.remove(self)
        if self._task is not None:
            self._task.cancel()

    async def use(self, connection: Connection) -> None:
        """Use this connection from now on, and say at once if that does not work."""
        self.connection = connection
        self._attempted.clear()
        self._woken.set()
        await self._attempted.wait()
        if self.error is not None:
            raise self.error

    async def pull(self, hub_token: SecretText) -> None:
        """Have the scheduler renew the token by itself."""
        client, connection = self._client(), self.connection
        source = connection.credentials.source if connection else None
        if client is None or connection is None or not isinstance(source, TokenService):
            raise ConfigurationError(
                "The scheduler can renew tokens by itself only from a token service. Set Facility.token_service."
            )
        await scheduler_of(client).eaf_inference_pull(
            service=source.url, hub_token=hub_token[:], ca=source.authorities
        )

    def connection_made(self) -> None:
        """See `eaf_inference.registry.Follower`; called by any thread."""
        if self.connection is None:
            self._loop.call_soon_threadsafe(self._woken.set)

    def connection_closed(self) -> None:
        """See `eaf_inference.registry.Follower`; called by any thread."""
        if self.ask(self._let_go(), _LET_GO_WITHIN) is None:
            log.info("Cluster %s has not answered yet; its workers keep the token until they are told", self.name)

    def ask(self, answer: Coroutine[Any, Any, T], timeout: float) -> T | None:
        """Run this on the client's loop from another thread; None where the cluster has not answered in time.

        On the loop's own thread (an asynchronous client's) it begins, and nothing is waited for.
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

    async def _let_go(self) -> bool:
        self.connection, self._pushed = None, ()
        self._woken.set()
        client = self._client()
        if current() is None and client is not None:
            self.state, self.reason = State.DISCONNECTED, ""
            try:
                await scheduler_of(client).eaf_inference_remove()
            except OSError as error:
                log.warning("Cluster %s cannot be told to forget the token: %s", self.name, error)
        return True

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        """A worker says that a server refused a token."""
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
        """Keep what went wrong; the same thing is logged once."""
        reason = getattr(error, "reason", "") or str(error).split("\n")[0]
        if reason != self.reason:
            asked_for = not isinstance(error, NoServerFound) or error.named
            level = logging.WARNING if asked_for else logging.INFO  # not everybody's cluster is for inference
            log.log(level, "Cluster %s has no connection to Triton: %s. It is tried again.", self.name, reason)
        self.reason = reason
        self.error = error if isinstance(error, InferenceError) else ConfigurationError(str(error))
        if self._pushed:
            return  # the workers have what was pushed last
        self.state = State.FAILED if isinstance(error, ConfigurationError) else State.WAITING

    async def _push(self) -> float:
        """Push what is new, and give the seconds until the next look."""
        if self.state is State.DISCONNECTED and current() is None:
            return _WITHOUT_EXPIRY
        connection = self.connection
        if connection is None:
            connection = await asyncio.to_thread(_any_connection)
        if connection.closed:  # meanwhile
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
        news = (connection, values["urls"], values["issued"], values["token"] is None)
        if news != self._pushed:
            await self._send(client, values)
            self._pushed = news
        trouble = connection.credentials.trouble if values["token"] else ""
        if trouble:
            trouble = f"the token cannot be renewed ({trouble}); it {describe_expiry(values['expires'])}"
        elif self._refused >= values["issued"] and values["token"]:
            trouble = "workers say that Triton refuses the token"
        self.state, self.reason = State.CONFIGURED, trouble
        return _rest(values, time.time())

    def _values(self, connection: Connection) -> dict[str, Any]:
        """What the workers need to know; asks for a younger token where it is time, or one was refused."""
        credentials = connection.credentials
        token = credentials.token(spent=SPENT)
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
        """When the token was issued, or first seen where it does not say."""
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
        """Hand the values to the scheduler's keeper, which is there from the first push on."""
        await client.register_plugin(Keeper())
        token = values["token"]
        reply = await scheduler_of(client).eaf_inference_push(values={**values, "token": token and token.reveal()})
        if not reply["accepted"]:
            log.info("Cluster %s has a younger token from another client of yours", self.name)
        elif reply["failed"]:
            log.warning("Cluster %s: these workers did not take the token: %s", self.name, reply["failed"])

    async def _tell_workers_to_wait(self) -> None:
        """Let tasks know that a connection is to come, so that they wait for it and do not fail."""
        client = self._client()
        if client is None or self._pushed:
            return
        nothing: dict[str, Any] = {"ca": None, "token": None, "issued": 0.0, "expires": None, "user": None}
        nothing |= {"urls": [], "reason": self.reason, "allow_insecure_token": False, "settings": {}}
        try:
            await self._send(client, nothing)
        except OSError as error:
            log.info("Cluster %s cannot be told that it waits: %s", self.name, error)


def scheduler_of(client: Client) -> Any:
    """The calls of the scheduler's protocol."""
    return client.scheduler


def _any_connection() -> Connection:
    """The process's connection; found without a word from the user where there is none yet."""
    with _finding:
        return current() or connect()


def _rest(values: dict[str, Any], now: float) -> float:
    """Seconds until a younger token should be looked for: a little before half of this one's life is over."""
    if values["expires"] is None:
        return _WITHOUT_EXPIRY
    issued, expires = float(values["issued"]), float(values["expires"])
    due = issued + SPENT * (expires - issued) * random.uniform(0.95, 1.0) - now  # noqa: S311
    if due > 0:
        return due
    least, most = _LOOK_AGAIN
    return min(max((expires - now) / 10, least), most)
