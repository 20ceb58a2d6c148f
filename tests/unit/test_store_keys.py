"""The keys that a user gets for the model store: renewed before they end, and shown nowhere."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from eaf_facility.hub import model_store
from eaf_facility.hub.callers import Caller
from eaf_facility.hub.settings import ModelStore
from eaf_inference.auth.model_store import StoreKeys
from eaf_inference.config import Facility
from eaf_inference.deploy.store import Usage
from eaf_inference.errors import ConfigurationError

SECRET = "wJalrXUtnFEMI0K7MDENG"  # noqa: S105
S3 = {"model_store": "s3://models/users", "model_store_service": True}
ALICE = Caller("alice", frozenset())
ROLE = "arn:aws:iam::123456789012:role/eaf-models"


class Service:
    """Counts requests, and answers as the token service does."""

    def __init__(self):
        self.asked = []

    def ask(self, name, method, _what, read, **_):
        self.asked.append((name, method))
        number = len(self.asked)
        return read({"key": f"ASIA{number}", "secret": SECRET, "token": f"token-{number}", "expires_in": 900})


def test_keys_are_kept_for_half_of_their_life():
    now, service = [0.0], Service()
    keys = StoreKeys(service, clock=lambda: now[0])
    first = keys()
    assert [each[:] for each in first] == ["ASIA1", SECRET, "token-1"]
    now[0] = 449
    assert keys() == first
    now[0] = 450
    assert keys()[0][:] == "ASIA2"
    assert service.asked == [("store/keys", "POST")] * 2
    assert SECRET not in f"{keys!r} {first!r} {first[1]}"


def settings(**changes):
    return ModelStore(**{"role": ROLE, **changes})


@pytest.mark.parametrize(
    ("changes", "facility", "says"),
    [
        ({"role": ""}, S3, "ModelStore.role is empty"),
        ({"backends": ["python"]}, S3, "ModelStore.python_groups instead"),
        ({}, {"model_store_service": True}, "Facility.model_store is empty"),
    ],
)
def test_inconsistent_settings_of_the_store_are_refused(changes, facility, says):
    with pytest.raises(ConfigurationError, match=says):
        settings(**changes).checked(Facility(**facility))


def test_a_store_in_a_directory_needs_no_role():
    assert settings(role="").checked(Facility(model_store="file:///models")).own_key() is None


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        (json.dumps({"key": "AKIA", "secret": SECRET}), 0o640, "can be read by others"),
        (json.dumps({"key": "AKIA"}), 0o600, "holds no key"),
        (json.dumps({"key": "AKIA", "secret": 7}), 0o600, "holds no key"),
        (f"{SECRET}", 0o600, "holds no key"),
        (None, 0o600, "cannot be read"),
    ],
)
def test_a_bad_key_file_is_refused_without_showing_it(tmp_path, text, mode, says):
    path = tmp_path / "s3.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
    with pytest.raises(ConfigurationError, match=says) as raised:
        settings(key_file=str(path)).own_key()
    assert SECRET not in str(raised.value)


def test_the_services_own_key_is_read_from_its_file(tmp_path):
    path = tmp_path / "s3.json"
    path.touch(0o600)
    path.write_text(json.dumps({"key": "AKIA", "secret": SECRET}), encoding="utf-8")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each[:] for each in settings(key_file=str(path)).own_key()] == ["AKIA", SECRET]


def test_a_store_that_hangs_leaves_asyncios_threads_to_others():
    answered = threading.Event()

    async def many():
        asked = [asyncio.create_task(model_store._asked(answered.wait, 30, caller=ALICE)) for _ in range(100)]
        await asyncio.sleep(0)
        await asyncio.wait_for(asyncio.get_running_loop().getaddrinfo("127.0.0.1", 1), 10)  # as for a Hub's name
        assert not any(each.done() for each in asked)
        answered.set()
        return await asyncio.gather(*asked)

    try:
        assert all(asyncio.run(many()))
    finally:
        answered.set()


def test_one_users_requests_for_keys_do_not_take_all_threads():
    answered, asked = threading.Event(), []

    def usage(owner):
        asked.append(owner)
        assert owner == "bob" or answered.wait(30)
        return Usage(models=1, bytes=1)

    store, keys = SimpleNamespace(usage=usage), SimpleNamespace(make=lambda owner, **_: owner)
    access = model_store.StoreAccess(settings(), Facility(most_model_bytes=10), store, keys)

    async def many():
        hers = [asyncio.create_task(access.keys_for(ALICE)) for _ in range(50)]
        await asyncio.sleep(0)
        assert await asyncio.wait_for(access.keys_for(Caller("bob", frozenset())), 10) == "bob"
        assert sorted(asked) == ["alice", "bob"]
        answered.set()
        assert await asyncio.gather(*hers) == ["alice"] * 50

    try:
        asyncio.run(many())
    finally:
        answered.set()


@pytest.mark.parametrize(
    ("models", "size", "writes"), [(2, 9, True), (3, 9, False), (2, 10, False), (1000, 0, False)]
)
def test_keys_upload_only_within_both_quotas(models, size, writes):
    store = SimpleNamespace(usage=lambda _: Usage(models, size))
    keys = SimpleNamespace(make=lambda *_, writes, **__: writes)
    for facility, expected in (({"most_models": 2, "most_model_bytes": 10}, writes), ({}, True)):
        access = model_store.StoreAccess(settings(), Facility(**facility), store, keys)
        assert asyncio.run(access.keys_for(ALICE)) is expected


WITHOUT_LIBRARIES = """
import sys
for name in ("s3fs", "fsspec", "botocore", "moto"):
    sys.modules[name] = None
import eaf_facility.hub.__main__ as program
print(program.make_parser().prog)
"""


def test_the_plain_token_service_needs_no_library_for_s3():
    pytest.importorskip("jupyterhub", reason="the oldest environment has no JupyterHub")
    command = [sys.executable, "-c", WITHOUT_LIBRARIES]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.stdout == "python -m eaf_facility.hub\n", done.stderr
