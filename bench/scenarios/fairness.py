"""Two flows share one bottleneck: how evenly, by Jain's index.

20 Mbit/s, 40 ms, a drop-tail queue of one bandwidth-delay product. The flows start together and
everything counts, slow start too: from the start to the end of 60 s.

Each packet is delayed by up to two transmission times more. A drop-tail queue without randomness
drops by phase: the kernel answers an acknowledgement at once, that is, always at the same moment of
the bottleneck's cycle, and then has most of the losses beside a sender that takes a moment to wake
(four to one measured on an idle machine, and Jain's index 0.88 to 0.95; two flows of either kind
share alike). Floyd and Jacobson, "On Traffic Phase Effects in Packet-Switched Gateways" (1992), who
found this, add a random delay in the order of the bottleneck's transmission time.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

from mptcp.tcp.congestion import controllers

from ..emulated import Flow, Outcome, Trial, measure
from ..paths import MBIT, Cell
from ..plots import draw_fairness
from ..pool import spread
from ..registry import Options, Progress, scenario
from ..results import Report, Row, Verdict, number
from ..virtual import Job, share

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRANSMISSION_US: Final = 600
"""Of a full packet at the bottleneck."""
CELL: Final = Cell(20 * MBIT, 40_000, jitter_us=2 * TRANSMISSION_US)
SECONDS: Final = 60.0
JUDGED_RUNS: Final = 3
_TOGETHER: Final = 3
"""Trials at once."""


@dataclass(frozen=True, slots=True)
class Case:
    """Who shares, and how evenly it is to be. No `flows`: in virtual time, ours with `control`."""

    key: str
    label: str
    control: str
    """Ours; a case is left out where it is not registered."""
    flows: tuple[Flow, ...] = ()
    least: float = 0.0
    """What the median index is to reach; 0: for comparison only."""


def _cases() -> tuple[Case, ...]:
    found = []
    for control, kernel in (("newreno", "reno"), ("cubic", "cubic")):
        ours, theirs = Flow(True, control), Flow(False, kernel)
        found += [
            Case(f"virtual-{control}", f"ours {control} × 2, virtual", control, (), 0.98),
            Case(f"ours-{control}", f"ours {control} × 2", control, (ours, ours), 0.98),
            Case(
                f"mixed-{control}",
                f"ours {control}, kernel {kernel}",
                control,
                (ours, theirs),
                0.95,
            ),
            Case(f"kernel-{kernel}", f"kernel {kernel} × 2", control, (theirs, theirs)),
        ]
    return tuple(found)


CASES: Final = _cases()


def jain(rates: Sequence[float]) -> float:
    """(Σx)² / n Σx² (Jain, Chiu and Hawe 1984): 1 for equal shares, 1/n when one has it all.

    Raises ZeroDivisionError when nobody got anything.
    """
    return sum(rates) ** 2 / (len(rates) * sum(rate * rate for rate in rates))


@scenario
class Fairness:
    """`python -m bench run fairness`."""

    name = "fairness"
    summary = "two flows at one bottleneck, ours and the kernel's: Jain's index"
    needs_rights = True
    source = ""

    def cases(self) -> list[str]:
        """See `Scenario`."""
        return [case.key for case in CASES]

    def run(self, options: Options, progress: Progress) -> Report:
        """See `Scenario`."""
        chosen = [
            case
            for case in CASES
            if case.control in controllers.names()
            and (not options.only or case.key in options.only)
        ]
        runs = options.runs or (1 if options.quick else 5)
        seconds = options.seconds or (2.0 if options.quick else SECONDS)
        rows = {case.key: Row(case.key, case.label, "Jain's index") for case in chosen}
        _virtual([case for case in chosen if not case.flows], rows, runs, seconds, progress)
        _real([case for case in chosen if case.flows], rows, runs, seconds, options, progress)
        report = Report(
            self.name,
            f"Two flows at {CELL.rate_bps // MBIT} Mbit/s, {CELL.rtt_us // 1000} ms, queue of one "
            f"BDP, {seconds:g} s from the start, median of {runs}",
            {
                "rate_bps": CELL.rate_bps,
                "rtt_us": CELL.rtt_us,
                "jitter_us": CELL.jitter_us,
                "queue_bytes": CELL.queue_bytes,
                "runs": runs,
                "seconds": seconds,
            },
            list(rows.values()),
        )
        judged = runs >= JUDGED_RUNS and seconds >= SECONDS
        if judged:
            report.verdicts = [
                Verdict(
                    f"{case.label}: index at least {case.least}: {rows[case.key].median:.3f}",
                    rows[case.key].median >= case.least,
                )
                for case in chosen
                if case.least and rows[case.key].values
            ]
        report.notes = [
            "both flows start together (virtual: within one RTT of each other) and everything "
            "counts, slow start too; receiver: the kernel (virtual: ours).",
            *([] if judged else ["not judged: that takes 3 runs of 60 s."]),
        ]
        report.tables = lambda: [_table(report)]
        return report

    def draw(self, report: Report, figure: Figure) -> None:
        """See `Draws`."""
        draw_fairness(report, figure)


def _virtual(
    cases: Sequence[Case], rows: dict[str, Row], runs: int, seconds: float, progress: Progress
) -> None:
    jobs = [
        (case, Job(CELL, case.control, seed + 1, 0.0, seconds))
        for seed in range(runs)
        for case in cases
    ]
    progress("virtual time", 0, len(jobs))
    found = spread(
        _share, [job for _, job in jobs], lambda count: progress("virtual time", count, len(jobs))
    )
    for (case, job), samples in zip(jobs, found, strict=True):
        names = [f"ours {case.control}"] * len(samples)
        _enter(rows[case.key], names, samples, {"seed": job.seed})


def _share(job: Job) -> list[list[tuple[float, int]]]:
    """Two flows in virtual time; where in the first RTT the second starts is the seed's."""
    offset = random.Random(f"offset {job.seed}").randrange(CELL.rtt_us)
    return share(job, flows=2, offset_us=offset)


def _real(
    cases: Sequence[Case],
    rows: dict[str, Row],
    runs: int,
    seconds: float,
    options: Options,
    progress: Progress,
) -> None:
    queue = [(case, Trial(CELL, case.flows, run + 1)) for run in range(runs) for case in cases]
    batches = [queue[place : place + _TOGETHER] for place in range(0, len(queue), _TOGETHER)]
    for place, batch in enumerate(batches):
        what = f"real time, {len(batch)} pairs"

        def tick(elapsed: float, what: str = what, place: int = place) -> None:
            progress(what, round(place * seconds + elapsed), round(len(batches) * seconds))

        tick(0.0)
        outcomes = measure(
            [trial for _, trial in batch],
            seconds,
            tag=f"fairness-{place + 1}",
            profile=options.profile,
            tick=tick,
        )
        for (case, trial), outcome in zip(batch, outcomes, strict=True):
            names = [flow.label for flow in case.flows]
            _enter(rows[case.key], names, outcome.samples, _details(trial, outcome))


def _details(trial: Trial, outcome: Outcome) -> dict[str, Any]:
    return {
        "seed": trial.seed,
        "senders": outcome.senders,
        "emulator_cpu": outcome.emulator_cpu,
        "lateness_us": outcome.lateness_us,
        "link": outcome.link,
    }


def _enter(
    row: Row,
    names: list[str],
    samples: list[list[tuple[float, int]]],
    details: dict[str, Any],
) -> None:
    """Add a run to its row."""
    rates = [line[-1][1] * 8 / line[-1][0] / MBIT for line in samples]
    row.values.append(jain(rates))
    row.details.append({"flows": names, "mbit_per_s": rates, "samples": samples, **details})


def _table(report: Report) -> Table:
    table = Table(title=report.title, title_justify="left")
    table.add_column("")
    for heading in ("Jain", "min", "max", "1st", "2nd, Mbit/s", "late"):
        table.add_column(heading, justify="right")
    for row in report.rows:
        if not row.values:
            continue
        pairs = [detail["mbit_per_s"] for detail in row.details]
        shares = [statistics.median(pair[flow] for pair in pairs) for flow in range(2)]
        late = [
            detail["lateness_us"]["late_share"] for detail in row.details if "lateness_us" in detail
        ]
        table.add_row(
            row.label,
            *(f"{value:.3f}" for value in (row.median, min(row.values), max(row.values))),
            *(number(value) for value in shares),
            f"{100 * statistics.median(late):.1f} %" if late else "",
        )
    return table
