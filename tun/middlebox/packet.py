"""TCP packets as middleboxes see them: read, changed, written again with the right checksums.

A `TcpPacket` is mutable and keeps its IP header as bytes, so that what a box does not touch goes on
as it came. Only whole TCP packets are read: `read` gives None for anything else (other protocols,
fragments, IPv6 extension headers, what is too short), and `intact` is False where the checksum was
wrong on arrival: such a packet must not be written again, it would look sound.
"""

from __future__ import annotations

import struct
from typing import Final

FIN: Final = 1
SYN: Final = 2
RST: Final = 4
PSH: Final = 8
ACK: Final = 16

NOP: Final = 1
MSS: Final = 2
SACK: Final = 5
TIMESTAMPS: Final = 8
MPTCP: Final = 30
DSS: Final = 2
MP_FAIL: Final = 6
MP_TCPRST: Final = 8
"""Subtypes of `MPTCP` (RFC 8684 §7.2)."""

MASK32: Final = 0xFFFFFFFF

_TCP: Final = 6
_HEADER: Final = struct.Struct("!HHIIBBHHH")
_MAX_OPTIONS: Final = 40

Flow = tuple[bytes, int, bytes, int]
"""Addresses and ports, the forward direction's source first."""


class TcpPacket:
    """One TCP segment in its IP packet. Numbers are the wire's, 32 bits."""

    __slots__ = (
        "ack",
        "dport",
        "dst",
        "flags",
        "intact",
        "ip",
        "options",
        "payload",
        "seq",
        "sport",
        "src",
        "urgent",
        "window",
    )

    def __init__(self, ip: bytes, src: bytes, dst: bytes) -> None:
        self.ip = ip
        """The IP header as it came; addresses, length and checksum are filled in by `write`."""
        self.src = src
        self.dst = dst
        self.sport = 0
        self.dport = 0
        self.seq = 0
        self.ack = 0
        self.flags = 0
        self.window = 0
        self.urgent = 0
        self.options: list[bytes] = []
        """Each with its kind and length; a NOP is one byte, the padding at the end is left out."""
        self.payload = b""
        self.intact = True

    @classmethod
    def read(cls, packet: bytes) -> TcpPacket | None:
        """Parse an IP packet; None when it is no whole TCP segment."""
        if len(packet) < 40:
            return None
        version = packet[0] >> 4
        if version == 4:
            offset = (packet[0] & 15) * 4
            end = packet[2] << 8 | packet[3]
            fragment = (packet[6] << 8 | packet[7]) & 0x3FFF
            if packet[9] != _TCP or fragment or offset < 20:
                return None
            src, dst = packet[12:16], packet[16:20]
        elif version == 6:
            offset, end = 40, 40 + (packet[4] << 8 | packet[5])
            if packet[6] != _TCP:
                return None
            src, dst = packet[8:24], packet[24:40]
        else:
            return None
        if end > len(packet) or end - offset < 20:
            return None
        start = offset + (packet[offset + 12] >> 4) * 4
        if start < offset + 20 or start > end:
            return None
        found = cls(packet[:offset], src, dst)
        (
            found.sport,
            found.dport,
            found.seq,
            found.ack,
            _,
            found.flags,
            found.window,
            _,
            found.urgent,
        ) = _HEADER.unpack_from(packet, offset)
        found.options = _split_options(packet[offset + 20 : start])
        found.payload = packet[start:end]
        found.intact = _checksum(src, dst, packet[offset:end]) == 0
        return found

    def write(self) -> bytes:
        """The packet with its lengths and checksums. Raises ValueError for too many options."""
        options = b"".join(self.options)
        options += bytes(-len(options) % 4)
        if len(options) > _MAX_OPTIONS:
            raise ValueError(f"{len(options)} bytes of TCP options")
        size = 20 + len(options) + len(self.payload)
        tcp = bytearray(20)
        _HEADER.pack_into(
            tcp,
            0,
            self.sport,
            self.dport,
            self.seq & MASK32,
            self.ack & MASK32,
            (20 + len(options)) << 2,
            self.flags,
            self.window,
            0,
            self.urgent,
        )
        tcp += options
        tcp += self.payload
        tcp[16:18] = _checksum(self.src, self.dst, tcp).to_bytes(2, "big")
        ip = bytearray(self.ip)
        if len(self.src) == 4:
            ip[2:4] = (len(ip) + size).to_bytes(2, "big")
            ip[12:20] = self.src + self.dst
            ip[10:12] = b"\0\0"
            ip[10:12] = (-int.from_bytes(ip, "big") % 0xFFFF).to_bytes(2, "big")
        else:
            ip[4:6] = size.to_bytes(2, "big")
            ip[8:40] = self.src + self.dst
        return bytes(ip + tcp)

    def copy(self) -> TcpPacket:
        """One that can be changed without changing this."""
        other = TcpPacket(self.ip, self.src, self.dst)
        other.sport, other.dport = self.sport, self.dport
        other.seq, other.ack, other.flags = self.seq, self.ack, self.flags
        other.window, other.urgent = self.window, self.urgent
        other.options = list(self.options)
        other.payload = self.payload
        other.intact = self.intact
        return other

    def answer(self, flags: int, seq: int, ack: int) -> TcpPacket:
        """A segment of the box's own in the other direction, without options and data."""
        other = TcpPacket(self.ip, self.dst, self.src)
        other.sport, other.dport = self.dport, self.sport
        other.seq, other.ack, other.flags = seq, ack, flags
        return other

    def flow(self, forward: bool) -> Flow:
        """The connection it belongs to, the same for both directions."""
        if forward:
            return self.src, self.sport, self.dst, self.dport
        return self.dst, self.dport, self.src, self.sport

    @property
    def end(self) -> int:
        """The sequence number after this segment."""
        length = len(self.payload) + (self.flags & FIN) + (self.flags >> 1 & 1)
        return self.seq + length & MASK32

    @property
    def size(self) -> int:
        """Bytes of the IP packet that `write` makes."""
        options = sum(map(len, self.options))
        return len(self.ip) + 20 + options + -options % 4 + len(self.payload)

    def option(self, kind: int) -> bytes | None:
        """The first option of a kind."""
        return next((option for option in self.options if option[0] == kind), None)

    def has(self, kind: int) -> bool:
        """Whether there is an option of a kind."""
        return any(option[0] == kind for option in self.options)

    def remove(self, kind: int, subtypes: tuple[int, ...] = ()) -> bool:
        """Overwrite the options of a kind with no-operations; whether there were any.

        `subtypes` are those of MPTCP options; empty: all.
        """
        touched = False
        for place, option in enumerate(self.options):
            if option[0] != kind or (
                subtypes and (len(option) < 3 or option[2] >> 4 not in subtypes)
            ):
                continue
            self.options[place] = bytes((NOP,)) * len(option)
            touched = True
        return touched


def after(left: int, right: int) -> bool:
    """Whether sequence number `left` comes after `right` (RFC 9293 §3.4, modulo 2^32)."""
    return 0 < (left - right & MASK32) < 0x80000000


def sack_blocks(option: bytes) -> list[tuple[int, int]]:
    """The blocks of a SACK option (RFC 2018 §3)."""
    count = (len(option) - 2) // 8
    numbers = struct.unpack_from(f"!{2 * count}I", option, 2)
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def sack_option(blocks: list[tuple[int, int]]) -> bytes:
    """A SACK option."""
    numbers = [number & MASK32 for block in blocks for number in block]
    return bytes((SACK, 2 + 8 * len(blocks))) + struct.pack(f"!{len(numbers)}I", *numbers)


def _split_options(data: bytes) -> list[bytes]:
    options, at = [], 0
    while at < len(data) and data[at] != 0:
        size = 1 if data[at] == NOP else data[at + 1] if at + 1 < len(data) else 0
        if size == 0 or (data[at] != NOP and size < 2) or at + size > len(data):
            break  # what cannot be read goes, with all that follows it
        options.append(data[at : at + size])
        at += size
    return options


def _checksum(src: bytes, dst: bytes, segment: bytes | bytearray) -> int:
    """The TCP checksum; of a segment that has the right one in it: 0."""
    total = int.from_bytes(segment, "big") << 8 * (len(segment) & 1)
    total += int.from_bytes(src, "big") + int.from_bytes(dst, "big") + _TCP + len(segment)
    return -total % 0xFFFF
