"""A simulated network: an Envoy on this machine that delays each request by a fixed time."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from eaf_facility.servers.envoy import EnvoyServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eaf_facility.servers.envoy import Place

__all__ = ["simulated_network"]

_PROTOCOL = "upstreams.http.v3.HttpProtocolOptions"
_BUFFER = 64 << 20  # bytes, enough for several requests of a window


@contextmanager
def simulated_network(upstream: str, delay: float, *, progress: Callable[[str], None]) -> Iterator[str]:
    """Run Envoy in front of one Triton for the length of a `with` block; yield the URL for clients.

    Parameters
    ----------
    upstream : str
        Triton's ``host:port``.
    delay : float
        Seconds by which Envoy's fault filter delays each request; 0 for no delay.
    """
    with EnvoyServer.start(partial(_configuration, upstream, delay), progress=progress) as envoy:
        # without TLS, like the direct connection to Triton
        yield f"grpc://{envoy.place.address}:{envoy.place.port}"


def _configuration(upstream: str, delay: float, place: Place) -> dict[str, Any]:
    host, _, port = upstream.rpartition(":")
    http2 = {
        "initial_stream_window_size": _BUFFER,
        "initial_connection_window_size": _BUFFER,
    }
    filters = [{"name": "router", "typed_config": {"@type": _type("filters.http.router.v3.Router")}}]
    if delay:
        fault = {
            "@type": _type("filters.http.fault.v3.HTTPFault"),
            "delay": {"fixed_delay": f"{delay:.6f}s", "percentage": {"numerator": 100}},
        }
        filters.insert(0, {"name": "fault", "typed_config": fault})
    route = {"match": {"prefix": "/"}, "route": {"cluster": "triton", "timeout": "0s"}}
    manager = {
        "@type": _type("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "triton",
        "codec_type": "HTTP2",
        "http2_protocol_options": http2,
        "http_filters": filters,
        "route_config": {"virtual_hosts": [{"name": "triton", "domains": ["*"], "routes": [route]}]},
    }
    options = {
        "@type": _type(_PROTOCOL),
        "explicit_http_config": {"http2_protocol_options": http2},
    }
    return {
        "node": {"id": "simulated-network", "cluster": "simulated-network"},
        "admin": {"address": _address(place.address, place.admin_port)},
        "static_resources": {
            "listeners": [
                {
                    "name": "network",
                    "address": _address(place.address, place.port),
                    "per_connection_buffer_limit_bytes": _BUFFER,
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "triton",
                    "type": "STATIC",
                    "per_connection_buffer_limit_bytes": _BUFFER,
                    "typed_extension_protocol_options": {f"envoy.extensions.{_PROTOCOL}": options},
                    "load_assignment": {
                        "cluster_name": "triton",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(host, int(port))}}]}],
                    },
                }
            ],
        },
    }


def _type(name: str) -> str:
    return f"type.googleapis.com/envoy.extensions.{name}"


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
