"""Foreign text as it may be shown: of bounded length, and without secrets.

A server may repeat a request's headers in its complaint, and an error the setting that it is about. Two things are
masked: what looks like a credential, whoever's it is, and the credentials that this process holds, whatever the text
around them looks like. For the second, each `SecretText` is remembered, weakly, for as long as it lives.
"""

from __future__ import annotations

import base64
import os
import re
from typing import NoReturn
from urllib.parse import quote
from weakref import WeakValueDictionary

__all__ = ["SecretText", "mask", "redact"]

_LONGEST = 1000  # characters
_LONGEST_READ = 256 * 1024  # characters, of which the first thousand are shown
_MASK = "…"
_PIECE = 8  # characters: where a secret is looked for …
_ENOUGH = 16  # … and how many of it in a row are masked; a shorter secret is masked as a whole
_SHORTEST = 6  # characters: what is shorter is no secret, and might be a word

_VARIABLES = ("JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN", "BEARER_TOKEN")  # they hold a token for the process's life

# Eight characters that are no English word, since they hold a digit, a "=" or a capital, or more than a word has.
_CREDENTIAL = r"(?:(?=[\w.~+/%-]*[\d=]|\w+[A-Z])[\w.~+/=%-]{8,}|[\w.~+/=%-]{20,})"
_SCHEMES = r"(?i:bearer|basic|token|negotiate|digest|ntlm|api-?key)"
_KEYS = r"(?i:x-[\w-]{0,40}(?:key|token|secret)|(?:set-)?cookie)"
_NAMES = r"(?i:(?:access|refresh|id|auth)[-_]?token|token|pass(?:word|wd)|(?:client[-_]?)?secret|api[-_]?key)"
_IS = r"[\"']?\s*[:=,]\s*[\"']?"
_PATTERNS = (
    (re.compile(r"(?<=://)[^/@\s]+@"), f"{_MASK}@"),
    (re.compile(rf"\b((?i:authorization){_IS}(?:[\w-]+\s+)?){_CREDENTIAL}"), rf"\1{_MASK}"),
    (re.compile(rf"\b({_KEYS}{_IS})[^\"'\r\n]+"), rf"\1{_MASK}"),
    (re.compile(rf"\b({_SCHEMES})\s+{_CREDENTIAL}"), rf"\1 {_MASK}"),
    (re.compile(rf"\b({_NAMES}(?:=|[\"']\s*:\s*[\"']))[^\s&,;\"']+"), rf"\1{_MASK}"),
    (re.compile(r"(?<![A-Za-z])eyJ[\w-]{8,}(?:\.[\w-]*)*"), _MASK),  # a JSON web token
)


class SecretText(str):
    """Text that gRPC can encode and nothing else can show; a slice of it is ordinary text."""

    __slots__ = ("__weakref__",)

    def __new__(cls, text: str) -> SecretText:
        made = super().__new__(cls, text[:])  # the text of another one, not what that shows
        _living[id(made)] = made
        return made

    def __repr__(self) -> str:
        return "<secret>"

    __str__ = __repr__

    def __format__(self, _: str) -> str:
        return "<secret>"

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise TypeError("A token does not travel: it is found again where it is needed.")


_living: WeakValueDictionary[int, SecretText] = WeakValueDictionary()


def redact(text: str) -> str:
    """The text of somebody else, clipped, with credentials replaced by an ellipsis."""
    text = mask(text[:_LONGEST_READ])
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + _MASK


def mask(text: str) -> str:
    """The text with credentials replaced by an ellipsis."""
    forms = sorted({form for secret in _secrets() for form in _forms(secret)}, key=len, reverse=True)
    for form in forms:  # whole ones first: a piece may be of several
        text = text.replace(form, _MASK)
    for form in forms:
        text = _without_pieces(text, form)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


def _secrets() -> set[str]:
    """The credentials of this process, without the scheme before them."""
    held = [secret[:] for each in _living.valuerefs() if (secret := each()) is not None]
    held += [os.environ.get(name, "") for name in _VARIABLES]
    values = {each.strip().rpartition(" ")[2] for each in held}
    return {value for value in values if len(value) >= _SHORTEST}


def _forms(secret: str) -> set[str]:
    """How it may be written: as it is, percent-encoded, in hexadecimal, and in base64 with something around it."""
    raw, percent = secret.encode(errors="replace"), quote(secret, safe="", errors="replace")
    forms = {secret, percent, percent.lower(), raw.hex()}
    for behind in range(3):
        # the characters at both ends depend on what stands there too
        inside = base64.b64encode(bytes(behind) + raw).rstrip(b"=")[(0, 2, 3)[behind] : -1].decode()
        forms |= {inside, inside.replace("+", "-").replace("/", "_")}
    return {form for form in forms if len(form) >= _SHORTEST}


def _without_pieces(text: str, secret: str) -> str:
    """The text without any long piece of the secret: whoever repeats it may have cut it."""
    enough, length = min(_ENOUGH, len(secret)), len(secret)
    for start in range(0, max(1, length - _PIECE + 1), _PIECE):  # a long piece holds one of these
        piece = secret[start : start + _PIECE]
        found = text.find(piece)
        while found >= 0:
            end = found + len(piece)
            before = _common(text[max(0, found - start) : found][::-1], secret[:start][::-1])
            after = _common(text[end : end + length], secret[start + len(piece) :])
            if before + len(piece) + after >= enough:
                end = found - before + len(_MASK)
                text = text[: found - before] + _MASK + text[found + len(piece) + after :]
            found = text.find(piece, end)
    return text


def _common(one: str, other: str) -> int:
    """The length of the beginning that both share."""
    length = min(len(one), len(other))
    return next((number for number, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), length)
