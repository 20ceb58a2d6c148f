"""What the token service's endpoints share: their state, answers in JSON, refusals, and the audit log."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from tornado.web import RequestHandler

from eaf_facility.hub import audit
from eaf_facility.hub.callers import Refusal, caller_of
from eaf_facility.token_policy import DEFAULT_TIER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jupyterhub.services.auth import HubAuth

    from eaf_facility.hub.callers import Caller
    from eaf_facility.hub.key_store import KeyStore
    from eaf_facility.hub.model_store import StoreAccess
    from eaf_facility.hub.rate import Rate
    from eaf_facility.hub.usage import OwnUsage
    from eaf_facility.token_policy import TokenPolicy

__all__ = ["Handler", "Service"]

_METHODS = ("GET", "POST", "PUT", "DELETE")


@dataclass(frozen=True, slots=True)
class Service:
    """State shared by all requests."""

    hub: HubAuth
    keys: KeyStore
    policy: TokenPolicy
    rate: Rate
    document: Mapping[str, Any]
    contact: str
    usage: OwnUsage | None
    store: StoreAccess | None = None

    async def caller(self, authorization: str | None) -> Caller:
        """Identify the caller; see `caller_of`."""
        return await caller_of(authorization, self.hub, self.contact)

    def tier_of(self, caller: Caller) -> str:
        """Return the tier of the caller's first group, in the operator's order."""
        return next((tier for group, tier in self.policy.tiers.items() if group in caller.groups), DEFAULT_TIER)

    def admit(self, caller: Caller, what: str) -> None:
        """Count a request of this caller.

        Raises
        ------
        Refusal
            429: there were too many.
        """
        if wait := self.rate.take(caller.name):
            seconds = int(wait) + 1
            message = (
                f"You requested too many {what}s. Try again in {seconds} s, and check for a loop that requests "
                f"{what}s."
            )
            status, error = HTTPStatus.TOO_MANY_REQUESTS, f"too_many_{what.replace(' ', '_')}s"
            raise Refusal(status, error, message, user=caller.name, retry_after=seconds)


class Handler(RequestHandler):
    """Base class: answers in JSON, and logs refusals."""

    def initialize(self, service: Service) -> None:
        self.service = service

    def set_default_headers(self) -> None:
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "application/json")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.clear_header("Server")

    def reply(self, answer: Mapping[str, Any]) -> None:
        """Send this as JSON."""
        self.write(json.dumps(answer))

    def refuse(self, refusal: Refusal) -> None:
        """Send this refusal without an entry in the audit log."""
        self.set_status(refusal.status)
        if refusal.status == HTTPStatus.UNAUTHORIZED:
            self.set_header("WWW-Authenticate", "Bearer")
        if refusal.retry_after is not None:
            self.set_header("Retry-After", str(refusal.retry_after))
        self.reply({"error": refusal.error, "message": refusal.message})

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Report the error without any detail of the implementation."""
        error = kwargs.get("exc_info", (None, None))[1]
        if isinstance(error, Refusal):
            self.refuse(error)
            return
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", ", ".join(each for each in _METHODS if each.lower() in type(self).__dict__))
        phrase = HTTPStatus(status_code).phrase
        self.reply({"error": phrase.lower().replace(" ", "_"), "message": f"{phrase}: {self.request.path[:200]}"})

    def log_exception(self, kind: Any, error: Any, traceback: Any) -> None:
        """Write refusals to the audit log, other exceptions to the log."""
        if isinstance(error, Refusal):
            audit.write(
                "refusal",
                self.request,
                path=self.request.path,
                status=error.status,
                reason=error.error,
                user=error.user,
                **error.details,
            )
        else:
            super().log_exception(kind, error, traceback)

    async def caller(self) -> Caller:
        """Identify the caller."""
        return await self.service.caller(self.request.headers.get("Authorization"))
