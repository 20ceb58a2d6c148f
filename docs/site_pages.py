"""Sphinx extension: the reference pages that are generated from code, diagrams, and checks of links.

Each page is written before the build, so that nothing that the code offers can be missing from it: the API from what
the package exports, settings from traitlets, commands and magics from their parsers, and REST interfaces from their
OpenAPI files.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import os
import pkgutil
import re
import shutil
import textwrap
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml
from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from sphinx.util.logging import getLogger
from traitlets.config import Configurable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx
    from traitlets import TraitType

log = getLogger(__name__)

_ROOT = Path(__file__).parent.parent
_REFERENCE = Path(__file__).parent / "reference" / "generated"
_PACKAGES = ("eaf_inference", "eaf_facility", "benchmarks")
# What users and operators meet beside the names that `eaf_inference` exports.
_API = {
    "Behind a connection": {
        "eaf_inference.inference.repository": ["ModelTable", "ModelRow"],
        "eaf_inference.inference.spec": ["ModelSpec", "TensorSpec"],
        "eaf_inference.inference.recipe": ["Recipe", "Variable"],
        "eaf_inference.inference.fingerprint": ["Fingerprint", "Probed"],
        "eaf_inference.inference.traffic": ["Traffic"],
        "eaf_inference.discovery.endpoint": ["Endpoint"],
        "eaf_inference.discovery.attempts": ["Attempts", "Attempt"],
        "eaf_inference.dask.clusters": ["ClusterTable", "ClusterRow"],
        "eaf_inference.dask.submit": ["submit"],
        "eaf_inference.dataset.submission": ["Submission"],
        "eaf_inference.dataset.results": ["Result"],
        "eaf_inference.dataset.failures": ["Failure", "Failures"],
        "eaf_inference.dataset.summary": ["Summary", "WorkerShare"],
        "eaf_inference.notebook.monitor": ["Monitor"],
    },
    "For operators": {
        "eaf_facility.hub.jupyterhub": ["configure"],
        "eaf_facility.envoy.configuration": ["configuration", "as_yaml"],
        "eaf_facility.local.single_user": ["up", "RunningFacility"],
        "eaf_facility.local.multi_user": ["up_for", "SharedFacility"],
        "eaf_facility.study.run": ["study"],
        "eaf_facility.study.outcome": ["Outcome", "Site"],
        "eaf_facility.study.report": ["save"],
    },
}
_OPENAPI = {
    "rest-token-service": ("REST: token service", _ROOT / "eaf_facility" / "hub" / "openapi.yaml"),
    "rest-jupyter-server": ("REST: Jupyter server", _ROOT / "eaf_inference" / "server" / "openapi.yaml"),
}


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the generator and the directive for diagrams."""
    app.connect("config-inited", lambda *_: _write_all())
    app.connect("config-inited", lambda *_: _check_files_in_root())
    app.connect("doctree-resolved", _check_addresses)
    app.add_directive("mermaid", Diagram)
    app.connect("html-page-context", _add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Diagram(SphinxDirective):
    """A mermaid diagram, which the browser draws with the copy of mermaid that the site carries.

    sphinxcontrib-mermaid loads mermaid as a module, and browsers refuse modules on pages opened from a disk.
    """

    has_content = True

    def run(self) -> list[nodes.Node]:
        text = nodes.literal_block("\n".join(self.content), "\n".join(self.content))
        container = nodes.container("", text, classes=["diagram"])
        text["classes"] = ["mermaid"]
        text["language"] = "none"
        return [container]


def _add_scripts(app: Sphinx, _page: str, _template: str, _context: object, doctree: nodes.document | None) -> None:
    if doctree and any("diagram" in container["classes"] for container in doctree.findall(nodes.container)):
        app.add_js_file("mermaid.min.js")
        app.add_js_file("diagrams.js")


def _check_addresses(_app: Sphinx, doctree: nodes.document, _page: str) -> None:
    """Warn of external links that cannot be right; `make docs-links` asks the hosts themselves."""
    for reference in doctree.findall(nodes.reference):
        address = reference.get("refuri", "")
        parts = urlsplit(address)
        if reference.get("internal") or not (parts.scheme or parts.netloc):
            continue
        if parts.scheme != "https" or not re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc) or " " in address:
            log.warning("%s is not an https:// address of a public host", address, location=reference)


def _check_files_in_root() -> None:
    """Warn of relative links in the repository's own pages, such as README.md, that lead to no file."""
    for page in _ROOT.glob("*.md"):
        for target in re.findall(r"\]\((?![a-z]+:)([^)#]+)", page.read_text("utf-8")):
            if not (page.parent / target).exists():
                log.warning("%s links to %s, which does not exist", page.name, target)


def _write_all() -> None:
    _copy_notebooks()
    _REFERENCE.mkdir(exist_ok=True)
    pages = {
        "api": _api(),
        "settings": _settings(),
        "commands": _commands(),
        "magics": _magics(),
        "modules": _modules(),
        **{name: _rest(title, path) for name, (title, path) in _OPENAPI.items()},
    }
    for name, text in pages.items():
        path = _REFERENCE / f"{name}.md"
        if not path.exists() or path.read_text("utf-8") != text:  # an unchanged page is not built again
            path.write_text(text, "utf-8")


def _copy_notebooks() -> None:
    """Copy the notebooks beside the page that lists them: links to a file outside of `docs` do not resolve."""
    for path in (_ROOT / "notebooks").glob("*.ipynb"):
        copy = Path(__file__).parent / "tutorials" / path.name
        if not copy.exists() or copy.read_bytes() != path.read_bytes():
            shutil.copyfile(path, copy)


def _api() -> str:
    """Return the page of all exported names, with the types that they return."""
    import eaf_inference
    from eaf_inference import errors

    exported = [name for name in eaf_inference.__all__ if name not in ("__version__", "errors")]
    text = ["# API", "## eaf_inference", "Import these from `eaf_inference`."]
    text += [_documented("eaf_inference", name) for name in sorted(exported, key=str.swapcase)]
    text += ["## Errors", "All are in `eaf_inference.errors`."]
    base_first = sorted(errors.__all__, key=lambda name: name != "InferenceError")
    text += [_documented(errors.__name__, name) for name in base_first]
    for title, modules in _API.items():
        text.append(f"## {title}")
        text += [_documented(module, name) for module, names in modules.items() for name in names]
    return "\n\n".join(text) + "\n"


def _documented(module: str, name: str) -> str:
    """Return the directives that show one name, with a heading for the page's table of contents."""
    found = getattr(import_module(module), name)
    kind = "exception" if inspect.isclass(found) and issubclass(found, Exception) else "class"
    kind = kind if inspect.isclass(found) else "function"
    return f"### {name}\n\n```{{eval-rst}}\n.. auto{kind}:: {module}.{name}\n```"


def _modules_of(package: str) -> Iterator[Path]:
    """Return the source files of a package, its own first."""
    root = _ROOT / package
    yield root / "__init__.py"
    for found in pkgutil.walk_packages([str(root)], f"{package}."):
        path = _ROOT.joinpath(*found.name.split("."))
        yield path / "__init__.py" if found.ispkg else path.with_suffix(".py")


def _name_of(path: Path) -> str:
    return ".".join(path.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__")


def _configurables() -> Iterator[type[Configurable]]:
    """Return every section of configuration that the packages define, the client's first."""
    for package in _PACKAGES:
        for path in _modules_of(package):
            if not re.search(r"\.tag\(\s*config=True", path.read_text("utf-8")):
                continue
            module = import_module(_name_of(path))
            for _, found in inspect.getmembers(module, inspect.isclass):
                if found.__module__ == module.__name__ and issubclass(found, Configurable):
                    yield found


def _settings() -> str:
    text = ["# Settings", (_REFERENCE.parent / "settings-intro.inc").read_text("utf-8")]
    for section in _configurables():
        name = section.__name__
        text += [f"## {name}", inspect.getdoc(section) or "", f"Defined in `{section.__module__}`."]
        traits = section.class_own_traits(config=True)
        for trait_name in [each for each in vars(section) if each in traits]:  # in the order of the source
            trait = traits[trait_name]
            served = " *In the facility document.*" if trait.metadata.get("served") else ""
            text.append(
                f":::{{confval}} {name}.{trait_name}\n:type: {_type_of(trait)}\n:default: {_default_of(trait)}\n\n"
                f"{trait.help}{served}\n:::"
            )
    return "\n\n".join(text) + "\n"


def _type_of(trait: TraitType[Any, Any]) -> str:
    kind = type(trait).__name__
    names = {"Unicode": "text", "Bool": "true or false", "Int": "integer", "Float": "number"}
    if kind == "Enum":
        return "one of " + ", ".join(f"`{value}`" for value in trait.values)
    if kind == "List":
        return f"list of {_type_of(trait._trait)}"
    if kind == "Dict":
        return f"dictionary: {_type_of(trait._key_trait)} → {_type_of(trait._value_trait)}"
    return names[kind]


def _default_of(trait: TraitType[Any, Any]) -> str:
    value = trait.default()
    return f"`{value!r}`" if value or isinstance(value, (bool, int, float)) else "empty"


def _commands() -> str:
    """Return the page of all commands: the help that each prints."""
    from benchmarks import __main__ as benchmarks
    from eaf_facility.hub import __main__ as hub
    from eaf_inference import cli

    os.environ["COLUMNS"] = "78"  # the width of the help
    parser = cli.make_parser()
    text = ["# Commands", (_REFERENCE.parent / "commands-intro.inc").read_text("utf-8")]
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for program in [parser, *commands.choices.values(), hub.make_parser(), benchmarks.make_parser()]:
        text += [f"## {program.prog}", f"```text\n{program.format_help().strip()}\n```"]
    return "\n\n".join(text) + "\n"


def _magics() -> str:
    from eaf_inference.notebook.magics import TritonMagics

    text = ["# Magics", "Load them with `%load_ext eaf_inference`."]
    for name in TritonMagics.magics["line"]:
        magic = getattr(TritonMagics, name)
        usage = magic.parser.format_help().replace("::\n\n", "").strip()
        text += [f"## %{name}", f"```text\n{textwrap.dedent(usage)}\n```"]
    text.append("{confval}`TritonMagics.name` and {confval}`TritonMagics.timeout` change the defaults.")
    return "\n\n".join(text) + "\n"


def _modules() -> str:
    """Return a table of all modules with the first sentence of each docstring."""
    text = ["# Modules", (_REFERENCE.parent / "modules-intro.inc").read_text("utf-8")]
    for package in _PACKAGES:
        rows = []
        for path in _modules_of(package):
            docstring = ast.get_docstring(ast.parse(path.read_text("utf-8")))
            if docstring:
                first = " ".join(docstring.split("\n\n")[0].split()).replace("``", "`").replace("|", "\\|")
                rows.append(f"| `{_name_of(path)}` | {first} |")
        text += [f"## {package}", "\n".join(["| module | what it holds |", "|---|---|", *rows])]
    return "\n\n".join(text) + "\n"


def _rest(title: str, path: Path) -> str:
    document = yaml.safe_load(path.read_text("utf-8"))
    server = document["servers"][0]["url"]
    text = [
        f"# {title}",
        document["info"]["description"].strip(),
        f"All paths are below `{server}`. The OpenAPI document is `{path.relative_to(_ROOT)}`.",
    ]
    for where, methods in document["paths"].items():
        shared = methods.pop("parameters", [])
        for method, operation in methods.items():
            text += [f"## {method.upper()} {where}", operation["summary"] + "."]
            if "description" in operation:
                text.append(operation["description"])
            if operation.get("security") == []:
                text.append("Needs no authentication.")
            parameters = [_resolved(each, document) for each in [*shared, *operation.get("parameters", [])]]
            if parameters:
                text.append(_parameters(parameters))
            if "requestBody" in operation:
                text += ["Request body:", _json(_schema_of(operation["requestBody"]))]
            text.append(_responses(operation["responses"], document))
    text.append("## Schemas")
    for name, schema in document["components"]["schemas"].items():
        text += [f"### {name}", schema.get("description", ""), _json(schema)]
    return "\n\n".join(part for part in text if part) + "\n"


def _resolved(value: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in value:
        return value
    found: Any = document
    for part in value["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return dict(found)


def _schema_of(message: dict[str, Any]) -> dict[str, Any]:
    (content,) = message["content"].values()  # JSON, or the text of a configuration
    return dict(content["schema"])


def _parameters(parameters: list[dict[str, Any]]) -> str:
    rows = ["| parameter | in | type | |", "|---|---|---|---|"]
    rows += [
        f"| `{each['name']}` | {each['in']} | {_short(each['schema'])} | {each.get('description', '')} |"
        for each in parameters
    ]
    return "\n".join(rows)


def _responses(responses: dict[str, Any], document: dict[str, Any]) -> str:
    rows = ["| status | meaning | body |", "|---|---|---|"]
    for status, reference in responses.items():
        response = _resolved(reference, document)
        body = _short(_schema_of(response)) if "content" in response else ""
        rows.append(f"| {status} | {response['description'].strip()} | {body} |")
    return "\n".join(rows)


def _short(schema: dict[str, Any]) -> str:
    """Return a schema in a few words, with a link where it has a name."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    bounds = [f"{word} {schema[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    return " ".join([str(schema.get("type", "any")), *bounds])


def _json(schema: dict[str, Any]) -> str:
    return f"```yaml\n{yaml.safe_dump(schema, sort_keys=False, allow_unicode=True, width=100).strip()}\n```"
