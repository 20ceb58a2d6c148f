"""`eaf-inference envoy`, as an operator runs it."""

from __future__ import annotations

import stat
import subprocess
import sys
from dataclasses import asdict

import pytest
import yaml

COMMAND = [sys.executable, "-m", "eaf_inference.cli", "envoy"]


@pytest.fixture
def configure(tmp_path, monkeypatch):
    """Write the operator's file."""

    def write(*lines):
        directory = tmp_path / "jupyter"
        directory.mkdir(exist_ok=True)
        (directory / "eaf_inference_config.py").write_text("\n".join(lines))
        monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(directory))

    return write


def run(*arguments, code=0):
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def behind_an_ingress():
    return (
        'c.Envoy.upstreams = ["grpc://supersonic-triton:8001"]',
        "c.Envoy.behind_tls = True",
        "c.Envoy.admin_port = 9900",
        'c.Envoy.metrics_address, c.Envoy.metrics_port = "0.0.0.0", 9901',
        'c.TokenPolicy.jwks_url = "http://hub:8081/services/triton-token/.well-known/jwks.json"',
        'c.TokenPolicy.issuer = "https://hub.example.org"',
    )


def test_it_prints_a_configuration_for_envoy_and_supersonic(configure):
    configure(*behind_an_ingress())
    printed = run("--validate").stdout
    assert "$" not in printed  # SuperSONIC passes it through envsubst
    made = yaml.safe_load(printed)
    assert {"admin", "static_resources", "overload_manager"} <= set(made)
    assert "issuer: https://hub.example.org" in printed
    assert "transport_socket:" not in printed  # the ingress terminates TLS


def test_it_writes_a_private_file(configure, tmp_path):
    configure(*behind_an_ingress())
    file = tmp_path / "envoy.yaml"
    assert run("--output", file).stdout == ""
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert yaml.safe_load(file.read_text())["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"


def test_it_writes_the_certificates_file_beside_the_configuration(configure, tmp_path):
    file, secret = tmp_path / "envoy.yaml", tmp_path / "tls-secret.yaml"
    pair = ('c.Envoy.behind_tls, c.Envoy.certificate, c.Envoy.key = False, "/tls/tls.crt", "/tls/tls.key"',)
    configure(*behind_an_ingress(), *pair, f"c.Envoy.tls_secret = {str(secret)!r}")
    done = run("--output", file)
    assert (done.stdout, done.stderr) == ("", "")
    assert str(secret) in file.read_text(encoding="utf-8")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert run("--tls-secret").stdout == secret.read_text(encoding="utf-8")
    configure(*behind_an_ingress(), *pair)
    assert f"Envoy will look for {secret} at /etc/envoy/tls-secret.yaml" in run("--output", file).stderr


def test_it_reports_missing_and_wrong_settings(configure, shared_envoy):
    assert "Envoy.upstreams is empty" in run(code=1).stderr
    configure(*behind_an_ingress(), "c.Envoy.share = 0")
    assert "Envoy.share is 0. Expected a number from 1" in run(code=1).stderr
    place = asdict(shared_envoy.place) | {"certificate": "/nowhere/tls.crt"}
    lines = [f"c.Envoy.{name} = {value!r}" for name, value in place.items()]
    configure(*behind_an_ingress(), *lines, "c.Envoy.behind_tls = False")
    refused = run("--validate", code=1)
    assert "Envoy refuses its configuration" in refused.stderr
    assert "/nowhere/tls.crt" in refused.stderr
    assert refused.stdout == ""
