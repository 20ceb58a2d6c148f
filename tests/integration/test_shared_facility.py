"""Alice and Bob on one facility, through its real front ends: two identities, and neither notices a crash."""

from __future__ import annotations

import contextlib
import datetime
import json
import shutil
import stat
from pathlib import Path

import awkward as ak
import psutil
import pytest
import trustme
from hub_facility import processes_with
from management import successes
from operators_view import configured_by, found_now, printed, sections_of
from shared_users import SAMPLE, User, running
from test_other_local_users import umasks_below
from tiny_models import save_sums
from waiting import until

import eaf_inference
from eaf_facility.inspection.calls import call, get
from eaf_facility.inspection.setup import HUB_TOKEN
from eaf_facility.inspection.token_service import key_ids
from eaf_facility.local.multi_user import check_names, up_for
from eaf_inference._files import write_private
from eaf_inference.address import parse_urls
from eaf_inference.auth.token_service import TokenService
from eaf_inference.doctor import State
from eaf_inference.errors import ConfigurationError

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
# Starts a cluster of the user's own, which runs until a line is read.
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
# Classifies again and again until a line is read, and prints the number of correct rounds after each.
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
while not enough.wait(0.2):  # a steady load leaves the other tests a processor
    scores = model(jets, progress=False).top.to_list()
    if ak.almost_equal(scores, expected, rtol=0, atol=1e-6):
        right += 1
    else:
        wrong += 1
    print(json.dumps(right), flush=True)
print(json.dumps([connection.user, right, wrong]))
"""
# The same, on the only worker of the user's own cluster.
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
while not enough.wait(0.2):  # a steady load leaves the other tests a processor
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
# Deploys a model of her own, and scores with it.
DEPLOY = """
import json, sys
import numpy as np
import eaf_inference
lines = []
with eaf_inference.connect() as triton:
    example = {"pf": np.ones((8, 2, 3), np.float32), "mask": np.ones((8, 1, 3), np.float32)}
    model = triton.deploy("sums", sys.argv[1], example=example, progress=lines.append)
    print(json.dumps([model.name, model(example).tolist(), lines]))
"""
UNDEPLOY = """
import json
import eaf_inference
with eaf_inference.connect() as triton:
    triton.undeploy("sums")
    print(json.dumps([each.name for each in triton.models()]))
"""
# Uses another user's model, and tries to replace, unload and remove it, with what a user can get.
USE_AND_ATTACK = """
import json, sys
from pathlib import Path
import numpy as np
import eaf_inference
from eaf_inference.deploy.facility_store import store_of
from eaf_inference.errors import InferenceError, NotAuthorized
refused = {}

def attempt(name, act):
    try:
        act()
    except InferenceError as error:
        refused[name] = [type(error).__name__, str(error)]
    else:
        refused[name] = ["done", ""]

with eaf_inference.connect() as triton:
    example = {"pf": np.ones((8, 2, 3), np.float32), "mask": np.ones((8, 1, 3), np.float32)}
    scores = triton.model("alice.sums")(example).tolist()
    opened = triton.open()
    store = store_of(opened)
    attempt("upload", lambda: store.upload("alice.sums", {"model.onnx": Path(sys.argv[1])}))
    attempt("read", lambda: store.config("alice.sums"))
    attempt("publish", lambda: store.publisher.write_config("alice.sums", 'name: "alice.sums"'))
    attempt("remove", lambda: store.remove("alice.sums"))
    attempt("unload", lambda: opened.replicas.unload("alice.sums"))
    attempt("load", lambda: opened.replicas.load("alice.sums"))
    attempt("undeploy", lambda: triton.undeploy("alice.sums"))
    print(json.dumps([scores, refused]))
"""
CONNECT_AS_ANOTHER = """
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
    with up_for(["alice", "bob"], store="s3") as facility:
        yield facility


@pytest.fixture(scope="module")
def users(shared):
    """Both users, logged in, with their Jupyter servers."""
    both = [User(shared, name) for name in shared.users]
    for user in both:
        user.log_in()
    for user in both:
        user.wait_for_her_server()
    return both


@pytest.fixture(scope="module")
def expected(shared):
    """The scores from a Triton, without Envoy."""
    jets = ak.from_parquet(SAMPLE)[:EVENTS].jets.constituents[:, :, :128]
    with eaf_inference.connect(shared.tritons[0].grpc) as connection:
        return connection.model("particlenet")(jets, progress=False).top.to_list()


@pytest.fixture
def restored(shared):
    """Restore the token service's configuration after the test."""
    before = dict(shared.token_service.configuration)
    yield
    if shared.token_service.configuration != before:
        shared.token_service.configuration = before
        shared.token_service.restart()


def calls(shared):
    """Return the access log's lines of calls with a token."""
    whole, _, _ = shared.envoy.access_log.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def minted(shared):
    """Return the token service's log lines about signed tokens."""
    return [line for line in audit(shared) if line["event"] == "mint"]


def audit(shared):
    """Return the token service's log lines."""
    return [json.loads(line) for line in shared.token_service.log.read_text().splitlines() if line.startswith("{")]


def inferences(shared, user):
    """Return Envoy's counters of this user's answered calls."""
    answered = [line for line in calls(shared) if (line["user"], line["grpc_status"]) == (user.name, "OK")]
    return sum(int(line["rows"]) for line in answered if line["method"].endswith("/ModelInfer"))


def test_users_connect_as_themselves_without_arguments_with_equal_scores(shared, users, expected):
    for user in users:
        name, source, scores = user.run(CLASSIFY, SAMPLE, EVENTS)
        assert (name, source) == (user.name, "Hub facility document")
        assert ak.almost_equal(scores, expected, rtol=0, atol=1e-6)
    jets = sum(map(len, expected))  # plus a few, which check whether padding changes the scores
    until(lambda: all(jets <= inferences(shared, user) < jets + 150 for user in users))


def test_a_users_model_is_served_to_all_and_changed_by_none(shared, users, tmp_path):
    """In the S3 stand-in, from which the Tritons read; keys and configuration come from the token service."""
    alice, bob = users
    path = save_sums(tmp_path / "model.onnx")
    tmp_path.chmod(0o755)
    name, hers, lines = alice.run(DEPLOY, path)
    assert (name, hers) == ("alice.sums", [[6.0, 6.0]] * 8)
    assert "largest difference 0 in 16 numbers" in lines[-1]
    his, refused = bob.run(USE_AND_ATTACK, path)
    assert his == hers
    kinds = {attack: kind for attack, (kind, _) in refused.items()}
    assert kinds.pop("undeploy") == "ModelNotFound"  # he has no model of that name
    assert set(kinds.values()) == {"NotAuthorized"}, refused
    tried = [line for line in audit(shared) if (line["event"], line.get("model")) == ("refusal", "alice.sums")]
    assert {(line["user"], line["reason"]) for line in tried} == {("bob", "not_your_model")}
    denied = [line for line in calls(shared) if (line["user"], line["grpc_status"]) == ("bob", "PermissionDenied")]
    assert {line["method"].rpartition("/")[2] for line in denied} == {"RepositoryModelLoad", "RepositoryModelUnload"}
    assert alice.run(DEPLOY, path)[1] == hers  # as version 2
    assert "alice.sums" not in alice.run(UNDEPLOY)


@pytest.mark.slow
def test_users_compute_as_themselves_and_see_only_their_own_clusters(users):
    with running(users, COMPUTE) as runs:
        listed = {user.name: user.clusters() for user in users}
        for user, run in zip(users, runs, strict=True):
            own, workers_infer_as = run.first
            assert workers_infer_as == [user.name] * 3
            assert run.finish() == [own] == [each["name"] for each in listed[user.name]]
            assert user.get("eaf-inference/api/facility").json()["user"] == user.name
    alice, bob = users
    for path in ("api/sessions", "eaf-inference/api/facility", "eaf-inference/api/history", "lab"):
        assert alice.get_of("bob", path).status_code == 403
        assert bob.get_of("alice", path).status_code == 403


def test_servers_listen_on_loopback_only(shared, users):
    listening = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):  # it has ended since they were listed
            found = process.net_connections("inet")
            listening += [(process.name(), each.laddr) for each in found if each.status == psutil.CONN_LISTEN]
    assert len(listening) >= 12
    assert [each for each in listening if each[1].ip not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")] == []


def test_no_user_can_manage_a_triton_around_envoy(shared):
    assert [successes(triton.replica) for triton in shared.tritons] == [[], []]


def test_files_of_servers_and_notebooks_are_private_to_this_account(shared, users):
    with running(users[:1], COMPUTE) as (run,):  # with a cluster
        masks = umasks_below(*shared.servers)
        run.finish()
    assert len(masks) >= 20
    assert set(masks.values()) == {"0077"}
    assert any("jupyter" in name for name in masks)


@pytest.mark.slow
def test_a_user_who_has_logged_out_leaves_no_usable_token(shared, users):
    alice, bob = users
    bobs_token = bob.environment["JUPYTERHUB_API_TOKEN"]
    assert alice.run(CLASSIFY, SAMPLE, 1, JUPYTERHUB_API_TOKEN=bobs_token)[0] == "bob"
    bob.log_out()
    refusal = alice.run(CONNECT_AS_ANOTHER, JUPYTERHUB_API_TOKEN=bobs_token)
    assert "JupyterHub no longer knows your token" in refusal
    bob.log_in()
    bob.wait_for_her_server()


def triton_is_killed(shared):
    shared.tritons[0].kill()
    shared.tritons[0].restart()


def envoy_is_restarted(shared):
    shared.envoy.restart()


def hub_is_killed(shared):
    shared.hub.kill()
    shared.hub.wait_until_ready()


def hub_proxy_is_killed(shared):
    shared.hub.proxy.kill()
    shared.hub.proxy.restart()


def gateway_is_killed(shared):
    shared.gateway.kill()
    shared.gateway.wait_until_ready()


FAULTS = [triton_is_killed, envoy_is_restarted, hub_is_killed, hub_proxy_is_killed, gateway_is_killed]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_dies_during_a_run_loses_no_score(shared, users, expected, fault):
    program = ASK_ON_A_WORKER if fault is gateway_is_killed else ASK
    with running(users, program, SAMPLE, EVENTS, json.dumps(expected)) as runs:
        fault(shared)
        for run in runs:
            before = run.wait_for_a_line()
            while run.wait_for_a_line() < before + 2:  # rounds that began after the fault
                pass
        for user, run in zip(users, runs, strict=True):
            name, right, wrong = run.finish()
            assert (name, wrong) == (user.name, 0)
            assert right >= 3


@pytest.mark.slow
def test_a_token_service_down_until_tokens_expire_loses_no_score(shared, users, expected, restored):
    shared.token_service.configuration = {**shared.token_service.configuration, "TokenPolicy": {"lifetime": 4.0}}
    shared.token_service.restart()
    with running(users, ASK, SAMPLE, EVENTS, json.dumps(expected)) as runs:
        shared.token_service.kill()
        before = len(calls(shared))
        until(lambda: any("xpired" in line["why"] for line in calls(shared)[before:]), timeout=60)
        shared.token_service.restart()
        for user, run in zip(users, runs, strict=True):
            before = run.wait_for_a_line()
            while run.wait_for_a_line() <= before:
                pass
            name, right, wrong = run.finish()
            assert (name, wrong) == (user.name, 0)
            assert right >= 2


@pytest.mark.slow
def test_keys_that_rotate_during_a_run_cause_no_refusal(shared, users, expected, restored):
    quick = {"TokenPolicy": {"lifetime": 4.0}, "TokenIssuer": {"rotate_every": 6.0, "publish_ahead": 4.0}}
    shared.token_service.configuration = {**shared.token_service.configuration, **quick}
    shared.token_service.restart()
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


@pytest.fixture
def operator(shared, users, tmp_path, monkeypatch):
    """Return the operator's findings by subject, with changed sections."""

    def look(**changed):
        sections = sections_of(shared)
        for section, settings in changed.items():
            sections[section] |= settings
        hub_token = users[0].environment[HUB_TOKEN]
        with configured_by(sections, tmp_path / "etc", monkeypatch, hub_token):
            return found_now()

    return look


def problems(found):
    """Return what is wrong and what to do, by the first word of the subject."""
    texts = {}
    for each in found.values():
        if each.state is State.PROBLEM:
            texts.setdefault(each.subject.partition(" ")[0], []).append(f"{each.what} → {each.remedy}")
    return {word: "\n".join(lines) for word, lines in texts.items()}


def test_the_operators_doctor_finds_nothing_wrong(shared, users, tmp_path, monkeypatch):
    hub_token = users[0].environment[HUB_TOKEN]
    with configured_by(sections_of(shared), tmp_path, monkeypatch, hub_token):
        code, text = printed()
        found = found_now()
    assert code == 0, text
    assert hub_token not in text
    assert text.split()[:4] == ["state", "finding", "→", "remedy"]
    assert problems(found) == {}
    assert found[f"edge proxy {shared.envoy.url}, good token"].what == "admitted as alice"
    assert found["models"].what.startswith("all 2 Tritons serve the same")
    assert found["Envoy"].what == "2 of 2 Tritons pass its health checks"


def test_the_operators_doctor_names_a_wrong_setting(shared, operator):
    wrong = problems(
        operator(
            TokenPolicy={"jwks_url": f"{shared.token_service.url}/x/.well-known/jwks.json"},
            Facility={
                "urls": [shared.tritons[0].grpc],
                "prometheus_matchers": ['job="other"'],
                "model_store": "file:///x",
            },
        )
    )
    assert "answers 404 → correct TokenPolicy.jwks_url" in wrong["token"]
    assert "admitted: everybody can use Triton → Facility.urls must lead to Envoy" in wrong["edge"]
    assert "cannot be read: No such file or directory → create it" in wrong["model"]
    if shared.prometheus:
        assert "prometheus_matchers matches none of" in wrong["Prometheus"]
        assert 'the first series has job="triton"' in wrong["Prometheus"]


def test_the_operators_doctor_names_a_server_that_is_down(shared, operator):
    triton = psutil.Process(shared.tritons[0].pid)
    stopped = [shared.token_service, *filter(None, [shared.prometheus])]
    triton.suspend()  # starting it again would take longer
    for server in stopped:
        server.kill()
    try:
        wrong = problems(operator())
    finally:
        triton.resume()
        for server in stopped:
            server.restart()
    assert "does not answer: Connection refused → start it" in wrong["token"]
    assert "no token: " in wrong["edge"]
    assert "does not answer: DEADLINE_EXCEEDED" in wrong["Triton"]
    if shared.prometheus:
        assert "Connection refused → start it" in wrong["Prometheus"]


def test_the_operators_doctor_sees_an_expired_certificate(shared, operator):
    certificate, key = Path(shared.envoy.place.certificate), Path(shared.envoy.place.key)
    before = certificate.read_text(encoding="utf-8"), key.read_text(encoding="utf-8")
    ended = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=2)
    made = trustme.CA().issue_cert("127.0.0.1", not_before=ended - datetime.timedelta(days=9), not_after=ended)
    try:
        write_private(certificate, made.cert_chain_pems[0].bytes())  # without its key: Envoy keeps the old one
        assert "holds another certificate than the one served → Envoy's log" in problems(operator())["certificate"]
        write_private(key, made.private_key_pem.bytes())
        until(lambda: "expired 2 days ago → renew Envoy.certificate" in problems(operator())["certificate"])
    finally:
        write_private(key, before[1])
        write_private(certificate, before[0])
    until(lambda: problems(operator()) == {})


def test_restored_keys_keep_tokens_valid(shared, users, tmp_path):
    """The key directory is lost and restored from a copy; a token from before is used all the time."""
    hub_token = users[0].environment[HUB_TOKEN]
    token = TokenService(shared.token_service.base_url, environment={HUB_TOKEN: hub_token}).read()
    keys, statuses = shared.token_service.keys, []
    shutil.copytree(keys, tmp_path / "backup")

    def published():
        return key_ids(get(shared.token_service.jwks_url).body)

    def use():
        (address,) = parse_urls(shared.envoy.url)
        statuses.append(call(address, "ServerMetadata", ca=str(shared.envoy.ca), token=token).status)

    before = published()
    shared.token_service.kill()
    shutil.rmtree(keys)
    use()  # Envoy still has the keys
    shutil.copytree(tmp_path / "backup", keys)
    shared.token_service.restart()
    fetches = fetched(shared.envoy)
    until(lambda: fetched(shared.envoy) > fetches + 1)  # Envoy has the keys of the restored service
    use()
    assert published() == before
    assert statuses == ["OK", "OK"]


def fetched(envoy):
    """Return how often Envoy has fetched the token service's keys."""
    return sum(envoy.statistics("jwt_authn.jwks_fetch_success").values())


def test_no_secret_is_readable_by_others(shared, users):
    secrets_of_it = {
        "password": shared.hub.password_file.read_text(),
        "operator": shared.hub.operator_token_file.read_text(),
        "proxy": shared.hub.proxy.token,
        "gateway's proxy": shared.gateway.proxy.token,
        **{user.name: user.environment["JUPYTERHUB_API_TOKEN"] for user in users},
    }
    logs = [server.log for server in shared.servers] + [shared.envoy.access_log]
    logs += [path for path in shared.gateway.cluster_logs.rglob("*") if path.is_file()]
    replies = [user.get(f"eaf-inference/api/{name}").text for user in users for name in ("facility", "history")] + [
        json.dumps(user.clusters()) for user in users
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
    directories = {
        shared.hub.directory,
        shared.gateway.directory,
        shared.envoy.ca.parent,
        shared.token_service.keys.parent,
    }
    for directory in directories:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for path in (
        shared.hub.directory / "jupyterhub_config.py",
        shared.hub.password_file,
        *shared.token_service.keys.iterdir(),
    ):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.parametrize("names", [[], [""], ["alice", "alice"], ["Alice"], ["../alice"], ["a b"]])
def test_invalid_user_names_are_refused(names):
    with pytest.raises(ConfigurationError, match="--users alice,bob"):
        check_names(names)
