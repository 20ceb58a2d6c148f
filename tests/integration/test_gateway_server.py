"""The facility's Dask Gateway: it is found, computes, keeps its password secret, and leaves nothing behind."""

from __future__ import annotations

import copy
import json
import os
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import aiohttp
import dask
import psutil
import pytest
from dask_gateway import BasicAuth, Gateway
from waiting import until
from yarl import URL

from eaf_facility.local import single_user
from eaf_facility.servers import dask_gateway as module
from eaf_facility.servers.dask_gateway import DaskGatewayServer
from eaf_inference._files import write_private
from eaf_inference.dask.auth import LocalGatewayAuth
from eaf_inference.dask.gateway import use_local_gateway
from eaf_inference.discovery import local_facility
from eaf_inference.discovery.local_facility import LocalFacility
from eaf_inference.errors import ConfigurationError

OWNER = """
import json, os, sys
from dask_gateway import Gateway
from eaf_inference.dask.gateway import use_local_gateway
from eaf_facility.servers.dask_gateway import DaskGatewayServer
from eaf_inference.discovery.local_facility import LocalFacility, announced
with DaskGatewayServer.start() as server:
    facility = LocalFacility(pid=os.getpid(), started=1.0, replicas=(), models=(), gateway=server.description)
    with announced(facility):
        use_local_gateway(facility)
        cluster = Gateway().new_cluster()
        cluster.scale(1)
        cluster.get_client().wait_for_workers(1)
        print(json.dumps(facility.as_dict()), flush=True)
        sys.stdin.read()
"""


@contextmanager
def announced(server, pid=1):
    facility = LocalFacility(pid=pid, started=float(pid), replicas=(), models=(), gateway=server.description)
    with local_facility.announced(facility):
        yield facility


@pytest.fixture
def facility(gateway_server):
    with announced(gateway_server) as facility:
        yield facility


def test_an_announced_gateway_is_found_and_its_cluster_scales_and_computes(facility):
    assert use_local_gateway(facility)
    with Gateway() as gateway, gateway.new_cluster() as cluster, cluster.get_client() as client:
        assert [found.name for found in gateway.list_clusters()] == [cluster.name]
        cluster.scale(1)
        client.wait_for_workers(1, timeout=60)
        assert client.submit(sum, [1, 2, 3]).result(timeout=60) == 6
        assert set(client.nthreads().values()) == {1}
        cluster.adapt(minimum=2, maximum=2)
        client.wait_for_workers(2, timeout=60)
        logs = Path(facility.gateway.cluster_logs) / cluster.name
        assert {path.name.partition("-")[0] for path in logs.iterdir()} == {"scheduler.log", "worker"}
        assert "distributed.scheduler" in (logs / "scheduler.log").read_text()
    assert logs.exists()  # kept until the gateway ends: they may explain why a cluster ended


def test_a_gateway_with_a_restored_database_knows_its_clusters(facility, gateway_server, tmp_path):
    """The database is lost, and restored from a copy; the key that encrypts it is in the gateway's configuration."""
    database, copy_of_it = gateway_server.directory / "gateway.sqlite", tmp_path / "copy.sqlite"
    assert use_local_gateway(facility)
    with Gateway() as gateway, gateway.new_cluster() as cluster:
        scheduler = Path(gateway_server.cluster_logs) / cluster.name / "scheduler.log"
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy_of_it)) as target:
            source.backup(target)  # consistent, although the gateway runs
        database.unlink()
        write_private(database, copy_of_it.read_bytes())
        gateway_server.kill()
        gateway_server.wait_until_ready()
        with Gateway() as another, another.connect(cluster.name) as found, found.get_client() as client:
            assert [each.name for each in another.list_clusters()] == [cluster.name]
            assert client.run_on_scheduler(os.getppid)  # over TLS, with the restored key of the cluster
        assert len(scheduler.read_text(encoding="utf-8").split("Scheduler at:")) == 2  # it was started once


def test_a_gateway_keeps_secrets_and_ends_with_its_running_cluster(monkeypatch):
    with ExitStack() as stack:
        with monkeypatch.context() as patch:
            for name in ("BEARER_TOKEN", "JUPYTERHUB_API_TOKEN", "X509_USER_PROXY"):
                patch.setenv(name, "of-the-caller")
            server = stack.enter_context(DaskGatewayServer.start())
        facility = stack.enter_context(announced(server))
        use_local_gateway(facility)
        with Gateway() as gateway:
            cluster = gateway.new_cluster(shutdown_on_close=False)
            with cluster.get_client() as client:
                cluster.scale(1)
                client.wait_for_workers(1, timeout=60)
                family = family_of(server)
                in_tasks = str(client.run(lambda: (dict(os.environ), dask.config.config)))
                logs = [server.log, *server.cluster_logs.glob("*/*.log")]
                assert len(logs) == 3
        password = server.password_file.read_text()
        directory = server.password_file.parent
        public = [json.dumps(facility.as_dict()), repr(facility), repr(server), str(dask.config.config), in_tasks]
        public += [path.read_text() for path in logs]
        semaphores = shared_memory_of(family)
        public += [str(process.environ()) + str(process.cmdline()) for process in family]
        assert len(family) >= 6  # reaper, gateway, proxy, scheduler, nanny, worker
        listening = {
            each.laddr.ip
            for process in family
            for each in process.net_connections()
            if each.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (directory, server.password_file)]
        configuration = directory / "dask_gateway_config.py"
        assert password in configuration.read_text()
        assert [*modes, stat.S_IMODE(configuration.stat().st_mode)] == [0o700, 0o600, 0o600]
    assert not [text for text in public if password in text or "of-the-caller" in text]
    assert not [process for process in family if process.is_running()]
    assert not directory.exists()
    assert password not in server.log.read_text()
    assert semaphores
    assert not [path for path in semaphores if path.exists()]


def test_a_gateway_and_its_running_cluster_end_when_their_owner_is_killed():
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        gateway = json.loads(process.stdout.readline())["gateway"]
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 6
        process.kill()
        _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    assert not Path(gateway["password_file"]).parent.exists()
    assert not local_facility.running()


def test_killing_a_gateways_restarter_ends_its_clusters_and_the_facility(tiny_models):
    with single_user.up([tiny_models]) as facility:
        use_local_gateway(facility.description)
        with Gateway() as gateway:
            cluster = gateway.new_cluster(shutdown_on_close=False)
            with cluster.get_client() as client:
                cluster.scale(1)
                started = Path(facility.gateway.cluster_logs) / "started"
                endless = client.submit(lambda: (started.touch(), threading.Event().wait()))
                until(started.exists)
                assert not endless.done()
        family = family_of(facility.gateway)
        semaphores = shared_memory_of(family)
        facility.gateway.child.kill()  # its restarter, which would restart it
        assert facility.watch() is facility.gateway
        facility.servers[0].kill()
    assert not [process for process in family if process.is_running()]
    assert semaphores
    assert not [path for path in semaphores if path.exists()]
    assert "Fatal Python error" not in facility.gateway.log.read_text()  # of its reaper


def test_a_wrong_password_is_refused(gateway_server):
    for auth in (BasicAuth("somebody", "guessed"), BasicAuth("somebody")):
        gateway = Gateway(gateway_server.address, auth=auth)
        with pytest.raises(aiohttp.ClientResponseError, match="401"):
            gateway.list_clusters()


def test_two_gateways_side_by_side_each_get_their_own_password(facility):
    with DaskGatewayServer.start() as second, announced(second, pid=2) as other:
        for each in (facility, other):
            assert use_local_gateway(each)  # the second replaces the first
            with Gateway() as gateway:
                assert gateway.address == each.gateway.address
                assert gateway.list_clusters() == []
    assert local_facility.running() == [facility]


def test_the_password_is_never_sent_to_another_gateway(facility):
    class Refusal:
        url = URL("http://127.0.0.1:1/api/v1/clusters/")

    assert LocalGatewayAuth(username="me").pre_request(Refusal) == BasicAuth("me").pre_request(Refusal)
    Refusal.url = URL(facility.gateway.address) / "api"
    assert LocalGatewayAuth(username="me").pre_request(Refusal) != BasicAuth("me").pre_request(Refusal)


def test_a_gateway_configured_by_the_user_is_kept(facility, configuration):
    with dask.config.set({"gateway.address": "https://gateway.example"}):
        assert not use_local_gateway(facility)
        assert dask.config.get("gateway.address") == "https://gateway.example"
        assert dask.config.get("gateway.auth.type") == "basic"


def test_a_facility_without_a_gateway_changes_nothing(configuration):
    before = copy.deepcopy(configuration.config)
    assert not use_local_gateway(LocalFacility(pid=1, started=1.0, replicas=(), models=()))
    assert configuration.config == before


def test_the_chosen_gateway_survives_a_later_import_of_dask_gateway():
    code = """
import sys
from eaf_inference.dask.gateway import use_local_gateway
from eaf_inference.discovery.local_facility import LocalFacility, LocalGateway
gateway = LocalGateway("http://127.0.0.1:1", 0, "", "", "")
assert use_local_gateway(LocalFacility(pid=1, started=1.0, replicas=(), models=(), gateway=gateway))
assert not {"distributed", "dask_gateway"} & set(sys.modules)
from dask_gateway import Gateway
made = Gateway()
print(made.address, type(made.auth).__name__, made._request_kwargs)
"""
    environment = os.environ | {"http_proxy": "http://proxy.example:3128"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert done.stdout.split(maxsplit=2)[:2] == ["http://127.0.0.1:1", "LocalGatewayAuth"]
    assert "proxy.example" not in done.stdout


def test_a_port_taken_at_the_last_moment_is_replaced(monkeypatch):
    find = module.free_ports
    with socket.create_server(("127.0.0.1", 0)) as taken:
        first = [taken.getsockname()[1]]
        choices = [first]
        monkeypatch.setattr(module, "free_ports", lambda count: choices.pop() if choices else find(count))
        with DaskGatewayServer.start() as server:
            assert server.address != f"http://127.0.0.1:{first[0]}"
            server.kill()


def test_a_gateway_that_dies_or_restarts_loses_no_task(gateway_server):
    def slowly(number):
        import time

        time.sleep(0.2)  # so that tasks are running when the gateway ends
        return 2 * number

    auth = BasicAuth("somebody", gateway_server.password_file.read_text())
    with Gateway(gateway_server.address, auth=auth) as gateway, gateway.new_cluster() as cluster:
        cluster.scale(1)
        with cluster.get_client() as client:
            client.wait_for_workers(1)
            first = client.map(slowly, range(20))
            gateway_server.restart()
            second = client.map(slowly, range(20, 40))
            gateway_server.kill()
            gateway_server.wait_until_ready()
            assert client.gather([*first, *second]) == [2 * number for number in range(40)]
            assert [each.name for each in gateway.list_clusters()] == [cluster.name]
            cluster.scale(2)
            client.wait_for_workers(2)


def test_a_gateway_that_cannot_start_names_its_log(monkeypatch):
    monkeypatch.setattr(module, "_CONFIGURATION", "c.DaskGateway.backend_class = 'nonsense'  # {private}")
    with pytest.raises(ConfigurationError, match="Its log: ") as caught, DaskGatewayServer.start():
        pass
    log = Path(str(caught.value).rpartition(": ")[2])
    assert "nonsense" in log.read_text()


def test_a_facility_runs_without_a_gateway_if_its_packages_are_missing(tiny_models, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_gateway_server", None)  # as if the package were not installed
    messages = []
    with single_user.up([tiny_models], progress=messages.append) as facility:
        assert facility.gateway is None
        assert local_facility.running() == [facility.description]
        assert facility.description.gateway is None
        facility.servers[0].kill()
    assert [line for line in messages if line.startswith("no Dask Gateway: dask-gateway-server")]
    with (
        pytest.raises(ConfigurationError, match="needs dask-gateway-server: .*pip install"),
        DaskGatewayServer.start(),
    ):
        pass


def family_of(server):
    reaper = psutil.Process(server.child.pid).parent()
    return [reaper, *reaper.children(recursive=True)]


def shared_memory_of(family):
    """Return the files of the workers' semaphores."""
    mapped = {Path(region.path) for process in family for region in process.memory_maps()}
    return [path for path in mapped if path.name.startswith("sem.")]
