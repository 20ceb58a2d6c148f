"""The IPython kernel that runs this process, and whether a person uses it.

nbconvert, papermill and nbclient run a notebook as a batch job, in which cells cannot ask for input. No front end
answers a comm there, and a widget is saved without content.
"""

from __future__ import annotations

import os
import sys
from typing import Any

__all__ = ["is_batch", "is_forked_from_kernel", "kernel_of_this_process"]


def kernel_of_this_process() -> Any:
    """Return the IPython kernel of this process, or None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None)


def is_forked_from_kernel() -> bool:
    """Return whether this process only has a copy of a kernel, whose messages go to the kernel's log."""
    owner = getattr(getattr(kernel_of_this_process(), "session", None), "pid", None)
    return owner not in (None, os.getpid())


def is_batch() -> bool:
    """Return whether the current or last cell comes from a batch job."""
    kernel = kernel_of_this_process()
    return kernel is not None and kernel.get_parent().get("content", {}).get("allow_stdin") is False
