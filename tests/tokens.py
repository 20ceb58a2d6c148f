"""Bearer tokens for tests. Each one contains `MARK`, so that one search finds any leak."""

from __future__ import annotations

import base64
import json
import secrets
import time

MARK = "c0ffee5ec7e7"


def make_token(user: str = "alice", *, lives: float = 600, age: float = 0) -> str:
    """Return a well-formed JWT; its signature is random, which a client cannot notice."""
    now = time.time()
    claims = {"sub": user, "aud": "triton", "iat": now - age, "exp": now - age + lives}
    parts = (_encoded({"alg": "EdDSA", "typ": "JWT"}), _encoded(claims), MARK + secrets.token_urlsafe(32))
    return ".".join(parts)


def _encoded(data: dict) -> str:
    return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()
