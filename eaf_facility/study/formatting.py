"""How the study's sentences, tables and plots write numbers."""

from __future__ import annotations

from eaf_facility.study.outcome import QUEUE_LIMIT

__all__ = ["LIMIT", "duration", "plural", "tritons"]

LIMIT = f"{1e3 * QUEUE_LIMIT:.0f} ms"


def plural(number: int, noun: str) -> str:
    """Write ``1 worker``, ``2 workers``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def tritons(number: int, *, simulated: bool) -> str:
    """Write ``1 simulated Triton``, ``2 Tritons``."""
    return plural(number, "simulated Triton" if simulated else "Triton")


def duration(seconds: float) -> str:
    """Write ``0.12 ms``, ``340 ms``, ``5.36 s``."""
    if seconds >= 1:
        return f"{seconds:,.2f} s"
    milliseconds = 1e3 * seconds
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.2g} ms"
