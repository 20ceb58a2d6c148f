"""Faults never change scores."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import awkward as ak
import grpc
import numpy as np
import pytest
from edge_proxy import edge_proxy
from rows import assert_undisturbed, chunks, inferences
from waiting import until

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_inference.errors import (
    BadReply,
    ConfigurationError,
    InvalidInput,
    ModelNotFound,
    NotAuthorized,
    ServerUnavailable,
)
from eaf_inference.inference import protocol

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture
def guarded(zoo):
    """Give an edge proxy in front of the zoo, and a connection through it."""
    with (
        edge_proxy(zoo.grpc.removeprefix("grpc://")) as (handler, port),
        eaf_inference.connect(f"grpc://127.0.0.1:{port}") as connection,
    ):
        yield handler, connection


def short(connection, **limits):
    """Give the connection a budget short enough for a test."""
    connection.limits = replace(connection.limits, **limits)
    return connection


@pytest.mark.parametrize("crash", [True, False], ids=["killed", "stopped, with GOAWAY"])
def test_a_server_restarted_in_mid_run_loses_and_doubles_nothing(sums_models, jagged, crash):
    with TritonServer.start([sums_models]) as server, eaf_inference.connect(server.grpc) as connection:
        model = connection.model("sums")
        undisturbed = ak.to_numpy(model(jagged))
        reviver = threading.Thread(target=lambda: (crash and server.kill(), server.restart()))

        def disturbed():
            for number, chunk in enumerate(chunks(jagged)):
                if number == 10:
                    reviver.start()
                yield chunk

        scores = np.concatenate([ak.to_numpy(part) for part in model.map(disturbed())])
        reviver.join()
        server.kill()  # quicker than stopping it
    np.testing.assert_array_equal(scores.shape, undisturbed.shape)
    np.testing.assert_allclose(scores, undisturbed, atol=1e-5)


def test_a_call_waits_for_a_server_that_dies_and_returns(sums_models, jagged):
    many = ak.concatenate([jagged] * 10)
    with TritonServer.start([sums_models]) as server, eaf_inference.connect(server.grpc) as connection:
        model = connection.model("sums")
        model(jagged[:10])
        before = inferences(server)

        def kill_when_busy():
            while inferences(server) < before + 2000:
                pass
            server.kill()
            server.restart()

        killer = threading.Thread(target=kill_when_busy)
        killer.start()
        scores = model(many)
        killer.join()
        server.kill()  # quicker than stopping it
    assert_undisturbed(scores, many)


def test_one_of_two_replicas_may_die_for_good(sums_models, jagged):
    with (
        TritonServer.start([sums_models]) as first,
        TritonServer.start([sums_models]) as second,
        eaf_inference.connect([first.grpc, second.grpc]) as connection,
    ):
        model = connection.model("sums")

        def disturbed():
            for number, chunk in enumerate(chunks(jagged)):
                if number == 10:
                    first.kill()
                yield chunk

        scores = ak.concatenate(list(model.map(disturbed())))
        assert_undisturbed(connection.model("sums")(jagged[:100]), jagged[:100])
        second.kill()  # quicker than stopping it
    assert_undisturbed(scores, jagged)


def test_replicas_share_the_work(zoo, sums_models, jagged):
    with (
        TritonServer.start([sums_models]) as other,
        edge_proxy(zoo.grpc.removeprefix("grpc://")) as (first, first_port),
        edge_proxy(other.grpc.removeprefix("grpc://")) as (second, second_port),
    ):
        urls = [f"grpc://127.0.0.1:{port}" for port in (first_port, second_port)]
        with eaf_inference.connect(urls) as connection:
            model = connection.model("sums")
            model(jagged)  # the first requests to a new server are slow
            before = np.array([first.inferences, second.inferences])
            assert_undisturbed(model(jagged), jagged)
            shares = np.array([first.inferences, second.inferences]) - before
    assert min(shares) > 0.1 * sum(shares)


def test_the_replica_that_has_the_model_is_asked(zoo, tiny_triton, jagged):
    with eaf_inference.connect([tiny_triton.grpc, zoo.grpc]) as connection:
        assert_undisturbed(connection.model("sums")(jagged), jagged)


@pytest.mark.parametrize(
    "fault",
    [
        (UNAVAILABLE, "upstream connect error", ()),
        (EXHAUSTED, "local_rate_limited", ()),
        (grpc.StatusCode.ABORTED, "try again", ()),
        (grpc.StatusCode.UNKNOWN, "Stream removed", ()),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2", ()),
    ],
    ids=lambda fault: f"{fault[0].name} {fault[1]}",
)
def test_a_temporary_fault_changes_no_score(guarded, jagged, fault):
    handler, connection = guarded
    handler.faults = [None, None, fault, fault, None, fault]
    assert_undisturbed(connection.model("sums")(jagged), jagged)
    assert handler.faults == []


def test_retry_after_is_honoured(guarded, jagged):
    handler, connection = guarded
    model = connection.model("sums")
    model(jagged[:10])
    handler.faults = [(EXHAUSTED, "over your share", (("retry-after", "1"),))]
    started = time.monotonic()
    assert_undisturbed(model(jagged[:10]), jagged[:10])
    assert time.monotonic() - started >= 1


def test_a_server_that_stays_down_ends_in_one_error_with_the_history(guarded, jagged):
    handler, connection = guarded
    model = short(connection, time_budget=1.0).model("sums")
    model(jagged[:10])
    handler.faults = [(UNAVAILABLE, "no healthy upstream", ())] * 1000
    with pytest.raises(ServerUnavailable, match="(?s)reaches no Triton.*What was tried:.*reaches no Triton"):
        model(jagged)
    handler.faults = []
    assert_undisturbed(model(jagged), jagged)  # the connection still works


@pytest.mark.parametrize("first_call", [True, False], ids=["padding check", "scores"])
@pytest.mark.parametrize(("status", "words"), [(UNAVAILABLE, "server gone"), (EXHAUSTED, "server overloaded")])
def test_an_outage_shows_in_the_bar_and_the_panel(guarded, jagged, capsys, monkeypatch, first_call, status, words):
    monkeypatch.setattr("eaf_inference.inference.progress._SHOWN_AFTER", 0.0)
    handler, connection = guarded
    model = connection.model("sums")
    if not first_call:
        model(jagged[:10])
    handler.faults = [(status, "no healthy upstream", ())] * 1000
    seen = []

    def end_the_outage_when_it_is_said():
        until(lambda: seen or seen.extend(filter(None, [connection.traffic.retrying])))
        until(lambda: words in capsys.readouterr().err)
        handler.faults = []

    ending = threading.Thread(target=end_the_outage_when_it_is_said)
    ending.start()
    assert_undisturbed(model(jagged, progress=True), jagged)
    ending.join()
    assert re.fullmatch(rf"{words}, retrying, 1[12]\d s left", str(seen[0]))  # of the time budget's 120 s
    assert connection.traffic.retrying is None


def test_an_outage_ends_when_the_call_fails(guarded, jagged):
    handler, connection = guarded
    model = short(connection, time_budget=0.3).model("sums")
    model(jagged[:10])
    handler.faults = [(UNAVAILABLE, "no healthy upstream", ())] * 1000
    with pytest.raises(ServerUnavailable):
        model(jagged)
    assert connection.traffic.retrying is None


def test_a_connection_closed_during_a_call_is_no_outage(guarded, jagged, monkeypatch):
    handler, connection = guarded
    model = connection.model("sums")
    model(jagged[:10])
    outages = []
    monkeypatch.setattr("eaf_inference.inference.pipeline.Retrying", lambda *outage: outages.append(outage))
    before = handler.inferences
    handler.faults = [30.0] * 1000  # no answer until the connection is closed
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(model, jagged)
        until(lambda: handler.inferences > before)
        connection.close()
        with pytest.raises(ConfigurationError, match=r"^This connection is closed\. Make a new one"):
            call.result()
    assert outages == []


def test_a_silent_replica_is_left_for_the_other(zoo, jagged):
    target = zoo.grpc.removeprefix("grpc://")
    with edge_proxy(target) as (silent, silent_port), edge_proxy(target) as (_, port):
        urls = [f"grpc://127.0.0.1:{silent_port}", f"grpc://127.0.0.1:{port}"]
        with eaf_inference.connect(urls) as connection:
            model = short(connection, request_timeout=0.5).model("sums")
            model(jagged[:10])
            silent.faults = [30.0] * 3
            assert_undisturbed(model(jagged), jagged)


def test_a_server_that_is_silent_twice_is_reported(guarded, jagged):
    handler, connection = guarded
    model = short(connection, request_timeout=0.3).model("sums")
    model(jagged[:10])
    handler.faults = [30.0, 30.0]
    with pytest.raises(ServerUnavailable, match="no answer in time"):
        model(jagged[:10])
    assert handler.faults == []


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidInput, "model 'sums': because. Compare the input with"),
        (grpc.StatusCode.NOT_FOUND, ModelNotFound, "because.*See triton.models"),
        (
            grpc.StatusCode.PERMISSION_DENIED,
            NotAuthorized,
            "refuses access, and says .because",
        ),
        (grpc.StatusCode.INTERNAL, BadReply, "failed on model 'sums': it says .because.*Tell the"),
    ],
)
def test_an_error_that_no_retry_can_mend_is_raised_at_once(guarded, jagged, status, error, message):
    handler, connection = guarded
    model = connection.model("sums")
    model(jagged[:10])
    before = handler.inferences
    handler.faults = [(status, "because", ())]
    with pytest.raises(error, match=message):
        model(jagged[:10])
    assert handler.inferences == before + 1


def test_a_reply_whose_size_contradicts_its_shape_is_refused(guarded, jagged):
    handler, connection = guarded
    model = connection.model("sums")
    model(jagged[:10])

    def without_bytes(data):
        reply = protocol.ModelInferResponse.FromString(data)
        reply.raw_output_contents[0] = b""
        return reply.SerializeToString()

    handler.changes["ModelInfer"] = without_bytes  # pytriton under numpy 2 does this
    with pytest.raises(BadReply, match=r"'y' came as FP32 \[10, 2\] in 0 bytes. Expected .* in 80 bytes"):
        model(jagged[:10])


def test_an_interrupt_leaves_connection_and_server_usable(guarded, jagged):
    handler, connection = guarded
    model = connection.model("sums")
    model(jagged[:10])
    handler.faults = [0.3] * 4  # so that some are in flight

    def interrupted():
        for number, chunk in enumerate(chunks(jagged)):
            if number == 10:
                raise KeyboardInterrupt
            yield chunk

    with pytest.raises(KeyboardInterrupt):
        list(model.map(interrupted()))
    handler.wait_until_idle()  # nothing else is sent
    assert handler.cancelled == 0  # a cancelled call can crash a shared Triton
    assert_undisturbed(model(jagged), jagged)


def test_scores_come_in_order_even_if_replies_do_not(guarded, jagged):
    handler, connection = guarded
    model = connection.model("sums")
    model(jagged[:10])
    handler.faults = [0.2, None, None, 0.3, None, None, None, 0.1] * 3
    parts = list(model.map(chunks(jagged)))
    for part, chunk in zip(parts, chunks(jagged), strict=True):
        assert_undisturbed(part, chunk)
