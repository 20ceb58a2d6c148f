"""Tables of other libraries: their column names, and their columns as numpy arrays.

A table is a pandas, polars or pyarrow table, a structured numpy array, an awkward record array, or a dictionary of
columns. The libraries are recognised without importing them. Columns of numbers are not copied where the library
allows it, and an index is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import awkward as ak
import numpy as np

from eaf_inference.errors import InvalidInput
from eaf_inference.inference import nesting
from eaf_inference.inference.conversion import as_numpy, native
from eaf_inference.inference.wrong_input import kind_of, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from numpy.typing import NDArray

__all__ = ["Table", "computed", "is_column", "kind_of_table", "listed", "numbers", "table_of"]

_LISTED = 40  # columns in a message
_VALID = "valid"  # False for the padding of a structured array


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Columns of one number per row.

    Attributes
    ----------
    names : sequence
        Mostly text. They may not be unique.
    column : callable
        Returns the column at a position, as its library has it.
    named : bool
        False if the columns were only counted, such as those of ``pandas.DataFrame(array)``.
    """

    names: Sequence[Hashable]
    column: Callable[[int], Any]
    named: bool = True

    def positions(self, wanted: Iterable[str], what: str) -> list[int]:
        """Return the position of each wanted column.

        Raises
        ------
        InvalidInput
            Columns are missing or there twice. `what` names their receiver.
        """
        wanted = list(wanted)
        places: dict[Hashable, list[int]] = {}
        for position, name in enumerate(self.names):
            places.setdefault(name, []).append(position)
        missing = [name for name in wanted if name not in places]
        if missing:
            text = [name for name in self.names if isinstance(name, str)]
            near = {name: other for name in missing if (other := nearest(name, text, wanted))}
            meant = ", ".join(f"{other!r} for {name!r}" for name, other in near.items())
            meant = f" Did you mean {meant}?" if meant else ""
            raise InvalidInput(
                f"{what} lacks {listed(missing)}.{meant} Expected a column for each of {listed(wanted)}, in "
                f"any order; the table has {listed(self.names)}."
            )
        twice = [name for name in wanted if len(places[name]) > 1]
        if twice:
            raise InvalidInput(
                f"{what} is ambiguous: several columns of the table are called {listed(twice)}. Expected one of "
                "each: rename or drop the others."
            )
        return [places[name][0] for name in wanted]


def table_of(value: Any) -> Table | None:
    """Return the columns of a table; None if the value is none."""
    if isinstance(value, ak.Array):
        fields = value.fields
        return Table(fields, lambda position: value[fields[position]]) if fields else None
    if isinstance(value, np.ndarray):
        names = value.dtype.names
        return Table(names, lambda position: value[names[position]]) if names else None
    if isinstance(value, Mapping):
        items = list(value.values())
        return Table(list(value), items.__getitem__)
    kind = kind_of_table(value)
    if kind == ("pandas", "DataFrame"):
        names = list(value.columns)
        counted = names == list(range(len(names)))
        return Table(names, lambda position: value.iloc[:, position], named=not counted)
    if kind == ("polars", "DataFrame"):
        return Table(value.columns, value.to_series)
    if kind in (("pyarrow", "Table"), ("pyarrow", "RecordBatch")):
        return Table(value.schema.names, value.column)
    return None


def computed(value: Any) -> Any:
    """Return a table that was not computed or read yet as one that is, without padding; anything else as it is.

    The arrays and indexes of pandas come as columns, which tell what is missing.

    Padding is known in a structured array of at least two axes with a boolean field ``valid``, as ATLAS's HDF5 files
    have it. The others come as awkward records, with a list per row.
    """
    kind = kind_of_table(value)
    if kind == ("polars", "LazyFrame"):
        return value.collect()
    if kind in (("dask", "DataFrame"), ("dask", "Series")):
        return value.compute()
    if kind in (("pandas", "Index"), ("pandas", "ExtensionArray")) and getattr(value, "nlevels", 1) == 1:
        import pandas  # type: ignore[import-untyped]

        return pandas.Series(value)
    dtype = None if isinstance(value, ak.Array) else getattr(value, "dtype", None)
    if not isinstance(dtype, np.dtype) or not dtype.names:
        return value
    array = value if isinstance(value, np.ndarray) else np.asarray(value)  # a data set of h5py
    is_padded = array.ndim > 1 and _VALID in dtype.names and dtype[_VALID] == np.bool_
    return _without_padding(array) if is_padded else array


def _without_padding(array: NDArray[Any]) -> ak.Array:
    valid = array[_VALID]
    names = [name for name in array.dtype.names or () if array.dtype[name].kind in "buif"]
    if np.ma.is_masked(valid) or any(np.ma.is_masked(array[name][valid]) for name in names):
        raise InvalidInput("A structured array is masked where its field 'valid' is True. Fill it with .filled().")
    fields = {name: native(array[name][valid]) for name in names}
    outer = nesting.Outer(len(array), array.shape[1:-1])
    return nesting.nest(fields, nesting.Nested(outer, valid.sum(axis=-1, dtype=np.int64).reshape(-1)))


def is_column(value: Any) -> bool:
    """Whether this is a column of one of the libraries."""
    return kind_of_table(value) in (
        ("pandas", "Series"),
        ("polars", "Series"),
        ("pyarrow", "Array"),
        ("pyarrow", "ChunkedArray"),
    )


def numbers(column: Any, what: str) -> NDArray[Any]:
    """Return a column as a numpy array of numbers or booleans.

    Parameters
    ----------
    column : object
        A numpy array, a list of numbers, or a column of one of the libraries.
    what : str
        Its name in messages.

    Raises
    ------
    InvalidInput
        It has missing values, or holds something else. NaN is a number.
    """
    missing, dtype, values = _read(column, what)
    if missing:
        raise InvalidInput(
            f"{what} has missing values: {missing:,} of {len(column):,}. Expected none: fill them, with NaN if the "
            "model takes it, or drop their rows."
        )
    if not values.size:  # the type of nothing is often unknown
        return np.zeros(values.shape, np.float32)
    if values.dtype.kind not in "buif":
        raise InvalidInput(
            f"{what} has type {dtype}. Expected real numbers or booleans: convert it as it was for the model's "
            "training, or leave it out."
        )
    if values.ndim == 0:
        raise InvalidInput(f"{what} is a single number. Expected one number per row.")
    return values


def _read(column: Any, what: str) -> tuple[int, Any, NDArray[Any]]:
    """Return the number of a column's missing values, its type, and its values as numpy has them."""
    if isinstance(column, np.ma.MaskedArray):
        return int(np.ma.getmaskarray(column).sum()), column.dtype, column.data
    if isinstance(column, np.ndarray):
        return 0, column.dtype, column
    library, kind = kind_of_table(column)
    if library == "pandas":
        column = computed(column)  # an array or index
        dtype = column.dtype
        if dtype.kind not in "buif":
            return 0, dtype, np.empty(len(column), object)
        if not hasattr(dtype, "numpy_dtype"):  # it cannot mark a value as missing
            return 0, dtype, np.asarray(column)
        missing = int(column.isna().sum())
        return missing, dtype, np.zeros(0) if missing else column.to_numpy(dtype.numpy_dtype)
    if library == "polars":
        return column.null_count(), column.dtype, column.to_numpy()
    if library == "pyarrow":
        flags = {} if kind == "ChunkedArray" else {"zero_copy_only": False}
        try:
            return column.null_count, column.type, column.to_numpy(**flags)
        except NotImplementedError:  # unions
            return column.null_count, column.type, np.empty(len(column), object)
    if hasattr(column, "__array__"):
        values = as_numpy(column, what)
        return 0, values.dtype, values
    try:
        values = np.asarray(column)
    except (ValueError, TypeError):  # lists of different lengths
        values = np.empty(1, object)
    return 0, values.dtype if values.dtype != object else kind_of(column), values


# The classes that are known, by the library that defines them.
_KINDS = {
    "pandas": ("DataFrame", "Series", "Index", "ExtensionArray"),
    "polars": ("DataFrame", "LazyFrame", "Series"),
    "pyarrow": ("Table", "RecordBatch", "ChunkedArray", "Array"),
    "dask": ("DataFrame", "Series"),
}


def kind_of_table(value: object) -> tuple[str, str]:
    """Return the library and the class of a table or column, or of the one that it is derived from."""
    return _kind_of_type(cast("Hashable", type(value)))  # mypy looks for the hash of an instance


@cache
def _kind_of_type(kind: type) -> tuple[str, str]:
    for base in kind.__mro__:
        library = base.__module__.partition(".")[0]
        if base.__name__ in _KINDS.get(library, ()):
            return library, base.__name__
    return "", ""


def listed(names: Sequence[Hashable]) -> str:
    """Name columns in a message."""
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(repr(name) for name in names[:_LISTED]) + more if names else "no columns"
