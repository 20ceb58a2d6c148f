"""What was written down when a user deployed a model: its size, when, and what it was made from.

`eaf_inference.deploy` writes it into the model's configuration, as the parameter ``deployment`` (JSON). A user can
write anything there, so it is read as data: what is missing or wrong counts as unknown, without an error. The owner
is not taken from it, but from the model's name, which the facility guards.
"""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from eaf_inference._redact import redact
from eaf_inference._text import printable
from eaf_inference.inference.parameters import DEPLOYMENT

__all__ = ["DeploymentFacts", "deployment_facts"]

_LONGEST = 4096  # characters of the parameter
_LARGEST = 1 << 53  # bytes; larger whole numbers change in JavaScript
_MOST_SHOWN = 100  # characters
_EARLIEST = 1_577_836_800.0  # 2020, in seconds since the epoch
_CLOCKS_DIFFER = 3600.0  # seconds, at most
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class DeploymentFacts:
    """How a model was deployed.

    Attributes
    ----------
    size : int or None
        Bytes of its files; None if unknown.
    time : float or None
        Seconds since the epoch; None if unknown.
    source : str
        What it was exported from, such as "torch 2.13.0"; empty if unknown.
    sha256 : str
        Of its files; empty if unknown.
    """

    size: int | None = None
    time: float | None = None
    source: str = ""
    sha256: str = ""


def deployment_facts(config: Any) -> DeploymentFacts | None:
    """Return how the model of a configuration was deployed; None if no user deployed it."""
    if DEPLOYMENT not in config.parameters:
        return None
    text = config.parameters[DEPLOYMENT].string_value
    try:
        said = json.loads(text) if len(text) <= _LONGEST else None
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        return DeploymentFacts()
    source, sha256 = said.get("source"), said.get("sha256")
    return DeploymentFacts(
        size=_size(said.get("bytes")),
        time=_seconds(said.get("time")),
        source=redact(printable(source))[:_MOST_SHOWN] if isinstance(source, str) else "",
        sha256=sha256 if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else "",
    )


def _size(said: object) -> int | None:
    return said if type(said) is int and 0 <= said <= _LARGEST else None


def _seconds(said: object) -> float | None:
    """Parse a time of ISO 8601 with its zone; None if it is not one, or lies in the future."""
    if not isinstance(said, str) or len(said) > _MOST_SHOWN:
        return None
    try:
        when = datetime.fromisoformat(said.replace("Z", "+00:00"))  # Python 3.10 does not read Z
    except ValueError:
        return None
    try:
        seconds = when.timestamp() if when.tzinfo else math.nan
    except (OverflowError, ValueError):  # at the ends of the calendar
        return None
    return seconds if _EARLIEST <= seconds <= time.time() + _CLOCKS_DIFFER else None
