"""The door: who is let in, as whom, to what, and what the others are told; a real Envoy and two real Tritons."""

from __future__ import annotations

import json
import socket
import ssl
import stat
from contextlib import ExitStack
from urllib.error import HTTPError
from urllib.request import urlopen

import jwt
import numpy as np
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from envoy_facility import SERVICE, Caller, Log, counters, envoy, inference
from recorded.replay import until

import eaf_inference
from eaf_inference.errors import ConfigurationError, InvalidInput
from eaf_inference.facility.envoy import EnvoyServer
from eaf_inference.facility.ports import free_ports
from eaf_inference.inference import protocol

MAY_BE_CALLED = {
    *("ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig"),
    *("ModelStatistics", "RepositoryIndex", "ModelInfer"),
}
SMALL = 64 * 1024


@pytest.fixture
def caller(door_of_two):
    with Caller(door_of_two) as connection:
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
def test_who_is_nobody_is_refused_and_written_down(door_of_two, caller, issuer, attack):
    make, status, why = ATTACKS[attack]
    log = Log(door_of_two)
    assert caller.infer(make(issuer)).status == status
    (line,) = log.lines()
    assert line["grpc_status"].upper() == status.replace("_", "")
    assert why in line["why"]
    assert (line["user"] or "").strip() == ""
    assert line["upstream"] is None  # no Triton heard of it


def test_what_a_client_says_of_itself_is_not_believed(door_of_two, caller, issuer):
    log, before = Log(door_of_two), counters(door_of_two)
    spoofed = {"x_user": "bob", "x_forwarded_for": "192.0.2.7", "x_forwarded_user": "bob", "x_eaf_model": "rest"}
    assert caller.infer(issuer.token("mallory"), rows=3, **spoofed).status == "OK"
    (line,) = log.lines()
    assert (line["user"], line["model"], line["rows"], line["from"]) == ("mallory", "nap", "3", "127.0.0.1")
    after = counters(door_of_two)
    grown = {name for name in after if after[name] != before.get(name, 0) and "bytes" not in name}
    assert grown == {f'envoy_eaf_{name}{{user="mallory",model="nap"}}' for name in ("requests", "rows")}


def test_only_what_users_need_can_be_called(door_of_two, caller, issuer):
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


def test_whether_it_is_alive_anybody_may_ask(door_of_two, caller, issuer):
    log = Log(door_of_two)
    assert [caller.ask(name).status for name in ("ServerLive", "ServerReady")] == ["OK", "OK"]
    assert caller.ask("ServerReady", b"", issuer.token("bob")).status == "OK"
    assert caller.ask("ServerReady", b"", issuer.token(age=700)).status == "UNAUTHENTICATED"
    assert [line["user"] for line in log.lines(4)] == [None, None, "bob", None]


def test_a_token_in_the_url_is_not_taken_and_not_written_down(door_of_two, caller, issuer):
    token = issuer.token()
    log = Log(door_of_two)
    assert caller.ask(f"ModelInfer?access_token={token}", inference()).status == "UNAUTHENTICATED"
    assert log.lines()[0]["method"] == f"{SERVICE}/ModelInfer"
    assert token not in door_of_two.access_log.read_text()


def test_a_request_that_is_too_large_is_told_so(pair, issuer):
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


def test_nobody_can_fill_the_counters_with_names(door_of_two, caller, issuer):
    before, log = set(counters(door_of_two)), Log(door_of_two)
    token = issuer.token("mallory")
    for number in range(20):
        assert caller.infer(token, model=f"nothing-{number}").status == "NOT_FOUND"
    caller.infer(token, model="n" * 1_000_000)  # Triton's complaint is larger than a header may be
    assert max(len(line["model"]) for line in log.lines(21)) == 128
    new = {name for name in set(counters(door_of_two)) - before if 'user="mallory"' in name}
    assert not [name for name in new if "nothing" in name]
    assert len(new) <= 6  # failures, bytes in and out, of two statuses


def test_failures_are_counted_by_model_where_the_operator_named_it(door_of_two, caller, issuer):
    assert caller.ask("ModelInfer", b"\n\x03nap", issuer.token("carol")).status == "INVALID_ARGUMENT"
    assert counters(door_of_two)['envoy_eaf_failures{user="carol",status="InvalidArgument",model="nap"}'] == 1


def test_a_request_that_ends_connections_to_triton_costs_nobody_else_a_call(door_of_two, issuer):
    request = protocol.ModelInferRequest.FromString(inference())
    request.inputs[0].name = "i" * 200_000  # comes back in Triton's complaint, which is larger than a header may be
    with Caller(door_of_two) as theirs, Caller(door_of_two) as caller:
        calls = [theirs.begin("ModelInfer", inference(), issuer.token("bob")) for _ in range(12)]
        for _ in range(4):
            assert caller.ask("ModelInfer", request.SerializeToString(), issuer.token()).status == "UNAVAILABLE"
        assert all(call.result() for call in calls)
    ejected = door_of_two.statistics(r"triton-interactive\.outlier_detection\.ejections_active")
    assert list(ejected.values()) == [0]


def test_500_idle_connections_keep_nobody_out(door_of_two, issuer):
    address = ("127.0.0.1", int(door_of_two.url.rpartition(":")[2]))
    context = ssl.create_default_context(cadata=door_of_two.authority)
    context.set_alpn_protocols(["h2"])
    with ExitStack() as stack:
        for number in range(500):
            connection = stack.enter_context(socket.create_connection(address, timeout=10))
            if number % 2:
                stack.enter_context(context.wrap_socket(connection, server_hostname="localhost"))
        with Caller(door_of_two) as caller:
            assert caller.infer(issuer.token("bob")).status == "OK"


def test_places_that_idle_connections_took_are_free_again(pair, issuer):
    limits = {"max_connections": 20, "idle_timeout": 1.0, "handshake_timeout": 1.0}
    with envoy(issuer, pair, **limits) as server, ExitStack() as stack:
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        for _ in range(30):
            stack.enter_context(socket.create_connection(address, timeout=10))
        until(lambda: any(server.statistics("downstream_global_cx_overflow").values()))
        with Caller(server) as caller:
            until(lambda: caller.infer(issuer.token("bob")).status == "OK")


def test_everything_but_the_door_listens_on_loopback_and_two_pages_are_for_others(pair, issuer):
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


def test_no_secret_is_where_others_could_read_it(pair, issuer):
    token = issuer.token()
    with envoy(issuer, pair) as server, Caller(server) as caller:
        log = Log(server)
        assert caller.infer(token).status == "OK"
        assert caller.infer(f"{token}x").status == "UNAUTHENTICATED"
        (first, _) = log.lines(2)
        assert first["jti"] == jwt.decode(token, options={"verify_signature": False})["jti"]
        directory, process = server.ca.parent, psutil.Process(server.pid)
        key = (directory / "key.pem").read_text().splitlines()[1]
        said = (
            json.dumps([process.cmdline(), process.environ()])
            + server.log.read_text()
            + server.access_log.read_text()
        )
        assert not [secret for secret in (token, token.rpartition(".")[2], key) if secret in said]
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        files = [*directory.iterdir(), server.log, server.access_log]
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
        assert [path.name for path in directory.iterdir() if path.name.startswith(".")] == []
    assert not directory.exists()


def test_a_new_configuration_is_taken_up_while_calls_go_on(pair, issuer):
    settings = {"share": 10_000}
    with envoy(issuer, pair, settings) as server, Caller(server) as caller:
        call = caller.begin("ModelInfer", inference(), issuer.token())
        settings["tiers"] = {"interactive": 7}
        server.reload()
        assert call.result()
        assert caller.infer(issuer.token()).status == "OK"
        until(lambda: "cluster.triton-batch.upstream_cx_total" not in server.statistics("triton-batch"))
        settings["certificate"] = __file__
        with pytest.raises(ConfigurationError, match="refuses the new configuration"):
            server.reload()
        assert caller.infer(issuer.token()).status == "OK"


def test_what_cannot_start_says_why_and_leaves_nothing(pair, issuer, door_of_two):
    with pytest.raises(ConfigurationError, match=r"/nowhere\.pem"), envoy(issuer, pair, key="/nowhere.pem"):
        pass
    taken = int(door_of_two.url.rpartition(":")[2])
    with pytest.raises(ConfigurationError, match=f"port {taken} on 127.0.0.1 is taken by another process"):
        EnvoyServer(dict, port=taken).launch()
