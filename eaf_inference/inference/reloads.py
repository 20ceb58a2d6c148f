"""Notice that a server's model is no longer the one that gave the earlier scores.

A Triton may load a model anew at any time: from files that were overwritten, with another configuration, or in
another version; and each replica at a time of its own. A small probe of every replica, before some work and after
it, tells.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from eaf_inference.errors import (
    BadReply,
    InferenceError,
    InvalidInput,
    ModelChanged,
    ModelNotFound,
    ModelNotReady,
    ServerUnavailable,
)
from eaf_inference.inference.config_hash import config_hash
from eaf_inference.inference.fingerprint import Fingerprint, Probed, recipe_hash
from eaf_inference.inference.pipeline import Limits, Pipeline, Question, ask
from eaf_inference.inference.probe import probe_of, sampled, shapes
from eaf_inference.inference.repository import config_of
from eaf_inference.inference.request import Inference, same_version

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from eaf_inference.inference.probe import Probe, Shape
    from eaf_inference.inference.spec import ModelSpec
    from eaf_inference.inference.transport import Channel

__all__ = ["differs", "fingerprint_of", "unchanged"]

_TOLERANCE = 1e-5  # of the largest score; float32 noise stays below 4e-7
_NOISE = 4.0  # times the change of a row's scores in a larger batch, as on a GPU that computes in TF32 …
_LARGEST_NOISE = 1e-2  # … up to here
_MANY = 64  # rows of that larger batch
_MOST_BYTES = 4 << 20  # of that larger batch
_BEHIND_ONE = 4  # probes sent to a server that may be a proxy in front of several
_SHORT = Limits(time_budget=1.0, request_timeout=5.0)  # for each of several replicas
_AFTER = 10.0  # seconds for a replica that has answered before
_verified: WeakKeyDictionary[Channel, Fingerprint] = (
    WeakKeyDictionary()
)  # what each served at the end of the latest work


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one replica tells about a model."""

    version: str
    config: str
    cached: bool  # it keeps replies, and gives them again
    outputs: list[Mapping[str, NDArray[Any]]]  # of each probe
    refused: str  # why it refuses the probe

    def noise(self, name: str) -> float:
        """Return the largest difference of an output among the probes, whose rows are the same."""
        first, *others = (each[name] for each in self.outputs[self.cached :])
        return max((_noise(first, other) for other in others), default=0.0)

    def difference(self, expected: Fingerprint, spec: ModelSpec) -> str:
        """Say in what this replica differs from a fingerprint; empty if it serves the same model."""
        found = Fingerprint(spec.name, self.version, self.config, recipe_hash(spec), remark=self.refused)
        if expected.probe is None or not self.outputs:
            return expected.difference(found)
        differences = []
        for outputs in self.outputs:
            scores = {name: sampled(outputs[name][: len(self.outputs[0][name])]) for name in expected.probe.scores}
            differences.append(expected.difference(replace(found, probe=replace(expected.probe, scores=scores))))
        if differences[0] and not any(differences[1:]) and self.cached:
            return (
                "its response cache has scores of an earlier model, and gives them again. Ask the server's operators "
                "to restart it, or to serve the model as a new version"
            )
        return next(filter(None, differences), "")


def fingerprint_of(channels: Sequence[Channel], limits: Limits, spec: ModelSpec) -> Fingerprint:
    """Ask every replica for the configuration, and let it score a probe.

    Raises
    ------
    ModelChanged
        The replicas serve different models, or the configuration is not the one from which `spec` was read.
    InferenceError
        No replica answers.
    """
    cached = any(each.cached for each in _answers(channels, limits, spec, []).values())
    shape, why = _accepted(channels, limits, spec, cached=cached)
    probes = _probes(spec, shape, max(2, _number(channels)))
    answers = _answers(channels, limits, spec, [*probes, *_larger(spec, probes)])
    made = Fingerprint(spec.name, spec.version, spec.config, recipe_hash(spec), remark=why)
    made = replace(made, version=made.version or next(iter(answers.values())).version)
    for channel, each in answers.items():
        if spec.config and each.config not in ("", spec.config):
            raise _changed(spec, channel, "its configuration is not the one that it had when it was looked up")
        if each.refused:
            raise _changed(spec, channel, each.refused)
    if shape is not None:
        fixed = next(iter(answers.values())).outputs[cached]
        noise = {name: max(each.noise(name) for each in answers.values()) for name in fixed}
        steady = {name: most for name, most in noise.items() if most <= _LARGEST_NOISE}
        scores = {name: sampled(fixed[name]) for name in steady}
        probe = Probed(shape, scores, max(_TOLERANCE, _NOISE * max(steady.values(), default=0.0)))
        why = "it gives other scores for the same rows in every request"
        made = replace(made, probe=probe) if steady else replace(made, remark=why)
    for channel, each in answers.items():
        if difference := each.difference(made, spec):
            raise _changed(spec, channel, f"beside {next(iter(answers)).address.url}, {difference}")
    return made


def differs(channels: Sequence[Channel], limits: Limits, spec: ModelSpec, expected: Fingerprint) -> bool:
    """Return whether any replica serves another model than the expected one.

    Raises
    ------
    InferenceError
        No replica answers.
    """
    shape = expected.probe.shape if expected.probe else None
    answers = _answers(channels, limits, spec, _probes(spec, shape, _number(channels)))
    return any(each.difference(expected, spec) for each in answers.values())


@contextmanager
def unchanged(
    channels: Sequence[Channel], limits: Limits, spec: ModelSpec, expected: Fingerprint, *, since_latest: bool = False
) -> Iterator[None]:
    """Check that every replica serves the expected model, before the code inside and after it.

    Parameters
    ----------
    channels : sequence of Channel
        The replicas that the code uses.
    limits : Limits
    spec : ModelSpec
    expected : Fingerprint
    since_latest : bool
        The latest check of this process counts as the one before.

    Raises
    ------
    ModelChanged
        A replica serves another model; the code's scores may be of either.
    ServerUnavailable
        No replica answers, or one that did so before no longer does: it may have given scores of another model.
    """
    probes = _probes(spec, expected.probe.shape if expected.probe else None, _number(channels))
    try:
        before: Collection[Channel] = channels
        if not since_latest or any(_verified.get(channel) != expected for channel in channels):
            before = answers = _answers(channels, limits, spec, probes)
            _compare(answers, expected, spec)
        yield
        patient = replace(limits, time_budget=min(limits.time_budget, _AFTER)) if len(channels) > 1 else limits
        after = _each([*before], patient, spec, probes)
        after |= _each([channel for channel in channels if channel not in before], _SHORT, spec, probes)
        _compare(_answered(after), expected, spec)
        for channel, answer in after.items():
            if isinstance(answer, _Answer):
                _verified[channel] = expected
            else:
                _verified.pop(channel, None)
    except (ModelNotFound, ModelNotReady, ServerUnavailable) as error:
        _look_for_other_versions(channels, spec, error)
        raise
    for each in (after[channel] for channel in before):
        if isinstance(each, InferenceError):
            raise each


def _compare(answers: Mapping[Channel, _Answer], expected: Fingerprint, spec: ModelSpec) -> None:
    for channel, each in answers.items():
        if difference := each.difference(expected, spec):
            raise _changed(spec, channel, difference)


def _number(channels: Sequence[Channel]) -> int:
    """Return how many probes each gets: several a single one, which may be a proxy in front of replicas."""
    return 1 if len(channels) > 1 else _BEHIND_ONE


def _probes(spec: ModelSpec, shape: Shape | None, number: int) -> list[Probe]:
    """Return the probes for one replica; if it keeps replies, first one for which it may have an old reply."""
    if shape is None:
        return []
    wanted = [False, *[True] * number] if shape.cached else [False] * number
    return [probe for fresh in wanted if (probe := probe_of(spec, shape, fresh=fresh))]


def _accepted(
    channels: Sequence[Channel], limits: Limits, spec: ModelSpec, *, cached: bool
) -> tuple[Shape | None, str]:
    """Return the first shape of a probe that a model accepts and gives numbers for, or else why there is none."""
    why = "the server keeps its replies" if cached else "its rows are too large for a probe"
    silent: Shape | None = None
    for shape in shapes(spec, cached=cached):
        probe = probe_of(spec, shape, fresh=True)
        if probe is None:
            continue
        try:
            with Pipeline[Inference](channels, limits) as pipeline:
                pipeline.submit(Inference(spec, probe))
                request, reply = pipeline.next_reply()
            outputs = request.read(reply).values()
        except (InvalidInput, BadReply) as error:
            why = f"it refuses rows of made-up values: {error}"
            continue
        if any(each.dtype.kind != "f" or np.isfinite(each).any() for each in outputs):
            return shape, ""
        silent = silent or shape
    return silent, "" if silent else why


def _larger(spec: ModelSpec, probes: Sequence[Probe]) -> list[Probe]:
    """Return a probe with the same rows many times, if the model takes one."""
    for probe in probes[-1:]:
        times = (min(_MANY, spec.largest_batch) - 1) // probe.size
        if not spec.pad_batches_to and times > 1 and times * probe.nbytes < _MOST_BYTES:
            return [probe.repeated(times)]
    return []


def _answers(
    channels: Sequence[Channel], limits: Limits, spec: ModelSpec, probes: Sequence[Probe]
) -> dict[Channel, _Answer]:
    """Ask the replicas, and wait for one only as long as none of them answers.

    Raises
    ------
    InferenceError
        None answers.
    """
    ends = time.monotonic() + limits.time_budget
    found = _each(channels, _SHORT, spec, probes)
    while not _answered(found):
        error = next(each for each in found.values() if isinstance(each, InferenceError))
        _look_for_other_versions(channels, spec, error)
        if time.monotonic() > ends:
            raise error
        found = _each(channels, replace(limits, time_budget=_SHORT.time_budget), spec, probes)
    return _answered(found)


def _answered(found: Mapping[Channel, _Answer | InferenceError]) -> dict[Channel, _Answer]:
    return {channel: each for channel, each in found.items() if isinstance(each, _Answer)}


def _each(
    channels: Sequence[Channel], limits: Limits, spec: ModelSpec, probes: Sequence[Probe]
) -> dict[Channel, _Answer | InferenceError]:
    """Ask each of some replicas for the configuration and the scores of the probes, all at the same time."""
    from eaf_inference.inference import protocol

    asked = protocol.ModelConfigRequest(name=spec.name, version=spec.version)
    found: dict[Channel, _Answer | InferenceError] = {}
    with ExitStack() as stack:
        sent: dict[Channel, list[Pipeline[Any]]] = {}
        for channel in channels:
            question = Question("ModelConfig", asked, f"model {spec.name!r}")
            requests = [question, *(Inference(spec, each) for each in probes)]
            sent[channel] = [stack.enter_context(Pipeline[Any]([channel], limits)) for _ in requests]
            for pipeline, request in zip(sent[channel], requests, strict=True):
                pipeline.submit(request)
        for channel, (of_config, *of_probes) in sent.items():
            try:
                found[channel] = _read(channel, spec, of_config, of_probes)
            except ServerUnavailable as error:
                found[channel] = error
    return found


def _read(channel: Channel, spec: ModelSpec, of_config: Pipeline[Any], of_probes: Sequence[Pipeline[Any]]) -> _Answer:
    """Wait for one replica's answers."""
    config, version, refused, cached = "", spec.version, "", False
    outputs: list[Mapping[str, NDArray[Any]]] = []
    try:
        for pipeline in of_probes:
            request, reply = pipeline.next_reply()
            version = same_version(spec.name, version, reply)
            outputs.append(request.read(reply))
    except (InvalidInput, BadReply) as error:
        outputs, refused = [], f"it refuses a probe: {error}"
    try:
        _, reply = of_config.next_reply()
        shown = config_of(reply, spec.name, channel.address.url)
        config, cached = config_hash(shown), shown.response_cache.enable
    except InferenceError as error:
        if not error.restricted:
            raise
    return _Answer(version, config, cached, outputs, refused)


def _look_for_other_versions(channels: Sequence[Channel], spec: ModelSpec, error: InferenceError) -> None:
    """Raise `ModelChanged` in place of an error if a server has other versions instead of the one that was used.

    Triton answers as if it were overloaded if a version is gone, so requests for it are tried again for long.
    """
    from eaf_inference.inference import protocol

    metadata = Question("ModelMetadata", protocol.ModelMetadataRequest(name=spec.name), f"model {spec.name!r}")
    try:
        [reply] = ask(channels, [metadata], _SHORT)
    except InferenceError:  # it has none, or does not answer: the first error tells more
        return
    if reply.versions and spec.version not in ("", *reply.versions):
        raise ModelChanged(
            f"Model {spec.name!r} has no version {spec.version} any more; the server has version "
            f"{', '.join(reply.versions)}. {_cure(spec)}"
        ) from error


def _noise(values: NDArray[Any], others: NDArray[Any]) -> float:
    """Return how much the scores of the same rows differ, relative to the largest; `others` may repeat the rows."""
    times = len(others) // max(len(values), 1)
    if len(others) != times * len(values) or values.shape[1:] != others.shape[1:]:
        return np.inf
    repeated = np.concatenate([values] * times) if times else values
    if values.dtype.kind != "f":
        return 0.0 if np.array_equal(repeated, others) else np.inf
    if not np.array_equal(np.isfinite(repeated), np.isfinite(others)):
        return np.inf
    largest = max(np.abs(each[np.isfinite(each)]).max(initial=0.0) for each in (repeated, others))
    change = np.abs(np.subtract(repeated, others, where=np.isfinite(repeated), out=np.zeros_like(repeated)))
    return float(change.max(initial=0.0) / (largest or 1.0))


def _changed(spec: ModelSpec, channel: Channel, what: str) -> ModelChanged:
    return ModelChanged(f"Model {spec.name!r} at {channel.address.url} changed: {what}. {_cure(spec)}")


def _cure(spec: ModelSpec) -> str:
    return (
        f"Scores of two models must not mix: write model = triton.model({spec.name!r}) again, and repeat what is to "
        "be scored by one model. Ask the server's operators when they change models."
    )
