"""Script: measure how much of the facility a greedy user leaves to another one, through a real Envoy.

    python tests/integration/fair_share.py [SECONDS] [SHARE] [BURST]

Each of two Tritons has a model that takes 50 ms for a request, one after the other: together they serve 40 requests a
second. Each user's share is a little less than half of that, so that two shares fit. The script measures bob twice:
next to a neighbour with an equal rate, and next to one who sends as fast as possible, 64 requests at a time, with a
client that ignores the server's advice to wait. bob should keep 80 % of his throughput, and p99 stay below twice.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from envoy_facility import Caller, envoy, save_nap
from issuer import Issuer

from eaf_facility.servers.triton import TritonServer

CAPACITY = 40  # requests a second of both Tritons
BOB_IN_FLIGHT, NEIGHBOUR_IN_FLIGHT = 4, 64


@dataclass
class Measured:
    """One user's answered calls."""

    per_second: float
    p50: float
    p99: float
    statuses: Counter[str]

    def __str__(self) -> str:
        answers = ", ".join(f"{number} {status}" for status, number in sorted(self.statuses.items()))
        return f"{self.per_second:5.1f} /s   p50 {self.p50:5.0f} ms   p99 {self.p99:5.0f} ms   {answers}"


def use(server, token, seconds, in_flight, *, pace=None):
    """Send calls for a number of seconds; `pace` is the maximum number of calls a second."""
    stop = time.monotonic() + seconds
    times, statuses, lock = [], Counter(), threading.Lock()
    due = time.monotonic()

    def next_turn():
        nonlocal due
        with lock:
            mine, due = due, max(due, time.monotonic()) + (1 / pace if pace else 0)
        time.sleep(max(0.0, mine - time.monotonic()))

    def work(_):
        while time.monotonic() < stop:
            next_turn()
            began = time.monotonic()
            status = caller.infer(token).status
            took = time.monotonic() - began
            with lock:
                statuses[status] += 1
                if status == "OK":
                    times.append(1000 * took)
            if status == "RESOURCE_EXHAUSTED" and pace:
                time.sleep(1)  # as the server asked

    with Caller(server) as caller, ThreadPoolExecutor(in_flight) as pool:
        list(pool.map(work, range(in_flight)))
    times.sort()
    return Measured(len(times) / seconds, times[len(times) // 2], times[int(0.99 * len(times))], statuses)


def both(server, issuer, seconds, share, *, greedy):
    """Measure bob, paced a little below his share, and his neighbour at the same time."""
    neighbour = (server, issuer.token("alice"), seconds, NEIGHBOUR_IN_FLIGHT if greedy else BOB_IN_FLIGHT)
    with ThreadPoolExecutor(2) as pool:
        hers = pool.submit(use, *neighbour, pace=None if greedy else 0.95 * share)
        his = pool.submit(use, server, issuer.token("bob"), seconds, BOB_IN_FLIGHT, pace=0.95 * share)
        return his.result(), hers.result()


@contextmanager
def facility(**settings):
    with ExitStack() as stack:
        repository = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        save_nap(repository)
        tritons = [stack.enter_context(TritonServer.start([repository])) for _ in range(2)]
        issuer = stack.enter_context(Issuer())
        yield stack.enter_context(envoy(issuer, tritons, **settings)), issuer


def main(seconds: float = 20, share: int = int(0.45 * CAPACITY), burst: int = 0) -> int:
    with facility(share=share, burst=burst) as (server, issuer):
        print(f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f}; {seconds:.0f} s each")
        print(f"2 Tritons x 20 requests/s; Envoy.share = {share}, Envoy.burst = {burst or share // 4}, LEAST_REQUEST")
        use(server, issuer.token("warm"), 1, 2)
        fair = both(server, issuer, seconds, share, greedy=False)
        greedy = both(server, issuer, seconds, share, greedy=True)
    for title, (his, hers) in (("a neighbour at an equal share", fair), ("a greedy neighbour", greedy)):
        print(f"beside {title}:\n  bob       {his}\n  neighbour {hers}")
    kept, slower = greedy[0].per_second / fair[0].per_second, greedy[0].p99 / fair[0].p99
    print(f"bob keeps {kept:.0%} of his throughput (wanted: 80 %), p99 {slower:.2f} times (wanted: below 2)")
    return 0 if kept >= 0.8 and slower < 2 else 1


if __name__ == "__main__":
    sys.exit(main(*(float(each) for each in sys.argv[1:2]), *(int(each) for each in sys.argv[2:4])))
