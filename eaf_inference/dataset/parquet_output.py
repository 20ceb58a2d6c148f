"""Scores in a parquet file: a row group for each piece, what made them in the file's metadata."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

import awkward as ak

from eaf_inference.dataset.score_columns import columns_in
from eaf_inference.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from eaf_inference.dataset.parts import File
    from eaf_inference.dataset.score_columns import Columns

__all__ = ["ParquetOutput"]

_KEY = b"eaf_inference"


class ParquetOutput:
    """A parquet file that is being written."""

    suffix: ClassVar[str] = ".parquet"
    must_align: ClassVar[bool] = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._writer: Any = None

    @staticmethod
    def check(file: File) -> None:
        """Any entries of any file will do."""

    def append(self, columns: Columns) -> None:
        """Write rows.

        Raises
        ------
        InvalidInput
            Parquet has no such type.
        """
        import pyarrow
        from pyarrow.parquet import ParquetWriter

        try:
            table = ak.to_arrow_table(columns.table())
            if self._writer is None:
                self._writer = ParquetWriter(
                    self._file, table.schema, compression="zstd", write_page_checksum=True, store_schema=True
                )
            self._writer.write_table(table, row_group_size=max(columns.rows, 1))
        except (NotImplementedError, pyarrow.ArrowTypeError) as error:
            raise InvalidInput(
                f"pyarrow {pyarrow.__version__} cannot write scores of the types {columns.types}: {error}. Expected "
                "numbers, strings, lists, records and missing values. A newer pyarrow may be able to."
            ) from error

    def finish(self, metadata: Mapping[str, Any]) -> None:
        """Write the metadata; at least one piece must have been written, if only without rows."""
        self._writer.add_key_value_metadata({_KEY: json.dumps(metadata, sort_keys=True)})
        self._writer.close()

    def abandon(self) -> None:
        """End the writing of a file that will be removed."""
        if self._writer is not None:
            with suppress(OSError, ValueError):  # a full disk, a closed file
                self._writer.close()

    @staticmethod
    def pieces(path: Path) -> Iterator[Columns]:
        from pyarrow.parquet import ParquetFile

        with ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                yield columns_in(ak.from_arrow(file.read_row_group(number)))

    @staticmethod
    def read_metadata(path: Path) -> dict[str, Any] | None:
        """Return the metadata of a complete file; None if it is damaged, incomplete or from another program."""
        import pyarrow
        from pyarrow.parquet import ParquetFile

        try:
            with ParquetFile(path) as file:
                found = file.metadata
                content = (found.metadata or {}).get(_KEY)
                size = path.stat().st_size
        except (OSError, pyarrow.ArrowException):
            return None
        if content is None:
            return None
        metadata: dict[str, Any] = json.loads(content)
        return metadata if found.num_rows == metadata["scores"] and size else None
