"""The token service's HTTP endpoints, as openapi.yaml describes them.

It exchanges a caller's Hub token for a short-lived token, in that user's name, for the edge proxy in front of Triton.
Every error is JSON with a message for the user.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError, RequestHandler

from eaf_facility.hub import audit
from eaf_facility.hub.callers import Refusal, caller_of
from eaf_facility.hub.tokens import signed_token
from eaf_facility.hub.usage import FRESH, PERIODS
from eaf_facility.token_policy import DEFAULT_TIER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jupyterhub.services.auth import HubAuth

    from eaf_facility.hub.callers import Caller
    from eaf_facility.hub.key_store import KeyStore
    from eaf_facility.hub.rate import Rate
    from eaf_facility.hub.usage import OwnUsage
    from eaf_facility.token_policy import TokenPolicy

__all__ = ["Service", "server"]

_LARGEST_BODY = 4096  # bytes; none is expected
_LARGEST_HEADER = 32 * 1024
_BODY_TIMEOUT = 5.0  # seconds
_IDLE_TIMEOUT = 60.0  # seconds to wait for a request's headers, on a new or a kept connection
_KEYS_FRESH = 60  # seconds for which a proxy may keep the public keys
_A_DAY = "1d"


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

    async def caller(self, authorization: str | None) -> Caller:
        """Identify the caller; see `caller_of`."""
        return await caller_of(authorization, self.hub, self.contact)

    def tier_of(self, caller: Caller) -> str:
        """Return the tier of the caller's first group, in the operator's order."""
        return next((tier for group, tier in self.policy.tiers.items() if group in caller.groups), DEFAULT_TIER)


class _Handler(RequestHandler):
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
            self.set_header(
                "Allow", ", ".join(each for each in ("GET", "POST") if each.lower() in type(self).__dict__)
            )
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
            )
        else:
            super().log_exception(kind, error, traceback)

    async def caller(self) -> Caller:
        """Identify the caller."""
        return await self.service.caller(self.request.headers.get("Authorization"))


class _Token(_Handler):
    async def post(self) -> None:
        """Issue a token to the caller."""
        service, caller = self.service, await self.caller()
        if self.request.body:
            message = "The request takes no body: the token is always for the caller."
            raise Refusal(HTTPStatus.BAD_REQUEST, "unexpected_body", message, user=caller.name)
        if wait := service.rate.take(caller.name):
            seconds = int(wait) + 1
            message = (
                f"You requested too many tokens. Try again in {seconds} s, and check for a loop that requests tokens."
            )
            status = HTTPStatus.TOO_MANY_REQUESTS
            raise Refusal(status, "too_many_tokens", message, user=caller.name, retry_after=seconds)
        key, tier, jti = service.keys.signing(), service.tier_of(caller), str(uuid.uuid4())
        token = signed_token(key, service.policy, user=caller.name, tier=tier, jti=jti)
        audit.write("mint", self.request, user=caller.name, jti=jti, tier=tier, kid=key.kid)
        self.reply({"access_token": token, "token_type": "Bearer", "expires_in": int(service.policy.lifetime)})


class _FacilityDocument(_Handler):
    async def get(self) -> None:
        """Return the facility document."""
        await self.caller()
        self.reply({"facility": self.service.document})


class _Usage(_Handler):
    async def get(self) -> None:
        """Return the caller's own usage. The user comes from the Hub, never from the request."""
        caller, usage = await self.caller(), self.service.usage
        since = self.get_query_argument("since", _A_DAY)
        if since not in PERIODS:
            message = f"The parameter since is invalid. Expected {', '.join(PERIODS[:-1])} or {PERIODS[-1]}."
            raise Refusal(HTTPStatus.BAD_REQUEST, "invalid_since", message, user=caller.name)
        if usage is None:
            self.refuse(Refusal(HTTPStatus.NOT_FOUND, "not_offered", "This facility does not record usage."))
            return
        answer = await usage.of(caller.name, since)
        if answer.problem is not None:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            self.refuse(Refusal(status, "usage_unavailable", answer.problem, retry_after=FRESH))
            return
        self.reply({"since": since, **answer.as_dict()})


class _PublicKeys(_Handler):
    async def get(self) -> None:
        """Return the public keys that sign, have signed, or will sign soon."""
        self.set_header("Cache-Control", f"public, max-age={_KEYS_FRESH}")
        self.reply({"keys": [key.public for key in self.service.keys.published()]})


class _Health(_Handler):
    async def get(self) -> None:
        """Report that tokens can be signed."""
        self.reply({"status": "ready", "keys": len(self.service.keys.published())})


class _Nothing(_Handler):
    async def prepare(self) -> None:
        """Answer 404."""
        raise HTTPError(HTTPStatus.NOT_FOUND)


def server(service: Service, prefix: str) -> HTTPServer:
    """Return an HTTP server for the service below this prefix, with limits on a request's size and duration."""
    base = prefix.rstrip("/")
    application = Application(
        [
            (f"{base}/token", _Token, {"service": service}),
            (f"{base}/facility.json", _FacilityDocument, {"service": service}),
            (f"{base}/usage", _Usage, {"service": service}),
            (f"{base}/\\.well-known/jwks\\.json", _PublicKeys, {"service": service}),
            (f"{base}/healthz", _Health, {"service": service}),
        ],
        default_handler_class=_Nothing,
        default_handler_args={"service": service},
        log_function=lambda _: None,  # the audit log replaces it
    )
    return HTTPServer(
        application,
        max_body_size=_LARGEST_BODY,
        max_header_size=_LARGEST_HEADER,
        body_timeout=_BODY_TIMEOUT,
        idle_connection_timeout=_IDLE_TIMEOUT,
    )
