"""Where a model store keeps its files: what `Store` needs of a file system or of an object store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ABANDONED", "CLAIM", "Place", "StoredFile"]

ABANDONED = 86_400.0  # seconds after its last change, what is not published is left by an interrupted upload
CLAIM = ".upload.json"  # in a version's directory, before all its other files: who holds the number, and what follows


@dataclass(frozen=True, slots=True)
class StoredFile:
    """The size of a file in bytes, and the time of its last change in seconds since 1970."""

    size: int
    time: float


class Place(Protocol):
    """The operations of a model store. Paths are relative to its root and have no ``..``.

    Each one is atomic for a reader, except `put` on a file system and `delete`. An error of the storage is raised as
    one of eaf_inference's own.
    """

    def files(self, prefix: str) -> dict[str, StoredFile]:
        """Return all files whose path starts with the prefix, ``alice.`` or ``alice.tagger/``; never from a cache."""

    def read(self, path: str) -> bytes | None:
        """Return the content of a small file; None if there is none."""

    def begin(self, model: str, config: str) -> bool:
        """Make the model with this config.pbtxt unless it exists; return whether it was made."""

    def claim(self, model: str, version: int, note: bytes) -> bool:
        """Make the version with only this note in `CLAIM`; return False if somebody has this number."""

    def put(self, source: Path, path: str) -> None:
        """Copy a local file to a new path."""

    def replace(self, path: str, content: bytes) -> None:
        """Write a small file; a reader sees the old content or the new."""

    def await_later_time(self) -> None:
        """Wait until a file that is written then gets a later time of change than each one before."""

    def delete(self, path: str) -> None:
        """Delete a file, or a directory with everything in it; no error if there is none."""
