"""An hour for charts: snapshots of ten minutes, means before that, in little memory."""

from __future__ import annotations

import json
import tracemalloc

from eaf_inference.metrics.snapshot import Busy, Gpu, Host, ModelLoad, Snapshot
from eaf_inference.metrics.timeline import _MOST_NUMBERS, Timeline

LENGTHS = {"gpus": "utilization", "models": "inferences_per_second"}


def filled(snapshots) -> Timeline:
    timeline = Timeline()
    for snapshot in snapshots:
        timeline.add(snapshot)
    return timeline


def columns(timeline, seconds, now):
    data = timeline.columns(timeline.points(seconds, now))
    assert {len(data[name]) for name in data if name not in LENGTHS} == {len(data["times"])}
    assert all(len(each[column]) == len(data["times"]) for rows, column in LENGTHS.items() for each in data[rows])
    return data


def rate(value, name="a", **others):
    return ModelLoad(name, "1", inferences_per_second=value, **others)


def test_ten_minutes_have_snapshots_and_an_hour_has_means():
    timeline = filled(Snapshot(time=float(second), models=(rate(second % 5),)) for second in range(5000))
    recent = columns(timeline, 600, now=4999)
    assert recent["times"] == [float(second) for second in range(4399, 5000)]
    assert recent["inferences_per_second"][:5] == [4, 0, 1, 2, 3]
    hour = columns(timeline, 3600, now=4999)
    assert hour["times"] == [float(second) for second in range(1402, 5000, 5)]
    assert set(hour["inferences_per_second"]) == {2.0}
    assert hour["models"][0]["inferences_per_second"] == hour["inferences_per_second"]


def test_the_current_five_seconds_already_have_a_mean():
    timeline = filled(Snapshot(time=1000 + each, models=(rate(each),)) for each in range(3))
    assert columns(timeline, 3600, now=1002)["inferences_per_second"] == [1.0]


def test_unreported_is_null_and_a_measured_zero_is_zero():
    gpus = (Gpu(id="a", utilization=0.0, memory_used=2.0e9, memory_total=4.0e9, name="A100"), Gpu(id="b"))
    data = columns(filled([Snapshot(time=1.0), Snapshot(time=2.0, gpus=gpus, models=(rate(0.0),))]), 60, now=2)
    assert data["busy"] == data["cpu"] == data["queue_ms"] == data["waiting"] == data["memory_used"] == [None, None]
    assert data["inferences_per_second"] == [None, 0.0]
    assert [gpu["utilization"] for gpu in data["gpus"]] == [[None, 0.0], [None, None]]
    assert [gpu["memory_used"] for gpu in data["gpus"]] == [[None, 2.0e9], [None, None]]
    assert (data["gpus"][0]["name"], data["gpus"][0]["memory_total"]) == ("A100", 4.0e9)
    means = columns(filled([Snapshot(time=1.0), Snapshot(time=2.0, gpus=gpus)]), 3600, now=2)
    assert [gpu["utilization"] for gpu in means["gpus"]] == [[0.0], [None]]


def test_columns_cover_the_service_and_its_parts():
    models = (
        rate(10.0, queue_ms=10.0, requests_per_second=3.0, waiting=0.5),
        rate(5.0, "b", queue_ms=50.0, requests_per_second=1.0, waiting=0.25),
    )
    hosts = (Host("x", cpu_utilization=0.2, memory_used=1e9), Host("y", cpu_utilization=0.4, memory_used=2e9))
    busy = Busy(0.7, "GPU", estimated=False)
    data = columns(filled([Snapshot(time=1.0, busy=busy, models=models, hosts=hosts)]), 60, now=1)
    assert (data["busy"], data["cpu"], data["memory_used"]) == ([0.7], [0.3], [3e9])
    assert (data["queue_ms"], data["waiting"], data["inferences_per_second"]) == ([20.0], [0.75], [15.0])


def test_the_busiest_models_have_columns_and_all_count():
    snapshots = [Snapshot(time=t, models=tuple(rate(float(n), f"m{n}") for n in range(500))) for t in (1.0, 2.0)]
    data = columns(filled(snapshots), 60, now=2)
    assert [model["name"] for model in data["models"]] == [f"m{number}" for number in range(499, 479, -1)]
    assert data["inferences_per_second"] == [sum(range(500))] * 2


def test_times_stay_in_order_after_a_clock_change_or_a_pause():
    times = [*range(1000, 1100), *range(1050, 1060), 9000]
    timeline = filled(Snapshot(time=float(time)) for time in times)
    assert columns(timeline, 600, now=9000)["times"] == [9000.0]
    timeline = filled(Snapshot(time=float(time)) for time in times[:-1])
    assert columns(timeline, 600, now=1060)["times"] == [float(time) for time in range(1000, 1060)]
    hour = columns(timeline, 3600, now=1060)["times"]
    assert hour == sorted(set(hour))


def test_an_hour_of_64_gpus_and_500_models_takes_a_few_mb():
    def snapshot(second):
        gpus = tuple(Gpu(f"GPU-{n:036}", "dgx", "A100", None, n / 100, 1e10 + n, 4e10) for n in range(64))
        models = tuple(rate(float(n + second % 7), f"model_{n:03}") for n in range(500))
        return Snapshot(time=float(second), models=models, gpus=gpus)

    timeline, measured = Timeline(), 60  # points of each kind; an hour has 600 and 720
    tracemalloc.start()
    for place in range(measured):
        timeline.add(snapshot(10 * place))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 720 / measured * kept < 10e6
    data = columns(timeline, 3600, now=10 * measured)
    assert len(data["gpus"]) == 64
    assert len(data["models"]) == 20
    assert 720 / measured * len(json.dumps(data)) < 3e6


def test_with_a_thousand_gpus_some_points_are_left_out():
    gpus = tuple(Gpu(str(number), utilization=0.5) for number in range(1000))
    data = columns(filled(Snapshot(time=float(second), gpus=gpus) for second in range(200)), 600, now=199)
    assert len(data["times"]) * 2000 <= _MOST_NUMBERS
    assert data["times"][-1] == 199.0
