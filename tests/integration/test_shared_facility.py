"""Alice and Bob on one facility, through its real doors: each as herself, and neither notices what dies beneath."""

from __future__ import annotations

import contextlib
import json
import stat

import awkward as ak
import psutil
import pytest
from hub_facility import processes_with
from management import successes
from recorded.replay import until
from shared_users import SAMPLE, User, running
from test_other_local_users import umasks_below

import eaf_inference
from eaf_inference.errors import ConfigurationError
from eaf_inference.facility.shared import check_names, up_for

EVENTS = 60
CLASSIFY = """
import json, sys
import awkward as ak
import eaf_inference
jets = ak.from_parquet(sys.argv[1])[: int(sys.argv[2])].jets.constituents[:, :, :128]
connection = eaf_inference.connect()
scores = connection.model("particlenet")(jets)
print(json.dumps([connection.user, connection.endpoint.source, scores.top.to_list()]))
"""
# A cluster of her own, which is there until a line comes.
COMPUTE = """
import contextlib, json, sys
import eaf_inference
from dask_gateway import Gateway

def who(number):
    import eaf_inference
    return eaf_inference.connect().user

connection = eaf_inference.connect()
gateway = Gateway()
cluster = gateway.new_cluster()
cluster.scale(1)
client = cluster.get_client()
users = client.gather(client.map(who, range(3), pure=False))
print(json.dumps([cluster.name, users]), flush=True)
sys.stdin.readline()
seen = [report.name for report in gateway.list_clusters()]
print(json.dumps(seen), flush=True)
client.close()
cluster.close()
gateway.close()
"""
# Asks again and again until a line comes, and says after each round how many have been right.
ASK = """
import json, sys, threading
import awkward as ak
import eaf_inference
jets = ak.from_parquet(sys.argv[1])[: int(sys.argv[2])].jets.constituents[:, :, :128]
expected = json.loads(sys.argv[3])
enough = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), enough.set()), daemon=True).start()
connection = eaf_inference.connect()
model = connection.model("particlenet")
right = wrong = 0
while not enough.is_set():
    scores = model(jets, progress=False).top.to_list()
    if ak.almost_equal(scores, expected, rtol=0, atol=1e-6):
        right += 1
    else:
        wrong += 1
    print(json.dumps(right), flush=True)
print(json.dumps([connection.user, right, wrong]))
"""
# The same on the one worker of a cluster of her own.
ASK_ON_A_WORKER = """
import json, sys, threading
import eaf_inference
from dask_gateway import Gateway

def ask(path, events, number):
    import awkward as ak, eaf_inference
    jets = ak.from_parquet(path)[:events].jets.constituents[:, :, :128]
    return eaf_inference.connect().model("particlenet")(jets).top.to_list()

enough = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), enough.set()), daemon=True).start()
import awkward as ak
expected = json.loads(sys.argv[3])
connection = eaf_inference.connect()
gateway = Gateway()
cluster = gateway.new_cluster()
cluster.scale(1)
client = cluster.get_client()
right = wrong = 0
while not enough.is_set():
    scores = client.submit(ask, sys.argv[1], int(sys.argv[2]), right + wrong).result()
    if ak.almost_equal(scores, expected, rtol=0, atol=1e-6):
        right += 1
    else:
        wrong += 1
    print(json.dumps(right), flush=True)
print(json.dumps([connection.user, right, wrong]))
client.close()
cluster.close()
gateway.close()
"""
WITH_ANOTHERS = """
import contextlib
import json
import eaf_inference
from eaf_inference.errors import NotAuthorized
try:
    eaf_inference.connect()
except NotAuthorized as error:
    print(json.dumps(str(error)))
"""


@pytest.fixture(scope="module")
def shared():
    with up_for(["alice", "bob"]) as facility:
        yield facility


@pytest.fixture(scope="module")
def users(shared):
    """Both, logged in, with their Jupyter servers."""
    both = [User(shared, name) for name in shared.users]
    for user in both:
        user.log_in()
    for user in both:
        user.wait_for_her_server()
    return both


@pytest.fixture(scope="module")
def expected(shared):
    """The scores, from a Triton itself."""
    jets = ak.from_parquet(SAMPLE)[:EVENTS].jets.constituents[:, :, :128]
    with eaf_inference.connect(shared.tritons[0].grpc) as connection:
        return connection.model("particlenet")(jets, progress=False).top.to_list()


@pytest.fixture
def restored(shared):
    """The facility as it was, whatever a test did to it."""
    before = dict(shared.tokens.configuration)
    yield
    if shared.tokens.configuration != before:
        shared.tokens.configuration = before
        shared.tokens.restart()


def calls(shared):
    """What the door has written down, of whatever had a token."""
    whole, _, _ = shared.door.access_log.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def minted(shared):
    """The token service's record of what it has signed."""
    lines = [line for line in shared.tokens.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in map(json.loads, lines) if line["event"] == "mint"]


def inferences(shared, user):
    """What the door has counted of this user, of calls that were answered."""
    answered = [line for line in calls(shared) if (line["user"], line["grpc_status"]) == (user.name, "OK")]
    return sum(int(line["rows"]) for line in answered if line["method"].endswith("/ModelInfer"))


def test_with_nothing_typed_each_is_herself_and_has_the_same_scores(shared, users, expected):
    for user in users:
        name, source, scores = user.run(CLASSIFY, SAMPLE, EVENTS)
        assert (name, source) == (user.name, "Hub facility document")
        assert ak.almost_equal(scores, expected, rtol=0, atol=1e-6)
    jets = sum(map(len, expected))  # and some more to see whether padding changes their scores
    until(lambda: all(jets <= inferences(shared, user) < jets + 150 for user in users))


def test_each_computes_as_herself_and_sees_her_own_clusters_and_sessions_only(users):
    with running(users, COMPUTE) as runs:
        listed = {user.name: user.get("eaf-inference/api/clusters").json()["clusters"] for user in users}
        for user, run in zip(users, runs, strict=True):
            own, workers_infer_as = run.first
            assert workers_infer_as == [user.name] * 3
            assert run.finish() == [own] == [each["name"] for each in listed[user.name]]
            assert user.get("eaf-inference/api/facility").json()["user"] == user.name
    alice, bob = users
    for path in ("api/sessions", "eaf-inference/api/facility", "eaf-inference/api/clusters", "lab"):
        assert alice.get_of("bob", path).status_code == 403
        assert bob.get_of("alice", path).status_code == 403


def test_nothing_listens_but_on_loopback(shared, users):
    listening = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):  # it ended since they were listed
            found = process.net_connections("inet")
            listening += [(process.name(), each.laddr) for each in found if each.status == psutil.CONN_LISTEN]
    assert len(listening) >= 12
    assert [each for each in listening if each[1].ip not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")] == []


def test_nobody_manages_a_triton_around_envoy(shared):
    assert [successes(triton.replica) for triton in shared.tritons] == [[], []]


def test_whatever_servers_and_users_notebooks_create_is_for_this_account_alone(shared, users):
    with running(users[:1], COMPUTE) as (run,):  # with a cluster
        masks = umasks_below(*shared.servers)
        run.finish()
    assert len(masks) >= 20
    assert set(masks.values()) == {"0077"}
    assert any("jupyter" in name for name in masks)


def test_who_has_left_has_no_token_to_leave_behind(shared, users):
    alice, bob = users
    kept = bob.environment["JUPYTERHUB_API_TOKEN"]
    assert alice.run(CLASSIFY, SAMPLE, 1, JUPYTERHUB_API_TOKEN=kept)[0] == "bob"
    bob.log_out()
    refusal = alice.run(WITH_ANOTHERS, JUPYTERHUB_API_TOKEN=kept)
    assert "JupyterHub does not know your token any more" in refusal
    bob.log_in()
    bob.wait_for_her_server()


def triton_is_killed(shared):
    shared.tritons[0].kill()
    shared.tritons[0].restart()


def door_is_restarted(shared):
    shared.door.restart()


def hub_is_killed(shared):
    shared.hub.kill()
    shared.hub.wait_until_ready()


def hub_proxy_is_killed(shared):
    shared.hub.proxy.kill()
    shared.hub.proxy.restart()


def gateway_is_killed(shared):
    shared.gateway.kill()
    shared.gateway.wait_until_ready()


FAULTS = [triton_is_killed, door_is_restarted, hub_is_killed, hub_proxy_is_killed, gateway_is_killed]


@pytest.mark.parametrize("happens", FAULTS)
def test_what_dies_in_mid_run_costs_nobody_a_score(shared, users, expected, happens):
    program = ASK_ON_A_WORKER if happens is gateway_is_killed else ASK
    with running(users, program, SAMPLE, EVENTS, json.dumps(expected)) as runs:
        happens(shared)
        for run in runs:
            before = run.wait_for_a_line()
            while run.wait_for_a_line() < before + 2:  # rounds that began after it
                pass
        for user, run in zip(users, runs, strict=True):
            name, right, wrong = run.finish()
            assert (name, wrong) == (user.name, 0)
            assert right >= 3


def test_a_token_service_that_is_away_until_tokens_end_costs_nobody_a_score(shared, users, expected, restored):
    shared.tokens.configuration = {**shared.tokens.configuration, "TokenPolicy": {"lifetime": 4.0}}
    shared.tokens.restart()
    with running(users, ASK, SAMPLE, EVENTS, json.dumps(expected)) as runs:
        shared.tokens.kill()
        before = len(calls(shared))
        until(lambda: any("xpired" in line["why"] for line in calls(shared)[before:]), timeout=60)
        shared.tokens.restart()
        for user, run in zip(users, runs, strict=True):
            before = run.wait_for_a_line()
            while run.wait_for_a_line() <= before:
                pass
            name, right, wrong = run.finish()
            assert (name, wrong) == (user.name, 0)
            assert right >= 2


def test_keys_that_rotate_in_mid_run_refuse_nobody(shared, users, expected, restored):
    quick = {"TokenPolicy": {"lifetime": 4.0}, "TokenIssuer": {"rotate_every": 6.0, "publish_ahead": 4.0}}
    shared.tokens.configuration = {**shared.tokens.configuration, **quick}
    shared.tokens.restart()
    with running(users, ASK, SAMPLE, EVENTS, json.dumps(expected)) as runs:
        seen, begun = set(), len(calls(shared))

        def number_of_keys():
            seen.update(line["kid"] for line in minted(shared))
            return len(seen)

        first = number_of_keys()
        until(lambda: number_of_keys() >= first + 2, timeout=60)
        for user, run in zip(users, runs, strict=True):
            assert run.finish()[::2] == [user.name, 0]
        assert {line["grpc_status"] for line in calls(shared)[begun:]} == {"OK"}


def test_no_secret_is_where_others_could_read_it(shared, users):
    secrets_of_it = {
        "password": shared.hub.password_file.read_text(),
        "operator": shared.hub.operator_token_file.read_text(),
        "proxy": shared.hub.proxy.token,
        "gateway's proxy": shared.gateway.proxy.token,
        **{user.name: user.environment["JUPYTERHUB_API_TOKEN"] for user in users},
    }
    logs = [server.log for server in shared.servers] + [shared.door.access_log]
    logs += [path for path in shared.gateway.cluster_logs.rglob("*") if path.is_file()]
    replies = [
        user.get(f"eaf-inference/api/{name}").text for user in users for name in ("facility", "clusters", "history")
    ]
    texts = {str(path): path.read_text(errors="replace") for path in logs} | {
        f"reply {number}": text for number, text in enumerate(replies)
    }
    texts |= {f"command of {pid}": command for pid, command, _ in processes_with("")}
    found = [
        (what, where) for where, text in texts.items() for what, secret in secrets_of_it.items() if secret in text
    ]
    assert found == []
    assert [where for where, text in texts.items() if "eyJ" in text] == []  # how a JWT begins
    may_hold = {"proxy": "configurable-http-proxy", "gateway's proxy": "dask-gateway-proxy"}
    for _, command, environment in processes_with(""):
        for what, secret in secrets_of_it.items():
            if secret in environment:
                assert what in ("alice", "bob") or may_hold.get(what, " ") in command, (what, command)
    directories = {shared.hub.directory, shared.gateway.directory, shared.door.ca.parent, shared.tokens.keys.parent}
    for directory in directories:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for path in (
        shared.hub.directory / "jupyterhub_config.py",
        shared.hub.password_file,
        *shared.tokens.keys.iterdir(),
    ):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.parametrize("names", [[], [""], ["alice", "alice"], ["Alice"], ["../alice"], ["a b"]])
def test_names_that_are_none_are_refused(names):
    with pytest.raises(ConfigurationError, match="--users alice,bob"):
        check_names(names)
