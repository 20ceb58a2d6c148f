"""One client: scores jets for some seconds with one setting, and checks every score."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

import eaf_inference
from eaf_facility.study.workloads import numbers_of, particlenet_inputs, sample
from eaf_inference.inference import batching, tuning
from eaf_inference.inference.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["RELATIVE", "Client", "Outcome", "Setting", "beyond"]

RELATIVE, _ABSOLUTE = 1e-4, 1e-6  # scores may differ by this from those of PyTorch on the CPU
_DEFAULTS = (batching._WINDOW, tuning._FIRST_DENSE, tuning._LARGEST_REQUEST)  # noqa: SLF001  (constants that this benchmark varies)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a client does.

    Attributes
    ----------
    model : str
    source : str
        "jets": the sample's jets. "dense": the study's pseudo-jets as numpy arrays, which travel in batches of up to
        4 MB. "ragged": the same as awkward arrays, which `cell_budget` cuts. "single": one request at a time.
    cell_budget, window : int or None
        None for this client's defaults.
    rows, length : int
        Of a single request; `rows` is also the jets of a chunk of pseudo-jets.
    seconds : float
    times : int or None
        The number of chunks, instead of seconds.
    """

    model: str
    source: str = "jets"
    cell_budget: int | None = None
    window: int | None = None
    rows: int = 10_000
    length: int = 100
    seconds: float = 2.0
    times: int | None = None


@dataclass(slots=True)
class Outcome:
    """What a client measured; times are in seconds, `wrong` counts jets whose scores differ too much."""

    jets: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    bytes: int = 0
    latencies: list[float] = field(default_factory=list)
    chunks: list[float] = field(default_factory=list)
    largest_difference: float = 0.0
    wrong: int = 0


class _LoggedTraffic(Traffic):
    def __init__(self) -> None:
        super().__init__()
        self.latencies: list[float] = []
        self.sizes = 0

    def answered(self, inferences: int, nbytes: int, seconds: float) -> None:
        super().answered(inferences, nbytes, seconds)
        self.latencies.append(seconds)
        self.sizes += nbytes


class Client:
    """A connection and the jets.

    Parameters
    ----------
    url : str
    expected : Path
        Directory with the expected scores, ``jets.npy`` and ``dense.npy``.
    """

    def __init__(self, url: str, expected: Path) -> None:
        self._connection = eaf_inference.connect(url)
        self._expected = expected
        self._made: dict[Any, Any] = {}

    def _chunk(self, setting: Setting) -> tuple[Any, NDArray[np.float32]]:
        """Return the input of one call, and its expected scores."""
        key = (setting.source, setting.rows, setting.length, setting.window)
        if key not in self._made:
            if setting.source == "single":  # its many shapes are used once
                self._made = {each: made for each, made in self._made.items() if each[0] != "single"}
            self._made[key] = self._make(setting)
        data, expected = self._made[key]
        return data, expected

    def _make(self, setting: Setting) -> tuple[Any, NDArray[np.float32]]:
        if setting.source == "jets":
            expected = np.load(self._expected / "jets.npy")
            records = sample(len(expected))
            window = setting.window or len(records)
            rows = window * -(-len(records) // window)  # so that no window is a remainder
            times = -(-rows // len(records))
            return ak.to_packed(ak.concatenate([records] * times)[:rows]), np.tile(expected, (times, 1))[:rows]
        if setting.source == "single":
            random = np.random.default_rng(1)
            width = 5 if setting.model == "particlenet_full" else 7
            inputs = {
                name: random.normal(size=(setting.rows, channels, setting.length)).astype(np.float32)
                for name, channels in (("points", 2), ("features", width))
            }
            return {**inputs, "mask": np.ones((setting.rows, 1, setting.length), np.float32)}, np.zeros(
                (0, 2), np.float32
            )
        expected = np.load(self._expected / "dense.npy")[: setting.rows]
        arrays = particlenet_inputs(len(expected))
        if setting.source == "ragged":
            return {name: ak.from_numpy(each) for name, each in arrays.items()}, expected
        return arrays, expected

    def run(self, setting: Setting) -> Outcome:
        """Score for some seconds, after one chunk that is not counted."""
        is_single = setting.source == "single"
        batching._WINDOW = (setting.window,) * 2 if setting.window else _DEFAULTS[0]  # noqa: SLF001
        tuning._FIRST_DENSE, tuning._LARGEST_REQUEST = (1 << 30,) * 2 if is_single else _DEFAULTS[1:]  # noqa: SLF001
        data, expected = self._chunk(setting)
        model = self._connection.model(setting.model, cell_budget=setting.cell_budget)
        for _ in range(2 if is_single else 1):
            model(data, progress=False)
        outcome, traffic = Outcome(), _LoggedTraffic()
        cpu, began = time.process_time(), time.monotonic()

        def chunks() -> Iterator[Any]:
            for number in itertools.count():
                is_over = number >= setting.times if setting.times else time.monotonic() - began >= setting.seconds
                if is_over:
                    return
                yield data

        def parts() -> Iterator[Any]:
            if not is_single:
                yield from model.map(chunks(), progress=False, traffic=traffic)
            for each in chunks() if is_single else ():
                yield from model.map([each], progress=False, traffic=traffic)

        before = began
        for scores in parts():
            now = time.monotonic()
            outcome.chunks.append(now - before)
            before = now
            array = numbers_of(scores)
            outcome.jets += len(array)
            if len(expected):
                difference = np.abs(array - expected)
                outcome.largest_difference = max(outcome.largest_difference, float(difference.max()))
                outcome.wrong += beyond(array, expected)
        outcome.seconds = time.monotonic() - began
        outcome.cpu = time.process_time() - cpu
        outcome.latencies, outcome.bytes = traffic.latencies, traffic.sizes
        return outcome


def beyond(scores: NDArray[Any], expected: NDArray[Any]) -> int:
    """Return the number of rows that differ by more than rounding may; NaN counts."""
    close = np.abs(scores - expected) <= RELATIVE * np.abs(expected) + _ABSOLUTE
    return int((~close.all(axis=1)).sum())
