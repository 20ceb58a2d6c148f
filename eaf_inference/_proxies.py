"""Proxies in the environment: hints for a user who cannot reach a server because of one.

Requests with a credential never go through a proxy, which would see the credential; pip's downloads do.
"""

from __future__ import annotations

import ipaddress
import os
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed lacks it

__all__ = ["refused_by_proxy", "unused_proxy"]

_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy")
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


def unused_proxy(host: str) -> str:
    """Return a hint for a user who cannot reach a host directly but has a proxy for it; empty without a proxy."""
    variable = _in_force()
    excepted = ",".join(os.environ.get(name, "") for each in _EXCEPTIONS for name in (each, each.upper()))
    if not variable or _is_loopback(host) or proxy_bypass_environment(host, {"no": excepted}):
        return ""
    return (
        f"The proxy of {variable} was not used, because it would see your token: this machine has to reach {host} "
        f"directly. If it does, add {host} to NO_PROXY to hide this hint."
    )


def refused_by_proxy() -> str:
    """Return a hint for a user whose download a proxy may have refused; empty without a proxy."""
    variable = _in_force()
    if not variable:
        return ""
    return (
        f"The proxy of {variable} refused the connection or does not answer. Correct that variable, or add the host "
        "to NO_PROXY if this machine reaches it directly."
    )


def _in_force() -> str:
    """Return the first variable that names a proxy."""
    return next((name for each in _VARIABLES for name in (each, each.upper()) if os.environ.get(name)), "")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
