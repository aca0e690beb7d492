"""The sending half of a TCP connection: SND variables, what an ACK changes, the probe of the tail.

Sequence numbers are unbounded integers that are congruent to the wire's modulo 2^32; they begin at
the 32-bit ISS and never wrap (see `wire.seq`).

    SND.UNA          SND.NXT            SND.UNA + SND.WND
       |  in flight     |  may be sent        |
       v                v                     v
   ----+----------------+---------------------+----     (RFC 9293 §3.3.1, figure 3)

Losses and what is done about them are in `recovery`; fast recovery follows PRR (RFC 6937; `prr`).
Growth counts the bytes each ACK covers, and only when the window was in use (`validation`).
"""

from __future__ import annotations

from typing import Final

from mptcp.tcp.chunks import SentChunk
from mptcp.tcp.congestion import CongestionControl
from mptcp.tcp.prr import ProportionalRateReduction
from mptcp.tcp.rack import Rack
from mptcp.tcp.recovery import (
    Recovery,
    detect_loss,
    frto_advance,
    frto_duplicate,
    leave_recovery,
    on_dsack,
    take_back,
)
from mptcp.tcp.rtt import RttEstimator
from mptcp.tcp.scoreboard import DUP_THRESH, Scoreboard
from mptcp.tcp.state import NEVER
from mptcp.tcp.stats import BUSY, RWND, Stats, segments
from mptcp.tcp.tlp import TailLossProbe
from mptcp.tcp.undo import Frto, Spurious, Undo
from mptcp.tcp.validation import CwndValidation

SMALL_WINDOW: Final = 16
"""Segments up to which limited transmit (RFC 3042) leaves no place free."""


class Sender:
    """SND state of one connection."""

    __slots__ = (
        "board",
        "bytes_acked",
        "bytes_retransmitted",
        "bytes_sent",
        "cc",
        "cwr_due",
        "dup_acks",
        "echo_ack",
        "echo_point",
        "flight_size",
        "iss",
        "mss",
        "nxt",
        "prr",
        "rack",
        "rack_tlp",
        "recovery",
        "recovery_point",
        "reduced_at",
        "reorder_deadline",
        "resend_at_once",
        "round_end",
        "rto_deadline",
        "rtt",
        "sack_ok",
        "smss",
        "spared",
        "spurious",
        "stats",
        "timeouts",
        "tlp",
        "una",
        "undo",
        "validation",
        "wl1",
        "wl2",
        "wnd",
        "wnd_max",
        "wscale",
    )

    def __init__(
        self,
        iss: int,
        mss: int,
        cc: CongestionControl,
        rtt: RttEstimator,
        *,
        rack_tlp: bool = True,
        stats: Stats | None = None,
    ) -> None:
        self.stats = stats if stats is not None else Stats()
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
        self.smss = mss  # SMSS (RFC 5681 §2): what full-sized segments carry, options excluded
        self.cc = cc
        self.rtt = rtt
        self.board = Scoreboard()
        self.validation = CwndValidation()
        self.recovery = Recovery.OPEN
        self.recovery_point = iss  # RFC 6675 RecoveryPoint / RFC 6582 recover
        self.spared: tuple[int, int] | None = None
        """Where a path-MTU probe is: its loss alone is no congestion (RFC 4821 §7.6.2)."""
        self.cwr_due = False  # the window was reduced and the peer not told (RFC 3168 §6.1.2)
        self.echo_point = iss  # SND.NXT at the last reduction because of ECE (RFC 3168 §6.1.2)
        self.echo_ack = -1  # the last ACK number that came with ECE: it does not grow the window
        self.dup_acks = 0
        self.flight_size = 0  # RFC 5681 FlightSize when the first duplicate ACK came
        self.resend_at_once = False  # one retransmission need not wait for cwnd - pipe
        self.round_end = iss  # when SND.UNA gets here, a round trip of data has been acknowledged
        self.reduced_at = 0  # when the window was last reduced in this recovery
        self.rack_tlp = rack_tlp
        self.rack = Rack(iss)
        self.reorder_deadline = NEVER  # RFC 8985 §6.2 step 5: when to look for losses again
        self.tlp = TailLossProbe()
        self.prr = ProportionalRateReduction()
        self.undo = Undo()
        self.spurious = 0  # recoveries that were undone
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
        """Bytes the congestion window still allows (RFC 6675: cwnd - pipe; RFC 6937 §3)."""
        if self.sack_ok:
            if self.recovery is Recovery.FAST:
                return self.prr.room
            room = self.cc.cwnd - self.board.in_flight
            # While RACK waits for a suspect the place of its retransmission is kept free: a queue
            # that every SACK was answered into is full when the timer comes, and drops it. Small
            # windows need each of those segments (RFC 3042 §1).
            if self.reorder_deadline < NEVER and self.cc.cwnd > SMALL_WINDOW * self.smss:
                room -= self.smss
            return room
        room = self.cc.cwnd - self.board.in_flight
        if self.recovery is Recovery.FAST:
            # RFC 6582 §3.2 steps 2-4: without SACK each duplicate ACK says one segment has left.
            room += self.dup_acks * self.smss
        elif self.dup_acks:
            # RFC 3042, limited transmit: the first two duplicate ACKs let new segments out.
            room += min(self.dup_acks, DUP_THRESH - 1) * self.smss
        return room

    def on_sent(self, chunk: SentChunk) -> None:
        """A chunk at SND.NXT goes out for the first time."""
        size = chunk.end - chunk.seq
        self.board.add(chunk)
        self.nxt = chunk.end
        self.bytes_sent += size
        if self.rto_deadline == NEVER:
            self.rto_deadline = chunk.sent_at + self.rtt.rto  # RFC 6298 (5.1)
            self.stats.on_first_sent(chunk.sent_at)
        elif self.stats.kind >= RWND:
            self.stats.enter(BUSY, chunk.sent_at)
        if self.recovery is Recovery.OPEN:
            self._arm_probe(chunk.sent_at)
        elif self.recovery is Recovery.FAST:
            self.prr.on_sent(size)
        elif self.undo.frto is Frto.PROBING:
            self.undo.frto_left -= 1

    def resend(self, chunk: SentChunk, size: int, now: int) -> SentChunk:
        """Put up to `size` bytes of a lost chunk in flight again."""
        part = self.board.resend(chunk, size, now)
        self._resent(part.end - part.seq, now)
        return part

    def stop_timers(self) -> None:
        """Nothing more is to be sent again."""
        self.rto_deadline = NEVER
        self.reorder_deadline = NEVER
        self.tlp.cancel()

    def _resent(self, size: int, now: int) -> None:
        self.bytes_retransmitted += size
        stats = self.stats
        count = segments(size, self.smss)
        stats.total_retrans += count
        stats.counters["TcpRetransSegs"] += count
        if self.recovery is Recovery.FAST:
            stats.counters["TcpExtTCPFastRetrans"] += count
        elif self.recovery is Recovery.LOSS:
            stats.counters["TcpExtTCPSlowStartRetrans"] += count
        self.undo.on_resent(size, now)
        if self.recovery is Recovery.FAST:
            self.prr.on_sent(size)
        if self.rto_deadline == NEVER:
            self.rto_deadline = now + self.rtt.rto

    # -- tail loss probe (RFC 8985 §7) ---------------------------------------------------------

    def _arm_probe(self, now: int) -> None:
        """RFC 8985 §7.2: SACK, no recovery, nothing sacked, no probe outstanding."""
        tlp = self.tlp
        board = self.board
        if self.sack_ok and self.rack_tlp and tlp.end_seq < 0 and not board.sacked.starts:
            tlp.arm(now, self.rtt, board.in_flight <= self.smss, self.rto_deadline)
        else:
            tlp.deadline = NEVER

    def on_probe_timeout(self, now: int) -> None:
        """PTO expired: the next segment out is a probe."""
        self.tlp.deadline = NEVER
        # What is sacked since has RACK's timer or the RTO (RFC 8985 §7.2).
        if self.board and self.recovery is Recovery.OPEN and not self.board.sacked:
            self.tlp.due = True
            # §7.2: PTO is the RTO's time at the latest, and then comes in its place.
            self.rto_deadline = now + self.rtt.rto

    def probe_again(self, segment: int, now: int) -> SentChunk:
        """RFC 8985 §7.3: no new data to probe with, so the last segment goes again.

        `segment`: payload that fits beside the options, also when what was sent was larger.
        """
        part = self.board.resend_tail(segment, now)
        self._resent(part.end - part.seq, now)
        self.probe_sent(now, is_retrans=True)
        return part

    def probe_sent(self, now: int, *, is_retrans: bool) -> None:
        """RFC 8985 §7.3: remember the probe, and give it a whole RTO."""
        tlp = self.tlp
        tlp.cancel()
        tlp.end_seq = self.nxt
        tlp.is_retrans = is_retrans
        self.rto_deadline = now + self.rtt.rto

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
        dsack: tuple[int, int] | None = None,
    ) -> int:
        """Process an acceptable ACK (SND.UNA <= ack <= SND.NXT); returns the bytes it newly covers.

        `sack` are unwrapped blocks within (ack, SND.NXT]; `ts_rtt` is the RTT by timestamps in µs
        or -1; `duplicate` says whether the segment counts as a duplicate ACK (RFC 5681 §2);
        `dsack` is what the peer reports as received twice (RFC 2883).
        """
        board = self.board
        cc = self.cc
        acked = ack - self.una
        in_flight_before = board.in_flight
        outstanding = self.nxt - ack
        sacked_before = board.sacked_bytes
        cc.now = cc.acked_at = now
        board.begin_ack()
        round_over = False
        if acked > 0:
            board.acknowledge(ack)
            self.una = ack
            self.bytes_acked += acked
            self.timeouts = 0
            if ack > self.round_end:
                cc.rounds += 1
                self.round_end = self.nxt
                round_over = True
        sacked_after_ack = board.sacked_bytes
        for start, end in sack:
            board.select(start, end)
        newly_sacked = board.sacked_bytes > sacked_after_ack
        # RFC 6937 §3 DeliveredData: what left the network, however it is reported.
        delivered = acked + board.sacked_bytes - sacked_before
        stats = self.stats
        stats.delivered += delivered
        cc.delivered = stats.delivered
        if round_over:
            stats.on_round(now)
        if board.newest_at >= 0:
            self._delivered(now, ts_rtt, acked)
        if dsack is not None or self.tlp.end_seq >= 0:
            on_dsack(self, ack, dsack, duplicate and not sack)
        if acked > 0:
            if ack < self.nxt:
                self.rto_deadline = now + self.rtt.rto  # RFC 6298 (5.3)
            else:
                self.rto_deadline = NEVER  # RFC 6298 (5.2)
                stats.on_all_acked(now)
            self._advance(now, acked, delivered, in_flight_before, ts_rtt)
        elif newly_sacked or (duplicate and not self.sack_ok):
            if not self.dup_acks:
                # RFC 5681 §3.2 (1): what limited transmit adds from now on does not count.
                self.flight_size = outstanding
            self.dup_acks += 1
            if self.rack.reordering_seen and self.recovery is Recovery.OPEN:
                # What is only late must not slow growth down: it counts when it is selected, as it
                # will not when SND.UNA passes it (Linux's tcp_may_raise_cwnd).
                self._grow(delivered, in_flight_before)
            if self.undo.frto is not Frto.OFF:
                frto_duplicate(self)
        elif self.undo.frto is not Frto.OFF and duplicate:
            self.undo.frto = Frto.OFF
        detect_loss(self, now, delivered)
        if self.recovery is Recovery.FAST:
            self.prr.on_ack(delivered, board.in_flight, cc.ssthresh, self.smss)
        elif self.recovery is Recovery.OPEN and acked > 0:
            if ack < self.nxt:
                self._arm_probe(now)
            else:
                self.tlp.cancel()
        return acked

    def _delivered(self, now: int, ts_rtt: int, acked: int) -> None:
        """Something arrived that no ACK had covered before: RTT sample, RACK steps 1 to 3."""
        board = self.board
        cc = self.cc
        rtt = -1
        # RFC 6298 §3 (Karn): a chunk sent once gives an exact sample; timestamps (in ms) serve
        # where the chunk was sent more than once.
        if not (board.newest_resent or board.resent_acked):
            rtt = now - board.newest_at
        elif ts_rtt >= 0 and acked > 0:
            rtt = ts_rtt
        if rtt >= 0:
            cc.latest_rtt = rtt
            self.rtt.sample(rtt, now)
            cc.srtt = self.rtt.srtt
            cc.min_rtt = self.rtt.min_rtt
        rack = self.rack
        # RFC 8985 §6.2 step 2: an ACK sooner than any RTT after a retransmission is the original's.
        if not board.newest_resent or now - board.newest_at >= self.rtt.min_rtt:
            rack.on_delivered(board.newest_at, board.newest_end, now)
        # Step 3: sent once, delivered after something that was sent later.
        if board.oldest_original < rack.fack:
            rack.reordering_seen = True
            self.stats.reord_seen += 1
            self.stats.counters["TcpExtTCPSACKReorder"] += 1
        highest = board.sacked.ends[-1] if board.sacked.ends else self.una
        if highest > rack.fack:
            rack.fack = highest

    def _advance(
        self, now: int, acked: int, delivered: int, in_flight_before: int, ts_rtt: int
    ) -> None:
        """SND.UNA moved: leave recovery or grow the window (by what was not known before)."""
        if self.recovery is Recovery.OPEN:
            self.dup_acks = 0
        elif self.undo.original_echoed(now, ts_rtt):
            take_back(self, Spurious.ECHO)
            return
        elif frto_advance(self):
            take_back(self, Spurious.FRTO)
            return
        else:
            if self.recovery is Recovery.LOSS and not self.sack_ok:
                # RFC 3465 §2.3: L = 1 after a time-out. What lay behind the hole had left the
                # network long before; with SACK it is not in `delivered`.
                delivered = min(delivered, self.smss)
            if self.una >= self.recovery_point:
                was_fast = self.recovery is Recovery.FAST
                leave_recovery(self)
                if was_fast and not self.sack_ok:
                    return  # RFC 6582 §3.2 (3): the window is ssthresh now
                # With SACK too (RFC 6675 §5), but what only this ACK delivers counts for its
                # growth, as that of any ACK of new data does (and Linux's too).
            elif self.recovery is Recovery.FAST:
                if not self.sack_ok:
                    # RFC 6582 §3.2 step 3, partial ACK: the next hole is lost too.
                    self.dup_acks = max(0, self.dup_acks - max(1, acked // self.smss))
                    self.resend_at_once = self.board.mark_first_lost(self.smss)
                return
        self._grow(delivered, in_flight_before)

    def _grow(self, delivered: int, in_flight_before: int) -> None:
        """Let the window grow for what was delivered, if it was in use."""
        limited = self.recovery is Recovery.LOSS or self.validation.limited(
            self.cc, in_flight_before, self.rtt.rto
        )
        if limited and self.una != self.echo_ack:
            self.cc.on_ack(delivered)
