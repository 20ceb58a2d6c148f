"""tritonclient and what coffea's ``triton_wrapper`` needs, kept apart from the environment in the user's cache.

``import coffea.ml_tools`` fails if tritonclient is installed without gevent. So tritonclient and gevent are installed
into a directory of their own, which only the processes of clients that need them have on their path.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference._files import cache_path, locked
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["PIP", "REQUIREMENTS", "cached", "client_packages", "fetch"]

REQUIREMENTS = Path(__file__).with_name("client-requirements.txt")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def client_packages(*, progress: Callable[[str], None] | None = None) -> Path:
    """Return the directory of these packages, for a client's PYTHONPATH.

    Parameters
    ----------
    progress : callable, optional
        Fetch missing packages and report progress here. Without it, they are not fetched.

    Raises
    ------
    ConfigurationError
        The packages are missing or cannot be fetched.
    """
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:10]
    name = f"clients-{sys.implementation.cache_tag}-{digest}"
    return cached("tritonclient", name, _install, progress, command="eaf-inference study")


def _install(directory: Path) -> None:
    pinned = ["--require-hashes", "--only-binary=:all:", "-r", str(REQUIREMENTS)]
    fetch("tritonclient", [*PIP, "install", "--no-deps", "-q", "--target", str(directory), *pinned], directory)


def cached(
    what: str,
    name: str,
    fill: Callable[[Path], None],
    progress: Callable[[str], None] | None,
    *,
    command: str,
) -> Path:
    """Return a directory of the user's cache; if it is missing, fill a temporary one and rename it in one step.

    Parameters
    ----------
    progress : callable or None
        None raises `ConfigurationError` for a missing directory instead of filling it.
    command : str
        The command that fills it, for that message.
    """
    cache = cache_path()
    place = cache / name
    if place.exists():
        return place
    if progress is None:
        raise ConfigurationError(f"{what} is not in {cache}. `{command}` fetches it.")
    waiting = partial(progress, f"waiting for another command that is fetching {what}")
    with locked(cache / f"{name}.lock", waiting=waiting):
        if not place.exists():
            progress(f"fetching {what} into {place} (once)")
            draft = Path(tempfile.mkdtemp(dir=cache))
            try:
                fill(draft)
                draft.rename(place)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
    return place


def fetch(what: str, command: Sequence[str], directory: Path) -> None:
    """Run a command that fetches something; raise `ConfigurationError` with its last line if it fails."""
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, "PIP_USER": "0"},  # some sites set it, and pip then refuses --target
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ConfigurationError(f"{what} cannot be fetched: `{' '.join(command[:4])} …` failed: {why[0]}")
