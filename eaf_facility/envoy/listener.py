"""Envoy's listeners: the headers removed from each call, its route and its retries; and the metrics pages."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from eaf_facility.envoy.accounting import access_logs
from eaf_facility.envoy.clusters import ADMIN, PROBES, of_tier
from eaf_facility.envoy.filters import (
    CLAIMS,
    COMPRESSED,
    INFER,
    MODEL_HEADER,
    OPEN,
    SMALL_REQUEST,
    TOKEN,
    USER_HEADER,
    http_filters,
    may_be_large,
    path_of,
    typed,
)
from eaf_facility.envoy.tls import tls
from eaf_facility.token_policy import DEFAULT_TIER

if TYPE_CHECKING:
    from eaf_facility.envoy.settings import Envoy
    from eaf_facility.token_policy import TokenPolicy

__all__ = ["edge_proxy", "metrics"]

Part = dict[str, Any]

# Removed from each call: Envoy itself determines the user and the client's address.
_REMOVED_HEADERS = (
    USER_HEADER,
    MODEL_HEADER,
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-user",
    "x-real-ip",
    "x-remote-user",
)
_HEADER_KB = 16
_INVALID_ARGUMENT, _UNIMPLEMENTED = 3, 12  # gRPC status codes
_LONGEST_SILENCE = "900s"  # of a call, while Triton computes or the client does not read its reply
_WINDOW = 1024 * 1024  # bytes of a call in flight
_RETRIES = {
    "retry_on": "connect-failure,refused-stream,reset,unavailable",
    "num_retries": 3,
    "host_selection_retry_max_attempts": 20,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": typed("extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
        }
    ],
    "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
}


def edge_proxy(settings: Envoy, policy: TokenPolicy) -> Part:
    """Return the listener that users connect to."""
    manager = typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="edge_proxy",
        codec_type="HTTP2",
        early_header_mutation_extensions=[_removed_headers()],
        use_remote_address=True,
        skip_xff_append=True,
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
        server_header_transformation="PASS_THROUGH",
        max_request_headers_kb=_HEADER_KB,
        request_headers_timeout=_seconds(settings.handshake_timeout),
        request_timeout=_seconds(settings.request_timeout),
        stream_idle_timeout=_LONGEST_SILENCE,
        common_http_protocol_options={
            "idle_timeout": _seconds(settings.idle_timeout),
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        http2_protocol_options={
            "max_concurrent_streams": settings.max_streams,
            "initial_stream_window_size": _WINDOW,
            "initial_connection_window_size": 16 * _WINDOW,
            "connection_keepalive": {"interval": "60s", "timeout": "20s"},  # finds clients that vanished
        },
        local_reply_config=_local_replies(settings),
        access_log=access_logs(settings),
        http_filters=http_filters(settings, policy),
        route_config=_routes(settings),
    )
    chain: Part = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
        "transport_socket_connect_timeout": _seconds(settings.handshake_timeout),
    }
    if not settings.behind_tls:
        chain["transport_socket"] = tls(settings)
    return {
        "name": "edge_proxy",
        "address": _address(settings.address, settings.port),
        "per_connection_buffer_limit_bytes": _WINDOW,
        "filter_chains": [chain],
    }


def metrics(settings: Envoy) -> Part:
    """Return the listener for Prometheus and health checks: two pages of the administration interface.

    Its connections do not count towards the limit, so users cannot lock monitoring out.
    """
    pages = ("/stats/prometheus", "/ready")
    routes = [{"match": {"path": page}, "route": {"cluster": ADMIN}} for page in pages]
    manager = typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="metrics",
        http_filters=[
            {"name": "envoy.filters.http.router", "typed_config": typed("extensions.filters.http.router.v3.Router")}
        ],
        route_config={"virtual_hosts": [{"name": "metrics", "domains": ["*"], "routes": routes}]},
    )
    return {
        "name": "metrics",
        "ignore_global_conn_limit": True,
        "address": _address(settings.metrics_address, settings.metrics_port),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _removed_headers() -> Part:
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": typed(
            "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            mutations=[{"remove": name} for name in _REMOVED_HEADERS],
        ),
    }


def _local_replies(settings: Envoy) -> Part:
    """Replace some of Envoy's own replies by messages and gRPC codes for our users."""
    share = f"you have used your share of {settings.share} calls a second"
    probes = "your address has used its share of calls without a token"
    too_large = (
        f"the request is larger than max {settings.largest_body} bytes, or than max {SMALL_REQUEST} bytes for a "
        f"method other than {INFER}"
    )
    compressed = "this facility accepts no compressed requests: send them without grpc-encoding and content-encoding"
    no_user = {"header_filter": {"header": {"name": USER_HEADER, "present_match": False}}}
    is_compressed = {"or_filter": {"filters": [{"header_filter": {"header": each}} for each in COMPRESSED]}}
    return {
        "mappers": [
            _mapper([_has_status(HTTPStatus.TOO_MANY_REQUESTS), no_user], probes),
            _mapper([_has_status(HTTPStatus.TOO_MANY_REQUESTS)], share),
            _mapper([_has_status(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)], too_large, _INVALID_ARGUMENT),
            _mapper([_has_status(HTTPStatus.FORBIDDEN), is_compressed], compressed, _UNIMPLEMENTED),
        ]
    }


def _mapper(filters: list[Part], body: str, grpc_status: int | None = None) -> Part:
    mapper: Part = {"filter": {"and_filter": {"filters": filters}} if filters[1:] else filters[0]}
    mapper["body"] = {"inline_string": body}
    if grpc_status is not None:
        header = {"key": "grpc-status", "value": str(grpc_status)}
        mapper["headers_to_add"] = [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]
    return mapper


def _has_status(status: int) -> Part:
    # Envoy requires a runtime key that could override the number; ours is never set
    value = {"default_value": int(status), "runtime_key": "eaf_inference.unused"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _routes(settings: Envoy) -> Part:
    routes = [_probe(settings, method) for method in OPEN]
    for tier in [tier for tier in settings.tiers if tier != DEFAULT_TIER]:
        routes += _routes_of(settings, tier, [_has(tier)])
    routes += _routes_of(settings, DEFAULT_TIER)
    return {"virtual_hosts": [{"name": "triton", "domains": ["*"], "routes": routes}]}


def _probe(settings: Envoy, method: str) -> Part:
    """Return the route of a method that needs no token; its calls may not last long."""
    limit = _seconds(settings.handshake_timeout)
    duration = {"max_stream_duration": limit, "grpc_timeout_header_max": limit}
    return {
        "match": {"path": path_of(method), "grpc": {}},
        "route": {"cluster": PROBES, "timeout": "0s", "max_stream_duration": duration, "retry_policy": _RETRIES},
    }


def _routes_of(settings: Envoy, tier: str, matchers: list[Part] | None = None) -> list[Part]:
    """Return a route for inferences, whose requests may be large, and one for the other methods."""
    route: Part = {
        "cluster": of_tier(tier),
        "timeout": "0s",  # the client sets the deadline
        "max_stream_duration": {"grpc_timeout_header_max": "0s"},
        "retry_policy": _RETRIES,
    }
    if settings.affinity:
        route["hash_policy"] = [{"header": {"header_name": MODEL_HEADER}}]
    inferences = {
        "match": {"path": path_of(INFER), "grpc": {}, "dynamic_metadata": matchers or []},
        "route": route,
        # with the smaller default, large requests could not be retried
        "request_body_buffer_limit": settings.largest_body,
        "typed_per_filter_config": may_be_large(),
    }
    others = {"match": {"prefix": "/", "grpc": {}, "dynamic_metadata": matchers or []}, "route": route}
    return [inferences, others]


def _has(tier: str) -> Part:
    return {"filter": TOKEN, "path": [{"key": CLAIMS}, {"key": "tier"}], "value": {"string_match": {"exact": tier}}}


def _address(address: str, port: int) -> Part:
    return {"socket_address": {"address": address, "port_value": port}}


def _seconds(number: float) -> str:
    return f"{number:g}s"
