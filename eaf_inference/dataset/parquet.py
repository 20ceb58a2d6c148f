"""Parquet files, read with pyarrow by row groups; a range inside a row group does not need all of it in memory."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import awkward as ak

from eaf_inference.dataset.table import Column, Piece, Table
from eaf_inference.inference.arrow_slices import unsliced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["open_parquet", "parquet_table"]

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8}  # bytes of a value in memory
_OFFSET = 8  # bytes for a list or a string
_BUFFER = 1 << 21  # bytes of each column that are read ahead, instead of its whole row group
_ROWS = 16_384  # read at once inside a row group
_NO_ARRAY = (NotImplementedError, TypeError, ValueError)  # of awkward, for types such as maps and decimal numbers


@contextmanager
def open_parquet(path: str) -> Iterator[Any]:
    """Open a parquet file, local or remote."""
    import pyarrow.parquet

    with ExitStack() as stack:
        source: Any = path
        if "://" in path:
            import fsspec

            system, inner = fsspec.core.url_to_fs(path)
            source = stack.enter_context(system.open(inner, "rb", cache_type="none"))  # pyarrow's buffers suffice
        buffers = {"pre_buffer": False, "buffer_size": _BUFFER}
        yield stack.enter_context(pyarrow.parquet.ParquetFile(source, page_checksum_verification=True, **buffers))


def parquet_table(file: Any) -> Table:
    """Describe an open parquet file."""
    metadata = file.metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    edges = [0]
    for group in groups:
        edges.append(edges[-1] + group.num_rows)
    leaves = dict(enumerate(_leaves(file.schema_arrow)))
    if len(leaves) != metadata.num_columns:
        leaves = {}  # a type that is stored in other columns than its fields: all are read

    every = list(range(metadata.num_columns))

    def numbers(columns: Sequence[Column] | None) -> list[int]:
        if columns is None or not leaves:
            return every
        return [number for number, leaf in leaves.items() if any(leaf[: len(column)] == column for column in columns)]

    def read(columns: Sequence[Column] | None, start: int, stop: int) -> ak.Array:
        wanted = [file.schema.column(number).path for number in numbers(columns)]
        touched = [number for number in range(len(groups)) if edges[number] < stop and edges[number + 1] > start]
        if not touched or (edges[touched[0]] == start and edges[touched[-1] + 1] == stop):
            return _array(file.read_row_groups(touched, columns=wanted))
        import pyarrow

        rows, at = [], edges[touched[0]]
        for batch in file.iter_batches(batch_size=_ROWS, row_groups=touched, columns=wanted):
            low, high = max(start - at, 0), min(stop - at, batch.num_rows)
            if low < high:
                rows.append(batch.slice(low, high - low))
            at += batch.num_rows
            if at >= stop:
                break
        table = pyarrow.Table.from_batches(rows) if rows else file.read_row_groups([], columns=wanted)
        return _array(table.replace_schema_metadata(file.schema_arrow.metadata))

    def pieces(columns: Sequence[Column] | None) -> Sequence[Piece]:
        chosen = numbers(columns)
        return [
            Piece(
                *(edge, edge + group.num_rows),
                size=sum(_size(group, number) for number in chosen),
                stored=sum(group.column(number).total_compressed_size for number in chosen),
            )
            for edge, group in zip(edges, groups, strict=False)
        ]

    try:
        form = read(None, 0, 0).layout.form
    except _NO_ARRAY:
        usable = [(name,) for name in file.schema_arrow.names if _is_usable(partial(read, [(name,)], 0, 0))]
        every = [number for number, leaf in leaves.items() if leaf[:1] in usable]
        form = read(None, 0, 0).layout.form
    return Table(file, form.fields, metadata.num_rows, lambda: form, read, pieces)


def _is_usable(read: Callable[[], ak.Array]) -> bool:
    try:
        read()
    except _NO_ARRAY:
        return False
    return True


def _array(table: Any) -> ak.Array:
    """Convert a table, with the names of records that awkward stored in its metadata."""
    import awkward._connect.pyarrow as connection

    table = unsliced(table)
    stored = getattr(connection, "convert_native_arrow_table_to_awkward", None)  # in newer versions of awkward
    return ak.from_arrow(stored(table) if stored else table)


def _leaves(schema: Any) -> Iterator[Column]:
    """Return the field names to each column that parquet stores, in its order."""
    for field in schema:
        path = (field.name,) if field.name else ()
        yield from _inside(path, field.type)


def _inside(path: Column, kind: Any) -> Iterator[Column]:
    import pyarrow.types

    kind = getattr(kind, "storage_type", kind)
    if pyarrow.types.is_struct(kind):
        for number in range(kind.num_fields):
            yield from _inside((*path, kind.field(number).name), kind.field(number).type)
    elif pyarrow.types.is_map(kind):
        yield from _inside(path, kind.key_type)
        yield from _inside(path, kind.item_type)
    elif hasattr(kind, "value_type") and not pyarrow.types.is_dictionary(kind):
        yield from _inside(path, kind.value_type)
    else:
        yield path


def _size(group: Any, number: int) -> float:
    column = group.column(number)
    if column.physical_type in _WIDTHS:
        size = _WIDTHS[column.physical_type] * column.num_values
    else:
        size = max(column.total_uncompressed_size, _OFFSET * column.num_values)
    return float(size + _OFFSET * group.num_rows)
