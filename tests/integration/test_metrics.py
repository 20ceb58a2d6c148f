"""Metrics of a real Triton while it runs, is killed and restarts; also through a real Prometheus."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import subprocess
from contextlib import contextmanager

import numpy as np
import pytest
from recorded.replay import documented, serve
from waiting import until

import eaf_inference
from eaf_facility.process.ports import free_ports
from eaf_facility.servers.triton import TritonServer
from eaf_inference.metrics.advice import Kind
from eaf_inference.metrics.average import run_of
from eaf_inference.metrics.http import make_fetch
from eaf_inference.metrics.prometheus import Prometheus
from eaf_inference.metrics.reading import assemble
from eaf_inference.metrics.sampler import Sampler, run_in_thread
from eaf_inference.metrics.triton import TritonMetrics
from eaf_inference.metrics.verdict import advise

ROWS = 6400  # 100 full batches
MEANS = ("batch", "queue_ms", "compute_ms")


@pytest.fixture(scope="module")
def only_server(tiny_models):
    with TritonServer.start([tiny_models]) as server:
        yield server


@pytest.fixture
def server(only_server):
    """A Triton that only the tests of this module use."""
    if only_server.child.wait(0) is not None:
        only_server.restart()
    return only_server


def ask(server, rows=ROWS):
    with eaf_inference.connect(server.grpc) as connection:
        connection.model("mirror")({"x": np.ones((rows, 2), np.float32)})


def mirror_of(snapshot):
    return next((model for model in snapshot.models if model.name == "mirror"), None)


@contextmanager
def following(*sources, interval=0.2):
    """Provide the growing history of a sampler that runs in its own thread."""
    sampler, shown = Sampler(sources, interval=interval), []
    stop = run_in_thread(sampler, shown.append)
    try:
        yield shown
    finally:
        stop()


def counted(shown):
    """Return the inferences of all snapshots: the sum of rate × window."""
    rows = [(mirror_of(snapshot), snapshot.window) for snapshot in shown]
    return math.fsum((model.inferences_per_second or 0.0) * window for model, window in rows if model and window)


def test_rates_add_up_to_the_sent_rows(server):
    with following(TritonMetrics(server.metrics)) as shown:
        until(lambda: len(shown) >= 3)
        ask(server)
        until(lambda: counted(shown) > ROWS - 1)
    assert counted(shown) == pytest.approx(ROWS)
    loaded = max(shown, key=lambda each: (mirror_of(each) and mirror_of(each).inferences_per_second) or 0.0)
    assert 0 < mirror_of(loaded).batch <= 64
    assert mirror_of(loaded).compute_ms > 0
    assert loaded.instances[0].share == 1.0
    assert loaded.gpus == ()
    assert loaded.busy.estimated is True
    assert loaded in run_of(shown)
    json.dumps(loaded.as_dict(), allow_nan=False)


def test_an_event_loop_and_a_thread_can_follow_one_server(server):
    async def one():
        sampler = Sampler([TritonMetrics(server.metrics)], interval=0.2)
        with sampler.listen() as snapshots:
            async for snapshot in snapshots:
                if snapshot.window:
                    break
        await sampler.close()
        return snapshot

    with following(TritonMetrics(server.metrics)) as shown:
        assert asyncio.run(one()).instances[0].up is True
        until(lambda: any(snapshot.window for snapshot in shown))


def test_a_killed_server_is_down_and_recovers_after_a_restart(server):
    with following(TritonMetrics(server.metrics)) as shown:
        until(lambda: shown and shown[-1].instances[0].up)
        ask(server)
        server.kill()
        until(lambda: shown[-1].instances[0].up is False)
        assert shown[-1].models == ()
        assert shown[-1].sources[0].error
        assert advise(shown[-1:]).kind is Kind.NOTHING_MEASURED
        server.restart()
        until(lambda: shown[-1].instances[0].up is True)
        place = len(shown)
        ask(server, 640)
        until(lambda: counted(shown[place:]) > 639)
    assert counted(shown[place:]) == pytest.approx(640)
    assert all((model.inferences_per_second or 0.0) >= 0 for snapshot in shown for model in snapshot.models)


CONFIGURATION = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
- job_name: triton
  static_configs:  # like a pair of Prometheus servers
  - {{targets: ["{triton}"], labels: {{namespace: ours, prometheus_replica: a}}}}
  - {{targets: ["{triton}"], labels: {{namespace: ours, prometheus_replica: b}}}}
- job_name: again  # such as a ServiceMonitor beside a PodMonitor
  static_configs:
  - {{targets: ["{triton}"], labels: {{namespace: ours, service: triton, endpoint: metrics}}}}
- job_name: dcgm
  static_configs:
  - {{targets: ["{dcgm}"]}}
"""


@contextmanager
def prometheus(directory, **targets):
    """Run a real Prometheus on a free loopback port, and provide its URL."""
    (port,) = free_ports(1)
    file = directory / "prometheus.yml"
    file.write_text(CONFIGURATION.format(**targets))
    command = [
        shutil.which("prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (directory / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def snapshot_of(source):
    """Return a snapshot of the source, or None if it does not answer yet."""

    async def read():
        return await source.read(make_fetch())

    try:
        return assemble([asyncio.run(read())], time=0.0)
    except eaf_inference.errors.ServerUnavailable:
        return None


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="the program prometheus (Debian's package) is missing")
def test_a_prometheus_or_a_pair_gives_the_same_figures(server, tmp_path):
    target = server.metrics.removeprefix("http://").removesuffix("/metrics")
    direct = TritonMetrics(server.metrics)
    ask(server)  # because Prometheus extrapolates counters from 0 differently
    with serve() as site:
        site.pages["/metrics"] = documented("dcgm_exporter")
        with prometheus(tmp_path, triton=target, dcgm=site.url.removeprefix("http://")) as url:
            source = Prometheus(url, matchers=['namespace="ours"'], gpu_matchers=['job="dcgm"'], window=60)

            def mirror():
                snapshot = snapshot_of(source)
                return mirror_of(snapshot) if snapshot else None

            until(lambda: (found := mirror()) and found.inferences_per_second == 0.0)
            snapshot_of(direct)
            ask(server)
            ours = mirror_of(snapshot_of(direct))
            means = [pytest.approx(getattr(ours, name), rel=0.02) for name in MEANS]
            until(lambda: [getattr(mirror(), name) for name in MEANS] == means)  # once both have the last counters
            # Prometheus extrapolates to the borders of the window, so its rate is too large at first
            until(lambda: mirror().inferences_per_second * 60 == pytest.approx(ROWS, rel=0.25))
            snapshot = snapshot_of(source)
            assert [(each.id, each.up, each.share) for each in snapshot.instances] == [(target, True, 1.0)]
            assert snapshot.hosts[0].cpu_utilization is not None
            gpus_are_as_documented(snapshot)
            another = Prometheus(url, matchers=['namespace="theirs"'], gpu_matchers=['job="theirs"'])
            assert snapshot_of(another) == assemble([], time=0.0)
            server.kill()
            until(lambda: [each.up for each in snapshot_of(source).instances] == [False])


def gpus_are_as_documented(snapshot):
    assert [(gpu.profile, gpu.host, gpu.utilization, gpu.tensor, gpu.dram) for gpu in snapshot.gpus] == [
        ("2g.10gb", "ampere-01", 0.93, 0.41, 0.52),
        ("2g.10gb", "ampere-01", 0.07, 0.0, None),
        (None, "ampere-02", 0.71, None, None),
    ]
    assert {gpu.source for gpu in snapshot.gpus} == {"Prometheus"}
    assert snapshot.gpus[2].memory_total == 40_000 * 2**20
    assert snapshot.gpus[0].name == "NVIDIA A100-SXM4-40GB"
    assert snapshot.busy.of == "GPU"
