"""ICMP that concerns the stack: echo, and errors about our segments (RFC 5927, RFC 1122 §4.2.3.9).

An error is believed only when it quotes a sequence number that is in flight (RFC 5927 §4.1): a
stranger who cannot see the packets has to guess 32 bits. "Packet too big" goes to `tcp.pmtu`. What
is unreachable ends a connection that is still being opened and is a hint otherwise (RFC 5927 §5.2):

  * synchronized states: no error ends the connection, hard ones (RFC 1122: codes 2 to 4 of an
    unreachable destination) neither. The path may come back; if not, the retransmission timer ends
    it, and the application is told what the network said.
  * SYN-SENT, SYN-RECEIVED: RFC 1122 wants net and host unreachable to be soft here too; like most
    hosts we end the attempt (RFC 5461 §4.1), so that the next address is tried at once instead of
    after minutes. The price is an attempt lost to a routing change that would have healed.

Source quench is ignored (RFC 6633 §3) and counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mptcp.errors import ConnectionEnd
from mptcp.tcp.state import State
from mptcp.wire.icmp import EchoRequest, IcmpError, IcmpKind, echo_reply, parse_icmp
from mptcp.wire.ip import ICMP, IpHeader
from mptcp.wire.seq import unwrap

if TYPE_CHECKING:
    from mptcp.stack import Stack
    from mptcp.tcp.connection import TcpConnection

_ENDS_AN_OPEN: Final = frozenset(
    {
        IcmpKind.UNREACHABLE,
        IcmpKind.PORT_UNREACHABLE,
        IcmpKind.PROTOCOL_UNREACHABLE,
        IcmpKind.ADMIN_PROHIBITED,
    }
)
_OPENING: Final = (State.SYN_SENT, State.SYN_RECEIVED)
_SOURCE_QUENCH: Final = 4


def icmp_arrives(stack: Stack, packet: memoryview, ip: IpHeader, interface: int) -> None:
    """Process one ICMP message. Raises only ParseError, which the caller counts."""
    message = parse_icmp(packet, ip)
    if isinstance(message, EchoRequest):
        stack.counters["IcmpInEchos"] += 1
        stack.answers.send(interface, echo_reply(packet, ip))
    elif isinstance(message, IcmpError):
        key = stack.flow_key(message.src, message.sport, message.dst, message.dport)
        connection = stack.connections.get(key)
        if connection is None:
            stack.counters["IcmpInUnmatched"] += 1
            return
        snd = connection.snd
        seq = unwrap(message.seq, snd.una)
        if not snd.una <= seq < snd.nxt:
            stack.counters["TcpExtOutOfWindowIcmps"] += 1
            return
        _believed(stack, connection, message, seq)
    elif ip.protocol == ICMP and packet[ip.offset] == _SOURCE_QUENCH:
        stack.counters["IcmpInSrcQuenchs"] += 1


def _believed(stack: Stack, connection: TcpConnection, message: IcmpError, seq: int) -> None:
    """An error about a segment in flight."""
    kind = message.kind
    opening = connection.state in _OPENING
    if kind is IcmpKind.PACKET_TOO_BIG:
        # A SYN is smaller than every MTU that could be believed.
        if opening or not connection.pmtu.too_big(
            connection, seq, message.mtu, message.size, stack.now
        ):
            stack.counters["TcpPathMtuIgnored"] += 1
        return
    stack.counters["IcmpInDestUnreachs"] += kind in _ENDS_AN_OPEN
    if opening and kind in _ENDS_AN_OPEN:
        connection.terminate(ConnectionEnd.UNREACHABLE, stack.now)
        return
    connection.soft_error = kind
    connection.on_soft_error(kind)
