"""Check the config.pbtxt of a user's model before Triton may read it.

A configuration decides what the server runs, and which files it reads. So a user's may name an allowed backend, one
version of her own model, and files in that version's directory; everything else that reaches out of the model is
refused. The result is the parsed message written again, so that Triton reads exactly what was checked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import MutableMapping, MutableSequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from eaf_facility.hub.store_files import harmful
from eaf_inference.deploy.names import owner_of
from eaf_inference.deploy.places import CLAIM
from eaf_inference.deploy.store import DEPLOYED
from eaf_inference.inference.parameters import DEPLOYMENT, PARAMETERS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

__all__ = ["LARGEST_CONFIG", "CheckedConfig", "RefusedConfig", "checked_config"]

LARGEST_CONFIG = 256 * 1024  # bytes

_PYTHON, _ENSEMBLE = "python", "ensemble"
_COMPILED = "torch_aoti"  # the platform of AOTInductor's packages, which hold compiled libraries
_PLATFORMS = {
    "onnxruntime": {"onnxruntime_onnx"},
    "pytorch": {"pytorch_libtorch", "libtorch", _COMPILED},
    "tensorflow": {"tensorflow_savedmodel", "tensorflow_graphdef"},
    "tensorrt": {"tensorrt_plan"},
}
# fields that run code, read other files or take other users' share; the words say what they do
_NEVER = {
    "runtime": "chooses the library that runs the model",
    "model_operations": "loads libraries of custom operations",
    "model_repository_agents": "runs agents when the model is loaded",
}
_PLAIN_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")
_ENVIRONMENT = re.compile(r"\$\$TRITON_MODEL_DIRECTORY/[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_FILE_FIELDS = {"default_model_filename", "label_filename", "data_file", "input_data_file"}
_OURS = {*PARAMETERS, DEPLOYMENT}  # these are free text
_PATH_LIKE = re.compile(r"[/\\]|\.\.|\$\$")
_PATH_KEY = re.compile(r"path|dir|file|librar|plugin|exec|env|url", re.IGNORECASE)
_THREADS = re.compile(r"thread", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,3}")
_FLAGS = {"true", "false", "yes", "no", "on", "off"}  # such as TF_USE_PER_SESSION_THREADS
# numbers for which Triton reserves memory or time while it loads the model
_MOST: dict[tuple[str, str], int] = {
    ("ModelDynamicBatching", "priority_levels"): 100,
    ("StrategyOldest", "max_candidate_sequences"): 1 << 16,
}
_MOST_INSTANCES = 16  # on one device, of all instance groups
_MOST_WARM_UPS = 1000  # of all warm-up requests, each as often as its count says
_MOST_ROWS = 1 << 20  # max_batch_size, and the batch sizes of warm-up requests
_MOST_NUMBERS = 1 << 28  # in one input of a warm-up request, and in all states of a sequence
_MOST_THREADS = 128


class RefusedConfig(ValueError):
    """A configuration that is not written; `code` is for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class CheckedConfig:
    """A configuration that may be written.

    Attributes
    ----------
    text : str
        The configuration, as Triton may read it.
    version : int
        The version that it serves.
    backend : str
    """

    text: str
    version: int
    backend: str


def checked_config(
    body: bytes,
    *,
    served_name: str,
    files: Collection[str],
    backends: Collection[str],
    python: bool,
) -> CheckedConfig:
    """Return the configuration if its owner may have it.

    Parameters
    ----------
    body : bytes
        Text of a config.pbtxt.
    served_name : str
        The model that it is for, an owner's.
    files : collection of str
        The files below the model's directory, such as ``3/model.onnx``.
    backends : collection of str
        Triton's names of the backends that every user may have, and ``ensemble``.
    python : bool
        Whether the owner may have models of the Python backend.

    Raises
    ------
    RefusedConfig
        It may not; the message says why.
    """
    config = _parsed(body)
    if config.name not in ("", served_name):
        raise RefusedConfig(
            "wrong_name",
            f"The configuration is for the model {config.name[:200]!r}, and it was sent for {served_name!r}. "
            "Remove the field name, or give it this value.",
        )
    config.name = served_name
    backend = _backend(config, backends, python=python)
    version = _version(config)
    _check_files(version, files, python=python)
    _check_fields(config, backend)
    _check_numbers(config)
    _check_steps(config, served_name)
    return CheckedConfig(_text(config), version, backend)


def _parsed(body: bytes) -> Any:
    from google.protobuf import text_format

    from eaf_inference.inference import protocol

    if len(body) > LARGEST_CONFIG:
        raise RefusedConfig(
            "too_large", f"The configuration has {len(body)} bytes. Expected at most {LARGEST_CONFIG}."
        )
    try:
        return text_format.Parse(body.decode("utf-8"), protocol.ModelConfig())
    except UnicodeDecodeError:
        raise RefusedConfig("not_a_config", "The configuration is not UTF-8 text.") from None
    except (text_format.ParseError, ValueError, RecursionError) as error:
        raise RefusedConfig(
            "not_a_config", f"The configuration cannot be read as Triton's config.pbtxt: {str(error)[:300]}."
        ) from None


def _text(config: Any) -> str:
    from google.protobuf import text_format

    return str(text_format.MessageToString(config, as_utf8=True))


def _backend(config: Any, backends: Collection[str], *, python: bool) -> str:
    """Return the backend: one of the allowed names, never one that Triton would choose by the model's files."""
    backend, platform = config.backend, config.platform
    if platform == _ENSEMBLE and not backend:
        backend = _ENSEMBLE
    elif not backend:
        raise RefusedConfig(
            "no_backend", 'The configuration names no backend. Expected one, such as backend: "onnxruntime".'
        )
    elif backend == _ENSEMBLE or platform not in ("", *_PLATFORMS.get(backend, ())):
        raise RefusedConfig(
            "wrong_platform",
            f"The platform {platform[:100]!r} does not belong to the backend {backend[:100]!r}. Remove the field "
            "platform.",
        )
    if (backend == _ENSEMBLE) != config.HasField("ensemble_scheduling"):
        raise RefusedConfig("wrong_platform", 'Only a model with platform: "ensemble" has ensemble_scheduling.')
    if (backend == _PYTHON or platform == _COMPILED) and not python:
        raise RefusedConfig(
            "backend_not_allowed",
            f"A model of the {'Python backend' if backend == _PYTHON else f'platform {_COMPILED}'} runs its own code "
            "on the server, and you are in none of the groups that this facility allows it. Deploy an ONNX model, or "
            "ask the facility's operators.",
        )
    if backend != _PYTHON and backend not in backends:
        allowed = ", ".join(sorted({*backends, *([_PYTHON] if python else [])}))
        raise RefusedConfig(
            "backend_not_allowed",
            f"This facility does not allow the backend {backend[:100]!r}. Expected one of {allowed}.",
        )
    return str(backend)


def _version(config: Any) -> int:
    versions = list(config.version_policy.specific.versions)
    if len(versions) != 1 or versions[0] < 1:
        raise RefusedConfig(
            "no_version",
            "The configuration does not name exactly one version. Expected, for version 3, "
            "version_policy: { specific: { versions: [3] } }.",
        )
    return int(versions[0])


def _check_files(version: int, files: Collection[str], *, python: bool) -> None:
    own = {f"{version}/{each}" for each in (CLAIM, DEPLOYED)}
    if not any(each.startswith(f"{version}/") and each not in own for each in files):
        raise RefusedConfig(
            "no_such_version", f"The store has no version {version} of this model. Upload its files first."
        )
    for each in sorted(files):
        if reason := harmful(each, python=python):
            raise RefusedConfig("harmful_file", f"The model has the file {each[:200]!r}, {reason}. Remove it.")


def _check_fields(config: Any, backend: str) -> None:
    for field, does in _NEVER.items():
        if _is_set(config, field):
            raise RefusedConfig("field_not_allowed", f"The field {field} is not allowed: it {does}. Remove it.")
    if any(group.HasField("rate_limiter") for group in config.instance_group):
        message = "The field rate_limiter is not allowed: it reserves resources of all models. Remove it."
        raise RefusedConfig("field_not_allowed", message)
    for name, value in _strings(config):
        if "\0" in value:
            raise RefusedConfig("not_a_config", f"The field {name} contains a NUL character.")
        if name in _FILE_FIELDS and value and not _is_plain(value):
            raise _outside(name, value)
    for value in config.cc_model_filenames.values():
        if not _is_plain(value):
            raise _outside("cc_model_filenames", value)
    for key, parameter in config.parameters.items():
        if key not in _OURS:
            _check_parameter(key, parameter.string_value, is_python=backend == _PYTHON)
    accelerators = config.optimization.execution_accelerators
    for each in (*accelerators.gpu_execution_accelerator, *accelerators.cpu_execution_accelerator):
        for key, value in each.parameters.items():
            _check_parameter(key, value, is_python=False)


def _check_parameter(key: str, value: str, *, is_python: bool) -> None:
    if is_python and key == "EXECUTION_ENV_PATH" and _ENVIRONMENT.fullmatch(value):
        return
    if _PATH_KEY.search(key) or _PATH_LIKE.search(value):
        raise RefusedConfig(
            "parameter_not_allowed",
            f"The parameter {key[:100]!r} is not allowed, because backends may read a file that it names. Remove it, "
            "or ask the facility's operators.",
        )
    if is_python or not _THREADS.search(key) or value.lower() in _FLAGS:  # its own code may start any number
        return
    if not (_NUMBER.fullmatch(value) and int(value) <= _MOST_THREADS):
        raise RefusedConfig(
            "too_large_a_number",
            f"The parameter {key[:100]!r} is {value[:100]!r}. Expected a number of threads, at most {_MOST_THREADS}.",
        )


def _check_numbers(config: Any) -> None:
    for message in _messages(config):
        for (kind, field), most in _MOST.items():
            if message.DESCRIPTOR.name == kind and getattr(message, field) > most:
                raise _too_large(f"{kind}.{field}", getattr(message, field), most)
    if config.max_batch_size > _MOST_ROWS:
        raise _too_large("max_batch_size", config.max_batch_size, _MOST_ROWS)
    instances: Counter[str] = Counter()
    for group in config.instance_group:
        for device in group.gpus or [f"kind {group.kind}"]:
            instances[str(device)] += max(1, group.count)
    if (most := max(instances.values(), default=0)) > _MOST_INSTANCES:
        raise _too_large("the number of instances on one device", most, _MOST_INSTANCES)
    states = config.sequence_batching.state
    shapes = [each.dims for state in states for each in (state, *state.initial_state)]
    if (numbers := sum(map(_numbers, shapes))) > _MOST_NUMBERS:
        raise _too_large("the size of a sequence's states", numbers, _MOST_NUMBERS)
    if (times := sum(max(1, each.count) for each in config.model_warmup)) > _MOST_WARM_UPS:
        raise _too_large("the number of warm-up requests", times, _MOST_WARM_UPS)
    for warm_up in config.model_warmup:
        if warm_up.batch_size > _MOST_ROWS:
            raise _too_large("ModelWarmup.batch_size", warm_up.batch_size, _MOST_ROWS)
        for each in warm_up.inputs.values():
            numbers = _numbers(each.dims) * max(1, warm_up.batch_size)
            if numbers > _MOST_NUMBERS:
                raise _too_large("the size of a warm-up request", numbers, _MOST_NUMBERS)


def _check_steps(config: Any, served_name: str) -> None:
    """Check that an ensemble uses its owner's own models: others' may be private, or be unloaded with it."""
    owner = owner_of(served_name)
    for step in config.ensemble_scheduling.step:
        if step.model_namespace or owner is None or owner_of(step.model_name) != owner:
            raise RefusedConfig(
                "not_your_model",
                f"The ensemble uses the model {step.model_name[:200]!r}. Expected your own models only, "
                f"{owner}.… with an empty model_namespace.",
            )


def _is_set(config: Any, field: str) -> bool:
    return any(descriptor.name == field for descriptor, _ in config.ListFields())


def _is_plain(value: str) -> bool:
    return _PLAIN_FILE.fullmatch(value) is not None and ".." not in value


def _outside(field: str, value: str) -> RefusedConfig:
    return RefusedConfig(
        "not_a_file_name",
        f"The field {field} is {value[:200]!r}. Expected the plain name of a file of the model, of letters, digits, "
        "'_', '-', '+' and '.'.",
    )


def _numbers(dims: Iterable[int]) -> int:
    return prod(max(1, dim) for dim in dims)


def _too_large(what: str, value: int, most: int) -> RefusedConfig:
    return RefusedConfig("too_large_a_number", f"{what} is {value}. Expected at most {most}.")


def _messages(message: Any) -> Iterator[Any]:
    """Yield a message and all messages inside it, except those in maps of plain values."""
    yield message
    for _, each in _values(message):
        if hasattr(each, "ListFields"):
            yield from _messages(each)


def _strings(message: Any) -> Iterator[tuple[str, str]]:
    """Yield the name and value of every text field, and keys and values of maps."""
    for each in _messages(message):
        for name, value in _values(each):
            if isinstance(value, str):
                yield name, value


def _values(message: Any) -> Iterator[tuple[str, Any]]:
    for descriptor, value in message.ListFields():
        if isinstance(value, MutableMapping):
            for key, each in value.items():
                yield descriptor.name, key
                yield descriptor.name, each
        elif isinstance(value, MutableSequence):
            for each in value:
                yield descriptor.name, each
        else:
            yield descriptor.name, value
