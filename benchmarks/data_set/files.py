"""The files of the data set, those that are damaged, and the model whose scores of them are exact.

All values are small multiples of 1/64, so that sums in float32 are exact in whatever order and batches they are done:
scores of any two runs must be equal bit for bit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["IDS", "MODEL", "Made", "columns", "input_of", "make", "sums", "write_model"]

MODEL = "sums"
IDS = ("run", "luminosityBlock", "event")
_TREE = "Events"
_MOST_ROWS = 1200
_TYPES = {"run": "uint32", "luminosityBlock": "uint32", "event": "uint64"}
_TYPES |= dict.fromkeys(("pf_pt", "pf_eta"), "var * float32")
_CONFIG = """
backend: "onnxruntime"
max_batch_size: 256
input [{ name: "x", data_type: TYPE_FP32, dims: [2, -1] }]
output [{ name: "y", data_type: TYPE_FP32, dims: [2] }]
"""


@dataclass(frozen=True, slots=True)
class Made:
    """The data set.

    Attributes
    ----------
    fileset : dict
        As coffea takes it: two data sets, of ROOT and of parquet files.
    good : dict of str to int
        The number of events of each file that can be read, by path.
    bad : dict of str to str
        What is wrong with each of the others, as ``failed`` should say it, by path.
    """

    fileset: dict[str, Any]
    good: dict[str, int]
    bad: dict[str, str]


def write_model(repository: Path) -> None:
    """Write a network that adds up two features of a jet's constituents."""
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["x", "axis"], ["y"], keepdims=0)],
        MODEL,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, "p"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor("axis", TensorProto.INT64, [1], [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = repository / MODEL / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(model, path)
    (repository / MODEL / "config.pbtxt").write_text(_CONFIG, encoding="utf-8")


def input_of(events: Any) -> ak.Array:
    """Return the model's input: what `select` does."""
    return ak.zip({"pt": events.pf_pt, "eta": events.pf_eta})


def sums(events: Any) -> NDArray[np.float32]:
    """Return the scores as numpy computes them."""
    both = [ak.to_numpy(ak.sum(events[name], axis=1)) for name in ("pf_pt", "pf_eta")]
    return np.stack(both, axis=1).astype(np.float32)


def columns(path: str) -> ak.Array:
    """Read a file without this project."""
    if path.endswith(".root"):
        import uproot

        with uproot.open(path) as file:
            return file[_TREE].arrays([*IDS, "pf_pt", "pf_eta"])
    return ak.from_parquet(path)


def make(directory: Path, number: int, progress: Callable[[str], object]) -> Made:
    """Write the files: half of them ROOT, half parquet, of different sizes, five of them damaged."""
    random = np.random.default_rng(17)
    kinds, of_each = {"ttbar": ".root", "qcd": ".parquet"}, range(number // 2)
    paths = {kind: [directory / kind / f"{kind}_{at}{end}" for at in of_each] for kind, end in kinds.items()}
    good: dict[str, int] = {}
    first = 0
    for kind, files in paths.items():
        (directory / kind).mkdir(parents=True)
        for at, path in enumerate(files):
            rows = at if at < 2 else int(random.integers(2, _MOST_ROWS))
            _write(path, _events(random, first, rows))
            good[str(path)] = rows
            first += rows
    bad = _damage(*paths.values())
    progress(f"{number} files, {first:,} events before {len(bad)} of the files were damaged")
    return Made(
        fileset={
            kind: {"files": {str(path): _TREE if path.suffix == ".root" else None for path in files}, "metadata": {}}
            for kind, files in paths.items()
        },
        good={path: rows for path, rows in good.items() if path not in bad},
        bad=bad,
    )


def _events(random: np.random.Generator, first: int, rows: int) -> dict[str, Any]:
    counts = random.integers(0, 60, rows)
    values = {
        name: ak.unflatten((random.integers(low, 16384, counts.sum()) / 64).astype(np.float32), counts)
        for name, low in (("pf_pt", 0), ("pf_eta", -16384))
    }
    event = np.arange(first, first + rows, dtype=np.uint64)
    ids = {"run": np.full(rows, 356_000, np.uint32), "luminosityBlock": (event // 500).astype(np.uint32)}
    return {**ids, "event": event, **values}


def _write(path: Path, events: dict[str, Any]) -> None:
    if path.suffix == ".parquet":
        ak.to_parquet(ak.zip(events, depth_limit=1), path, row_group_size=500)
        return
    import uproot

    with uproot.recreate(path) as file:
        file.mktree(_TREE, {name: _TYPES[name] for name in events})
        file[_TREE].extend(events)


def _damage(root: list[Path], parquet: list[Path]) -> dict[str, str]:
    """Damage five files, each in another way, and return what `failed` should say."""
    import uproot

    cut_root, empty, treeless = root[len(root) // 4], root[len(root) // 2], root[-1]
    cut_parquet, lacking = parquet[len(parquet) // 3], parquet[-2]
    for path in (cut_root, cut_parquet):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    empty.write_bytes(b"")
    with uproot.recreate(treeless) as file:
        file["note"] = json.dumps({"events": "none"})
    whole = ak.from_parquet(lacking)
    ak.to_parquet(ak.without_field(whole, "pf_eta"), lacking)
    return {
        str(cut_root): "damaged",
        str(empty): "empty, 0 bytes",
        str(treeless): "no tree",
        str(cut_parquet): "damaged",
        str(lacking): "lacks pf_eta",
    }
