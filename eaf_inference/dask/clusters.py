"""What this user's Dask clusters do with Triton: a row each, from the heartbeats of their workers.

Also whether client, scheduler and workers fit together: different versions of Python or distributed are the
commonest reason for a task that fails on a facility's cluster.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eaf_inference._text import printable
from eaf_inference.dask.link import Link, scheduler_of
from eaf_inference.dask.worker_plugin import NAME
from eaf_inference.tables import aligned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from eaf_inference.connection import Connection

__all__ = ["ClusterRow", "ClusterTable", "clusters_of"]

_ANSWERS_WITHIN = 3.0  # seconds
_WITHOUT_SCHEDULER = {"closed": "closed", "connecting": "its scheduler is gone"}  # by the client's status
_COMPARED = ("python", "distributed", "awkward", "eaf-inference")


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """One cluster; what no worker has reported yet is None.

    Attributes
    ----------
    name : str
    state : str
        Configured, waiting, …, and why.
    workers, configured : int or None
        Workers, and those among them that know where Triton is.
    inferences_per_s : float or None
        Over the last ten seconds, all workers together. An inference is one jet's.
    oldest_token : float or None
        Seconds since the oldest token among the workers was issued; None as well where there is none.
    remarks : tuple of str
        Versions that differ.
    connected : bool
        Whether the client is connected to the scheduler; it is not once the cluster has been shut down elsewhere.
    """

    name: str
    state: str
    workers: int | None = None
    configured: int | None = None
    inferences_per_s: float | None = None
    oldest_token: float | None = None
    remarks: tuple[str, ...] = ()
    connected: bool = True


class ClusterTable(list[ClusterRow]):
    """Clusters; prints as a table."""

    def __str__(self) -> str:
        if not self:
            return "No Dask cluster uses this connection."
        table = aligned(
            ("cluster", "workers", "configured", "jets/s", "oldest token", "state"),
            (
                (
                    row.name,
                    _shown(row.workers),
                    _shown(row.configured),
                    _shown(row.inferences_per_s, "{:.0f}"),
                    "none" if row.configured and row.oldest_token is None else _shown(row.oldest_token, "{:.0f} s"),
                    row.state,
                )
                for row in self
            ),
        )
        return "\n".join([table, *(printable(f"{row.name}: {remark}") for row in self for remark in row.remarks)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from eaf_inference.notebook.display import clusters_html

        return clusters_html(self)


def clusters_of(connection: Connection) -> ClusterTable:
    """The clusters that were configured with this connection, as they are now."""
    links = [link for link in connection.followers if isinstance(link, Link)]
    return ClusterTable(
        _gone(link) or link.ask(_row(link), _ANSWERS_WITHIN) or ClusterRow(link.name, link.words) for link in links
    )


def _gone(link: Link) -> ClusterRow | None:
    """A cluster whose scheduler this client has lost, or left; None while it is connected."""
    state = _WITHOUT_SCHEDULER.get(link.client.status if link.client else "closed")
    return None if state is None else ClusterRow(link.name, state, connected=False)


async def _row(link: Link) -> ClusterRow:
    client = link.client
    if client is None:
        return ClusterRow(link.name, "closed")
    asked: Any = client.get_versions(packages=["awkward", "eaf-inference"])
    identity, versions = await asyncio.gather(scheduler_of(client).identity(n_workers=-1), asked)
    metrics = [worker["metrics"].get(NAME) for worker in identity["workers"].values()]
    reports = [each for each in metrics if each]
    return ClusterRow(
        name=link.name,
        state=link.words,
        workers=len(metrics),
        configured=sum(each["state"] == "connected" for each in reports) if reports or not metrics else None,
        inferences_per_s=_over(sum, (each.get("inferences_per_s") for each in reports)),
        oldest_token=_over(max, (each["token_age"] for each in reports)),
        remarks=tuple(differences(versions)),
    )


def differences(versions: Mapping[str, Any]) -> list[str]:
    """What does not fit together, in a sentence for each package.

    Parameters
    ----------
    versions : mapping
        As `distributed.Client.get_versions` gives it.
    """
    here = versions["client"]["packages"]
    workers = [worker["packages"] for worker in versions["workers"].values() if "packages" in worker]
    remarks = []
    for package in _COMPARED:
        mine = here.get(package)
        others = []
        on_scheduler = versions["scheduler"]["packages"].get(package)
        if on_scheduler != mine:  # it unpickles tasks, and with them our models
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


def _over(combine: Callable[[list[float]], float], values: Iterable[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return combine(known) if known else None


def _shown(value: float | None, form: str = "{}") -> str:
    return "not reported" if value is None else form.format(value)
