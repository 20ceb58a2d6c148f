"""The usage that a stand-in for the token service reports."""

from __future__ import annotations

import time
from typing import Any


def used(model: str, requests: int, inferences: int, failures: int = 0, **more: Any) -> dict[str, Any]:
    """A model's row, with 4 kB per inference."""
    counted = {"requests": requests, "inferences": inferences, "failures": failures}
    sizes = {"bytes_in": 4000 * inferences, "bytes_out": 20 * inferences}
    return {"model": model, **counted, **sizes, "estimated": False, **more}


def usage_of(*models: dict[str, Any]) -> dict[str, Any]:
    return {"since": "1d", "at": time.time(), "models": list(models)}
