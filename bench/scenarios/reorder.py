"""Fig 5.6 of the thesis: what the four out-of-order queues cost, and how often shortcuts hit.

The thesis gives the receiver's CPU load; here the queue alone is timed, on the arrivals of a
download (1 Gbit/s in all, in virtual time) and on a model whose queue is as long as one likes.

Beside the model's stands a dictionary of the same segments, which searches for nothing and keeps no
order: what is waited for longest has left the caches, and comes back slowly whatever keeps it. The
growth of a queue's cost is judged beside that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..multipath import Link
from ..registry import Options, Progress, scenario
from ..reordering import FLOOR, TIMED, Trace, model, record, replay
from ..results import Report, Row, Verdict, counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS: Final = ("regular", "tree", "shortcuts", "aggreg")
"""In the thesis's order (table 5.1)."""
SUBFLOWS: Final = (2, 8, 64)
QUEUED: Final = (100, 1_000, 10_000, 100_000)
RATE_BPS: Final = 1_000_000_000
"""Of all paths together."""
DELAYS_US: Final = {"direct": (2_000, 2_000), "unlike": (2_000, 10_000)}
"""Least and greatest one-way delay of a download's paths."""
STEPS: Final = 30_000_000
"""What a list may be searched for in one measurement; then fewer arrivals are timed."""
LEAST_HITS: Final = 0.80
MOST_GROWTH: Final = 1.5


@dataclass(frozen=True, slots=True)
class Cell:
    """One kind of arrivals."""

    source: str
    """"direct", "unlike": a download over such paths; "model"."""
    subflows: int
    queued: int = 0
    """Of the model."""

    @property
    def key(self) -> str:
        """For `--only`."""
        size = f"-{self.queued}" if self.queued else ""
        return f"{self.source}-{self.subflows}{size}"

    @property
    def label(self) -> str:
        """What people read."""
        if self.queued:
            return f"{self.queued} queued, {self.subflows} subflows"
        return f"download, {self.source}, {self.subflows} subflows"

    def trace(self, quick: bool) -> Trace:
        """The arrivals."""
        if self.queued:
            return model(self.subflows, self.queued, 1, TIMED // 10 if quick else TIMED)
        low, high = DELAYS_US[self.source]
        links = [
            Link(RATE_BPS // self.subflows, low + (high - low) * number // (self.subflows - 1))
            for number in range(self.subflows)
        ]
        return record(links, 1, 0.15 if quick else 0.5)[0]

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is timed."""
        return (*KINDS, FLOOR) if self.queued else KINDS

    def most(self, kind: str) -> int:
        """Arrivals that can be timed without waiting for minutes."""
        return max(200, STEPS // self.queued) if self.queued and kind == "regular" else TIMED


DOWNLOADS: Final = tuple(Cell(source, count) for source in DELAYS_US for count in SUBFLOWS)
MODELS: Final = tuple(Cell("model", count, size) for size in QUEUED for count in SUBFLOWS)


@scenario
class Reorder:
    """`python -m bench run reorder`."""

    name = "reorder"
    summary = "out-of-order queues: cost of a segment, shortcut hits"
    needs_rights = False
    source = "thesis fig. 5.6"

    def cases(self) -> list[str]:
        """See `Scenario`."""
        return [cell.key for cell in (*DOWNLOADS, *MODELS)]

    def run(self, options: Options, progress: Progress) -> Report:
        """See `Scenario`."""
        runs = options.runs or (1 if options.quick else 5)
        every = (*DOWNLOADS, *MODELS)
        chosen = [
            cell
            for cell in every
            if (cell.key in options.only if options.only else not options.quick or small(cell))
        ]
        rows = {
            (cell.key, kind): Row(f"{cell.key}-{kind}", f"{cell.label}: {kind}", "ns/segment")
            for cell in chosen
            for kind in cell.kinds
        }
        for place, cell in enumerate(chosen):
            progress(cell.label, place, len(chosen))
            trace = cell.trace(options.quick)
            for _ in range(runs):
                for kind in cell.kinds:
                    found = replay(kind, trace, cell.most(kind))
                    row = rows[cell.key, kind]
                    row.values.append(found.ns_per_segment)
                    row.details.append(
                        {
                            "hits_percent": 100 * found.hit_share,
                            "steps": found.steps_per_segment,
                            "nodes": found.nodes,
                            "segments": found.segments,
                            "queued": trace.queued,
                        }
                    )
                    if cell.queued and cell.most(kind) < TIMED:
                        row.remark = f"{found.segments} segments timed: it grows with the queue"
        report = Report(
            self.name,
            f"Out-of-order queues, CPU time of the queue alone, {counted(runs, 'run')}",
            {"runs": runs, "quick": options.quick},
            list(rows.values()),
            [
                f"download: {RATE_BPS / 1e9:g} Gbit/s in all over as many paths as subflows, "
                f"one-way delays {DELAYS_US['direct'][0] / 1000:g} ms, or "
                f"{DELAYS_US['unlike'][0] / 1000:g} to {DELAYS_US['unlike'][1] / 1000:g} ms.",
                "model: batches of 4 to 16 segments on paths of one rate, whose delays keep so "
                "many segments waiting for the slowest; a segment is 1400 bytes.",
                "dictionary: the model's segments by their DSN, not searched and not in order.",
                "hits: the place was one that a shortcut named, or the end of the queue; steps: "
                "nodes that searches passed, for each segment; deliveries are in the cost.",
            ],
            source=self.source,
            columns={"hits_percent": "hits %", "steps": "steps/segment", "nodes": "nodes"},
        )
        if options.quick:
            report.notes.append("not judged: a quick run says that it works, not what it shows.")
        elif len(chosen) < len(every):
            report.notes.append("not judged: that takes every case.")
        else:
            report.verdicts = list(judge(report))
        return report

    def draw(self, report: Report, figure: Figure) -> None:
        """The thesis's bars for the downloads, and cost over the length of the queue."""
        figure.set_size_inches(13, 5.5)
        bars, lines = figure.subplots(1, 2)
        draw_bars(bars, report)
        draw_lines(lines, report)


def small(cell: Cell) -> bool:
    """Whether a quick run has it."""
    return cell.subflows < 64 and cell.queued <= 1_000


def median(report: Report, cell: Cell, kind: str) -> float | None:
    """ns for each segment, if it was measured."""
    row = report.row(f"{cell.key}-{kind}")
    return None if row is None else row.median


def judge(report: Report) -> Iterator[Verdict]:
    """What was promised of fig 5.6."""
    for kind in ("shortcuts", "aggreg"):
        for cells, name in ((DOWNLOADS, "downloads"), (MODELS, "the model")):
            hits = {
                cell.key: row.detail("hits_percent")[0]
                for cell in cells
                if (row := report.row(f"{cell.key}-{kind}")) is not None
            }
            worst = min(hits, key=lambda key: hits[key])
            yield Verdict(
                f"{kind}: in {name} shortcuts hit for ≥ {LEAST_HITS:.0%} of the segments: "
                f"{hits[worst]:.1f} % ({worst}) to {max(hits.values()):.1f} %",
                hits[worst] >= 100 * LEAST_HITS,
            )
    for label, groups in (
        ("from 2 to 64 subflows", [[(n, size) for n in SUBFLOWS] for size in QUEUED]),
        ("from 10² to 10⁵ queued segments", [[(n, size) for size in QUEUED] for n in SUBFLOWS]),
    ):
        own, beside = growth(report, groups, floor=False), growth(report, groups, floor=True)
        yield Verdict(
            f"aggreg: the cost of a segment, beside a dictionary's, is flat {label}: it grows by "
            f"at most {MOST_GROWTH:g}: {', '.join(f'{part:.2f}' for part in beside)} "
            f"(by itself {', '.join(f'{part:.2f}' for part in own)})",
            max(beside) <= MOST_GROWTH,
        )


def growth(report: Report, groups: list[list[tuple[int, int]]], *, floor: bool) -> list[float]:
    """By what Aggreg's cost grows from the first place (subflows, queued) of each group to its
    dearest; `floor`: the cost is the ratio to the dictionary's."""
    found = []
    for group in groups:
        costs = []
        for subflows, queued in group:
            cell = Cell("model", subflows, queued)
            cost, least = median(report, cell, "aggreg"), median(report, cell, FLOOR)
            if cost is not None and least is not None:
                costs.append(cost / least if floor else cost)
        found.append(max(costs) / costs[0])
    return found


def draw_bars(axes: Axes, report: Report) -> None:
    """Cost of a segment, a group for each download, a bar for each kind."""
    cells = [cell for cell in DOWNLOADS if report.row(f"{cell.key}-aggreg") is not None]
    for number, kind in enumerate(KINDS):
        places = [group + (number - 1.5) * 0.2 for group in range(len(cells))]
        heights = [median(report, cell, kind) or 0.0 for cell in cells]
        axes.bar(places, heights, width=0.2, label=kind)
        for place, height, cell in zip(places, heights, cells, strict=True):
            row = report.row(f"{cell.key}-{kind}")
            if row is not None and (share := row.detail("hits_percent")[0]):
                text = f"{share:.0f} % hits"
                axes.text(place, height, text, rotation=90, ha="center", va="bottom", fontsize=7)
    axes.set_xticks(
        range(len(cells)), labels=[f"{cell.subflows} subflows\n{cell.source}" for cell in cells]
    )
    axes.set_ylabel("CPU time for each queued segment, ns")
    axes.set_title("arrivals of a download", fontsize=10)
    axes.legend()
    axes.grid(alpha=0.3, axis="y")


def draw_lines(axes: Axes, report: Report) -> None:
    """Cost of a segment over the length of the queue."""
    for number, kind in enumerate((*KINDS, FLOOR)):
        for subflows, style in zip(SUBFLOWS, (":", "--", "-"), strict=True):
            found = [
                (cell.queued, cost)
                for cell in MODELS
                if cell.subflows == subflows and (cost := median(report, cell, kind)) is not None
            ]
            if found:
                label = f"{kind}, {subflows} subflows"
                at, costs = zip(*found, strict=True)
                axes.plot(at, costs, style, color=f"C{number}", marker="o", ms=4, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("segments in the queue (paths of unlike delay)")
    axes.set_ylabel("CPU time for each queued segment, ns")
    axes.set_title("model", fontsize=10)
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
