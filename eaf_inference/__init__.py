"""Graph neural networks over millions of jets, from a notebook, through a shared Triton.

Each name is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from eaf_inference.auth.sources import BearerDiscovery, StaticToken, TokenFile
    from eaf_inference.connecting import connect
    from eaf_inference.connection import Connection
    from eaf_inference.inference.features import features
    from eaf_inference.inference.model import Model

__version__ = "0.1.0"
__all__ = [
    "BearerDiscovery",
    "Connection",
    "Model",
    "StaticToken",
    "TokenFile",
    "__version__",
    "connect",
    "errors",
    "features",
]

_HOMES = {
    "BearerDiscovery": "eaf_inference.auth.sources",
    "Connection": "eaf_inference.connection",
    "Model": "eaf_inference.inference.model",
    "StaticToken": "eaf_inference.auth.sources",
    "TokenFile": "eaf_inference.auth.sources",
    "connect": "eaf_inference.connecting",
    "features": "eaf_inference.inference.features",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "errors":
        return import_module("eaf_inference.errors")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """``%load_ext eaf_inference``."""
    from eaf_inference.notebook.magics import load

    load(ipython)


def unload_ipython_extension(ipython: InteractiveShell) -> None:
    """``%unload_ext eaf_inference``."""
    from eaf_inference.notebook.magics import unload

    unload(ipython)
