"""A ready cell for a model: what a user gets who drags it into a notebook.

It runs as it is, on made-up numbers under the model's real input names. Names come over the network, so they are only
ever written as Python literals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eaf_inference.inference.spec import ModelSpec, TensorSpec

__all__ = ["cell_for"]

_ROWS = 4
_LENGTH = 16  # of what is variable
_LONGEST = 4000  # characters

_OF_RECORDS = """\
import awkward as ak
import numpy as np

model = {model}
# Your jets come here: records with these fields, one list of constituents a jet, in as many outer lists as you like.
fields = {fields}
example = ak.zip({{field: ak.from_regular(np.zeros(({rows}, {length}), "float32")) for field in fields}})
scores = model(example)
scores"""

_OF_ARRAYS = """\
import numpy as np

model = {model}
# Your arrays come here.
example = {{
{arrays}
}}
scores = model(example)
scores"""


def cell_for(name: str, version: str | None, spec: ModelSpec | None) -> str:
    """Python source that calls the model.

    Parameters
    ----------
    name : str
    version : str or None
        None for the newest.
    spec : ModelSpec or None
        None for a model that cannot be called; the cell then has Python say why.

    Returns
    -------
    str
        Empty for names of absurd length.
    """
    model = f"triton.model({name!r})" if version is None else f"triton.model({name!r}, version={version!r})"
    cell = model if spec is None else _call(model, spec)
    return next((text for text in (cell, model) if len(text) <= _LONGEST), "")


def _call(model: str, spec: ModelSpec) -> str:
    if spec.recipe:
        length = min(max(_LENGTH, spec.recipe.min_length), spec.recipe.max_length or _LENGTH)
        return _OF_RECORDS.format(model=model, fields=list(spec.recipe.required), rows=_ROWS, length=length)
    arrays = "\n".join(_array(tensor) for tensor in spec.inputs if not tensor.optional)
    return _OF_ARRAYS.format(model=model, arrays=arrays)


def _array(tensor: TensorSpec) -> str:
    shape = (_ROWS, *(_LENGTH if size == -1 else size for size in tensor.shape))
    return f"    {tensor.name!r}: np.zeros({shape}, {tensor.dtype.name!r}),"
