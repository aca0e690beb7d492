"""Thesis §4.3.6, table 4.2: which subflow is to send again what another failed to deliver.

A file of 4 MB over two paths of 20 Mbit/s, 20 and 40 ms of RTT, with every policy by name:

    cut     the second path goes down for good, half a second after the beginning
    pause   the same, but it is back after a second
    lossy   the second path loses 1 or 5 % of the packets, and the receive buffer is of 256 KiB, so
            that what is missing there soon stops the first one (receive buffer blocking; Iyengar,
            Amer and Stewart 2006, where the five `rtx` policies come from)

Opportunistic retransmission and penalisation are off, so that the policies stand alone; the last
row has them on. "again" is what was sent on a second subflow.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final

from mptcp.config import Config
from mptcp.retransmission import policies

from ..multipath import Experiment, Link
from ..paths import MBIT
from ..plots import draw_bars
from ..registry import BenchError, scenario
from ..results import Report, Row, Verdict
from ..sweep import Measured, Point, Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIRST: Final = Link(20 * MBIT, 10_000, jitter_us=500)
SECOND: Final = Link(20 * MBIT, 20_000, jitter_us=500)
SIZE: Final = 4_000_000
QUICK_SIZE: Final = 2_500_000
DOWN_US: Final = 500_000
PAUSE_US: Final = 1_000_000
LIMIT_US: Final = 300_000_000
BUFFER: Final = 256 << 10
BOTH: Final = "both"
DEFAULT: Final = "probe"
LOCAL: Final = "rtx-same"
SITUATIONS: Final = {
    "cut": "path 2 is cut",
    "pause": "path 2 is down for 1 s",
    "lossy1": "1 % lost on path 2, 256 KiB",
    "lossy5": "5 % lost on path 2, 256 KiB",
}
WON: Final = 0.5
NO_WORSE: Final = 1.05


@scenario
class Retransmissions(Sweep):
    """`python -m bench run retransmissions`."""

    name = "retransmissions"
    summary = "a file of 4 MB, path 2 of 2 cut or lossy, by retransmission policy"
    source = "thesis tab. 4.2"
    unit = "ms to the last byte"
    columns: ClassVar = {"again_kb": "again, kB"}

    def points(self, quick: bool) -> list[Point]:
        """See `Sweep`."""
        names = (DEFAULT, LOCAL) if quick else (*policies.names(), BOTH)
        return [
            Point(
                f"{situation}-{name}",
                f"{text}: {name if name != BOTH else f'{DEFAULT}, opportunistic, penalties'}",
                {"situation": situation, "policy": name},
            )
            for situation, text in SITUATIONS.items()
            for name in names
        ]

    @staticmethod
    def measure(point: Point, seed: int, quick: bool) -> Measured:
        """See `Sweep`."""
        situation = point.settings["situation"]
        policy = point.settings["policy"]
        lossy = situation.startswith("lossy")
        config = Config(
            retransmission=DEFAULT if policy == BOTH else policy,
            opportunistic_retransmission=policy == BOTH,
            penalisation=policy == BOTH,
        )
        server = replace(config, receive_buffer=BUFFER, autotune=False) if lossy else config
        loss = int(situation[5:]) / 100 if lossy else 0.0
        held = Experiment([FIRST, replace(SECOND, loss=loss)], seed, config, server)
        size = QUICK_SIZE if quick else SIZE
        began = held.sim.now
        connection = held.connect()
        held.send(size, close=True)
        held.marks.append(size)
        if not lossy:
            held.sim.at(began + DOWN_US, lambda: held.sim.set_down(held.paths[1], True))
        if situation == "pause":
            back = began + DOWN_US + PAUSE_US
            held.sim.at(back, lambda: held.sim.set_down(held.paths[1], False))
        if not held.sim.run(LIMIT_US, until=lambda: bool(held.reached)):
            raise BenchError(
                f"{held.received} of {size} bytes arrived in {LIMIT_US // 1_000_000} s"
            )
        return {
            "value": (held.reached[0] - began) / 1e3,
            "again_kb": connection.tx.retransmit.taken_bytes / 1e3,
        }

    def judge(self, rows: dict[str, Row]) -> list[Verdict]:
        """Cloning is worth it when a path is gone, and the default is not worse elsewhere."""
        cloned, local = rows[f"cut-{DEFAULT}"].mean, rows[f"cut-{LOCAL}"].mean
        verdicts = [
            Verdict(
                "path 2 cut: by the default the file takes less than "
                f"{WON} × as long as when only the subflow itself repeats ({local:.0f} ms): "
                f"{cloned / local:.2f}",
                cloned < WON * local,
            )
        ]
        for situation, text in SITUATIONS.items():
            found = rows[f"{situation}-{DEFAULT}"].mean
            best = min(
                (rows[f"{situation}-{name}"] for name in policies.names()), key=lambda row: row.mean
            )
            verdicts.append(
                Verdict(
                    f"{text}: the default takes at most {NO_WORSE} × the best policy's time "
                    f"({best.label.split(': ')[-1]}, {best.mean:.0f} ms): {found / best.mean:.3f}",
                    found <= NO_WORSE * best.mean,
                )
            )
        return verdicts

    def draw(self, report: Report, figure: Figure) -> None:
        """Bars for each situation."""
        axes = figure.subplots(2, 2).flat
        for place, (situation, text) in zip(axes, SITUATIONS.items(), strict=True):
            rows = [
                row for row in report.rows if row.key.startswith(f"{situation}-") and row.values
            ]
            bars = [
                Row(row.key, row.key.removeprefix(f"{situation}-"), row.unit, row.values)
                for row in rows
            ]
            draw_bars(place, bars, "ms")
            place.set_title(text, fontsize=10)
            if situation == "cut":
                place.set_yscale("log")  # one that waits for the subflow's end is far off
