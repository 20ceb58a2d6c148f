"""Users' own models behind Envoy: who may load, use and see which; attacks on a real Envoy and a real Triton."""

from __future__ import annotations

import gzip
import re
from types import SimpleNamespace

import grpc
import pytest
from edge_proxy import edge_proxy
from envoy_facility import SERVICE, Caller, Log, counters, envoy, inference
from raw_http2 import message, send_raw
from tiny_models import save_affine

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_inference.deploy.names import escaped, owner_of
from eaf_inference.errors import ModelNotFound
from eaf_inference.inference import protocol

LOAD, UNLOAD = "RepositoryModelLoad", "RepositoryModelUnload"
OPERATOR = "admin@cern.ch"
ALICES, BOBS, SHARED, PUBLIC = "alice.x", "bob.y", "resnet.v2", "particlenet"
EVERYTHING = {ALICES, BOBS, SHARED, PUBLIC}
NAMED = ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics")
ODD_USERS = [
    *("a.b", "a_b", "A-1", "é", "日本", "a b", "../bob", "a/b", "a%2eb", "a$b", "x@cern.ch", '"]', "a\tb", "🙂."),
    *("__", "n" * 150),
]


@pytest.fixture(scope="module")
def explicit(tmp_path_factory):
    repository = tmp_path_factory.mktemp("explicit")
    for name in EVERYTHING:
        save_affine(repository / name)
    with TritonServer.start([repository], control="explicit") as server:
        yield server


@pytest.fixture(scope="module")
def server(explicit, issuer):
    rights = {"model_control": True, "private_models": True, "operators": [OPERATOR], "shared_models": [SHARED]}
    with envoy(issuer, [explicit], share=1000, burst=1000, **rights) as server:
        yield server
        assert not any(server.statistics(r"lua\..*errors").values())
        assert "script log" not in server.log.read_text(encoding="utf-8")


@pytest.fixture
def caller(server):
    with Caller(server) as connection:
        yield connection


def field(number, content):
    """Encode one field of a protobuf message."""
    content = content.encode() if isinstance(content, str) else content
    size, length = b"", len(content)
    while length > 127:
        size, length = size + bytes([length % 128 + 128]), length // 128
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def named(model):
    return field(2, model)


def ready_models(caller, token):
    reply = caller.ask("RepositoryIndex", b"", token).reply
    return {each.name for each in protocol.RepositoryIndexResponse.FromString(reply).models if each.state == "READY"}


def models_with_statistics(caller, token):
    reply = caller.ask("ModelStatistics", b"", token).reply
    return {each.name for each in protocol.ModelStatisticsResponse.FromString(reply).model_stats}


def test_a_user_loads_unloads_and_reloads_her_model(caller, issuer):
    alice, operator = issuer.token("alice"), issuer.token(OPERATOR)
    for method, served in ((UNLOAD, False), (UNLOAD, False), (LOAD, True)):
        assert caller.ask(method, named(ALICES), alice).status == "OK"
        assert (ALICES in ready_models(caller, operator)) == served
    assert caller.infer(alice, ALICES).status == "OK"
    absent = caller.ask(LOAD, named("alice.absent"), alice)
    assert "alice.absent" in absent.details  # Triton's own reason


FOREIGN = {
    "alice": (PUBLIC, BOBS, SHARED, "alice", "alice.", "alice..", "alice...x", "alice./../bob.y", "ALICE.x"),
    "ALICE": (ALICES, "alice.y"),
    "a": ("a_2eb.z", "a.b.z/../../a_2eb.z", "a"),
    "a.b": ("a.z", "a.b.z", "a_2Eb.z", "a_2eb"),
    "alic": (ALICES, "alice", "alic"),
    "e.x": (ALICES, "e.x"),
    "mallory": [".", "..", "../x", "*", ".x", *(f"mallory.{end}" for end in ("\0x", "x\0", "x\n", "é", " x", "x+"))],
    "admin": (ALICES, PUBLIC),
    "admin_40cern.ch": (ALICES, PUBLIC),
}


def test_every_other_name_is_refused_and_logged(server, caller, issuer):
    log = Log(server)
    asked = [(user, each, name) for user, names in FOREIGN.items() for name in names for each in (LOAD, UNLOAD)]
    for user, method, name in asked:
        answer = caller.ask(method, named(name), issuer.token(user))
        assert (answer.status, f"named '{escaped(user)}.NAME'" in answer.details) == ("PERMISSION_DENIED", True), name
    lines = log.lines(len(asked))
    assert {(line["grpc_status"], line["upstream"]) for line in lines} == {("PermissionDenied", None)}
    shown = [(user, f"{SERVICE}/{method}", re.sub(r"[^ -~]", "?", name)) for user, method, name in asked]
    assert [(line["user"], line["method"], line["model"].replace("??", "?")) for line in lines] == shown
    assert ready_models(caller, issuer.token(OPERATOR)) == EVERYTHING


def test_an_operator_loads_and_unloads_every_model(caller, issuer):
    operator = issuer.token(OPERATOR)
    assert [caller.ask(UNLOAD, named(name), operator).status for name in (PUBLIC, "bob.absent")] == ["OK", "OK"]
    assert ready_models(caller, operator) == {ALICES, BOBS, SHARED}
    assert caller.ask(LOAD, named(PUBLIC), operator).status == "OK"
    for name in ("..", "../etc", ".x", "a/b", "a\0b"):
        assert caller.ask(LOAD, named(name), operator).status == "PERMISSION_DENIED"


def parameter(name, **value):
    load = protocol.RepositoryModelLoadRequest()
    ((kind, content),) = value.items()
    setattr(load.parameters[name], kind, content)
    return load.SerializeToString()


EVIL = parameter("config", string_param='{"backend": "python", "max_batch_size": 8}')
NOT_ONLY_A_NAME = {
    "a configuration": named(ALICES) + EVIL,
    "a configuration first": EVIL + named(ALICES),
    "a file": named(ALICES) + parameter("file:1/model.py", bytes_param=b"import os"),
    "a flag": named(ALICES) + parameter("unload_dependents", bool_param=True),
    "a repository": field(1, "store") + named(ALICES),
    "a repository last": named(ALICES) + field(1, "store"),
    "an unknown field": named(ALICES) + field(9, "x"),
    "another name": named(ALICES) + named(PUBLIC),
    "another name first": named(PUBLIC) + named(ALICES),
    "the name twice": named(ALICES) * 2,
    "an empty second name": named(ALICES) + named(""),
    "a wrong length": b"\x12\x06alice.x",
    "a length too large": b"\x12\x08alice.x",
    "a number": b"\x10\x05",
    "a group": b"\x13" + named(ALICES) + b"\x14",
    "a long tag": b"\x92\x00\x07alice.x",
    "only the name's field": b"\x12",
    "an endless length": b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    "nothing": b"",
}


@pytest.mark.parametrize("user", ["alice", OPERATOR])
def test_a_load_may_hold_nothing_but_a_name(server, caller, issuer, user):
    log = Log(server)
    for case, request in NOT_ONLY_A_NAME.items():
        for method in (LOAD, UNLOAD):
            answer = caller.ask(method, request, issuer.token(user))
            assert (answer.status, "model's name only" in answer.details) == ("PERMISSION_DENIED", True), case
    lines = log.lines(2 * len(NOT_ONLY_A_NAME))
    assert {(line["user"], line["upstream"]) for line in lines} == {(user, None)}
    assert "model.py" not in str(lines)
    assert [line["model"] for line in lines[:2]] == [ALICES] * 2


def test_a_load_is_small_and_not_compressed(server, caller, issuer):
    token, log = issuer.token("alice"), Log(server)
    assert caller.ask(LOAD, named(ALICES), token, grpc.Compression.Gzip).status == "UNIMPLEMENTED"
    assert caller.ask(LOAD, named("alice." + "x" * 5000), token).status == "INVALID_ARGUMENT"
    assert caller.ask(LOAD, named("alice." + "x" * 1000), token).status == "PERMISSION_DENIED"
    assert {line["user"] for line in log.lines(3)} == {"alice"}


def test_a_load_that_arrives_in_pieces_is_judged_as_a_whole(server, issuer):
    alice, own, foreign = issuer.token("alice"), message(named(ALICES)), message(named(PUBLIC))
    log = Log(server)
    send_raw(server, LOAD, [own[place : place + 1] for place in range(len(own))], alice)
    send_raw(server, LOAD, [own[:3], own[3:], b""], alice)
    send_raw(server, UNLOAD, [foreign[:8], foreign[8:]], alice)
    calls = [(line["grpc_status"], line["model"]) for line in log.lines(3)]
    assert calls == [("OK", ALICES), ("OK", ALICES), ("PermissionDenied", PUBLIC)]


FRAMES = {
    "own message, then a foreign one": message(named(ALICES)) + message(named(PUBLIC)),
    "foreign message, then own one": message(named(PUBLIC)) + message(named(ALICES)),
    "own message, then half of one": message(named(ALICES)) + b"\0\0",
    "a message marked as compressed": message(gzip.compress(named(PUBLIC)), 1),
    "an unknown mark": message(named(ALICES), 2),
    "a length too small": b"\0\0\0\0\x03" + named(ALICES),
    "a length too large": b"\0\xff\xff\xff\xff" + named(ALICES),
    "no message": b"\0\0",
}


def test_a_load_is_one_plain_message(server, issuer):
    log = Log(server)
    for body in FRAMES.values():
        send_raw(server, UNLOAD, [body], issuer.token("alice"))
    outcomes = [(line["grpc_status"], line["user"], line["upstream"]) for line in log.lines(len(FRAMES))]
    assert dict(zip(FRAMES, outcomes, strict=True)) == dict.fromkeys(FRAMES, ("InvalidArgument", "alice", None))


OTHER_WAYS = (
    *({"content_type": each} for each in ("application/grpc+json", "application/grpc-web+proto", "text/plain", "")),
    {":method": "GET"},
    *(
        {":path": f"{SERVICE}/{way}"}
        for way in (f"{UNLOAD}?x", f"./{UNLOAD}", f"/{UNLOAD}", f"{UNLOAD}/", f"{UNLOAD}#")
    ),
)


def test_no_other_way_of_calling_reaches_a_foreign_model(server, issuer):
    log = Log(server)
    for headers in OTHER_WAYS:
        send_raw(server, UNLOAD, [message(named(BOBS))], issuer.token("alice"), **headers)
        headers = {name: value.replace(UNLOAD, "ModelInfer") for name, value in headers.items()}
        send_raw(server, "ModelInfer", [message(inference(BOBS))], issuer.token("alice"), **headers)
    assert {line["upstream"] for line in log.lines(2 * len(OTHER_WAYS))} == {None}


def test_odd_users_get_the_prefix_that_their_models_are_stored_under(caller, issuer):
    for user in ODD_USERS:
        answer = caller.ask(LOAD, named(PUBLIC), issuer.token(user))
        assert f"named '{escaped(user)[:200]}.NAME'" in answer.details, user
        own = f"{escaped(user)}.tagger"
        assert owner_of(own) == escaped(user)
        if len(own) < 200:
            answer = caller.ask(LOAD, named(own), issuer.token(user))
            assert own in answer.details, user  # Triton was asked, and has no such model


def test_a_private_model_is_neither_usable_nor_visible_to_others(server, caller, issuer):
    bob, log = issuer.token("bob"), Log(server)
    for name in (ALICES, "alice.absent"):  # whether it exists makes no difference
        request = protocol.ModelReadyRequest(name=name, version="1").SerializeToString()
        answers = [caller.ask(method, request, bob) for method in NAMED] + [caller.infer(bob, name)]
        assert {answer.status for answer in answers} == {"NOT_FOUND"}
        assert len({answer.details for answer in answers}) == 1
        assert name not in answers[0].details
    lines = log.lines(10)
    assert {(line["user"], line["upstream"]) for line in lines} == {("bob", None)}
    assert [line["model"] for line in lines] == [ALICES] * 5 + ["alice.absent"] * 5
    assert caller.ask("ModelStreamInfer", inference(ALICES), bob).status == "PERMISSION_DENIED"
    for name in (PUBLIC, SHARED, BOBS):
        request = field(1, name)
        assert {caller.ask(method, request, bob).status for method in NAMED} == {"OK"}
        assert caller.infer(bob, name).status == "OK"


def test_lists_show_a_users_own_and_everybodys_models(caller, issuer):
    everybodys, expected = {PUBLIC, SHARED}, {"alice": {ALICES}, "bob": {BOBS}, "carol": set(), "resnet": set()}
    for user, own in expected.items():
        for models in (ready_models, models_with_statistics):
            assert models(caller, issuer.token(user)) == everybodys | own
    for models in (ready_models, models_with_statistics):
        assert models(caller, issuer.token(OPERATOR)) == EVERYTHING


def test_a_list_that_cannot_be_shortened_is_an_error(explicit, issuer):
    index = protocol.RepositoryIndexResponse()
    for number in range(4000):
        index.models.add(name=f"bob.{number}" if number % 2 else f"model{number}")
    whole = index.SerializeToString()
    replies = {
        whole: "OK",
        whole + field(2, "x"): "INTERNAL",
        whole + b"\x08\x01": "INTERNAL",
        whole[:-1]: "INTERNAL",
    }
    with (
        edge_proxy(explicit.grpc.removeprefix("grpc://")) as (changing, port),
        envoy(issuer, [SimpleNamespace(grpc=f"grpc://127.0.0.1:{port}")], private_models=True) as server,
        Caller(server) as caller,
    ):
        for reply, status in replies.items():
            changing.changes["RepositoryIndex"] = lambda _, reply=reply: reply
            answer = caller.ask("RepositoryIndex", b"", issuer.token("alice"))
            assert (answer.status, b"bob." in answer.reply) == (status, False)
            assert len(protocol.RepositoryIndexResponse.FromString(answer.reply).models) in (0, 2000)


def test_our_client_lists_and_uses_what_its_user_may(server, issuer):
    with eaf_inference.connect(server.url, token=issuer.token("bob"), ca=server.ca) as connection:
        assert {each.name for each in connection.models()} == {BOBS, PUBLIC, SHARED}
        with pytest.raises(ModelNotFound, match=r"no model 'alice\.x'\. It has bob\.y, particlenet, resnet\.v2"):
            connection.model(ALICES)


REST = inference("")  # a request without a model's name
OF_BOB, OF_ALICE = field(1, BOBS), field(1, ALICES)
AMBIGUOUS = {
    "a second name": OF_BOB + OF_ALICE + REST,
    "a second name at the end": OF_BOB + REST + OF_ALICE,
    "a foreign name first": OF_ALICE + OF_BOB + REST,
    "a number, which Envoy's parser takes for a name": OF_ALICE + b"\x08\x03" + field(7, "x") + REST,
    "a number first": b"\x08\x05" + OF_ALICE + REST,
    "eight bytes": OF_ALICE + b"\x09" + b"bob.y..." + REST,
    "four bytes": OF_ALICE + b"\x0d" + b"bob." + REST,
    "a group": OF_BOB + b"\x0b" + OF_ALICE + b"\x0c" + REST,
    "a long tag": OF_BOB + b"\x8a\x00\x07alice.x" + REST,
    "a NUL": field(1, "bob.y\0.x") + REST,
    "a NUL before the dot": field(1, "alice\0.x") + REST,
    "a name in unknown fields": OF_BOB + field(15, OF_ALICE) * 1100 + REST,
    "a zero": OF_BOB + b"\x00\x00" + OF_ALICE + REST,
}


def test_a_request_that_could_be_read_in_two_ways_is_refused(server, caller, issuer):
    bob, log = issuer.token("bob"), Log(server)
    answers = {case: caller.ask("ModelInfer", request, bob).status for case, request in AMBIGUOUS.items()}
    assert answers == dict.fromkeys(AMBIGUOUS, "INVALID_ARGUMENT")
    assert {(line["user"], line["upstream"]) for line in log.lines(len(AMBIGUOUS))} == {("bob", None)}
    small = [request for request in AMBIGUOUS.values() if len(request) < 4000]
    assert {caller.ask(method, each, bob).status for each in small for method in NAMED} == {"INVALID_ARGUMENT"}


def test_a_second_message_and_compression_reach_no_foreign_model(server, caller, issuer):
    bob, log = issuer.token("bob"), Log(server)
    for body in (
        message(inference(BOBS)) + message(inference(ALICES)),
        message(inference(ALICES)) + message(inference(BOBS)),
        message(gzip.compress(inference(ALICES)), 1),
    ):
        send_raw(server, "ModelInfer", [body[:30], body[30:]], bob)
    assert {(line["grpc_status"], line["upstream"]) for line in log.lines(3)} == {("InvalidArgument", None)}
    assert caller.ask("ModelInfer", inference(ALICES), bob, grpc.Compression.Gzip).status == "UNIMPLEMENTED"
    large = inference(BOBS) + field(3, "i" * 3_000_000)
    assert caller.ask("ModelInfer", large, bob).status == "OK"
    assert caller.ask("ModelInfer", large + OF_ALICE, bob).status == "INVALID_ARGUMENT"


def test_usage_is_counted_by_model_and_so_by_owner(server, caller, issuer):
    assert caller.infer(issuer.token("dave"), PUBLIC).status == "OK"
    assert caller.infer(issuer.token("bob"), BOBS).status == "OK"
    assert caller.infer(issuer.token("dave"), BOBS).status == "NOT_FOUND"
    found = counters(server)
    assert found[f'envoy_eaf_requests{{user="bob",model="{BOBS}"}}'] >= 1
    assert found['envoy_eaf_failures{user="dave",status="NotFound"}'] == 1
    assert not [each for each in found if "dave" in each and BOBS in each]


def test_a_user_cannot_invent_models_that_are_counted_as_answered(server, caller, issuer):
    token = issuer.token("eve")
    for tail in (b"\x08\x03" + field(7, "x"), b"\x08\x05"):  # Triton reads the name before it
        assert caller.ask("ModelInfer", field(1, PUBLIC) + tail + REST, token).status == "INVALID_ARGUMENT"
    assert caller.ask("ModelInfer", field(1, PUBLIC + "\0invented") + REST, token).status == "INVALID_ARGUMENT"
    assert not [each for each in counters(server) if "eve" in each and "requests" in each]


def test_without_the_settings_models_are_everybodys_and_nobody_loads(explicit, issuer):
    with envoy(issuer, [explicit]) as server, Caller(server) as caller:
        log = Log(server)
        for user in ("alice", OPERATOR):
            for method in (LOAD, UNLOAD):
                assert caller.ask(method, named(ALICES), issuer.token(user)).status == "PERMISSION_DENIED"
        assert {line["upstream"] for line in log.lines(4)} == {None}
        assert caller.infer(issuer.token("bob"), ALICES).status == "OK"
        assert ALICES in ready_models(caller, issuer.token("bob"))
