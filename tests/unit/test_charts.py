"""Values and manifests agree with the charts: as recorded, and as Helm renders them where it is installed."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

import pytest

pytest.importorskip("kubernetes_validate")  # not in the oldest environment

import charts
import kubernetes_validate
import yaml
from charts import CHARTS, VALUES
from traitlets.config.loader import JSONFileConfigLoader, PyFileConfigLoader

from eaf_facility.envoy.settings import Envoy
from eaf_facility.hub.settings import ModelStore, TokenIssuer
from eaf_facility.token_policy import TokenPolicy
from eaf_inference.config import Facility

RECORDED = json.loads(charts.RECORDED.read_text(encoding="utf-8"))
GUIDE = (VALUES.parent / "operators" / "kubernetes.md").read_text(encoding="utf-8")
NAME, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"
STARTED_LATER = {  # by KubeSpawner and by the gateway's controller, not by a chart
    ("jupyterhub", "singleuser-server"),
    ("dask-gateway", "dask-scheduler"),
    ("dask-gateway", "dask-worker"),
}
COMBINATIONS = [(name, files) for name, chart in CHARTS.items() for files in chart.values]
FILES = [path for path in sorted(VALUES.rglob("*.yaml")) if path.name != "envoy.yaml"]  # made by the guide's command
SETTINGS = [*VALUES.rglob("*.py"), *VALUES.rglob("*.json")]
TEXTS = {path: path.read_text(encoding="utf-8") for path in [*FILES, *SETTINGS]}
MANIFESTS = [each for path in FILES for each in yaml.safe_load_all(TEXTS[path]) if each]
charts_missing = pytest.mark.skipif(bool(charts.missing()), reason=charts.missing())


def everywhere(key, value):
    """Return what mappings at any depth have under a key."""
    if isinstance(value, dict):
        found = [value[key]] if key in value else []
        return found + [each for other in value.values() for each in everywhere(key, other)]
    return [each for other in value for each in everywhere(key, other)] if isinstance(value, list) else []


def services():
    """Return the ports of each Service, by name: this project's and the charts'."""
    own = {
        each["metadata"]["name"]: [port["port"] for port in each["spec"]["ports"]]
        for each in MANIFESTS
        if each.get("kind") == "Service"
    }
    for chart in RECORDED.values():
        own |= {name: [port["port"] for port in each["ports"]] for name, each in chart["services"].items()}
    return own


def unknown_settings(values, known, path=""):
    """Return the settings of a values file that the chart does not have."""
    if path not in known:
        return []
    wrong = [f"{path}.{name}" for name in values if name not in known[path]]
    for name, value in values.items():
        if isinstance(value, dict):
            wrong += unknown_settings(value, known, f"{path}.{name}" if path else name)
    return wrong


@pytest.mark.parametrize(("name", "files"), COMBINATIONS)
def test_every_setting_exists_in_the_chart(name, files):
    known = RECORDED[name]["settings"]
    values = charts.combined(*files)
    assert unknown_settings(values, known) == []
    (first, *_) = values
    assert unknown_settings(values | {first: {"misspelt": 1}}, known) == [f"{first}.misspelt"]


def test_every_address_names_a_service_and_its_port():
    ours = services()
    found = set()
    for text in TEXTS.values():
        found |= set(re.findall(r"(?:https?|grpcs?)://[a-z0-9.-]+(?::\d+)?", text))
    assert "http://hub:8081" in found
    for address in found:
        parts = urlsplit(address)
        if "." in parts.hostname:  # outside of the namespace
            continue
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
        assert port in ours.get(parts.hostname, []) or parts.hostname == "0.0.0.0", address  # noqa: S104


def test_every_selector_of_a_charts_pods_selects_one():
    pods = [each["labels"] for chart in RECORDED.values() for each in chart["pods"].values()]
    checked = 0
    for labels in everywhere("matchLabels", MANIFESTS):
        if labels.get(NAME) not in RECORDED or COMPONENT not in labels:
            continue
        checked += 1
        if (labels[NAME], labels[COMPONENT]) not in STARTED_LATER:
            assert any(labels.items() <= each.items() for each in pods), labels
    assert checked > 5


def test_what_pods_mount_is_made_by_a_file_or_by_the_guide():
    made = {(each["kind"], each["metadata"]["name"]) for each in MANIFESTS if "kind" in each and "metadata" in each}
    made |= {("ConfigMap", each["name"]) for other in everywhere("configMapGenerator", MANIFESTS) for each in other}
    needed = {("PersistentVolumeClaim", each) for each in everywhere("claimName", MANIFESTS)}
    needed |= {("ConfigMap", each["name"]) for each in everywhere("configMap", MANIFESTS)}
    needed |= {("ConfigMap", each) for each in everywhere("configmap_name", MANIFESTS)}
    needed |= {("Secret", each) for each in everywhere("secretName", MANIFESTS)}
    needed |= {("Secret", each["name"]) for each in everywhere("secretRef", MANIFESTS)}
    assert len(needed) >= 5
    for kind, name in needed - made:
        made_by_hand = rf"(create secret (tls|generic)|create configmap) {name}\b|PersistentVolumeClaim `{name}`"
        assert re.search(made_by_hand, GUIDE), f"{kind} {name} is neither in a file nor in the guide"


def test_every_image_is_built_here_or_named_in_the_guide():
    built = {"eaf-inference": "service.Dockerfile", "eaf-hub": "hub.Dockerfile"}
    for dockerfile in built.values():
        assert (VALUES / "images" / dockerfile).exists()
    images = {each for each in everywhere("image", MANIFESTS) if isinstance(each, str)}
    images |= {f"{each['name']}:{each['tag']}" for each in everywhere("image", MANIFESTS) if isinstance(each, dict)}
    for image in images:
        registry, _, name = image.partition("/")
        assert registry == "registry.example.org", image
        assert name.partition(":")[0] in built or f"`{image.partition(':')[0]}`" in GUIDE, f"the guide lacks {image}"


def test_triton_ends_before_kubernetes_kills_it():
    grace = RECORDED["supersonic"]["pods"]["supersonic-triton"]["grace"]
    for each in ("supersonic-values.yaml", "supersonic-store-values.yaml"):
        (script,) = charts.combined(each)["triton"]["args"]
        (seconds,) = re.findall(r"--exit-timeout-secs=(\d+)", script)
        assert int(seconds) < grace


def test_every_setting_of_this_project_exists():
    sections = {each.__name__: each for each in (Envoy, Facility, ModelStore, TokenIssuer, TokenPolicy)}
    assert len(SETTINGS) >= 3
    for path in SETTINGS:
        loader = JSONFileConfigLoader if path.suffix == ".json" else PyFileConfigLoader
        for section, settings in loader(path.name, str(path.parent)).load_config().items():
            assert settings.keys() <= set(sections[section].class_trait_names(config=True)), path


def test_probes_and_services_name_ports_of_their_pods():
    deployments = [each for each in MANIFESTS if each.get("kind") == "Deployment" and "selector" in each["spec"]]
    by_name = {each["metadata"]["name"]: each["spec"]["template"] for each in deployments}
    for pod in by_name.values():
        for container in pod["spec"]["containers"]:
            names = {port["name"] for port in container["ports"]}
            used = everywhere("port", {key: value for key, value in container.items() if key.endswith("Probe")})
            assert used
            assert set(used) <= names
    own = [each for each in MANIFESTS if each.get("kind") == "Service"]
    assert {each["metadata"]["name"] for each in own} == by_name.keys()
    for each in own:
        pod = by_name[each["metadata"]["name"]]
        assert each["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        names = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in each["spec"]["ports"]} <= names


@charts_missing
@pytest.mark.parametrize("name", CHARTS)
def test_the_charts_are_still_as_recorded(name):
    assert json.loads(json.dumps(charts.facts(name))) == RECORDED[name]


@charts_missing
@pytest.mark.parametrize(("name", "files"), COMBINATIONS)
@pytest.mark.parametrize("version", ["1.32", kubernetes_validate.latest_version()])
def test_kubernetes_accepts_what_helm_renders(name, files, version):
    custom = set()
    for each in charts.rendered(name, files):
        try:
            kubernetes_validate.validate(each, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            custom.add(each["apiVersion"].partition("/")[0])
    assert custom <= {"keda.sh", "traefik.io"}
