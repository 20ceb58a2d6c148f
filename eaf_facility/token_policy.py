"""The settings shared by the token service, which signs tokens, and Envoy, which verifies them.

They stand once in the operator's configuration, in the same file as `Facility`; users' notebooks do not need them.
"""

from __future__ import annotations

from traitlets import Dict, Float, Unicode
from traitlets.config import Configurable

__all__ = ["DEFAULT_TIER", "JWKS_PATH", "TokenPolicy"]

DEFAULT_TIER = "interactive"
JWKS_PATH = ".well-known/jwks.json"  # of the public keys, below the token service's base URL


class TokenPolicy(Configurable):
    """The tokens with which users reach Triton."""

    issuer = Unicode("eaf-inference", help="Issuer of the tokens (`iss`).").tag(config=True)
    audience = Unicode("triton", help="Audience of the tokens (`aud`).").tag(config=True)
    lifetime = Float(600.0, help="Seconds for which a token is valid, from `iat` to `exp`.").tag(config=True)
    jwks_url = Unicode(
        help="URL from which Envoy fetches the token service's public keys, as Envoy reaches it: "
        f"http://host:port/services/triton-token/{JWKS_PATH}."
    ).tag(config=True)
    tiers = Dict(
        value_trait=Unicode(),
        key_trait=Unicode(),
        help="Tier (`tier` in the token) of each Hub group's members. A user in several groups gets the tier of the "
        f"first one here; a user in none of them is {DEFAULT_TIER!r}.",
    ).tag(config=True)
