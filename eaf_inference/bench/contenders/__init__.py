"""Who is compared, one file each: the code that a user of that library would write, and a note of each request."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from eaf_inference.bench.workloads import Data, Workload

__all__ = ["CONTENDERS", "WITH_TRITONCLIENT", "Contender", "Entry", "Notes", "Service", "batches", "lacks", "make"]

# How it is called in tables → its module here.
CONTENDERS = {
    "eaf-inference": "ours",
    "coffea triton_wrapper": "coffea_wrapper",
    "tritonclient": "tritonclient_loop",
    "tritonclient async_infer": "tritonclient_async",
    "tritonclient grpc.aio": "tritonclient_aio",
    "perf_analyzer (C++)": "perf_analyzer",
    "local ONNX Runtime": "onnxruntime_local",
}
# Those that import tritonclient, see `programs.contender_packages`.
WITH_TRITONCLIENT = ("coffea triton_wrapper", "tritonclient", "tritonclient async_infer", "tritonclient grpc.aio")
# How it is called → the package that it needs and the extra `facility` does not bring.
_NEEDS = {"coffea triton_wrapper": "coffea", "local ONNX Runtime": "onnxruntime"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender with its one choice: rows of a request, or requests in flight where that is what it lets choose.

    Attributes
    ----------
    name : str
        A key of `CONTENDERS`.
    batch : int or None
        None for eaf-inference, which chooses itself.
    in_flight : int or None
    """

    name: str
    batch: int | None = None
    in_flight: int | None = None

    @property
    def label(self) -> str:
        batch = f", batch {self.batch}" if self.batch else ""
        in_flight = f", {self.in_flight} in flight" if self.in_flight else ""
        return f"{self.name}{batch}{in_flight}"


@dataclass(frozen=True, slots=True)
class Service:
    """Where the models are: Triton's gRPC URL, and the ONNX file of a network."""

    url: str
    file: Path | None

    @property
    def address(self) -> str:
        """``host:port``, as tritonclient takes it."""
        return self.url.partition("://")[2]


@dataclass(slots=True)
class Notes:
    """What one round's requests took, and what a contender knows better than who watches it."""

    latencies: list[float] = field(default_factory=list)
    nbytes: int = 0
    known: Mapping[str, float] = field(default_factory=dict)

    def request(self, seconds: float, nbytes: int) -> None:
        self.latencies.append(seconds)
        self.nbytes += nbytes


class Contender(Protocol):
    """One library at work on one workload."""

    def __init__(self, service: Service, workload: Workload, entry: Entry) -> None: ...

    def run(self, data: Data, notes: Notes) -> Iterator[NDArray[Any]] | None:
        """The scores of each chunk, in order; None where it gives none."""


def lacks(name: str) -> str:
    """The package that a contender needs and this Python does not have; empty where it can run."""
    package = _NEEDS.get(name, "")
    return package if package and find_spec(package) is None else ""


def batches(inputs: dict[str, NDArray[Any]], size: int) -> Iterator[dict[str, NDArray[Any]]]:
    """Some rows of all inputs at a time."""
    for start in range(0, len(next(iter(inputs.values()))), size):
        yield {name: values[start : start + size] for name, values in inputs.items()}


def make(service: Service, workload: Workload, entry: Entry) -> Contender:
    """The entry's contender, ready to run; its library is imported now."""
    module = import_module(f"{__name__}.{CONTENDERS[entry.name]}")
    contender: Contender = module.Contestant(service, workload, entry)
    return contender
