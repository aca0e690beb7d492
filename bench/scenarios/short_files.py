"""Thesis fig. 5.13: the time to connect and to transfer a short file.

The client opens the connection and sends the file at once; the time ends when the server's
application has the last byte. TCP has the better path only. With MPTCP the second path is opened by
different heuristics (thesis §4.6): at once, by the default, when slow start is over, when the
network has been the limit for two round trips. Three pairs of paths: two of 100 Mbit/s and 1 ms, as
near as the thesis tells to its own; the same with 20 ms; and 100 Mbit/s, 10 ms beside 20 Mbit/s,
40 ms. A jitter of a twentieth of the RTT makes the seeds differ.

Virtual time knows no cost of processing. What a second subflow costs shows in the packets, which
are those of the whole connection, its end included, both ways.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from mptcp.config import DEFAULT_HEURISTICS, Config

from ..multipath import Experiment, Link
from ..paths import MBIT
from ..plots import errors
from ..registry import BenchError, scenario
from ..results import Report, Row, Verdict
from ..sweep import Measured, Point, Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAIRS: Final = {
    "lan": ("two of 100 Mbit/s, 1 ms", Link(100 * MBIT, 500, jitter_us=25), None),
    "wan": ("two of 100 Mbit/s, 20 ms", Link(100 * MBIT, 10_000, jitter_us=500), None),
    "unlike": (
        "100 Mbit/s, 10 ms and 20 Mbit/s, 40 ms",
        Link(100 * MBIT, 5_000, jitter_us=250),
        Link(20 * MBIT, 20_000, jitter_us=1_000),
    ),
}
"""The second link, None: as the first."""
VARIANTS: Final = {
    "tcp": ("TCP", ""),
    "at-once": ("MPTCP, at once", "at-once"),
    "default": ("MPTCP, default", DEFAULT_HEURISTICS),
    "slow-start": ("MPTCP, after slow start", "after-slow-start"),
    "limited": ("MPTCP, network-limited", "network-limited:2"),
}
STYLES: Final = {
    "tcp": "k-",
    "at-once": "C1s--",
    "default": "C2o-",
    "slow-start": "C3^-",
    "limited": "C4v-",
}
PACKET: Final = 1428
"""Payload of a full segment with a DSS and timestamps."""
FEW: Final = 9 * PACKET
"""The last size below 10 packets."""
SIZES: Final = (
    *(1_000, 2_000, 4_000, 8_000, FEW, 20_000, 35_000, 60_000),
    *(128_000, 250_000, 500_000, 1_000_000, 3_000_000, 10_000_000),
)
LARGE: Final = 100_000
SLOWER: Final = 1.05
LIMIT_S: Final = 120


def _key(pair: str, variant: str, size: int) -> str:
    return f"{pair}-{variant}-{size}"


@scenario
class ShortFiles(Sweep):
    """`python -m bench run short-files`."""

    name = "short-files"
    summary = "time to transfer a short file: TCP, and MPTCP with its heuristics for opening"
    source = "thesis fig. 5.13"
    unit = "ms"
    columns: ClassVar = {"packets": "packets", "second": "on B, bytes"}

    def points(self, quick: bool) -> list[Point]:
        """See `Sweep`."""
        pairs = ("lan",) if quick else tuple(PAIRS)
        sizes = (FEW, 250_000) if quick else SIZES
        return [
            Point(
                _key(pair, variant, size),
                f"{VARIANTS[variant][0]}, {size / 1000:g} kB, {pair}",
                {"pair": pair, "variant": variant, "size": size},
            )
            for size in sizes
            for pair in pairs
            for variant in VARIANTS
        ]

    @staticmethod
    def measure(point: Point, seed: int, quick: bool) -> Measured:
        """See `Sweep`."""
        settings = point.settings
        _, first, second = PAIRS[settings["pair"]]
        rule = VARIANTS[settings["variant"]][1]
        config = (
            Config(heuristics=rule) if rule else Config(mptcp=False, congestion_control="newreno")
        )
        held = Experiment([first, second or first], seed, config, tcp=not rule)
        size = settings["size"]
        began = held.sim.now
        held.connect()
        held.send(size, close=True)
        held.marks.append(size)
        if not held.sim.run(LIMIT_S * 1_000_000, until=lambda: bool(held.reached)):
            raise BenchError(f"{held.received} of {size} bytes arrived in {LIMIT_S} s")
        took = held.reached[0] - began
        on_second = held.arrived()[1]
        held.run(2.0)
        packets = sum(way.link.stats.packets for path in held.paths for way in path)
        return {"value": took / 1000, "packets": packets, "second": on_second}

    def judge(self, rows: dict[str, Row]) -> list[Verdict]:
        """Short files do not suffer, long ones gain."""
        verdicts = []
        for pair, (text, _, second) in PAIRS.items():
            ratios = {
                size: rows[_key(pair, "default", size)].mean / rows[_key(pair, "tcp", size)].mean
                for size in SIZES
            }
            short = max(ratio for size, ratio in ratios.items() if size <= FEW)
            verdicts.append(
                Verdict(
                    f"{text}: below 10 packets the default takes at most {SLOWER} of TCP's time: "
                    f"{short:.3f}",
                    short <= SLOWER,
                )
            )
            ratio, size = max((ratio, size) for size, ratio in ratios.items() if size > LARGE)
            found = (
                f"{text}: above 100 kB it takes %s of TCP's time: {ratio:.3f} ({size / 1000:g} kB)"
            )
            if second is None:
                verdicts.append(Verdict(found % "less", ratio < 1))
            else:
                verdicts.append(Verdict(found % f"at most {SLOWER}", ratio <= SLOWER))
        few = [size for size in SIZES if size <= FEW]
        packets = {
            variant: sum(
                sum(rows[_key(pair, variant, size)].detail("packets"))
                for pair in PAIRS
                for size in few
            )
            for variant in ("default", "at-once")
        }
        verdicts.append(
            Verdict(
                "below 10 packets the default takes fewer packets than at once: "
                f"{packets['default'] / packets['at-once']:.3f} of them",
                packets["default"] < packets["at-once"],
            )
        )
        return verdicts

    def notes(self) -> list[str]:
        """See `Sweep`."""
        return ["ratios to TCP are judged on the means; the default is " + DEFAULT_HEURISTICS]

    def draw(self, report: Report, figure: Figure) -> None:
        """Time over size as in the thesis, both logarithmic, and below it the ratio to TCP's."""
        points = report.settings["points"]
        pairs = list(dict.fromkeys(place["pair"] for place in points.values()))
        figure.set_size_inches(5.5 * len(pairs), 8)
        panels = figure.subplots(2, len(pairs), squeeze=False, sharex=True)
        for column, pair in enumerate(pairs):
            upper, lower = panels[0][column], panels[1][column]
            base = {
                points[row.key]["size"]: row.mean
                for row in report.rows
                if points[row.key]["pair"] == pair and points[row.key]["variant"] == "tcp"
            }
            for variant, (label, _) in VARIANTS.items():
                chosen = [
                    row
                    for row in report.rows
                    if row.values
                    and points[row.key]["pair"] == pair
                    and points[row.key]["variant"] == variant
                ]
                sizes = [points[row.key]["size"] for row in chosen]
                means = [row.mean for row in chosen]
                style = STYLES[variant]
                upper.errorbar(sizes, means, errors(chosen), fmt=style, label=label, capsize=3)
                ratios = [mean / base[size] for mean, size in zip(means, sizes, strict=True)]
                lower.plot(sizes, ratios, style)
            upper.set_title(PAIRS[pair][0])
            upper.set_yscale("log")
            lower.set_xscale("log")
            lower.axhline(SLOWER, linestyle=":", color="grey")
            lower.axvline(10 * PACKET, linestyle=":", color="grey")
            lower.set_xlabel("file size, bytes")
            for panel in (upper, lower):
                panel.grid(alpha=0.3)
        panels[0][0].set_ylabel("transfer time, ms")
        panels[1][0].set_ylabel("÷ TCP's time")
        panels[0][0].legend()
