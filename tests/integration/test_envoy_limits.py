"""What strangers and greedy users can make Envoy and Triton hold in memory: real ones, with the figures printed."""

from __future__ import annotations

from contextlib import ExitStack

import grpc
import pytest
from envoy_facility import MEBIBYTE, Caller, Log, Memory, envoy, from_address
from recorded.replay import until

from eaf_inference.inference import protocol

OPEN = ("ServerLive", "ServerReady")
FOR_USERS = ("ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex")
HEAP = 128 * MEBIBYTE
ROOM = 350  # MiB that such an Envoy may take: its heap, 70 beside it, and what comes before it notices


@pytest.fixture
def say(capsys):
    """Print, although pytest captures what is printed."""

    def say(text):
        with capsys.disabled():
            print(f"\n{text}")  # noqa: T201

    return say


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_compressed_request_reaches_no_triton(door_of_two, pair, issuer, say, compression):
    length = 128 * MEBIBYTE  # of a field that Triton does not know; compressed, an eighth of a megabyte
    bomb = b"\x7a" + b"\x80\x80\x80\x40" + bytes(length)
    with ExitStack() as stack:
        caller = stack.enter_context(Caller(door_of_two))
        tritons = [stack.enter_context(Memory(each.pid)) for each in pair]
        log = Log(door_of_two)
        answers = [caller.ask(OPEN[1], bomb, compression=compression)]
        answers += [caller.ask(method, bytes(1000), compression=compression) for method in OPEN]
        answers += [caller.ask(each, bytes(1000), issuer.token(), compression) for each in (*FOR_USERS, "ModelInfer")]
    say(f"compressed: {length >> 20} MiB; Tritons grew by {[each.growth for each in tritons]} MiB")
    assert {answer.status for answer in answers} == {"UNIMPLEMENTED"}
    assert {"no compressed requests" in answer.details for answer in answers} == {True}
    assert {line["upstream"] for line in log.lines(len(answers))} == {None}
    assert max(each.growth for each in tritons) < 64


@pytest.mark.parametrize("encoding", ["gzip", "identity, gzip", "IDENTITY", ""])
def test_only_identity_is_an_encoding(door_of_two, encoding):
    with Caller(door_of_two) as caller:
        assert caller.ask("ServerReady", content_encoding="identity").status == "OK"
        assert caller.ask("ServerReady", content_encoding=encoding).status == "UNIMPLEMENTED"


def test_only_inferences_may_be_large(door_of_two, issuer):
    name = protocol.ModelReadyRequest(name="n" * 1000).SerializeToString()
    with Caller(door_of_two) as caller:
        log = Log(door_of_two)
        for method in (*OPEN, *FOR_USERS):
            answer = caller.ask(method, bytes(5000), issuer.token())
            assert (answer.status, "larger than max" in answer.details) == ("INVALID_ARGUMENT", True), method
        assert {line["upstream"] for line in log.lines(8)} == {None}
        assert "'nnnn" in caller.ask("ModelMetadata", name, issuer.token()).details
        assert caller.infer(issuer.token(), rows=60 * MEBIBYTE // 8).status == "OK"


def test_strangers_hold_no_memory_and_users_do_not_notice(pair, issuer, say):
    with envoy(issuer, pair, memory=HEAP) as server, ExitStack() as stack:
        callers = [stack.enter_context(Caller(server)) for _ in range(13)]
        with Memory(server.pid) as memory:
            parked = [stack.enter_context(each.parked("ServerReady", 63)) for each in callers[:12]]
            for _, sent in parked:
                sent.wait()
            assert {callers[-1].infer(issuer.token("bob")).status for _ in range(5)} == {"OK"}
        say(f"12 strangers sent 63 MiB each; Envoy's heap limit 128 MiB, greatest size {memory.peak} MiB")
        assert {call.code().name for call, _ in parked} == {"INVALID_ARGUMENT"}
    assert memory.growth < 32


def test_the_heap_limit_holds_against_users_too(pair, issuer, say):
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
        assert ended <= {("INTERNAL", True), ("UNAVAILABLE", False)}  # the latter where none is accepted any more
        # a quarter of the memory is the largest request that could be kept until it is answered
        answer = callers[-1].infer(issuer.token("bob"), rows=33 * MEBIBYTE // 8)
        assert (answer.status, "larger than max 33554432 bytes" in answer.details) == ("INVALID_ARGUMENT", True)
    assert memory.peak < ROOM


def test_a_user_cannot_begin_many_requests_and_finish_none(pair, issuer):
    with envoy(issuer, pair, max_uploads=3) as server, Caller(server) as caller, ExitStack() as stack:
        token = issuer.token("mallory")
        parked = [stack.enter_context(caller.parked("ModelInfer", 1, token)) for _ in range(3)]
        for _, sent in parked:
            sent.wait()
        until(lambda: caller.infer(token).status == "RESOURCE_EXHAUSTED")
        answer = caller.infer(token)
        assert "sending 3 requests already" in answer.details
        assert answer.metadata["grpc-retry-pushback-ms"] == "250"
        assert caller.infer(issuer.token("bob")).status == "OK"  # on the same connection
        parked[0][0].cancel()
        until(lambda: caller.infer(token).status == "OK")  # a call that was reset counts no longer
        assert {caller.infer(token).status for _ in range(5)} == {"OK"}  # nor does one that was answered


def test_a_probe_that_is_not_finished_ends_soon(pair, issuer):
    with envoy(issuer, pair, handshake_timeout=1.0) as server, Caller(server) as caller:
        log = Log(server)
        with caller.parked("ServerReady", 0) as (call, _):
            assert call.exception(timeout=30).code().name in ("DEADLINE_EXCEEDED", "UNAVAILABLE")
        assert log.lines()[0]["why"] == "max_duration_timeout"


def test_the_probes_of_strangers_use_up_only_their_own(pair, issuer):
    with envoy(issuer, pair, probes=5) as server, from_address(server, "127.0.0.2") as other, ExitStack() as stack:
        stranger, balancer = (stack.enter_context(Caller(server, target)) for target in ("", other))
        answers = [stranger.ask("ServerReady") for _ in range(60)]
        assert {answer.status for answer in answers} == {"OK", "RESOURCE_EXHAUSTED"}
        assert "your address" in answers[-1].details
        assert {balancer.ask("ServerReady").status for _ in range(20)} == {"OK"}
        assert {stranger.ask("ServerReady", b"", issuer.token()).status for _ in range(10)} == {"OK"}


def test_probes_take_no_place_of_users(door_of_two, issuer):
    with Caller(door_of_two) as caller:
        before = door_of_two.statistics(r"triton-interactive\.upstream_rq_total")
        assert caller.ask("ServerReady").status == "OK"
        assert door_of_two.statistics(r"triton-interactive\.upstream_rq_total") == before
        assert caller.infer(issuer.token()).status == "OK"
