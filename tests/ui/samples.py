"""The usage that a stand-in for the token service reports, and the parameter of a model that a user deployed."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, timezone
from typing import Any


def used(model: str, requests: int, inferences: int, failures: int = 0, **more: Any) -> dict[str, Any]:
    """A model's row, with 4 kB per inference."""
    counted = {"requests": requests, "inferences": inferences, "failures": failures}
    sizes = {"bytes_in": 4000 * inferences, "bytes_out": 20 * inferences}
    return {"model": model, **counted, **sizes, "estimated": False, **more}


def usage_of(*models: dict[str, Any], owned: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {"since": "1d", "at": time.time(), "models": list(models), "owned": list(owned)}


def used_by(model: str, users: int, requests: int, inferences: int) -> dict[str, Any]:
    """A row about a model of the user's own, for all users."""
    counted = {"users": users, "requests": requests, "inferences": inferences, "failures": 0}
    return {"model": model, **counted, "estimated": False}


def deployed() -> str:
    """The part of a ``config.pbtxt`` that says how the model was deployed; the owner in it is false."""
    when = datetime.now(timezone.utc) - timedelta(days=3)
    said = {
        "owner": "mallory",
        "bytes": 12_345_678,
        "time": when.isoformat(timespec="seconds"),
        "source": "torch 2.13.0",
    }
    return f'parameters {{ key: "deployment" value: {{ string_value: {json.dumps(json.dumps(said))} }} }}\n'
