"""The calls that manage a Triton or reach shared memory, as any user of the machine can send them to its ports."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import grpc
from plain_client import call

from eaf_inference.inference import protocol

if TYPE_CHECKING:
    from eaf_inference.discovery.local_facility import Replica

_REGION = {"key": "/region", "byte_size": 64}
_GRPC = {  # method -> its request
    "SystemSharedMemoryStatus": {},
    "SystemSharedMemoryRegister": {"name": "stolen", **_REGION},
    "SystemSharedMemoryUnregister": {},
    "CudaSharedMemoryStatus": {},
    "CudaSharedMemoryRegister": {"name": "stolen", "raw_handle": b"handle", "byte_size": 64},
    "CudaSharedMemoryUnregister": {},
    "TraceSetting": {},
    "LogSettings": {},
    "RepositoryModelLoad": {"model_name": "affine"},
    "RepositoryModelUnload": {"model_name": "affine"},
}
_HTTP = (
    "GET /v2/systemsharedmemory/status",
    "POST /v2/systemsharedmemory/region/stolen/register",
    "POST /v2/systemsharedmemory/unregister",
    "GET /v2/cudasharedmemory/status",
    "POST /v2/cudasharedmemory/region/stolen/register",
    "POST /v2/cudasharedmemory/unregister",
    "GET /v2/trace/setting",
    "POST /v2/trace/setting",
    "POST /v2/models/affine/trace/setting",
    "GET /v2/logging",
    "POST /v2/logging",
    "POST /v2/repository/models/affine/load",
    "POST /v2/repository/models/affine/unload",
)


def successes(replica: Replica, region: str = "region") -> list[str]:
    """Return which of these calls have an effect on any of a Triton's three ports; `region` is a name in /dev/shm."""
    found = [f"gRPC {method}" for method in _GRPC if _succeeds(replica.grpc, method, region)]
    body = json.dumps({**_REGION, "key": f"/{region}"})
    found += [f"HTTP {call}" for call in _HTTP if ask(replica.http, call, body)[0] < 400]
    answers = {call: ask(replica.metrics, call, body) for call in _HTTP}
    # the port for metrics answers every GET with 200, but nothing except /metrics with content
    return found + [f"metrics {call}" for call, (status, reply) in answers.items() if status < 400 and reply]


def ask(url: str, call: str, body: str = "", **headers: str) -> tuple[int, bytes]:
    """Return the HTTP server's reply."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    method, path = call.split()
    try:
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _succeeds(url: str, method: str, region: str) -> bool:
    request = getattr(protocol, f"{method}Request")(**_GRPC[method])
    if method == "SystemSharedMemoryRegister":
        request.key = f"/{region}"
    try:
        call(url, method, request, timeout=30)
    except grpc.RpcError as error:
        return error.code() == grpc.StatusCode.DEADLINE_EXCEEDED  # it may have had an effect
    return True
