"""What an application may set for one connection: keep-alive, user timeout, buffers, backups.

`connection.options`, or `writer.get_extra_info("options")`. Settings hold for the subflows there
are and for those to come; what is not set is the configuration's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp.config import SECOND
from mptcp.priority import Priorities
from mptcp.tcp.keepalive import KeepAlive, start_keepalive
from mptcp.tcp.state import FLUSHING
from mptcp.tcp.user_timeout import UserTimeout, advertise, timeout_changed

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket
    from mptcp.subflow import Subflow

_LONGEST_US = 32767 * SECOND
_LONGEST_TIMEOUT_US = 24 * 3600 * SECOND


class SocketOptions:
    """The settings of one connection."""

    __slots__ = (
        "_dscp",
        "_keepalive",
        "_meta",
        "_user_timeout",
        "priorities",
    )

    def __init__(self, meta: MetaSocket) -> None:
        self._meta = meta
        self._keepalive: tuple[bool, int, int, int] | None = None
        self._user_timeout: tuple[int, bool] | None = None
        self._dscp = meta.config.dscp
        self.priorities = Priorities(meta)
        """Which subflows the peer is to use as backups."""

    def keepalive(
        self,
        enabled: bool = True,
        *,
        idle_us: int | None = None,
        interval_us: int | None = None,
        count: int | None = None,
    ) -> None:
        """Probe each subflow that has been silent for `idle_us` (RFC 1122 §4.2.3.6), or stop.

        `interval_us` lies between probes, `count` of them without an answer end the subflow (a
        plain TCP connection with it: `Closed(TIMED_OUT)`). None: the configuration's `keepalive_…`.
        Raises ValueError unless times are in 1 ms to 32767 s and `count` in 1 to 127.
        """
        config = self._meta.config
        idle = config.keepalive_idle_us if idle_us is None else idle_us
        interval = config.keepalive_interval_us if interval_us is None else interval_us
        probes = config.keepalive_count if count is None else count
        for name, value, low, high in (
            ("idle_us", idle, 1000, _LONGEST_US),
            ("interval_us", interval, 1000, _LONGEST_US),
            ("count", probes, 1, 127),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} = {value} is out of range: use {low} to {high}")
        self._keepalive = (enabled, idle, interval, probes)
        for subflow in self._meta.subflows:
            self._apply_keepalive(subflow)

    def user_timeout(self, timeout_us: int, *, advertise: bool = False) -> None:
        """End the connection when data stays undelivered for `timeout_us` (RFC 9293 §3.9.1).

        With MPTCP it ends the subflow, whose data the others then carry. 0 takes it back. With
        `advertise` the peer is told (RFC 5482); a timeout that is set here is never changed by
        what the peer tells. Raises ValueError unless 0 or 1 ms to 24 h.
        """
        if timeout_us and not 1000 <= timeout_us <= _LONGEST_TIMEOUT_US:
            raise ValueError(
                f"timeout_us = {timeout_us} is out of range: use 0, or 1000 to "
                f"{_LONGEST_TIMEOUT_US}"
            )
        self._user_timeout = (timeout_us, advertise)
        for subflow in self._meta.subflows:
            self._apply_user_timeout(subflow)

    def buffers(self, *, receive: int | None = None, send: int | None = None) -> None:
        """Fix the size of a buffer, bytes: it is no longer tuned (SO_RCVBUF, SO_SNDBUF).

        What a smaller receive buffer has promised already is kept. Raises ValueError unless in
        4096 to the configuration's `receive_buffer`, `send_buffer`.
        """
        config = self._meta.config
        for name, value, high in (
            ("receive", receive, config.receive_buffer),
            ("send", send, config.send_buffer),
        ):
            if value is not None and not 4096 <= value <= high:
                raise ValueError(f"{name} = {value} is out of range: use 4096 to {high}")
        if receive is not None:
            self._meta.buffers.set_receive(receive)
        if send is not None:
            self._meta.buffers.set_send(send)

    def backup(self, address: str | bytes, backup: bool = True) -> None:
        """Ask the peer to send to our `address` only while no other subflow works, or no longer so.

        RFC 8684 §3.3.8: by MP_PRIO on the subflows there are, by the B flag of MP_JOIN on those to
        come. Raises ValueError for what is no address.
        """
        self.priorities.ask(address, backup)

    def dscp(self, code_point: int) -> None:
        """Mark what is sent from now on (RFC 2474; 0 to 63). Raises ValueError."""
        if not 0 <= code_point <= 63:
            raise ValueError(f"code_point = {code_point} is out of range: use 0 to 63")
        self._dscp = code_point
        for subflow in self._meta.subflows:
            subflow.tos = code_point << 2

    def apply(self, subflow: Subflow) -> None:
        """Called for each new subflow."""
        subflow.tos = self._dscp << 2
        self._apply_keepalive(subflow)
        self._apply_user_timeout(subflow)

    def _apply_keepalive(self, subflow: Subflow) -> None:
        if self._keepalive is None:
            return
        enabled, idle, interval, probes = self._keepalive
        if not enabled:
            subflow.keepalive = None
        else:
            keepalive = subflow.keepalive or KeepAlive(subflow.config)
            keepalive.idle_us = idle
            keepalive.interval_us = interval
            keepalive.count = probes
            subflow.keepalive = keepalive
        start_keepalive(subflow, subflow.host.now)

    def _apply_user_timeout(self, subflow: Subflow) -> None:
        if self._user_timeout is None:
            return
        timeout_us, told = self._user_timeout
        if subflow.user_timeout is None:
            subflow.user_timeout = UserTimeout(subflow.config)
        subflow.user_timeout.set(timeout_us, told)
        timeout_changed(subflow, subflow.host.now)
        if subflow.state in FLUSHING:  # before, the handshake will tell
            advertise(subflow)
