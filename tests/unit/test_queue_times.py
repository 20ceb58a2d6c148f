"""Queue times of the last minute, from Triton's counters since its start."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from eaf_inference.inference.queue_times import QueueTime, QueueTimes
from eaf_inference.inference.repository import ModelRow, ModelTable


class Times(QueueTimes):
    """Queue times with a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(lambda: self.now)

    def read(self, at, requests, ms, *, replica="a", name="jets", last_ms=0):
        """Add a reading at a second: requests since the start, and the ms that they waited in all."""
        queue = SimpleNamespace(count=requests, ns=int(ms * 1e6))
        counts = SimpleNamespace(queue=queue)
        row = SimpleNamespace(name=name, version="1", last_inference=last_ms, inference_stats=counts)
        self.now = at
        self.add(replica, SimpleNamespace(model_stats=[row]))

    @property
    def jets(self):
        return self.of("jets", "1")


def test_the_queue_time_is_unknown_before_a_second_reading():
    times = Times()
    assert times.jets == QueueTime()
    times.read(0, 1000, 5000)
    assert times.jets == QueueTime(since_start=1000)
    times.read(0.1, 1001, 5001)  # too soon after the first reading
    assert times.jets == QueueTime(since_start=1001)


def test_the_queue_time_covers_the_last_minute_and_not_all_time():
    times = Times()
    times.read(0, 1_000_000, 0)  # after a long time with idle queues
    times.read(30, 1_000_010, 4000)
    assert times.jets == QueueTime(10, 400.0, 1_000_010)
    times.read(59, 1_000_010, 4000)
    assert times.jets.requests == 10
    times.read(80, 1_000_010, 4000)  # the first reading is over a minute old
    assert times.jets == QueueTime(0, None, 1_000_010)
    times.read(200, 1_000_020, 4000)
    assert times.jets == QueueTime(since_start=1_000_020)


def test_what_was_read_before_this_machine_slept_does_not_count(monkeypatch):
    times, wall = Times(), [1.7e9]
    monkeypatch.setattr("eaf_inference.inference.queue_times.time", SimpleNamespace(time=lambda: wall[0]))
    times.read(0, 10, 10)
    wall[0] += 8 * 3600 + 5
    times.read(5, 1_000_010, 9e9)
    assert times.jets == QueueTime(since_start=1_000_010)
    wall[0] += 5
    times.read(10, 1_000_020, 9e9 + 400)
    assert times.jets == QueueTime(10, 40.0, 1_000_020)


def test_old_readings_do_not_count_for_the_last_minute():
    times = Times()
    times.read(0, 10, 10)
    times.read(10, 20, 20)
    assert times.jets.requests == 10
    times.now = 600
    assert times.jets.requests is None


def test_a_restart_gives_no_negative_counts():
    times = Times()
    times.read(0, 1000, 9_000_000)
    times.read(10, 1010, 9_000_100)
    times.read(20, 2, 30)  # another Triton, or the same one restarted
    assert times.jets == QueueTime(10, 10.0, 2)
    times.read(30, 5, 60)
    assert times.jets == QueueTime(13, 10.0, 5)
    times.read(75, 5, 60)
    assert times.jets == QueueTime(3, 10.0, 5)


def test_replicas_behind_a_load_balancer_are_kept_apart():
    times = Times()
    for second in range(0, 130, 2):  # in turn, the busier replica second
        times.read(second, 1000 + second, second)
        times.read(second + 1, 90_000 + 2 * second, 4 * second)
    assert 150 <= times.jets.requests <= 180  # of the last minute: 60 and 120
    assert times.jets.ms == pytest.approx(5 / 3, rel=0.05)


def test_a_newly_loaded_model_counts_from_zero():
    times = Times()
    times.read(0, 7, 7, name="other")
    times.read(10, 4, 8)
    assert times.jets == QueueTime(4, 2.0, 4)


def test_replicas_are_kept_apart_and_added_up():
    times = Times()
    times.read(0, 100, 100, replica="a")
    times.read(1, 5000, 5000, replica="b")
    times.read(10, 110, 200, replica="a")
    assert times.jets.requests == 10  # b has a single reading
    times.read(11, 5030, 5200, replica="b")
    assert times.jets == QueueTime(40, 7.5, 5140)
    assert times.jets.ms == pytest.approx((100 + 200) / 40)


def test_frequent_readings_are_thinned_out():
    times = Times()
    for second in range(300):
        times.read(second, second, second)
    assert 55 <= times.jets.requests <= 60
    assert len(times._readings["a"][0]) < 20


def row(name, *, ready=True, **measured):
    return ModelRow(name, "1", (), (), ready=ready, state="ready" if ready else "", queue_ms=None, **measured)


def test_an_unknown_queue_time_says_why():
    words = {
        "not measured yet": row("a"),
        "no requests": row("a", requests=0),
        "not reported": row("a", ready=False),
    }
    assert {said: made.queue for said, made in words.items()} == {said: said for said in words}
    zero = ModelRow("a", "1", (), (), ready=True, state="ready", queue_ms=0.0, requests=4)
    assert zero.queue == "0"
    assert "queue ms (last minute)" in str(ModelTable([zero]))
    for shown in (str(ModelTable([zero])), ModelTable([zero])._repr_html_()):
        assert "–" not in shown
        assert "not" not in shown.partition("</style>")[2]


def test_the_busiest_models_are_shown_first_then_the_used_ones():
    idle = [row(f"idle-{number:03}", requests=0, since_start=10**9) for number in range(300)]
    table = ModelTable(
        [*idle, row("mine", requests=0, used=True), row("busy", requests=7), row("new", since_start=3)]
    )
    names = [each.name for each in table.busiest()]
    assert names[:5] == ["busy", "new", "mine", "idle-000", "idle-001"]
    shown = table.busiest().text(10)
    assert shown.splitlines()[1].startswith("busy ")
    assert shown.splitlines()[-1] == "and 293 more: triton.models() shows all"
    assert len(shown.splitlines()) == 1 + 10 + 1
    assert str(table).splitlines()[-1] == "and 103 more: the list triton.models() holds all"
    assert "more:" not in str(ModelTable(idle[:200]))
    assert len(table) == 303


def test_a_long_name_is_wrapped_in_the_text():
    long = ModelRow(
        "a_very_" + "long_" * 60 + "name", "1", ("x: FP32 [2]",), (), ready=True, state="ready", queue_ms=1
    )
    text = str(ModelTable([long]))
    assert max(map(len, text.splitlines())) <= 120
    assert "".join(line.split()[0] for line in text.splitlines()[1:] if line[0] != " ") == long.name
    assert long.name in ModelTable([long]).text(width=None)


def test_an_empty_table_says_that_there_are_no_models():
    assert str(ModelTable()) == "The server has no models."


def test_a_servers_measurements_replace_the_connections_own():
    entry = SimpleNamespace(name="m", version="1", state="READY", reason="")
    unknown, known = (ModelRow.of(entry, None, each, used=False) for each in (QueueTime(), QueueTime(7, 1.5)))
    table = ModelTable([unknown, known]).measured({("m", "1"): (20, 26.0)}, "last 23 s")
    assert [(row.requests, row.queue) for row in table] == [(20, "26.0")] * 2
    assert "queue ms (last 23 s)" in str(table.busiest())
    assert ModelTable([known]).measured({("m", "1"): (0, None)}, "last 23 s")[0].queue == "no requests"
    assert ModelTable([known]).measured({("other", "1"): (1, 1.0)}, "last 23 s")[0].queue == "not measured yet"
    assert "queue ms (last minute)" in str(ModelTable([known]).measured({}, "last 23 s"))
