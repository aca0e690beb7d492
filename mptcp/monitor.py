"""The event stream: what happens to connections, as `ip mptcp monitor` tells it of the kernel's.

A `Monitor` is a sink with a bound: what nobody takes in time is lost, counted, and said. The core
puts events into all sinks there are; with none it makes no event at all. No I/O: whoever reads is
called back (`wake`) when a sink that was empty has something.

Types and attributes are those of the kernel's netlink family `mptcp_pm`, and their occasions too:
`created` (the handshake is done), `established` (MPTCP is confirmed: subflows may be added),
`closed`; `announced`, `removed` (the peer's addresses); `sub-established` (a joined subflow carries
data), `sub-closed` (any subflow, also one whose handshake failed), `sub-priority`;
`listener-created`, `listener-closed`. Of our own is `fallback`, with the reason. Plain TCP
connections are not told of: what never was MPTCP has no `created`, and so no `closed`.

Invariants
  * Of one connection `created` comes before everything but `fallback`, and `closed` is last, once.
  * `lost` counts what a full sink refused; what is in the sink is never dropped.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from mptcp.addressing import format_address
from mptcp.errors import ConnectionEnd
from mptcp.events import (
    Accepted,
    Closed,
    Connected,
    Event,
    FellBack,
    SubflowClosed,
    SubflowEstablished,
)

if TYPE_CHECKING:
    from mptcp.accepting import Listener
    from mptcp.meta_socket import MetaSocket
    from mptcp.stack import Stack
    from mptcp.subflow import Subflow

LIMIT: Final = 4096
"""Events that wait in a sink unless it is told otherwise."""
RESET_TRANSIENT: Final = 1
"""The T flag of MP_TCPRST in `reset_flags` (RFC 8684 §3.6)."""

_ERRNO: Final = {
    ConnectionEnd.REFUSED: errno.ECONNREFUSED,
    ConnectionEnd.RESET: errno.ECONNRESET,
    ConnectionEnd.TIMED_OUT: errno.ETIMEDOUT,
    ConnectionEnd.ABORTED: errno.ECONNABORTED,
    ConnectionEnd.FAST_CLOSED: errno.ECONNRESET,
    ConnectionEnd.UNREACHABLE: errno.EHOSTUNREACH,
    ConnectionEnd.NO_SUBFLOW: errno.ETIMEDOUT,
    ConnectionEnd.PROTOCOL: errno.EPROTO,
    ConnectionEnd.INTERFACE_LOST: errno.ENETDOWN,
}


@dataclass(frozen=True, slots=True)
class MonitorEvent:
    """One event. What does not belong to its type is None."""

    type: str
    time: int
    """µs of the stack's clock."""
    token: int | None = None
    number: int | None = None
    """The connection's, as in `MptcpInfo.number`."""
    server_side: bool | None = None
    family: int | None = None
    """4 or 6."""
    saddr: str | None = None
    sport: int | None = None
    daddr: str | None = None
    dport: int | None = None
    loc_id: int | None = None
    rem_id: int | None = None
    backup: bool | None = None
    interface: str | None = None
    error: int | None = None
    """errno of how a subflow ended; absent for a good end."""
    reset_reason: int | None = None
    reset_flags: int | None = None
    reason: str | None = None
    """Of `fallback`, one line."""
    count: int | None = None
    """Of `lost`: how many events of the stream are missing here."""

    def to_dict(self) -> dict[str, Any]:
        """What the event says, as plain values."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Monitor:
    """One reader's sink. Made by `Stack.monitor()`."""

    def __init__(self, stack: Stack, limit: int) -> None:
        self._stack = stack
        self._limit = limit
        self._events: deque[MonitorEvent] = deque()
        self._missing = 0
        self.lost = 0
        """Events that found the sink full, so far."""
        self.wake: Callable[[], None] | None = None
        """Called when an event comes into the empty sink; it must not call the stack."""

    def put(self, event: MonitorEvent) -> None:
        """Keep `event`, or count it as lost."""
        if len(self._events) >= self._limit:
            self.lost += 1
            self._missing += 1
            return
        if self._missing:
            self._tell_missing()
        was_empty = not self._events
        self._events.append(event)
        if was_empty and self.wake is not None:
            self.wake()

    def poll(self) -> MonitorEvent | None:
        """The next event, None when there is none.

        Where events are missing one of type `lost` stands for them, with their `count`.
        """
        if self._events:
            return self._events.popleft()
        if self._missing:
            self._tell_missing()
            return self._events.popleft()
        return None

    def _tell_missing(self) -> None:
        self._events.append(MonitorEvent("lost", self._stack.now, count=self._missing))
        self._missing = 0

    def close(self) -> None:
        """Take no more. Idempotent; what waits can still be polled."""
        if self in self._stack.monitors:
            self._stack.monitors.remove(self)


# What the core calls, each only where `stack.monitors` is not empty.


def tell_event(event: Event) -> None:
    """What the stack's own event means for the stream."""
    meta = event.connection
    if isinstance(event, Connected | Accepted):
        if meta.was_mptcp:
            tell_connection(meta, "created")
    elif isinstance(event, FellBack):
        tell_connection(meta, "fallback", str(getattr(event.reason, "value", event.reason)))
    elif isinstance(event, SubflowEstablished):
        if event.subflow.is_join:
            tell_subflow(meta, event.subflow, "sub-established")
    elif isinstance(event, SubflowClosed):
        if meta.was_mptcp:
            tell_subflow(meta, event.subflow, "sub-closed", event.end)
    elif isinstance(event, Closed) and meta.was_mptcp:
        tell_connection(meta, "closed")


def tell(stack: Stack, event: MonitorEvent) -> None:
    """Put an event into every sink."""
    for sink in stack.monitors:
        sink.put(event)


def tell_connection(meta: MetaSocket, kind: str, reason: str | None = None) -> None:
    """`created`, `established`, `closed`, `fallback`."""
    end = meta.fendpoint
    whole = kind != "closed"
    tell(
        meta.stack,
        MonitorEvent(
            kind,
            meta.stack.now,
            token=meta.token,
            number=meta.number,
            server_side=not meta.is_client if whole else None,
            family=_family(end.local) if whole else None,
            saddr=format_address(end.local) if whole else None,
            sport=end.local_port if whole else None,
            daddr=format_address(end.remote) if whole else None,
            dport=end.remote_port if whole else None,
            reason=reason,
        ),
    )


def tell_subflow(
    meta: MetaSocket, subflow: Subflow, kind: str, end: ConnectionEnd | None = None
) -> None:
    """`sub-established`, `sub-closed`, `sub-priority`."""
    received = subflow.reset_reason is not None
    closed = kind == "sub-closed"
    tell(
        meta.stack,
        MonitorEvent(
            kind,
            meta.stack.now,
            token=meta.token,
            number=meta.number,
            family=_family(subflow.local),
            saddr=format_address(subflow.local),
            sport=subflow.local_port,
            daddr=format_address(subflow.remote),
            dport=subflow.remote_port,
            loc_id=subflow.local_id,
            rem_id=subflow.remote_id,
            backup=subflow.backup or subflow.backup_request,
            interface=subflow.interface.name,
            error=_ERRNO.get(end) if end is not None else None,
            reset_reason=(subflow.reset_reason if received else subflow.reset_sent)
            if closed
            else None,
            reset_flags=RESET_TRANSIENT * subflow.reset_transient if closed and received else None,
        ),
    )


def tell_announced(meta: MetaSocket, address_id: int, address: bytes, port: int | None) -> None:
    """The peer's ADD_ADDR was good."""
    tell(
        meta.stack,
        MonitorEvent(
            "announced",
            meta.stack.now,
            token=meta.token,
            number=meta.number,
            family=_family(address),
            daddr=format_address(address),
            dport=port,
            rem_id=address_id,
        ),
    )


def tell_removed(meta: MetaSocket, address_id: int) -> None:
    """The peer's REMOVE_ADDR names this identifier."""
    tell(
        meta.stack,
        MonitorEvent(
            "removed", meta.stack.now, token=meta.token, number=meta.number, rem_id=address_id
        ),
    )


def tell_listener(listener: Listener, kind: str) -> None:
    """`listener-created`, `listener-closed`."""
    address = listener.address
    tell(
        listener.stack,
        MonitorEvent(
            kind,
            listener.stack.now,
            family=_family(address) if address is not None else None,
            saddr=format_address(address) if address is not None else "*",
            sport=listener.port,
        ),
    )


def _family(address: bytes) -> int:
    return 4 if len(address) == 4 else 6
