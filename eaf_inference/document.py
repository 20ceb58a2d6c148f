"""What the Hub's token service says of its facility: defaults for every user's kernel and server.

An operator configures one place, the service; its facility document stands below what this machine's own
configuration files say.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eaf_inference._redact import redact
from eaf_inference.config import Facility, configured, load_facility
from eaf_inference.errors import ConfigurationError, InferenceError, NotAuthorized
from eaf_inference.token_service import ANSWER_WITHIN, ENVIRONMENT, TokenService, below

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Document", "Known", "known_facility"]

_GOOD_FOR = 60.0  # seconds: an operator's change arrives within a minute, and a panel's looks ask nobody meanwhile
_FAILED_FOR = 2.0  # seconds: what threads at the same moment ask in vain is asked once


@dataclass(frozen=True, slots=True)
class Document:
    """What the service said, or why it said nothing.

    Attributes
    ----------
    url : str
        Its address.
    settings : mapping
        Settings of `Facility` by name; where it does not answer now, those of the last time.
    error : InferenceError or None
        Why it could not be read just now.
    read_at : float or None
        When the settings were read, in seconds since the epoch.
    """

    url: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    error: InferenceError | None = None
    read_at: float | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """The facility as it is known here.

    Attributes
    ----------
    own : Facility
        What this machine's configuration files say.
    document : Document or None
        What the Hub's token service says; None where none is named.
    facility : Facility
        Both: the files have the last word.
    """

    own: Facility
    document: Document | None
    facility: Facility


class _Library:
    """The documents of this process, by the service's base URL; asked for by one thread at a time."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._documents: dict[str, Document] = {}
        self._asked: dict[str, float] = {}

    def get(self, service: TokenService) -> Document:
        """The document, at most a minute old; where the service does not answer, the last good one."""
        with self._lock:
            last = self._documents.get(service.url)
            if last is not None:
                age = self._clock() - self._asked[service.url]
                if 0 <= age < (_GOOD_FOR if last.error is None else _FAILED_FOR):
                    return last
            new = self._documents[service.url] = self._read(service, last)
            self._asked[service.url] = self._clock()
            return new

    def _read(self, service: TokenService, last: Document | None) -> Document:
        url = below(service.url, "facility.json")
        try:
            return Document(url, _served(service.facility(), url), read_at=self._clock())
        except NotAuthorized as error:  # an answer: what was known is not this user's any more
            return Document(url, error=error)
        except InferenceError as error:
            if last is None:
                return Document(url, error=error)
            return Document(url, last.settings, error, last.read_at)


_library = _Library()


def known_facility(*, timeout: float = ANSWER_WITHIN) -> Known:
    """The facility's configuration: this machine's files, on top of the Hub's facility document where there is one.

    Parameters
    ----------
    timeout : float
        Seconds for the document.

    Raises
    ------
    ConfigurationError
        A configuration file cannot be read, or gives a setting a value of the wrong type.
    """
    own = load_facility()
    if not own.token_service and not own.token_file:
        own.token_service = os.environ.get(ENVIRONMENT, "").strip()
    base = own.token_service
    if not base or not os.environ.get("JUPYTERHUB_API_TOKEN"):
        return Known(own, None, own)  # who has no Hub token is told so when a token is wanted
    document = _library.get(TokenService(base, ca=own.ca or None, timeout=timeout))
    facility = configured(Facility, defaults=document.settings)
    facility.token_service = base
    return Known(own, document, facility)


def _served(settings: Mapping[str, Any], url: str) -> dict[str, Any]:
    """The settings that a document may give; what a newer service says besides is left out.

    Raises
    ------
    ConfigurationError
        One has a value of the wrong type.
    """
    taken = {name: settings[name] for name in Facility.class_trait_names(served=True) if name in settings}
    try:
        Facility(**taken)
    except Exception as error:  # noqa: BLE001  (traitlets raise what they like)
        raise ConfigurationError(f"The facility document {url} is wrong: {redact(str(error))}") from None
    return taken
