"""What the command `eaf-inference` shows of a facility on a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from eaf_inference._text import printable
from eaf_inference.facility.shared import ONE_ACCOUNT
from eaf_inference.tables import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from eaf_inference.facility.demo import Executed
    from eaf_inference.facility.machine import RunningFacility
    from eaf_inference.facility.shared import SharedFacility
    from eaf_inference.metrics.usage import Usage

__all__ = ["show", "show_demo", "show_shared", "show_usage", "usage"]

_COUNTED = ("requests", "inferences", "failures", "MB in", "MB out")
_NARROWEST = 8  # columns of a terminal that a name is folded to


def show(facility: RunningFacility, console: Console) -> None:
    """Say where everything is."""
    servers = _table("replica", "pid", "", "where")  # a line for each address, which a narrow terminal has room for
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
    logs = {server.name: server.log for server in facility.servers}
    if facility.gateway:
        gateway = _table("Dask Gateway", "pid")
        gateway.add_row(facility.gateway.address, str(facility.gateway.pid))
        console.print(gateway, "")
        logs |= {facility.gateway.name: facility.gateway.log, "its clusters": facility.gateway.cluster_logs}
    for name, log in logs.items():
        console.print(f"log of {name}: {log}", soft_wrap=True, markup=False)
    console.print(
        "\nIn a notebook: [bold]%load_ext eaf_inference[/], then [bold]%triton_connect[/]. Ctrl-C stops it all."
    )


def show_shared(facility: SharedFacility, console: Console) -> None:
    """Say where everything is, and how users come in."""
    table = _table("server", "where", "pid")
    addresses = facility.addresses
    for server in facility.servers:
        table.add_row(server.name, addresses.get(server.name, ""), str(server.pid))
    console.print(table, "")
    for name, why in facility.tritons[0].left_out().items():
        console.print(_text(f"left out: model {name}: {_first_line(why)}"), soft_wrap=True)
    for what, where in (
        *(
            (f"log of {server.name}", server.log) for server in facility.servers
        ),  # whole: a path is there to be copied
        ("access log of the edge proxy", facility.door.access_log),
        ("logs of clusters", facility.gateway.cluster_logs),
        ("authority of the edge proxy's certificate", facility.door.ca),
    ):
        console.print(f"{what}: {where}", soft_wrap=True, markup=False)
    console.print(
        f"\n{', '.join(facility.users)} log in at {facility.hub.url} with the password in "
        f"{facility.hub.password_file}, and %triton_connect works with nothing typed.\n{ONE_ACCOUNT} "
        "Ctrl-C stops it all.",
        soft_wrap=True,
        markup=False,
    )


def show_demo(executed: Executed, console: Console) -> None:
    """Say what the quickstart measured, and where it is."""
    table = _table("measured", "in this run")
    for name, value in executed.summary.items():
        shown = f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
        table.add_row(_text(name), _text(shown))
    console.print("", table, "")
    for what, where in {"executed notebook": executed.notebook, "as HTML": executed.html}.items():
        console.print(f"{what}: {where}", soft_wrap=True, markup=False)


def show_usage(rows: Sequence[Usage], console: Console) -> None:
    """Say who had what of which model: in a table, or in sentences where a terminal is too narrow for its numbers."""
    table = usage(rows)
    unbounded = console.options.update(max_width=sys.maxsize)
    if console.measure(table, options=unbounded).minimum <= console.width:
        console.print(table)
        return
    for row in rows:
        user, model, *counts = _usage_cells(row)
        counted = ", ".join(f"{count} {head}" for count, head in zip(counts, _COUNTED, strict=True))
        console.print(_text(f"{user}, {model}: {counted}"))


def usage(rows: Sequence[Usage]) -> Table:
    """Who had what of which model."""
    table = Table(box=None, pad_edge=False)
    for head in ("user", "model"):
        table.add_column(head, overflow="fold", min_width=_NARROWEST)
    for head in _COUNTED:
        table.add_column(head, justify="right", no_wrap=True)  # half a number is another number
    for row in rows:
        table.add_row(*map(_text, _usage_cells(row)))
    return table


def _usage_cells(row: Usage) -> tuple[str, ...]:
    model = f"{row.model or '-'}{' (about)' if row.estimated else ''}"
    counted = (f"{row.requests:,}", f"{row.rows:,}", f"{row.failures:,}")
    return row.user or "nobody", model, *counted, number(row.bytes_in / 1e6), number(row.bytes_out / 1e6)


def _table(*heads: str) -> Table:
    """A table that folds what a narrow terminal has no room for, and cuts nothing off."""
    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    return table


def _text(foreign: str) -> Text:
    """A name as it stands: neither its markup nor its control characters do anything."""
    return Text(printable(foreign))


def _first_line(text: str) -> str:
    """The error itself, without the traceback of a model in Python."""
    return text.partition("\n")[0]
