"""The usage of models that users deployed, by the owner in the model's name."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from eaf_inference.deploy.names import owner_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eaf_inference.metrics.usage import Usage

__all__ = ["OwnedUsage", "by_owner", "of_owner"]


@dataclass(frozen=True, slots=True)
class OwnedUsage:
    """All users' usage of one model, or of all models of one owner. It names no user but the owner.

    Attributes
    ----------
    owner : str
        Empty for the facility's own models.
    model : str
        Empty if it is all of the owner's.
    models : int
        Number of models.
    users : int
        Number of users with answered requests, the owner included.
    requests, rows, failures, bytes_in, bytes_out, estimated
        As in `Usage`.
    """

    owner: str
    model: str = ""
    models: int = 1
    users: int = 0
    requests: int = 0
    rows: int = 0
    failures: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    estimated: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def by_owner(rows: Iterable[Usage]) -> tuple[OwnedUsage, ...]:
    """Return one row per owner in alphabetical order; first the facility's own models, which have none."""
    owners: dict[str, list[Usage]] = defaultdict(list)
    for row in rows:
        owners[owner_of(row.model) or ""].append(row)
    return tuple(_sum(owner, "", found) for owner, found in sorted(owners.items()))


def of_owner(rows: Iterable[Usage], owner: str) -> tuple[OwnedUsage, ...]:
    """Return one row per model of this owner, with the most inferences first."""
    models: dict[str, list[Usage]] = defaultdict(list)
    for row in rows:
        if owner_of(row.model) == owner:
            models[row.model].append(row)
    found = (_sum(owner, model, used) for model, used in models.items())
    return tuple(sorted(found, key=lambda row: (-row.rows, row.model)))


def _sum(owner: str, model: str, rows: list[Usage]) -> OwnedUsage:
    return OwnedUsage(
        owner=owner,
        model=model,
        models=len({row.model for row in rows if row.model}),
        users=len({row.user for row in rows if row.user and row.requests}),
        requests=sum(row.requests for row in rows),
        rows=sum(row.rows for row in rows),
        failures=sum(row.failures for row in rows),
        bytes_in=sum(row.bytes_in for row in rows),
        bytes_out=sum(row.bytes_out for row in rows),
        estimated=any(row.estimated for row in rows),
    )
