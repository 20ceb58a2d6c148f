"""Queries to Prometheus and its answers; tests/integration uses a real one."""

from __future__ import annotations

import json

import pytest

from eaf_inference.errors import BadReply, ConfigurationError
from eaf_inference.metrics.http import check_url
from eaf_inference.metrics.prometheus import Prometheus, expression, reading_of
from eaf_inference.metrics.reading import MOST_INSTANCES, Reading, assemble


def answer(*series):
    """Return an answer of Prometheus with these series: (our field, value, labels)."""
    result = [{"metric": {"eaf_field": field, **labels}, "value": [1.7e9, value]} for field, value, labels in series]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


def snapshot_of(*series):
    return assemble([reading_of(answer(*series), window=30.0)], time=0.0)


M = {"model": "m", "version": "1", "instance": "10.0.0.1:8002"}
MIG = {"UUID": "GPU-1", "GPU_I_ID": "3", "GPU_I_PROFILE": "2g.10gb", "Hostname": "ampere-01", "modelName": "A100"}


def test_several_prometheus_replicas_count_each_series_once():
    text = expression(['namespace="triton"'], ['Hostname=~"ampere-.*"'], window=45)
    assert text.count("max without(prometheus_replica") == text.count("label_replace(") + 1
    assert 'rate(nv_inference_count{namespace="triton"}[45s])' in text
    assert 'DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{Hostname=~"ampere-.*"}' in text
    assert "nv_gpu_utilization{namespace" in text
    assert "{}" not in expression()


@pytest.mark.parametrize(
    "matcher", ["", "namespace", "namespace=triton", 'a="b"} or vector(1) or x{', 'a="b" , c="d"']
)
def test_an_invalid_matcher_is_refused(matcher):
    with pytest.raises(ConfigurationError, match="not a matcher"):
        expression([matcher])


def test_labels_name_replicas_and_models():
    other = {**M, "instance": "10.0.0.2:8002", "pod": "triton-7f-x", "node": "gpu-02"}
    snapshot = snapshot_of(
        ("counter_inferences", "300", M),
        ("counter_requests", "30", M),
        ("counter_queue_us", "60000", M),
        ("counter_inferences", "100", other),
        ("counter_failures", "1", {**M, "reason": "BACKEND"}),
        ("counter_failures", "2", {**M, "reason": "OTHER"}),
        ("gauge_pending", "4", M),
        ("counter_executions", "NaN", M),
        ("host_cpu_utilization", "0.5", {"instance": "10.0.0.1:8002"}),
        *(("up", "1", labels) for labels in (M, other, {"instance": "10.0.0.3:8002"})),
        ("counter_inferences", "1000", {**M, "instance": "10.0.0.4:8002"}),  # still inside the window
        ("counter_inferences", "1000", {**M, "instance": "10.0.0.5:8002"}),  # also, of a deleted pod
        ("down", "0", {"instance": "10.0.0.4:8002"}),
        ("down", "0", {"instance": "10.0.0.1:8002"}),  # of another job; it is up
    )
    (model,) = snapshot.models
    assert (model.inferences_per_second, model.queue_ms, model.failures_per_second) == (400.0, 2.0, 3.0)
    assert (model.pending, model.batch) == (4.0, None)
    assert [(each.id, each.host, each.up, each.share) for each in snapshot.instances] == [
        ("10.0.0.1:8002", "10.0.0.1", True, 0.75),
        ("10.0.0.3:8002", "10.0.0.3", True, None),
        ("triton-7f-x", "gpu-02", True, 0.25),
        ("10.0.0.4:8002", "10.0.0.4", False, None),
    ]
    assert snapshot.window == 30.0
    assert snapshot.hosts[0].cpu_utilization == 0.5


def test_a_mig_slice_has_its_profile_and_its_engines_activity():
    values = {"engine": "0.9", "tensor": "0.4", "memory_used": "4000", "memory_free": "6000", "power": "120"}
    whole = {"gpu": "1", "device": "nvidia1", "instance": "10.0.0.9:9400"}
    snapshot = snapshot_of(
        *((f"dcgm_{field}", value, MIG) for field, value in values.items()),
        ("dcgm_utilization", "71", whole),
    )
    full, mig = sorted(snapshot.gpus, key=lambda gpu: gpu.profile or "")
    assert (mig.id, mig.host, mig.name, mig.profile) == ("GPU-1/3", "ampere-01", "A100", "2g.10gb")
    assert (mig.utilization, mig.tensor, mig.dram, mig.power) == (0.9, 0.4, None, 120.0)
    assert (mig.memory_used, mig.memory_total) == (4000 * 2**20, 10000 * 2**20)
    assert (full.id, full.utilization, full.memory_total) == ("10.0.0.9/nvidia1", pytest.approx(0.71), None)
    assert snapshot.busy.estimated is False


def test_dcgm_takes_precedence_over_triton():
    series = [
        ("gpu_utilization", "0.2", {"gpu_uuid": "GPU-1", "instance": "a:8002"}),
        ("gpu_memory_total", "42", {"gpu_uuid": "GPU-1", "instance": "a:8002"}),
        ("dcgm_utilization", "60", {"UUID": "GPU-1", "Hostname": "ampere-01"}),
    ]
    for order in (series, series[::-1]):
        (gpu,) = snapshot_of(*order).gpus
        assert (gpu.utilization, gpu.memory_total, gpu.host) == (0.6, 42.0, "ampere-01")


def test_a_gpu_not_measured_yet_is_not_reported_as_idle():
    unmeasured = [
        (f"gpu_{field}", "0", {"gpu_uuid": uuid, "instance": "a:8002"})
        for uuid in ("GPU-1", "GPU-2")
        for field in ("utilization", "memory_used", "memory_total", "power")
    ]
    used = [(f"dcgm_{field}", "40", {"UUID": "GPU-2"}) for field in ("utilization", "memory_used", "memory_free")]
    for order in ([*unmeasured, *used], [*used, *unmeasured]):
        (gpu,) = snapshot_of(*order).gpus
        assert (gpu.id, gpu.utilization, gpu.memory_total, gpu.power) == ("GPU-2", 0.4, 80 * 2**20, None)


def test_huge_answers_are_bounded():
    series = [("up", "1", {**M, "instance": f"10.0.{n // 250}.{n % 250}:8002"}) for n in range(300)]
    reading = reading_of(answer(*series), window=30.0)
    assert len(reading.replicas) == MOST_INSTANCES
    assert reading.left_out == 300 - MOST_INSTANCES


def test_an_empty_answer_gives_an_empty_snapshot():
    assert snapshot_of() == assemble([], time=0.0)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"status": "success"}', b'{"status": "success", "data": {"result": [{}]}}'],
)
def test_another_servers_answer_is_refused(body):
    with pytest.raises(BadReply, match="not from a Prometheus"):
        reading_of(body, window=30.0)


def test_prometheus_own_errors_are_passed_on():
    with pytest.raises(BadReply, match="query timed out"):
        reading_of(b'{"status": "error", "error": "query timed out"}', window=30.0)


@pytest.mark.parametrize("url", ["http://u:secret@h/", "ftp://h/", "h:9090", "http://", ""])
def test_an_invalid_url_is_refused_without_showing_a_password(url):
    with pytest.raises(ConfigurationError) as caught:
        check_url(url)
    assert "secret" not in str(caught.value)


def test_a_token_is_sent_encrypted_or_on_this_machine_only(credentials):
    with pytest.raises(ConfigurationError, match="unencrypted"):
        Prometheus("http://prometheus.facility.org", credentials=credentials)
    for url in ("https://prometheus.facility.org", "http://127.0.0.1:9090/", "http://localhost:9090"):
        assert "sesame" not in repr(Prometheus(url, credentials=credentials))
    Prometheus("http://prometheus.facility.org", credentials=credentials, allow_insecure_token=True)


@pytest.fixture
def credentials():
    from eaf_inference.auth.credentials import Credentials
    from eaf_inference.auth.sources import StaticToken

    return Credentials(StaticToken("sesame"))


def test_an_invalid_file_of_authorities_is_refused(tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(ConfigurationError, match="certificate authorities"):
            Prometheus("https://prometheus.facility.org", ca=tmp_path / name)


def test_unrequested_series_are_ignored():
    unknown = ["dcgm_nonsense", "gpu_nonsense", "host_nonsense", "counter_nonsense", "nonsense", ""]
    body = answer(*((field, "1", {**M, **MIG, "gpu_uuid": "GPU-1"}) for field in unknown))
    assert reading_of(body, window=30.0) == Reading()
