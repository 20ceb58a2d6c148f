"""Find the coordinates of momenta among fields, and convert one into another with scikit-hep's vector.

Pure functions of flat arrays. A momentum may be given in any complete set of coordinates: pt and phi or px and py;
eta, pz or theta; energy or mass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

__all__ = ["COORDINATES", "asked_for", "convert", "coordinate_fields", "require_vector"]

# The coordinates that can be computed, and their names in vector.
COORDINATES = ("pt", "eta", "phi", "energy", "mass", "px", "py", "pz")
_GENERIC = {
    "pt": "rho",
    "phi": "phi",
    "px": "x",
    "py": "y",
    "eta": "eta",
    "pz": "z",
    "theta": "theta",
    "energy": "t",
    "mass": "tau",
}
_ENERGY, _MASS = ("energy", "E", "e"), ("mass", "m", "M")

# Spellings of each coordinate: a particle's own, JetClass's, and those of vector's arrays.
_Spellings: TypeAlias = "dict[str, tuple[str, ...]]"
_OWN: _Spellings = {**{name: (name,) for name in _GENERIC}, "energy": _ENERGY, "mass": _MASS}
_JETCLASS: _Spellings = {name: (f"part_{name}",) for name in _GENERIC if name != "theta"}
_VECTOR: _Spellings = {
    **{name: (generic,) for name, generic in _GENERIC.items()},
    "energy": ("t", *_ENERGY),
    "mass": ("tau", *_MASS),
}

_TRANSVERSE = (("pt", "phi"), ("px", "py"))
_LONGITUDINAL = ("eta", "pz", "theta")


def coordinate_fields(name: str, present: Collection[str]) -> dict[str, str] | None:
    """Return the fields from which a coordinate is read or computed, by coordinate.

    Parameters
    ----------
    name : str
        One of `COORDINATES`.
    present : collection of str
        The names of the fields. ``rho``, ``x``, ``y``, ``z``, ``t`` and ``tau`` count if they make a complete
        four-vector and no other name is that of a momentum: beside ``pt`` or ``px`` they are a position, a time, or
        something else.

    Returns
    -------
    dict of str to str, or None
        ``{name: field}`` if a field holds it; other coordinates from which it follows; or None. Under the names of
        vector's arrays always a whole four-vector.
    """
    for spellings in (_JETCLASS, _OWN):  # beside part_px, a pt may be the jet's
        found = _ways(name, _held(spellings, present))
        if found is not None:
            return found
    named = {each for spellings in (_OWN, _JETCLASS) for key in ("pt", "px", "py", "pz") for each in spellings[key]}
    if not named.isdisjoint(present):
        return None
    held = _held(_VECTOR, present)
    return _chosen(held, along=True, temporal="energy" if "energy" in held else "mass")


def _held(spellings: _Spellings, present: Collection[str]) -> dict[str, str]:
    """Return the field that holds each coordinate."""
    found = {name: next((each for each in names if each in present), "") for name, names in spellings.items()}
    return {name: field for name, field in found.items() if field}


def _ways(name: str, held: Mapping[str, str]) -> dict[str, str] | None:
    """Choose the fields for a coordinate: its own, or as many others as it depends on."""
    if name in held:
        return {name: held[name]}
    other = {"energy": "mass", "mass": "energy"}.get(name, "")
    return _chosen(held, along=name in ("eta", "pz") or bool(other), temporal=other)


def _chosen(held: Mapping[str, str], *, along: bool, temporal: str) -> dict[str, str] | None:
    """Choose the fields of a transverse momentum, and of what is wanted beside it."""
    wanted = list(next((pair for pair in _TRANSVERSE if set(pair) <= set(held)), ("",)))
    if along:
        wanted.append(next((each for each in _LONGITUDINAL if each in held), ""))
    if temporal:
        wanted.append(temporal)
    return {each: held[each] for each in wanted} if set(wanted) <= set(held) else None


def asked_for(name: str, present: Collection[str]) -> tuple[str, ...]:
    """Return the fields to ask for if a coordinate cannot be computed: those that complete the present ones.

    A name of another kind is a field itself.
    """
    if name not in COORDINATES:
        return (name,)
    spellings = max(_OWN, _JETCLASS, key=lambda each: len(_held(each, present)))
    held = _held(spellings, present)
    cartesian = "pt" not in held and ("px" in held or "py" in held)
    along = ("px", "py", "pz") if cartesian else ("pt", "phi", "eta")
    other = {"energy": "mass", "mass": "energy"}.get(name, "")
    if name in held or name in along[2 * cartesian :] or (other and other not in held):
        wanted: tuple[str, ...] = (name,)
    elif other:
        wanted = (*along, other)
    else:
        wanted = along if name in ("eta", "pz") else along[:2]
    return tuple(held.get(each, spellings[each][0]) for each in wanted)


def convert(name: str, given: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Compute a coordinate from others.

    A negative mass is one whose square is negative, as in vector, ROOT and FastJet: mass = -sqrt(-mass²).

    Parameters
    ----------
    name : str
        One of `COORDINATES`.
    given : mapping of str to array of float64, shape (n,)
        The coordinates that `coordinate_fields` named.

    Returns
    -------
    dict of str to array of float64, shape (n,)
        The coordinate, and others that come with it. NaN where a given coordinate is NaN.
    """
    if _is_simple(name, given):
        pt = given["pt"]
        if name == "pz":
            pz = np.sinh(given["eta"])
            pz *= pt
            return {"pz": pz}
        # cos(phi) = 2 / (1 + t²) - 1 and sin(phi) = 2t / (1 + t²) with t = tan(phi / 2): one tangent is five times as
        # fast as a sine and a cosine, and as exact; in place, because new arrays cost more than the arithmetic
        py = 0.5 * given["phi"]
        np.tan(py, out=py)
        px = py * py
        px += 1
        np.divide(2, px, out=px)
        px *= pt
        py *= px
        px -= pt
        return {"px": px, "py": py}
    needed = [each for each in given if name in ("energy", "mass") or each not in ("energy", "mass")]
    vectors = require_vector(name, given).array({_GENERIC[each]: given[each] for each in needed})
    result = np.array(getattr(vectors, _GENERIC[name]), np.float64)
    for each in needed:  # vector makes numbers of some NaN
        result[np.isnan(given[each])] = np.nan
    return {name: result}


def require_vector(name: str, given: Collection[str]) -> Any:
    """Import the package vector, if this coordinate needs it, or say how to install it.

    Raises
    ------
    ConfigurationError
        It is not installed.
    """
    if _is_simple(name, given):
        return None
    try:
        import vector
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"Computing {name} from {', '.join(given)} needs the package {error.name}, which is missing: "
            "pip install 'eaf-inference[vector]'."
        ) from error
    return vector


def _is_simple(name: str, given: Collection[str]) -> bool:
    """Whether a coordinate is computed without vector."""
    return {"px": {"pt", "phi"}, "py": {"pt", "phi"}, "pz": {"pt", "eta"}}.get(name, {""}) <= set(given)
