"""Wait until the server serves a version of a model, or says why it does not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from eaf_inference.deploy.published import names_stand_in
from eaf_inference.errors import DeploymentFailed
from eaf_inference.inference.repository import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    States: TypeAlias = Callable[[str], list[list[Any]]]

__all__ = ["wait_until_gone", "wait_until_served"]

_LOOK_EVERY = 0.1  # seconds
# Behind a load balancer, each answer may come from another replica: this number of answers in a row has to agree.
_AGREEING = 8
_UNLOADED = "unloaded"  # Triton's reason for a version that its configuration does not select


def wait_until_served(states: States, name: str, version: int, timeout: float) -> None:
    """Return when each replica that answers serves this version.

    Parameters
    ----------
    states : callable
        Returns what each replica lists of a model; see `Replicas.states`.
    name : str
    version : int
    timeout : float
        Seconds.

    Raises
    ------
    DeploymentFailed
        A replica cannot load it, with Triton's own reason, or it was not loaded in time.
    """
    ends = time.monotonic() + timeout
    agreeing = 0
    while agreeing < _AGREEING:
        replicas = states(name)
        for rows in replicas:
            for row in rows:
                if row.version == str(version) and row.state == "UNAVAILABLE" and _is_final(row.reason):
                    raise DeploymentFailed(
                        f"Triton cannot load version {version} of {name!r}: {reason_of(row).rstrip('.')}. Export the "
                        "model for this server, or ask the facility's operators."
                    )
        ready = bool(replicas) and all(_is_ready(rows, version) for rows in replicas)
        agreeing = agreeing + 1 if ready else 0
        if time.monotonic() > ends:
            raise DeploymentFailed(
                f"Triton did not load version {version} of {name!r} within {timeout:g} s, and gives no reason: "
                f"{_listed(replicas)}. Expected it to read the facility's model store, with this version in it. "
                "Ask the facility's operators; with a long interval between two looks, pass timeout=SECONDS."
            )
        if agreeing < _AGREEING:
            time.sleep(_LOOK_EVERY if not agreeing else _LOOK_EVERY / 5)


def wait_until_gone(states: States, name: str, timeout: float) -> None:
    """Return when no replica serves the model any more.

    Raises
    ------
    DeploymentFailed
        One still does.
    """
    ends = time.monotonic() + timeout
    agreeing = 0
    while agreeing < _AGREEING:
        serving = any(row.state == "READY" for rows in states(name) for row in rows)
        agreeing = 0 if serving else agreeing + 1
        if time.monotonic() > ends:
            raise DeploymentFailed(
                f"{name!r} is deleted from the model store, but Triton still serves it after {timeout:g} s. If it "
                "stays, tell the facility's operators."
            )
        if agreeing < _AGREEING:
            time.sleep(_LOOK_EVERY if serving else _LOOK_EVERY / 5)


def _is_final(reason: str) -> bool:
    """Whether Triton has tried the version: it may have looked before its configuration was there."""
    return reason not in ("", _UNLOADED) and not names_stand_in(reason)


def _is_ready(rows: Sequence[Any], version: int) -> bool:
    return any(row.version == str(version) and row.state == "READY" for row in rows)


def _listed(replicas: Sequence[Sequence[Any]]) -> str:
    rows = sorted({(row.version, row.state) for rows in replicas for row in rows})
    found = ", ".join(f"version {version}: {state}" for version, state in rows)
    return found or "its list does not have the model"
