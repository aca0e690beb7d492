"""Keep-alive probes of one connection (RFC 1122 §4.2.3.6, RFC 9293 §3.8.4).

Off unless asked for (MUST-25). A connection on which nothing has been heard for `idle_us` is asked
for an acknowledgement: a segment without payload below SND.UNA, which every TCP must answer. While
data is in flight or waits for a window there are timers that find out the same, so nothing is
probed. With MPTCP each subflow has its own, as in Linux: a dead path ends, the connection goes on.

The timer is lazy: an arriving segment notes the time (`heard`), nothing is re-armed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp.errors import ConnectionEnd
from mptcp.tcp.state import NEVER, State

if TYPE_CHECKING:
    from mptcp.config import Config
    from mptcp.tcp.connection import TcpConnection

_PROBED = (State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_2)
"""States in which nothing of ours need be outstanding."""


class KeepAlive:
    """Settings and state. Times in µs; `count` probes without an answer end the connection."""

    __slots__ = ("count", "heard_at", "idle_us", "interval_us", "unanswered")

    def __init__(self, config: Config) -> None:
        self.idle_us = config.keepalive_idle_us
        self.interval_us = config.keepalive_interval_us
        self.count = config.keepalive_count
        self.heard_at = 0
        """When the last acceptable segment came."""
        self.unanswered = 0

    def heard(self, now: int) -> None:
        """An acceptable segment came: the peer is there."""
        self.heard_at = now
        self.unanswered = 0


def start_keepalive(conn: TcpConnection, now: int) -> None:
    """The connection is synchronized, or was when keep-alive was turned on: set the timer."""
    keepalive = conn.keepalive
    if keepalive is None or conn.state in (State.CLOSED, State.SYN_SENT, State.SYN_RECEIVED):
        conn.keepalive_deadline = NEVER
        return
    # A shorter time than before counts from the last word of the peer, as in Linux.
    keepalive.heard_at = keepalive.heard_at or now
    conn.keepalive_deadline = max(now, keepalive.heard_at + keepalive.idle_us)
    conn.host.rearm(conn)


def keepalive_timeout(conn: TcpConnection, now: int) -> None:
    """`keepalive_deadline` has come: look whether the connection was idle, then probe."""
    keepalive = conn.keepalive
    conn.keepalive_deadline = NEVER
    if keepalive is None or conn.state is State.TIME_WAIT:
        return
    if conn.snd.board or conn.has_unsent() or conn.state not in _PROBED:
        conn.keepalive_deadline = now + keepalive.idle_us
        return
    silence = now - keepalive.heard_at
    if silence < keepalive.idle_us:
        conn.keepalive_deadline = keepalive.heard_at + keepalive.idle_us
        return
    patience = conn.user_timeout.timeout_us if conn.user_timeout is not None else 0
    # Linux's TCP_USER_TIMEOUT takes the place of the count; RFC 5482 §4.2 leaves it open.
    spent = silence >= patience if patience else keepalive.unanswered >= keepalive.count
    if keepalive.unanswered and spent:
        conn.abort(end=ConnectionEnd.TIMED_OUT)
        return
    keepalive.unanswered += 1
    conn.probe_pending = True
    conn.host.counters["TcpExtTCPKeepAlive"] += 1
    conn.host.mark_ready(conn)
    conn.keepalive_deadline = now + keepalive.interval_us
