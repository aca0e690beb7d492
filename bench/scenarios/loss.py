"""Thesis fig. 5.3: packets lost on one of two links, and what the other one carries all the same.

Link A loses nothing, link B 0 to 5 % of the data's packets; both have 100 Mbit/s and an RTT of
0.5 ms without queueing (the thesis adds no delay). MPTCP with LIA; beside it link A alone, with
MPTCP and with TCP.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final

from mptcp.config import Config

from ..multipath import Link, bulk
from ..paths import MBIT
from ..plots import errors
from ..registry import scenario
from ..results import Report, Row, Verdict
from ..sweep import Measured, Point, Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINK: Final = Link(100 * MBIT, 250)
LOSSES: Final = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05)
KEPT: Final = 0.95
GAIN: Final = 1.05
WARMUP_S: Final = 1.0
SECONDS: Final = 5.0


@scenario
class Loss(Sweep):
    """`python -m bench run loss`."""

    name = "loss"
    summary = "goodput of two 100 Mbit/s links, one of which loses packets, with LIA"
    source = "thesis fig. 5.3"
    unit = "Mbit/s"
    columns: ClassVar = {"a": "link A", "b": "link B"}

    def points(self, quick: bool) -> list[Point]:
        """See `Sweep`."""
        losses = LOSSES[::5] if quick else LOSSES
        return [
            Point("tcp", "TCP, link A alone", {"links": 1, "tcp": True}),
            Point("alone", "MPTCP, link A alone", {"links": 1, "tcp": False}),
            *(
                Point(
                    f"loss{100 * loss:g}",
                    f"MPTCP, {100 * loss:g} % lost on B",
                    {"links": 2, "tcp": False, "loss": loss},
                )
                for loss in losses
            ),
        ]

    @staticmethod
    def measure(point: Point, seed: int, quick: bool) -> Measured:
        """See `Sweep`."""
        settings = point.settings
        links = [LINK, replace(LINK, loss=settings.get("loss", 0.0))][: settings["links"]]
        found = bulk(
            links,
            seed,
            config=Config(congestion_control="newreno" if settings["tcp"] else "lia"),
            seconds=0.5 if quick else SECONDS,
            warmup=0.3 if quick else WARMUP_S,
            tcp=settings["tcp"],
        )
        a, *b = found.per_path
        return {"value": found.mbit_s, "a": a, "b": sum(b)}

    def judge(self, rows: dict[str, Row]) -> list[Verdict]:
        """The lossless subflow does not suffer, and two links are more than one."""
        alone = rows["alone"].mean
        lossy = [row for row in rows.values() if row.key.startswith("loss")]
        kept, where = min((sum(row.detail("a")) / len(row.values), row.label) for row in lossy)
        worst = rows["loss5"].interval[0] if len(rows["loss5"].values) > 1 else rows["loss5"].mean
        best_single = max(alone, rows["tcp"].mean)
        return [
            Verdict(
                f"link A carries at least {KEPT} of what it does alone ({alone:.1f} Mbit/s): "
                f"{kept / alone:.3f} ({where})",
                kept >= KEPT * alone,
            ),
            Verdict(
                f"with 5 % lost on B both carry more than {GAIN} × A alone ({best_single:.1f} "
                f"Mbit/s): {worst / best_single:.3f} at the interval's lower end",
                worst > GAIN * best_single,
            ),
        ]

    def draw(self, report: Report, figure: Figure) -> None:
        """Stacked bars as in the thesis, A below, B above; the line is TCP alone."""
        axes = figure.subplots()
        rows = [row for row in report.rows if row.key.startswith("loss")]
        places = [100 * report.settings["points"][row.key]["loss"] for row in rows]
        lower = [Row(row.key, row.label, row.unit, row.detail("a")) for row in rows]
        means = [row.mean for row in lower]
        upper = [row.mean - mean for row, mean in zip(rows, means, strict=True)]
        axes.bar(places, means, 0.6, color="white", edgecolor="black", label="link A")
        axes.errorbar(places, means, yerr=errors(lower), fmt="none", ecolor="C3", capsize=4)
        axes.bar(places, upper, 0.6, means, color="lightgray", edgecolor="black", label="link B")
        axes.errorbar(
            places, [row.mean for row in rows], yerr=errors(rows), fmt="none", ecolor="C0",
            capsize=4,
        )  # fmt: skip
        reference = report.row("tcp")
        if reference is not None:
            axes.axhline(reference.mean, linestyle="--", label="TCP (NewReno) over link A")
        axes.set_xlabel("packets lost on link B, %")
        axes.set_ylabel("goodput, Mbit/s")
        axes.set_ylim(0, 200)
        axes.legend()
