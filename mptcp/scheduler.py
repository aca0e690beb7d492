"""Which subflow carries the next bytes.

A scheduler sees the subflows that could send right now and names one, or None to wait. It takes
numbers and returns a choice; it never changes a subflow. To add one: subclass `Scheduler`, decorate
with `@schedulers.register("name")`, and put the name in `Config.scheduler` or in the `Policies` of
a connection. `mptcp.schedulers` holds the others that come with the stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from mypy_extensions import mypyc_attr

from mptcp.registry import Registry
from mptcp.tcp.state import NEVER


class PathView(Protocol):
    """What a scheduler may know of a subflow (bytes and microseconds)."""

    @property
    def srtt(self) -> int:
        """Smoothed RTT; 0 while unknown."""

    @property
    def rttvar(self) -> int:
        """Mean deviation of the RTT (RFC 6298)."""

    @property
    def cwnd(self) -> int: ...

    @property
    def in_flight(self) -> int:
        """Bytes sent and neither acknowledged nor presumed lost."""

    @property
    def room(self) -> int:
        """Bytes the congestion window and the subflow's own window allow now."""

    @property
    def smss(self) -> int:
        """Payload of a full-sized segment."""

    @property
    def rate(self) -> int:
        """Bytes a second that the congestion window allows: cwnd / SRTT; 0 while unknown."""

    @property
    def bytes_sent(self) -> int:
        """Sent so far, retransmissions not counted."""

    @property
    def acked_at(self) -> int:
        """When the last ACK came; -1: none has."""

    @property
    def waiting_since(self) -> int:
        """Since when something is in flight and no ACK has covered more; -1: nothing is."""

    backup: bool
    path_index: int


class ConnectionView(Protocol):
    """What a scheduler may know of the connection (bytes and microseconds)."""

    @property
    def now(self) -> int:
        """The host's clock."""

    @property
    def paths(self) -> Sequence[PathView]:
        """Every subflow that new data may be given to, full ones too, in the order they came.

        Backup subflows only while there is no other (RFC 8684 §3.3.8).
        """

    @property
    def window(self) -> int:
        """Bytes that may be sent and not DATA_ACKed: the peer's window or, if less, our buffer."""

    @property
    def window_left(self) -> int:
        """What of it is free."""

    @property
    def window_blocks(self) -> int:
        """How often so far a subflow had room for data and `window` had none."""

    @property
    def next_dsn(self) -> int:
        """Data sequence number of the first byte that no subflow has had."""

    @property
    def more_waits(self) -> bool:
        """The application waits for room to write more; otherwise what is queued is all there is
        for now."""

    @property
    def weights(self) -> Sequence[int]:
        """`Config.scheduler_weights`: of path 1, 2, and so on."""


P = TypeVar("P", bound=PathView)


@mypyc_attr(allow_interpreted_subclasses=True)
class Scheduler:
    """Base class and contract; one object per connection."""

    connection: ConnectionView

    def attach(self, connection: ConnectionView) -> None:
        """Called once, before any other question: the connection to schedule for."""
        self.connection = connection

    def select(self, ready: Sequence[P], queued: int) -> P | None:
        """The subflow of `ready` to carry the next of `queued` bytes; None: wait for another.

        Asked once for each chunk (up to 64 KiB with offload); the choice stands until the subflow
        takes it or is no longer ready, so a scheduler may keep state. In bulk transfers mostly
        one subflow is ready at a time: the order shows when several have room. Data that is to go
        again is dealt out by the same question, where its policy leaves the choice.

        Every subflow in `ready` is established, not stale, and has room in its congestion window
        for what it would send. `ready` is not empty. The peer's backup subflows are in it only
        while no other works (RFC 8684 §3.3.8). When None is returned the question comes again with
        the next acknowledgement, and at `again`. Who waits for nothing, as no other subflow has
        anything in flight or is held back by pacing, is not heeded; nor for what is to go again.
        """
        raise NotImplementedError

    def again(self) -> int:
        """When, on the connection's clock, the question is to come again after None, though
        nothing has been acknowledged by then; `NEVER` if acknowledgements are all it waits for."""
        return NEVER

    def skip(self, path: P, queued: int) -> int:
        """Bytes at the front of the `queued` ones that others are to have: `path`, which was
        chosen, gets what follows them, and nothing if nothing does.

        Asked only of a scheduler that `looks_ahead`, while there is another path that moves, and
        not for what is to go again.
        """
        return 0

    def looks_ahead(self) -> bool:
        """Whether `skip` is to be asked. Read once."""
        return False

    def duplicates(self) -> bool:
        """Whether every subflow is to carry all of the data: each then takes, as it has room, what
        others have sent and the peer has not acknowledged, and `select` is not asked. Read once."""
        return False


schedulers: Registry[type[Scheduler]] = Registry("scheduler", "mptcp.schedulers")


@mypyc_attr(allow_interpreted_subclasses=True)
class MinRtt(Scheduler):
    """Lowest smoothed RTT first, the others when its window is full (Linux's old default).

    A path with room is never left idle. The default is `mptcp.schedulers.timedistance`, which
    leaves one idle where the data ends.
    """

    def select(self, ready: Sequence[P], queued: int) -> P | None:
        return min(ready, key=lambda path: (path.backup, path.srtt, path.path_index))


schedulers.add("minrtt", MinRtt)
