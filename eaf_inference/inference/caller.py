"""Warn the user at the line of their own code that called this package."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn_caller"]


def warn_caller(text: str) -> None:
    """Warn at the line that called into this package, however deep the warning arises."""
    frame, level = sys._getframe(), 1  # noqa: SLF001  (Python 3.12 has skip_file_prefixes)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("eaf_inference"):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)
