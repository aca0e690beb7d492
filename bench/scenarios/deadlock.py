"""Thesis fig. 4.5: a path fails, and a window of each subflow's own would stop the other one.

Paths of 20 Mbit/s, 40 ms and 4 ms; a receive buffer of 256 KiB; after one second path 1 is cut.
Path 2 fills the buffer long before path 1's time-out. "windows of subflows" is a model, for no
stack here has them: each subflow may send what its last ACK left of the shared buffer. What path 1
lost would have to go over path 2, whose window is zero, and stays so: nobody reads what lies beyond
a hole. "one window" is this stack in the same place: the window counts from DATA_ACK (RFC 8684
§3.3.5), and what fills the hole lies within it.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, ClassVar, Final

from mptcp.config import Config

from ..multipath import Experiment, Link
from ..paths import MBIT
from ..registry import scenario
from ..results import Report, Row, Verdict
from ..sweep import Measured, Point, Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINKS: Final = (
    Link(20 * MBIT, 20_000, jitter_us=50),
    Link(20 * MBIT, 2_000, jitter_us=50),
)
BUFFER: Final = 256 << 10
SEGMENT: Final = 1424
RTO_US: Final = 240_000
"""Of path 1 in the model: 200 ms beyond its RTT."""
CUT_S: Final = 1.0
AFTER_S: Final = 5.0
SAMPLE_US: Final = 20_000
LEAST_SHARE: Final = 0.75

Curve = list[tuple[float, float, int]]
"""(s, MB delivered, bytes that path 2 may send beyond what has arrived there)."""


class SubflowWindows:
    """The model: two subflows that are always full, and a window on each."""

    def __init__(self) -> None:
        self.events: list[tuple[int, int, str, int, int]] = []
        self.count = 0
        self.nxt = 0
        """Next segment of the connection that nobody has had."""
        self.rcv_nxt = 0
        self.held: set[int] = set()
        """Segments beyond the hole."""
        self.flight: list[set[int]] = [set(), set()]
        self.window = [BUFFER // SEGMENT, BUFFER // SEGMENT]
        """What each subflow was told last, in segments."""
        self.free_at = [0, 0]
        """When each link can take the next segment."""
        self.cwnd = [2 * link.rate_bps * link.delay_us // 4_000_000 // SEGMENT for link in LINKS]
        self.again: list[int] = []
        """What path 1 has lost, to go over path 2."""
        self.down = False

    def at(self, when: int, what: str, path: int, segment: int) -> None:
        """Put something on the agenda."""
        self.count += 1
        heapq.heappush(self.events, (when, self.count, what, path, segment))

    def send(self, now: int, path: int) -> None:
        """What this subflow's windows let go now."""
        link = LINKS[path]
        flight = self.flight[path]
        while len(flight) < min(self.cwnd[path], self.window[path]):
            if path == 1 and self.again:
                segment = self.again.pop(0)
            else:
                segment = self.nxt
                self.nxt += 1
            flight.add(segment)
            start = max(now, self.free_at[path])
            self.free_at[path] = start + SEGMENT * 8_000_000 // link.rate_bps
            if not (path == 0 and self.down):
                self.at(self.free_at[path] + link.delay_us, "data", path, segment)

    def run(self, until_us: int) -> Curve:
        """From the start to that time; path 1 is cut after `CUT_S`."""
        curve: Curve = []
        self.at(round(CUT_S * 1e6), "cut", 0, 0)
        for when in range(0, until_us, SAMPLE_US):
            self.at(when, "look", 0, 0)
        self.send(0, 0)
        self.send(0, 1)
        while self.events:
            now, _, what, path, segment = heapq.heappop(self.events)
            if what == "look":
                told = self.window[1] - len(self.flight[1])
                curve.append((now / 1e6, self.rcv_nxt * SEGMENT / 1e6, told * SEGMENT))
            elif what == "cut":
                self.down = True
                self.at(now + RTO_US, "timeout", 0, 0)
            elif what == "timeout":
                self.again = sorted(self.flight[0])
                self.send(now, 1)
            elif self.down and path == 0:
                continue  # it was on the way when the path was cut
            elif what == "data":
                self.arrive(segment)
                self.at(now + LINKS[path].delay_us, "ack", path, segment)
                self.at(now + LINKS[path].delay_us, "window", path, self.room())
            elif what == "ack":
                self.flight[path].discard(segment)
            else:
                self.window[path] = segment
                self.send(now, path)
        return curve

    def arrive(self, segment: int) -> None:
        """At the receiver, whose application reads all that is in order."""
        self.held.add(segment)
        while self.rcv_nxt in self.held:
            self.held.remove(self.rcv_nxt)
            self.rcv_nxt += 1

    def room(self) -> int:
        """The window that goes with an ACK: what is left of the shared buffer, in segments."""
        return max(0, BUFFER // SEGMENT - len(self.held))


def one_window(seed: int, quick: bool) -> tuple[Curve, int]:
    """This stack; the curve, and the least window that path 2 was told after the cut."""
    config = Config(receive_buffer=BUFFER, send_buffer=4 * BUFFER)
    held = Experiment(LINKS, seed, config)
    sim = held.sim
    began = sim.now
    curve: Curve = []
    held.connect()
    held.send()

    def look() -> None:
        told = 0
        for subflow in held.arriving:
            if held.path_of(subflow) == 1:
                told = subflow.rcv_adv - subflow.rcv_nxt
        curve.append(((sim.now - began) / 1e6, held.received / 1e6, told))

    sim.every(SAMPLE_US, look)
    held.run(CUT_S)
    sim.set_down(held.paths[0], True)
    held.run(1.0 if quick else AFTER_S)
    return curve, min(told for at, _, told in curve if at > CUT_S)


@scenario
class Deadlock(Sweep):
    """`python -m bench run deadlock`."""

    name = "deadlock"
    summary = (
        "goodput after one of two paths is cut: windows of subflows, and one of the connection"
    )
    source = "thesis fig. 4.5"
    unit = "Mbit/s"
    seeds = 10
    columns: ClassVar = {"window_kib": "least window on path 2, KiB", "silent_ms": "longest stop"}

    def points(self, quick: bool) -> list[Point]:
        """See `Sweep`."""
        return [
            Point("connection", "one window, from DATA_ACK on", {"model": False}),
            Point("subflows", "windows of subflows (model)", {"model": True}),
        ]

    @staticmethod
    def measure(point: Point, seed: int, quick: bool) -> Measured:
        """See `Sweep`: goodput from the cut on."""
        if point.settings["model"]:
            curve = SubflowWindows().run(round((CUT_S + AFTER_S) * 1e6))
            least = min(told for at, _, told in curve if at > CUT_S)
        else:
            curve, least = one_window(seed, quick)
        after = [(at, got) for at, got, _ in curve if at >= CUT_S]
        seconds = after[-1][0] - after[0][0]
        silent, since = 0.0, after[0]
        for at, got in after:
            if got > since[1]:
                since = (at, got)
            silent = max(silent, at - since[0])
        return {
            "value": (after[-1][1] - after[0][1]) * 8 / seconds,
            "window_kib": least / 1024,
            "silent_ms": 1000 * silent,
            "curve": curve,
        }

    def judge(self, rows: dict[str, Row]) -> list[Verdict]:
        """The model stops for good; this stack does not stop."""
        ours, model = rows["connection"], rows["subflows"]
        share = min(ours.values) * MBIT / LINKS[1].rate_bps
        window = min(ours.detail("window_kib"))
        return [
            Verdict(
                "windows of subflows: path 2 is told a zero window and nothing is delivered any "
                f"more: {model.median:.2f} Mbit/s",
                model.median < 0.5 and min(model.detail("window_kib")) <= 0,
            ),
            Verdict(
                f"one window: path 2 goes on with at least {LEAST_SHARE} of its rate, the time-out "
                f"of path 1 included: {share:.2f} in the worst run",
                share >= LEAST_SHARE,
            ),
            Verdict(f"and is told no zero window: {window:.0f} KiB at the least", window > 0),
        ]

    def draw(self, report: Report, figure: Figure) -> None:
        """What the application has got over time, and path 2's window."""
        upper, lower = figure.subplots(2, 1, sharex=True)
        for row in report.rows:
            if row.values:
                at, got, told = zip(*row.details[0]["curve"], strict=True)
                upper.plot(at, got, label=row.label)
                lower.plot(at, [size / 1024 for size in told], label=row.label)
        for axes in (upper, lower):
            axes.axvline(CUT_S, color="gray", linestyle="--", linewidth=0.8)
            axes.grid(alpha=0.3)
            axes.set_ylim(bottom=0)
        upper.set_ylabel("delivered, MB")
        upper.legend()
        lower.set_ylabel("window of path 2, KiB")
        lower.set_xlabel("time, s (path 1 is cut at the dashed line)")
