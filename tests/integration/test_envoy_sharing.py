"""The door under load and in trouble: shares, tiers, keys that change, servers that die; with our client too."""

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
from recorded.replay import until
from test_faults import assert_undisturbed, chunks, inferences

import eaf_inference
from eaf_inference.envoy.configuration import as_yaml, configuration
from eaf_inference.envoy.settings import Envoy
from eaf_inference.facility.certificates import make_certificates
from eaf_inference.facility.envoy import validate
from eaf_inference.policy import TokenPolicy


@contextmanager
def connected(server, token):
    with eaf_inference.connect(server.url, token=token, ca=server.ca) as connection:
        yield connection


def test_who_has_had_her_share_is_told_when_to_come_again_and_others_do_not_notice(pair, issuer):
    tokens = [issuer.token("greedy"), issuer.token("greedy", tier="batch")]  # … which changes nothing; nor do headers

    def ask(number):
        return greedy.ask("ServerMetadata", b"", tokens[number % 2], x_user=f"user-{number}")

    with envoy(issuer, pair, share=40) as server, Caller(server) as greedy, Caller(server) as other:
        log = Log(server)
        with ThreadPoolExecutor(16) as pool:
            began = time.monotonic()
            storm = pool.map(ask, range(300))
            theirs = [other.infer(issuer.token("bob")) for _ in range(10)]
            answers = list(storm)
            took = time.monotonic() - began
        assert {answer.status for answer in theirs} == {"OK"}
        assert Counter(answer.status for answer in answers)["OK"] <= 10 + 40 * (took + 0.1)
        refused = [answer for answer in answers if answer.status == "RESOURCE_EXHAUSTED"]
        assert {answer.details for answer in refused} == {"you have used your share of 40 calls a second"}
        told = {(answer.metadata["retry-after"], answer.metadata["grpc-retry-pushback-ms"]) for answer in refused}
        assert told == {("1", "250")}
        limited = [line for line in log.lines(310) if line["why"] == "local_rate_limited"]
    assert {(line["user"], line["grpc_status"]) for line in limited} == {("greedy", "ResourceExhausted")}
    assert len(limited) == len(refused) > 50


def test_our_client_comes_again_when_it_was_told_to_and_every_score_is_right(pair, issuer, jagged):
    with envoy(issuer, pair, share=15) as server, connected(server, issuer.token("greedy")) as connection:
        log = Log(server)
        model = connection.model("sums")
        parts = list(model.map(chunks(jagged)))
        refused = [line for line in log.lines(30) if line["why"] == "local_rate_limited"]
    assert_undisturbed(ak.concatenate(parts), jagged)
    assert refused
    assert len(refused) < 60  # it waits as it was told, instead of asking on


def test_a_tier_has_its_own_number_of_calls(pair, issuer):
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


def test_a_new_key_is_believed_and_an_old_one_no_longer(pair):
    with Issuer() as issuer, envoy(issuer, pair) as server, Caller(server) as caller:
        old = issuer.token()
        assert caller.infer(old).status == "OK"
        issuer.rotate()
        until(lambda: caller.infer(issuer.token()).status == "OK")
        assert caller.infer(old).status == "OK"
        issuer.rotate(forget=True)
        until(lambda: caller.infer(old).status == "UNAUTHENTICATED")
        assert caller.infer(issuer.token()).status == "OK"


def test_keys_come_by_tls_from_whom_the_certificate_names(pair, door_of_two, tmp_path):
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
        with envoy(issuer, pair, jwks_ca=str(door_of_two.ca)) as server, Caller(server) as caller:
            assert caller.infer(issuer.token()).status == "UNAUTHENTICATED"


def test_it_serves_on_while_the_token_service_is_away(pair):
    failures = "http.door.jwt_authn.jwks_fetch_failed"
    with Issuer() as issuer, envoy(issuer, pair) as server, Caller(server) as caller:
        assert caller.infer(issuer.token()).status == "OK"
        issuer.close()
        until(lambda: server.statistics(failures)[failures] >= 5)  # twice the life of its keys
        assert caller.infer(issuer.token()).status == "OK"
        issuer.open()
        issuer.rotate()
        until(lambda: caller.infer(issuer.token()).status == "OK")


def test_a_triton_that_is_killed_in_mid_run_costs_no_score_and_other_clients_no_call(pair, issuer, jagged):
    many = ak.concatenate([jagged] * 4)
    others, over = [], threading.Event()

    # answered in a few bytes: an answer that has begun cannot be had from another Triton
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


def test_an_envoy_that_is_restarted_in_mid_run_costs_no_score(pair, issuer, jagged):
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


def test_with_affinity_a_model_has_one_home_and_spills_when_it_is_hot(pair, issuer):
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


def test_without_affinity_the_work_goes_where_the_least_is_to_do(pair, issuer):
    with envoy(issuer, pair, share=10_000) as server, Caller(server) as caller:
        log = Log(server)
        for _ in range(2):  # the first ones are spread before there are connections
            calls = [caller.begin("ModelInfer", inference("nap"), issuer.token()) for _ in range(24)]
            assert all(call.result() for call in calls)
        shares = Counter(line["upstream"] for line in log.lines(48)[24:])
    assert min(shares[each.grpc.removeprefix("grpc://")] for each in pair) >= 8


VARIANTS = {
    "as it comes": {},
    "with affinity": {"affinity": True, "spill": 1.5},
    "behind an ingress": {"behind_tls": True, "certificate": "", "key": ""},
    "with a page for Prometheus": {"metrics_port": 9902, "metrics_address": "0.0.0.0"},  # noqa: S104
    "one tier": {"tiers": {"interactive": 1}},
    "names": {"upstreams": ["grpc://triton.example.org:8001", "grpc://127.0.0.1:8001"]},
    "IPv6": {"upstreams": ["grpc://[::1]:8001"], "address": "::"},
    "many models": {"models": ["particlenet", "jet_regression", "a.b-c_d"]},
    "large": {"largest_request": 1 << 30, "memory": 1 << 33, "max_connections": 1_000_000, "burst": 5000},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_envoy_itself_accepts_every_kind_of_settings(door_of_two, variant, scheme):
    settings = {"upstreams": ["grpc://127.0.0.1:8001"], **asdict(door_of_two.place), **VARIANTS[variant]}
    made = configuration(Envoy(**settings), TokenPolicy(jwks_url=f"{scheme}://hub.example.org/jwks.json"))
    validate(made)
    assert "$" not in as_yaml(made)  # SuperSONIC lets envsubst read it
