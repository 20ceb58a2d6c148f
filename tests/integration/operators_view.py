"""The operator's own view of a shared facility: its configuration file, and `eaf-inference doctor --operator`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager

from eaf_facility.inspection.checks import findings
from eaf_facility.inspection.setup import HUB_TOKEN, Setup

COMMAND = [sys.executable, "-m", "eaf_inference.cli", "doctor", "--operator"]


def sections_of(shared):
    """Return the sections that an operator would have written for this facility."""
    place = shared.envoy.place
    return {
        "Facility": {
            "urls": [shared.envoy.url],
            "ca": str(shared.envoy.ca),
            "metrics_urls": [triton.metrics for triton in shared.tritons],
            "prometheus_url": shared.prometheus.url if shared.prometheus else "",
            "gateway_url": shared.gateway.address,
            "model_store": shared.store.url,
            "model_store_endpoint": shared.store.endpoint,
        },
        "Envoy": {
            "upstreams": [triton.grpc for triton in shared.tritons],
            "port": place.port,
            "admin_port": place.admin_port,
            "certificate": place.certificate,
            "key": place.key,
            "tls_secret": place.tls_secret,
        },
        "TokenPolicy": {"jwks_url": shared.token_service.jwks_url},
        "ModelStore": shared.store.service_settings(),
        "TokenIssuer": {"key_directory": str(shared.token_service.keys)},
    }


@contextmanager
def configured_by(sections, directory, monkeypatch, hub_token=""):
    """Put the sections on Jupyter's configuration path, and a Hub token into the environment, for a block."""
    directory.mkdir(exist_ok=True)
    file = directory / "eaf_inference_config.json"
    file.write_text(json.dumps(sections), encoding="utf-8")
    with monkeypatch.context() as changed:
        changed.setenv("JUPYTER_CONFIG_DIR", str(directory))
        changed.setenv("JUPYTER_CONFIG_PATH", str(directory))
        changed.delenv("EAF_TOKEN_SERVICE", raising=False)
        if hub_token:
            changed.setenv(HUB_TOKEN, hub_token)
        yield


def found_now():
    """Return the findings by subject, and check that the doctor shows no secret of the environment."""
    found = findings(Setup.read())
    token = os.environ.get(HUB_TOKEN)
    assert not token or token not in repr(found)
    assert "eyJ" not in repr(found)  # how a JWT begins
    return {each.subject: each for each in found}


def printed(*arguments):
    """Run the command and return its exit code and output."""
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, encoding="utf-8", timeout=60, check=False, env=os.environ
    )
    assert done.stderr == ""
    return done.returncode, done.stdout
