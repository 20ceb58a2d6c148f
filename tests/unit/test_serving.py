"""When a version counts as served, by what replicas list while they load it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from eaf_inference.deploy.published import placeholder
from eaf_inference.deploy.serving import wait_until_gone, wait_until_served
from eaf_inference.errors import DeploymentFailed

LOOKED_TOO_EARLY = "unable to find backend library for backend 'upload_in_progress'"


def row(state: str, reason: str = "", version: str = "1"):
    return SimpleNamespace(version=version, state=state, reason=reason)


def answers(*lists):
    """Give each list once, and the last for ever."""
    left = list(lists)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def test_a_look_before_the_configuration_was_there_is_no_failure():
    assert "upload_in_progress" in placeholder("alice.sums")
    early = [[row("UNAVAILABLE", LOOKED_TOO_EARLY)], [row("UNAVAILABLE", "unloaded")]]
    wait_until_served(answers(early, early, [[row("READY")], [row("READY")]]), "alice.sums", 1, 10)


@pytest.mark.parametrize("other", [[row("READY", version="2")], []])
def test_each_replica_has_to_serve_the_version(other):
    with pytest.raises(DeploymentFailed, match="within 0 s"):
        wait_until_served(answers([[row("READY")], other]), "alice.sums", 1, 0)


def test_tritons_own_reason_ends_the_wait():
    with pytest.raises(DeploymentFailed, match="version 1 of 'alice.sums': no such operator. Export"):
        wait_until_served(answers([[row("READY")], [row("UNAVAILABLE", "no such operator")]]), "alice.sums", 1, 60)


def test_a_model_is_gone_when_no_replica_serves_any_version():
    with pytest.raises(DeploymentFailed, match="still serves it.*tell the facility's operators"):
        wait_until_gone(answers([[], [row("READY", version="2")]]), "alice.sums", 0)
    wait_until_gone(answers([[row("READY")]], [[row("UNAVAILABLE", "unloaded")], []]), "alice.sums", 10)
