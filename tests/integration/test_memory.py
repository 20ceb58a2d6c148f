"""The window bounds the memory, for inputs of any size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_million_jets_stream_through_in_bounded_memory(zoo):
    script = Path(__file__).with_name("stream_a_million.py")
    done = subprocess.run(
        [sys.executable, script, zoo.grpc, "1000000"], capture_output=True, text=True, check=True, timeout=280
    )
    jets, before, peak = map(float, done.stdout.split())
    assert jets == 1_000_000
    assert peak - before < 300  # MB; all inputs together are 480
