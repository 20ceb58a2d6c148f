"""The zero-cost model, which measures the overhead of the client and of Triton itself."""

from __future__ import annotations

from pathlib import Path

from eaf_facility.study.accelerator import write_model

__all__ = ["NAME", "write_zero_cost"]

NAME = "zero_cost"
_MODEL = Path(__file__).parent / "zero_cost_model" / "model.py"


def write_zero_cost(repository: Path) -> None:
    """Add the model to a model repository."""
    write_model(repository, NAME, _MODEL, batch=256)
