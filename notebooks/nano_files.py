"""Small files in the formats of the experiments, which the coffea notebook and the tests read.

`cms_pfnano.root`, `cms_nano_v15.root` and `atlas_physlite.root` are pieces of `pfnano.root`, `nano_tt_v15.root` and
`PHYSLITE_example.root`, the samples with which coffea tests itself: tests/samples in the source distribution of
coffea 2026.9.0, whose licence is in coffea-license.txt. To make them again, run `python nano_files.py DIRECTORY` with
the directory that holds those three.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import awkward as ak
import numpy as np
import uproot

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Path(__file__).resolve().parent
# Collections of PFNano, and their variables; a collection's counter is made by uproot.
PFNANO = {
    "Jet": ("pt", "eta", "phi", "mass", "nConstituents", "muonIdx1", "muonIdx2"),
    "FatJet": ("pt", "eta", "phi", "mass", "msoftdrop", "particleNet_TvsQCD"),
    "PFCands": ("pt", "eta", "phi", "mass", "d0", "dz", "puppiWeight", "charge", "pdgId"),
    "JetPFCands": ("pFCandsIdx", "jetIdx", "btagEtaRel"),
    "FatJetPFCands": ("pFCandsIdx", "jetIdx", "btagEtaRel"),
    "SV": ("pt", "eta", "phi", "mass", "dlen", "ntracks"),
    "JetSVs": ("sVIdx", "jetIdx", "deltaR"),
    "FatJetSVs": ("sVIdx", "jetIdx", "deltaR"),
    "Muon": ("pt", "eta", "phi", "mass", "charge", "jetIdx"),
}
# NanoAOD since version 15 has the candidates of large jets under other names.
NANO_V15 = {
    "FatJet": ("pt", "eta", "phi", "mass", "nConstituents"),
    "FatJetPFCand": ("pfCandIdx", "jetIdx"),
    "PFCand": ("pt", "eta", "phi", "mass", "pdgId"),
}
PHYSLITE = {
    "AnalysisJetsAuxDyn": ("pt", "eta", "phi", "m", "Width", "EMFrac"),
    "InDetTrackParticlesAuxDyn": ("phi", "theta", "qOverP", "d0", "z0", "chiSquared"),
    "AnalysisElectronsAuxDyn": ("pt", "eta", "phi", "m"),
}


def write_pfnano(events: ak.Array, path: Path) -> None:
    """Write events × jets × constituents of the toy sample (jets.parquet) as PFNano writes FatJet and its candidates.

    Each constituent belongs to one jet, so the links simply count.
    """
    jets, candidates = events.jets, events.jets.constituents
    flat = ak.flatten(candidates, axis=2)
    momentum = flat.pt * np.cosh(ak.values_astype(flat.eta, np.float64))
    mass = np.sqrt(np.maximum(ak.values_astype(flat.energy, np.float64) ** 2 - momentum**2, 0))
    branches = {
        "run": np.ones(len(events), np.uint32),
        "luminosityBlock": np.ones(len(events), np.uint32),
        "event": ak.values_astype(events.event, np.uint64),
        "FatJet": ak.zip(
            {name: jets[name] for name in ("pt", "eta", "phi", "mass", "label")}
            | {"nConstituents": ak.values_astype(ak.num(candidates, axis=2), np.int32)}
        ),
        "FatJetPFCands": ak.zip(
            {
                "pt": flat.pt,
                "pFCandsIdx": ak.values_astype(ak.local_index(flat.pt), np.int32),
                "jetIdx": ak.values_astype(_owners(candidates), np.int32),
            }
        ),
        "PFCands": ak.zip(
            {name: flat[name] for name in ("pt", "eta", "phi", "charge")}
            | {"mass": ak.values_astype(mass, np.float32), "pdgId": flat.pid}
        ),
    }
    _write(path, "Events", branches)


def slim_pfnano(source: Path, path: Path) -> None:
    """Keep the jets, candidates, vertices and muons of a PFNano file.

    ``FatJet_nConstituents``, by which coffea finds the candidates of a jet, is added: this file is older than it.
    """
    branches = _collections(source, PFNANO)
    owner = branches["FatJetPFCands"].jetIdx
    number = ak.sum(owner[:, np.newaxis] == ak.local_index(branches["FatJet"].pt)[:, :, np.newaxis], axis=-1)
    branches["FatJet"] = ak.with_field(branches["FatJet"], ak.values_astype(number, np.int32), "nConstituents")
    _write(path, "Events", branches)


def slim_nano_v15(source: Path, path: Path) -> None:
    """Keep the large jets and their candidates of a NanoAOD file."""
    _write(path, "Events", _collections(source, NANO_V15))


def slim_physlite(source: Path, path: Path) -> None:
    """Keep the momenta of jets, electrons and tracks of a PHYSLITE file, without the links between them."""
    with uproot.open({source: "CollectionTree"}) as tree:
        branches = {
            f"{collection}.{name}": tree[f"{collection}.{name}"].array()
            for collection, names in PHYSLITE.items()
            for name in names
        }
    _write(path, "CollectionTree", branches)


def _collections(source: Path, kept: Mapping[str, tuple[str, ...]]) -> dict[str, ak.Array]:
    with uproot.open({source: "Events"}) as tree:
        branches = {name: tree[name].array() for name in ("run", "luminosityBlock", "event")}
        for collection, names in kept.items():
            branches[collection] = ak.zip({name: tree[f"{collection}_{name}"].array() for name in names})
    return branches


def _owners(candidates: ak.Array) -> ak.Array:
    """Return the number of the jet, in its event, of each candidate of the event."""
    return ak.flatten(ak.broadcast_arrays(ak.local_index(candidates.pt, axis=1), candidates.pt)[0], axis=2)


def _write(path: Path, tree: str, branches: Mapping[str, ak.Array]) -> None:
    with uproot.recreate(path, compression=uproot.ZLIB(5)) as file:
        file.mktree(tree, branches)


if __name__ == "__main__":
    (directory,) = map(Path, sys.argv[1:])
    slim_pfnano(directory / "pfnano.root", HERE / "cms_pfnano.root")
    slim_nano_v15(directory / "nano_tt_v15.root", HERE / "cms_nano_v15.root")
    slim_physlite(directory / "PHYSLITE_example.root", HERE / "atlas_physlite.root")
