"""From 1 to many clients: saturation, and what our metrics say about it beside nvidia-smi."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.bench import described
from benchmarks.gpu.load import Setting
from benchmarks.gpu.models import FULL, LITE, LITE_TWO, LITE_WIDE, SERVED
from benchmarks.gpu.watch import scrape
from eaf_inference.metrics.capacity import Capacity
from eaf_inference.metrics.exposition import parse
from eaf_inference.metrics.sampler import Sampler, run_in_thread
from eaf_inference.metrics.triton import TritonMetrics
from eaf_inference.metrics.verdict import judge

if TYPE_CHECKING:
    from benchmarks.gpu.bench import Bench
    from eaf_inference.metrics.snapshot import Snapshot

__all__ = ["idle", "saturation"]

_KEPT = ("idle", "full-busy", "two-instances-busy")  # moments whose text is saved


def beside(bench: Bench, moment: str) -> dict[str, Any]:
    """Scrape /metrics, parse it, and take nvidia-smi's reading of the same moment."""
    text, smi = scrape(bench.server.metrics), bench.gpu.newest()
    if moment in _KEPT:
        (bench.results.directory / f"metrics-{moment}.txt").write_text(text, encoding="utf-8")
    found = parse(text)
    names = sorted(
        {line.partition("{")[0].partition(" ")[0] for line in text.splitlines() if line[:1] not in ("", "#")}
    )
    return {"moment": moment, "names": names, "gpus": found.gpus, "host": found.host, "nvidia-smi": smi}


def idle(bench: Bench) -> None:
    """Say which of Triton's metrics are there before any load."""
    time.sleep(2.5)  # Triton measures GPUs every two seconds
    found = beside(bench, "idle")
    bench.results.keep("metrics", [found])
    bench.results.say(f"names: {', '.join(found['names'])}")
    bench.results.say(f"our parser's GPUs: {found['gpus']}")
    bench.results.say(f"our parser's host: {found['host']}")
    bench.results.say(f"nvidia-smi: {found['nvidia-smi']}")


def saturation(bench: Bench) -> None:
    """Let more and more clients score; compare capacity predicted from few with what many get."""
    scale = bench.scale
    tuned_dense = Setting(FULL, "ragged", cell_budget=102400, window=1024, rows=min(2048, scale.pseudo_jets))
    few = (scale.clients[0], scale.clients[-1])
    cases = [
        ("tuned", Setting(LITE_WIDE, cell_budget=131072, window=4096), scale.clients),
        ("full", tuned_dense, scale.clients),
        ("default", Setting(LITE), few),
        ("two-instances", Setting(LITE_TWO, cell_budget=131072, window=4096), scale.clients[1:4]),
    ]
    rows: list[dict[str, Any]] = []
    for name, setting, clients in cases:
        for count in clients:
            if bench.results.left < scale.load_seconds + 12:
                break
            moment = f"{name}-busy" if count == clients[-1] else ""
            rows.append({"case": name, **_loaded(bench, setting, count, moment)})
            bench.results.keep("saturation", rows)
        mine = [row for row in rows if row["case"] == name]
        if mine:
            best = max(row["Triton's jets/s"] for row in mine)
            for row in mine:
                row["predicted / best"] = row["predicted limit"] / best if row["predicted limit"] else None
            bench.results.keep("saturation", rows)
    columns = (
        "case",
        "clients",
        "Triton's jets/s",
        "jets/s",
        "client us/jet",
        "client cores",
        "triton cores",
        "models cores",
    )
    more = ("jets a request", "jets an execution", "queue ms", "compute_infer ms", "p50 ms", "p99 ms", "GB/s")
    last = ("GPU %", "our GPU %", "host CPU %", "predicted limit", "predicted / best", "wrong")
    bench.results.table([{name: row.get(name) for name in (*columns, *more, *last)} for row in rows])
    for row in rows:
        bench.results.say(f"{row['case']}, {row['clients']} clients: {row['advice']}")


def _loaded(bench: Bench, setting: Setting, clients: int, moment: str) -> dict[str, Any]:
    seconds = bench.scale.load_seconds
    snapshots: list[Snapshot] = []
    stop = run_in_thread(Sampler([TritonMetrics(bench.server.metrics)]), snapshots.append)
    seen: list[dict[str, Any]] = []

    def look() -> None:
        time.sleep(0.75 * seconds)
        seen.append(beside(bench, moment))

    looking = threading.Thread(target=look)
    if moment:
        looking.start()
    try:
        row = bench.measure(replace(setting, seconds=seconds), clients)
    finally:
        if moment:
            looking.join()
        stop()
    if seen:
        bench.results.keep("metrics", [*bench.results.parts.get("metrics", []), *seen])
    verdict = judge(snapshots, max_batch={name: served.max_batch_size for name, served in SERVED.items()})
    average, capacity = verdict.average, Capacity.measured(verdict.average)
    busy, host = average.busy, average.hosts[0] if average.hosts else None
    served = next((each for each in average.models if each.name == setting.model), None)
    return {
        **described(setting),
        **row,
        # the clients' rates add up to more, as their clocks do not cover the same time
        "Triton's jets/s": (served.inferences_per_second if served else None) or 0.0,
        "our GPU %": 100 * busy.value if busy and not busy.estimated else None,
        "our busy": f"{busy.value:.0%} of {busy.of}, estimated: {busy.estimated}" if busy else None,
        "host CPU %": 100 * host.cpu_utilization if host and host.cpu_utilization is not None else None,
        "predicted limit": capacity.limit if capacity else None,
        "advice": str(verdict.advice) if verdict.advice else "none",
        "snapshot": average.as_dict(),
        "gpus": [[gpu.utilization for gpu in each.gpus] for each in snapshots],
    }
