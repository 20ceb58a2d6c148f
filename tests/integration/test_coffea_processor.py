"""A coffea processor that calls a model, with each executor: at a facility with tokens, and in the notebook."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import contextmanager

import awkward as ak
import cloudpickle
import numpy as np
import pytest
from coffea.nanoevents import NanoEventsFactory, PFNanoAODSchema
from coffea.processor import DaskExecutor, FuturesExecutor, IterativeExecutor, ProcessorABC, Runner
from distributed import Client, LocalCluster

import eaf_inference
from eaf_facility.local.demo import NOTEBOOKS, execute
from eaf_facility.local.single_user import up

CMS = {str(NOTEBOOKS / "cms_pfnano.root"): "Events"}
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # as if typed in a notebook: workers lack this file


class Schema(PFNanoAODSchema):
    warn_missing_crossrefs = False


class Sums(ProcessorABC):
    """Scores by event number; without a model it takes one of the connection of the process where it runs."""

    def __init__(self, model=None):
        self.model = model

    def process(self, events):
        model = self.model or eaf_inference.connect().model("sums")
        sums = model(events.Jet.constituents.pf[["pt", "eta"]], progress=False)
        return {int(number): each for number, each in zip(events.event, sums.to_list(), strict=True)}

    def postprocess(self, accumulated):
        return accumulated


@contextmanager
def executor_of(name, triton):
    if name == "iterative":
        yield IterativeExecutor(status=False, retries=0)
    elif name == "futures":
        yield FuturesExecutor(workers=2, status=False, retries=0)
    else:
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
            Client(cluster) as client,
        ):
            triton.configure(client)
            yield DaskExecutor(client=client, status=False, retries=0)


@pytest.fixture(autouse=True)
def no_other_facility(tmp_path, monkeypatch):
    """A facility that another test runs on this machine at the same time is not found."""
    directory = tmp_path / "runtime"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))


@pytest.mark.parametrize("executor", ["iterative", "futures", "dask"])
@pytest.mark.parametrize("connects", ["in this process", "where it runs"])
def test_each_executor_gives_the_scores_with_this_users_token(facility, executor, connects):
    with eaf_inference.connect() as triton:
        tagger = Sums(triton.model("sums") if connects == "in this process" else None)
        with executor_of(executor, triton) as running:
            run = Runner(running, schema=Schema, chunksize=4)
            sums = run({"CMS": {"files": CMS}}, processor_instance=tagger)
    events = NanoEventsFactory.from_root(CMS, schemaclass=Schema, mode="eager").events()
    assert sorted(sums) == sorted(events.event.to_list())
    candidates = events.Jet.constituents.pf
    for number, pt, eta in zip(
        events.event, ak.sum(candidates.pt, axis=2), ak.sum(candidates.eta, axis=2), strict=True
    ):
        np.testing.assert_allclose(sums[int(number)], np.stack([pt, eta], axis=1), rtol=1e-4, atol=1e-4)
    sent = cloudpickle.dumps(tagger)
    assert all(token.encode() not in sent for token in facility.edge_proxy.tokens)


@pytest.mark.extended
@pytest.mark.slow
def test_the_notebook_gives_equal_histograms_with_all_executors(tmp_path):
    for name in ("coffea_processor.ipynb", "cms_pfnano.root", "jets.parquet", "nano_files.py"):
        shutil.copy(NOTEBOOKS / name, tmp_path)
    with up(gateway=False) as facility:
        executed = execute(tmp_path / "coffea_processor.ipynb", tmp_path / "executed", facility.description)
    summary = executed.summary
    assert summary["jets"] > 3000
    assert summary["jets in another bin with another executor"] <= 2  # rounding, at the edge of a bin
    assert summary["jets in another bin with the wrapper"] <= 2
    rates = {name: rate for name, rate in summary.items() if name.startswith("jets/s, ")}
    assert len(rates) == 4
    assert all(rate > 0 for rate in rates.values())


def test_the_stored_notebook_has_been_executed():
    cells = json.loads((NOTEBOOKS / "coffea_processor.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(shown["output_type"] != "error" for cell in code for shown in cell["outputs"])
