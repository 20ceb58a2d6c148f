"""Error messages for failures with a real server: the cause, and what to do."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
from edge_proxy import edge_proxy
from hostile_http import hostile_proxy, saying, serving
from test_envoy import ATTACKS
from tokens import make_token

import eaf_inference
from eaf_facility.servers.triton_environment import _run
from eaf_inference import address
from eaf_inference.auth.token_service import TokenService
from eaf_inference.errors import ConfigurationError, InferenceError, NoServerFound, NotAuthorized, ServerUnavailable

CHECK = (
    "Check host and port (Triton's gRPC port is usually 8001, or 443 with TLS; 8000 is its HTTP port, 8002 its "
    "metrics), that the server runs, and that this machine reaches it."
)
REFUSALS = {
    "expired": "it has expired. Get a new token, then connect again.",
    "wrong audience": "it was made for another service (its audience is not this one). Ask your facility how to get "
    "a token for Triton.",
    "wrong issuer": "its issuer is not trusted by this server. Use a token of the facility that this "
    "server belongs to.",
    "foreign key": "its issuer is not trusted by this server. Use a token of the facility that this "
    "server belongs to.",
    "no sub": "it does not say who you are, or you have no access. Ask the facility for access.",
    "a Hub's token": "it is not a JSON web token, which this server requires. Get a token for Triton from "
    "your facility.",
}


@pytest.fixture
def authority(shared_envoy, tmp_path):
    """Write the certificate authority of the Envoy in front of two Tritons to a file."""
    path = tmp_path / "ca.pem"
    path.write_text(shared_envoy.authority)
    return path


def test_a_missing_token_is_answered_with_the_places_searched(shared_envoy, authority, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(NotAuthorized) as raised:
        eaf_inference.connect(shared_envoy.url, ca=authority)
    name = f"bt_u{os.geteuid()}"
    assert str(raised.value) == (
        f"{shared_envoy.url} requires a token, and none was sent. None was found in BEARER_TOKEN, BEARER_TOKEN_FILE, "
        f"{tmp_path}/{name}, /tmp/{name}, and no token service is configured (EAF_TOKEN_SERVICE). Get a token "
        "from your facility and save it in one of these places, or name its file: %triton_connect "
        "--token-file FILE, or TokenFile(FILE) as the token of connect."
    )


@pytest.mark.parametrize("attack", REFUSALS)
def test_a_refused_token_is_answered_with_the_reason(shared_envoy, authority, issuer, attack):
    make, _, _ = ATTACKS[attack]
    with pytest.raises(NotAuthorized) as raised:
        eaf_inference.connect(shared_envoy.url, ca=authority, token=make(issuer))
    assert str(raised.value) == f"{shared_envoy.url} refuses your token: {REFUSALS[attack]}"


@pytest.fixture
def ports(monkeypatch):
    """Replace the default ports by unused ones, and give a function that sets them."""

    def usual(**others):
        for scheme, port in others.items():
            monkeypatch.setitem(address._DEFAULT_PORTS, scheme, port)

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    usual(grpc=port, grpcs=port)
    return usual


def test_a_bare_host_is_reached_on_the_port_that_answers(zoo, ports, tmp_path, monkeypatch):
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate = authority.issue_cert("localhost")
    credentials = grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
    )
    target = zoo.grpc.removeprefix("grpc://")
    token = make_token()
    with edge_proxy(target) as (plain, plain_port), edge_proxy(target, credentials=credentials) as (safe, safe_port):
        ports(grpc=plain_port)
        with eaf_inference.connect("localhost", token=token) as triton:
            assert triton.endpoint.urls == (f"grpc://localhost:{plain_port}",)
            assert f"<Connection to grpc://localhost:{plain_port} (explicit URL)" in repr(triton)
            assert [each.chosen for each in triton.attempts] == [False, True]
            assert triton.attempts[0].outcome == "connection refused: nothing listens there"
        assert token in plain.seen
        ports(grpcs=safe_port)
        plain.seen.clear()
        monkeypatch.setenv("EAF_TRITON_URL", "LOCALHOST/")
        with eaf_inference.connect(token=token, ca=tmp_path / "ca.pem") as triton:  # both answer
            assert triton.endpoint.urls == (f"grpcs://localhost:{safe_port}",)
        assert token in safe.seen
        assert token not in plain.seen


def test_a_token_does_not_follow_a_bare_host_to_its_plain_port(ports, zoo):
    here, token = "0.0.0.0", make_token()  # noqa: S104  (which leads to loopback, and is not known as such)
    with edge_proxy(zoo.grpc.removeprefix("grpc://")) as (handler, port):
        ports(grpc=port)
        with pytest.raises(
            NoServerFound, match=r"(?s)at any of these addresses.*would travel unencrypted to grpc://"
        ):
            eaf_inference.connect(here, token=token)
        assert not handler.seen
        with eaf_inference.connect(here, token=token, allow_insecure_token=True) as triton:
            assert triton.endpoint.url == f"grpc://{here}:{port}"


def test_an_explicit_url_that_fails_is_answered_with_the_reason():
    with pytest.raises(NoServerFound) as raised:
        eaf_inference.connect("grpc://127.0.0.1:1")
    assert str(raised.value) == (
        "No Triton inference server answers at grpc://127.0.0.1:1: connection refused: nothing listens there. "
        + CHECK
    )
    with pytest.raises(NoServerFound, match=r"at grpc://triton\.invalid:8001: there is no host of that name\."):
        eaf_inference.connect("grpc://triton.invalid:8001")


def test_a_port_without_grpc_is_recognised(zoo):
    for url in (zoo.http, zoo.metrics.removesuffix("/metrics")):
        target = url.replace("http://", "grpc://")
        with pytest.raises(NoServerFound) as raised:
            eaf_inference.connect(target)
        assert str(raised.value).startswith(f"No Triton inference server answers at {target}: ")
        assert_plain(str(raised.value))


def test_no_answer_and_no_configured_server_are_different_errors(monkeypatch):
    with pytest.raises(NoServerFound, match="Nothing names a Triton inference server. Give its address"):
        eaf_inference.connect()
    monkeypatch.setenv("EAF_TRITON_URL", "grpc://127.0.0.1:1")
    with pytest.raises(NoServerFound, match="No Triton inference server answers where one is named. Check host"):
        eaf_inference.connect()


def test_a_proxy_that_was_not_used_is_named_where_nothing_answers(monkeypatch):
    with hostile_proxy(monkeypatch):
        for name in ("grpc_proxy", "GRPC_PROXY"):
            monkeypatch.delenv(name)
        with pytest.raises(NoServerFound) as raised:
            eaf_inference.connect("grpcs://triton.invalid")
        remark = (
            "The proxy of https_proxy was not used, because it would see your token: this machine has to reach "
            "triton.invalid directly. If it does, add triton.invalid to NO_PROXY to hide this hint."
        )
        assert str(raised.value).endswith(remark)
        service = TokenService("http://triton.invalid/token/", environment={"JUPYTERHUB_API_TOKEN": "0123456789"})
        with pytest.raises(ServerUnavailable, match="add triton.invalid to NO_PROXY"):
            service.read()
        monkeypatch.setenv("NO_PROXY", "localhost,.invalid")
        with pytest.raises(NoServerFound) as raised:
            eaf_inference.connect("grpcs://triton.invalid")
        assert str(raised.value).endswith(CHECK)


def test_a_proxy_that_refuses_a_download_is_named(monkeypatch):
    refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with saying(refusal) as proxy, Path(os.devnull).open() as lock:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        for name in ("https_proxy", "no_proxy", "NO_PROXY", "grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        pip = [sys.executable, "-m", "pip", "--isolated", "download", "--retries=1", "--index-url=https://a.invalid"]
        with pytest.raises(ConfigurationError, match="The proxy of HTTPS_PROXY refused the connection or does not"):
            _run([*pip, "nothing"], lock.fileno(), lambda _: None)


def assert_plain(text):
    """Assert that a text has no internals of gRPC, C++ or Python."""
    for internal in (
        ".cc",
        ".h:",
        ".py",
        "ipv4:",
        "ipv6:",
        "errno",
        "Traceback",
        "GOAWAY",
        "RST_STREAM",
        "last error",
    ):
        assert internal not in text


def test_a_broken_connection_is_reported_in_plain_words(caplog):
    caplog.set_level("DEBUG", "eaf_inference")
    with serving(lambda connection: connection.recv(1)) as port, pytest.raises(NoServerFound) as raised:
        eaf_inference.connect(f"grpc://127.0.0.1:{port}", timeout=1)
    assert_plain(str(raised.value))
    assert "UNAVAILABLE" in caplog.text or "DEADLINE" in caplog.text  # gRPC's own text


@pytest.mark.parametrize(
    ("status", "details", "words"),
    [
        (
            grpc.StatusCode.INTERNAL,
            (
                "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Add node. "
                "Name:'' Status Message: /onnxruntime_src/onnxruntime/core/providers/cpu/math/element_wise_ops.h:560 "
                "void onnxruntime::BroadcastIterator::Append(ptrdiff_t, ptrdiff_t) axis == 1 || axis == largest was "
                "false. Attempting to broadcast an axis by a dimension other than 1. 3 by 4"
            ),
            (
                'it says "Add: axis == 1 || axis == largest was false. Attempting to broadcast an axis by a '
                'dimension other than 1. 3 by 4"'
            ),
        ),
        (
            grpc.StatusCode.INTERNAL,
            (
                "[ONNXRuntimeError] : 1 : FAIL : [/__w/1/s/onnxruntime/core/graph/model.cc:123 "
                "onnxruntime::Model::Model] the file is damaged"
            ),
            'it says "the file is damaged"',
        ),
        (
            grpc.StatusCode.INTERNAL,
            (
                "Failed to process the request(s) for model instance 'jets_0_0', message: ValueError: too few jets"
                "\n\nAt:\n  /models/jets/1/model.py(12): execute\n"
            ),
            'it says "ValueError: too few jets"',
        ),
        (
            grpc.StatusCode.UNAVAILABLE,
            (
                "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:18001: Failed to connect to "
                "remote host: connect: Connection refused (111)"
            ),
            "connection refused: nothing listens there",
        ),
        (
            grpc.StatusCode.UNAVAILABLE,
            "GOAWAY received; Error code: 0; Debug Text: max_age",
            "the connection broke off: the server, or a proxy on the way, closed it",
        ),
        (
            grpc.StatusCode.UNAVAILABLE,
            "Received http2 header with status: 502",
            "a proxy on the way cannot reach it, or does not forward gRPC",
        ),
    ],
)
def test_error_messages_contain_no_internals(zoo, caplog, status, details, words):
    caplog.set_level("DEBUG", "eaf_inference")
    with (
        edge_proxy(zoo.grpc.removeprefix("grpc://")) as (handler, port),
        eaf_inference.connect(f"grpc://127.0.0.1:{port}") as triton,
    ):
        model = triton.model("fixed")
        triton.limits = type(triton.limits)(time_budget=0)
        handler.faults = [(status, details, ())]
        with pytest.raises(InferenceError) as raised:
            model({"values": np.ones((1, 3)), "number": np.ones(1, int)})
    assert f": {words}." in str(raised.value)
    assert_plain(str(raised.value))
    assert details.split("\n")[0] in caplog.text


def test_a_models_refusal_is_shown_without_the_backends_internals(connection):
    with pytest.raises(InferenceError) as raised:
        connection.model("neighbours")({"x": np.ones((1, 1, 3), np.float32)})
    assert "TopK: k argument [20] should not be greater than specified axis dim value [3]" in str(raised.value)
    assert "Error]" not in str(raised.value)
