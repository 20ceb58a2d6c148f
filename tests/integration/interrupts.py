"""Interrupt notebook cells at random moments of inference, and count the lost interrupts.

python tests/integration/interrupts.py [INTERRUPTS]
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from kernels import notebook
from zoo import make_zoo

from eaf_facility.servers.triton import TritonServer

LONGEST = 0.1  # seconds from the start of a cell to its interrupt
CELLS = (
    "for _ in model.map({'x': rows} for _ in iter(int, 1)): pass",
    "while True: model({'x': rows})",
    "progress._SHOWN_AFTER = 0.0\nwhile True: model({'x': rows})",  # each call makes and closes a bar
)
SETUP = """
import numpy as np, eaf_inference.inference.progress as progress
model, rows = triton.model('sums'), np.ones((20, 2, 100), np.float32)
"""


def interrupt_cells(book, number: int) -> dict[str, int]:
    """Count the cells that ended by their interrupt; after each, a call must give the right scores."""
    assert book.run("%triton_connect").error == []
    assert book.run(SETUP).error == []
    counts = {"ended": 0, "lost": 0, "wrong scores after it": 0, "left in flight": 0}
    for at in range(number):
        cell = CELLS[at % len(CELLS)]
        ended = book.interrupt(cell, random.uniform(0, LONGEST)).reply.get("ename") == "KeyboardInterrupt"  # noqa: S311
        counts["ended" if ended else "lost"] += 1
        after = book.run("progress._SHOWN_AFTER = 1.0\nmodel({'x': rows}).sum(), triton.traffic.in_flight").text
        counts["wrong scores after it"] += "4000.0" not in after
        counts["left in flight"] += not after.endswith(", 0)")
    return counts


def main(number: int = 200) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        TritonServer.start([make_zoo(Path(directory) / "zoo")]) as server,
        notebook(EAF_TRITON_URL=server.grpc) as book,
    ):
        print(f"{number} interrupts: {interrupt_cells(book, number)}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
