"""Configure JupyterHub, in its ``jupyterhub_config.py``, so that users' notebooks find Triton by themselves.

```python
from eaf_facility.hub.jupyterhub import configure

configure(c, service_url="http://127.0.0.1:8010", groups=["triton-users"])
```

This module imports neither JupyterHub nor the client, so a Hub's image needs none of this package's dependencies.
"""

from __future__ import annotations

import secrets
import sys
from typing import TYPE_CHECKING, Any

from traitlets.config.loader import LazyConfigValue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["GATEWAY", "TOKEN_SERVICE", "configure"]

TOKEN_SERVICE = "triton-token"  # noqa: S105  (a service's name)
GATEWAY = "dask-gateway"
_ROLE = "eaf-inference"
_EXTENSION = '--ServerApp.jpserver_extensions={"eaf_inference.server": True}'


def configure(
    c: Any,
    *,
    service_url: str,
    groups: Sequence[str] = ("triton-users",),
    managed: bool = True,
    environment: Mapping[str, str] | None = None,
    reached_at: str | None = None,
    gateway_url: str | None = None,
    gateway_proxy_url: str | None = None,
    spawner: str = "Spawner",
) -> None:
    """Add the token service, the roles that give access to it, and the environment of users' servers.

    Existing settings are kept, and no secret of a user is added.

    Parameters
    ----------
    c : traitlets.config.Config
        The configuration object of ``jupyterhub_config.py``.
    service_url : str
        URL of the token service, ``http://host:port``, as the Hub's proxy reaches it.
    groups : sequence of str
        The Hub groups whose members may use inference and the Dask Gateway, if there is one.
    managed : bool
        Whether the Hub starts and restarts the token service.
    environment : mapping, optional
        Additional environment of a managed token service, such as the JUPYTER_CONFIG_PATH of
        ``eaf_inference_config.py``.
    reached_at : str, optional
        Base URL of the token service as users' servers reach it; by default directly at `service_url`.
    gateway_url, gateway_proxy_url : str, optional
        URL of a Dask Gateway that authenticates users with this Hub, and the address of its schedulers' proxy if
        that differs.
    spawner : str
        Section of the configuration with the spawner's environment: ``KubeSpawner`` for Zero to JupyterHub.
    """
    prefix = f"{_text(c.JupyterHub, 'base_url', '/').rstrip('/')}/services/{TOKEN_SERVICE}/"
    service: dict[str, Any] = {"name": TOKEN_SERVICE, "url": service_url, "display": False}
    if managed:
        service |= {"command": [sys.executable, "-m", "eaf_facility.hub"], "environment": dict(environment or {})}
    else:
        service["api_token"] = secrets.token_hex(32)  # unused, but without one anyone could impersonate the service
    services, used = [service], [TOKEN_SERVICE]
    defaults: dict[str, str] = {}  # which the operator's own settings override
    required = {"EAF_TOKEN_SERVICE": reached_at or f"{service_url.rstrip('/')}{prefix}"}
    if gateway_url is not None:
        services.append({"name": GATEWAY, "display": False})
        used.append(GATEWAY)
        required |= {"DASK_GATEWAY__ADDRESS": gateway_url, "DASK_GATEWAY__AUTH__TYPE": "jupyterhub"}
        defaults = {
            "DASK_GATEWAY__HTTP_CLIENT__PROXY": "False"
        }  # else the proxy of http_proxy would see users' Hub tokens
        if gateway_proxy_url is not None:
            required["DASK_GATEWAY__PROXY_ADDRESS"] = gateway_proxy_url
    named = {each["name"] for each in _list(c.JupyterHub, "services")}
    _list(c.JupyterHub, "services").extend(each for each in services if each["name"] not in named)
    _add_roles(_list(c.JupyterHub, "load_roles"), [f"access:services!service={name}" for name in used], groups)
    section = c[spawner]
    section.environment = {**defaults, **_dict(section, "environment"), **required}
    if _EXTENSION not in _list(section, "args"):
        _list(section, "args").append(_EXTENSION)


def _add_roles(roles: list[dict[str, Any]], scopes: Sequence[str], groups: Sequence[str]) -> None:
    """Give the scopes to the groups and to their servers' tokens: a token needs both."""
    roles.append(
        {
            "name": _ROLE,
            "description": "Inference on the facility's Triton, and Dask clusters for it",
            "scopes": list(scopes),
            "groups": list(groups),
        }
    )
    server = next((role for role in roles if role["name"] == "server"), None)
    if server is None:
        server = {"name": "server", "scopes": ["users:activity!user", "access:servers!server"]}
        roles.append(server)
    server["scopes"] = [*server["scopes"], *(each for each in scopes if each not in server["scopes"])]


def _list(section: Any, name: str) -> list[Any]:
    """Return a list setting, creating it if it is unset or only lazily extended."""
    value = section.get(name)
    if not isinstance(value, list):
        value = section[name] = value.get_value([]) if isinstance(value, LazyConfigValue) else []
    made: list[Any] = value
    return made


def _dict(section: Any, name: str) -> dict[str, Any]:
    value = section.get(name)
    if isinstance(value, LazyConfigValue):
        value = value.get_value({})
    return dict(value or {})


def _text(section: Any, name: str, default: str) -> str:
    value = section.get(name)
    return value if isinstance(value, str) else default
