"""What a call passes on its way in, one function a filter, in this order. All pure: settings in, plain values out.

The user of a call is the `sub` of the token that was verified, from the first filter on; nothing that a client says
of itself beside the token is believed or passed on.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from eaf_inference.envoy.uploads import uploads_script
from eaf_inference.inference import protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eaf_inference.envoy.settings import Envoy
    from eaf_inference.policy import TokenPolicy

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

TOKEN = "envoy.filters.http.jwt_authn"  # noqa: S105 - where a verified token's claims are kept …
CLAIMS = "jwt"  # … under this name
FIELDS = "envoy.filters.http.grpc_field_extraction"  # where fields of a request are kept
JWKS = "jwks"  # the cluster of the token service
USER_HEADER = "x-user"
MODEL_HEADER = "x-eaf-model"
SERVICE = "inference.GRPCInferenceService"

INFER = "ModelInfer"  # the one method whose requests are large
OPEN = ("ServerLive", "ServerReady")  # without a token: load balancers call them
# How a client says that what it sends is compressed: a matcher for each of the headers.
COMPRESSED = tuple(
    {"name": name, "string_match": {"exact": "identity"}, "invert_match": True}
    for name in ("grpc-encoding", "content-encoding")
)
# Not among them: loading models, trace and log settings, shared memory, which act on everybody's server; and
# ModelStreamInfer, whose messages could not be counted.
_FOR_USERS = (
    "ModelConfig",
    INFER,
    "ModelMetadata",
    "ModelReady",
    "ModelStatistics",
    "RepositoryIndex",
    "ServerMetadata",
)
_SMALL_BODY = "envoy.filters.http.body_size_limit"
_CLOCK_SKEW = 5  # seconds
_MOST_USERS = 1000  # with a share of their own at the same time, and addresses; the longest absent begins anew
_PUSHBACK = 0.25  # seconds after which a refused client comes again
_FILL = 0.05  # seconds between two fills, the least that Envoy takes
_PROBES_AT_ONCE = 5  # seconds' worth: the workers of a farm that has one address begin together
SMALL_REQUEST = 4096  # bytes of a request of any method but `INFER`, which has little more than a model's name


def typed(kind: str, **fields: Any) -> Part:
    """A message of Envoy's API."""
    return {"@type": f"type.googleapis.com/envoy.{kind}", **fields}


def http_filters(settings: Envoy, policy: TokenPolicy) -> list[Part]:
    """All of them, in order."""
    filters = [
        verified_token(policy),
        admitted_calls(),
        fair_share(settings),
        few_uploads(settings),
        small_body(),
        whole_body(settings),
        request_fields(),
    ]
    if settings.affinity:
        filters.append(model_header())
    filters.append(
        {"name": "envoy.filters.http.router", "typed_config": typed("extensions.filters.http.router.v3.Router")}
    )
    return filters


def verified_token(policy: TokenPolicy) -> Part:
    """UNAUTHENTICATED without a token that the token service signed; the token goes no further than here."""
    provider = {
        "issuer": policy.issuer,
        "audiences": [policy.audience],
        "forward": False,
        # not in the URL, where Envoy takes it too by default and logs would show it
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "require_expiration": True,
        "clock_skew_seconds": _CLOCK_SKEW,
        "payload_in_metadata": CLAIMS,
        "claim_to_headers": [{"header_name": USER_HEADER, "claim_name": "sub"}],
        "clear_route_cache": True,  # the route depends on the tier
        "remote_jwks": {
            "http_uri": {"uri": policy.jwks_url, "cluster": JWKS, "timeout": "5s"},
            # without async_fetch everybody is locked out as soon as the token service is away
            "async_fetch": {"failed_refetch_duration": "1s"},
            "cache_duration": "2s",
        },
    }
    theirs: Part = {"provider_name": "facility"}
    # a token that is shown counts there too: nobody without one can use up what users are asked for
    or_none: Part = {"requires_any": {"requirements": [theirs, {"allow_missing": {}}]}}
    rules: list[Part] = [{"match": {"path": path_of(method)}, "requires": or_none} for method in OPEN]
    rules.append({"match": {"prefix": "/"}, "requires": theirs})
    return {
        "name": TOKEN,
        "typed_config": typed(
            "extensions.filters.http.jwt_authn.v3.JwtAuthentication", providers={"facility": provider}, rules=rules
        ),
    }


def admitted_calls() -> Part:
    """PERMISSION_DENIED for a token that names no user, and for methods that are the operators'.

    Compressed requests are refused here too: a few kilobytes could become gigabytes in a Triton.
    """
    named = {
        "filter": TOKEN,
        "path": [{"key": CLAIMS}, {"key": "sub"}],
        "value": {"string_match": {"safe_regex": {"regex": r"\S(.*\S)?"}}},
    }
    somebody = {"sourced_metadata": {"metadata_matcher": named, "metadata_source": "DYNAMIC"}}
    policies = {
        "open": {"permissions": [_uncompressed(OPEN)], "principals": [{"any": True}]},
        "users": {"permissions": [_uncompressed(_FOR_USERS)], "principals": [somebody]},
    }
    return {
        "name": "envoy.filters.http.rbac",
        "typed_config": typed(
            "extensions.filters.http.rbac.v3.RBAC", rules={"action": "ALLOW", "policies": policies}
        ),
    }


def fair_share(settings: Envoy) -> Part:
    """RESOURCE_EXHAUSTED for a user who has had her share of this second, and for an address that shows no token.

    Each address has a bucket of its own, so that a stranger's probes do not use up those of the load balancer.
    """
    bucket = _bucket(settings.share, settings.burst or round(settings.share * _PUSHBACK))
    of_an_address = _bucket(settings.probes, _PROBES_AT_ONCE * settings.probes)
    of_the_user = {
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
    # whoever has one IPv6 address has the /64 around it
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
            token_bucket=of_an_address,  # every call has one of the two below
            rate_limits=[of_the_user, {"actions": [without_token, address]}],
            descriptors=[
                {"entries": [{"key": "user"}], "token_bucket": bucket},
                {
                    "entries": [{"key": "token", "value": "none"}, {"key": "masked_remote_address"}],
                    "token_bucket": of_an_address,
                },
            ],
            max_dynamic_descriptors=_MOST_USERS,
            enable_x_ratelimit_headers="DRAFT_VERSION_03",
            # HTTP knows whole seconds only; who understands gRPC's own word comes sooner, and for less at a time
            response_headers_to_add=[
                {"header": {"key": "retry-after", "value": "1"}},
                {"header": {"key": "grpc-retry-pushback-ms", "value": f"{1000 * _PUSHBACK:.0f}"}},
            ],
        ),
    }


def few_uploads(settings: Envoy) -> Part:
    """RESOURCE_EXHAUSTED for a user who is already sending as many requests as one may at the same time."""
    script = uploads_script(settings.max_uploads, USER_HEADER, round(1000 * _PUSHBACK))
    return {
        "name": "envoy.filters.http.lua",
        "typed_config": typed("extensions.filters.http.lua.v3.Lua", default_source_code={"inline_string": script}),
    }


def small_body() -> Part:
    """INVALID_ARGUMENT for a request that is larger than any of a method other than `INFER` has to be."""
    limit = typed("extensions.filters.http.body_size_limit.v3.BodySizeLimit", max_request_bytes=SMALL_REQUEST)
    return {"name": _SMALL_BODY, "typed_config": limit}


def may_be_large() -> dict[str, Part]:
    """What switches `small_body` off for a route."""
    return {_SMALL_BODY: typed("config.route.v3.FilterConfig", disabled=True)}


def whole_body(settings: Envoy) -> Part:
    """Bounded requests, which go on when they are complete: a slow sender holds no place at a Triton."""
    return {
        "name": "envoy.filters.http.buffer",
        "typed_config": typed("extensions.filters.http.buffer.v3.Buffer", max_request_bytes=settings.largest_body),
    }


def request_fields() -> Part:
    """The model and the shapes that a request itself names, kept for the route, the log and the counters."""
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
    """The first value of such a field, in CEL."""
    return f"metadata.filter_metadata['{FIELDS}']['{name}'][0]"


def model_header() -> Part:
    """The model in a header, by which requests are spread over Tritons."""
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


def _uncompressed(methods: Sequence[str]) -> Part:
    """These methods, if the client did not compress what it sends."""
    called = [{"url_path": {"path": {"exact": path_of(method)}}} for method in methods]
    uncompressed = [{"not_rule": {"header": each}} for each in COMPRESSED]
    return {"and_rules": {"rules": [{"or_rules": {"rules": called}}, *uncompressed]}}


def _bucket(calls: int, burst: int) -> Part:
    """So many calls a second, filled as evenly as Envoy does: a second's at once would be a queue for everybody."""
    seconds = max(_FILL, 1 / calls)
    each = max(1, round(calls * seconds))
    return {"max_tokens": max(burst, each), "tokens_per_fill": each, "fill_interval": f"{each / calls:.6f}s"}


def _always() -> Part:
    return {"default_value": {"numerator": 100}}
