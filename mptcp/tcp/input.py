"""Segment arrival: RFC 9293 §3.10.7, step by step, with RFC 5961's and RFC 7323's checks.

`segment_arrives` never raises on what a peer sends. The common cases of an established connection,
in-order data and a bare ACK, skip the acceptability tests that they cannot fail and pass through
the same steps as the rest (`_established`), so both end in the same state. The fifth step, SEG.ACK
and the window, is in `ack_input`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp.errors import ConnectionEnd
from mptcp.tcp.ack_input import take_ack
from mptcp.tcp.ecn import CE, ECN_MASK
from mptcp.tcp.handshake import establish, take_syn
from mptcp.tcp.memory import FREE
from mptcp.tcp.reassembly import true_size
from mptcp.tcp.state import CAN_RECEIVE, State
from mptcp.tcp.stats import segments
from mptcp.tcp.urgent import urgent_arrives
from mptcp.wire.seq import unwrap
from mptcp.wire.tcp import ACK, CWR, FIN, PSH, RST, SYN, URG, Segment

if TYPE_CHECKING:
    from mptcp.tcp.connection import TcpConnection

OUT_OF_WINDOW_ACK_US = 50_000
PAWS_IDLE_US = 24 * 24 * 3600 * 1_000_000
"""RFC 7323 §5.5: after 24 days without traffic TS.Recent is no longer valid."""

header_prediction = True
"""False takes every segment the long way; the tests compare the two."""


def segment_arrives(conn: TcpConnection, seg: Segment, now: int) -> None:
    """Process one segment (or one chunk that the device merged) for this connection."""
    state = conn.state
    if state is State.CLOSED:
        return
    size = seg.gso_size
    conn.stats.segs_in += 1 if not size else segments(len(seg.payload), size)
    if state is State.SYN_SENT:
        _syn_sent(conn, seg, now)
        return
    seq = unwrap(seg.seq, conn.rcv_nxt)
    if (
        state is State.SYN_RECEIVED
        and seg.flags & (SYN | ACK | RST) == SYN | ACK
        and seq == conn.irs
    ):
        # RFC 9293 figure 7, simultaneous open: the peer's SYN/ACK acknowledges our SYN; its own
        # SYN has been taken already.
        seg.flags &= ~SYN
        seq += 1
    if (
        header_prediction
        and state is State.ESTABLISHED
        and seg.flags & ~PSH == ACK
        and seq == conn.rcv_nxt
        and not conn.reassembly.starts
    ):
        _established(conn, seg, seq, now)
        return
    if not _acceptable(conn, seg, seq, now):
        return
    _synchronized(conn, seg, seq, now)


# -- SYN-SENT (§3.10.7.3) ------------------------------------------------------------------------


def _syn_sent(conn: TcpConnection, seg: Segment, now: int) -> None:
    snd = conn.snd
    flags = seg.flags
    acceptable = False
    if flags & ACK:
        ack = unwrap(seg.ack, snd.nxt)
        if ack <= snd.iss or ack > snd.nxt:
            if not flags & RST:
                conn.host.reset_for(seg)
            return
        acceptable = True
    if flags & RST:
        if acceptable:
            conn.on_reset_options(seg)
            conn.terminate(ConnectionEnd.REFUSED, now)
        return
    if not flags & SYN:
        return
    if acceptable:
        snd.una = ack
        if not take_syn(conn, seg, now):
            return
        snd.nxt = ack  # a SYN's data that is not acknowledged is sent as if it were new
        if conn.fast_open is not None:
            conn.fast_open.answered(conn, seg, ack - snd.iss - 1, now)
        if conn.ts_ok and seg.ts_ecr and snd.timeouts:
            rtt = ((conn.timestamp(now) - seg.ts_ecr) & 0xFFFFFFFF) * 1000
            snd.rtt.sample(max(rtt, 1000), now)
        establish(conn, now)
        conn.ack_now()
        # §3.10.7.3 fourth: other controls or text are processed from the sixth step on.
        if len(seg.payload) and not conn.closed and conn.takes_syn_ack_data():
            _take_payload(conn, seg, conn.rcv_nxt, seg.payload, now)
        return
    # Simultaneous open: both sides answer SYN with SYN/ACK.
    conn.state = State.SYN_RECEIVED
    snd.nxt = snd.iss + 1
    if take_syn(conn, seg, now):
        conn.syn_pending = True
        conn.host.mark_ready(conn)


# -- all other states (§3.10.7.4) ----------------------------------------------------------------


def _acceptable(conn: TcpConnection, seg: Segment, seq: int, now: int) -> bool:
    """First to fourth checks: sequence number, RST, security (none), SYN. True to go on."""
    flags = seg.flags
    length = len(seg.payload) + (flags & FIN) + ((flags & SYN) >> 1)
    rcv_nxt = conn.rcv_nxt
    edge = max(conn.rcv_adv, rcv_nxt)
    # RFC 7323 §5.3 R1 (PAWS), before the window test; RST is exempt.
    if (
        conn.ts_ok
        and seg.ts_val >= 0
        and not flags & RST
        and ((seg.ts_val - conn.ts_recent) & 0xFFFFFFFF) > 0x7FFFFFFF
        and now - conn.ts_recent_at < PAWS_IDLE_US
    ):
        conn.host.counters["TcpExtPAWSEstab"] += 1
        if length or _may_answer_bare(conn, now):
            conn.ack_now()
        return False
    if length == 0:
        # A zero-length segment at the right edge is let in with a closed window too, as Linux
        # does: the ACK of a peer that has filled our window lies exactly there.
        acceptable = rcv_nxt <= seq <= edge
    else:
        acceptable = seq < edge and seq + length > rcv_nxt
    if not acceptable:
        if conn.state is State.TIME_WAIT and flags & FIN:
            conn.linger_deadline = now + conn.config.time_wait_us
            conn.host.rearm(conn)
        if flags & RST:
            return False
        if conn.state is State.SYN_RECEIVED and flags & SYN:
            # Our SYN/ACK was lost: the peer repeats its SYN.
            if seq == conn.irs:
                conn.ecn.on_syn(seg)
                conn.syn_pending = True
                conn.host.mark_ready(conn)
            return False
        if seq >= edge:
            conn.host.counters["TcpExtBeyondWindow"] += 1
        # Zero-window probes and old duplicates: answer with what we have (§3.10.7.4). RFC 7323
        # §5.3 R2 ends here. After a silence the repeat updates TS.Recent all the same, as in Linux:
        # an ACK of ours was lost, and the echo of what it acknowledged would make the peer measure
        # its own time-out as an RTT. Not in a stream: there a needless repeat overtakes what was
        # delayed on the way, and PAWS would throw that away.
        if seq < rcv_nxt:
            if now - conn.ts_recent_at >= conn.config.min_rto_us:
                _update_ts_recent(conn, seg, seq, now)
            if length:
                conn.host.counters["TcpExtDelayedACKLost"] += 1
                _received_twice(conn, seq, min(seq + len(seg.payload), rcv_nxt))
        if flags & SYN:
            _challenge_syn(conn, now)
        elif length or _may_answer_bare(conn, now):
            conn.ack_now()
        return False
    if flags & RST:
        if conn.state is State.TIME_WAIT and conn.config.rfc1337:
            return False
        # RFC 5961 §3.2: only an exact match resets; in the window it is challenged.
        if seq == rcv_nxt:
            _reset(conn, seg, now)
        elif conn.host.allow_challenge_ack(now):
            conn.ack_now()
        return False
    if flags & SYN:
        # RFC 5961 §4.2: a SYN in a synchronized state is challenged whatever its number.
        if conn.state is State.SYN_RECEIVED and seq == conn.irs:
            conn.ecn.on_syn(seg)
            conn.syn_pending = True
            conn.host.mark_ready(conn)
        else:
            _challenge_syn(conn, now)
        return False
    return True


def _challenge_syn(conn: TcpConnection, now: int) -> None:
    """RFC 5961 §4.2: what a restarted peer answers with the right reset, and a forger cannot."""
    conn.host.counters["TcpExtTCPSYNChallenge"] += 1
    if conn.host.allow_challenge_ack(now):
        conn.ack_now()


def _may_answer_bare(conn: TcpConnection, now: int) -> bool:
    """Whether an unacceptable bare ACK is answered.

    Two ends that disagree about numbers or clocks would answer each other's ACKs for ever (Linux
    limits these as well; probes of a zero window come further apart).
    """
    if now - conn.last_oow_ack < OUT_OF_WINDOW_ACK_US:
        return False
    conn.last_oow_ack = now
    return True


def _reset(conn: TcpConnection, seg: Segment, now: int) -> None:
    """A valid RST."""
    conn.on_reset_options(seg)
    if conn.state is State.SYN_RECEIVED:
        conn.host.counters["TcpExtEmbryonicRsts"] += 1
        conn.terminate(ConnectionEnd.RESET if conn.early else ConnectionEnd.REFUSED, now)
    elif conn.state in (State.CLOSING, State.LAST_ACK, State.TIME_WAIT) and (
        conn.snd.nxt - conn.snd.una <= 1
    ):
        # RFC 9293 §3.10.7.4 third: no error for the user. But where more than our FIN is not
        # acknowledged the peer has thrown data away, and whoever sent it must hear of that.
        conn.terminate(ConnectionEnd.CLOSED, now)
    else:
        conn.terminate(ConnectionEnd.RESET, now)


def _synchronized(conn: TcpConnection, seg: Segment, seq: int, now: int) -> None:
    """Fifth to eighth steps: ACK, urgent, payload, FIN."""
    flags = seg.flags
    if not flags & ACK:
        return
    snd = conn.snd
    ack = unwrap(seg.ack, snd.una)
    if conn.state is State.SYN_RECEIVED:
        if ack <= snd.iss or ack > snd.nxt:
            conn.host.reset_for(seg)
            return
        snd.una = snd.iss + 1
        snd.wnd = seg.window << snd.wscale
        snd.wnd_max = max(snd.wnd, snd.wnd_max)
        snd.wl1 = seq
        snd.wl2 = snd.una
        conn.syn_pending = False
        _measure_syn_ack(conn, seg, now)
        if not conn.accept_third_ack(seg, now):
            return
        if snd.timeouts and conn.syn_rtt >= 0:
            # The time-out need not begin at three seconds (RFC 6298 (5.7)).
            snd.rtt.sample(conn.syn_rtt, now)
        establish(conn, now)
    _established(conn, seg, seq, now)


def _measure_syn_ack(conn: TcpConnection, seg: Segment, now: int) -> None:
    """Note the RTT that an ACK of our SYN/ACK tells.

    An ACK that is not taken tells it too, but the SYN/ACK's back-off is to last, so it waits for
    one that is. That one may be a repetition, which echoes a SYN/ACK of long ago.
    """
    if not conn.snd.timeouts and conn.syn_sent_at >= 0:
        rtt = now - conn.syn_sent_at
    elif conn.snd.timeouts and conn.ts_ok and seg.ts_ecr:
        # RFC 7323 §4.1: the echo tells which of our SYN/ACKs came.
        rtt = max(((conn.timestamp(now) - seg.ts_ecr) & 0xFFFFFFFF) * 1000, 1000)
    else:
        return
    if conn.syn_rtt < 0 or rtt < conn.syn_rtt:
        conn.syn_rtt = rtt


def _established(conn: TcpConnection, seg: Segment, seq: int, now: int) -> None:
    """The segment is acceptable and carries ACK."""
    if conn.ts_ok and seg.ts_val >= 0:
        if ((seg.ts_val - conn.ts_recent) & 0xFFFFFFFF) > 0x7FFFFFFF:
            if not _acceptable(conn, seg, seq, now):
                return
        else:
            _update_ts_recent(conn, seg, seq, now)
    if not take_ack(conn, seg, seq, now):
        return
    if seg.user_timeout and conn.user_timeout is not None:
        conn.user_timeout.on_option(seg.user_timeout)
    if conn.closed or not conn.on_options(seg, now):
        return
    if seg.flags & URG:
        urgent_arrives(conn, seg, seq)
    payload = seg.payload
    if len(payload):
        if conn.state in CAN_RECEIVE:
            _take_payload(conn, seg, seq, payload, now)
        elif conn.fin_received and seq + len(payload) <= conn.rcv_nxt:
            conn.ack_now()
    if seg.flags & FIN and not conn.closed:
        _take_fin(conn, seq + len(payload), now)


def _update_ts_recent(conn: TcpConnection, seg: Segment, seq: int, now: int) -> None:
    """RFC 7323 §4.3 (2)."""
    if conn.ts_ok and seg.ts_val >= 0 and seq <= conn.last_ack_sent:
        conn.ts_recent = seg.ts_val
        conn.ts_recent_at = now


def _received_twice(conn: TcpConnection, start: int, end: int) -> None:
    """RFC 2883 §4: the next ACK reports what arrived again."""
    if start < end and conn.snd.sack_ok:
        conn.dsack = (start, end)


def _take_payload(
    conn: TcpConnection, seg: Segment, seq: int, payload: memoryview, now: int
) -> None:
    """Seventh step: trim to the window, deliver in order, keep the rest, acknowledge."""
    rcv_nxt = conn.rcv_nxt
    segment_size = seg.gso_size or len(payload)
    stats = conn.stats
    stats.last_data_recv = now
    stats.data_segs_in += 1 if not seg.gso_size else segments(len(payload), seg.gso_size)
    if segment_size > conn.rcv_mss:
        conn.rcv_mss = segment_size
    if seg.tos & ECN_MASK == CE or seg.flags & CWR:
        conn.ecn.on_data(conn, seg)
    if seq + len(payload) > conn.rcv_adv:
        payload = payload[: max(0, conn.rcv_adv - seq)]
    if conn.receive_tuning is not None:
        conn.receive_tuning.on_data(conn, len(payload), seg.ts_ecr, now)
    if seq > rcv_nxt:
        reassembly = conn.reassembly
        if reassembly.starts and len(payload):
            _received_twice(conn, *reassembly.overlap(seq, seq + len(payload)))
        limit = 2 * conn.config.receive_buffer if not conn.memory.full else FREE
        if reassembly.memory + true_size(payload) <= limit and len(payload):
            reassembly.insert(seq, payload)
            stats.rcv_ooopack += segments(len(payload), segment_size)
            conn.host.counters["TcpExtTCPOFOQueue"] += 1
            if reassembly.memory > conn.reserved:
                conn.reserved = conn.memory.reserve(conn.reserved, reassembly.memory)
        else:
            conn.host.counters["TcpExtTCPOFODrop"] += 1
        conn.ack_now()  # RFC 5681 §4.2: at once, so that the sender sees the hole
        return
    if seq < rcv_nxt:
        _received_twice(conn, seq, min(rcv_nxt, seq + len(payload)))
        payload = payload[rcv_nxt - seq :]
    elif conn.reassembly.starts:
        _received_twice(conn, *conn.reassembly.overlap(seq, seq + len(payload)))
    size = len(payload)
    if not size:
        conn.ack_now()
        return
    if conn.memory.full and conn.refuses_data():
        conn.host.counters["TcpExtTCPRcvQDrop"] += 1
        conn.ack_now()
        return
    conn.rcv_nxt = rcv_nxt + size
    conn.bytes_received += size
    conn.deliver(rcv_nxt, payload, now)
    if conn.reassembly.starts:
        for view in conn.reassembly.pop_ready(conn.rcv_nxt):
            start = conn.rcv_nxt
            conn.rcv_nxt = start + len(view)
            conn.bytes_received += len(view)
            conn.deliver(start, view, now)
        conn.ack_now()  # RFC 5681 §4.2: a filled hole is acknowledged at once
    if conn.closed:
        return
    conn.ack_pending += size
    # RFC 1122 §4.2.3.2, RFC 5681 §4.2: at least every second full-sized segment.
    if conn.ack_pending >= 2 * conn.rcv_mss or conn.quick_acks > 0:
        conn.quick_acks -= 1
        if not conn.acks_owed:
            conn.ack_now()
    else:
        conn.ack_soon(now)


def _take_fin(conn: TcpConnection, seq: int, now: int) -> None:
    """Eighth step. A FIN beyond a hole waits for its retransmission."""
    if conn.fin_received:
        conn.ack_now()
        if conn.state is State.TIME_WAIT:
            conn.enter_time_wait(now)
        return
    if seq != conn.rcv_nxt or conn.state is State.SYN_RECEIVED:
        return
    conn.rcv_nxt += 1
    conn.fin_received = True
    if not conn.acks_owed:  # what its own payload has asked for acknowledges the FIN as well
        conn.ack_now()
    match conn.state:
        case State.ESTABLISHED:
            conn.state = State.CLOSE_WAIT
        case State.FIN_WAIT_1:
            # Had our FIN been acknowledged by this segment we were in FIN-WAIT-2 already.
            conn.state = State.CLOSING
        case _:
            pass
    conn.on_fin(now)
    if conn.state is State.FIN_WAIT_2:
        conn.enter_time_wait(now)
