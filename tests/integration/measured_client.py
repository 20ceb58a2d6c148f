"""A client in its own process, which reports the outcome and the memory of each operation on a server.

It reads operations from standard input, one per line (models, model or scores), and prints a line of JSON for each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import eaf_inference
from eaf_inference.errors import InferenceError

DATA = {"x": np.zeros((4, 2, 8), np.float32)}


def peak():
    """Return the peak memory of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def say(what):
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main(url):
    with eaf_inference.connect(url, timeout=60) as connection:
        scores = connection.model("jets")
        looks = {
            "models": connection.models,
            "model": lambda: connection.model("jets"),
            "scores": lambda: scores(DATA),
        }
        for look in looks.values():  # imports everything, before the server turns hostile
            look()
        before = peak()
        say("ready")
        for line in sys.stdin:
            error, message = None, ""
            try:
                looks[line.strip()]()
            except InferenceError as caught:
                error, message = type(caught).__name__, str(caught)
            say({"error": error, "message": message, "megabytes": peak() - before})


if __name__ == "__main__":
    main(sys.argv[1])
