"""How much memory of a real Envoy and Triton callers can occupy, with or without a token; the test prints it."""

from __future__ import annotations

from contextlib import ExitStack

import grpc
import pytest
from envoy_facility import MEBIBYTE, Caller, Log, Memory, envoy, from_address
from waiting import until

from eaf_inference.inference import protocol

OPEN = ("ServerLive", "ServerReady")
FOR_USERS = ("ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex")
HEAP = 128 * MEBIBYTE
MOST_MEMORY = 350  # MiB: Envoy's heap limit, 70 MiB besides, and what arrives before Envoy reacts


@pytest.fixture
def say(capsys):
    """Print despite pytest's capturing."""

    def say(text):
        with capsys.disabled():
            print(f"\n{text}")  # noqa: T201

    return say


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_compressed_request_reaches_no_triton(shared_envoy, pair, issuer, say, compression):
    length = 128 * MEBIBYTE  # of an unknown field; compressed, an eighth of a megabyte
    bomb = b"\x7a" + b"\x80\x80\x80\x40" + bytes(length)
    with ExitStack() as stack:
        caller = stack.enter_context(Caller(shared_envoy))
        tritons = [stack.enter_context(Memory(each.pid)) for each in pair]
        log = Log(shared_envoy)
        answers = [caller.ask(OPEN[1], bomb, compression=compression)]
        answers += [caller.ask(method, bytes(1000), compression=compression) for method in OPEN]
        answers += [caller.ask(each, bytes(1000), issuer.token(), compression) for each in (*FOR_USERS, "ModelInfer")]
    say(f"compressed: {length >> 20} MiB; Tritons grew by {[each.growth for each in tritons]} MiB")
    assert {answer.status for answer in answers} == {"UNIMPLEMENTED"}
    assert {"no compressed requests" in answer.details for answer in answers} == {True}
    assert {line["upstream"] for line in log.lines(len(answers))} == {None}
    assert max(each.growth for each in tritons) < 64


@pytest.mark.parametrize("encoding", ["gzip", "identity, gzip", "IDENTITY", ""])
def test_identity_is_the_only_accepted_encoding(shared_envoy, encoding):
    with Caller(shared_envoy) as caller:
        assert caller.ask("ServerReady", content_encoding="identity").status == "OK"
        assert caller.ask("ServerReady", content_encoding=encoding).status == "UNIMPLEMENTED"


def test_only_inferences_may_be_large(shared_envoy, issuer):
    name = protocol.ModelReadyRequest(name="n" * 1000).SerializeToString()
    with Caller(shared_envoy) as caller:
        log = Log(shared_envoy)
        for method in (*OPEN, *FOR_USERS):
            answer = caller.ask(method, bytes(5000), issuer.token())
            assert (answer.status, "larger than max" in answer.details) == ("INVALID_ARGUMENT", True), method
        assert {line["upstream"] for line in log.lines(8)} == {None}
        assert "'nnnn" in caller.ask("ModelMetadata", name, issuer.token()).details
        assert caller.infer(issuer.token(), rows=60 * MEBIBYTE // 8).status == "OK"


def test_calls_without_a_token_take_no_memory_and_delay_no_user(pair, issuer, say):
    with envoy(issuer, pair, memory=HEAP) as server, ExitStack() as stack:
        callers = [stack.enter_context(Caller(server)) for _ in range(13)]
        with Memory(server.pid) as memory:
            parked = [stack.enter_context(each.parked("ServerReady", 63)) for each in callers[:12]]
            for _, sent in parked:
                sent.wait()
            assert {callers[-1].infer(issuer.token("bob")).status for _ in range(5)} == {"OK"}
        say(f"12 callers without a token sent 63 MiB each; heap limit 128 MiB, greatest size {memory.peak} MiB")
        assert {call.code().name for call, _ in parked} == {"INVALID_ARGUMENT"}
    assert memory.growth < 32


def test_the_heap_limit_also_holds_for_users(pair, issuer, say):
    with envoy(issuer, pair, memory=HEAP) as server, ExitStack() as stack:
        callers = [stack.enter_context(Caller(server)) for _ in range(17)]
        with Memory(server.pid) as memory:
            parked = [stack.enter_context(each.parked("ModelInfer", 31, issuer.token())) for each in callers[:16]]
            for _, sent in parked:
                sent.wait()
            until(lambda: callers[-1].infer(issuer.token("bob")).status == "OK")
        say(f"16 requests of 31 MiB without an end; heap limit 128 MiB, greatest size {memory.peak} MiB")
        ended = {(call.code().name, "RST_STREAM" in call.details()) for call, _ in parked if call.done()}
        assert ("INTERNAL", True) in ended
        assert ended <= {("INTERNAL", True), ("UNAVAILABLE", False)}  # the latter when no call is accepted any more
        # the largest request is a quarter of the memory, so that it can be kept until it is answered
        answer = callers[-1].infer(issuer.token("bob"), rows=33 * MEBIBYTE // 8)
        assert (answer.status, "larger than max 33554432 bytes" in answer.details) in (
            ("INVALID_ARGUMENT", True),
            ("INTERNAL", False),  # Envoy reset the call before
        )
    assert memory.peak < MOST_MEMORY


def test_a_user_cannot_keep_many_requests_unfinished(pair, issuer):
    with envoy(issuer, pair, max_uploads=3) as server, Caller(server) as caller, ExitStack() as stack:
        token = issuer.token("mallory")
        parked = [stack.enter_context(caller.parked("ModelInfer", 1, token)) for _ in range(3)]
        for _, sent in parked:
            sent.wait()
        until(lambda: caller.infer(token).status == "RESOURCE_EXHAUSTED")
        answer = caller.infer(token)
        assert "already sending 3 requests" in answer.details
        assert answer.metadata["grpc-retry-pushback-ms"] == "250"
        assert caller.infer(issuer.token("bob")).status == "OK"  # on the same connection
        parked[0][0].cancel()
        until(lambda: caller.infer(token).status == "OK")  # a call that was reset no longer counts
        assert {caller.infer(token).status for _ in range(5)} == {"OK"}  # nor does an answered one


def test_an_unfinished_probe_ends_soon(pair, issuer):
    with envoy(issuer, pair, handshake_timeout=1.0) as server, Caller(server) as caller:
        log = Log(server)
        with caller.parked("ServerReady", 0) as (call, _):
            assert call.exception(timeout=30).code().name in ("DEADLINE_EXCEEDED", "UNAVAILABLE")
        assert log.lines()[0]["why"] == "max_duration_timeout"


def test_each_address_has_its_own_limit_of_probes(pair, issuer):
    with envoy(issuer, pair, probes=5) as server, from_address(server, "127.0.0.2") as other, ExitStack() as stack:
        client, balancer = (stack.enter_context(Caller(server, target)) for target in ("", other))
        answers = [client.ask("ServerReady") for _ in range(60)]
        assert {answer.status for answer in answers} == {"OK", "RESOURCE_EXHAUSTED"}
        assert "your address" in answers[-1].details
        assert {balancer.ask("ServerReady").status for _ in range(20)} == {"OK"}
        assert {client.ask("ServerReady", b"", issuer.token()).status for _ in range(10)} == {"OK"}


def test_probes_do_not_count_towards_the_limits_of_users(shared_envoy, issuer):
    with Caller(shared_envoy) as caller:
        before = shared_envoy.statistics(r"triton-interactive\.upstream_rq_total")
        assert caller.ask("ServerReady").status == "OK"
        assert shared_envoy.statistics(r"triton-interactive\.upstream_rq_total") == before
        assert caller.infer(issuer.token()).status == "OK"
