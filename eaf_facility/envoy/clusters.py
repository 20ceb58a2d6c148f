"""Envoy's upstream clusters: the Tritons, once for each tier, and the token service. Pure functions."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from eaf_facility.envoy.filters import JWKS, typed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eaf_facility.envoy.settings import Envoy
    from eaf_facility.token_policy import TokenPolicy
    from eaf_inference.address import Address

__all__ = ["ADMIN", "PROBES", "clusters", "of_tier"]

Part = dict[str, Any]

ADMIN = "admin"
PROBES = "probes"  # the Tritons again, for calls without a token
_MOST_PROBES = 64  # in flight
_RETRIES = {"budget_percent": {"value": 50}, "min_retry_concurrency": 16}
# Only a Triton that cannot be reached is ejected. If UNAVAILABLE counted too, any user could have a Triton ejected by
# requesting a model that is not ready.
_OUTLIERS = {
    "split_external_local_origin_errors": True,
    "consecutive_local_origin_failure": 3,
    "enforcing_consecutive_5xx": 0,
    "enforcing_consecutive_gateway_failure": 0,
    "enforcing_success_rate": 0,
    "enforcing_local_origin_success_rate": 0,
    "interval": "1s",
    "base_ejection_time": "5s",
    "max_ejection_percent": 50,
}
_WINDOW = 1024 * 1024  # bytes in flight before Triton acknowledges them


def of_tier(tier: str) -> str:
    """Return the name of a tier's cluster: the same Tritons, with the tier's own limit of calls."""
    return f"triton-{tier}"


def clusters(settings: Envoy, policy: TokenPolicy, upstreams: Sequence[Address]) -> list[Part]:
    """Return every cluster of the configuration."""
    found = [tritons(settings, of_tier(tier), most, upstreams) for tier, most in settings.tiers.items()]
    # calls without a token take no user's place, and share a connection to each Triton
    probes = tritons(settings, PROBES, _MOST_PROBES, upstreams)
    found.append(probes | {"connection_pool_per_downstream_connection": False})
    found.append(token_service(settings, policy))
    if settings.metrics_port:
        found.append(_cluster(ADMIN, [("127.0.0.1", settings.admin_port)]))
    return found


def tritons(settings: Envoy, name: str, most: int, upstreams: Sequence[Address]) -> Part:
    """Return a cluster of the Tritons with at most `most` calls in flight; the rest get UNAVAILABLE, and retry."""
    cluster = _cluster(name, [(each.host, each.port) for each in upstreams])
    cluster |= {
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_requests": most,
                    "max_pending_requests": most,
                    "max_connections": settings.max_connections,
                    "retry_budget": _RETRIES,
                }
            ]
        },
        "health_checks": [
            {
                "timeout": "1s",
                "interval": "1s",
                "no_traffic_interval": "1s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "grpc_health_check": {},
            }
        ],
        "outlier_detection": _OUTLIERS,
        # Users do not share a connection to a Triton: one user could fill it, or end it by provoking an error message
        # that is larger than a header may be.
        "connection_pool_per_downstream_connection": True,
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "extensions.upstreams.http.v3.HttpProtocolOptions",
                # how long a departed user's connection stays
                common_http_protocol_options={"idle_timeout": "10s"},
                explicit_http_config={
                    "http2_protocol_options": {
                        "initial_stream_window_size": _WINDOW,
                        "initial_connection_window_size": 16 * _WINDOW,
                    }
                },
            )
        },
    }
    if settings.affinity:
        cluster |= {
            "lb_policy": "RING_HASH",
            "common_lb_config": {
                "consistent_hashing_lb_config": {"hash_balance_factor": round(100 * settings.spill)}
            },
        }
    else:
        cluster["lb_policy"] = "LEAST_REQUEST"
    return cluster


def token_service(settings: Envoy, policy: TokenPolicy) -> Part:
    """Return the cluster of the token service, which publishes the keys."""
    parts = urlsplit(policy.jwks_url)
    host = parts.hostname or ""
    cluster = _cluster(JWKS, [(host, parts.port or (443 if parts.scheme == "https" else 80))])
    if parts.scheme == "https":
        names = [{"san_type": "IP_ADDRESS" if _is_ip(host) else "DNS", "matcher": {"exact": host}}]
        cluster["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": typed(
                "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                sni=host,
                common_tls_context={
                    "validation_context": {
                        "trusted_ca": {"filename": settings.jwks_ca},
                        "match_typed_subject_alt_names": names,
                    }
                },
            ),
        }
    return cluster


def _cluster(name: str, addresses: Sequence[tuple[str, int]]) -> Part:
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
        for host, port in addresses
    ]
    return {
        "name": name,
        "type": "STATIC" if all(_is_ip(host) for host, _ in addresses) else "STRICT_DNS",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
