"""Wait for what no event announces."""

from __future__ import annotations

import time


def until(condition, timeout: float = 60.0) -> None:
    """Wait until the condition is true."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
