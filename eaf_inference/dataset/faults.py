"""Tell apart why a file cannot be read, from the errors of uproot, pyarrow, fsspec, aiohttp, XRootD and Python."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import re
import socket
import traceback
from typing import TYPE_CHECKING, Any

from eaf_inference.errors import InferenceError, UnreadableFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["NotReadable", "of_file", "unreadable", "while_reading"]

_MISSING = "no such file"
_FORBIDDEN = "no permission"
_DAMAGED = "damaged"
_SILENT = "storage does not answer"
_MEMORY = "not enough memory"

# Of the operating system: what the same path may not say a minute later.
_TEMPORARY = {
    getattr(errno, name, None)
    for name in (
        *(
            "EIO",
            "EREMOTEIO",
            "ESTALE",
            "ETIMEDOUT",
            "ETIME",
            "EAGAIN",
            "EBUSY",
            "EINTR",
            "ENOLCK",
            "EMFILE",
            "ENFILE",
        ),
        *(
            "ECONNRESET",
            "ECONNREFUSED",
            "ECONNABORTED",
            "EPIPE",
            "ENOTCONN",
            "ESHUTDOWN",
            "ECOMM",
            "EPROTO",
            "ENOBUFS",
        ),
        *("EHOSTUNREACH", "EHOSTDOWN", "ENETUNREACH", "ENETDOWN", "ENETRESET"),
    )
} - {None}
# Of HTTP and S3 (https://www.rfc-editor.org/rfc/rfc9110), besides all from 500 on.
_TEMPORARY_STATUS = {408, 423, 425, 429}
_FORBIDDEN_STATUS = {401, 403, 407}
_MISSING_STATUS = {404, 410}
# Of XRootD (XProtocol.hh), in messages such as "[ERROR] Server responded with an error: [3011] No such file".
_XROOTD_CODE = re.compile(r"\[(3\d{3})\]")
_XROOTD_TEMPORARY = {3003, 3005, 3007, 3008, 3012, 3014, 3017, 3020, 3024, 3029, 3034, 3035}
_XROOTD_FORBIDDEN = {3010, 3030}
_XROOTD_MISSING = {3011, 3015, 3016}
_XROOTD_CLIENT = re.compile(r"\[(ERROR|FATAL)\]")  # such as "[FATAL] Connection error"
_XROOTD_DENIED = re.compile(r"\[(ERROR|FATAL)\].*(auth|permission|denied)", re.IGNORECASE)
_TIMEOUTS = (TimeoutError, asyncio.TimeoutError, concurrent.futures.TimeoutError)
_NAMES = re.compile(r"Timeout|Connection|Connector|Disconnected|ClientPayload|IncompleteRead")  # of errors' classes
_ON_DEMAND = "coffea.nanoevents.mapping"  # reads a column of NanoEvents when it is used

_ADVICE = {
    _MISSING: "Check the path, and that workers see it under the same one.",
    _FORBIDDEN: "Check the file's permissions, and that workers have your credentials for its storage.",
    _DAMAGED: "Copy or produce it again.",
    _SILENT: "It may be readable later.",
    _MEMORY: "Give the workers more memory, or select fewer columns.",
}


class NotReadable(Exception):
    """A file lacks something; its name is not known here, and `of_file` adds it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def unreadable(path: object, reason: str, message: str, *, temporary: bool = False) -> UnreadableFile:
    """Return the error for a file, whose message begins with the file."""
    error = UnreadableFile(f"{path} {message}")
    error.reason = reason
    error.temporary = temporary
    return error


def of_file(path: object, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function that reads a file, and convert the libraries' various errors."""
    try:
        return function(*arguments)
    except (InferenceError, ImportError, Warning):
        raise
    except Exception as error:
        raise _fault(path, error) from error


def while_reading(path: object, error: Exception) -> UnreadableFile | None:
    """Return the file's fault if the error was raised while a column was read on demand; else None."""
    frames = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return _fault(path, error) if any(name.startswith(_ON_DEMAND) for name in frames) else None


def _fault(path: object, error: Exception) -> UnreadableFile:
    if isinstance(error, NotReadable):
        return unreadable(path, error.reason, str(error))
    reason = next((found for each in _causes(error) if (found := _reason(each))), "") or _DAMAGED
    text = f"{type(error).__name__}: {str(error).strip()}".rstrip(".: ")
    advice = _ADVICE[reason]
    if reason == _DAMAGED and (other := _content(path)):
        reason, advice = other
    return unreadable(path, reason, f"cannot be read: {text}. {advice}", temporary=reason in (_SILENT, _MEMORY))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Return the error and its causes, the first cause first: libraries report any of them as a missing file."""
    chain: list[BaseException] = []
    while error.__cause__ is not None and error not in chain:
        chain.append(error)
        error = error.__cause__
    return reversed([*chain, error])


def _reason(error: BaseException) -> str:
    """Return what one error says by itself, if anything."""
    text = str(error)
    if code := _XROOTD_CODE.search(text):
        return _of_code(int(code[1]), _XROOTD_TEMPORARY, _XROOTD_FORBIDDEN, _XROOTD_MISSING)
    if _XROOTD_DENIED.search(text):
        return _FORBIDDEN
    if _XROOTD_CLIENT.search(text):
        return _SILENT
    status = getattr(error, "status", None) or getattr(error, "status_code", None)
    if isinstance(status, int) and status >= 400:
        return _SILENT if status >= 500 else _of_code(status, _TEMPORARY_STATUS, _FORBIDDEN_STATUS, _MISSING_STATUS)
    if isinstance(error, MemoryError):
        return _MEMORY
    if isinstance(error, _TIMEOUTS):
        return _SILENT
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return _MISSING
    if isinstance(error, PermissionError):
        return _FORBIDDEN
    if isinstance(error, ConnectionError | socket.gaierror) or (
        isinstance(error, OSError) and error.errno in _TEMPORARY
    ):
        return _SILENT
    return _SILENT if any(_NAMES.search(kind.__name__) for kind in type(error).__mro__) else ""


def _of_code(code: int, temporary: set[int], forbidden: set[int], missing: set[int]) -> str:
    known = {_SILENT: temporary, _FORBIDDEN: forbidden, _MISSING: missing}
    return next((reason for reason, codes in known.items() if code in codes), "")


def _content(path: object) -> tuple[str, str] | None:
    """Return what a file is that should be another, and what to do."""
    import fsspec

    try:
        with fsspec.open(getattr(path, "path", str(path)), "rb") as stream:
            start = stream.read(64).lstrip()
            if not start:
                return "empty, 0 bytes", _ADVICE[_DAMAGED]
    except (OSError, ValueError, ImportError):
        return None
    if start[:5].lower() in (b"<!doc", b"<html", b"<?xml"):
        return "a web page", "It is a web page, such as one that asks to log in; download the file itself."
    return None
