"""All checks, in the order in which a call passes what they look at."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from eaf_facility.inspection.clocks import clocks
from eaf_facility.inspection.clusters import batch_system, gateway
from eaf_facility.inspection.edge_proxy import admission, certificates
from eaf_facility.inspection.monitoring import prometheus
from eaf_facility.inspection.token_service import hub, token_service
from eaf_facility.inspection.tritons import model_store, tritons
from eaf_inference._redact import mask
from eaf_inference._text import printable
from eaf_inference.doctor import Finding, found_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from eaf_facility.inspection.setup import Setup

__all__ = ["CHECKS", "findings"]

CHECKS: Mapping[str, Callable[[Setup], Iterator[Finding]]] = {
    "JupyterHub": hub,
    "token service": token_service,
    "edge proxy": admission,
    "certificates": certificates,
    "Tritons": tritons,
    "model store": model_store,
    "Prometheus": prometheus,
    "Dask Gateway": gateway,
    "batch system": batch_system,
    "clocks": clocks,
}


def findings(setup: Setup) -> list[Finding]:
    """Run all checks at the same time, and return what they found, in their order.

    Settings that they quote may hold a password, and names that servers give may hold control characters.
    """

    def run(subject: str) -> list[Finding]:
        found = found_by(subject, partial(CHECKS[subject], setup))
        return [replace(each, subject=_shown(each.subject), what=_shown(each.what)) for each in found]

    with ThreadPoolExecutor(len(CHECKS)) as pool:
        return [finding for found in pool.map(run, CHECKS) for finding in found]


def _shown(text: str) -> str:
    return printable(mask(text))
