"""The usual kinematic variables of a jet's constituents, by their JetClass names.

Definitions as in ParticleNet (arXiv:1902.08570, table 1) and the JetClass data set (arXiv:2202.03772): relative
to the jet, whose four-momentum is the sum of its constituents', and with eta mirrored so that the jet's is
positive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eaf_inference.errors import InvalidInput
from eaf_inference.inference.layout import Nested, flatten_fields, nest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import awkward as ak
    from numpy.typing import NDArray

__all__ = ["FEATURES", "KINEMATICS", "compute", "features"]

KINEMATICS = ("pt", "eta", "phi", "energy")
FEATURES = (
    "part_deta",
    "part_dphi",
    "part_deltaR",
    "part_pt_log",
    "part_e_log",
    "part_logptrel",
    "part_logerel",
)
_BLOCK = 1 << 15  # constituents at a time: what is computed on the way stays in the processor's cache


def features(constituents: ak.Array, names: Iterable[str] | None = None) -> ak.Array:
    """Compute the recipe's usual variables from constituents.

    Parameters
    ----------
    constituents : awkward.Array
        ``… × jets × constituents`` of records with ``pt`` and ``energy`` (GeV), ``eta`` and ``phi`` (radians).
    names : iterable of str, optional
        Which of `FEATURES` to compute; all by default.

    Returns
    -------
    awkward.Array
        Records of the same nesting, float32: ``part_deta`` = (eta − jet eta)·sign(jet eta), ``part_dphi`` =
        phi − jet phi in [−pi, pi], ``part_deltaR`` = their hypotenuse, ``part_pt_log`` = ln pt, ``part_e_log`` =
        ln energy, ``part_logptrel`` = ln(pt / jet pt), ``part_logerel`` = ln(energy / jet energy).

    Raises
    ------
    InvalidInput
        A field is missing or not a list of numbers, or a name is not in `FEATURES`.
    """
    wanted = FEATURES if names is None else tuple(names)
    unknown = [name for name in wanted if name not in FEATURES]
    if unknown:
        raise InvalidInput(f"There are no features {unknown}. Expected some of {', '.join(FEATURES)}.")
    fields, nested = flatten_fields(constituents, KINEMATICS)
    return nest(compute(fields, nested, wanted), nested)


def compute(
    fields: Mapping[str, NDArray[np.generic]], nested: Nested, names: Iterable[str]
) -> dict[str, NDArray[np.float32]]:
    """The same, of flat arrays (total,): `fields` has the `KINEMATICS`."""
    ends = np.cumsum(nested.counts)
    total = int(ends[-1]) if len(ends) else 0
    done = {name: np.empty(total, np.float32) for name in names}
    first = at = 0
    while at < total:
        last = max(int(np.searchsorted(ends, at + _BLOCK, side="right")), first + 1)
        part = slice(at, int(ends[last - 1]))
        block = {name: fields[name][part].astype(np.float32, copy=False) for name in KINEMATICS}
        for name, values in _of_block(block, nested.counts[first:last], tuple(done)).items():
            done[name][part] = values
        first, at = last, part.stop
    return done


def _of_block(
    fields: Mapping[str, NDArray[np.float32]], counts: NDArray[np.int64], names: Iterable[str]
) -> dict[str, NDArray[np.float32]]:
    """The variables of some jets one after the other."""
    pt, eta, phi, energy = (fields[name] for name in KINEMATICS)
    starts = np.cumsum(counts) - counts
    # a constituent or jet without pt has no direction, and one along the beam has no finite momentum
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        jet_px = _sum(pt * np.cos(phi), starts, counts)
        jet_py = _sum(pt * np.sin(phi), starts, counts)
        jet_pz = _sum(pt * np.sinh(eta), starts, counts)
        jet_pt = np.hypot(jet_px, jet_py)
        jet_eta = np.arcsinh(jet_pz / jet_pt)
        jet_phi = np.arctan2(jet_py, jet_px)
        jet_energy = _sum(energy, starts, counts)

        def of_jet(values: NDArray[np.float64]) -> NDArray[np.float32]:
            return np.repeat(values.astype(np.float32), counts)

        done: dict[str, NDArray[np.float32]] = {}

        recipes: dict[str, Callable[[], NDArray[np.float32]]]

        def get(name: str) -> NDArray[np.float32]:
            if name not in done:
                done[name] = recipes[name]()
            return done[name]

        def deta() -> NDArray[np.float32]:
            result = eta - of_jet(jet_eta)
            result *= of_jet(np.copysign(1.0, jet_eta))
            return result

        def dphi() -> NDArray[np.float32]:
            result = phi - of_jet(jet_phi)
            turns = np.rint(result * np.float32(1 / (2 * np.pi)))
            turns *= np.float32(2 * np.pi)
            result -= turns
            return result

        recipes = {
            "part_deta": deta,
            "part_dphi": dphi,
            "part_deltaR": lambda: np.sqrt(get("part_deta") ** 2 + get("part_dphi") ** 2),
            "part_pt_log": lambda: np.log(pt),
            "part_e_log": lambda: np.log(energy),
            "part_logptrel": lambda: get("part_pt_log") - of_jet(np.log(jet_pt)),
            "part_logerel": lambda: get("part_e_log") - of_jet(np.log(jet_energy)),
        }
        return {name: get(name) for name in names}


def _sum(values: NDArray[np.float32], starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sums over each jet's constituents, in float64."""
    result = np.zeros(len(counts))
    filled = counts > 0  # reduceat has no empty sums
    if filled.any():
        result[filled] = np.add.reduceat(values, starts[filled], dtype=np.float64)
    return result
