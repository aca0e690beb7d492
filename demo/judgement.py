"""What the run is measured by: the figures, and which of them are promises.

Pure: numbers in, numbers and sentences out. Times are monotonic microseconds, sizes bytes, rates
bits per second.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

WARM_UP_US: Final = 2_000_000
"""Slow start and the second path's handshake: not part of the goodput."""
LEAST_WINDOW_US: Final = 1_000_000
"""A shorter measurement of goodput says nothing."""
LEAST_SHARE: Final = 0.92
MOST_STALL_US: Final = 1_000_000
AFTERMATH_US: Final = 1_000_000
"""A gap that begins this soon after the path came back still is the cut's."""
LEAST_RETURN_BYTES: Final = 1 << 16
"""More than probes and handshakes: the path is in use again."""


@dataclass(slots=True)
class Delivery:
    """What the downloading program has seen: samples of its total, and its gaps."""

    times: list[int] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    """(begin, end) of each time that nothing came."""
    done: bool = False

    def add(self, time: int, total: int) -> None:
        """One more sample; times increase."""
        self.times.append(time)
        self.totals.append(total)

    @property
    def start(self) -> int:
        return self.times[0]

    @property
    def end(self) -> int:
        return self.times[-1]

    @property
    def total(self) -> int:
        return self.totals[-1] if self.totals else 0

    def at(self, time: int) -> float:
        """The total at a time between the first and the last sample, interpolated."""
        right = bisect.bisect_left(self.times, time)
        if right == len(self.times):
            return self.totals[-1]
        if right == 0 or self.times[right] == time:
            return self.totals[right]
        left = right - 1
        share = (time - self.times[left]) / (self.times[right] - self.times[left])
        return self.totals[left] + share * (self.totals[right] - self.totals[left])

    def goodput(self, begin: int, end: int) -> float:
        """Mean rate between two times."""
        return (self.at(end) - self.at(begin)) * 8e6 / (end - begin) if end > begin else 0.0


@dataclass(frozen=True, slots=True)
class Stall:
    """A time without a delivered byte."""

    begin: int
    length: int


def longest_stall(
    gaps: Sequence[tuple[int, int]], begin: int | None = None, end: int | None = None
) -> Stall | None:
    """The longest gap; only among those that touch `begin` to `end` if these are given."""
    touching = [
        gap for gap in gaps if (begin is None or gap[1] > begin) and (end is None or gap[0] < end)
    ]
    longest = max(touching, key=lambda gap: gap[1] - gap[0], default=None)
    return None if longest is None else Stall(longest[0], longest[1] - longest[0])


@dataclass(slots=True)
class PathUse:
    """IP bytes a path has delivered, sampled."""

    times: list[int] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)

    def add(self, time: int, total: int) -> None:
        """One more sample; times increase."""
        self.times.append(time)
        self.totals.append(total)

    @property
    def total(self) -> int:
        return self.totals[-1] if self.totals else 0

    def rate(self, span_us: int = 1_000_000) -> float:
        """Mean rate of the last `span_us`."""
        if len(self.times) < 2:
            return 0.0
        first = min(bisect.bisect_left(self.times, self.times[-1] - span_us), len(self.times) - 2)
        return (self.totals[-1] - self.totals[first]) * 8e6 / (self.times[-1] - self.times[first])

    def since(self, time: int) -> int:
        """Bytes since the sample at or just before `time`."""
        return self.total - self.totals[max(bisect.bisect_right(self.times, time) - 1, 0)]

    def in_use_after(self, time: int) -> int | None:
        """How long after `time` LEAST_RETURN_BYTES had come; None if they have not."""
        before = self.total - self.since(time)
        for when, total in zip(self.times, self.totals, strict=True):
            if when > time and total - before >= LEAST_RETURN_BYTES:
                return when - time
        return None


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What the links can carry of payload: the sum of their rates by payload per packet."""

    links_bps: int
    payload: int
    packet: int

    @property
    def payload_bps(self) -> float:
        return self.links_bps * self.payload / self.packet

    def __str__(self) -> str:
        return (
            f"{self.links_bps / 1e6:.0f} Mbit/s of links x {self.payload}/{self.packet} bytes of "
            f"payload = {self.payload_bps / 1e6:.2f} Mbit/s"
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the result; `kept` is None where nothing was promised."""

    name: str
    text: str
    kept: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything measured."""

    delivery: Delivery
    paths: Sequence[PathUse]
    path_names: Sequence[str]
    path_rates: Sequence[int]
    cut: int
    restored: int
    cut_path: int  # index into `paths`
    sent_digest: str
    received_digest: str
    payload: int  # bytes of the file in a full packet
    packet: int  # bytes of that packet
    judge_stall: bool  # False: the sender is not ours


def judge(run: Run) -> list[Finding]:
    """The findings, in the order they are shown."""
    findings = [_digest(run)]
    findings += _goodput(run)
    findings += _bytes_per_path(run)
    findings += _stalls(run)
    findings.append(_return(run))
    return findings


def _digest(run: Run) -> Finding:
    size = f"{run.delivery.total / 1e6:.1f} MB"
    if run.sent_digest == run.received_digest:
        return Finding("SHA-256", f"equal, {size}: {run.sent_digest}", True)
    text = f"NOT equal, {size}: sent {run.sent_digest}, received {run.received_digest}"
    return Finding("SHA-256", text, False)


def _goodput(run: Run) -> list[Finding]:
    delivery = run.delivery
    ceiling = Ceiling(sum(run.path_rates), run.payload, run.packet)
    findings = [Finding("ceiling", str(ceiling))]
    begin, end = delivery.start + WARM_UP_US, run.cut
    if end - begin >= LEAST_WINDOW_US:
        rate = delivery.goodput(begin, end)
        share = rate / ceiling.payload_bps
        text = (
            f"{rate / 1e6:.2f} Mbit/s before the cut ({WARM_UP_US / 1e6:.1f} s to "
            f"{(end - delivery.start) / 1e6:.1f} s) = {share:.1%} of the ceiling"
        )
        if share > 1:
            # The links kept to their rates; the program reads behind them, out of buffers.
            text += f", with what buffers behind the links held at {WARM_UP_US / 1e6:.1f} s"
        promise = f" (promised: {LEAST_SHARE:.0%})"
        findings.append(Finding("goodput", text + promise, share >= LEAST_SHARE))
    else:
        text = "before the cut not measured: the file is too short for the warm-up of 2 s"
        findings.append(Finding("goodput", text))
    seconds = (delivery.end - delivery.start) / 1e6
    overall = delivery.goodput(delivery.start, delivery.end)
    share = overall / ceiling.payload_bps
    text = f"{overall / 1e6:.2f} Mbit/s over all {seconds:.1f} s, cut included = {share:.1%}"
    return [*findings, Finding("", text)]


def _bytes_per_path(run: Run) -> list[Finding]:
    total = sum(path.total for path in run.paths) or 1
    return [
        Finding(name, f"{path.total / 1e6:.1f} MB of packets, {path.total / total:.0%} of all")
        for name, path in zip(run.path_names, run.paths, strict=True)
    ]


def _stalls(run: Run) -> list[Finding]:
    at_cut = longest_stall(run.delivery.gaps, run.cut, run.restored + AFTERMATH_US)
    length = at_cut.length if at_cut else 0
    text = f"{length / 1e6:.2f} s at the cut" if at_cut else "none at the cut above 0.05 s"
    if run.judge_stall:
        found = Finding("stall", f"{text} (promised: at most 1 s)", length <= MOST_STALL_US)
    else:
        found = Finding("stall", f"{text} (not judged: the kernel is the sender)")
    longest = longest_stall(run.delivery.gaps)
    if longest is None:
        return [found]
    when = (longest.begin - run.delivery.start) / 1e6
    return [
        found,
        Finding("", f"{longest.length / 1e6:.2f} s is the longest of all, at {when:.1f} s"),
    ]


def _return(run: Run) -> Finding:
    name = run.path_names[run.cut_path]
    path = run.paths[run.cut_path]
    delay = path.in_use_after(run.restored)
    since = path.since(run.restored) / 1e6
    if delay is None:
        text = f"carried no more data after it came back ({since:.2f} MB)"
        return Finding(f"{name} back", text, False)
    text = f"carried data again {delay / 1e6:.1f} s after it came back, {since:.1f} MB from then on"
    return Finding(f"{name} back", text, True)
