"""What the contenders are given to do: jets, the model that they are for, and the scores that are right.

A workload is made anew, from the same seed or file, in each contender's process, so that nothing of it has to travel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference.bench.models import CONSTITUENTS, FULL_PARTICLENET, VALUES, ZERO_COST, Simulated
from eaf_inference.errors import ConfigurationError
from eaf_inference.facility.triton import MODELS
from eaf_inference.inference import protocol
from eaf_inference.inference.features import features
from eaf_inference.inference.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["ACCELERATOR", "JETS", "TOLERANCE", "WORKLOADS", "Chunk", "Data", "Workload", "local_session", "padded"]

JETS = Path(__file__).parents[2] / "notebooks" / "jets.parquet"  # a source checkout's
TOLERANCE = 1e-5  # beyond, a score is wrong
ACCELERATOR = Simulated(request=5e-3, cell=2e-7)
_DIFFERENT = 2560  # jets that are made; more are these again
_SEED = 20231206


@dataclass(frozen=True, slots=True)
class Workload:
    """One thing to do.

    Attributes
    ----------
    key : str
        How it is called on the command line and in tables.
    title : str
    model, output : str
    source : str
        "numpy": dense pseudo-jets of one input; "particlenet": pseudo-jets for the study's network; "jets": the
        sample.
    jets : int
        Of one round of a full run.
    chunk : int
        Jets that a contender gets at a time.
    delay : float or None
        Seconds of a simulated network, by Envoy's fault filter; None for loopback without Envoy.
    """

    key: str
    title: str
    model: str
    output: str
    source: str
    jets: int
    chunk: int
    delay: float | None = None


WORKLOADS = {
    each.key: each
    for each in (
        Workload("a", "zero-cost model, 16 × 100 float32", ZERO_COST, "score", "numpy", 256_000, 2_560),
        Workload("b", "our ParticleNet, the sample's jets", "particlenet", "softmax", "jets", 6_144, 1_024),
        Workload("c", "the study's ParticleNet", FULL_PARTICLENET, "softmax", "particlenet", 1_024, 1_024),
        Workload("d0", "simulated accelerator, Envoy", ACCELERATOR.name, "score", "numpy", 102_400, 2_560, 0.0),
        Workload(
            "d2", "simulated accelerator, Envoy + 2 ms", ACCELERATOR.name, "score", "numpy", 102_400, 2_560, 0.002
        ),
        Workload(
            "d10", "simulated accelerator, Envoy + 10 ms", ACCELERATOR.name, "score", "numpy", 102_400, 2_560, 0.010
        ),
    )
}


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Some jets: as a user of this client holds them, and where they are dense anyway by input name."""

    records: ak.Array | None
    dense: dict[str, NDArray[Any]] | None
    right: NDArray[np.float32]  # the scores

    def __len__(self) -> int:
        return len(self.right)


class Data:
    """The chunks of a workload.

    Parameters
    ----------
    workload : Workload
    jets : int
        How many of one round.
    directory : Path
        Where `prepare` left the right scores that are no mere copies.
    """

    def __init__(self, workload: Workload, jets: int, directory: Path) -> None:
        self.jets = jets
        self.recipe = recipe_of(workload.model) if workload.source == "jets" else None
        made = _SOURCES[workload.source](workload, min(jets, _most(workload)), directory)
        self._chunks = [chunk for chunk in made if len(chunk)]

    def chunks(self) -> Iterator[Chunk]:
        """One round's, the last one cut where it has to be."""
        left = self.jets
        while left > 0:
            for chunk in self._chunks:
                if left <= 0:
                    return
                if left < len(chunk):
                    yield _first(chunk, left)
                else:
                    yield chunk
                left -= len(chunk)

    def padded(self, chunk: Chunk) -> dict[str, NDArray[Any]]:
        """By input name, dense: what a client that knows no lists is given."""
        if chunk.dense is not None:
            return chunk.dense
        assert self.recipe is not None  # noqa: S101
        assert chunk.records is not None  # noqa: S101
        return padded(chunk.records, self.recipe)


def padded(records: ak.Array, recipe: Recipe) -> dict[str, NDArray[Any]]:
    """Jets as dense inputs of the model's greatest length: the usual way, by awkward's own functions."""
    length = recipe.max_length
    assert length is not None  # noqa: S101  (our model's has one)
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
        made.clear()  # the same variable may be normalised otherwise in the next input
    return inputs


def recipe_of(model: str) -> Recipe:
    """The recipe in the configuration of one of the package's models."""
    from google.protobuf import text_format

    config = text_format.Parse((MODELS / model / "config.pbtxt").read_text(encoding="utf-8"), protocol.ModelConfig())
    return Recipe.parse(config.parameters["preprocess"].string_value, model=model)


def local_session(file: Path) -> Any:
    """ONNX Runtime on one thread, as the CPU facility's Triton has it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _most(workload: Workload) -> int:
    return _DIFFERENT if workload.source == "numpy" else workload.jets


def _first(chunk: Chunk, rows: int) -> Chunk:
    records = None if chunk.records is None else ak.to_packed(chunk.records[:rows])
    dense = None if chunk.dense is None else {name: values[:rows] for name, values in chunk.dense.items()}
    return Chunk(records, dense, chunk.right[:rows])


def _numpy_jets(workload: Workload, jets: int, directory: Path) -> Iterator[Chunk]:  # noqa: ARG001
    random = np.random.default_rng(_SEED)
    for start in range(0, jets, workload.chunk):
        values = random.normal(size=(min(workload.chunk, jets - start), VALUES, CONSTITUENTS)).astype(np.float32)
        yield Chunk(None, {"x": values}, values[:, 0, :1].copy())


def _study_jets(workload: Workload, jets: int, directory: Path) -> Iterator[Chunk]:
    right, whole = _right_scores(workload, directory), study_inputs(jets)
    for start in range(0, jets, workload.chunk):
        part = slice(start, start + workload.chunk)
        yield Chunk(None, {name: values[part] for name, values in whole.items()}, right[part])


def study_inputs(jets: int) -> dict[str, NDArray[np.float32]]:
    """Pseudo-jets for the study's network, with as many constituents as the study's; fewer are the first of more."""
    shapes = {"points": 2, "features": 5}
    inputs = {
        name: np.random.default_rng((_SEED, width)).normal(size=(jets, width, CONSTITUENTS))
        for name, width in shapes.items()
    }
    inputs["mask"] = np.ones((jets, 1, CONSTITUENTS))
    return {name: values.astype(np.float32) for name, values in inputs.items()}


def sample(jets: int) -> ak.Array:
    """The recipe's variables of the sample's first jets, of as many constituents as the model takes."""
    if not JETS.exists():
        raise ConfigurationError(f"There is no {JETS}. The benchmark of real jets runs from a clone of the project.")
    events = ak.from_parquet(JETS)
    constituents = ak.flatten(events.jets.constituents, axis=1)
    longest = recipe_of("particlenet").max_length
    return ak.to_packed(features(constituents[:jets])[:, :longest])


def _real_jets(workload: Workload, jets: int, directory: Path) -> Iterator[Chunk]:
    records, right = sample(jets), _right_scores(workload, directory)
    for start in range(0, len(records), workload.chunk):
        part = ak.to_packed(records[start : start + workload.chunk])
        yield Chunk(part, None, right[start : start + len(part)])


_SOURCES = {"numpy": _numpy_jets, "particlenet": _study_jets, "jets": _real_jets}


def _right_scores(workload: Workload, directory: Path) -> NDArray[np.float32]:
    scores: NDArray[np.float32] = np.load(_scores_file(workload, directory))
    return scores


def _scores_file(workload: Workload, directory: Path) -> Path:
    return directory / f"{workload.key}.npy"


def prepare(workload: Workload, jets: int, file: Path, directory: Path) -> None:
    """Have local ONNX Runtime compute the right scores of a network, padded to its greatest length, and keep them."""
    session = local_session(file)
    if workload.source == "jets":
        records, recipe = sample(min(jets, workload.jets)), recipe_of(workload.model)
        parts = (padded(records[start : start + 64], recipe) for start in range(0, len(records), 64))
    else:
        whole = study_inputs(min(jets, workload.jets))
        parts = (
            {name: values[start : start + 64] for name, values in whole.items()}
            for start in range(0, len(whole["mask"]), 64)
        )
    scores = [session.run([workload.output], inputs)[0] for inputs in parts]
    np.save(_scores_file(workload, directory), np.concatenate(scores))
