"""The model store of a facility on this machine: where its users put their own models, and its Tritons find them."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eaf_facility.process.server import ignore, owned_directory
from eaf_facility.servers.s3_stand_in import REGION, ROLE, S3StandIn
from eaf_facility.servers.triton import check_store
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["S3", "ModelStore", "model_store"]

S3 = "s3"  # instead of a directory


@dataclass(frozen=True, slots=True)
class ModelStore:
    """A model store.

    Attributes
    ----------
    url : str
        What clients write to, such as ``file:///tmp/models`` or ``s3://bucket/models``.
    repository : str
        The same, as Triton reads it.
    kept : bool
        Whether it is still there when the facility has ended.
    stand_in : S3StandIn, optional
        The server that holds it, if it is not a directory.
    """

    url: str
    repository: str
    kept: bool = False
    stand_in: S3StandIn | None = None

    @property
    def endpoint(self) -> str:
        """URL of the S3 service; empty for a directory."""
        return self.stand_in.endpoint if self.stand_in else ""

    @property
    def keys(self) -> str:
        """Path of the private file with the key that may do everything; empty for a directory."""
        return str(self.stand_in.key_file) if self.stand_in else ""

    @property
    def reader(self) -> Mapping[str, str]:
        """Triton's environment variables for the store."""
        return self.stand_in.reader if self.stand_in else {}

    @property
    def servers(self) -> tuple[S3StandIn, ...]:
        return (self.stand_in,) if self.stand_in else ()

    def check(self, repositories: Sequence[Path]) -> None:
        """Check that Triton can serve what is in the store beside these repositories; see `triton.check_store`."""
        if not self.stand_in:
            check_store(Path(self.repository), repositories)

    def served_settings(self) -> dict[str, Any]:
        """Return the settings of `Facility` for users' clients."""
        return {"model_store": self.url, "model_store_endpoint": self.endpoint, "model_control": "poll"}

    def service_settings(self) -> dict[str, Any]:
        """Return the settings of the token service that guards it."""
        return {"key_file": self.keys, "role": ROLE, "region": REGION} if self.stand_in else {}

    def __str__(self) -> str:
        if self.stand_in:
            return f"{self.url} at the {self.stand_in.name}, {self.endpoint} (in memory: lost when it ends)"
        return self.url if self.kept else f"{self.url} (removed when the facility ends)"


@contextmanager
def model_store(choice: Path | str | None, *, progress: Callable[[str], None] = ignore) -> Iterator[ModelStore]:
    """Make a store for the duration of a `with` block, which begins when it is ready.

    Parameters
    ----------
    choice
        A directory, which is made if need be, and kept; or ``"s3"`` for the S3 stand-in. By default a new directory,
        which is removed when the block ends.
    progress
        Called with a short line for each step.

    Raises
    ------
    ConfigurationError
        The directory cannot be used, or the S3 stand-in is not installed.
    """
    if choice is not None and choice != S3:
        yield _directory_store(Path(choice), kept=True)
        return
    with owned_directory("eaf-inference-store-") as directory:
        if choice is None:
            yield _directory_store(directory / "models", kept=False)
            return
        stand_in = S3StandIn(directory / "s3")
        with stand_in.running(progress=progress):
            yield ModelStore(stand_in.url, stand_in.repository, stand_in=stand_in)


def _directory_store(path: Path, *, kept: bool) -> ModelStore:
    path = path.expanduser().resolve()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be a model store: {error.strerror}. Give a directory that you may write to, or a path at "
            "which one can be made: --store ~/models"
        ) from error
    if status.st_uid != os.geteuid():
        raise ConfigurationError(
            f"{path} cannot be a model store: it belongs to another user of this machine, whose models Triton would "
            "run in your name. Give a directory of your own: --store ~/models"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            f"{path} cannot be a model store: others on this machine may write to it, and Triton would run their "
            f"models in your name. Forbid it: chmod go-w {path}"
        )
    if (path / "config.pbtxt").exists():
        raise ConfigurationError(f"{path} is a model, not a model store. Give the directory above it: {path.parent}")
    return ModelStore(path.as_uri(), str(path), kept=kept)
