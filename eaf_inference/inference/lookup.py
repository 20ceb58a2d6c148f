"""Ask servers about their models, with whatever calls they allow.

Some servers list no models, or show no configuration: Triton can restrict groups of calls
(``--grpc-restricted-protocol``), and an edge proxy may let only a few pass. Inference and metadata are enough. The
metadata lack the largest batch size, which a test request finds, and the recipe and class labels, which are not
guessed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from eaf_inference.errors import (
    BadReply,
    ConfigurationError,
    InferenceError,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
)
from eaf_inference.inference.pipeline import Question
from eaf_inference.inference.repository import ModelRow, ModelTable, config_of, index_of, metadata_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import TypeAlias

    from eaf_inference.inference.deployment_facts import DeploymentFacts
    from eaf_inference.inference.parameters import Chosen
    from eaf_inference.inference.queue_times import QueueTimes
    from eaf_inference.inference.spec import ModelSpec

    Ask: TypeAlias = Callable[..., list[Any]]  # questions -> answers
    Described: TypeAlias = tuple[ModelSpec | InferenceError, DeploymentFacts | None]

__all__ = ["about", "index", "loading", "spec_of", "statistics", "table", "unloading"]

_LARGEST_BATCH = re.compile(r"batch-size must be <= (\d+)")
_OF_ONE_MODEL = (BadReply, ConfigurationError, InvalidInput, ModelNotFound, ModelNotReady)
_BEYOND = (1 << 31) - 1  # rows: more than any model's max_batch_size, and still an int32 for Triton
_BYTES = {"BYTES": "TYPE_STRING"}  # the only data type with another name in configurations


def index(ask: Ask, where: str, known: Collection[tuple[str, str]]) -> tuple[list[Any], str]:
    """Return the versions of models on a server, and a remark if the list is incomplete.

    Parameters
    ----------
    ask : callable
        Sends questions and returns the answers.
    where : str
        The server's URL.
    known : collection of (str, str)
        Models and versions used so far; they are listed if the server lists none.
    """
    from eaf_inference.inference import protocol

    entry = protocol.RepositoryIndexResponse.ModelIndex
    try:
        return index_of(ask(Question("RepositoryIndex", protocol.RepositoryIndexRequest()))[0], where), ""
    except InferenceError as error:
        if not error.restricted:
            raise
        why = error.reason
    counted = statistics(ask)
    if counted is not None:
        rows = [entry(name=each.name, version=each.version, state="READY") for each in counted.model_stats]
        return rows, f"Only ready models are shown: the server does not list the others ({why})."
    rows = [entry(name=name, version=version, state="READY") for name, version in sorted(known)]
    shown = "Only models that you have used are shown: the" if rows else "The"
    return rows, f'{shown} server does not list its models ({why}). Name the one you want: triton.model("NAME").'


def statistics(ask: Ask) -> Any | None:
    """Return a server's counters; None if it does not show them."""
    from eaf_inference.inference import protocol

    replies = _allowed(ask, Question("ModelStatistics", protocol.ModelStatisticsRequest()))
    return None if replies is None else replies[0]


def table(ask: Ask, where: str, known: Collection[tuple[str, str]], queue_times: QueueTimes) -> ModelTable:
    """Return a server's models, as far as it shows them."""
    rows, remark = index(ask, where, known)
    rows = sorted(rows, key=lambda entry: (entry.name, entry.version))
    ready = [entry for entry in rows if entry.state == "READY"]
    found = _described(ask, where, ready)
    if found is None:
        found = _described(ask, where, ready, by_metadata=True) or {}
        remark = f"{remark} Recipes and class labels are unknown: the server does not show configurations.".strip()
    nothing: tuple[None, None] = (None, None)

    def row(entry: Any) -> ModelRow:
        key = entry.name, entry.version
        spec, deployed = found.get(key, nothing)
        queue, last_used = queue_times.of(*key), queue_times.last_used(*key)
        return ModelRow.of(entry, spec, queue, used=key in known, last_used=last_used, deployed=deployed)

    made = ModelTable(map(row, rows))
    made.remark = remark
    return made


def _described(
    ask: Ask, where: str, entries: Sequence[Any], *, by_metadata: bool = False
) -> dict[tuple[str, str], Described] | None:
    """Return each model or why it cannot be used, and how it was deployed; None if the server forbids to ask."""
    from eaf_inference.inference.deployment_facts import deployment_facts
    from eaf_inference.inference.spec import ModelSpec

    question = _metadata if by_metadata else _config
    try:
        replies = _each(ask, [question(entry.name, entry.version) for entry in entries])
    except InferenceError as error:
        if error.restricted:
            return None
        raise
    found: dict[tuple[str, str], Described] = {}
    for entry, reply in zip(entries, replies, strict=True):
        deployed = None
        try:
            if isinstance(reply, InferenceError):
                raise reply
            if by_metadata:
                config = _as_config(metadata_of(reply, entry.name, where), batched=False)
            else:
                config = config_of(reply, entry.name, where)
                deployed = deployment_facts(config)
            found[entry.name, entry.version] = ModelSpec.from_config(config, entry.version), deployed
        except _OF_ONE_MODEL as error:
            found[entry.name, entry.version] = error, deployed
    return found


def _each(ask: Ask, questions: Sequence[Question]) -> list[Any]:
    """Return the answers, and in place of an answer the error that only this question has."""
    try:
        return ask(*questions)
    except _OF_ONE_MODEL as error:
        if error.restricted:
            raise
        if len(questions) == 1:
            return [error]
    half = len(questions) // 2
    return [*_each(ask, questions[:half]), *_each(ask, questions[half:])]


def about(ask: Ask, where: str, name: str, version: str) -> tuple[list[Any], str]:
    """Return a server's index; if the server shows none, rows about one model, and the reason."""
    from eaf_inference.inference import protocol

    try:
        return index_of(ask(Question("RepositoryIndex", protocol.RepositoryIndexRequest()))[0], where), ""
    except InferenceError as error:
        if not error.restricted:
            raise
        return _about_one(ask, where, name, version), error.reason


def _about_one(ask: Ask, where: str, name: str, version: str) -> list[Any]:
    from eaf_inference.inference import protocol

    entry = protocol.RepositoryIndexResponse.ModelIndex
    try:
        metadata = metadata_of(ask(_metadata(name, version))[0], name, where)
    except ModelNotFound:
        return []
    except ModelNotReady as error:
        return [entry(name=name, version=version, state="UNAVAILABLE", reason=str(error))]
    except InferenceError as error:
        if not error.restricted:
            raise
        return [entry(name=name, version=version, state="READY")]  # unknown; an inference will show it
    return [entry(name=name, version=each, state="READY") for each in ([version] if version else metadata.versions)]


def spec_of(ask: Ask, where: str, name: str, version: str, *, chosen: Chosen) -> ModelSpec:
    """Return what a model takes and gives, from its configuration or else from its metadata.

    Raises
    ------
    ConfigurationError
        The server shows neither, or this client does not support the kind of model.
    """
    from eaf_inference.inference.label_files import with_class_names
    from eaf_inference.inference.spec import ModelSpec

    try:
        [reply] = ask(_config(name, version))
    except InferenceError as error:
        if not error.restricted:
            raise
        why = error.reason
    else:
        config = config_of(reply, name, where)
        return with_class_names(ask, ModelSpec.from_config(config, version, chosen=chosen), config)
    replies = _allowed(ask, _metadata(name, version))
    if replies is None:
        raise ConfigurationError(
            f"{where} shows neither the configuration of {name!r} nor its metadata ({why}), so its inputs are "
            "unknown. Ask the server's operators to allow ModelMetadata."
        )
    metadata = metadata_of(replies[0], name, where)
    plain = ModelSpec.from_config(_as_config(metadata, batched=False), version)  # raises if unsupported
    tensors = (*plain.inputs, *plain.outputs)
    largest = 0
    if all(tensor.shape[:1] == (-1,) for tensor in tensors):
        largest = _largest_batch(ask, plain)
    config = _as_config(metadata, batched=largest > 0)
    config.max_batch_size = largest
    return ModelSpec.from_config(config, version, chosen=chosen, unread=why)


def _largest_batch(ask: Ask, spec: ModelSpec) -> int:
    """Return the largest batch that the model takes, in rows; 0 if it takes no batch or the limit is unknown.

    Metadata do not distinguish the batch axis from other axes of variable length, and cutting along one of those
    would give wrong scores. So this sends a batch that is too large, and Triton's refusal names the limit, if there
    is one. The request has more axes than the model takes, so it never runs. Without a limit, arrays are sent whole.
    """
    from eaf_inference.inference import protocol

    request = protocol.ModelInferRequest(model_name=spec.name, model_version=spec.version)
    for tensor in spec.inputs:
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=[_BEYOND, *(1 for _ in tensor.shape), 1])
        request.raw_input_contents.append(b"")
    try:
        ask(Question("ModelInfer", request, f"model {spec.name!r}"))
    except (InvalidInput, BadReply) as error:
        named = _LARGEST_BATCH.search(str(error))
        return int(named[1]) if named else 0
    return 0


def _as_config(metadata: Any, *, batched: bool) -> Any:
    """Convert metadata to a configuration; if `batched`, without the first axis of each tensor."""
    from eaf_inference.inference import protocol

    config = protocol.ModelConfig(name=metadata.name)
    types = protocol.ModelInput.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_name
    for ours, theirs in ((config.input, metadata.inputs), (config.output, metadata.outputs)):
        for tensor in theirs:
            name = _BYTES.get(tensor.datatype, f"TYPE_{tensor.datatype}")
            kind = types[name].number if name in types else 0  # TYPE_INVALID
            ours.add(name=tensor.name, data_type=kind, dims=tensor.shape[batched:])
    return config


def _allowed(ask: Ask, *questions: Question) -> Sequence[Any] | None:
    """Return the answers; None if the server forbids such calls."""
    try:
        return ask(*questions)
    except InferenceError as error:
        if error.restricted:
            return None
        raise


def _config(name: str, version: str) -> Question:
    from eaf_inference.inference import protocol

    return Question("ModelConfig", protocol.ModelConfigRequest(name=name, version=version), f"model {name!r}")


def _metadata(name: str, version: str) -> Question:
    from eaf_inference.inference import protocol

    return Question("ModelMetadata", protocol.ModelMetadataRequest(name=name, version=version), f"model {name!r}")


def loading(name: str) -> Question:
    """Return the request to load a model from the server's repository."""
    from eaf_inference.inference import protocol

    return Question("RepositoryModelLoad", protocol.RepositoryModelLoadRequest(model_name=name), f"model {name!r}")


def unloading(name: str) -> Question:
    """Return the request to unload a model."""
    from eaf_inference.inference import protocol

    message = protocol.RepositoryModelUnloadRequest(model_name=name)
    return Question("RepositoryModelUnload", message, f"model {name!r}")
