"""Prometheus: it answers, and the queries of the panel and of `eaf-inference usage` give numbers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eaf_inference.doctor import Finding, State
from eaf_inference.errors import InferenceError
from eaf_inference.metrics.http import make_fetch
from eaf_inference.metrics.names import ENVOY_UPTIME
from eaf_inference.metrics.prometheus import selector, series_of
from eaf_inference.metrics.targets import prometheus_of
from eaf_inference.metrics.usage import usage_expression

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from eaf_facility.inspection.setup import Setup
    from eaf_inference.config import Facility

    Ask = Callable[[str], list[dict[str, str]]]

__all__ = ["Question", "answered", "prometheus", "questions"]

_SECONDS = 5.0
_HOUR = 3600.0
_SHOWN = ("job", "namespace", "pod", "instance", "Hostname")  # labels that tell facilities apart


@dataclass(frozen=True, slots=True)
class Question:
    """One kind of number that the panel or the usage report needs.

    Attributes
    ----------
    what : str
    metric : str
        The name of the metric, or a pattern for several.
    setting : str
        The setting with the matchers.
    matchers : sequence of str
    missing : str
        What to do when Prometheus has no such series.
    window : int
        Seconds over which a rate is taken; 0 for the value.
    needed : bool
        Whether its absence is a problem.
    """

    what: str
    metric: str
    setting: str
    matchers: Sequence[str]
    missing: str
    window: int = 0
    needed: bool = True

    def promql(self, *, matched: bool = True) -> str:
        """Return the query, with the facility's matchers or without."""
        name = f'__name__=~"{self.metric}"'
        series = selector([name, *(self.matchers if matched else ())])
        return f"rate({series}[{self.window}s])" if self.window else series


def questions(facility: Facility, *, usage: bool) -> list[Question]:
    """Return the questions for the panel's Prometheus, or for that of usage."""
    ours, gpus, envoys = "prometheus_matchers", "prometheus_gpu_matchers", "prometheus_envoy_matchers"
    if usage:
        matchers = facility.prometheus_envoy_matchers
        scrape = "have Prometheus scrape every Envoy: Envoy.metrics_port, path /stats/prometheus"
        none_yet = "nobody has made an inference through Envoy since it started"
        return [
            Question("Envoy", ENVOY_UPTIME, envoys, matchers, scrape),
            Question("usage by user and model", "envoy_eaf_requests", envoys, matchers, none_yet, needed=False),
        ]
    matchers, window = facility.prometheus_matchers, facility.prometheus_window
    scrape = "have Prometheus scrape every Triton: port 8002, path /metrics"
    short = f"set Facility.prometheus_window, now {window} s, to at least two scrape intervals"
    dcgm = "run dcgm-exporter on the GPU nodes, and have Prometheus scrape it; without GPUs nothing is missing"
    return [
        Question("Triton's load", "nv_inference_count", ours, matchers, scrape),
        Question("Triton's rates", "nv_inference_count", ours, matchers, short, window=window),
        Question(
            "GPUs",
            "DCGM_FI_(PROF_GR_ENGINE_ACTIVE|DEV_GPU_UTIL)",
            gpus,
            facility.prometheus_gpu_matchers,
            dcgm,
            needed=False,
        ),
    ]


def prometheus(setup: Setup) -> Iterator[Finding]:
    """Report on the panel's Prometheus and on that of usage."""
    facility = setup.facility
    configured = [facility.prometheus_url, facility.usage_prometheus_url]
    if not any(configured):
        remedy = 'c.Facility.prometheus_url = "http://prometheus:9090"'
        yield Finding("Prometheus", State.NOTE, "none is configured: no GPUs, no usage", remedy)
        return
    if facility.prometheus_url:
        yield from _one(facility, usage=False)
    yield from _one(facility, usage=True)


def _one(facility: Facility, *, usage: bool) -> Iterator[Finding]:
    url = (facility.usage_prometheus_url if usage else "") or facility.prometheus_url
    subject = f"Prometheus {url}"
    try:
        source = prometheus_of(facility, usage=usage)

        def ask(promql: str) -> list[dict[str, str]]:
            body = asyncio.run(source.query(make_fetch(), promql, timeout=_SECONDS))
            return [labels for labels, _ in series_of(body)]

        ask("up")
    except InferenceError as error:
        remedy = "start it, or correct the URL in Facility; it must answer /api/v1/query from here"
        yield Finding(subject, State.PROBLEM, error.reason or str(error).splitlines()[0], remedy)
        return
    for question in questions(facility, usage=usage):
        try:
            yield answered(f"{subject}, {question.what}", question, ask)
        except InferenceError as error:
            what = error.reason or str(error).splitlines()[0]
            yield Finding(subject, State.PROBLEM, f"{question.what}: {what}", "see Prometheus' log")
    try:
        if usage:
            ask(usage_expression(None, since=_HOUR, matchers=facility.prometheus_envoy_matchers))
        else:
            asyncio.run(source.read(make_fetch()))
    except InferenceError as error:
        what = f"refuses {'the usage report' if usage else 'the panel'}'s query: {str(error).splitlines()[0]}"
        yield Finding(subject, State.PROBLEM, what, "see Prometheus' log")


def answered(subject: str, question: Question, ask: Ask) -> Finding:
    """Ask one question, and explain why it has no answer.

    Parameters
    ----------
    ask : callable
        Returns the labels of each series that a query gives.
    """
    down = _down(question, ask)
    if found := ask(question.promql()):
        if down:
            what = f"{len(found)} series; cannot be scraped: {', '.join(down)}"
            return Finding(subject, State.PROBLEM, what, "start it, or remove it from Prometheus' targets")
        return Finding(subject, State.FINE, f"{len(found)} series")
    if down:
        what = f"no numbers: {', '.join(down)} cannot be scraped"
        return Finding(subject, State.PROBLEM, what, "start it, or correct the target in Prometheus")
    if question.matchers and (others := ask(question.promql(matched=False))):
        labels = ", ".join(f'{name}="{others[0][name]}"' for name in _SHOWN if name in others[0])
        what = f"Facility.{question.setting} matches none of {len(others)} series"
        return Finding(subject, State.PROBLEM, what, f"correct it: the first series has {labels}")
    state = State.PROBLEM if question.needed else State.NOTE
    return Finding(subject, state, "no numbers", question.missing)


def _down(question: Question, ask: Ask) -> list[str]:
    """Return the targets that gave such series in the last hour and cannot be scraped now."""
    series = selector([f'__name__=~"{question.metric}"', *question.matchers])
    found = ask(f"up == 0 and on (job, instance) last_over_time({series}[1h])")
    return sorted({labels.get("instance", "") for labels in found})
