"""Import rules: modules import lower layers and their own package, in no circle, with six listed exceptions."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("eaf_inference", "eaf_facility", "benchmarks")
PACKAGE = ROOT / "eaf_inference"

# Lowest layer first. A package is one room with all its modules. Rooms in one layer never import one another.
LAYERS = (
    {"eaf_inference._text", "eaf_inference._redact", "eaf_inference._kernel", "eaf_inference._written_bar"},
    {"eaf_inference._html"},
    {"eaf_inference._table"},
    {"eaf_inference.errors"},
    {"eaf_inference._files", "eaf_inference._http", "eaf_inference._proxies"},
    {"eaf_inference.address"},
    {"eaf_inference.config"},
    {"eaf_inference.auth"},
    {"eaf_inference.inference"},
    {"eaf_inference.discovery"},
    {"eaf_inference.registry"},
    {"eaf_inference.replicas"},
    {"eaf_inference.opening"},
    {"eaf_inference.deploy"},
    {"eaf_inference.connection"},
    {"eaf_inference.connecting"},
    {"eaf_inference.dataset"},
    {"eaf_inference._commands", "eaf_inference.doctor", "eaf_inference.metrics"},
    {"eaf_inference._connection_options", "eaf_inference._run_arguments"},
    {"eaf_inference.check_command", "eaf_inference.client_commands", "eaf_inference.run_command"},
    {"eaf_inference.cli"},
    {"eaf_inference.dask", "eaf_inference.notebook", "eaf_inference.server"},
    {"eaf_facility.token_policy"},
    {"eaf_facility.hub", "eaf_facility.envoy"},
    {"eaf_facility.process", "eaf_facility._terminal"},
    {"eaf_facility.servers"},
    {"eaf_facility.local", "eaf_facility.inspection"},
    {"eaf_facility.study"},
    {"eaf_facility.cli"},
    {"benchmarks"},
)
# Upward imports inside methods of `Connection`, so that users find these features there: (module, method, room).
UPWARD = {
    ("eaf_inference.connecting", "connect", "eaf_inference.dask"),
    ("eaf_inference.connection", "configure", "eaf_inference.dask"),
    ("eaf_inference.connection", "submit", "eaf_inference.dask"),
    ("eaf_inference.connection", "estimate", "eaf_inference.dask"),
    ("eaf_inference.connection", "clusters", "eaf_inference.dask"),
    ("eaf_inference.connection", "monitor", "eaf_inference.notebook"),
}
LAZY = PACKAGES  # their `__init__` imports a name when it is first used


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The room a module belongs to: itself, or its folder."""
    rooms = set().union(*LAYERS)
    room = module
    while room not in rooms:
        room, _, last = room.rpartition(".")
        assert last, f"{module} is in no room: give it one in LAYERS"
    return room


def layer_of(room: str) -> int:
    return next(layer for layer, rooms in enumerate(LAYERS) if room in rooms)


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports_in(tree: ast.AST, function: str = "", *, with_types: bool = False) -> list[tuple[str, str, str]]:
    """(function around it or nothing, full module, imported name) of every import below."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            found += [(function, alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found += [(function, node.module or "", alias.name) for alias in node.names]
        elif with_types or not is_for_types_only(node):
            inside = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else ""
            found += imports_in(node, function or inside, with_types=with_types)
    return found


@cache
def sources() -> dict[Path, ast.AST]:
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {path: ast.parse(path.read_text()) for path in paths}


@cache
def modules(*, with_types: bool = False) -> dict[str, list[tuple[str, str]]]:
    """By module: (function, imported module of these packages)."""
    names = {name_of(path) for path in sources()}
    made = {}
    for path, tree in sources().items():
        name = name_of(path)
        made[name] = []
        for function, module, imported in imports_in(tree, with_types=with_types):
            if module.split(".")[0] in PACKAGES:
                full = f"{module}.{imported}"
                target = full if full in names else module
                if target not in LAZY:
                    made[name].append((function, target))
    return made


def upward(importer: str, target: str) -> bool:
    mine, theirs = room_of(importer), room_of(target)
    return mine != theirs and layer_of(theirs) >= layer_of(mine)


def test_modules_import_only_lower_layers_and_their_own_package():
    used, wrong = set(), []
    for importer, imported in modules().items():
        if importer in LAZY:
            continue
        for function, target in imported:
            if not upward(importer, target):
                continue
            exception = (importer, function, room_of(target))
            used.add(exception)
            if exception not in UPWARD:
                wrong.append(f"{importer} imports {target} in {function or 'the module'}")
    assert wrong == []
    assert used >= UPWARD, "remove exceptions that are no longer needed"


def test_no_modules_import_one_another_even_for_types():
    """The listed upward imports, and those of the types they return, may close a circle; nothing else may."""
    openings, above = ({each[at] for each in UPWARD} for at in (0, 2))
    graph = {
        importer: {
            target
            for _, target in imported
            if target != importer and not (importer in openings and room_of(target) in above)
        }
        for importer, imported in modules(with_types=True).items()
        if importer not in LAZY
    }
    assert list(TopologicalSorter(graph).static_order())  # a CycleError names the circle


def test_nothing_imports_the_command_line():
    assert [name for name, imported in modules().items() for _, target in imported if target.endswith("cli")] == []


def test_importing_the_package_imports_nothing_heavy():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    assert {module for function, module, _ in imports_in(tree) if not function} <= {"__future__", "typing"}
    heavy = {"numpy", "awkward", "grpc", "google.protobuf"}
    code = f"import sys, eaf_inference; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, cwd=PACKAGE.parent
    )
    assert done.stdout == "[]\n"


def test_the_wheel_holds_two_packages_which_never_name_the_third():
    wheel = (ROOT / "pyproject.toml").read_text().partition("[tool.hatch.build.targets.wheel]")[2]
    assert wheel.lstrip().startswith('packages = ["eaf_inference", "eaf_facility"]')
    # not in a string either, so that no dynamic import depends on a package that is not installed
    for path in [path for package in PACKAGES[:2] for path in (ROOT / package).rglob("*.py")]:
        assert not re.search(r"\bbenchmarks\b", path.read_text()), path


def test_tritonclient_is_imported_only_by_the_clients_under_comparison():
    clients = (ROOT / "benchmarks" / "clients", ROOT / "eaf_facility" / "study" / "clients")
    for path, tree in sources().items():
        found = {module.split(".")[0] for _, module, _ in imports_in(tree)}
        if path == PACKAGE / "dataset" / "nano.py":  # imported if the user passes a schema of coffea
            found -= {"coffea"}
        assert path.parent in clients or not found & {"tritonclient", "coffea", "gevent"}, path
    required = (PACKAGE.parent / "pyproject.toml").read_text()
    assert not re.search(r'"(tritonclient|gevent)\b[^.]', required)


def test_inference_knows_no_notebook_dask_or_jupyter():
    forbidden = ("IPython", "ipywidgets", "distributed", "dask", "jupyter_server", "jupyterlab", "notebook")
    for path in (PACKAGE / "inference").glob("*.py"):
        found = {module.split(".")[0] for _, module, _ in imports_in(ast.parse(path.read_text()))}
        assert not found & set(forbidden), path
