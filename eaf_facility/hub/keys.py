"""The signing keys and their schedule: when each is published, signs tokens, and is dropped.

Pure functions: the caller supplies the time and the function that makes a key (`key_store` keeps the keys in a file).
The next key is published before it signs, so that Envoy has fetched it by then; a retired key stays published until
its last token has expired.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Key", "Keys", "Schedule", "advanced", "next_change", "signing"]


@dataclass(frozen=True, slots=True)
class Key:
    """One Ed25519 key pair.

    Attributes
    ----------
    kid : str
        Its id in tokens and in the published set.
    signs_from : float
        When it starts to sign, in seconds since the epoch.
    private : Ed25519PrivateKey
    """

    kid: str
    signs_from: float
    private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def new(cls, signs_from: float) -> Key:
        return cls(secrets.token_urlsafe(12), signs_from, Ed25519PrivateKey.generate())

    @property
    def public(self) -> dict[str, str]:
        """The public half as a JSON web key (RFC 8037)."""
        from jwt.algorithms import OKPAlgorithm

        public = OKPAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {**public, "alg": "EdDSA", "use": "sig", "kid": self.kid}

    def as_dict(self) -> dict[str, Any]:
        """Return what `key_store` writes, including the private key."""
        pem = self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {"kid": self.kid, "signs_from": self.signs_from, "private": pem.decode()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Key:
        private = serialization.load_pem_private_key(data["private"].encode(), password=None)
        if not isinstance(private, Ed25519PrivateKey):
            raise TypeError("a key that is not Ed25519")
        return cls(str(data["kid"]), float(data["signs_from"]), private)


Keys = tuple[Key, ...]  # all published keys, in the order in which they sign


@dataclass(frozen=True, slots=True)
class Schedule:
    """Seconds for which a key signs (`every`), and is published before (`ahead`) and afterwards (`after`)."""

    every: float
    ahead: float
    after: float


def advanced(keys: Keys, now: float, schedule: Schedule, make: Callable[[float], Key] = Key.new) -> Keys:
    """Return the keys that should be published now."""
    if not keys:
        return (make(now),)  # the first key may sign at once
    due = keys[-1].signs_from + schedule.every
    if now >= due - schedule.ahead:  # if this is late, the previous key keeps signing meanwhile
        keys = (*keys, make(max(due, now + schedule.ahead)))
    kept = (key for key, successor in pairwise(keys) if now < successor.signs_from + schedule.after)
    return (*kept, keys[-1])


def next_change(keys: Keys, schedule: Schedule) -> float:
    """Return when `advanced` will next change the keys."""
    new = keys[-1].signs_from + schedule.every - schedule.ahead
    return min([new, *(successor.signs_from + schedule.after for successor in keys[1:])])


def signing(keys: Keys, now: float) -> Key:
    """Return the key that signs now."""
    begun = [key for key in keys if key.signs_from <= now]
    return begun[-1] if begun else keys[0]  # the clock was set back
