"""Text from other programs, made safe to show: bounded in length, and without secrets.

A server may repeat a request's headers in its error message, and an error may quote the setting it is about. Two
things are masked: everything that looks like a credential, and the credentials of this process in any context. For
the latter, a weak reference to each living `SecretText` is kept.
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
_LONGEST_READ = 256 * 1024  # characters, before the text is masked and shortened
_MASK = "…"
_PIECE = 8  # characters: pieces in which a secret is searched for …
_ENOUGH = 16  # … and the shortest part that is masked, unless the secret itself is shorter
_SHORTEST = 6  # characters: a shorter text is not a secret and might be a word

_VARIABLES = ("JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN", "BEARER_TOKEN")  # each holds a token while the process lives

# At least eight characters that are not an English word: with a digit, "=" or a capital inside, or very many.
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
    """Text that gRPC can encode but that hides itself when printed or pickled; a slice of it is ordinary text."""

    __slots__ = ("__weakref__",)

    def __new__(cls, text: str) -> SecretText:
        made = super().__new__(cls, text[:])  # a slice, because str() of a SecretText is "<secret>"
        _living[id(made)] = made
        return made

    def __repr__(self) -> str:
        return "<secret>"

    __str__ = __repr__

    def __format__(self, _: str) -> str:
        return "<secret>"

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise TypeError("A token cannot be pickled; each process finds its own.")


_living: WeakValueDictionary[int, SecretText] = WeakValueDictionary()


def redact(text: str) -> str:
    """Shorten a text and replace the credentials in it by an ellipsis."""
    text = mask(text[:_LONGEST_READ])
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + _MASK


def mask(text: str) -> str:
    """Replace the credentials in a text by an ellipsis."""
    forms = sorted({form for secret in _secrets() for form in _forms(secret)}, key=len, reverse=True)
    for form in forms:  # whole ones first: several may share a piece
        text = text.replace(form, _MASK)
    for form in forms:
        text = _without_pieces(text, form)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


def _secrets() -> set[str]:
    """Return the credentials of this process, without their scheme."""
    held = [secret[:] for each in _living.valuerefs() if (secret := each()) is not None]
    held += [os.environ.get(name, "") for name in _VARIABLES]
    values = {each.strip().rpartition(" ")[2] for each in held}
    return {value for value in values if len(value) >= _SHORTEST}


def _forms(secret: str) -> set[str]:
    """Return the forms of a secret: plain, percent-encoded, hexadecimal, and base64 within a longer text."""
    raw, percent = secret.encode(errors="replace"), quote(secret, safe="", errors="replace")
    forms = {secret, percent, percent.lower(), raw.hex()}
    for behind in range(3):
        # the characters at both ends depend on the neighbouring bytes
        inside = base64.b64encode(bytes(behind) + raw).rstrip(b"=")[(0, 2, 3)[behind] : -1].decode()
        forms |= {inside, inside.replace("+", "-").replace("/", "_")}
    return {form for form in forms if len(form) >= _SHORTEST}


def _without_pieces(text: str, secret: str) -> str:
    """Mask every long piece of a secret, because a server may repeat it truncated."""
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
    """Return the length of the common prefix."""
    length = min(len(one), len(other))
    return next((number for number, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), length)
