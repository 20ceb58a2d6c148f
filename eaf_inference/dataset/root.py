"""ROOT files: TTrees and RNTuples, read with uproot."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import awkward as ak

from eaf_inference.dataset.faults import NotReadable
from eaf_inference.dataset.table import Column, Piece, Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["open_root", "root_table"]

_LISTED = 40  # trees in a message


@contextmanager
def open_root(path: str, name: str) -> Iterator[Any]:
    """Open a ROOT file and yield its tree or RNTuple of that name, or the only one."""
    import uproot

    # A mapping, because the path may contain a colon. Without caches, because these form circles with the file, and
    # the arrays of many parts would then stay in memory until Python looks for circles.
    with uproot.open({path: None}, array_cache=None, object_cache=None) as file:
        size = None if path.startswith("http") else file.file.source.num_bytes  # a request more, often refused
        if size is not None and file.file.fEND > size:
            raise NotReadable("damaged", f"is cut off: it has {size:,} of {file.file.fEND:,} bytes. Copy it again.")
        yield _tree(file, name)


def _tree(file: Any, name: str) -> Any:
    trees = list(dict.fromkeys(file.keys(cycle=False, filter_classname=["TTree", "ROOT::RNTuple"])))
    if not name and len(trees) == 1:
        name = trees[0]
    if name.partition(";")[0] in trees:
        return file[name]
    if not trees:
        raise NotReadable("no tree", "has no tree. Expected a ROOT file with a TTree or an RNTuple.")
    listed = ", ".join(trees[:_LISTED]) + (f" and {len(trees) - _LISTED} more" if len(trees) > _LISTED else "")
    if name:
        raise NotReadable(f"no tree {name}", f"has no tree {name!r}. Expected file.root:tree, with one of {listed}.")
    raise NotReadable("which tree?", f"has several trees. Expected file.root:tree, with one of {listed}.")


def root_table(tree: Any) -> Table:
    """Describe a tree or an RNTuple."""
    if type(tree).__name__.endswith("RNTuple"):
        return _of_rntuple(tree)

    forms = _forms(tree)

    def form(names: Iterable[str] = forms) -> ak.forms.Form:
        return ak.forms.RecordForm([forms[name] for name in names], [*names])

    def read(columns: Sequence[Column] | None, start: int, stop: int) -> ak.Array:
        names = list(forms) if columns is None else _tops(columns)
        if start == stop:  # uproot would read the first basket, and make other types of some branches
            return ak.Array(form(names).length_zero_array(highlevel=False))
        return tree.arrays(names, entry_start=start, entry_stop=stop, library="ak")

    def pieces(columns: Sequence[Column] | None) -> Sequence[Piece]:
        tops = tree.values(recursive=False) if columns is None else [tree[name] for name in _tops(columns)]
        branches = [branch for top in tops for branch in (top, *top.itervalues(recursive=True))]
        offsets = [set(branch.entry_offsets) for branch in branches if branch.num_baskets]
        common = set[int]().union(*offsets[:1]).intersection(*offsets)
        edges = sorted({0, tree.num_entries, *(at for at in common if at < tree.num_entries)})
        inside = sum(basket.data.nbytes for branch in branches for basket in branch.embedded_baskets)
        size = (inside + sum(branch.uncompressed_bytes for branch in branches)) / max(tree.num_entries, 1)
        stored = (inside + sum(branch.compressed_bytes for branch in branches)) / max(tree.num_entries, 1)
        return [Piece(start, stop, size * (stop - start), stored * (stop - start)) for start, stop in pairwise(edges)]

    return Table(tree, list(forms), tree.num_entries, form, read, pieces, reads_from_start=False)


def _forms(tree: Any) -> dict[str, ak.forms.Form]:
    """Return the forms of the branches, as the file describes them, by the names that their arrays have.

    What cannot be an array is left out, such as pointers and histograms: no model takes it.
    """
    from uproot.interpretation.grouped import AsGrouped
    from uproot.interpretation.identify import UnknownInterpretation
    from uproot.interpretation.objects import CannotBeAwkward

    branches: dict[str, Any] = {}  # as tree[name] finds them, which searches from the top for each
    for name, branch in [*tree.iteritems(recursive=False), *tree.iteritems(full_paths=False)]:
        branches.setdefault(name, branch)
    found = {}
    for name, branch in branches.items():
        if isinstance(branch.interpretation, AsGrouped | UnknownInterpretation):
            continue
        with suppress(CannotBeAwkward, ValueError):
            try:
                found[name] = branch.interpretation.awkward_form(tree.file)
            except AssertionError:  # uproot has none for several leaves of which some are arrays
                found[name] = branch.array(entry_stop=0, library="ak").layout.form
    return found


def _tops(columns: Sequence[Column]) -> list[str]:
    return list(dict.fromkeys(column[0] for column in columns))


def _of_rntuple(ntuple: Any) -> Table:
    names = ntuple.keys(recursive=False)

    def read(columns: Sequence[Column] | None, start: int, stop: int) -> ak.Array:
        wanted = names if columns is None else [".".join(column) for column in columns]
        # a function, because texts would be patterns, and each of them is tried with each name
        return ntuple.arrays(filter_name={*wanted}.__contains__, entry_start=start, entry_stop=stop)

    def pieces(columns: Sequence[Column] | None) -> Sequence[Piece]:
        wanted = set(names if columns is None else _tops(columns))
        owners = [_top(ntuple, record.field_id) in wanted for record in ntuple.column_records]
        widths = [max(record.nbits, 8) / 8 for record in ntuple.column_records]
        found = []
        for cluster, columns_of in zip(ntuple.cluster_summaries, ntuple.page_link_list, strict=True):
            mine = [
                (width, page)
                for column, width, mine in zip(columns_of, widths, owners, strict=False)
                for page in (column.pages if mine else ())
            ]
            found.append(
                Piece(
                    *(cluster.num_first_entry, cluster.num_first_entry + cluster.num_entries),
                    size=sum(width * abs(page.num_elements) for width, page in mine),
                    stored=sum(page.locator.num_bytes for _, page in mine),
                )
            )
        return found

    return Table(ntuple, names, ntuple.num_entries, lambda: read(None, 0, 0).layout.form, read, pieces)


def _top(ntuple: Any, field: int) -> str:
    """Return the name of the column at the top that a field belongs to."""
    while (parent := ntuple.field_records[field].parent_field_id) != field:
        field = parent
    name: str = ntuple.field_records[field].field_name
    return name
