"""Classify a failed gRPC call: what to do next, and which error the user reads.

The server's literal text is logged at level DEBUG.
"""

from __future__ import annotations

import enum
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eaf_inference._proxies import unused_proxy
from eaf_inference._redact import redact
from eaf_inference._text import printable
from eaf_inference.errors import (
    BadReply,
    ConfigurationError,
    InferenceError,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    NotAuthorized,
    ServerUnavailable,
)
from eaf_inference.inference.failure_texts import (
    COMPRESSED_REPLY,
    NOT_READY,
    OUT_OF_MEMORY,
    RESTRICTED,
    TOO_LARGE_REPLY,
    TOO_LARGE_REQUEST,
    TRANSIENT,
    meaning,
    refusal,
    without_internals,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import grpc

    from eaf_inference.address import Address
    from eaf_inference.auth.token import Token

__all__ = ["Action", "Failure", "failed"]

log = logging.getLogger(__name__)


class Action(enum.Enum):
    """What to do after a failed call."""

    BACK_OFF = "try again after a pause, on another replica if there is one"
    ELSEWHERE_ONCE = "try once more on another replica"
    RENEW_TOKEN = "renew the token and try once more"  # noqa: S105  (no password)
    GIVE_UP = "raise the error"


# The retry policy: gRPC status -> what to do, and the error to raise if that does not help.
_ACTIONS: dict[str, tuple[Action, type[InferenceError]]] = {
    "UNAVAILABLE": (Action.BACK_OFF, ServerUnavailable),
    "RESOURCE_EXHAUSTED": (Action.BACK_OFF, ServerUnavailable),
    "ABORTED": (Action.BACK_OFF, ServerUnavailable),
    "CANCELLED": (Action.BACK_OFF, ServerUnavailable),  # by a proxy or a stopping server, not by us
    "DEADLINE_EXCEEDED": (Action.ELSEWHERE_ONCE, ServerUnavailable),
    "UNAUTHENTICATED": (Action.RENEW_TOKEN, NotAuthorized),
    "PERMISSION_DENIED": (Action.GIVE_UP, NotAuthorized),
    "NOT_FOUND": (Action.GIVE_UP, ModelNotFound),
    "INVALID_ARGUMENT": (Action.GIVE_UP, InvalidInput),
    "UNIMPLEMENTED": (Action.GIVE_UP, ConfigurationError),
}
_OTHERWISE = (Action.GIVE_UP, BadReply)
# What to do about an error that no retry can mend.
_REMEDIES: dict[type[InferenceError], str] = {
    ModelNotFound: "See triton.models() for what it serves.",
    InvalidInput: "Compare the input with what the model takes, which triton.model(NAME) shows.",
    ConfigurationError: "Check the address, or ask the server's operators to allow this call.",
    BadReply: "Tell the model's owner, or the server's operators.",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed call, and what to do about it."""

    action: Action
    error: type[InferenceError]
    status: str
    details: str
    server: str  # its URL
    host: str = ""
    token: Token | None = None  # the token that was sent
    retry_after: float | None = None  # seconds, if the server asked for a pause
    at: float = field(default_factory=time.time)

    @classmethod
    def of(cls, error: grpc.RpcError, address: Address, token: Token | None = None) -> Failure:
        """Classify an error of gRPC."""
        status, details = error.code().name, printable(redact((error.details() or "").strip()))
        log.debug("%s: %s: %s", address.url, status, details)
        action, kind = _ACTIONS.get(status, _OTHERWISE)
        if action is Action.GIVE_UP and kind is BadReply and TRANSIENT.search(details):
            action, kind = _ACTIONS["UNAVAILABLE"]
        if RESTRICTED.search(details):
            action, kind = _ACTIONS["UNIMPLEMENTED"]
        if TOO_LARGE_REPLY.search(details) or COMPRESSED_REPLY.search(details):
            action, kind = Action.GIVE_UP, BadReply
        elif TOO_LARGE_REQUEST.search(details):
            action, kind = Action.GIVE_UP, InvalidInput
        return cls(action, kind, status, details, address.url, address.host, token, _retry_after(error))

    @property
    def restricted(self) -> bool:
        """Whether the server or a proxy forbids this kind of call, to everybody or to this user."""
        return self.error is ConfigurationError or self.status == "PERMISSION_DENIED"

    @property
    def out_of_memory(self) -> bool:
        """Whether the server had too little memory for this request, and may have enough for a smaller one."""
        return OUT_OF_MEMORY.search(self.details) is not None

    @property
    def cause(self) -> str:
        """The cause in plain words."""
        if self.status == "DEADLINE_EXCEEDED":
            return "no answer in time"
        if self.error is NotAuthorized:
            return self._refusal[0]
        plain = meaning(self.details)
        if plain is None and self.status == "UNIMPLEMENTED":
            plain = "it does not offer this call"
        return plain or f'it says "{self.quote}"'

    @property
    def in_short(self) -> str:
        """The cause in two words, for a progress bar."""
        return "server overloaded" if self.status == "RESOURCE_EXHAUSTED" else "server gone"

    @property
    def quote(self) -> str:
        """The server's text without its internals."""
        return without_internals(self.details).rstrip(".") or f"gRPC status {self.status}"

    @property
    def proxy(self) -> str:
        """A remark about a configured proxy that was not used, if the server could not be reached directly."""
        return unused_proxy(self.host) if self.status in ("UNAVAILABLE", "DEADLINE_EXCEEDED") else ""

    @property
    def _refusal(self) -> tuple[str, str]:
        """Why the user is refused, and what to do."""
        if self.token is None and self.status == "UNAUTHENTICATED":
            return "it requires a token, and none was sent", ""
        known = refusal(self.details) if self.token is not None else None
        if known is not None:
            return f"it refuses your token: {known[0]}", known[1]
        refused = "it refuses your token, and says" if self.token is not None else "it refuses access, and says"
        return f'{refused} "{self.quote}"', "Renew your token, or ask the facility for access."

    @property
    def remedy(self) -> str:
        """What a refused user can do."""
        return self._refusal[1]

    @property
    def _clock(self) -> str:
        return time.strftime("%H:%M:%S", time.localtime(self.at))

    def until(self, last: Failure) -> str:
        """Describe this failure and equal ones up to the last."""
        when = self._clock if last._clock == self._clock else f"{self._clock} to {last._clock}"
        return f"{when} {self.server}: {self.cause}"

    def __str__(self) -> str:
        return self.until(self)


def failed(failures: Sequence[Failure], subject: str, trouble: str = "") -> InferenceError:
    """Make the error for a call that failed for good: why, and what to do.

    Parameters
    ----------
    failures : sequence of Failure
        Of all attempts, oldest first.
    subject : str
        What the call was about.
    trouble : str
        Why the token could not be renewed.
    """
    last = failures[-1]
    kind, advice = last.error, f"{last.server} failed on {subject}: {last.cause}. {_REMEDIES.get(last.error, '')}"
    if kind is ServerUnavailable and NOT_READY.search(last.details):
        kind, advice = ModelNotReady, f"The server cannot serve {subject} now: {last.quote}.{_history(failures)}"
    elif kind is ServerUnavailable:
        advice = " ".join(
            part
            for part in (
                f"{last.server} gave no reply for {subject} within the time budget: {last.cause.rstrip('.')}.",
                last.proxy,
                f"It is down, unreachable or overloaded: try later, or connect again.{_history(failures)}",
            )
            if part
        )
    elif kind is NotAuthorized:
        remedy = redact(trouble) or last.remedy
        separator = "; " if remedy[:1].islower() else ". "  # the token service's own text stays unchanged
        advice = f"{last.server} {last.cause.removeprefix('it ')}{separator}{remedy}"
    elif kind is InvalidInput:
        advice = f"The server refused the input of {subject}: {last.quote}. {_REMEDIES[kind]}"
    error = kind(advice)
    error.reason = last.cause
    error.restricted = last.restricted
    return error


def _history(failures: Sequence[Failure]) -> str:
    if len(failures) < 2:
        return ""
    alike: dict[tuple[str, str], list[Failure]] = {}  # a server that is down refuses every try in the same way
    for failure in failures:
        alike.setdefault((failure.server, failure.cause), []).append(failure)
    return "\nWhat was tried:\n" + "\n".join(f"  {each[0].until(each[-1])}" for each in alike.values())


def _retry_after(error: grpc.RpcError) -> float | None:
    """Return the seconds in the trailing metadata's ``grpc-retry-pushback-ms`` or ``retry-after`` (HTTP, Envoy)."""
    trailing = dict(error.trailing_metadata() or ())
    scales: dict[str, Callable[[float], float]] = {
        "grpc-retry-pushback-ms": lambda milliseconds: milliseconds / 1000,  # preferred, as it is finer
        "retry-after": lambda seconds: seconds,
    }
    for key, scale in scales.items():
        try:
            return max(0.0, scale(float(trailing[key])))
        except (KeyError, TypeError, ValueError):
            continue
    return None
