"""The facility document of the Hub's token service: defaults for every user's kernel and server.

An operator configures the service alone. This machine's own configuration files override its document.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eaf_inference._redact import redact
from eaf_inference.auth.token_service import ANSWER_WITHIN, ENVIRONMENT, TokenService, below
from eaf_inference.config import Facility, configured, load_facility
from eaf_inference.errors import ConfigurationError, InferenceError, NotAuthorized

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Document", "ResolvedFacility", "known_facility"]

_GOOD_FOR = 60.0  # seconds: an operator's change takes effect within a minute
_FAILED_FOR = 2.0  # seconds: threads that fail at the same moment share one request


@dataclass(frozen=True, slots=True)
class Document:
    """The service's document, or why it could not be read.

    Attributes
    ----------
    url : str
        Its address.
    settings : mapping
        Settings of `Facility` by name; those of the last reading if the service does not answer now.
    error : InferenceError or None
        Why the last reading failed.
    read_at : float or None
        When the settings were read: seconds since the epoch.
    """

    url: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    error: InferenceError | None = None
    read_at: float | None = None


@dataclass(frozen=True, slots=True)
class ResolvedFacility:
    """The facility's configuration from all sources.

    Attributes
    ----------
    own : Facility
        This machine's configuration files.
    document : Document or None
        The Hub's facility document; None without a token service.
    facility : Facility
        Both: the files have the last word.
    """

    own: Facility
    document: Document | None
    facility: Facility


class _DocumentCache:
    """The documents of this process by the service's base URL; one thread reads at a time."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._documents: dict[str, Document] = {}
        self._asked: dict[str, float] = {}

    def get(self, service: TokenService) -> Document:
        """Return the document, at most a minute old; the last good one if the service does not answer."""
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
        except NotAuthorized as error:  # the service answered: the user may no longer see the old one
            return Document(url, error=error)
        except InferenceError as error:
            if last is None:
                return Document(url, error=error)
            return Document(url, last.settings, error, last.read_at)


_document_cache = _DocumentCache()


def known_facility(*, timeout: float = ANSWER_WITHIN) -> ResolvedFacility:
    """Return the facility's configuration: this machine's files, which override the Hub's facility document.

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
        return ResolvedFacility(own, None, own)  # a missing Hub token is reported on first use
    document = _document_cache.get(TokenService(base, ca=own.ca or None, timeout=timeout))
    facility = configured(Facility, defaults=document.settings)
    facility.token_service = base
    return ResolvedFacility(own, document, facility)


def _served(settings: Mapping[str, Any], url: str) -> dict[str, Any]:
    """Return the settings that a document may contain, without those that only newer versions know.

    Raises
    ------
    ConfigurationError
        A setting has a value of the wrong type.
    """
    taken = {name: settings[name] for name in Facility.class_trait_names(served=True) if name in settings}
    try:
        Facility(**taken)
    except Exception as error:  # noqa: BLE001  (traitlets may raise anything)
        raise ConfigurationError(
            f"The facility document {url} is wrong: {redact(str(error)).rstrip('.')}. Tell the facility's operators."
        ) from None
    return taken
