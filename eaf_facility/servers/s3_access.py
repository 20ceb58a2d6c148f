"""Access rules of S3 that moto, the stand-in for an S3 service, does not apply.

moto lets everybody in, or checks the policies of roles alone. Here every request must be signed by a known key. Keys
of a role session end with it, and its session policy is evaluated as on AWS: for each object of a deletion, for the
source of a copy, and with ``s3:prefix`` for lists. An object that is not there is 403 to somebody who cannot list.

moto reads some requests in its own way: it decodes a key twice, cuts it at ``?`` and ``#``, and takes the bucket from
the header Host. Requests that it would read otherwise than these rules are refused.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote
from xml.etree import ElementTree

from eaf_facility.process.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Request", "allows", "guarded"]

_CREDENTIAL = re.compile(r"AWS4-HMAC-SHA256 Credential=([A-Z0-9a-z]+)/\d{8}/[\w-]+/(s3|sts)/aws4_request, ?"
                         r"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})")  # fmt: skip
_LARGEST_BODY = 1 << 30  # bytes
_ACCOUNT = "123456789012"  # moto's
_OWN_PAGES = "/moto-api"  # moto's, which show everybody's keys
_HOST = re.compile(rf"{re.escape(LOOPBACK)}(:\d+)?")
_AMBIGUOUS = re.compile(r"[%?#]")  # in a key that was decoded once


@dataclass(frozen=True, slots=True)
class Request:
    """What a request does: an action of S3 on a resource (its ARN), and the prefix of a list."""

    action: str
    resource: str
    prefix: str | None = None


def allows(policy: str, request: Request) -> bool:
    """Return whether a policy document allows a request: some statement allows it, and none denies it."""
    statements = json.loads(policy)["Statement"]
    effects = {each["Effect"] for each in statements if _concerns(each, request)}
    return effects == {"Allow"}


def _concerns(statement: Mapping[str, Any], request: Request) -> bool:
    for operator, conditions in statement.get("Condition", {}).items():
        if operator != "StringLike" or set(conditions) != {"s3:prefix"}:
            raise ValueError(f"the condition {operator} {sorted(conditions)} is unknown here")
        if request.prefix is None or not _any(conditions["s3:prefix"], request.prefix):
            return False
    return _any(statement["Action"], request.action) and _any(statement["Resource"], request.resource)


def _any(patterns: str | Iterable[str], value: str) -> bool:
    each = [patterns] if isinstance(patterns, str) else patterns
    return any(re.fullmatch(_expression(pattern), value, re.DOTALL) for pattern in each)


def _expression(pattern: str) -> str:
    return re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")


def guarded(app: WSGIApplication, keys: Mapping[str, str]) -> WSGIApplication:
    """Return moto's application behind these rules.

    Parameters
    ----------
    app
        ``moto.server.DomainDispatcherApplication(create_backend_app)``, in this process.
    keys : mapping
        The secrets of keys that may do everything, such as the token service's and Triton's, by access key.
    """

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        refusal, lists = _judged(environ, keys)
        if refusal is not None:
            return _refused(refusal, environ, start_response)
        if lists:
            return app(environ, start_response)
        return _without_existence(app, environ, start_response)

    return application


def _judged(environ: WSGIEnvironment, keys: Mapping[str, str]) -> tuple[str | None, bool]:
    """Return the code of a refusal, and whether the caller may list everything."""
    found = _CREDENTIAL.fullmatch(environ.get("HTTP_AUTHORIZATION", ""))
    own_page = environ["PATH_INFO"].startswith(_OWN_PAGES)
    if found is None or own_page or not _HOST.fullmatch(environ.get("HTTP_HOST", "")):
        return "AccessDenied", False
    key, service, signed, signature = found.groups()
    session = None if key in keys else _session(key)
    secret = keys.get(key) or (session.secret_access_key if session else "")
    if not secret:
        return "InvalidAccessKeyId", False
    if signature != _signature(environ, key, secret, service, signed):
        return "SignatureDoesNotMatch", False
    if session is None:
        return None, True
    if environ.get("HTTP_X_AMZ_SECURITY_TOKEN") != session.session_token:
        return "InvalidToken", False
    from moto.core.utils import utcnow

    if session.expiration < utcnow():
        return "ExpiredToken", False
    allowed = service == "s3" and all(
        allows(session.policy, each) and not _AMBIGUOUS.search(each.resource) for each in _requests(environ)
    )
    return (None if allowed else "AccessDenied"), False


def _session(key: str) -> Any:
    from moto.sts.models import sts_backends

    sessions = sts_backends[_ACCOUNT]["aws"].assumed_roles
    return next((each for each in sessions if each.access_key_id == key and each.policy), None)


def _signature(environ: WSGIEnvironment, key: str, secret: str, service: str, signed: str) -> str:
    """Return the signature that the request should have."""
    from botocore.auth import S3SigV4Auth, SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    headers = {name: _header(environ, name) for name in signed.split(";")}
    query = environ.get("QUERY_STRING", "")
    url = f"http://{environ['HTTP_HOST']}{_raw_path(environ)}{f'?{query}' if query else ''}"
    body = b"" if service == "s3" else _body(environ)
    request = AWSRequest(method=environ["REQUEST_METHOD"], url=url, data=body, headers=headers)
    request.context["timestamp"] = headers.get("x-amz-date", "")
    region = environ["HTTP_AUTHORIZATION"].split("/")[2]
    auth = (S3SigV4Auth if service == "s3" else SigV4Auth)(Credentials(key, secret), service, region)
    return str(auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request))


def _header(environ: WSGIEnvironment, name: str) -> str:
    variable = name.upper().replace("-", "_")
    return str(environ.get(variable if variable in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{variable}", ""))


def _raw_path(environ: WSGIEnvironment) -> str:
    raw = str(environ.get("RAW_URI") or environ.get("REQUEST_URI") or "")
    return raw.partition("?")[0] if raw else quote(environ["PATH_INFO"].encode("latin-1"))


def _body(environ: WSGIEnvironment) -> bytes:
    """Return the body, which stays readable for moto."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(min(length, _LARGEST_BODY))
    environ["wsgi.input"] = io.BytesIO(body)
    return bytes(body)


def _requests(environ: WSGIEnvironment) -> list[Request]:
    """Return what the request does; of a request that is not known here, something that no policy allows."""
    bucket, _, key = unquote(_raw_path(environ)).lstrip("/").partition("/")
    query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    method, arn = environ["REQUEST_METHOD"], f"arn:aws:s3:::{bucket}"
    if not key:
        if method == "POST" and "delete" in query:
            return [Request("s3:DeleteObject", f"{arn}/{each}") for each in _deleted(_body(environ))]
        prefixes = query.get("prefix", [None])
        lists = method in ("GET", "HEAD") and not set(query) - _LIST and len(prefixes) == 1
        return [Request("s3:ListBucket", arn, prefixes[0]) if lists else _unknown(arn)]
    resource = f"{arn}/{key}"
    action = _object_action(method, set(query))
    made = [Request(action, resource) if action else _unknown(resource)]
    if source := environ.get("HTTP_X_AMZ_COPY_SOURCE"):
        made.append(Request("s3:GetObject", f"arn:aws:s3:::{unquote(source).lstrip('/').partition('?')[0]}"))
    return made


_LIST = {
    *("list-type", "prefix", "delimiter", "encoding-type", "max-keys", "start-after", "continuation-token"),
    *("fetch-owner", "marker"),
}


def _object_action(method: str, query: set[str]) -> str:
    query -= {"x-id"}
    if method in ("GET", "HEAD") and query <= {"uploadId", "partNumber"}:
        return "s3:ListMultipartUploadParts" if "uploadId" in query else "s3:GetObject"
    if (method == "PUT" and query <= {"uploadId", "partNumber"}) or (method == "POST" and query in _MULTIPART):
        return "s3:PutObject"
    if method == "DELETE":
        return {frozenset(): "s3:DeleteObject", frozenset({"uploadId"}): "s3:AbortMultipartUpload"}.get(
            frozenset(query), ""
        )
    return ""


_MULTIPART = ({"uploads"}, {"uploadId"})


def _unknown(resource: str) -> Request:
    return Request("s3:unknown", resource)


def _deleted(body: bytes) -> list[str]:
    root = ElementTree.fromstring(body)  # noqa: S314  (a stand-in on loopback; a known key signed it)
    return [each.text or "" for each in root.iter() if each.tag.rpartition("}")[2] == "Key"]


def _refused(code: str, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    _body(environ)
    text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [text.encode()]


def _without_existence(
    app: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """Answer 403 for 404, as S3 does to somebody who may not list the bucket."""
    answered: list[Any] = []

    def start(*arguments: Any) -> Callable[[bytes], object]:
        answered[:] = arguments
        return lambda _: None

    body = app(environ, start)
    if str(answered[0]).startswith("404"):
        if hasattr(body, "close"):
            body.close()
        return _refused("AccessDenied", environ, start_response)
    start_response(*answered)
    return body
