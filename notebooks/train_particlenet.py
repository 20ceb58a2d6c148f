"""Make the jets and train the two models that come with eaf-inference.

What the package is shown with is real and can be made again: this script generates top and QCD jets with
Pythia 8, removes what a jet's pT alone would tell, trains ParticleNet-Lite (arXiv:1902.08570) to tell them
apart and a small network to regress a jet's pT and mass, and writes what the repository holds:
``notebooks/jets.parquet`` and the Triton repository ``eaf_facility/servers/models``.

    pip install "eaf-inference[train]"
    python notebooks/train_particlenet.py all        # or step by step: generate, train, check, regress

The training sample, too large to be committed, stays in ``--work-dir``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import awkward as ak
import numpy as np
import onnxruntime
import torch
from jet_networks import JetRegression, ParticleNetLite, fit
from pythia_jets import REPOSITORY, SAMPLE, SEED, generate, read_jets
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor, nn

from eaf_inference import features
from eaf_inference.inference.recipe import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]  # which jets
    Arrays = dict[str, NDArray[np.generic]]  # by input name

MODELS = REPOSITORY / "eaf_facility" / "servers" / "models"
MIN_LENGTH, MAX_LENGTH = 16, 128
STANDARDISED = {  # (median, norm_factor) as in JetClass's configuration of weaver
    "part_deta": None,
    "part_dphi": None,
    "part_pt_log": (1.7, 0.7),
    "part_e_log": (2.0, 0.7),
    "part_logptrel": (-4.7, 0.7),
    "part_logerel": (-4.7, 0.7),
    "part_deltaR": (0.2, 4.0),
}
INPUTS = {
    "points": ("part_deta", "part_dphi"),
    "features": tuple(STANDARDISED),
    "mask": ("part_mask",),
}
CLASSES = ("top", "qcd")
WEIGHTS = "particlenet.pt"  # in the work directory, for the check


def recipe() -> dict[str, object]:
    """The inputs' variables and their normalisation, in the form of weaver's ``preprocess.json``."""

    def info(name: str) -> dict[str, float]:
        median, norm_factor = STANDARDISED.get(name) or (0, 1)
        bound = 5 if STANDARDISED.get(name) else 1e32
        bounds = {"lower_bound": -bound, "upper_bound": bound}
        return {"median": median, "norm_factor": norm_factor, "replace_inf_value": 0, **bounds, "pad": 0}

    lengths = {"min_length": MIN_LENGTH, "max_length": MAX_LENGTH}
    inputs = {
        name: {"var_names": names, "var_infos": {each: info(each) for each in names}, **lengths}
        for name, names in INPUTS.items()
    }
    return {"output_names": CLASSES, "input_names": list(INPUTS), **inputs}


@dataclass(frozen=True, slots=True)
class Prepared:
    """The normalised variables of all jets of a sample, each input as one flat array."""

    values: dict[str, NDArray[np.float32]]  # (constituents, variables)
    counts: NDArray[np.int64]

    @classmethod
    def from_constituents(cls, constituents: ak.Array) -> Prepared:
        """Apply the recipe to the leading constituents."""
        variables = features(constituents)[:, :MAX_LENGTH]
        counts = ak.to_numpy(ak.num(variables)).astype(np.int64)
        fields = {name: ak.to_numpy(ak.flatten(variables[name])) for name in variables.fields}
        dtypes = dict.fromkeys(INPUTS, np.dtype(np.float32))
        channels = Recipe.parse(json.dumps(recipe()), model="particlenet").apply(fields, counts.sum(), dtypes)
        values = {name: np.stack([column for column, _ in each], axis=1) for name, each in channels.items()}
        return cls(values, counts)

    def batch(self, rows: Rows, length: int | None = None) -> Arrays:
        """The model's inputs (jets, variables, length), padded with zeros to a multiple of 8 by default."""
        counts = self.counts[rows]
        length = length or max(MIN_LENGTH, -(-int(counts.max()) // 8) * 8)
        starts = (np.cumsum(self.counts) - self.counts)[rows]
        real = np.arange(length) < counts[:, None]
        cells = np.where(real, starts[:, None] + np.arange(length), 0)
        return {
            name: np.ascontiguousarray((values[cells] * real[..., None]).transpose(0, 2, 1))
            for name, values in self.values.items()
        }

    def batches(self, order: Rows, size: int) -> list[Rows]:
        """Cut the jets into batches of similar length, sorting only within windows of 16 batches."""
        windows = (order[start : start + 16 * size] for start in range(0, len(order), 16 * size))
        by_length = (rows[np.argsort(self.counts[rows], kind="stable")] for rows in windows)
        return [rows[start : start + size] for rows in by_length for start in range(0, len(rows), size)]


# --- the steps of the training ---------------------------------------------------------------------------


def tensors(arrays: Arrays) -> list[Tensor]:
    """The inputs as tensors."""
    return [torch.from_numpy(values) for values in arrays.values()]


def train(work_dir: Path, epochs: int) -> None:
    """Train the tagger and write it to the Triton repository."""
    torch.manual_seed(SEED)
    jets = read_jets(work_dir / "training.parquet")
    prepared = Prepared.from_constituents(jets.constituents)
    target = torch.from_numpy((ak.to_numpy(jets.label) == 0).astype(np.int64))  # CLASSES: top, qcd
    network = ParticleNetLite(len(STANDARDISED), len(CLASSES))
    print(f"training: {len(jets)} jets, {sum(each.numel() for each in network.parameters())} parameters")

    def loss(rows: Rows) -> Tensor:
        return nn.functional.cross_entropy(network.logits(*tensors(prepared.batch(rows))), target[rows])

    def batches(rng: np.random.Generator) -> list[Rows]:
        return prepared.batches(rng.permutation(len(jets)), 128)

    fit(network, loss, batches, epochs=epochs, learning_rate=5e-3, seed=SEED)
    torch.save(network.state_dict(), work_dir / WEIGHTS)
    export(
        "particlenet",
        network,
        prepared.batch(np.arange(2)),
        inputs={name: f"TYPE_FP32 dims: [{len(names)}, -1]" for name, names in INPUTS.items()},
        outputs={"softmax": f"TYPE_FP32 dims: [{len(CLASSES)}]"},
        parameters={"preprocess": recipe(), "labels": {"softmax": CLASSES}},
    )


def check(work_dir: Path) -> None:
    """Check and rate the tagger as it was written."""
    network = ParticleNetLite(len(STANDARDISED), len(CLASSES))
    network.load_state_dict(torch.load(work_dir / WEIGHTS))
    exported = load("particlenet")
    check_scores(network.eval(), exported)
    rate_tagger(exported)


def check_scores(network: ParticleNetLite, exported: onnxruntime.InferenceSession) -> None:
    """Make sure that scores depend neither on the padded length nor on who computes them."""
    some = read_jets(SAMPLE).constituents[:128]
    jets = Prepared.from_constituents(ak.concatenate([some, *(some[:, :n] for n in (0, 1, 2, 3, 7, 8, 9))]))
    everything = np.arange(len(jets.counts))
    longest = exported.run(None, jets.batch(everything, MAX_LENGTH))[0]
    lengths = (8, 9, 13, 16, 24, 57, 64, 100, 104, 128, 160)
    padding, runtimes = [], []
    for length in lengths:
        rows = everything[jets.counts <= length]
        batch = jets.batch(rows, length)
        scores = exported.run(None, batch)[0]
        with torch.no_grad():
            runtimes.append(np.abs(network(*tensors(batch)).numpy() - scores).max(axis=1))
        padding.append(np.abs(scores - longest[rows]).max())
    apart = np.concatenate(runtimes)
    print(
        f"{len(everything)} jets of {jets.counts.min()} to {jets.counts.max()} constituents: "
        f"scores differ by at most {max(padding):.1e} among padded lengths {', '.join(map(str, lengths))}"
    )
    print(
        f"torch and ONNX Runtime differ by at most {apart.max():.1e}; by more than 1e-5 for "
        f"{np.sum(apart > 1e-5)} of {len(apart)} compared scores"
    )
    # Where two points are equally near, rounding decides which of them is a neighbour: a few jets may differ.
    if not (max(padding) <= 4e-7 and np.mean(apart <= 1e-5) >= 0.99):  # also if any is not a number
        raise RuntimeError("the exported model is not the trained one, or its scores depend on the padding")


def rate_tagger(exported: onnxruntime.InferenceSession) -> None:
    """Print how well the exported tagger separates the held-out jets."""
    jets = read_jets(SAMPLE)
    prepared = Prepared.from_constituents(jets.constituents)
    score = np.empty(len(jets), np.float32)
    for rows in prepared.batches(np.arange(len(jets)), 64):
        score[rows] = exported.run(None, prepared.batch(rows))[0][:, CLASSES.index("top")]
    label = ak.to_numpy(jets.label)
    background, signal, _ = roc_curve(label, score)
    rejection = {working: 1 / np.interp(working, signal, background) for working in (0.3, 0.5)}
    print(
        f"held out: {len(jets)} jets ({np.sum(label == 1)} top, {np.sum(label == 0)} QCD), "
        f"ROC AUC {roc_auc_score(label, score):.4f}, "
        + ", ".join(f"1/eps_B {value:.0f} at eps_S {working:.0%}" for working, value in rejection.items())
        + f"; the jet mass alone: ROC AUC {roc_auc_score(label, ak.to_numpy(jets.mass)):.4f}"
    )


def regression_inputs(constituents: ak.Array) -> Arrays:
    """The leading constituents' pt, eta, phi (around the jet axis), energy; how many there are in all."""
    around = features(constituents, ("part_deta", "part_dphi"))
    columns = (constituents.pt, around.part_deta, around.part_dphi, constituents.energy)
    dense = [ak.fill_none(ak.pad_none(each, JetRegression.LEADING, clip=True), 0.0) for each in columns]
    return {
        "constituents": np.stack([ak.to_numpy(each) for each in dense], axis=-1).astype(np.float32),
        "multiplicity": ak.to_numpy(ak.num(constituents)).astype(np.int32)[:, None],
    }


def regress(work_dir: Path, epochs: int) -> None:
    """Train the regression, write it to the Triton repository and print its resolution."""
    torch.manual_seed(SEED)
    jets = read_jets(work_dir / "training.parquet")
    arrays = regression_inputs(jets.constituents)
    inputs = tensors(arrays)
    truth = [torch.from_numpy(ak.to_numpy(jets[name]))[:, None] for name in ("pt", "mass")]
    network = JetRegression()

    def loss(rows: Rows) -> Tensor:
        pairs = zip(network(*(each[rows] for each in inputs)), truth, strict=True)
        return sum(nn.functional.smooth_l1_loss(got.log(), true[rows].log(), beta=0.1) for got, true in pairs)

    def batches(rng: np.random.Generator) -> list[Rows]:
        return np.array_split(rng.permutation(len(jets)), len(jets) // 256)

    fit(network, loss, batches, epochs=epochs, learning_rate=3e-3, seed=SEED)
    export(
        "jet_regression",
        network,
        {name: values[:2] for name, values in arrays.items()},
        inputs={
            "constituents": f"TYPE_FP32 dims: [{JetRegression.LEADING}, 4]",
            "multiplicity": "TYPE_INT32 dims: [1]",
        },
        outputs={"pt": "TYPE_FP32 dims: [1]", "mass": "TYPE_FP32 dims: [1]"},
    )
    jets = read_jets(SAMPLE)
    regressed = load("jet_regression").run(None, regression_inputs(jets.constituents))
    for name, values in zip(("pt", "mass"), regressed, strict=True):
        low, median, high = np.quantile(values[:, 0] / ak.to_numpy(jets[name]), (0.16, 0.5, 0.84))
        print(
            f"held out: {len(jets)} jets, regressed/true {name}: median {median:.3f}, "
            f"half width of the 68% interval {(high - low) / 2:.3f}"
        )


# --- what Triton reads -----------------------------------------------------------------------------------


def export(
    name: str,
    network: nn.Module,
    example: Arrays,
    *,
    inputs: dict[str, str],
    outputs: dict[str, str],
    parameters: dict[str, object] | None = None,
) -> None:
    """Write a model's directory of the Triton repository."""
    directory = MODELS / name
    path = directory / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    ragged = [each for each, declared in inputs.items() if "-1" in declared]
    torch.onnx.export(
        network,
        tuple(tensors(example)),
        str(path),
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_axes={each: {0: "batch"} for each in (*inputs, *outputs)}
        | {each: {0: "batch", 2: "constituents"} for each in ragged},
        opset_version=17,  # ONNX Runtime 1.17 and later load it
        dynamo=False,
    )
    lines = [
        "# Written by notebooks/train_particlenet.py.",
        f'name: "{name}"',
        'backend: "onnxruntime"',
        "max_batch_size: 1024",
        *(f'input {{ name: "{each}" data_type: {declared} }}' for each, declared in inputs.items()),
        *(f'output {{ name: "{each}" data_type: {declared} }}' for each, declared in outputs.items()),
        "dynamic_batching { max_queue_delay_microseconds: 500 }",
    ]
    for key, value in (parameters or {}).items():
        lines += ["parameters {", f'  key: "{key}"', "  value {", "    string_value:"]
        lines += [f"      {literal}" for literal in text_literals(value)]
        lines += ["  }", "}"]
    (directory / "config.pbtxt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def load(name: str) -> onnxruntime.InferenceSession:
    """A model of the Triton repository in ONNX Runtime."""
    return onnxruntime.InferenceSession(MODELS / name / "1" / "model.onnx", providers=["CPUExecutionProvider"])


def text_literals(value: object) -> list[str]:
    """JSON as literals of protobuf's text format, which joins them; innermost brackets on one line."""
    innermost = re.compile(r"[\[{][^\[\]{}]*[\]}]")
    text = innermost.sub(lambda found: " ".join(found[0].split()), json.dumps(value, indent=1))
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return [f"'{line}'" for line in escaped.splitlines()]


def main() -> None:
    """Run the steps asked for."""
    parser = argparse.ArgumentParser(description="Make the jets and train the models of eaf-inference.")
    parser.add_argument("step", choices=("generate", "train", "check", "regress", "all"))
    parser.add_argument("--work-dir", type=Path, default=Path.home() / ".cache" / "eaf-inference" / "train")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--chunks", type=int, default=72, help="how many, QCD and top in turn")
    parser.add_argument("--events", type=int, default=500, help="in a chunk")
    parser.add_argument("--epochs", type=int, default=8, help="of the tagger")
    parser.add_argument("--regression-epochs", type=int, default=30)
    options = parser.parse_args()
    if options.step in ("generate", "all"):
        generate(options.work_dir, options.processes, options.chunks, options.events)
    if options.step in ("train", "all"):
        train(options.work_dir, options.epochs)
    if options.step in ("check", "all"):
        check(options.work_dir)
    if options.step in ("regress", "all"):
        regress(options.work_dir, options.regression_epochs)


if __name__ == "__main__":
    main()
