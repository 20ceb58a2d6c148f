"""The decisions behind a cluster's link to Triton, without a cluster."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import threading
import time

import pytest
from tokens import make_token

from eaf_inference.dask import worker_plugin
from eaf_inference.dask.clusters import ClusterRow, ClusterTable, differences
from eaf_inference.dask.link import _rest
from eaf_inference.dask.worker_plugin import Plugin, Secret, TokenRelay, WorkerState, times_of

SECRET = "text"  # noqa: S105  (not a real one)


def values(issued: float, *, token: str | None = SECRET, urls: tuple[str, ...] = ("grpc://host:1",), **more) -> dict:
    defaults = {"reason": "", "ca": None, "user": "alice", "expires": None, "settings": {}}
    return Plugin({**defaults, "urls": list(urls), "token": token, "issued": issued, **more}).values


def ignore(_: dict) -> None:
    """Ignore a report of a refusal."""


def test_a_worker_keeps_the_youngest_values_in_any_order_of_arrival():
    state = WorkerState()
    for issued in (20.0, 10.0, 30.0, 25.0):
        state.take(values(issued), object(), ignore)
    assert state.values["issued"] == 30.0


def test_later_values_replace_values_of_the_same_age():
    state = WorkerState()
    state.take(values(0.0, token=None), object(), ignore)
    state.take(values(0.0, token=None, urls=("grpc://other:1",)), object(), ignore)
    assert state.values["urls"] == ["grpc://other:1"]


def test_pending_values_do_not_replace_connected_ones():
    state = WorkerState()
    state.take(values(0.0, token=None, urls=(), reason="discovery is not finished yet"), object(), ignore)
    assert state.report(None)["state"] == "waiting"
    state.take(values(10.0), object(), ignore)
    state.take(values(20.0, token=None, urls=()), object(), ignore)
    assert state.report(None)["state"] == "connected"


def test_only_the_latest_owner_can_drop_the_values():
    state, first, second = WorkerState(), object(), object()
    state.take(values(10.0), first, ignore)
    state.take(values(20.0), second, ignore)
    state.drop(first)  # a plugin that was replaced
    assert state.values["issued"] == 20.0
    state.drop(second)
    assert state.values is None
    state.take(values(5.0), object(), ignore)  # now any age is accepted
    assert state.values["issued"] == 5.0


def test_a_refusal_is_reported_until_a_younger_token_arrives():
    state, refusals = WorkerState(), []
    state.take(values(10.0), object(), refusals.append)
    state.refuse(10.0)
    assert refusals == [{"refused": 10.0}]
    assert state.report(None)["token_refused"] is True
    younger = threading.Timer(0.05, state.take, (values(11.0), object(), ignore))
    younger.start()
    assert state.wait_until(lambda: state.values["issued"] > 10.0, 20)
    younger.join()
    assert state.report(None)["token_refused"] is False


def test_a_report_omits_what_was_not_counted():
    state = WorkerState()
    state.take(values(time.time() - 5, token=None), object(), ignore)
    report = state.report(None)
    assert "inferences" not in report
    assert report["token_age"] is None
    assert report["token_left"] is None
    totals = {"inferences": 0, "bytes": 0}
    state.totals = lambda: dict(totals)
    assert state.report(None)["inferences_per_second"] is None  # one report gives no rate


def test_the_rate_covers_the_last_ten_seconds(monkeypatch):
    now, totals, state = [100.0], {"inferences": 0}, WorkerState()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: 5000.0 - now[0])  # is set back all the time
    state.totals = lambda: dict(totals)
    rates = []
    for _ in range(30):
        rates.append(state.report(None)["inferences_per_second"])
        now[0] += 1
        totals["inferences"] += 50 if len(rates) <= 15 else 0
    assert rates[10] == pytest.approx(50)
    assert rates[-1] == 0


def test_a_workers_next_connection_counts_from_zero(monkeypatch):
    now, counted, state = [100.0], [0], WorkerState()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    state.totals = lambda: {"inferences": counted[0]}
    rates = []
    for now[0], counted[0] in ((100.0, 0), (102.0, 600), (104.0, 10), (106.0, 30)):
        rates.append(state.report(None)["inferences_per_second"])
    assert rates == [None, 300.0, None, 10.0]


def test_plugins_load_in_a_process_without_eaf_inference():
    travelling = [pickle.dumps(Plugin(values(1.0))), pickle.dumps(TokenRelay())]
    code = (
        "import pickle, sys; sys.modules['eaf_inference'] = None\n"
        "plugin, relay = [pickle.loads(bytes.fromhex(each)) for each in sys.argv[1:]]\n"
        "again = pickle.loads(pickle.dumps(plugin))\n"
        "print(again, relay, again.values['token'].reveal())"
    )
    command = [sys.executable, "-c", code, *(each.hex() for each in travelling)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    plugin = "<eaf_inference plugin with grpc://host:1 as alice>"
    assert done.stdout == f"{plugin} <eaf_inference token relay for None> text\n"


def test_a_secret_is_in_no_repr():
    secret = Secret("text")
    assert "text" not in f"{secret} {secret!r} {[secret]}"
    assert secret.reveal() == "text"


def test_a_scheduler_that_fails_once_still_renews_the_token(monkeypatch):
    renewed, tries = asyncio.Event(), []

    class FailsOnce:
        async def register_worker_plugin(self, *, plugin, **_):
            tries.append(plugin.data.values["token"].reveal())
            if len(tries) == 1:
                raise KeyError("of the scheduler")
            renewed.set()
            return {}

    async def renew():
        relay = TokenRelay()
        relay._scheduler, relay._newest = FailsOnce(), Plugin(values(1.0, expires=2.0))
        await relay.pull("http://host", Secret("hub"), None)
        await asyncio.wait_for(renewed.wait(), 20)
        await relay.close()

    monkeypatch.setattr(worker_plugin, "_AT_LEAST", 0.01)
    monkeypatch.setattr(worker_plugin, "fetch_token", lambda *_: make_token())
    asyncio.run(renew())
    assert len(set(tries)) == 2


def test_times_of_a_jwt_are_read():
    token = make_token(lives=600, age=60)
    times = times_of(token)
    assert times["expires"] - times["issued"] == pytest.approx(600)


@pytest.mark.parametrize(
    ("issued", "expires", "now", "least", "most"),
    [
        (0, 600, 0, 250, 270),  # before half of its lifetime
        (0, 600, 400, 19, 21),  # no younger token yet: more often towards the end
        (0, 600, 599, 1, 1),
        (0, 600, 10_000, 1, 1),
        (0, 10**6, 900_000, 30, 30),
        (0, None, 5, 60, 60),
    ],
)
def test_the_time_until_the_next_renewal(issued, expires, now, least, most):
    assert least <= _rest({"issued": issued, "expires": expires}, now) <= most


def versions(scheduler: dict, *workers: dict) -> dict:
    here = {"python": "3.11.7", "distributed": "2026.8.0", "awkward": "2.14", "eaf-inference": "0.1.0"}
    return {
        "client": {"packages": here},
        "scheduler": {"packages": here | scheduler},
        "workers": {f"tls://{number}": {"packages": here | worker} for number, worker in enumerate(workers)},
    }


def test_equal_versions_are_not_mentioned():
    assert differences(versions({}, {}, {})) == []


def test_different_versions_are_listed_with_place_and_number():
    found = differences(
        versions(
            {"python": "3.10.2", "awkward": None},
            {"distributed": "2025.4.0"},
            {"eaf-inference": None},
            {"eaf-inference": None},
        )
    )
    assert found == [
        "python 3.11.7 here, 3.10.2 on the scheduler",
        "distributed 2026.8.0 here, 2025.4.0 on 1 of 3 workers",
        "awkward 2.14 here, missing on the scheduler",
        "eaf-inference 0.1.0 here, missing on 2 of 3 workers",
    ]


def test_a_table_of_clusters_shows_no_unreported_number():
    text = str(ClusterTable([ClusterRow("abc", "waiting, as discovery is not finished yet")]))
    assert "0" not in text
    assert text.count("not reported") == 4
    assert str(ClusterTable()) == "No Dask cluster uses this connection."
