"""Proxies that the environment names: what to tell a user whom one keeps from a server.

Requests with a credential never go through them, because they would see it; pip's downloads do.
"""

from __future__ import annotations

import ipaddress
import os
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # which typeshed lacks

__all__ = ["refused_by_proxy", "unused_proxy"]

_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy")
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


def unused_proxy(host: str) -> str:
    """A sentence for a user who cannot reach a host directly and has a proxy for it; empty where she has none."""
    variable = _in_force()
    excepted = ",".join(os.environ.get(name, "") for each in _EXCEPTIONS for name in (each, each.upper()))
    if not variable or _is_loopback(host) or proxy_bypass_environment(host, {"no": excepted}):
        return ""
    return (
        f"The proxy of {variable} was not used, because it would see your token: this machine has to reach {host} "
        f"directly. If it does, add {host} to NO_PROXY, and this remark is gone."
    )


def refused_by_proxy() -> str:
    """A sentence for a user whose download a proxy may have refused; empty where none is named."""
    variable = _in_force()
    if not variable:
        return ""
    return (
        f"The proxy of {variable} refused the connection or does not answer: correct that variable, or add the host "
        "to NO_PROXY if this machine reaches it directly."
    )


def _in_force() -> str:
    """The first variable that names a proxy."""
    return next((name for each in _VARIABLES for name in (each, each.upper()) if os.environ.get(name)), "")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
