"""Thesis fig. 5.9: one MPTCP connection of 1 to 3 subflows against one TCP at a shared bottleneck.

Coupled (LIA) it takes what one TCP takes, whatever its subflows; with NewReno on each of them it
takes as much as so many TCPs. The thesis has 100 Mbit/s for ten minutes; here it is a tenth of the
rate at 40 ms, where windows of some 30 segments have gone up and down often enough after a minute.
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

SUBFLOWS = (1, 2, 3)
CONTROLS = ("lia", "newreno")


@scenario
class FairSubflows(Sweep):
    """`python -m bench run fair-subflows`."""

    name = "fair-subflows"
    summary = "MPTCP of 1 to 3 subflows against one TCP (NewReno) at a bottleneck of 10 Mbit/s"
    source = "thesis fig. 5.9"
    unit = "× one NewReno"
    columns: ClassVar = {"mptcp": "MPTCP", "tcp": "TCP, Mbit/s"}

    def points(self, quick: bool) -> list[Point]:
        """See `Sweep`."""
        return [
            Point(
                f"{control}-{subflows}",
                f"{control}, {subflows} subflow{'s' * (subflows > 1)}",
                {"control": control, "at": subflows, "tcps": 1},
            )
            for control in CONTROLS
            for subflows in (SUBFLOWS[1:2] if quick else SUBFLOWS)
        ]

    @staticmethod
    def measure(point: Point, seed: int, quick: bool) -> Measured:
        """See `Sweep`."""
        settings = point.settings
        flow = Flow(settings["control"], subflows=settings["at"])
        return measure_share(flow, settings["tcps"], seed, quick)

    def judge(self, rows: dict[str, Row]) -> list[Verdict]:
        """LIA is fair for every number of subflows, and NewReno the less the more there are."""
        few, some, many = (rows[f"newreno-{subflows}"] for subflows in SUBFLOWS)
        apart = few.interval[1] < some.interval[0] and some.interval[1] < many.interval[0]
        return [
            *(fair_share(rows[f"lia-{subflows}"]) for subflows in SUBFLOWS),
            Verdict(
                "uncoupled, its share grows with the number of subflows: "
                f"{few.mean:.2f}, {some.mean:.2f}, {many.mean:.2f}, the intervals apart",
                apart,
            ),
        ]

    def draw(self, report: Report, figure: Figure) -> None:
        """Stacked bars as in the thesis."""
        draw_shares(report, figure, CONTROLS, "subflows of the MPTCP connection")
