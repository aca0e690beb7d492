"""Thesis fig. 5.5: goodput against the MSS, over one, two and three links.

The thesis' hosts are limited by what they can do for each packet. Virtual time knows no such limit:
there the headers alone decide, and n links have to carry n times what one does. So the
measurement has a second part: what the busier end of the stack could carry with one CPU, were
there no links, no devices and no kernel (`bench run micro`), and with it what 1 Gbit/s links would
carry.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final

from ..micro import measure as cost_of
from ..multipath import Link, bulk, payload_share
from ..paths import MBIT
from ..plots import draw_line
from ..registry import scenario
from ..results import Report, Row, Verdict
from ..sweep import Measured, Point, Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINK: Final = Link(100 * MBIT, 250)
"""A tenth of the thesis' Gigabit."""
GIGABIT: Final = 1000.0
HEADERS: Final = 40
"""IPv4 and TCP without options: what the MSS leaves out (RFC 9293 §3.7.1)."""
SIZES: Final = (500, 1400, 3000, 4500, 6000, 8900)
LINKS: Final = (1, 2, 3)
FILLED: Final = 0.97


@scenario
class Mss(Sweep):
    """`python -m bench run mss`."""

    name = "mss"
    summary = "goodput against the MSS, 1 to 3 links"
    source = "thesis fig. 5.5"
    unit = "Mbit/s"
    seeds = 3
    columns: ClassVar = {
        "filled": "of the ceiling",
        "cpu_mbit_s": "one CPU, Mbit/s",
        "gigabit_mbit_s": "1 Gbit/s links",
    }

    def points(self, quick: bool) -> list[Point]:
        """See `Sweep`."""
        return [
            Point(
                f"mss{mss}-links{links}",
                f"MSS {mss}, {links} link{'s' * (links > 1)}",
                {"mss": mss, "n": links},
            )
            for mss in (SIZES[1::4] if quick else SIZES)
            for links in (LINKS[::2] if quick else LINKS)
        ]

    @staticmethod
    def measure(point: Point, seed: int, quick: bool) -> Measured:
        """See `Sweep`."""
        mss, links = point.settings["mss"], point.settings["n"]
        mtu = mss + HEADERS
        found = bulk(
            [replace(LINK, mtu=mtu)] * links,
            seed,
            seconds=0.2 if quick else 2.0,
            warmup=0.3 if quick else 0.5,
        )
        packets = 500 if quick else 10_000
        cost = cost_of(paths=links, offload=False, mptcp=True, packets=packets, mtu=mtu)
        cpu = 8 * cost.bytes / cost.packets / max(cost.sender_us, cost.receiver_us)
        share = payload_share(mtu)
        return {
            "value": found.mbit_s,
            "filled": found.mbit_s * MBIT / (links * LINK.rate_bps * share),
            "cpu_mbit_s": cpu,
            "gigabit_mbit_s": min(cpu, links * GIGABIT * share),
        }

    def judge(self, rows: dict[str, Row]) -> list[Verdict]:
        """Every link is filled, whatever the MSS."""
        least, where = min((min(row.detail("filled")), row.label) for row in rows.values())
        return [
            Verdict(
                f"n links carry at least {FILLED} of n times what the headers leave: "
                f"{least:.3f} ({where})",
                least >= FILLED,
            )
        ]

    def notes(self) -> list[str]:
        """See `Sweep`."""
        return [
            "one CPU: payload over the CPU time of the busier end of the stack alone, packet by "
            "packet without offload, as the thesis' hosts without TSO; Gbit/s links: the lesser "
            "of that and of what the links carry.",
        ]

    def draw(self, report: Report, figure: Figure) -> None:
        """Left in virtual time, right as the thesis draws it: Gigabit links and one CPU."""
        left, right = figure.subplots(1, 2)
        points = report.settings["points"]
        for links in sorted({point["n"] for point in points.values()}):
            rows = [row for row in report.rows if points[row.key]["n"] == links]
            at = [points[row.key]["mss"] for row in rows]
            limited = [
                Row(row.key, row.label, row.unit, row.detail("gigabit_mbit_s")) for row in rows
            ]
            draw_line(left, at, rows, f"{links} × 100 Mbit/s")
            draw_line(right, at, limited, f"{links} × 1 Gbit/s")
        left.set_title("virtual time")
        right.set_title("one CPU for each end's stack")
        for axes in (left, right):
            axes.set_xlabel("MSS, bytes")
            axes.set_ylabel("goodput, Mbit/s")
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
            axes.legend()
