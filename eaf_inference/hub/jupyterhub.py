"""What an operator's ``jupyterhub_config.py`` says so that every user's notebook finds Triton by itself.

```python
from eaf_inference.hub.jupyterhub import configure

configure(c, service_url="http://127.0.0.1:8010", groups=["triton-users"])
```

Imports nothing of JupyterHub or of this package's clients: a Hub's image needs no more than this file.
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
    """Add the token service, who may use it, and what users' servers are told.

    What the configuration says already stays; no secret is added to it.

    Parameters
    ----------
    c : traitlets.config.Config
        That of ``jupyterhub_config.py``.
    service_url : str
        Where the token service listens, ``http://host:port``, as the Hub's proxy reaches it.
    groups : sequence of str
        The Hub groups whose members may use inference and, where there is one, the Dask Gateway.
    managed : bool
        The Hub starts the token service and starts it again; otherwise somebody else does.
    environment : mapping, optional
        More environment of a managed one, such as the JUPYTER_CONFIG_PATH where ``eaf_inference_config.py`` is.
    reached_at : str, optional
        The token service's base URL for users' servers; by default straight at `service_url`.
    gateway_url, gateway_proxy_url : str, optional
        A Dask Gateway that identifies users by this Hub, and its schedulers' address where that is another.
    spawner : str
        The section of the configuration that holds the spawner's settings: ``KubeSpawner`` with Zero to JupyterHub,
        which sets its environment there.
    """
    prefix = f"{_text(c.JupyterHub, 'base_url', '/').rstrip('/')}/services/{TOKEN_SERVICE}/"
    service: dict[str, Any] = {"name": TOKEN_SERVICE, "url": service_url, "display": False}
    if managed:
        service |= {"command": [sys.executable, "-m", "eaf_inference.hub"], "environment": dict(environment or {})}
    else:
        service["api_token"] = secrets.token_hex(32)  # it needs none; without one, anybody could pose as it
    services, used = [service], [TOKEN_SERVICE]
    asked: dict[str, str] = {}  # which an operator may have said otherwise
    told = {"EAF_TOKEN_SERVICE": reached_at or f"{service_url.rstrip('/')}{prefix}"}
    if gateway_url is not None:
        services.append({"name": GATEWAY, "display": False})
        used.append(GATEWAY)
        told |= {"DASK_GATEWAY__ADDRESS": gateway_url, "DASK_GATEWAY__AUTH__TYPE": "jupyterhub"}
        asked = {"DASK_GATEWAY__HTTP_CLIENT__PROXY": "False"}  # else that of http_proxy would see users' Hub tokens
        if gateway_proxy_url is not None:
            told["DASK_GATEWAY__PROXY_ADDRESS"] = gateway_proxy_url
    named = {each["name"] for each in _list(c.JupyterHub, "services")}
    _list(c.JupyterHub, "services").extend(each for each in services if each["name"] not in named)
    _add_roles(_list(c.JupyterHub, "load_roles"), [f"access:services!service={name}" for name in used], groups)
    section = c[spawner]
    section.environment = {**asked, **_dict(section, "environment"), **told}
    if _EXTENSION not in _list(section, "args"):
        _list(section, "args").append(_EXTENSION)


def _add_roles(roles: list[dict[str, Any]], scopes: Sequence[str], groups: Sequence[str]) -> None:
    """Let members use the services, and their servers' tokens say so: a token has no more than both give."""
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
    """A setting that is a list, made one where nothing, or only something to add, has been said."""
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
