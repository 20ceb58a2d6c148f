"""Noticing from a server's counters that many share it."""

from __future__ import annotations

import heapq
import random
from collections import deque

import numpy as np
import pytest

from eaf_inference.inference import protocol
from eaf_inference.inference.crowd import Crowd
from eaf_inference.inference.window import Window


def statistics(requests, queue, compute):
    reply = protocol.ModelStatisticsResponse()
    stats = reply.model_stats.add(name="jets", version="1").inference_stats
    stats.success.count = requests
    stats.queue.ns, stats.compute_infer.ns = queue, compute
    return reply


@pytest.mark.parametrize(
    ("readings", "crowded"),
    [
        ([(100, 0, 100)], False),  # one reading says nothing: the counters go back to the model's start
        ([(100, 0, 100), (200, 300, 200)], False),  # three wait for each that is computed: this client's own
        ([(100, 0, 100), (200, 3000, 200)], True),
        ([(100, 0, 100), (200, 3000, 200), (300, 3300, 300)], True),  # still longer than without a crowd
        ([(100, 0, 100), (200, 3000, 200), (300, 3100, 300)], False),
        ([(100, 0, 100), (102, 3000, 102)], False),  # too few requests to tell
        ([(100, 900, 100), (5, 0, 5), (200, 300, 200)], False),  # the server was restarted
    ],
)
def test_a_queue_much_longer_than_the_computation_is_a_crowd(readings, crowded):
    crowd = Crowd(lambda: 0.0)
    for each in readings:
        crowd.read(statistics(*each))
    crowd.due(1.0)  # a reply that waited as long as the others did
    assert crowd.long is crowded


def test_in_a_crowd_one_request_for_each_replica_is_in_flight():
    window = Window(16, channels=2)
    for _ in range(200):
        window.replied(0.01, 1000.0, window.size)
    assert window.size > 4
    window.crowded = True
    assert window.size == 2
    window.crowded = False
    assert window.size > 4


def test_a_queue_in_which_ones_own_requests_do_not_wait_is_no_crowd():
    crowd = Crowd(lambda: 0.0)
    for each in ((100, 0, 10**9), (200, 100 * 10**9, 2 * 10**9)):  # a second each in the queue
        crowd.read(statistics(*each))
    crowd.due(1.0)
    assert crowd.long
    for _ in range(20):  # through a balancer, to another server; or the others have left
        crowd.due(0.02)
    assert not crowd.long


def test_readings_are_few_and_ever_rarer_after_failures():
    now, counts = [0.0], 0
    crowd = Crowd(lambda: now[0])
    asked = []
    for _ in range(2000):
        now[0] += 0.2
        counts += 10
        if crowd.due(0.1):
            asked.append(now[0])
            crowd.read(statistics(counts, counts, counts))
    assert asked[0] == pytest.approx(0.4)  # a quarter of a second after the first request
    assert len(asked) <= 14 + 2000 / 16
    assert min(np.diff(asked[1:])) >= 1.0
    refused = Crowd(lambda: now[0])
    began, asked = now[0], []
    while now[0] < began + 1200:
        now[0] += 0.2
        if refused.due(0.1):
            asked.append(now[0])
            refused._missed()
    assert len(asked) <= 12
    assert 299 < asked[-1] - asked[-2] < 301


def latencies(clients, *, pipelined, seconds, service=0.02):
    """Return the latencies of the second half of some time, of clients of one server that serves one at a time."""
    draw = random.Random(1)  # noqa: S311
    events, waiting, found = [], deque(), []
    done, queued = 0, 0.0
    state = [(Window(16), Crowd(lambda: now)) for _ in range(clients)]
    flying, busy, now = [0] * clients, False, 0.0

    def put(at, *what):
        heapq.heappush(events, (at, draw.random(), *what))

    for client in range(clients):
        put(draw.random() * service, "send", client, 0.0, 0)
    while now < seconds:
        now, _, what, client, sent, in_flight = heapq.heappop(events)
        if what == "send" and flying[client] < (state[client][0].size if pipelined else 1):
            flying[client] += 1
            waiting.append((client, now, flying[client]))
            put(now + 0.001, "send", client, 0.0, 0)
        elif what == "reply":
            busy = False
            flying[client] -= 1
            found += [now - sent] * (now > seconds / 2)
            window, crowd = state[client]
            window.replied(now - sent, 1000.0, in_flight)
            if crowd.due(now - sent):
                crowd.read(statistics(done, int(queued * 1e9), int(done * service * 1e9)))
            window.crowded = crowd.long
            put(now, "send", client, 0.0, 0)
        if waiting and not busy:
            busy = True
            client, sent, in_flight = waiting.popleft()
            done, queued = done + 1, queued + now - sent
            put(now + service, "reply", client, sent, in_flight)
    return found


def test_a_crowd_of_clients_waits_no_longer_than_as_many_blocking_ones():
    ours, theirs = (latencies(64, pipelined=pipelined, seconds=30) for pipelined in (True, False))
    assert np.percentile(ours, 99) <= 1.05 * np.percentile(theirs, 99)
    assert len(ours) >= 0.98 * len(theirs)
