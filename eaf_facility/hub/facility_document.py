"""The facility document: the settings of the service's `Facility` section that users' kernels and servers receive.

Certificate authorities are sent as text, because their file exists on this machine only. The document never contains
a secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from eaf_inference.auth.tls import pem_text
from eaf_inference.config import Facility
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["facility_document"]


def facility_document(facility: Facility) -> dict[str, Any]:
    """Return the settings for users, by name: those that differ from their defaults.

    Raises
    ------
    ConfigurationError
        A file of certificate authorities cannot be read, or a URL contains a user name or password.
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
                    f"Facility.{name} contains a user name or password, and every user receives it. "
                    "Expected a URL without credentials."
                )
        document[name] = list(value) if isinstance(value, list) else value
    return document


def _texts(value: object) -> Iterable[str]:
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]
