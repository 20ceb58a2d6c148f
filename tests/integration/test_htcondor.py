"""Workers that EAF's own client starts as jobs of a real HTCondor pool are connected, and jobs score files.

htcdaskgateway's classes and job files are real, and so are the pool, JupyterHub, token service, gateway and Triton.
Stand-ins: apptainer and its image, in place of which `htcondor_pool` runs this environment's programs.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from eaf_facility.servers import dask_gateway

pytest.importorskip("htcdaskgateway")

import awkward as ak
import numpy as np
from htcondor_pool import htcondor_pool
from hub_facility import SCOPE, hub_facility

pytestmark = pytest.mark.extended

BATCH_JOBS = Path(__file__).parents[2] / "docs" / "how-to" / "batch-jobs.md"

# The options that the client asks for, and no workers of the gateway beside the client's jobs.
_FOR_HTCDASKGATEWAY = """
from dask_gateway_server.options import Float, Integer, Options, String

c.Backend.cluster_options = Options(
    String("image"),
    Float("worker_memory", 2, min=1, max=8),
    Integer("worker_cores", 1, min=1, max=4),
    handler=lambda options: {{"worker_cmd": ["sh", "-c", "sleep infinity"]}},
)
"""

_SESSION = """
import json, os, subprocess, sys, time

import dask.config
import numpy as np
from htcdaskgateway import HTCGateway

ROWS = np.random.default_rng(7).normal(size=(10_000, 2, 3)).astype(np.float32)


def classify(inputs):
    import eaf_inference

    return eaf_inference.connect().model("sums")(inputs)


def tell(step, **facts):
    print("STEP", json.dumps({"step": step, "seconds": round(time.monotonic() - started, 1), **facts}), flush=True)


def wait_until(holds):
    ends = time.monotonic() + 60
    while not (value := holds()):
        assert time.monotonic() < ends, (client.scheduler_info(n_workers=-1)["workers"], holds)
        time.sleep(0.1)
    return value


def workers():
    return sorted(worker["name"] for worker in client.scheduler_info(n_workers=-1)["workers"].values())


def directories():
    return {worker["local_directory"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()}


def score():
    scores = client.gather(client.map(classify, [{"x": x} for x in np.split(ROWS, 20)], pure=False))
    return np.concatenate(scores)


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout


def files_with(pattern):
    return output_of("grep", "-rlE", "--exclude-dir=cvmfs", "--exclude-dir=root", pattern, sys.argv[1]).split()


if __name__ == "__main__":
    started = time.monotonic()
    cluster = HTCGateway(address=dask.config.get("gateway.address")).new_cluster()
    cluster.scale(2)
    client = cluster.get_client()
    client.wait_for_workers(2, timeout=60)
    tell("started", workers=workers())
    first = score()

    import eaf_inference

    [link] = eaf_inference.registry.linked_clusters
    triton = link.connection
    local = triton.model("sums")({"x": ROWS})
    tell("scored", rows=len(first), equal=bool((first == local).all()), state=triton.clusters()[0].state)
    tell(
        "searched",
        environments=sorted(json.dumps(environment) for environment in client.run(lambda: dict(os.environ)).values()),
        jobs=output_of("condor_q", "-long"),
        with_hub_token=files_with(os.environ["JUPYTERHUB_API_TOKEN"]),
        with_token=files_with("eyJ[A-Za-z0-9_-]{8,}[.]eyJ"),
    )

    before = directories()
    output_of("condor_vacate_job", "1.0")
    wait_until(lambda: len(workers()) == 2 and len(directories() - before) == 1)
    tell("evicted", workers=workers(), equal=bool((score() == local).all()))

    cluster.scale(0)  # to 1, the client and the scheduler may each choose another worker
    wait_until(lambda: not workers())
    cluster.scale(1)
    wait_until(workers)
    tell("scaled", workers=workers())

    cluster.shutdown()
    ends = time.monotonic() + 30
    while (left := output_of("condor_q", "-af", "ClusterId").split()) and time.monotonic() < ends:
        time.sleep(0.1)
    tell("shut down", left=left)
"""


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    with htcondor_pool(tmp_path_factory.mktemp("pool")) as running:
        yield running


@pytest.fixture(scope="module")
def facility(pool, zoo):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dask_gateway, "_WITH_HUB", dask_gateway._WITH_HUB + _FOR_HTCDASKGATEWAY)
        with hub_facility(zoo) as running:
            pool.reach_schedulers_at(running.gateway.address.replace("http://", "tls://"))
            pool.wait_until_ready()
            yield running


@pytest.fixture(scope="module")
def session(facility, pool):
    """What a user's session printed: the facts of each step."""
    script = pool.directory / "home" / "analysis.py"
    script.write_text(_SESSION, encoding="utf-8")
    hub_token, _ = facility.token_of("alice", [SCOPE, "access:services!service=dask-gateway"])
    given_by_the_hub = {
        "JUPYTERHUB_API_TOKEN": hub_token,
        "EAF_TOKEN_SERVICE": facility.tokens.base_url,
        "DASK_GATEWAY__ADDRESS": facility.gateway.address,
    }
    done = pool.run([sys.executable, str(script), str(pool.directory)], **given_by_the_hub)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    lines = [json.loads(line.removeprefix("STEP ")) for line in done.stdout.splitlines() if line.startswith("STEP ")]
    return {line.pop("step"): line for line in lines}


def test_workers_of_eafs_client_are_connected_and_score(session):
    started, scored = session["started"], session["scored"]
    sys.stdout.write(
        f"\nHTCondor workers after {started['seconds']} s: {', '.join(started['workers'])}\n"
        f"{scored['rows']} rows, equal to a local call: {scored['equal']}; cluster: {scored['state']}\n"
    )
    assert started["workers"] == ["htcdask-worker_1_0", "htcdask-worker_1_1"]
    assert scored["equal"]
    assert (scored["rows"], scored["state"]) == (10_000, "configured")


def test_tokens_for_triton_are_not_in_what_htcondor_shows_or_stores(session, facility):
    searched = session["searched"]
    assert searched["jobs"].count("GlobalJobId = ") == 2
    assert searched["with_token"] == []
    shown = "\n".join([*searched["environments"], searched["jobs"]])
    assert facility.edge_proxy.seen
    assert not [token for token in facility.edge_proxy.seen if token in shown]
    # the client's own way: the Hub token travels as a file, for a gateway worker that `dask worker` does not start
    assert {Path(path).name for path in searched["with_hub_token"]} == {"api-token"}


def test_an_evicted_worker_comes_back_with_credentials(session):
    assert session["evicted"]["workers"] == ["htcdask-worker_1_0", "htcdask-worker_1_1"]
    assert session["evicted"]["equal"]


def test_scaling_and_shutting_down_remove_the_jobs(session):
    assert session["scaled"]["workers"] == ["htcdask-worker_2_0"]
    assert session["shut down"]["left"] == []


def test_the_documented_submit_description_scores_files_without_dask(pool, zoo):
    pool.wait_until_ready()
    home = pool.directory / "home"
    (home / "selections.py").write_text("def constituents(events):\n    return {'x': events.x}\n", encoding="utf-8")
    (home / "data").mkdir()
    for number in range(2):
        ak.to_parquet(ak.Array({"x": np.ones((10, 2, 8), np.float32)}), home / "data" / f"{number}.parquet")
    [description] = re.findall(r"```text\n(executable.*?)```", BATCH_JOBS.read_text(encoding="utf-8"), re.DOTALL)
    program = str(Path(sys.executable).with_name("eaf-inference"))
    changes = {"/path/to/bin/eaf-inference": program, "particlenet": "sums", "/20": "/2", "queue 20": "queue 2"}
    for written, here in changes.items():
        assert written in description
        description = description.replace(written, here)
    (home / "scores.sub").write_text(f"environment = EAF_TRITON_URL={zoo.grpc}\n{description}", encoding="utf-8")
    submitted = pool.run(["condor_submit", "scores.sub"])
    assert "2 job(s) submitted" in submitted.stdout, submitted.stderr
    waited = pool.run(["condor_wait", "-wait", "60", "scores.log"])
    outputs = "".join(path.read_text(encoding="utf-8") for path in sorted(home.glob("scores-*.*")))
    assert waited.returncode == 0, outputs
    assert len(list((home / "scores").glob("*.parquet"))) == 2, outputs
    assert "Job 1 of 2 scores 1 of 2 files." in outputs
    assert "Job 2 of 2 scores 1 of 2 files." in outputs
