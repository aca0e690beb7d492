"""Subflows in turn: `roundrobin`, and `weighted`, by shares.

Neither waits for a path: who is ready and next in turn gets the chunk, so that the shares are those
of the paths while all of them have room, and never cost throughput.
"""

from __future__ import annotations

from collections.abc import Sequence

from mypy_extensions import mypyc_attr

from mptcp.scheduler import P, PathView, Scheduler, schedulers


@mypyc_attr(allow_interpreted_subclasses=True)
class RoundRobin(Scheduler):
    """One chunk each, in the order of the path indices."""

    def __init__(self) -> None:
        self.last = 0

    def select(self, ready: Sequence[P], queued: int) -> P | None:
        last = self.last
        # Those after the last one first: False sorts before True.
        chosen = min(
            ready, key=lambda path: (path.backup, path.path_index <= last, path.path_index)
        )
        self.last = chosen.path_index
        return chosen


@mypyc_attr(allow_interpreted_subclasses=True)
class Weighted(Scheduler):
    """Shares by `Config.scheduler_weights`, or by the rates that the windows allow.

    Start-time fair queueing (Goyal et al. 1996): each path has a virtual time that advances by
    bytes / weight; the least one is served. What a path could not take while it was full it has
    lost: its time is set to that of the others.
    """

    def __init__(self) -> None:
        self.times: dict[int, float] = {}
        """Path index -> virtual time."""
        self.seen: dict[int, int] = {}
        """Path index -> its `bytes_sent` when last looked at."""
        self.clock = 0.0

    def select(self, ready: Sequence[P], queued: int) -> P | None:
        times = self.times
        for path in ready:
            index = path.path_index
            sent = path.bytes_sent
            spent = (sent - self.seen.get(index, sent)) / self.weight(path)
            self.seen[index] = sent
            times[index] = max(times.get(index, 0.0) + spent, self.clock)
        chosen = min(ready, key=lambda path: (path.backup, times[path.path_index], path.path_index))
        self.clock = times[chosen.path_index]
        return chosen

    def weight(self, path: PathView) -> int:
        """The path's share, at least 1."""
        weights = self.connection.weights
        if not weights:
            return max(1, path.rate)
        return weights[path.path_index - 1] if 1 <= path.path_index <= len(weights) else 1


schedulers.add("roundrobin", RoundRobin)
schedulers.add("weighted", Weighted)
