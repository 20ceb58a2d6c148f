"""Parsing Triton's metrics: recorded texts, documented ones, and arbitrary numbers."""

from __future__ import annotations

import itertools
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("prometheus_client", reason="prometheus_client is jupyter_server's, which is not installed")

from recorded.replay import documented, h200, h200_seen, scrapes, snapshots

from eaf_inference.errors import BadReply, ConfigurationError
from eaf_inference.metrics.exposition import Scrape, parse, rates, reading
from eaf_inference.metrics.names import TRITON, Of
from eaf_inference.metrics.reading import MOST_MODELS, Reading, Replica, assemble
from eaf_inference.metrics.snapshot import Gpu

KEY = ("m", "1")


def text_of(**values):
    return "".join(f'{name}{{model="m",version="1"}} {value}\n' for name, value in values.items())


def one(measured, **more):
    return assemble([measured], time=0.0, **more)


def direct(scrape, earlier=None, seconds=0.0, name="a"):
    return reading(scrape, earlier, seconds, id=name, host=name, url=f"http://{name}/metrics")


def load(name, model):
    return next(each for each in snapshots(name)[-1].models if each.name == model)


def test_without_the_parser_the_reason_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client.parser", None)  # as if it were not installed
    with pytest.raises(ConfigurationError, match="without prometheus_client.*: pip install"):
        parse("")


def test_recorded_counters_give_rates():
    (first, before), *_, (last, after) = scrapes("server_bound")
    measured = rates(parse(before), parse(after), last - first)[("sleeper", "1")]
    snapshot = one(direct(parse(after), parse(before), last - first))
    sleeper = snapshot.models[0]
    assert sleeper.name == "sleeper"
    assert sleeper.inferences_per_second == measured["inferences"] == pytest.approx(64 * measured["requests"])
    assert sleeper.batch == 64
    assert sleeper.pending == 11  # 12 clients, one of them being served
    assert sleeper.waiting == pytest.approx(sleeper.requests_per_second * sleeper.queue_ms / 1e3)  # Little's law
    assert 10 < sleeper.waiting < 12
    assert 0.8 < sleeper.executing <= 1.01
    assert snapshot.instances[0].busy_estimated is True
    assert snapshot.busy.estimated is True
    assert snapshot.busy.of == "compute time"


def test_merged_requests_count_their_execution_once():
    merging = load("merged", "merging")
    assert merging.batch > 6  # requests of 4 rows were merged
    naive = merging.executing * merging.batch / 4  # Δcompute_infer/Δt
    assert naive > 2
    assert 0.8 < merging.executing <= 1.01  # there is one instance of the model


def test_a_model_that_only_fails_has_failures_and_no_batch():
    broken = load("failures", "broken")
    assert broken.failures_per_second > 10
    assert broken.requests_per_second == 0.0
    assert (broken.batch, broken.queue_ms, broken.compute_ms) == (None, None, None)


def test_an_idle_model_has_rates_of_zero_and_no_mean_times():
    mirror = load("idle", "mirror")
    assert (mirror.inferences_per_second, mirror.executing) == (0.0, 0.0)
    assert (mirror.batch, mirror.queue_ms, mirror.compute_ms) == (None, None, None)


def test_a_restarted_server_counts_from_zero_again():
    (first, before), (last, after) = scrapes("restarted")
    mirror = rates(parse(before), parse(after), last - first)[("mirror", "1")]
    assert mirror["inferences"] == pytest.approx(1000 / (last - first))
    # 16 requests came after the restart, 48 before: the counter fell
    assert mirror["requests"] == pytest.approx(16 / (last - first))


def test_a_single_scrape_gives_no_rates():
    (snapshot,) = snapshots("fresh")
    assert snapshot.window is None
    assert snapshot.busy is None
    assert snapshot.hosts == ()  # all its values are 0
    assert snapshot.gpus == ()
    assert {model.inferences_per_second for model in snapshot.models} == {None}
    assert {model.pending for model in snapshot.models} == {0.0}


def test_a_machine_without_gpu_reports_its_cpu_and_no_gpu():
    snapshot = snapshots("idle")[-1]
    assert snapshot.gpus == ()
    (host,) = snapshot.hosts
    assert 0 <= host.cpu_utilization <= 1
    assert 0 < host.memory_used < host.memory_total


def test_documented_gpus_are_read_and_nan_is_not_reported():
    snapshot = one(direct(parse(documented("triton_gpu"))))
    first, second = snapshot.gpus
    assert (first.utilization, first.power, first.memory_total) == (0.63, 211.5, 40 * 1024**3)
    assert second.power is None
    assert (first.tensor, first.dram, first.profile) == (None, None, None)
    assert snapshot.busy.value == pytest.approx(0.42)
    assert snapshot.busy.estimated is False
    assert snapshot.instances[0].busy == pytest.approx(0.42)
    assert snapshot.instances[0].busy_estimated is False


@pytest.mark.parametrize("moment", ["idle", "busy", "two_instances"])
def test_an_h200_is_read_as_nvidia_smi_saw_it(moment):
    seen = h200_seen(moment)
    (gpu,) = one(direct(parse(h200(moment)))).gpus
    assert gpu.id == seen["uuid"]
    assert gpu.memory_total == seen["memory total MiB"] * 1024**2
    # Triton reads the GPU every two seconds, and nvidia-smi did five times a second
    assert gpu.utilization == pytest.approx(seen["utilization %"] / 100, abs=0.1)
    assert gpu.power == pytest.approx(seen["power W"], rel=0.02)
    assert gpu.memory_used == pytest.approx(seen["memory used MiB"] * 1024**2, rel=0.15)
    assert (gpu.tensor, gpu.dram, gpu.profile) == (None, None, None)


def test_a_gpus_models_are_counted_once():
    counters = parse(h200("busy")).counters
    assert set(counters) == {(f"particlenet{each}", "1") for each in ("", "_full", "_two", "_wide")}
    full = counters[("particlenet_full", "1")]
    assert full["inferences"] > full["requests"] > full["executions"] > 0


def test_a_models_counters_are_added_up_over_gpus():
    assert parse(documented("triton_gpu")).counters[("particlenet", "1")] == {"inferences": 1500.0}


def test_a_missing_series_leaves_out_only_its_own_fields():
    names = {name for name, (of, _) in TRITON.items() if of is Of.COUNTER} - {"nv_inference_queue_duration_us"}
    before, after = (parse(text_of(**dict.fromkeys(names, value))) for value in (10, 20))
    (model,) = one(direct(after, before, 2.0)).models
    assert (model.queue_ms, model.waiting) == (None, None)
    assert model.inferences_per_second == 5.0
    assert model.compute_ms == 0.003


@pytest.mark.parametrize("seconds", [0.0, -5.0, math.nan, 1e-9])
def test_no_time_between_two_scrapes_gives_no_rate(seconds):
    assert rates(parse(text_of(nv_inference_count=1)), parse(text_of(nv_inference_count=2)), seconds) == {}


COUNTS = st.dictionaries(
    st.sampled_from(sorted(name for name, (of, _) in TRITON.items() if of is Of.COUNTER)),
    st.floats() | st.integers(min_value=0, max_value=2**63),
    max_size=8,
)


@given(COUNTS, COUNTS, st.floats(min_value=1e-3, max_value=1e6))
def test_no_figure_is_ever_negative_or_infinite(before, after, seconds):
    snapshot = one(direct(parse(text_of(**after)), parse(text_of(**before)), seconds)).as_dict()
    for model in snapshot["models"]:
        numbers = [value for value in model.values() if isinstance(value, float)]
        assert all(0 <= value < math.inf for value in numbers)


@given(st.lists(st.integers(min_value=0, max_value=10**9), min_size=2, max_size=20))
def test_rates_add_up_to_the_count_since_the_last_restart(steps):
    values = [0.0]
    for step in steps:
        values.append(0.0 if step % 7 == 0 else values[-1] + step)  # a restart now and then
    texts = [parse(text_of(nv_inference_count=value)) for value in values]
    counted = [rates(a, b, 1.0)[KEY]["inferences"] for a, b in itertools.pairwise(texts)]
    since = max((place for place, step in enumerate(steps) if step % 7 == 0), default=-1)
    assert math.fsum(counted[since + 1 :]) == values[-1]


def test_a_new_model_has_no_rate_yet_and_a_removed_one_is_gone():
    before, after = parse('nv_inference_count{model="a",version="1"} 5\n'), parse(text_of(nv_inference_count=9))
    (model,) = one(direct(after, before, 1.0)).models
    assert (model.name, model.inferences_per_second) == ("m", None)


def test_replicas_are_summed_and_have_shares_of_inferences():
    names = ("nv_inference_count", "nv_inference_exec_count", "nv_inference_request_success")
    zero = parse(text_of(**dict.fromkeys(names, 0), nv_inference_queue_duration_us=0))
    busy = parse(text_of(**dict(zip(names, (300, 3, 30), strict=True)), nv_inference_queue_duration_us=30_000))
    calm = parse(text_of(**dict(zip(names, (100, 2, 10), strict=True)), nv_inference_queue_duration_us=50_000))
    down = Reading((Replica("c", "c", "http://c/metrics", up=False, models={}),))
    snapshot = assemble([direct(busy, zero, 1.0), direct(calm, zero, 1.0, name="b"), down], time=0.0)
    (model,) = snapshot.models
    assert (model.inferences_per_second, model.batch, model.queue_ms) == (400.0, 80.0, 2.0)
    assert [(each.id, each.up, each.share) for each in snapshot.instances] == [
        ("a", True, 0.75),
        ("b", True, 0.25),
        ("c", False, None),
    ]


def test_two_sources_do_not_count_the_same_replica_twice():
    zero, after = parse(text_of(nv_inference_count=0)), parse(text_of(nv_inference_count=100))
    scraped = direct(after, zero, 1.0)
    prometheus = Reading(
        (Replica("pod", "a", None, up=True, models={KEY: {"inferences": 90.0}}),), gpus=(Gpu("G", profile="2g.10gb"),)
    )
    both = assemble([scraped, prometheus], time=0.0)
    assert both.models[0].inferences_per_second == 100.0
    assert [instance.id for instance in both.instances] == ["a"]
    assert both.gpus[0].profile == "2g.10gb"
    down = Reading((Replica("a", "a", "http://a/metrics", up=False, models={}),))
    assert assemble([down, prometheus], time=0.0).models[0].inferences_per_second == 90.0


def test_a_gpu_of_two_sources_is_merged():
    snapshot = assemble(
        [Reading(gpus=(Gpu("G", power=3.0),)), Reading(gpus=(Gpu("G", power=5.0, tensor=0.5),))], time=0.0
    )
    assert snapshot.gpus == (Gpu("G", power=3.0, tensor=0.5),)


def test_huge_label_sets_and_long_names_are_bounded():
    lines = [
        f'nv_inference_count{{model="{n:05}{"x" * 10_000 if n == 1 else ""}",version="1"}} 1' for n in range(1200)
    ]
    scrape = parse("\n".join(lines))
    assert len(scrape.counters) == MOST_MODELS
    assert scrape.left_out == 200
    assert max(len(name) for name, _ in scrape.counters) == 200


def test_labels_may_contain_any_text():
    (key,) = parse(r'nv_inference_count{model="<img src=x onerror=\"a\">\n,}",version="1"} 4').counters
    assert key[0] == '<img src=x onerror="a">\n,}'


@pytest.mark.parametrize("text", ["<html>", "nv_inference_count{model=", "nv_inference_count{} x", '{"a": 1}'])
def test_another_servers_answer_is_refused(text):
    with pytest.raises(BadReply, match="Prometheus' text format"):
        parse(text)


def test_an_empty_answer_and_other_metrics_are_accepted():
    assert parse("") == Scrape()
    assert parse("# TYPE go_threads gauge\ngo_threads 7\n") == Scrape()


def test_a_snapshot_is_json_with_stable_keys():
    snapshot = snapshots("server_bound")[-1].as_dict()
    assert list(snapshot) == ["time", "window", "busy", "gpus", "models", "instances", "hosts", "sources"]
    assert list(snapshot["models"][0]) == [
        *("name", "version", "inferences_per_second", "requests_per_second", "failures_per_second", "batch"),
        *("queue_ms", "compute_ms", "pending", "waiting", "executing"),
    ]
    assert list(Gpu("x").__slots__) == [
        *("id", "host", "name", "profile", "utilization", "memory_used", "memory_total", "power", "tensor", "dram"),
        "source",
    ]


def test_the_busiest_models_are_kept():
    snapshot = snapshots("server_bound")[-1]
    assert [model.name for model in snapshot.busiest(1).models] == ["sleeper"]
    assert snapshot.busiest(50) is snapshot


def test_separators_other_than_newlines_do_not_end_a_line():
    (key,) = parse('nv_inference_count{model="a\u2028b\x0bc\x85",version="1"} 4\n').counters
    assert key[0] == "a\u2028b\x0bc\x85"


def test_impossible_numbers_are_ignored():
    scrape = parse(
        'nv_inference_count{model="m",version="1"} 1e308\nnv_inference_count{model="m",version="1",g="2"} 1e308'
    )
    assert scrape == Scrape()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            "nv_inference_count{" + ",".join(f'l{label}=""' for label in range(100_000)) + "} 1\n",
            "a line of 988,911 characters; at most 16,384 are read",
        ),
        (
            'nv_inference_count{model="a"} 1\n' * 300_000,
            "300,000 lines of models and GPUs; at most 50,000 are read",
        ),
    ],
    ids=["many labels", "many lines"],
)
def test_a_text_that_takes_minutes_to_parse_is_refused(text, what):
    with pytest.raises(BadReply, match=what) as caught:
        parse(text)
    assert what in caught.value.reason
