"""Keep what was learned about models for the next session, in this user's cache directory."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from eaf_inference._files import cache_path, own_or_root, private_directory, read_regular, write_private
from eaf_inference.errors import ConfigurationError
from eaf_inference.inference.tuning import Learned

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from eaf_inference.inference.spec import ModelSpec

__all__ = ["load", "save"]

log = logging.getLogger(__name__)

_LARGEST = 4096  # bytes of a file
_MOST = 100  # files: models on servers
_HUGE = 1e30  # larger than any sum that is learned


def load(urls: Sequence[str], spec: ModelSpec) -> Learned | None:
    """Return what an earlier session learned about a model on these servers; None if nothing is kept."""
    try:
        data = json.loads(read_regular(_path(urls, spec), _LARGEST, owners=own_or_root()))
        learned = Learned(**{**data, "most": math.inf if data["most"] is None else data["most"]})
        values = asdict(learned)
        wrong = any(isinstance(value, bool) or not isinstance(value, int | float) for value in values.values())
        wrong = wrong or not all(0 <= value < _HUGE or name == "most" for name, value in values.items())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        log.debug("no tuning of %r: %s", spec.name, error)
        return None
    # each reply counts at least once, and takes time and cells; batches grow by a factor, so not from 0
    wrong = wrong or min(learned.n, learned.cells, learned.most) < 1 or not (learned.x and learned.y)
    return None if wrong else learned


def save(urls: Sequence[str], spec: ModelSpec, learned: Learned) -> None:
    """Keep what was learned; a home directory that cannot be written to is no error."""
    path = _path(urls, spec)
    data = asdict(learned) | {"most": None if math.isinf(learned.most) else learned.most}
    try:
        private_directory(path.parent, follow_links=True)
        write_private(path, json.dumps(data))
        for old in sorted(path.parent.glob("*.json"), key=lambda each: -each.stat().st_mtime)[_MOST:]:
            old.unlink(missing_ok=True)
    except (OSError, ConfigurationError) as error:
        log.debug("the tuning of %r is not kept: %s", spec.name, error)


def _path(urls: Sequence[str], spec: ModelSpec) -> Path:
    tensors = [str(tensor) for tensor in (*spec.inputs, *spec.outputs)]
    key = json.dumps([sorted(urls), spec.name, spec.version, spec.largest_batch, tensors])
    return cache_path() / "tuning" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
