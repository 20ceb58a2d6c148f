"""The files of a model in a store, grouped by version, and what may become one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eaf_inference.deploy.places import CLAIM, StoredFile
from eaf_inference.deploy.published import pinned_version_of
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "CONFIG",
    "DEPLOYED",
    "Usage",
    "by_version",
    "check_pins",
    "checked_files",
    "is_storable",
    "listed",
    "no_such_version",
]

CONFIG = "config.pbtxt"
DEPLOYED = "deployed.pbtxt"
_OWN_FILES = frozenset({CONFIG, DEPLOYED, CLAIM})  # of the store, within a version
_PART = re.compile(r"[^/\\*?\[\]\x00-\x1f\x7f\ud800-\udfff]{1,200}")  # surrogates stand for bytes that are no UTF-8


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of a store a user's models take."""

    models: int
    bytes: int


def is_storable(path: str) -> bool:
    """Return whether a store takes a file of this path within a version."""
    return all(part not in (".", "..") and _PART.fullmatch(part) for part in path.split("/"))


def checked_files(files: Mapping[str, Path]) -> dict[str, int]:
    """Return the sizes of the files."""
    if not files:
        raise ConfigurationError("A version without files cannot be uploaded. Expected at least the model's file.")
    sizes = {}
    for path, source in files.items():
        if not is_storable(path) or path in _OWN_FILES:
            raise ConfigurationError(
                f"{path!r} cannot be a file of a version. Expected a relative path without '..', '*', '?', '[' or a "
                f"backslash, other than {', '.join(sorted(_OWN_FILES))}; rename the file."
            )
        try:
            sizes[path] = source.stat().st_size
        except OSError as error:
            raise ConfigurationError(
                f"The file {source} cannot be read: {error.strerror}. Expected a file that you may read."
            ) from error
        if not source.is_file():
            raise ConfigurationError(f"{source} is not a regular file. Expected the files of a version one by one.")
    return sizes


def check_pins(config: str, version: int) -> None:
    pinned = pinned_version_of(config)
    if pinned != version:
        raise ConfigurationError(
            f"This config.pbtxt pins {'no single version' if pinned is None else f'version {pinned}'}. Expected "
            f"version_policy: {{ specific: {{ versions: [{version}] }} }}, so that a server never loads a version "
            "that is still being uploaded."
        )


def by_version(files: Mapping[str, StoredFile]) -> dict[int, dict[str, StoredFile]]:
    """Group the files of a model by version, with their paths within it; others are left out."""
    found: dict[int, dict[str, StoredFile]] = {}
    for path, file in files.items():
        _, _, below = path.partition("/")
        version, _, inside = below.partition("/")
        if inside and re.fullmatch(r"[1-9][0-9]{0,17}", version):
            found.setdefault(int(version), {})[inside] = file
    return found


def no_such_version(served_name: str, version: int | None, pinned: int | None, published: list[int]) -> str:
    now = "nothing is published" if pinned is None else f"version {pinned} is published now"
    if version is None:
        return f"{served_name!r} has no older version to go back to: it has {listed(published)}, and {now}."
    return f"{served_name!r} has no version {version} that was published: it has {listed(published)}, and {now}."


def listed(versions: list[int]) -> str:
    return f"versions {', '.join(map(str, versions))}" if versions else "no versions"
