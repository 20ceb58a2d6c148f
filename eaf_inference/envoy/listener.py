"""The door's own side: the port with TLS, what is taken off a call at once, its route, and how it may be retried."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from eaf_inference.envoy.accounting import access_logs
from eaf_inference.envoy.clusters import ADMIN, PROBES, of_tier
from eaf_inference.envoy.filters import (
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
from eaf_inference.policy import DEFAULT_TIER

if TYPE_CHECKING:
    from eaf_inference.envoy.settings import Envoy
    from eaf_inference.policy import TokenPolicy

__all__ = ["door", "metrics"]

Part = dict[str, Any]

# What a client may say of itself in vain: who it is and whence it comes are found out here.
_TAKEN_OFF = (
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
_INVALID_ARGUMENT, _UNIMPLEMENTED = 3, 12  # as gRPC numbers them
_LONGEST_SILENCE = "900s"  # of a call: for an inference, and for a client that does not read its answer
_WINDOW = 1024 * 1024  # bytes of a call on their way
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


def door(settings: Envoy, policy: TokenPolicy) -> Part:
    """The listener that users reach."""
    manager = typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="door",
        codec_type="HTTP2",
        early_header_mutation_extensions=[_without_claims()],
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
            "connection_keepalive": {"interval": "60s", "timeout": "20s"},  # who is gone without a word
        },
        local_reply_config=_own_words(settings),
        access_log=access_logs(settings),
        http_filters=http_filters(settings, policy),
        route_config=_routes(settings),
    )
    chain: Part = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
        "transport_socket_connect_timeout": _seconds(settings.handshake_timeout),
    }
    if not settings.behind_tls:
        chain["transport_socket"] = _tls(settings)
    return {
        "name": "door",
        "address": _address(settings.address, settings.port),
        "per_connection_buffer_limit_bytes": _WINDOW,
        "filter_chains": [chain],
    }


def metrics(settings: Envoy) -> Part:
    """The listener that Prometheus and health checks reach: two pages of the administration.

    Connections of strangers, who cannot reach it, do not count here.
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


def _tls(settings: Envoy) -> Part:
    certificate = {"certificate_chain": {"filename": settings.certificate}, "private_key": {"filename": settings.key}}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": typed(
            "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            common_tls_context={
                "alpn_protocols": ["h2"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "tls_certificates": [certificate],
            },
        ),
    }


def _without_claims() -> Part:
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": typed(
            "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            mutations=[{"remove": name} for name in _TAKEN_OFF],
        ),
    }


def _own_words(settings: Envoy) -> Part:
    """Answers for clients, in place of Envoy's own words and codes."""
    share = f"you have used your share of {settings.share} calls a second"
    probes = "your address has made its share of calls without a token"
    too_large = (
        f"the request is larger than max {settings.largest_body} bytes that this facility takes, or than "
        f"max {SMALL_REQUEST} of a method other than {INFER}"
    )
    compressed = "this facility takes no compressed requests: send them without grpc-encoding and content-encoding"
    no_user = {"header_filter": {"header": {"name": USER_HEADER, "present_match": False}}}
    is_compressed = {"or_filter": {"filters": [{"header_filter": {"header": each}} for each in COMPRESSED]}}
    return {
        "mappers": [
            _mapper([_answered(HTTPStatus.TOO_MANY_REQUESTS), no_user], probes),
            _mapper([_answered(HTTPStatus.TOO_MANY_REQUESTS)], share),
            _mapper([_answered(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)], too_large, _INVALID_ARGUMENT),
            _mapper([_answered(HTTPStatus.FORBIDDEN), is_compressed], compressed, _UNIMPLEMENTED),
        ]
    }


def _mapper(filters: list[Part], body: str, grpc_status: int | None = None) -> Part:
    mapper: Part = {"filter": {"and_filter": {"filters": filters}} if filters[1:] else filters[0]}
    mapper["body"] = {"inline_string": body}
    if grpc_status is not None:
        header = {"key": "grpc-status", "value": str(grpc_status)}
        mapper["headers_to_add"] = [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]
    return mapper


def _answered(status: int) -> Part:
    # Envoy wants a name by which the number could be changed while it runs: nobody does
    value = {"default_value": int(status), "runtime_key": "eaf_inference.unused"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _routes(settings: Envoy) -> Part:
    routes = [_probe(settings, method) for method in OPEN]
    for tier in [tier for tier in settings.tiers if tier != DEFAULT_TIER]:
        routes += _routes_of(settings, tier, [_has(tier)])
    routes += _routes_of(settings, DEFAULT_TIER)
    return {"virtual_hosts": [{"name": "triton", "domains": ["*"], "routes": routes}]}


def _probe(settings: Envoy, method: str) -> Part:
    """Short: strangers may call it, and leave their call unfinished."""
    longest = _seconds(settings.handshake_timeout)
    duration = {"max_stream_duration": longest, "grpc_timeout_header_max": longest}
    return {
        "match": {"path": path_of(method), "grpc": {}},
        "route": {"cluster": PROBES, "timeout": "0s", "max_stream_duration": duration, "retry_policy": _RETRIES},
    }


def _routes_of(settings: Envoy, tier: str, matchers: list[Part] | None = None) -> list[Part]:
    """One for inferences, whose requests may be large, and one for the other methods."""
    route: Part = {
        "cluster": of_tier(tier),
        "timeout": "0s",  # the client's own deadline counts
        "max_stream_duration": {"grpc_timeout_header_max": "0s"},
        "retry_policy": _RETRIES,
    }
    if settings.affinity:
        route["hash_policy"] = [{"header": {"header_name": MODEL_HEADER}}]
    inferences = {
        "match": {"path": path_of(INFER), "grpc": {}, "dynamic_metadata": matchers or []},
        "route": route,
        # the smaller default would end retries of large requests
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
