"""The model store of a facility on this machine: where its users put their own models, and its Tritons find them."""

from __future__ import annotations

import stat
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_facility.process.server import owned_directory
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ModelStore", "model_store"]


@dataclass(frozen=True, slots=True)
class ModelStore:
    """A model store.

    Attributes
    ----------
    url : str
        What clients write to, such as ``file:///tmp/models``.
    repository : str
        The same, as Triton reads it.
    kept : bool
        Whether it is still there when the facility has ended.
    """

    url: str
    repository: str
    kept: bool

    @property
    def directory(self) -> Path:
        return Path(self.repository)

    def __str__(self) -> str:
        return self.url if self.kept else f"{self.url} (removed when the facility ends)"


@contextmanager
def model_store(choice: Path | str | None) -> Iterator[ModelStore]:
    """Make a store for the duration of a `with` block.

    Parameters
    ----------
    choice
        A directory, which is made if need be, and kept. By default a new one, which is removed when the block ends.

    Raises
    ------
    ConfigurationError
        The directory cannot be used.
    """
    if choice is None:
        with owned_directory("eaf-inference-store-") as directory:
            yield _directory_store(directory / "models", kept=False)
    else:
        yield _directory_store(Path(choice), kept=True)


def _directory_store(path: Path, *, kept: bool) -> ModelStore:
    path = path.expanduser().resolve()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        others_write = path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be a model store: {error.strerror}. Give a directory that you may write to, or a path at "
            "which one can be made: --store ~/models"
        ) from error
    if others_write:
        raise ConfigurationError(
            f"{path} cannot be a model store: others on this machine may write to it, and Triton would run their "
            f"models in your name. Forbid it: chmod go-w {path}"
        )
    if (path / "config.pbtxt").exists():
        raise ConfigurationError(f"{path} is a model, not a model store. Give the directory above it: {path.parent}")
    return ModelStore(path.as_uri(), str(path), kept=kept)
