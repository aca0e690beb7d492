"""What becomes of MPTCP behind middleboxes, beside what RFC 8684 asks: `bench.boxes` has the table.

Ours to ours runs in virtual time, with every pattern of traffic and whichever side may connect; all
of a case's runs have to be right, the first is shown. Ours to the kernel's runs in real time over
the link emulator, each opening to the other. `--quick` leaves the kernel out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any, Final

from rich.table import Table

from ..boxes import emulated, simulated
from ..boxes.cases import CASES, TRAFFIC, Case
from ..boxes.result import Result
from ..registry import Options, Progress, scenario
from ..results import Report, Row, Verdict

_OURS: Final = "ours ↔ ours"
_OPENS: Final = "ours → kernel"
_OPENED: Final = "kernel → ours"
WHO: Final = (_OURS, _OPENS, _OPENED)

Run = Callable[[], tuple[Result, bool]]
"""Runs a cell: what to show of it, and whether all of it is what the RFC asks."""


def virtual(case: Case) -> tuple[Result, bool]:
    """Every opener and traffic: the first result, or the first that is wrong."""
    shown: Result | None = None
    for opener in case.openers:
        for traffic in TRAFFIC:
            result = simulated.run(case, opener, traffic)
            if not result.met(case):
                result.trouble = f"{opener} opens, {traffic.name}: {result.trouble or 'otherwise'}"
                return result, False
            shown = shown or result
    assert shown is not None  # every case has an opener
    return shown, True


def real(case: Case, ours: str) -> tuple[Result, bool]:
    """Side A opens, our stack is on side `ours`."""
    result = emulated.run(case, ours)
    return result, result.met(case)


def plan(options: Options) -> Iterator[tuple[Case, str, Run]]:
    """What is to be run: the case, who talks to whom, and how."""
    for case in CASES:
        if options.only and case.key not in options.only:
            continue
        yield case, _OURS, partial(virtual, case)
        if case.kernel and not options.quick:
            yield case, _OPENS, partial(real, case, "a")
            yield case, _OPENED, partial(real, case, "b")


def _cell(found: tuple[Result, bool] | None) -> str:
    if found is None:
        return "–"
    result, met = found
    outcome = result.outcome.value if result.outcome is not None else "failed"
    mark = "" if met else "✗ "
    return f"{mark}{outcome}, {result.received:,} B, {result.seconds:.1f} s"


@scenario
class Middleboxes:
    """`python -m bench run middleboxes`."""

    name = "middleboxes"
    summary = "MPTCP behind middleboxes beside what RFC 8684 asks: ours, and with the kernel"
    needs_rights = True
    source = ""

    def cases(self) -> list[str]:
        """See `Scenario`."""
        return [case.key for case in CASES]

    def run(self, options: Options, progress: Progress) -> Report:
        """See `Scenario`. `--runs` and `--seconds` mean nothing here."""
        steps = list(plan(options))
        found: dict[tuple[str, str], tuple[Result, bool]] = {}
        rows = []
        for number, (case, who, run) in enumerate(steps):
            progress(f"{case.key}, {who}", number, len(steps))
            result, met = found[case.key, who] = run()
            row = Row(f"{case.key}: {who}", f"{case.label}: {who}", "s", [result.seconds])
            outcome = result.outcome.value if result.outcome is not None else "failed"
            row.remark = f"{outcome}{'' if met else ', NOT as asked'}: {case.asks}"
            row.details.append(_details(case, result, met))
            rows.append(row)
        chosen = list({case.key: case for case, _, _ in steps}.values())
        notes = [
            f"{case.key}: not run with the kernel: {case.why_not}"
            for case in chosen
            if not case.kernel
        ]
        notes += [
            f"{key}, {who}: {result.trouble}"
            for (key, who), (result, met) in found.items()
            if not met
        ]
        return Report(
            self.name,
            "Behind middleboxes",
            {},
            rows,
            notes,
            [verdict for who in WHO if (verdict := _verdict(who, found)) is not None],
            tables=lambda: [_table(chosen, found)],
        )


def _details(case: Case, result: Result, met: bool) -> dict[str, Any]:
    return {
        **asdict(result),
        "outcome": result.outcome.value if result.outcome is not None else None,
        "expected": [outcome.value for outcome in case.expected],
        "asks": case.asks,
        "met": met,
    }


def _table(cases: list[Case], found: dict[tuple[str, str], tuple[Result, bool]]) -> Table:
    table = Table(title="Behind middleboxes", title_justify="left")
    for heading in ("case", "boxes", *WHO, "RFC 8684 asks"):
        table.add_column(heading)
    for case in cases:
        cells = [_cell(found.get((case.key, who))) for who in WHO]
        asked = f"{' or '.join(outcome.value for outcome in case.expected)} ({case.asks})"
        table.add_row(case.key, case.label, *cells, asked)
    return table


def _verdict(who: str, found: dict[tuple[str, str], tuple[Result, bool]]) -> Verdict | None:
    cells = [(key, met) for (key, whose), (_, met) in found.items() if whose == who]
    if not cells:
        return None
    wrong = [key for key, met in cells if not met]
    promise = f"{who}: {len(cells) - len(wrong)} of {len(cells)} cases end as RFC 8684 asks"
    return Verdict(f"{promise}{'; not ' if wrong else ''}{', '.join(wrong)}", not wrong)
