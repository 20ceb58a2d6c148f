"""The token service's endpoints for the model store, as openapi.yaml describes them."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from eaf_facility.hub import audit
from eaf_facility.hub.callers import Refusal
from eaf_facility.hub.handler import Handler

if TYPE_CHECKING:
    from eaf_facility.hub.callers import Caller
    from eaf_facility.hub.model_store import StoreAccess

__all__ = ["ENDPOINTS"]


class _StoreHandler(Handler):
    async def admitted(self) -> tuple[Caller, StoreAccess]:
        """Return the caller and the store, after counting the request."""
        caller = await self.caller()
        self.service.admit(caller, "store request")
        if self.service.store is None:
            message = "This facility's token service does not manage a model store."
            raise Refusal(HTTPStatus.NOT_FOUND, "not_offered", message, user=caller.name)
        return caller, self.service.store

    def check_no_body(self, caller: Caller) -> None:
        """Refuse a body, which might seem to choose another user."""
        if self.request.body:
            message = "The request takes no body: it is always about your own models."
            raise Refusal(HTTPStatus.BAD_REQUEST, "unexpected_body", message, user=caller.name)


class _Keys(_StoreHandler):
    async def post(self) -> None:
        """Give the caller keys for her own models."""
        caller, store = await self.admitted()
        self.check_no_body(caller)
        keys = await store.keys_for(caller)
        audit.write("store_keys", self.request, user=caller.name, key=keys.key, writes=keys.writes)
        self.reply(
            {
                "key": keys.key,
                "secret": keys.secret[:],
                "token": keys.token[:],
                "expires_in": keys.expires_in,
                "endpoint": store.facility.model_store_endpoint,
                "url": store.facility.model_store,
                "owner": keys.owner,
                "writes": keys.writes,
            }
        )


class _Config(_StoreHandler):
    async def put(self, name: str) -> None:
        """Write the configuration of one of the caller's models."""
        caller, store = await self.admitted()
        done = await store.publish(caller, name, self.request.body)
        audit.write("publish", self.request, user=caller.name, **done)
        self.reply({"model": done["model"], "version": done["version"]})

    async def delete(self, name: str) -> None:
        """Remove the configuration of one of the caller's models."""
        caller, store = await self.admitted()
        self.check_no_body(caller)
        await store.withdraw(caller, name)
        audit.write("unpublish", self.request, user=caller.name, model=name)
        self.reply({"model": name})


class _Model(_StoreHandler):
    async def delete(self, name: str) -> None:
        """Remove one of the caller's models."""
        caller, store = await self.admitted()
        self.check_no_body(caller)
        await store.remove(caller, name)
        audit.write("remove", self.request, user=caller.name, model=name)
        self.reply({"model": name})


ENDPOINTS = (
    ("store/keys", _Keys),
    ("store/models/([^/]+)/config", _Config),
    ("store/models/([^/]+)", _Model),
)
