"""Check a model without running it: name, files, configuration, and the ONNX file against the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eaf_inference._text import did_you_mean, printable
from eaf_inference.deploy.config_text import parsed
from eaf_inference.deploy.file_checks import MODEL_FILES, external_data_findings, file_findings
from eaf_inference.deploy.findings import ERROR, Finding, Findings
from eaf_inference.deploy.names import checked_served_name
from eaf_inference.deploy.published import names_stand_in
from eaf_inference.deploy.tensor_checks import opset_findings, own_opset_limit, tensor_findings
from eaf_inference.errors import ConfigurationError
from eaf_inference.inference.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from eaf_inference.deploy.exported import Export
    from eaf_inference.deploy.onnx_file import OnnxFile

__all__ = ["backend_of", "static_findings"]

_BACKENDS = (
    *MODEL_FILES,
    *("ensemble", "fil", "dali", "identity", "repeat", "square", "vllm", "tensorrtllm", "dlcompiler"),
)
# Triton's older names, in `platform`
_PLATFORMS = {
    "onnxruntime_onnx": "onnxruntime",
    "pytorch_libtorch": "pytorch",
    "tensorflow_savedmodel": "tensorflow",
    "tensorflow_graphdef": "tensorflow",
    "tensorrt_plan": "tensorrt",
    "ensemble": "ensemble",
}
# Beginnings of the client's own messages about parts of a configuration -> the code, and what to change
_PARTS: tuple[tuple[str, str, str], ...] = (
    (
        "labels of",
        "labels",
        "Give one name for each entry of the output's last axis: labels=[…], or the parameter 'labels'.",
    ),
    (
        "features of",
        "features",
        "Give one name for each position on the input's fixed axis: features=[…], or the parameter 'features'.",
    ),
    (
        "recipe of",
        "recipe",
        "Make input_names and var_names of the recipe those of the export (input_names=[…]), in the channels' order.",
    ),
    (
        "'collections' of",
        "collections",
        "Correct collections={…} in triton.deploy, or the parameter 'collections' in config.pbtxt.",
    ),
    ("'graph' of", "graph", "Correct graph={…} in triton.deploy, or the parameter 'graph' in config.pbtxt."),
    ("padded lengths of", "lengths", "Correct the parameter 'lengths' in config.pbtxt."),
    ("'pad_batches_to' of", "batch-sizes", "Correct the parameter 'pad_batches_to' in config.pbtxt."),
    ("batch", "batch-axis", "Correct the parameter 'batch_axis' or the dims in config.pbtxt."),
)


def static_findings(
    name: str,
    export: Export,
    onnx: OnnxFile | None,
    config_text: str,
    *,
    opset_limit: int | None = None,
    allow_python: bool = False,
    most_bytes: int = 0,
) -> Findings:
    """Check a model's name, files and configuration.

    Parameters
    ----------
    name : str
        Under which it is, or would be, served.
    export : Export
        The files of one version, and the configuration that their author wrote, if there is one.
    onnx : OnnxFile or None
        What the ONNX file says of itself; None if the model is none.
    config_text : str
        The ``config.pbtxt``.
    opset_limit : int, optional
        The newest opset that the server's ONNX Runtime reads, such as 21 for Triton 2.51: the facility's setting
        `onnx_opset`. By default that of the ONNX Runtime installed here, since a server does not tell.
    allow_python : bool, optional
        The operators allow models that run Python code on the server.
    most_bytes : int, optional
        The largest version; 0 if there is no limit.

    Returns
    -------
    Findings
        Empty if there is nothing to say.
    """
    found = Findings(_name_findings(name))
    try:
        config = parsed(config_text)
    except ConfigurationError as error:
        message = str(error)
        what, _, expected = message.partition(" Expected ")
        found.append(
            Finding(
                "config-unreadable",
                ERROR,
                f"{name!r}: {what.rstrip(':')}.",
                expected.rstrip("."),
                "Correct this place of config.pbtxt, or delete the file and let triton.deploy write one.",
            )
        )
        return found
    found += _config_findings(name, config, allow_python=allow_python)
    if not config.name:
        config.name = printable(name)  # as Triton does
    backend = backend_of(config) or export.backend
    of_files = []
    if backend != "ensemble":  # it has no files
        of_files = file_findings(
            name,
            export.files,
            backend,
            config.default_model_filename,
            allow_python=allow_python or backend == "python",
            most_bytes=most_bytes,
        )
    found += of_files
    if onnx is None or of_files:
        if not found.errors:
            found += _spec_findings(config)
        return found
    place = next((path for path, file in export.files.items() if file == export.onnx), "model.onnx")
    found += external_data_findings(name, export.files, onnx, place)
    found += opset_findings(name, onnx, own_opset_limit() if opset_limit is None else opset_limit)
    if not found.errors:
        found += tensor_findings(name, onnx, config, own_config=bool(export.config))
    if not found.errors:
        found += _spec_findings(config)
    return found


def backend_of(config: Any) -> str:
    """Return Triton's name of the backend that serves a model; empty if the configuration does not say."""
    if config.HasField("ensemble_scheduling"):
        return "ensemble"
    return str(config.backend or _PLATFORMS.get(config.platform, ""))


def _name_findings(name: str) -> list[Finding]:
    try:
        checked_served_name(name)
    except ConfigurationError:
        return [
            Finding(
                "model-name",
                ERROR,
                f"The model's name is {name[:130]!r}.",
                "at most 100 letters, digits, '_', '-' and '.', with a letter or a digit first and no '..'",
                "Rename the model, for instance to 'my_tagger'.",
            )
        ]
    return []


def _config_findings(name: str, config: Any, *, allow_python: bool) -> list[Finding]:
    """Check what the configuration alone shows."""
    found = []
    if config.name and config.name != name:
        found.append(
            Finding(
                "config-name",
                ERROR,
                f"config.pbtxt calls the model {config.name[:130]!r}.",
                f"{name!r}, as its directory is called",
                f'Write name: "{name}" in config.pbtxt, or leave the name out.',
            )
        )
    backend = backend_of(config)
    if names_stand_in(config.backend or config.platform):
        found.append(
            Finding(
                "upload-unfinished",
                ERROR,
                f"The first upload of {name!r}, or its removal, has not ended.",
                "a configuration, which is written last",
                "Wait for its end, or deploy the model again.",
            )
        )
    elif config.platform and config.platform not in (*_PLATFORMS, *_BACKENDS):
        found.append(_unknown_backend(name, "platform", config.platform, list(_PLATFORMS)))
    elif backend and backend not in _BACKENDS:
        found.append(_unknown_backend(name, "backend", backend, list(_BACKENDS)))
    elif backend == "python" and not allow_python:
        found.append(
            Finding(
                "python-backend",
                ERROR,
                f"{name!r} uses the Python backend, which runs any code on the server.",
                "a backend that only computes, such as onnxruntime",
                "Export the network and its preprocessing to ONNX; or ask the operators to allow models in Python, "
                "and pass --allow-python.",
            )
        )
    found += _reach(name, config, allow_python=allow_python)
    if config.max_batch_size < 0:
        found.append(
            Finding(
                "max-batch-size",
                ERROR,
                f"max_batch_size of {name!r} is {config.max_batch_size}.",
                "0 for a model without a batch axis, or the most rows of a request",
                "Write max_batch_size: 1024 in config.pbtxt, or another number above 0.",
            )
        )
    return [*found, *_tensor_names(name, (*config.input, *config.output))]


def _reach(name: str, config: Any, *, allow_python: bool) -> Iterator[Finding]:
    """Yield findings about libraries that the server would load, and files that are not the model's."""
    for field in () if allow_python else ("runtime", "model_operations", "model_repository_agents"):
        if any(each.name == field for each, _ in config.ListFields()):
            yield Finding(
                "code",
                ERROR,
                f"config.pbtxt of {name!r} has {field}, by which the server loads a library.",
                "a model without code",
                f"Delete {field} from config.pbtxt; or ask the operators to allow models with code.",
            )
    files = [config.default_model_filename, *config.cc_model_filenames.values()]
    files += [each.label_filename for each in config.output]
    files += [each.input_data_file for warm_up in config.model_warmup for each in warm_up.inputs.values()]
    for file in files:
        if file.startswith("/") or ".." in file.split("/"):
            yield Finding(
                "file-outside",
                ERROR,
                f"config.pbtxt of {name!r} names the file {file[:200]!r}.",
                "files of the model itself, by their names",
                "Put the file beside the others of the model, and write its name alone.",
            )
            return


def _unknown_backend(name: str, field: str, value: str, known: list[str]) -> Finding:
    return Finding(
        "unknown-backend",
        ERROR,
        f"The {field} of {name!r} is {value[:130]!r}.{did_you_mean(value, known)}",
        f"one of {', '.join(known)}",
        'Write backend: "onnxruntime" for an ONNX file or backend: "pytorch" for TorchScript in config.pbtxt; a '
        "backend of the facility's own needs its operators.",
    )


def _tensor_names(name: str, tensors: Iterable[Any]) -> list[Finding]:
    wrong = [
        each.name
        for each in tensors
        if not each.name.isprintable() or each.name != each.name.strip() or not each.name
    ]
    return [
        Finding(
            "tensor-name",
            ERROR,
            f"An input or output of {name!r} is called {each[:130]!r}.",
            "a name of printable characters without spaces around it",
            "Export it with input_names=[…] and output_names=[…], and write the same names in config.pbtxt.",
        )
        for each in wrong
    ]


def _spec_findings(config: Any) -> list[Finding]:
    """Read the configuration as the client does, and return its complaint."""
    if not config.input or not config.output:  # Triton completes these from the file
        return []
    try:
        ModelSpec.from_config(config, "1")
    except ConfigurationError as error:
        return [_as_finding(str(error))]
    return []


def _as_finding(message: str) -> Finding:
    """Return a message of the client, "what. Expected this. Do that.", as a finding."""
    what, _, rest = message.partition(" Expected ")
    expected = rest.partition(". ")[0].rstrip(".")
    code, do = next(
        ((code, do) for start, code, do in _PARTS if start in message),
        ("client-cannot-use", "Change the configuration or the export accordingly."),
    )
    return Finding(code, ERROR, what, expected or "a model that the client can call", do)
