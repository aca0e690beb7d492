"""Time-distance (thesis §4.3.6), the default: lowest RTT first, and no path too late for the end.

The time-distance of a path is queue / bandwidth + RTT; of the RTT the way there counts, half of it.
While there is more to send than the fast paths take, the queue on each is its window, because
subflows pull, and the order is that of the RTTs. Where the data ends, what is left over is a queue
before the fast path: when that will have delivered all of it before a slower one could deliver the
next segment, the slower one stays idle. Otherwise a file that ends just then takes the slow path's
time. A fast path that has acknowledged nothing new for two round trips, the probe time-out of RFC
8985 §7.2, is not waited for: less would not do, as one that repairs a loss goes on sending
meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

from mypy_extensions import mypyc_attr

from mptcp.scheduler import MinRtt, P, schedulers
from mptcp.tcp.state import NEVER


@mypyc_attr(allow_interpreted_subclasses=True)
class TimeDistance(MinRtt):
    """See the module's text."""

    def __init__(self) -> None:
        self.silent_at = NEVER
        """When the path that is waited for will have been silent for too long."""

    def again(self) -> int:
        return self.silent_at

    def select(self, ready: Sequence[P], queued: int) -> P | None:
        chosen = super().select(ready, queued)
        if chosen is None or self.connection.more_waits:
            return chosen
        now = self.connection.now
        for path in self.connection.paths:
            # queued / (cwnd / RTT) + RTT / 2 against the other's RTT / 2, times 2 cwnd.
            if (
                0 < path.srtt < chosen.srtt
                and (2 * queued + path.cwnd) * path.srtt < chosen.srtt * path.cwnd
                and (since := path.waiting_since) >= 0
                and now - since <= 2 * path.srtt
            ):
                self.silent_at = since + 2 * path.srtt + 1
                return None
        return chosen


schedulers.add("timedistance", TimeDistance)
