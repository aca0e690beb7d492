"""Where data goes again that a subflow failed to deliver: thesis §4.3.6, and SCTP-CMT's policies.

A policy says at which signs of trouble data is cloned to another subflow, and to which. The subflow
that has failed goes on repairing its own sequence space whatever the policy says, for its sequence
numbers belong to that data (RFC 8684 §3.3.6); that is RTX-SAME, and all that `rtx-same` does.

    name           on a time-out   on a loss   on a probe   to
    probe          yes             -           yes          whichever has room first
    rto            yes             -           -            whichever has room first
    rtx-same       -               -           -            -
    rtx-asap       yes             yes         -            one that has room, at random
    rtx-cwnd       yes             yes         -            the largest cwnd
    rtx-ssthresh   yes             yes         -            the largest ssthresh
    rtx-lossrate   yes             yes         -            the lowest loss rate

`rto` is the thesis's (table 4.2: a time-out may be a failed path, duplicate ACKs are a single loss
and stay local); where several subflows have room, the scheduler chooses. The five are those of
Iyengar, Amer and Stewart (Concurrent Multipath Transfer, IEEE/ACM ToN 2006, §IV). `probe` is the
thesis's a step earlier: a tail loss probe goes out after two round trips of silence (RFC 8985 §7),
and the others need not wait for the time-out too, 200 ms at least; when the subflow answers, what
has not gone yet is withdrawn. Whatever the policy, what a subflow leaves behind when it ends goes
on the others, and so does what TCP has acknowledged and DATA_ACK does not.

A policy takes numbers and returns a choice. To add one: subclass `Retransmission`, and
`policies.add("name", Class)`; the name goes into `Config.retransmission`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from mypy_extensions import mypyc_attr

from mptcp.registry import Registry


class LossView(Protocol):
    """What a policy may know of a subflow."""

    @property
    def cwnd(self) -> int: ...
    @property
    def ssthresh(self) -> int: ...
    @property
    def room(self) -> int: ...
    @property
    def loss_rate(self) -> float: ...

    path_index: int


P = TypeVar("P", bound=LossView)


@mypyc_attr(allow_interpreted_subclasses=True)
class Retransmission:
    """Base class and contract; one object for each connection."""

    def __init__(self, draw: Callable[[int], int]) -> None:
        """`draw(n)` is a random number from 0 to n - 1, for ties."""
        self.draw = draw
        self.on_timeout = True
        """Clone what a subflow has not delivered when its retransmission timer expires."""
        self.on_loss = False
        """Clone what it finds lost by SACK, duplicate ACKs or time."""
        self.on_probe = False
        """Clone what it has not delivered when its probe time-out expires (RFC 8985 §7.2)."""

    def destination(self, candidates: Sequence[P], failed: P) -> P | None:
        """Where the next clone of what `failed` has lost is to go.

        `candidates` are the subflows that may carry new data, `failed` among them unless it timed
        out; not empty. The answer `failed` leaves the repair to it; None is for whichever has room
        first, or the scheduler's choice among several.
        """
        return None

    def best(self, candidates: Sequence[P], marks: Sequence[float]) -> P:
        """The candidate with the highest mark, by lot among equals."""
        highest = max(marks)
        winners = [c for c, mark in zip(candidates, marks, strict=True) if mark == highest]
        return winners[0] if len(winners) == 1 else winners[self.draw(len(winners))]


policies: Registry[type[Retransmission]] = Registry("retransmission", "mptcp.retransmissions")


@mypyc_attr(allow_interpreted_subclasses=True)
class OnTimeout(Retransmission):
    """The thesis's: table 4.2."""


@mypyc_attr(allow_interpreted_subclasses=True)
class OnProbe(Retransmission):
    """The thesis's, begun at the probe time-out."""

    def __init__(self, draw: Callable[[int], int]) -> None:
        super().__init__(draw)
        self.on_probe = True


@mypyc_attr(allow_interpreted_subclasses=True)
class Same(Retransmission):
    """RTX-SAME: where it was sent first, as long as that lives."""

    def __init__(self, draw: Callable[[int], int]) -> None:
        super().__init__(draw)
        self.on_timeout = False


@mypyc_attr(allow_interpreted_subclasses=True)
class AsSoonAsPossible(Retransmission):
    """RTX-ASAP: any other that has room in its window, by lot; else the first that gets some."""

    def __init__(self, draw: Callable[[int], int]) -> None:
        super().__init__(draw)
        self.on_loss = True

    def destination(self, candidates: Sequence[P], failed: P) -> P | None:
        able = [c for c in candidates if c is not failed and c.room > 0]
        return able[self.draw(len(able))] if able else None


@mypyc_attr(allow_interpreted_subclasses=True)
class LargestCwnd(Retransmission):
    """RTX-CWND; it waits for room there if need be."""

    def __init__(self, draw: Callable[[int], int]) -> None:
        super().__init__(draw)
        self.on_loss = True

    def destination(self, candidates: Sequence[P], failed: P) -> P | None:
        return self.best(candidates, [float(c.cwnd) for c in candidates])


@mypyc_attr(allow_interpreted_subclasses=True)
class LargestSsthresh(Retransmission):
    """RTX-SSTHRESH; one that never lost anything has an infinite one."""

    def __init__(self, draw: Callable[[int], int]) -> None:
        super().__init__(draw)
        self.on_loss = True

    def destination(self, candidates: Sequence[P], failed: P) -> P | None:
        return self.best(candidates, [float(c.ssthresh) for c in candidates])


@mypyc_attr(allow_interpreted_subclasses=True)
class LowestLossRate(Retransmission):
    """RTX-LOSSRATE, by the share of what was sent that went again; the paper takes it as known."""

    def __init__(self, draw: Callable[[int], int]) -> None:
        super().__init__(draw)
        self.on_loss = True

    def destination(self, candidates: Sequence[P], failed: P) -> P | None:
        return self.best(candidates, [-c.loss_rate for c in candidates])


policies.add("probe", OnProbe)
policies.add("rto", OnTimeout)
policies.add("rtx-same", Same)
policies.add("rtx-asap", AsSoonAsPossible)
policies.add("rtx-cwnd", LargestCwnd)
policies.add("rtx-ssthresh", LargestSsthresh)
policies.add("rtx-lossrate", LowestLossRate)
