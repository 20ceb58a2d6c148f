"""Take a model from a directory that is laid out for Triton: its own directory, or a repository with one model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from eaf_inference.deploy.config_text import parsed
from eaf_inference.deploy.exported import Export
from eaf_inference.deploy.file_checks import MODEL_FILES
from eaf_inference.deploy.saved import KINDS, files_inside, onnx_files, saved_model_export
from eaf_inference.deploy.static_checks import backend_of
from eaf_inference.errors import ConfigurationError, DeploymentRefused

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["export_directory"]

_CONFIG = "config.pbtxt"
_LARGEST_CONFIG = 4 << 20  # bytes
_LABEL_FILE = re.compile(r"""[,;]?\s*\blabel_filename\s*:\s*("[^"\n]*"|'[^'\n]*')(\s*[,;])?""")


def export_directory(directory: Path) -> Export:
    """Take a SavedModel, a model's directory of a Triton repository, or the only model of a repository.

    The highest version that its configuration serves is taken.

    Raises
    ------
    DeploymentRefused
        It is none of them, or a repository with several models.
    """
    if (directory / "saved_model.pb").is_file():
        return saved_model_export(directory)
    if _versions(directory):
        return _model(directory)
    models = [each for each in sorted(directory.iterdir()) if each.is_dir() and _versions(each)]
    if len(models) > 1:
        raise DeploymentRefused(
            f"{directory} is a repository with {len(models)} models: {', '.join(each.name for each in models)}. "
            f"Expected one: pass its directory, such as {models[0]}."
        )
    if not models:
        unfinished = (directory / _CONFIG).is_file()
        raise DeploymentRefused(
            f"{directory} has {'a config.pbtxt but no version' if unfinished else 'no model'}. Expected {KINDS}: "
            "config.pbtxt, and the model's files in a directory named by a version's number, such as 1/model.onnx."
        )
    return _model(models[0])


def _versions(directory: Path) -> list[Path]:
    """Return the directories that Triton takes for versions, in order."""
    numbered = [each for each in directory.iterdir() if each.name.isascii() and each.name.isdigit() and each.is_dir()]
    return sorted((each for each in numbered if int(each.name) > 0), key=lambda each: int(each.name))


def _served(directory: Path, config: Any) -> Path:
    """Return the highest version that the configuration, if there is one, has served."""
    versions = _versions(directory)
    wanted = set(config.version_policy.specific.versions) if config is not None else set()
    served = [each for each in versions if not wanted or int(each.name) in wanted]
    if not served:
        raise DeploymentRefused(
            f"The version_policy of {directory / _CONFIG} serves {', '.join(map(str, sorted(wanted)))}. Expected one "
            f"of {', '.join(each.name for each in versions)}: correct it, or leave it out."
        )
    return served[-1]


def _model(directory: Path) -> Export:
    path = directory / _CONFIG
    text, remarks, labels, name, label_files = "", [], {}, "", set()
    config = parsed(text := _read(path)) if path.is_file() else None
    if config is not None and (config.HasField("ensemble_scheduling") or config.platform == "ensemble"):
        raise DeploymentRefused(
            f"{directory} is an ensemble, which calls other models. Expected a model of its own: deploy the models "
            "one by one, or ask the facility's operators."
        )
    version = _served(directory, config)
    files = files_inside(version)
    if not files:
        raise DeploymentRefused(f"{version} is empty. Expected the model's files, such as model.onnx.")
    names = {part.split("/")[0] for part in files}
    backend = next((each for each, usual in MODEL_FILES.items() if names.intersection(usual)), "")
    if config is not None:
        backend = backend_of(config) or backend
        name = config.default_model_filename
        label_files = {each.label_filename for each in config.output if each.label_filename}
        labels = {each.name: _labels(directory, each) for each in config.output if each.label_filename}
        if labels:
            text = _without_label_files(path, text, config)
            remarks.append("The label files become the parameter 'labels': only the version's files are uploaded.")
    if not backend:
        raise DeploymentRefused(
            f"{directory} does not say which backend runs it. Expected a backend in its config.pbtxt, such as "
            'backend: "onnxruntime", or a file with Triton\'s name for it, such as model.onnx.'
        )
    onnx = version / (name or "model.onnx")
    is_onnx = backend == "onnxruntime" and onnx in files.values()  # or it is elsewhere: static_checks says so
    if is_onnx:
        for location in onnx_files(onnx):
            if location not in ("model.onnx", *files):
                raise DeploymentRefused(f"{onnx} needs {location}, which is not in {version}. Expected it there.")
    known = {_CONFIG, *label_files, *(each.name for each in _versions(directory))}
    others = [each.name for each in sorted(directory.iterdir()) if each.name not in known and each.name[0] != "."]
    if others:
        remarks.append(f"Not uploaded, because only the files of version {version.name} are: {', '.join(others)}.")
    return Export(
        files=files,
        backend=backend,
        onnx=onnx if is_onnx else None,
        source=f"version {version.name} of {directory}",
        labels=labels,
        config=text,
        remarks=tuple(remarks),
    )


def _without_label_files(path: Path, text: str, config: Any) -> str:
    """Return the text of a configuration without its label_filename fields, and with everything else."""
    wanted = type(config)()
    wanted.CopyFrom(config)
    for output in wanted.output:
        output.ClearField("label_filename")
    text = _LABEL_FILE.sub("", text)
    try:
        same = parsed(text) == wanted
    except ConfigurationError:
        same = False
    if not same:
        raise DeploymentRefused(
            f'The label_filename in {path} cannot be removed. Expected it as label_filename: "NAME", in one string '
            "and in no comment. Leave it out, and pass labels=[…]."
        )
    return text


def _read(path: Path, what: str = "a config.pbtxt") -> str:
    if path.stat().st_size > _LARGEST_CONFIG:
        raise DeploymentRefused(f"{path} is larger than {_LARGEST_CONFIG >> 20} MiB. Expected {what}.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DeploymentRefused(f"{path} is not UTF-8 text: {error}. Expected {what}.") from error


def _labels(directory: Path, output: Any) -> tuple[str, ...]:
    """Return the class names of an output from its label file, one on each line."""
    name = output.label_filename
    if "/" in name or name in (".", "..") or name not in files_inside(directory):
        raise DeploymentRefused(
            f"The output {output.name!r} names the label file {name!r}, and there is no such file in {directory}. "
            "Expected it there, or no label_filename."
        )
    text = _read(directory / name, "a class name on each line").removeprefix("\ufeff")  # as editors on Windows write
    return tuple(line for line in text.splitlines() if line)
