"""Goodput of plain TCP over a path that loses and reorders: response function and kernel beside it.

The virtual part measures every cell of the grid with our stack at both ends, in the simulator. The
real part measures six of them over the link emulator: ours and the kernel as the sender, the
kernel as the receiver of both, the same seeds, that is, the same packets lost.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

from mptcp.tcp.congestion import controllers

from .. import response
from ..emulated import Flow, Outcome, Trial, measure
from ..paths import MBIT, Cell
from ..plots import draw_tcp
from ..pool import spread
from ..registry import BenchError, Options, Progress, scenario
from ..results import Report, Row, Verdict, counted, number
from ..virtual import Job, transfer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATE_BPS: Final = 100 * MBIT
LOSSES: Final = (0.0, 0.001, 0.01, 0.03)
RTTS_MS: Final = (10, 50, 200)
REORDERINGS: Final = (0.0, 0.01)
GRID: Final = tuple(
    Cell(RATE_BPS, rtt * 1000, loss, reorder)
    for reorder in REORDERINGS
    for loss in LOSSES
    for rtt in RTTS_MS
)
REAL: Final = (
    # Every loss and every RTT occurs. What fills the link alone is the dearest: one such cell.
    Cell(RATE_BPS, 200_000, 0.0),
    Cell(RATE_BPS, 50_000, 0.001, 0.01),
    Cell(RATE_BPS, 200_000, 0.001),
    Cell(RATE_BPS, 10_000, 0.01),
    Cell(RATE_BPS, 50_000, 0.01, 0.01),
    Cell(RATE_BPS, 10_000, 0.03),
)
CONTROLS: Final = {"newreno": "reno", "cubic": "cubic"}
"""Ours, and what the kernel calls it."""

MEDIAN_RATIO: Final = 0.95
LEAST_RATIO: Final = 0.8
JUDGED_RUNS: Final = 5
JUDGED_SECONDS: Final = 30.0

_LOSSES_WANTED: Final = 150
_LONGEST_S: Final = 900.0
_TOGETHER_MBIT: Final = 60.0
"""What the trials that run at once may be expected to carry."""
_TOGETHER: Final = 10
_SLOW_MBIT: Final = 5.0
"""Below it a run sees few losses, and costs little: such a cell gets twice the runs."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What `Options` make of it."""

    controls: tuple[str, ...]
    grid: tuple[Cell, ...]
    real: tuple[Cell, ...]
    seeds: int
    runs: int
    seconds: float
    warmup: float
    quick: bool

    @property
    def judged(self) -> bool:
        """Whether the run is what the promise was given for."""
        enough = self.runs >= JUDGED_RUNS and self.seconds >= JUDGED_SECONDS
        return enough and set(self.real) == set(REAL) and len(self.controls) == len(CONTROLS)


def _plan(options: Options) -> _Plan:
    controls = tuple(name for name in CONTROLS if name in controllers.names())
    only = set(options.only)
    chosen = tuple(name for name in controls if name in only) or controls
    parts = only & {"virtual", "real"} or {"virtual", "real"}
    keys = only & {cell.key for cell in GRID}
    grid, real = (
        tuple(cell for cell in cells if not keys or cell.key in keys) if part in parts else ()
        for part, cells in (("virtual", GRID), ("real", REAL))
    )
    if not options.quick:
        return _Plan(
            chosen, grid, real, 1, options.runs or JUDGED_RUNS, options.seconds or 30.0, 5.0, False
        )
    if not keys:
        grid, real = grid[3::5], real[3:4]
    return _Plan(chosen, grid, real, 1, options.runs or 1, options.seconds or 2.0, 1.0, True)


def _expected(cell: Cell, control: str) -> float:
    """Mbit/s by the response function and the link's rate."""
    rtt = cell.rtt_us / 1e6
    window = response.WINDOWS[control](cell.loss, rtt)
    return response.goodput(window, cell.loss, rtt, cell.rate_bps, cell.mtu) / MBIT


def _with_timeouts(cell: Cell) -> float:
    """Mbit/s by Padhye's formula, the retransmission time-out at its least of 200 ms + RTT."""
    rtt = cell.rtt_us / 1e6
    window = response.padhye_window(cell.loss, rtt, rtt + 0.2)
    return response.goodput(window, cell.loss, rtt, cell.rate_bps, cell.mtu) / MBIT


def _job(cell: Cell, control: str, seed: int, plan: _Plan) -> Job:
    """Long enough for a mean over many losses; a cell without any needs no long one."""
    warmup = max(5.0, 50 * cell.rtt_us / 1e6)
    seconds = 30.0
    if cell.loss:
        packets = _expected(cell, control) * MBIT / 8 / cell.mtu
        seconds = min(max(seconds, _LOSSES_WANTED / (cell.loss * packets)), _LONGEST_S)
    if plan.quick:
        warmup, seconds = plan.warmup, plan.seconds
    return Job(cell, control, seed, warmup, seconds)


@scenario
class Tcp:
    """`python -m bench run tcp`."""

    name = "tcp"
    summary = "plain TCP over loss, delay, reordering: response function (virtual), kernel (real)"
    needs_rights = True
    source = ""

    def cases(self) -> list[str]:
        """Parts, controllers and cells: `--only` chooses of each kind that it names."""
        return ["virtual", "real", *CONTROLS, *(cell.key for cell in GRID)]

    def run(self, options: Options, progress: Progress) -> Report:
        """See `Scenario`. `--runs` and `--seconds` are those of the real part."""
        plan = _plan(options)
        rows = [*_virtual(plan, progress), *_real(plan, options, progress)]
        report = Report(
            self.name,
            f"Plain TCP, {RATE_BPS // MBIT} Mbit/s, queue of one BDP",
            {
                "rate_bps": RATE_BPS,
                "runs": plan.runs,
                "seconds": plan.seconds,
                "warmup": plan.warmup,
                "virtual_seeds": plan.seeds,
                "controls": list(plan.controls),
            },
            rows,
            _notes(plan),
        )
        report.verdicts = _verdicts(report, plan)
        report.tables = lambda: _tables(report, plan)
        return report

    def draw(self, report: Report, figure: Figure) -> None:
        """See `Draws`."""
        draw_tcp(report, figure)


def _virtual(plan: _Plan, progress: Progress) -> list[Row]:
    """The grid in the simulator, one row a cell and controller."""
    rows = []
    jobs: list[tuple[Row, Job]] = []
    for control in plan.controls:
        for cell in plan.grid:
            expected = _expected(cell, control)
            row = Row(f"virtual-{control}-{cell.key}", f"{control}, {cell.label}", "Mbit/s")
            row.remark = f"response function {number(expected)}"
            rows.append(row)
            jobs += [(row, _job(cell, control, seed + 1, plan)) for seed in range(plan.seeds)]
    # The dearest first, so that no process is left with one at the end.
    jobs.sort(key=lambda entry: -_expected(entry[1].cell, entry[1].control) * entry[1].seconds)
    progress("virtual time", 0, len(jobs))
    found = spread(
        transfer,
        [job for _, job in jobs],
        lambda count: progress("virtual time", count, len(jobs)),
    )
    for (row, job), details in zip(jobs, found, strict=True):
        row.values.append(details["mbit_per_s"])
        row.details.append(
            {
                **details,
                **_cell_details(job.cell, job.control),
                "part": "virtual",
                "response": _expected(job.cell, job.control),
                "response_with_timeouts": _with_timeouts(job.cell),
            }
        )
        row.ratios["response"] = row.median / _expected(job.cell, job.control)
    return rows


def _cell_details(cell: Cell, control: str) -> dict[str, Any]:
    return {
        "control": control,
        "loss": cell.loss,
        "rtt_ms": cell.rtt_us / 1000,
        "reorder": cell.reorder,
    }


@dataclass(slots=True)
class _Measurement:
    """A trial of the real part, and where its result goes."""

    row: Row
    control: str
    trial: Trial
    load: float


def _pairs(plan: _Plan, rows: list[Row]) -> Iterator[list[_Measurement]]:
    """Ours and the kernel's over the same cell with the same seed; fills `rows`."""
    table: dict[tuple[Cell, str, bool], Row] = {}
    for control in plan.controls:
        for cell in plan.real:
            for ours in (True, False):
                who = "ours" if ours else "kernel"
                label = f"{who} {control if ours else CONTROLS[control]}, {cell.label}"
                row = Row(f"{who}-{control}-{cell.key}", label, "Mbit/s")
                table[cell, control, ours] = row
                rows.append(row)
    for run in range(2 * plan.runs):
        for cell in plan.real:
            for control in plan.controls:
                load = _expected(cell, control)
                if run >= plan.runs and (plan.quick or load >= _SLOW_MBIT):
                    continue
                yield [
                    _Measurement(
                        table[cell, control, ours],
                        control,
                        Trial(cell, (Flow(ours, control if ours else CONTROLS[control]),), run + 1),
                        load,
                    )
                    for ours in (True, False)
                ]


def _batches(pairs: Sequence[list[_Measurement]]) -> list[list[_Measurement]]:
    """What runs at once: pairs together as far as they fit, a trial that fills the link alone."""
    batches: list[list[_Measurement]] = []
    loads: list[float] = []
    for pair in pairs:
        load = sum(part.load for part in pair)
        if load > _TOGETHER_MBIT:
            for part in pair:
                batches.append([part])
                loads.append(_TOGETHER_MBIT)
            continue
        for place, batch in enumerate(batches):
            if loads[place] + load <= _TOGETHER_MBIT and len(batch) + len(pair) <= _TOGETHER:
                batch.extend(pair)
                loads[place] += load
                break
        else:
            batches.append(list(pair))
            loads.append(load)
    return batches


def _real(plan: _Plan, options: Options, progress: Progress) -> list[Row]:
    """Six cells over the emulator, two rows for each controller."""
    rows: list[Row] = []
    batches = _batches(list(_pairs(plan, rows)))
    span = plan.warmup + plan.seconds
    for place, batch in enumerate(batches):
        what = f"real time, {len(batch)} trial{'s' * (len(batch) > 1)}"
        progress(what, round(place * span), round(len(batches) * span))

        def tick(elapsed: float, what: str = what, place: int = place) -> None:
            progress(what, round(place * span + elapsed), round(len(batches) * span))

        outcomes = measure(
            [part.trial for part in batch],
            span,
            tag=f"tcp-{place + 1}",
            profile=options.profile,
            tick=tick,
        )
        for part, outcome in zip(batch, outcomes, strict=True):
            try:
                part.row.values.append(outcome.goodput(0, plan.warmup, span))
            except BenchError as error:
                raise BenchError(f"{part.row.label}, seed {part.trial.seed}: {error}") from error
            part.row.details.append(_details(part, outcome, len(batch)))
    for row in rows:
        row.remark = _remark(row)
    return rows


def _details(part: _Measurement, outcome: Outcome, together: int) -> dict[str, Any]:
    return {
        **_cell_details(part.trial.cell, part.control),
        "part": "real",
        "seed": part.trial.seed,
        "together": together,
        "samples": outcome.samples[0],
        "sender": outcome.senders[0],
        "emulator_cpu": outcome.emulator_cpu,
        "lateness_us": outcome.lateness_us,
        "link": outcome.link,
    }


def _remark(row: Row) -> str:
    if not row.details:
        return ""
    cpu = max(part["emulator_cpu"] for part in row.details)
    late = statistics.median(part["lateness_us"]["late_share"] for part in row.details)
    return f"emulator at most {100 * cpu:.0f} % CPU, {100 * late:.1f} % of probes over 1 ms late"


def _ratio(report: Report, control: str, cell: Cell) -> float | None:
    """Ours over the kernel's, entered into our row too."""
    key = f"ours-{control}-{cell.key}"
    report.compare(key, f"kernel-{control}-{cell.key}", "kernel")
    row = report.row(key)
    return row.ratios.get("kernel") if row is not None else None


def _verdicts(report: Report, plan: _Plan) -> list[Verdict]:
    found = [
        (ratio, f"{control}, {cell.label}")
        for control in plan.controls
        for cell in plan.real
        if (ratio := _ratio(report, control, cell)) is not None
    ]
    if not plan.judged or not found:
        return []
    middle = statistics.median(ratio for ratio, _ in found)
    least, where = min(found)
    return [
        Verdict(
            f"the median ratio to the kernel is at least {MEDIAN_RATIO}: {middle:.3f} "
            f"over {len(found)} cells and controllers",
            middle >= MEDIAN_RATIO,
        ),
        Verdict(f"no ratio is below {LEAST_RATIO}: {least:.3f} ({where})", least >= LEAST_RATIO),
    ]


def _notes(plan: _Plan) -> list[str]:
    notes = [
        "virtual: our stack at both ends in the simulator, no offload; loss and reordering of the "
        "data's direction, until about 150 losses are expected.",
        "response: RFC 5681 as AIMD, √(3/2p) packets per RTT (byte counting: b = 1); CUBIC: RFC "
        "9438 §5.1, at least that; at most what the link carries.",
    ]
    if plan.real:
        notes.append(
            f"real: sender ours or the kernel's, receiver the kernel's, over the link emulator; "
            f"{counted(plan.runs, 'run')} of {plan.seconds:g} s after {plan.warmup:g} s (twice as "
            f"many in cells below {_SLOW_MBIT:g} Mbit/s), same seeds; lossy cells run at once."
        )
        if not plan.judged:
            notes.append("not judged: that takes all cells, 5 runs and 30 s.")
    return notes


def _tables(report: Report, plan: _Plan) -> list[Table]:
    tables = []
    if plan.grid:
        tables.append(_virtual_table(report, plan))
    if plan.real:
        tables.append(_real_table(report, plan))
    return tables


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("cell")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _virtual_table(report: Report, plan: _Plan) -> Table:
    columns = [
        column for control in plan.controls for column in (control, "response", "÷ response")
    ]
    title = f"{report.title}: goodput in virtual time, Mbit/s"
    table = _table(title, *columns, "with time-outs")
    for cell in plan.grid:
        cells = []
        for control in plan.controls:
            row = report.row(f"virtual-{control}-{cell.key}")
            assert row is not None
            expected = number(_expected(cell, control))
            cells += [number(row.median), expected, f"{row.ratios['response']:.2f}"]
        table.add_row(cell.label, *cells, number(_with_timeouts(cell)))
    return table


def _real_table(report: Report, plan: _Plan) -> Table:
    title = f"{report.title}: goodput over the emulator, Mbit/s (median, least … largest)"
    table = _table(title, "control", "ours", "kernel", "÷ kernel", "late", "emulator CPU")
    for control in plan.controls:
        for cell in plan.real:
            ours, kernel = (report.row(f"{who}-{control}-{cell.key}") for who in ("ours", "kernel"))
            assert ours is not None
            assert kernel is not None
            details = [*ours.details, *kernel.details]
            late = statistics.median(part["lateness_us"]["late_share"] for part in details)
            cpu = max(part["emulator_cpu"] for part in details)
            table.add_row(
                cell.label,
                control,
                *(
                    f"{number(row.median)} ({number(min(row.values))} … {number(max(row.values))})"
                    for row in (ours, kernel)
                ),
                f"{ours.ratios.get('kernel', 0):.2f}",
                f"{100 * late:.1f} %",
                f"{100 * cpu:.0f} %",
            )
    return table
