"""ECF, earliest completion first (Lim, Nahum, Towsley, Gibbens: CoNEXT 2017, algorithm 1).

A slow path with room is left idle where the data would be delivered sooner by waiting for the fast
one: n round trips of the fast path, n = 1 + k / cwnd of what is queued, against one of the slow
path, and the slow path would itself need long for k. beta keeps the decision to wait from flapping.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mypy_extensions import mypyc_attr

from mptcp.scheduler import P, Scheduler, schedulers

BETA_INVERSE: Final = 4
"""1 / beta: the paper has beta = 0.25."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Ecf(Scheduler):
    """See the module's text; fast is the lowest RTT of all, slow that of those that are ready."""

    def __init__(self) -> None:
        self.waiting = False

    def select(self, ready: Sequence[P], queued: int) -> P | None:
        slow = min(ready, key=lambda path: (path.backup, path.srtt, path.path_index))
        fast = min(self.connection.paths, key=lambda path: (path.srtt, path.path_index))
        if slow is fast or not fast.srtt:
            return slow
        delta = max(fast.rttvar, slow.rttvar)
        # Both sides times cwnd, so that integers do: (1 + k / cwnd_f) RTT_f < (1 + beta) (RTT_s +
        # delta), and k / cwnd_s RTT_s >= 2 RTT_f + delta.
        needed = BETA_INVERSE * (fast.cwnd + queued) * fast.srtt
        margin = BETA_INVERSE + self.waiting
        if needed < margin * fast.cwnd * (slow.srtt + delta):
            if queued * slow.srtt >= slow.cwnd * (2 * fast.srtt + delta):
                self.waiting = True
                return None
        else:
            self.waiting = False
        return slow


schedulers.add("ecf", Ecf)
