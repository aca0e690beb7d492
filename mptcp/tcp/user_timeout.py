"""The user timeout: how long data may stay undelivered (RFC 9293 §3.9.1, RFC 5482).

Two things that may be used apart. The local timeout is Linux's TCP_USER_TIMEOUT: data, a SYN or a
FIN that is not acknowledged for so long, or data that a closed window holds back for so long, ends
the connection; it replaces the count of retransmissions (RFC 1122 §4.2.3.5's R2). The User Timeout
Option tells the peer our value and lets the peer's stretch ours, within limits (RFC 5482 §3.1).

The clock starts when the first retransmission or probe is due and counts from the transmission
that it repeats, so a connection that works pays nothing for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mptcp.config import SECOND
from mptcp.errors import ConnectionEnd
from mptcp.tcp.state import NEVER
from mptcp.wire.tcp import user_timeout_option

if TYPE_CHECKING:
    from mptcp.config import Config
    from mptcp.tcp.connection import TcpConnection

DEFAULT_ADV_US: Final = 300 * SECOND
"""RFC 9293 §3.9.1.1: the default user timeout is five minutes. Advertised when nothing is set."""
UNLIMITED: Final = 1 << 30


class UserTimeout:
    """RFC 5482 §3's variables of one connection, in µs; 0 means not set."""

    __slots__ = (
        "adv_us",
        "changeable",
        "enabled",
        "lower_us",
        "remote_us",
        "since",
        "timeout_us",
        "upper_us",
    )

    def __init__(self, config: Config) -> None:
        self.timeout_us = config.user_timeout_us
        """USER_TIMEOUT; 0: R2 counts retransmissions instead."""
        self.enabled = config.user_timeout_option
        """ENABLED: the option is sent, and heeded when it comes."""
        self.adv_us = config.user_timeout_us or DEFAULT_ADV_US
        """ADV_UTO."""
        self.changeable = not config.user_timeout_us
        """CHANGEABLE: no application has set USER_TIMEOUT."""
        self.lower_us = config.user_timeout_lower_us
        self.upper_us = config.user_timeout_upper_us
        self.remote_us = 0
        """REMOTE_UTO."""
        self.since = -1
        """What the last stall waits for was sent then, µs; -1: there was none."""
        self._adopt()

    def set(self, timeout_us: int, advertise: bool) -> None:
        """The application's wish; 0 takes it back. RFC 5482 §3: no longer CHANGEABLE then."""
        self.timeout_us = timeout_us
        self.changeable = not timeout_us
        self.adv_us = timeout_us or DEFAULT_ADV_US
        self.enabled = advertise
        self._adopt()

    def on_option(self, seconds: int) -> None:
        """The peer advertises its own; 0 is reserved and ignored (§3.2)."""
        if self.enabled and seconds:
            self.remote_us = seconds * SECOND
            self._adopt()

    def _adopt(self) -> None:
        if self.enabled and self.changeable:
            # RFC 5482 §3.1 (1); also before the peer has said anything: ADV_UTO is what we told it.
            wanted = max(self.adv_us, self.remote_us, self.lower_us)
            self.timeout_us = min(self.upper_us, wanted)

    def option(self) -> bytes:
        """The option with ADV_UTO (§3.2)."""
        return user_timeout_option(-(-self.adv_us // SECOND))

    def in_syn(self, room: int) -> list[bytes]:
        """What goes with a SYN (§3.2) that has `room` left: beside an MP_JOIN's HMAC it may not."""
        return [self.option()] if self.enabled and room >= 4 else []


def advertise(conn: TcpConnection) -> None:
    """RFC 5482 §3.2: on the first segment after the SYN, and whenever the value changes.

    On a pure ACK: not every SYN has room for it, and data segments are as long as the MTU allows.
    """
    if conn.user_timeout is not None and conn.user_timeout.enabled:
        conn.controls.append(conn.user_timeout.option())
        conn.host.mark_ready(conn)


def retries(conn: TcpConnection) -> int:
    """R2 in retransmissions: without limit where the user timeout is the limit."""
    user_timeout = conn.user_timeout
    if user_timeout is not None and user_timeout.timeout_us:
        return UNLIMITED
    return conn.config.data_retries


def delivery_stalled(conn: TcpConnection, since: int) -> None:
    """The first retransmission or probe in a row is due, for what waits since `since`."""
    user_timeout = conn.user_timeout
    if user_timeout is not None:
        user_timeout.since = since
        _watch(conn, user_timeout)


def timeout_changed(conn: TcpConnection, now: int) -> None:
    """The application has set the timeout: that holds for a stall under way, too."""
    user_timeout = conn.user_timeout
    if user_timeout is not None and (conn.snd.timeouts or conn.persist_backoff):
        if user_timeout.since < 0:
            user_timeout.since = now  # nobody has asked before when it began
        _watch(conn, user_timeout)


def _watch(conn: TcpConnection, user_timeout: UserTimeout) -> None:
    conn.user_timeout_deadline = NEVER
    if user_timeout.timeout_us:
        # RFC 5482 §3.1: never before one retransmission could have been answered.
        patience = max(user_timeout.timeout_us, conn.snd.rtt.rto_base)
        conn.user_timeout_deadline = user_timeout.since + patience
        conn.host.rearm(conn)


def user_timeout_expired(conn: TcpConnection, now: int) -> None:
    """`user_timeout_deadline` has come: RFC 9293 §3.10.8, unless delivery has gone on since."""
    conn.user_timeout_deadline = NEVER
    snd = conn.snd
    user_timeout = conn.user_timeout
    if user_timeout is None:
        return
    if now < user_timeout.since + user_timeout.timeout_us:
        _watch(conn, user_timeout)  # the peer has asked for more time
    elif not snd.timeouts and not conn.persist_backoff:
        if snd.board and (snd.tlp.due or snd.tlp.end_seq >= 0):
            # A tail loss probe is out: the retransmission timer says what has become of it.
            conn.user_timeout_deadline = max(snd.rto_deadline, now + 1)
            conn.host.rearm(conn)
    else:
        conn.abort(end=ConnectionEnd.TIMED_OUT)
