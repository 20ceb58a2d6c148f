"""Nothing that a cluster stores, shows, logs or passes on contains a token."""

from __future__ import annotations

import contextlib
import json
import logging
import pickle
import sys
import urllib.error
import urllib.request
from pathlib import Path

import cloudpickle
import dask
import distributed
import numpy as np
import psutil
import pytest
from dask_facility import ONES, THREES, all_hold, classify, meet_a_refusal, typed_in_a_notebook
from kernels import notebook
from token_service import HUB_TOKEN
from tokens import MARK, make_token

import eaf_inference
from eaf_inference._redact import SecretText
from eaf_inference.auth.token import Token
from eaf_inference.auth.token_service import TokenService
from eaf_inference.dask.worker_plugin import NAME, Plugin

PAGES = (
    *("status", "workers", "tasks", "system", "profile", "graph", "groups", "events", "exceptions", "metrics"),
    *("info/main/workers.html", "info/main/exceptions.html", "info/main/logs.html"),
    *("json/counts.json", "json/identity.json", "individual-plots.json", "individual-workers"),
)


@typed_in_a_notebook
def everything_about(dask_worker):
    """Return all that a worker shows."""
    state = sys.modules["_eaf_inference_held"].held
    shown = [dask_worker.plugins, vars(dask_worker.plugins["eaf_inference"]), state, vars(state), state.report(None)]
    return [repr(each) for each in shown], list(dask_worker.get_logs()), dask_worker.state._to_dict()


@typed_in_a_notebook
def everything_about_the_scheduler(dask_scheduler):
    plugins = dask_scheduler.plugins
    return repr(plugins), repr(vars(plugins["eaf_inference_keeper"])), dask_scheduler.identity(n_workers=-1)


@typed_in_a_notebook
def fail(inputs):
    import eaf_inference

    triton = eaf_inference.connect()
    raise ValueError(repr(vars(triton)) + repr(triton.credentials) + repr(vars(triton.credentials)))


def page(url: str) -> str:
    """Return a page, including an error page of Dask, which a plot without data may give."""
    try:
        with urllib.request.urlopen(url, timeout=20) as reply:  # noqa: S310  (the gateway's own)
            return reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()


def environments() -> list[str]:
    """Return the environments of all servers, schedulers and workers; the notebook's has its Hub token."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if any(part in command for part in ("dask", "tritonserver")):
                found.append(command + repr(process.environ()))
    return found


def test_nothing_that_a_cluster_stores_or_logs_contains_a_token(facility, gateway_server, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    facility.service.lives = 8
    texts = {}
    with eaf_inference.connect() as triton, facility.cluster(2) as cluster, cluster.get_client() as client:
        client.wait_for_workers(2, timeout=60)
        triton.configure(client, hub_token=HUB_TOKEN)
        model = triton.model("sums")
        client.run(meet_a_refusal)
        assert all_hold(client, "values['issued'] > first", first=triton.credentials.known.issued_at - 8)
        np.testing.assert_array_equal(client.gather(client.map(classify, [ONES] * 4, pure=False))[-1], THREES)
        failed = client.submit(fail, ONES)
        with pytest.raises(ValueError, match="Connection|Credentials|Server"):
            failed.result()
        texts["a task's error"] = f"{failed.exception()!r} {failed.traceback()!r}"

        client.dump_cluster_state(str(tmp_path / "state"), format="yaml")
        texts["cluster state"] = (tmp_path / "state.yaml").read_text()
        texts["workers"] = repr(client.run(everything_about))
        texts["scheduler"] = repr(client.run_on_scheduler(everything_about_the_scheduler))
        texts["logs"] = repr((client.get_worker_logs(), client.get_scheduler_logs()))
        texts["events"] = repr(client.get_events())
        texts["scheduler_info"] = repr(client.scheduler_info(n_workers=-1))
        texts["log files"] = "".join(
            each.read_text(errors="replace")
            for each in Path(gateway_server.cluster_logs).rglob("*")
            if each.is_file()
        )
        texts["the gateway's log"] = gateway_server.log.read_text()
        for name in PAGES:
            texts[f"dashboard, {name}"] = page(cluster.dashboard_link.removesuffix("status") + name)
        assert "Bokeh" in texts["dashboard, status"], "there are pages"
        with facility.gateway() as gateway:
            report = gateway.get_cluster(cluster.name)
            texts["gateway"] = repr((gateway.list_clusters(), gateway.cluster_options(), repr(report.options)))
        texts["environments"] = "".join(environments())
        graph = dask.delayed(model)(dask.delayed(classify)(ONES))
        texts["graph"] = repr((cloudpickle.dumps(graph), dict(graph.dask), pickle.dumps(model), pickle.dumps(triton)))
        clusters = triton.clusters()
        texts["shown"] = f"{clusters} {clusters._repr_html_()} {triton!r} {triton.linked_clusters!r}"
    texts["this process's log"] = caplog.text
    for where, text in texts.items():
        assert text, where
        assert MARK not in text, where
    assert NAME in texts["cluster state"]
    assert len(texts["environments"]) > 1000


def test_the_plugin_shows_no_token_even_if_it_cannot_be_loaded(caplog):
    values = {
        "urls": ["grpc://127.0.0.1:1"],
        "reason": "",
        "token": MARK,
        "issued": 1.0,
        "expires": None,
        "user": "a",
    }
    plugin = Plugin(values)
    for text in (repr(plugin), str(plugin), repr(vars(plugin)), f"{plugin.values}"):
        assert MARK not in text
    travelling = distributed.protocol.pickle.dumps(plugin)
    assert distributed.protocol.pickle.loads(travelling).values["token"].reveal() == MARK
    # distributed logs the first 10,000 bytes of an object that it cannot load
    assert MARK.encode() not in travelling[:10_000]


def test_a_cluster_that_logs_every_message_logs_no_token(zoo, workers_in_this_process, monkeypatch, caplog):
    token, hub_token = make_token(age=300), f"{MARK}-of-the-hub"
    service = TokenService("http://127.0.0.1:9", environment={"JUPYTERHUB_API_TOKEN": hub_token})
    monkeypatch.setattr(service, "read", lambda: Token(SecretText(token)))
    with (
        distributed.LocalCluster(
            n_workers=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None
        ) as cluster,
        cluster.get_client() as client,
        eaf_inference.connect(zoo.grpc, token=service) as triton,
    ):
        caplog.set_level(logging.DEBUG, logger="distributed")
        triton.configure(client, hub_token=hub_token)
        cluster.scale(2)  # the second gets the token when it registers
        client.wait_for_workers(2, timeout=30)
        held = sys.modules["_eaf_inference_held"].held
        assert held.values["token"].reveal() == token
    for operation in ("eaf_inference_push", "eaf_inference_pull", "plugin-add"):
        assert f"'op': '{operation}'" in caplog.text
    assert MARK not in caplog.text


CELLS = [
    "%xmode Verbose",
    "%triton_connect",
    "from dask_gateway import Gateway, BasicAuth; import json, os",
    "gateway = Gateway(os.environ['GATEWAY'], auth=BasicAuth('alice', open(os.environ['PASSWORD_FILE']).read()))",
    "cluster = gateway.new_cluster(); cluster.scale(1); client = cluster.get_client(); cluster",
    "import numpy as np; jets = {'x': np.ones((4, 2, 3), np.float32)}",
    "client.submit(triton.model('sums'), jets).result().sum()",
    "%triton_status",
    "triton.clusters()",
    "client.run(lambda dask_worker: dask_worker.plugins)",
    "triton.linked_clusters, [vars(each) for each in triton.linked_clusters]",
    "triton.configure(client, hub_token=os.environ['JUPYTERHUB_API_TOKEN'])",
    "triton.configure(type(client).__new__(type(client)), hub_token=os.environ['JUPYTERHUB_API_TOKEN'])",
    "client.submit(lambda jets: __import__('eaf_inference').connect().model('none')(jets), jets).result()",
    "%tb",
    "%triton_disconnect",
    "%triton_status",
    "cluster.shutdown()",
]


def test_a_notebook_with_a_cluster_contains_no_token(facility, gateway_server, tmp_path):
    environment = {"GATEWAY": facility.gateway_url, "PASSWORD_FILE": str(gateway_server.password_file)}
    with notebook(**environment) as book:
        shown = dict(zip(CELLS, map(book.run, CELLS), strict=True))
    assert shown["client.submit(triton.model('sums'), jets).result().sum()"].text == "np.float32(24.0)"
    status = shown["%triton_status"]
    assert status.error[:1] == ["ConfigurationError"]  # the last one, after %triton_disconnect
    clusters = shown["triton.clusters()"]
    assert "configured" in clusters.text
    assert "jets/s" in clusters.html
    assert shown["%triton_disconnect"].text.startswith("Disconnected from grpc://")
    for cell, outcome in shown.items():
        assert MARK not in repr(outcome), cell
    assert MARK not in book.everything
    assert json.dumps(facility.password) not in book.everything
