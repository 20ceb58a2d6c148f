"""The errors that a caller may catch.

Every error that a user can cause or fix derives from `InferenceError`. Its message says what was wrong, what was
expected and what to do; a notebook shows the message alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eaf_inference._redact import mask
from eaf_inference._text import printable_lines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from eaf_inference.discovery.attempts import Attempt

__all__ = [
    "BadReply",
    "ConfigurationError",
    "DeploymentFailed",
    "DeploymentRefused",
    "IncompleteRun",
    "InferenceError",
    "InvalidInput",
    "ModelChanged",
    "ModelNotFound",
    "ModelNotReady",
    "NoServerFound",
    "NotAuthorized",
    "ServerUnavailable",
    "UnreadableFile",
]


class InferenceError(Exception):
    """The base of all errors that this package raises on purpose; its message shows no credential.

    A message often quotes a server: control characters in it are shown as escapes.

    Attributes
    ----------
    reason : str
        The cause in a few words, for a table; empty if the message is short itself.
    attempts : sequence of eaf_inference.discovery.attempts.Attempt
        What was tried, if no server was found.
    restricted : bool
        Whether the server, or a proxy in front of it, forbids this kind of call altogether.
    """

    reason: str = ""
    attempts: Sequence[Attempt] = ()
    restricted: bool = False

    def __init__(self, message: object = "") -> None:
        super().__init__(printable_lines(mask(str(message))))

    def _render_traceback_(self) -> list[str]:
        """Show one message instead of a traceback (IPython's hook); the cell still fails."""
        return [f"{type(self).__name__}: {self}"]


class NoServerFound(InferenceError):
    """No source named a Triton that answers; the message lists what was tried.

    Attributes
    ----------
    named : bool
        Whether any source named a server.
    """

    named: bool = True


class ServerUnavailable(InferenceError):
    """The server did not answer within the time budget; the message holds the history."""


class NotAuthorized(InferenceError):
    """The server refused this user's credentials, or requires credentials and there are none."""


class ModelNotFound(InferenceError):
    """The server has no such model, or no such version of it."""


class ModelNotReady(InferenceError):
    """The server knows the model but cannot serve it; the message holds its reason."""


class InvalidInput(InferenceError, ValueError):
    """The arrays do not match the model's inputs."""


class UnreadableFile(InvalidInput):
    """A file of a data set cannot be read.

    Attributes
    ----------
    temporary : bool
        Whether it may be readable later: the storage did not answer, or timed out.
    """

    temporary: bool = False


class IncompleteRun(InferenceError):
    """Some files of a data set were not scored; all others were. The message lists them.

    Attributes
    ----------
    written : eaf_inference.dataset.written.Written or None
        What `Submission.write` has written.
    """

    written: Any = None


class ModelChanged(InferenceError):
    """The server's model is not the one that scored the earlier parts: it was reloaded or overwritten."""


class BadReply(InferenceError):
    """The server's reply is not the output of this model."""


class ConfigurationError(InferenceError):
    """A setting, a URL, a file or a recipe is wrong."""


class DeploymentRefused(InferenceError):
    """A model is not put on the server: a check before the upload failed, or the facility does not allow it."""


class DeploymentFailed(InferenceError):
    """The server does not load a new version, or its scores differ from the local ones; the version is withdrawn."""
