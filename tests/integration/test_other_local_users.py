"""What other users of this machine can do to a facility's servers through their loopback ports."""

from __future__ import annotations

import os
import socket
import stat
import struct
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import plain_client
import psutil
import pytest
from management import ask, successes
from test_facility import own_regions
from tiny_models import infer

NOBODY = 65534
X = np.arange(6, dtype=np.float32).reshape(3, 2)
READ_AS_NOBODY = f"""
import os, sys
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
try:
    print(len(open(sys.argv[1], "rb").read()))
except PermissionError:
    print("refused")
"""


def test_shared_memory_with_users_jets_is_private(tiny_triton):
    infer(tiny_triton, "mirror", X)
    regions = own_regions(tiny_triton)
    assert len(regions) >= 2  # of the two models
    assert {stat.S_IMODE(region.stat().st_mode) for region in regions} == {0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's process can be started by root only")
def test_another_user_cannot_read_shared_memory(tiny_triton):
    (region, *_) = own_regions(tiny_triton)
    command = [sys.executable, "-c", READ_AS_NOBODY, str(region)]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout == "refused\n"


def test_everything_a_server_and_its_clusters_create_is_private(tiny_triton, gateway_server):
    from dask_gateway import BasicAuth, Gateway

    auth = BasicAuth("somebody", gateway_server.password_file.read_text())
    with Gateway(gateway_server.address, auth=auth) as gateway, gateway.new_cluster() as cluster:
        cluster.scale(1)
        with cluster.get_client() as client:
            client.wait_for_workers(1, timeout=60)
            masks = umasks_below(tiny_triton, gateway_server, gateway_server.proxy)
    assert len(masks) >= 8  # Triton and its stubs, the gateway, its proxy, scheduler, nanny, worker, their reapers
    assert set(masks.values()) == {"0077"}


def umasks_below(*servers):
    """Return the umask of each server, its children and its reaper, by process."""
    reapers = [psutil.Process(server.child.pid).parent() for server in servers]
    family = [process for reaper in reapers for process in (reaper, *reaper.children(recursive=True))]
    lines = {process: Path(f"/proc/{process.pid}/status").read_text().splitlines() for process in family}
    return {
        f"{process.pid} {process.name()}": line.split()[1]
        for process, status in lines.items()
        for line in status
        if line.startswith("Umask:")
    }


def test_no_port_of_triton_allows_management_or_shared_memory(tiny_triton):
    (region, *_) = own_regions(tiny_triton)
    listening = [each for each in psutil.Process(tiny_triton.pid).net_connections("tcp") if each.status == "LISTEN"]
    replica = tiny_triton.replica
    assert {each.laddr.port for each in listening} == {
        urlsplit(url).port for url in (replica.grpc, replica.http, replica.metrics)
    }
    assert successes(replica, region.name) == []


def test_calls_that_users_need_still_work(tiny_triton):
    np.testing.assert_array_equal(infer(tiny_triton, "mirror", X)["y"], X[:, ::-1])
    url = tiny_triton.grpc
    assert plain_client.call(url, "ServerLive").live
    assert plain_client.call(url, "ServerReady").ready
    assert plain_client.call(url, "ServerMetadata").name == "triton"
    assert plain_client.call(url, "ModelMetadata", name="mirror").name == "mirror"
    assert plain_client.call(url, "ModelConfig", name="mirror").config.name == "mirror"
    assert len(plain_client.call(url, "ModelStatistics").model_stats) == 2
    assert len(plain_client.call(url, "RepositoryIndex").models) == 2
    for call in ("GET /v2", "GET /v2/health/ready", "GET /v2/models/mirror/config", "POST /v2/repository/index"):
        assert ask(tiny_triton.http, call)[0] == 200
    status, page = ask(tiny_triton.metrics, "GET /metrics")
    assert (status, b"nv_inference_count" in page) == (200, True)


def test_tritons_unlocking_header_does_not_unlock_these_calls(tiny_triton):
    """Every user can read the header's name and value on the command line, but no request can carry the name."""
    (setting,) = (
        part for part in psutil.Process(tiny_triton.pid).cmdline() if part.startswith("--http-restricted-api=")
    )
    name, _, value = setting.partition("logging:")[2].partition("=")
    assert name
    assert value
    for each in (name, name.upper(), name.replace(":", "%3A"), name.replace(":", " :")):
        assert raw_http(tiny_triton.http, f"{each}: {value}").startswith(b"HTTP/1.1 403")
        assert raw_http(tiny_triton.http, f"{each}:{value}").startswith(b"HTTP/1.1 403")
        answer = raw_grpc(tiny_triton.grpc, f"triton-grpc-protocol-{each}".encode(), value.encode())
        assert b"log_verbose_level" not in answer
    refused = raw_grpc(tiny_triton.grpc, b"x-another", b"value")  # proves that Triton reads such a request
    assert b"This protocol is restricted" in refused


def raw_http(url, header):
    with socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=30) as connection:
        connection.sendall(f"GET /v2/logging HTTP/1.1\r\nHost: triton\r\n{header}\r\n\r\n".encode())
        return connection.recv(65536)


def raw_grpc(url, name, value):
    """Return the reply to a LogSettings call with a header whose name no gRPC client sends."""

    def frame(kind, flags, stream, payload):
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    def literal(name, value):
        return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value

    headers = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/inference.GRPCInferenceService/LogSettings"),
        (b":authority", b"triton"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (name, value),
    ]
    block = b"".join(literal(*header) for header in headers)
    with socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=30) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, block))
        connection.sendall(frame(0, 1, 1, bytes(5)))  # an empty message
        said = b""
        while b"grpc-status" not in said and (more := connection.recv(65536)):
            said += more
    return said


def test_envoys_admin_port_allows_no_management(shared_envoy):
    for call in ("POST /quitquitquit", "POST /logging?level=trace", "POST /drain_listeners", "GET /config_dump"):
        assert ask(shared_envoy.metrics, call)[0] == 403
    assert ask(shared_envoy.metrics, "GET /stats/prometheus")[0] == 200
