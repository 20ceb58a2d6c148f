"""The entry point with which Jupyter Server loads ``eaf_inference.server``; it imports the rest only then."""

from __future__ import annotations

from typing import Any

__all__: list[str] = []


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from eaf_inference.server.extension import InferenceExtension

    return [{"module": "eaf_inference.server.extension", "app": InferenceExtension}]
