"""What a worker process runs, and the figures of many sessions."""

from __future__ import annotations

import gc
import signal
from dataclasses import dataclass, field
from typing import Final

from soak.program import Failure
from soak.scenario import Scenario
from soak.session import Result, run

MIN_BYTES: Final = 20 << 10
MIN_EVENTS: Final = 50
BATCH: Final = 50
"""Sessions a process runs before it reports."""
KINDS: Final = ("dropped", "corrupted", "duplicated", "late", "changes", "overtaken", "delivered")


@dataclass(slots=True)
class Tally:
    """Figures of many sessions."""

    sessions: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    """For each session, as the next three."""
    events: list[int] = field(default_factory=list)
    connections: int = 0
    errors: int = 0
    unheard: int = 0
    virtual_us: int = 0
    kinds: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    peaks: dict[str, float] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """Count one session that held."""
        self.bytes.append(result.bytes)
        self.events.append(result.events.total)
        self.connections += result.connections
        self.errors += result.errors
        self.unheard += result.unheard
        self.virtual_us += result.virtual_us
        for kind in KINDS:
            self.kinds[kind] += getattr(result.events, kind)
        for name in ("send", "receive", "reorder", "timers"):
            share = getattr(result.peaks, name)
            self.peaks[name] = max(share, self.peaks.get(name, 0.0))

    def merge(self, other: Tally) -> None:
        """Count what another process did."""
        self.sessions += other.sessions
        self.failures += other.failures
        self.bytes += other.bytes
        self.events += other.events
        self.connections += other.connections
        self.errors += other.errors
        self.unheard += other.unheard
        self.virtual_us += other.virtual_us
        for kind in KINDS:
            self.kinds[kind] += other.kinds[kind]
        for name, share in other.peaks.items():
            self.peaks[name] = max(share, self.peaks.get(name, 0.0))


def run_batch(seeds: range) -> Tally:
    """Sessions `seeds`, in a worker process or in this one."""
    tally = Tally()
    for seed in seeds:
        tally.sessions += 1
        try:
            tally.add(run(Scenario.from_seed(seed), min_bytes=MIN_BYTES, min_events=MIN_EVENTS))
        except Failure as failure:
            tally.failures.append((seed, str(failure)))
    # Sessions leave cycles; once a batch is cheaper than whenever the counter says so.
    gc.collect()
    return tally


def prepare_worker() -> None:
    """Ctrl-C is the parent's to handle; `run_batch` collects garbage by itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()
