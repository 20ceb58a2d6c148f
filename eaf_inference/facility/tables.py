"""What the command `eaf-inference` shows of a facility on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from eaf_inference._text import printable
from eaf_inference.facility.shared import ONE_ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from eaf_inference.facility.machine import RunningFacility
    from eaf_inference.facility.shared import SharedFacility
    from eaf_inference.metrics.usage import Usage

__all__ = ["show", "show_shared", "usage"]


def show(facility: RunningFacility, console: Console) -> None:
    """Say where everything is."""
    servers = Table("replica", "gRPC", "HTTP", "metrics", "pid", box=None, pad_edge=False)
    for server in facility.servers:
        servers.add_row(server.name, server.grpc, server.http, server.metrics, str(server.pid))
    models = Table("model", "state", box=None, pad_edge=False)
    for name, state in facility.servers[0].models().items():
        models.add_row(_text(name), _text(state.lower()))
    for name, why in facility.servers[0].left_out().items():
        models.add_row(_text(name), _text(f"left out: {_first_line(why)}"))
    console.print(servers, "", models, "")
    logs = {server.name: server.log for server in facility.servers}
    if facility.gateway:
        gateway = Table("Dask Gateway", "pid", box=None, pad_edge=False)
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
    table = Table("server", "where", "pid", "log", box=None, pad_edge=False)
    addresses = facility.addresses
    for server in facility.servers:
        table.add_row(server.name, addresses.get(server.name, ""), str(server.pid), str(server.log))
    console.print(table, "", soft_wrap=True)
    for name, why in facility.tritons[0].left_out().items():
        console.print(_text(f"left out: model {name}: {_first_line(why)}"), soft_wrap=True)
    for what, where in (
        ("the door's access log", facility.door.access_log),
        ("logs of clusters", facility.gateway.cluster_logs),
        ("authority of the door's certificate", facility.door.ca),
    ):
        console.print(f"{what}: {where}", soft_wrap=True, markup=False)
    console.print(
        f"\n{', '.join(facility.users)} log in at {facility.hub.url} with the password in "
        f"{facility.hub.password_file}, and %triton_connect works with nothing typed.\n{ONE_ACCOUNT} "
        "Ctrl-C stops it all.",
        soft_wrap=True,
        markup=False,
    )


def usage(rows: Sequence[Usage]) -> Table:
    """Who had what of which model."""
    table = Table("user", "model", box=None, pad_edge=False)
    for head in ("requests", "inferences", "failures", "MB in", "MB out"):
        table.add_column(head, justify="right")
    for row in rows:
        numbers = (f"{row.requests:,}", f"{row.rows:,}", f"{row.failures:,}")
        megabytes = (f"{row.bytes_in / 1e6:,.1f}", f"{row.bytes_out / 1e6:,.1f}")
        mark = " (about)" if row.estimated else ""
        table.add_row(_text(row.user or "nobody"), _text(f"{row.model or '-'}{mark}"), *numbers, *megabytes)
    return table


def _text(foreign: str) -> Text:
    """A name as it stands: neither its markup nor its control characters do anything."""
    return Text(printable(foreign))


def _first_line(text: str) -> str:
    """The error itself, without the traceback of a model in Python."""
    return text.partition("\n")[0]
