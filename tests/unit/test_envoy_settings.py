"""What the operator's settings make of Envoy's configuration, and which of them are refused."""

from __future__ import annotations

import base64
import json
import stat

import pytest
import yaml
from traitlets import TraitError

from eaf_inference.envoy.configuration import as_yaml, configuration, write
from eaf_inference.envoy.settings import Envoy
from eaf_inference.errors import ConfigurationError
from eaf_inference.inference import protocol
from eaf_inference.policy import TokenPolicy

MEBIBYTE = 1024 * 1024
JWKS = "http://hub:8081/services/triton-token/.well-known/jwks.json"
ENOUGH = {"upstreams": ["grpc://triton:8001"], "certificate": "/tls/tls.crt", "key": "/tls/tls.key"}


def made(jwks_url=JWKS, **settings):
    return configuration(Envoy(**ENOUGH | settings), TokenPolicy(jwks_url=jwks_url))


def filters_of(configured):
    (manager,) = configured["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    return {each["name"].rpartition(".")[2]: each["typed_config"] for each in manager["typed_config"]["http_filters"]}


def test_the_token_is_verified_before_anything_else_and_goes_no_further():
    filters = filters_of(made())
    assert list(filters) == [
        *("jwt_authn", "rbac", "local_ratelimit", "lua", "body_size_limit", "buffer", "grpc_field_extraction"),
        "router",
    ]
    provider = filters["jwt_authn"]["providers"]["facility"]
    assert (provider["issuer"], provider["audiences"]) == ("eaf-inference", ["triton"])
    assert (provider["forward"], provider["require_expiration"]) == (False, True)
    assert "async_fetch" in provider["remote_jwks"]


def test_the_administration_is_on_loopback_whatever_is_set():
    admin = made(address="0.0.0.0", metrics_port=9902)["admin"]["address"]["socket_address"]  # noqa: S104
    assert admin == {"address": "127.0.0.1", "port_value": 9901}


def test_a_request_that_memory_has_no_room_for_is_too_large():
    assert Envoy(memory=128 * MEBIBYTE).largest_body == 32 * MEBIBYTE
    assert Envoy(largest_request=MEBIBYTE).largest_body == MEBIBYTE
    overload = made(memory=128 * MEBIBYTE)["overload_manager"]
    # eight powers of two from here: a request of 32 MiB, twice in memory, is of the last
    assert overload["buffer_factory_config"] == {"minimum_account_to_track_power_of_two": 18}


def test_every_tier_has_a_cluster_of_the_same_tritons():
    clusters = made(tiers={"interactive": 8, "batch": 2, "students": 1})["static_resources"]["clusters"]
    most = {each["name"]: each["circuit_breakers"]["thresholds"][0]["max_requests"] for each in clusters[:3]}
    assert most == {"triton-interactive": 8, "triton-batch": 2, "triton-students": 1}
    assert len({json.dumps(each["load_assignment"]["endpoints"]) for each in clusters[:3]}) == 1


def test_keys_are_fetched_from_whom_the_certificate_names():
    *_, jwks = made("https://hub.example.org/jwks.json")["static_resources"]["clusters"]
    tls = jwks["transport_socket"]["typed_config"]
    assert tls["sni"] == "hub.example.org"
    context = tls["common_tls_context"]["validation_context"]
    assert context["match_typed_subject_alt_names"][0]["matcher"] == {"exact": "hub.example.org"}
    assert context["trusted_ca"]["filename"]


def test_envoy_is_given_the_description_of_the_messages_that_it_reads():
    inline = filters_of(made())["grpc_field_extraction"]["descriptor_set"]["inline_bytes"]
    assert base64.b64decode(inline) == protocol.DESCRIPTOR_SET


def test_the_file_holds_the_same_and_is_this_users_alone(tmp_path):
    file = tmp_path / "envoy.yaml"
    file.write_text("old")
    file.chmod(0o644)
    write(file, as_yaml(made()))
    assert yaml.safe_load(file.read_text()) == made()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"upstreams": []}, r"Envoy\.upstreams is empty\. Expected the Tritons' own"),
        ({"upstreams": ["grpcs://triton:443"]}, "Expected grpc://host:port"),
        ({"jwks_url": ""}, r"TokenPolicy\.jwks_url is empty, so nobody"),
        ({"jwks_url": "hub/jwks"}, r"TokenPolicy\.jwks_url cannot be used"),
        ({"jwks_url": "https://user:password@hub/jwks"}, r"cannot be used\. Expected http://host:port/path or https"),
        ({"key": ""}, "tokens would travel unencrypted"),
        ({"behind_tls": True}, "Set one of them"),
    ],
)
def test_a_door_that_could_not_keep_its_promises_is_refused(settings, message):
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
        ({"tiers": {"batch": 4}}, "'interactive' among them"),
        ({"tiers": {"interactive": 4, "batch": 0}}, "at least 1"),
        ({"tiers": {"interactive": 4, "a b": 1}}, "at least 1"),
        ({"models": ["a'] or true or ['"]}, "Expected names of models"),
    ],
)
def test_a_setting_that_is_none_is_refused(settings, message):
    with pytest.raises(TraitError, match=message):
        Envoy(**settings)
