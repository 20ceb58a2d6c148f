"""The keys that sign: when each is published, signs and is forgotten.

Pure: the clock and the making of a key are the caller's (`key_store` keeps them in a file). The next key is published
before it signs, so that the door has it by then; the former one stays until its last token has expired.
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
        Its name in tokens and in the published set.
    signs_from : float
        When it begins to sign, in seconds since the epoch.
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
        """As a JSON web key (RFC 8037)."""
        from jwt.utils import base64url_encode

        raw = self.private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return {
            "kty": "OKP",
            "crv": "Ed25519",
            "alg": "EdDSA",
            "use": "sig",
            "kid": self.kid,
            "x": base64url_encode(raw).decode(),
        }

    def as_dict(self) -> dict[str, Any]:
        """What the store keeps: this is the secret."""
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


Keys = tuple[Key, ...]  # all that are published, in the order in which they sign


@dataclass(frozen=True, slots=True)
class Schedule:
    """Seconds: one key signs for `every`, is published `ahead` of that, and `after` it until no token is left."""

    every: float
    ahead: float
    after: float


def advanced(keys: Keys, now: float, schedule: Schedule, make: Callable[[float], Key] = Key.new) -> Keys:
    """The keys as they should be published now."""
    if not keys:
        return (make(now),)  # nobody waits for it: there were no tokens before
    due = keys[-1].signs_from + schedule.every
    if now >= due - schedule.ahead:  # late, after a long sleep, the former key goes on signing meanwhile
        keys = (*keys, make(max(due, now + schedule.ahead)))
    followed = pairwise(keys)
    kept = (key for key, successor in followed if now < successor.signs_from + schedule.after)
    return (*kept, keys[-1])


def next_change(keys: Keys, schedule: Schedule) -> float:
    """When `advanced` gives something else."""
    new = keys[-1].signs_from + schedule.every - schedule.ahead
    return min([new, *(successor.signs_from + schedule.after for successor in keys[1:])])


def signing(keys: Keys, now: float) -> Key:
    """The key that signs now."""
    begun = [key for key in keys if key.signs_from <= now]
    return begun[-1] if begun else keys[0]  # a clock that was set back
