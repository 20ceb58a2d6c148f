"""Free ports on the loopback interface, for servers that cannot be given port 0.

Between finding a port and the server's binding it another process may take it; whoever starts a server on
ports found here tries again with others when the server says so.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack

__all__ = ["LOOPBACK", "free_ports", "is_free"]

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Find so many different ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]


def is_free(port: int) -> bool:
    """Say whether a server can listen on this port; connections of a former one may linger."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
