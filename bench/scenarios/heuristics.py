"""Thesis §4.6: when to open a second subflow, and when to close one that costs more than it brings.

Bulk for 12 seconds, with LIA, over a path of 20 Mbit/s and 20 ms (A) and a second one (B):

    even    the same again, large buffers: nothing is to be closed
    slow    1 Mbit/s and 400 ms, buffers of 128 KiB: B holds up the window (the thesis's example)
    bloat   2 Mbit/s, 20 ms and a queue of one second, buffers of 256 KiB: the delay is B's own work
    lossy   as A, but 30 % of the packets are lost; buffers of 128 KiB

beside A alone, with the scheduler and the retransmission policies of the default configuration.
The goodput is that of the last 8 s: a closing rule takes three periods to find a subflow guilty. On
the even pair the rules for opening stand beside each other too, over the first 2 s.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final

from mptcp.config import DEFAULT_HEURISTICS, Config

from ..multipath import Experiment, Link
from ..paths import MBIT
from ..plots import errors
from ..registry import scenario
from ..results import Report, Row, Verdict
from ..sweep import Measured, Point, Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

A: Final = Link(20 * MBIT, 10_000, jitter_us=500)
PAIRS: Final = {
    "even": ("even", A, 4 << 20),
    "slow": ("slow B, 128 KiB", Link(1 * MBIT, 200_000), 128 << 10),
    "bloat": ("bloated B, 256 KiB", Link(2 * MBIT, 10_000, queue_bytes=250_000), 256 << 10),
    "lossy": ("lossy B, 128 KiB", replace(A, loss=0.3), 128 << 10),
}
"""Text, link B, buffers in bytes."""
OPENING: Final = ("at-once", "default", "after-slow-start", "network-limited:2", "after-time:1")
CLOSING: Final = ("close-costly", "close-share", "close-loss", "default")
MEANT: Final = {"slow": "close-share", "bloat": "close-costly", "lossy": "close-loss"}
"""Which rule is for which harm; the default is for all of them."""
KEPT: Final = 0.95
UNHARMED: Final = 0.98
SETTLE_S: Final = 4.0
SECONDS: Final = 8.0
EARLY_S: Final = 2.0


@scenario
class Heuristics(Sweep):
    """`python -m bench run heuristics`."""

    name = "heuristics"
    summary = "goodput with rules for opening and for closing a second subflow"
    source = "thesis §4.6"
    unit = "Mbit/s"
    columns: ClassVar = {"closed": "closed", "b": "of it on B"}

    def points(self, quick: bool) -> list[Point]:
        """See `Sweep`."""
        pairs = ("slow",) if quick else tuple(PAIRS)
        points = []
        for pair in pairs:
            points.append(self._point(pair, "alone", "A alone"))
            points += [self._point(pair, rule, rule) for rule in ("at-once", *CLOSING)]
        if not quick:
            points.append(self._point("early", "alone", "first 2 s: A alone"))
            points += [self._point("early", rule, f"first 2 s: {rule}") for rule in OPENING]
        return points

    @staticmethod
    def _point(pair: str, rule: str, label: str) -> Point:
        text = PAIRS["even" if pair == "early" else pair][0]
        return Point(f"{pair}-{rule}", f"{text}: {label}", {"pair": pair, "rule": rule})

    @staticmethod
    def measure(point: Point, seed: int, quick: bool) -> Measured:
        """See `Sweep`."""
        pair, rule = point.settings["pair"], point.settings["rule"]
        early = pair == "early"
        _, second, buffer = PAIRS["even" if early else pair]
        rules = {"alone": "never", "default": DEFAULT_HEURISTICS}.get(rule, rule)
        config = Config(heuristics=rules, send_buffer=buffer, receive_buffer=buffer)
        held = Experiment([A] if rule == "alone" else [A, second], seed, config)
        held.connect()
        held.send()
        settle, seconds = (0.0, EARLY_S) if early else (SETTLE_S, 2.0 if quick else SECONDS)
        held.run(settle)
        before, paths_before = held.received, sum(held.arrived()[1:])
        held.run(seconds)
        return {
            "value": (held.received - before) * 8 / seconds / 1e6,
            "b": (sum(held.arrived()[1:]) - paths_before) * 8 / seconds / 1e6,
            "closed": held.client.stack.counters["MPTcpExtSubflowsCostly"],
        }

    def judge(self, rows: dict[str, Row]) -> list[Verdict]:
        """A closing rule mends the harm it is for, and does none; opening early is worth it."""
        verdicts = []
        for pair, rule in [*MEANT.items(), *((pair, "default") for pair in MEANT)]:
            alone, without = rows[f"{pair}-alone"].mean, rows[f"{pair}-at-once"].mean
            found = rows[f"{pair}-{rule}"].mean
            verdicts.append(
                Verdict(
                    f"{PAIRS[pair][0]}: {rule} keeps at least {KEPT} of A alone: "
                    f"{found / alone:.3f}, without it {without / alone:.3f}",
                    found >= KEPT * alone,
                )
            )
        even = rows["even-at-once"].mean
        worst, which = min((rows[f"even-{rule}"].mean / even, rule) for rule in CLOSING)
        verdicts.append(
            Verdict(
                f"even pair: every closing rule keeps at least {UNHARMED} of what there is without "
                f"one: {worst:.3f} ({which})",
                worst >= UNHARMED,
            )
        )
        best = max(rows[f"early-{rule}"].mean for rule in OPENING)
        default = rows["early-default"].mean
        verdicts.append(
            Verdict(
                f"even pair, first {EARLY_S:g} s: the default opens as early as is useful: "
                f"{default / best:.3f} of the best rule's goodput",
                default >= UNHARMED * best,
            )
        )
        return verdicts

    def draw(self, report: Report, figure: Figure) -> None:
        """Bars for each pair of paths; the part that came over B is the upper one."""
        points = report.settings["points"]
        pairs = list(dict.fromkeys(place["pair"] for place in points.values()))
        figure.set_size_inches(3.4 * len(pairs), 5.5)
        panels = figure.subplots(1, len(pairs), squeeze=False)[0]
        for pair, axes in zip(pairs, panels, strict=True):
            rows = [row for row in report.rows if row.values and points[row.key]["pair"] == pair]
            means = [row.mean for row in rows]
            upper = [sum(row.detail("b")) / len(row.values) for row in rows]
            lower = [mean - part for mean, part in zip(means, upper, strict=True)]
            places = range(len(rows))
            axes.bar(places, lower, color="C0", label="A")
            axes.bar(places, upper, bottom=lower, color="C1", label="B")
            axes.errorbar(places, means, yerr=errors(rows), fmt="none", ecolor="k", capsize=3)
            names = [points[row.key]["rule"] for row in rows]
            axes.set_xticks(places, labels=names, rotation=40, ha="right")
            axes.set_title("even, first 2 s" if pair == "early" else PAIRS[pair][0])
            axes.set_ylim(0, 1.12 * max(means))
            axes.grid(alpha=0.3, axis="y")
        panels[0].set_ylabel("goodput, Mbit/s")
        panels[0].legend()
