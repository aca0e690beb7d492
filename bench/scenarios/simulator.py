"""How much faster than real time the simulator runs: virtual seconds for each second of CPU."""

from __future__ import annotations

import cProfile
import gc
import time
from dataclasses import dataclass
from typing import Any, Final

from mptcp.sim import Bulk, Simulation, Sink

from ..registry import BenchError, Options, Progress, scenario
from ..results import Report, Row

TARGET: Final = 10.0
"""What the 60 s, two 10 Mbit/s paths case is to reach."""
RATE_BPS: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Case:
    """A bulk transfer over paths of 10 Mbit/s with unlike delays."""

    key: str
    label: str
    paths: int
    offload: bool


CASES: Final = (
    Case("two-paths", "MPTCP, 2 × 10 Mbit/s, packets", 2, False),
    Case("two-paths-chunks", "MPTCP, 2 × 10 Mbit/s, chunks", 2, True),
    Case("one-path", "TCP, 10 Mbit/s, packets", 1, False),
)


def simulate(case: Case, seconds: float) -> dict[str, Any]:
    """Run the case for that long in virtual time; what it cost and what it moved."""
    sim = Simulation(seed=1)
    mptcp = case.paths > 1
    a = sim.host("a", mptcp=mptcp, offload=case.offload)
    b = sim.host("b", mptcp=mptcp, offload=case.offload)
    paths = [
        sim.connect(
            a,
            f"10.0.{number}.1/24",
            b,
            f"10.0.{number}.2/24",
            rate_bps=RATE_BPS,
            delay_us=10_000 * number,
            queue_bytes=25_000 * number,  # a bandwidth-delay product
        )
        for number in range(1, case.paths + 1)
    ]
    sink = Sink(b)
    Bulk(a, "10.0.1.2")
    gc.collect()
    wall, cpu = time.monotonic(), time.process_time()
    sim.run(round(seconds * 1e6))
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    goodput = sink.received * 8 / seconds / 1e6
    if goodput < 5:
        raise BenchError(f"{case.key}: {goodput:.1f} Mbit/s is no bulk transfer")
    return {
        "ratio_cpu": seconds / cpu,
        "ratio_wall": seconds / wall,
        "goodput_mbit_s": goodput,
        "packets": sum(way.link.stats.packets for path in paths for way in path),
        "us_per_packet": cpu * 1e6 / sum(w.link.stats.packets for path in paths for w in path),
    }


@scenario
class Simulator:
    """`python -m bench run simulator`."""

    name = "simulator"
    summary = "virtual seconds of the simulator for each second of CPU (goal: 10, two paths)"
    needs_rights = False
    source = ""

    def cases(self) -> list[str]:
        """See `Scenario`."""
        return [case.key for case in CASES]

    def run(self, options: Options, progress: Progress) -> Report:
        """See `Scenario`. `--seconds` are virtual."""
        runs = options.runs or (1 if options.quick else 3)
        seconds = options.seconds or (5.0 if options.quick else 60.0)
        chosen = [case for case in CASES if not options.only or case.key in options.only]
        rows = {case.key: Row(case.key, case.label, "× real time") for case in chosen}
        for number in range(runs):
            for place, case in enumerate(chosen):
                progress(case.label, number * len(chosen) + place, runs * len(chosen))
                profiler = cProfile.Profile() if options.profile is not None else None
                if profiler is not None:
                    profiler.enable()
                done = simulate(case, seconds)
                if profiler is not None and options.profile is not None:
                    profiler.disable()
                    profiler.dump_stats(options.profile / f"{case.key}-{number + 1}.pstats")
                rows[case.key].values.append(done["ratio_cpu"])
                rows[case.key].details.append(done)
        for row in rows.values():
            last = row.details[-1]
            row.remark = (
                f"{last['goodput_mbit_s']:.1f} Mbit/s, {last['packets']} packets, "
                f"{last['us_per_packet']:.0f} µs each"
            )
        notes = ["by CPU time of this process: what others take of the machine does not count."]
        first = rows.get("two-paths")
        if first is not None:
            verdict = "met" if first.median >= TARGET else "NOT met"
            notes.append(f"goal of {TARGET:g} × real time for {first.label}: {verdict}")
        return Report(
            self.name,
            f"The simulator beside real time, median of {runs} × {seconds:g} virtual seconds",
            {"runs": runs, "seconds": seconds},
            list(rows.values()),
            notes,
        )
