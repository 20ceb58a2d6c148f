"""The clocks of the facility's machines, by the header Date of their replies."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING

from eaf_facility.inspection.calls import call, get
from eaf_inference.doctor import Finding, State
from eaf_inference.errors import InferenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from eaf_facility.inspection.setup import Setup
    from eaf_inference.address import Address

__all__ = ["clocks", "skew"]

_AT_ONCE = 16
_SMALL = 5.0  # seconds, for which Envoy makes allowance (clock_skew_seconds)


def clocks(setup: Setup) -> Iterator[Finding]:
    """Compare this machine's clock with those of the servers that state their time, which Triton does not."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for name, seconds in pool.map(_difference, _askers(setup).items()):
            if seconds is not None:
                yield skew(name, seconds, setup.issuer.clock_skew)


def skew(name: str, seconds: float, tolerated: float) -> Finding:
    """Return the finding about a clock that differs from ours by so much; Date has whole seconds."""
    subject, by = f"clock of {name}", max(0.0, abs(seconds) - 1)
    if by <= _SMALL:
        return Finding(subject, State.FINE, "agrees with this machine's")
    what = f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} this machine's"
    remedy = "run chrony or systemd-timesyncd on both: tokens are refused too early, or accepted too long"
    return Finding(subject, State.PROBLEM if by > tolerated else State.NOTE, what, remedy)


def _askers(setup: Setup) -> Mapping[str, Callable[[], str]]:
    """Return functions that return the header Date of each server."""
    ca, facility = setup.facility.ca or None, setup.facility
    pages = {
        "the token service": (setup.policy.jwks_url, setup.service_ca),
        "JupyterHub": (setup.environment.get("JUPYTERHUB_API_URL", ""), ca),
        "Dask Gateway": (facility.gateway_url, ca),
        "Prometheus": (facility.prometheus_url, facility.metrics_ca or ca),
    }
    asking = {name: partial(_of_page, url, authorities) for name, (url, authorities) in pages.items() if url}
    return asking | {f"the edge proxy {each.url}": partial(_of_proxy, each, ca) for each in setup.proxies}


def _of_page(url: str, ca: str | None) -> str:
    return get(url, ca).date


def _of_proxy(address: Address, ca: str | None) -> str:
    return call(address, "ServerReady", ca=ca).date


def _difference(asking: tuple[str, Callable[[], str]]) -> tuple[str, float | None]:
    """Return by how many seconds a server's clock is ahead; None if it does not answer, or sends no Date."""
    name, date = asking
    try:
        return name, parsedate_to_datetime(date()).timestamp() - time.time()
    except (OSError, InferenceError, ValueError):
        return name, None  # another check reports it
