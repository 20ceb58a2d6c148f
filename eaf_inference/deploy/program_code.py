"""Find what reaches out of a model in the texts of ``torch.export`` and TorchScript files.

Torch makes Python code of the names of inputs, nodes and weights, and gives sizes, such as ``Mul(Integer(2),
Symbol('s0'))``, and guards to ``eval``. So each text has to have the form that torch itself writes.

Some of torch's operators read and write files (``from_file``, ``save``), other machines (``rpc_sync``) or memory that
is not the model's (``inductor``, ``PythonOp``). A TorchScript file may call them as soon as it is loaded.

TorchScript's ``getattr`` takes an operator's name as a string. So that the name can be found, strings must be written
as torch writes them: its parser also joins neighbours, and decodes letters from numbers.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["code_in", "reach_of_script"]

_NAME = re.compile(r"[\w./ +-]")  # nothing that calls, assigns, annotates, quotes or begins a line
_SYMBOL = r"[a-z]{1,4}\d+"
_QUOTED = rf"Symbol\('{_SYMBOL}'|Float\('[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?'"  # any other class may run a text: S('…')
_NUMBER, _OPERATORS, _CLASS = r"\d+(?:\.\d+)?", r"[\s(),+\-*/%<>=!&|~]", r"[A-Z]\w*"
_SIZE = re.compile(rf"{_QUOTED}|{_NUMBER}|{_OPERATORS}|{_CLASS}|[a-z]\w*=|{_SYMBOL}|true|false")
_FUNCTION = r"\b(?:abs|max|min|math\.(?:ceil|floor|trunc)|torch\._?sym_\w+)\b"
_GUARD = re.compile(
    rf"L(?:\['\w+'\])+|\[\d+\]|\.size\(\)|\b(?:and|or|not)\b|{_FUNCTION}|{_NUMBER}|{_OPERATORS}|{_CLASS}"
)
# what a check in the graph says
_ASSERTION = re.compile(r"Runtime assertion failed for expression [\w\s(),+\-*/%<>=!&|~.]+ on node '\w+'")
_RANGES = "range_constraints"  # by size, such as 2*s25
_PARTS = {"expr_str": _SIZE, _RANGES: _SIZE, "guards_code": _GUARD}
_PARTS["as_string"] = re.compile(r"[\w.:/<>, +-]")  # quoted in the code, such as einsum's "bcp,bdp->bcd"
_REACHING = r"from_file|save|\w*PythonOp|rpc_\w+|inline_asm\w*"  # operators that open files, connections or memory
_SAFE = r"aten|prims?|quantized|quantized_decomposed|higher_order|torchvision"  # whose operators only compute
_NAMED = r"_?[A-Za-z]\w*|__i?(?:and|or|xor|lshift|rshift)__"  # no attribute of Python's, such as __getattr__
_SIGNS = r"add|and_|eq|floordiv|ge|gt|le|lshift|lt|mod|mul|ne|neg|or_|pos|pow|rshift|sub|truediv"
_TARGET = re.compile(
    rf"(?!.*\.(?:{_REACHING})\b)torch\.ops\.(?:{_SAFE})\.(?:{_NAMED})(?:\.[A-Za-z]\w*)?"
    rf"|_operator\.(?:{_SIGNS})|math\.(?:ceil|floor|trunc)|torch\._?sym_\w+"
)
_REACH = re.compile(rf"\b(?:{_REACHING})\b|(?<![\w.])ops\b(?!\.(?:{_SAFE})\.)(?:\.\w+)*", re.ASCII)
_STRING = re.compile(r'"(?:[^"\\\n]|\\(?!0[4-7]|1[0-6]|17[0-6])[^\n])*"(?!\s*")')
_NOT_WRITTEN = re.compile(r"""["'\\#].{,99}""")  # outside of strings
_MODULE = re.compile(r"builtins|collections")  # torch imports it
_PARAMETER = re.compile(r"[\w.]*")  # torch writes names of inputs into the head of a function
_WHOLE = {"target": _TARGET, "as_operator": _TARGET, "default_factory_module": _MODULE}
_WHOLE |= dict.fromkeys(("name", "as_name", "forward_arg_names"), _PARAMETER)
_JSON = "in_spec", "out_spec", "context"  # texts that are JSON again
_ENUM = "__enum__"  # torch imports the module of an enum that is a key of an input
_NOT_RUN = "metadata"  # where a node comes from, in texts


def code_in(described: Any, key: str = "") -> str | None:
    """Return a text of a description, as `json.loads` gives it, that may be code; None if there is none.

    Parameters
    ----------
    described : object
    key : str, optional
        Under which it is in the description.
    """
    if isinstance(described, dict):
        if _ENUM in described:
            return _ENUM
        inner = [code_in(name, key if key == _RANGES else "") for name in described]
        inner += [code_in(value, name) for name, value in described.items() if not _is_not_run(name, value)]
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
    if key in _WHOLE and not _WHOLE[key].fullmatch(described):
        return described
    if key == "as_string" and _ASSERTION.fullmatch(described):
        return None
    rest = _PARTS.get(key, _NAME).sub("", described)  # a match of many parts could take for ever
    return described if rest else None


def reach_of_script(code: str) -> str:
    """Return what in TorchScript's code may reach out of the model; empty if there is nothing."""
    found = _REACH.search(code) or _NOT_WRITTEN.search(_STRING.sub("", code))
    return found[0] if found else ""


def _is_not_run(name: str, value: Any) -> bool:
    return name == _NOT_RUN and isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
