"""The access log, and the counters by user and model. Pure functions.

Envoy counts only what it has verified or measured itself, or what a request states and Triton has accepted. A model
becomes a label of the counters only if Triton has answered for it or the operator has named it, so that users cannot
fill the counters with invented names; the filter `owners` refuses requests from which Envoy and Triton would read
different names. The owner of a user's model is what stands before the first dot. `rows` is the first dimension of the
first input, summed over the answered requests. Triton checks it against the data, and for every model with a batch
dimension it is the number of inferences. A hand-encoded message with unpacked dimensions can still make it show
another number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eaf_facility.envoy.filters import CLAIMS, SERVICE, TOKEN, field, typed

if TYPE_CHECKING:
    from eaf_facility.envoy.settings import Envoy

__all__ = ["access_logs"]

Part = dict[str, Any]


def _claim(name: str) -> str:
    return f"%DYNAMIC_METADATA({TOKEN}:{CLAIMS}:{name})%"


_MODEL, _SHAPE = field("model_name"), field("inputs.shape")
# a row takes at least one byte, so a request cannot claim more rows than it could hold
_ROWS = f"%CEL(int({_SHAPE}) <= request.total_size ? {_SHAPE} : '0')%"
_LINE = {
    "time": "%START_TIME%",
    "user": _claim("sub"),
    "tier": _claim("tier"),
    "jti": _claim("jti"),
    "method": "%PATH(NQ:PATH):128%",
    "model": f"%CEL({_MODEL}):128%",
    "rows": _ROWS,
    "grpc_status": "%GRPC_STATUS%",
    "http_status": "%RESPONSE_CODE%",
    "why": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
    "milliseconds": "%DURATION%",
    "upstream": "%UPSTREAM_HOST%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "from": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    "id": "%REQ(X-REQUEST-ID)%",
}


def access_logs(settings: Envoy) -> list[Part]:
    """Return the log file, the counters of answered inferences, and those of failed ones."""
    answered = {"grpc_status_filter": {"statuses": ["OK"]}}
    failed = {"grpc_status_filter": {"statuses": ["OK"], "exclude": True}}
    return [
        {
            "name": "envoy.access_loggers.file",
            "typed_config": typed(
                "extensions.access_loggers.file.v3.FileAccessLog",
                path=settings.access_log,
                log_format={"json_format": _LINE},
            ),
        },
        _counters(answered, {"user": _claim("sub"), "model": f"%CEL({_MODEL})%"}, requests=1, rows=_ROWS),
        _counters(failed, _failure_tags(settings), failures=1),
    ]


def _failure_tags(settings: Envoy) -> dict[str, str]:
    tags = {"user": _claim("sub"), "status": "%GRPC_STATUS%"}
    if settings.models:
        tags["model"] = f"%CEL({_MODEL} in {settings.models} ? {_MODEL} : '')%"  # Python's list is CEL's
    return tags


def _counters(filter_: Part, tags: dict[str, str], **values: int | str) -> Part:
    counters = [
        {
            "stat": {"name": name, "tags": [{"name": tag, "value_format": text} for tag, text in tags.items()]},
            **({"value_fixed": value} if isinstance(value, int) else {"value_format": value}),
        }
        for name, value in (values | {"bytes_in": "%BYTES_RECEIVED%", "bytes_out": "%BYTES_SENT%"}).items()
    ]
    only_inferences = {
        "header_filter": {"header": {"name": ":path", "string_match": {"exact": f"/{SERVICE}/ModelInfer"}}}
    }
    return {
        "name": "envoy.access_loggers.stats",
        "filter": {"and_filter": {"filters": [only_inferences, filter_]}},
        "typed_config": typed(
            "extensions.access_loggers.stats.v3.Config",
            stats_scope={"prefix": "eaf", "max_counters": 10000},
            counters=counters,
        ),
    }
