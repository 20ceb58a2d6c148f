"""Envoy's whole configuration, made of the facility's: pure, but for the one function that writes it down."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any

from eaf_inference.envoy import listener
from eaf_inference.envoy.clusters import clusters
from eaf_inference.envoy.filters import typed
from eaf_inference.envoy.settings import check

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from eaf_inference.envoy.settings import Envoy
    from eaf_inference.policy import TokenPolicy

__all__ = ["as_yaml", "configuration", "write"]

_LOOPBACK = "127.0.0.1"
_HEAP = "envoy.resource_monitors.fixed_heap"
_FILLING, _NEARLY_FULL = 0.75, 0.95  # of the memory


def configuration(settings: Envoy, policy: TokenPolicy) -> dict[str, Any]:
    """What Envoy is started with, as plain values.

    Parameters
    ----------
    settings : Envoy
    policy : TokenPolicy
        Whose tokens are let in.

    Raises
    ------
    ConfigurationError
        A setting that is needed is missing, or two of them contradict one another.
    """
    upstreams = check(settings, policy.jwks_url)
    listeners = [listener.door(settings, policy)]
    if settings.metrics_port:
        listeners.append(listener.metrics(settings))
    return {
        "node": {"id": "eaf-inference", "cluster": "eaf-inference"},
        "admin": {"address": {"socket_address": {"address": _LOOPBACK, "port_value": settings.admin_port}}},
        "overload_manager": _limits(settings),
        "static_resources": {"listeners": listeners, "clusters": clusters(settings, policy, upstreams)},
    }


def as_yaml(made: Mapping[str, Any]) -> str:
    """The configuration as the text of a file."""
    import yaml

    return str(yaml.safe_dump(dict(made), sort_keys=False, width=110, allow_unicode=True))


def write(path: Path, text: str) -> None:
    """Replace a file by one that only this user can read; a reader sees the old or the new one, and no part."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _limits(settings: Envoy) -> dict[str, Any]:
    """Connections beyond the limit are closed at once.

    As memory is used up, the calls that hold most of it are ended first, and idle connections closed sooner; then no
    call and no connection begins.
    """
    resources = {
        _HEAP: typed(
            "extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig", max_heap_size_bytes=settings.memory
        ),
        "envoy.resource_monitors.global_downstream_max_connections": typed(
            "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            max_active_downstream_connections=settings.max_connections,
        ),
    }
    nearly_full = [{"name": _HEAP, "threshold": {"value": _NEARLY_FULL}}]
    filling = [{"name": _HEAP, "scaled": {"scaling_threshold": _FILLING, "saturation_threshold": _NEARLY_FULL}}]
    idle = {"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": "2s"}
    actions: dict[str, dict[str, Any]] = {
        "reset_high_memory_stream": {"triggers": filling},
        "reduce_timeouts": {
            "triggers": filling,
            "typed_config": typed("config.overload.v3.ScaleTimersOverloadActionConfig", timer_scale_factors=[idle]),
        },
        "stop_accepting_requests": {"triggers": nearly_full},
    }
    return {
        "refresh_interval": "0.05s",
        "resource_monitors": [{"name": name, "typed_config": each} for name, each in resources.items()],
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": _smallest_tracked(settings)},
        "actions": [{"name": f"envoy.overload_actions.{name}", **each} for name, each in actions.items()],
        "loadshed_points": [{"name": "envoy.load_shed_points.tcp_listener_accept", "triggers": nearly_full}],
    }


def _smallest_tracked(settings: Envoy) -> int:
    """The power of two of the smallest calls that may be ended: Envoy counts from there on in eight powers of two."""
    return max(10, settings.largest_body.bit_length() - 8)
