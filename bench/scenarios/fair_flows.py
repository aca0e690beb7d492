"""Thesis fig. 5.8: MPTCP with two subflows against 1 to 5 TCPs at a shared bottleneck.

Coupled (LIA) the connection is one more TCP; with NewReno on both subflows it is two. The
bottleneck is that of `fair_subflows`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..contest import Flow
from ..registry import scenario
from ..results import Report, Row, Verdict
from ..shares import draw_shares, fair_share, measure_share
from ..sweep import Measured, Point, Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOWS = (1, 2, 3, 4, 5)
CONTROLS = ("lia", "newreno")


@scenario
class FairFlows(Sweep):
    """`python -m bench run fair-flows`."""

    name = "fair-flows"
    summary = "MPTCP of 2 subflows against 1 to 5 TCPs (NewReno) at a bottleneck of 10 Mbit/s"
    source = "thesis fig. 5.8"
    unit = "× one NewReno"
    columns: ClassVar = {"mptcp": "MPTCP", "tcp": "TCPs, Mbit/s"}

    def points(self, quick: bool) -> list[Point]:
        """See `Sweep`."""
        return [
            Point(
                f"{control}-{flows}",
                f"{control}, {flows} TCP{'s' * (flows > 1)}",
                {"control": control, "at": flows, "tcps": flows},
            )
            for control in CONTROLS
            for flows in (FLOWS[1:2] if quick else FLOWS)
        ]

    @staticmethod
    def measure(point: Point, seed: int, quick: bool) -> Measured:
        """See `Sweep`."""
        flow = Flow(point.settings["control"], subflows=2)
        return measure_share(flow, point.settings["at"], seed, quick)

    def judge(self, rows: dict[str, Row]) -> list[Verdict]:
        """LIA is one TCP among any number; NewReno on both subflows is more."""
        lowest = min((rows[f"newreno-{flows}"] for flows in FLOWS), key=lambda row: row.interval[0])
        return [
            *(fair_share(rows[f"lia-{flows}"]) for flows in FLOWS),
            Verdict(
                "uncoupled it takes more than one TCP does, beside any number of them: "
                f"{lowest.mean:.2f} at least, from {lowest.interval[0]:.2f} ({lowest.label})",
                lowest.interval[0] > 1,
            ),
        ]

    def draw(self, report: Report, figure: Figure) -> None:
        """Stacked bars as in the thesis."""
        draw_shares(report, figure, CONTROLS, "TCPs beside the MPTCP connection")
