"""The study's pictures, one function each, of what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eaf_inference.study.outcome import BLOCKING, PIPELINED, QUEUE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from eaf_inference.study.outcome import Outcome, Scaled

__all__ = ["capacity", "mixtures", "pictures", "scaling", "timing"]

_COLOURS = {PIPELINED: "#0072b2", BLOCKING: "#d55e00"}
_MARKERS = "osD^v"
_LINES = ("-", "--", ":", "-.")
_OTHER = "#777777"


def pictures(outcome: Outcome) -> dict[str, Figure]:
    """Title → picture, of the parts that were measured."""
    found = {}
    for workload in dict.fromkeys(each.workload for each in outcome.timings):
        found[f"Timing: {_titles(outcome)[workload]}"] = timing(outcome, workload)
    for simulated, title in ((False, "Real workers and Tritons"), (True, "Simulated workers and accelerators")):
        points = [each for each in outcome.scaled if each.simulated == simulated]
        if points:
            found[title] = scaling(points)
    if outcome.mixtures:
        found["Several models (simulated)"] = mixtures(outcome)
    if outcome.predicted:
        found["Capacity: prediction and measurement"] = capacity(outcome)
    return found


def _titles(outcome: Outcome) -> dict[str, str]:
    return {each.workload: each.title for each in outcome.timings}


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def timing(outcome: Outcome, workload: str) -> Figure:
    """Elapsed time, and its ratio to local inference, against jets."""
    curves = [each for each in outcome.timings if each.workload == workload]
    figure = _figure(11, 3.8)
    elapsed, ratio = figure.subplots(1, 2)
    local = {jets: seconds for each in curves if each.client.startswith("local") for jets, seconds in each.points}
    for curve in curves:
        colour = next((value for name, value in _COLOURS.items() if curve.client.startswith(name)), _OTHER)
        jets, seconds = zip(*curve.points, strict=True)
        elapsed.plot(jets, seconds, "o-", color=colour, label=curve.client, markersize=4)
        both = [(n, local[n] / s) for n, s in curve.points if s > 0 and local.get(n)]
        if both and not curve.client.startswith("local"):
            ratio.plot(*zip(*both, strict=True), "o-", color=colour, label=curve.client, markersize=4)
    elapsed.set(xlabel="jets", ylabel="elapsed time, s")
    ratio.axhline(1.0, color=_OTHER, linewidth=0.8)
    ratio.set(xlabel="jets", ylabel="local time / time through Triton", ylim=(0, None))
    for axis in (elapsed, ratio):
        axis.legend(fontsize="small")
    return figure


def scaling(points: Sequence[Scaled]) -> Figure:
    """The four pictures of arXiv:2312.06838."""
    figure = _figure(12, 8)
    panels = figure.subplots(2, 2).flat
    drawn: tuple[Callable[[Axes, Sequence[Scaled]], None], ...] = (
        _instances_needed,
        _queue_against_throughput,
        _throughput_against_workers,
        _throughput_of_an_instance,
    )
    for panel, draw in zip(panels, drawn, strict=True):
        draw(panel, points)
        if panel.get_xscale() == "log":
            _count_by_doubling(panel)
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize="x-small")
    return figure


def _count_by_doubling(axis: Axes) -> None:
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:g}")


def _series(points: Sequence[Scaled]) -> list[tuple[str, str, str, str, list[Scaled]]]:
    """Label, colour, marker, line and points of each client and number of instances."""
    found = []
    instances = sorted({each.instances for each in points})
    for client in dict.fromkeys(each.client for each in points):
        for position, count in enumerate(instances):
            own = sorted(
                (each for each in points if each.client == client and each.instances == count),
                key=lambda each: each.workers,
            )
            if own:
                label = f"{client}, {count} instance{'s' if count > 1 else ''}"
                found.append((label, _COLOURS.get(client, _OTHER), _MARKERS[position % 5], _LINES[position % 4], own))
    return found


def needed(points: Sequence[Scaled], client: str) -> list[tuple[int, int]]:
    """For each number of workers the fewest instances whose queue stays below the limit; of those measured."""
    found = []
    for workers in sorted({each.workers for each in points if each.client == client}):
        fitting = [
            each.instances
            for each in points
            if each.client == client and each.workers == workers and each.queue <= QUEUE_LIMIT
        ]
        if fitting:
            found.append((workers, min(fitting)))
    return found


def _instances_needed(axis: Axes, points: Sequence[Scaled]) -> None:
    for client in dict.fromkeys(each.client for each in points):
        steps = needed(points, client)
        if steps:
            axis.step(*zip(*steps, strict=True), where="post", marker="o", label=client, color=_COLOURS.get(client))
    axis.set(
        xlabel="workers",
        ylabel="instances",
        xscale="log",
        title=f"Instances that keep the queue below {1e3 * QUEUE_LIMIT:.0f} ms, of those measured",
    )
    axis.set_ylim(0, max(each.instances for each in points) + 1)


def _queue_against_throughput(axis: Axes, points: Sequence[Scaled]) -> None:
    for label, colour, marker, line, own in _series(points):
        axis.plot(
            [each.inferences_per_second for each in own],
            [1e3 * each.queue for each in own],
            marker + line,
            color=colour,
            label=label,
            markersize=4,
        )
    axis.axhline(1e3 * QUEUE_LIMIT, color="black", linewidth=1, linestyle="--")
    axis.set(xlabel="jets/s", ylabel="time in the queue, ms", title="Queue time against throughput")
    axis.set_yscale("symlog", linthresh=1)
    axis.set_ylim(bottom=0)


def _throughput_against_workers(axis: Axes, points: Sequence[Scaled]) -> None:
    for label, colour, marker, line, own in _series(points):
        axis.plot(
            [each.workers for each in own],
            [each.inferences_per_second for each in own],
            marker + line,
            color=colour,
            label=label,
            markersize=4,
        )
    axis.set(xlabel="workers", ylabel="jets/s", xscale="log", title="Throughput against workers")
    axis.set_ylim(bottom=0)


def _throughput_of_an_instance(axis: Axes, points: Sequence[Scaled]) -> None:
    for label, colour, marker, line, own in _series(points):
        axis.plot(
            [each.workers / each.instances for each in own],
            [each.inferences_per_second / each.instances for each in own],
            marker + line,
            color=colour,
            label=label,
            markersize=4,
        )
    axis.set(
        xlabel="workers an instance", ylabel="jets/s of an instance", xscale="log", title="The same, an instance"
    )
    axis.set_ylim(bottom=0)


def mixtures(outcome: Outcome) -> Figure:
    """Requests/s of an instance, with one model and with several."""
    figure = _figure(10, 2.6)
    axis = figure.subplots()
    rows = outcome.mixtures[::-1]
    axis.barh([each.title for each in rows], [each.requests_per_second / each.instances for each in rows])
    axis.set(xlabel="requests/s of an instance")
    return figure


def capacity(outcome: Outcome) -> Figure:
    """What was predicted from few workers, and what was measured with blocking ones on one instance."""
    assert outcome.predicted is not None  # noqa: S101  (there is no picture otherwise)
    figure = _figure(11, 3.8)
    throughput, queue = figure.subplots(1, 2)
    workers, rates, queues = zip(*outcome.predicted.points, strict=True)
    measured = [each for each in outcome.scaled if each.simulated and each.client == BLOCKING and each.instances == 1]
    for axis, predicted, seen in (
        (throughput, rates, [each.requests_per_second for each in measured]),
        (queue, [1e3 * each for each in queues], [1e3 * each.queue for each in measured]),
    ):
        axis.plot(workers, predicted, "--", color="black", label=f"predicted with {outcome.predicted.measured_with}")
        axis.plot([each.workers for each in measured], seen, "o", color=_COLOURS[BLOCKING], label="measured")
        axis.set(xlabel="workers", xscale="log")
        _count_by_doubling(axis)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    throughput.set_ylabel("requests/s")
    queue.set_ylabel("time in the queue, ms")
    queue.axhline(1e3 * QUEUE_LIMIT, color="black", linewidth=1, linestyle=":")
    return figure
