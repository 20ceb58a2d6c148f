"""Copies of Arrow's slices, in which awkward finds the missing values.

`ak.from_arrow` (awkward 2.14 and older) reads a slice's values from its offset, but the bits that tell which of them
are missing from the beginning of the array that was sliced: None stands in wrong places.
"""

from __future__ import annotations

from typing import Any

__all__ = ["unsliced"]


def unsliced(value: Any) -> Any:
    """Return a table, a chunked array or an array of pyarrow whose arrays all begin at their own first value."""
    import pyarrow

    if isinstance(value, pyarrow.Table):
        return pyarrow.Table.from_arrays([unsliced(column) for column in value.columns], schema=value.schema)
    if isinstance(value, pyarrow.ChunkedArray):
        return pyarrow.chunked_array([unsliced(chunk) for chunk in value.chunks], value.type)
    return pyarrow.concat_arrays([value]) if _is_sliced(value) else value


def _is_sliced(array: Any) -> bool:
    """Whether an array, or one inside it, begins behind the first value in its memory."""
    import pyarrow

    if array.offset:
        return True
    if isinstance(array, pyarrow.StructArray):
        inside = [array.field(number) for number in range(array.type.num_fields)]
    elif isinstance(array, pyarrow.ExtensionArray):
        inside = [array.storage]
    else:
        inside = [array.values] if hasattr(array, "values") else []  # of lists
    return any(map(_is_sliced, inside))
