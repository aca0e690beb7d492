"""Data of a subflow whose mapping has not come yet (RFC 8684 §3.3.1, §3.7).

It is acknowledged by the subflow and kept, for the mapping may come with a later segment; when a
receive window's worth has come without one, or `PATIENCE_US` has passed, the subflow is broken. The
RFC names the window only; a sender that has little to say would never fill it.

Invariant: what is kept is in `DataReceiver.mapped`, as long as it is kept.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from mptcp.data_queues import COALESCE, DataReceiver
from mptcp.tcp.reassembly import true_size

PATIENCE_US: Final = 1_000_000


class Unmapped:
    """What one subflow has received in order, from `ssn` on, without a mapping."""

    __slots__ = ("deadline", "rx", "size", "ssn", "views")

    def __init__(self, rx: DataReceiver, ssn: int, now: int) -> None:
        self.rx = rx
        """Whose window is the smaller for what is kept here."""
        self.ssn = ssn
        self.size = 0
        self.views: deque[memoryview] = deque()
        self.deadline = now + PATIENCE_US

    def add(self, view: memoryview) -> None:
        """The next bytes."""
        if true_size(view) > 2 * len(view) + COALESCE:
            view = memoryview(bytes(view))  # do not keep alive what came with it
        self.rx.mapped += true_size(view)
        self.views.append(view)
        self.size += len(view)

    def taken(self, count: int) -> None:
        """The first `count` bytes, of the first view, have found their place."""
        self.ssn += count
        self.size -= count
        views = self.views
        if count < len(views[0]):
            views[0] = views[0][count:]  # it weighs what it did
        else:
            self.rx.mapped -= true_size(views.popleft())

    def clear(self) -> list[memoryview]:
        """Forget all; returns it, in order."""
        kept = list(self.views)
        for view in kept:
            self.rx.mapped -= true_size(view)
        self.views.clear()
        return kept
