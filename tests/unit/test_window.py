"""The window of requests in flight, with simulated servers behind a queue and a network."""

from __future__ import annotations

import heapq
import random

import pytest

from eaf_inference.inference.window import Window


class Simulation:
    """A client that keeps `window.size` requests in flight, and servers that take them in turn."""

    def __init__(self, window: Window, *, servers: int, service: float, latency: float, jitter: float = 0.0) -> None:
        self.window, self.servers, self.service, self.latency, self.jitter = window, servers, service, latency, jitter
        self.random = random.Random(1)  # noqa: S311  (the same noise in every run)
        self.now = self.busy = 0.0
        self.queued: list[float] = []  # seconds that each of the last replies' requests waited for a server
        self._free = [0.0] * servers
        self._flying: list[tuple[float, float, float, int]] = []  # reply at, sent at, waited, in flight

    def run(self, replies: int) -> None:
        self.busy, self.queued, began = 0.0, [], self.now
        for _ in range(replies):
            while len(self._flying) < self.window.size:
                self._send()
            at, sent, waited, in_flight = heapq.heappop(self._flying)
            self.now = at
            self.queued.append(waited)
            self.window.replied(at - sent, 1000.0, in_flight)
        self.elapsed = self.now - began

    def _send(self) -> None:
        arrives = self.now + self.latency / 2
        free = heapq.heappop(self._free)
        starts = max(arrives, free)
        took = self.service * (1 + self.jitter * self.random.uniform(-1, 1))
        heapq.heappush(self._free, starts + took)
        self.busy += took
        reply = starts + took + self.latency / 2
        heapq.heappush(self._flying, (reply, self.now, starts - arrives, len(self._flying) + 1))

    @property
    def utilisation(self) -> float:
        return self.busy / self.elapsed / self.servers

    @property
    def waiting(self) -> float:
        """Mean number of requests in the queue."""
        return sum(self.queued) / self.elapsed


@pytest.mark.parametrize("servers", [1, 2, 4])
@pytest.mark.parametrize("latency", [0.0001, 0.01, 0.05])
@pytest.mark.parametrize("jitter", [0.0, 0.2])
def test_the_window_keeps_the_servers_busy_without_a_long_queue(servers, latency, jitter):
    simulation = Simulation(Window(64), servers=servers, service=0.01, latency=latency, jitter=jitter)
    simulation.run(2000)
    simulation.run(2000)
    assert simulation.utilisation >= 0.95
    assert simulation.waiting <= 4
    assert simulation.window.size <= servers * (1 + latency / 0.01) + 5


def test_the_window_follows_a_server_that_becomes_slower_and_faster_again():
    simulation = Simulation(Window(64), servers=1, service=0.002, latency=0.02)
    simulation.run(2000)
    for service in (0.01, 0.002):
        simulation.service = service
        simulation.run(3000)
        simulation.run(1000)
        assert simulation.utilisation >= 0.95
        assert simulation.waiting <= 4


def test_the_window_stays_within_its_bounds():
    window = Window(3)
    Simulation(window, servers=8, service=0.01, latency=0.1).run(500)
    assert window.size == 3
    for _ in range(9):
        window.overloaded()
    assert window.size == 1
    assert Window(1).size == 1


def test_overload_halves_the_window():
    window = Window(64)
    Simulation(window, servers=16, service=0.01, latency=0.01).run(2000)
    before = window.size
    assert before > 8
    window.overloaded()
    assert window.size in (before // 2, (before + 1) // 2)


def test_requests_of_different_sizes_are_not_mistaken_for_a_queue():
    window = Window(32, channels=1)
    for number in range(600):
        large = number % 2
        window.replied(0.02 if large else 0.01, 8000.0 if large else 1000.0, window.size)
    assert window.size == 32


def test_every_replica_is_kept_busy():
    window = Window(16, channels=4)
    assert window.size == 8
    for _ in range(9):
        window.overloaded()
    assert window.size == 4
