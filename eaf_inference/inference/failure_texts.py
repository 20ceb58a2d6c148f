"""Translate the failure texts of gRPC, Envoy, Triton and its backends into plain words.

The originals are full of addresses, source lines and stacks. Three tables translate them: what a text means, why a
token was refused, and which internals to cut from any other text.
"""

from __future__ import annotations

import re

from eaf_inference.inference.reply import LARGEST_ANSWER, LARGEST_REPLY

__all__ = [
    *(
        "COMPRESSED_REPLY",
        "NOT_READY",
        "OUT_OF_MEMORY",
        "RESTRICTED",
        "TOO_LARGE_REPLY",
        "TOO_LARGE_REQUEST",
        "TRANSIENT",
    ),
    *("meaning", "refusal", "without_internals"),
]

# gRPC's own texts for an answer that this client refuses.
TOO_LARGE_REPLY = re.compile(r"CLIENT: \w+ message larger than max|Decompressed message larger than max")
COMPRESSED_REPLY = re.compile(r"Compression algorithm .*(is disabled|not supported)")
TOO_LARGE_REQUEST = re.compile(r"larger than max|request payload size|exceeded request buffer", re.IGNORECASE)
# Triton's text for a call that --grpc-restricted-protocol reserves for holders of a header.
# ONNX Runtime, CUDA, PyTorch, TensorRT, TensorFlow and the C++ library
OUT_OF_MEMORY = re.compile(
    r"out of memory|failed to allocate memory|std::bad_alloc|BFCArena|CUDA_ERROR_OUT_OF_MEMORY|OOM when",
    re.IGNORECASE,
)
RESTRICTED = re.compile(r"protocol is restricted", re.IGNORECASE)
NOT_READY = re.compile(r"no available versions|is not (?:at )?ready", re.IGNORECASE)
# How a lost connection, a proxy's retry buffer or a dying model process shows under UNKNOWN and INTERNAL.
TRANSIENT = re.compile(
    r"RST_STREAM|stream removed|socket closed|connection reset|goaway|broken pipe|stub process", re.IGNORECASE
)

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
            "the TLS handshake failed, as it does at an unencrypted port (grpc://)": (
                "WRONG_VERSION_NUMBER|(ssl|tls) handshake"
            ),
            "it does not speak gRPC": (
                r"http1\.x server|FRAME_SIZE_ERROR|Failed parsing HTTP/2|Expected SETTINGS frame"
            ),
            "a proxy on the way requires a log-in": "http2 header with status: 407",
            "a proxy on the way refuses the call (HTTP 403)": "http2 header with status: 403",
            "the server at this address does not know Triton's calls (HTTP 404)": "http2 header with status: 404",
            "a proxy on the way cannot reach it, or does not forward gRPC": "http2 header with status",
            "the edge proxy reaches no Triton": (
                "no healthy upstream|upstream (connect error|reset|request timeout)"
            ),
            "the connection broke off: the server, or a proxy on the way, closed it": (
                "RST_STREAM|stream removed|socket closed|connection reset|goaway|broken pipe|keepalive|ping timeout|"
                "endpoint closing|recvmsg|sendmsg"
            ),
            "no connection in time, as behind a firewall": "timed out|timeout occurred|FD shutdown",
            "no connection can be made": "failed to connect|empty address list|failed to pick subchannel",
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
            "its issuer is not trusted by this server",
            "Use a token of the facility that this server belongs to.",
        ),
        (
            "jwt is missing",
            "it did not reach the server",
            "Something on the way removed it: tell the server's operators.",
        ),
        (
            r"not in the form|jwt (header|payload)|alg\]|json|base64",
            "it is not a JSON web token, which this server requires",
            "Get a token for Triton from your facility.",
        ),
        (
            "rbac: access denied",
            "it does not say who you are, or you have no access",
            "Ask the facility for access.",
        ),
    )
)

# Internals of the server, and their replacements.
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
    """Return what a failed call's details mean; None if no known text matches."""
    return next((words for pattern, words in _MEANINGS if pattern.search(details)), None)


def refusal(details: str) -> tuple[str, str] | None:
    """Return why a token was refused, and what to do; None if no known text matches."""
    return next(((why, remedy) for pattern, why, remedy in _REFUSALS if pattern.search(details)), None)


def without_internals(details: str) -> str:
    """Cut addresses, source lines, stacks and the like from a text."""
    for pattern, replacement in _INTERNALS:
        details = pattern.sub(replacement, details)
    return details.strip()
