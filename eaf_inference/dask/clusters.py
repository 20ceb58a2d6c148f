"""A table of this user's Dask clusters and their use of Triton, from the heartbeats of their workers.

It also compares versions, because different versions of Python or distributed on client, scheduler and workers are
the most common reason why tasks fail on a facility's cluster.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from eaf_inference._html import dim, page
from eaf_inference._table import Cell, Table, reported
from eaf_inference._text import printable
from eaf_inference.dask.link import Link, scheduler_of
from eaf_inference.metrics.workers import sums_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eaf_inference.connection import Connection

__all__ = ["ClusterRow", "ClusterTable", "clusters_of"]

_NONE = "No Dask cluster uses this connection."
_ANSWERS_WITHIN = 3.0  # seconds
_WITHOUT_SCHEDULER = {"closed": "closed", "connecting": "its scheduler is gone"}  # by the client's status
_COMPARED = ("python", "distributed", "awkward", "eaf-inference")


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """One cluster; a value that no worker has reported yet is None.

    Attributes
    ----------
    name : str
    state : str
        Configured, waiting, …, and the reason.
    workers, configured : int or None
        All workers, and those that are connected to Triton.
    inferences_per_second : float or None
        Rate of all workers over the last ten seconds. One inference is one jet.
    oldest_token : float or None
        Age of the workers' oldest token in seconds; None also if they need no token.
    remarks : tuple of str
        Packages whose versions differ.
    connected : bool
        Whether the client is connected to the scheduler. It is not after the cluster was shut down elsewhere.
    """

    name: str
    state: str
    workers: int | None = None
    configured: int | None = None
    inferences_per_second: float | None = None
    oldest_token: float | None = None
    remarks: tuple[str, ...] = ()
    connected: bool = True

    def cells(self) -> tuple[Cell | str, ...]:
        """Return the row of the table."""
        complete = self.configured in (self.workers, None)
        without_token = bool(self.configured) and self.oldest_token is None
        return (
            self.name,
            reported(self.workers),
            reported(self.configured) if complete else Cell(str(self.configured), "bad"),
            reported(self.inferences_per_second, "{:,.0f}"),
            reported(self.oldest_token, "{:.0f} s", "none" if without_token else "not reported"),
            Cell(self.state, "good" if self.state == "configured" else "bad"),
        )


class ClusterTable(list[ClusterRow]):
    """Clusters; prints as a table."""

    def __str__(self) -> str:
        if not self:
            return _NONE
        return "\n".join([self._table().text(), *map(printable, self._remarks())])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        if not self:
            return page(dim(_NONE))
        return page(self._table().html() + "".join(f"<div>{dim(remark)}</div>" for remark in self._remarks()))

    def _table(self) -> Table:
        heads = ("Dask cluster", "workers", "configured", "jets/s", "oldest token", "state")
        return Table(heads, [row.cells() for row in self], numbers=(1, 2, 3, 4))

    def _remarks(self) -> list[str]:
        return [f"{row.name}: {remark}" for row in self for remark in row.remarks]


def clusters_of(connection: Connection) -> ClusterTable:
    """Return the current state of the clusters that use this connection."""
    links = [link for link in connection.linked_clusters if isinstance(link, Link)]
    return ClusterTable(
        _gone(link) or link.ask(_row(link), _ANSWERS_WITHIN) or ClusterRow(link.name, link.words) for link in links
    )


def _gone(link: Link) -> ClusterRow | None:
    """Return the row of a cluster whose client is not connected; None if it is."""
    state = _WITHOUT_SCHEDULER.get(link.client.status if link.client else "closed")
    return None if state is None else ClusterRow(link.name, state, connected=False)


async def _row(link: Link) -> ClusterRow:
    client = link.client
    if client is None:
        return ClusterRow(link.name, "closed")
    asked: Any = client.get_versions(packages=["awkward", "eaf-inference"])
    identity, versions = await asyncio.gather(scheduler_of(client).identity(n_workers=-1), asked)
    sums = asdict(sums_of(identity["workers"].values()))
    return ClusterRow(link.name, link.words, remarks=tuple(differences(versions)), **sums)


def differences(versions: Mapping[str, Any]) -> list[str]:
    """Describe the packages whose versions differ, in one sentence per package.

    Parameters
    ----------
    versions : mapping
        From `distributed.Client.get_versions`.
    """
    here = versions["client"]["packages"]
    workers = [worker["packages"] for worker in versions["workers"].values() if "packages" in worker]
    remarks = []
    for package in _COMPARED:
        mine = here.get(package)
        others = []
        on_scheduler = versions["scheduler"]["packages"].get(package)
        if on_scheduler != mine:  # the scheduler unpickles tasks, and models with them
            others.append(f"{on_scheduler or 'missing'} on the scheduler")
        counted = Counter(worker.get(package) for worker in workers)
        others += [
            f"{version or 'missing'} on {number} of {len(workers)} workers"
            for version, number in counted.items()
            if version != mine
        ]
        if others:
            remarks.append(f"{package} {mine} here, {', '.join(others)}")
    return remarks
