"""Envoy's access control: who may call what, and how the others are refused; real Envoy, two real Tritons."""

from __future__ import annotations

import json
import socket
import ssl
import stat
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import jwt
import numpy as np
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from envoy_facility import SERVICE, Caller, Log, counters, envoy, inference
from waiting import until

import eaf_inference
from eaf_facility.envoy.tls import tls_secret
from eaf_facility.process.ports import free_ports
from eaf_facility.servers.certificates import make_certificates
from eaf_inference._files import write_private
from eaf_inference.errors import ConfigurationError, InvalidInput
from eaf_inference.inference import protocol

MAY_BE_CALLED = {
    *("ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig"),
    *("ModelStatistics", "RepositoryIndex", "ModelInfer"),
}
SMALL = 64 * 1024


@pytest.fixture
def caller(shared_envoy):
    with Caller(shared_envoy) as connection:
        yield connection


def by_foreign_key(issuer):
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    kid = jwt.get_unverified_header(issuer.token())["kid"]
    return jwt.encode(claims, Ed25519PrivateKey.generate(), algorithm="EdDSA", headers={"kid": kid})


def unsigned(issuer):
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    return jwt.encode(claims, None, algorithm="none")


ATTACKS = {
    "no token": (lambda _: None, "UNAUTHENTICATED", "Jwt_is_missing"),
    "expired": (lambda issuer: issuer.token(age=700), "UNAUTHENTICATED", "Jwt_is_expired"),
    "never expires": (lambda issuer: issuer.token(exp=None), "UNAUTHENTICATED", "Jwt"),
    "wrong audience": (lambda issuer: issuer.token(aud="dask"), "PERMISSION_DENIED", "Audiences"),
    "wrong issuer": (lambda issuer: issuer.token(iss="somebody"), "UNAUTHENTICATED", "issuer"),
    "foreign key": (by_foreign_key, "UNAUTHENTICATED", "Jwt_verification_fails"),
    "alg: none": (unsigned, "UNAUTHENTICATED", "Jwt"),
    "no sub": (lambda issuer: issuer.token(None), "PERMISSION_DENIED", "rbac_access_denied"),
    "empty sub": (lambda issuer: issuer.token(" "), "PERMISSION_DENIED", "rbac_access_denied"),
    "a Hub's token": (lambda _: "0123456789abcdef0123456789abcdef", "UNAUTHENTICATED", "Jwt"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_call_without_a_valid_token_is_refused_and_logged(shared_envoy, caller, issuer, attack):
    make, status, why = ATTACKS[attack]
    log = Log(shared_envoy)
    assert caller.infer(make(issuer)).status == status
    (line,) = log.lines()
    assert line["grpc_status"].upper() == status.replace("_", "")
    assert why in line["why"]
    assert (line["user"] or "").strip() == ""
    assert line["upstream"] is None  # it reached no Triton


def test_identity_headers_of_the_client_are_ignored(shared_envoy, caller, issuer):
    log, before = Log(shared_envoy), counters(shared_envoy)
    spoofed = {"x_user": "bob", "x_forwarded_for": "192.0.2.7", "x_forwarded_user": "bob", "x_eaf_model": "rest"}
    assert caller.infer(issuer.token("mallory"), rows=3, **spoofed).status == "OK"
    (line,) = log.lines()
    assert (line["user"], line["model"], line["rows"], line["from"]) == ("mallory", "nap", "3", "127.0.0.1")
    after = counters(shared_envoy)
    grown = {name for name in after if after[name] != before.get(name, 0) and "bytes" not in name}
    assert grown == {f'envoy_eaf_{name}{{user="mallory",model="nap"}}' for name in ("requests", "rows")}


def test_users_can_call_only_the_methods_they_need(shared_envoy, caller, issuer):
    token = issuer.token()
    methods = protocol.ModelInferRequest.DESCRIPTOR.file.services_by_name["GRPCInferenceService"].methods_by_name
    assert set(methods) > MAY_BE_CALLED
    others = [f"{SERVICE}/{name}" for name in methods if name not in MAY_BE_CALLED]
    tricks = [
        f"{SERVICE}/ServerLive/../RepositoryModelUnload",
        f"{SERVICE}/ModelInfer/../RepositoryModelUnload",
        f"/{SERVICE}/RepositoryModelUnload",
        f"{SERVICE}/RepositoryModelUnload?/ModelInfer",
        "/grpc.health.v1.Health/Check",
        "/",
    ]
    assert {path: caller.ask(path, b"", token).status for path in others + tricks} == dict.fromkeys(
        others + tricks, "PERMISSION_DENIED"
    )
    assert caller.ask(f"{SERVICE}/ServerLive%2f..%2fRepositoryModelUnload", b"", token).status == "INTERNAL"
    assert [caller.ask(name, b"", token).status for name in ("ServerMetadata", "RepositoryIndex")] == ["OK", "OK"]


def test_health_checks_need_no_token(shared_envoy, caller, issuer):
    log = Log(shared_envoy)
    assert [caller.ask(name).status for name in ("ServerLive", "ServerReady")] == ["OK", "OK"]
    assert caller.ask("ServerReady", b"", issuer.token("bob")).status == "OK"
    assert caller.ask("ServerReady", b"", issuer.token(age=700)).status == "UNAUTHENTICATED"
    assert [line["user"] for line in log.lines(4)] == [None, None, "bob", None]


def test_a_token_in_the_url_is_neither_accepted_nor_logged(shared_envoy, caller, issuer):
    token = issuer.token()
    log = Log(shared_envoy)
    assert caller.ask(f"ModelInfer?access_token={token}", inference()).status == "UNAUTHENTICATED"
    assert log.lines()[0]["method"] == f"{SERVICE}/ModelInfer"
    assert token not in shared_envoy.access_log.read_text()


def test_a_request_that_is_too_large_is_refused_with_the_limit(pair, issuer):
    with envoy(issuer, pair, largest_request=SMALL) as server, Caller(server) as caller:
        token, log = issuer.token(), Log(server)
        assert caller.infer(token, rows=SMALL // 8 - 100).status == "OK"
        answer = caller.infer(token, rows=SMALL // 8 + 1)
        assert (answer.status, "larger than max 65536 bytes" in answer.details) == ("INVALID_ARGUMENT", True)
        assert log.lines(2)[1]["why"] == "request_payload_too_large"
        with eaf_inference.connect(server.url, token=token, ca=server.ca) as connection:
            model = connection.model("nap", cell_budget=1_000_000)
            with pytest.raises(InvalidInput, match="larger than max"):
                model({"x": np.zeros((SMALL, 2), np.float32)})


def test_users_cannot_fill_the_counters_with_invented_model_names(shared_envoy, caller, issuer):
    before, log = set(counters(shared_envoy)), Log(shared_envoy)
    token = issuer.token("mallory")
    for number in range(20):
        assert caller.infer(token, model=f"nothing-{number}").status == "NOT_FOUND"
    caller.infer(token, model="n" * 1_000_000)  # Triton's error message exceeds the limit of a header
    assert max(len(line["model"]) for line in log.lines(21)) == 128
    new = {name for name in set(counters(shared_envoy)) - before if 'user="mallory"' in name}
    assert not [name for name in new if "nothing" in name]
    assert len(new) <= 6  # failures, bytes in and out, for two statuses


def test_failures_are_counted_by_name_for_the_operators_models(shared_envoy, caller, issuer):
    assert caller.ask("ModelInfer", b"\n\x03nap", issuer.token("carol")).status == "INVALID_ARGUMENT"
    assert counters(shared_envoy)['envoy_eaf_failures{user="carol",status="InvalidArgument",model="nap"}'] == 1


def test_a_request_that_ends_a_connection_to_triton_hits_no_other_user(shared_envoy, issuer):
    request = protocol.ModelInferRequest.FromString(inference())
    request.inputs[0].name = "i" * 200_000  # Triton's error message repeats it, and exceeds the limit of a header
    with Caller(shared_envoy) as theirs, Caller(shared_envoy) as caller:
        calls = [theirs.begin("ModelInfer", inference(), issuer.token("bob")) for _ in range(12)]
        for _ in range(4):
            assert caller.ask("ModelInfer", request.SerializeToString(), issuer.token()).status == "UNAVAILABLE"
        assert all(call.result() for call in calls)
    ejected = shared_envoy.statistics(r"triton-interactive\.outlier_detection\.ejections_active")
    assert list(ejected.values()) == [0]


def test_500_idle_connections_do_not_lock_users_out(shared_envoy, issuer):
    address = ("127.0.0.1", int(shared_envoy.url.rpartition(":")[2]))
    context = ssl.create_default_context(cadata=shared_envoy.authority)
    context.set_alpn_protocols(["h2"])
    with ExitStack() as stack:
        for number in range(500):
            connection = stack.enter_context(socket.create_connection(address, timeout=10))
            if number % 2:
                stack.enter_context(context.wrap_socket(connection, server_hostname="localhost"))
        with Caller(shared_envoy) as caller:
            assert caller.infer(issuer.token("bob")).status == "OK"


def test_idle_connections_are_closed_and_their_slots_freed(pair, issuer):
    limits = {"max_connections": 20, "idle_timeout": 1.0, "handshake_timeout": 1.0}
    with envoy(issuer, pair, **limits) as server, ExitStack() as stack:
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        for _ in range(30):
            stack.enter_context(socket.create_connection(address, timeout=10))
        until(lambda: any(server.statistics("downstream_global_cx_overflow").values()))
        with Caller(server) as caller:
            until(lambda: caller.infer(issuer.token("bob")).status == "OK")


def test_only_two_metrics_pages_are_reachable_beyond_loopback(pair, issuer):
    (port,) = free_ports(1)
    with envoy(issuer, pair, metrics_port=port) as server:
        listening = [each for each in psutil.Process(server.pid).net_connections("inet") if each.status == "LISTEN"]
        assert {each.laddr.ip for each in listening} == {"127.0.0.1"}
        with urlopen(f"http://127.0.0.1:{port}/stats/prometheus", timeout=10) as page:
            assert b"envoy_server_uptime" in page.read()
        with urlopen(f"http://127.0.0.1:{port}/ready", timeout=10) as page:
            assert page.read() == b"LIVE\n"
        for path in ("/", "/config_dump", "/stats", "/stats/prometheus/../quitquitquit"):
            with pytest.raises(HTTPError, match="404"):
                urlopen(f"http://127.0.0.1:{port}{path}", timeout=10)


def test_secrets_are_not_readable_by_others(pair, issuer):
    token = issuer.token()
    with envoy(issuer, pair) as server, Caller(server) as caller:
        log = Log(server)
        assert caller.infer(token).status == "OK"
        assert caller.infer(f"{token}x").status == "UNAUTHENTICATED"
        (first, _) = log.lines(2)
        assert first["jti"] == jwt.decode(token, options={"verify_signature": False})["jti"]
        directory, process = server.ca.parent, psutil.Process(server.pid)
        key = (directory / "key.pem").read_text().splitlines()[1]
        exposed = (
            json.dumps([process.cmdline(), process.environ()])
            + server.log.read_text()
            + server.access_log.read_text()
        )
        assert not [secret for secret in (token, token.rpartition(".")[2], key) if secret in exposed]
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        files = [*directory.iterdir(), server.log, server.access_log]
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
        assert [path.name for path in directory.iterdir() if path.name.startswith(".")] == []
    assert not directory.exists()


def served(server):
    """Return the serial number of the certificate that Envoy serves to new connections."""
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    context = ssl._create_unverified_context()  # noqa: S323 - its authority changes with it
    with socket.create_connection(address, timeout=10) as connection, context.wrap_socket(connection) as tls:
        return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True)).serial_number


def serial_of(certificates):
    return x509.load_pem_x509_certificate(certificates.certificate.encode()).serial_number


def test_a_renewed_certificate_is_served_and_a_wrong_pair_is_not(pair, issuer):
    token = issuer.token()
    with envoy(issuer, pair) as server, Caller(server) as caller:
        certificate, key = Path(server.place.certificate), Path(server.place.key)
        first, new = served(server), make_certificates()
        write_private(certificate, new.certificate)  # without its key
        until(lambda: "KEY_VALUES_MISMATCH" in server.log.read_text(encoding="utf-8"))
        assert served(server) == first
        call = caller.begin("ModelInfer", inference(), token)
        write_private(key, new.key)
        until(lambda: served(server) == serial_of(new))
        assert call.result()
        assert caller.infer(token).status == "OK"  # on the connection from before
        write_private(certificate, new.certificate[:300])
        until(lambda: "Failed to load certificate chain" in server.log.read_text(encoding="utf-8"))
        assert served(server) == serial_of(new)
        with urlopen(server.metrics, timeout=10) as page:  # noqa: S310 - loopback
            assert 'envoy_sds_key_rotation_failed{envoy_xds_resource_name="edge_proxy"} 2' in page.read().decode()


def test_a_certificate_that_kubernetes_swaps_is_served(pair, issuer, tmp_path):
    def mount(version, certificates):  # as the kubelet does for a Secret
        (tmp_path / version).mkdir()
        for name, text in (("tls.crt", certificates.certificate), ("tls.key", certificates.key)):
            write_private(tmp_path / version / name, text)
        (tmp_path / "..new").symlink_to(version)
        (tmp_path / "..new").rename(tmp_path / "..data")

    first, new = make_certificates(), make_certificates()
    mount("..1", first)
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    with envoy(issuer, pair) as server:
        secret = tls_secret(str(tmp_path / "tls.crt"), str(tmp_path / "tls.key"))
        write_private(Path(server.place.tls_secret), json.dumps(secret))
        until(lambda: served(server) == serial_of(first))
        mount("..2", new)
        until(lambda: served(server) == serial_of(new))


def test_a_failed_start_gives_the_reason_and_leaves_nothing_behind(pair, issuer):
    with (
        pytest.raises(ConfigurationError, match="/nowhere/access"),
        envoy(issuer, pair, access_log="/nowhere/access"),
    ):
        pass
