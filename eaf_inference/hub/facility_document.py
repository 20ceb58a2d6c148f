"""The facility document: what the service's own `Facility` configuration tells every user's kernel and server.

Authorities go as their text, as the file is on this machine only; a secret has no place in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from eaf_inference.config import Facility
from eaf_inference.errors import ConfigurationError
from eaf_inference.tls import pem_text

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["facility_document"]


def facility_document(facility: Facility) -> dict[str, Any]:
    """The settings that users are told, by name: those that differ from the defaults.

    Raises
    ------
    ConfigurationError
        A file of authorities cannot be read, or an address carries a password.
    """
    defaults = Facility()
    document = {}
    for name, trait in facility.traits(served=True).items():
        value = getattr(facility, name)
        if value == getattr(defaults, name):
            continue
        if trait.metadata.get("pem"):
            value = pem_text(value, f"certificate authorities (Facility.{name})")
        for text in _texts(value):
            if "://" in text and "@" in urlsplit(text).netloc:
                raise ConfigurationError(
                    f"Facility.{name} carries a user name or password, and every user is told it. "
                    "Expected an address alone."
                )
        document[name] = list(value) if isinstance(value, list) else value
    return document


def _texts(value: object) -> Iterable[str]:
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]
