"""What the study measured, as values: one dataclass for each part."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "AFFINITY",
    "ALONE",
    "APART",
    "BLOCKING",
    "LEAST_BUSY",
    "LEAST_REQUEST",
    "PIPELINED",
    "QUEUE_LIMIT",
    "TOGETHER",
    "UNSPILT",
    "Mixture",
    "Outcome",
    "Predicted",
    "Scale",
    "Scaled",
    "Site",
    "Timing",
]

PIPELINED = "eaf-inference"
BLOCKING = "coffea triton_wrapper"
# Part 3: what is compared
ALONE = "one model on one Triton"
TOGETHER = "several models on one Triton"
LEAST_BUSY = "each request to the least busy Triton"
LEAST_REQUEST = "Envoy's LEAST_REQUEST"
AFFINITY = "Envoy's affinity"
UNSPILT = "Envoy's affinity without spilling"
APART = "one Triton for each model"
QUEUE_LIMIT = 0.4  # seconds in the queue above which arXiv:2312.06838 starts another instance


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Attributes
    ----------
    timing_jets : dict
        By workload.
    local_workers : tuple of int
        Numbers of real workers, processes of a Dask Gateway.
    file_jets, files_a_worker : int
    simulated_workers, simulated_instances : tuple of int
    seconds : float
        Of each point with simulated workers.
    minute : float
        Seconds from which the capacity is told.
    """

    timing_jets: dict[str, int]
    local_workers: tuple[int, ...]
    local_instances: tuple[int, ...]
    file_jets: int
    files_a_worker: int
    simulated_workers: tuple[int, ...]
    simulated_instances: tuple[int, ...]
    seconds: float
    minute: float


@dataclass(frozen=True, slots=True)
class Site:
    """A facility: the URLs of its Triton, which serves our ParticleNet, its Prometheus and its Dask Gateway."""

    url: str | None = None
    prometheus: str | None = None
    gateway: str | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Part 1: the elapsed time after so many jets, of one way to score them.

    Attributes
    ----------
    points : tuple of (int, float)
        Jets, and seconds since the beginning.
    difference : float
        The largest to local ONNX Runtime's scores.
    """

    workload: str
    title: str
    client: str
    points: tuple[tuple[int, float], ...]
    difference: float

    @property
    def rate(self) -> float:
        """Jets/s, of all of them."""
        jets, seconds = self.points[-1]
        return jets / seconds


@dataclass(frozen=True, slots=True)
class Scaled:
    """Parts 2 and 4: so many workers against so many Triton instances.

    Attributes
    ----------
    simulated : bool
        Whether accelerator and workers were simulated.
    window : int
        The most requests that one worker had in flight; 0 where that was not seen.
    """

    client: str
    instances: int
    workers: int
    simulated: bool
    inferences_per_second: float
    requests_per_second: float
    queue: float
    p50: float | None = None
    p99: float | None = None
    window: int = 0


@dataclass(frozen=True, slots=True)
class Mixture:
    """Part 3: several models, and how their requests find an instance.

    Attributes
    ----------
    used : int
        Instances that any request went to.
    queue : float
        Mean seconds.
    met : float
        The share of requests that were served where most for their model were, by the servers' own counts.
    """

    title: str
    models: int
    instances: int
    used: int
    requests_per_second: float
    queue: float
    met: float


@dataclass(frozen=True, slots=True)
class Predicted:
    """Part 4: what was measured with few workers, and what follows for more.

    Attributes
    ----------
    measured_with : int
        Workers while it was measured.
    utilization, service : float
        Of the bottleneck, and seconds that a request is computed.
    points : tuple of (int, float, float)
        Workers, predicted requests/s, predicted seconds in the queue.
    workers : int
        The most workers with which a request waits at most `QUEUE_LIMIT`.
    """

    measured_with: int
    utilization: float
    service: float
    limit: float
    points: tuple[tuple[int, float, float], ...]
    workers: int
    advice: str


@dataclass(slots=True)
class Outcome:
    """All parts, as far as they came."""

    machine: dict[str, str]
    software: dict[str, str]
    quick: bool
    where: str
    accelerator: str = ""
    timings: list[Timing] = field(default_factory=list)
    scaled: list[Scaled] = field(default_factory=list)
    mixtures: list[Mixture] = field(default_factory=list)
    predicted: Predicted | None = None
    remarks: list[str] = field(default_factory=list)
    interrupted: bool = False
