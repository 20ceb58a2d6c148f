"""Clusters of a real Dask Gateway are connected, stay connected, and lose their token when the user disconnects.

An edge proxy in front of a real Triton accepts only valid tokens, which a token service issues.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from dask_facility import (
    ONES,
    THREES,
    all_hold,
    all_hold_a_token_since,
    classify,
    eventually,
    issue_time,
    meet_a_refusal,
)
from dask_gateway import BasicAuth, GatewayCluster
from token_service import HUB_TOKEN, token_service
from tokens import make_token

import eaf_inference
from eaf_inference.auth.sources import StaticToken
from eaf_inference.dask.link import State
from eaf_inference.errors import ServerUnavailable
from eaf_inference.notebook.session import work_of


def link_of(connection):
    [link] = connection.linked_clusters
    return link


PLAIN_USER_CODE = """
import json, sys
from dask_gateway import BasicAuth, Gateway

address, password = json.load(sys.stdin)


def classify(inputs):
    import eaf_inference

    return eaf_inference.connect().model("sums")(inputs)


if __name__ == "__main__":
    import numpy as np

    with Gateway(address, auth=BasicAuth("alice", password)) as gateway, gateway.new_cluster() as cluster:
        cluster.scale(1)
        with cluster.get_client() as client:
            print(client.submit(classify, {"x": np.ones((4, 2, 3), np.float32)}).result().sum())
"""


def test_a_cluster_of_plain_dask_code_is_connected(facility, tmp_path):
    script = tmp_path / "analysis.py"
    script.write_text(PLAIN_USER_CODE)
    done = subprocess.run(
        [sys.executable, script],
        input=json.dumps([facility.gateway_url, facility.password]),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "24.0\n", done.stderr
    assert facility.service.given[0] in facility.edge_proxy.seen


@pytest.mark.slow
def test_added_adapted_and_replaced_workers_have_the_newest_token(facility):
    with eaf_inference.connect() as triton, facility.cluster(1) as cluster, cluster.get_client() as client:
        model = triton.model("sums")
        np.testing.assert_array_equal(client.submit(classify, ONES).result(), THREES)
        first = issue_time_of(client)
        client.run(meet_a_refusal)
        assert all_hold(client, "values['issued'] > first", first=first)
        newest = triton.credentials.known.issued_at
        assert issue_time_of(client) == newest
        cluster.scale(2)
        client.wait_for_workers(2, timeout=60)
        assert all_hold_a_token_since(client, newest)

        [(address, pid), _] = client.run(os.getpid).items()
        os.kill(pid, signal.SIGKILL)
        eventually(client.nthreads, lambda workers: address not in workers, timeout=60)
        client.wait_for_workers(2, timeout=60)
        assert address not in client.run(issue_time)
        assert all_hold_a_token_since(client, newest)

        cluster.adapt(minimum=3, maximum=3)
        client.wait_for_workers(3, timeout=60)
        assert all_hold_a_token_since(client, newest)
        scores = client.gather(client.map(model, [ONES] * 6, pure=False))
        np.testing.assert_array_equal(scores, [THREES] * 6)


def issue_time_of(client) -> float:
    [issued] = set(client.run(issue_time).values())
    return issued


class FacilityCluster(GatewayCluster):
    """Starts its workers without a nanny, like a facility's own client on its batch system."""

    def start_worker(self, directory, scheduler: str) -> subprocess.Popen:
        certificate, key = directory / "dask.crt", directory / "dask.key"
        certificate.write_text(self.security.tls_cert)
        key.write_text(self.security.tls_key)
        tls = [f"--tls-ca-file={certificate}", f"--tls-cert={certificate}", f"--tls-key={key}"]
        command = [sys.executable, "-m", "dask", "worker", scheduler, "--no-nanny", "--nthreads=1", "--no-dashboard"]
        with (directory / "worker.log").open("wb") as log:
            return subprocess.Popen([*command, *tls, f"--local-directory={directory}"], stdout=log, stderr=log)


def test_a_facilitys_own_cluster_class_without_nannies_is_connected(facility, tmp_path):
    with (
        eaf_inference.connect() as triton,
        FacilityCluster(facility.gateway_url, auth=BasicAuth("alice", facility.password)) as cluster,
        cluster.get_client() as client,
    ):
        worker = cluster.start_worker(tmp_path, client.scheduler_info()["address"])
        try:
            np.testing.assert_array_equal(client.submit(triton.model("sums"), ONES).result(), THREES)
            assert client.scheduler_info(n_workers=-1)["workers"].popitem()[1]["nanny"] is None
            assert all_hold_a_token_since(client, triton.credentials.known.issued_at)
        finally:
            worker.terminate()
            worker.wait()


@pytest.mark.slow
def test_a_run_longer_than_three_token_lifetimes_has_no_failure(facility):
    facility.service.lives = 4
    with eaf_inference.connect() as triton, facility.cluster(2) as cluster, cluster.get_client() as client:
        client.wait_for_workers(2, timeout=60)
        ends = time.monotonic() + 3.2 * facility.service.lives
        rounds = 0
        while time.monotonic() < ends:
            scores = client.gather(client.map(classify, [ONES] * 8, pure=False))
            np.testing.assert_array_equal(scores, [THREES] * 8)
            rounds += 1
            time.sleep(0.2)  # a steady load leaves the other tests a processor
        assert rounds > 1
        assert len(facility.service.given) >= 5
        assert "configured" in repr(triton)
    assert facility.edge_proxy.refused == 0


def test_a_revoked_token_is_replaced_without_a_failed_task(facility):
    with eaf_inference.connect(), facility.cluster(2) as cluster, cluster.get_client() as client:
        client.wait_for_workers(2, timeout=60)
        np.testing.assert_array_equal(client.submit(classify, ONES).result(), THREES)
        facility.edge_proxy.tokens.update(dict.fromkeys(facility.service.given, 0.0))  # revoked
        scores = client.gather(client.map(classify, [ONES] * 4, pure=False, retries=0))
        np.testing.assert_array_equal(scores, [THREES] * 4)
        assert facility.edge_proxy.refused > 0
        assert len(facility.service.given) == 2  # one new token for all refused requests


@pytest.mark.slow
def test_the_younger_token_of_two_clients_wins_on_all_workers(facility):
    younger, older = make_token(age=10), make_token(age=300)
    facility.edge_proxy.tokens.update({younger: float("inf"), older: float("inf")})
    with (
        eaf_inference.connect(facility.url, token=StaticToken(younger)) as one,
        facility.cluster(1) as cluster,
        cluster.get_client() as first,
    ):
        first.wait_for_workers(1, timeout=60)
        newest = one.credentials.known.issued_at
        assert all_hold_a_token_since(first, newest)
        with eaf_inference.connect(facility.url, token=StaticToken(older)) as two, cluster.get_client() as second:
            assert link_of(two).state is State.CONFIGURED
            assert issue_time_of(second) == newest
            cluster.scale(2)
            second.wait_for_workers(2, timeout=60)
            assert issue_time_of(second) == newest
    with (
        eaf_inference.connect(facility.url, token=StaticToken(older)),
        facility.cluster(1) as cluster,
        cluster.get_client() as client,
    ):  # in the opposite order
        client.wait_for_workers(1, timeout=60)
        assert issue_time_of(client) < newest
        with eaf_inference.connect(facility.url, token=StaticToken(younger)), cluster.get_client() as second:
            assert all_hold_a_token_since(second, newest)


@pytest.mark.parametrize("how", ["dead", "silent"])
def test_a_cluster_waits_for_a_token_service_that_is_down_at_start(facility, how, recwarn):
    service = facility.service
    if how == "dead":
        service.server_close()
    else:
        service.answers.clear()
    with facility.cluster(1) as cluster:
        started = time.monotonic()
        client = cluster.get_client()
        seconds = time.monotonic() - started
        with client:
            waiting = client.submit(classify, ONES)
            [link] = eaf_inference.registry.linked_clusters
            assert link.state is State.WAITING
            assert link.reason
            assert seconds < 3
            if how == "dead":
                port = service.server_address[1]
                service.shutdown()
                with token_service(facility.edge_proxy.tokens, port=port):
                    np.testing.assert_array_equal(waiting.result(timeout=90), THREES)
                    assert str(link).endswith("configured")
            else:
                service.answers.set()
                np.testing.assert_array_equal(waiting.result(timeout=90), THREES)
            link.connection.close()


def test_workers_keep_the_last_token_while_the_service_is_down(facility):
    facility.service.lives = 12
    with eaf_inference.connect() as triton, facility.cluster(1) as cluster, cluster.get_client() as client:
        client.wait_for_workers(1, timeout=60)
        first = issue_time_of(client)
        port = facility.service.server_address[1]
        facility.service.shutdown()
        facility.service.server_close()
        link = link_of(triton)
        while "cannot be renewed" not in link.reason:  # after half a lifetime
            scores = client.submit(classify, ONES, pure=False).result()
        assert link.state is State.CONFIGURED
        assert "cannot be renewed" in repr(triton)
        np.testing.assert_array_equal(scores, THREES)
        time.sleep(max(0.0, triton.credentials.known.expires_at - time.time()))  # no event marks its expiry
        refused = facility.edge_proxy.refused
        waiting = client.submit(classify, ONES, pure=False)
        eventually(lambda: facility.edge_proxy.refused, lambda now: now > refused)
        with token_service(facility.edge_proxy.tokens, port=port):
            assert all_hold(client, "values['issued'] > first", first=first)
            np.testing.assert_array_equal(waiting.result(), THREES)


KERNEL_THAT_DIES = """
import json, os, sys
import eaf_inference
from dask_gateway import BasicAuth, Gateway

address, password = json.load(sys.stdin)
triton = eaf_inference.connect()
cluster = Gateway(address, auth=BasicAuth("alice", password)).new_cluster(shutdown_on_close=False)
cluster.scale(1)
client = cluster.get_client()
client.wait_for_workers(1, timeout=60)
print(cluster.name, triton.credentials.known.issued_at, flush=True)
os._exit(1)
"""


def test_the_next_client_takes_over_after_a_kernel_died(facility, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KERNEL_THAT_DIES],
        input=json.dumps([facility.gateway_url, facility.password]),
        capture_output=True,
        text=True,
        timeout=120,
    )
    name, issued = done.stdout.split()
    with (
        facility.gateway() as gateway,
        gateway.connect(name, shutdown_on_close=True) as cluster,
        eaf_inference.connect() as triton,
        cluster.get_client() as client,
    ):
        assert triton.credentials.known.issued_at > float(issued)
        assert all_hold_a_token_since(client, triton.credentials.known.issued_at)
        np.testing.assert_array_equal(client.submit(classify, ONES).result(), THREES)


def test_disconnecting_removes_the_credentials_from_the_workers(facility):
    with facility.cluster(1) as cluster:
        with eaf_inference.connect(), cluster.get_client() as client:
            client.wait_for_workers(1, timeout=60)
            assert all_hold_a_token_since(client, 1.0)
        with cluster.get_client(set_as_default=False) as client:
            [link] = eaf_inference.registry.linked_clusters
            link.connection.close()
            assert link.state is State.DISCONNECTED
            assert all_hold(client, "values is None")
            with pytest.raises(ServerUnavailable, match="it has disconnected"):
                client.submit(classify, ONES).result()
            cluster.scale(2)
            client.wait_for_workers(2, timeout=60)
            assert (
                sum("_eaf_inference_held" in modules for modules in client.run(lambda: list(sys.modules)).values())
                == 1
            )
            with eaf_inference.connect():
                assert all_hold_a_token_since(client, 1.0)


def test_the_scheduler_renews_the_token_after_its_client_left(facility):
    facility.service.lives = 4
    with eaf_inference.connect() as triton, facility.cluster(1) as cluster, cluster.get_client() as client:
        client.wait_for_workers(1, timeout=60)
        triton.configure(client, hub_token=HUB_TOKEN)
        link_of(triton).stop()  # like a dying kernel, which neither renews nor removes the token
        last = triton.credentials.known.issued_at
        assert all_hold_a_token_since(client, last + 4)
        np.testing.assert_array_equal(client.submit(classify, ONES).result(), THREES)


def test_the_workers_rate_is_on_their_heartbeat_and_in_the_table(facility):
    with eaf_inference.connect() as triton, facility.cluster(2) as cluster, cluster.get_client() as client:
        client.wait_for_workers(2, timeout=60)
        client.gather(client.map(classify, [ONES] * 10, pure=False))

        def reported():
            workers = client.scheduler_info(n_workers=-1)["workers"].values()
            return [worker["metrics"].get("eaf_inference", {}) for worker in workers]

        reports = eventually(reported, lambda found: sum(each.get("inferences", 0) for each in found) == 40)
        for each in reports:
            assert each["state"] == "connected"
            assert each["server"] == facility.url
            assert each["in_flight"] == each["retries"] == 0
            assert 0 < each["token_age"] < 60
            assert not each["token_refused"]
            assert each["installed"] == eaf_inference.__version__
        row = eventually(lambda: triton.clusters()[0], lambda row: row.configured == 2)
        assert (row.name, row.state, row.workers, row.configured) == (cluster.name, "configured", 2, 2)
        assert row.remarks == ()
        assert row.oldest_token > 0
        assert cluster.name in str(triton.clusters())
        assert cluster.name in triton.clusters()._repr_html_()
        assert f"cluster {cluster.name} configured" in repr(triton)


def test_one_connection_serves_all_threads_and_tasks_of_a_worker(facility):
    def identities(model):
        import eaf_inference

        with eaf_inference.connect() as triton:
            pass
        return id(triton), id(model._connection), id(eaf_inference.connect()), triton.closed

    with eaf_inference.connect() as triton, facility.cluster(1) as cluster, cluster.get_client() as client:
        found = client.gather(client.map(identities, [triton.model("sums")] * 3, pure=False))
    assert {each[:3] for each in found} == {(found[0][0],) * 3}
    assert not any(closed for *_, closed in found)


def test_a_cluster_shut_down_elsewhere_disappears_in_the_notebook(facility):
    with eaf_inference.connect() as triton, facility.cluster(0) as cluster, cluster.get_client():
        work = work_of(triton)
        eventually(work.look, lambda told: [each["name"] for each in told["clusters"]] == [cluster.name])
        with facility.gateway() as elsewhere:
            elsewhere.stop_cluster(cluster.name)
        row = eventually(lambda: triton.clusters()[0], lambda row: not row.connected)
        assert row.state == "its scheduler is gone"
        work._clusters_due = 0.0  # otherwise it asks every ten seconds
        eventually(work.look, lambda told: told["clusters"] == [])
