"""What a caller may catch.

Every error a user can cause, or can do something about, derives from `InferenceError` and says what
was wrong, what was expected and what to do. In a notebook it is shown as that message alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eaf_inference._redact import mask
from eaf_inference._text import printable_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eaf_inference.discovery import Attempt

__all__ = [
    "BadReply",
    "ConfigurationError",
    "InferenceError",
    "InvalidInput",
    "ModelNotFound",
    "ModelNotReady",
    "NoServerFound",
    "NotAuthorized",
    "ServerUnavailable",
]


class InferenceError(Exception):
    """Base of everything this package raises on purpose; its message shows no credential.

    A message often quotes a server: control characters in it are shown as escapes.

    Attributes
    ----------
    reason : str
        The cause in a few words, for a table; empty where the message is short itself.
    attempts : sequence of eaf_inference.discovery.Attempt
        What was tried, where no server could be found.
    restricted : bool
        Whether the server, or a proxy before it, does not let such a call pass at all, whatever it asks for.
    """

    reason: str = ""
    attempts: Sequence[Attempt] = ()
    restricted: bool = False

    def __init__(self, message: object = "") -> None:
        super().__init__(printable_lines(mask(str(message))))

    def _render_traceback_(self) -> list[str]:
        """IPython's hook: a user's mistake shows as one message, and the cell still fails."""
        return [f"{type(self).__name__}: {self}"]


class NoServerFound(InferenceError):
    """No source named a Triton that answers; the message holds the table of what was tried.

    Attributes
    ----------
    named : bool
        Whether any source named one at all.
    """

    named: bool = True


class ServerUnavailable(InferenceError):
    """The server did not answer within the time budget; the message holds the history."""


class NotAuthorized(InferenceError):
    """The server refused this user's credentials, or there were none to show."""


class ModelNotFound(InferenceError):
    """The server has no model, or no version of it, of that name."""


class ModelNotReady(InferenceError):
    """The server knows the model but cannot serve it; the message holds its reason."""


class InvalidInput(InferenceError, ValueError):
    """The arrays do not fit what the model takes."""


class BadReply(InferenceError):
    """The server answered, but with something that is not this model's output."""


class ConfigurationError(InferenceError):
    """A setting, a URL, a file or a recipe is wrong."""
