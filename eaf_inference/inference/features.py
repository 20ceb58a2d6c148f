"""Kinematic variables of a jet's constituents, by their JetClass names.

Definitions as in ParticleNet (arXiv:1902.08570, table 1), the JetClass data set (arXiv:2202.03772, table 2) and the
configurations with which Particle Transformer is trained (jet-universe/particle_transformer on GitHub,
``data/JetClass/JetClass_full.yaml`` and ``data/QuarkGluon/qg_kinpidplus.yaml``). All arithmetic is in float64; each
result is rounded to float32 once.
"""

from __future__ import annotations

from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING

import awkward as ak
import numpy as np

from eaf_inference.errors import InvalidInput
from eaf_inference.inference.layout import flatten_fields
from eaf_inference.inference.momenta import COORDINATES, asked_for, convert, coordinate_fields, require_vector
from eaf_inference.inference.nesting import Nested, nest
from eaf_inference.inference.wrong_input import lacking, refuse_jets_for_constituents

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    Function = Callable[[NDArray[np.float64]], NDArray[np.float64]]

__all__ = ["FEATURES", "KINEMATICS", "VARIABLES", "compute", "expected_sources", "features", "sources"]

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
# What each variable is computed from: coordinates of the constituents, fields, or other variables.
_NEEDS: dict[str, tuple[str, ...]] = {
    "part_deta": ("eta", "jet_eta"),
    "part_dphi": ("phi", "jet_phi"),
    "part_deltaR": ("part_deta", "part_dphi"),
    "part_pt_log": ("pt",),
    "part_e_log": ("energy",),
    "part_logptrel": ("part_pt_log", "jet_pt"),
    "part_logerel": ("part_e_log", "jet_energy"),
    **{f"part_{name}": (name,) for name in COORDINATES},
    "part_d0": ("part_d0val",),
    "part_dz": ("part_dzval",),
    "part_isCHad": ("part_pid",),
    "part_isNHad": ("part_pid",),
}
_SUMS: dict[str, tuple[str, ...]] = {
    "jet_pt": ("px", "py"),
    "jet_eta": ("px", "py", "pz"),
    "jet_phi": ("px", "py"),
    "jet_energy": ("energy",),
}
VARIABLES = (*_NEEDS, *COORDINATES)
_BLOCK = 1 << 16  # constituents at a time, so that intermediate arrays stay in the processor's cache
_CENTRAL = -1e-12  # the least jet eta that counts as positive: rounding must not choose the sign of a sum of zero


def features(constituents: ak.Array, names: Iterable[str] | None = None) -> ak.Array:
    """Compute the usual variables of recipes from constituents.

    Parameters
    ----------
    constituents : awkward.Array
        ``… × jets × constituents`` of records with a complete set of coordinates, in GeV and radians, of any real
        type: ``pt`` and ``phi``, or ``px`` and ``py``; ``eta``, ``pz`` or ``theta``; ``energy`` or ``mass``. Only
        those that the variables depend on are read. The other names that vector's Momentum4D knows are understood
        (``E``, ``e``, ``m``, ``rho``, ``x``, ``y``, ``z``, ``t``, ``tau``), and JetClass's (``part_px``, …). Where
        coordinates are converted, other than from pt, eta and phi to px, py and pz, the package vector is needed:
        ``pip install 'eaf-inference[vector]'``.
    names : iterable of str, optional
        The ones of `VARIABLES` to compute; by default those of `FEATURES`, the first seven below.

    Returns
    -------
    awkward.Array
        Records of the same nesting, float32. The jet's four-momentum is the sum of its constituents', except that the
        fields ``jet_pt``, ``jet_eta``, ``jet_phi`` and ``jet_energy`` are used where the records have them, as in
        JetClass's files: one number per jet, or the same for all its constituents.

        - ``part_deta`` = (eta − jet eta)·sign(jet eta);
        - ``part_dphi`` = phi − jet phi in [−pi, pi];
        - ``part_deltaR`` = their hypotenuse;
        - ``part_pt_log`` = ln pt, ``part_e_log`` = ln energy;
        - ``part_logptrel`` = ln(pt / jet pt), ``part_logerel`` = ln(energy / jet energy);
        - ``part_pt``, ``part_eta``, ``part_phi``, ``part_energy``, ``part_mass``, ``part_px``, ``part_py``,
          ``part_pz``, and the same names without ``part_``: the coordinates. A mass whose square is negative is
          −sqrt(−mass²), as in vector, ROOT and FastJet;
        - ``part_d0`` = tanh(``part_d0val``), ``part_dz`` = tanh(``part_dzval``);
        - ``part_isCHad`` = 1 for charged pions, 0.5 for kaons, 0.2 for protons, ``part_isNHad`` = 1 for long-lived
          neutral kaons, 0.2 for neutrons, by ``part_pid`` and otherwise 0.

        What the records hold already is taken from there.

    Raises
    ------
    InvalidInput
        A field is missing or not a list of numbers, or a name is not in `VARIABLES`.
    ConfigurationError
        The package vector is needed and not installed.
    """
    wanted = FEATURES if names is None else tuple(names)
    unknown = [name for name in wanted if name not in VARIABLES]
    if unknown:
        raise InvalidInput(f"Unknown features: {unknown}. Expected some of {', '.join(VARIABLES)}.")
    present = constituents.fields if isinstance(constituents, ak.Array) else ()
    needed = sources(present, wanted)
    if needed is None:
        computed = [name for name in wanted if sources(present, [name]) is None]
        expected = expected_sources(present, computed)
        raise lacking(constituents, computed, "The record array", sources=expected, computed=computed)
    refuse_jets_for_constituents(
        constituents, needed, wanted, "The record array", lambda names: sources(names, wanted) is not None
    )
    fields, nested = read(constituents, needed, what="The record array")
    return nest(compute(fields, nested, wanted), nested)


def sources(present: Collection[str], wanted: Iterable[str]) -> tuple[str, ...] | None:
    """Return the fields to read so that all wanted variables can be computed, or None if they cannot.

    Parameters
    ----------
    present : collection of str
        The names of the records' fields.
    wanted : iterable of str
        Names of `VARIABLES`, or of fields.
    """
    plan = _plan(tuple(wanted), tuple(present))
    return None if plan is None else _ordered(field for way in plan.values() for field in way.values())


def expected_sources(present: Collection[str], wanted: Iterable[str]) -> tuple[str, ...]:
    """Return the fields to ask for if variables cannot be computed: those that complete the present ones."""
    return _ordered(field for name in _leaves(wanted) for field in asked_for(name, present))


def _ordered(fields: Iterable[str]) -> tuple[str, ...]:
    found = dict.fromkeys(fields)
    return (*(name for name in KINEMATICS if name in found), *(name for name in found if name not in KINEMATICS))


def _leaves(names: Iterable[str]) -> Iterator[str]:
    """Return the coordinates and fields from which variables are computed."""
    for name in names:
        needs = _NEEDS.get(name) or _SUMS.get(name)
        if needs is None:
            yield name
        else:
            yield from _leaves(needs)


def read(records: ak.Array, names: Iterable[str], *, what: str) -> tuple[dict[str, NDArray[np.generic]], Nested]:
    """Flatten fields of ``… × jets × constituents``, with the jets' own fields repeated for their constituents.

    Raises
    ------
    InvalidInput
        As `flatten_fields`.
    """
    names = tuple(names)
    jets = [name for name in names if name in _SUMS]
    own = [name for name in names if name not in jets]
    if jets and own:
        jets = [name for name in jets if records[name].ndim < records[own[0]].ndim]
    fields, nested = flatten_fields(records, [name for name in names if name not in jets], what=what)
    if jets:
        values, rows = flatten_fields(records, jets, what=what, per_row=True)
        if not rows.outer.same_as(nested.outer):
            raise InvalidInput(
                f"{what} has one {jets[0]} per list, but of other lists than its jets. Expected one per jet."
            )
        fields |= {name: np.repeat(each, nested.counts) for name, each in values.items()}
    return {name: fields[name] for name in names}, nested


@lru_cache(maxsize=1024)  # small arrays of the same kind come again and again
def _plan(names: tuple[str, ...], present: tuple[str, ...]) -> Mapping[str, Mapping[str, str]] | None:
    """Return, for each coordinate and field that variables need, the fields that it is computed from."""
    plan: dict[str, Mapping[str, str]] = {}
    for name in names:
        if name in COORDINATES:
            way: Mapping[str, str] | None = coordinate_fields(name, present)
        elif name in present:
            way = {name: name}
        else:
            needs = _NEEDS.get(name) or _SUMS.get(name)
            more = None if needs is None else _plan(needs, present)
            if more is None:
                return None
            plan |= more
            continue
        if way is None:
            return None
        plan[name] = way
    return plan


def compute(
    fields: Mapping[str, NDArray[np.generic]], nested: Nested, names: Iterable[str]
) -> dict[str, NDArray[np.float32]]:
    """Compute variables from flat arrays (total,), of the fields that `sources` names.

    Raises
    ------
    ConfigurationError
        The package vector is needed and not installed.
    """
    ends = np.cumsum(nested.counts)
    total = int(ends[-1]) if len(ends) else 0
    done = {name: np.empty(total, np.float32) for name in names}
    plan = _plan(tuple(done), tuple(fields))
    assert plan is not None  # noqa: S101  (the caller asked `sources`)
    for name, way in plan.items():
        if name not in way:
            require_vector(name, way)  # before any work, and while a graph is built without data
    first = at = 0
    # without pt there is no direction, and along the beam no finite momentum
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        while at < total:
            last = max(int(np.searchsorted(ends, at + _BLOCK, side="right")), first + 1)
            part = slice(at, int(ends[last - 1]))
            block = _Block({name: values[part] for name, values in fields.items()}, plan, nested.counts[first:last])
            for name, values in done.items():
                values[part] = block[name]
            first, at = last, part.stop
    return done


class _Block:
    """A block of jets, of which each quantity is computed once: one float64 per constituent."""

    def __init__(
        self,
        fields: Mapping[str, NDArray[np.generic]],
        plan: Mapping[str, Mapping[str, str]],
        counts: NDArray[np.int64],
    ) -> None:
        self._fields, self._plan, self._counts = fields, plan, counts
        self._starts = np.cumsum(counts) - counts
        self._done: dict[str, NDArray[np.float64]] = {}
        self._sums: dict[str, NDArray[np.float64]] = {}

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        if name not in self._done:
            way = self._plan.get(name, {name: name})
            if name not in way:
                self._done |= convert(name, {each: self[field] for each, field in way.items()})
            elif way[name] in self._fields:
                self._done[name] = self._fields[way[name]].astype(np.float64)
            else:
                self._done[name] = _FORMULAS[name](self)
        return self._done[name]

    def sum(self, name: str) -> NDArray[np.float64]:
        """Sum over each jet's constituents: (jets,)."""
        if name not in self._sums:
            result = self._sums[name] = np.zeros(len(self._counts))
            filled = self._counts > 0  # reduceat cannot sum over nothing
            if filled.any():
                result[filled] = np.add.reduceat(self[name], self._starts[filled])
        return self._sums[name]

    def of_jet(self, name: str, function: Function = np.positive) -> NDArray[np.float64]:
        """Return a function of a jet's own quantity, for each of its constituents."""
        if name in self._fields:
            return function(self[name])
        return np.repeat(function(_AXES[name](self)), self._counts)


def _deta(block: _Block) -> NDArray[np.float64]:
    result = block["eta"] - block.of_jet("jet_eta")
    result *= block.of_jet("jet_eta", lambda eta: np.where(eta < _CENTRAL, -1.0, 1.0))
    return result


def _dphi(block: _Block) -> NDArray[np.float64]:
    result = block["phi"] - block.of_jet("jet_phi")
    turns = result * (1 / (2 * np.pi))
    np.rint(turns, out=turns)
    turns *= 2 * np.pi
    result -= turns
    return result


def _delta_r(block: _Block) -> NDArray[np.float64]:
    result = block["part_deta"] ** 2  # np.hypot is ten times as slow
    result += block["part_dphi"] ** 2
    return np.sqrt(result, out=result)


def _weighted(pid: NDArray[np.float64], weights: Mapping[int, float]) -> NDArray[np.float64]:
    """Return the weight of each particle's kind, and zero for other kinds."""
    kind = np.abs(pid)
    return np.select([kind == each for each in weights], list(weights.values()), np.where(np.isnan(pid), np.nan, 0.0))


def _jet_pt(block: _Block) -> NDArray[np.float64]:
    return np.hypot(block.sum("px"), block.sum("py"))


_AXES: dict[str, Callable[[_Block], NDArray[np.float64]]] = {
    "jet_pt": _jet_pt,
    "jet_eta": lambda block: np.arcsinh(block.sum("pz") / _jet_pt(block)),
    "jet_phi": lambda block: np.arctan2(block.sum("py"), block.sum("px")),
    "jet_energy": lambda block: block.sum("energy"),
}
_FORMULAS: dict[str, Callable[[_Block], NDArray[np.float64]]] = {
    "part_deta": _deta,
    "part_dphi": _dphi,
    "part_deltaR": _delta_r,
    "part_pt_log": lambda block: np.log(block["pt"]),
    "part_e_log": lambda block: np.log(block["energy"]),
    "part_logptrel": lambda block: block["part_pt_log"] - block.of_jet("jet_pt", np.log),
    "part_logerel": lambda block: block["part_e_log"] - block.of_jet("jet_energy", np.log),
    **{f"part_{name}": itemgetter(name) for name in COORDINATES},
    "part_d0": lambda block: np.tanh(block["part_d0val"]),
    "part_dz": lambda block: np.tanh(block["part_dzval"]),
    "part_isCHad": lambda block: _weighted(block["part_pid"], {211: 1.0, 321: 0.5, 2212: 0.2}),
    "part_isNHad": lambda block: _weighted(block["part_pid"], {130: 1.0, 2112: 0.2}),
}
