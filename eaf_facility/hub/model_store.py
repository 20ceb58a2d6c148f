"""The model store as the token service guards it: who may write what, and the quota.

Users upload files with short-lived keys (`store_keys`). The file that decides what Triton runs, ``config.pbtxt``, is
written here, after `checked_config`.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from eaf_facility.hub.callers import Refusal
from eaf_facility.hub.checked_config import RefusedConfig, checked_config
from eaf_facility.hub.store_keys import KeyMaker
from eaf_inference._redact import redact
from eaf_inference.deploy.names import escaped, owner_of
from eaf_inference.deploy.names import served_name as served
from eaf_inference.deploy.published import placeholder, removal, stands_in
from eaf_inference.errors import ConfigurationError, InferenceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from eaf_facility.hub.callers import Caller
    from eaf_facility.hub.settings import ModelStore
    from eaf_facility.hub.store_keys import Keys
    from eaf_inference.config import Facility
    from eaf_inference.deploy.store import Store, Usage

__all__ = ["StoreAccess", "store_access"]

log = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")
# not asyncio's own, in which the Hub's name is looked up: a store that hangs must not keep users from their tokens
_THREADS = ThreadPoolExecutor(16, "model-store")


def store_access(settings: ModelStore, facility: Facility) -> StoreAccess:
    """Return the access to the store, with the service's own credentials.

    Raises
    ------
    ConfigurationError
        The settings are not consistent, or a library is missing.
    """
    from eaf_inference.deploy.store import Store

    settings.checked(facility)
    own = settings.own_key()
    try:
        store = Store(facility.model_store, endpoint=facility.model_store_endpoint, key=own)
        keys = KeyMaker.of(settings, facility, own) if facility.model_store.startswith("s3://") else None
    except ImportError as error:
        raise ConfigurationError(
            f"The model store needs {error.name}. Install it: pip install 'eaf-inference[store]'"
        ) from error
    return StoreAccess(settings, facility, store, keys)


@dataclass(frozen=True, slots=True)
class StoreAccess:
    """The store, with what its users may do."""

    settings: ModelStore
    facility: Facility
    store: Store
    keys: KeyMaker | None
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    def may_run_code(self, caller: Caller) -> bool:
        """Return whether the caller may have models of the Python backend."""
        return not caller.groups.isdisjoint(self.settings.python_groups)

    async def keys_for(self, caller: Caller) -> Keys:
        """Return keys for the caller's own models, which cannot upload if she has used up her quota.

        Raises
        ------
        Refusal
            404: it is not an S3 store. 503: the store does not answer.
        """
        if self.keys is None:
            message = "This facility's model store is a file system: write with your own permissions there."
            raise Refusal(HTTPStatus.NOT_FOUND, "not_offered", message, user=caller.name)
        owner, make = _owner(caller), self.keys.make
        async with self._lock(f"{owner} keys"):  # one user's requests, which list her files, take one thread
            writes = await self._has_room(owner, caller)
            return await _asked(make, owner, python=self.may_run_code(caller), writes=writes, caller=caller)

    async def publish(self, caller: Caller, served_name: str, body: bytes) -> dict[str, Any]:
        """Write a model's configuration after checking it, and return what it serves.

        Raises
        ------
        Refusal
            403: it is not the caller's model. 409: her quota is used up. 422: the configuration is not allowed. 503:
            the store does not answer.
        """
        owner = _own(caller, served_name)
        async with self._lock(owner):
            return await self._publish(caller, owner, served_name, body)

    async def _publish(self, caller: Caller, owner: str, served_name: str, body: bytes) -> dict[str, Any]:
        publisher = self.store.publisher
        text = body.decode("utf-8", "replace")
        if text == removal(served_name):
            await _asked(publisher.write_config, served_name, text, caller=caller)
            return {"model": served_name, "version": None, "backend": ""}
        if stands_in(served_name, text):
            await self._check_room(caller, owner, served_name)
            await _asked(publisher.write_config, served_name, placeholder(served_name), caller=caller)
            return {"model": served_name, "version": None, "backend": ""}
        files = await _asked(self.store.files, served_name, caller=caller)
        try:
            checked = checked_config(
                body,
                served_name=served_name,
                files=files,
                backends=self.settings.backends,
                python=self.may_run_code(caller),
            )
        except RefusedConfig as error:
            raise Refusal(
                HTTPStatus.UNPROCESSABLE_ENTITY, error.code, str(error), user=caller.name, model=served_name
            ) from None
        # what is published already may be published again, which withdraws a version that was refused
        if await _asked(self.store.config, served_name, caller=caller) != checked.text:
            await self._check_room(caller, owner, served_name, version=checked.version)
        await _asked(publisher.write_config, served_name, checked.text, caller=caller)
        return {"model": served_name, "version": checked.version, "backend": checked.backend}

    async def withdraw(self, caller: Caller, served_name: str) -> None:
        """Remove a configuration, if nothing else is left of the model.

        Raises
        ------
        Refusal
            403: it is not the caller's model. 409: there are other files, which Triton would serve without a
            configuration. 503: the store does not answer.
        """
        owner = _own(caller, served_name)
        async with self._lock(owner):
            left = await _asked(self.store.files, served_name, caller=caller)
            if others := sorted(set(left) - {"config.pbtxt"}):
                raise Refusal(
                    HTTPStatus.CONFLICT,
                    "files_left",
                    f"{served_name} still has files, such as {others[0][:200]}, and Triton would serve them without "
                    "a configuration. Remove the whole model: DELETE it without /config.",
                    user=caller.name,
                    model=served_name,
                )
            await _asked(self.store.publisher.remove_config, served_name, caller=caller)

    async def remove(self, caller: Caller, served_name: str) -> None:
        """Remove a model with all its versions.

        Raises
        ------
        Refusal
            403: it is not the caller's model. 503: the store does not answer.
        """
        owner = _own(caller, served_name)
        async with self._lock(owner):
            await _asked(self.store.remove, served_name, caller=caller)

    async def _check_room(self, caller: Caller, owner: str, served_name: str, *, version: int | None = None) -> None:
        """Check the quota of models and bytes, of what is in the store now."""
        most, most_bytes = self.facility.most_models, self.facility.most_model_bytes
        if not (most or most_bytes):
            return
        usage: Usage = await _asked(self.store.usage, owner, caller=caller)
        models = usage.models + (0 if await _asked(self.store.files, served_name, caller=caller) else 1)
        if most and models > most:
            reason = f"you would have {models} models, and this facility allows each user {most}"
        elif most_bytes and usage.bytes > most_bytes:
            reason = f"your models have {usage.bytes} bytes, and this facility allows each user {most_bytes}"
        else:
            return
        raise Refusal(
            HTTPStatus.CONFLICT,
            "quota_exceeded",
            f"{served_name} is not published: {reason}. Remove a model that you no longer need, "
            "triton.undeploy(NAME).",
            user=caller.name,
            model=served_name,
            version=version,
        )

    async def _has_room(self, owner: str, caller: Caller) -> bool:
        most, most_bytes = self.facility.most_models, self.facility.most_model_bytes
        if not (most or most_bytes):
            return True
        usage: Usage = await _asked(self.store.usage, owner, caller=caller)
        # each directory costs every poll of Triton, whether it is published or not
        return (not most or usage.models <= most) and (not most_bytes or usage.bytes < most_bytes)

    def _lock(self, name: str) -> asyncio.Lock:
        """Return a lock. An owner's is for her changes, so that two at once do not share the last of the quota."""
        return self._locks.setdefault(name, asyncio.Lock())


def _owner(caller: Caller) -> str:
    try:
        return escaped(caller.name)
    except ConfigurationError as error:
        raise Refusal(HTTPStatus.FORBIDDEN, "cannot_own_models", str(error), user=caller.name) from None


def _own(caller: Caller, served_name: str) -> str:
    """Return the owner of this model if that is the caller. The user comes from the Hub, never from the request."""
    owner = _owner(caller)
    if owner_of(served_name) != owner:  # the names of others, and those without an owner
        raise Refusal(
            HTTPStatus.FORBIDDEN,
            "not_your_model",
            f"{served_name[:200]!r} is not one of your models. Their names begin with {owner}. (with the dot).",
            user=caller.name,
            model=served_name[:200],
        )
    try:
        served(caller.name, served_name.partition(".")[2])
    except ConfigurationError as error:
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_name", str(error), user=caller.name, model=served_name[:200]
        ) from None
    return owner


async def _asked(call: Callable[..., _Answer], *arguments: Any, caller: Caller, **options: Any) -> _Answer:
    """Call the store in a thread."""
    try:
        return await asyncio.get_running_loop().run_in_executor(_THREADS, partial(call, *arguments, **options))
    except (InferenceError, OSError) as error:
        log.warning("the model store: %s: %s", type(error).__name__, redact(str(error)))
        raise Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "store_unavailable",
            "The facility's model store does not answer. Try again in a minute, or ask the facility's operators.",
            user=caller.name,
            retry_after=60,
        ) from None
