"""Code that is here only because of gRPC or glibc, each piece with its upstream issue or documentation.

Before deleting a piece, check that the oldest grpcio that pyproject.toml allows has the fix. Four workarounds shape
code elsewhere and cannot be moved here:

- `interrupts`: an interrupted gRPC call can leave the channel's lock taken (https://github.com/grpc/grpc/issues/19973).
- `pipeline.Pipeline` abandons calls instead of cancelling them, because a cancelled call crashes Triton before 25.03
  (https://github.com/triton-inference-server/server/issues/7368 and /8034).
- `protocol` keeps every message class alive, because protobuf 4.22 crashes when a class of a private descriptor pool
  is freed and needed again (https://github.com/protocolbuffers/protobuf/issues/12047).
- `reply.read_with` returns its errors, because gRPC logs a traceback of whatever a deserializer raises and reports
  only "Exception deserializing response!" (grpc/_common.py of grpcio 1.85).
"""

from __future__ import annotations

import functools
import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

# Without it, processes that are forked after a call, as by multiprocessing or coffea's FuturesExecutor, wait for ever
# in calls of their own. Read when grpc is imported: https://github.com/grpc/grpc/blob/master/doc/fork_support.md
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "1")
# Without it, gRPC 1.85 logs failed TLS handshakes to stderr, although it says that only errors are logged by default:
# https://github.com/grpc/grpc/blob/master/TROUBLESHOOTING.md
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

__all__ = ["CHANNEL_OPTIONS", "UNFORKED", "hold_forks_back", "keep_freed_memory", "outcome", "start_call"]

UNFORKED = threading.RLock()  # held where no other thread may fork, if `hold_forks_back` was called

CHANNEL_OPTIONS = (
    # Reconnect soon after a server restarts. gRPC waits up to two minutes between attempts, and lets each take 20 s:
    # https://github.com/grpc/grpc/issues/25540, https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Do not inherit that wait from an older channel: equal channels share connections, and so their backoff.
    # https://github.com/grpc/grpc/issues/17282, https://github.com/grpc/grpc/issues/21240
    ("grpc.use_local_subchannel_pool", 1),
    # Notice a peer that vanished without closing the connection while a call waits for it.
    # https://github.com/grpc/grpc/issues/32095, https://github.com/grpc/grpc/blob/master/doc/keepalive.md
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Ignore http_proxy and its kin: without TLS the proxy would read the token.
    # https://github.com/grpc/grpc/issues/11751
    ("grpc.enable_http_proxy", 0),
    # Accept no compressed replies: gRPC before 1.84 inflates a whole message before it checks the size limit.
    # https://github.com/grpc/grpc/issues/43012
    ("grpc.compression_enabled_algorithms_bitset", 1),
)
_LARGEST_KEPT = (32 << 20) - (64 << 10)  # bytes: glibc's upper bound, less its overhead


def start_call(start: Callable[[], Any], done: Callable[[Any], None]) -> None:
    """Start a call, and pass its future to `done` when it ends: on gRPC's thread, or here if it has ended already.

    The caller must hold interrupts back. A future's ``__del__`` takes the lock of its call, and an exception that
    arrives there leaves it taken (https://github.com/grpc/grpc/issues/19973; a finalizer that calls gRPC can deadlock
    in the same way, https://github.com/grpc/grpc/issues/36927). So no reference outlives this function: the future is
    freed here, or on gRPC's thread, where no interrupt arrives.
    """
    with UNFORKED:
        start().add_done_callback(done)


def outcome(future: Any) -> tuple[Any, grpc.RpcError | None]:
    """Return the reply of a finished call, or its error.

    The error is its own future and refers to itself through its traceback, whose frames hold the request. Without
    the traceback, a request's memory is freed at once (grpc/_channel.py of grpcio 1.85; no upstream issue found).
    """
    import grpc

    try:  # a single call to gRPC if all is well: each one takes a lock
        return future.result(), None
    except grpc.RpcError as error:
        return None, error.with_traceback(None)


@functools.cache
def hold_forks_back() -> None:
    """Fork only while no thread holds `UNFORKED`, once per process, after the first channel is made.

    gRPC's fork support takes care of its own threads alone. If a thread of the application is inside gRPC when
    another one forks, the child inherits a lock that nobody releases, and waits for ever in the fork itself
    (https://github.com/grpc/grpc/blob/master/doc/fork_support.md). Python waits here before gRPC prepares for the
    fork, because it calls the function that was registered last first.
    """
    os.register_at_fork(before=UNFORKED.acquire, after_in_child=UNFORKED.release, after_in_parent=UNFORKED.release)


@functools.cache
def keep_freed_memory() -> None:
    """Make glibc keep up to 64 MB of freed memory for the next requests, once per process.

    Otherwise it may return a request's memory to the system each time and get it back page by page, which takes a
    quarter of the client's processor time. glibc raises its threshold to the size of the largest block freed so far,
    up to 32 MB (M_MMAP_THRESHOLD in https://man7.org/linux/man-pages/man3/mallopt.3.html). Freeing one such block, of
    which no page was touched, is enough.
    """
    import numpy as np

    np.empty(_LARGEST_KEPT, np.uint8)
