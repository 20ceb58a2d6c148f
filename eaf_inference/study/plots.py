"""The study's plots, of what was measured: one function for each part, which gives one or several of them.

Titles and captions are text beside a plot, and legends stand below it, so that nothing covers what was measured.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bokeh.models import (
    ColumnDataSource,
    DataRange1d,
    FactorRange,
    FixedTicker,
    HoverTool,
    NumeralTickFormatter,
)
from bokeh.models.annotations import Legend, Span
from bokeh.plotting import figure

from eaf_inference.study.curves import curves, fewest_tritons, predictable
from eaf_inference.study.outcome import BLOCKING, PIPELINED, QUEUE_LIMIT
from eaf_inference.study.words import LIMIT, duration, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eaf_inference.study.outcome import Outcome, Scaled

__all__ = ["Plot", "capacity", "mixtures", "plots", "scaling", "timing"]

_COLOURS = {PIPELINED: "#0072b2", BLOCKING: "#d55e00"}
_OTHER = "#666666"
_INK = "#222222"
_MARKERS = ("circle", "square", "diamond", "triangle", "inverted_triangle")
_DASHES = ("solid", "dashed", "dotted", "dotdash")
_HEIGHT = 400  # pixels
_QUEUE = "mean time in the queue (ms)"
_DOUBLING = [2**power for power in range(-3, 12)]
_LEAST_QUEUE = 0.01  # ms: the logarithmic axis has no 0
_SHORTER = f"Shorter times than {_LEAST_QUEUE} ms are drawn there."


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot with its title and caption."""

    title: str
    figure: figure
    caption: str = ""


def plots(outcome: Outcome) -> dict[str, list[Plot]]:
    """Title → plots, of the parts that were measured."""
    found = {}
    for simulated, title in ((True, "Simulated workers and Tritons"), (False, "Real workers and Tritons")):
        if points := [each for each in outcome.scaled if each.simulated == simulated]:
            found[title] = scaling(points)
    if outcome.predicted:
        found["Prediction and measurement"] = capacity(outcome)
    if outcome.mixtures:
        found["Several models (simulated)"] = mixtures(outcome)
    for workload in dict.fromkeys(each.workload for each in outcome.timings):
        title = next(each.title for each in outcome.timings if each.workload == workload)
        found[f"Timing: {title}"] = timing(outcome, workload)
    return found


def timing(outcome: Outcome, workload: str) -> list[Plot]:
    """Elapsed time, and its ratio to local inference, against jets."""
    own = [each for each in outcome.timings if each.workload == workload]
    local = {jets: seconds for each in own if each.client.startswith("local") for jets, seconds in each.points}
    elapsed, ratio = _figure("jets", "elapsed time (s)"), _figure("jets", "speed / local speed")
    for curve in own:
        colour = next((value for name, value in _COLOURS.items() if curve.client.startswith(name)), _OTHER)
        points = [(jets, seconds) for jets, seconds in curve.points if seconds > 0]
        times = [(jets, seconds, f"{curve.client}: {jets:,} jets, {duration(seconds)}") for jets, seconds in points]
        _line(elapsed, curve.client, colour, times)
        if local and not curve.client.startswith("local"):
            faster = [(jets, local[jets] / seconds) for jets, seconds in points]
            tips = [(jets, y, f"{curve.client}: {jets:,} jets, {y:.2f} times local speed") for jets, y in faster]
            _line(ratio, curve.client, colour, tips)
    found = [Plot("Elapsed time", elapsed)]
    if local and len(own) > 1:
        ratio.add_layout(Span(location=1.0, dimension="width", line_color=_OTHER, line_dash="dashed"))
        found.append(Plot("Speed relative to local ONNX Runtime", ratio, "Above the dashed line, Triton is faster."))
    return found


def scaling(points: Sequence[Scaled]) -> list[Plot]:
    """The four plots of arXiv:2312.06838."""
    limit = f"Dashed: the {LIMIT} above which arXiv:2312.06838 starts another Triton. {_SHORTER}"
    throughput = _scaled(points, lambda each: (each.workers, each.inferences_per_second), "workers", "jets/s")
    queue = _scaled(points, lambda each: (each.inferences_per_second, _milliseconds(each.queue)), "jets/s", _QUEUE)
    share = _scaled(
        points,
        lambda each: (each.workers / each.instances, each.inferences_per_second / each.instances),
        "workers for each Triton",
        "jets/s of each Triton",
    )
    return [
        Plot("Throughput", throughput),
        Plot("Queue time against throughput", queue, limit),
        Plot("Throughput of each Triton", share),
        Plot(f"Tritons that keep the queue below {LIMIT}", _needed(points), "The fewest of those measured."),
    ]


def _scaled(
    points: Sequence[Scaled], place: Callable[[Scaled], tuple[float, float]], abscissa: str, ordinate: str
) -> figure:
    """A line for each client and number of Tritons."""
    drawn = _figure(abscissa, ordinate)
    found = curves(points)
    counts = sorted({each.instances for each in found})
    for curve in sorted(found, key=lambda each: (each.client != PIPELINED, each.client)):
        label = f"{curve.client}, {plural(curve.instances, 'Triton')}"
        tips = [(*place(each), f"{label}: {_tip(each)}") for each in curve.points]
        _line(drawn, label, _COLOURS.get(curve.client, _OTHER), tips, counts.index(curve.instances))
    return drawn


def _tip(point: Scaled) -> str:
    tail = "" if point.p99 is None else f", p99 {duration(point.p99)}"
    return (
        f"{plural(point.workers, 'worker')}, {point.inferences_per_second:,.0f} jets/s, "
        f"queue {duration(point.queue)}{tail}"
    )


def _needed(points: Sequence[Scaled]) -> figure:
    drawn = _figure("workers", "Tritons")
    for number, client in enumerate(dict.fromkeys(each.client for each in points)):
        steps = [
            (workers, count, f"{client}: {plural(workers, 'worker')}, {plural(count, 'Triton')}")
            for workers, count in fewest_tritons(points, client)
        ]
        _line(drawn, client, _COLOURS.get(client, _OTHER), steps, number)
    drawn.yaxis.ticker = FixedTicker(ticks=sorted({each.instances for each in points}))
    return drawn


def mixtures(outcome: Outcome) -> list[Plot]:
    """Requests/s of each Triton, with one model and with several."""
    names = [textwrap.fill(each.title, 22) for each in outcome.mixtures]
    columns = {
        "y": names,
        "right": [each.requests_per_second / each.instances for each in outcome.mixtures],
        "tip": [
            f"{each.title}: {each.requests_per_second:,.1f} requests/s with {plural(each.instances, 'Triton')}, "
            f"queue {duration(each.queue)}, {100 * each.met:.0f} % of a model's requests to the same Triton"
            for each in outcome.mixtures
        ],
    }
    drawn = _figure("requests/s for each Triton", "", names=names)
    bars = drawn.hbar(y="y", right="right", height=0.6, color=_COLOURS[PIPELINED], source=ColumnDataSource(columns))
    drawn.hover[0].renderers = [bars]
    return [Plot("Throughput of each Triton", drawn)]


def capacity(outcome: Outcome) -> list[Plot]:
    """What was predicted from a light load, and what was measured with blocking workers on one Triton."""
    predicted, curve = outcome.predicted, predictable(outcome.scaled)
    if predicted is None:
        return []
    unit = "workers" if outcome.accelerator else "requests in flight"
    rates, queues = _figure(unit, "requests/s"), _figure(unit, _QUEUE)
    seen = [(each.workers, each.requests_per_second, each.queue) for each in curve.points] if curve else []
    for style, label, colour, points in (
        (1, f"predicted from {plural(predicted.measured_with, 'worker')}", _OTHER, predicted.points),
        (0, "measured", _COLOURS[BLOCKING], seen),
    ):
        tips = [f"{label}: {n} {unit}, {rate:,.1f} requests/s, queue {duration(wait)}" for n, rate, wait in points]
        _line(rates, label, colour, [(n, rate, said) for (n, rate, _), said in zip(points, tips, strict=True)], style)
        waits = [(n, _milliseconds(wait), said) for (n, _, wait), said in zip(points, tips, strict=True)]
        _line(queues, label, colour, waits, style)
    return [Plot("Throughput", rates), Plot("Queue time", queues, f"Dashed: {LIMIT}. {_SHORTER}")]


def _milliseconds(queue: float) -> float:
    return max(1e3 * queue, _LEAST_QUEUE)


def _figure(abscissa: str, ordinate: str, *, names: Sequence[str] = ()) -> figure:
    """An empty plot, as wide as the page lets it be, with logarithmic axes for workers and for the queue."""
    by_workers, of_queue = abscissa.startswith(("workers", "requests in flight")), ordinate == _QUEUE
    shown = FactorRange(factors=names[::-1]) if names else DataRange1d() if of_queue else DataRange1d(start=0)
    made = figure(
        height=_HEIGHT,
        sizing_mode="stretch_width",
        x_axis_label=abscissa,
        y_axis_label=ordinate,
        x_axis_type="log" if by_workers else "linear",
        y_axis_type="log" if of_queue else "auto",
        tools="pan,box_zoom,reset,save",
        active_drag=None,  # a finger on the plot scrolls the page
        x_range=DataRange1d(start=0) if names else DataRange1d(),
        y_range=shown,
    )
    # one renderer for the points of all curves, so that a single tooltip lists those that lie upon one another
    points = made.scatter("x", "y", source=ColumnDataSource({"x": [], "y": [], "tip": []}), size=8, alpha=0)
    made.add_tools(HoverTool(tooltips="<div>@tip</div>", renderers=[points]))
    made.toolbar.logo = None
    made.axis.axis_label_text_font_style = "normal"
    made.axis.axis_label_text_font_size = made.axis.major_label_text_font_size = "13px"
    made.axis.axis_label_text_color = made.axis.major_label_text_color = _INK
    if by_workers:
        made.xaxis.ticker = FixedTicker(ticks=_DOUBLING)
    made.xaxis.formatter = NumeralTickFormatter(format="0,0.[000]")
    if not names:
        made.yaxis.formatter = NumeralTickFormatter(format="0,0.[00]")
        legend = Legend(ncols=2, spacing=8, location="left", click_policy="hide", label_text_font_size="13px")
        legend.border_line_color, legend.label_text_color = None, _INK
        made.add_layout(legend, "below")
    if of_queue:
        made.add_layout(Span(location=1e3 * QUEUE_LIMIT, dimension="width", line_color=_INK, line_dash="dashed"))
    return made


def _line(drawn: figure, label: str, colour: str, points: Sequence[tuple[float, float, str]], style: int = 0) -> None:
    """Draw a curve; a point is its abscissa, its ordinate and its tooltip."""
    xs, ys, tips = ([point[column] for point in points] for column in range(3))
    source = ColumnDataSource({"x": xs, "y": ys})
    dash, marker = _DASHES[style % len(_DASHES)], _MARKERS[style % len(_MARKERS)]
    drawn.line("x", "y", source=source, color=colour, legend_label=label, line_width=2, line_dash=dash)
    drawn.scatter("x", "y", source=source, color=colour, legend_label=label, size=8, marker=marker)
    hovered: Any = drawn.hover[0].renderers
    everything = hovered[0].data_source
    more = {"x": xs, "y": ys, "tip": tips}
    everything.data = {name: [*everything.data[name], *values] for name, values in more.items()}
