"""What servers say of their models, as far as they let themselves be asked.

Some list no models, or tell no configuration: Triton restricts groups of calls with ``--grpc-restricted-protocol``,
and an edge proxy may let only a few pass. Inference and metadata are enough. What the metadata lack is how large a
batch may be, the recipe and the class labels; the first is found out, and nothing is guessed of the others.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from eaf_inference.catalogue import ModelRow, ModelTable, config_of, describe, index_of, metadata_of
from eaf_inference.errors import (
    BadReply,
    ConfigurationError,
    InferenceError,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
)
from eaf_inference.inference.pipeline import Question

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import TypeAlias

    from eaf_inference.inference.spec import ModelSpec
    from eaf_inference.queue_times import QueueTimes

    Ask: TypeAlias = Callable[..., list[Any]]  # questions -> answers

__all__ = ["about", "index", "spec_of", "statistics", "table"]

_LARGEST_BATCH = re.compile(r"batch-size must be <= (\d+)")
_BEYOND = (1 << 31) - 1  # rows: more than any model's max_batch_size, and what Triton can count
_BYTES = {"BYTES": "TYPE_STRING"}  # the one data type that has another name in a configuration


def index(ask: Ask, where: str, known: Collection[tuple[str, str]]) -> tuple[list[Any], str]:
    """The versions of models on a server, and why these are not all.

    Parameters
    ----------
    ask : callable
        Gives the answers to some questions.
    where : str
        The server's URL.
    known : collection of (str, str)
        Models and versions that were used already, for a server that lists none.
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
    return rows, f'{shown} server does not list its models ({why}). Name the one that you want: triton.model("NAME").'


def statistics(ask: Ask) -> Any | None:
    """A server's counters; None where it does not give them."""
    from eaf_inference.inference import protocol

    replies = _allowed(ask, Question("ModelStatistics", protocol.ModelStatisticsRequest()))
    return None if replies is None else replies[0]


def table(ask: Ask, where: str, known: Collection[tuple[str, str]], queue_times: QueueTimes) -> ModelTable:
    """A server's models, as far as it tells of them."""
    rows, remark = index(ask, where, known)
    rows = sorted(rows, key=lambda entry: (entry.name, entry.version))
    ready = [entry for entry in rows if entry.state == "READY"]
    replies = _allowed(ask, *(_config(entry.name, entry.version) for entry in ready))
    specs: dict[tuple[str, str], ModelSpec | None] = {}
    if replies is not None:
        for entry, reply in zip(ready, replies, strict=True):
            specs[entry.name, entry.version] = describe(config_of(reply, entry.name, where), entry.version)
    else:
        described = _allowed(ask, *(_metadata(entry.name, entry.version) for entry in ready)) or []
        for entry, reply in zip(ready, described, strict=False):
            config = _as_config(metadata_of(reply, entry.name, where), batched=False)
            specs[entry.name, entry.version] = describe(config, entry.version)
        remark = f"{remark} Recipes and class labels are not shown: the server does not tell configurations.".strip()
    keys = [(entry.name, entry.version) for entry in rows]
    found = ModelTable(
        ModelRow.of(entry, specs.get(key), queue_times.of(*key), used=key in known)
        for key, entry in zip(keys, rows, strict=True)
    )
    found.remark = remark
    return found


def about(ask: Ask, where: str, name: str, version: str) -> tuple[list[Any], str]:
    """The rows of a server's index, and where it shows none those about one model, and why."""
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
        return [entry(name=name, version=version, state="READY")]  # not known here; an inference will show it
    return [entry(name=name, version=each, state="READY") for each in ([version] if version else metadata.versions)]


def spec_of(ask: Ask, where: str, name: str, version: str, *, preprocess: str | None) -> ModelSpec:
    """What a model takes and gives: from its configuration, or else from its metadata.

    Raises
    ------
    ConfigurationError
        The server tells neither, or the model is of a kind that this client does not serve.
    """
    from eaf_inference.inference.spec import ModelSpec

    try:
        [reply] = ask(_config(name, version))
    except InferenceError as error:
        if not error.restricted:
            raise
        why = error.reason
    else:
        return ModelSpec.from_config(config_of(reply, name, where), version, preprocess=preprocess)
    replies = _allowed(ask, _metadata(name, version))
    if replies is None:
        raise ConfigurationError(
            f"{where} tells neither the configuration of {name!r} nor its metadata ({why}), so that its inputs are "
            "not known. Ask the server's operators to allow ModelMetadata."
        )
    metadata = metadata_of(replies[0], name, where)
    plain = ModelSpec.from_config(_as_config(metadata, batched=False), version)  # one that is not served stops here
    tensors = (*plain.inputs, *plain.outputs)
    largest = 0
    if all(tensor.shape[:1] == (-1,) for tensor in tensors):
        largest = _largest_batch(ask, plain)
    config = _as_config(metadata, batched=largest > 0)
    config.max_batch_size = largest
    return ModelSpec.from_config(config, version, preprocess=preprocess, unread=why)


def _largest_batch(ask: Ask, spec: ModelSpec) -> int:
    """How many rows a batch of the model may have; 0 where it takes no batch, or none can be told.

    Metadata show the batch axis as they show any other of variable length, and rows that were cut apart along an axis
    of another kind would have wrong scores. So Triton is asked for a batch that is too large: it names the limit, if
    there is one. The request has more axes than the model takes, so that it never runs. Without a limit, every array
    is sent as it is given.
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
    """Metadata in the form of a configuration; without the first axis of all tensors where that is the batch's."""
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
    """The answers; None where the server does not let such questions pass."""
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
