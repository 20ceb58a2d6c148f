"""The metrics sources of a Triton: those that the operator configured, or those of a facility on this machine.

Sources come from nowhere else. No user's argument and no request makes a process fetch a URL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eaf_inference.address import possible_addresses
from eaf_inference.auth.credentials import Credentials
from eaf_inference.auth.sources import TokenFile
from eaf_inference.discovery.local_facility import serving
from eaf_inference.errors import ConfigurationError
from eaf_inference.metrics.prometheus import Prometheus
from eaf_inference.metrics.triton import TritonMetrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eaf_inference.config import Facility
    from eaf_inference.metrics.sampler import MetricsSource

__all__ = ["prometheus_of", "sources_of"]


def sources_of(facility: Facility, urls: Sequence[str] = ()) -> list[MetricsSource]:
    """Return the metrics sources of a Triton in order of trust; empty if none is known.

    A facility on this machine comes first. The configured sources describe the configured servers, so for other
    servers they are left out.

    Parameters
    ----------
    facility : Facility
    urls : sequence of str, optional
        The server's addresses, as in `Endpoint.urls`; by default the configured ones.

    Raises
    ------
    ConfigurationError
        A URL, matcher or file in the configuration cannot be used.
    """
    if (local := serving(urls)) is not None:
        return [TritonMetrics(replica.metrics) for replica in local.replicas]
    if urls and facility.urls:
        configured = {address.url for each in possible_addresses(list(facility.urls)) for address in each}
        if configured.isdisjoint(urls):
            return []
    ca = facility.metrics_ca or facility.ca or None
    sources: list[MetricsSource] = [TritonMetrics(url, ca=ca) for url in facility.metrics_urls]
    if facility.prometheus_url:
        sources.append(prometheus_of(facility))
    return sources


def prometheus_of(facility: Facility, *, usage: bool = False) -> Prometheus:
    """Return the Prometheus that the operator configured for the load, or for `usage` if that is another one.

    Raises
    ------
    ConfigurationError
        None is configured, or its URL, a matcher or a file cannot be used.
    """
    url = (facility.usage_prometheus_url if usage else "") or facility.prometheus_url
    if not url:
        raise ConfigurationError(
            "No Prometheus is configured. Expected its address: c.Facility.prometheus_url = "
            '"https://prometheus.example.org".'
        )
    token_file = facility.prometheus_token_file
    return Prometheus(
        url,
        matchers=facility.prometheus_matchers,
        gpu_matchers=facility.prometheus_gpu_matchers,
        window=facility.prometheus_window,
        credentials=Credentials(TokenFile(token_file)) if token_file else None,
        allow_insecure_token=facility.allow_insecure_token,
        ca=facility.metrics_ca or facility.ca or None,
    )
