"""`up --batch slurm`, run as root: real Slurm, jobs of two users, and nothing that Slurm has holds a token."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import awkward as ak
import numpy as np
import psutil
import pytest
from edge_proxy import edge_proxy
from slurm_facility import (
    facility_with_slurm,
    hear,
    processes_of,
    python_for_all_users,
    renewed_token,
    shown_to,
    stored_in,
    tell,
    users_of_the_machine,
)
from tokens import MARK

from eaf_facility.servers.slurm import Slurm, check_python, missing_packages
from eaf_inference._files import log_directory
from eaf_inference.errors import ConfigurationError

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can run jobs of other users"),
    pytest.mark.skipif(bool(missing_packages()), reason=f"not installed: {' '.join(missing_packages())}"),
]
LIVES = 4.0  # seconds that a token lives
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "batch-jobs.md"

ALICE = """
import hashlib, itertools, json, os, sys, time
from pathlib import Path
import numpy as np
from dask_gateway import BasicAuth, Gateway
import eaf_inference

given = json.loads(sys.stdin.readline())
marks = {number: Path(given["token_file"]).with_name(f"mark-{number}") for number in (60, 61)}

def say(**what):
    print(json.dumps(what), flush=True)

def hold_two(numbered):  # the workers with chunks 60 and 61 say which jobs they are, and wait to be ended
    number, rows = numbered
    if number in marks and not marks[number].exists():
        marks[number].with_suffix(".draft").write_text(os.environ["SLURM_JOB_ID"])
        marks[number].with_suffix(".draft").rename(marks[number])
        time.sleep(600)
    return {"x": rows}

def held_token():
    token = sys.modules["_eaf_inference_held"].held.values["token"]
    return hashlib.sha256(token.reveal().encode()).hexdigest()

def until(condition):
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)

triton = eaf_inference.connect(given["url"], token=eaf_inference.TokenFile(given["token_file"]))
model = triton.model("sums")
rows = np.random.default_rng(7).normal(size=(10_000, 2, 8)).astype(np.float32)
expected = model({"x": rows})
gateway = Gateway(given["gateway"], auth=BasicAuth(given["user"], given["password"]))
with gateway.new_cluster() as cluster, cluster.get_client() as client:
    cluster.scale(3)
    client.wait_for_workers(3, timeout=90)
    chunks = enumerate(np.split(rows, 100))
    submission = triton.submit(model, chunks, client=client, select=hold_two, in_flight=8, progress=False)
    scores = list(itertools.islice(submission, 60))
    until(lambda: all(mark.exists() for mark in marks.values()))
    say(
        uids=sorted(set(client.run(os.getuid).values())),
        jobs=sorted(client.run(lambda: os.environ["SLURM_JOB_ID"]).values()),
        tokens=list(client.run(held_token).values()),
        held=[mark.read_text() for mark in marks.values()],
    )
    sys.stdin.readline()
    scores += submission
    client.wait_for_workers(3, timeout=90)
    jobs = sorted(client.run(lambda: os.environ["SLURM_JOB_ID"]).values())
    tokens = list(client.run(held_token).values())
    cluster.adapt(minimum=1, maximum=1)
    until(lambda: len(client.scheduler_info()["workers"]) == 1)
    scored = np.concatenate(scores)
    summary = submission.summary
    say(
        rows=len(scored), chunks=summary.chunks, restarts=summary.restarts, jobs=jobs, tokens=tokens,
        largest_difference=float(np.abs(scored - expected).max()),
    )
"""
BOB = """
import json, os, sys
from dask_gateway import BasicAuth, Gateway

given = json.loads(sys.stdin.readline())
gateway = Gateway(given["gateway"], auth=BasicAuth(given["user"], given["password"]))
with gateway.new_cluster() as cluster, cluster.get_client() as client:
    print(json.dumps([client.run_on_scheduler(os.getuid), len(gateway.list_clusters())]), flush=True)
"""
# not imported here: it replaces the handler of Ctrl-C
QUEUE = """
import json, os, sys
from pathlib import Path
import numpy as np
from dask_jobqueue import SLURMCluster
import eaf_inference

rows = {"x": np.ones((4, 2, 8), np.float32)}
own = {"host": "127.0.0.1", "dashboard_address": None}
options = {"local_directory": "jobqueue", "log_directory": "jobqueue", "worker_extra_args": ["--host", "127.0.0.1"]}
with eaf_inference.connect() as triton:
    model = triton.model("sums")
    with SLURMCluster(cores=1, memory="1GB", python=sys.argv[1], scheduler_options=own, **options) as cluster:
        with cluster.get_client() as client:
            cluster.scale(jobs=1)
            job = client.submit(lambda: os.environ["SLURM_JOB_ID"]).result()
            user = client.submit(lambda: eaf_inference.connect().user).result()
            scores = client.submit(model, rows).result().tolist()
            print(json.dumps([job, user, scores, str(triton.linked_clusters[0]), cluster.job_script()]))
"""
OWNER = """
import sys, time
from eaf_facility.servers.slurm import Slurm
with Slurm.start() as slurm:
    started = slurm.jobs_directory / "started"
    slurm.run("sbatch", "--output=/dev/null", f"--wrap=sleep 600 & touch {started}; wait")
    while not started.exists():
        time.sleep(0.02)
    print(slurm.directory, flush=True)
    sys.stdin.read()
"""
READ = """
import sys
from pathlib import Path
for path in map(Path, sys.argv[1:]):
    try:
        print(len(list(path.iterdir()) if path.is_dir() else path.read_bytes()))
    except PermissionError:
        print("refused")
"""


@pytest.fixture(scope="module")
def python():
    """A Python that all users can run, with the packages of this one."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        Path(directory).chmod(0o755)
        found = python_for_all_users(Path(directory))
        if found is None:
            pytest.skip("other users can read neither this Python and its packages nor a like one in /usr/bin")
        yield found


@pytest.fixture(scope="module")
def announced(python, sums_models):
    """What the operator's command prints; Slurm, gateway and Triton run."""
    with facility_with_slurm(python, sums_models) as announced:
        yield announced
    assert not Path(announced["slurm_conf"]).parent.exists()


@pytest.fixture(scope="module")
def users(announced, python):
    with users_of_the_machine(python, announced["slurm_conf"]) as users:
        yield users


def root_runs(announced, *command):
    environment = os.environ | {"SLURM_CONF": announced["slurm_conf"]}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=False)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def story(announced, users):
    """Alice scores 10,000 rows with 3 jobs, of which one is cancelled and one requeued, while her token is renewed.

    Meanwhile everything is searched.
    """
    alice, bob = users
    password = Path(announced["gateway"]["password_file"]).read_text(encoding="utf-8")
    given = {"gateway": announced["gateway"]["address"], "password": password}
    told = {}
    triton = announced["replicas"][0]["grpc"].removeprefix("grpc://")
    with ExitStack() as stack:
        told["edge proxy"], port = stack.enter_context(edge_proxy(triton))
        token_file = stack.enter_context(renewed_token(alice, told["edge proxy"].tokens, lives=LIVES))
        her, his = (
            stack.enter_context(user.begin(user.python, "-c", code)) for user, code in ((alice, ALICE), (bob, BOB))
        )
        for program in (her, his):
            stack.callback(program.kill)
        tell(his, given | {"user": bob.name})
        url = f"grpc://127.0.0.1:{port}"
        tell(her, given | {"user": alice.name, "url": url, "token_file": str(token_file)})
        told["bob"] = hear(his)
        told["before"] = hear(her)
        jobs = told["before"]["jobs"]
        told["shown"] = {
            "root": shown_to(lambda *command: root_runs(announced, *command), jobs),
            "alice": shown_to(alice.run, jobs),
            "bob": shown_to(bob.run, jobs),
        }
        slurm = Path(announced["slurm_conf"]).parent
        told["stored"] = stored_in(slurm, log_directory()) | stored_in(Path("/var/log"))
        told["processes"] = {pid: texts for pid, texts in processes_of(alice).items() if pid != str(her.pid)} | {
            "her": processes_of(alice)[str(her.pid)]
        }
        pids = [pid for pid, (_, environment) in told["processes"].items() if "SLURM_JOB_ID" in environment]
        hers = [str(path) for path in (slurm / "jobs").iterdir() if path.stat().st_uid == alice.entry.pw_uid]
        assert len(hers) == 5  # the staging directory, and the logs of a scheduler and three workers
        told["bob reads"] = bob.run(bob.python, "-c", READ, *(f"/proc/{pid}/environ" for pid in pids), *hers)
        for command, job in zip((["scancel"], ["scontrol", "requeue"]), told["before"]["held"], strict=True):
            assert root_runs(announced, *command, job) == ""
        tell(her, "go on")
        told["after"] = hear(her)
        for program in (her, his):
            _, errors = program.communicate(timeout=60)
            assert program.returncode == 0, errors[-3000:]
    return told


def test_jobs_that_are_cancelled_or_requeued_lose_no_score(story, users):
    alice, bob = users
    before, after = story["before"], story["after"]
    sys.stdout.write(
        f"\n{after['rows']:,} rows in {after['chunks']} chunks, scored by Slurm jobs {', '.join(before['jobs'])} of "
        f"uid {before['uids']}; jobs {before['held']} cancelled and requeued; jobs then: {', '.join(after['jobs'])}; "
        f"restarts {after['restarts']}; largest difference from one direct call: {after['largest_difference']}\n"
    )
    assert before["uids"] == [alice.entry.pw_uid]
    assert len(before["jobs"]) == len(after["jobs"]) == 3
    assert set(before["held"]) < set(before["jobs"])
    assert not set(before["held"]) & set(after["jobs"])  # a successor replaces the requeued one, which ends
    assert (after["rows"], after["chunks"]) == (10_000, 100)
    assert after["restarts"] >= 2
    assert after["largest_difference"] < 1e-5
    assert story["bob"] == [bob.entry.pw_uid, 1]  # his own cluster only


def test_workers_outlive_their_tokens(story):
    issued, held = story["edge proxy"].tokens, [story[when]["tokens"] for when in ("before", "after")]
    hashes = {hashlib.sha256(token.encode()).hexdigest(): expires for token, expires in issued.items()}
    assert [len(each) for each in held] == [3, 3]
    (first, last) = ([hashes[token] for token in each] for each in held)
    sys.stdout.write(f"\n{len(story['edge proxy'].seen)} tokens in {max(last) - min(first):.0f} s\n")
    assert min(last) - max(first) > LIVES
    assert story["edge proxy"].seen <= set(issued)


def test_nothing_that_slurm_shows_or_stores_holds_the_token(story):
    texts = {f"{command} by {who}": text for who, shown in story["shown"].items() for command, text in shown.items()}
    texts |= story["stored"]
    for pid, (command, environment) in story["processes"].items():
        texts |= {f"command line of {pid}": command, f"environment of {pid}": environment}
    sys.stdout.write(f"\n{len(texts)} texts searched, {sum(map(len, texts.values())):,} characters\n")
    assert [where for where, text in texts.items() if MARK in text] == []
    # the search sees what is there
    for who in ("root", "alice", "bob"):
        assert f"JobId={story['before']['held'][0]}" in texts[f"scontrol show job -dd by {who}"]
    assert [where for where in story["stored"] if "/state/" in where]
    assert [where for where in story["stored"] if "/spool/" in where]
    assert sum("DASK_GATEWAY_CLUSTER_NAME" in text for text in texts.values()) > 6


def test_another_user_reads_no_jobs_environment_files_or_script(story):
    lines = story["bob reads"].split()
    assert len(lines) > 6
    assert set(lines) == {"refused"}
    for job in story["before"]["jobs"]:
        assert "dask" not in story["shown"]["bob"][f"scontrol write batch_script {job} -"]
        assert "dask" in story["shown"]["alice"][f"scontrol write batch_script {job} -"]


def test_the_array_of_the_page_scores_all_files(announced, users):
    alice = users[0]
    (script,) = re.findall(
        r"```bash\n(#!/bin/bash\n#SBATCH --array.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    script = script.replace("particlenet", "sums").replace("1-20", "1-2").replace("/20", "/2")
    directory = alice.own(Path(tempfile.mkdtemp(dir=alice.home)))
    data = directory / "data"
    data.mkdir()
    for number in range(4):
        rows = np.arange(160, dtype=np.float32).reshape(10, 2, 8) + number
        ak.to_parquet(ak.Array({"x": rows}), data / f"{number}.parquet")
    (directory / "selections.py").write_text(
        'def constituents(events):\n    return {"x": events.x}\n', encoding="utf-8"
    )
    (directory / "scores.sh").write_text(script, encoding="utf-8")
    url = announced["replicas"][0]["grpc"]
    with alice.begin("sbatch", "--wait", "scores.sh", cwd=directory, EAF_TRITON_URL=url) as submitted:
        printed = submitted.communicate(timeout=120)
    logs = [path.read_text(encoding="utf-8") for path in sorted(directory.glob("scores-*.log"))]
    sys.stdout.write("\n".join(["", *printed, *logs]))
    assert submitted.returncode == 0, (printed, logs)
    assert len(logs) == 2
    scores = sorted((directory / "scores").glob("**/*.parquet"))
    assert len(scores) == 4
    assert {path.stat().st_uid for path in scores} == {alice.entry.pw_uid}
    assert sum(len(ak.from_parquet(path)) for path in scores) == 40


def test_a_cluster_of_dask_jobqueue_is_configured(announced, users):
    """With `configure_clusters = "all"`, without a call of `configure`."""
    alice = users[0]
    configuration = alice.own(Path(tempfile.mkdtemp(dir=alice.home)))
    facility = {"urls": [announced["replicas"][0]["grpc"]], "configure_clusters": "all"}
    (configuration / "eaf_inference_config.json").write_text(json.dumps({"Facility": facility}), encoding="utf-8")
    token = alice.save_token()
    printed = alice.run(
        alice.python, "-c", QUEUE, alice.python, JUPYTER_CONFIG_DIR=str(configuration), BEARER_TOKEN_FILE=str(token)
    )
    job, user, scores, link, script = json.loads(printed.splitlines()[-1])
    assert user == alice.name
    assert scores == [[8.0, 8.0]] * 4
    assert link.endswith(" configured")
    assert int(job) > 0
    logs = stored_in(alice.home / "jobqueue")
    assert [where for where, text in (logs | {"script": script}).items() if MARK in text] == []


def test_packages_that_are_missing_are_named(monkeypatch):
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **_: None if name in ("munged", "sudo") else which(name))
    with pytest.raises(ConfigurationError, match="apt-get install --no-install-recommends munge sudo"), Slurm.start():
        pass


def test_a_python_that_other_users_cannot_run_is_named(monkeypatch, tmp_path):
    tmp_path.chmod(0o700)
    python = tmp_path / "python"
    python.symlink_to("/bin/true")
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(ConfigurationError, match=rf"other users cannot run {python}: .*Permission denied"):
        check_python("dask")


def test_a_directory_that_other_users_cannot_enter_is_named(monkeypatch, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(closed))
    with pytest.raises(ConfigurationError, match="other users cannot enter .*Set TMPDIR"), Slurm.start():
        pass
    assert list(closed.iterdir()) == []


def test_jobs_daemons_and_files_end_when_their_owner_is_killed():
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as owner:
        directory = Path(owner.stdout.readline().strip())
        family = psutil.Process(owner.pid).children(recursive=True)
        assert {"munged", "slurmctld", "slurmd", "slurmstepd", "sleep"} <= {process.name() for process in family}
        owner.kill()
        _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    assert not directory.exists()
