"""The import rule of the house: a room imports lower rooms and its own folder, and the doors upward are listed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "eaf_inference"

# Lowest floor first; a folder is one room with its files.
FLOORS = (
    "_text",
    "_redact",
    "errors",
    "_proxies",
    "_http",
    "_files",
    "_kernel",
    "_written_bar",
    "tables",
    "config",
    "policy",
    "tls",
    "credentials",
    "token_service",
    "document",
    "local",
    "injected",
    "inference.protocol",
    "inference.lengths",
    "inference.recipe",
    "inference.wrong_input",
    "inference.layout",
    "inference.conversion",
    "inference.features",
    "inference.reply",
    "inference.spec",
    "inference.truncation",
    "inference.outputs",
    "inference.batching",
    "inference.trial",
    "inference.padding",
    "inference.words",
    "inference.failure",
    "inference.transport",
    "inference.rate",
    "inference.traffic",
    "inference.interrupts",
    "inference.pipeline",
    "inference.progress",
    "inference.request",
    "inference.model",
    "probe",
    "discovery",
    "queue_times",
    "catalogue",
    "lookup",
    "registry",
    "connection",
    "client_commands",
    "metrics",
    "dask",
    "notebook",
    "server",
    "hub",
    "envoy",
    "facility",
    "bench",
    "study",
    "cli",
)
APART = ("notebook", "server", "dask", "hub", "facility")  # never import one another
# Imports upward, inside functions, of what a user expects on the object in her hand: (file, function, imported).
DOORS = {
    ("connection", "connect", "dask"),
    ("connection", "configure", "dask"),
    ("connection", "submit", "dask"),
    ("dask.clusters", "_repr_html_", "notebook"),
    ("connection", "clusters", "dask"),
    ("connection", "monitor", "notebook"),
    ("catalogue", "_repr_html_", "notebook"),
    ("connection", "_repr_html_", "notebook"),
    ("discovery", "_repr_html_", "notebook"),
    ("inference.model", "_repr_html_", "notebook"),
    ("dask.summary", "_repr_html_", "notebook"),
}
EMPTY_OR_LAZY = ("__init__", "inference")  # the table of contents, which imports when a name is used


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def room_of(module: str) -> str:
    """The floor a module belongs to: itself, or its folder."""
    room = module if module in FLOORS else module.split(".")[0]
    assert room in FLOORS, f"eaf_inference.{module} is in no room: give it one in FLOORS"
    return room


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports_in(tree: ast.AST, function: str = "") -> list[tuple[str, str, str]]:
    """(function around it or nothing, full module, imported name) of every import below."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            found += [(function, alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found += [(function, node.module or "", alias.name) for alias in node.names]
        elif not is_for_types_only(node):
            inside = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else ""
            found += imports_in(node, function or inside)
    return found


def modules() -> dict[str, list[tuple[str, str]]]:
    """By module of this package: (function, imported module of this package)."""
    sources = {name_of(path): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
    made = {}
    for name, tree in sources.items():
        made[name] = []
        for function, module, imported in imports_in(tree):
            if module.split(".")[0] != "eaf_inference":
                continue
            inside = module.removeprefix("eaf_inference").removeprefix(".")
            full = f"{inside}.{imported}".strip(".")
            target = full if full in sources else inside
            if target:
                made[name].append((function, target))
    return made


def upward(importer: str, target: str) -> bool:
    mine, theirs = room_of(importer), room_of(target)
    if mine == theirs:
        return False
    return (mine in APART and theirs in APART) or FLOORS.index(theirs) > FLOORS.index(mine)


def test_a_room_imports_lower_rooms_only_but_for_the_listed_doors():
    used, wrong = set(), []
    for importer, imported in modules().items():
        if importer in EMPTY_OR_LAZY:
            continue
        for function, target in imported:
            if not upward(importer, target):
                continue
            door = (importer, function, room_of(target))
            used.add(door)
            if door not in DOORS:
                wrong.append(f"{importer} imports {target} in {function or 'the module'}")
    assert wrong == []
    assert used >= DOORS, "a door that nobody uses is closed"


def test_nothing_imports_the_command_line():
    assert [name for name, imported in modules().items() for _, target in imported if target == "cli"] == []


def test_every_module_has_a_room():
    assert {room_of(name) for name in modules() if name not in EMPTY_OR_LAZY} <= set(FLOORS)


def test_the_table_of_contents_imports_nothing_when_it_is_imported():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    assert {module for function, module, _ in imports_in(tree) if not function} <= {"__future__", "typing"}
    # neither does Python itself, whatever a dependency's own start-up does
    heavy = {"numpy", "awkward", "grpc", "google.protobuf"}
    code = f"import sys, eaf_inference; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, cwd=PACKAGE.parent
    )
    assert done.stdout == "[]\n"


def test_tritonclient_is_imported_by_the_contenders_that_are_measured_and_nowhere_else():
    apart = PACKAGE / "bench" / "contenders"
    for path in PACKAGE.rglob("*.py"):
        found = {module.split(".")[0] for _, module, _ in imports_in(ast.parse(path.read_text()))}
        assert path.parent == apart or not found & {"tritonclient", "coffea", "gevent"}, path
    required = (PACKAGE.parent / "pyproject.toml").read_text()
    assert not re.search(r'"(tritonclient|gevent)\b[^.]', required)


def test_inference_knows_no_notebook_dask_or_jupyter():
    forbidden = ("IPython", "ipywidgets", "distributed", "dask", "jupyter_server", "jupyterlab", "notebook")
    for path in (PACKAGE / "inference").glob("*.py"):
        found = {module.split(".")[0] for _, module, _ in imports_in(ast.parse(path.read_text()))}
        assert not found & set(forbidden), path
