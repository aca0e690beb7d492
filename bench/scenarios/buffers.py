"""Thesis fig. 5.2: goodput over the receive buffer, when one of two links has more delay.

Both links have 100 Mbit/s; link A an RTT of 0.5 ms without queueing, link B 0, 10, 100 or 500 ms
more; the queue of each holds one bandwidth-delay product (32 packets at least). The dashed line is
TCP over link A with the same buffer. The send buffer is no limit here: the figure is of what the
receiver grants. A little jitter (20 µs) tells the seeds apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from mptcp.config import Config

from ..multipath import Link, bulk, payload_share
from ..paths import MBIT
from ..plots import draw_line
from ..registry import scenario
from ..results import Report, Row, Verdict
from ..sweep import Measured, Point, Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATE: Final = 100 * MBIT
DELAYS_MS: Final = (0, 10, 100, 500)
"""What link B's round trip has beyond link A's."""
SIZES: Final = tuple(64 << 10 << step for step in range(8))
SEND_BUFFER: Final = 16 << 20
WARMUP_S: Final = 2.0
SECONDS: Final = {0: 3.0, 10: 3.0, 100: 4.0, 500: 8.0}
"""Measured after the warm-up; a long path takes longer to show what it brings."""
LARGE: Final = 2 << 20
FILLED: Final = 0.95
NO_LESS: Final = 0.95


def _name(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


@scenario
class Buffers(Sweep):
    """`python -m bench run buffers`."""

    name = "buffers"
    summary = "goodput of two 100 Mbit/s links over the receive buffer, one with more delay"
    source = "thesis fig. 5.2"
    unit = "Mbit/s"
    seeds = 5
    columns: ClassVar = {"a": "link A", "b": "link B"}

    def points(self, quick: bool) -> list[Point]:
        """See `Sweep`."""
        delays = DELAYS_MS[1:3] if quick else tuple(reversed(DELAYS_MS))
        sizes = (SIZES[0], SIZES[5]) if quick else SIZES
        found = [
            Point(
                f"{delay}ms-{size >> 10}k",
                f"{_name(size)}, {delay} ms more on B",
                {"delay_ms": delay, "size": size},
            )
            for delay in delays
            for size in sizes
        ]
        found += [
            Point(f"tcp-{size >> 10}k", f"{_name(size)}, TCP on A", {"delay_ms": -1, "size": size})
            for size in sizes
        ]
        return found

    @staticmethod
    def measure(point: Point, seed: int, quick: bool) -> Measured:
        """See `Sweep`."""
        delay, size = point.settings["delay_ms"], point.settings["size"]
        tcp = delay < 0
        links = [Link(RATE, 250, jitter_us=20)]
        if not tcp:
            links.append(Link(RATE, 250 + 500 * delay, jitter_us=20))
        found = bulk(
            links,
            seed,
            config=Config(
                receive_buffer=size,
                send_buffer=SEND_BUFFER,
                congestion_control="newreno" if tcp else "lia",
            ),
            seconds=0.5 if quick else SECONDS.get(delay, 3.0),
            warmup=0.5 if quick else WARMUP_S,
            tcp=tcp,
        )
        a, *b = found.per_path
        return {"value": found.mbit_s, "a": a, "b": sum(b)}

    def judge(self, rows: dict[str, Row]) -> list[Verdict]:
        """Large buffers fill both links; no buffer makes two links slower than one."""
        ceiling = 2 * RATE / MBIT * payload_share()
        large = [
            (rows[f"{delay}ms-{size >> 10}k"].median / ceiling, f"{_name(size)}, {delay} ms")
            for delay in (0, 10)
            for size in SIZES
            if size >= LARGE
        ]
        filled, where = min(large)
        verdicts = [
            Verdict(
                f"with 0 and 10 ms and {_name(LARGE)} or more at least {FILLED} of the payload "
                f"ceiling ({ceiling:.1f} Mbit/s): {filled:.3f} ({where})",
                filled >= FILLED,
            )
        ]
        for delay in DELAYS_MS:
            ratio, where = min(
                (
                    rows[f"{delay}ms-{size >> 10}k"].median / rows[f"tcp-{size >> 10}k"].median,
                    _name(size),
                )
                for size in SIZES
            )
            verdicts.append(
                Verdict(
                    f"{delay} ms: at every buffer at least {NO_LESS} of TCP with the same buffer "
                    f"on link A: {ratio:.3f} ({where})",
                    ratio >= NO_LESS,
                )
            )
        return verdicts

    def notes(self) -> list[str]:
        """See `Sweep`."""
        return [
            f"after the first {WARMUP_S:g} s; scheduler {Config().scheduler}, LIA; TCP is NewReno.",
        ]

    def draw(self, report: Report, figure: Figure) -> None:
        """As the thesis: a curve for each delay over the buffer, TCP beside them."""
        axes = figure.subplots()
        points = report.settings["points"]
        for delay in sorted({point["delay_ms"] for point in points.values()}):
            rows = [row for row in report.rows if points[row.key]["delay_ms"] == delay]
            at = [points[row.key]["size"] / (1 << 20) for row in rows]
            if delay < 0:
                means = [row.mean for row in rows]
                axes.plot(at, means, "k--", label="TCP over link A")
            else:
                draw_line(axes, at, rows, f"MPTCP, {delay} ms")
        axes.axhline(2 * RATE / MBIT * payload_share(), color="gray", linewidth=0.7)
        axes.set_xscale("log", base=2)
        axes.set_xlabel("maximum receive buffer, MiB")
        axes.set_ylabel("goodput, Mbit/s")
        axes.set_ylim(0, 200)
        axes.grid(alpha=0.3)
        axes.legend()
