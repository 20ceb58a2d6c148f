"""The clients that are compared, one file each: the code that a user of that library would write."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from eaf_facility.study.workloads import Workload

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from eaf_facility.study.workloads import Data

__all__ = [
    "COFFEA",
    "EAF_INFERENCE",
    "ONNXRUNTIME",
    "Client",
    "Entry",
    "Job",
    "RequestLog",
    "batches",
    "load_client",
]


@dataclass(frozen=True, slots=True)
class Entry:
    """A client with its settings.

    Attributes
    ----------
    name : str
        The client's name in tables.
    module : str
        The module that has its class, `Client`.
    package : str
        A package that it needs beyond the extra ``[facility]``.
    needs_tritonclient : bool
        Whether its process gets the packages of `client_packages`.
    batch : int or None
        Rows in a request; None for a client that chooses by itself.
    in_flight : int or None
        Requests in flight, for a client that lets its user choose.
    """

    name: str
    module: str
    package: str = ""
    needs_tritonclient: bool = False
    batch: int | None = None
    in_flight: int | None = None

    def using(self, *, batch: int, in_flight: int | None = None) -> Entry:
        """Return the same client with other settings."""
        return replace(self, batch=batch, in_flight=in_flight)

    @property
    def label(self) -> str:
        batch = f", batch {self.batch}" if self.batch else ""
        in_flight = f", {self.in_flight} in flight" if self.in_flight else ""
        return f"{self.name}{batch}{in_flight}"

    @property
    def missing_package(self) -> str:
        """The package that it needs and this Python lacks, or an empty string."""
        return self.package if self.package and find_spec(self.package) is None else ""


EAF_INFERENCE = Entry("eaf-inference", f"{__name__}.ours")
COFFEA = Entry("coffea triton_wrapper", f"{__name__}.coffea_wrapper", package="coffea", needs_tritonclient=True)
ONNXRUNTIME = Entry("local ONNX Runtime", f"{__name__}.onnxruntime_local", package="onnxruntime")


@dataclass(frozen=True, slots=True)
class Job:
    """What a client's process measures.

    Attributes
    ----------
    jets : int
        Jets in one round.
    url : str
        Triton's gRPC URL.
    file : str or None
        The network's ONNX file, for local inference.
    directory : str
        Where `prepare` saved the expected scores.
    warm : int
        Jets scored before the first round, for connections, thread pools and the padding check; 0 for none.
    """

    workload: Workload
    jets: int
    entry: Entry
    url: str
    file: str | None
    directory: str
    warm: int = 512

    @property
    def address(self) -> str:
        """Triton's ``host:port``, as tritonclient takes it."""
        return self.url.partition("://")[2]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Job:
        fields = json.loads(line)
        fields |= {"workload": Workload(**fields["workload"]), "entry": Entry(**fields["entry"])}
        return cls(**fields)


@dataclass(slots=True)
class RequestLog:
    """The latencies (s) and bytes of one round's requests, and values that only the client itself can measure."""

    latencies: list[float] = field(default_factory=list)
    nbytes: int = 0
    reported: Mapping[str, float] = field(default_factory=dict)

    def add(self, seconds: float, nbytes: int) -> None:
        self.latencies.append(seconds)
        self.nbytes += nbytes


class Client(Protocol):
    """One library that scores one workload."""

    def __init__(self, job: Job) -> None: ...

    def run(self, data: Data, log: RequestLog) -> Iterator[NDArray[Any]] | None:
        """Yield the scores of each chunk in order; return None if the client reads no scores."""


def load_client(job: Job) -> Client:
    """Import the job's client and make it ready to run."""
    client: Client = import_module(job.entry.module).Client(job)
    return client


def batches(inputs: dict[str, NDArray[Any]], size: int) -> Iterator[dict[str, NDArray[Any]]]:
    """Split inputs into batches of this many rows."""
    for start in range(0, len(next(iter(inputs.values()))), size):
        yield {name: values[start : start + size] for name, values in inputs.items()}
