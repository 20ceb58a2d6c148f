"""A model store in S3, or in a service that speaks its protocol (Ceph, MinIO)."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from eaf_inference._redact import SecretText
from eaf_inference.deploy.places import CLAIM, StoredFile
from eaf_inference.deploy.storage_errors import explained
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["S3Place"]

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_TRIES = 2  # of each request, by s3fs
_CONNECT_SECONDS = 5
_LARGEST_SINGLE = 64 * 1024 * 1024  # bytes: s3fs sends a larger file in parts
_MOST_DELETED = 1000  # keys in one request
_TIME_STEP = 1.0  # seconds: Last-Modified is an HTTP date


class S3Place:
    """The `Place` below a prefix of a bucket; see `Store` for the parameters."""

    def __init__(
        self,
        url: str,
        *,
        endpoint: str = "",
        key: tuple[str, ...] | Callable[[], tuple[str, ...] | None] | None = None,
        timeout: float = 30.0,
    ) -> None:
        self.root = _root(url)
        self._endpoint = _checked_endpoint(endpoint)
        self._key = key if callable(key) or key is None else _secret(key)
        self._timeout = timeout
        self._used: tuple[SecretText, ...] | None = None
        self._file_system: Any = None
        self._creates_exclusively = False
        if importlib.util.find_spec("s3fs") is None:
            raise ConfigurationError(
                f"The model store {url} is in S3, which needs s3fs: pip install 'eaf-inference[s3]'"
            )

    def files(self, prefix: str) -> dict[str, StoredFile]:
        with explained("list", self._shown(prefix)):
            found = self._fs().find(self.root, prefix=prefix, detail=True)
        start = len(self.root) + 1
        return {
            path[start:]: StoredFile(int(each["size"]), each["LastModified"].timestamp())
            for path, each in found.items()
            if each["type"] == "file" and path[start:].startswith(prefix) and not path.endswith("/")
        }

    def read(self, path: str) -> bytes | None:
        with explained("read", self._shown(path)):
            try:
                content: bytes = self._fs().cat_file(f"{self.root}/{path}")
            except (FileNotFoundError, PermissionError) as error:
                # S3 says 403 of what is not there to keys that may list a prefix only
                if _is_no_bucket(error) or (isinstance(error, PermissionError) and path in self.files(path)):
                    raise
                return None
        return content

    def begin(self, model: str, config: str) -> bool:
        return self._create(f"{model}/config.pbtxt", config.encode())

    def claim(self, model: str, version: int, note: bytes) -> bool:
        path = f"{model}/{version}/{CLAIM}"
        made = self._create(path, note)
        if made and not self._creates_exclusively:
            self._check_exclusive(path, note)
        return made

    def put(self, source: Path, path: str) -> None:
        with explained("write", self._shown(path)):
            checked = {}
            if source.stat().st_size <= _LARGEST_SINGLE:
                digest = hashlib.md5(source.read_bytes(), usedforsecurity=False).digest()
                checked = {"ContentMD5": base64.b64encode(digest).decode()}  # S3 refuses other bytes
            self._fs().put_file(str(source), f"{self.root}/{path}", **checked)

    def replace(self, path: str, content: bytes) -> None:
        with explained("write", self._shown(path)):
            self._fs().pipe_file(f"{self.root}/{path}", content)

    def await_later_time(self) -> None:
        time.sleep(_TIME_STEP)

    def delete(self, path: str) -> None:
        paths = [each for each in self.files(path) if each == path or each.startswith(f"{path}/")]
        with explained("delete", self._shown(path)):
            for start in range(0, len(paths), _MOST_DELETED):
                self._fs().rm([f"{self.root}/{each}" for each in paths[start : start + _MOST_DELETED]])
        if paths and (left := self.files(path).keys() & set(paths)):  # s3fs is silent about keys that S3 keeps
            raise ConfigurationError(
                f"S3 did not delete {min(left)} and {len(left) - 1} more in s3://{self.root}. Your keys may not "
                "allow it; ask the facility's operators."
            )

    def _create(self, path: str, content: bytes) -> bool:
        with explained("write", self._shown(path)):
            try:
                self._fs().pipe_file(f"{self.root}/{path}", content, mode="create")
            except FileExistsError:
                # s3fs sends a request again if the reply to the first one was lost; then what is there is ours
                return self.read(path) == content
        return True

    def _check_exclusive(self, path: str, content: bytes) -> None:
        with explained("write", self._shown(path)):
            try:
                self._fs().pipe_file(f"{self.root}/{path}", content, mode="create")
            except FileExistsError:
                self._creates_exclusively = True
                return
        raise ConfigurationError(
            f"The S3 service of s3://{self.root} ignores conditional writes (If-None-Match: *), so two uploads could "
            "overwrite each other. Expected a service that has them: AWS, Ceph or MinIO of 2024 or later; tell the "
            "facility's operators."
        )

    def _fs(self) -> Any:
        """Return s3fs's file system for the keys of now."""
        key = self._key() if callable(self._key) else self._key
        key = None if key is None else _secret(key)
        if self._file_system is None or key != self._used:
            self._file_system, self._used = self._make(key), key
        return self._file_system

    def _make(self, key: tuple[SecretText, ...] | None) -> Any:
        import s3fs
        from botocore.config import Config

        settings: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS, "read_timeout": self._timeout}
        settings["retries"] = {"total_max_attempts": 1}  # s3fs tries again
        if self._endpoint and "request_checksum_calculation" in Config.OPTION_DEFAULTS:
            # Ceph and MinIO of before 2025 do not know the checksums that botocore adds since 1.36.
            settings |= {"request_checksum_calculation": "when_required"}
            settings |= {"response_checksum_validation": "when_required"}
        names = ("key", "secret", "token")
        # slices: the signature needs the text, and a SecretText hides it
        keys = {name: each[:] for name, each in zip(names, key or (), strict=False) if each}
        made = s3fs.S3FileSystem(
            **keys,
            endpoint_url=self._endpoint or None,
            config_kwargs=settings,
            use_listings_cache=False,
            skip_instance_cache=True,  # fsspec would keep the keys for as long as the process lives
        )
        made.retries = _TRIES
        return made

    def _shown(self, path: str) -> str:
        service = f" at {self._endpoint}" if self._endpoint else ""
        return f"s3://{self.root}/{path}{service}"


def _root(url: str) -> str:
    parts = urlsplit(url)
    key = parts.path.strip("/")
    if parts.username or parts.password:
        raise ConfigurationError("The URL of the model store holds keys. Expected s3://bucket/prefix without them.")
    if not _BUCKET.fullmatch(parts.netloc) or parts.query or parts.fragment or ".." in key or "//" in key:
        raise ConfigurationError(f"{url!r} is not a model store. Expected s3://bucket/prefix.")
    return f"{parts.netloc}/{key}" if key else parts.netloc


def _checked_endpoint(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    if parts.username or parts.password:
        raise ConfigurationError("The URL of the S3 service holds keys. Expected https://host:port without them.")
    if endpoint and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment):
        raise ConfigurationError(f"{endpoint!r} is not the URL of an S3 service. Expected https://host:port.")
    return endpoint.rstrip("/")


def _secret(key: tuple[str, ...]) -> tuple[SecretText, ...]:
    if not 2 <= len(key) <= 3 or not key[0] or not key[1]:
        raise ConfigurationError(
            "The S3 keys are not complete. Expected an access key and its secret, and for temporary keys a "
            "session token."
        )
    return tuple(SecretText(each[:]) for each in key if each)


def _is_no_bucket(error: BaseException) -> bool:
    response = getattr(error.__cause__, "response", None)
    return isinstance(response, dict) and response.get("Error", {}).get("Code") == "NoSuchBucket"
