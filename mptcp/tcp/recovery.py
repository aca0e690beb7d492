"""Recovery of one sender: how it is entered, what it makes of losses, how it ends or is taken back.

Works on `Sender`, which keeps the variables, as `input` works on the connection. With SACK, losses
are found by RACK (RFC 8985) or RFC 6675's count, without by RFC 6582's duplicate ACKs; a reduction
of the window that proves needless is undone (`undo`: RFC 4015, RFC 5682, RFC 2883).

Invariant: `recovery` is OPEN, or `recovery_point` is what SND.NXT was when the loss was found, and
SND.UNA is below it.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from mptcp.tcp.chunks import IN_FLIGHT, SentChunk
from mptcp.tcp.scoreboard import DUP_THRESH
from mptcp.tcp.state import NEVER
from mptcp.tcp.tlp import Verdict
from mptcp.tcp.undo import FRTO_SEGMENTS, Frto, Spurious

if TYPE_CHECKING:
    from mptcp.tcp.sender import Sender


class Recovery(enum.Enum):
    """What the sender is doing about loss."""

    OPEN = 0
    FAST = 1  # fast recovery (RFC 6675 §5, RFC 6582 §3.2)
    LOSS = 2  # after a time-out (RFC 5681 §3.1)


def on_late_dsack(snd: Sender, ack: int, dsack: tuple[int, int]) -> None:
    """A DSACK when nothing is outstanding: the last retransmissions were needless after all."""
    on_dsack(snd, ack, dsack, False)


def on_dsack(snd: Sender, ack: int, dsack: tuple[int, int] | None, bare_duplicate: bool) -> None:
    """What a DSACK, or its absence, says of probes and retransmissions."""
    verdict = snd.tlp.on_ack(ack, dsack, bare_duplicate)
    in_window = snd.una < snd.echo_point  # of a mark: reduced already (RFC 3168 §6.1.2)
    if verdict is Verdict.REPAIRED and snd.recovery is Recovery.OPEN and not in_window:
        # RFC 8985 §7.4.2 (2): the probe hid a loss from the congestion controller.
        _reduce(snd, min(snd.nxt - snd.una, snd.cc.cwnd))
        snd.undo.stop()  # to take an older recovery back would take this reduction back too
        snd.cc.on_recovered()
        snd.stats.counters["TcpExtTCPLossProbeRecovery"] += 1
    if dsack is not None:
        if verdict is not Verdict.NO_LOSS:
            snd.rack.on_dsack(ack, snd.nxt)
        if snd.undo.on_dsack(*dsack):
            take_back(snd, Spurious.DSACK)


def leave_recovery(snd: Sender) -> None:
    """All that was outstanding at the loss is acknowledged."""
    snd.recovery = Recovery.OPEN
    snd.dup_acks = 0
    snd.undo.frto = Frto.OFF
    snd.rack.on_recovered()
    snd.cc.on_recovered()


# -- spurious recoveries (see `undo`) ------------------------------------------------------------


def frto_advance(snd: Sender) -> bool:
    """RFC 5682 §3.1 for an ACK that advances SND.UNA; True: the time-out was spurious."""
    undo = snd.undo
    if undo.frto is Frto.PROBING and snd.board.oldest_original <= snd.recovery_point:
        return True  # (3b): what was never sent again is acknowledged
    if undo.frto is Frto.ASKED and snd.una < snd.recovery_point:
        undo.frto = Frto.PROBING  # (2b): new data instead of retransmissions
        undo.frto_left = FRTO_SEGMENTS
    else:
        undo.frto = Frto.OFF
    return False


def frto_duplicate(snd: Sender) -> None:
    """The same for an ACK that only selects: data sent before the time-out, or after it."""
    if snd.undo.frto is Frto.PROBING and (snd.board.oldest_original <= snd.recovery_point):
        take_back(snd, Spurious.FRTO)
    else:
        snd.undo.frto = Frto.OFF  # (2a), (3a): go on as after any time-out


def take_back(snd: Sender, how: Spurious) -> None:
    """RFC 4015 §3.2: the segments were delayed or reordered, not lost."""
    counters = snd.stats.counters
    if how is Spurious.DSACK:
        counters["TcpExtTCPDSACKUndo"] += 1
    elif snd.recovery is Recovery.LOSS:
        counters["TcpExtTCPLossUndo"] += 1
    elif snd.una >= snd.recovery_point:
        counters["TcpExtTCPFullUndo"] += 1
    else:
        counters["TcpExtTCPPartialUndo"] += 1
    if how is Spurious.FRTO:
        counters["TcpExtTCPSpuriousRTOs"] += 1
    snd.board.unmark_lost()
    snd.undo.stop()
    snd.cwr_due = False  # nothing is reduced: the peer's marks have not been answered
    snd.spurious += 1
    if snd.recovery is not Recovery.OPEN:
        leave_recovery(snd)
    snd.cc.undo()


# -- loss ----------------------------------------------------------------------------------------


def detect_loss(snd: Sender, now: int, delivered: int = 0) -> None:
    """Enter or continue fast recovery; the ACK that is looked at delivered so many bytes."""
    board = snd.board
    if snd.una == snd.nxt:
        snd.reorder_deadline = NEVER
        return
    if not snd.sack_ok:
        # RFC 6582 §3.2 step 1: only once per window of data.
        lost = (
            snd.dup_acks == DUP_THRESH
            and snd.recovery is Recovery.OPEN
            and snd.una > snd.recovery_point - 1
            and board.mark_first_lost(snd.smss)
        )
    elif not board.sacked.starts and not board.repeated:
        # What remains was sent after all that was delivered.
        snd.reorder_deadline = NEVER
        return
    elif snd.rack_tlp:
        lost = _detect_by_time(snd, now)
    else:
        lost = bool(board.sacked) and board.mark_by_sack(snd.smss)
        if (
            not lost
            and snd.recovery is Recovery.OPEN
            and snd.dup_acks >= DUP_THRESH
            and board.first().status == IN_FLIGHT
            and not board.first().retransmissions
        ):
            # RFC 6675 §5 (2): three duplicate ACKs though the sacked segments are small.
            lost = board.mark_first_lost(snd.smss)
    if not lost:
        return
    if snd.recovery is Recovery.OPEN:
        _enter_recovery(snd, snd.flight_size if snd.dup_acks else snd.nxt - snd.una, delivered)
    elif snd.recovery is Recovery.FAST and board.lost_again >= snd.reduced_at:
        # RFC 5681 §4.3: the loss of a retransmission is a second sign of congestion, and the
        # window is lowered twice: by what was outstanding, not by what PRR let into the pipe.
        snd.reduced_at = now
        snd.resend_at_once = True
        snd.cwr_due = True
        snd.stats.counters["TcpExtTCPLostRetransmit"] += 1
        snd.cc.on_loss(min(snd.nxt - snd.una, snd.cc.cwnd))
        snd.prr.start(snd.nxt - snd.una - board.sacked_bytes + delivered)


def _detect_by_time(snd: Sender, now: int) -> bool:
    """RFC 8985 §6.2 steps 4 and 5."""
    board = snd.board
    rack = snd.rack
    urgent = (
        snd.recovery is not Recovery.OPEN
        or snd.dup_acks >= DUP_THRESH
        or board.sacked_bytes > (DUP_THRESH - 1) * snd.smss
    )
    patience = rack.rtt + rack.reo_wnd(urgent, snd.rtt.min_rtt, snd.rtt.srtt)
    lost, waiting = board.mark_by_time(rack.xmit_at, rack.end_seq, now - patience)
    snd.reorder_deadline = waiting + patience if waiting < NEVER else NEVER
    return lost


def on_reorder_timeout(snd: Sender, now: int) -> None:
    """RFC 8985 §6.3: the reordering window of the first suspect has passed."""
    snd.reorder_deadline = NEVER
    if snd.board:
        detect_loss(snd, now)
        if snd.recovery is Recovery.FAST:
            snd.prr.on_ack(0, snd.board.in_flight, snd.cc.ssthresh, snd.smss)


def _reduce(snd: Sender, flight_size: int) -> None:
    """Tell the controller of a loss, in a way that can be undone."""
    snd.cwr_due = True
    snd.cc.save()
    snd.cc.on_loss(flight_size)
    snd.reduced_at = snd.cc.now


def _enter_recovery(snd: Sender, flight_size: int, delivered: int = 0) -> None:
    """RFC 6675 §5 (4), RFC 6582 §3.2 (2), on an ACK that delivered so many bytes."""
    if snd.spared is not None and snd.board.lost_within(*snd.spared):
        snd.resend_at_once = True
        return
    snd.recovery = Recovery.FAST
    name = "TcpExtTCPSackRecovery" if snd.sack_ok else "TcpExtTCPRenoRecovery"
    snd.stats.counters[name] += 1
    snd.recovery_point = snd.nxt
    snd.resend_at_once = True
    snd.tlp.cancel()
    snd.tlp.end_seq = -1
    snd.undo.start(snd.una)
    snd.prr.start(snd.nxt - snd.una - snd.board.sacked_bytes + delivered)
    if snd.una < snd.echo_point:
        # RFC 3168 §6.1.2: for drops and marks in one window of data the window is reduced once.
        snd.cc.in_recovery = True
        snd.undo.stop()
        return
    # Never from more than the window: what was sent while SACKs came in is in FlightSize too,
    # and a controller that keeps more than half of it would grow at a loss.
    _reduce(snd, min(flight_size, snd.cc.cwnd))


def on_congestion_echo(snd: Sender, now: int, ack: int) -> bool:
    """An ACK of `ack` that carries ECE comes to `on_ack` next; whether it reduces the window.

    RFC 3168 §6.1.2: once for each window of data, be it for marks or for drops, and without a
    change to what is in flight: what was sent before the last reduction says nothing new.
    """
    snd.echo_ack = ack
    if ack <= snd.echo_point or ack <= snd.recovery_point or ack > snd.nxt:
        return False
    snd.echo_point = snd.nxt
    snd.cwr_due = True
    snd.undo.stop()  # to take an older recovery back would take this reduction back too
    snd.cc.now = now
    snd.cc.on_ecn(min(snd.nxt - snd.una, snd.cc.cwnd))
    return True


def on_timeout(snd: Sender, now: int) -> None:
    """The retransmission timer expired (RFC 6298 §5.4-5.6, RFC 8985 §6.3, RFC 5682)."""
    board = snd.board
    cc = snd.cc
    first = snd.timeouts == 0
    recovering = snd.recovery is Recovery.FAST
    # RFC 5682 §3.1 (1): not again before what an earlier time-out set out to recover is there. New
    # data above the hole would, through a box that passes none, cost one time-out a segment.
    asking = first and snd.recovery is Recovery.OPEN and snd.sack_ok
    if first and board.sacked.containing(snd.una) is not None:
        # RFC 2018 §8: SND.UNA itself is sacked, so the receiver has discarded what it held.
        board.forget_sack()
        snd.stats.counters["TcpExtTCPSACKReneging"] += 1
    if snd.sack_ok and snd.rack_tlp and first:
        rtt = snd.rack.rtt or snd.rtt.srtt  # nothing but the SYN was acknowledged so far
        patience = rtt + snd.rack.reo_wnd(True, snd.rtt.min_rtt, snd.rtt.srtt)
        board.mark_all_lost(now - patience)
    else:
        board.mark_all_lost()
    snd.reorder_deadline = NEVER
    snd.tlp.cancel()
    snd.tlp.end_seq = -1
    snd.timeouts += 1
    snd.stats.total_rto += 1
    snd.stats.total_rto_recoveries += first
    snd.rtt.back_off()
    snd.dup_acks = 0
    if first:
        snd.undo.start(snd.una)
        cc.save()
    if asking:
        snd.undo.frto = Frto.ASKED
    cc.now = now
    # RFC 5681 §3.1 takes FlightSize; what fast recovery sent meanwhile must not raise it, and
    # a window that was just reduced for the same loss is not reduced again (as in Linux).
    flight_size = min(snd.nxt - snd.una, cc.cwnd)
    snd.cwr_due = True
    cc.on_timeout(flight_size, first=first and not recovering)
    snd.recovery = Recovery.LOSS
    snd.recovery_point = snd.nxt
    snd.reduced_at = now
    snd.resend_at_once = True  # RFC 6298 (5.4): whatever was spared is in flight
    snd.rto_deadline = now + snd.rtt.rto


def on_refused(snd: Sender, chunk: SentChunk) -> None:
    """The device refused the packet: it counts as a loss (design: a write may fail)."""
    if chunk.status == IN_FLIGHT and chunk.seq >= snd.una and chunk.seq < chunk.end:
        snd.board.mark_lost(chunk)
        if snd.recovery is Recovery.OPEN:
            _enter_recovery(snd, snd.nxt - snd.una)
