"""The figures of this kernel's Jupyter server, which the panel beside the notebook shows too.

The server writes the frames for browsers to a Unix socket as well, see `eaf_inference.server.kernels`. A kernel that
runs elsewhere, or is connected to another Triton than the panel, measures by itself.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

from eaf_inference.metrics.snapshot import Snapshot
from eaf_inference.metrics.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["SOCKET", "listen"]

log = logging.getLogger(__name__)

SOCKET = "EAF_INFERENCE_JUPYTER_SOCKET"  # environment variable, set by the Jupyter server
_CONNECT_WITHIN = 1.0  # seconds
_LARGEST = 16 * 2**20  # bytes of a frame


def listen(
    urls: Collection[str],
    *,
    earlier: Callable[[tuple[Snapshot, ...], Verdict | None], None],
    hear: Callable[[Snapshot, Verdict], None],
    ended: Callable[[], None],
) -> Callable[[], None] | None:
    """Follow the Jupyter server's figures in a thread.

    Parameters
    ----------
    urls : collection of str
        The replicas that this kernel is connected to. Figures of other replicas are not used.
    earlier, hear : callable
        Called in that thread: `earlier` once with the last minutes, then `hear` with each snapshot.
    ended : callable
        Called in that thread when the server ends the feed or has figures of other replicas.

    Returns
    -------
    callable or None
        Ends the thread without a call of `ended`; None if no Jupyter server offers its figures.
    """
    path = os.environ.get(SOCKET)
    if not path:
        return None
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_CONNECT_WITHIN)
        connection.connect(path)
        connection.settimeout(None)
    except OSError as error:
        connection.close()
        log.debug("Cannot follow the Jupyter server's figures: %s", error)
        return None
    stopped = threading.Event()

    def follow() -> None:
        try:
            with connection, connection.makefile("rb") as lines:
                for line in iter(lambda: lines.readline(_LARGEST), b""):
                    if stopped.is_set() or not _take(json.loads(line), urls, earlier, hear):
                        break
        except (OSError, ValueError, KeyError, TypeError) as error:  # it stopped, or has another version
            log.debug("The Jupyter server's figures end: %s", error)
        if not stopped.is_set():
            ended()

    def stop() -> None:
        stopped.set()
        with contextlib.suppress(OSError):  # already closed
            connection.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=follow, name="eaf-inference-feed", daemon=True).start()
    return stop


def _take(
    frame: dict[str, Any],
    urls: Collection[str],
    earlier: Callable[[tuple[Snapshot, ...], Verdict | None], None],
    hear: Callable[[Snapshot, Verdict], None],
) -> bool:
    """Pass a frame on; return False if the server is connected to other replicas."""
    kind = frame["type"]
    if kind == "facility":
        endpoint = frame["facility"]["endpoint"]
        # without an endpoint, Triton is away for the moment, as the snapshots show
        return endpoint is None or set(endpoint["urls"]) == set(urls)
    if kind == "history":
        earlier(
            tuple(map(Snapshot.from_dict, frame["snapshots"])),
            Verdict.from_dict(frame) if frame["average"] else None,
        )
    elif kind == "snapshot":
        hear(Snapshot.from_dict(frame["snapshot"]), Verdict.from_dict(frame))
    return True
