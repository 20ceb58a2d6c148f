"""Ports on the loopback interface, for servers that cannot be given port 0.

A `HeldPort` belongs to this user while its server starts, dies and starts again; the server must set SO_REUSEPORT.
For servers that cannot, `free_ports` finds ports that are free now. Another process may take one before the server
binds it; the server is then started again with other ports (`Server.move`).
"""

from __future__ import annotations

import os
import socket
import weakref
from contextlib import ExitStack, suppress

from eaf_inference.errors import ConfigurationError

__all__ = ["LOOPBACK", "HeldPort", "free_ports", "is_free", "listens"]

LOOPBACK = "127.0.0.1"


class HeldPort:
    """A loopback port that no other user of this machine can take, whether a server listens on it or not.

    A socket of this process is bound to the port with SO_REUSEPORT and never listens. The kernel then lets other
    sockets bind the port only if they set SO_REUSEPORT too and belong to the same user, and passes connections to
    those that listen. The port is free again when this object is deleted.

    Parameters
    ----------
    number : int, optional
        The port; by default a free one.

    Raises
    ------
    ConfigurationError
        Another process has the port.
    """

    def __init__(self, number: int | None = None) -> None:
        # binding would succeed beside another server of this user that has set SO_REUSEPORT
        if number is not None and not is_free(number):
            raise ConfigurationError(
                f"port {number} on {LOOPBACK} is taken by another process. Choose another port, leave it out to get "
                f"a free one, or stop the process that listens there (`ss -ltnp 'sport = :{number}'` shows it)."
            )
        with socket.socket() as holder:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind((LOOPBACK, number or 0))
            self.number: int = holder.getsockname()[1]
            weakref.finalize(self, os.close, holder.detach())


def free_ports(count: int) -> list[int]:
    """Return `count` different free ports."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]


def listens(pid: int, port: int) -> bool:
    """Return whether this process, and not another one, listens on the port."""
    import psutil

    with suppress(psutil.Error):  # the process has ended
        return any(
            each.status == psutil.CONN_LISTEN and each.laddr.port == port
            for each in psutil.Process(pid).net_connections("tcp")
        )
    return False


def is_free(port: int) -> bool:
    """Return whether a server can listen on this port; lingering connections of an earlier one do not matter."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
