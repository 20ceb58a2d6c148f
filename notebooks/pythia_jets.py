"""Top and QCD jets from Pythia 8, matched in pT: the sample that `train_particlenet.py` trains and rates on."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import awkward as ak
import numpy as np
from scipy.stats import ks_2samp
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parents[1]
SAMPLE = REPOSITORY / "notebooks" / "jets.parquet"
SEED = 1902_08570
HELD_OUT = 0.17  # of the events

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
