"""What the token service that signs tokens and the door that verifies them have to agree on.

An operator writes it once, in the same file as `Facility`; users' notebooks need none of it.
"""

from __future__ import annotations

from traitlets import Dict, Float, Unicode
from traitlets.config import Configurable

__all__ = ["DEFAULT_TIER", "TokenPolicy"]

DEFAULT_TIER = "interactive"


class TokenPolicy(Configurable):
    """The tokens that let users in to Triton."""

    issuer = Unicode("eaf-inference", help="The tokens' `iss`.").tag(config=True)
    audience = Unicode("triton", help="The tokens' `aud`.").tag(config=True)
    lifetime = Float(600.0, help="Seconds from a token's `iat` to its `exp`.").tag(config=True)
    jwks_url = Unicode(
        help="Where the door fetches the token service's public keys, as seen from there: "
        "http://host:port/services/triton-token/.well-known/jwks.json."
    ).tag(config=True)
    tiers = Dict(
        value_trait=Unicode(),
        key_trait=Unicode(),
        help="Hub group -> tier of its members (`tier` in the token); whoever is in none of them is "
        f"{DEFAULT_TIER!r}. Of several, the first in this order counts.",
    ).tag(config=True)
