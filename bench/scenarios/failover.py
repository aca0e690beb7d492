"""A path is cut under load, in real time: how long the receiver's application gets nothing.

Two emulated paths of 20 Mbit/s, 20 and 40 ms; a bulk transfer fills both, and one of them stops
without a word (thesis §4.3.6: what it carried has to come over the other). Each cut is a connection
of its own, over the one path and the other in turn: ours, then the kernel's, with the same wait
before the cut. What counts is the longest time without a byte that ends after the cut.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Final

from ..emulated_paths import GRACE_S, EmulatedPaths, Road, Transfer
from ..paths import MBIT
from ..pool import interrupts_held
from ..priority import preferred
from ..registry import BenchError, Options, Progress, scenario
from ..results import Report, Row, Verdict, counted
from ..topology import Side

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROADS: Final = (Road(20 * MBIT, 20_000), Road(20 * MBIT, 40_000))
CUTS: Final = 20
CONTROL: Final = "cubic"
"""The kernel's default."""
_WARM_BYTES: Final = 1_000_000
"""What each path has carried before the wait begins: then both are in use."""
_WAIT_S: Final = (0.3, 1.0)
_AFTER_S: Final = 4.0
"""From the first byte to the end of the measurement, the cut included."""
_LONGEST_S: Final = 60.0
WHO: Final = {"ours": "ours", "kernel": f"kernel, {CONTROL}"}


def cut_once(who: str, path: int, wait: float, label: str) -> dict[str, Any]:
    """One connection, one cut of `path` (1, 2); what came of it, "gap_ms" first of all.

    Raises BenchError when the transfer fails or the paths are not both in use.
    """
    with interrupts_held():
        paths = EmulatedPaths(ROADS, ours=frozenset(Side) if who == "ours" else frozenset())
    with paths, preferred():
        options = [f"--cc={CONTROL}", "--warmup=0.1", f"--seconds={_AFTER_S}", "--urgent"]
        with Transfer(paths, options, label=label) as transfer:
            _wait_for_load(paths, label)
            time.sleep(wait)
            at = time.perf_counter()
            paths.cut(path)
            received, _ = transfer.result(_LONGEST_S)
        gaps = [length for end, length in received["pauses"] if end > at]
        if received["ended_at"] < at:
            raise BenchError(f"{label}: the cut came after the end")
        return {
            "gap_ms": 1000 * max(gaps, default=0.0),
            "path": path,
            "wait_s": wait,
            "goodput_mbit_s": 1000 * received["gbit_per_s"],
            "carried": paths.carried(),
        }


def _wait_for_load(paths: EmulatedPaths, label: str) -> None:
    deadline = time.monotonic() + GRACE_S
    while min(paths.carried()) < _WARM_BYTES:
        if time.monotonic() > deadline:
            raise BenchError(f"{label}: not both paths are in use: {paths.carried()} bytes")
        time.sleep(0.02)


@scenario
class Failover:
    """`python -m bench run failover`."""

    name = "failover"
    summary = "a path is cut under load, 20/40 ms: time without delivery, ours and the kernel's"
    needs_rights = True
    source = "thesis §4.3.6 and fig. 4.9, beside Linux"

    def cases(self) -> list[str]:
        """See `Scenario`."""
        return list(WHO)

    def run(self, options: Options, progress: Progress) -> Report:
        """See `Scenario`. `--runs` are cuts."""
        runs = options.runs or (2 if options.quick else CUTS)
        chosen = [who for who in WHO if not options.only or who in options.only]
        rows = {who: Row(who, WHO[who], "ms") for who in chosen}
        chance = random.Random("failover")
        for number in range(runs):
            wait = chance.uniform(*_WAIT_S)
            for place, who in enumerate(chosen):
                path = 1 + number % 2
                label = f"{WHO[who]}, cut {number + 1}"
                progress(label, number * len(chosen) + place, runs * len(chosen))
                found = cut_once(who, path, wait, label)
                rows[who].values.append(found.pop("gap_ms"))
                rows[who].details.append(found)
        report = Report(
            self.name,
            f"Time without delivery when one of two paths (20 Mbit/s, 20 and 40 ms) is cut under "
            f"load, {counted(runs, 'cut')}",
            {"runs": runs, "paths": [[road.rate_bps, road.rtt_us] for road in ROADS]},
            list(rows.values()),
            ["both ends ours, or both the kernel's, with default settings; each cut is another "
             "connection; the worst is the largest."],
            source=self.source,
        )  # fmt: skip
        report.compare("ours", "kernel", "kernel")
        if len(chosen) == len(WHO) and runs >= CUTS and not options.quick:
            report.verdicts = judge(rows)
        else:
            report.notes.append(f"not judged: that takes {CUTS} cuts of each.")
        return report

    def draw(self, report: Report, figure: Figure) -> None:
        """Every cut, by the path that was cut."""
        axes = figure.subplots()
        for place, row in enumerate(report.rows):
            for path, marker in ((1, "o"), (2, "x")):
                pairs = zip(row.values, row.details, strict=True)
                values = [value for value, detail in pairs if detail["path"] == path]
                across = [place + 0.15 * (path - 1.5)] * len(values)
                label = f"path of {ROADS[path - 1].rtt_us // 1000} ms cut" if not place else None
                axes.plot(across, values, marker, color=f"C{path - 1}", label=label)
            axes.hlines(row.median, place - 0.2, place + 0.2, linestyle="--", color="gray")
        axes.set_xticks(range(len(report.rows)), labels=[row.label for row in report.rows])
        axes.set_ylabel("time without delivery, ms (dashed: median)")
        axes.set_ylim(bottom=0)
        axes.legend()


def judge(rows: dict[str, Row]) -> list[Verdict]:
    """Ours is without delivery no longer than the kernel, by the median and at worst."""
    ours, kernel = rows["ours"], rows["kernel"]
    return [
        Verdict(
            f"the {name} time without delivery is no longer than the kernel's: "
            f"{mine:.0f} and {theirs:.0f} ms",
            mine <= theirs,
        )
        for name, mine, theirs in (
            ("median", ours.median, kernel.median),
            ("worst", max(ours.values), max(kernel.values)),
        )
    ]
