"""What an application wants of several paths: Apple's service types, as schedulers.

`handover` keeps to the first path and leaves it when it fails to deliver; `interactive` takes the
path on which the data will have arrived first; `aggregate` fills all of them. They say where our
data goes: for what the peer sends ask it for the same with `Interface(backup=True)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mypy_extensions import mypyc_attr

from mptcp.scheduler import MinRtt, P, PathView, Scheduler, schedulers
from mptcp.tcp.state import NEVER

PATIENCE_US: Final = 50_000
"""What is added to a round trip, at least, before an ACK counts as overdue."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Handover(Scheduler):
    """The first path while it delivers; sooner than a time-out it is given up for the next.

    An ACK is overdue a round trip and four deviations (at least 50 ms) after the last. It is
    the path's own turn again with its next ACK.
    """

    def __init__(self) -> None:
        self.given_up: dict[int, int] = {}
        """Path index -> when."""
        self.overdue_at = NEVER
        """When the ACK of the path that is waited for will be overdue."""

    def select(self, ready: Sequence[P], queued: int) -> P | None:
        now = self.connection.now
        paths = sorted(self.connection.paths, key=lambda path: path.path_index)
        working = [path for path in paths if not self.fails(path, now)]
        first = (working or paths)[0]
        for path in ready:
            if path is first:
                return path
        self.overdue_at = overdue(first)
        return None

    def again(self) -> int:
        return self.overdue_at

    def fails(self, path: PathView, now: int) -> bool:
        """Whether its ACKs are overdue, now or since it was given up."""
        index = path.path_index
        since = self.given_up.get(index)
        if since is not None:
            if path.acked_at <= since:
                return True
            del self.given_up[index]
        if now < overdue(path):
            return False
        self.given_up[index] = now
        return True


def overdue(path: PathView) -> int:
    """From when on the next ACK of a path is overdue; NEVER: it waits for none."""
    waiting = path.waiting_since
    return NEVER if waiting < 0 else waiting + path.srtt + max(4 * path.rttvar, PATIENCE_US) + 1


@mypyc_attr(allow_interpreted_subclasses=True)
class Interactive(Scheduler):
    """The path on which all that waits will have arrived first, worth waiting for if it is full.

    RTT and two deviations, for jitter counts, and what does not fit the window at the path's rate.
    """

    def select(self, ready: Sequence[P], queued: int) -> P | None:
        first = min(
            self.connection.paths, key=lambda path: (arrival(path, queued), path.path_index)
        )
        for path in ready:
            if path is first:
                return path
        return None


def arrival(path: PathView, queued: int) -> int:
    """µs until `queued` more bytes are acknowledged on a path."""
    excess = max(0, path.in_flight + queued - path.cwnd)
    return path.srtt + 2 * path.rttvar + path.srtt * excess // max(1, path.cwnd)


@mypyc_attr(allow_interpreted_subclasses=True)
class Aggregate(MinRtt):
    """All paths, the fast ones first."""


schedulers.add("handover", Handover)
schedulers.add("interactive", Interactive)
schedulers.add("aggregate", Aggregate)
