"""Render the charts of docs/kubernetes with Helm, and read from them what this project's files rely on.

Neither Helm nor the charts are in this repository. With helm on PATH and EAF_CHARTS set to a directory that holds
clones of SuperSONIC, zero-to-jupyterhub-k8s and dask-gateway, tests/unit/test_charts.py compares them with
recorded/charts.json, which `record` writes.

    EAF_CHARTS=/clones .venv/bin/python tests/charts.py record
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

VALUES = Path(__file__).parents[1] / "docs" / "kubernetes"
RECORDED = Path(__file__).parent / "recorded" / "charts.json"
PODS = ("Deployment", "StatefulSet")
CHANGING = ("helm.sh/chart", "app.kubernetes.io/version")
KUBERNETES = "1.34"


@dataclass(frozen=True)
class Chart:
    """A chart, the release's name in the guide, and combinations of this project's values for it."""

    release: str
    place: str
    values: tuple[tuple[str, ...], ...]
    overrides: tuple[str, ...] = ()

    def source(self) -> Path | None:
        """Return the directory of the chart, if there are clones."""
        clones = os.environ.get("EAF_CHARTS")
        return next(iter(sorted(Path(clones).glob(f"*/{self.place}"))), None) if clones else None


CHARTS = {
    "jupyterhub": Chart("jupyterhub", "jupyterhub", (("jupyterhub-values.yaml",),)),
    "dask-gateway": Chart("dask-gateway", "resources/helm/dask-gateway", (("dask-gateway-values.yaml",),)),
    "supersonic": Chart(
        "supersonic",
        "helm/supersonic",
        (
            ("supersonic-values.yaml",),
            ("supersonic-values.yaml", "supersonic-store-values.yaml"),
            ("supersonic-values.yaml", "supersonic-envoy/values.yaml"),
        ),
        # with it the chart asks the cluster for the ConfigMap
        ("envoy.external_config.load_from_configmap=false",),
    ),
}


def missing() -> str:
    """Return what keeps the charts from being rendered, or nothing."""
    if shutil.which("helm") is None:
        return "the program helm is missing"
    absent = [name for name, chart in CHARTS.items() if chart.source() is None]
    return f"EAF_CHARTS has no clone with the chart {', '.join(absent)}" if absent else ""


def prepared(chart: Chart, directory: Path) -> Path:
    """Copy a chart, make the schema that its releases carry, and leave out parts that its values switch off."""
    source = chart.source()
    assert source is not None
    copy = Path(shutil.copytree(source, directory / "chart"))
    schema = copy / "values.schema.yaml"
    if schema.exists():
        text = json.dumps(yaml.safe_load(schema.read_text(encoding="utf-8")))
        (copy / "values.schema.json").write_text(text, encoding="utf-8")
    about = yaml.safe_load((copy / "Chart.yaml").read_text(encoding="utf-8"))
    defaults = yaml.safe_load((copy / "values.yaml").read_text(encoding="utf-8"))
    for each in about.pop("dependencies", []):
        name, switch = each["condition"].split(".")
        assert defaults[name][switch] is False, f"{name} is on by default, and its chart is not here"
    (copy / "Chart.yaml").write_text(yaml.safe_dump(about), encoding="utf-8")
    return copy


@cache
def rendered(name: str, files: tuple[str, ...]) -> tuple[dict[str, Any], ...]:
    """Return the manifests that Helm makes of a chart with some of this project's values."""
    chart = CHARTS[name]
    with tempfile.TemporaryDirectory() as directory:
        copy = prepared(chart, Path(directory))
        command = ["helm", "template", chart.release, str(copy), "-n", "analysis", "--kube-version", KUBERNETES]
        for each in files:
            command += ["-f", str(VALUES / each)]
        for each in chart.overrides:
            command += ["--set", each]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return tuple(each for each in yaml.safe_load_all(done.stdout) if each)


def settings(values: dict[str, Any], known: Any, path: str = "") -> dict[str, list[str]]:
    """Return, for each mapping that the values have settings in, the names that the chart knows there.

    Mappings without names of their own, such as `extraConfig` or a pod's resources, end the search.
    """
    found = {path: sorted(known)} if known else {}
    for name, value in values.items():
        if isinstance(value, dict) and isinstance(known, dict) and known.get(name):
            found |= settings(value, known[name], f"{path}.{name}" if path else name)
    return found


@cache
def names(chart: Chart) -> dict[str, Any]:
    """Return a tree of the settings of a chart: in its schema, its default values, and its templates."""
    source = chart.source()
    assert source is not None
    (schema,) = source.glob("values.schema.*")
    described = yaml.safe_load(schema.read_text(encoding="utf-8"))
    known = _merged(_described(described), yaml.safe_load((source / "values.yaml").read_text(encoding="utf-8")))
    free = _free(described)
    for template in (source / "templates").rglob("*.yaml"):
        text = template.read_text(encoding="utf-8")
        for path in re.findall(r"\.Values\.([\w.]+)", text):
            _place(known, path)
        free += re.findall(r"toYaml \.Values\.([\w.]+)", text)
    for path in free:
        _place(known, path).clear()  # taken as it is
    return known


def _place(tree: dict[str, Any], path: str) -> dict[str, Any]:
    for name in path.split("."):
        tree = tree.setdefault(name, {})
    return tree


def _described(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: _described(each) for name, each in schema.get("properties", {}).items()}


def _free(schema: dict[str, Any], path: str = "") -> list[str]:
    """Return the mappings with names of the user's choice."""
    if path and (schema.get("additionalProperties") or "patternProperties" in schema):
        return [path]
    inner = schema.get("properties", {}).items()
    return [free for name, each in inner for free in _free(each, f"{path}.{name}" if path else name)]


def _merged(one: dict[str, Any], other: Any) -> dict[str, Any]:
    if not isinstance(other, dict):
        return one
    return {name: _merged(one.get(name, {}), other.get(name)) for name in one.keys() | other.keys()}


def combined(*files: str) -> dict[str, Any]:
    """Return values files put together as Helm does it."""

    def put(one: Any, other: Any) -> Any:
        if isinstance(one, dict) and isinstance(other, dict):
            return one | {name: put(one.get(name), each) for name, each in other.items()}
        return other

    made: dict[str, Any] = {}
    for each in files:
        made = put(made, yaml.safe_load((VALUES / each).read_text(encoding="utf-8")))
    return made


def facts(name: str) -> dict[str, Any]:
    """Return what this project's files rely on: settings' names, pods and Services of a chart."""
    chart = CHARTS[name]
    source = chart.source()
    assert source is not None
    head = ["git", "-C", str(source), "log", "-1", "--format=%h of %cs"]
    commit = subprocess.run(head, capture_output=True, text=True, encoding="utf-8", check=True).stdout.strip()
    about = yaml.safe_load((source / "Chart.yaml").read_text(encoding="utf-8"))
    made = [each for files in chart.values for each in rendered(name, files)]
    found: dict[str, Any] = {
        "version": about["version"],
        "application": about.get("appVersion"),
        "commit": commit,
        "settings": {},
        "pods": {},
        "services": {},
    }
    for files in chart.values:
        found["settings"] |= settings(combined(*files), names(chart))
    for each in made:
        title, spec = each["metadata"]["name"], each.get("spec")
        if each["kind"] in PODS:
            pod = spec["template"]
            ports = [port for container in pod["spec"]["containers"] for port in container.get("ports", [])]
            found["pods"][title] = {
                "labels": {key: value for key, value in pod["metadata"]["labels"].items() if key not in CHANGING},
                "ports": {port["name"]: port["containerPort"] for port in ports},
                "grace": pod["spec"].get("terminationGracePeriodSeconds", 30),
            }
        elif each["kind"] == "Service":
            ports = [{key: port[key] for key in ("port", "targetPort")} for port in spec["ports"]]
            found["services"][title] = {"selector": spec["selector"], "ports": ports}
    return found


def main() -> None:
    """Write recorded/charts.json."""
    if sys.argv[1:] != ["record"] or missing():
        sys.exit(f"{missing()}\n{__doc__}")
    text = json.dumps({name: facts(name) for name in CHARTS}, indent=1, sort_keys=True)
    RECORDED.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
