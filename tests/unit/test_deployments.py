"""What deploying and rolling back do around the store, without a server."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from eaf_inference.deploy import deployment
from eaf_inference.deploy.configuration import pinned
from eaf_inference.deploy.export import Export
from eaf_inference.deploy.store import Store
from eaf_inference.errors import ConfigurationError, DeploymentFailed, ModelNotFound

CONFIG = 'name: "alice.tagger"\nbackend: "onnxruntime"\n'


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    """A store with three published versions."""
    (tmp_path / "store").mkdir()
    (tmp_path / "model.onnx").write_bytes(b"model")
    made = Store(str(tmp_path / "store"))
    for _ in range(3):
        version = made.upload("alice.tagger", {"model.onnx": tmp_path / "model.onnx"})
        made.publish("alice.tagger", version, pinned(CONFIG, version, {"number": version}))
    monkeypatch.setattr(deployment, "store_of", lambda _: made)
    return made


def target(user: str | None = "alice") -> SimpleNamespace:
    return SimpleNamespace(user=user, open=lambda: None, model=lambda name, version: (name, version))


def test_a_rollback_that_fails_does_not_change_what_was_served_before(store, monkeypatch):
    def follow(_target, store: Store, served: str, _timeout: float = 0) -> None:
        if store.pinned_version(served) == 1:
            raise DeploymentFailed("Triton cannot load it.")

    monkeypatch.setattr(deployment, "_follow", follow)
    before = store.config("alice.tagger")
    with pytest.raises(DeploymentFailed, match="cannot load"):
        deployment.rollback(target(), "tagger", 1, timeout=1)
    assert store.config("alice.tagger") == before
    assert deployment.rollback(target(), "tagger", None, timeout=1) == ("alice.tagger", 2)


def test_a_rollback_takes_a_version_as_a_model_has_it(store, monkeypatch):
    monkeypatch.setattr(deployment, "_follow", lambda *_: None)
    assert deployment.rollback(target(), "tagger", "1", timeout=1) == ("alice.tagger", 1)
    for version in ("one", True, 1.5):
        with pytest.raises(ConfigurationError, match="Expected the number of a version"):
            deployment.rollback(target(), "tagger", version, timeout=1)


def test_why_torchscript_is_not_converted_is_said(tmp_path, monkeypatch):
    made = Export({"model.pt": tmp_path / "model.pt"}, "pytorch", remarks=("It is not converted (why).",))
    monkeypatch.setattr(deployment, "export", lambda *_, **__: made)
    with pytest.raises(ConfigurationError, match=r"does not say what its inputs.* It is not converted \(why\)\."):
        deployment.draft_config(target(), "tagger", None, None, deployment.Choices())


@pytest.fixture
def deploy(store, tmp_path, monkeypatch):
    """Deploy without a server: `follow` is called in place of waiting for it."""

    def deployed(follow) -> None:
        files = {"model.onnx": tmp_path / "model.onnx"}
        made = SimpleNamespace(source="ONNX file", files=files, remarks=())
        draft = SimpleNamespace(name="alice.tagger", export=made, onnx=None, config=CONFIG)
        for name in ("_checked", "_check_name", "_check_quota"):
            monkeypatch.setattr(deployment, name, lambda *_: None)
        monkeypatch.setattr(deployment, "_drafted", lambda *_: nullcontext(draft))
        monkeypatch.setattr(deployment, "_follow", follow)
        opened = SimpleNamespace(facility=None, endpoint=None)
        alice = SimpleNamespace(user="alice", open=lambda: opened)
        settings = {"config": None, "tolerance": 1e-5, "timeout": 1, "progress": lambda _: None}
        deployment.deploy(alice, "tagger", None, None, deployment.Choices(), **settings)

    return deployed


def test_a_file_larger_than_may_be_written_is_said_to_be(store, tmp_path):
    resource = pytest.importorskip("resource")
    (tmp_path / "large.onnx").write_bytes(bytes(100_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(DeploymentFailed, match="larger than may be written there"):
            store.upload("alice.tagger", {"model.onnx": tmp_path / "large.onnx"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.pinned_version("alice.tagger") == 3


def test_an_interrupt_after_the_upload_says_what_became_of_the_model(store, deploy):
    def follow(_target, store: Store, served: str, _timeout: float = 0) -> None:
        if store.pinned_version(served) == 4:
            raise KeyboardInterrupt("Stopped; no scores are returned.")

    with pytest.raises(KeyboardInterrupt) as raised:
        deploy(follow)
    assert raised.value.args == ()  # `OwnModels.deploy` says it
    assert store.pinned_version("alice.tagger") == 3


def test_a_model_of_which_only_the_configuration_is_left_can_be_removed(store, monkeypatch):
    monkeypatch.setattr(deployment, "_follow", lambda *_: None)
    for version in store.versions("alice.tagger"):
        store._place.delete(f"alice.tagger/{version}")
    assert store.models("alice") == ["alice.tagger"]
    deployment.undeploy(target(), "tagger", timeout=1)
    assert store.models("alice") == []
    with pytest.raises(ModelNotFound, match="has no model 'alice.tagger'"):
        deployment.undeploy(target(), "tagger", timeout=1)


def test_a_failure_brings_back_what_was_published_during_the_upload(store, deploy, monkeypatch):
    upload = store.upload

    def upload_beside_another(name: str, files: dict) -> int:
        version = upload(name, files)
        other = upload(name, files)
        store.publish(name, other, pinned(CONFIG, other, {}))
        return version

    def follow(*_arguments) -> None:
        if store.pinned_version("alice.tagger") == 4:
            raise DeploymentFailed("Triton cannot load it.")

    monkeypatch.setattr(store, "upload", upload_beside_another)
    with pytest.raises(DeploymentFailed, match="cannot load"):
        deploy(follow)
    assert store.pinned_version("alice.tagger") == 5


@pytest.mark.parametrize(
    ("change", "why", "published"),
    [
        (lambda store: store.remove("alice.tagger"), "it was removed meanwhile", None),
        (lambda store: store.rollback("alice.tagger", 2), "version 2 was published meanwhile", 2),
    ],
    ids=["undeploy", "rollback"],
)
def test_a_change_during_a_deployment_is_named_and_stays(store, deploy, change, why, published):
    changed = []

    def follow(*_arguments) -> None:
        if not changed:
            changed.append(change(store))

    with pytest.raises(DeploymentFailed, match=f"Version 4 .* is not served: {why}.* deploy it again"):
        deploy(follow)
    assert store.pinned_version("alice.tagger") == published
    assert not any(path.startswith("4/model") for path in store.files("alice.tagger"))


@pytest.mark.parametrize(
    ("user", "name", "served"),
    [
        ("alice", "tagger", "alice.tagger"),
        ("alice", "alice.tagger", "alice.tagger"),
        ("a.b", "a_2eb.tagger", "a_2eb.tagger"),
        ("alice", "bob.tagger", "alice.bob.tagger"),
        (None, "alice.tagger", "alice.tagger"),
    ],
)
def test_a_model_has_one_name_with_and_without_its_owner(user, name, served):
    assert deployment._served(target(user), name) == served


@pytest.mark.parametrize("name", ["alice.", "alice..tagger", "alice./x", "../bob.tagger", 7])
def test_a_name_that_leaves_the_owners_is_refused(name):
    with pytest.raises(ConfigurationError):
        deployment._served(target(), name)
