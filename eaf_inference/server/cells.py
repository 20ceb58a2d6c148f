"""The notebook cell that calls a model, for users who drag the model into a notebook.

The cell runs unchanged, on zeros under the model's real input names. Names come from the network, so they are written
only as Python literals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eaf_inference.inference.records import groups_of, variables_of

if TYPE_CHECKING:
    from eaf_inference.inference.collections import CollectionSpec
    from eaf_inference.inference.spec import ModelSpec, TensorSpec

__all__ = ["cell_for"]

_ROWS = 4
_LENGTH = 16  # of variable dimensions
_LONGEST = 4000  # characters

_OF_RECORDS = """\
import awkward as ak
import numpy as np

model = {model}
# Replace this by your jets: records with these fields, {what}, in any number of outer lists.
fields = {fields}
example = ak.zip({{field: {zeros} for field in fields}})
scores = model(example)
scores"""

_OF_COLLECTIONS = """\
import awkward as ak
import numpy as np

model = {model}
# Replace these by your jets: records of each collection, or one record array with these fields.
example = {{
{parts}
}}
scores = model(example)
scores"""

_OF_ARRAYS = """\
import numpy as np

model = {model}
# Replace these by your arrays.
example = {{
{arrays}
}}
scores = model(example)
scores"""


def cell_for(name: str, version: str | None, spec: ModelSpec | None) -> str:
    """Return Python source that calls the model.

    Parameters
    ----------
    name : str
    version : str or None
        None for the latest.
    spec : ModelSpec or None
        None for a model that cannot be called; the cell then raises the reason.

    Returns
    -------
    str
        Empty if the name is too long.
    """
    model = f"triton.model({name!r})" if version is None else f"triton.model({name!r}, version={version!r})"
    cell = model if spec is None else _call(model, spec)
    return next((text for text in (cell, model) if len(text) <= _LONGEST), "")


def _call(model: str, spec: ModelSpec) -> str:
    if spec.recipe is None:
        arrays = "\n".join(_array(tensor) for tensor in spec.inputs if not tensor.optional)
        return _OF_ARRAYS.format(model=model, arrays=arrays)
    groups = groups_of(spec, spec.recipe)
    others = [tensor for tensor in spec.inputs if tensor.name not in spec.recipe.inputs and not tensor.optional]
    if len(groups) == 1 and not others:
        (group,) = groups
        what = "one number per jet" if group.per_row else "a list of constituents per jet"
        fields, zeros = list(variables_of(group, spec)), _zeros(group)
        return _OF_RECORDS.format(model=model, what=what, fields=fields, zeros=zeros)
    parts = [
        f"    {group.name!r}: ak.zip({{field: {_zeros(group)} for field in {list(variables_of(group, spec))}}}),"
        for group in groups
    ]
    return _OF_COLLECTIONS.format(model=model, parts="\n".join([*parts, *map(_array, others)]))


def _zeros(group: CollectionSpec) -> str:
    if group.per_row:
        return f'np.zeros({_ROWS}, "float32")'
    return f'ak.from_regular(np.zeros(({_ROWS}, {min(_LENGTH, group.declared.maximum or _LENGTH)}), "float32"))'


def _array(tensor: TensorSpec) -> str:
    shape = (_ROWS, *(_LENGTH if size == -1 else size for size in tensor.shape))
    return f"    {tensor.name!r}: np.zeros({shape}, {tensor.dtype.name!r}),"
