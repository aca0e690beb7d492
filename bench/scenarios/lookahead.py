"""Thesis fig. 4.8: which data a slow path is to have, and what that saves the receiver.

The figure's two paths, 100 ms and 10 ms of RTT, the rates 1 : 10 as there and ten times as large
(2.4 and 24 Mbit/s), so that windows are 20 segments instead of 2. With min-RTT the slow
path gets what is at the front of the queue, and all that follows waits for it at the receiver;
looking ahead, it gets what will be at the front when it arrives. Looked at: the bytes that wait
out of order at the receiver, sampled while a file is sent that keeps both paths busy.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from mptcp.config import Config
from mptcp.scheduler import schedulers

from ..multipath import Experiment, Link
from ..paths import MBIT
from ..plots import draw_bars
from ..registry import BenchError, scenario
from ..results import Report, Row, Verdict
from ..sweep import Measured, Point, Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUEUE: Final = 30_000
"""One bandwidth-delay product, of either path."""
LINKS: Final = (
    Link(24 * MBIT, 5_000, queue_bytes=QUEUE, jitter_us=500),
    Link(24 * MBIT // 10, 50_000, queue_bytes=QUEUE, jitter_us=500),
)
NAMES: Final = ("minrtt", "lookahead", "daps", "blest", "ecf")
SAMPLE_US: Final = 5_000
WARMUP_S: Final = 2.0
SECONDS: Final = 5.0
SHOWN_S: Final = 2.0
SEGMENT: Final = 1500
LESS: Final = 0.5
KEPT: Final = 0.98


@scenario
class LookAhead(Sweep):
    """`python -m bench run lookahead`."""

    name = "lookahead"
    summary = "bytes out of order at the receiver, over 24 Mbit/s, 10 ms and 2.4 Mbit/s, 100 ms"
    source = "thesis fig. 4.8"
    unit = "kB, mean"
    columns: ClassVar = {"p95": "95 %, kB", "mbit_s": "goodput, Mbit/s", "slow": "slow path's"}

    def points(self, quick: bool) -> list[Point]:
        """See `Sweep`."""
        names = NAMES[:2] if quick else NAMES
        return [Point(name, name, {"scheduler": name}) for name in names]

    @staticmethod
    def measure(point: Point, seed: int, quick: bool) -> Measured:
        """See `Sweep`."""
        seconds = 1.0 if quick else SECONDS
        held = Experiment(
            LINKS, seed, Config(scheduler=point.settings["scheduler"], heuristics="at-once")
        )
        held.connect()
        held.send()
        held.run(WARMUP_S)
        peer = held.peer
        if peer is None:
            raise BenchError("no connection came to be")
        waiting = held.sim.sample(SAMPLE_US, lambda: peer.rx.reorder.memory / 1e3)
        before, paths = held.received, held.arrived()
        held.run(seconds)
        slow = held.arrived()[1] - paths[1]
        return {
            "value": statistics.fmean(waiting.values),
            "p95": sorted(waiting.values)[int(0.95 * len(waiting.values))],
            "mbit_s": (held.received - before) * 8 / seconds / 1e6,
            "slow": slow * 8 / seconds / 1e6,
            "waiting": waiting.values[1 : 1 + round(SHOWN_S * 1e6 / SAMPLE_US)],
        }

    def judge(self, rows: dict[str, Row]) -> list[Verdict]:
        """The figure's own numbers, and less to reorder for the same goodput."""
        first, last = fig_4_8()
        ahead, base = rows["lookahead"], rows["minrtt"]
        rate = sum(ahead.detail("mbit_s")) / sum(base.detail("mbit_s"))
        return [
            Verdict(
                f"with the windows and RTTs of the text segments 19, 20 go to the slow path: "
                f"{first}, {last}",
                (first, last) == (19, 20),
            ),
            Verdict(
                f"looking ahead leaves at most {LESS} × as much out of order as min-RTT "
                f"({base.mean:.1f} kB): {ahead.mean / base.mean:.2f}",
                ahead.mean <= LESS * base.mean,
            ),
            Verdict(
                f"and costs no goodput (at least {KEPT} × min-RTT's): {rate:.3f}", rate >= KEPT
            ),
        ]

    def draw(self, report: Report, figure: Figure) -> None:
        """What waits at the receiver, over two seconds of the first seed, and the means."""
        left, right = figure.subplots(1, 2, width_ratios=(2, 1))
        rows = [row for row in report.rows if row.values]
        for row in rows:
            waiting = row.details[0]["waiting"]
            left.plot([n * SAMPLE_US / 1e6 for n in range(len(waiting))], waiting, label=row.label)
        left.set_xlabel("s")
        left.set_ylabel("out of order at the receiver, kB")
        left.legend()
        draw_bars(right, rows, self.unit)


@dataclass
class _View:
    """A path of the figure, as a scheduler sees it."""

    srtt: int
    path_index: int
    in_flight: int
    room: int
    cwnd: int = 2 * SEGMENT
    smss: int = SEGMENT
    backup: bool = False
    rttvar: int = 0
    rate: int = 0
    bytes_sent: int = 0
    acked_at: int = 0
    waiting_since: int = 0


@dataclass
class _Connection:
    """Its connection."""

    paths: list[_View]
    now: int = 0
    window: int = 1 << 20
    window_left: int = 1 << 20
    window_blocks: int = 0
    next_dsn: int = 2 * SEGMENT + 1
    more_waits: bool = True
    weights: tuple[int, ...] = ()


def fig_4_8() -> tuple[int, int]:
    """Which two segments the scheduler gives subflow 1 in the situation of the figure: RTTs of 100
    and 10 ms, windows of two segments, 1 and 2 in flight on subflow 2."""
    slow = _View(100_000, 1, 0, 2 * SEGMENT)
    scheduler = schedulers.get("lookahead")()
    scheduler.attach(_Connection([slow, _View(10_000, 2, 2 * SEGMENT, 0)]))
    first = 3 + scheduler.skip(slow, 60 * SEGMENT) // SEGMENT
    return first, first + 1
