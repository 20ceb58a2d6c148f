"""Usage in a real Prometheus that scrapes a real Envoy in front of real Tritons."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np
import psutil
import pytest
from envoy_facility import Caller, counters, envoy
from recorded.replay import serve
from rows import chunks, inferences
from waiting import until

import eaf_inference
from eaf_facility.servers.prometheus import RULES, NotInstalled, PrometheusServer, prometheus_program
from eaf_inference.metrics.http import make_fetch
from eaf_inference.metrics.prometheus import Prometheus
from eaf_inference.metrics.usage import Usage, earlier_lives, usage_expression, usage_of

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="the program prometheus (Debian's package) is missing"
)
COMMAND = [sys.executable, "-m", "eaf_inference.cli", "usage"]
NAMES = ("o'b\"r\\i é {}", "a.b@example.org:8001/x", "%REQ(X)%", "frank")


@pytest.fixture(scope="module")
def watched(pair, issuer):
    """An Envoy, and a Prometheus that scrapes it and both Tritons."""
    with envoy(issuer, pair, share=10_000, models=["nap"]) as server:
        targets = {"triton": [each.metrics for each in pair], "envoy": [server.metrics]}
        with PrometheusServer.start(targets, interval=1) as prometheus:
            until(lambda: value_of(prometheus.url, "sum(up)") == 3)
            yield server, prometheus


def value_of(url, promql):
    """Return the value of the only series in the answer, or None."""
    with urlopen(f"{url}/api/v1/query?query={quote(promql)}", timeout=10) as page:  # noqa: S310 - loopback
        found = json.load(page)["data"]["result"]
    return float(found[0]["value"][1]) if found else None


def asked(prometheus, user=None, since=600.0, owner=None):
    async def ask():
        source = Prometheus(prometheus.url)
        return await usage_of(user, since=since, prometheus=source, fetch=make_fetch(), owner=owner)

    return asyncio.run(ask())


def until_all_is_seen(server, prometheus, user):
    """Wait until Prometheus has scraped all counts of this user."""
    wanted = sum(value for name, value in counters(server).items() if f'user="{user}"' in name)
    seen = f'sum({{__name__=~"envoy_eaf_.*", user="{user}"}})'
    until(lambda: value_of(prometheus.url, seen) == wanted)


@needs_prometheus
def test_usage_matches_the_sent_requests(watched, issuer, jagged):
    server, prometheus = watched
    with Caller(server) as caller:
        for rows in (1, 7, 40):
            caller.infer(issuer.token("dana"), rows=rows)
        caller.infer(issuer.token("dana"), "rest", rows=5)
        caller.infer(issuer.token("dana"), "nothing")
        caller.ask("ModelInfer", b"\n\x03nap", issuer.token("dana"))
        caller.ask("RepositoryIndex", b"", issuer.token("dana"))  # not an inference
    until_all_is_seen(server, prometheus, "dana")
    unnamed, nap, rest = asked(prometheus, "dana")
    assert (nap.model, nap.requests, nap.rows, nap.failures, nap.estimated) == ("nap", 3, 48, 1, False)
    assert (rest.model, rest.requests, rest.rows, rest.failures) == ("rest", 1, 5, 0)
    assert (unnamed.model, unnamed.requests, unnamed.failures) == ("", 0, 1)
    assert nap.bytes_in > 8 * 48
    assert nap.bytes_out > 8 * 48


@needs_prometheus
def test_usage_of_our_client_matches_tritons_counts(watched, pair, issuer, jagged):
    server, prometheus = watched
    before = sum(inferences(each) for each in pair)
    with eaf_inference.connect(server.url, token=issuer.token("erin"), ca=server.ca) as connection:
        for _ in connection.model("sums").map(chunks(jagged)):
            pass
    until_all_is_seen(server, prometheus, "erin")
    (row,) = asked(prometheus, "erin")
    assert (row.user, row.model, row.rows) == ("erin", "sums", sum(inferences(each) for each in pair) - before)
    assert row.rows >= len(jagged)  # and a few rows to test the model's padding


@needs_prometheus
def test_any_user_name_finds_that_users_usage_only(watched, issuer):
    server, prometheus = watched
    with Caller(server) as caller:
        for rows, name in enumerate(NAMES, start=2):
            caller.infer(issuer.token(name), rows=rows)
    until_all_is_seen(server, prometheus, NAMES[-1])
    for rows, name in enumerate(NAMES, start=2):
        assert [(row.user, row.rows) for row in asked(prometheus, name)] == [(name, rows)]
    assert asked(prometheus, 'x"} or vector(1) or {user="frank') == ()
    assert set(NAMES) <= {row.user for row in asked(prometheus)}


@needs_prometheus
def test_an_owner_sees_all_use_of_her_models_and_of_no_others():
    used = {
        ("alice", "nap"): 5,
        ("alice", "al-ice.t"): 3,
        ("bob", "al-ice.t"): 2,
        ("bob", "al-ice2.t"): 9,
        ("bob", "nap"): 1,
    }
    with serve() as site:
        counters = "".join(
            f'envoy_eaf_requests{{user="{user}",model="{model}"}} {count}\n' for (user, model), count in used.items()
        )
        site.pages["/metrics"] = f"envoy_server_uptime 1\n{counters}"
        targets = {job: [f"{site.url}/metrics"] for job in ("envoy", "again")}  # one of the jobs must not count
        with PrometheusServer.start(targets, interval=1) as prometheus:
            until(lambda: value_of(prometheus.url, "sum(envoy_eaf_requests)") == 2 * sum(used.values()))
            rows = asked(prometheus, "alice", owner="al-ice")
    found = {(row.user, row.model): row.requests for row in rows}
    assert found == {key: used[key] for key in [("alice", "nap"), ("alice", "al-ice.t"), ("bob", "al-ice.t")]}


@needs_prometheus
def test_a_restarted_envoy_loses_no_scraped_counts(pair, issuer):
    with envoy(issuer, pair) as server, PrometheusServer.start({"envoy": [server.metrics]}, interval=1) as prometheus:
        for life in (1, 2):
            with Caller(server) as caller:
                for _ in range(4 - life):
                    assert caller.infer(issuer.token("gina"), rows=10).status == "OK"
            until_all_is_seen(server, prometheus, "gina")
            if life == 1:
                server.kill()
                server.restart()
        (row,) = asked(prometheus, "gina")
    assert (row.requests, row.rows, row.estimated) == (5, 50, True)


@needs_prometheus
def test_the_command_prints_usage(watched, issuer, monkeypatch, tmp_path):
    server, prometheus = watched
    with Caller(server) as caller:
        caller.infer(issuer.token("hal"), rows=12)
    until_all_is_seen(server, prometheus, "hal")
    (row,) = json.loads(run("--since", "1h", "--user", "hal", "--json", "--prometheus", prometheus.url).stdout)
    assert row | {"bytes_in": 0, "bytes_out": 0} == Usage("hal", "nap", requests=1, rows=12).as_dict()
    owners = json.loads(run("--by", "owner", "--user", "hal", "--json", "--prometheus", prometheus.url).stdout)
    assert [(each["owner"], each["models"], each["users"], each["rows"]) for each in owners] == [("", 1, 1, 12)]
    directory = tmp_path / "configured"
    directory.mkdir()
    (directory / "eaf_inference_config.py").write_text(f"c.Facility.prometheus_url = {prometheus.url!r}")
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(directory))
    lines = run("--since", "30m").stdout.splitlines()
    assert lines[0].split() == ["user", "model", "requests", "inferences", "failures", "MB", "in", "MB", "out"]
    assert ["hal", "nap", "1", "12", "0", "<0.1", "<0.1"] in [line.split() for line in lines]
    assert run("--user", "nobody-of-that-name").stdout == "No usage in the last 1d.\n"


def test_the_command_reports_errors():
    assert "Expected one such as 30m, 12h, 1d or 2w" in run("--since", "yesterday", code=1).stderr
    assert "No Prometheus is configured" in run(code=1).stderr
    assert "cannot be read" in run("--prometheus", "http://127.0.0.1:1", code=1).stderr


def run(*arguments, code=0):
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@needs_prometheus
def test_the_recording_rules_are_valid_and_give_values(watched, pair, issuer):
    checked = subprocess.run(
        [shutil.which("promtool"), "check", "rules", RULES], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    server, prometheus = watched
    until(lambda: value_of(prometheus.url, "eaf:triton_instances:count") == 2)
    with eaf_inference.connect(server.url, token=issuer.token("ivy"), ca=server.ca) as connection:
        model = connection.model("nap")
        model({"x": np.zeros((200, 2), np.float32)})
        until_all_is_seen(server, prometheus, "ivy")  # a rate needs two values
        model({"x": np.zeros((200, 2), np.float32)})
    for rule in (
        "eaf:inferences:rate30s",
        'eaf:model_inferences:rate30s{model="nap"}',
        'eaf:batch:rate30s{model="nap"}',
    ):
        until(lambda rule=rule: (value_of(prometheus.url, rule) or 0) > 0)
    assert value_of(prometheus.url, "eaf:queue_milliseconds:delta30s") >= 0
    assert value_of(prometheus.url, "eaf:queue_milliseconds_per_execution:rate30s") >= 0
    until(lambda: (value_of(prometheus.url, 'eaf:user_inferences:rate1m{user="ivy"}') or 0) > 0)


def evaluated(tmp_path, series, expr, *expected, at="30s"):
    """Evaluate an expression on series of `promtool test rules`, and compare the samples."""
    samples = [{"labels": labels, "value": value} for labels, value in expected]
    question = {"expr": expr, "eval_time": at, "exp_samples": samples}
    listed = [{"series": name, "values": values} for name, values in series.items()]
    tests = [{"interval": "5s", "input_series": listed, "promql_expr_test": [question]}]
    file = tmp_path / "tests.yml"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "5s", "tests": tests}))
    command = [shutil.which("promtool"), "test", "rules", file]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_prometheus
def test_a_second_scrape_job_begins_with_all_that_the_first_knows(tmp_path):
    requests, uptime = 'envoy_eaf_requests{user="ann",model="m",', "envoy_server_uptime{"
    job, again = 'job="envoy",instance="e"}', 'job="again",instance="e"}'
    series = {
        f"{requests}{job}": "1000+1x40",
        f"{uptime}{job}": "9000+5x40",
        f"{requests}{again}": "_x19 1020+1x20",
        f"{uptime}{again}": "_x19 9100+5x20",
    }
    row = '{{eaf_field="{}", user="ann", model="m"}}'
    expected = (row.format("requests"), 1040), (row.format("requests_before"), 1016)
    evaluated(tmp_path, series, usage_expression("ann", since=120), *expected, at="200s")


@needs_prometheus
def test_an_envoy_that_was_away_for_long_loses_no_scraped_counts(tmp_path):
    away = "100x99 101+1x49 _x200 2+2x9"  # 150 when it ended, and 1,000 s later 20
    question = earlier_lives("ann", since=1500)
    series = {'envoy_eaf_requests{user="ann",model="m",job="envoy",instance="e"}': away}
    found = '{eaf_field="requests", user="ann", model="m"}', 150
    evaluated(tmp_path, series, question, found, at="1795s")


@needs_prometheus
def test_a_restarted_triton_gives_no_infinite_queue_time(tmp_path):
    counted = {"nv_inference_queue_duration_us": 4_000_000, "nv_inference_request_success": 1}
    series = {f'{name}{{model="m",instance="a"}}': f"{value}x4 0x4" for name, value in counted.items()}
    rule = "eaf:queue_milliseconds:delta30s"
    evaluated(tmp_path, series, rule, (rule, 0))


@needs_prometheus
def test_prometheus_listens_on_loopback_with_private_files(pair):
    with PrometheusServer.start({"triton": [pair[0].metrics]}) as prometheus:
        process = psutil.Process(prometheus.pid)
        (listening,) = [each for each in process.net_connections("inet") if each.status == "LISTEN"]
        assert listening.laddr.ip == "127.0.0.1"
        (named,) = [each for each in process.cmdline() if each.startswith("--config.file=")]
        configuration = Path(named.partition("=")[2])
        assert configuration.parent.stat().st_mode & 0o777 == 0o700
        assert configuration.stat().st_mode & 0o777 == 0o600
    assert not configuration.parent.exists()


def test_a_missing_prometheus_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInstalled, match="apt-get install prometheus"):
        prometheus_program()
