"""The output of the operator's commands on terminals of any width."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from eaf_facility.local import report
from eaf_inference.doctor import Finding, State, as_text
from eaf_inference.metrics.usage import Usage
from eaf_inference.metrics.usage_by_owner import by_owner

LOG = "/home/alice/.local/state/eaf-inference/logs/" + "very-long-" * 8 + "name-20261128.log"
STORE = SimpleNamespace(servers=())


def printed(show, what, width):
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=True)
    show(what, console)
    return console.file.getvalue()


def shared_facility():
    names = ("triton-0", "envoy", "jupyterhub-proxy")
    servers = [SimpleNamespace(name=name, pid=4000 + number, log=LOG) for number, name in enumerate(names)]
    return SimpleNamespace(
        servers=servers,
        addresses={"envoy": "grpcs://localhost:" + "4" * 60},
        tritons=[SimpleNamespace(left_out=dict)],
        envoy=SimpleNamespace(access_log=LOG, ca=LOG),
        gateway=SimpleNamespace(cluster_logs=LOG),
        store=STORE,
        users=("alice", "bob"),
        hub=SimpleNamespace(url="http://127.0.0.1:8000", password_file=LOG),
    )


@pytest.mark.parametrize("width", [40, 60, 120])
def test_up_for_users_truncates_no_path_and_no_address(width):
    shown = printed(report.show_shared, shared_facility(), width)
    assert shown.count(LOG) == 7  # each unfolded, so that it can be copied
    assert shown.count("4") >= 60
    assert "…" not in shown


@pytest.mark.parametrize("width", [60, 80])
def test_up_truncates_nothing_either(width):
    server = SimpleNamespace(
        name="triton-0",
        grpc="grpc://127.0.0.1:49365",
        http="http://127.0.0.1:49366",
        metrics="http://127.0.0.1:49367/metrics",
        pid=12345,
        log=LOG,
        models=lambda: {"m" * 100: "READY"},
        left_out=lambda: {"broken": "unable to find backend library " + "b" * 90},
    )
    shown = printed(report.show, SimpleNamespace(servers=[server], gateway=None, slurm=None, store=STORE), width)
    assert "…" not in shown
    for character, times in (("m", 100), ("b", 90)):
        assert shown.count(character) >= times
    for whole in (LOG, "12345", server.grpc, server.http, server.metrics):
        assert whole in shown


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_usage_folds_no_number(width):
    rows = [
        Usage("alice", "particlenet", requests=1_234_567, rows=123_456_789, bytes_in=10**12, bytes_out=10),
        Usage("a-long-user-name@fnal.gov", "jet_regression_with_a_long_name", requests=1, estimated=True),
    ]
    shown = printed(report.show_usage, rows, width)
    for number in ("1,234,567", "123,456,789", "1,000,000.0", "<0.1"):
        assert number in shown
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    owned = [Usage(user, "alice.tagger", requests=1_234_567, rows=9) for user in ("alice", "bob")]
    by_owners = printed(report.show_usage, by_owner([*owned, Usage("bob", "particlenet", requests=3)]), width)
    assert "2,469,134" in by_owners
    assert "the facility" in " ".join(by_owners.split())
    assert max(map(len, by_owners.splitlines())) <= width
    if width == 200:
        lines = [" ".join(line.split()) for line in by_owners.splitlines()]
        assert lines[0] == "owner models users requests inferences failures MB in MB out"
        assert lines[2] == "alice 1 2 2,469,134 18 0 0 0"


def test_the_doctors_findings_fit_a_terminal():
    found = [
        Finding("Triton", State.FINE, f"installed in {LOG}"),
        Finding(
            "extra 'hub'", State.NOTE, "lacks jupyterhub", "/usr/bin/python3 -m pip install 'eaf-inference[hub]'"
        ),
    ]
    shown = as_text(found, width=60)
    assert max(map(len, shown.splitlines())) <= 60
    assert "".join(shown.split()).count("".join(LOG.split())) == 1
    wide = as_text(found, width=None).splitlines()
    assert wide[-1].endswith("→ /usr/bin/python3 -m pip install 'eaf-inference[hub]'")


def test_the_demos_summary_is_a_table_and_shows_zero_as_0(tmp_path):
    summary = {"server": "grpc://127.0.0.1:4", "jets/s": 1674, "AUC": 0.939, "difference": 3.2e-7, "none": 0.0}
    made = SimpleNamespace(summary=summary, notebook=LOG, html=LOG)
    lines = printed(report.show_demo, made, 60).splitlines()
    rows = dict(line.split(maxsplit=1) for line in lines if line and "://" not in line and LOG not in line)
    assert {name: value.strip() for name, value in rows.items()} == {
        "measured": "in this run",
        "jets/s": "1,674",
        "AUC": "0.939",
        "difference": "3.2e-07",
        "none": "0",
    }
    assert sum(LOG in line for line in lines) == 2
