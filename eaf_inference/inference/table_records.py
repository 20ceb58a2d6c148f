"""Tables of other libraries as awkward records. A column may hold a list per row, such as a jet's constituents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import awkward as ak
import numpy as np

from eaf_inference.inference.arrow_slices import unsliced
from eaf_inference.inference.conversion import native
from eaf_inference.inference.tables import Table, computed, is_column, kind_of_table, numbers, table_of

__all__ = ["as_records", "awkward_of"]


def as_records(data: Any) -> Any:
    """Return a table, and each table of a dictionary, as awkward records; anything else as it is.

    Columns that awkward cannot hold are left out.
    """
    data = computed(data)
    if isinstance(data, Mapping):
        return {name: as_records(value) for name, value in data.items()}
    if is_column(data):
        found = awkward_of(data)
        return data if found is None else found
    table = table_of(data)
    padded = isinstance(data, np.ndarray) and data.ndim > 1  # a structured array may hold padding
    if table is None or not table.named or padded or isinstance(data, ak.Array):
        return data
    columns = _columns(table)
    return ak.zip(columns, depth_limit=1) if columns else data


def _columns(table: Table) -> dict[str, ak.Array]:
    columns = {}
    for position, name in enumerate(table.names):
        if not isinstance(name, str) or table.names.count(name) > 1:  # which one is meant is unknown
            continue
        if (column := awkward_of(table.column(position))) is not None:
            columns[name] = column
    return columns


def awkward_of(column: Any) -> ak.Array | None:
    """Return a column of a library, or of a structured array, as awkward has it; None if it cannot."""
    library = kind_of_table(column)[0]
    try:
        if library == "polars":
            import polars

            column, library = column.to_arrow(compat_level=polars.CompatLevel.oldest()), "pyarrow"
        if library == "pyarrow":
            return _of_arrow(column)
        if library == "pandas" and (column.dtype.kind == "O" or _lacks_values(column)):
            return ak.from_iter(column.to_numpy(object, na_value=None))
        masked = isinstance(column, np.ma.MaskedArray)  # whose missing values stay missing
        return ak.Array(native(column if masked else numbers(column, "A column")))
    except (TypeError, ValueError, NotImplementedError):  # dates, decimals, objects
        return None


def _of_arrow(column: Any) -> ak.Array | None:
    try:
        return ak.from_arrow(unsliced(column))
    except (AssertionError, AttributeError, KeyError):  # extensions, list views, categories of two integer types
        return None


def _lacks_values(column: Any) -> bool:
    """Whether a pandas column has missing values of its own, other than NaN."""
    return hasattr(column.dtype, "numpy_dtype") and bool(column.isna().any())
