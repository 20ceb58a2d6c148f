"""The store of users' own models: a repository that Triton polls, which never shows it half a model.

`config.pbtxt` pins exactly one version, and writing it publishes that version: all its files are there before. A
version's number is claimed by one upload and never used for another, and no file of a version that may be served is
changed. ``deployed.pbtxt`` in a version's directory is the config.pbtxt with which it was published, for a rollback.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from eaf_inference.deploy import places
from eaf_inference.deploy.names import checked_served_name, owner_of
from eaf_inference.deploy.places import CLAIM, Place, StoredFile
from eaf_inference.deploy.published import pinned_version_of, placeholder, removal, stands_in
from eaf_inference.deploy.versions import (
    CONFIG,
    DEPLOYED,
    Usage,
    by_version,
    check_pins,
    checked_files,
    listed,
    no_such_version,
)
from eaf_inference.errors import ConfigurationError, DeploymentFailed, InferenceError, ModelNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["CONFIG", "DEPLOYED", "Publisher", "Store", "Usage"]

_MOST_CLAIMS = 1000
_LARGEST_CONFIG = 8 * 1024 * 1024


class Publisher(Protocol):
    """Writes config.pbtxt, the file that decides what is served.

    `Store` does it itself where the user's own permissions suffice; else the facility's token service, which checks
    the text first.
    """

    def write_config(self, served_name: str, text: str) -> None:
        """Write the model's config.pbtxt in one step.

        The text of `published.placeholder` is written only if the model has none; `published.removal` and every
        other text replaces it.
        """

    def remove_config(self, served_name: str) -> None:
        """Remove the model's config.pbtxt, after everything else of the model."""


class Store:
    """A model store, with the operations of `triton.deploy`.

    Parameters
    ----------
    url : str
        ``s3://bucket/prefix``, ``file:///path`` or a path.
    endpoint : str
        URL of the S3 service, if it is not AWS's.
    key : tuple of str, or callable, optional
        For S3: the access key, the secret and, if there is one, the session token; or a function that returns them,
        called for each operation. By default botocore looks for them (``~/.aws``, ``AWS_…`` variables).
    publisher : Publisher, optional
        Who writes config.pbtxt; by default the store itself.

    Raises
    ------
    ConfigurationError
        The URL has another form, or a library is missing.
    """

    def __init__(
        self,
        url: str,
        *,
        endpoint: str = "",
        key: tuple[str, ...] | Callable[[], tuple[str, ...] | None] | None = None,
        publisher: Publisher | None = None,
    ) -> None:
        self.url = url
        self._place = _place(url, endpoint, key)
        self._publisher = publisher or _OwnPublisher(self._place)
        self._failed: set[tuple[str, int]] = set()  # uploads of this object that may have left files
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    @property
    def publisher(self) -> Publisher:
        """Who writes config.pbtxt."""
        return self._publisher

    def upload(self, served_name: str, files: Mapping[str, Path]) -> int:
        """Upload a new version, which nobody serves yet, and return its number.

        Parameters
        ----------
        served_name : str
        files : mapping of str to Path
            Path within the version's directory, and the local file.

        Raises
        ------
        ConfigurationError
            A name or a file cannot be stored.
        DeploymentFailed
            Not all bytes arrived.
        NotAuthorized, ServerUnavailable
            The storage refuses, or does not answer.
        """
        checked_served_name(served_name)
        sizes = checked_files(files)
        self._begin(served_name)
        version = self._claim(served_name, sizes)
        try:
            for path, source in files.items():
                self._place.put(source, f"{served_name}/{version}/{path}")
                self._check_not_removed(served_name, version)
            self._check_complete(served_name, version, sizes)
        except BaseException:
            with self._lock:
                self._failed.add((served_name, version))
            with suppress(InferenceError):  # the first error counts, and the next upload tries again
                self._empty(served_name, version)
            raise
        with suppress(InferenceError):  # what others left does not concern this upload
            self._clean_up(served_name, keep=version)
        return version

    def publish(self, served_name: str, version: int, config: str) -> None:
        """Let Triton serve an uploaded version instead of the one before.

        Raises
        ------
        ConfigurationError
            The text does not pin exactly this version.
        DeploymentFailed
            The version is not complete in the store.
        """
        checked_served_name(served_name)
        check_pins(config, version)
        pinned = self.pinned_version(served_name)
        if pinned != version:  # no file of a version that is served may change
            note = self._note(served_name, version)
            self._check_complete(served_name, version, note["files"])
            self._place.replace(f"{served_name}/{version}/{CLAIM}", json.dumps(note | {"previous": pinned}).encode())
            self._place.replace(f"{served_name}/{version}/{DEPLOYED}", config.encode())
        self._write_config(served_name, config)

    def withdraw(self, served_name: str, version: int, previous_config: str | None) -> None:
        """Publish what was published before this version, and delete the version.

        Parameters
        ----------
        served_name : str
        version : int
        previous_config : str or None
            What `config` returned before the version was published; None removes the model.
        """
        checked_served_name(served_name)
        pinned = self.pinned_version(served_name)
        if previous_config is None and pinned in (version, None):
            self.remove(served_name)
            return
        if previous_config is not None and pinned == version:
            if pinned_version_of(previous_config) == version:
                raise ConfigurationError(f"Version {version} of {served_name!r} cannot replace itself.")
            self._write_config(served_name, previous_config)
        self._empty(served_name, version)

    def rollback(self, served_name: str, version: int | None = None) -> int:
        """Publish an older version again, with the config.pbtxt that it had, and return its number.

        Parameters
        ----------
        served_name : str
        version : int, optional
            By default the one that was published before the version that is now.

        Raises
        ------
        ModelNotFound
            There is no such version that was published.
        """
        checked_served_name(served_name)
        pinned = self.pinned_version(served_name)
        published = self._published(served_name)
        if version is None and pinned is not None:
            version = self._note(served_name, pinned).get("previous")
        if version is None or version not in published:
            raise ModelNotFound(no_such_version(served_name, version, pinned, published))
        text = self._text(f"{served_name}/{version}/{DEPLOYED}") or ""
        check_pins(text, version)
        self._check_complete(served_name, version, self._note(served_name, version)["files"])
        self._write_config(served_name, text)
        return version

    def remove(self, served_name: str) -> None:
        """Remove a model with all its versions; no error if there is none.

        Its config.pbtxt goes last, and names no backend meanwhile: without it, Triton would serve what is left.
        """
        checked_served_name(served_name)
        if self._text(f"{served_name}/{CONFIG}") is not None:
            self._publisher.write_config(served_name, removal(served_name))
        for directory in sorted({path.split("/")[1] for path in self._place.files(f"{served_name}/")} - {CONFIG}):
            self._place.delete(f"{served_name}/{directory}")
        if self.files(served_name).keys() <= {CONFIG}:  # what is uploaded meanwhile is not served without it
            self._publisher.remove_config(served_name)

    def versions(self, served_name: str) -> list[int]:
        """Return the numbers of all versions, also of those that are being uploaded."""
        checked_served_name(served_name)
        return sorted(by_version(self._place.files(f"{served_name}/")))

    def files(self, served_name: str) -> dict[str, int]:
        """Return the size of each file of a model, by path below its directory."""
        checked_served_name(served_name)
        start = len(served_name) + 1
        return {path[start:]: each.size for path, each in self._place.files(f"{served_name}/").items()}

    def config(self, served_name: str) -> str | None:
        """Return the published config.pbtxt; None if nothing is published."""
        checked_served_name(served_name)
        text = self._text(f"{served_name}/{CONFIG}")
        return None if text is None or stands_in(served_name, text) else text

    def pinned_version(self, served_name: str) -> int | None:
        """Return the version that is published; None if there is none, or if config.pbtxt does not pin one."""
        text = self.config(served_name)
        return None if text is None else pinned_version_of(text)

    def usage(self, owner: str | None) -> Usage:
        """Return how many models an owner (see `names.escaped`) has, and their bytes; of everybody for None."""
        found = self._files_by_model(owner)
        return Usage(len(found), sum(each.size for files in found.values() for each in files.values()))

    def models(self, owner: str | None) -> list[str]:
        """Return the names of an owner's models (see `names.escaped`), in order; of everybody's for None."""
        return sorted(self._files_by_model(owner))

    def _files_by_model(self, owner: str | None) -> dict[str, dict[str, StoredFile]]:
        found: dict[str, dict[str, StoredFile]] = {}
        for path, file in self._place.files("" if owner is None else f"{owner}.").items():
            name, _, inside = path.partition("/")
            if inside and not name.startswith(".") and (owner is None or owner_of(name) == owner):
                found.setdefault(name, {})[path] = file
        return found

    def _write_config(self, served_name: str, config: str) -> None:
        """Publish what this text pins.

        Triton looks at a model again only if the latest time of change of all its files is later than at the poll
        before (``ModelTimestamp::IsModified`` in triton-inference-server/core).
        """
        self._place.await_later_time()
        self._publisher.write_config(served_name, config)

    def _begin(self, served_name: str) -> None:
        if self._text(f"{served_name}/{CONFIG}") is not None:
            return
        if self._place.files(f"{served_name}/"):
            raise ConfigurationError(
                f"{served_name!r} has files in {self.url} but no config.pbtxt, so a server may be completing it from "
                "what it finds. Remove it first (triton.undeploy), or choose another name."
            )
        self._publisher.write_config(served_name, placeholder(served_name))

    def _claim(self, served_name: str, sizes: Mapping[str, int]) -> int:
        note = {"upload": secrets.token_hex(8), "time": time.time(), "files": dict(sizes)}
        following = max(self.versions(served_name), default=0) + 1
        for version in range(following, following + _MOST_CLAIMS):
            if self._place.claim(served_name, version, json.dumps(note).encode()):
                return version
        raise DeploymentFailed(
            f"No free version number for {served_name!r} in {self.url}: {following} to {version} are taken. Other "
            "uploads of this model are running; try again when they are done."
        )

    def _check_not_removed(self, served_name: str, version: int) -> None:
        """Delete what was uploaded into a model that was removed meanwhile: Triton would serve it, as it is.

        In a file system its directories are gone too, and nothing can be written.
        """
        if self._text(f"{served_name}/{CONFIG}") is None:
            self._place.delete(f"{served_name}/{version}")
            raise DeploymentFailed(
                f"{served_name!r} was removed while version {version} was uploaded, as triton.undeploy does. Nothing "
                "was published; if it should be there, deploy it again."
            )

    def _check_complete(self, served_name: str, version: int, sizes: Mapping[str, int]) -> None:
        prefix = f"{served_name}/{version}/"
        arrived = self._place.files(prefix)
        for path, size in sizes.items():
            found = arrived.get(f"{prefix}{path}")
            if found is None or found.size != size:
                what = "is missing" if found is None else f"has {found.size} bytes"
                raise DeploymentFailed(
                    f"Version {version} of {served_name!r} is not complete: {path} {what} in {self.url}. Expected "
                    f"{size} bytes. Nothing was published; upload it again."
                )

    def _note(self, served_name: str, version: int) -> dict[str, Any]:
        """Return what the upload noted: the sizes of its files, and the version that was published before."""
        try:
            note: dict[str, Any] = json.loads(self._text(f"{served_name}/{version}/{CLAIM}") or "")
            sizes = {str(path): int(size) for path, size in note["files"].items()}
            previous = note.get("previous")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DeploymentFailed(
                f"{self.url} has no version {version} of {served_name!r} that was uploaded by triton.deploy. "
                f"It has {listed(self.versions(served_name))}."
            ) from error
        return note | {"files": sizes, "previous": previous if isinstance(previous, int) else None}

    def _published(self, served_name: str) -> list[int]:
        versions = by_version(self._place.files(f"{served_name}/"))
        return sorted(each for each, files in versions.items() if DEPLOYED in files)

    def _clean_up(self, served_name: str, *, keep: int) -> None:
        """Delete what interrupted uploads left: those of this object, and others that stopped a day ago."""
        with self._lock:
            failed = {version for name, version in self._failed if name == served_name}
        pinned = self.pinned_version(served_name)
        for version, files in by_version(self._place.files(f"{served_name}/")).items():
            if version in (keep, pinned) or DEPLOYED in files:
                continue
            if max(file.time for file in files.values()) < time.time() - places.ABANDONED:
                self._place.delete(f"{served_name}/{version}")
            elif version in failed:
                self._empty(served_name, version)

    def _empty(self, served_name: str, version: int) -> None:
        """Delete the files of a version but keep its number, as an interrupted request to S3 may still arrive."""
        files = by_version(self._place.files(f"{served_name}/{version}/")).get(version, {})
        for name in sorted({path.partition("/")[0] for path in files} - {CLAIM}):
            self._place.delete(f"{served_name}/{version}/{name}")

    def _text(self, path: str) -> str | None:
        content = self._place.read(path)
        if content is None:
            return None
        try:
            return content[:_LARGEST_CONFIG].decode()
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{path} in {self.url} is not a text file. Expected UTF-8.") from error


class _OwnPublisher:
    """Writes config.pbtxt with the user's own permissions."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def write_config(self, served_name: str, text: str) -> None:
        if text == placeholder(served_name):
            self._place.begin(served_name, text)
        else:
            self._place.replace(f"{served_name}/{CONFIG}", text.encode())

    def remove_config(self, served_name: str) -> None:
        self._place.delete(served_name)


def _place(url: str, endpoint: str, key: tuple[str, ...] | Callable[[], tuple[str, ...] | None] | None) -> Place:
    from eaf_inference.deploy.file_place import FilePlace

    if url.startswith("s3://"):
        from eaf_inference.deploy.s3_place import S3Place

        return S3Place(url, endpoint=endpoint, key=key)
    return FilePlace(url)
