"""The names of files: which format an ending stands for, and where a tree's name begins."""

from __future__ import annotations

import re

__all__ = ["format_of", "split"]

_ROOT = r"\.root(?:\.\d+)?"  # ATLAS numbers its files: DAOD_PHYSLITE.38191712._000018.pool.root.1
_PARQUET = r"\.(?:parquet|parq|pq)"
_QUERY = r"(?:\?[^:]*)?"
_FORMATS = {
    "root": re.compile(f".*{_ROOT}{_QUERY}", re.IGNORECASE | re.DOTALL),
    "parquet": re.compile(f".*{_PARQUET}/?{_QUERY}", re.IGNORECASE | re.DOTALL),
}
_WITH_TREE = re.compile(f"(?P<path>.*{_ROOT}{_QUERY}):(?P<tree>.*)", re.IGNORECASE | re.DOTALL)
_PATTERN_WITH_TREE = re.compile(r"(?P<path>.*\*[^/:]*):(?P<tree>[^/:]+)", re.DOTALL)


def format_of(path: str) -> str:
    """Return root or parquet by the ending of a path or URL; empty if it has another."""
    return next((name for name, ending in _FORMATS.items() if ending.fullmatch(path)), "")


def split(text: str) -> tuple[str, str]:
    """Separate ``file.root:tree``, also of a pattern such as ``dir/*:tree``; the tree is empty if there is none."""
    if found := _WITH_TREE.fullmatch(text) or _PATTERN_WITH_TREE.fullmatch(text):
        return found["path"], found["tree"]
    return text, ""
