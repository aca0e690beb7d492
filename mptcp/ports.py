"""Which addresses and ports a new connection may have: ephemeral ports, and pairs in TIME-WAIT.

A pair in TIME-WAIT may be taken over when nothing of the old connection can be mistaken for the
new one's: by the peer's SYN under RFC 6191's rules, by our own SYN when timestamps keep the two
apart. The new connection's ISN is then above all that the old one has used (RFC 1122 §4.2.2.13).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mptcp.errors import AddressInUseError, ConnectionEnd
from mptcp.tcp.state import State
from mptcp.wire.seq import unwrap
from mptcp.wire.tcp import Segment

if TYPE_CHECKING:
    from mptcp.stack import Stack
    from mptcp.tcp.connection import TcpConnection

ISN_STEP: Final = 0x1_0001
"""What Linux leaves between the last number of the old connection and the ISN of the new one."""
CLOCK_US: Final = 1_000_000
"""The slowest timestamp clock that RFC 7323 §5.4 allows ticks once a second."""
_MASK32: Final = 0xFFFFFFFF


def take_local_port(
    stack: Stack, local: bytes, wanted: int, remote: bytes, remote_port: int
) -> tuple[int, int | None]:
    """(port, ISN or None for the usual one) for a connection of ours; `wanted` 0 is any port.

    RFC 6056 §3.3.1 for any: a random start, then the next free; only when there is none a pair in
    TIME-WAIT. Raises AddressInUseError.
    """
    connections = stack.connections
    if wanted:
        old = connections.get(stack.flow_key(local, wanted, remote, remote_port))
        if old is None:
            return wanted, None
        if _reusable(stack, old):
            return wanted, take_over(stack, old)
        raise AddressInUseError(f"local port {wanted} is already connected to that peer")
    low, high = stack.config.ephemeral_ports
    count = high - low + 1
    start = int.from_bytes(stack.entropy(4), "big") % count
    waiting: TcpConnection | None = None
    for step in range(count):
        port = low + (start + step) % count
        old = connections.get(stack.flow_key(local, port, remote, remote_port))
        if old is None:
            return port, None
        if waiting is None and _reusable(stack, old):
            waiting = old
    if waiting is None:
        raise AddressInUseError("every local port to that destination is in use")
    return waiting.local_port, take_over(stack, waiting)


def _reusable(stack: Stack, old: TcpConnection) -> bool:
    """Whether a SYN of ours may take over the pair: its timestamps will be newer at the peer."""
    return (
        old.state is State.TIME_WAIT
        and stack.config.time_wait_reuse
        and old.ts_ok
        and stack.now - old.ts_recent_at >= CLOCK_US
    )


def syn_may_reuse(old: TcpConnection, seg: Segment) -> bool:
    """RFC 6191 §2: whether a peer's SYN may take over its pair in TIME-WAIT."""
    stamped = seg.ts_val >= 0 and old.config.timestamps
    if stamped and not old.ts_ok:
        return True
    if stamped:
        newer = (seg.ts_val - old.ts_recent) & _MASK32
        if newer:
            return newer < 0x8000_0000
    # RCV.NXT is the number after the peer's FIN, the last it has used.
    return unwrap(seg.seq, old.rcv_nxt) >= old.rcv_nxt


def take_over(stack: Stack, old: TcpConnection) -> int:
    """End a connection in TIME-WAIT; returns the ISN that its successor is to have."""
    flow = stack.flow_key(old.local, old.local_port, old.remote, old.remote_port)
    isn = stack.isn(flow)
    last = old.snd.nxt
    if unwrap(isn, last) <= last:
        isn = (last + ISN_STEP) & _MASK32
    stack.counters["TcpExtTWRecycled"] += 1
    old.terminate(ConnectionEnd.CLOSED, stack.now)
    return isn
