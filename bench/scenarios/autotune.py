"""Thesis §4.3.5: the buffers over time, as a slow path joins.

Path A (40 Mbit/s, 10 ms) is there from the beginning, path B (8 Mbit/s, 200 ms) after 3 s. What a
connection needs is 2 * sum(BW_i) * RTT_max: little with A alone, ten times and more with B. Beside
it the whole buffer from the beginning, to see that tuning costs nothing.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, ClassVar, Final

from mptcp.config import Config

from ..multipath import Experiment, Link
from ..paths import MBIT
from ..registry import BenchError, scenario
from ..results import Report, Row, Verdict
from ..sweep import Measured, Point, Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

A: Final = Link(40 * MBIT, 5_000, jitter_us=50)
B: Final = Link(8 * MBIT, 100_000, jitter_us=50)
UP_S: Final = 2.95
"""When path B comes up: the join's third SYN, three seconds after the first, gets through."""
END_S: Final = 10.0
SAMPLE_US: Final = 20_000
KEPT: Final = 0.95
LEAST: Final = 0.8
MOST: Final = 2.0
ALONE_KIB: Final = 512
SOON_MS: Final = 400
"""Two round trips of path B."""
MIB: Final = 1 << 20


@scenario
class Autotune(Sweep):
    """`python -m bench run autotune`."""

    name = "autotune"
    summary = "receive and send buffer over time, as a path of 20 times the delay joins"
    source = "thesis §4.3.5"
    unit = "Mbit/s"
    seeds = 5
    columns: ClassVar = {
        "alone_kib": "buffer with A alone, KiB",
        "buffer_kib": "with both",
        "needed_kib": "needed",
        "late_ms": "grown after, ms",
    }

    def points(self, quick: bool) -> list[Point]:
        """See `Sweep`."""
        return [
            Point("tuned", "tuned from 128 KiB on", {"autotune": True}),
            Point("whole", "6 MiB from the beginning", {"autotune": False}),
        ]

    @staticmethod
    def measure(point: Point, seed: int, quick: bool) -> Measured:
        """See `Sweep`: goodput from the join on, and the buffers over time."""
        end = UP_S + 1.5 if quick else END_S
        held = Experiment([A, B], seed, Config(autotune=point.settings["autotune"]))
        sim = held.sim
        began = sim.now
        curve: list[tuple[float, int, int, int]] = []

        def look() -> None:
            peer, own = held.peer, held.connection
            if peer is not None and own is not None:
                srtts = [subflow.srtt for subflow in own.subflows if subflow.usable]
                at = round((sim.now - began) / 1e6, 3)
                curve.append((at, peer.rx.buffer, own.tx.capacity, max(srtts, default=0)))

        sim.every(SAMPLE_US, look)
        sim.set_down(held.paths[1], True)
        held.connect()
        held.send()
        held.run(UP_S)
        alone = curve[-1][1]
        sim.set_down(held.paths[1], False)
        assert held.peer is not None
        subflows = held.peer.subflows
        if not sim.run(2_000_000, until=lambda: any(s.path_index and s.is_join for s in subflows)):
            raise BenchError("path B was not joined")
        joined = (sim.now - began) / 1e6
        before = held.received
        held.run(end - joined)
        rtt_s = max(line[3] for line in curve) / 1e6
        needed = 2 * (A.rate_bps + B.rate_bps) / 8 * rtt_s
        first = next((line[3] for line in curve if line[0] > joined + 0.3), 0) / 1e6
        # With the round trip that the join itself has shown, before B's queue has filled.
        enough = 2 * A.rate_bps / 8 * first * 0.9
        at = next((line[0] for line in curve if line[1] >= enough and line[0] >= joined), end)
        return {
            "value": (held.received - before) * 8 / (end - joined) / 1e6,
            "alone_kib": alone / 1024,
            "buffer_kib": curve[-1][1] / 1024,
            "needed_kib": needed / 1024,
            "late_ms": 1000 * (at - joined),
            "joined_s": joined,
            "curve": curve,
        }

    def judge(self, rows: dict[str, Row]) -> list[Verdict]:
        """As large as needed, not much larger, soon, and without loss of goodput."""
        tuned, whole = rows["tuned"], rows["whole"]
        shares = [
            has / needs
            for has, needs in zip(
                tuned.detail("buffer_kib"), tuned.detail("needed_kib"), strict=True
            )
        ]
        alone = statistics.median(tuned.detail("alone_kib"))
        late = statistics.median(tuned.detail("late_ms"))
        return [
            Verdict(
                f"in the end the buffer is {LEAST} to {MOST} times 2 * sum(BW) * RTT_max: "
                f"{min(shares):.2f} to {max(shares):.2f}",
                LEAST <= min(shares) <= max(shares) <= MOST,
            ),
            Verdict(
                f"with path A alone it is below {ALONE_KIB} KiB: {alone:.0f} KiB",
                alone < ALONE_KIB,
            ),
            Verdict(
                f"it has grown for B within {SOON_MS} ms of the join: {late:.0f} ms",
                late <= SOON_MS,
            ),
            Verdict(
                f"goodput from the join on at least {KEPT} of that with the whole buffer: "
                f"{tuned.median / whole.median:.3f}",
                tuned.median >= KEPT * whole.median,
            ),
        ]

    def notes(self) -> list[str]:
        """See `Sweep`."""
        return ["grown after: from the join to 2 * BW_A * RTT_B, B's round trip without queueing."]

    def draw(self, report: Report, figure: Figure) -> None:
        """The buffers of the first seed over time, and what RTT_max asks for."""
        axes = figure.subplots()
        row = report.row("tuned")
        if row is None:
            return
        detail = row.details[0]
        at, receive, send, rtts = zip(*detail["curve"], strict=True)
        rates = [A.rate_bps + (B.rate_bps if when >= detail["joined_s"] else 0) for when in at]
        asked = [2 * bps / 8 * rtt / 1e6 / MIB for bps, rtt in zip(rates, rtts, strict=True)]
        axes.step(at, [size / MIB for size in receive], where="post", label="receive buffer")
        axes.step(at, [size / MIB for size in send], where="post", label="send buffer")
        axes.plot(at, asked, "k:", label="2 · ΣBW · RTTmax, with the sender's SRTT")
        axes.axvline(detail["joined_s"], color="gray", linestyle="--", linewidth=0.8)
        axes.annotate("path B joins", (detail["joined_s"], 5.6), ha="right", rotation=90, va="top")
        axes.set_xlabel("time, s")
        axes.set_ylabel("MiB")
        axes.set_ylim(0, 6.5)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
