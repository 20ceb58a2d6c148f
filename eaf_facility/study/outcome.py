"""The study's measurements as values, with one dataclass for each part."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "AFFINITY",
    "AFFINITY_WITHOUT_SPILL",
    "ALONE",
    "BLOCKING",
    "LEAST_BUSY",
    "LEAST_REQUEST",
    "ONE_EACH",
    "PIPELINED",
    "QUEUE_LIMIT",
    "TOGETHER",
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
# The cases of part 3
ALONE = "one model on one Triton"
TOGETHER = "several models on one Triton"
LEAST_BUSY = "each request to the least busy Triton"
LEAST_REQUEST = "Envoy's LEAST_REQUEST"
AFFINITY = "Envoy's affinity"
AFFINITY_WITHOUT_SPILL = "Envoy's affinity without spilling"
ONE_EACH = "one Triton for each model"
QUEUE_LIMIT = 0.4  # seconds in the queue above which arXiv:2312.06838 starts another Triton


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of the study.

    Attributes
    ----------
    timing_jets : dict
        Number of jets by workload.
    local_workers : tuple of int
        Numbers of real workers, which are processes of a Dask Gateway.
    local_replicas : tuple of int
        Numbers of real Tritons.
    file_jets, files_per_worker : int
        Jets per file, and files per real worker.
    simulated_workers, simulated_replicas : tuple of int
        Numbers of simulated workers and of Tritons with a simulated accelerator.
    seconds : float
        Duration of each measurement with simulated workers.
    capacity_seconds : float
        Duration, in seconds, of the load that the capacity is predicted from.
    """

    timing_jets: dict[str, int]
    local_workers: tuple[int, ...]
    local_replicas: tuple[int, ...]
    file_jets: int
    files_per_worker: int
    simulated_workers: tuple[int, ...]
    simulated_replicas: tuple[int, ...]
    seconds: float
    capacity_seconds: float


@dataclass(frozen=True, slots=True)
class Site:
    """A facility's URLs: its Triton, which serves our ParticleNet, its Prometheus and its Dask Gateway."""

    url: str | None = None
    prometheus: str | None = None
    gateway: str | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Part 1: one client's elapsed time against the number of jets.

    Attributes
    ----------
    points : tuple of (int, float)
        Jets, and seconds since the start.
    difference : float
        Largest difference from the scores of local ONNX Runtime.
    """

    workload: str
    title: str
    client: str
    points: tuple[tuple[int, float], ...]
    difference: float

    @property
    def rate(self) -> float:
        """The rate over all jets, in jets/s."""
        jets, seconds = self.points[-1]
        return jets / seconds


@dataclass(frozen=True, slots=True)
class Scaled:
    """Part 2: a number of workers against a number of Tritons.

    Attributes
    ----------
    simulated : bool
        Whether accelerators and workers were simulated.
    queue : float
        Mean seconds in the queue.
    p50, p99 : float or None
        Latency percentiles in seconds; None if not measured.
    window : int
        Most requests that one worker had in flight; 0 if not measured.
    """

    client: str
    replicas: int
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
    """Part 3: several models, with one way to choose a Triton for each request.

    Attributes
    ----------
    replicas_used : int
        Tritons that received any request.
    queue : float
        Mean seconds in the queue.
    locality : float
        Fraction of requests served by the Triton that served most requests for their model, by the servers' counters.
    """

    title: str
    models: int
    replicas: int
    replicas_used: int
    requests_per_second: float
    queue: float
    locality: float


@dataclass(frozen=True, slots=True)
class Predicted:
    """Part 4: a prediction for many workers from a measurement with few.

    Attributes
    ----------
    measured_with : int
        Workers during the measurement.
    utilization, service : float
        Utilization of the bottleneck, and seconds to compute a request.
    limit : float
        Highest possible rate in inferences/s.
    points : tuple of (int, float, float)
        Workers, predicted requests/s, predicted seconds in the queue.
    workers : int
        Most workers whose requests wait at most `QUEUE_LIMIT`.
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
    """The results of all parts, complete or until an interrupt.

    Attributes
    ----------
    where : str
        What was measured: "this machine" or "the facility at URL".
    accelerator : str
        Description of what was simulated; empty if nothing was.
    remarks : list of str
        What was not measured as planned, and why.
    """

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
