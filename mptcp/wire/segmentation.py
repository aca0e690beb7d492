"""TCP segmentation in software: what the Linux kernel does to an offloaded packet (TSO/GSO).

For the places where no kernel is behind a packet of up to 64 KiB: the simulator, the link emulator
and devices without offload. The way of cutting is that of Linux's tcp_gso_segment: the header
with all its options is repeated, so that one DSS mapping covers the chunk.
"""

import struct

from mptcp.wire.checksum import Buffer, ones_sum, pseudo_sum
from mptcp.wire.errors import ParseError
from mptcp.wire.ip import TCP, parse_ip

_FIN_PSH = 0x01 | 0x08
_CWR = 0x80
_U16 = struct.Struct("!H")
_U32 = struct.Struct("!I")


def split_tcp(packet: Buffer, gso_size: int, *, checksum: bool = True) -> list[bytes]:
    """Cut an IPv4 or IPv6 TCP packet into packets of at most `gso_size` bytes of payload.

    Options are repeated, the sequence number advances, FIN and PSH stay on the last packet only and
    CWR on the first (RFC 3168 §6.1.2), the IPv4 identification counts up. A packet that is small
    enough is one of one. TCP checksums are complete with `checksum`, whatever the field held; else
    the field holds the sum of the pseudo-header, as VIRTIO_NET_HDR_F_NEEDS_CSUM wants it. Bytes
    behind the IP datagram are dropped.

    ParseError when it is not a whole, unfragmented TCP packet; ValueError when `gso_size` < 1.
    """
    if gso_size < 1:
        raise ValueError(f"gso_size {gso_size}")
    view = memoryview(packet)
    ip = parse_ip(view)
    offset = ip.offset
    if ip.protocol != TCP or ip.is_fragment or ip.end - offset < 20:
        raise ParseError("not a TCP packet")
    payload_at = offset + (view[offset + 12] >> 4 << 2)
    end = ip.end
    if payload_at < offset + 20 or payload_at > end:
        raise ParseError("bad TCP data offset")

    header = bytearray(view[:payload_at])
    header[offset + 16 : offset + 18] = b"\0\0"
    flags = header[offset + 13]
    (seq,) = _U32.unpack_from(header, offset + 4)
    addresses = pseudo_sum(ip.src, ip.dst, TCP, 0)
    is_ipv4 = ip.version == 4
    tcp_header_length = payload_at - offset

    packets = []
    for index, at in enumerate(range(payload_at, max(end, payload_at + 1), gso_size)):
        upto = min(at + gso_size, end)
        length = tcp_header_length + upto - at
        if is_ipv4:
            _U16.pack_into(header, 2, offset + length)
            _U16.pack_into(header, 4, (ip.identification + index) & 0xFFFF)
            header[10:12] = b"\0\0"
            _U16.pack_into(header, 10, -ones_sum(header[:offset]) % 0xFFFF)
        else:
            # RFC 8200 §3: extension headers count as payload.
            _U16.pack_into(header, 4, offset - 40 + length)
        _U32.pack_into(header, offset + 4, (seq + at - payload_at) & 0xFFFF_FFFF)
        header[offset + 13] = flags & ~((0 if upto == end else _FIN_PSH) | (_CWR if index else 0))
        total = addresses + length
        if checksum:
            total += ones_sum(header[offset:]) + ones_sum(view[at:upto])
            packets.append(_with_checksum(header, view[at:upto], offset, -total % 0xFFFF))
        else:
            packets.append(_with_checksum(header, view[at:upto], offset, total % 0xFFFF))
    return packets


def _with_checksum(header: bytearray, payload: memoryview, offset: int, checksum: int) -> bytes:
    """Join header and payload with the TCP checksum filled in; the header's field stays zero."""
    _U16.pack_into(header, offset + 16, checksum)
    packet = b"".join((header, payload))
    header[offset + 16 : offset + 18] = b"\0\0"
    return packet
