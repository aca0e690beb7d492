"""When to close a subflow that costs more than it brings (thesis §4.6).

A subflow that carries little costs little by itself; it harms where it holds up the others. So
every rule here wants harm too: that the application has more to send than the network takes, and
that the window is what holds the connection up, for several periods in a row. The side that sends
is the one that can tell, and closes.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from mptcp.heuristics.base import Flow, FlowPath, Heuristic, heuristics, number

PERIODS: Final = 3
"""Of these in a row a rule must find the same subflow guilty."""
BLOCKED: Final = 0.1
"""From this share of the time on the window counts as what holds the connection up."""
FEW: Final = 10_000
"""Bytes that are too few to judge losses by."""


class _Closing(Heuristic):
    """A rule that finds one subflow guilty in each period, or none."""

    def __init__(self, argument: str) -> None:
        super().__init__(argument)
        self.suspect = 0
        self.times = 0

    def closes(self, flow: Flow) -> int:
        working = [path for path in flow.paths if not path.backup]
        guilty = self.guilty(flow, working) if len(working) > 1 and flow.backlog else 0
        if not guilty or guilty != self.suspect:
            self.suspect = guilty
            self.times = 1
            return 0
        self.times += 1
        if self.times < PERIODS:
            return 0
        self.suspect = 0
        return guilty

    def guilty(self, flow: Flow, paths: list[FlowPath]) -> int:
        """The path index of the worst of `paths`, two or more; 0: all are well."""
        raise NotImplementedError


@heuristics.register("close-share")
class CloseShare(_Closing):
    """One that carries less than such a share of the goodput (0.02 by default), while the
    connection's window holds up the others."""

    def __init__(self, argument: str) -> None:
        super().__init__("")
        self.share = number(argument or "0.02", "a share", 0.0, 0.5)

    def guilty(self, flow: Flow, paths: list[FlowPath]) -> int:
        least = min(paths, key=lambda path: path.rate)
        harm = flow.blocked >= BLOCKED and flow.rate > 0
        return least.path_index if harm and least.rate < self.share * flow.rate else 0


@heuristics.register("close-costly")
class CloseCostly(_Closing):
    """One without which the others would carry more: by a quarter by default, "close-costly:1.25".

    The others can carry what each has shown it can, and no more than what may be outstanding in
    each of their round trips: the buffer is to hold what all send in the longest RTT (thesis
    §4.3.5), so that one of much delay asks for more than there is (thesis §4.6), and one that loses
    much holds up what is sent after it.
    """

    def __init__(self, argument: str) -> None:
        super().__init__("")
        self.gain = number(argument or "1.25", "a factor", 1.0, 100.0)
        self.rates: deque[int] = deque(maxlen=PERIODS)
        """Of the last periods: a DATA_ACK held up by a hole makes one poor and the next rich."""

    def guilty(self, flow: Flow, paths: list[FlowPath]) -> int:
        self.rates.append(flow.rate)
        if flow.blocked < BLOCKED or any(not path.srtt for path in paths):
            return 0
        without, index = max((self._without(flow, paths, path), path.path_index) for path in paths)
        return index if without * len(self.rates) > self.gain * sum(self.rates) else 0

    def _without(self, flow: Flow, paths: list[FlowPath], removed: FlowPath) -> int:
        """Bytes per second that the other `paths` could carry."""
        others = [path for path in paths if path is not removed]
        longest = max(path.srtt for path in others)
        return min(sum(path.best for path in others), flow.buffer * 1_000_000 // longest)


@heuristics.register("close-loss")
class CloseLoss(_Closing):
    """One that has to send again more than such a share of what it sends (0.25 by default), while
    the connection's window holds up the others."""

    def __init__(self, argument: str) -> None:
        super().__init__("")
        self.share = number(argument or "0.25", "a share", 0.01, 1.0)
        self.sums: dict[int, tuple[float, float]] = {}
        """By path: bytes sent and sent again, of which each period forgets an eighth."""

    def guilty(self, flow: Flow, paths: list[FlowPath]) -> int:
        worst, index = 0.0, 0
        for path in paths:
            sent, resent = self.sums.get(path.path_index, (0.0, 0.0))
            sent = sent * 7 / 8 + path.sent
            resent = resent * 7 / 8 + path.resent
            self.sums[path.path_index] = sent, resent
            if sent >= FEW and resent / sent > worst:
                worst, index = resent / sent, path.path_index
        return index if flow.blocked >= BLOCKED and worst > self.share else 0
