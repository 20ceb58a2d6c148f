"""The parts of the token service that need no Hub: rate limits, the facility document, a Hub's configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from traitlets.config import Config

from eaf_facility.hub import rate
from eaf_facility.hub.facility_document import facility_document
from eaf_facility.hub.jupyterhub import configure
from eaf_facility.hub.rate import Rate
from eaf_facility.hub.settings import TokenIssuer
from eaf_inference.config import Facility
from eaf_inference.errors import ConfigurationError

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
OPENAPI = Path(rate.__file__).with_name("openapi.yaml")


def test_the_rate_limit_applies_to_each_user_separately():
    now = [0.0]
    bucket = Rate(per_minute=6, burst=3, clock=lambda: now[0])
    assert [bucket.take("alice") for _ in range(3)] == [0, 0, 0]
    assert bucket.take("alice") == pytest.approx(10)
    assert bucket.take("bob") == 0
    now[0] = 10.0
    assert bucket.take("alice") == 0
    assert bucket.take("alice") == pytest.approx(10)
    now[0] = 1000.0
    assert [bucket.take("alice") == 0 for _ in range(4)] == [True, True, True, False]


def test_the_number_of_remembered_users_is_bounded(monkeypatch):
    monkeypatch.setattr(rate, "_MOST_USERS", 10)
    bucket = Rate(per_minute=6, burst=1)
    for number in range(100):
        assert bucket.take(f"user{number}") == 0
    assert len(bucket) == 10
    assert bucket.take("user99") > 0


def test_the_document_has_authorities_as_text_and_no_local_files(tmp_path):
    (tmp_path / "ca.pem").write_text(PEM)
    facility = Facility(
        urls=["grpcs://triton:443"],
        ca=str(tmp_path / "ca.pem"),
        metrics_ca=PEM,
        client_certificate="/etc/pki/client.pem",
        token_file="/etc/token",  # noqa: S106
        prometheus_token_file="/etc/prometheus-token",  # noqa: S106
        allow_insecure_token=True,
        max_in_flight=4,
    )
    assert facility_document(facility) == {
        "urls": ["grpcs://triton:443"],
        "ca": PEM,
        "metrics_ca": PEM,
        "max_in_flight": 4,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prometheus_url": "https://me:secret@prometheus"}, "prometheus_url contains a user name or password"),
        ({"metrics_urls": ["http://me@triton:8002/metrics"]}, "metrics_urls contains a user name or password"),
        ({"ca": "/nowhere/ca.pem"}, "Facility.ca.* cannot be read"),
    ],
)
def test_settings_unfit_for_the_document_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message) as raised:
        facility_document(Facility(**settings))
    assert "secret" not in str(raised.value)


def test_openapi_lists_every_setting_of_the_document():
    schema = yaml.safe_load(OPENAPI.read_text())["components"]["schemas"]["FacilityDocument"]
    assert set(schema["properties"]["facility"]["properties"]) == set(Facility.class_trait_names(served=True))


@pytest.mark.parametrize(
    "settings", [{"publish_ahead": 100, "rotate_every": 100}, {"publish_ahead": 0}, {"burst": 0}]
)
def test_inconsistent_settings_are_refused(settings):
    with pytest.raises(ConfigurationError, match="TokenIssuer"):
        TokenIssuer(**settings).checked()


def test_configure_adds_services_roles_and_environment():
    c = Config()
    c.JupyterHub.base_url = "/jupyter/"
    configure(c, service_url="http://10.0.0.1:8010", groups=["cms"], gateway_url="http://gateway:8000")
    assert [each["name"] for each in c.JupyterHub.services] == ["triton-token", "dask-gateway"]
    assert c.JupyterHub.services[0]["command"][1:] == ["-m", "eaf_facility.hub"]
    scopes = ["access:services!service=triton-token", "access:services!service=dask-gateway"]
    by_name = {role["name"]: role for role in c.JupyterHub.load_roles}
    assert (by_name["eaf-inference"]["groups"], by_name["eaf-inference"]["scopes"]) == (["cms"], scopes)
    assert by_name["server"]["scopes"] == ["users:activity!user", "access:servers!server", *scopes]
    assert c.Spawner.environment == {
        "EAF_TOKEN_SERVICE": "http://10.0.0.1:8010/jupyter/services/triton-token/",
        "DASK_GATEWAY__ADDRESS": "http://gateway:8000",
        "DASK_GATEWAY__AUTH__TYPE": "jupyterhub",
        "DASK_GATEWAY__HTTP_CLIENT__PROXY": "False",
    }
    assert any("eaf_inference.server" in each for each in c.Spawner.args)


def test_configure_keeps_the_operators_own_settings():
    c = Config()
    c.JupyterHub.services = [{"name": "dask-gateway", "api_token": "operators"}]
    c.JupyterHub.load_roles.append({"name": "server", "scopes": ["inherit"]})
    c.KubeSpawner.environment = {"OURS": "1"}
    c.KubeSpawner.args.extend(["--ours"])
    options = {"managed": False, "reached_at": "https://hub/services/triton-token/", "spawner": "KubeSpawner"}
    configure(c, service_url="http://tokens:8010", gateway_url="http://gateway", **options)
    assert [each["name"] for each in c.JupyterHub.services] == ["dask-gateway", "triton-token"]
    assert c.JupyterHub.services[0]["api_token"] == "operators"  # noqa: S105
    assert "command" not in c.JupyterHub.services[1]
    (server,) = (role for role in c.JupyterHub.load_roles if role["name"] == "server")
    assert server["scopes"][0] == "inherit"
    assert c.KubeSpawner.environment["OURS"] == "1"
    assert c.KubeSpawner.environment["EAF_TOKEN_SERVICE"] == "https://hub/services/triton-token/"  # noqa: S105
    assert c.KubeSpawner.args[0] == "--ours"
