"""Envoy's configuration as built from the operator's settings, and the settings that are refused."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest
import yaml
from traitlets import TraitError

from eaf_facility.envoy.configuration import as_yaml, configuration
from eaf_facility.envoy.settings import Envoy
from eaf_facility.envoy.tls import tls_secret, with_fixed_certificate
from eaf_facility.token_policy import TokenPolicy
from eaf_inference._files import write_private
from eaf_inference.config import configured
from eaf_inference.errors import ConfigurationError
from eaf_inference.inference import protocol

MEBIBYTE = 1024 * 1024
JWKS = "http://hub:8081/services/triton-token/.well-known/jwks.json"
EXAMPLE = Path(__file__).parents[2] / "docs" / "envoy"
ENOUGH = {"upstreams": ["grpc://triton:8001"], "certificate": "/tls/tls.crt", "key": "/tls/tls.key"}


def made(jwks_url=JWKS, **settings):
    return configuration(Envoy(**ENOUGH | settings), TokenPolicy(jwks_url=jwks_url))


def filters_of(configured):
    (manager,) = configured["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    return {each["name"].rpartition(".")[2]: each["typed_config"] for each in manager["typed_config"]["http_filters"]}


def tls_context(configured):
    chain = configured["static_resources"]["listeners"][0]["filter_chains"][0]
    return chain["transport_socket"]["typed_config"]["common_tls_context"]


def test_the_committed_example_is_what_the_command_writes(monkeypatch):
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(EXAMPLE))
    monkeypatch.delenv("JUPYTER_CONFIG_PATH", raising=False)
    settings = configured(Envoy)
    made = as_yaml(configuration(settings, configured(TokenPolicy)))
    secret = as_yaml(tls_secret(settings.certificate, settings.key))
    renew = "JUPYTER_CONFIG_DIR=docs/envoy eaf-inference envoy --output docs/envoy/envoy.yaml"
    assert made == (EXAMPLE / "envoy.yaml").read_text(), f"renew it: {renew}"
    assert secret == (EXAMPLE / "tls-secret.yaml").read_text(encoding="utf-8"), f"renew it: {renew}"


def test_envoy_watches_the_certificates_directory():
    (secret,) = tls_secret("/tls/tls.crt", "/tls/tls.key")["resources"]
    assert secret["tls_certificate"]["watched_directory"] == {"path": "/tls"}
    (secret,) = tls_secret("/certificates/a.crt", "/private/a.key")["resources"]
    assert "watched_directory" not in secret["tls_certificate"]  # it watches the files themselves


def test_the_secret_is_named_alike_and_the_check_sees_the_files():
    settings = Envoy(**ENOUGH)
    (secret,) = tls_secret(settings.certificate, settings.key)["resources"]
    written = made()
    (source,) = tls_context(written).pop("tls_certificate_sds_secret_configs")
    assert source["name"] == secret["name"]
    assert source["sds_config"]["path_config_source"] == {"path": settings.tls_secret}
    fixed = with_fixed_certificate(made(), settings)
    (pair,) = tls_context(fixed).pop("tls_certificates")
    assert pair == {"certificate_chain": {"filename": "/tls/tls.crt"}, "private_key": {"filename": "/tls/tls.key"}}
    assert fixed == written


def test_the_token_is_verified_first_and_not_forwarded():
    filters = filters_of(made())
    assert list(filters) == [
        *("jwt_authn", "rbac", "local_ratelimit", "lua", "body_size_limit", "buffer", "owners"),
        *("grpc_field_extraction", "router"),
    ]
    provider = filters["jwt_authn"]["providers"]["facility"]
    assert (provider["issuer"], provider["audiences"]) == ("eaf-inference", ["triton"])
    assert (provider["forward"], provider["require_expiration"]) == (False, True)
    assert "async_fetch" in provider["remote_jwks"]


def test_the_admin_interface_is_always_on_loopback():
    admin = made(address="0.0.0.0", metrics_port=9902)["admin"]["address"]["socket_address"]  # noqa: S104
    assert admin == {"address": "127.0.0.1", "port_value": 9901}


def test_memory_limits_the_size_of_a_request():
    assert Envoy(memory=128 * MEBIBYTE).largest_body == 32 * MEBIBYTE
    assert Envoy(largest_request=MEBIBYTE).largest_body == MEBIBYTE
    overload = made(memory=128 * MEBIBYTE)["overload_manager"]
    # Envoy tracks eight powers of two from here: a request of 32 MiB, twice in memory, falls into the last
    assert overload["buffer_factory_config"] == {"minimum_account_to_track_power_of_two": 18}


def test_every_tier_has_a_cluster_of_the_same_tritons():
    clusters = made(tiers={"interactive": 8, "batch": 2, "students": 1})["static_resources"]["clusters"]
    most = {each["name"]: each["circuit_breakers"]["thresholds"][0]["max_requests"] for each in clusters[:3]}
    assert most == {"triton-interactive": 8, "triton-batch": 2, "triton-students": 1}
    assert len({json.dumps(each["load_assignment"]["endpoints"]) for each in clusters[:3]}) == 1


def test_the_token_services_certificate_is_verified():
    *_, jwks = made("https://hub.example.org/jwks.json")["static_resources"]["clusters"]
    tls = jwks["transport_socket"]["typed_config"]
    assert tls["sni"] == "hub.example.org"
    context = tls["common_tls_context"]["validation_context"]
    assert context["match_typed_subject_alt_names"][0]["matcher"] == {"exact": "hub.example.org"}
    assert context["trusted_ca"]["filename"]


def test_only_with_model_control_may_users_load_models():
    for settings in ({}, {"model_control": True}):
        users = json.dumps(filters_of(made(**settings))["rbac"]["rules"]["policies"]["users"])
        assert ("RepositoryModelLoad" in users, "RepositoryModelUnload" in users) == (bool(settings),) * 2


def test_names_in_the_settings_cannot_become_part_of_the_script():
    names = {"operators": ["a.b", '"] = true }', "é"], "shared_models": ["resnet.v2"]}
    filters = filters_of(made(private_models=True, **names))
    script = filters["owners"]["default_source_code"]["inline_string"]
    assert "$" not in script  # SuperSONIC passes it through envsubst
    assert script.splitlines()[:5] == [
        "local settings = {",
        "  private_models = true,",
        '  shared_models = {["resnet.v2"] = true},',
        '  operators = {["a_2eb"] = true, ["_22_5d_20_3d_20true_20_7d"] = true, ["_c3_a9"] = true},',
        "}",
    ]


def test_envoy_gets_the_description_of_tritons_messages():
    inline = filters_of(made())["grpc_field_extraction"]["descriptor_set"]["inline_bytes"]
    assert base64.b64decode(inline) == protocol.DESCRIPTOR_SET


def test_the_written_file_is_complete_and_private(tmp_path):
    file = tmp_path / "envoy.yaml"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, as_yaml(made()))
    assert yaml.safe_load(file.read_text()) == made()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"upstreams": []}, r"Envoy\.upstreams is empty\. Expected the Tritons' own"),
        ({"upstreams": ["grpcs://triton:443"]}, "Expected grpc://host:port"),
        ({"jwks_url": ""}, r"TokenPolicy\.jwks_url is empty, so no token"),
        ({"jwks_url": "hub/jwks"}, r"TokenPolicy\.jwks_url is not a usable URL"),
        ({"jwks_url": "https://user:password@hub/jwks"}, r"not a usable URL\. Expected http://host:port/path"),
        ({"key": ""}, "tokens would travel unencrypted"),
        ({"behind_tls": True}, "Set only one"),
        ({"tls_secret": "tls-secret.yaml"}, r"Envoy\.tls_secret is 'tls-secret.yaml'\. Expected the absolute path"),
        (
            {"upstreams": ["grpc://a:8001", "grpc://b:8001"], "model_control": True},
            "reaches only one of them",
        ),
        ({"operators": [""]}, "user name '' cannot own models"),
    ],
)
def test_inconsistent_settings_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message) as refused:
        made(**settings)
    assert "password" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probes": 0}, r"Envoy\.probes is 0\. Expected a number from 1 to"),
        ({"max_uploads": 0}, r"Envoy\.max_uploads is 0"),
        ({"share": 0}, r"Envoy\.share is 0\. Expected a number from 1 to"),
        ({"spill": 0.5}, r"Envoy\.spill is 0\.5"),
        ({"port": 70_000}, r"Envoy\.port is 70000"),
        ({"address": "triton.example.org"}, "Expected an IP address of this machine"),
        ({"tiers": {"batch": 4}}, "including 'interactive'"),
        ({"tiers": {"interactive": 4, "batch": 0}}, "at least 1"),
        ({"tiers": {"interactive": 4, "a b": 1}}, "at least 1"),
        ({"models": ["a'] or true or ['"]}, "Expected model names"),
        ({"shared_models": ['x"] = true']}, r"Envoy\.shared_models contains .* Expected model names"),
    ],
)
def test_an_invalid_setting_is_refused(settings, message):
    with pytest.raises(TraitError, match=message):
        Envoy(**settings)
