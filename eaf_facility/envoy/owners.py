"""A script for Envoy's Lua filter: who may load, use and see which model. Pure function.

Users' own models are named ``<owner>.<name>``. The script (`owners.lua`) reads the name from the request itself. It
refuses requests from which Envoy's field extraction, Triton, and the script would read different names. For example,
the extraction takes any field with the number 1 for the name, so that users could be counted for invented models.

The script walks over the fields of a request that Envoy holds anyway, and copies none but the name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference.deploy.names import escaped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eaf_facility.envoy.settings import Envoy

__all__ = ["owners_script"]

_SCRIPT = Path(__file__).with_name("owners.lua")


def owners_script(settings: Envoy) -> str:
    """Return the script, which begins with the settings that it obeys."""
    chosen = {
        "private_models": str(settings.private_models).lower(),
        "shared_models": _set(settings.shared_models),
        "operators": _set(map(escaped, settings.operators)),
    }
    lines = [f"  {name} = {value}," for name, value in chosen.items()]
    return "\n".join(["local settings = {", *lines, "}", _SCRIPT.read_text(encoding="utf-8")])


def _set(names: Iterable[str]) -> str:
    """Return a Lua table with these names, which need no escapes, as keys."""
    return "{" + ", ".join(f'["{name}"] = true' for name in names) + "}"
