"""How the operator's doctor judges what it has seen."""

from __future__ import annotations

import socket
import time

import pytest

from eaf_facility.envoy.settings import Envoy
from eaf_facility.hub.settings import TokenIssuer
from eaf_facility.inspection import calls, checks, clocks, clusters, edge_proxy, monitoring, token_service, tritons
from eaf_facility.inspection.calls import Answer
from eaf_facility.inspection.checks import findings
from eaf_facility.inspection.setup import HUB_TOKEN, Setup
from eaf_facility.inspection.tritons import Seen
from eaf_facility.process.ports import free_ports
from eaf_facility.token_policy import TokenPolicy
from eaf_inference import doctor
from eaf_inference._http import Reply
from eaf_inference.address import parse_urls
from eaf_inference.config import Facility
from eaf_inference.doctor import Finding, State
from eaf_inference.inference import protocol

FINE, NOTE, PROBLEM = State.FINE, State.NOTE, State.PROBLEM
DAY = 86_400.0
NOW = 1_000 * DAY


@pytest.mark.parametrize(
    ("answer", "admitted", "state", "words"),
    [
        (Answer("UNAUTHENTICATED", "Jwt is missing"), False, FINE, "refused"),
        (Answer("OK"), False, PROBLEM, "everybody can use Triton"),
        (Answer("UNAVAILABLE", "Connection refused"), False, PROBLEM, "start Envoy"),
        (Answer("DEADLINE_EXCEEDED"), True, PROBLEM, "start Envoy"),
        (Answer("UNAVAILABLE", "no healthy upstream"), True, PROBLEM, "Envoy reaches no Triton"),
        (Answer("OK"), True, FINE, "admitted as alice"),
        (Answer("UNAUTHENTICATED", "Jwt issuer is not configured"), True, PROBLEM, "the same TokenPolicy.issuer"),
        (Answer("RESOURCE_EXHAUSTED"), True, PROBLEM, "access log"),
    ],
)
def test_a_call_should_be_admitted_with_a_good_token_only(answer, admitted, state, words):
    found = edge_proxy.judged("edge proxy", answer, admitted=admitted, user="alice")
    assert found.state is state
    assert words in f"{found.what} {found.remedy}"


@pytest.mark.parametrize(("days", "state"), [(-1, PROBLEM), (20.9, NOTE), (21, FINE)])
def test_a_certificate_should_be_valid_for_21_days(days, state):
    assert edge_proxy.expiry("certificate", days, "renew it").state is state


def test_the_keys_schedule_is_judged_by_their_times():
    issuer = TokenIssuer(key_directory="/keys")
    fresh, old, following = ("a", NOW - DAY), ("a", NOW - 8 * DAY), ("b", NOW + 1800)
    found = token_service.rotation([fresh], ["a"], NOW, issuer)
    assert (found.state, found.what) == (FINE, "the key is 24 h old; the next one in 6 days")
    found = token_service.rotation([("a", NOW - 7 * DAY + 1800), following], ["a", "b"], NOW, issuer)
    assert (found.state, found.what.partition("; ")[2]) == (FINE, "the next one signs in 30 min")
    assert token_service.rotation([old], ["a"], NOW, issuer).state is PROBLEM
    assert "other keys" in token_service.rotation([fresh], ["c"], NOW, issuer).what
    assert token_service.key_ids(b'{"keys": [{"kid": "a"}]}') == ["a"]
    assert [token_service.key_ids(each) for each in (b"<html>", b"[]", b'{"keys": 1}')] == [[], [], []]


def test_an_answering_triton_is_a_problem_except_on_envoys_host():
    for seen, on_envoys, elsewhere in (
        (Seen("grpc://a:8001", {"m": True}), NOTE, PROBLEM),
        (Seen("grpc://a:8001", None, "UNAVAILABLE"), PROBLEM, FINE),
        (Seen("grpc://a:8001", None, "DEADLINE_EXCEEDED", connects=True), PROBLEM, PROBLEM),
        (Seen("grpc://a:8001", None, "unknown name", connects=None), PROBLEM, NOTE),
    ):
        assert tritons.judged(seen, here=True).state is on_envoys
        assert tritons.judged(seen, here=False).state is elsewhere


def test_a_port_that_takes_connections_is_not_out_of_reach(monkeypatch):
    monkeypatch.setattr(calls, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        upstreams = [f"grpc://127.0.0.1:{port}", "grpc://no-such-host.invalid:1", f"grpc://{'x' * 70}:1"]
        found = tritons.look(Setup(envoy=Envoy(upstreams=upstreams)))
    assert [each.connects for each in found] == [True, None, None]


def test_a_model_is_ready_with_any_version_and_only_a_triton_counts(monkeypatch):
    index = protocol.RepositoryIndexResponse()
    for version, state in (("1", "UNAVAILABLE"), ("2", "READY"), ("3", "UNAVAILABLE")):
        index.models.add(name="alice.m", version=version, state=state)
    (address,) = parse_urls(["grpc://127.0.0.1:1"])
    monkeypatch.setattr(tritons, "call", lambda *_: Answer("OK", "", index.SerializeToString()))
    assert tritons._seen(address).models == {"alice.m": True}
    monkeypatch.setattr(tritons, "call", lambda *_: Answer("OK", "", b"\xff\xff"))
    assert tritons._seen(address) == Seen(address.url, None, "its answer is not a Triton's")


def test_a_guessed_address_does_not_say_which_host_this_is():
    (unused,) = free_ports(1)
    envoy = Envoy(upstreams=["grpc://10.0.0.1:8001"], admin_port=unused)
    assert not tritons.on_the_proxys_host(Setup(envoy=envoy))
    assert tritons.on_the_proxys_host(Setup(envoy=envoy, facility=Facility(urls=["grpcs://127.0.0.1:443"])))


def test_tritons_with_different_models_are_named():
    one, other = Seen("grpc://a:8001", {"m": True, "n": True}), Seen("grpc://b:8001", {"m": True, "n": False})
    (found,) = tritons.alike([one, other, Seen("grpc://c:8001", None)])
    assert (found.state, found.what) == (PROBLEM, "grpc://b:8001 does not serve n, which another one does")
    assert [each.state for each in tritons.alike([one, one])] == []
    assert [each.state for each in tritons.alike([one, Seen("grpc://b:8001", one.models)])] == [FINE]
    (found,) = tritons.alike([one, Seen("grpc://b:8001", {})])
    assert (found.state, found.what) == (PROBLEM, "grpc://b:8001 does not serve m, n, which another one does")
    empty = [Seen("grpc://b:8001", {"m": False}), Seen("grpc://a:8001", {})]
    assert [(each.state, each.what) for each in tritons.alike(empty)] == [(NOTE, "no Triton serves any")]


def test_a_draft_in_the_store_is_no_model(tmp_path):
    for name in ("alice.m", ".draft-0123"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").touch()
    (found,) = tritons.model_store(Setup(facility=Facility(model_store=tmp_path.as_uri())))
    assert found.what == "has 1 models; no Triton answers here that could see them"


@pytest.mark.parametrize(
    ("stored", "models", "control", "state", "words"),
    [
        (["alice.m"], {"alice.m": False}, "poll", FINE, "every Triton sees"),
        (["alice.m", "bob.n"], {"alice.m": True}, "poll", PROBLEM, "does not see bob.n"),
        (["alice.m"], {}, "explicit", FINE, "has 1 models"),
        (["alice.m"], None, "poll", NOTE, "no Triton answers here"),
        ([], {"m": True}, "poll", FINE, "is empty"),
    ],
)
def test_tritons_should_see_what_is_in_the_store(stored, models, control, state, words):
    (found,) = tritons.seen_by_all("model store", stored, [Seen("grpc://a:8001", models)], control)
    assert found.state is state
    assert words in found.what


def test_a_missing_number_is_explained():
    facility = Facility(prometheus_matchers=['namespace="x"'])
    load, rates, gpus = monitoring.questions(facility, usage=False)
    down = "up == 0"

    series = [{"namespace": "triton", "instance": "a:8002"}]
    found = monitoring.answered("Prometheus", load, lambda promql: series if "namespace" not in promql else [])
    assert (found.state, "matches none of 1 series" in found.what) == (PROBLEM, True)
    assert 'namespace="triton"' in found.remedy
    found = monitoring.answered("Prometheus", load, lambda promql: series if promql.startswith(down) else [])
    assert (found.state, "a:8002 cannot be scraped" in found.what) == (PROBLEM, True)
    assert "scrape every Triton" in monitoring.answered("Prometheus", load, lambda _: []).remedy
    assert "two scrape intervals" in monitoring.answered("Prometheus", rates, lambda _: []).remedy
    found = monitoring.answered("Prometheus", gpus, lambda _: [])
    assert (found.state, "dcgm-exporter" in found.remedy) == (NOTE, True)
    assert rates.promql() == 'rate({__name__=~"nv_inference_count",namespace="x"}[30s])'


def test_slurms_partitions_are_judged_by_their_nodes():
    text = "debug|up|2|idle\ndebug|up|1|down*\ngpu|up|1|drain\nold|inact|4|idle\nlong|up|3|mix\nlong|up|1|plnd\n"
    states = {each.subject: (each.state, each.what) for each in clusters.partitions(text)}
    assert states == {
        "Slurm partition debug": (NOTE, "2 nodes work; 1 down*"),
        "Slurm partition gpu": (PROBLEM, "0 nodes work; 1 drain"),
        "Slurm partition old": (PROBLEM, "0 nodes work; 4 partition inact"),
        "Slurm partition long": (FINE, "4 nodes work"),
    }
    found = list(clusters.partitions("sinfo: something new\ndebug|up|2|idle\n"))
    assert [each.state for each in found] == [PROBLEM, FINE]


def test_sinfo_gets_slurms_settings_and_no_token(tmp_path, monkeypatch):
    program = tmp_path / "sinfo"
    script = "#!/bin/sh\necho >&2 $SLURM_CONF $JUPYTERHUB_API_TOKEN none\nexit 1\n"
    program.write_text(script, encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv(HUB_TOKEN, "0123456789abcdef")
    (found,) = clusters.batch_system(Setup(environment={"SLURM_CONF": "/etc/s.conf", HUB_TOKEN: "0123456789abcdef"}))
    assert (found.state, found.what) == (PROBLEM, "sinfo failed: /etc/s.conf none")


@pytest.mark.parametrize(
    ("module", "check", "good"),
    [(clusters, clusters.gateway, b'{"status": "pass"}'), (token_service, token_service.hub, b'{"version": "5.3"}')],
)
def test_another_servers_page_is_not_taken_for_a_healthy_one(monkeypatch, module, check, good):
    setup = Setup(
        facility=Facility(gateway_url="http://gateway"), environment={"JUPYTERHUB_API_URL": "http://hub/hub/api"}
    )
    states = []
    for body in (good, b"<html>", b"[]", b"{}"):
        monkeypatch.setattr(module, "get", lambda *_, body=body: Reply(200, body))
        states += [each.state for each in check(setup)]
    assert states == [FINE, PROBLEM, PROBLEM, PROBLEM]


@pytest.mark.parametrize(("seconds", "state"), [(0.9, FINE), (-5.5, FINE), (30, NOTE), (-70, PROBLEM)])
def test_a_clock_may_differ_by_what_the_token_service_tolerates(seconds, state):
    assert clocks.skew("Envoy", seconds, 60.0).state is state


def test_an_empty_configuration_gives_notes_and_no_problem():
    assert {each.state for each in findings(Setup())} == {NOTE}


def test_a_wrong_setting_is_one_finding_and_no_traceback():
    wrong = Setup(facility=Facility(urls=[f"grpcs://{'x' * 70}:443"], ca="/absent.pem"))
    assert PROBLEM in {each.state for each in findings(wrong)}
    found = {each.subject: each.what for each in findings(Setup(facility=Facility(urls=["grpcs://a/model"])))}
    assert "only triton+grpc://" in found["edge proxy"]


def test_a_check_that_fails_hides_neither_the_others_nor_what_it_found(monkeypatch):
    def failing(_):
        yield Finding("first", FINE, "seen")
        raise KeyError("kid")

    usual = {each.subject for each in findings(Setup())}
    monkeypatch.setitem(checks.CHECKS, "Dask Gateway", failing)
    found = {each.subject: each for each in findings(Setup())}
    assert set(found) == (usual - {"Dask Gateway"}) | {"first", "Dask Gateway"}
    last = found["Dask Gateway"]
    assert (last.state, last.what) == (PROBLEM, "this check failed: KeyError: 'kid'")
    assert "report it" in last.remedy
    monkeypatch.setattr(doctor, "CHECKS", {"a": lambda: failing(None), "b": lambda: iter([Finding("b", FINE, "")])})
    assert [each.subject for each in doctor.findings()][:3] == ["first", "a", "b"]


def test_a_password_in_a_setting_and_control_characters_are_not_shown():
    setup = Setup(
        facility=Facility(gateway_url="http://me:hunter22@127.0.0.1:1"),
        policy=TokenPolicy(jwks_url="http://me:hunter22@127.0.0.1:1/\x1b[2J"),
    )
    assert "hunter22" not in repr(findings(setup))
    assert "\x1b" not in "".join(each.what + each.subject for each in findings(setup))


def test_no_check_waits_long_for_a_machine_that_never_answers(monkeypatch):
    for module, name in ((calls, "SECONDS"), (edge_proxy, "SECONDS"), (monitoring, "_SECONDS")):
        monkeypatch.setattr(module, name, 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        setup = Setup(
            facility=Facility(
                urls=[f"grpcs://{place}"], prometheus_url=f"http://{place}", gateway_url=f"http://{place}"
            ),
            envoy=Envoy(upstreams=[f"grpc://{place}"], admin_port=silent.getsockname()[1]),
            policy=TokenPolicy(jwks_url=f"http://{place}/services/triton-token/.well-known/jwks.json"),
            environment={HUB_TOKEN: "0123456789abcdef"},
        )
        began = time.monotonic()
        found = findings(setup)
        assert time.monotonic() - began < 5  # usually 0.6
    assert {each.state for each in found} == {PROBLEM}
    assert "0123456789abcdef" not in repr((setup, found))


def test_the_token_comes_from_the_file_or_from_the_token_service():
    hub = {HUB_TOKEN: "0123456789abcdef", "EAF_TOKEN_SERVICE": "http://hub/services/triton-token/"}
    assert Setup(environment={}).token_source is None
    assert repr(Setup(token_file="/run/token", environment=hub).token_source) == "token file /run/token"  # noqa: S106
    assert "http://hub/services/triton-token/" in repr(Setup(environment=hub).token_source)
    policy = TokenPolicy(jwks_url="http://hub:8081/services/triton-token/.well-known/jwks.json")
    assert Setup(policy=policy).service_url == "http://hub:8081/services/triton-token/"
    assert Setup(policy=TokenPolicy(jwks_url="http://hub/keys")).service_url == ""
