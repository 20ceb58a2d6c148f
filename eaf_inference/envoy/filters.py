"""What a call passes on its way in, one function a filter, in this order. All pure: settings in, plain values out.

The user of a call is the `sub` of the token that was verified, from the first filter on; nothing that a client says
of itself beside the token is believed or passed on.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eaf_inference.envoy.settings import Envoy
    from eaf_inference.policy import TokenPolicy

__all__ = ["CLAIMS", "JWKS", "MODEL_HEADER", "SERVICE", "TOKEN", "USER_HEADER", "field", "http_filters", "typed"]

Part = dict[str, Any]

TOKEN = "envoy.filters.http.jwt_authn"  # noqa: S105 - where a verified token's claims are kept …
CLAIMS = "jwt"  # … under this name
FIELDS = "envoy.filters.http.grpc_field_extraction"  # where fields of a request are kept
JWKS = "jwks"  # the cluster of the token service
USER_HEADER = "x-user"
MODEL_HEADER = "x-eaf-model"
SERVICE = "inference.GRPCInferenceService"

_OPEN = ("ServerLive", "ServerReady")  # of no one's business: load balancers ask them
# Not among them: loading models, trace and log settings, shared memory, which act on everybody's server; and
# ModelStreamInfer, whose messages could not be counted.
_FOR_USERS = (
    "ModelConfig",
    "ModelInfer",
    "ModelMetadata",
    "ModelReady",
    "ModelStatistics",
    "RepositoryIndex",
    "ServerMetadata",
)
_CLOCK_SKEW = 5  # seconds
_MOST_USERS = 1000  # with a share of their own at the same time; of more, the longest absent begins anew
_PUSHBACK = 0.25  # seconds after which a refused client comes again
_FILL = 0.05  # seconds between two fills, the least that Envoy takes
_OPEN_CALLS = 1000  # a second, of all who show no token together


def typed(kind: str, **fields: Any) -> Part:
    """A message of Envoy's API."""
    return {"@type": f"type.googleapis.com/envoy.{kind}", **fields}


def http_filters(settings: Envoy, policy: TokenPolicy) -> list[Part]:
    """All of them, in order."""
    filters = [
        verified_token(policy),
        admitted_calls(),
        fair_share(settings),
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
    rules: list[Part] = [{"match": {"path": _path(method)}, "requires": or_none} for method in _OPEN]
    rules.append({"match": {"prefix": "/"}, "requires": theirs})
    return {
        "name": TOKEN,
        "typed_config": typed(
            "extensions.filters.http.jwt_authn.v3.JwtAuthentication", providers={"facility": provider}, rules=rules
        ),
    }


def admitted_calls() -> Part:
    """PERMISSION_DENIED for a token that names no user, and for methods that are the operators'."""
    named = {
        "filter": TOKEN,
        "path": [{"key": CLAIMS}, {"key": "sub"}],
        "value": {"string_match": {"safe_regex": {"regex": r"\S(.*\S)?"}}},
    }
    somebody = {"sourced_metadata": {"metadata_matcher": named, "metadata_source": "DYNAMIC"}}
    policies = {
        "open": {"permissions": [_calls(method) for method in _OPEN], "principals": [{"any": True}]},
        "users": {"permissions": [_calls(method) for method in _FOR_USERS], "principals": [somebody]},
    }
    return {
        "name": "envoy.filters.http.rbac",
        "typed_config": typed(
            "extensions.filters.http.rbac.v3.RBAC", rules={"action": "ALLOW", "policies": policies}
        ),
    }


def fair_share(settings: Envoy) -> Part:
    """RESOURCE_EXHAUSTED for a user who has had her share of this second."""
    bucket = _bucket(settings.share, settings.burst or round(settings.share * _PUSHBACK))
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
    return {
        "name": "envoy.filters.http.local_ratelimit",
        "typed_config": typed(
            "extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            stat_prefix="share",
            filter_enabled=_always(),
            filter_enforced=_always(),
            rate_limited_as_resource_exhausted=True,
            always_consume_default_token_bucket=False,
            token_bucket=_bucket(_OPEN_CALLS, _OPEN_CALLS),  # of calls without a user
            rate_limits=[of_the_user],
            descriptors=[{"entries": [{"key": "user"}], "token_bucket": bucket}],
            max_dynamic_descriptors=_MOST_USERS,
            enable_x_ratelimit_headers="DRAFT_VERSION_03",
            # HTTP knows whole seconds only; who understands gRPC's own word comes sooner, and for less at a time
            response_headers_to_add=[
                {"header": {"key": "retry-after", "value": "1"}},
                {"header": {"key": "grpc-retry-pushback-ms", "value": f"{1000 * _PUSHBACK:.0f}"}},
            ],
        ),
    }


def whole_body(settings: Envoy) -> Part:
    """Bounded requests, which go on when they are complete: a slow sender holds no place at a Triton."""
    return {
        "name": "envoy.filters.http.buffer",
        "typed_config": typed("extensions.filters.http.buffer.v3.Buffer", max_request_bytes=settings.largest_request),
    }


def request_fields() -> Part:
    """The model and the shapes that a request itself names, kept for the route, the log and the counters."""
    fields: Part = {"model_name": {}, "inputs.shape": {}}
    return {
        "name": FIELDS,
        "typed_config": typed(
            "extensions.filters.http.grpc_field_extraction.v3.GrpcFieldExtractionConfig",
            descriptor_set={"inline_bytes": base64.b64encode(descriptor_set()).decode()},
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


def descriptor_set() -> bytes:
    """What Triton's requests look like, from tritonclient's own messages."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from tritonclient.grpc import service_pb2

    found = FileDescriptorSet()

    def add(file: Any) -> None:
        for each in file.dependencies:  # a file is read after those that it builds on
            add(each)
        if file.name not in {each.name for each in found.file}:
            file.CopyToProto(found.file.add())

    add(service_pb2.DESCRIPTOR)
    return bytes(found.SerializeToString())


def _path(method: str) -> str:
    return f"/{SERVICE}/{method}"


def _calls(method: str) -> Part:
    return {"url_path": {"path": {"exact": _path(method)}}}


def _bucket(calls: int, burst: int) -> Part:
    """So many calls a second, filled as evenly as Envoy does: a second's at once would be a queue for everybody."""
    seconds = max(_FILL, 1 / calls)
    each = max(1, round(calls * seconds))
    return {"max_tokens": max(burst, each), "tokens_per_fill": each, "fill_interval": f"{each / calls:.6f}s"}


def _always() -> Part:
    return {"default_value": {"numerator": 100}}
