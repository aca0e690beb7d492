"""The timers of a connection: what each does when its time has come.

The deadlines are fields of the connection and of what it consists of; `TcpConnection.next_deadline`
is the least of them. A late or spurious call is harmless: each timer looks at its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp.errors import ConnectionEnd
from mptcp.tcp import recovery
from mptcp.tcp.keepalive import keepalive_timeout
from mptcp.tcp.state import FLUSHING, NEVER, State
from mptcp.tcp.user_timeout import delivery_stalled, user_timeout_expired

if TYPE_CHECKING:
    from mptcp.tcp.connection import TcpConnection


def run_timers(conn: TcpConnection, now: int) -> None:
    """Run the timers that are due."""
    if now >= conn.pace_deadline:
        conn.pace_deadline = NEVER
        conn.host.mark_ready(conn)
    if now >= conn.delack_deadline:
        conn.delack_deadline = NEVER
        if conn.ack_pending:
            conn.host.counters["TcpExtDelayedACKs"] += 1
            conn.acks_owed = max(conn.acks_owed, 1)
            conn.host.mark_ready(conn)
    snd = conn.snd
    if now >= snd.reorder_deadline:
        recovery.on_reorder_timeout(snd, now)
        conn.host.mark_ready(conn)
    if now >= snd.tlp.deadline:
        if snd.board and conn.state in FLUSHING:
            delivery_stalled(conn, snd.board.first().sent_at)
            snd.on_probe_timeout(now)
            if snd.tlp.due:
                conn.on_probe(now)
            conn.host.mark_ready(conn)
        else:
            snd.tlp.cancel()  # early data: the timer is the SYN/ACK's (RFC 7413 §4.2.2)
    if now >= snd.rto_deadline:
        _retransmission_timeout(conn, now)
    if now >= conn.persist_deadline and not _persist_timeout(conn, now):
        return
    if now >= conn.user_timeout_deadline:
        user_timeout_expired(conn, now)
    if now >= conn.keepalive_deadline:
        keepalive_timeout(conn, now)
    if now >= conn.upper_deadline:
        conn.upper_deadline = NEVER
        conn.on_upper_timeout(now)
    if now >= conn.linger_deadline:
        if conn.state is State.TIME_WAIT:
            conn.host.counters["TcpExtTW"] += 1
        conn.terminate(ConnectionEnd.CLOSED, now)


def _persist_timeout(conn: TcpConnection, now: int) -> bool:
    """Probe the closed window, at growing intervals; False when the peer is given up."""
    # RFC 9293 §3.8.6.1, RFC 1122 §4.2.2.17: probe at exponentially growing intervals.
    conn.persist_deadline = NEVER
    if conn.probes_unanswered >= conn.retry_limit():
        # RFC 1122 §4.2.2.17: as long as they are answered, for ever; else not.
        conn.abort(end=ConnectionEnd.TIMED_OUT)
        return False
    if not conn.persist_backoff:
        delivery_stalled(conn, now - conn.snd.rtt.rto_base)
    conn.persist_backoff += 1
    conn.probes_unanswered += 1
    conn.probe_pending = True
    conn.host.counters["TcpExtTCPWinProbe"] += 1
    conn.host.mark_ready(conn)
    return True


def _retransmission_timeout(conn: TcpConnection, now: int) -> None:
    snd = conn.snd
    if conn.state is State.SYN_SENT or conn.state is State.SYN_RECEIVED:
        if not snd.timeouts:
            delivery_stalled(conn, conn.last_sent_at)
        snd.stats.total_rto += 1
        snd.stats.total_rto_recoveries += not snd.timeouts
        conn.host.counters["TcpExtTCPTimeouts"] += 1
        snd.timeouts += 1
        active = conn.state is State.SYN_SENT
        if snd.timeouts > (conn.config.syn_retries if active else conn.config.synack_retries):
            conn.terminate(ConnectionEnd.TIMED_OUT, now)
            return
        snd.rtt.back_off()
        snd.rto_deadline = NEVER
        conn.on_syn_timeout(now)
        conn.syn_pending = True
        conn.host.mark_ready(conn)
        return
    if not snd.board or conn.state not in FLUSHING:
        snd.rto_deadline = NEVER
        return
    if snd.timeouts >= conn.retry_limit():
        conn.abort(end=ConnectionEnd.TIMED_OUT)
        return
    first = snd.board.first()
    if not snd.timeouts and not (snd.tlp.end_seq >= 0 and first.retransmissions):
        delivery_stalled(conn, first.sent_at)
    recovery.on_timeout(snd, now)
    conn.host.counters["TcpExtTCPTimeouts"] += 1
    conn.pmtu.on_timeout(conn, now)
    conn.on_rto(now)
    conn.host.mark_ready(conn)
