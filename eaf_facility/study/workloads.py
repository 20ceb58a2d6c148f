"""Workloads: jets, the model that scores them, and the scores that are expected.

Each client's process makes its workload anew, from the same seed or file, so that no jets travel between processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_facility.servers.triton import MODELS
from eaf_facility.study import particlenet
from eaf_facility.study.accelerator import CONSTITUENTS, VALUES
from eaf_inference.errors import ConfigurationError
from eaf_inference.inference import protocol
from eaf_inference.inference.features import features
from eaf_inference.inference.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = [
    "FULL_PARTICLENET",
    "OUR_PARTICLENET",
    "TOLERANCE",
    "Chunk",
    "Data",
    "Workload",
    "local_session",
    "numbers_of",
    "padded",
    "particlenet_inputs",
    "prepare",
    "recipe_of",
    "sample",
]

JETS = Path(__file__).parents[2] / "notebooks" / "jets.parquet"  # only in a source checkout
TOLERANCE = 1e-5  # a score that differs by more is wrong
_DISTINCT = 2560  # dense pseudo-jets that are made; a longer round repeats them
_BATCH = 64  # jets at a time in local ONNX Runtime
_SEED = 20231206


@dataclass(frozen=True, slots=True)
class Workload:
    """Jets of one kind for one model.

    Attributes
    ----------
    key : str
        Its name on the command line and in tables.
    title : str
    model, output : str
    source : str
        "numpy": dense pseudo-jets of one input. "particlenet": pseudo-jets for the full-size ParticleNet. "jets": the
        sample of real jets.
    jets : int
        Jets in one round of a full run.
    chunk : int
        Jets that a client gets at a time.
    delay : float or None
        Seconds that a simulated network (Envoy's fault filter) adds; None for loopback without Envoy.
    """

    key: str
    title: str
    model: str
    output: str
    source: str
    jets: int
    chunk: int
    delay: float | None = None


OUR_PARTICLENET = Workload("b", "our ParticleNet, the sample's jets", "particlenet", "softmax", "jets", 6_144, 1_024)
FULL_PARTICLENET = Workload("c", "the study's ParticleNet", particlenet.NAME, "softmax", "particlenet", 1_024, 1_024)


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Some jets, as records or as dense arrays by input name, with their expected scores."""

    records: ak.Array | None
    dense: dict[str, NDArray[Any]] | None
    expected: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.expected)


class Data:
    """The chunks of a workload.

    Parameters
    ----------
    workload : Workload
    jets : int
        Jets in one round.
    directory : Path
        Where `prepare` saved the expected scores.
    """

    def __init__(self, workload: Workload, jets: int, directory: Path) -> None:
        self.jets = jets
        self.recipe = recipe_of(workload.model) if workload.source == "jets" else None
        distinct = _DISTINCT if workload.source == "numpy" else workload.jets
        made = _SOURCES[workload.source](workload, min(jets, distinct), directory)
        self._chunks = [chunk for chunk in made if len(chunk)]

    def chunks(self) -> Iterator[Chunk]:
        """Yield the chunks of one round; the last one is cut to size."""
        left = self.jets
        while left > 0:
            for chunk in self._chunks:
                if left <= 0:
                    return
                yield _first(chunk, left) if left < len(chunk) else chunk
                left -= len(chunk)

    def padded(self, chunk: Chunk) -> dict[str, NDArray[Any]]:
        """Return dense arrays by input name, for a client that takes no ragged arrays."""
        if chunk.dense is not None:
            return chunk.dense
        assert self.recipe is not None  # noqa: S101
        assert chunk.records is not None  # noqa: S101
        return padded(chunk.records, self.recipe)


def padded(records: ak.Array, recipe: Recipe) -> dict[str, NDArray[Any]]:
    """Pad jets to the model's maximum length with awkward's own functions, as users commonly do."""
    length = recipe.max_length
    assert length is not None  # noqa: S101  (our model has one)
    made: dict[str, NDArray[Any]] = {}
    inputs = {}
    for name, variables in recipe.inputs.items():
        channels = []
        for variable in variables:
            if variable.name not in made:
                if variable.is_mask:
                    values = ak.ones_like(records[recipe.required[0]])
                else:
                    values = (records[variable.name] - variable.median) * variable.norm_factor
                    values = ak.where(values > variable.upper_bound, variable.upper_bound, values)
                    values = ak.where(values < variable.lower_bound, variable.lower_bound, values)
                filled = ak.fill_none(ak.pad_none(values, length, clip=True), variable.pad)
                made[variable.name] = ak.to_numpy(filled, allow_missing=False).astype(np.float32)
            channels.append(made[variable.name])
        inputs[name] = np.stack(channels, axis=1)
        made.clear()  # the next input may normalise the same variable differently
    return inputs


def recipe_of(model: str) -> Recipe:
    """Read the recipe from the configuration of one of the package's models."""
    from google.protobuf import text_format

    config = text_format.Parse((MODELS / model / "config.pbtxt").read_text(encoding="utf-8"), protocol.ModelConfig())
    return Recipe.parse(config.parameters["preprocess"].string_value, model=model)


def local_session(file: Path) -> Any:
    """Open a network in ONNX Runtime with one thread, as in the CPU facility's Triton."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def sample(jets: int) -> ak.Array:
    """Return the recipe's variables of the sample's first jets, cut to the constituents that the model takes.

    Raises
    ------
    ConfigurationError
        The sample is missing: it is in a source checkout, not in the installed package.
    """
    if not JETS.exists():
        raise ConfigurationError(
            f"The sample of jets is missing: {JETS}. It is not part of the installed package; clone the project and "
            "install it from the clone: pip install -e '.[study]'."
        )
    events = ak.from_parquet(JETS)
    constituents = ak.flatten(events.jets.constituents, axis=1)
    longest = recipe_of("particlenet").max_length
    return ak.to_packed(features(constituents[:jets])[:, :longest])


def particlenet_inputs(jets: int) -> dict[str, NDArray[np.float32]]:
    """Return pseudo-jets for the full-size ParticleNet; fewer jets are the first ones of more."""
    shapes = {"points": 2, "features": 5}
    inputs = {
        name: np.random.default_rng((_SEED, width)).normal(size=(jets, width, CONSTITUENTS))
        for name, width in shapes.items()
    }
    inputs["mask"] = np.ones((jets, 1, CONSTITUENTS))
    return {name: values.astype(np.float32) for name, values in inputs.items()}


def _first(chunk: Chunk, rows: int) -> Chunk:
    records = None if chunk.records is None else ak.to_packed(chunk.records[:rows])
    dense = None if chunk.dense is None else {name: values[:rows] for name, values in chunk.dense.items()}
    return Chunk(records, dense, chunk.expected[:rows])


def _dense_chunks(workload: Workload, jets: int, directory: Path) -> Iterator[Chunk]:  # noqa: ARG001
    random = np.random.default_rng(_SEED)
    for start in range(0, jets, workload.chunk):
        values = random.normal(size=(min(workload.chunk, jets - start), VALUES, CONSTITUENTS)).astype(np.float32)
        yield Chunk(None, {"x": values}, values[:, 0, :1].copy())


def _particlenet_chunks(workload: Workload, jets: int, directory: Path) -> Iterator[Chunk]:
    expected, inputs = np.load(_scores_file(workload, directory)), particlenet_inputs(jets)
    for start in range(0, jets, workload.chunk):
        part = slice(start, start + workload.chunk)
        yield Chunk(None, {name: values[part] for name, values in inputs.items()}, expected[part])


def _sample_chunks(workload: Workload, jets: int, directory: Path) -> Iterator[Chunk]:
    expected, records = np.load(_scores_file(workload, directory)), sample(jets)
    for start in range(0, len(records), workload.chunk):
        part = ak.to_packed(records[start : start + workload.chunk])
        yield Chunk(part, None, expected[start : start + len(part)])


_SOURCES = {"numpy": _dense_chunks, "particlenet": _particlenet_chunks, "jets": _sample_chunks}


def _scores_file(workload: Workload, directory: Path) -> Path:
    return directory / f"{workload.key}.npy"


def prepare(workload: Workload, jets: int, file: Path, directory: Path) -> None:
    """Compute the expected scores with local ONNX Runtime, padded to the model's maximum length, and save them."""
    session = local_session(file)
    jets = min(jets, workload.jets)
    if workload.source == "jets":
        records, recipe = sample(jets), recipe_of(workload.model)
        batches = (padded(records[start : start + _BATCH], recipe) for start in range(0, len(records), _BATCH))
    else:
        inputs = particlenet_inputs(jets)
        batches = (
            {name: values[start : start + _BATCH] for name, values in inputs.items()}
            for start in range(0, jets, _BATCH)
        )
    scores = [session.run([workload.output], batch)[0] for batch in batches]
    np.save(_scores_file(workload, directory), np.concatenate(scores))


def numbers_of(scores: Any) -> NDArray[Any]:
    """Return scores as numpy; the fields of a record, such as classes, become the last axis."""
    if isinstance(scores, np.ndarray):
        return scores
    if scores.fields:
        return np.stack([ak.to_numpy(scores[name]) for name in scores.fields], axis=-1)
    array: NDArray[Any] = ak.to_numpy(scores)
    return array
