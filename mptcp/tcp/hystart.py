"""HyStart++ (RFC 9406): leave the first slow start when the delay grows, before the queue is full.

One object watches one slow start. It takes numbers (bytes acknowledged, RTT sample, round) and
returns by how much the window may grow; it never sees a connection nor a congestion controller.

    slow start --delay grew--> Conservative Slow Start --CSS_ROUNDS rounds--> done
        ^                                |
        '---- delay fell below what -----'
              it was at the exit

Only the slow start from the initial window is watched (RFC 9406 §4.2: later ones end at an
`ssthresh` that was learned); `congestion.slow_start` asks for nothing once `ssthresh` is finite.

Cost: a few comparisons for an ACK in the first slow start, nothing later.
"""

from __future__ import annotations

from typing import Final

MIN_RTT_THRESH: Final = 4_000
"""µs. This and the next constants are RFC 9406 §4.3's recommended values."""
MAX_RTT_THRESH: Final = 16_000
"""µs."""
MIN_RTT_DIVISOR: Final = 8
N_RTT_SAMPLE: Final = 8
"""RTT samples a round must have before its delay is judged. An ACK for a chunk of many segments is
one sample: a chunk holds at most a millisecond of the path's rate, so that with an RTT below some
16 ms rounds of few chunks end slow start by loss, as without HyStart++."""
CSS_GROWTH_DIVISOR: Final = 4
CSS_ROUNDS: Final = 5

_INFINITY: Final = 1 << 62


class HyStart:
    """The state of RFC 9406 §4.2; times are microseconds, sizes bytes.

    The RFC's L, a cap of L * SMSS on the bytes one ACK may count for, is infinity: it is there
    against bursts, which the limit on a chunk (a millisecond's worth, `allowance.chunk_limit`) and
    the ACK clock bound already, and with L = 8 an ACK that covers a chunk of 44 segments would
    count for 8, so that slow start were five times slower exactly where it has furthest to go.
    """

    __slots__ = (
        "baseline",
        "credit",
        "css_rounds",
        "current_round_min_rtt",
        "done",
        "in_css",
        "last_round_min_rtt",
        "round",
        "samples",
    )

    def __init__(self) -> None:
        self.round = 0
        self.current_round_min_rtt = _INFINITY
        self.last_round_min_rtt = _INFINITY
        self.samples = 0
        self.in_css = False
        self.baseline = _INFINITY
        """cssBaselineMinRtt: the round's least RTT when Conservative Slow Start began."""
        self.css_rounds = 0
        """Rounds of Conservative Slow Start that are over, the partial first one included."""
        self.credit = 0
        """Bytes acknowledged in Conservative Slow Start that did not yet move the window."""
        self.done = False
        """Slow start is over: the window at that moment is the new ssthresh."""

    def grow(self, acked: int, rtt: int, rounds: int) -> int:
        """Bytes to add to the window for an ACK of `acked` new bytes; 0 once `done`.

        `rtt` is the newest sample (0: none yet), `rounds` the count of round trips so far.
        """
        if rounds != self.round:
            self._new_round(rounds)
        if self.done:
            return 0
        growth = acked
        if self.in_css:
            self.credit += acked
            growth = self.credit // CSS_GROWTH_DIVISOR
            self.credit -= growth * CSS_GROWTH_DIVISOR
        if rtt > 0:
            self.samples += 1
            if rtt < self.current_round_min_rtt:
                self.current_round_min_rtt = rtt
            if self.samples >= N_RTT_SAMPLE:
                self._judge()
        return growth

    def _new_round(self, rounds: int) -> None:
        """All that was outstanding when the last round began is acknowledged."""
        self.round = rounds
        self.last_round_min_rtt = self.current_round_min_rtt
        self.current_round_min_rtt = _INFINITY
        self.samples = 0
        if self.in_css:
            self.css_rounds += 1
            self.done = self.css_rounds >= CSS_ROUNDS

    def _judge(self) -> None:
        """Enter Conservative Slow Start, or leave it because it was entered for a mere jitter."""
        current = self.current_round_min_rtt
        if self.in_css:
            if current < self.baseline:
                self.in_css = False
                self.baseline = _INFINITY
        elif self.last_round_min_rtt < _INFINITY:
            threshold = self.last_round_min_rtt // MIN_RTT_DIVISOR
            threshold = max(MIN_RTT_THRESH, min(threshold, MAX_RTT_THRESH))
            if current >= self.last_round_min_rtt + threshold:
                self.in_css = True
                self.baseline = current
                self.css_rounds = 0
