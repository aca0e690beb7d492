"""ICMP (RFC 792) and ICMPv6 (RFC 4443): errors about our TCP segments, echo, and their emitters.

An error is only as good as what it quotes: `parse_icmp` gives the ports and the sequence number of
the quoted segment, for the stack to check against what it has in flight before believing any of
it (RFC 5927 §4.1). What is neither an error about TCP nor an echo request is None. The emitters
serve echo and simulated routers; they keep silent (None) where the RFCs forbid an answer.
"""

import struct
from dataclasses import dataclass
from enum import Enum
from typing import Final

from mptcp.wire.checksum import finish, ones_sum, pseudo_sum
from mptcp.wire.errors import ChecksumError, ParseError
from mptcp.wire.ip import ICMP, ICMPV6, TCP, IpHeader, ip_header, parse_ip

MIN_MTU_IPV4: Final = 68
"""RFC 791 §3.2: every link carries so much unfragmented."""
MIN_MTU_IPV6: Final = 1280

_MAX_ERROR_IPV4: Final = 576  # RFC 1812 §4.3.2.3: quote as much as fits in this
_MAX_ERROR_IPV6: Final = 1280  # RFC 4443 §2.4 (c)

_HEAD = struct.Struct("!BBHI")
_U16 = struct.Struct("!H")
_QUOTED_TCP = struct.Struct("!HHI")


class IcmpKind(Enum):
    """What an ICMP error says, the same for both families."""

    UNREACHABLE = "unreachable"
    PROTOCOL_UNREACHABLE = "protocol unreachable"
    PORT_UNREACHABLE = "port unreachable"
    ADMIN_PROHIBITED = "administratively prohibited"
    PACKET_TOO_BIG = "packet too big"
    TIME_EXCEEDED = "time exceeded"
    PARAMETER_PROBLEM = "parameter problem"


@dataclass(slots=True)
class IcmpError:
    """An error about a TCP segment; `src`, `sport` are those of the quoted segment, so ours."""

    kind: IcmpKind
    mtu: int | None
    """Of PACKET_TOO_BIG: the next hop's, None from a router that does not tell (RFC 1191 §5)."""
    src: bytes
    dst: bytes
    sport: int
    dport: int
    seq: int
    """The quoted sequence number, as on the wire."""
    size: int = 0
    """Length of the quoted packet as it was sent, IP header included; 0 when not known."""


class EchoRequest:
    """A ping; `payload` is a view on the packet."""

    __slots__ = ("identifier", "payload", "sequence")

    def __init__(self, identifier: int, sequence: int, payload: memoryview) -> None:
        self.identifier = identifier
        self.sequence = sequence
        self.payload = payload


# (type, code) -> kind; a code that is not listed takes what is under (type, None).
_KINDS_V4: Final[dict[tuple[int, int | None], IcmpKind]] = {
    (3, None): IcmpKind.UNREACHABLE,
    (3, 2): IcmpKind.PROTOCOL_UNREACHABLE,
    (3, 3): IcmpKind.PORT_UNREACHABLE,
    (3, 4): IcmpKind.PACKET_TOO_BIG,
    # RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1.
    (3, 9): IcmpKind.ADMIN_PROHIBITED,
    (3, 10): IcmpKind.ADMIN_PROHIBITED,
    (3, 13): IcmpKind.ADMIN_PROHIBITED,
    (11, None): IcmpKind.TIME_EXCEEDED,
    (12, None): IcmpKind.PARAMETER_PROBLEM,
}
_KINDS_V6: Final[dict[tuple[int, int | None], IcmpKind]] = {
    (1, None): IcmpKind.UNREACHABLE,
    (1, 1): IcmpKind.ADMIN_PROHIBITED,
    (1, 4): IcmpKind.PORT_UNREACHABLE,
    (1, 5): IcmpKind.ADMIN_PROHIBITED,  # RFC 4443 §3.1: "more informative subsets" of code 1
    (1, 6): IcmpKind.ADMIN_PROHIBITED,
    (2, None): IcmpKind.PACKET_TOO_BIG,
    (3, None): IcmpKind.TIME_EXCEEDED,
    (4, None): IcmpKind.PARAMETER_PROBLEM,
    (4, 1): IcmpKind.PROTOCOL_UNREACHABLE,
}


def parse_icmp(packet: memoryview, ip: IpHeader) -> IcmpError | EchoRequest | None:
    """Parse the ICMP message of a packet whose header `ip` is. Raises only ParseError.

    None for a message that means nothing to a TCP host: another type, or an error about something
    that is not TCP or is not the start of a segment. ChecksumError for a wrong checksum.
    """
    offset = ip.offset
    end = ip.end
    if end - offset < 8:
        raise ParseError("shorter than an ICMP header")
    total = ones_sum(packet[offset:end])
    if ip.version == 6:
        total += pseudo_sum(ip.src, ip.dst, ICMPV6, end - offset)  # RFC 4443 §2.3
    if total % 0xFFFF:
        raise ChecksumError("ICMP checksum")
    kind, code, _, rest = _HEAD.unpack_from(packet, offset)
    if ip.version == 4:
        if kind == 8 and code == 0:
            return EchoRequest(rest >> 16, rest & 0xFFFF, packet[offset + 8 : end])
        found = _KINDS_V4.get((kind, code)) or _KINDS_V4.get((kind, None))
        mtu = rest & 0xFFFF
    else:
        if kind == 128 and code == 0:
            return EchoRequest(rest >> 16, rest & 0xFFFF, packet[offset + 8 : end])
        found = _KINDS_V6.get((kind, code)) or _KINDS_V6.get((kind, None))
        mtu = rest
    if found is None:
        return None
    quoted = packet[offset + 8 : end]
    inner = parse_ip(quoted, quoted=True)
    if inner.protocol != TCP or inner.fragment_offset or inner.version != ip.version:
        return None
    if inner.end - inner.offset < 8:
        raise ParseError("ICMP error quotes less than ports and sequence number")
    sport, dport, seq = _QUOTED_TCP.unpack_from(quoted, inner.offset)
    told = mtu if found is IcmpKind.PACKET_TOO_BIG and mtu else None
    # `inner.end` is cut to what was quoted; the length fields tell the whole.
    size = (
        _U16.unpack_from(quoted, 2)[0] if ip.version == 4 else _U16.unpack_from(quoted, 4)[0] + 40
    )
    return IcmpError(found, told, inner.src, inner.dst, sport, dport, seq, size)


def echo_reply(packet: memoryview, ip: IpHeader) -> bytes:
    """Return the whole IP packet that answers an echo request `parse_icmp` has accepted.

    The source is the address that was asked; a request to a multicast address is the caller's to
    refuse. RFC 1122 §3.2.2.6: the data comes back unchanged.
    """
    kind = 0 if ip.version == 4 else 129
    return _message(ip.dst, ip.src, kind, 0, packet[ip.offset + 4 : ip.end])


def packet_too_big(offending: memoryview, mtu: int, source: bytes) -> bytes | None:
    """Return the packet by which a router at `source` tells the MTU of the next hop, in bytes.

    IPv4: destination unreachable, fragmentation needed (RFC 1191 §4); IPv6: packet too big
    (RFC 4443 §3.2). None when no error may be sent; ParseError when `offending` is no IP packet.
    """
    if offending and offending[0] >> 4 == 4:
        return _error(offending, source, 3, 4, mtu & 0xFFFF)
    return _error(offending, source, 2, 0, mtu)


_UNREACHABLE_V4: Final = {
    IcmpKind.UNREACHABLE: (3, 1),
    IcmpKind.PROTOCOL_UNREACHABLE: (3, 2),
    IcmpKind.PORT_UNREACHABLE: (3, 3),
    IcmpKind.ADMIN_PROHIBITED: (3, 13),
    IcmpKind.TIME_EXCEEDED: (11, 0),
}
_UNREACHABLE_V6: Final = {
    IcmpKind.UNREACHABLE: (1, 0),
    IcmpKind.PROTOCOL_UNREACHABLE: (4, 1),
    IcmpKind.PORT_UNREACHABLE: (1, 4),
    IcmpKind.ADMIN_PROHIBITED: (1, 1),
    IcmpKind.TIME_EXCEEDED: (3, 0),
}


def unreachable(
    offending: memoryview, source: bytes, kind: IcmpKind = IcmpKind.UNREACHABLE
) -> bytes | None:
    """Return the error of `kind` that the node at `source` sends about `offending`.

    ValueError for PACKET_TOO_BIG (see `packet_too_big`) and PARAMETER_PROBLEM. None when no error
    may be sent; ParseError when `offending` is no IP packet.
    """
    table = _UNREACHABLE_V4 if len(source) == 4 else _UNREACHABLE_V6
    if kind not in table:
        raise ValueError(f"{kind.name} is not an unreachable error")
    number, code = table[kind]
    # RFC 4443 §3.4: code 1 points at the next header field that was not understood.
    return _error(offending, source, number, code, 6 if (number, code) == (4, 1) else 0)


def _error(offending: memoryview, source: bytes, kind: int, code: int, rest: int) -> bytes | None:
    ip = parse_ip(offending, quoted=True)
    if len(source) != len(ip.src):
        raise ValueError("the source must be an address of the offending packet's family")
    if not _may_answer(offending, ip):
        return None
    room = _MAX_ERROR_IPV4 - 28 if ip.version == 4 else _MAX_ERROR_IPV6 - 48
    body = rest.to_bytes(4, "big") + bytes(offending[: min(ip.end, room)])
    return _message(source, ip.src, kind, code, body)


def _may_answer(offending: memoryview, ip: IpHeader) -> bool:
    """Tell whether RFC 1122 §3.2.2 and RFC 4443 §2.4 (e) allow an error about this packet."""
    if ip.fragment_offset:
        return False
    if not any(ip.src):
        return False
    if ip.version == 4:
        if ip.src[0] >= 224 or ip.dst[0] >= 224:
            return False
        errors = (3, 4, 5, 11, 12)
        return ip.protocol != ICMP or (ip.offset < ip.end and offending[ip.offset] not in errors)
    if ip.src[0] == 0xFF:
        return False
    if ip.protocol == ICMPV6:
        kind = offending[ip.offset] if ip.offset < ip.end else 0
        if kind < 128 or kind == 137:  # an error, or a redirect
            return False
    # RFC 4443 §2.4 (e.3): packet too big is sent even for a multicast destination; the routers
    # here do no multicast, so the exception is not made.
    return ip.dst[0] != 0xFF


def _message(src: bytes, dst: bytes, kind: int, code: int, body: bytes | memoryview) -> bytes:
    """Return an IP packet with an ICMP message; `body` is what follows the checksum."""
    protocol = ICMP if len(src) == 4 else ICMPV6
    length = 4 + len(body)
    total = (kind << 8 | code) + ones_sum(body)
    if protocol == ICMPV6:
        total += pseudo_sum(src, dst, protocol, length)
    head = bytes((kind, code)) + finish(total).to_bytes(2, "big")
    return b"".join((ip_header(src, dst, protocol, length), head, body))
