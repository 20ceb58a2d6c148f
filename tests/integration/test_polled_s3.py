"""A poll at every step of what a user does with her model never loads half of it; here in S3 (moto, a stand-in)."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from polled_store import SERVED, Flows, Killed, deployed_versions, watch_moto, watched_s3

from eaf_inference.deploy import places, s3_place
from eaf_inference.deploy.store import Store

moto = pytest.importorskip("moto.server")
boto3 = pytest.importorskip("boto3")
pytest.importorskip("s3fs")

pytestmark = pytest.mark.extended

KEY = ("AKIAEXAMPLE", "s3cr3t-0f-the-t3st")
BUCKET = "models"


@pytest.fixture(scope="module")
def endpoint():
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    names = ("aws_access_key_id", "aws_secret_access_key")
    client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", **dict(zip(names, KEY, strict=True)))
    client.create_bucket(Bucket=BUCKET)
    client.close()
    yield url
    server.stop()


@pytest.fixture(scope="module")
def file_system(endpoint):
    """What `S3Place` makes for these keys, watched, and only once because that takes a while."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("s3fs.S3FileSystem", watched_s3())
        place = s3_place.S3Place(f"s3://{BUCKET}/none", endpoint=endpoint, key=KEY)
        return place._fs()


@pytest.fixture
def start(endpoint, file_system, tmp_path, monkeypatch):
    """Start a flow below a new prefix; returns it with its store."""
    monkeypatch.setattr(s3_place, "_MOST_DELETED", 1)  # S3 deletes one after another
    monkeypatch.setattr(s3_place, "_TIME_STEP", 0)  # this poll does not compare times
    monkeypatch.setattr(s3_place.S3Place, "_make", lambda *_: file_system)
    numbers = itertools.count()

    def started(name):
        prefix = f"{tmp_path.name}-{next(numbers)}"
        flows = Flows(
            watch_moto(BUCKET, prefix),
            lambda: Store(f"s3://{BUCKET}/{prefix}", endpoint=endpoint, key=lambda: KEY),
            tmp_path,
        )
        file_system.watch = flows.watch
        return flows, flows.prepare(name)

    return started


@pytest.mark.parametrize("name", ["withdraw_first", "withdraw_second", "rollback", "remove"])
def test_only_complete_published_versions_are_loaded_from_s3(start, name):
    flows, store = start(name)
    flows.run(name, store)
    assert flows.served() == SERVED[name]


@pytest.mark.parametrize("name", ["withdraw_first", "remove"])
def test_a_kill_at_any_request_leaves_nothing_half(start, name, monkeypatch):
    for step in itertools.count(1):
        flows, store = start(name)
        flows.watch.reset(step, Killed)
        with contextlib.suppress(Killed):
            flows.run(name, store)
        if flows.watch.count < step:
            break
        flows.watch.reset()
        flows.watch.poll()
        served = flows.served()
        assert served == SERVED[name][: len(served)]
        again = flows.make_store()
        with monkeypatch.context() as a_day_later, flows.watch.between_polls():
            a_day_later.setattr(places, "ABANDONED", -60.0)
            if name == "remove":
                again.remove(flows.MODEL)
                assert again.models(None) == []
            version = flows.deploy(again)
        assert flows.served()[-1] == version
        assert again.models(None) == [flows.MODEL]
        assert again.versions(flows.MODEL) == deployed_versions(again, flows.MODEL)
    assert step > 3


def test_two_writers_get_two_versions_at_any_request(start):
    for step in itertools.count(1):
        flows, store = start("first")
        others = []
        flows.watch.reset(
            step, meanwhile=lambda flows=flows, others=others: others.append(flows.deploy(flows.make_store()))
        )
        flows.run("first", store)
        if not others:
            break
        assert store.models("alice") == [flows.MODEL]
        assert deployed_versions(store, flows.MODEL) == store.versions(flows.MODEL)
        assert len(store.versions(flows.MODEL)) == 2
        assert None not in flows.served()[1:]
    assert step > 3
