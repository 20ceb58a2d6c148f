"""What others wrote, as it may be shown: of bounded length, and without what looks like a secret.

A proxy may repeat a request's headers in its complaint, and an error the setting that it is about.
"""

from __future__ import annotations

import re

__all__ = ["sentence"]

_LONGEST = 1000  # characters
_SECRETS = (
    (re.compile(r"(?<=://)[^/@\s]+@"), "…@"),
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/-]{16,}=*", re.IGNORECASE), r"\1 …"),
    (re.compile(r"\b(access_token|token|password)=[^\s&,;]+", re.IGNORECASE), r"\1=…"),
    (re.compile(r"\beyJ[\w-]+(?:\.[\w-]*)+"), "…"),  # a JSON web token
)


def sentence(text: str) -> str:
    """The text, clipped, with credentials replaced by an ellipsis."""
    text = text[: 4 * _LONGEST]
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
