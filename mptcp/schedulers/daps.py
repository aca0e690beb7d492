"""DAPS, delay-aware packet scheduling (Kuhn, Lochin, Mifdaoui, Sarwar, Mehani, Boreli: ICC 2014).

For a period ahead it is worked out when each path will send how much (a window each round trip) and
when that arrives (half a round trip later); the data is dealt out in the order of arrival, so that
the receiver has little to reorder whatever the delays are. The period is that of the slowest path,
where the paper has the least common multiple of the delays, which unlike paths make very long.

The plan counts bytes that nobody has had: who takes some takes them out of it. A path that asks and
has no part left, or all of whose predecessors have had theirs, begins a new one, so that what
another was to send and did not is dealt out again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mypy_extensions import mypyc_attr

from mptcp.scheduler import P, PathView, Scheduler, schedulers

MAX_ROUNDS: Final = 64
"""Round trips of one path that a plan holds: bounds its size."""


class Part:
    """What one path sends in one go."""

    __slots__ = ("arrival", "left", "path_index")

    def __init__(self, arrival: int, path_index: int, left: int) -> None:
        self.arrival = arrival
        """µs after the plan was made."""
        self.path_index = path_index
        self.left = left
        """Bytes."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Daps(Scheduler):
    """See the module's text."""

    def __init__(self) -> None:
        self.plan: list[Part] = []
        self.seen: dict[int, int] = {}
        """Path index -> its `bytes_sent` when last looked at."""

    def looks_ahead(self) -> bool:
        return True

    def select(self, ready: Sequence[P], queued: int) -> P | None:
        return min(ready, key=lambda path: (path.backup, path.srtt, path.path_index))

    def skip(self, path: P, queued: int) -> int:
        self.take_out()
        before = self.before(path)
        # Nothing of others before it: they have sent all that they were to send before, and will
        # send more until what this one sends arrives, unless it is the fastest.
        if before < 0 or (before == 0 and any(p.srtt < path.srtt for p in self.connection.paths)):
            self.make()
            before = max(0, self.before(path))
        return before

    def before(self, path: PathView) -> int:
        """Bytes of others that come before the next part of `path`; -1 when it has none."""
        total = 0
        for part in self.plan:
            if part.path_index == path.path_index:
                return total
            total += part.left
        return -1

    def take_out(self) -> None:
        """Take what was sent since out of the plan, and the parts of paths that are gone."""
        spent: dict[int, int] = {}
        for path in self.connection.paths:
            index = path.path_index
            sent = path.bytes_sent
            spent[index] = sent - self.seen.get(index, sent)
            self.seen[index] = sent
        kept = []
        for part in self.plan:
            if part.path_index not in spent:
                continue
            taken = min(part.left, spent[part.path_index])
            part.left -= taken
            spent[part.path_index] -= taken
            if part.left:
                kept.append(part)
        self.plan = kept

    def make(self) -> None:
        """Deal out one period of the slowest path."""
        paths = self.connection.paths
        period = max(path.srtt for path in paths)
        plan = []
        for path in paths:
            srtt = max(1, path.srtt)
            size = max(path.cwnd - path.in_flight, 0)
            for number in range(min(MAX_ROUNDS, max(1, period // srtt))):
                if size:
                    plan.append(Part(number * srtt + srtt // 2, path.path_index, size))
                size = path.cwnd
        plan.sort(key=lambda part: (part.arrival, part.path_index))
        self.plan = plan


schedulers.add("daps", Daps)
