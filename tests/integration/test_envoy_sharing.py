"""Envoy under load and during faults: shares, tiers, key rotation, restarts; by raw calls and by our client."""

from __future__ import annotations

import ssl
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict

import awkward as ak
import pytest
from envoy_facility import MEBIBYTE, Caller, Log, envoy, inference
from issuer import Issuer
from rows import assert_undisturbed, chunks, inferences
from waiting import until

import eaf_inference
from eaf_facility.envoy.configuration import as_yaml, configuration
from eaf_facility.envoy.settings import Envoy
from eaf_facility.servers.certificates import make_certificates
from eaf_facility.servers.envoy import validate
from eaf_facility.token_policy import TokenPolicy


@contextmanager
def connected(server, token):
    with eaf_inference.connect(server.url, token=token, ca=server.ca) as connection:
        yield connection


def test_a_user_over_her_share_is_asked_to_retry_and_others_are_served(pair, issuer):
    tokens = [issuer.token("greedy"), issuer.token("greedy", tier="batch")]  # neither tier nor headers give her more

    def ask(number):
        return greedy.ask("ServerMetadata", b"", tokens[number % 2], x_user=f"user-{number}")

    with envoy(issuer, pair, share=40) as server, Caller(server) as greedy, Caller(server) as other:
        log = Log(server)
        with ThreadPoolExecutor(16) as pool:
            began = time.monotonic()
            storm = pool.map(ask, range(300))
            others = [other.infer(issuer.token("bob")) for _ in range(10)]
            answers = list(storm)
            took = time.monotonic() - began
        assert {answer.status for answer in others} == {"OK"}
        assert Counter(answer.status for answer in answers)["OK"] <= 10 + 40 * (took + 0.1)
        refused = [answer for answer in answers if answer.status == "RESOURCE_EXHAUSTED"]
        assert {answer.details for answer in refused} == {"you have used your share of 40 calls a second"}
        advice = {(answer.metadata["retry-after"], answer.metadata["grpc-retry-pushback-ms"]) for answer in refused}
        assert advice == {("1", "250")}
        limited = [line for line in log.lines(310) if line["why"] == "local_rate_limited"]
    assert {(line["user"], line["grpc_status"]) for line in limited} == {("greedy", "ResourceExhausted")}
    assert len(limited) == len(refused) > 50


def test_our_client_retries_when_asked_and_gets_every_score(pair, issuer, jagged):
    with envoy(issuer, pair, share=15) as server, connected(server, issuer.token("greedy")) as connection:
        log = Log(server)
        model = connection.model("sums")
        parts = list(model.map(chunks(jagged)))
        calls = log.lines(30)
    assert_undisturbed(ak.concatenate(parts), jagged)
    refused = [line for line in calls if line["why"] == "local_rate_limited"]
    assert refused
    assert len(refused) < len(calls) / 2  # it waits as asked, instead of retrying at once


def test_each_tier_has_its_own_limit_of_calls(pair, issuer):
    with envoy(issuer, pair, share=1000, tiers={"interactive": 100, "batch": 1}) as server:
        with Caller(server) as caller:
            calls = [caller.begin("ModelInfer", inference(), issuer.token("bob", tier="batch")) for _ in range(6)]
            interactive = [caller.infer(issuer.token()) for _ in range(2)]
            unknown = caller.infer(issuer.token("carol", tier="platinum"))
            none = caller.infer(issuer.token("dave", tier=None))
            spoofed = caller.begin("ModelInfer", inference(), issuer.token("bob", tier="batch"))
            states = Counter(call.code().name for call in (*calls, spoofed))
        assert {answer.status for answer in (*interactive, unknown, none)} == {"OK"}
        assert set(states) == {"OK", "UNAVAILABLE"}
        refused = next(call for call in calls if call.code().name == "UNAVAILABLE")
        assert "overflow" in refused.details()


def test_our_client_gets_every_score_in_a_crowded_tier(pair, issuer, jagged):
    with envoy(issuer, pair, share=1000, tiers={"interactive": 100, "batch": 1}) as server:
        with connected(server, issuer.token("bob", tier="batch")) as connection:
            parts = list(connection.model("sums").map(chunks(jagged)))
        assert server.statistics("triton-batch.upstream_rq_active_overflow|triton-batch.upstream_rq_pending_overflow")
    assert_undisturbed(ak.concatenate(parts), jagged)


def test_new_keys_are_accepted_and_removed_ones_refused(pair):
    with Issuer() as issuer, envoy(issuer, pair) as server, Caller(server) as caller:
        old = issuer.token()
        assert caller.infer(old).status == "OK"
        issuer.rotate()
        until(lambda: caller.infer(issuer.token()).status == "OK")
        assert caller.infer(old).status == "OK"
        issuer.rotate(forget=True)
        until(lambda: caller.infer(old).status == "UNAUTHENTICATED")
        assert caller.infer(issuer.token()).status == "OK"


def test_keys_are_fetched_over_tls_with_a_verified_certificate(pair, shared_envoy, tmp_path):
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    made = make_certificates()
    certificate.write_text(made.certificate)
    key.write_text(made.key)
    trusted = tmp_path / "ca.pem"
    trusted.write_text(made.authority)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with Issuer(context) as issuer:
        with envoy(issuer, pair, jwks_ca=str(trusted)) as server, Caller(server) as caller:
            assert caller.infer(issuer.token()).status == "OK"
        with envoy(issuer, pair, jwks_ca=str(shared_envoy.ca)) as server, Caller(server) as caller:
            assert caller.infer(issuer.token()).status == "UNAUTHENTICATED"


def test_it_keeps_serving_while_the_token_service_is_down(pair):
    failures = "http.edge_proxy.jwt_authn.jwks_fetch_failed"
    with Issuer() as issuer, envoy(issuer, pair) as server, Caller(server) as caller:
        assert caller.infer(issuer.token()).status == "OK"
        issuer.close()
        until(lambda: server.statistics(failures)[failures] >= 5)  # twice the lifetime of its cached keys
        assert caller.infer(issuer.token()).status == "OK"
        issuer.open()
        issuer.rotate()
        until(lambda: caller.infer(issuer.token()).status == "OK")


def test_killing_a_triton_mid_run_loses_no_score_and_no_call(pair, issuer, jagged):
    many = ak.concatenate([jagged] * 4)
    others, over = [], threading.Event()

    # its reply is a few bytes long: once a reply has begun, Envoy cannot retry the call on another Triton
    large = inference("sums", shape=(1, 2, 21 * MEBIBYTE // 8))

    def ask_once_each(caller, request):
        while not over.is_set():
            others.append(caller.ask("ModelInfer", request, issuer.token("bob")).status)

    with (
        envoy(issuer, pair, share=10_000) as server,
        connected(server, issuer.token()) as connection,
        Caller(server) as caller,
        ThreadPoolExecutor(6) as pool,
    ):
        log = Log(server)
        model = connection.model("sums")
        for request in (*[inference()] * 5, large):
            pool.submit(ask_once_each, caller, request)

        def disturbed():
            for number, chunk in enumerate(chunks(many, 120)):
                if number == 30:
                    pair[0].kill()
                yield chunk

        try:
            scores = ak.concatenate(list(model.map(disturbed())))
        finally:
            over.set()
            pair[0].restart()
        lines = log.lines(120)
    assert_undisturbed(scores, many)
    assert set(others) == {"OK"}
    assert any(line["attempts"] > 1 and line["grpc_status"] == "OK" for line in lines)


def test_restarting_envoy_mid_run_loses_no_score(pair, issuer, jagged):
    many = ak.concatenate([jagged] * 4)
    before = sum(inferences(each) for each in pair)
    with envoy(issuer, pair, share=10_000) as server, connected(server, issuer.token()) as connection:
        model = connection.model("sums")
        reviver = threading.Thread(target=lambda: (server.kill(), server.restart()))

        def disturbed():
            for number, chunk in enumerate(chunks(many, 120)):
                if number == 30:
                    reviver.start()
                yield chunk

        scores = ak.concatenate(list(model.map(disturbed())))
        reviver.join()
    assert_undisturbed(scores, many)
    assert sum(inferences(each) for each in pair) >= before + len(many)


def test_with_affinity_a_model_stays_on_one_triton_until_it_is_busy(pair, issuer):
    with envoy(issuer, pair, share=10_000, affinity=True) as server, Caller(server) as caller:
        log, token = Log(server), issuer.token()
        spoofs = [{"x_eaf_model": f"m{number}"} for number in range(10)]
        assert {caller.infer(token, model, **spoof).status for spoof in spoofs for model in ("nap", "rest")} == {"OK"}
        homes = Counter((line["model"], line["upstream"]) for line in log.lines(20))
        assert sorted(homes.values()) == [10, 10]
        calls = [caller.begin("ModelInfer", inference("nap"), token) for _ in range(24)]
        assert all(call.result() for call in calls)
        hot = Counter(line["upstream"] for line in log.lines(44)[20:])
        assert len(hot) == 2


def test_without_affinity_calls_go_to_the_least_busy_triton(pair, issuer):
    with envoy(issuer, pair, share=10_000) as server, Caller(server) as caller:
        log = Log(server)
        for _ in range(2):  # the first calls are distributed before there are connections
            calls = [caller.begin("ModelInfer", inference("nap"), issuer.token()) for _ in range(24)]
            assert all(call.result() for call in calls)
        shares = Counter(line["upstream"] for line in log.lines(48)[24:])
    assert min(shares[each.grpc.removeprefix("grpc://")] for each in pair) >= 8


VARIANTS = {
    "defaults": {},
    "with affinity": {"affinity": True, "spill": 1.5},
    "behind an ingress": {"behind_tls": True, "certificate": "", "key": ""},
    "with a port for Prometheus": {"metrics_port": 9902, "metrics_address": "0.0.0.0"},  # noqa: S104
    "one tier": {"tiers": {"interactive": 1}},
    "host names": {"upstreams": ["grpc://triton.example.org:8001", "grpc://127.0.0.1:8001"]},
    "IPv6": {"upstreams": ["grpc://[::1]:8001"], "address": "::"},
    "many models": {"models": ["particlenet", "jet_regression", "a.b-c_d"]},
    "large": {"largest_request": 1 << 30, "memory": 1 << 33, "max_connections": 1_000_000, "burst": 5000},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_envoy_accepts_every_variant_of_the_settings(shared_envoy, variant, scheme):
    settings = {"upstreams": ["grpc://127.0.0.1:8001"], **asdict(shared_envoy.place), **VARIANTS[variant]}
    made = configuration(Envoy(**settings), TokenPolicy(jwks_url=f"{scheme}://hub.example.org/jwks.json"))
    validate(made)
    assert "$" not in as_yaml(made)  # SuperSONIC passes it through envsubst
