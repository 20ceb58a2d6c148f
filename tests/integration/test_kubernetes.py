"""docs/kubernetes: the manifests are valid, the values' code runs, and all files agree with each other.

There is no cluster. tests/unit/test_charts.py has what concerns the charts; custom resources were checked by hand,
against the versions in docs/operators/kubernetes.md.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import charts
import kubernetes_validate
import pytest
import yaml
from dask_gateway_server.backends.base import ClusterConfig
from kubernetes_validate import ValidationError
from pod_network import Pod, reaches
from traitlets.config import Config
from waiting import until

from eaf_facility.envoy.settings import Envoy
from eaf_facility.hub.facility_document import facility_document
from eaf_facility.hub.settings import ModelStore, TokenIssuer
from eaf_facility.process.ports import LOOPBACK, free_ports
from eaf_facility.process.server import Child, plain_environment
from eaf_facility.servers.certificates import make_certificates
from eaf_facility.servers.envoy import validate
from eaf_facility.servers.prometheus import RULES
from eaf_facility.servers.triton_environment import make_installation
from eaf_facility.token_policy import TokenPolicy
from eaf_inference.config import configured, load_facility

FILES = Path(__file__).parents[2] / "docs" / "kubernetes"
FACILITY, SUPERSONIC_ENVOY, MODEL_STORE = FILES / "facility", FILES / "supersonic-envoy", FILES / "model-store"
VERSIONS = ("1.32", "1.34", kubernetes_validate.latest_version())  # Zero to JupyterHub needs 1.32
KUBECTL = shutil.which("kubectl")


def manifests(path):
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def values(name):
    (found,) = manifests(FILES / name)
    return found


ALL = {
    (each["kind"], each["metadata"]["name"]): each
    for path in FACILITY.glob("*.yaml")
    if path.name != "kustomization.yaml"
    for each in manifests(path)
}
HUB, GATEWAY = values("jupyterhub-values.yaml"), values("dask-gateway-values.yaml")
SUPERSONIC = values("supersonic-values.yaml")
PROMETHEUS = "{scheme}://{url}:{port}".format(**SUPERSONIC["prometheus"]["external"])


def pod_of(name):
    return ALL["Deployment", name]["spec"]["template"]


def container_of(name):
    return pod_of(name)["spec"]["containers"][0]


def ports_of(name):
    return {each["name"]: each["containerPort"] for each in container_of(name)["ports"]}


def environment_of(container):
    return {each["name"]: each["value"] for each in container["env"]}


def is_custom(manifest):
    return manifest["apiVersion"].startswith("monitoring.coreos.com/")


@pytest.fixture
def as_configured(monkeypatch):
    """Read the configuration from the given directories only."""

    def read(*directories):
        monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(directories[-1]))
        monkeypatch.setenv("JUPYTER_CONFIG_PATH", ":".join(map(str, directories)))

    read(FACILITY)
    return read


def check(manifest):
    for version in VERSIONS:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("manifest", [each for each in ALL.values() if not is_custom(each)], ids=str)
def test_every_manifest_is_valid(manifest):
    check(manifest)


def test_a_misspelt_field_is_rejected():
    wrong = yaml.safe_load(yaml.safe_dump(ALL["Deployment", "triton-token"]))
    wrong["spec"]["template"]["spec"]["securityContext"]["fsGroupChange"] = "OnRootMismatch"
    with pytest.raises(ValidationError, match="fsGroupChange"):
        check(wrong)


@contextmanager
def token_service(keys, tmp_path):
    """Run the token service as its Deployment does, except for port and key directory; the Hub is not needed."""
    container = container_of("triton-token")
    (port,) = free_ports(1)
    above = tmp_path / "etc"
    above.mkdir(exist_ok=True)
    (above / "eaf_inference_config.py").write_text(f"c.TokenIssuer.key_directory = {str(keys)!r}")
    environment = environment_of(container) | {
        "JUPYTER_CONFIG_DIR": str(FACILITY),
        "JUPYTER_CONFIG_PATH": str(above),
        "JUPYTERHUB_SERVICE_URL": f"http://{LOOPBACK}:{port}",
    }
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert environment_of(container)["JUPYTER_CONFIG_DIR"] == mounts["configuration"]
    program, *arguments = container["command"]
    assert program == "python"
    child = Child(
        [sys.executable, *arguments],
        environment=plain_environment(first_on_path=Path(sys.executable).parent) | environment,
        log=tmp_path / "log",
    )
    try:
        yield child, port
    finally:
        child.stop()


def status(port, path):
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except ConnectionError:
        return None
    finally:
        connection.close()


def test_the_token_service_keeps_keys_in_its_volume_and_answers_probes(tmp_path, as_configured):
    container, spec = container_of("triton-token"), pod_of("triton-token")["spec"]
    mounts = {each["name"]: PurePosixPath(each["mountPath"]) for each in container["volumeMounts"]}
    directory = PurePosixPath(configured(TokenIssuer).key_directory)
    assert directory.parent == mounts["keys"]  # the mount itself belongs to root, so the service would refuse it
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o2775)  # as fsGroup sets it on a volume's root
    keys = volume / directory.name
    probes = [container[each]["httpGet"] for each in ("startupProbe", "readinessProbe", "livenessProbe")]
    for _ in range(2):  # a new volume, and one that is mounted again
        with token_service(keys, tmp_path) as (_, port):
            until(lambda port=port: status(port, probes[0]["path"]) == http.client.OK)
            assert {status(port, each["path"]) for each in probes} == {http.client.OK}
            jwks = urlsplit(configured(TokenPolicy).jwks_url)
            assert status(port, jwks.path) == http.client.OK
    assert {each["port"] for each in probes} <= ports_of("triton-token").keys()
    # without OnRootMismatch, each mount would change the directory like this
    assert spec["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    keys.chmod(0o2770)
    with token_service(keys, tmp_path) as (child, _):
        assert child.wait(30) == 1
    assert "can be read by others" in (tmp_path / "log").read_text()


def test_one_file_configures_token_service_and_users(as_configured):
    document = facility_document(load_facility())
    assert document["urls"] == ["grpcs://triton.example.org:443"]
    assert document["prometheus_url"] == PROMETHEUS
    assert configured(TokenIssuer).checked().contact in (FACILITY / "eaf_inference_config.py").read_text()
    policy = configured(TokenPolicy)
    assert set(policy.tiers.values()) <= configured(Envoy).tiers.keys()
    jwks, environment = urlsplit(policy.jwks_url), environment_of(container_of("triton-token"))
    (port,) = ALL["Service", "triton-token"]["spec"]["ports"]
    assert (jwks.hostname, jwks.port) == ("triton-token", port["port"])
    assert jwks.path == environment["JUPYTERHUB_SERVICE_PREFIX"] + ".well-known/jwks.json"
    assert urlsplit(environment["JUPYTERHUB_SERVICE_URL"]).port == ports_of("triton-token")["http"]


def made_by(command, target):
    """Run a command of a manifest or of the guide, and return the configuration that it writes."""
    program, *arguments = command
    arguments[arguments.index("--output") + 1] = str(target)
    assert program == "eaf-inference"
    done = subprocess.run(
        [sys.executable, "-m", "eaf_inference.cli", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(target.read_text())


def test_envoy_accepts_the_configuration_that_its_pod_makes(tmp_path, as_configured):
    spec = pod_of("triton-edge-proxy")["spec"]
    (maker,), envoy = spec["initContainers"], container_of("triton-edge-proxy")
    assert maker["command"][-1] in envoy["command"]  # one writes the file that the other reads
    made = made_by(maker["command"], tmp_path / "envoy.yaml")
    users, metrics = made["static_resources"]["listeners"]
    ports = ports_of("triton-edge-proxy")
    for listener, name in ((users, "grpc"), (metrics, "metrics")):
        assert listener["address"]["socket_address"] == {"address": "0.0.0.0", "port_value": ports[name]}  # noqa: S104
    settings = configured(Envoy)
    mounts = {each["name"]: PurePosixPath(each["mountPath"]) for each in envoy["volumeMounts"]}
    assert {PurePosixPath(each).parent for each in (settings.certificate, settings.key)} == {mounts["tls"]}
    assert settings.memory < 3 * 1024**3
    assert envoy["resources"]["limits"]["memory"] == "3Gi"
    certificates = make_certificates()
    (tmp_path / "tls.crt").write_text(certificates.certificate)
    (tmp_path / "tls.key").write_text(certificates.key)
    assert PurePosixPath(settings.tls_secret).parent == mounts["made"]
    for name in ("envoy.yaml", "tls-secret.yaml"):  # the init container makes both
        text = (tmp_path / name).read_text(encoding="utf-8")
        text = text.replace(str(mounts["tls"]), str(tmp_path)).replace(str(mounts["made"]), str(tmp_path))
        (tmp_path / name).write_text(text, encoding="utf-8")
    validate(yaml.safe_load((tmp_path / "envoy.yaml").read_text(encoding="utf-8")))


def rendered(directory):
    done = subprocess.run([KUBECTL, "kustomize", directory], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


@pytest.mark.skipif(KUBECTL is None, reason="the program kubectl is missing")
def test_changing_the_configuration_restarts_both_deployments(tmp_path):
    def used_by_pods():
        made = rendered(tmp_path / "facility")
        (name,) = (each["metadata"]["name"] for each in made if each["kind"] == "ConfigMap")
        pods = [each["spec"]["template"]["spec"] for each in made if each["kind"] == "Deployment"]
        assert len(pods) == 2
        for pod in pods:
            assert name in {each["configMap"]["name"] for each in pod["volumes"] if "configMap" in each}
        return name

    shutil.copytree(FACILITY, tmp_path / "facility")
    before = used_by_pods()
    with (tmp_path / "facility" / "eaf_inference_config.py").open("a") as file:
        file.write("c.Envoy.share = 10\n")
    assert used_by_pods() != before


@pytest.mark.skipif(KUBECTL is None, reason="the program kubectl is missing")
def test_supersonics_envoy_can_be_the_edge_proxy(tmp_path, as_configured):
    shutil.copytree(FILES, tmp_path / "kubernetes")
    as_configured(SUPERSONIC_ENVOY, FACILITY)
    other = tmp_path / "kubernetes" / "supersonic-envoy"
    command = ["eaf-inference", "envoy", "--validate", "--output", "envoy.yaml"]
    envoy = made_by(command, other / "envoy.yaml")
    ports = [each["address"]["socket_address"]["port_value"] for each in envoy["static_resources"]["listeners"]]
    text = (other / "envoy.yaml").read_text(encoding="utf-8")
    assert re.search(r"\$\{?[A-Za-z_]", text) is None  # the chart's start command passes it through envsubst
    made = rendered(other)
    for each in made:
        if not is_custom(each):
            check(each)
    external = yaml.safe_load((SUPERSONIC_ENVOY / "values.yaml").read_text())["envoy"]["external_config"]
    kinds = {(each["kind"], each["metadata"]["name"]): each for each in made}
    assert yaml.safe_load(kinds["ConfigMap", external["configmap_name"]]["data"][external["configmap_key"]]) == envoy
    assert ("Deployment", "triton-edge-proxy") not in kinds
    assert ("Service", "triton-edge-proxy") not in kinds
    policies = [each["spec"] for each in made if each["kind"] == "NetworkPolicy"]
    own, theirs = ENVOY, charted("supersonic", "supersonic-envoy")
    assert ports == [theirs.ports["grpc"], theirs.ports["admin"]]
    assert reaches(policies, theirs, TRITON, 8001)
    assert reaches(policies, theirs, TOKENS, 8010)
    assert reaches(policies, USER, theirs, 8001)
    assert not reaches(policies, own, TRITON, 8001)
    assert not reaches(policies, own, TOKENS, 8010)


@pytest.mark.skipif(KUBECTL is None, reason="the program kubectl is missing")
def test_the_token_service_gets_the_stores_settings_and_key():
    made = rendered(MODEL_STORE)
    for each in made:
        if not is_custom(each):
            check(each)
    kinds = {(each["kind"], each["metadata"]["name"]): each for each in made}
    (files,) = (each["data"] for (kind, _), each in kinds.items() if kind == "ConfigMap")
    assert set(files) == {"eaf_inference_config.py", "eaf_inference_config.json"}
    (container,) = kinds["Deployment", "triton-token"]["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "model-store-service"}}]
    assert container["env"] == container_of("triton-token")["env"]


def test_triton_reads_the_store_in_which_users_write(as_configured):
    as_configured(FACILITY, MODEL_STORE)
    facility = load_facility()
    assert facility.urls == ["grpcs://triton.example.org:443"]  # both files are read
    configured(ModelStore).checked(facility)
    (command,) = values("supersonic-store-values.yaml")["triton"]["args"]
    options = dict(re.findall(r"(--[a-z-]+)(?:=(\S+))?", command))  # the last --model-repository
    bucket = facility.model_store.removeprefix("s3://")
    assert options["--model-repository"] == f"s3://{facility.model_store_endpoint}:443/{bucket}"
    assert options["--model-control-mode"] == facility.model_control
    installation = make_installation(progress=print)
    known = subprocess.run([installation.server, "--help"], capture_output=True, text=True, check=False)
    assert [each for each in options if each not in known.stdout + known.stderr] == []


NAME, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"
CHARTED = json.loads(charts.RECORDED.read_text(encoding="utf-8"))


def charted(chart, name):
    found = CHARTED[chart]["pods"][name]
    return Pod(found["labels"], found["ports"])


# labels of this project's pods from its manifests, of the charts' pods as Helm renders them, of the others from the
# code that starts them
TOKENS = Pod(pod_of("triton-token")["metadata"]["labels"], ports_of("triton-token"))
ENVOY = Pod(pod_of("triton-edge-proxy")["metadata"]["labels"], ports_of("triton-edge-proxy"))
TRITON = charted("supersonic", "supersonic-triton")
USER = Pod({NAME: "jupyterhub", COMPONENT: "singleuser-server"})
THE_HUB, PROXY = charted("jupyterhub", "hub"), charted("jupyterhub", "proxy")
TRAEFIK = charted("dask-gateway", "traefik-dask-gateway")
SCHEDULER = Pod({NAME: "dask-gateway", COMPONENT: "dask-scheduler"})
WORKER = Pod({NAME: "dask-gateway", COMPONENT: "dask-worker"})
OF_USERS = {
    "podSelector": {"matchLabels": USER.labels},
    "policyTypes": ["Egress"],
    "egress": HUB["singleuser"]["networkPolicy"]["egress"],
}


@pytest.mark.parametrize(
    ("source", "target", "port", "expected"),
    [
        (USER, TOKENS, 8010, True),
        (USER, ENVOY, 8001, True),
        (USER, TRAEFIK, 8000, True),
        (THE_HUB, TOKENS, 8010, True),
        (PROXY, TOKENS, 8010, True),
        (SCHEDULER, TOKENS, 8010, True),
        (WORKER, ENVOY, 8001, True),
        (SCHEDULER, ENVOY, 8001, True),
        (TOKENS, THE_HUB, 8081, True),
        (ENVOY, TOKENS, 8010, True),
        (ENVOY, TRITON, 8001, True),
        (USER, TRITON, 8001, False),
        (WORKER, TRITON, 8001, False),
        (WORKER, TRITON, 8000, False),
        (ENVOY, TRITON, 8000, False),
        (USER, TRITON, 8002, False),
        (USER, ENVOY, 9902, False),
        (WORKER, ENVOY, 9901, False),
        (WORKER, TOKENS, 8010, False),
        (TRITON, TOKENS, 8010, False),
        (ENVOY, THE_HUB, 8081, False),
        (TOKENS, TRITON, 8001, False),
    ],
)
def test_pods_reach_what_they_need_and_only_envoy_reaches_triton(source, target, port, expected):
    policies = [each["spec"] for (kind, _), each in ALL.items() if kind == "NetworkPolicy"]
    assert reaches([*policies, OF_USERS], source, target, port) is expected


def test_prometheus_scrapes_existing_ports_with_this_projects_rules():
    monitored = {name: each["spec"] for (kind, name), each in ALL.items() if kind == "PodMonitor"}
    for name, pod in {"triton": TRITON, "triton-edge-proxy": ENVOY}.items():
        assert monitored[name]["selector"]["matchLabels"].items() <= pod.labels.items()
        (endpoint,) = monitored[name]["podMetricsEndpoints"]
        assert endpoint["port"] in pod.ports
    rules = yaml.safe_load(RULES.read_text())
    assert ALL["PrometheusRule", "eaf-inference"]["spec"] == rules
    recorded = {rule["record"] for group in rules["groups"] for rule in group["rules"]}
    (trigger,) = values("scaled-object.yaml")["spec"]["triggers"]
    assert trigger["metadata"]["query"] == SUPERSONIC["serverLoadMetric"]
    assert trigger["metadata"]["query"] in recorded
    assert trigger["metadata"]["threshold"] == str(SUPERSONIC["serverLoadThreshold"])
    assert trigger["metadata"]["serverAddress"] == PROMETHEUS


def test_the_hubs_values_run_and_configure_users_servers():
    # as in Zero to JupyterHub's own jupyterhub_config.py, before extraConfig
    c = Config()
    c.KubeSpawner.environment = dict(HUB["singleuser"]["extraEnv"])
    c.JupyterHub.services = [
        {"name": name, "api_token": "the chart's"} | each for name, each in HUB["hub"]["services"].items()
    ]
    c.JupyterHub.load_roles = []
    c.JupyterHub.update(HUB["hub"]["config"]["JupyterHub"])
    exec(HUB["hub"]["extraConfig"]["eaf-inference"], {"c": c})  # noqa: S102  (as the chart does)
    services = {each["name"]: each for each in c.JupyterHub.services}
    assert len(services) == len(c.JupyterHub.services) == 2
    assert services["dask-gateway"]["api_token"] == "the chart's"  # noqa: S105
    assert "command" not in services["triton-token"]
    environment = environment_of(container_of("triton-token"))
    prefix = environment["JUPYTERHUB_SERVICE_PREFIX"]
    (port,) = ALL["Service", "triton-token"]["spec"]["ports"]
    users_environment = c.KubeSpawner.environment
    assert services[environment["JUPYTERHUB_SERVICE_NAME"]]["url"] == f"http://triton-token:{port['port']}"
    assert users_environment["EAF_TOKEN_SERVICE"] == f"http://triton-token:{port['port']}{prefix}"
    assert (
        users_environment["DASK_GATEWAY__ADDRESS"] == services["dask-gateway"]["url"] + GATEWAY["gateway"]["prefix"]
    )
    assert users_environment["DASK_GATEWAY__PUBLIC_ADDRESS"].rstrip("/") == GATEWAY["gateway"]["prefix"]
    roles = {each["name"]: each for each in c.JupyterHub.load_roles}
    assert set(roles["eaf-inference"]["groups"]) <= c.JupyterHub.load_groups.keys()
    service = GATEWAY["gateway"]["auth"]["jupyterhub"]["jupyterhubServiceName"]
    assert f"access:services!service={service}" in roles["eaf-inference"]["scopes"]


def test_the_hubs_image_needs_no_dependency_of_this_package():
    code = """
import sys
from traitlets.config import Config
from eaf_facility.hub.jupyterhub import configure
configure(Config(), service_url="http://triton-token:8010", managed=False, spawner="KubeSpawner")
print(*sorted({each.partition(".")[0] for each in sys.modules} - set(sys.stdlib_module_names)))
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    ours = {each for each in done.stdout.split() if not each.startswith(("_", "sitecustomize"))}
    assert ours == {"eaf_facility", "traitlets"}


def test_the_gateways_commands_exist():
    c = Config()
    exec(GATEWAY["gateway"]["extraConfig"]["commands"], {"c": c})  # noqa: S102  (as the chart does)
    config = ClusterConfig(config=c)
    for command in (config.scheduler_cmd, config.worker_cmd):
        found = shutil.which(command[0], path=str(Path(sys.executable).parent))
        done = subprocess.run([found, *command[1:], "--version"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert config.idle_timeout == 3600
