"""The study's plots, with one function for each part.

Titles and captions are HTML beside a plot, and legends are below it, so that nothing covers the points.
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

from eaf_facility.study.curves import curves, fewest_tritons, predicted_curve
from eaf_facility.study.formatting import LIMIT, duration, plural
from eaf_facility.study.outcome import BLOCKING, PIPELINED, QUEUE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eaf_facility.study.outcome import Outcome, Scaled

__all__ = ["Plot", "capacity", "mixtures", "plots", "scaling", "timing"]

_COLOURS = {PIPELINED: "#0072b2", BLOCKING: "#d55e00"}
_OTHER = "#666666"
_INK = "#222222"
_MARKERS = ("circle", "square", "diamond", "triangle", "inverted_triangle")
_DASHES = ("solid", "dashed", "dotted", "dotdash")
_HEIGHT = 400  # pixels
_QUEUE = "mean time in the queue (ms)"
_DOUBLING = [2**power for power in range(-3, 12)]
_LEAST_QUEUE = 0.01  # ms; a logarithmic axis has no 0
_SHORTER = f"Times below {_LEAST_QUEUE} ms are drawn at {_LEAST_QUEUE} ms."


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot with its title and caption."""

    title: str
    figure: figure
    caption: str = ""


def plots(outcome: Outcome) -> dict[str, list[Plot]]:
    """Return the plots of the parts that were measured, by title."""
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
    """Plot elapsed time, and speed relative to local inference, against jets."""
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
    """Make the four plots of arXiv:2312.06838."""
    limit = f"Dashed line: {LIMIT}, above which arXiv:2312.06838 starts another Triton. {_SHORTER}"
    throughput = _scaled(points, lambda each: (each.workers, each.inferences_per_second), "workers", "jets/s")
    queue = _scaled(points, lambda each: (each.inferences_per_second, _milliseconds(each.queue)), "jets/s", _QUEUE)
    share = _scaled(
        points,
        lambda each: (each.workers / each.replicas, each.inferences_per_second / each.replicas),
        "workers per Triton",
        "jets/s per Triton",
    )
    return [
        Plot("Throughput", throughput),
        Plot("Queue time against throughput", queue, limit),
        Plot("Throughput per Triton", share),
        Plot(f"Tritons that keep the queue below {LIMIT}", _needed(points), "The fewest of the measured numbers."),
    ]


def _scaled(
    points: Sequence[Scaled], place: Callable[[Scaled], tuple[float, float]], abscissa: str, ordinate: str
) -> figure:
    """Plot a line for each client and number of Tritons."""
    drawn = _figure(abscissa, ordinate)
    found = curves(points)
    counts = sorted({each.replicas for each in found})
    for curve in sorted(found, key=lambda each: (each.client != PIPELINED, each.client)):
        label = f"{curve.client}, {plural(curve.replicas, 'Triton')}"
        tips = [(*place(each), f"{label}: {_tip(each)}") for each in curve.points]
        _line(drawn, label, _COLOURS.get(curve.client, _OTHER), tips, counts.index(curve.replicas))
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
    drawn.yaxis.ticker = FixedTicker(ticks=sorted({each.replicas for each in points}))
    return drawn


def mixtures(outcome: Outcome) -> list[Plot]:
    """Plot requests/s per Triton, with one model and with several."""
    names = [textwrap.fill(each.title, 22) for each in outcome.mixtures]
    columns = {
        "y": names,
        "right": [each.requests_per_second / each.replicas for each in outcome.mixtures],
        "tip": [
            f"{each.title}: {each.requests_per_second:,.1f} requests/s with {plural(each.replicas, 'Triton')}, "
            f"queue {duration(each.queue)}, {100 * each.locality:.0f} % of a model's requests to the same Triton"
            for each in outcome.mixtures
        ],
    }
    drawn = _figure("requests/s per Triton", "", names=names)
    bars = drawn.hbar(y="y", right="right", height=0.6, color=_COLOURS[PIPELINED], source=ColumnDataSource(columns))
    drawn.hover[0].renderers = [bars]
    return [Plot("Throughput per Triton", drawn)]


def capacity(outcome: Outcome) -> list[Plot]:
    """Plot the prediction from a light load, and the measurement with blocking workers on one Triton."""
    predicted, curve = outcome.predicted, predicted_curve(outcome.scaled)
    if predicted is None:
        return []
    unit = "workers" if outcome.accelerator else "requests in flight"
    rates, queues = _figure(unit, "requests/s"), _figure(unit, _QUEUE)
    measured = [(each.workers, each.requests_per_second, each.queue) for each in curve.points] if curve else []
    for style, label, colour, points in (
        (1, f"predicted from {plural(predicted.measured_with, 'worker')}", _OTHER, predicted.points),
        (0, "measured", _COLOURS[BLOCKING], measured),
    ):
        tips = [f"{label}: {n} {unit}, {rate:,.1f} requests/s, queue {duration(wait)}" for n, rate, wait in points]
        _line(rates, label, colour, [(n, rate, tip) for (n, rate, _), tip in zip(points, tips, strict=True)], style)
        waits = [(n, _milliseconds(wait), tip) for (n, _, wait), tip in zip(points, tips, strict=True)]
        _line(queues, label, colour, waits, style)
    return [Plot("Throughput", rates), Plot("Queue time", queues, f"Dashed line: {LIMIT}. {_SHORTER}")]


def _milliseconds(queue: float) -> float:
    return max(1e3 * queue, _LEAST_QUEUE)


def _figure(abscissa: str, ordinate: str, *, names: Sequence[str] = ()) -> figure:
    """Make an empty plot of the page's width, with logarithmic axes for workers and for queue times."""
    by_workers, by_queue = abscissa.startswith(("workers", "requests in flight")), ordinate == _QUEUE
    shown = FactorRange(factors=names[::-1]) if names else DataRange1d() if by_queue else DataRange1d(start=0)
    made = figure(
        height=_HEIGHT,
        sizing_mode="stretch_width",
        x_axis_label=abscissa,
        y_axis_label=ordinate,
        x_axis_type="log" if by_workers else "linear",
        y_axis_type="log" if by_queue else "auto",
        tools="pan,box_zoom,reset,save",
        active_drag=None,  # a finger on the plot scrolls the page
        x_range=DataRange1d(start=0) if names else DataRange1d(),
        y_range=shown,
    )
    # one renderer for the points of all curves, so that a single tooltip lists overlapping points
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
    if by_queue:
        made.add_layout(Span(location=1e3 * QUEUE_LIMIT, dimension="width", line_color=_INK, line_dash="dashed"))
    return made


def _line(drawn: figure, label: str, colour: str, points: Sequence[tuple[float, float, str]], style: int = 0) -> None:
    """Draw a curve through points of abscissa, ordinate and tooltip."""
    xs, ys, tips = ([point[column] for point in points] for column in range(3))
    source = ColumnDataSource({"x": xs, "y": ys})
    dash, marker = _DASHES[style % len(_DASHES)], _MARKERS[style % len(_MARKERS)]
    drawn.line("x", "y", source=source, color=colour, legend_label=label, line_width=2, line_dash=dash)
    drawn.scatter("x", "y", source=source, color=colour, legend_label=label, size=8, marker=marker)
    hovered: Any = drawn.hover[0].renderers
    hover_source = hovered[0].data_source
    new = {"x": xs, "y": ys, "tip": tips}
    hover_source.data = {name: [*hover_source.data[name], *values] for name, values in new.items()}
