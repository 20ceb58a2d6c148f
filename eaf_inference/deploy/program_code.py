"""Find what reaches out of a model in the texts of ``torch.export`` and TorchScript files.

Torch makes Python code of the names of inputs, nodes and weights, and gives sizes, such as ``Mul(Integer(2),
Symbol('s0'))``, and guards to ``eval``. So each text has to have the form that torch itself writes.

Some of torch's operators read and write files (``from_file``, ``save``) or memory that is not the model's
(``inductor``). A TorchScript file may call them as soon as it is loaded.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["code_in", "reach_of_script"]

_NAME = re.compile(r"[\w.:#/<>\[\], +-]")  # nothing that calls, assigns, quotes or begins a line
_QUOTED = r"'(?:[A-Za-z]\w*|[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?)'"
_NUMBER, _OPERATORS, _CLASS = r"\d+(?:\.\d+)?", r"[\s(),+\-*/%<>=!&|~]", r"[A-Z]\w*"
_SIZE = re.compile(rf"{_QUOTED}|{_NUMBER}|{_OPERATORS}|{_CLASS}|[a-z]\w*=|[a-z]{{1,4}}\d+|true|false")
_GUARD = re.compile(rf"L\['\w+'\]|\[\d+\]|\.size\(\)|{_NUMBER}|{_OPERATORS}|{_CLASS}")
_PARTS = {"expr_str": _SIZE, "guards_code": _GUARD}
_FILES = r"from_file|save"  # operators that open files
_SAFE = r"aten|prims?|quantized|quantized_decomposed|higher_order|torchvision"  # whose operators only compute
_TARGET = re.compile(rf"(?!.*\.(?:{_FILES})\b)(?:torch\.ops\.(?:{_SAFE})\..+|(?!torch\.ops\b).*)")
_REACH = re.compile(rf"\b(?:{_FILES})\b|(?<![\w.])ops\b(?!\.(?:{_SAFE})\.)(?:\.\w+)*")
_JSON = "in_spec", "out_spec", "context"  # texts that are JSON again
_NOT_RUN = "metadata"  # where a node comes from


def code_in(described: Any, key: str = "") -> str | None:
    """Return a text of a description, as `json.loads` gives it, that may be code; None if there is none.

    Parameters
    ----------
    described : object
    key : str, optional
        Under which it is in the description.
    """
    if isinstance(described, dict):
        inner = [code_in(name) for name in described]
        inner += [code_in(value, name) for name, value in described.items() if name != _NOT_RUN]
        return next(filter(None, inner), None)
    if isinstance(described, list):
        return next(filter(None, (code_in(value, key) for value in described)), None)
    if not isinstance(described, str):
        return None
    if key in _JSON:
        try:
            return code_in(json.loads(described), key)
        except ValueError:  # a name
            pass
    if key == "target" and not _TARGET.fullmatch(described):
        return described
    rest = _PARTS.get(key, _NAME).sub("", described)  # a match of many parts could take for ever
    return described if rest else None


def reach_of_script(code: str) -> str:
    """Return the operator in TorchScript's code that may reach out of the model; empty if there is none."""
    found = _REACH.search(code)
    return found[0] if found else ""
