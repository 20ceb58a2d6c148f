"""The token service's HTTP endpoints, as openapi.yaml describes them.

It exchanges a caller's Hub token for a short-lived token, in that user's name, for the edge proxy in front of Triton.
Every error is JSON with a message for the user.
"""

from __future__ import annotations

import re
import uuid
from http import HTTPStatus

from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError

from eaf_facility.hub import audit
from eaf_facility.hub.callers import Refusal
from eaf_facility.hub.checked_config import LARGEST_CONFIG
from eaf_facility.hub.handler import Handler, Service
from eaf_facility.hub.store_endpoints import ENDPOINTS
from eaf_facility.hub.tokens import signed_token
from eaf_facility.hub.usage import FRESH, PERIODS
from eaf_facility.token_policy import JWKS_PATH

__all__ = ["server"]

_LARGEST_BODY = 4 * LARGEST_CONFIG  # bytes; the sender of a larger one learns no reason
_LARGEST_HEADER = 32 * 1024
_BODY_TIMEOUT = 5.0  # seconds
_IDLE_TIMEOUT = 60.0  # seconds to wait for a request's headers, on a new or a kept connection
_KEYS_FRESH = 60  # seconds for which a proxy may keep the public keys
_A_DAY = "1d"


class _Token(Handler):
    async def post(self) -> None:
        """Issue a token to the caller."""
        service, caller = self.service, await self.caller()
        if self.request.body:
            message = "The request takes no body: the token is always for the caller."
            raise Refusal(HTTPStatus.BAD_REQUEST, "unexpected_body", message, user=caller.name)
        service.admit(caller, "token")
        key, tier, jti = service.keys.signing(), service.tier_of(caller), str(uuid.uuid4())
        token = signed_token(key, service.policy, user=caller.name, tier=tier, jti=jti)
        audit.write("mint", self.request, user=caller.name, jti=jti, tier=tier, kid=key.kid)
        self.reply({"access_token": token, "token_type": "Bearer", "expires_in": int(service.policy.lifetime)})


class _FacilityDocument(Handler):
    async def get(self) -> None:
        """Return the facility document."""
        await self.caller()
        self.reply({"facility": self.service.document})


class _Usage(Handler):
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


class _PublicKeys(Handler):
    async def get(self) -> None:
        """Return the public keys that sign, have signed, or will sign soon."""
        self.set_header("Cache-Control", f"public, max-age={_KEYS_FRESH}")
        self.reply({"keys": [key.public for key in self.service.keys.published()]})


class _Health(Handler):
    async def get(self) -> None:
        """Report that tokens can be signed."""
        self.reply({"status": "ready", "keys": len(self.service.keys.published())})


class _Nothing(Handler):
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
            (f"{base}/{re.escape(JWKS_PATH)}", _PublicKeys, {"service": service}),
            (f"{base}/healthz", _Health, {"service": service}),
            *((f"{base}/{path}", endpoint, {"service": service}) for path, endpoint in ENDPOINTS),
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
