"""Make the jets and train the two models that come with eaf-inference.

What the package is shown with is real and can be made again: this script generates top and QCD jets with
Pythia 8, removes what a jet's pT alone would tell, trains ParticleNet-Lite (arXiv:1902.08570) to tell them
apart and a small network to regress a jet's pT and mass, and writes what the repository holds:
``notebooks/jets.parquet`` and the Triton repository ``eaf_inference/facility/models``.

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
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import awkward as ak
import numpy as np
import onnxruntime
import torch
from scipy.stats import ks_2samp
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor, nn
from tqdm import tqdm

from eaf_inference import features
from eaf_inference.inference.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Rows = NDArray[np.int64]  # which jets
    Arrays = dict[str, NDArray[np.generic]]  # by input name

REPOSITORY = Path(__file__).resolve().parents[1]
SAMPLE = REPOSITORY / "notebooks" / "jets.parquet"
MODELS = REPOSITORY / "eaf_inference" / "facility" / "models"
SEED = 1902_08570
HELD_OUT = 0.17  # of the events

# --- the jets --------------------------------------------------------------------------------------------

JET_RADIUS, PT_RANGE, MAX_ETA = 0.8, (450.0, 800.0), 2.5
PT_BINS = np.linspace(*PT_RANGE, 71)
COMMON = (
    "Print:quiet = on",
    "Beams:eCM = 13000.",
    "PhaseSpace:pTHatMin = 425.",
    "PhaseSpace:pTHatMax = 900.",
    "Random:setSeed = on",
)
TTBAR = ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on", "24:onMode = off", "24:onIfAny = 1 2 3 4 5")  # W -> qq'
PROCESSES = {0: ("HardQCD:all = on",), 1: TTBAR}  # by label
NEUTRINOS, TOP, LAST_BEFORE_DECAY = (12, 14, 16), 6, 62


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some events of one process, with a seed of their own: the unit of parallel work."""

    label: int
    seed: int
    first_event: int
    events: int


def kinematics(px: ak.Array, py: ak.Array, pz: ak.Array, energy: ak.Array) -> dict[str, ak.Array]:
    """Momenta in the field's coordinates."""
    pt = np.hypot(px, py)
    mass = np.sqrt(np.maximum(energy**2 - pt**2 - pz**2, 0.0))
    return {"pt": pt, "eta": np.arcsinh(pz / pt), "phi": np.arctan2(py, px), "mass": mass}


def jet_kinematics(constituents: ak.Array) -> dict[str, ak.Array]:
    """Pt, eta, phi and mass of the sum of each jet's constituents."""
    names = ("pt", "eta", "phi", "energy")
    pt, eta, phi, energy = (ak.values_astype(constituents[name], np.float64) for name in names)
    parts = (pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), energy)
    return kinematics(*(ak.sum(part, axis=-1) for part in parts))


def cluster(particles: ak.Array) -> ak.Array:
    """The particles that a detector sees, as events x anti-kT jets x particles."""
    import fastjet

    for neutrino in NEUTRINOS:
        particles = particles[abs(particles.id) != neutrino]
    particles = particles[particles.status > 0]
    p = particles.p
    fields = {"px": p.px, "py": p.py, "pz": p.pz, "E": p.e, "pid": particles.id, "charge": particles.charge}
    particles = ak.zip(fields, with_name="Momentum4D")[abs(np.arcsinh(p.pz / np.hypot(p.px, p.py))) < MAX_ETA]
    algorithm = fastjet.JetDefinition(fastjet.antikt_algorithm, JET_RADIUS)
    members = fastjet.ClusterSequence(particles, algorithm).constituent_index(min_pt=PT_RANGE[0])
    multiplicity = ak.flatten(ak.num(members, axis=-1), axis=None)
    return ak.unflatten(particles[ak.flatten(members, axis=-1)], multiplicity, axis=1)


def near_top(jets: ak.Array, particles: ak.Array) -> ak.Array:
    """Which jets have a top quark, just before its decay, within the jet radius."""
    p = particles.p[(abs(particles.id) == TOP) & (abs(particles.status) == LAST_BEFORE_DECAY)]
    jet, top = ak.unzip(ak.cartesian([jets, ak.zip(kinematics(p.px, p.py, p.pz, p.e))], nested=True))
    dphi = (jet.phi - top.phi + np.pi) % (2 * np.pi) - np.pi
    return ak.any(np.hypot(jet.eta - top.eta, dphi) < JET_RADIUS, axis=-1)


def generate_chunk(chunk: Chunk) -> ak.Array:
    """Events with the one or two leading jets that pass the selection."""
    import pythia8mc

    pythia = pythia8mc.Pythia("", False)  # noqa: FBT003
    for setting in (*COMMON, *PROCESSES[chunk.label], f"Random:seed = {chunk.seed}"):
        pythia.readString(setting)
    pythia.init()
    particles = pythia.nextBatch(chunk.events).prt
    pids, index = np.unique(ak.to_numpy(ak.flatten(particles.id)), return_inverse=True)
    charges = np.array([round(pythia.particleData.charge(int(pid))) for pid in pids], np.int8)
    particles = ak.with_field(particles, ak.unflatten(charges[index], ak.num(particles)), "charge")

    inside = cluster(particles)
    momenta = kinematics(inside.px, inside.py, inside.pz, inside.E) | {"energy": inside.E}
    floats = {name: ak.values_astype(momenta[name], np.float32) for name in ("pt", "eta", "phi", "energy")}
    constituents = ak.zip(floats | {"charge": inside.charge, "pid": ak.values_astype(inside.pid, np.int32)})
    constituents = constituents[ak.argsort(constituents.pt, axis=-1, ascending=False, stable=True)]

    jets = {name: ak.values_astype(x, np.float32) for name, x in jet_kinematics(constituents).items()}
    jets["label"] = ak.full_like(jets["pt"], chunk.label, dtype=np.int8)
    jets = ak.zip(jets | {"constituents": constituents}, depth_limit=2)
    selected = (jets.pt > PT_RANGE[0]) & (jets.pt < PT_RANGE[1]) & (abs(jets.eta) < MAX_ETA - JET_RADIUS)
    if chunk.label == 1:
        selected = selected & near_top(jets[["eta", "phi"]], particles)
    jets = jets[selected]
    jets = jets[ak.argsort(jets.pt, axis=-1, ascending=False, stable=True)][:, :2]
    numbers = chunk.first_event + np.arange(len(jets), dtype=np.int64)
    events = ak.zip({"event": numbers, "jets": jets}, depth_limit=1)
    return ak.to_packed(events[ak.num(events.jets) > 0])


def match_pt(events: ak.Array, rng: np.random.Generator) -> ak.Array:
    """Drop jets at random until each pT bin has as many of both classes; then drop empty events."""
    label = ak.to_numpy(ak.flatten(events.jets.label))
    pt_bin = np.digitize(ak.to_numpy(ak.flatten(events.jets.pt)), PT_BINS)
    keep = np.zeros(len(label), bool)
    for each in np.unique(pt_bin):
        classes = [np.flatnonzero((pt_bin == each) & (label == value)) for value in PROCESSES]
        count = min(map(len, classes))
        for members in classes:
            keep[rng.permutation(members)[:count]] = True
    events = ak.with_field(events, events.jets[ak.unflatten(keep, ak.num(events.jets))], "jets")
    return ak.to_packed(events[ak.num(events.jets) > 0])


def print_matching(name: str, events: ak.Array) -> None:
    """Show that pT alone no longer tells the classes apart."""
    label, pt = (ak.to_numpy(ak.flatten(events.jets[field])) for field in ("label", "pt"))
    qcd, top = (np.histogram(pt[label == value], PT_BINS)[0] for value in PROCESSES)
    print(
        f"{name}: {len(label)} jets in {len(events)} events; pT: largest |top/QCD - 1| of a bin "
        f"{np.max(abs(top - qcd) / np.maximum(qcd, 1)):.3g}, "
        f"KS p-value {ks_2samp(pt[label == 1], pt[label == 0]).pvalue:.3f}, "
        f"ROC AUC of pT alone {roc_auc_score(label, pt):.4f}"
    )


def write_events(path: Path, events: ak.Array) -> None:
    """Write Parquet that ``ak.from_parquet`` reads back without option types."""
    path.parent.mkdir(parents=True, exist_ok=True)
    jet = "jets.list.element."
    integers = ("event", jet + "label", *(f"{jet}constituents.list.element.{x}" for x in ("charge", "pid")))
    ak.to_parquet(
        events,
        path,
        compression="zstd",
        compression_level=19,
        extensionarray=False,
        parquet_compliant_nested=True,
        parquet_dictionary_encoding=list(integers),
        parquet_byte_stream_split=True,  # for the others: floats
    )


def generate(work_dir: Path, processes: int, chunks: int, events: int) -> None:
    """Generate jets, split them by event and match each part in pT."""
    jobs = [Chunk(n % len(PROCESSES), SEED + n, n * events, events) for n in range(chunks)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        made = pool.imap(generate_chunk, jobs)  # in the order of the jobs, whichever is done first
        sample = ak.concatenate(list(tqdm(made, "generate", len(jobs), unit="chunk")))
    rng = np.random.default_rng(SEED)
    order = rng.permutation(len(sample))
    border = round(HELD_OUT * len(sample))
    parts = {SAMPLE: order[:border], work_dir / "training.parquet": order[border:]}
    for path, part in parts.items():
        matched = match_pt(sample[part], rng)
        print_matching(path.name, matched)
        write_events(path, matched)


def read_jets(path: Path) -> ak.Array:
    """All jets of a sample, without the events around them."""
    return ak.flatten(ak.from_parquet(path).jets)


# --- what the tagger sees --------------------------------------------------------------------------------

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
        channels = Recipe.parse(json.dumps(recipe()), model="particlenet").apply(fields, counts.sum())
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


# --- the networks ----------------------------------------------------------------------------------------


def closeness(points: Tensor, *, exact: bool) -> Tensor:
    """Minus the squared distances (B, P, P) among points (B, D, P).

    The exact form avoids a cancellation that confuses nearly collinear constituents; it is affordable for few D.
    """
    if exact:
        return -((points[:, :, :, None] - points[:, :, None, :]) ** 2).sum(1)
    square = (points**2).sum(1)
    return 2 * points.transpose(1, 2) @ points - square[:, :, None] - square[:, None, :]


class EdgeConv(nn.Module):
    """Convolution over the edges from each point to its nearest neighbours."""

    def __init__(self, neighbours: int, width: int, widths: tuple[int, ...], *, exact: bool) -> None:
        super().__init__()
        self.exact = exact
        self.neighbours = neighbours
        layers: list[nn.Module] = []
        for before, after in zip((2 * width, *widths[:-1]), widths, strict=True):
            layers += [nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.edges = nn.Sequential(*layers)
        self.shortcut = nn.Sequential(nn.Conv1d(width, widths[-1], 1, bias=False), nn.BatchNorm1d(widths[-1]))

    def forward(self, points: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """Features (B, C, P) at points (B, D, P) become (B, C', P), zero where the mask is."""
        jets, width, length = features.shape
        nearest = (
            closeness(points, exact=self.exact).topk(self.neighbours + 1, dim=-1).indices[:, :, 1:]
        )  # not itself
        rows = nearest.transpose(1, 2) + length * torch.arange(jets)[:, None, None]
        other = features.transpose(1, 2).reshape(-1, width)[rows.reshape(-1)]
        other = other.reshape(jets, self.neighbours, length, width).permute(0, 3, 1, 2)
        itself = features[:, :, None].expand(-1, -1, self.neighbours, -1)
        message = self.edges(torch.cat([itself, other - itself], dim=1)).mean(2)
        return torch.relu(self.shortcut(features) + message) * mask


class ParticleNetLite(nn.Module):
    """ParticleNet-Lite; a jet's scores do not depend on how far it was padded.

    For that, padded points are moved far away before neighbours are sought, their features are set to zero
    again after every normalisation, and the mean is taken over the jet's own points.
    """

    def __init__(self) -> None:
        super().__init__()
        width = len(INPUTS["features"])
        self.norm = nn.BatchNorm1d(width)
        first = EdgeConv(7, width, (32, 32, 32), exact=True)
        second = EdgeConv(7, 32, (64, 64, 64), exact=False)
        self.convolutions = nn.ModuleList([first, second])
        self.head = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, len(CLASSES)))

    def logits(self, points: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """Scores before the softmax."""
        far_away = (1 - mask) * 1e9
        features = self.norm(features) * mask
        for convolution in self.convolutions:
            features = convolution(points + far_away, features, mask)
            points = features
        return self.head(features.sum(-1) / mask.sum(-1).clamp(min=1))

    def forward(self, points: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """The probability of each class."""
        return self.logits(points, features, mask).softmax(-1)


class JetRegression(nn.Module):
    """The whole jet's pT and mass, as multiples of its leading constituents' pT."""

    LEADING = 16

    def __init__(self) -> None:
        super().__init__()
        sizes = (4 * self.LEADING + 3, 64, 64)
        layers = [(nn.Linear(*ends), nn.ReLU()) for ends in pairwise(sizes)]
        self.layers = nn.Sequential(*(layer for pair in layers for layer in pair), nn.Linear(sizes[-1], 2))

    def forward(self, constituents: Tensor, multiplicity: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 16, 4) and (B, 1) become pt (B, 1) and mass (B, 1), in GeV."""
        pt, eta, phi, energy = constituents.unbind(-1)
        # E + pz and E - pz of massless constituents are pt exp(eta) and pt exp(-eta)
        parts = (pt * phi.cos(), pt * phi.sin(), pt * eta.exp(), pt * (-eta).exp())
        px, py, plus, minus = (part.sum(-1, keepdim=True) for part in parts)
        leading_pt = torch.sqrt(px**2 + py**2)
        leading_mass = torch.sqrt(torch.relu(plus * minus - leading_pt**2) + 1)
        scale = leading_pt.clamp(min=1)
        known = (
            pt.log1p() / 4,
            eta * 3,
            phi * 3,
            energy.log1p() / 4,
            (multiplicity.float().clamp(min=1) / 70).log(),
            (scale / 400).log(),
            (leading_mass / scale).log() + 1.5,
        )
        ratios = self.layers(torch.cat(known, dim=-1)).exp()
        return leading_pt * ratios[:, :1], leading_pt * ratios[:, 1:] / 5


def fit(
    network: nn.Module,
    loss_of: Callable[[Rows], Tensor],
    batches: Callable[[np.random.Generator], list[Rows]],
    *,
    epochs: int,
    learning_rate: float,
) -> None:
    """Train with AdamW and a one-cycle learning rate."""
    rng = np.random.default_rng(SEED)
    plan = [batches(rng) for _ in range(epochs)]
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate)
    steps = sum(map(len, plan))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    network.train()
    for epoch, rows_of_epoch in enumerate(plan, 1):
        rng.shuffle(rows_of_epoch)
        losses = []
        progress = tqdm(rows_of_epoch, f"epoch {epoch}/{epochs}", unit="batch", mininterval=5)
        for rows in progress:
            loss = loss_of(rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            progress.set_postfix(loss=f"{np.mean(losses):.4f}", refresh=False)
    network.eval()


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
    network = ParticleNetLite()
    print(f"training: {len(jets)} jets, {sum(each.numel() for each in network.parameters())} parameters")

    def loss(rows: Rows) -> Tensor:
        return nn.functional.cross_entropy(network.logits(*tensors(prepared.batch(rows))), target[rows])

    def batches(rng: np.random.Generator) -> list[Rows]:
        return prepared.batches(rng.permutation(len(jets)), 128)

    fit(network, loss, batches, epochs=epochs, learning_rate=5e-3)
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
    network = ParticleNetLite()
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

    fit(network, loss, batches, epochs=epochs, learning_rate=3e-3)
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
    (directory / "config.pbtxt").write_text("\n".join(lines) + "\n")


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
