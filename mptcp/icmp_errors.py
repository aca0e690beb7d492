"""ICMP that concerns the stack: echo, and errors about our segments (RFC 5927, RFC 1191, RFC 8201).

An error is believed only when it quotes a sequence number that is in flight (RFC 5927 §4.1).
"Packet too big" lowers the subflow's MSS; an unreachable destination ends a connection that is
still being opened and is a hint otherwise (RFC 1122 §4.2.3.9: soft errors do not abort).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mptcp.errors import ConnectionEnd
from mptcp.tcp.state import State
from mptcp.wire.icmp import EchoRequest, IcmpError, IcmpKind, echo_reply, parse_icmp
from mptcp.wire.ip import IpHeader
from mptcp.wire.seq import unwrap

if TYPE_CHECKING:
    from mptcp.stack import Stack
    from mptcp.tcp.connection import TcpConnection

MIN_MTU: Final = {4: 552, 16: 1280}
"""Smaller announcements are not believed: Linux's min_pmtu for IPv4, RFC 8200 §5 for IPv6."""

_HARD: Final = frozenset(
    {
        IcmpKind.UNREACHABLE,
        IcmpKind.PORT_UNREACHABLE,
        IcmpKind.PROTOCOL_UNREACHABLE,
        IcmpKind.ADMIN_PROHIBITED,
    }
)


def icmp_arrives(stack: Stack, packet: memoryview, ip: IpHeader, interface: int) -> None:
    """Process one ICMP message. Raises only ParseError, which the caller counts."""
    message = parse_icmp(packet, ip)
    if isinstance(message, EchoRequest):
        stack.counters["IcmpInEchos"] += 1
        stack.send_raw(interface, echo_reply(packet, ip))
    elif isinstance(message, IcmpError):
        key = stack.flow_key(message.src, message.sport, message.dst, message.dport)
        connection = stack.connections.get(key)
        if connection is None:
            return
        snd = connection.snd
        seq = unwrap(message.seq, snd.una)
        if not snd.una <= seq <= snd.nxt:
            stack.counters["TcpExtOutOfWindowIcmps"] += 1
            return
        _believed(stack, connection, message)


def _believed(stack: Stack, connection: TcpConnection, message: IcmpError) -> None:
    if message.kind is IcmpKind.PACKET_TOO_BIG:
        if message.mtu is not None:
            _lower_mtu(stack, connection, message.mtu)
    elif message.kind in _HARD:
        stack.counters["IcmpInDestUnreachs"] += 1
        if connection.state in (State.SYN_SENT, State.SYN_RECEIVED):
            connection.terminate(ConnectionEnd.UNREACHABLE, stack.now)


def _lower_mtu(stack: Stack, connection: TcpConnection, mtu: int) -> None:
    """RFC 1191 §6.4, RFC 8201 §5.2: smaller segments from now on, and resend what was too big."""
    family = len(connection.local)
    mtu = max(mtu, MIN_MTU[family])
    mss = mtu - (40 if family == 4 else 60)
    snd = connection.snd
    if mss >= snd.mss:
        return
    snd.mss = mss
    connection.mss_limit = mss
    connection.cc.mss = mss
    stack.counters["TcpPathMtuReduced"] += 1
    if snd.board:
        snd.board.mark_first_lost(snd.board.first().end - snd.board.first().seq)
        stack.mark_ready(connection)
