"""From nothing typed to a Triton that answers."""

from __future__ import annotations

import os
import socket
import time

import grpc
import pytest
from door import Door, door

import eaf_inference
from eaf_inference.errors import ConfigurationError, NoServerFound
from eaf_inference.local import LocalFacility, Replica, announced

DEAD = "grpc://127.0.0.1:1"


@pytest.fixture
def black_hole():
    """An address that takes connections and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"grpc://127.0.0.1:{listening.getsockname()[1]}"


def configure(tmp_path, text):
    directory = tmp_path / "jupyter"
    directory.mkdir(exist_ok=True)
    (directory / "eaf_inference_config.py").write_text(text)


def outcomes(connection):
    return {attempt.source: attempt.outcome for attempt in connection.attempts}


@pytest.fixture
def found(zoo):
    """Connects, and says which source led to the zoo."""

    def find(**options):
        with eaf_inference.connect(**options) as connection:
            assert connection.endpoint.url == zoo.grpc
            return connection.endpoint.source

    return find


def test_every_source_leads_to_the_server_and_the_earlier_ones_win(zoo, found, monkeypatch, tmp_path):
    port = zoo.grpc.rpartition(":")[2]
    replica = Replica(grpc=zoo.grpc, http=zoo.http, metrics=zoo.metrics, pid=zoo.pid, log=str(zoo.log))
    facility = LocalFacility(pid=os.getpid(), started=time.time(), replicas=(replica,), models=())
    with announced(facility):
        assert found() == "local facility"
        monkeypatch.setenv("TRITON_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("TRITON_SERVICE_PORT_GRPC", port)
        assert found() == "Kubernetes service"
        monkeypatch.setenv("SONIC_LOCAL_BALANCER_HOST", "127.0.0.1")
        monkeypatch.setenv("SONIC_LOCAL_BALANCER_PORT", port)
        assert found() == "CMS SONIC"
        configure(tmp_path, f"c.Facility.urls = ['{zoo.grpc}']")
        assert found() == "facility configuration"
        monkeypatch.setenv("TRITON_URL", f"127.0.0.1:{port}")
        assert found() == "TRITON_URL"
        monkeypatch.setenv("EAF_TRITON_URL", DEAD)
        assert found() == "TRITON_URL"
        monkeypatch.setenv("EAF_TRITON_URL", zoo.grpc)
        assert found() == "EAF_TRITON_URL"
        assert found(url=zoo.grpc) == "explicit URL"


def test_a_dead_source_is_passed_over_and_said(zoo, monkeypatch, tmp_path):
    monkeypatch.setenv("EAF_TRITON_URL", DEAD)
    configure(tmp_path, f"c.Facility.urls = ['{zoo.grpc}']")
    with eaf_inference.connect() as connection:
        assert "connection refused" in outcomes(connection)["EAF_TRITON_URL"]
        assert outcomes(connection)["facility configuration"] == "ready, 5 models"


def test_a_named_server_that_is_dead_is_not_replaced_by_another(zoo, monkeypatch):
    monkeypatch.setenv("EAF_TRITON_URL", zoo.grpc)
    with pytest.raises(NoServerFound, match=r"(?s)What was tried.*explicit URL.*127\.0\.0\.1:1 .*refused"):
        eaf_inference.connect(DEAD)


def test_silent_servers_are_given_up_side_by_side(zoo, black_hole, monkeypatch, tmp_path):
    host, _, port = black_hole.removeprefix("grpc://").rpartition(":")
    monkeypatch.setenv("EAF_TRITON_URL", ",".join([black_hole] * 5))
    monkeypatch.setenv("TRITON_SERVICE_HOST", host)
    monkeypatch.setenv("TRITON_SERVICE_PORT_GRPC", port)
    configure(tmp_path, f"c.Facility.urls = ['{zoo.grpc}']")
    with eaf_inference.connect(explain=True) as connection:
        assert connection.endpoint.source == "facility configuration"
        silent = [attempt for attempt in connection.attempts if attempt.outcome == "no answer in time"]
    assert len(silent) == 6
    assert sum(attempt.seconds for attempt in silent) > 2 * max(attempt.seconds for attempt in silent)


def test_a_server_whose_index_fails_is_saturated_and_passed_over(zoo, monkeypatch, tmp_path):
    class Saturated(Door):
        def service(self, details):
            if not details.method.endswith("RepositoryIndex"):
                return super().service(details)
            return grpc.unary_unary_rpc_method_handler(
                lambda _, context: context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests")
            )

    with door(zoo.grpc.removeprefix("grpc://"), handler=Saturated) as (_, port):
        monkeypatch.setenv("EAF_TRITON_URL", f"grpc://127.0.0.1:{port}")
        configure(tmp_path, f"c.Facility.urls = ['{zoo.grpc}']")
        with eaf_inference.connect() as connection:
            assert connection.endpoint.url == zoo.grpc
            assert "too many requests" in outcomes(connection)["EAF_TRITON_URL"]


def test_replicas_of_one_source_are_kept_and_the_healthy_come_first(zoo, monkeypatch):
    monkeypatch.setenv("EAF_TRITON_URL", f"{DEAD}, {zoo.grpc}")
    with eaf_inference.connect() as connection:
        assert connection.endpoint.urls == (zoo.grpc, DEAD)


def test_a_broken_configuration_is_named(monkeypatch, tmp_path):
    configure(tmp_path, "c.Facility.urls = nonsense")
    with pytest.raises(ConfigurationError, match=r"eaf_inference_config\.py cannot be read: NameError.*nonsense"):
        eaf_inference.connect()
    configure(tmp_path, "c.Facility.urls = 5")
    with pytest.raises(ConfigurationError, match=r"configuration .* is wrong: .*urls"):
        eaf_inference.connect()


def test_a_source_that_cannot_be_read_is_said_in_the_table(zoo, monkeypatch, tmp_path):
    monkeypatch.setenv("EAF_TRITON_URL", "https://triton.example.org")
    configure(tmp_path, f"c.Facility.urls = ['{zoo.grpc}']")
    with eaf_inference.connect() as connection:
        assert "speaks gRPC, not HTTP" in outcomes(connection)["EAF_TRITON_URL"]


def test_a_coffea_url_names_the_model_too(zoo):
    with eaf_inference.connect(f"triton+{zoo.grpc}/sums/1") as connection:
        model = connection.model()
        assert (model.name, model.spec.version) == ("sums", "1")
