"""How much of two links a connection fills, in real time: RTT ratios, small and large buffers.

Two emulated paths of 20 Mbit/s, the first with an RTT of 20 ms, the second with 1, 2, 5 and 10
times that; both ends may buffer 128 KiB or 4 MiB for the connection. Ours with its defaults at both
ends, beside the kernel at both ends with each of its congestion controls. The value is the goodput
over the sum of the links' rates; headers cost 5 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..emulated_paths import GRACE_S, EmulatedPaths, Road, Transfer
from ..paths import MBIT
from ..plots import draw_line
from ..pool import interrupts_held
from ..priority import preferred
from ..registry import BenchError, Options, Progress, scenario
from ..results import Report, Row, Verdict
from ..topology import Side

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATE_BPS: Final = 20 * MBIT
RTT_US: Final = 20_000
RATIOS: Final = (1, 2, 5, 10)
BUFFERS: Final = {"128k": 128 << 10, "4m": 4 << 20}
KERNEL: Final = ("bbr", "cubic", "reno")
WHO: Final = ("ours", *(f"kernel-{control}" for control in KERNEL))
LEAST: Final = 0.95
SHARE: Final = 0.8
RUNS: Final = 3
SECONDS: Final = 8.0
WARMUP_S: Final = 4.0
_BEST: Final = "kernel's best"


@dataclass(frozen=True, slots=True)
class Cell:
    """One network and one size of buffers."""

    ratio: int
    buffer: str

    @property
    def key(self) -> str:
        """Short name."""
        return f"r{self.ratio}-{self.buffer}"

    @property
    def label(self) -> str:
        """What people read."""
        size = BUFFERS[self.buffer]
        buffer = f"{size >> 20} MiB" if size >> 20 else f"{size >> 10} KiB"
        return f"RTT 1:{self.ratio}, {buffer}"

    @property
    def roads(self) -> tuple[Road, Road]:
        """The paths."""
        return Road(RATE_BPS, RTT_US), Road(RATE_BPS, RTT_US * self.ratio)


CELLS: Final = tuple(Cell(ratio, buffer) for buffer in BUFFERS for ratio in RATIOS)


def fill(cell: Cell, who: str, warmup: float, seconds: float) -> dict[str, Any]:
    """One transfer; "filled" is the goodput over the sum of the rates. Raises BenchError."""
    size = BUFFERS[cell.buffer]
    options = [f"--warmup={warmup}", f"--seconds={seconds}", f"--buffer={size}", "--urgent"]
    if who != "ours":
        options.append(f"--cc={who.partition('-')[2]}")
    with interrupts_held():
        ours = frozenset(Side) if who == "ours" else frozenset()
        paths = EmulatedPaths(cell.roads, ours=ours, buffer=size)
    with paths, preferred():
        with Transfer(paths, options, label=f"{who}, {cell.label}") as transfer:
            received, sender = transfer.result(warmup + seconds + GRACE_S)
        carried = paths.carried()
    return {
        "filled": received["gbit_per_s"] * 1e9 / sum(road.rate_bps for road in cell.roads),
        "cell": cell.key,
        "who": who,
        "longest_gap_ms": received["longest_gap_ms"],
        "path_shares": [part / max(1, sum(carried)) for part in carried],
        "subflows": sender.get("subflows", []),
    }


@scenario
class Aggregation:
    """`python -m bench run aggregation`."""

    name = "aggregation"
    summary = "goodput over the sum of two links, RTT ratios and buffers: ours and the kernel's"
    needs_rights = True
    source = "thesis fig. 5.2 in real time, beside Linux"

    def cases(self) -> list[str]:
        """Cells and senders: `--only` chooses of each kind that it names."""
        return [*(cell.key for cell in CELLS), *WHO]

    def run(self, options: Options, progress: Progress) -> Report:
        """See `Scenario`."""
        only = set(options.only)
        cells = [cell for cell in CELLS if cell.key in only] or list(CELLS)
        chosen = [who for who in WHO if who in only] or list(WHO)
        runs = options.runs or (1 if options.quick else RUNS)
        seconds, warmup = options.seconds or SECONDS, WARMUP_S
        if options.quick:
            seconds, warmup = options.seconds or 1.5, 1.0
            cells = cells if only & {cell.key for cell in CELLS} else [Cell(2, "4m")]
            chosen = chosen if only & set(WHO) else ["ours", "kernel-cubic"]
        rows = {
            (cell.key, who): Row(f"{who}-{cell.key}", f"{cell.label}, {who}", "of the rates")
            for cell in cells
            for who in chosen
        }
        again: list[str] = []
        jobs = [(cell, who) for _ in range(runs) for cell in cells for who in chosen]
        for place, (cell, who) in enumerate(jobs):
            progress(f"{cell.label}, {who}", place, len(jobs))
            try:
                found = fill(cell, who, warmup, seconds)
            except BenchError as error:
                # Minutes of other cells are not to be lost for one transfer that got stuck; who
                # gets stuck twice in a row does it by rule.
                again.append(str(error))
                found = fill(cell, who, warmup, seconds)
            row = rows[cell.key, who]
            row.values.append(found.pop("filled"))
            row.details.append(found)
        report = Report(
            self.name,
            f"Goodput over the sum of two links of {RATE_BPS // MBIT} Mbit/s, the first with "
            f"{RTT_US // 1000} ms, median of {runs} × {seconds:g} s",
            {"runs": runs, "seconds": seconds, "warmup": warmup, "rate_bps": RATE_BPS},
            list(rows.values()),
            ["both ends ours, with the default congestion control, or both the kernel's; queues of "
             "one bandwidth-delay product; the kernel's limits are twice the buffer, since it "
             "counts memory, not payload."],
            source=self.source,
        )  # fmt: skip
        report.notes += [f"measured again: {what}" for what in again]
        compare(report, cells)
        complete = len(cells) == len(CELLS) and len(chosen) == len(WHO)
        if complete and runs >= RUNS and seconds >= SECONDS:
            report.verdicts = judge(report)
        else:
            report.notes.append(f"not judged: that takes every cell, {RUNS} runs of {SECONDS:g} s.")
        return report

    def draw(self, report: Report, figure: Figure) -> None:
        """A panel for each size of buffers."""
        panels = figure.subplots(1, len(BUFFERS), sharey=True)
        for panel, buffer in zip(panels, BUFFERS, strict=True):
            for who in WHO:
                found = [
                    (ratio, row)
                    for ratio in RATIOS
                    if (row := report.row(f"{who}-{Cell(ratio, buffer).key}")) is not None
                ]
                if found:
                    draw_line(panel, [ratio for ratio, _ in found], [row for _, row in found], who)
                    panel.legend()
            panel.set_title(Cell(1, buffer).label.partition(", ")[2])
            panel.set_xscale("log")
            panel.set_xticks(RATIOS, labels=[f"1:{ratio}" for ratio in RATIOS])
            panel.minorticks_off()
            panel.set_xlabel("ratio of the RTTs")
            panel.grid(alpha=0.3)
        panels[0].set_ylabel("goodput over the sum of the rates")
        panels[0].set_ylim(0, 1)


def compare(report: Report, cells: list[Cell]) -> None:
    """Enter ours over the kernel's best control of each cell."""
    for cell in cells:
        kernel = [report.row(f"kernel-{control}-{cell.key}") for control in KERNEL]
        measured = [row for row in kernel if row is not None]
        if measured:
            best = max(measured, key=lambda row: row.median)
            report.compare(f"ours-{cell.key}", best.key, _BEST)


def judge(report: Report) -> list[Verdict]:
    """Ours is about as good as the kernel's best in most cells, and better in some."""
    ratios = {
        cell.label: row.ratios[_BEST]
        for cell in CELLS
        if (row := report.row(f"ours-{cell.key}")) is not None
    }
    good = [label for label, ratio in ratios.items() if ratio >= LEAST]
    failing = [f"{label} {ratio:.2f}" for label, ratio in ratios.items() if ratio < LEAST]
    better = [f"{label} {ratio:.2f}" for label, ratio in ratios.items() if ratio > 1]
    return [
        Verdict(
            f"ours is at least {LEAST} of the kernel's best in {100 * SHARE:.0f} % of the cells: "
            f"{len(good)} of {len(ratios)}; failing: {'; '.join(failing) or 'none'}",
            len(good) >= SHARE * len(ratios),
        ),
        Verdict(f"ours is better in some: {'; '.join(better) or 'none'}", bool(better)),
    ]
