"""BLEST, blocking estimation (Ferlin, Alay, Mehani, Boreli: IFIP Networking 2016).

What goes over a slow path occupies the connection's window for a round trip there. If the fast path
could fill the rest of the window meanwhile, it would have to stop: so the slow one is left idle.

    X = MSS_f (CWND_f + (rounds - 1) / 2) rounds,  rounds = RTT_s / RTT_f
    wait if  X lambda > window - MSS_s (in flight_s + 1)

lambda corrects the estimate: up when the window has filled all the same, down while it has not. The
paper gives no steps; these are those of its authors' module for Linux MPTCP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mypy_extensions import mypyc_attr

from mptcp.scheduler import P, Scheduler, schedulers

LAMBDA: Final = (1000, 1200, 1300)
"""Least, first and greatest, in thousandths."""
WORSE: Final = 40
BETTER: Final = 10


@mypyc_attr(allow_interpreted_subclasses=True)
class Blest(Scheduler):
    """See the module's text; fast is the lowest RTT of all, slow that of those that are ready."""

    def __init__(self) -> None:
        self.scale = LAMBDA[1]
        self.adapted_at = 0
        self.blocks = 0
        """The connection's `window_blocks` at that time."""

    def select(self, ready: Sequence[P], queued: int) -> P | None:
        slow = min(ready, key=lambda path: (path.backup, path.srtt, path.path_index))
        connection = self.connection
        fast = min(connection.paths, key=lambda path: (path.srtt, path.path_index))
        if slow is fast or not fast.srtt:
            return slow
        self.adapt(connection.now, slow.srtt, connection.window_blocks)
        rounds = slow.srtt / fast.srtt
        meanwhile = (fast.cwnd + fast.smss * (rounds - 1) / 2) * rounds
        if meanwhile * self.scale > 1000 * (connection.window - slow.in_flight - slow.smss):
            return None
        return slow

    def adapt(self, now: int, srtt: int, blocks: int) -> None:
        """Once a round trip of the slow path: has the window been full?"""
        if now - self.adapted_at < srtt:
            return
        self.adapted_at = now
        change = WORSE if blocks > self.blocks else -BETTER
        self.blocks = blocks
        self.scale = min(max(self.scale + change, LAMBDA[0]), LAMBDA[2])


schedulers.add("blest", Blest)
