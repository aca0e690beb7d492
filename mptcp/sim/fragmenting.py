"""What a router does to an IPv4 packet that is too large and may be fragmented (RFC 791 §3.2)."""

from __future__ import annotations

from typing import Final

from mptcp.wire.checksum import finish, ones_sum

_MORE: Final = 0x2000
_COPIED: Final = 0x80  # an option with this bit goes into every fragment (RFC 791 §3.1)


def fragment(packet: bytes, mtu: int) -> list[bytes]:
    """Cut an IPv4 packet into fragments of at most `mtu` bytes (68 or more: RFC 791 §3.2).

    A fragment may be cut again: offsets and the last one's "more" flag carry over.
    """
    length = (packet[0] & 0xF) << 2
    total = min(int.from_bytes(packet[2:4], "big"), len(packet))
    word = int.from_bytes(packet[6:8], "big")
    offset, flags = word & 0x1FFF, word & 0xE000
    first = packet[:length]
    later = first[:20] + _copied_options(first[20:])
    pieces = []
    header, at = first, length
    while at < total:
        room = (mtu - len(header)) & ~7
        data = packet[at : min(at + room, total)]
        at += len(data)
        more = _MORE if at < total or flags & _MORE else 0
        made = bytearray(header)
        made[0] = 0x40 | len(header) >> 2
        made[2:4] = (len(header) + len(data)).to_bytes(2, "big")
        made[6:8] = (flags & ~_MORE | more | offset).to_bytes(2, "big")
        made[10:12] = b"\0\0"
        made[10:12] = finish(ones_sum(made)).to_bytes(2, "big")
        pieces.append(type(packet)(bytes(made) + data))
        offset += len(data) >> 3
        header = later
    return pieces


def _copied_options(options: bytes) -> bytes:
    """Those options that every fragment has, padded to a multiple of four bytes."""
    kept, at = b"", 0
    while at < len(options) and options[at] != 0:
        size = 1 if options[at] == 1 else options[at + 1] if at + 1 < len(options) else 0
        if size == 0:
            break
        if options[at] & _COPIED:
            kept += options[at : at + size]
        at += size
    return kept + bytes(-len(kept) % 4)
