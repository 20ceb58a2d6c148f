"""The metrics sources of a Triton: those of a local facility, those of the operator, or none."""

from __future__ import annotations

import pytest

from eaf_inference.config import Facility
from eaf_inference.discovery.local_facility import LocalFacility, Replica, announced
from eaf_inference.errors import ConfigurationError
from eaf_inference.metrics.targets import sources_of

METRICS = ["http://a:8002/metrics", "http://b:8002/metrics"]
LOCAL = LocalFacility(
    pid=1,
    started=5.0,
    replicas=tuple(
        Replica(grpc=f"grpc://localhost:{port}", http="", metrics=f"http://localhost:{port}/metrics", pid=9, log="/l")
        for port in (1, 2)
    ),
    models=(),
)


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def listed(sources):
    return [(source.kind, source.name) for source in sources]


def test_without_configuration_there_are_no_sources():
    assert sources_of(Facility()) == []
    assert sources_of(Facility(), ["grpc://somewhere:8001"]) == []


def test_replicas_come_before_prometheus():
    facility = Facility(metrics_urls=METRICS, prometheus_url="http://p:9090/")
    expected = [*(("Triton", url) for url in METRICS), ("Prometheus", "http://p:9090")]
    assert listed(sources_of(facility)) == expected
    assert listed(sources_of(facility, ["grpc://found-elsewhere:8001"])) == expected


def test_configured_sources_are_for_the_configured_servers_only():
    facility = Facility(urls=["triton+grpc://127.0.0.1:8001/particlenet/1"], metrics_urls=METRICS)
    assert len(sources_of(facility, ["grpc://127.0.0.1:8001"])) == 2
    assert len(sources_of(facility)) == 2
    assert sources_of(facility, ["grpc://127.0.0.1:9001"]) == []


def test_a_local_facility_names_its_own_sources_only():
    facility = Facility(metrics_urls=METRICS)
    with announced(LOCAL):
        assert listed(sources_of(facility, ["grpc://localhost:2"])) == [
            ("Triton", "http://localhost:1/metrics"),
            ("Triton", "http://localhost:2/metrics"),
        ]
        assert listed(sources_of(facility, ["grpc://localhost:3"])) == [("Triton", url) for url in METRICS]
    assert listed(sources_of(facility, ["grpc://localhost:2"])) == [("Triton", url) for url in METRICS]


def test_metrics_use_their_own_authorities_or_those_of_triton(tmp_path):
    for settings in ({"metrics_ca": str(tmp_path / "none.pem")}, {"ca": str(tmp_path / "none.pem")}):
        with pytest.raises(ConfigurationError, match=r"none\.pem"):
            sources_of(Facility(metrics_urls=["https://a:8002/metrics"], **settings))


def test_a_token_for_prometheus_is_not_sent_unencrypted(tmp_path):
    (tmp_path / "token").write_text("abc")
    settings = {"prometheus_url": "http://p:9090", "prometheus_token_file": str(tmp_path / "token")}
    with pytest.raises(ConfigurationError, match="unencrypted"):
        sources_of(Facility(**settings))
    assert len(sources_of(Facility(**settings, allow_insecure_token=True))) == 1
