"""What a file or an array holds of what a model needs; of a file, as its own list of its contents says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference.dataset.parts import File
from eaf_inference.dataset.reading import survey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from eaf_inference.dataset.parts import Part
    from eaf_inference.dataset.table import Column
    from eaf_inference.inference.model import Model

__all__ = ["Contents", "contents_of", "stored_size"]


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """What a run needs of a file or an array.

    Attributes
    ----------
    ranges : sequence of (int, int)
        The entries that are read at once.
    cuts : sequence of int
        Where a range may begin that does not take longer to read than its share; empty for anywhere.
    edges, sizes, stored : array of float
        From its first entry to edges[n], the needed columns take sizes[n] bytes in memory and stored[n] in the file.
    """

    ranges: Sequence[tuple[int, int]]
    cuts: Sequence[int]
    edges: NDArray[np.float64]
    sizes: NDArray[np.float64]
    stored: NDArray[np.float64]

    @property
    def entries(self) -> int:
        return sum(stop - start for start, stop in self.ranges)

    def size_of(self, part: Part) -> float:
        """Return the bytes in memory of a part's entries."""
        assert part.stop is not None  # noqa: S101  (for the type checker)
        return float(np.diff(np.interp([part.start, part.stop], self.edges, self.sizes))[0])

    @property
    def totals(self) -> tuple[float, float, float, float]:
        """Chunks, also for no entries, and entries, bytes in memory and bytes in the file."""
        at = np.array(self.ranges, float).reshape(-1, 2)
        sizes, stored = (np.diff(np.interp(at, self.edges, each), axis=1).sum() for each in (self.sizes, self.stored))
        return max(float(len(self.ranges)), 1.0), float(self.entries), float(sizes), float(stored)


def contents_of(
    found: File | Any,
    model: Model,
    select: Callable[[Any], Any] | None,
    known: dict[tuple[str, ...], Sequence[Column] | None],
    *,
    schema: Any = None,
    most_bytes: int | None = None,
) -> Contents:
    """Return the contents of a file, whose columns are not read, or of an array; with the parameters of `survey`.

    Raises
    ------
    UnreadableFile
        As `eaf_inference.dataset.reading.read` raises it.
    """
    if not isinstance(found, File):
        rows, size = _length(found), _nbytes(found)
        return Contents([(0, rows)], [], np.array([0.0, rows]), np.array([0.0, size]), np.zeros(2))
    surveyed = survey(found, model, select, known, schema=schema, most_bytes=most_bytes)
    pieces = surveyed.pieces
    edges = np.array([0, *(piece.stop for piece in pieces)], float)
    cuts = [piece.start for piece in pieces] if surveyed.reads_from_start else []
    sizes = np.cumsum([0.0, *(piece.size for piece in pieces)])
    stored = np.cumsum([0.0, *(piece.stored for piece in pieces)])
    return Contents(surveyed.ranges, cuts, edges, sizes, stored)


def stored_size(found: File | Any) -> float:
    """Return the bytes of a file or an array; 0 if its storage does not tell."""
    if not isinstance(found, File):
        return _nbytes(found)
    try:
        if "://" not in found.path:
            return float(Path(found.path).stat().st_size)
        import fsspec

        filesystem, path = fsspec.core.url_to_fs(found.path)
        return float(filesystem.size(path) or 0)
    except (OSError, ValueError, NotImplementedError):
        return 0.0


def _length(data: Any) -> int:
    if isinstance(data, dict):
        data = next(iter(data.values()), ())
    return len(data)


def _nbytes(data: Any) -> float:
    if isinstance(data, dict):
        return sum(_nbytes(each) for each in data.values())
    return float(getattr(data, "nbytes", 0) if not isinstance(data, ak.Array) else ak.to_packed(data).nbytes)
