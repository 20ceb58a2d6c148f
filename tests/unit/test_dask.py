"""What the pieces of a cluster's link decide, without a cluster."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time

import pytest
from tokens import make_token

from eaf_inference.dask.clusters import ClusterRow, ClusterTable, differences
from eaf_inference.dask.link import _rest
from eaf_inference.dask.worker_plugin import Held, Keeper, Plugin, Secret, times_of

SECRET = "text"  # noqa: S105  (nobody's)


def values(issued: float, *, token: str | None = SECRET, urls: tuple[str, ...] = ("grpc://host:1",), **more) -> dict:
    nothing = {"reason": "", "ca": None, "user": "alice", "expires": None, "settings": {}}
    return Plugin({**nothing, "urls": list(urls), "token": token, "issued": issued, **more}).values


def nobody(_: dict) -> None:
    """Nobody hears the announcement."""


def test_a_worker_keeps_the_youngest_values_in_whatever_order_they_come():
    held = Held()
    for issued in (20.0, 10.0, 30.0, 25.0):
        held.take(values(issued), object(), nobody)
    assert held.values["issued"] == 30.0


def test_of_values_as_old_as_those_there_the_later_ones_count():
    held = Held()
    held.take(values(0.0, token=None), object(), nobody)
    held.take(values(0.0, token=None, urls=("grpc://other:1",)), object(), nobody)
    assert held.values["urls"] == ["grpc://other:1"]


def test_values_that_wait_for_a_connection_replace_nothing_that_is_connected():
    held = Held()
    held.take(values(0.0, token=None, urls=(), reason="it takes its time"), object(), nobody)
    assert held.report(None)["state"] == "waiting"
    held.take(values(10.0), object(), nobody)
    held.take(values(20.0, token=None, urls=()), object(), nobody)
    assert held.report(None)["state"] == "connected"


def test_only_the_last_to_bring_values_takes_them_away():
    held, first, second = Held(), object(), object()
    held.take(values(10.0), first, nobody)
    held.take(values(20.0), second, nobody)
    held.drop(first)  # a plugin that was replaced
    assert held.values["issued"] == 20.0
    held.drop(second)
    assert held.values is None
    held.take(values(5.0), object(), nobody)  # after that, any age will do
    assert held.values["issued"] == 5.0


def test_a_refusal_is_announced_and_shown_until_a_younger_token_comes():
    held, said = Held(), []
    held.take(values(10.0), object(), said.append)
    held.refuse(10.0)
    assert said == [{"refused": 10.0}]
    assert held.report(None)["token_refused"] is True
    younger = threading.Timer(0.05, held.take, (values(11.0), object(), nobody))
    younger.start()
    assert held.wait_until(lambda: held.values["issued"] > 10.0, 20)
    younger.join()
    assert held.report(None)["token_refused"] is False


def test_a_report_says_nothing_of_what_was_not_counted():
    held = Held()
    held.take(values(time.time() - 5, token=None), object(), nobody)
    report = held.report(None)
    assert "inferences" not in report
    assert report["token_age"] is None
    assert report["token_left"] is None
    totals = {"inferences": 0, "bytes": 0}
    held.totals = lambda: dict(totals)
    assert held.report(None)["inferences_per_s"] is None  # of one look there is no rate


def test_the_rate_is_of_the_last_ten_seconds(monkeypatch):
    now, totals, held = [100.0], {"inferences": 0}, Held()
    monkeypatch.setattr(time, "time", lambda: now[0])
    held.totals = lambda: dict(totals)
    rates = []
    for _ in range(30):
        rates.append(held.report(None)["inferences_per_s"])
        now[0] += 1
        totals["inferences"] += 50 if len(rates) <= 15 else 0
    assert rates[10] == pytest.approx(50)
    assert rates[-1] == 0


def test_plugins_travel_to_a_process_that_has_distributed_and_not_us():
    travelling = [pickle.dumps(Plugin(values(1.0))), pickle.dumps(Keeper())]
    code = (
        "import pickle, sys; sys.modules['eaf_inference'] = None\n"
        "plugin, keeper = [pickle.loads(bytes.fromhex(each)) for each in sys.argv[1:]]\n"
        "again = pickle.loads(pickle.dumps(plugin))\n"
        "print(again, keeper, again.values['token'].reveal())"
    )
    command = [sys.executable, "-c", code, *(each.hex() for each in travelling)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == ("<eaf_inference plugin with grpc://host:1 as alice> <eaf_inference keeper of None> text\n")


def test_a_secret_shows_its_text_nowhere():
    secret = Secret("text")
    assert "text" not in f"{secret} {secret!r} {[secret]}"
    assert secret.reveal() == "text"


def test_a_jwts_times_are_read_without_us():
    token = make_token(lives=600, age=60)
    times = times_of(token)
    assert times["expires"] - times["issued"] == pytest.approx(600)


@pytest.mark.parametrize(
    ("issued", "expires", "now", "least", "most"),
    [
        (0, 600, 0, 250, 270),  # before half of its life
        (0, 600, 400, 19, 21),  # the source has no younger one yet: more often as the end nears
        (0, 600, 599, 1, 1),
        (0, 600, 10_000, 1, 1),
        (0, 10**6, 900_000, 30, 30),
        (0, None, 5, 60, 60),
    ],
)
def test_when_a_younger_token_is_looked_for(issued, expires, now, least, most):
    assert least <= _rest({"issued": issued, "expires": expires}, now) <= most


def versions(scheduler: dict, *workers: dict) -> dict:
    here = {"python": "3.11.7", "distributed": "2026.8.0", "awkward": "2.14", "eaf-inference": "0.1.0"}
    return {
        "client": {"packages": here},
        "scheduler": {"packages": here | scheduler},
        "workers": {f"tls://{number}": {"packages": here | worker} for number, worker in enumerate(workers)},
    }


def test_versions_that_agree_are_not_mentioned():
    assert differences(versions({}, {}, {})) == []


def test_versions_that_differ_are_said_with_where_and_how_many():
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


def test_a_table_of_clusters_shows_no_number_that_nobody_reported():
    text = str(ClusterTable([ClusterRow("abc", "waiting, as it takes its time")]))
    assert "0" not in text
    assert text.count("not reported") == 4
    assert str(ClusterTable()) == "No Dask cluster uses this connection."
