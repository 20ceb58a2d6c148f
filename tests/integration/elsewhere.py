"""Score in another process, as a worker does with a model that arrives in a task."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

_PROGRAM = """
import pickle, sys
model, data = pickle.load(sys.stdin.buffer)
connection = repr(model._connection)
sys.stdout.buffer.write(pickle.dumps((connection, model(data, progress=False))))
"""


def scored(pickled: bytes) -> tuple[str, Any]:
    """Return what the connection of a pickled (model, data) says there before it is used, and the scores."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM], input=pickled, capture_output=True, check=True)
    found: tuple[str, Any] = pickle.loads(done.stdout)  # noqa: S301
    return found
