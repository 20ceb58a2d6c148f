"""Which pods can connect under the NetworkPolicies of some manifests, as Kubernetes documents them.

Of what policies can say it knows what this project's say: pods of one namespace by their labels, and ports.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Pod", "reaches"]


@dataclass(frozen=True)
class Pod:
    """Return a pod's labels, and its ports by name."""

    labels: Mapping[str, str]
    ports: Mapping[str, int] = field(default_factory=dict)


def reaches(policies: Iterable[Mapping[str, Any]], source: Pod, target: Pod, port: int) -> bool:
    """Return whether the policies of both sides allow a connection."""
    policies = list(policies)
    return _lets(policies, "Egress", source, target, target, port) and _lets(
        policies, "Ingress", target, source, target, port
    )


def _lets(policies: list[Mapping[str, Any]], way: str, one: Pod, other: Pod, target: Pod, port: int) -> bool:
    of_it = [each for each in policies if way in each["policyTypes"] and _selects(each["podSelector"], one)]
    peers = "from" if way == "Ingress" else "to"
    rules = [rule for policy in of_it for rule in policy.get(way.lower(), [])]
    return not of_it or any(_names(rule.get(peers), other) and _opens(rule, target, port) for rule in rules)


def _names(peers: list[Mapping[str, Any]] | None, pod: Pod) -> bool:
    return peers is None or any(
        "namespaceSelector" not in peer and _selects(peer.get("podSelector"), pod) for peer in peers
    )


def _opens(rule: Mapping[str, Any], target: Pod, port: int) -> bool:
    numbers = [target.ports.get(each["port"], each["port"]) for each in rule["ports"]]
    return port in numbers


def _selects(selector: Mapping[str, Any] | None, pod: Pod) -> bool:
    if selector is None:
        return False
    for each in selector.get("matchExpressions", []):
        assert each["operator"] == "In"
        if pod.labels.get(each["key"]) not in each["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= pod.labels.items()
