"""Not only which path, but which data: thesis §4.3.6, fig. 4.8.

A slow path that asks for data gets what will be at the front of the queue when its segment arrives,
not what is there now: "segments 19, 20 to the slow path", because 1 to 18 are acknowledged sooner
over the fast one. There is less to reorder at the receiver, and what the queue does not hold so far
back is left to the fast path altogether.
"""

from __future__ import annotations

from mypy_extensions import mypyc_attr

from mptcp.scheduler import MinRtt, P, schedulers


@mypyc_attr(allow_interpreted_subclasses=True)
class LookAhead(MinRtt):
    """Lowest RTT first; the others get what the faster ones cannot deliver sooner."""

    def looks_ahead(self) -> bool:
        return True

    def skip(self, path: P, queued: int) -> int:
        srtt = path.srtt
        total = 0
        for other in self.connection.paths:
            if other is path or not 0 < other.srtt < srtt:
                continue
            # A window each round trip, of which what is in flight now is the first.
            rounds = (srtt - 1) // other.srtt
            total += max(0, rounds * other.cwnd - other.in_flight)
        return total


schedulers.add("lookahead", LookAhead)
