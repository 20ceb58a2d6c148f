"""Envoy's whole configuration, built from the facility's. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eaf_facility.envoy import listener
from eaf_facility.envoy.clusters import clusters
from eaf_facility.envoy.filters import typed
from eaf_facility.envoy.settings import check

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eaf_facility.envoy.settings import Envoy
    from eaf_facility.token_policy import TokenPolicy

__all__ = ["as_yaml", "configuration"]

_LOOPBACK = "127.0.0.1"
_HEAP = "envoy.resource_monitors.fixed_heap"
_FILLING, _NEARLY_FULL = 0.75, 0.95  # of the heap limit


def configuration(settings: Envoy, policy: TokenPolicy) -> dict[str, Any]:
    """Return the configuration that Envoy is started with, as plain values.

    Parameters
    ----------
    settings : Envoy
    policy : TokenPolicy
        The tokens that Envoy accepts.

    Raises
    ------
    ConfigurationError
        A required setting is missing, or two settings contradict each other.
    """
    upstreams = check(settings, policy.jwks_url)
    listeners = [listener.edge_proxy(settings, policy)]
    if settings.metrics_port:
        listeners.append(listener.metrics(settings))
    return {
        "node": {"id": "eaf-inference", "cluster": "eaf-inference"},
        "admin": {"address": {"socket_address": {"address": _LOOPBACK, "port_value": settings.admin_port}}},
        "overload_manager": _limits(settings),
        "static_resources": {"listeners": listeners, "clusters": clusters(settings, policy, upstreams)},
    }


def as_yaml(made: Mapping[str, Any]) -> str:
    """Return the configuration as YAML."""
    import yaml

    return str(yaml.safe_dump(dict(made), sort_keys=False, width=110, allow_unicode=True))


def _limits(settings: Envoy) -> dict[str, Any]:
    """Return the limits of connections and memory.

    Connections beyond the limit are closed at once. As the heap fills, the calls that hold most memory are reset and
    idle connections are closed sooner; when it is nearly full, no new call or connection is accepted.
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
    """Return the power of two from which Envoy tracks a call's memory; it tracks eight powers of two from there."""
    return max(10, settings.largest_body.bit_length() - 8)
