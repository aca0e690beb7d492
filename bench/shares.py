"""What figures 5.8 and 5.9 of the thesis have in common: bottleneck, judgement, bars.

The share of an MPTCP connection is its goodput over the mean of the TCPs'.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from .contest import Flow, contest
from .multipath import Link
from .paths import MBIT
from .plots import errors
from .results import Report, Row, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BOTTLENECK: Final = Link(10 * MBIT, 20_000)
"""A tenth of the thesis' rate; an RTT of 40 ms, and a queue of that."""
SECONDS: Final = 60.0
WARMUP_S: Final = 10.0
LEAST: Final = 0.8
MOST: Final = 1.1


def measure_share(flow: Flow, tcps: int, seed: int, quick: bool) -> dict[str, Any]:
    """The share of `flow` beside `tcps` NewReno flows, and what they all got in Mbit/s."""
    mine, *others = contest(
        [BOTTLENECK],
        [flow] + [Flow("newreno")] * tcps,
        seed,
        seconds=2.0 if quick else SECONDS,
        warmup=2.0 if quick else WARMUP_S,
    )
    rates = [share.mbit_s for share in others]
    return {
        "value": mine.mbit_s / statistics.fmean(rates),
        "mptcp": mine.mbit_s,
        "tcp": sum(rates),
    }


def fair_share(row: Row) -> Verdict:
    """Whether the mean share is that of one TCP, within the limits."""
    low, high = row.interval
    return Verdict(
        f"{row.label}: between {LEAST} and {MOST} of one NewReno flow: {row.mean:.2f} "
        f"({low:.2f} to {high:.2f} with 95 %)",
        LEAST <= row.mean <= MOST,
    )


def draw_shares(report: Report, figure: Figure, controls: Sequence[str], below: str) -> None:
    """A stacked bar for each point: the TCPs' goodput and on top the connection's.

    The dashed line is where they would meet if the connection were one of the TCPs.
    """
    axes = figure.subplots()
    points = report.settings["points"]
    width = 0.8 / len(controls)
    for number, control in enumerate(controls):
        rows = [row for row in report.rows if points[row.key]["control"] == control]
        places = [
            points[row.key]["at"] + (number - (len(controls) - 1) / 2) * width for row in rows
        ]
        tcp, mptcp = (
            [Row(row.key, row.label, report.rows[0].unit, row.detail(part)) for row in rows]
            for part in ("tcp", "mptcp")
        )
        lower = [row.mean for row in tcp]
        axes.bar(
            places,
            lower,
            width * 0.9,
            yerr=errors(tcp),
            capsize=3,
            color="white",
            edgecolor="black",
            label="TCP (NewReno)" if not number else None,
        )
        axes.bar(
            places,
            [row.mean for row in mptcp],
            width * 0.9,
            lower,
            color=f"C{number}",
            edgecolor="black",
            label=f"MPTCP, {control}",
        )
        for row, place, below_it, above in zip(rows, places, lower, mptcp, strict=True):
            tcps = points[row.key]["tcps"]
            fair = (below_it + above.mean) * tcps / (tcps + 1)
            axes.hlines(fair, place - width / 2, place + width / 2, "C3", "dashed")
    axes.set_xticks(sorted({point["at"] for point in points.values()}))
    axes.set_xlabel(below)
    axes.set_ylabel("goodput, Mbit/s")
    figure.legend(loc="outside lower center", ncols=1 + len(controls))
