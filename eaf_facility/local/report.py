"""The tables and sentences that the operator's commands print on a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from eaf_facility.local.multi_user import ONE_ACCOUNT
from eaf_inference._text import number, printable
from eaf_inference.metrics.usage_by_owner import OwnedUsage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from eaf_facility.local.demo import Executed
    from eaf_facility.local.multi_user import SharedFacility
    from eaf_facility.local.single_user import RunningFacility
    from eaf_inference.metrics.usage import Usage

__all__ = ["show", "show_demo", "show_shared", "show_usage", "usage"]

_COUNTED = ("requests", "inferences", "failures", "MB in", "MB out")
_NARROWEST = 8  # terminal columns; names are not folded to fewer


def show(facility: RunningFacility, console: Console) -> None:
    """Print the addresses, models and logs of a facility."""
    servers = _table("replica", "pid", "", "address")  # one address a line, to fit a narrow terminal
    for server in facility.servers:
        servers.add_row(server.name, str(server.pid), "gRPC", server.grpc)
        servers.add_row("", "", "HTTP", server.http)
        servers.add_row("", "", "metrics", server.metrics)
    models = _table("model", "state")
    for name, state in facility.servers[0].models().items():
        models.add_row(_text(name), _text(state.lower()))
    for name, why in facility.servers[0].left_out().items():
        models.add_row(_text(name), _text(f"left out: {_first_line(why)}"))
    console.print(servers, "", models, "")
    logs = {server.name: server.log for server in (*facility.store.servers, *facility.servers)}
    if facility.gateway:
        gateway = _table("Dask Gateway", "pid")
        gateway.add_row(facility.gateway.address, str(facility.gateway.pid))
        console.print(gateway, "")
        logs |= {facility.gateway.name: facility.gateway.log, "its clusters": facility.gateway.cluster_logs}
    if facility.slurm:
        logs |= {server.name: server.log for server in facility.slurm.servers}
        console.print(f"Slurm: export SLURM_CONF={facility.slurm.configuration}\n", soft_wrap=True, markup=False)
    for name, log in logs.items():
        console.print(f"log of {name}: {log}", soft_wrap=True, markup=False)
    console.print(f"model store: {facility.store}", soft_wrap=True, markup=False)
    console.print(
        "\nIn a notebook: [bold]%load_ext eaf_inference[/], then [bold]%triton_connect[/]. Ctrl-C stops everything."
    )


def show_shared(facility: SharedFacility, console: Console) -> None:
    """Print the addresses and logs of a shared facility, and how users log in."""
    table = _table("server", "address", "pid")
    addresses = facility.addresses
    for server in facility.servers:
        table.add_row(server.name, addresses.get(server.name, ""), str(server.pid))
    console.print(table, "")
    for name, why in facility.tritons[0].left_out().items():
        console.print(_text(f"left out: model {name}: {_first_line(why)}"), soft_wrap=True)
    for what, where in (
        # not in the table: a folded path cannot be copied
        *((f"log of {server.name}", server.log) for server in facility.servers),
        ("access log of the edge proxy", facility.envoy.access_log),
        ("logs of clusters", facility.gateway.cluster_logs),
        ("authority of the edge proxy's certificate", facility.envoy.ca),
        ("model store", facility.store),
    ):
        console.print(f"{what}: {where}", soft_wrap=True, markup=False)
    console.print(
        f"\n{', '.join(facility.users)} log in at {facility.hub.url} with the password in "
        f"{facility.hub.password_file}, and %triton_connect then needs no arguments.\n{ONE_ACCOUNT} "
        "Ctrl-C stops everything.",
        soft_wrap=True,
        markup=False,
    )


def show_demo(executed: Executed, console: Console) -> None:
    """Print the quickstart's measurements, and the paths of the notebook and its HTML."""
    table = _table("measured", "in this run")
    for name, value in executed.summary.items():
        shown = f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
        table.add_row(_text(name), _text(shown))
    console.print("", table, "")
    for what, where in {"executed notebook": executed.notebook, "as HTML": executed.html}.items():
        console.print(f"{what}: {where}", soft_wrap=True, markup=False)


def show_usage(rows: Sequence[Usage | OwnedUsage], console: Console) -> None:
    """Print usage by user and model, or by owner: as a table, or as sentences if the terminal is too narrow."""
    table = usage(rows)
    unbounded = console.options.update(max_width=sys.maxsize)
    if console.measure(table, options=unbounded).minimum <= console.width:
        console.print(table)
        return
    for row in rows:
        names, heads, counts = _usage_cells(row)
        counted = ", ".join(f"{count} {head}" for count, head in zip(counts, heads, strict=True))
        console.print(_text(f"{', '.join(names.values())}: {counted}"))


def usage(rows: Sequence[Usage | OwnedUsage]) -> Table:
    """Return a table of each user's usage of each model, or of all users' usage of each owner's models."""
    table = Table(box=None, pad_edge=False)
    for row in rows:
        names, heads, counts = _usage_cells(row)
        if not table.columns:
            for head in names:
                table.add_column(head, overflow="fold", min_width=_NARROWEST)
            for head in heads:
                table.add_column(head, justify="right", no_wrap=True)  # part of a number would be misread
        table.add_row(*map(_text, (*names.values(), *counts)))
    return table


def _usage_cells(row: Usage | OwnedUsage) -> tuple[dict[str, str], tuple[str, ...], tuple[str, ...]]:
    """Return the names by their head, the heads of the numbers, and the numbers."""
    about = " (about)" if row.estimated else ""
    counted = (f"{row.requests:,}", f"{row.rows:,}", f"{row.failures:,}")
    counts = (*counted, number(row.bytes_in / 1e6), number(row.bytes_out / 1e6))
    if isinstance(row, OwnedUsage):
        names = {"owner": f"{row.owner or 'the facility'}{about}"}
        return names, ("models", "users", *_COUNTED), (f"{row.models:,}", f"{row.users:,}", *counts)
    return {"user": row.user or "nobody", "model": f"{row.model or '-'}{about}"}, _COUNTED, counts


def _table(*heads: str) -> Table:
    """Return a table that folds long cells on a narrow terminal and truncates none."""
    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    return table


def _text(foreign: str) -> Text:
    """Return a name as literal text, without markup or control characters."""
    return Text(printable(foreign))


def _first_line(text: str) -> str:
    """Return the error itself, without the traceback of a Python model."""
    return text.partition("\n")[0]
