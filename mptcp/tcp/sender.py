"""The sending half of a TCP connection: SND variables, recovery, the retransmission timer.

Sequence numbers are unbounded integers that are congruent to the wire's modulo 2^32; they begin at
the 32-bit ISS and never wrap (see `wire.seq`).

    SND.UNA          SND.NXT            SND.UNA + SND.WND
       |  in flight     |  may be sent        |
       v                v                     v
   ----+----------------+---------------------+----     (RFC 9293 §3.3.1, figure 3)

Recovery is RFC 6675 with SACK and RFC 6582 (NewReno) without. Growth counts the bytes each ACK
covers, and only when the window was in use (`validation`).
"""

from __future__ import annotations

import enum

from mptcp.tcp.congestion import CongestionControl
from mptcp.tcp.rtt import RttEstimator
from mptcp.tcp.scoreboard import DUP_THRESH, IN_FLIGHT, Scoreboard, SentChunk
from mptcp.tcp.state import NEVER
from mptcp.tcp.validation import CwndValidation


class Recovery(enum.Enum):
    """What the sender is doing about loss."""

    OPEN = 0
    FAST = 1  # fast recovery (RFC 6675 §5, RFC 6582 §3.2)
    LOSS = 2  # after a time-out (RFC 5681 §3.1)


class Sender:
    """SND state of one connection."""

    __slots__ = (
        "board",
        "bytes_acked",
        "bytes_retransmitted",
        "bytes_sent",
        "cc",
        "dup_acks",
        "echo_ack",
        "echo_point",
        "flight_size",
        "iss",
        "mss",
        "nxt",
        "recovery",
        "recovery_point",
        "reductions",
        "resend_at_once",
        "round_end",
        "rto_deadline",
        "rtt",
        "sack_ok",
        "spared",
        "timeouts",
        "una",
        "validation",
        "wl1",
        "wl2",
        "wnd",
        "wnd_max",
        "wscale",
    )

    def __init__(self, iss: int, mss: int, cc: CongestionControl, rtt: RttEstimator) -> None:
        self.iss = iss
        self.una = iss  # SND.UNA
        self.nxt = iss  # SND.NXT
        self.wnd = 0  # SND.WND, already scaled
        self.wnd_max = 0  # largest SND.WND seen (RFC 9293 §3.8.6.2.1)
        self.wl1 = 0  # SND.WL1: seq of the segment that last updated the window
        self.wl2 = 0  # SND.WL2: its ack
        self.wscale = 0  # Snd.Wind.Shift (RFC 7323 §2.2)
        self.sack_ok = False
        self.mss = mss  # largest segment the path and the peer take, options included
        self.cc = cc
        self.rtt = rtt
        self.board = Scoreboard()
        self.validation = CwndValidation()
        self.recovery = Recovery.OPEN
        self.recovery_point = iss  # RFC 6675 RecoveryPoint / RFC 6582 recover
        self.spared: tuple[int, int] | None = None
        """Where a path-MTU probe is: its loss alone is no congestion (RFC 4821 §7.6.2)."""
        self.reductions = 0  # of the window, for whatever reason
        self.echo_point = iss  # SND.NXT at the last reduction because of ECE (RFC 3168 §6.1.2)
        self.echo_ack = -1  # the last ACK number that came with ECE: it does not grow the window
        self.dup_acks = 0
        self.flight_size = 0  # RFC 5681 FlightSize when the first duplicate ACK came
        self.resend_at_once = False  # one retransmission need not wait for cwnd - pipe
        self.round_end = iss  # when SND.UNA gets here, a round trip of data has been acknowledged
        self.timeouts = 0  # consecutive expiries of the retransmission timer
        self.rto_deadline = NEVER
        self.bytes_sent = 0
        self.bytes_acked = 0
        self.bytes_retransmitted = 0

    # -- sending -------------------------------------------------------------------------------

    def window_room(self) -> int:
        """Bytes the peer's window still allows (RFC 9293 §3.8.6.2.1: the usable window)."""
        return self.una + self.wnd - self.nxt

    def congestion_room(self) -> int:
        """Bytes the congestion window still allows (RFC 6675: cwnd - pipe)."""
        room = self.cc.cwnd - self.board.in_flight
        if not self.sack_ok and self.recovery is Recovery.FAST:
            # RFC 6582 §3.2 steps 2-4: without SACK each duplicate ACK says one segment has left.
            room += self.dup_acks * self.mss
        return room

    def on_sent(self, chunk: SentChunk) -> None:
        """A chunk at SND.NXT goes out for the first time."""
        self.board.add(chunk)
        self.nxt = chunk.end
        self.bytes_sent += chunk.end - chunk.seq
        if self.rto_deadline == NEVER:
            self.rto_deadline = chunk.sent_at + self.rtt.rto  # RFC 6298 (5.1)

    def resend(self, chunk: SentChunk, size: int, now: int) -> SentChunk:
        """Put up to `size` bytes of a lost chunk in flight again."""
        part = self.board.resend(chunk, size, now)
        self.bytes_retransmitted += part.end - part.seq
        if self.rto_deadline == NEVER:
            self.rto_deadline = now + self.rtt.rto
        return part

    # -- acknowledgements ----------------------------------------------------------------------

    def update_window(self, seq: int, ack: int, wnd: int) -> bool:
        """RFC 9293 §3.10.7.4 fifth: take the window unless the segment is old."""
        if self.wl1 < seq or (self.wl1 == seq and self.wl2 <= ack):
            changed = wnd != self.wnd
            self.wnd = wnd
            self.wl1 = seq
            self.wl2 = ack
            if wnd > self.wnd_max:
                self.wnd_max = wnd
            return changed
        return False

    def on_ack(
        self,
        now: int,
        ack: int,
        sack: list[tuple[int, int]],
        ts_rtt: int,
        duplicate: bool,
    ) -> int:
        """Process an acceptable ACK (SND.UNA <= ack <= SND.NXT); returns the bytes it newly covers.

        `sack` are unwrapped blocks within (ack, SND.NXT]; `ts_rtt` is the RTT by timestamps in µs
        or -1; `duplicate` says whether the segment counts as a duplicate ACK (RFC 5681 §2).
        """
        board = self.board
        acked = ack - self.una
        in_flight_before = board.in_flight
        cc = self.cc
        cc.now = now
        newest: SentChunk | None = None
        already = 0  # bytes that a SACK had reported before
        if acked > 0:
            already = board.sacked_bytes
            newest = board.acknowledge(ack)
            already -= board.sacked_bytes
            self.una = ack
            self.bytes_acked += acked
            self.timeouts = 0
            self.rtt.reset_back_off()
        sacked_before = board.sacked_bytes
        for start, end in sack:
            covered = board.select(start, end)
            if covered is not None and newest is None:
                newest = covered
        newly_sacked = board.sacked_bytes > sacked_before
        # RFC 6298 §3 (Karn): a chunk sent once gives an exact sample; timestamps (in ms) serve
        # where the chunk was sent more than once.
        if newest is not None:
            if not newest.resent:
                cc.latest_rtt = now - newest.sent_at
                self.rtt.sample(cc.latest_rtt)
            elif ts_rtt >= 0 and acked > 0:
                cc.latest_rtt = ts_rtt
                self.rtt.sample(ts_rtt)
            cc.srtt = self.rtt.srtt
            cc.min_rtt = self.rtt.min_rtt
        if acked > 0:
            if ack > self.round_end:
                cc.rounds += 1
                self.round_end = self.nxt
            self._advance(acked, acked - already, in_flight_before)
            self.rto_deadline = now + self.rtt.rto if board else NEVER  # RFC 6298 (5.2), (5.3)
        elif newly_sacked or (duplicate and not self.sack_ok):
            if not self.dup_acks:
                # RFC 5681 §3.2 (1): what limited transmit adds from now on does not count.
                self.flight_size = self.nxt - self.una
            self.dup_acks += 1
        self._detect_loss()
        return acked

    def _advance(self, acked: int, delivered: int, in_flight_before: int) -> None:
        """SND.UNA moved: leave recovery or grow the window (by what was not known before)."""
        cc = self.cc
        if self.recovery is Recovery.OPEN:
            self.dup_acks = 0
        elif self.una >= self.recovery_point:
            was_fast = self.recovery is Recovery.FAST
            self.recovery = Recovery.OPEN
            self.dup_acks = 0
            cc.on_recovered()
            if was_fast:
                return  # RFC 6582 §3.2 (3), RFC 6675 §5: the window is ssthresh now
        elif self.recovery is Recovery.FAST:
            if not self.sack_ok:
                # RFC 6582 §3.2 step 3, partial ACK: the next hole is lost too.
                self.dup_acks = max(0, self.dup_acks - max(1, acked // self.mss))
                self.resend_at_once = self.board.mark_first_lost(self.mss)
            return
        limited = self.recovery is Recovery.LOSS or self.validation.limited(
            cc, in_flight_before, self.rtt.rto
        )
        if limited and self.una != self.echo_ack:
            cc.on_ack(delivered)

    def _detect_loss(self) -> None:
        """Enter or continue fast recovery."""
        board = self.board
        if not board:
            return
        if self.sack_ok:
            lost = bool(board.sacked) and board.mark_by_sack(self.mss)
            if (
                not lost
                and self.recovery is Recovery.OPEN
                and self.dup_acks >= DUP_THRESH
                and board.first().status == IN_FLIGHT
                and not board.first().retransmissions
            ):
                # RFC 6675 §5 (2): three duplicate ACKs though the sacked segments are small.
                lost = board.mark_first_lost(self.mss)
        else:
            # RFC 6582 §3.2 step 1: only once per window of data.
            lost = (
                self.dup_acks == DUP_THRESH
                and self.recovery is Recovery.OPEN
                and self.una > self.recovery_point - 1
                and board.mark_first_lost(self.mss)
            )
        if lost and self.recovery is Recovery.OPEN:
            self._enter_recovery(self.flight_size if self.dup_acks else self.nxt - self.una)

    def _enter_recovery(self, flight_size: int) -> None:
        """RFC 6675 §5 (4), RFC 6582 §3.2 (2)."""
        if self.spared is not None and self.board.lost_within(*self.spared):
            self.resend_at_once = True
            return
        self.recovery = Recovery.FAST
        self.recovery_point = self.nxt
        self.resend_at_once = True
        if self.una < self.echo_point:
            # RFC 3168 §6.1.2: for drops and marks in one window of data the window is reduced once.
            self.cc.in_recovery = True
            return
        self.reductions += 1
        # Never from more than the window: what was sent while SACKs came in is in FlightSize too,
        # and a controller that keeps more than half of it would grow at a loss.
        self.cc.on_loss(min(flight_size, self.cc.cwnd))

    def on_congestion_echo(self, now: int, ack: int) -> bool:
        """An ACK of `ack` that carries ECE comes to `on_ack` next; whether it reduces the window.

        RFC 3168 §6.1.2: once for each window of data, be it for marks or for drops, and without a
        change to what is in flight: what was sent before the last reduction says nothing new.
        """
        self.echo_ack = ack
        if ack <= self.echo_point or ack <= self.recovery_point or ack > self.nxt:
            return False
        self.echo_point = self.nxt
        self.reductions += 1
        self.cc.now = now
        self.cc.on_ecn(min(self.nxt - self.una, self.cc.cwnd))
        return True

    def on_timeout(self, now: int) -> None:
        """The retransmission timer expired (RFC 6298 §5.4-5.6)."""
        board = self.board
        first = self.timeouts == 0
        recovering = self.recovery is Recovery.FAST
        if first and board.sacked.containing(self.una) is not None:
            # RFC 2018 §8: SND.UNA itself is sacked, so the receiver has discarded what it held.
            board.forget_sack()
        board.mark_all_lost()
        self.timeouts += 1
        self.rtt.back_off()
        self.dup_acks = 0
        self.recovery = Recovery.LOSS
        self.recovery_point = self.nxt
        # RFC 5681 §3.1 takes FlightSize; what fast recovery sent meanwhile must not raise it, and
        # a window that was just reduced for the same loss is not reduced again (as in Linux).
        flight_size = min(self.nxt - self.una, self.cc.cwnd)
        self.reductions += 1
        self.cc.on_timeout(flight_size, first=first and not recovering)
        self.rto_deadline = now + self.rtt.rto

    def on_refused(self, chunk: SentChunk) -> None:
        """The device refused the packet: it counts as a loss (design: a write may fail)."""
        if chunk.status == IN_FLIGHT and chunk.seq >= self.una and chunk.seq < chunk.end:
            self.board.mark_lost(chunk)
            if self.recovery is Recovery.OPEN:
                self._enter_recovery(self.nxt - self.una)
