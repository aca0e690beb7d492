"""Pictures of what the scenarios measured. matplotlib is imported only where something is drawn.

A picture is drawn into a `Figure` that the caller has made and will save; errors are those of
`Row.interval`, none for a single run.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from . import response
from .results import Report, Row, counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .registry import Draws

_NO_LOSS: Final = 0.0003
"""Where a loss of 0 stands on the logarithmic axis."""
_COLOURS: Final = ("C0", "C1", "C2", "C3")


def save_figure(entry: Draws, report: Report, target: Path | BinaryIO) -> None:
    """Draw a report as a PNG. Raises ImportError without matplotlib, OSError."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), dpi=110, layout="constrained")
    entry.draw(report, figure)
    figure.suptitle(heading(report), fontsize="small", wrap=True)
    figure.savefig(target, format="png")


def heading(report: Report) -> str:
    """What a picture says of itself where nothing stands beside it."""
    told = [report.source] if report.source else []
    runs = report.settings.get("runs")
    if runs is not None:
        count = counted(runs, "seed" if "points" in report.settings else "run")
        told += [count] if count not in report.title else []
    if report.settings.get("quick"):
        told.append("quick run")
    return f"{report.title} ({', '.join(told)})" if told else report.title


def errors(rows: Sequence[Row]) -> list[list[float]]:
    """Lengths below and above each mean, as `errorbar` and `bar` take them."""
    halves = [(high - low) / 2 for low, high in (row.interval for row in rows)]
    finite = [half if math.isfinite(half) else 0.0 for half in halves]
    return [finite, finite]


def draw_line(axes: Axes, at: Sequence[float], rows: Sequence[Row], label: str) -> None:
    """Means over `at` with their intervals, joined."""
    axes.errorbar(
        at, [row.mean for row in rows], yerr=errors(rows), label=label, marker="o", capsize=3
    )


def draw_bars(axes: Axes, rows: Sequence[Row], unit: str) -> None:
    """One bar a row, its mean and interval, with the row's label below."""
    places = range(len(rows))
    axes.bar(places, [row.mean for row in rows], yerr=errors(rows), capsize=3)
    axes.set_xticks(places, labels=[row.label for row in rows], rotation=30, ha="right")
    axes.set_ylabel(unit)
    axes.grid(alpha=0.3, axis="y")


def draw_tcp(report: Report, figure: Figure) -> None:
    """Goodput over loss, a panel for each congestion control."""
    controls = report.settings["controls"]
    figure.set_size_inches(7 * len(controls), 6)
    panels = figure.subplots(1, len(controls), squeeze=False, sharey=True)[0]
    for control, panel in zip(controls, panels, strict=True):
        _draw_control(panel, control, report)
    panels[0].set_ylabel("goodput, Mbit/s")


def _draw_control(panel: Axes, control: str, report: Report) -> None:
    rows = [row for row in report.rows if row.values and row.details[0]["control"] == control]
    rtts = sorted({row.details[0]["rtt_ms"] for row in rows})
    rate = report.settings["rate_bps"]
    losses = [10 ** (-3.3 + 0.02 * step) for step in range(95)]
    labelled: set[str] = set()
    for rtt, colour in zip(rtts, _COLOURS, strict=False):
        function = [
            response.goodput(response.WINDOWS[control](loss, rtt / 1e3), loss, rtt / 1e3, rate)
            for loss in losses
        ]
        name = f"response function, {rtt:g} ms"
        panel.plot(losses, [value / 1e6 for value in function], color=colour, label=name)
        for row in rows:
            if row.details[0]["rtt_ms"] == rtt:
                _draw_row(panel, row, colour, labelled)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xticks([_NO_LOSS, 0.001, 0.01, 0.03], labels=["0", "0.1 %", "1 %", "3 %"])
    panel.minorticks_off()
    panel.set_xlabel("loss of the data's direction")
    panel.set_title(control)
    panel.grid(alpha=0.3)
    panel.legend(fontsize="small")


def _draw_row(panel: Axes, row: Row, colour: str, labelled: set[str]) -> None:
    detail = row.details[0]
    who = "virtual" if detail["part"] == "virtual" else row.key.partition("-")[0]
    shift, marker = {"virtual": (1.0, "o"), "ours": (1.12, "x"), "kernel": (1.24, "+")}[who]
    name = {"virtual": "ours, virtual time", "ours": "ours, emulator", "kernel": "kernel"}[who]
    if detail["reorder"]:
        name += ", reordered"
        shift *= 0.85
    at = (detail["loss"] or _NO_LOSS) * shift
    panel.plot(
        [at] * len(row.values),
        row.values,
        marker,
        color=colour,
        markerfacecolor="none" if detail["reorder"] else None,
        label=name if name not in labelled else None,
    )
    labelled.add(name)


def draw_fairness(report: Report, figure: Figure) -> None:
    """Both flows' goodput over time in the median run of each row."""
    rows = [row for row in report.rows if row.values]
    across = 2
    down = -(-len(rows) // across)
    figure.set_size_inches(6 * across, 2.4 * down)
    panels = figure.subplots(down, across, squeeze=False, sharey=True)
    for place, panel in enumerate(panels.flat):
        if place >= len(rows):
            panel.set_axis_off()
            continue
        _draw_sharing(panel, rows[place])
    figure.supxlabel("seconds")
    figure.supylabel("Mbit/s")


def _draw_sharing(panel: Axes, row: Row) -> None:
    middle = statistics.median_low(row.values)
    detail: dict[str, Any] = row.details[row.values.index(middle)]
    for name, samples in zip(detail["flows"], detail["samples"], strict=True):
        every = samples[:: 4 if len(samples) > 16 else 1]
        times = [after[0] for after in every[1:]]
        rates = [
            (after[1] - before[1]) * 8 / (after[0] - before[0]) / 1e6
            for before, after in pairwise(every)
        ]
        panel.plot(times, rates, label=name, linewidth=1)
    panel.set_title(f"{row.label}: Jain {middle:.3f}", fontsize="medium")
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)
    panel.legend(fontsize="x-small", loc="lower right")
