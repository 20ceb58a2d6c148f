"""The time that Triton computes for a model, from its own counters, and on which devices.

ModelStatistics counts each execution of a batch once, whatever number of requests it holds. The counters are those of
all users of the model since it was loaded, so they are read before and after, and compared with one's own requests.
"""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from eaf_inference.errors import InferenceError
from eaf_inference.inference.pipeline import Limits, Question, ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eaf_inference.inference.spec import ModelSpec
    from eaf_inference.inference.transport import Channel

__all__ = ["ComputeTime", "PerRequest"]

_DEEPEST = 8  # ensembles within ensembles
_OTHERS, _CHECKS = 1.1, 100  # times the own requests, and more than checks of padding send: somebody else's
_NEARLY = 0.98  # of the requests: the last ones may not be counted yet


@dataclass(frozen=True, slots=True)
class PerRequest:
    """The time that the server computes for a request.

    Attributes
    ----------
    seconds : float
        Summed over the models of an ensemble.
    error : float
        One standard deviation, from the spread between readings; infinite with fewer than three.
    device : str
        ``GPU`` or ``CPU``; empty if the model's instances are on both, or choose themselves.
    shared : bool
        Whether others used the model meanwhile. The time is then that of an average request.
    cached : float
        Share of the requests that were answered from Triton's response cache.
    """

    seconds: float
    error: float
    device: str
    shared: bool
    cached: float


class _Reading(NamedTuple):
    """Counters of one moment.

    Attributes
    ----------
    requests : list of int
        Of each model on each replica.
    ns : int
        Nanoseconds of all executions.
    hits : int
        Requests that were answered from the response cache.
    """

    requests: list[int]
    ns: int
    hits: int

    def per_request(self, before: _Reading) -> float | None:
        """Return the nanoseconds of a request of any model since another reading; None if there was none."""
        requests = sum(self.requests) - sum(before.requests)
        return (self.ns - before.ns) / requests if requests else None


class ComputeTime:
    """Readings of the counters of a model, and of those that an ensemble calls, over all replicas.

    Parameters
    ----------
    channels : sequence of Channel
        The replicas that serve the model.
    spec : ModelSpec
    timeout : float
        Seconds for a question.

    Attributes
    ----------
    missing : str
        Why the time is not known; empty if it is.
    """

    def __init__(self, channels: Sequence[Channel], spec: ModelSpec, *, timeout: float) -> None:
        self._channels = channels
        self._limits = Limits(time_budget=timeout, request_timeout=timeout)
        self._readings: list[_Reading] = []
        self._devices: dict[str, set[str]] = {}  # of each model that computes
        self.missing = ""
        try:
            self._look(spec.name, spec.version, _DEEPEST)
        except InferenceError as error:
            self.missing = f"the server does not show the model's configuration ({error.reason or error})"

    def _look(self, name: str, version: str, depth: int) -> None:
        """Note a model's devices, or those of the models that it calls."""
        from eaf_inference.inference import protocol

        request = protocol.ModelConfigRequest(name=name, version=version)
        config = ask(self._channels, [Question("ModelConfig", request)], self._limits)[0].config
        steps = {step.model_name for step in config.ensemble_scheduling.step}
        for step in steps if depth else ():
            self._look(step, "", depth - 1)
        if not steps:
            kinds = protocol.ModelInstanceGroup
            names = {kinds.KIND_GPU: "GPU", kinds.KIND_CPU: "CPU"}
            self._devices[name] = {names.get(group.kind, "") for group in config.instance_group} or {""}

    def read(self) -> None:
        """Read the counters, unless the server does not show them."""
        from eaf_inference.inference import protocol

        if self.missing:
            return
        asked = [Question("ModelStatistics", protocol.ModelStatisticsRequest(name=name)) for name in self._devices]
        try:
            replies = [reply for channel in self._channels for reply in ask([channel], asked, self._limits)]
        except InferenceError as error:
            self.missing = f"the server does not show its counters ({error.reason or error})"
            return
        executed = [batch for reply in replies for model in reply.model_stats for batch in model.batch_stats]
        self._readings.append(
            _Reading(
                [sum(model.inference_stats.success.count for model in reply.model_stats) for reply in replies],
                sum(each.compute_input.ns + each.compute_infer.ns + each.compute_output.ns for each in executed),
                sum(model.inference_stats.cache_hit.count for reply in replies for model in reply.model_stats),
            )
        )

    @property
    def readings(self) -> int:
        return len(self._readings)

    def per_request(self, requests: int, *, checks: int = 0, since: int = 0) -> PerRequest | None:
        """Return the compute time of a request; None if the counters do not tell, and `missing` says why.

        Parameters
        ----------
        requests : int
            Sent by this user between the first and the last reading.
        checks : int
            The most small requests that were sent besides, to check the model.
        since : int
            The reading after which the server was warm.
        """
        if self.missing:
            return None
        first, last = self._readings[0], self._readings[-1]
        if any(
            more < less
            for before, after in itertools.pairwise(self._readings)
            for less, more in zip(before.requests, after.requests, strict=True)
        ):
            self.missing = "its counters are those of several servers in turn, or it was restarted"
            return None
        grown = [after - before for before, after in zip(first.requests, last.requests, strict=True)]
        models = len(self._devices)
        counted = min(sum(grown[model::models]) for model in range(models))
        if not requests:
            self.missing = "nothing was sent"
            return None
        if counted < _NEARLY * requests:
            self.missing = (
                f"its counters have {counted:,} of {requests:,} requests, so other servers answered as well"
            )
            return None
        warm = self._readings[min(since, len(self._readings) - 2) :]
        ns = warm[-1].per_request(warm[0]) or last.per_request(first) or 0.0
        blocks = [block for before, after in itertools.pairwise(warm) if (block := after.per_request(before))]
        spread = statistics.stdev(blocks) / len(blocks) ** 0.5 if len(blocks) > 2 else math.inf
        shared = counted > _OTHERS * (requests + checks) + _CHECKS
        scale = (models if shared else sum(grown) / requests) / 1e9  # the own checks belong to the own requests
        devices = set().union(*self._devices.values())
        device = devices.pop() if len(devices) == 1 else ""
        cached = max(last.hits - first.hits - checks, 0) / sum(grown)
        return PerRequest(ns * scale, spread * scale, device, shared, cached)
