"""Let Triton's Python import models from directories whose names are not ASCII, such as /home/müller or größe/1.

The stub runs an isolated Python, which decodes file names as ASCII in every locale; Triton gives it paths in UTF-8. A
.pth file in Triton's environment, written by `triton_environment`, imports this file when that Python starts. It
imports nothing from this package.
"""

from __future__ import annotations

import sys
from typing import Any

_directories = sys.path_hooks[-1]


def _find(path: str) -> Any:
    if path.isascii():
        raise ImportError
    return _directories(path.encode("utf-8", "surrogateescape").decode("ascii", "surrogateescape"))


if sys.getfilesystemencoding() == "ascii":
    sys.path_hooks.insert(0, _find)
