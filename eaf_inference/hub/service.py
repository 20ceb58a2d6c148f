"""The token service's addresses, as openapi.yaml describes them.

A caller's Hub token goes in, and a short-lived token for Triton's door comes out, in that user's name. Every reply
that is not one is JSON with a sentence for the user.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import jwt
from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError, RequestHandler

from eaf_inference.hub import audit
from eaf_inference.hub.callers import Refusal, caller_of
from eaf_inference.hub.usage import FRESH, LENGTHS
from eaf_inference.policy import DEFAULT_TIER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jupyterhub.services.auth import HubAuth

    from eaf_inference.hub.callers import Caller
    from eaf_inference.hub.key_store import KeyStore
    from eaf_inference.hub.rate import Rate
    from eaf_inference.hub.usage import OwnUsage
    from eaf_inference.policy import TokenPolicy

__all__ = ["Service", "server"]

_LARGEST_BODY = 4096  # bytes; none is expected
_LARGEST_HEADER = 32 * 1024
_BODY_WITHIN = 5.0  # seconds
_HEADERS_WITHIN = 60.0  # seconds, and the longest pause of a connection that is kept
_KEYS_FRESH = 60  # seconds for which a proxy may keep the public keys
_A_DAY = "1d"


@dataclass(frozen=True, slots=True)
class Service:
    """What all requests share."""

    hub: HubAuth
    keys: KeyStore
    policy: TokenPolicy
    rate: Rate
    document: Mapping[str, Any]
    contact: str
    usage: OwnUsage | None

    async def caller(self, authorization: str | None) -> Caller:
        """Who is calling; see `caller_of`."""
        return await caller_of(authorization, self.hub, self.contact)

    def tier_of(self, caller: Caller) -> str:
        """The tier of the first group in the operator's order."""
        return next((tier for group, tier in self.policy.tiers.items() if group in caller.groups), DEFAULT_TIER)


class _Handler(RequestHandler):
    """Answers in JSON; what is refused is noted."""

    def initialize(self, service: Service) -> None:
        self.service = service

    def set_default_headers(self) -> None:
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "application/json")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.clear_header("Server")

    def reply(self, answer: Mapping[str, Any]) -> None:
        """Send this."""
        self.write(json.dumps(answer))

    def refuse(self, refusal: Refusal) -> None:
        """Send this; the audit log does not hear of it."""
        self.set_status(refusal.status)
        if refusal.status == HTTPStatus.UNAUTHORIZED:
            self.set_header("WWW-Authenticate", "Bearer")
        if refusal.retry_after is not None:
            self.set_header("Retry-After", str(refusal.retry_after))
        self.reply({"error": refusal.error, "message": refusal.message})

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say what went wrong, and nothing of how this is made."""
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
        """A refusal is an answer, and in the audit log."""
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
        """Who is calling."""
        return await self.service.caller(self.request.headers.get("Authorization"))


class _Token(_Handler):
    async def post(self) -> None:
        """Give the caller a token."""
        service, caller = self.service, await self.caller()
        if self.request.body:
            message = "The token is for whoever asks, and the request takes no body."
            raise Refusal(HTTPStatus.BAD_REQUEST, "unexpected_body", message, user=caller.name)
        if wait := service.rate.take(caller.name):
            seconds = int(wait) + 1
            message = f"You asked for too many tokens; there is another in {seconds} s. Does a loop ask for them?"
            status = HTTPStatus.TOO_MANY_REQUESTS
            raise Refusal(status, "too_many_tokens", message, user=caller.name, retry_after=seconds)
        now, policy, key = int(time.time()), service.policy, service.keys.signing()
        claims = {
            "iss": policy.issuer,
            "aud": policy.audience,
            "sub": caller.name,
            "iat": now,
            "exp": now + int(policy.lifetime),
            "jti": str(uuid.uuid4()),
            "tier": service.tier_of(caller),
        }
        token = jwt.encode(claims, key.private, algorithm="EdDSA", headers={"kid": key.kid})
        audit.write("mint", self.request, user=caller.name, jti=claims["jti"], tier=claims["tier"], kid=key.kid)
        self.reply({"access_token": token, "token_type": "Bearer", "expires_in": int(policy.lifetime)})


class _FacilityDocument(_Handler):
    async def get(self) -> None:
        """Tell a user of the facility."""
        await self.caller()
        self.reply({"facility": self.service.document})


class _Usage(_Handler):
    async def get(self) -> None:
        """Tell a user what she had; whose that is, the Hub alone says."""
        caller, usage = await self.caller(), self.service.usage
        since = self.get_query_argument("since", _A_DAY)
        if since not in LENGTHS:
            message = (
                f"since is no length of time that is told of. Expected {', '.join(LENGTHS[:-1])} or {LENGTHS[-1]}."
            )
            raise Refusal(HTTPStatus.BAD_REQUEST, "invalid_since", message, user=caller.name)
        if usage is None:
            self.refuse(Refusal(HTTPStatus.NOT_FOUND, "not_offered", "Usage is not counted at this facility."))
            return
        answer = await usage.of(caller.name, since)
        if answer.problem is not None:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            self.refuse(Refusal(status, "usage_unavailable", answer.problem, retry_after=FRESH))
            return
        self.reply({"since": since, **answer.as_dict()})


class _PublicKeys(_Handler):
    async def get(self) -> None:
        """The public halves of all keys that sign, signed or are about to."""
        self.set_header("Cache-Control", f"public, max-age={_KEYS_FRESH}")
        self.reply({"keys": [key.public for key in self.service.keys.published()]})


class _Health(_Handler):
    async def get(self) -> None:
        """Say that tokens can be signed."""
        self.reply({"status": "ready", "keys": len(self.service.keys.published())})


class _Nothing(_Handler):
    async def prepare(self) -> None:
        """There is no such address."""
        raise HTTPError(HTTPStatus.NOT_FOUND)


def server(service: Service, prefix: str) -> HTTPServer:
    """The service below this prefix, with bounds on what a request may be and how long it may take to come."""
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
        log_function=lambda _: None,  # the audit log has what matters
    )
    return HTTPServer(
        application,
        max_body_size=_LARGEST_BODY,
        max_header_size=_LARGEST_HEADER,
        body_timeout=_BODY_WITHIN,
        idle_connection_timeout=_HEADERS_WITHIN,
    )
