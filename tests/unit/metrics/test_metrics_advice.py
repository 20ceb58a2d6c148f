"""The advice for recorded situations, and for others that could not be recorded."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("prometheus_client", reason="prometheus_client is jupyter_server's, which is not installed")

from recorded.replay import going_on, snapshots

from eaf_inference.metrics.advice import Kind
from eaf_inference.metrics.average import averaged
from eaf_inference.metrics.capacity import COMFORTABLE, Capacity
from eaf_inference.metrics.snapshot import Busy, Gpu, Host, ModelLoad, ReplicaLoad, Snapshot, Source
from eaf_inference.metrics.verdict import advise, judge
from eaf_inference.metrics.workers import Workers

MAX_BATCH = {"sleeper": 64, "merging": 64, "mirror": 64}


def alone(situation):
    """Return a recorded situation without the machine's CPUs, which other programs used too."""
    return [replace(snapshot, hosts=()) for snapshot in going_on(situation)]


@pytest.mark.parametrize(
    ("situation", "kind"),
    [
        ("fresh", Kind.NOTHING_MEASURED),
        ("idle", Kind.NO_LOAD),
        ("one_client", Kind.KEEPS_UP),
        ("client_bound", Kind.CLIENT_BOUND),
        ("server_bound", Kind.SERVER_BOUND),
        ("merged", Kind.BALANCED),
        ("failures", Kind.FAILURES),
        ("restarted", Kind.CLIENT_BOUND),
    ],
)
def test_recorded_situations_get_different_advice(situation, kind):
    advice = advise(alone(situation), max_batch=MAX_BATCH)
    assert advice.kind is kind
    assert advice.title.endswith(".")
    assert advice.text.endswith(".")
    assert list(advice.as_dict()) == ["kind", "title", "text"]


def test_a_machine_without_gpus_under_light_and_full_load():
    half, full = (advise(going_on(name), max_batch={"particlenet": 1024}) for name in ("cpu_half", "cpu_full"))
    assert half.kind is Kind.KEEPS_UP  # one client uses one of two instances
    assert re.search(r"\(estimated; no GPU is reported\), the CPUs of 127\.0\.0\.1 are 5\d% busy", half.text)
    assert "more workers, or more requests in flight, will raise the rate until requests wait." in half.text
    assert half.capacity is None
    assert full.kind is Kind.CPU_BOUND
    assert "More workers will not help; another machine" in full.text


def test_advice_on_a_full_server_names_batch_and_queue():
    advice = advise(alone("server_bound"), max_batch=MAX_BATCH)
    assert re.search(r"batches are full \(64 of 64\) and requests wait \d{3} ms\.", advice.text)
    assert "More workers will not help; a second replica would." in advice.text
    assert "batches hold 64 and" in advise(alone("server_bound")).text  # the size of a full batch is not known


def test_an_estimate_is_marked_and_room_is_in_workers_if_known():
    recorded = alone("client_bound")
    assert "(estimated; no GPU is reported)" in advise(recorded).text
    assert re.search(r"it carries at least \d\.\d times this load\.", advise(recorded).text)
    capacity = advise(recorded).capacity
    mine = Workers(2, capacity.inferences_per_second)
    carried = math.floor(2 * COMFORTABLE / capacity.utilization)
    assert f"it carries at least {carried} workers like your 2." in advise(recorded, workers=mine).text


def test_one_recorded_client_predicts_twelve():
    light, heavy = (averaged(snapshots(name)).models[0] for name in ("one_client", "server_bound"))
    capacity = Capacity.measured(averaged(alone("one_client")))
    predicted = capacity.predict(12)
    assert predicted.queue == pytest.approx(heavy.queue_ms / 1e3, rel=0.25)
    assert predicted.requests_per_second == pytest.approx(heavy.requests_per_second, rel=0.25)
    assert light.queue_ms < 1
    most = capacity.in_flight_until(0.4)
    assert capacity.predict(most).queue <= 0.4 < capacity.predict(most + 1).queue


def test_a_machine_with_full_cpus_carries_no_more():
    shared = going_on("client_bound")  # other programs used its two cores
    advice = advise(shared)
    assert advice.kind is Kind.CPU_BOUND
    assert re.search(r"The CPUs of 127\.0\.0\.1 are (9\d|100)% busy", advice.text)
    assert advice.capacity.room < 1
    full = [replace(minute(gpu=0.9, queue_ms=410.0), hosts=(Host("gpu-01", cpu_utilization=1.0),))]
    assert "a second replica would, on another machine than gpu-01, whose CPUs are full." in advise(full).text
    assert "larger requests" not in advise(full).text
    single = [replace(minute(queue_ms=410.0, batch=1.0), hosts=full[0].hosts)]
    assert "Batches hold 1: larger requests need less CPU time." in advise(single).text
    assert "larger" not in advise(single, max_batch={"particlenet": 1}).text
    half = [replace(each, hosts=(Host("gpu-01", cpu_utilization=0.5),)) for each in alone("client_bound")]
    assert advise(half).kind is Kind.CLIENT_BOUND
    assert advise(half).capacity.room == pytest.approx(COMFORTABLE / 0.5)


def minute(*, gpu=None, instances=1, busy=None, **load):
    """Return a minute with one model under load that reports only the given values."""
    values = {
        "inferences_per_second": 1000.0,
        "requests_per_second": 10.0,
        "failures_per_second": 0.0,
        "batch": 100.0,
    }
    model = ModelLoad("particlenet", "1", **{**values, "compute_ms": 50.0, **load})
    up = tuple(ReplicaLoad(f"i{n}", up=True, busy=busy, busy_estimated=busy and True) for n in range(instances))
    gpus = () if gpu is None else (Gpu("G", utilization=gpu),)
    overall = Busy(gpu, "GPU", estimated=False) if gpu is not None else busy and Busy(busy, "compute time", True)  # noqa: FBT003
    return Snapshot(time=100.0, window=60.0, busy=overall, gpus=gpus, models=(model,), instances=up)


@pytest.mark.parametrize(
    ("snapshot", "kind", "words"),
    [
        (minute(gpu=0.95, queue_ms=410.0, instances=3), Kind.SERVER_BOUND, "a fourth replica would"),
        (minute(queue_ms=410.0), Kind.SERVER_BOUND, "requests wait 410 ms"),
        (minute(gpu=0.95, queue_ms=410.0, batch=8.0), Kind.SMALL_BATCHES, "executed batches hold 8 of 128"),
        (minute(gpu=0.2, queue_ms=410.0), Kind.IDLE_GPU, "while the GPU is busy 20% of the time"),
        (minute(gpu=0.2, queue_ms=410.0), Kind.IDLE_GPU, "configuration), or larger batches, would"),
        (minute(gpu=0.2, queue_ms=410.0, batch=128.0), Kind.IDLE_GPU, "(instance_group in its configuration) would"),
        (minute(gpu=0.2, queue_ms=20.0, executing=0.9), Kind.IDLE_GPU, "requests wait 20 ms while"),
        (minute(gpu=0.2, queue_ms=410.0, executing=0.3), Kind.CLIENT_BOUND, "410 ms, because they come in bursts."),
        (
            minute(gpu=0.3, queue_ms=1.0, executing=0.97),
            Kind.KEEPS_UP,
            "The limit of parallel executions is not reported",
        ),
        (minute(gpu=0.1, queue_ms=0.3), Kind.CLIENT_BOUND, "it carries about 8.0 times this load"),
        (minute(busy=0.1, queue_ms=90.0), Kind.CLIENT_BOUND, "requests wait 90 ms"),  # bursts
        (minute(queue_ms=0.3), Kind.CLIENT_BOUND, "does not report enough to say how much more it carries."),
        (minute(gpu=0.3), Kind.CLIENT_BOUND, "queue time is not reported"),
        (minute(gpu=0.75, queue_ms=20.0), Kind.BALANCED, "it carries little more than this load"),
        (minute(failures_per_second=1.0, queue_ms=1.0), Kind.FAILURES, "9% of requests fail"),
        (
            minute(requests_per_second=0.0, inferences_per_second=0.0, pending=7.0),
            Kind.STUCK,
            "7 requests to particlenet are pending and none was answered",
        ),
    ],
)
def test_each_rule_has_its_case(snapshot, kind, words):
    advice = advise([snapshot], max_batch={"particlenet": 128})
    assert advice.kind is kind
    assert words in advice.text


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ((), "No metrics endpoint is configured"),
        ((Source("http://a/metrics", "Triton"),), "No metrics endpoint has answered yet"),
        ((Source("http://a/metrics", "Triton", age=1.0),), "reports no rates"),
        (
            (Source("http://a/metrics", "Triton", error="Connection refused"),),
            "http://a/metrics: Connection refused.",
        ),
    ],
)
def test_advice_says_why_nothing_is_measured(sources, words):
    advice = advise([Snapshot(time=float(n), sources=sources) for n in range(6)])
    assert advice.kind is Kind.NOTHING_MEASURED
    assert words in advice.text


def test_pending_requests_are_not_stuck_in_the_first_seconds():
    waiting = minute(requests_per_second=0.0, inferences_per_second=0.0, queue_ms=None, compute_ms=None, pending=8.0)
    measured = [replace(waiting, window=1.0, time=float(n)) for n in range(31)]
    advice = advise(measured[:8])
    assert (advice.kind, advice.capacity) == (Kind.NOTHING_MEASURED, None)
    assert advice.text.startswith("8 requests to particlenet are pending and none was answered in the last 8 s,")
    assert advise(measured).kind is Kind.STUCK


def test_without_snapshots_nothing_is_measured():
    assert advise([]).kind is Kind.NOTHING_MEASURED


def test_advice_mentions_a_growing_queue():
    series = [replace(minute(gpu=0.9, queue_ms=60.0 + 10 * n), time=float(n)) for n in range(60)]
    assert "and ever longer" in advise(series).text
    assert "and ever longer" not in advise([replace(each, models=series[-1].models) for each in series]).text


def test_one_saturated_replica_among_idle_ones_is_found():
    snapshot = minute(queue_ms=400.0, busy=0.1, instances=4)
    busiest = (replace(snapshot.instances[0], busy=1.0), *snapshot.instances[1:])
    advice = advise([replace(snapshot, instances=busiest)])
    assert advice.kind is Kind.UNEVEN
    assert "while i0 is busy 100% of the time, and all 4 replicas 10%." in advice.text


def situations():
    """Yield every possible combination of a few values per figure that advice looks at."""
    for gpu, executing, cpu, wait, batch in itertools.product(
        (None, 0.005, 0.45, 0.65, 0.68, 0.9),
        (None, 0.1, 0.65, 0.68, 2.4),
        (None, 0.0, 0.6, 0.7, 0.9, 1.0),
        (None, 0.0, 0.3, 1.0, 8.0),
        (1.0, 120.0),
    ):
        queue = None if wait is None else 50.0 * wait
        estimate = None if gpu is not None or executing is None else min(1.0, executing)
        made = minute(gpu=gpu, busy=estimate, executing=executing, queue_ms=queue, batch=batch)
        yield replace(made, hosts=() if cpu is None else (Host("node", cpu_utilization=cpu),))


WORKERS = (None, Workers(1, 1000.0), Workers(2, 900.0), Workers(40, 1000.0), Workers(3, 0.5))


def contradiction(snapshot, workers):
    """Return the contradictions in the advice on a situation, and the advice."""
    advice = advise([snapshot], max_batch={"particlenet": 128}, workers=workers)
    said, room = str(advice), advice.capacity.room if advice.capacity else None
    gpu = snapshot.busy.value if snapshot.busy and not snapshot.busy.estimated else None
    cpu = snapshot.hosts[0].cpu_utilization if snapshot.hosts else None
    shown = {f"{each:.0%}" for each in (snapshot.busy and snapshot.busy.value, cpu) if each is not None}
    more = re.search(r"carries (?:about|at least) ([\d.,]+) (times this load|workers like your (\d+))", said)
    limited = {Kind.CPU_BOUND, Kind.SERVER_BOUND, Kind.SMALL_BATCHES}
    return {
        "limited by clients and full": advice.kind is Kind.CLIENT_BOUND and room is not None and room <= 1.15,
        "limited by the server and room": advice.kind in limited and room is not None and room > 1.21,
        "more helps and does not": "will not help" in said and "raise the rate" in said,
        "more helps and is not carried": "raise the rate" in said
        and ("little more" in said or "no more than" in said),
        "no room and more carried": more and not (room and float(more[1].replace(",", "")) > float(more[3] or 1)),
        "well used and idle": "well used" in said and [each for each in (gpu, cpu) if each] and room and room > 1.61,
        "clients are the limit of full CPUs": advice.kind is Kind.CLIENT_BOUND and cpu is not None and cpu >= 0.7,
        "idle GPU and a busy one": advice.kind is Kind.IDLE_GPU and (gpu is None or gpu >= 0.7),
        "a share that was not measured": set(re.findall(r"\d+%", said)) - shown,
    }, said


def test_advice_never_contradicts_itself_or_the_figures():
    kinds = set()
    for snapshot, workers in itertools.product(situations(), WORKERS):
        found, said = contradiction(snapshot, workers)
        assert not [name for name, holds in found.items() if holds], (said, snapshot, workers)
        kinds.add(said.split(".")[0])
    assert len(kinds) == 7


def test_each_mean_is_weighted_with_its_denominator():
    calm = ModelLoad("m", "1", 10.0, 1.0, batch=10.0, queue_ms=100.0, compute_ms=5.0)
    busy = ModelLoad("m", "1", 990.0, 99.0, batch=99.0, queue_ms=0.0, compute_ms=5.0)
    average = averaged([Snapshot(time=float(n), window=1.0, models=(load,)) for n, load in enumerate([calm, busy])])
    (model,) = average.models
    assert (model.inferences_per_second, model.queue_ms, model.compute_ms) == (500.0, 1.0, 5.0)
    assert model.batch == pytest.approx(1000 / 11)  # 1 and 10 executions
    assert model.failures_per_second is None
    assert average.window == 2.0


def test_old_snapshots_and_vanished_models_are_left_out():
    old = Snapshot(time=0.0, models=(ModelLoad("m", "1", 1e6), ModelLoad("gone", "1", 5.0)))
    now = Snapshot(time=61.0, models=(ModelLoad("m", "1", 4.0),))
    assert [(m.name, m.inferences_per_second) for m in averaged([old, now]).models] == [("m", 4.0)]


def seconds(*parts):
    """Return one snapshot per second from pairs of seconds and snapshot."""
    made = [each for number, each in parts for _ in range(number)]
    return [replace(each, time=float(n), window=1.0) for n, each in enumerate(made)]


QUIET = minute(
    requests_per_second=0.0, inferences_per_second=0.0, queue_ms=None, compute_ms=None, batch=None, gpu=0.0
)
LIGHT = minute(gpu=0.1, queue_ms=0.3)
HEAVY = minute(gpu=0.95, queue_ms=410.0, inferences_per_second=9000.0)


def test_figures_cover_the_load_since_the_run_began():
    average = judge(seconds((300, QUIET), (12, HEAVY))).average
    assert average.models[0].inferences_per_second == 9000.0  # without the first second
    assert (average.window, average.busy.value) == (11.0, pytest.approx(0.95))
    longer = judge(seconds((30, LIGHT), (80, HEAVY))).average
    assert (longer.window, longer.models[0].inferences_per_second) == (60.0, 9000.0)


def test_a_pause_under_five_seconds_belongs_to_the_run():
    average = judge(seconds((9, QUIET), (6, HEAVY), (4, QUIET), (6, HEAVY))).average
    assert average.window == 15.0
    assert average.models[0].inferences_per_second == pytest.approx(9000 * 11 / 15)
    again = judge(seconds((6, HEAVY), (5, QUIET), (6, HEAVY))).average
    assert (again.window, again.models[0].inferences_per_second) == (5.0, 9000.0)


def test_advice_needs_five_seconds_of_load_or_idleness():
    said = [judge(seconds((20, QUIET), (n, HEAVY))).advice for n in range(1, 9)]
    assert said[:4] == [None] * 4
    assert {advice.kind for advice in said[5:]} == {Kind.SERVER_BOUND}
    over = [judge(seconds((20, HEAVY), (n, QUIET))).advice for n in range(1, 9)]
    assert {advice.kind for advice in over[:4]} == {Kind.SERVER_BOUND}
    assert {(advice.kind, advice.text) for advice in over[7:]} == {(Kind.NO_LOAD, "No request came in the last 8 s.")}
    assert advise(seconds((3, QUIET))) is None


@pytest.mark.parametrize(
    ("before", "after", "kind"), [(LIGHT, HEAVY, Kind.SERVER_BOUND), (HEAVY, LIGHT, Kind.CLIENT_BOUND)]
)
def test_outdated_advice_is_withdrawn_within_five_seconds(before, after, kind):
    verdict = judge(seconds((90, before), (5, after)))
    assert verdict.advice.kind is kind
    assert verdict.average.models == after.models  # the figures cover the same time
    assert verdict.average.window == 5.0
    assert judge(seconds((90, before), (1, after), (5, before))).advice.kind is not kind
    later = judge(seconds((90, before), (17, after)))
    assert (later.average.window, later.average.models) == (
        15.0,
        after.models,
    )  # all give the same advice


def test_without_load_times_are_those_of_the_last_minute():
    average = judge(seconds((10, HEAVY), (20, QUIET))).average
    (model,) = average.models
    assert (model.inferences_per_second, model.queue_ms, model.batch) == (0.0, 410.0, 100.0)
    assert average.window == 20.0
    assert judge(seconds((10, HEAVY), (70, QUIET))).average.models[0].queue_ms is None


def exponential_single_server(clients, demand, think):
    """Solve the machine repairman model in closed form, which mean value analysis must match."""
    weights = [math.perm(clients, n) * (demand / think) ** n for n in range(clients + 1)]
    throughput = (1 - weights[0] / math.fsum(weights)) / demand
    return throughput, clients / throughput - think - demand


@given(st.integers(1, 60), st.floats(0.001, 1.0), st.floats(0.01, 10.0))
def test_predictions_match_queueing_theory(clients, demand, think):
    capacity = Capacity(100.0, 0.5 / demand, 0.5, service=demand, queue=0.0, estimated=False)
    assert capacity.demand == pytest.approx(demand)
    predicted = capacity.predict(clients, think=think)
    throughput, queue = exponential_single_server(clients, demand, think)
    assert predicted.requests_per_second == pytest.approx(throughput, rel=1e-6)
    assert predicted.queue == pytest.approx(queue, rel=1e-5, abs=1e-6 * (clients * demand + think))
    assert predicted.requests_per_second <= 1 / demand * (1 + 1e-9)


def test_beyond_saturation_the_response_time_law_holds():
    capacity = Capacity(6400.0, 100.0, 0.5, service=0.02, queue=0.001, estimated=False)
    assert capacity.limit == 12800.0
    assert capacity.room == 1.6
    many = capacity.predict(400, think=0.1)
    assert many.requests_per_second == pytest.approx(200, rel=1e-3)
    assert many.queue == pytest.approx(400 / 200 - 0.1 - 0.02, rel=1e-2)


@pytest.mark.parametrize(
    "snapshot",
    [
        minute(queue_ms=1.0),  # utilization is not reported, and requests hardly wait
        minute(queue_ms=1.0, busy=0.99),  # more than one execution may run at once
        minute(queue_ms=None, gpu=0.5),
        minute(queue_ms=1.0, gpu=0.0),
        minute(queue_ms=1.0, gpu=0.5, requests_per_second=None),
        minute(queue_ms=1.0, gpu=0.5, inferences_per_second=0.0),
        Snapshot(time=0.0),
    ],
)
def test_too_few_measurements_give_no_capacity(snapshot):
    assert Capacity.measured(snapshot) is None


def test_a_tiny_queue_time_is_written_without_an_exponent():
    model = ModelLoad("m", "1", inferences_per_second=9e5, requests_per_second=9e3, queue_ms=4e-5, compute_ms=0.1)
    run = [Snapshot(float(n), window=1.0, busy=Busy(0.4, "GPU", estimated=False), models=(model,)) for n in range(9)]
    assert "requests wait <0.001 ms" in advise(run).text
