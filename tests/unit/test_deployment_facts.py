"""Owner, size and last use of models that users deployed, read from the network and shown in the table of models."""

from __future__ import annotations

import json
import time

import pytest

from eaf_inference._text import duration, file_size
from eaf_inference.deploy.config_text import parsed
from eaf_inference.deploy.configuration import pinned
from eaf_inference.deploy.owners import owner_as_seen_by
from eaf_inference.inference import protocol
from eaf_inference.inference.deployment_facts import DeploymentFacts, deployment_facts
from eaf_inference.inference.queue_times import QueueTimes
from eaf_inference.inference.repository import ModelRow, ModelTable

SAID = {
    "owner": "mallory",  # a claim, which nobody reads
    "bytes": 12_345_678,
    "time": "2026-11-29T02:00:00Z",
    "source": "torch 2.13.0",
    "sha256": "ab" * 32,
}
UNKNOWN = DeploymentFacts()


def facts_in(text):
    config = protocol.ModelConfig(name="m")
    config.parameters["deployment"].string_value = text
    return deployment_facts(config)


def test_the_parameter_gives_size_time_source_and_hash_only(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1.9e9)
    assert facts_in(json.dumps(SAID)) == DeploymentFacts(12_345_678, 1_795_917_600.0, "torch 2.13.0", "ab" * 32)
    assert deployment_facts(protocol.ModelConfig(name="m")) is None
    written = pinned('name: "alice.m"\nbackend: "onnxruntime"\n', 3, SAID)
    assert deployment_facts(parsed(written)).size == 12_345_678


@pytest.mark.parametrize(
    "text",
    [
        *("", "no JSON", "[]", "7", "null", "[" * 4000, "NaN", json.dumps({**SAID, "source": "x" * 5000})),
        json.dumps({"bytes": -1, "time": 7, "source": ["torch"], "sha256": "AB"}),
        json.dumps({"bytes": True, "time": "yesterday", "source": None, "sha256": 5}),
        json.dumps({"bytes": 1.5, "time": "2026-11-29T02:00:00", "sha256": "ab" * 31}),  # without its zone
        json.dumps({"bytes": 1 << 60, "time": "9999-12-31T23:59:59+00:00", "sha256": "zz" * 32}),
        json.dumps({"bytes": "12", "time": "0001-01-01T00:00:00+23:59"}),
    ],
)
def test_wrong_facts_are_unknown_and_no_error(text):
    assert facts_in(text) == UNKNOWN


def test_a_source_from_the_network_is_short_and_printable():
    source = facts_in(json.dumps({"source": "torch\x1b[2J\u202e" + "x" * 500})).source
    assert source.isprintable()
    assert len(source) == 100


def row(name, *, deployed=UNKNOWN, state="ready", **more):
    return ModelRow(name, "1", (), (), ready=state == "ready", state=state, queue_ms=None, deployed=deployed, **more)


def owners(names, user, **options):
    owner = owner_as_seen_by(user, **{"has_users": True, "is_local": False, **options})
    return {each.name: (each.owner, each.mine) for each in ModelTable(map(row, names)).owned(owner)}


def test_the_owner_comes_from_the_name_and_mine_are_first():
    found = owners(["bob.tagger", "particlenet", "alice.tagger"], "alice")
    assert list(found.items()) == [
        ("alice.tagger", ("alice", True)),
        ("bob.tagger", ("bob", False)),
        ("particlenet", ("", False)),
    ]
    assert owners(["a_2elice.x", "a.lice.x"], "a.lice") == {
        "a_2elice.x": ("a_2elice", True),
        "a.lice.x": ("a", False),
    }
    assert owners(["bob.tagger"], None) == {"bob.tagger": ("bob", False)}  # an opaque token
    assert owners(["bob.tagger"], "\udc80") == {"bob.tagger": ("bob", False)}


def test_the_facilitys_own_model_with_a_dot_has_no_owner():
    owner = owner_as_seen_by("alice", has_users=True, is_local=False)
    assert owner(row("v1.tagger", deployed=None)) == ("", False)
    assert owner(row("alice.broken", deployed=None)) == ("alice", True)  # it failed to load


def test_without_users_only_the_accounts_own_facility_is_mine():
    assert owners(["my.tagger"], None, has_users=False, is_local=True) == {"my.tagger": ("", True)}
    assert owners(["my.tagger"], None, has_users=False) == {"my.tagger": ("", False)}


def test_the_table_has_more_columns_only_if_a_model_was_deployed():
    plain = ModelTable([row("particlenet", deployed=None, last_used=0.0)])
    assert "owner" not in str(plain)
    assert "owner" not in plain.html()
    mine = row("alice.tagger", deployed=DeploymentFacts(12_345_678), owner="alice", mine=True)
    others = row("bob.tagger", owner="bob", last_used=0.0)
    unnamed = row("tagger", last_used=time.time() - 200)
    former = row("my_tagger", deployed=None, state="unloading")
    table = ModelTable([mine, others, unnamed, *plain, former])
    lines = [" ".join(line.split()) for line in table.text(width=None).splitlines()]
    assert lines[0] == "model version owner size last used inputs outputs state queue ms (last minute)"
    assert lines[1:] == [
        "alice.tagger 1 you 12.3 MB not reported ready not measured yet",
        "bob.tagger 1 bob not reported not since it was loaded ready not measured yet",
        "tagger 1 not named not reported 3 min ago ready not measured yet",
        "particlenet 1 the facility not reported not since it was loaded ready not measured yet",
        "my_tagger 1 not reported not reported not reported unloading not reported",
    ]
    assert max(map(len, str(table).splitlines())) <= 120
    for part in ("<th", ">owner<", ">you<", "12.3 MB", "3 min ago"):
        assert part in table.html()


def statistics(**last):
    made = protocol.ModelStatisticsResponse()
    for name, ms in last.items():
        made.model_stats.add(name=name, version="1", last_inference=ms)
    return made


def test_the_last_use_is_the_latest_of_all_replicas():
    times = QueueTimes()
    assert times.last_used("m", "1") is None
    times.add("a", statistics(m=0, idle=0, future=1 << 63))
    times.add("b", statistics(m=1_700_000_000_500))
    times.add("a", statistics(m=0, idle=0))  # restarted
    assert times.last_used("m", "1") == 1_700_000_000.5
    assert times.last_used("idle", "1") == 0.0
    assert times.last_used("future", "1") is None
    times.add("b", statistics())
    times.add("a", statistics(idle=0))  # unloaded everywhere
    assert times.last_used("m", "1") is None


def test_sizes_and_durations_have_a_unit_that_fits():
    shown = {0: "0 B", 999: "999 B", 1000: "1 kB", 12_345_678: "12.3 MB", 999_700: "1,000 kB", 5 * 10**12: "5 TB"}
    assert {size: file_size(size) for size in shown} == shown
    assert [duration(seconds) for seconds in (0, 119, 200, 7200, 3 * 86_400)] == [
        "0 s",
        "119 s",
        "3 min",
        "2 h",
        "3 days",
    ]
