"""What gRPC, Envoy, Triton and its backends say of a failure, in a user's words.

They speak of addresses, source lines and stacks. Here are three tables: what a text means, why a token was refused,
and what is left out of a text that means nothing in particular.
"""

from __future__ import annotations

import re

from eaf_inference.inference.reply import LARGEST_ANSWER, LARGEST_REPLY

__all__ = ["COMPRESSED_REPLY", "RESTRICTED", "TOO_LARGE_REPLY", "meaning", "refusal", "without_internals"]

# What gRPC here says of an answer that it has not taken.
TOO_LARGE_REPLY = re.compile(r"CLIENT: \w+ message larger than max|Decompressed message larger than max")
COMPRESSED_REPLY = re.compile(r"Compression algorithm .*(is disabled|not supported)")
# Triton's words for a call that --grpc-restricted-protocol keeps from everybody without a header.
RESTRICTED = re.compile(r"protocol is restricted", re.IGNORECASE)


_MEANINGS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        TOO_LARGE_REPLY,
        f"its answer is too large: at most {LARGEST_ANSWER >> 20} MiB are read, of scores {LARGEST_REPLY >> 20} MiB",
    ),
    (COMPRESSED_REPLY, "its answer is compressed, which this client does not accept"),
    (RESTRICTED, "its operators have restricted this call"),
    *(
        (re.compile(pattern, re.IGNORECASE), words)
        for words, pattern in {
            "connection refused: nothing listens there": "connection refused",
            "there is no host of that name": "DNS resolution failed|Domain name not found",
            "this machine has no route to it": "no route to host|network is unreachable",
            "its TLS certificate has expired": "certificate has expired",
            "its TLS certificate is not trusted here; name its authority's file: --ca FILE, ca=…": (
                "CERTIFICATE_VERIFY_FAILED|unable to get local issuer"
            ),
            "its TLS certificate is for another host name": "hostname verification|peer name .* is not in peer cert",
            "the TLS handshake failed; is it an unencrypted port (grpc://)?": (
                "WRONG_VERSION_NUMBER|(ssl|tls) handshake"
            ),
            "it does not speak gRPC; Triton's gRPC port is usually 8001, and 8000 is its HTTP port": (
                r"http1\.x server|FRAME_SIZE_ERROR|Failed parsing HTTP/2|Expected SETTINGS frame"
            ),
            "a proxy on the way wants a log-in": "http2 header with status: 407",
            "a proxy on the way refuses the call (HTTP 403)": "http2 header with status: 403",
            "what answers there does not know Triton's calls (HTTP 404)": "http2 header with status: 404",
            "a proxy on the way cannot reach it, or does not pass gRPC on": "http2 header with status",
            "the edge proxy reaches no Triton": (
                "no healthy upstream|upstream (connect error|reset|request timeout)"
            ),
            "the connection broke off: the server, or a proxy on the way, closed it": (
                "RST_STREAM|stream removed|socket closed|connection reset|goaway|broken pipe|keepalive|ping timeout|"
                "endpoint closing|recvmsg|sendmsg"
            ),
            "no connection in time: is a firewall in the way?": "timed out|timeout occurred|FD shutdown",
            "it cannot be connected to": "failed to connect|empty address list|failed to pick subchannel",
        }.items()
    ),
)

# Why an edge proxy refuses a token that was sent (Envoy's jwt_authn and rbac filters), and what to do.
_REFUSALS: tuple[tuple[re.Pattern[str], str, str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), why, remedy)
    for pattern, why, remedy in (
        ("expired", "it has expired", "Get a new token, then connect again."),
        (
            "not yet valid",
            "it is not valid yet",
            "Compare this machine's clock with the server's, or get a new token.",
        ),
        (
            "audience",
            "it was made for another service (its audience is not this one)",
            "Ask your facility how to get a token for Triton.",
        ),
        (
            "jwks remote fetch",
            "the server cannot get the keys with which it checks tokens",
            "Try later, and tell the server's operators.",
        ),
        (
            "issuer|jwks doesn't have key|verification fails",
            "it was not issued by anybody whom this server trusts",
            "Use a token of the facility that this server belongs to.",
        ),
        (
            "jwt is missing",
            "it did not arrive there",
            "Something on the way removed it: tell the server's operators.",
        ),
        (
            r"not in the form|jwt (header|payload)|alg\]|json|base64",
            "it is not of the kind that this server reads (a JSON web token)",
            "Get a token for Triton from your facility.",
        ),
        (
            "rbac: access denied",
            "it does not say who you are, or you have no access",
            "Ask the facility for access.",
        ),
    )
)

# What only the server's programmers can use, and what stands in its place.
_FILE = r"[^\s\[\](]*/[^\s\[\](]+\.(?:cc|cpp|cxx|cu|cuh|c|h|hpp):\d+"
_SIGNATURE = r"(?:[^()\[\]]*::[^()]*\([^()]*\)(?: const)?,? *)?"
_INTERNALS = (
    (re.compile(r"^\[request id: [^\]]*\] *"), ""),
    (re.compile(r"\b(?:UNKNOWN|INTERNAL): *(?=\S)|\bipv[46]:\S+:\d+: *"), ""),
    (re.compile(r"\s+At: +/?\S+\.py\(\d+\): .*$"), ""),  # a Python model's stack
    (re.compile(r"^.*\bTraceback\b.*\b(?=\w*(?:Error|Exception): )"), ""),  # TorchScript's
    (re.compile(r"Failed to process the request\(s\) for model instance '[^']*', message: *"), ""),
    (re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : *|onnx runtime error \d+: *"), ""),
    (
        re.compile(r"Non-zero status code returned while running (\w+) node\. *Name: ?'[^']*' *Status Message: *"),
        r"\1: ",
    ),
    (re.compile(rf"\[{_FILE}[^\[\]]*\] *"), ""),
    (re.compile(rf"\(?{_FILE}\)?:? *{_SIGNATURE}"), ""),
)


def meaning(details: str) -> str | None:
    """What a failed call's details mean; None where they are no sign of anything known."""
    return next((words for pattern, words in _MEANINGS if pattern.search(details)), None)


def refusal(details: str) -> tuple[str, str] | None:
    """Why a token that was sent is refused, and what to do; None where that is not known."""
    return next(((why, remedy) for pattern, why, remedy in _REFUSALS if pattern.search(details)), None)


def without_internals(details: str) -> str:
    """The text without addresses, source lines, stacks and the like."""
    for pattern, instead in _INTERNALS:
        details = pattern.sub(instead, details)
    return details.strip()
