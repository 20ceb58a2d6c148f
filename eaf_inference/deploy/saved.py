"""Recognise files by their content, and take those that need no conversion: ONNX files and SavedModels.

Nothing is unpickled here, and no file outside the model's own directory is taken.
"""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference.deploy.archives import names_in
from eaf_inference.deploy.exported import Export
from eaf_inference.deploy.onnx_file import OnnxFile
from eaf_inference.errors import ConfigurationError, DeploymentRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FileKind", "files_inside", "kind_of_file", "onnx_export", "onnx_files", "saved_model_export"]

_HEAD = 16  # bytes
_PICKLE = b"\x80"  # protocol 2 and later; older ones are text
_COMPRESSED = (
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",
    b"x\x9c",
    b"x\x01",
    b"x\xda",
    b"x^",
    b"\x04\x22M\x18",
)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MOST_FILES = 10_000


class FileKind(enum.Enum):
    """What a file holds."""

    ONNX = enum.auto()
    TORCHSCRIPT = enum.auto()
    PROGRAM = enum.auto()


def kind_of_file(path: Path) -> FileKind:
    """Return what a file holds, by its content.

    Raises
    ------
    DeploymentRefused
        It is a pickle, or another kind that is not taken; the message says what to do instead.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(b"PK") and (names := names_in(path)) is not None:
        return _kind_of_archive(path, names)
    suffix = path.suffix.lower()
    if head.startswith(_PICKLE) or suffix in (".pkl", ".pickle", ".joblib", ".pth", ".pt", ".ckpt"):
        raise _pickled(path)
    if head.startswith(_COMPRESSED):
        raise DeploymentRefused(
            f"{path} is compressed, as an archive or a joblib pickle is. Archives are not unpacked and pickles are "
            "never loaded, since they can run any code. Unpack the archive yourself and pass the directory; of a "
            "pickle, load it where you trust it and pass the object: triton.deploy(name, estimator, …)."
        )
    if head.startswith(_HDF5):
        raise DeploymentRefused(
            f"{path} is an HDF5 file, in which Keras may have stored Python code (Lambda layers), so it is not "
            f"loaded. {_KERAS}"
        )
    if suffix in (".json", ".ubj", ".txt", ".model"):
        raise DeploymentRefused(
            f"{path} is no ONNX file. If it is a model of XGBoost or LightGBM, load it and pass the object: "
            "xgboost.Booster(model_file=…) or lightgbm.Booster(model_file=…)."
        )
    return FileKind.ONNX


_KERAS = "Load it where you trust it, write a SavedModel with model.export(DIRECTORY), and deploy that directory."


def _kind_of_archive(path: Path, names: Sequence[str]) -> FileKind:
    inner = {name.partition("/")[2] for name in names}
    if any(name.startswith("code/") for name in inner) and "constants.pkl" in inner:
        return FileKind.TORCHSCRIPT
    if "archive_format" in inner and any(name.startswith("models/") for name in inner):
        return FileKind.PROGRAM
    if "data.pkl" in inner:
        raise _pickled(path)
    if {"config.json", "metadata.json"} <= set(names):
        raise DeploymentRefused(f"{path} is a Keras file, which may hold Python code, so it is not loaded. {_KERAS}")
    raise DeploymentRefused(
        f"{path} is a zip archive. Archives are not unpacked: unpack it yourself, look at it, and pass the directory."
    )


def _pickled(path: Path) -> DeploymentRefused:
    return DeploymentRefused(
        f"{path} is a pickle, as torch.save, pickle and joblib write: a whole object, or weights without their "
        "network. Pickles are never loaded, since they can run any code. Load it where you trust it and pass the "
        "network or estimator itself, triton.deploy(name, net, …); or write a file with torch.jit.save(torch.jit."
        "script(net), FILE) or torch.onnx.export, and pass that."
    )


def onnx_export(path: Path) -> Export:
    """Take an ONNX file with the files of its external data.

    Raises
    ------
    DeploymentRefused
        It is no ONNX file, or its external data are missing or outside its directory.
    """
    return Export(files=onnx_files(path), backend="onnxruntime", onnx=path, source="ONNX file")


def onnx_files(path: Path) -> dict[str, Path]:
    """Return an ONNX file and those of its external data, by their paths within a version."""
    try:
        model = OnnxFile.read(path)
    except ConfigurationError as error:
        raise DeploymentRefused(str(error)) from error
    files = {"model.onnx": path}
    for location in model.external_data:
        files[_within(path, location)] = path.parent / location
    return files


def _within(path: Path, location: str) -> str:
    """Check that external data are a file beside the ONNX file, or in a directory there."""
    parts = location.split("/")
    if not location or "\\" in location or any(part in ("", ".", "..") or ":" in part for part in parts):
        raise DeploymentRefused(
            f"The external data of {path.name} are at {location!r}. Expected a relative path inside its directory: "
            "save it again with onnx.save(model, FILE, save_as_external_data=True)."
        )
    if location == "model.onnx" or len(location) > 200 or not location.isprintable():
        raise DeploymentRefused(
            f"The external data of {path.name} are in a file called {location!r}. Expected another name, such as "
            "model.onnx.data."
        )
    file = path.parent / location
    if not file.is_file():
        raise DeploymentRefused(
            f"{path.name} keeps weights in {location!r}, and there is no such file in {path.parent}. Expected it "
            "beside the ONNX file: copy both together."
        )
    if not _is_within(file, path.parent):
        raise DeploymentRefused(
            f"The external data of {path.name}, {location!r}, are a link that leaves {path.parent}. Expected a file "
            "there: replace the link by a copy."
        )
    return location


def _is_within(path: Path, directory: Path) -> bool:
    """Whether a path is inside a directory after every link is followed; a link to itself never is."""
    return Path(os.path.realpath(directory)) in Path(os.path.realpath(path)).parents


def files_inside(directory: Path) -> dict[str, Path]:
    """Return the files of a directory by their relative paths.

    Raises
    ------
    DeploymentRefused
        A link leaves the directory, something is neither a file nor a directory, or there are too many.
    """
    found: dict[str, Path] = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if not _is_within(path, directory):
            raise DeploymentRefused(
                f"{path} is a link that leaves {directory}. Expected files there: replace the link by a copy."
            )
        if path.is_dir():
            if path.is_symlink():
                raise DeploymentRefused(f"{path} is a link to a directory. Expected a directory itself.")
            continue
        if not path.is_file():
            raise DeploymentRefused(f"{path} is neither a file nor a directory. Expected files alone: remove it.")
        found[name] = path
        if len(found) > _MOST_FILES:
            raise DeploymentRefused(f"{directory} has more than {_MOST_FILES:,} files. Expected a model's directory.")
    return found


def saved_model_export(directory: Path) -> Export:
    """Take a TensorFlow SavedModel."""
    return Export(
        files={f"model.savedmodel/{name}": path for name, path in files_inside(directory).items()},
        backend="tensorflow",
        source="TensorFlow SavedModel",
        remarks=(
            (
                "A SavedModel is served as it is and cannot be checked here. To have it checked, convert it: "
                f"pip install tf2onnx, python -m tf2onnx.convert --saved-model {directory} --output model.onnx, and "
                "deploy the ONNX file."
            ),
        ),
    )


KINDS = (
    "an ONNX file, a torch network, a TorchScript or torch.export file, a fitted scikit-learn, XGBoost or LightGBM "
    "estimator, a SavedModel directory, or a directory of a Triton repository with one model"
)
