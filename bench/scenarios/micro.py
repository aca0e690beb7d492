"""Microseconds of the stack alone for each 64 KiB chunk and for each 1500-byte packet."""

from __future__ import annotations

import cProfile
import gc
from dataclasses import dataclass
from typing import Final

from ..micro import measure
from ..registry import Options, Progress, scenario
from ..results import Report, Row


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of connection."""

    key: str
    label: str
    paths: int
    offload: bool
    mptcp: bool


CASES: Final = (
    Case("tcp-chunks", "TCP, chunks", 1, True, False),
    Case("mptcp-chunks", "MPTCP, 1 path, chunks", 1, True, True),
    Case("mptcp2-chunks", "MPTCP, 2 paths, chunks", 2, True, True),
    Case("tcp-packets", "TCP, packets", 1, False, False),
    Case("mptcp-packets", "MPTCP, 1 path, packets", 1, False, True),
    Case("mptcp2-packets", "MPTCP, 2 paths, packets", 2, False, True),
)


@scenario
class Micro:
    """`python -m bench run micro`."""

    name = "micro"
    summary = "µs per chunk and per packet of the stack alone, two of them back to back in memory"
    needs_rights = False
    source = ""

    def cases(self) -> list[str]:
        """See `Scenario`."""
        return [case.key for case in CASES]

    def run(self, options: Options, progress: Progress) -> Report:
        """See `Scenario`. `--seconds` is taken as thousands of packets."""
        runs = options.runs or (1 if options.quick else 5)
        packets = int(1000 * (options.seconds or (1 if options.quick else 10)))
        chosen = [case for case in CASES if not options.only or case.key in options.only]
        rows: dict[tuple[str, str], Row] = {}
        for case in chosen:
            unit = "µs/chunk" if case.offload else "µs/packet"
            for side in ("sender", "receiver"):
                label = f"{case.label}, {side}"
                rows[case.key, side] = Row(f"{case.key}-{side}", label, unit)
        for number in range(runs):
            for place, case in enumerate(chosen):
                progress(case.label, number * len(chosen) + place, runs * len(chosen))
                profiler = cProfile.Profile() if options.profile is not None else None
                gc.collect()
                if profiler is not None:
                    profiler.enable()
                cost = measure(
                    paths=case.paths, offload=case.offload, mptcp=case.mptcp, packets=packets
                )
                if profiler is not None and options.profile is not None:
                    profiler.disable()
                    profiler.dump_stats(options.profile / f"{case.key}-{number + 1}.pstats")
                for side, value in (("sender", cost.sender_us), ("receiver", cost.receiver_us)):
                    row = rows[case.key, side]
                    row.values.append(value)
                    row.details.append(cost.parts())
        for (_, side), row in rows.items():
            row.remark = _remark(row, side)
        report = Report(
            self.name,
            f"Cost of the stack without I/O, median of {runs} × {packets} packets",
            {"runs": runs, "packets": packets},
            list(rows.values()),
            [
                "the last column: the parts in µs, and the rate at which this side alone would "
                "fill one CPU.",
            ],
        )
        return report


def _remark(row: Row, side: str) -> str:
    last = row.details[-1]
    names = (
        ("write", "transmit", "ack_in") if side == "sender" else ("packet_in", "read", "ack_out")
    )
    parts = ", ".join(f"{name} {last[name]:.1f}" for name in names)
    return f"{parts}; {last['mean_bytes'] * 8 / row.median / 1000:.2f} Gbit/s"
