"""The fifth step of segment arrival: SEG.ACK, SACK blocks and the window (RFC 9293 §3.10.7.4).

Takes an acceptable segment's acknowledgement to the sending half (`Sender.on_ack`) and tells the
connection what follows from it: progress for the upper layer, the end of our FIN, timers. Never
raises on what a peer sends; numbers that cannot be (RFC 5961 §5.2) are challenged or left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp.errors import ConnectionEnd
from mptcp.tcp.recovery import on_congestion_echo, on_late_dsack
from mptcp.tcp.state import NEVER, State
from mptcp.wire.seq import unwrap
from mptcp.wire.tcp import ECE, FIN, Segment

if TYPE_CHECKING:
    from mptcp.tcp.connection import TcpConnection


def take_ack(conn: TcpConnection, seg: Segment, seq: int, now: int) -> bool:
    """Fifth step. False when the segment must not be processed further."""
    snd = conn.snd
    ack = unwrap(seg.ack, snd.una)
    if ack > snd.nxt:
        # RFC 9293: ACK of something not yet sent; RFC 5961 §5.2 limits the answer.
        if conn.host.allow_challenge_ack(now):
            conn.ack_now()
        return False
    if ack < snd.una - max(snd.wnd_max, 1):
        # RFC 5961 §5.2: too old to be anything but a blind injection.
        if conn.host.allow_challenge_ack(now):
            conn.ack_now()
        return False
    if ack < snd.una:
        return True  # an old duplicate; its payload may still be good
    conn.probes_unanswered = 0
    conn.stats.last_ack_recv = now
    if conn.keepalive is not None:
        conn.keepalive.heard(now)
    outstanding = snd.una != snd.nxt
    window = seg.window << snd.wscale
    changed = snd.update_window(seq, ack, window)
    if not outstanding:
        if changed:
            conn.persist_deadline = NEVER
            conn.persist_backoff = 0
            conn.host.mark_ready(conn)
        if seg.sack and snd.sack_ok:
            _, late = _sack_blocks(conn, seg, ack)
            if late is not None:
                on_late_dsack(snd, ack, late)
        return True
    # RFC 5681 §2; RFC 8684 §3.3: an ACK with an MPTCP option other than DSS is no duplicate.
    duplicate = (
        ack == snd.una
        and not len(seg.payload)
        and not changed
        and not seg.mptcp
        and not seg.flags & FIN
    )
    sack: list[tuple[int, int]] = []
    dsack = None
    if seg.sack and snd.sack_ok:
        sack, dsack = _sack_blocks(conn, seg, ack)
    ts_rtt = -1
    if conn.ts_ok and seg.ts_ecr:
        ts_rtt = ((conn.timestamp(now) - seg.ts_ecr) & 0xFFFFFFFF) * 1000
        if ts_rtt > 0x7FFFFFFF:
            ts_rtt = -1
    if seg.flags & ECE and conn.ecn.sends and on_congestion_echo(snd, now, ack):
        conn.host.counters["TcpEcnReductions"] += 1
    stats = conn.stats
    delivered = stats.delivered
    acked = snd.on_ack(now, ack, sack, ts_rtt, duplicate, dsack)
    if seg.flags & ECE and conn.ecn.sends:
        stats.delivered_ce += stats.delivered - delivered
    if conn.pmtu.watching:
        conn.pmtu.on_ack(conn, now)
    if acked:
        conn.persist_backoff = 0
        if conn.soft_error is not None:
            conn.soft_error = None
            conn.on_soft_error(None)
        conn.on_acked(acked, now)
        if conn.fin_sent and snd.una == snd.nxt:
            _fin_acked(conn, now)
    if not conn.closed:
        conn.host.rearm(conn)
        conn.host.mark_ready(conn)
    return True


def _sack_blocks(
    conn: TcpConnection, seg: Segment, ack: int
) -> tuple[list[tuple[int, int]], tuple[int, int] | None]:
    """Unwrap and clip the peer's SACK blocks, and tell a DSACK apart (RFC 2883 §4).

    A DSACK is the first block when it lies below the cumulative ACK or within the second block.
    Other nonsense is left out.
    """
    snd = conn.snd
    blocks: list[tuple[int, int]] = []
    dsack = None
    for number, (left, right) in enumerate(seg.sack):
        start = unwrap(left, snd.una)
        end = unwrap(right, snd.una)
        if not start < end <= snd.nxt:
            continue
        if number == 0 and (end <= ack or (len(seg.sack) > 1 and _within(conn, start, end, seg))):
            if start >= ack - max(snd.wnd_max, 1):
                dsack = (start, end)
                conn.stats.dsack_dups += 1
                name = "TcpExtTCPDSACKRecv" if end <= ack else "TcpExtTCPDSACKOfoRecv"
                conn.host.counters[name] += 1
        elif end > ack:
            blocks.append((max(start, ack), end))
    return blocks, dsack


def _within(conn: TcpConnection, start: int, end: int, seg: Segment) -> bool:
    """Whether [start, end) lies in the second SACK block of `seg`."""
    left, right = seg.sack[1]
    return unwrap(left, conn.snd.una) <= start and end <= unwrap(right, conn.snd.una)


def _fin_acked(conn: TcpConnection, now: int) -> None:
    """Our FIN is acknowledged."""
    match conn.state:
        case State.FIN_WAIT_1:
            conn.state = State.FIN_WAIT_2
            # RFC 9293 §3.6 lets FIN-WAIT-2 last; an application that closed cannot wait for ever.
            if conn.orphan:
                conn.linger_deadline = now + conn.config.fin_wait_2_us
        case State.CLOSING:
            conn.enter_time_wait(now)
        case State.LAST_ACK:
            conn.terminate(ConnectionEnd.CLOSED, now)
        case _:
            pass
