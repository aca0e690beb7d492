"""`python -m soak`: many sessions, or one again.

Exit status: 0 every session held, 1 one did not, 2 wrong usage, 130 interrupted (what had run by
then held). Sessions are numbered: number n is `Scenario.from_seed(n)` on every machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from soak.program import Failure
from soak.scenario import Scenario
from soak.session import run
from soak.tally import BATCH, KINDS, MIN_BYTES, MIN_EVENTS, Tally, prepare_worker, run_batch

MAX_FAILURES: Final = 20
"""After so many the rest would tell nothing new."""


class _Parser(argparse.ArgumentParser):
    """Refuses in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"soak: {message}\n")


def _number(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    top = _Parser(prog="soak", description="Random sessions through a hostile network.")
    top.add_argument("--sessions", type=_number, default=200_000, help="how many (%(default)s)")
    top.add_argument("--seed", type=_number, default=0, help="number of the first one")
    top.add_argument("--processes", type=_number, default=min(2, os.cpu_count() or 1))
    top.add_argument("--minutes", type=float, default=60.0, help="stop after so long, well")
    top.add_argument(
        "--replay", metavar="NUMBER|JSON", help="run one session again, from its seed or its line"
    )
    return top


def replay(what: str) -> int:
    """Run one session and say how it went."""
    try:
        if what.isdigit():
            scenario, goals = Scenario.from_seed(int(what)), (MIN_BYTES, MIN_EVENTS)
        else:
            scenario, goals = Scenario.from_line(what), (0, 0)
    except (ValueError, TypeError) as error:
        sys.stderr.write(f"soak: no seed and no scenario: {error}\n")
        return 2
    print(scenario.to_line())
    try:
        result = run(scenario, min_bytes=goals[0], min_events=goals[1])
    except Failure as failure:
        print(failure)
        return 1
    kinds = ", ".join(f"{getattr(result.events, kind)} {kind}" for kind in KINDS)
    print(f"held: {result.bytes} bytes, {result.events.total} events ({kinds})")
    return 0


def _batches(first: int, count: int) -> Iterator[range]:
    for at in range(first, first + count, BATCH):
        yield range(at, min(at + BATCH, first + count))


def soak(args: argparse.Namespace, console: Console) -> int:
    """Run the sessions, two processes at a time, and print what came of them."""
    tally = Tally()
    begin = time.monotonic()
    interrupted = False
    bar = Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.0f}/s, {task.fields[failed]} failed"),
        TimeRemainingColumn(),
        console=console,
        # A log gets the summary only.
        disable=not console.is_terminal,
    )
    # Ctrl-C goes to every process of a terminal's group; this one alone heeds it.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    pool = multiprocessing.get_context("spawn").Pool(max(1, args.processes), prepare_worker)
    try:
        signal.signal(signal.SIGINT, handler)
        console.print(
            f"sessions {args.seed:,} to {args.seed + args.sessions - 1:,}: each moves at least "
            f"{MIN_BYTES >> 10} KiB through at least {MIN_EVENTS} network events; Ctrl-C ends them"
        )
        with bar:
            task = bar.add_task("sessions", total=args.sessions, rate=0.0, failed=0)
            last_line = begin
            for part in pool.imap_unordered(run_batch, _batches(args.seed, args.sessions)):
                tally.merge(part)
                now = time.monotonic()
                rate = tally.sessions / (now - begin)
                bar.update(task, completed=tally.sessions, rate=rate, failed=len(tally.failures))
                for seed, text in part.failures:
                    _show_failure(console, seed, text)
                if not console.is_terminal and now - last_line >= 30:
                    last_line = now
                    console.print(
                        f"{tally.sessions} of {args.sessions} sessions, {rate:.0f}/s, "
                        f"{len(tally.failures)} failed"
                    )
                if len(tally.failures) >= MAX_FAILURES or now - begin > args.minutes * 60:
                    break
    except KeyboardInterrupt:
        interrupted = True
    finally:
        pool.terminate()
        pool.join()
    _summary(console, tally, time.monotonic() - begin)
    if tally.failures:
        return 1
    if interrupted:
        sys.stderr.write("soak: interrupted\n")
        return 130
    if tally.sessions < args.sessions:
        console.print(f"stopped after {args.minutes:g} minutes: {tally.sessions} sessions held")
    return 0


def _show_failure(console: Console, seed: int, text: str) -> None:
    lines = text.splitlines()
    console.print(f"seed {seed}: {lines[0]}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"  replay: python -m soak --replay {seed}", markup=False, highlight=False, soft_wrap=True
    )


def _spread(values: Sequence[int]) -> str:
    ordered = sorted(values)
    marks = [ordered[min(len(ordered) - 1, len(ordered) * p // 100)] for p in (0, 1, 50, 99, 100)]
    return " / ".join(f"{mark:,}" for mark in marks)


def _summary(console: Console, tally: Tally, seconds: float) -> None:
    held = len(tally.events)
    table = Table(title=f"{tally.sessions:,} sessions in {seconds:.0f} s", show_header=False)
    table.add_row("held", f"{held:,}")
    table.add_row("failed", f"{len(tally.failures):,}")
    if held:
        table.add_row("sessions/s", f"{tally.sessions / seconds:.0f}")
        table.add_row("bytes: least / 1 % / median / 99 % / most", _spread(tally.bytes))
        table.add_row("network events: the same", _spread(tally.events))
        for kind in KINDS:
            meaning = " (no event by itself)" if kind in ("overtaken", "delivered") else ""
            table.add_row(f"{kind}{meaning}", f"{tally.kinds[kind] / held:.1f} a session")
        table.add_row("connections", f"{tally.connections:,}")
        table.add_row("  of them aborted, closed early or cut off", f"{tally.errors:,}")
        table.add_row("  of them complete but for the last ACK", f"{tally.unheard:,}")
        table.add_row("virtual time", f"{tally.virtual_us / held / 1e6:.0f} s a session")
        for name, text in (
            ("send", "of the send buffer"),
            ("receive", "of twice the receive buffer, true memory"),
            ("reorder", "of a subflow's reassembly limit"),
        ):
            table.add_row(f"most {text}", f"{tally.peaks[name]:.0%}")
        table.add_row("most timers per object", f"{tally.peaks['timers']:.0f}")
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    args = parser().parse_args(arguments)
    if args.replay is not None:
        return replay(args.replay)
    return soak(args, Console(soft_wrap=True))


if __name__ == "__main__":
    sys.exit(main())
