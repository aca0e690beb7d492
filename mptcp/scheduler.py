"""Which subflow carries the next bytes.

A scheduler sees the subflows that could send right now and names one, or None to wait. It takes
numbers and returns a choice; it never changes a subflow. To add one: subclass `Scheduler`, decorate
with `@schedulers.register("name")`, and put the name in `Config.scheduler`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from mypy_extensions import mypyc_attr

from mptcp.registry import Registry


class PathView(Protocol):
    """What a scheduler may know of a subflow (bytes and microseconds)."""

    @property
    def srtt(self) -> int: ...
    @property
    def cwnd(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def room(self) -> int: ...

    backup: bool
    path_index: int


P = TypeVar("P", bound=PathView)


@mypyc_attr(allow_interpreted_subclasses=True)
class Scheduler:
    """Base class and contract; one object per connection."""

    def select(self, ready: Sequence[P], queued: int) -> P | None:
        """The subflow of `ready` to carry the next of `queued` bytes; None: wait for another.

        Asked once for each chunk (up to 64 KiB with offload); the choice stands until the subflow
        takes it or is no longer ready, so a scheduler may keep state. In bulk transfers mostly
        one subflow is ready at a time: the order shows when several have room.

        Every subflow in `ready` is established, not stale, and has room in its congestion window
        for what it would send. `ready` is not empty. When None is returned the question comes
        again with the next acknowledgement.
        """
        raise NotImplementedError


schedulers: Registry[type[Scheduler]] = Registry("scheduler", "mptcp.schedulers")


@mypyc_attr(allow_interpreted_subclasses=True)
class MinRtt(Scheduler):
    """Lowest smoothed RTT first, the others when its window is full (Linux's old default).

    A backup subflow is used only while no other is ready (RFC 8684 §3.3.8).
    """

    def select(self, ready: Sequence[P], queued: int) -> P | None:
        return min(ready, key=lambda path: (path.backup, path.srtt, path.path_index))


schedulers.add("minrtt", MinRtt)
