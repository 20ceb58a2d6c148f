"""A poll at every step of what a user does with her model never loads half of it; here in a directory."""

from __future__ import annotations

import contextlib
import itertools
import os

import pytest
from polled_store import SERVED, Flows, Killed, deployed_versions, watch_files

from eaf_inference.deploy import places
from eaf_inference.deploy.store import Store


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start a flow in a new directory; returns it with its store."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a test's disk need not outlive the machine
    numbers = itertools.count()

    def started(name):
        root = tmp_path / f"store-{next(numbers)}"
        root.mkdir()
        flows = Flows(watch_files(monkeypatch, root), lambda: Store(str(root)), tmp_path)
        return flows, flows.prepare(name), root

    return started


@pytest.mark.parametrize("name", Flows.NAMES)
def test_only_complete_published_versions_are_loaded(start, name):
    flows, store, _ = start(name)
    flows.run(name, store)
    assert flows.served() == SERVED[name]


@pytest.mark.parametrize("error", [KeyboardInterrupt, Killed])
@pytest.mark.parametrize("name", ["withdraw_first", "withdraw_second", "rollback", "remove"])  # the others are a part
def test_an_interruption_at_any_step_leaves_nothing_half(start, name, error, monkeypatch):
    for step in itertools.count(1):
        flows, store, root = start(name)
        flows.watch.reset(step, error)
        with contextlib.suppress(KeyboardInterrupt, Killed):
            flows.run(name, store)
        if flows.watch.count < step:
            break
        flows.watch.reset()
        flows.watch.poll()
        served = flows.served()
        assert served == SERVED[name][: len(served)]
        again = Store(str(root))
        with monkeypatch.context() as a_day_later:
            a_day_later.setattr(places, "ABANDONED", -1.0)
            if name == "remove":
                again.remove(flows.MODEL)
                assert flows.served()[-1] is None
            with flows.watch.between_polls():
                version = flows.deploy(again)
        assert flows.served()[-1] == version == again.pinned_version(flows.MODEL)
        assert again.models(None) == [flows.MODEL]
        assert again.versions(flows.MODEL) == deployed_versions(again, flows.MODEL)
        assert [each.name for each in root.iterdir()] == [flows.MODEL]
    assert step > 3


@pytest.mark.parametrize("name", ["first", "second"])
def test_two_writers_get_two_versions_at_any_step(start, name):
    for step in itertools.count(1):
        flows, store, root = start(name)
        others = []
        flows.watch.reset(
            step,
            meanwhile=lambda flows=flows, root=root, others=others: others.append(flows.deploy(Store(str(root)))),
        )
        flows.run(name, store)
        if not others:
            break
        assert store.models("alice") == [flows.MODEL]
        assert deployed_versions(store, flows.MODEL) == store.versions(flows.MODEL)
        assert len(store.versions(flows.MODEL)) == (2 if name == "first" else 3)
        assert None not in flows.served()[1:]
    assert step > 3
