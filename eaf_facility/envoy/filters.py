"""The HTTP filters that a call passes, one function each, in this order. All are pure.

From the first filter on, the user of a call is the `sub` of its verified token. No other identity that a client
claims is believed or passed on.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from eaf_facility.envoy.owners import owners_script
from eaf_facility.envoy.uploads import uploads_script
from eaf_inference.inference import protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eaf_facility.envoy.settings import Envoy
    from eaf_facility.token_policy import TokenPolicy

__all__ = [
    "CLAIMS",
    "COMPRESSED",
    "INFER",
    "JWKS",
    "MODEL_HEADER",
    "OPEN",
    "SERVICE",
    "SMALL_REQUEST",
    "TOKEN",
    "USER_HEADER",
    "field",
    "http_filters",
    "may_be_large",
    "path_of",
    "typed",
]

Part = dict[str, Any]

TOKEN = "envoy.filters.http.jwt_authn"  # noqa: S105 - a verified token's claims are stored here …
CLAIMS = "jwt"  # … under this name
FIELDS = "envoy.filters.http.grpc_field_extraction"  # a request's fields are stored here
JWKS = "jwks"  # the cluster of the token service
USER_HEADER = "x-user"
MODEL_HEADER = "x-eaf-model"
SERVICE = "inference.GRPCInferenceService"

INFER = "ModelInfer"  # the one method whose requests are large
OPEN = ("ServerLive", "ServerReady")  # need no token: load balancers call them
# One matcher for each header that declares a compressed request.
COMPRESSED = tuple(
    {"name": name, "string_match": {"exact": "identity"}, "invert_match": True}
    for name in ("grpc-encoding", "content-encoding")
)
# Excluded: trace and log settings, and shared memory, which would affect every user; and ModelStreamInfer, whose
# messages Envoy could not count.
_FOR_USERS = (
    "ModelConfig",
    INFER,
    "ModelMetadata",
    "ModelReady",
    "ModelStatistics",
    "RepositoryIndex",
    "ServerMetadata",
)
_CONTROL = ("RepositoryModelLoad", "RepositoryModelUnload")  # with `Envoy.model_control`
_SMALL_BODY = "envoy.filters.http.body_size_limit"
_CLOCK_SKEW = 5  # seconds
_MOST_USERS = 1000  # buckets of users and of addresses kept at the same time; the least recently used is dropped
_PUSHBACK = 0.25  # seconds after which a refused client should retry
_FILL = 0.05  # seconds between two fills, the minimum that Envoy accepts
_PROBES_AT_ONCE = 5  # seconds' worth: many workers may start together behind one address
SMALL_REQUEST = 4096  # bytes; requests of methods other than `INFER` hold little more than a model's name


def typed(kind: str, **fields: Any) -> Part:
    """Return a message of Envoy's API with its type."""
    return {"@type": f"type.googleapis.com/envoy.{kind}", **fields}


def http_filters(settings: Envoy, policy: TokenPolicy) -> list[Part]:
    """Return all filters, in order."""
    filters = [
        verified_token(policy),
        admitted_calls(settings),
        fair_share(settings),
        few_uploads(settings),
        small_body(),
        whole_body(settings),
        owners(settings),
        request_fields(),
    ]
    if settings.affinity:
        filters.append(model_header())
    filters.append(
        {"name": "envoy.filters.http.router", "typed_config": typed("extensions.filters.http.router.v3.Router")}
    )
    return filters


def verified_token(policy: TokenPolicy) -> Part:
    """Answer UNAUTHENTICATED to a call without a token of the token service; remove the token from the others."""
    provider = {
        "issuer": policy.issuer,
        "audiences": [policy.audience],
        "forward": False,
        # not from the URL, which Envoy accepts by default, and which logs would show
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "require_expiration": True,
        "clock_skew_seconds": _CLOCK_SKEW,
        "payload_in_metadata": CLAIMS,
        "claim_to_headers": [{"header_name": USER_HEADER, "claim_name": "sub"}],
        "clear_route_cache": True,  # the route depends on the tier
        "remote_jwks": {
            "http_uri": {"uri": policy.jwks_url, "cluster": JWKS, "timeout": "5s"},
            # without async_fetch every user is locked out as soon as the token service is down
            "async_fetch": {"failed_refetch_duration": "1s"},
            "cache_duration": "2s",
        },
    }
    required: Part = {"provider_name": "facility"}
    # a token that is sent still identifies its user, so that calls without one cannot use up the user's share
    optional: Part = {"requires_any": {"requirements": [required, {"allow_missing": {}}]}}
    rules: list[Part] = [{"match": {"path": path_of(method)}, "requires": optional} for method in OPEN]
    rules.append({"match": {"prefix": "/"}, "requires": required})
    return {
        "name": TOKEN,
        "typed_config": typed(
            "extensions.filters.http.jwt_authn.v3.JwtAuthentication", providers={"facility": provider}, rules=rules
        ),
    }


def admitted_calls(settings: Envoy) -> Part:
    """Answer PERMISSION_DENIED to a token without a user, and to calls of methods reserved for operators.

    Compressed requests are refused too: a few kilobytes could become gigabytes in a Triton.
    """
    named = {
        "filter": TOKEN,
        "path": [{"key": CLAIMS}, {"key": "sub"}],
        "value": {"string_match": {"safe_regex": {"regex": r"\S(.*\S)?"}}},
    }
    any_user = {"sourced_metadata": {"metadata_matcher": named, "metadata_source": "DYNAMIC"}}
    for_users = _FOR_USERS + (_CONTROL if settings.model_control else ())
    policies = {
        "open": {"permissions": [_uncompressed(OPEN)], "principals": [{"any": True}]},
        "users": {"permissions": [_uncompressed(for_users)], "principals": [any_user]},
    }
    return {
        "name": "envoy.filters.http.rbac",
        "typed_config": typed(
            "extensions.filters.http.rbac.v3.RBAC", rules={"action": "ALLOW", "policies": policies}
        ),
    }


def fair_share(settings: Envoy) -> Part:
    """Answer RESOURCE_EXHAUSTED to a user, or to an address that sends no token, beyond its calls a second.

    Each address has its own bucket, so that the probes of one client do not use up those of the load balancer.
    """
    bucket = _bucket(settings.share, settings.burst or round(settings.share * _PUSHBACK))
    address_bucket = _bucket(settings.probes, _PROBES_AT_ONCE * settings.probes)
    by_user = {
        "actions": [
            {
                "metadata": {
                    "descriptor_key": "user",
                    "metadata_key": {"key": TOKEN, "path": [{"key": CLAIMS}, {"key": "sub"}]},
                    "source": "DYNAMIC",
                }
            }
        ]
    }
    without_token = {
        "header_value_match": {
            "descriptor_key": "token",
            "descriptor_value": "none",
            "expect_match": False,
            "headers": [{"name": USER_HEADER, "present_match": True}],
        }
    }
    # a host with one IPv6 address usually has its whole /64
    address = {"masked_remote_address": {"v4_prefix_mask_len": 32, "v6_prefix_mask_len": 64}}
    return {
        "name": "envoy.filters.http.local_ratelimit",
        "typed_config": typed(
            "extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            stat_prefix="share",
            filter_enabled=_always(),
            filter_enforced=_always(),
            rate_limited_as_resource_exhausted=True,
            always_consume_default_token_bucket=False,
            token_bucket=address_bucket,  # required by Envoy; each call matches one of the two descriptors below
            rate_limits=[by_user, {"actions": [without_token, address]}],
            descriptors=[
                {"entries": [{"key": "user"}], "token_bucket": bucket},
                {
                    "entries": [{"key": "token", "value": "none"}, {"key": "masked_remote_address"}],
                    "token_bucket": address_bucket,
                },
            ],
            max_dynamic_descriptors=_MOST_USERS,
            enable_x_ratelimit_headers="DRAFT_VERSION_03",
            # Retry-After knows whole seconds only; clients that read gRPC's own header retry sooner
            response_headers_to_add=[
                {"header": {"key": "retry-after", "value": "1"}},
                {"header": {"key": "grpc-retry-pushback-ms", "value": f"{1000 * _PUSHBACK:.0f}"}},
            ],
        ),
    }


def few_uploads(settings: Envoy) -> Part:
    """Answer RESOURCE_EXHAUSTED to a user who is already sending the maximum number of requests."""
    script = uploads_script(settings.max_uploads, USER_HEADER, round(1000 * _PUSHBACK))
    return _lua("envoy.filters.http.lua", script)


def small_body() -> Part:
    """Answer INVALID_ARGUMENT to a request that is too large for any method other than `INFER`."""
    limit = typed("extensions.filters.http.body_size_limit.v3.BodySizeLimit", max_request_bytes=SMALL_REQUEST)
    return {"name": _SMALL_BODY, "typed_config": limit}


def may_be_large() -> dict[str, Part]:
    """Return the route's setting that disables `small_body`."""
    return {_SMALL_BODY: typed("config.route.v3.FilterConfig", disabled=True)}


def whole_body(settings: Envoy) -> Part:
    """Limit a request's size and forward it once complete, so that a slow sender occupies no Triton."""
    return {
        "name": "envoy.filters.http.buffer",
        "typed_config": typed("extensions.filters.http.buffer.v3.Buffer", max_request_bytes=settings.largest_body),
    }


def owners(settings: Envoy) -> Part:
    """Refuse calls for models that are not this user's to load, or to see, and requests with an ambiguous model."""
    return _lua("eaf_inference.owners", owners_script(settings))


def request_fields() -> Part:
    """Extract the model's name and the shapes from a request, for the route, the log and the counters."""
    fields: Part = {"model_name": {}, "inputs.shape": {}}
    return {
        "name": FIELDS,
        "typed_config": typed(
            "extensions.filters.http.grpc_field_extraction.v3.GrpcFieldExtractionConfig",
            descriptor_set={"inline_bytes": base64.b64encode(protocol.DESCRIPTOR_SET).decode()},
            extractions_by_method={f"{SERVICE}.ModelInfer": {"request_field_extractions": fields}},
        ),
    }


def field(name: str) -> str:
    """Return the CEL expression of an extracted field's first value."""
    return f"metadata.filter_metadata['{FIELDS}']['{name}'][0]"


def model_header() -> Part:
    """Put the model's name into a header, by which requests are assigned to Tritons."""
    value = f"%CEL({field('model_name')})%"
    mutation = {
        "append": {"header": {"key": MODEL_HEADER, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    }
    return {
        "name": "envoy.filters.http.header_mutation",
        "typed_config": typed(
            "extensions.filters.http.header_mutation.v3.HeaderMutation", mutations={"request_mutations": [mutation]}
        ),
    }


def path_of(method: str) -> str:
    return f"/{SERVICE}/{method}"


def _lua(name: str, script: str) -> Part:
    source = {"inline_string": script}
    return {"name": name, "typed_config": typed("extensions.filters.http.lua.v3.Lua", default_source_code=source)}


def _uncompressed(methods: Sequence[str]) -> Part:
    """Match these methods if the request is not compressed."""
    called = [{"url_path": {"path": {"exact": path_of(method)}}} for method in methods]
    uncompressed = [{"not_rule": {"header": each}} for each in COMPRESSED]
    return {"and_rules": {"rules": [{"or_rules": {"rules": called}}, *uncompressed]}}


def _bucket(calls: int, burst: int) -> Part:
    """Return a bucket of `calls` a second, filled as evenly as Envoy can: bursts would make others queue."""
    seconds = max(_FILL, 1 / calls)
    each = max(1, round(calls * seconds))
    return {"max_tokens": max(burst, each), "tokens_per_fill": each, "fill_interval": f"{each / calls:.6f}s"}


def _always() -> Part:
    return {"default_value": {"numerator": 100}}
