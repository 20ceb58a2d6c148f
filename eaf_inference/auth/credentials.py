"""One user's token, kept fresh: when its source is read again.

`Credentials` decides what to do; it performs no I/O itself, besides reading its source.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from eaf_inference.errors import InferenceError, ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from eaf_inference.auth.sources import TokenSource
    from eaf_inference.auth.token import Token

__all__ = ["Credentials"]

log = logging.getLogger(__name__)

_READ_AGAIN_AFTER = 1.0  # seconds between readings of a source that has no fresher token …
_LONGEST_REST = 30.0  # … and at most between readings of one that fails, whose pauses double


class Credentials:
    """One user's token, shared and kept fresh by all threads of a connection.

    Parameters
    ----------
    source : TokenSource
    clock : callable
        Seconds since the epoch.

    Attributes
    ----------
    unavailable : bool
        The source did not answer the last reading, but may answer later.
    """

    def __init__(self, source: TokenSource, *, clock: Callable[[], float] = time.time) -> None:
        self.source = source
        self._clock = clock
        self._reading = threading.Lock()
        self._token: Token | None = None
        self._last_read = float("-inf")
        self._pause = _READ_AGAIN_AFTER
        self._trouble = ""
        self._has_renewed = False
        self.unavailable = False

    def __repr__(self) -> str:
        return f"<Credentials from {self.source!r}: {self._token!r}>"

    @property
    def known(self) -> Token | None:
        """The token from the last reading."""
        return self._token

    @property
    def trouble(self) -> str:
        """Why the last reading gave no token; empty if it gave one."""
        return self._trouble or ("" if self._token else self.source.why_none)

    @property
    def renews(self) -> bool:
        """Whether tokens are renewed without the user: the source promises it, or has done so, and works."""
        return (self.source.renews or self._has_renewed) and not self._trouble

    def token(self, *, renew_fraction: float | None = None) -> Token | None:
        """Return the token to send now, after reading the source if there is none or it expires soon.

        Parameters
        ----------
        renew_fraction : float, optional
            Read the source earlier, after this fraction of the token's life.

        Raises
        ------
        ConfigurationError
            The source holds something that is not a token.
        """
        if not self._is_due(renew_fraction):
            return self._token
        # one thread reads; the others wait only if they have no valid token
        if not self._reading.acquire(blocking=self.source.cheap or not self._serves()):
            return self._token
        try:
            if self._is_due(renew_fraction):
                self._read(self.source.read)
            return self._token
        finally:
            self._reading.release()

    def renewed_after(self, refused: Token | None) -> bool:
        """Return whether there is another token to try after a server refused this one.

        Threads whose requests were refused at the same time share one renewal.
        """
        with self._reading:
            if self._token == refused and not (self.unavailable and self._rests()):
                self._read(self.source.renew)
            return self._token != refused

    def _is_due(self, renew_fraction: float | None) -> bool:
        if self.source.cheap:
            return True
        shares = [each for each in (renew_fraction, self.source.renew_fraction) if each is not None]
        if self._rests():
            return False
        return self._token is None or self._token.renewal_due(self._clock(), min(shares, default=None))

    def _rests(self) -> bool:
        """Return whether it is too early to read the source again."""
        return 0 <= self._clock() - self._last_read < self._pause  # not after a clock was set back

    def _serves(self) -> bool:
        """Return whether there is a token that has not expired."""
        token = self._token
        return token is not None and (token.expires_at is None or self._clock() < token.expires_at)

    def _read(self, read: Callable[[], Token | None]) -> None:
        before = self._token
        try:
            self._token = read() or (None if self.source.cheap else self._token)
        except InferenceError as error:
            self._trouble = error.reason or str(error)
            self.unavailable = isinstance(error, ServerUnavailable)
            if self.unavailable:
                self._pause = min(2 * self._pause, _LONGEST_REST)
            if self._token is None:
                raise
            # the old token may still be valid: a file that is being replaced is unreadable for a moment
            level = logging.WARNING if self._token.renewal_due(self._clock()) else logging.INFO
            log.log(level, "The token could not be renewed from %r: %s", self.source, error)
        else:
            if before is not None and self._token is not None and self._token != before:
                self._has_renewed = True  # some program seems to renew the bearer token file
            if not self.source.cheap or self._token != before:  # a cheap source may repeat the refused token
                self._trouble, self.unavailable = "", False
                self._pause = _READ_AGAIN_AFTER
        self._last_read = self._clock()
