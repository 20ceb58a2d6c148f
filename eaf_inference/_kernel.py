"""The IPython kernel that runs this process, and whether a person watches it.

nbconvert, papermill and nbclient run a notebook as a batch job: each cell comes from somebody who cannot be asked for
input. Nobody answers a comm there, and a widget is saved as a view of nothing.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["is_batch", "kernel_of_this_process"]


def kernel_of_this_process() -> Any:
    """The kernel, or None where no IPython kernel runs this."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None)


def is_batch() -> bool:
    """Whether the cell that runs, or ran last, came from a front end that nobody watches."""
    kernel = kernel_of_this_process()
    return kernel is not None and kernel.get_parent().get("content", {}).get("allow_stdin") is False
