"""What Jupyter Server finds when it is told to load ``eaf_inference.server``; nothing is imported before that."""

from __future__ import annotations

from typing import Any

__all__: list[str] = []


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from eaf_inference.server.extension import InferenceExtension

    return [{"module": "eaf_inference.server.extension", "app": InferenceExtension}]
