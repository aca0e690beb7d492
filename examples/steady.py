"""A scheduler of your own, by name: the path whose RTT is least in doubt.

    python -m mptcp.sim --load examples/steady.py --scheduler steady

Four deviations on top of the RTT, as in RFC 6298's time-out: a path that jitters has to be faster
by so much. What must not wait for a full path takes the next one.
"""

from collections.abc import Sequence

from mptcp.scheduler import P, Scheduler, schedulers


@schedulers.register("steady")
class Steady(Scheduler):
    def select(self, ready: Sequence[P], queued: int) -> P | None:
        # RFC 8684 §3.3.8: a backup path only while there is no other.
        regular = [path for path in ready if not path.backup] or ready
        return min(regular, key=lambda path: path.srtt + 4 * path.rttvar)
