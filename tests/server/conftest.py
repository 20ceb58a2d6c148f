"""A real Jupyter Server with the extension, in this process, below a base URL as under a Hub.

These fixtures replace the event loop of every test in the run, so this directory needs a separate run:
``pytest tests/server``.
"""

from __future__ import annotations

import json

import pytest
from browser import Browser
from traitlets.config import Config

pytest_plugins = ["pytest_jupyter.jupyter_server"]


@pytest.fixture(autouse=True)
def no_ambient_settings(monkeypatch, tmp_path):
    """Hide this machine's settings from discovery and credentials."""
    for name in (
        *("EAF_TRITON_URL", "TRITON_URL", "SONIC_LOCAL_BALANCER_HOST", "TRITON_SERVICE_HOST"),
        *("BEARER_TOKEN", "BEARER_TOKEN_FILE", "X509_USER_PROXY", "JUPYTER_CONFIG_PATH", "JUPYTERHUB_API_TOKEN"),
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def jp_base_url():
    return "/user/alice/"


@pytest.fixture
def jp_server_config():
    return Config(
        {
            "ServerApp": {
                "jpserver_extensions": {"eaf_inference.server": True, "jupyter_server_terminals": False},
                "allow_unauthenticated_access": False,
            }
        }
    )


@pytest.fixture
def configure(jp_environ, jp_config_dir):
    """Write the facility's configuration: settings, or the text of a Python file."""

    def write(text: str = "", **settings) -> None:
        for name, content in (("py", text), ("json", json.dumps({"Facility": settings}))):
            (jp_config_dir / f"eaf_inference_config.{name}").write_text(content)

    return write


@pytest.fixture
def browser(jp_fetch, jp_ws_fetch):
    return Browser(jp_fetch, jp_ws_fetch)
