"""How much a service carries: operational analysis of one measured minute.

Three laws that hold for whatever is measured (Denning and Buzen, "The Operational Analysis of Queueing Network
Models", ACM Computing Surveys 10, 1978):

- the utilisation law U = X·D: at throughput X the bottleneck is busy a share U of the time, D being what one request
  demands of it; so the throughput cannot pass X/U;
- Little's law N = X·R: what is under way is throughput times residence;
- the interactive response time law R = N/X − Z: clients that keep N requests in flight, and spend Z outside the
  server with each, wait the longer the more they are once X cannot grow.

In between, where the queue begins to grow, the curve is that of mean value analysis (Reiser and Lavenberg, Journal of
the ACM 27, 1980) for one bottleneck; several servers or model instances count as Seidmann's approximation has it: the
demand D = S/m in the queue, the rest of the service time S without waiting. It takes service times to be exponential.
Ours vary less, so that up to saturation it says rather too much of the queue; beyond, both agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eaf_inference.metrics.reading import total

if TYPE_CHECKING:
    from eaf_inference.metrics.snapshot import Snapshot

__all__ = ["COMFORTABLE", "Capacity", "Prediction"]

COMFORTABLE = 0.8  # utilisation up to which workers are worth adding: there a queue is about 4 service times (M/M/1)
_SATURATED = 0.95  # an estimate above says nothing of what is left: more than one execution may run at once
_MEASURABLE = 0.01  # utilisation below which its quotient is noise


@dataclass(frozen=True, slots=True)
class Prediction:
    """What so many requests in flight would give: requests/s, and seconds in the queue of each."""

    requests_per_second: float
    queue: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """What was measured of a service, and what follows; all for batches as they were meanwhile.

    Attributes
    ----------
    inferences_per_second, requests_per_second : float
        Throughput, of all models.
    utilization : float
        Of the bottleneck, above 0 and at most 1: the busier of GPUs (or compute time) and CPUs. The CPUs count with
        all that runs there, so that other programs make the service seem to carry less, never more.
    service, queue : float
        Seconds that a mean request is computed, and waits.
    estimated : bool
        Whether the utilization is the estimate from compute times.
    """

    inferences_per_second: float
    requests_per_second: float
    utilization: float
    service: float
    queue: float
    estimated: bool

    @classmethod
    def measured(cls, minute: Snapshot) -> Capacity | None:
        """From a snapshot, best of a whole minute; None where it does not tell enough."""
        inferences = total(model.inferences_per_second for model in minute.models)
        requests = total(model.requests_per_second for model in minute.models)
        waits = [
            (model.requests_per_second, model.queue_ms, model.compute_ms)
            for model in minute.models
            if model.requests_per_second and model.queue_ms is not None and model.compute_ms is not None
        ]
        if not inferences or not requests or not waits:
            return None
        counted = math.fsum(rate for rate, _, _ in waits if rate)
        queue = math.fsum(rate * wait for rate, wait, _ in waits if rate) / counted / 1e3
        service = math.fsum(rate * compute for rate, _, compute in waits if rate) / counted / 1e3
        busy = minute.busy
        cpu = max((host.cpu_utilization or 0.0 for host in minute.hosts), default=0.0)
        if busy is not None and max(busy.value, cpu) < _MEASURABLE:
            return None
        if busy is None or (busy.estimated and busy.value > _SATURATED):
            if queue < service and cpu < COMFORTABLE:
                return None
            utilization = 1.0  # what runs in parallel is not known, but requests queue for it, or the CPUs are busy
        else:
            utilization = min(1.0, max(busy.value, cpu))
        estimated = busy is None or busy.estimated
        return cls(inferences, requests, utilization, service, queue, estimated=estimated)

    @property
    def limit(self) -> float:
        """Inferences/s that the service cannot pass (utilisation law)."""
        return self.inferences_per_second / self.utilization

    @property
    def room(self) -> float:
        """How many times the present load it carries comfortably; below 1 it carries too much."""
        return COMFORTABLE / self.utilization

    @property
    def demand(self) -> float:
        """Seconds of the bottleneck that one request takes."""
        return self.utilization / self.requests_per_second

    def workers(self, count: int, inferences_per_second: float) -> int:
        """How many workers it carries comfortably beside the others' load, when `count` give so much together."""
        spare = COMFORTABLE * self.limit - self.inferences_per_second
        return max(0, math.floor(count + spare * count / inferences_per_second))

    def predict(self, in_flight: int, *, think: float = 0.0) -> Prediction:
        """Throughput and queue with so many requests in flight, all clients' together.

        Parameters
        ----------
        think : float
            Seconds that a client spends outside the server with each: the network, and making the next.
        """
        waiting, elsewhere = 0.0, max(0.0, self.service - self.demand) + think
        throughput = residence = 0.0
        for clients in range(1, in_flight + 1):
            residence = self.demand * (1.0 + waiting)
            throughput = clients / (residence + elsewhere)
            waiting = throughput * residence
        return Prediction(throughput, max(0.0, residence - self.demand))

    def in_flight_until(self, queue: float, *, think: float = 0.0) -> int:
        """The most requests in flight with which a mean request waits at most so many seconds."""
        waiting, elsewhere = 0.0, max(0.0, self.service - self.demand) + think
        clients = 0
        while self.demand * waiting <= queue:
            clients += 1
            residence = self.demand * (1.0 + waiting)
            waiting = clients / (residence + elsewhere) * residence
        return clients
