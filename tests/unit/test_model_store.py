"""The model store in a directory: names, versions, rights, symbolic links and errors."""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from datetime import datetime, timezone

import pytest
from polled_store import config_of, deployed_versions

from eaf_inference.deploy.file_place import FilePlace
from eaf_inference.deploy.published import pinned_version_of, placeholder, removal, stands_in
from eaf_inference.deploy.s3_place import S3Place
from eaf_inference.deploy.storage_errors import explained
from eaf_inference.deploy.store import Store, Usage
from eaf_inference.errors import (
    ConfigurationError,
    DeploymentFailed,
    DeploymentRefused,
    ModelNotFound,
    NotAuthorized,
    ServerUnavailable,
)

KEY = ("AKIAEXAMPLE", "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY", "FwoGZXIvYXdzEBYaDexample")


@pytest.fixture
def root(tmp_path):
    directory = tmp_path / "store"
    directory.mkdir()
    return directory


@pytest.fixture
def store(root):
    return Store(f"file://{root}")


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"12345")
    return path


def deploy(store, model, name="alice.tagger"):
    version = store.upload(name, {"model.onnx": model})
    store.publish(name, version, config_of(name, version))
    return version


def test_a_version_is_uploaded_and_then_published(store, model, root):
    assert store.upload("alice.tagger", {"model.onnx": model, "data/weights.bin": model}) == 1
    assert store.config("alice.tagger") is None
    assert store.pinned_version("alice.tagger") is None
    text = config_of("alice.tagger", 1)
    store.publish("alice.tagger", 1, text)
    assert store.config("alice.tagger") == text
    assert store.pinned_version("alice.tagger") == 1
    inside = {each.relative_to(root).as_posix() for each in root.rglob("*") if each.is_file()}
    files = {"model.onnx", "data/weights.bin", "deployed.pbtxt", ".upload.json"}
    assert inside == {"alice.tagger/config.pbtxt", *(f"alice.tagger/1/{each}" for each in files)}


def test_files_written_after_a_pause_have_a_later_time(root):
    """Triton looks at a model again only if a file of it has a later time than the latest one before."""
    place, times = FilePlace(str(root)), []
    for _ in range(10):
        (root / "x").write_text("", encoding="utf-8")
        times.append((root / "x").stat().st_mtime_ns)
        place.await_later_time()
    assert sorted(set(times)) == times
    os.utime(root, (1e9, 1e9))  # as if the file system kept whole seconds
    before = int(time.time())
    place.await_later_time()
    assert int(time.time()) > before


def test_a_rollback_restores_the_older_configuration(store, model):
    assert [deploy(store, model) for _ in range(3)] == [1, 2, 3]
    assert store.rollback("alice.tagger") == 2
    assert store.rollback("alice.tagger") == 1
    assert store.config("alice.tagger") == config_of("alice.tagger", 1)
    with pytest.raises(ModelNotFound, match="no older version.*versions 1, 2, 3, and version 1 is published"):
        store.rollback("alice.tagger")
    assert store.rollback("alice.tagger", 3) == 3
    with pytest.raises(ModelNotFound, match="no version 7"):
        store.rollback("alice.tagger", 7)


def test_a_withdrawn_version_is_gone_and_its_number_is_not_used_again(store, model):
    deploy(store, model)
    previous = store.config("alice.tagger")
    store.withdraw("alice.tagger", deploy(store, model), previous)
    assert store.pinned_version("alice.tagger") == 1
    assert deploy(store, model) == 3
    assert deployed_versions(store, "alice.tagger") == [1, 3]


def test_a_withdrawn_first_version_takes_the_model_with_it(store, model, root):
    store.withdraw("alice.tagger", deploy(store, model), None)
    assert list(root.iterdir()) == []


def test_models_and_usage_are_of_one_owner(store, model):
    for name in ("alice.b", "alice.a", "alice2.c", "plain", "ali"):
        deploy(store, model, name)
    assert store.models("alice") == ["alice.a", "alice.b"]
    sizes = [size for name in store.models("alice") for size in store.files(name).values()]
    assert store.usage("alice") == Usage(2, sum(sizes))
    assert store.usage("bob") == Usage(0, 0)
    assert store.usage(None).models == 5


def test_what_stands_in_for_a_configuration_is_none(store, root):
    for text in (placeholder("m"), removal("m")):
        assert stands_in("m", text)
        (root / "m").mkdir(exist_ok=True)
        (root / "m" / "config.pbtxt").write_text(text, encoding="utf-8")
        assert store.config("m") is None
        assert store.pinned_version("m") is None


@pytest.mark.parametrize(
    ("policy", "version"),
    [
        ("version_policy: { specific: { versions: [3] } }", 3),
        ("version_policy { specific { versions: 3 } }", 3),
        ("version_policy { specific { versions: [3, 4] } }", None),
        ("version_policy { latest { num_versions: 1 } }", None),
        ("version_policy { all { } }", None),
        ("", None),
        ("# version_policy: { specific: { versions: [3] } }", None),
    ],
)
def test_only_a_configuration_that_pins_the_version_is_published(store, model, policy, version):
    assert pinned_version_of(f'backend: "onnxruntime"\n{policy}') == version
    store.upload("tagger", {"model.onnx": model})
    with pytest.raises(ConfigurationError, match=r"Expected\s+version_policy"):
        store.publish("tagger", 1, policy)
    assert store.config("tagger") is None


def test_an_incomplete_version_is_not_published(store, model, root):
    store.upload("tagger", {"model.onnx": model})
    (root / "tagger" / "1" / "model.onnx").write_bytes(b"123")
    with pytest.raises(DeploymentFailed, match="model.onnx has 3 bytes.*Expected 5 bytes"):
        store.publish("tagger", 1, config_of("tagger", 1))
    (root / "tagger" / "1" / "model.onnx").unlink()
    with pytest.raises(DeploymentFailed, match="model.onnx is missing"):
        store.publish("tagger", 1, config_of("tagger", 1))
    with pytest.raises(DeploymentFailed, match="no version 2"):
        store.publish("tagger", 2, config_of("tagger", 2))


@pytest.mark.parametrize(
    "path", ["../x", "/x", "a/../b", "a//b", ".", "", "a\\b", "a\n", "x*", "x[1]", ".upload.json", "deployed.pbtxt"]
)
def test_files_stay_within_their_version(store, model, path, root):
    with pytest.raises(ConfigurationError, match="cannot be a file of a version"):
        store.upload("tagger", {path: model})
    assert list(root.iterdir()) == []


def test_an_upload_needs_files_that_exist(store, tmp_path):
    with pytest.raises(ConfigurationError, match="without files"):
        store.upload("tagger", {})
    with pytest.raises(ConfigurationError, match="cannot be read"):
        store.upload("tagger", {"model.onnx": tmp_path / "none"})
    with pytest.raises(ConfigurationError, match="not a regular file"):
        store.upload("tagger", {"model.onnx": tmp_path})


@pytest.mark.parametrize("name", ["", "..", "a/b", "../b", ".a", "alice..b", "a\0b"])
def test_no_operation_leaves_the_store(store, model, name):
    for operation in (
        lambda: store.upload(name, {"model.onnx": model}),
        lambda: store.publish(name, 1, ""),
        lambda: store.withdraw(name, 1, None),
        lambda: store.rollback(name),
        lambda: store.remove(name),
        lambda: store.config(name),
        lambda: store.versions(name),
    ):
        with pytest.raises(ConfigurationError, match="not the name of a model"):
            operation()


def test_triton_can_read_what_a_private_umask_writes(store, model, root):
    before = os.umask(0o077)
    try:
        deploy(store, model)
    finally:
        os.umask(before)
    for each in root.rglob("*"):
        assert stat.S_IMODE(each.stat().st_mode) == (0o755 if each.is_dir() else 0o644), each


def test_no_symbolic_link_leads_out_of_the_store(store, model, root, tmp_path):
    outside = tmp_path / "bob"
    (outside / "1").mkdir(parents=True)
    (outside / "config.pbtxt").write_text(config_of("alice.tagger", 1), encoding="utf-8")
    (root / "alice.tagger").symlink_to(outside)
    for operation in (
        lambda: store.upload("alice.tagger", {"model.onnx": model}),
        lambda: store.rollback("alice.tagger"),
        lambda: store.config("alice.tagger"),
    ):
        with pytest.raises(ConfigurationError, match="symbolic link"):
            operation()
    (root / "alice.tagger").unlink()

    deploy(store, model)
    (root / "alice.tagger" / "2").symlink_to(outside)
    assert store.upload("alice.tagger", {"model.onnx": model}) == 3  # the name 2 is taken
    (root / "alice.tagger" / "config.pbtxt").unlink()
    (root / "alice.tagger" / "config.pbtxt").symlink_to(outside / "config.pbtxt")
    with pytest.raises(ConfigurationError, match="symbolic link"):
        store.config("alice.tagger")
    store_of_links = FilePlace(str(root))
    store_of_links.delete("alice.tagger")
    assert {each.name for each in outside.iterdir()} == {"1", "config.pbtxt"}


def test_nothing_is_left_of_an_upload_into_a_removed_model(store, model, root, monkeypatch):
    def put_as_in_s3(self, source, path):  # which has no directories that would be missing
        Store(str(root)).remove("alice.tagger")
        (root / path).parent.mkdir(parents=True)
        (root / path).write_bytes(source.read_bytes())

    monkeypatch.setattr(FilePlace, "put", put_as_in_s3)
    with pytest.raises(DeploymentFailed, match="was removed while version 1 was uploaded.* deploy it again"):
        store.upload("alice.tagger", {"model.onnx": model})
    assert store.files("alice.tagger") == {}


def test_a_removal_leaves_no_upload_without_a_configuration(store, model, root, monkeypatch):
    deploy(store, model)
    delete = FilePlace.delete

    def delete_beside_an_upload(self, path):
        delete(self, path)
        (root / "alice.tagger" / "2").mkdir(exist_ok=True)
        (root / "alice.tagger" / "2" / "model.onnx").write_bytes(b"half")

    monkeypatch.setattr(FilePlace, "delete", delete_beside_an_upload)
    store.remove("alice.tagger")
    assert store.files("alice.tagger").keys() == {"config.pbtxt", "2/model.onnx"}
    assert store.config("alice.tagger") is None


def test_a_model_that_was_copied_by_hand_is_left_alone(store, model, root):
    (root / "tagger" / "1").mkdir(parents=True)
    (root / "tagger" / "1" / "model.onnx").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="no config.pbtxt"):
        store.upload("tagger", {"model.onnx": model})
    assert not (root / "tagger" / "config.pbtxt").exists()


def test_only_abandoned_uploads_of_others_are_deleted(store, model, root):
    deploy(store, model)
    for version, hours in ((2, 1), (3, 25)):
        assert store.upload("alice.tagger", {"model.onnx": model}) == version
        for each in (root / "alice.tagger" / str(version)).iterdir():
            os.utime(each, (time.time() - 3600 * hours,) * 2)
    assert Store(str(root)).upload("alice.tagger", {"model.onnx": model}) == 4
    assert store.versions("alice.tagger") == [1, 2, 4]


def test_the_claim_says_what_follows(store, model, root):
    store.upload("tagger", {"model.onnx": model})
    claim = json.loads((root / "tagger" / "1" / ".upload.json").read_text(encoding="utf-8"))
    assert claim["files"] == {"model.onnx": 5}


@pytest.mark.parametrize(
    "url",
    [
        "relative/path",
        "http://host/x",
        "file://host/x",
        "s3://",
        "s3://bucket/../x",
        "s3://user:pw@bucket/x",
        "s3://b/?x",
    ],
)
def test_other_urls_are_refused(url):
    with pytest.raises(ConfigurationError, match="Expected"):
        Store(url)


@pytest.mark.parametrize("endpoint", ["host:9000", "ftp://host", "https://key:secret-text@host"])
def test_other_endpoints_are_refused(endpoint):
    with pytest.raises(ConfigurationError) as raised:
        Store("s3://bucket/models", endpoint=endpoint)
    assert "secret-text" not in str(raised.value)


def test_a_store_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="does not exist"):
        Store(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EACCES, NotAuthorized),
        (errno.EROFS, ConfigurationError),
        (errno.ENOSPC, DeploymentFailed),
        (errno.EDQUOT, DeploymentRefused),
        (errno.EIO, ServerUnavailable),
    ],
)
def test_errors_of_a_file_system_say_what_to_do(number, kind):
    with pytest.raises(kind, match="Cannot write /models/x: "), explained("write", "/models/x"):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        ("AccessDenied", NotAuthorized, "do not allow"),
        ("ExpiredToken", NotAuthorized, "expired"),
        ("SignatureDoesNotMatch", NotAuthorized, "secret does not belong"),
        ("RequestTimeTooSkewed", ConfigurationError, "clock"),
        ("NoSuchBucket", ConfigurationError, "bucket does not exist"),
        ("QuotaExceeded", DeploymentRefused, "quota"),
        ("SlowDown", ServerUnavailable, "overloaded"),
        ("SomethingNew", DeploymentFailed, "what the service said"),
    ],
)
def test_errors_of_s3_say_what_to_do(code, kind, text):
    errors = pytest.importorskip("s3fs.errors")
    exceptions = pytest.importorskip("botocore.exceptions")
    response = {"Error": {"Code": code, "Message": f"what the service said with {KEY[1]}"}}
    with pytest.raises(kind, match=text) as raised, explained("write", "s3://bucket/x"):
        raise errors.translate_boto_error(exceptions.ClientError(response, "PutObject"))
    assert "Cannot write s3://bucket/x: " in str(raised.value)


def test_a_mistake_of_ours_is_not_an_error_of_the_storage():
    with pytest.raises(TypeError), explained("write", "x"):
        raise TypeError


def test_s3_keys_are_shown_nowhere():
    pytest.importorskip("s3fs")
    place = S3Place("s3://bucket/models", endpoint="http://127.0.0.1:9", key=KEY)
    with pytest.raises(ServerUnavailable, match="cannot be reached") as raised:
        place.read("x")
    store = Store("s3://bucket/models", key=KEY)
    shown = [repr(store), str(store), repr(vars(place)), str(raised.value), repr(raised.value.__cause__)]
    assert not any(secret in text for secret in KEY[1:] for text in shown)
    with pytest.raises(NotAuthorized) as raised, explained("write", "x"):
        raise PermissionError(errno.EACCES, f"signed with {KEY[1]}")
    assert KEY[1] not in str(raised.value)


def test_incomplete_keys_are_refused():
    with pytest.raises(ConfigurationError, match="not complete"):
        Store("s3://bucket/models", key=("AKIA",))


def test_a_rollback_skips_a_version_that_was_never_served(store, model, root):
    deploy(store, model)
    version = store.upload("alice.tagger", {"model.onnx": model})
    (root / "alice.tagger" / str(version) / "deployed.pbtxt").write_text(
        config_of("alice.tagger", 2), encoding="utf-8"
    )
    assert deploy(store, model) == 3  # the publication of version 2 was killed in its last step
    assert store.rollback("alice.tagger") == 1


def test_a_withdrawal_leaves_a_later_publication_alone(store, model):
    deploy(store, model)
    previous = store.config("alice.tagger")
    deploy(store, model)
    deploy(store, model)
    store.withdraw("alice.tagger", 2, previous)
    assert store.pinned_version("alice.tagger") == 3
    assert deployed_versions(store, "alice.tagger") == [1, 3]


class Refusing:
    """S3 as keys see it that may list one prefix only: 403 instead of 404."""

    def __init__(self, *paths):
        now = datetime.now(timezone.utc)
        self.found = {path: {"type": "file", "size": 1, "LastModified": now} for path in paths}

    def cat_file(self, _):
        raise PermissionError("Forbidden")

    def find(self, _, **__):
        return self.found


def test_what_is_not_there_may_be_forbidden_in_s3():
    pytest.importorskip("s3fs")
    place = S3Place("s3://bucket/models", key=KEY)
    place._fs = Refusing
    assert place.read("alice.tagger/config.pbtxt") is None
    place._fs = lambda: Refusing("bucket/models/alice.tagger/config.pbtxt")
    with pytest.raises(NotAuthorized, match="Cannot read s3://bucket/models/alice.tagger/config.pbtxt"):
        place.read("alice.tagger/config.pbtxt")
