"""Deploy a model: export, check, upload, wait until it is served, and compare its scores.

Until the configuration is written, which is the last step of the upload, nothing that is served changes. Whatever
fails after that withdraws the version, so that the one before is served again.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

from eaf_inference._text import did_you_mean, file_size
from eaf_inference.deploy.comparison import compared
from eaf_inference.deploy.config_text import parsed
from eaf_inference.deploy.configuration import Choices, merged, pinned, written
from eaf_inference.deploy.export import export
from eaf_inference.deploy.facility_store import store_of
from eaf_inference.deploy.findings import Findings
from eaf_inference.deploy.local_scores import local_scores
from eaf_inference.deploy.names import escaped, owner_of, served_name
from eaf_inference.deploy.onnx_file import OnnxFile
from eaf_inference.deploy.score_checks import score_findings
from eaf_inference.deploy.serving import wait_until_gone, wait_until_served
from eaf_inference.deploy.static_checks import static_findings
from eaf_inference.errors import (
    ConfigurationError,
    DeploymentFailed,
    DeploymentRefused,
    InferenceError,
    ModelNotFound,
)
from eaf_inference.inference.recipe import Recipe
from eaf_inference.inference.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eaf_inference.config import Facility
    from eaf_inference.deploy.export import Export
    from eaf_inference.deploy.store import Store
    from eaf_inference.discovery.endpoint import Endpoint
    from eaf_inference.inference.model import Model
    from eaf_inference.opening import Opened

__all__ = ["Choices", "Target", "deploy", "draft_config", "rollback", "undeploy"]

_BLOCK = 1 << 20  # bytes
_FOLLOWS_WITHIN = 60.0  # seconds, after a failure


class Target(Protocol):
    """What a deployment needs of a connection."""

    @property
    def user(self) -> str | None: ...

    @property
    def facility(self) -> Facility: ...

    @property
    def endpoint(self) -> Endpoint: ...

    def open(self) -> Opened: ...

    def model(self, name: str, version: int) -> Model: ...


@dataclass(frozen=True, slots=True)
class _Draft:
    """A model that could be uploaded, in files of a directory that is deleted with it."""

    name: str
    export: Export
    onnx: OnnxFile | None
    config: str


def deploy(
    target: Target,
    name: str,
    source: Any,
    example: Any,
    choices: Choices,
    *,
    config: str | os.PathLike[str] | None,
    tolerance: float,
    timeout: float,
    progress: Callable[[str], object],
) -> Model:
    """Put a model on the server; see `eaf_inference.deploy.methods.OwnModels.deploy`."""
    if not tolerance >= 0:
        raise ConfigurationError(f"tolerance is {tolerance}. Expected 0 or more, such as 1e-5.")
    opened = target.open()
    served = _served(target, name)
    store = store_of(opened)
    steps = _Steps(progress)
    with _drafted(served, source, example, choices, config) as draft:
        steps.done(f"{draft.export.source}, {file_size(_bytes(draft.export))}")
        for remark in draft.export.remarks:
            steps.note(remark)
        expected = _checked(draft, example, opened.facility, steps)
        _check_name(store, opened, served)
        _check_quota(store, draft, opened.facility)
        version = store.upload(served, draft.export.files)
        before = store.config(served)  # now, as it may have changed during the upload
        with _withdrawn_on_failure(target, store, served, version, before):
            steps.done(f"uploaded as {served} version {version}")
            store.publish(served, version, pinned(draft.config, version, _facts(draft, target.user)))
            _follow(target, store, served, timeout)
            _check_still_published(store, served, version)
            model = target.model(served, version)
            steps.done(f"served by {opened.endpoint.url}")
            if expected is None:
                steps.note("Its scores were not compared, as only ONNX models can be computed here.")
            else:
                comparison = compared(model(example, progress=False), expected, tolerance)
                if not comparison.agree:
                    raise DeploymentFailed(
                        f"The served scores of {served!r} differ from those computed here: {comparison}. Version "
                        f"{version} is withdrawn. Report it to the facility's operators; if such a difference is "
                        "expected, as with a GPU of reduced precision, pass a larger tolerance."
                    )
                steps.done(f"served scores equal those computed here: {comparison}")
    return model


def draft_config(target: Target, name: str, source: Any, example: Any, choices: Choices) -> str:
    """Return the configuration that `deploy` would write."""
    served = _served(target, name)
    with _drafted(served, source, example, choices, None) as draft:
        return draft.config


def rollback(target: Target, name: str, version: int | str | None, *, timeout: float) -> Model:
    """Serve an earlier version again; see `eaf_inference.deploy.methods.OwnModels.rollback`."""
    opened = target.open()
    served, store = _existing(target, opened, name)
    present = store.pinned_version(served)
    version = store.rollback(served, None if version is None else _number(version))
    try:
        _follow(target, store, served, timeout)
    except BaseException:
        if present is not None:
            store.rollback(served, present)
            _follow(target, store, served)
        raise
    return target.model(served, version)


def _number(version: int | str) -> int:
    try:
        return int(str(version))  # `model.spec.version` is a text
    except ValueError as error:
        raise ConfigurationError(f"version is {version!r}. Expected the number of a version, such as 2.") from error


def undeploy(target: Target, name: str, *, timeout: float) -> None:
    """Remove a model; see `eaf_inference.deploy.methods.OwnModels.undeploy`."""
    served, store = _existing(target, target.open(), name)
    store.remove(served)
    _follow(target, store, served, timeout)


def _served(target: Target, name: str) -> str:
    """Return the name under which the user's model is served, of the name that she gave it or of that itself."""
    if target.user is not None and isinstance(name, str):
        name = name.removeprefix(f"{escaped(target.user)}.")
    return served_name(target.user, name)


def _existing(target: Target, opened: Opened, name: str) -> tuple[str, Store]:
    """Return the served name of one of the user's own models, and the store."""
    store, served = store_of(opened), _served(target, name)
    if not store.files(served):  # a removal beside an upload that failed leaves config.pbtxt alone
        known = store.models(None if target.user is None else owner_of(served))
        raise ModelNotFound(
            f"The model store has no model {served!r}.{did_you_mean(served, known)} It has "
            f"{', '.join(known) or 'none'} of yours."
        )
    return served, store


@contextmanager
def _drafted(
    served: str, source: Any, example: Any, choices: Choices, config: str | os.PathLike[str] | None
) -> Iterator[_Draft]:
    """Export a model and write its configuration, in a directory that is deleted at the end."""
    recipe = None if choices.recipe is None else Recipe.parse(choices.recipe, model=served)
    with TemporaryDirectory(prefix="eaf-inference-deploy-") as directory:
        made = export(source, Path(directory), example=example, recipe=recipe)
        onnx = OnnxFile.read(made.onnx) if made.onnx is not None else None
        given = made.config if config is None else _text_of(config)
        try:
            text = merged(served, given, made, choices) if given else written(served, onnx, made, choices)
        except ConfigurationError as error:
            if onnx is None and made.remarks:  # why it was not converted, for example
                raise ConfigurationError(f"{error} {' '.join(made.remarks)}") from error
            raise
        yield _Draft(served, made, onnx, text)


def _text_of(config: str | os.PathLike[str]) -> str:
    """Return the text of a configuration, which is given as such or as the path of its file."""
    if isinstance(config, str) and ("\n" in config or "{" in config):
        return config
    try:
        return Path(config).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The configuration {os.fspath(config)} cannot be read: {error}. Expected the text of a config.pbtxt, or "
            "the path of one."
        ) from error


def _checked(draft: _Draft, example: Any, facility: Facility, steps: _Steps) -> Any:
    """Check a draft, and return the example's scores as they are computed here; None if they cannot be.

    Raises
    ------
    DeploymentRefused
        A check failed.
    """
    found = Findings(
        static_findings(
            draft.name,
            draft.export,
            draft.onnx,
            draft.config,
            opset_limit=facility.onnx_opset or None,
            allow_python=facility.model_store_service or facility.python_models,  # the service knows who may
        )
    )
    path = draft.export.onnx
    if path is None or found.errors:
        _refuse(draft, found)
        spec = None
    else:
        spec = ModelSpec.from_config(parsed(draft.config), "")
        found += score_findings(path, spec, example, reference=draft.export.reference)
        _refuse(draft, found)
    for each in found:
        steps.note(str(each))
    if spec is None or path is None:
        steps.done("checked, without its scores: it is no ONNX model")
        return None
    expected = local_scores(path, spec, example)
    steps.done("checked with ONNX Runtime on the example")
    return expected


def _refuse(draft: _Draft, found: Findings) -> None:
    if found.errors:
        reasons = "\n".join(f"- {each}" for each in found.errors)
        raise DeploymentRefused(f"{draft.name!r} is not deployed:\n{reasons}")


def _check_name(store: Store, opened: Opened, served: str) -> None:
    """Refuse a name that the facility's own repository has: Triton serves neither of two models of one name.

    Raises
    ------
    DeploymentRefused
        The server has it, and the store does not.
    """
    if not store.versions(served) and any(opened.replicas.states(served)):
        raise DeploymentRefused(
            f"{served!r} is not deployed: the server already has a model of this name, which is not in the store of "
            "users' models. Choose another name."
        )


def _check_quota(store: Store, draft: _Draft, facility: Facility) -> None:
    """Refuse a model that would exceed what a user may have, before it is uploaded.

    Raises
    ------
    DeploymentRefused
        It would.
    """
    if not (facility.most_models or facility.most_model_bytes):
        return
    usage, new = store.usage(owner_of(draft.name)), _bytes(draft.export)
    first = not store.versions(draft.name)
    if facility.most_models and usage.models + first > facility.most_models:
        why = f"you have {usage.models} models, and each user may have {facility.most_models}"
    elif facility.most_model_bytes and usage.bytes + new > facility.most_model_bytes:
        why = (
            f"it has {file_size(new)} and your models have {file_size(usage.bytes)}, and each user may have "
            f"{file_size(facility.most_model_bytes)}"
        )
    else:
        return
    raise DeploymentRefused(f"{draft.name!r} is not deployed: {why}. Remove one, triton.undeploy(NAME).")


@contextmanager
def _withdrawn_on_failure(
    target: Target, store: Store, served: str, version: int, before: str | None
) -> Iterator[None]:
    """If the block fails or is interrupted, restore what was published before, and wait until it is served again."""
    try:
        yield
    except BaseException as error:
        try:
            store.withdraw(served, version, before)
            _follow(target, store, served)
        except InferenceError as failed:
            raise DeploymentFailed(f"{error} It could not be withdrawn either: {failed}") from error
        if isinstance(error, KeyboardInterrupt):
            error.args = ()  # "no scores are returned", of the comparison: that the model is not deployed says more
        raise


def _follow(target: Target, store: Store, served: str, timeout: float = _FOLLOWS_WITHIN) -> None:
    """Return when the server serves what the store says now: the published version, or none."""
    opened, version = target.open(), store.pinned_version(served)
    explicit = opened.facility.model_control == "explicit"
    if version is None:
        if explicit:
            opened.replicas.unload(served)
        wait_until_gone(opened.replicas.states, served, timeout)
    else:
        if explicit:
            opened.replicas.load(served)
        wait_until_served(opened.replicas.states, served, version, timeout)


def _check_still_published(store: Store, served: str, version: int) -> None:
    """Notice another deployment, rollback or removal of the model, before this version appears to be missing.

    Raises
    ------
    DeploymentFailed
        There was one.
    """
    published = store.pinned_version(served)
    if published != version:
        now = "it was removed" if published is None else f"version {published} was published"
        raise DeploymentFailed(
            f"Version {version} of {served!r} is not served: {now} meanwhile, by another session of yours. Version "
            f"{version} is withdrawn; deploy it again if it should be served."
        )


def _facts(draft: _Draft, user: str | None) -> dict[str, Any]:
    """Return what the parameter ``deployment`` says of a version."""
    digest = hashlib.sha256()
    for name, path in sorted(draft.export.files.items()):
        digest.update(name.encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return {
        "owner": user or "",
        "bytes": _bytes(draft.export),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "source": draft.export.source,
        "sha256": digest.hexdigest(),
    }


def _bytes(made: Export) -> int:
    return sum(path.stat().st_size for path in made.files.values())


class _Steps:
    """The lines that a user reads, each with the seconds that its step took."""

    def __init__(self, progress: Callable[[str], object]) -> None:
        self._progress = progress
        self._began = time.monotonic()

    def done(self, what: str) -> None:
        now = time.monotonic()
        self._progress(f"{now - self._began:5.1f} s  {what}")
        self._began = now

    def note(self, remark: str) -> None:
        self._progress(f"         {remark}")
