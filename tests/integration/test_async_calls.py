"""Calls from asyncio: the loop stays free, several run at once, and a cancelled one sends nothing more."""

from __future__ import annotations

import asyncio
import time

import awkward as ak
import numpy as np
import pytest
from envoy_facility import save_nap
from kernels import notebook

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_inference.errors import InvalidInput, ServerUnavailable

SLOW = np.zeros((2000, 2), np.float32)  # 100 s of the model that naps for each row
ROWS = np.arange(12, dtype=np.float32).reshape(6, 2)


def save_slow_nap(repository):
    """Write a model that takes 50 ms for each row."""
    save_nap(repository)
    config = repository / "nap" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 10000000", "max_batch_size: 1"))


@pytest.fixture(scope="module")
def napping(tmp_path_factory):
    repository = tmp_path_factory.mktemp("nap")
    save_slow_nap(repository)
    with TritonServer.start([repository]) as server:
        yield server


@pytest.fixture
def nap(napping):
    with eaf_inference.connect(napping.grpc) as connection:
        yield connection.model("nap")


async def count_ticks(until):
    ticks = 0
    while not until.done():
        await asyncio.sleep(0.01)
        ticks += 1
    return ticks


def test_several_calls_at_once_give_the_scores_of_plain_calls(connection, jagged):
    model = connection.model("sums")
    parts = [jagged[at : at + 500] for at in range(0, 3000, 500)]

    async def score():
        return await asyncio.gather(*(model.async_call([part.a, part.b]) for part in parts))

    for part, scores in zip(parts, asyncio.run(score()), strict=True):
        np.testing.assert_allclose(ak.to_numpy(scores), ak.to_numpy(model([part.a, part.b])), atol=1e-4)
        assert len(scores) == len(part)


def test_the_event_loop_goes_on_during_a_call(nap):
    async def score():
        call = asyncio.ensure_future(nap.async_call(ROWS))
        return await count_ticks(call), await call

    ticks, scores = asyncio.run(score())
    np.testing.assert_array_equal(scores, ROWS)
    assert ticks >= 10  # of 30


def test_errors_are_those_of_plain_calls(nap, napping):
    async def score(model, data):
        return await model.async_call(data)

    with pytest.raises(InvalidInput, match="does not fit") as caught:
        asyncio.run(score(nap, np.zeros((3, 7), np.float32)))
    with pytest.raises(InvalidInput) as plain:
        nap(np.zeros((3, 7), np.float32))
    assert str(caught.value) == str(plain.value)
    connection = eaf_inference.connect(napping.grpc)
    model = connection.model("nap")
    connection.close()
    with pytest.raises(Exception, match="closed") as caught:
        asyncio.run(score(model, ROWS))
    assert not isinstance(caught.value, ServerUnavailable)


def test_a_cancelled_call_sends_nothing_more(nap):
    traffic = nap.traffic

    async def cancel():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(nap.async_call(SLOW), 0.5)
        return time.monotonic()

    cancelled = asyncio.run(cancel())  # which waits for its threads
    assert time.monotonic() - cancelled < 2
    assert 0 < traffic.requests < 40
    assert traffic.in_flight == 0
    sent = traffic.requests
    np.testing.assert_array_equal(nap(ROWS), ROWS)
    assert traffic.requests == sent + len(ROWS)


def test_one_cancelled_call_leaves_the_others_alone(nap):
    async def score():
        slow = asyncio.ensure_future(nap.async_call(SLOW))
        other = asyncio.ensure_future(nap.async_call(ROWS))
        await asyncio.sleep(0.2)
        slow.cancel()
        return await asyncio.gather(slow, other, return_exceptions=True)

    cancelled, scores = asyncio.run(score())
    assert isinstance(cancelled, asyncio.CancelledError)
    np.testing.assert_array_equal(scores, ROWS)


def test_a_call_that_waits_for_a_lost_server_can_be_cancelled(tmp_path):
    save_slow_nap(tmp_path)

    async def score(model, server):
        call = asyncio.ensure_future(model.async_call(SLOW))
        await asyncio.sleep(0.3)
        server.kill()
        await asyncio.sleep(1)
        assert not call.done()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return time.monotonic()

    with TritonServer.start([tmp_path]) as server, eaf_inference.connect(server.grpc) as connection:
        cancelled = asyncio.run(score(connection.model("nap"), server))
        assert time.monotonic() - cancelled < 2


def test_a_notebook_awaits_scores_and_can_be_interrupted(napping):
    with notebook(EAF_TRITON_URL=napping.grpc) as book:
        assert book.run("%triton_connect").error == []
        book.run("import asyncio, time, numpy as np\nmodel = triton.model('nap')\nx = np.ones((2, 2), np.float32)")
        both = book.run("sum(each.sum() for each in await asyncio.gather(model.async_call(x), model.async_call(x)))")
        assert (both.error, "8.0" in both.text) == ([], True)
        begun = time.monotonic()
        ended = book.interrupt("await model.async_call(np.ones((2000, 2), np.float32))", 0.5)
        assert ended.error[0] in ("KeyboardInterrupt", "CancelledError")
        assert time.monotonic() - begun < 10  # of 100 s
        after = book.run("float(model(x).sum()), triton.traffic.in_flight")
        assert after.text == "(4.0, 0)"
