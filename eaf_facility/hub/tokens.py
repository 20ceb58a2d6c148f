"""Sign the tokens with which users reach Triton."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import jwt

if TYPE_CHECKING:
    from eaf_facility.hub.keys import Key
    from eaf_facility.token_policy import TokenPolicy

__all__ = ["signed_token"]


def signed_token(key: Key, policy: TokenPolicy, *, user: str, tier: str, jti: str) -> str:
    """Return a token that is valid from now on.

    Parameters
    ----------
    key : Key
        The key that signs it.
    policy : TokenPolicy
        Issuer, audience and lifetime.
    user, tier, jti : str
        The token's `sub`, `tier` and id.
    """
    now = int(time.time())
    claims = {
        "iss": policy.issuer,
        "aud": policy.audience,
        "sub": user,
        "iat": now,
        "exp": now + int(policy.lifetime),
        "jti": jti,
        "tier": tier,
    }
    return jwt.encode(claims, key.private, algorithm="EdDSA", headers={"kid": key.kid})
