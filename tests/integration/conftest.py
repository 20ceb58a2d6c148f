"""Fixtures of the tests that talk to real servers."""

from __future__ import annotations

import copy
import shutil
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import awkward as ak
import dask.config
import distributed
import numpy as np
import pytest
from dask_facility import facility_of
from envoy_facility import envoy, save_nap
from issuer import Issuer
from token_service import HUB_TOKEN
from zoo import make_zoo

import eaf_inference
from eaf_facility.servers.triton import TritonServer

SAMPLE = Path(__file__).parents[2] / "notebooks" / "jets.parquet"


@pytest.fixture(autouse=True)
def no_ambient_settings(monkeypatch, tmp_path):
    """Nothing of this machine's user reaches discovery, credentials or configuration."""
    for name in (
        *("EAF_TRITON_URL", "TRITON_URL", "SONIC_LOCAL_BALANCER_HOST", "TRITON_SERVICE_HOST"),
        *("BEARER_TOKEN", "BEARER_TOKEN_FILE", "X509_USER_PROXY", "JUPYTER_CONFIG_PATH"),
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "jupyter"))


@pytest.fixture(autouse=True)
def configuration():
    """Dask's configuration, as it was before once the test is over: a connection names a gateway there."""
    before = copy.deepcopy(dask.config.config)
    yield dask.config
    dask.config.config.clear()
    dask.config.config.update(before)


@pytest.fixture(scope="module")
def client():
    """A client of a Dask cluster of two processes with one thread each."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(scope="session")
def zoo_models(tmp_path_factory):
    return make_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="session")
def zoo(zoo_models):
    """A Triton with the zoo's models."""
    with TritonServer.start([zoo_models]) as server:
        yield server


@pytest.fixture(scope="session")
def sums_models(zoo_models, tmp_path_factory):
    """A repository with `sums` alone, whose server starts and stops quickly."""
    repository = tmp_path_factory.mktemp("sums")
    shutil.copytree(zoo_models / "sums", repository / "sums")
    return repository


@pytest.fixture
def workers_in_this_process(monkeypatch):
    """Let Dask workers run in threads of this process; afterwards it is none again."""
    monkeypatch.setitem(sys.modules, "_eaf_inference_held", ModuleType("_eaf_inference_held"))


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """Two Tritons with the zoo's models, and two models that take their time."""
    repository = make_zoo(tmp_path_factory.mktemp("pair"))
    for name in ("nap", "rest"):
        save_nap(repository, name)
    with TritonServer.start([repository]) as first, TritonServer.start([repository]) as second:
        yield first, second


@pytest.fixture(scope="session")
def issuer():
    """The issuer whose tokens Envoy accepts."""
    with Issuer() as running:
        yield running


@pytest.fixture(scope="session")
def shared_envoy(pair, issuer):
    """An Envoy in front of both, with a share that nobody uses up."""
    with envoy(issuer, pair, share=10_000, models=["nap"]) as server:
        yield server


@pytest.fixture
def connection(zoo):
    with eaf_inference.connect(zoo.grpc) as connection:
        yield connection


@pytest.fixture(scope="session")
def events():
    """The sample: events × jets × constituents."""
    return ak.from_parquet(SAMPLE)


@pytest.fixture(scope="session")
def few(events):
    """60 events in which no jet is too long for ParticleNet."""
    return events[ak.all(ak.num(events.jets.constituents, axis=2) <= 128, axis=1)][:60]


@pytest.fixture(scope="module")
def particlenet(triton):
    with eaf_inference.connect(triton.grpc) as connection:
        yield connection.model("particlenet")


@pytest.fixture(scope="session")
def jagged():
    """Two channels of 3,000 rows with 0 to 139 values."""
    rng = np.random.default_rng(20231206)
    counts = rng.integers(0, 140, 3000)
    channels = {name: ak.unflatten(rng.normal(size=counts.sum()).astype(np.float32), counts) for name in ("a", "b")}
    return ak.zip(channels)


@pytest.fixture
def facility(zoo, gateway_server, tmp_path, monkeypatch):
    """An edge proxy that requires tokens in front of the zoo, a token service, and a Dask Gateway."""
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", HUB_TOKEN)
    with facility_of(zoo, gateway_server, tmp_path / "jupyter") as running:
        yield running


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def black_hole():
    """An address that takes connections and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"grpc://127.0.0.1:{listening.getsockname()[1]}"
