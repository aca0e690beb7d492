"""IPv4 (RFC 791) and IPv6 (RFC 8200) headers.

`parse_ip` finds the transport header behind options and extension headers, or notes the fragment;
`IpHeader` holds offsets into the packet, not copies of it. A host never forwards here: a header
that would need forwarding or that a host must refuse (a source route not at its end, an unknown
IPv6 option that says so) is a ParseError. Packets may be as large as the 16-bit length fields
allow, whatever the MTU: a TUN device hands over segmentation-offloaded ones.
"""

import struct
from typing import Final

from mptcp.wire.errors import ChecksumError, ParseError

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58

_HOP_BY_HOP: Final = 0
_ROUTING: Final = 43
_FRAGMENT: Final = 44
_AUTHENTICATION: Final = 51
_NO_NEXT_HEADER: Final = 59
_DESTINATION_OPTIONS: Final = 60
_EXTENSIONS: Final = frozenset(
    (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION_OPTIONS)
)

MAX_EXTENSION_HEADERS: Final = 8
"""More than these and the packet is refused: what a stranger can make us walk is bounded."""

_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_from_bytes = int.from_bytes


class IpHeader:
    """What the stack needs of one IP header; offsets are bytes from the start of the packet."""

    __slots__ = (
        "dst",
        "end",
        "fragment_data_offset",
        "fragment_header_offset",
        "fragment_next_header_at",
        "fragment_offset",
        "identification",
        "more_fragments",
        "offset",
        "protocol",
        "src",
        "tos",
        "ttl",
        "version",
    )

    version: int
    """4 or 6."""
    src: bytes
    """4 or 16 bytes, as `dst`."""
    dst: bytes
    protocol: int
    """Of the transport header; of the fragmented data in a fragment; 59 when there is none."""
    offset: int
    """Where the transport header (or the data of a fragment) starts."""
    end: int
    """Where the datagram ends: what follows is padding of the link."""
    ttl: int
    """Time to live or hop limit."""
    tos: int
    """The whole TOS or traffic class byte; ECN is its low two bits (RFC 3168 §5)."""
    identification: int
    """16 bits in IPv4; 32 in IPv6, and 0 there without a fragment header."""
    fragment_offset: int
    """In bytes."""
    more_fragments: bool
    fragment_header_offset: int
    """Length of the part that every fragment repeats: IPv4 header, or IPv6 up to the fragment
    header; 0 for an IPv6 packet without one."""
    fragment_next_header_at: int
    """IPv6: where the byte is that announces the fragment header; else 0."""
    fragment_data_offset: int
    """Where the fragmented data starts; 0 for an IPv6 packet without a fragment header."""

    @property
    def is_fragment(self) -> bool:
        """Whether the packet is only a part of a datagram."""
        return self.more_fragments or self.fragment_offset != 0

    def __repr__(self) -> str:
        fragment = f" fragment {self.fragment_offset}" if self.is_fragment else ""
        return (
            f"IpHeader(v{self.version} {self.src.hex()}>{self.dst.hex()} protocol {self.protocol} "
            f"[{self.offset}:{self.end}] ttl {self.ttl} tos {self.tos:#04x}{fragment})"
        )


def parse_ip(packet: memoryview, *, quoted: bool = False) -> IpHeader:
    """Parse the IP header of a whole packet. Raises only ParseError.

    The IPv4 header checksum is verified (ChecksumError); what follows the datagram is cut by `end`.
    A packet `quoted` by an ICMP error may be cut short: then `end` is at most len(packet), and the
    checksum is not looked at, since a router may have quoted the header as it changed it.
    """
    available = len(packet)
    if available < 20:
        raise ParseError("shorter than an IP header")
    first = packet[0]
    if first >> 4 == 6:
        return _parse_ipv6(packet, available, quoted)
    if first >> 4 != 4:
        raise ParseError(f"IP version {first >> 4}")
    header = IpHeader()
    (
        _,
        header.tos,
        total,
        header.identification,
        fragment,
        header.ttl,
        header.protocol,
        _,
        header.src,
        header.dst,
    ) = _IPV4.unpack_from(packet)
    # Options are skipped: a host only has to survive them (RFC 7126).
    offset = 20 if first == 0x45 else (first & 0xF) << 2
    if offset < 20 or total < offset or available < offset:
        raise ParseError("IPv4: bad header or total length")
    if quoted:
        header.end = min(total, available)
    else:
        if total > available:
            raise ParseError("IPv4: truncated")
        if _from_bytes(packet[:offset], "big") % 0xFFFF:
            raise ChecksumError("IPv4: header checksum")
        header.end = total
    header.version = 4
    header.offset = offset
    header.fragment_offset = (fragment & 0x1FFF) << 3
    header.more_fragments = fragment & 0x2000 != 0
    header.fragment_header_offset = offset
    header.fragment_data_offset = offset
    header.fragment_next_header_at = 0
    return header


def _parse_ipv6(packet: memoryview, available: int, quoted: bool) -> IpHeader:
    if available < 40:
        raise ParseError("shorter than an IPv6 header")
    header = IpHeader()
    first, length, protocol, header.ttl, header.src, header.dst = _IPV6.unpack_from(packet)
    end = 40 + length
    if end > available:
        if not quoted:
            raise ParseError("IPv6: truncated")
        end = available
    header.version = 6
    header.tos = first >> 20 & 0xFF
    header.end = end
    header.identification = 0
    header.fragment_offset = 0
    header.more_fragments = False
    header.fragment_header_offset = 0
    header.fragment_data_offset = 0
    header.fragment_next_header_at = 0
    header.protocol = protocol
    header.offset = 40
    if protocol in _EXTENSIONS:
        _skip_extensions(packet, header)
    return header


def _skip_extensions(packet: memoryview, header: IpHeader) -> None:
    """Move `header.protocol` and `.offset` behind the extension headers (RFC 8200 §4)."""
    end = header.end
    offset = 40
    protocol = header.protocol
    announced_at = 6  # where the byte is that names `protocol`
    count = 0
    while protocol in _EXTENSIONS:
        if count == MAX_EXTENSION_HEADERS:
            raise ParseError("IPv6: too many extension headers")
        if offset + 8 > end:
            raise ParseError("IPv6: truncated extension header")
        following = packet[offset]
        if protocol == _FRAGMENT:
            size = 8
            fragment = _from_bytes(packet[offset + 2 : offset + 4], "big")
            header.fragment_offset = fragment & 0xFFF8
            header.more_fragments = fragment & 1 != 0
            header.identification = _from_bytes(packet[offset + 4 : offset + 8], "big")
            header.fragment_header_offset = offset
            header.fragment_next_header_at = announced_at
            header.fragment_data_offset = offset + 8
        elif protocol == _AUTHENTICATION:
            size = packet[offset + 1] + 2 << 2
        else:
            size = packet[offset + 1] + 1 << 3
        if offset + size > end:
            raise ParseError("IPv6: truncated extension header")
        if protocol == _ROUTING:
            # RFC 8200 §4.4: nobody but a router on the route acts on it, and RFC 5095 ended type 0.
            if packet[offset + 3]:
                raise ParseError("IPv6: routing header with segments left")
        elif protocol in (_HOP_BY_HOP, _DESTINATION_OPTIONS):
            if protocol == _HOP_BY_HOP and count:
                raise ParseError("IPv6: hop-by-hop options not first")
            _check_options(packet, offset + 2, offset + size)
        announced_at = offset
        offset += size
        count += 1
        if protocol == _FRAGMENT and header.is_fragment:
            protocol = following  # what follows is a part of something else: do not look into it
            break
        protocol = following
    header.protocol = protocol
    header.offset = offset


def _check_options(packet: memoryview, offset: int, end: int) -> None:
    """Refuse a packet with an option whose type says so; we know none but padding."""
    while offset < end:
        kind = packet[offset]
        if kind == 0:
            offset += 1
            continue
        if kind & 0xC0:
            # RFC 8200 §4.2: the highest two bits say what to do with an unknown option.
            raise ParseError(f"IPv6: option {kind:#x} must be understood")
        if offset + 2 > end:
            raise ParseError("IPv6: truncated option")
        offset += 2 + packet[offset + 1]
    if offset != end:
        raise ParseError("IPv6: an option runs over its header")


def ipv4_header(
    src: bytes,
    dst: bytes,
    protocol: int,
    payload_length: int,
    *,
    ttl: int = 64,
    tos: int = 0,
    identification: int = 0,
    dont_fragment: bool = True,
) -> bytes:
    """Return the 20 bytes of an IPv4 header, checksum filled; ValueError when one does not fit."""
    if len(src) != 4 or len(dst) != 4:
        raise ValueError("IPv4 addresses have 4 bytes")
    flags = 0x4000 if dont_fragment else 0
    fields = (0x45, tos, 20 + payload_length, identification, flags, ttl, protocol)
    try:
        header = _IPV4.pack(*fields, 0, src, dst)
        checksum = -_from_bytes(header, "big") % 0xFFFF
        return _IPV4.pack(*fields, checksum, src, dst)
    except struct.error as error:
        raise ValueError(f"IPv4 header: {error}") from None


def ipv6_header(
    src: bytes,
    dst: bytes,
    next_header: int,
    payload_length: int,
    *,
    hop_limit: int = 64,
    traffic_class: int = 0,
    flow_label: int = 0,
) -> bytes:
    """Return the 40 bytes of an IPv6 header; ValueError when a field does not fit."""
    if len(src) != 16 or len(dst) != 16:
        raise ValueError("IPv6 addresses have 16 bytes")
    if not 0 <= traffic_class <= 0xFF or not 0 <= flow_label <= 0xFFFFF:
        raise ValueError("IPv6 header: traffic class or flow label")
    first = 6 << 28 | traffic_class << 20 | flow_label
    try:
        return _IPV6.pack(first, payload_length, next_header, hop_limit, src, dst)
    except struct.error as error:
        raise ValueError(f"IPv6 header: {error}") from None


def ip_header(
    src: bytes,
    dst: bytes,
    protocol: int,
    payload_length: int,
    *,
    ttl: int = 64,
    tos: int = 0,
    identification: int = 0,
    dont_fragment: bool = True,
    flow_label: int = 0,
) -> bytes:
    """Return an IPv4 or IPv6 header, as the addresses are 4 or 16 bytes; see the two above."""
    if len(src) == 4:
        return ipv4_header(
            src,
            dst,
            protocol,
            payload_length,
            ttl=ttl,
            tos=tos,
            identification=identification,
            dont_fragment=dont_fragment,
        )
    return ipv6_header(
        src,
        dst,
        protocol,
        payload_length,
        hop_limit=ttl,
        traffic_class=tos,
        flow_label=flow_label,
    )
