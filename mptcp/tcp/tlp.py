"""TLP: a probe for the loss of the last segments of a flight (RFC 8985 §7).

Nothing is sacked after the last segment, so neither RACK nor duplicate ACKs can tell of its loss.
After about two round trips of silence one segment goes out, new data if there is any, else the last
one again: its acknowledgement triggers fast recovery, or shows that nothing was missing.

Invariant: one probe at a time; `end_seq` >= 0 from its transmission until its fate is known.
"""

from __future__ import annotations

import enum
from typing import Final

from mptcp.tcp.rtt import RttEstimator
from mptcp.tcp.state import NEVER

MIN_PTO_US: Final = 10_000
"""Floor of the probe time-out: twice an RTT of microseconds is less than the grain of a user
process's timers, and every hiccup of the machine would send a probe."""
INITIAL_PTO_US: Final = 1_000_000
"""RFC 8985 §7.2: without an RTT sample."""
MAX_ACK_DELAY_US: Final = 200_000
"""TLP.max_ack_delay (RFC 8985 §7.2): how long a receiver may sit on the ACK of a lone segment."""


class Verdict(enum.Enum):
    """What an ACK says of the outstanding probe (RFC 8985 §7.4.2)."""

    NONE = 0
    NO_LOSS = 1
    REPAIRED = 2  # the probe replaced a lost segment: the window must be reduced


class TailLossProbe:
    """TLP's variables of one connection."""

    __slots__ = ("deadline", "due", "end_seq", "is_retrans")

    def __init__(self) -> None:
        self.deadline = NEVER  # PTO
        self.due = False  # a probe is to go out now, whatever the congestion window says
        self.end_seq = -1  # TLP.end_seq; -1: no probe is out
        self.is_retrans = False  # TLP.is_retrans

    def arm(self, now: int, rtt: RttEstimator, lone: bool, rto_deadline: int) -> None:
        """RFC 8985 §7.2, TLP_calc_PTO; `lone`: a single segment is in flight."""
        if rtt.srtt:
            wait = max(2 * rtt.srtt, MIN_PTO_US)
            if lone:
                wait += MAX_ACK_DELAY_US
        else:
            wait = INITIAL_PTO_US
        self.deadline = min(now + wait, rto_deadline)

    def cancel(self) -> None:
        """Recovery begins or nothing is outstanding: no probe."""
        self.deadline = NEVER
        self.due = False

    def on_ack(self, ack: int, dsack: tuple[int, int] | None, bare_duplicate: bool) -> Verdict:
        """RFC 8985 §7.4.2, TLP_process_ack; `bare_duplicate`: a duplicate ACK without SACK."""
        if self.end_seq < 0 or ack < self.end_seq:
            return Verdict.NONE
        if not self.is_retrans or (dsack is not None and dsack[1] == self.end_seq):
            verdict = Verdict.NO_LOSS
        elif ack > self.end_seq:
            verdict = Verdict.REPAIRED
        elif bare_duplicate:
            verdict = Verdict.NO_LOSS
        else:
            return Verdict.NONE
        self.end_seq = -1
        return verdict
