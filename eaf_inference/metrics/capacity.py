"""The capacity of a service, by operational analysis of one measured minute.

Three laws hold for any measurement (Denning and Buzen, "The Operational Analysis of Queueing Network
Models", ACM Computing Surveys 10, 1978):

- the utilisation law U = X·D: at throughput X the bottleneck is busy a share U of the time, where D is the time one
  request takes of it; so the throughput cannot exceed X/U;
- Little's law N = X·R: requests in flight are throughput times residence time;
- the interactive response time law R = N/X − Z: clients keep N requests in flight and spend Z outside the server with
  each; once X cannot grow, more requests in flight only wait longer.

Between light load and saturation, the curve is that of mean value analysis (Reiser and Lavenberg, Journal of the
ACM 27, 1980) for one bottleneck. Several servers or model instances follow Seidmann's approximation: the demand
D = S/m in the queue, and the rest of the service time S without waiting. The analysis assumes exponential service
times. Real ones vary less, so it overestimates the queue up to saturation; beyond, both agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eaf_inference.metrics.totals import inference_rate, request_rate, weighted_mean

if TYPE_CHECKING:
    from eaf_inference.metrics.snapshot import Snapshot

__all__ = ["COMFORTABLE", "Capacity", "Prediction"]

COMFORTABLE = 0.8  # utilisation up to which more workers help; there an M/M/1 queue is about 4 service times
_SATURATED = 0.95  # above, an estimate says nothing about spare capacity: several executions may run at once
_MEASURABLE = 0.01  # utilisation below which a quotient is noise


@dataclass(frozen=True, slots=True)
class Prediction:
    """A predicted throughput in requests/s, and the seconds that each request waits in the queue."""

    requests_per_second: float
    queue: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """The measured load of a service, and its capacity with batches of the same size.

    Attributes
    ----------
    inferences_per_second, requests_per_second : float
        Throughput of all models.
    utilization : float
        Utilization of the bottleneck, above 0 and at most 1: the larger of GPUs (or compute time) and CPUs. CPU time
        includes other programs, so these lower the estimated capacity and never raise it.
    service, queue : float
        Seconds that a mean request is computed and waits.
    estimated : bool
        Whether the utilization is estimated from compute times.
    """

    inferences_per_second: float
    requests_per_second: float
    utilization: float
    service: float
    queue: float
    estimated: bool

    @classmethod
    def measured(cls, minute: Snapshot) -> Capacity | None:
        """Take the load from a snapshot, ideally of a whole minute; None if it reports too little."""
        inferences, requests = inference_rate(minute), request_rate(minute)
        timed = [model for model in minute.models if model.queue_ms is not None and model.compute_ms is not None]
        queue_ms = weighted_mean((model.queue_ms, model.requests_per_second) for model in timed)
        service_ms = weighted_mean((model.compute_ms, model.requests_per_second) for model in timed)
        if not inferences or not requests or queue_ms is None or service_ms is None:
            return None
        queue, service = queue_ms / 1e3, service_ms / 1e3
        busy = minute.busy
        cpu = max((host.cpu_utilization or 0.0 for host in minute.hosts), default=0.0)
        if busy is not None and max(busy.value, cpu) < _MEASURABLE:
            return None
        if busy is None or (busy.estimated and busy.value > _SATURATED):
            if queue < service and cpu < COMFORTABLE:
                return None
            utilization = 1.0  # parallel executions are not reported, but requests queue or the CPUs are busy
        else:
            utilization = min(1.0, max(busy.value, cpu))
        estimated = busy is None or busy.estimated
        return cls(inferences, requests, utilization, service, queue, estimated=estimated)

    @property
    def limit(self) -> float:
        """The largest possible inferences/s (utilisation law)."""
        return self.inferences_per_second / self.utilization

    @property
    def room(self) -> float:
        """The comfortable load as a multiple of the current one; below 1 the service is overloaded."""
        return COMFORTABLE / self.utilization

    @property
    def demand(self) -> float:
        """Seconds that one request occupies the bottleneck."""
        return self.utilization / self.requests_per_second

    def workers(self, count: int, inferences_per_second: float) -> int:
        """Return how many workers fit beside the load of others, if `count` of them give this rate together."""
        spare = COMFORTABLE * self.limit - self.inferences_per_second
        return max(0, math.floor(count + spare * count / inferences_per_second))

    def predict(self, in_flight: int, *, think: float = 0.0) -> Prediction:
        """Predict throughput and queue for a number of requests in flight, all clients together.

        Parameters
        ----------
        think : float
            Seconds that a client spends outside the server with each request: on the network and on the next one.
        """
        waiting, elsewhere = 0.0, max(0.0, self.service - self.demand) + think
        throughput = residence = 0.0
        for clients in range(1, in_flight + 1):
            residence = self.demand * (1.0 + waiting)
            throughput = clients / (residence + elsewhere)
            waiting = throughput * residence
        return Prediction(throughput, max(0.0, residence - self.demand))

    def in_flight_until(self, queue: float, *, think: float = 0.0) -> int:
        """Return the most requests in flight for which a mean request waits at most `queue` seconds."""
        waiting, elsewhere = 0.0, max(0.0, self.service - self.demand) + think
        clients = 0
        while self.demand * waiting <= queue:
            clients += 1
            residence = self.demand * (1.0 + waiting)
            waiting = clients / (residence + elsewhere) * residence
        return clients
