"""Check the files of a model's version: whole, of the right name, within the version, and no code or pickle.

Nothing is loaded or unpacked: names, sizes and first bytes tell.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from eaf_inference.deploy.archives import names_in
from eaf_inference.deploy.findings import ERROR, WARNING, Finding
from eaf_inference.deploy.versions import is_storable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from eaf_inference.deploy.onnx_file import OnnxFile

__all__ = ["MODEL_FILES", "external_data_findings", "file_findings"]

# Triton's backend -> the files one of which it loads, unless `default_model_filename` names another
MODEL_FILES = {
    "onnxruntime": ("model.onnx",),
    "pytorch": ("model.pt",),
    "tensorflow": ("model.savedmodel", "model.graphdef"),
    "tensorrt": ("model.plan",),
    "openvino": ("model.xml", "model.onnx"),
    "python": ("model.py",),
}
_LARGEST_PROTOBUF = (2 << 30) - 1  # bytes of a protobuf message
_PARTIAL = (".part", ".partial", ".filepart", ".tmp", ".temp", ".crdownload", ".swp", "~")
_CODE = (".py", ".pyc", ".sh", ".so", ".dll")
_PICKLES = (".pkl", ".pickle", ".joblib", ".dill")
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".zst")
_PICKLE_START = b"\x80"  # protocol 2 and later
_ZIP_START = b"PK\x03\x04"


def file_findings(
    name: str, files: Mapping[str, Path], backend: str, filename: str, *, allow_python: bool, most_bytes: int
) -> list[Finding]:
    """Check the files of one version.

    Parameters
    ----------
    name : str
        The model's.
    files : mapping of str to pathlib.Path
        Path within the version -> file.
    backend : str
        Triton's name; empty if it is not known.
    filename : str
        The ``default_model_filename`` of the configuration, or an empty text.
    allow_python : bool
        The operators allow models that run Python code on the server.
    most_bytes : int
        The largest version; 0 if there is no limit.
    """
    if not files:
        return [
            Finding(
                "empty-version",
                ERROR,
                f"A version of {name!r} has no files.",
                f"the model's file, such as {MODEL_FILES.get(backend, ('model.onnx',))[0]}",
                "Upload the model's files into the version, or remove the empty directory.",
            )
        ]
    found = [
        finding
        for path, file in sorted(files.items())
        for finding in _of_one(name, path, file, allow_python=allow_python)
    ]
    found += _named(name, files, backend, filename)
    size = sum(file.stat().st_size for file in files.values() if file.is_file())
    if most_bytes and size > most_bytes:
        found.append(
            Finding(
                "too-large",
                ERROR,
                f"The files of {name!r} have {size:,} bytes.",
                f"at most {most_bytes:,} bytes",
                "Leave out what is not needed to infer (optimiser states, checkpoints), or convert the weights to "
                "half precision: net.half() before the export.",
            )
        )
    return found


def _of_one(name: str, path: str, file: Path, *, allow_python: bool) -> Iterator[Finding]:
    """Check one file by its name, its size and its first bytes."""
    suffix = PurePosixPath(path).suffix.lower()
    what = f"{path} of {name!r}"
    if not is_storable(path):
        yield Finding(
            "file-name",
            ERROR,
            f"{what} has a name that cannot be stored.",
            "parts of at most 200 characters, in UTF-8, without control characters, '*', '?', '[', ']' and '\\\\'",
            'Rename the file; external data get their name by onnx.save(…, location="model.onnx.data").',
        )
    elif not file.is_file():
        yield Finding(
            "file-missing",
            ERROR,
            f"{what} is no file that can be read.",
            "regular files",
            "Copy the file itself into the version, in place of a link or a device.",
        )
    elif path.lower().endswith(_PARTIAL):
        yield Finding(
            "partial-upload",
            ERROR,
            f"{what} is what an upload that stopped has left.",
            "complete files only",
            "Delete it and upload the file again; triton.deploy writes the configuration last, so that a stopped "
            "upload is never loaded.",
        )
    elif not allow_python and (suffix in _PICKLES or (suffix in (".pt", ".pth") and _is_pickle(file))):
        yield Finding(
            "pickle",
            ERROR,
            f"{what} is a pickle, which can run any code when it is loaded.",
            "a format that holds no code of Python",
            "Export the model, torch.onnx.export or torch.jit.script(net).save(PATH) in place of torch.save and "
            "skl2onnx in place of joblib, and delete the pickle.",
        )
    elif (suffix in _CODE or ".so." in path.lower()) and not allow_python:
        yield Finding(
            "code",
            ERROR,
            f"{what} is code, which would run on the server.",
            "a model without code",
            "Export the network and its preprocessing to ONNX and delete the file; or ask the operators to allow "
            "models in Python.",
        )
    elif suffix in _ARCHIVES:
        yield Finding(
            "archive",
            ERROR,
            f"{what} is an archive, and archives are not unpacked.",
            "the model's files themselves",
            "Unpack it into the version, look at what it holds, and delete the archive.",
        )
    elif file.stat().st_size == 0:
        yield Finding(
            "empty-file",
            ERROR,
            f"{what} has 0 bytes.",
            "a complete file",
            "Upload it again, and compare its size with the original's (ls -l).",
        )
    elif suffix in (".onnx", ".pb") and file.stat().st_size > _LARGEST_PROTOBUF:
        yield Finding(
            "protobuf-limit",
            ERROR,
            f"{what} has {file.stat().st_size:,} bytes.",
            "less than 2 GiB, the largest protobuf message",
            "Keep the weights in a file of their own: torch.onnx.export(…, external_data=True), or "
            "onnx.save(model, PATH, save_as_external_data=True).",
        )
    elif suffix in (".pt", ".pth", ".pt2") and _starts(file, _ZIP_START) and names_in(file) is None:
        yield _truncated(what)


def _named(name: str, files: Mapping[str, Path], backend: str, filename: str) -> list[Finding]:
    """Check that the file which the backend loads is there."""
    expected = (filename,) if filename else MODEL_FILES.get(backend, ())
    if not expected or any(path in expected or path.partition("/")[0] in expected for path in files):
        return []
    shown = ", ".join(sorted(files)[:5])
    return [
        Finding(
            "model-file-missing",
            ERROR,
            f"A version of {name!r} has {shown}.",
            f"{' or '.join(expected)}, which the backend {backend or 'of Triton'} loads",
            f'Rename the model\'s file to {expected[0]}, or name it in config.pbtxt: default_model_filename: "…".',
        )
    ]


def external_data_findings(name: str, files: Mapping[str, Path], onnx: OnnxFile, path: str) -> list[Finding]:
    """Check the files in which an ONNX model keeps its weights.

    Parameters
    ----------
    path : str
        Of the ONNX file within the version; the others lie beside it.
    """
    if not onnx.is_contained:
        outside = ", ".join(repr(each) for each in onnx.external_data)
        return [
            Finding(
                "external-data-outside",
                ERROR,
                f"{name!r} keeps its weights outside of its version: {outside}.",
                "file names in the directory of the ONNX file",
                'Save it again with the weights beside it: onnx.save(onnx.load(PATH), "model.onnx", '
                'save_as_external_data=True, location="model.onnx.data").',
            )
        ]
    found = []
    for location, needed in onnx.external_data.items():
        file = files.get(str(PurePosixPath(path).parent / location))
        if file is None:
            found.append(
                Finding(
                    "external-data-missing",
                    ERROR,
                    f"{name!r} lacks the file {location!r}, which holds its weights.",
                    "the ONNX file and its weights in one directory",
                    f"Upload {location} too, under this name; or save the model in one file: "
                    "torch.onnx.export(…, external_data=False).",
                )
            )
        elif file.stat().st_size < needed:
            found.append(_truncated(f"{location} of {name!r}", f" of the {needed:,} that the model needs"))
    return found


def _truncated(what: str, of: str = "") -> Finding:
    return Finding(
        "truncated-file",
        ERROR,
        f"{what} is cut off{of and ': it has fewer bytes'}{of}.",
        "a complete file",
        "Upload it again, and compare its size with the original's (ls -l).",
    )


def left_over_versions(name: str, directories: list[str]) -> list[Finding]:
    """Return a finding about directories that are no versions."""
    if not directories:
        return []
    return [
        Finding(
            "version-name",
            WARNING,
            f"{name!r} has the directories {', '.join(directories)}, which Triton ignores.",
            "versions called 1, 2, 3 …, without leading zeros",
            "Rename the directory to a whole number, or remove it.",
        )
    ]


def _starts(file: Path, start: bytes) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(start)) == start


def _is_pickle(file: Path) -> bool:
    """Whether torch.save wrote this file: TorchScript has its code in the archive."""
    if _starts(file, _PICKLE_START):
        return True
    names = names_in(file) or ()
    has_code = any("/code/" in each or each.startswith("code/") for each in names)
    return any(each.endswith("data.pkl") for each in names) and not has_code
