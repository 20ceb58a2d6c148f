"""Check the models of a Triton repository on this machine: every version that a server would load.

Nothing of a model is run but its ONNX graph, in ONNX Runtime.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eaf_inference._text import did_you_mean
from eaf_inference.deploy.config_text import NAME, parsed
from eaf_inference.deploy.exported import Export
from eaf_inference.deploy.file_checks import left_over_versions
from eaf_inference.deploy.findings import ERROR, WARNING, Finding, Findings
from eaf_inference.deploy.generated_rows import generated_rows
from eaf_inference.deploy.onnx_file import OnnxFile
from eaf_inference.deploy.score_checks import score_findings
from eaf_inference.deploy.static_checks import backend_of, static_findings
from eaf_inference.errors import ConfigurationError, InvalidInput
from eaf_inference.inference.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Checked", "Rules", "check_model", "check_repository"]

_LARGEST_CONFIG = 4 << 20  # bytes
_LARGEST_RUN = 1 << 30  # bytes of a version whose scores are checked here
_IGNORED = ("config.pbtxt", "configs", "labels.txt", "warmup", "README.md", "preprocess.json")


@dataclass(frozen=True, slots=True)
class Rules:
    """What a repository's models may be.

    Attributes
    ----------
    allow_python : bool
        They may run Python code on the server.
    opset_limit : int or None
        The newest opset that the server's ONNX Runtime reads; None for that of the one installed here.
    most_bytes : int
        The largest version; 0 if there is no limit.
    """

    allow_python: bool = False
    opset_limit: int | None = None
    most_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found about one model.

    Attributes
    ----------
    name : str
    findings : Findings
    scores : str
        How its scores were checked, or why they were not.
    """

    name: str
    findings: Findings = field(default_factory=Findings)
    scores: str = ""


def check_repository(root: Path, rules: Rules, *, model: str | None = None) -> list[Checked]:
    """Check all models of a repository, or one.

    Parameters
    ----------
    root : pathlib.Path
        A directory with one directory for each model.
    rules : Rules
    model : str, optional
        The name of the only model to check.

    Raises
    ------
    ConfigurationError
        There is no such repository or model.
    """
    if not root.is_dir():
        raise ConfigurationError(
            f"{root} is no directory. Expected a Triton model repository: a directory with one directory per model."
        )
    names = sorted(each.name for each in root.iterdir() if each.is_dir() and not each.name.startswith("."))
    if model is not None and model not in names:
        raise ConfigurationError(
            f"{root} has no model {model!r}.{did_you_mean(model, names)} It has {', '.join(names) or 'none'}."
        )
    if not names:
        raise ConfigurationError(f"{root} has no models. Expected one directory per model, such as {root}/tagger/1/.")
    if (root / NAME).is_file() and all(each.isdecimal() for each in names):
        raise ConfigurationError(
            f"{root} is a model and no repository: it has a {NAME} and versions. Pass the directory above it."
        )
    return [_checked(root / each, rules, names) for each in names if model in (None, each)]


def _checked(directory: Path, rules: Rules, names: Sequence[str]) -> Checked:
    try:
        return check_model(directory, rules, names=names)
    except OSError as error:  # other models are checked all the same
        unreadable = Finding(
            "unreadable",
            ERROR,
            f"{error.filename or directory} cannot be read: {error.strerror or error}.",
            "files and directories that this account may read",
            "Correct its permissions, chmod -R a+rX, or put the file itself there, as the model's author wrote it.",
        )
        return Checked(directory.name, Findings([unreadable]))


def check_model(directory: Path, rules: Rules, *, example: Any = None, names: Sequence[str] | None = None) -> Checked:
    """Check one model.

    Parameters
    ----------
    directory : pathlib.Path
        With a ``config.pbtxt`` and versions.
    rules : Rules
    example : awkward.Array, numpy.ndarray or mapping, optional
        Rows to score; by default random ones.
    names : sequence of str, optional
        The models of the repository, in which an ensemble finds its members.
    """
    name = directory.name
    if links := list(_links(directory)):
        return Checked(name, Findings(links))
    text, config = _config_of(directory)
    versions, others = _versions(directory)
    found = Findings(left_over_versions(name, others))
    if config is not None and config.HasField("ensemble_scheduling"):
        found += static_findings(name, Export({}, "ensemble", config=text or ""), None, text or "")
        found += _members(name, config, names)
        return Checked(name, found, "its scores were not checked: it is an ensemble")
    if not versions:
        return Checked(name, Findings([_no_version(name, others)]))
    served = versions[-1:] if config is None else _served(config, versions)
    if not served:
        return Checked(name, Findings([*found, _pinned_missing(name, versions)]))
    scores = ""
    for version in served:
        own, scores = _check_version(directory / str(version), name, text, config, rules, example)
        found += [each for each in own if each not in found]
    return Checked(name, found, scores)


def _check_version(
    version: Path, name: str, text: str | None, config: Any, rules: Rules, example: Any
) -> tuple[Findings, str]:
    """Check one version, and return how its scores were checked."""
    files = _files(version)
    filename = (config.default_model_filename if config is not None else "") or "model.onnx"
    path = next((files[each] for each in (filename, f"{filename}/{filename}") if each in files), None)
    path = path if path is not None and path.suffix == ".onnx" and path.is_file() else None
    backend = (backend_of(config) if config is not None else "") or ("onnxruntime" if path else "")
    onnx, unreadable = None, None
    if path is not None:
        try:
            onnx = OnnxFile.read(path)
        except ConfigurationError as error:
            unreadable = _unreadable(name, str(error))
    found = static_findings(
        name,
        Export(files, backend, onnx=path, config=text or ""),
        onnx,
        text or "",
        opset_limit=rules.opset_limit,
        allow_python=rules.allow_python,
        most_bytes=rules.most_bytes,
    )
    if found.errors or config is None:
        return found, ""
    if unreadable is not None:
        return Findings([*found, unreadable]), ""
    if text is None:
        found.append(_no_config(name, backend))
    if onnx is None or onnx.path is None or backend != "onnxruntime":
        return found, "its scores were not checked: only ONNX models are run here"
    if sum(each.stat().st_size for each in files.values()) > _LARGEST_RUN:
        return found, f"its scores were not checked: its files have more than {_LARGEST_RUN >> 30} GiB"
    spec = _spec(config, onnx)
    if spec is None:
        return found, "its scores were not checked: its configuration has no inputs or outputs"
    if example is not None:
        found += score_findings(onnx.path, spec, example)
        return found, "its scores were checked"
    rows = generated_rows(spec)
    if rows is None:
        return found, "its scores were not checked: it takes strings"
    of_scores = score_findings(onnx.path, spec, rows, generated=True)
    if "not-finite" in of_scores.codes:  # it may take logarithms
        rows = generated_rows(spec, positive=True)
        of_scores = min(of_scores, score_findings(onnx.path, spec, rows, generated=True), key=len)
    found += of_scores
    return found, "its scores were checked with generated rows, which are random numbers"


def _spec(config: Any, onnx: OnnxFile) -> ModelSpec | None:
    """Return what the client reads from a configuration; what is left out there, Triton takes from the file."""
    if not config.input or not config.output:
        if not onnx.batched and config.max_batch_size:
            return None
        completed = type(config)()
        completed.CopyFrom(config)
        if onnx.batched and not config.max_batch_size and not config.parameters:
            completed.max_batch_size = 4  # as Triton does
        skip = int(completed.max_batch_size > 0)
        for kind, tensors in (("input", onnx.inputs), ("output", onnx.outputs)):
            if not getattr(completed, kind):
                for tensor in tensors:
                    datatype = f"TYPE_{'STRING' if tensor.datatype == 'BYTES' else tensor.datatype}"
                    number = config.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_name[datatype].number
                    getattr(completed, kind).add(name=tensor.name, data_type=number, dims=tensor.dims[skip:])
        config = completed
    if not config.name:
        config.name = "model"
    try:
        return ModelSpec.from_config(config, "1")
    except (ConfigurationError, InvalidInput):
        return None


def _config_of(directory: Path) -> tuple[str | None, Any]:
    """Return the text of the configuration, None if there is none, and what it says, None if it cannot be read."""
    try:
        text = _text_of(directory / NAME)
    except FileNotFoundError:
        text = None
    try:
        return text, parsed(text or "")
    except ConfigurationError:
        return text, None


def _text_of(path: Path) -> str:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # to read a pipe may take for ever
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    if status.st_size > _LARGEST_CONFIG:
        raise OSError(errno.EFBIG, f"it is larger than {_LARGEST_CONFIG >> 20} MiB", str(path))
    return path.read_text(encoding="utf-8", errors="backslashreplace")


def _versions(directory: Path) -> tuple[list[int], list[str]]:
    """Return the versions in order, and the directories that are none."""
    versions, others = [], []
    for each in sorted(directory.iterdir()):
        if not each.is_dir() or each.name in _IGNORED or each.name.startswith("."):
            continue
        if each.name.isascii() and each.name.isdecimal() and not each.name.startswith("0"):
            versions.append(int(each.name))
        else:
            others.append(each.name)
    return sorted(versions), others


def _served(config: Any, versions: list[int]) -> list[int]:
    """Return the versions that a server loads."""
    policy = config.version_policy
    if policy.HasField("all"):
        return versions
    if policy.HasField("specific"):
        return [each for each in versions if each in policy.specific.versions]
    number = policy.latest.num_versions if policy.HasField("latest") else 1
    return versions[-max(int(number), 1) :]


def _files(version: Path) -> dict[str, Path]:
    return {
        path.relative_to(version).as_posix(): path
        for path in sorted(version.rglob("*"))
        if path.is_symlink() or not path.is_dir()
    }


def _links(directory: Path) -> Iterator[Finding]:
    """Yield a finding about a link that leaves the repository."""
    root = os.path.realpath(directory.parent)
    for path in (directory, *sorted(directory.rglob("*"))):
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
            yield Finding(
                "link-outside",
                ERROR,
                f"{path.relative_to(directory.parent)} is a link out of the repository.",
                "files inside the repository",
                "Copy what it points to in place of the link: cp -L -r.",
            )
            return


def _unreadable(name: str, message: str) -> Finding:
    what, _, rest = message.partition(" Expected ")
    expected, _, do = rest.partition(". ")
    return Finding(
        "onnx-unreadable",
        ERROR,
        f"{name!r} cannot be read: {what}",
        expected.rstrip(".") or "an ONNX model that Triton can serve",
        do or "Export the model again, or upload the file again and compare its size with the original's.",
    )


def _no_config(name: str, backend: str) -> Finding:
    onnx = backend == "onnxruntime"
    return Finding(
        "config-missing",
        WARNING if onnx else ERROR,
        f"{name!r} has no config.pbtxt{', so Triton makes one with max_batch_size 4' * onnx}.",
        "a config.pbtxt beside the version directories",
        "Write one, with the backend, max_batch_size, inputs and outputs; triton.deploy writes it for you.",
    )


def _no_version(name: str, others: Sequence[str]) -> Finding:
    return Finding(
        "no-version",
        ERROR,
        f"{name!r} has no version{', only ' * bool(others)}{', '.join(others)}.",
        "a directory called 1, 2, 3 …, without leading zeros, with the model's files",
        f"{f'Rename {others[0]} to 1' if others else 'Make the directory 1'}, and put the model's files into it.",
    )


def _pinned_missing(name: str, versions: list[int]) -> Finding:
    return Finding(
        "pinned-version-missing",
        ERROR,
        f"The version_policy of {name!r} names a version that is not there.",
        f"one of the versions {', '.join(map(str, versions))}",
        f"Write version_policy: {{ specific: {{ versions: [{versions[-1]}] }} }}, or upload the version.",
    )


def _members(name: str, config: Any, names: Sequence[str] | None) -> Iterator[Finding]:
    """Yield findings about members of an ensemble that are not in the repository."""
    if names is None:
        return
    steps = Counter(step.model_name for step in config.ensemble_scheduling.step)
    for member in steps:
        if member not in names:
            yield Finding(
                "member-missing",
                ERROR,
                f"The ensemble {name!r} calls {member!r}, which is not in the repository."
                f"{did_you_mean(member, names)}",
                f"members among {', '.join(names)}",
                "Correct model_name in ensemble_scheduling, or add the model to the repository.",
            )
