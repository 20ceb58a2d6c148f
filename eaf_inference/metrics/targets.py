"""Which metrics belong to a Triton: what the operator configured, or what a facility on this machine noted.

Nobody else names a place to ask: no user's argument and no request makes a process fetch a URL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eaf_inference.config import possible_addresses
from eaf_inference.credentials import Credentials, TokenFile
from eaf_inference.errors import ConfigurationError
from eaf_inference.local import serving
from eaf_inference.metrics.prometheus import Prometheus
from eaf_inference.metrics.triton import TritonMetrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eaf_inference.config import Facility
    from eaf_inference.metrics.sampler import MetricsSource

__all__ = ["prometheus_of", "sources_of"]


def sources_of(facility: Facility, urls: Sequence[str] = ()) -> list[MetricsSource]:
    """Where the load of a Triton is read, in the order of trust; empty where nobody says.

    A facility on this machine knows its own best. What is configured is of the configured servers: for others it
    would be a wrong number.

    Parameters
    ----------
    facility : Facility
    urls : sequence of str, optional
        The server's addresses as `Endpoint.urls` has them; without, the configured ones are meant.

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
    """The Prometheus that the operator configured: of the load, or of users' usage where that is another.

    Raises
    ------
    ConfigurationError
        There is none, or its URL, a matcher or a file cannot be used.
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
