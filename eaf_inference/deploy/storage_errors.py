"""The errors of file systems and of S3, told as a cause and what to do."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from eaf_inference._redact import redact
from eaf_inference.errors import (
    ConfigurationError,
    DeploymentFailed,
    DeploymentRefused,
    InferenceError,
    NotAuthorized,
    ServerUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["explained"]

_LIBRARIES = ("aiobotocore", "aiohttp", "asyncio", "botocore", "fsspec", "s3fs")  # whose errors are the storage's
_ASK = "ask the facility's operators"
# S3's codes: the error, what is wrong and what to do.
_CODES: dict[str, tuple[type[InferenceError], str]] = {
    "AccessDenied": (NotAuthorized, f"your keys do not allow it. Check the name, or {_ASK} for access"),
    "AllAccessDisabled": (NotAuthorized, f"access is disabled; {_ASK}"),
    "InvalidAccessKeyId": (NotAuthorized, "the S3 service does not know the access key. Check it, or get a new one"),
    "SignatureDoesNotMatch": (NotAuthorized, "the secret does not belong to the access key. Check both"),
    "ExpiredToken": (NotAuthorized, "the keys have expired. Get new ones and try again"),
    "InvalidToken": (NotAuthorized, "the keys are not valid. Get new ones and try again"),
    "RequestTimeTooSkewed": (
        ConfigurationError,
        "the clocks of this machine and of the S3 service differ by more than 15 minutes. Set this machine's clock",
    ),
    "NoSuchBucket": (ConfigurationError, f"the bucket does not exist. Check the model store's URL, or {_ASK}"),
    "InvalidBucketName": (ConfigurationError, "the bucket's name is not valid. Check the model store's URL"),
    "QuotaExceeded": (
        DeploymentRefused,
        f"the quota is used up. Remove models (triton.undeploy), or {_ASK} for more",
    ),
    "EntityTooLarge": (DeploymentRefused, f"the file is larger than the S3 service takes; {_ASK}"),
    "NotImplemented": (ConfigurationError, f"the S3 service does not know this request; {_ASK}"),
    "BadDigest": (DeploymentFailed, "the bytes changed on the way. Try again"),
    "InvalidDigest": (DeploymentFailed, "the bytes changed on the way. Try again"),
    "SlowDown": (ServerUnavailable, "the S3 service is overloaded. Try again later"),
    "ServiceUnavailable": (ServerUnavailable, "the S3 service is overloaded. Try again later"),
    "InternalError": (ServerUnavailable, "the S3 service failed. Try again later"),
    "403": (NotAuthorized, f"your keys do not allow it. Check the name, or {_ASK} for access"),
}
# A file system's: the same.
_NUMBERS: dict[int, tuple[type[InferenceError], str]] = {
    errno.EACCES: (NotAuthorized, f"you may not. Check the path, or {_ASK} for access"),
    errno.EPERM: (NotAuthorized, f"you may not. Check the path, or {_ASK} for access"),
    errno.EROFS: (ConfigurationError, f"the file system is read-only here. Use a machine where it is not, or {_ASK}"),
    errno.ENOSPC: (DeploymentFailed, f"no space is left. Remove models (triton.undeploy), or {_ASK}"),
    errno.EFBIG: (DeploymentFailed, f"the file is larger than may be written there. See ulimit -f, or {_ASK}"),
    errno.EDQUOT: (DeploymentRefused, f"your quota is used up. Remove models (triton.undeploy), or {_ASK} for more"),
    errno.ENOENT: (
        ConfigurationError,
        f"it does not exist, or was removed meanwhile. Deploy it again, check the model store's URL, or {_ASK}",
    ),
    errno.ENOTDIR: (ConfigurationError, "a part of the path is a file or a symbolic link. Expected a directory"),
    errno.ELOOP: (
        ConfigurationError,
        "a part of the path is a symbolic link. Expected a directory or a regular file",
    ),
    errno.ESTALE: (ServerUnavailable, "the file server lost it. Try again"),
    errno.EIO: (ServerUnavailable, "the file server failed. Try again later"),
    errno.ENAMETOOLONG: (ConfigurationError, "the name is too long. Choose a shorter one"),
}


@contextmanager
def explained(what: str, where: str) -> Iterator[None]:
    """Turn an error of the storage into one of ours.

    Parameters
    ----------
    what : str
        What was tried: "write".
    where : str
        The path or URL.
    """
    try:
        yield
    except InferenceError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in _LIBRARIES:
            raise
        kind, why = _explanation(error)
        # `from None`: a chained error of botocore may quote the request with its credentials
        raise kind(f"Cannot {what} {where}: {why}.") from None


def _explanation(error: Exception) -> tuple[type[InferenceError], str]:
    code = _code(error)
    if code in _CODES:
        return _CODES[code]
    name = type(error).__name__
    if name in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"):
        return NotAuthorized, "there are no S3 keys. Put them into ~/.aws/credentials, or " + _ASK
    if name in ("EndpointConnectionError", "ConnectionClosedError", "ProxyConnectionError", "HTTPClientError"):
        return ServerUnavailable, f"the S3 service cannot be reached. Check its URL and the network, or {_ASK}"
    if name == "SSLError":
        return ServerUnavailable, f"the S3 service's certificate is not trusted here; {_ASK} for its authority"
    if isinstance(error, TimeoutError) or "Timeout" in name:
        return ServerUnavailable, f"the S3 service does not answer. Try again later, or {_ASK}"
    if not code and isinstance(error, PermissionError):
        return _NUMBERS[errno.EACCES]
    if not code and isinstance(error, OSError) and error.errno in _NUMBERS:
        return _NUMBERS[error.errno]
    detail = redact(" ".join(str(error).split())).rstrip(".")
    return DeploymentFailed, f"{detail or name}. Try again, or {_ASK}"


def _code(error: BaseException | None) -> str:
    """Return S3's own code of an error, which botocore keeps and s3fs puts into the cause."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""
