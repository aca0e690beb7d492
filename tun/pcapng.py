"""pcapng capture files: bare IP packets of several interfaces, with directions and microseconds.

The format of draft-ietf-opsawg-pcapng: one section, an interface description for each interface, an
enhanced packet block for each packet. The writer is given an open file and every time stamp.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

_SECTION: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_PACKET: Final = 6
_BYTE_ORDER: Final = 0x1A2B3C4D
_RAW: Final = 101  # LINKTYPE_RAW: IPv4 or IPv6, by the first nibble
_COMMENT: Final = 1
_IF_NAME: Final = 2
_EPB_FLAGS: Final = 2
_INBOUND: Final = 1
_OUTBOUND: Final = 2
_END_OF_OPTIONS: Final = bytes(4)


class PcapngWriter:
    """Writes one section to a binary file, which stays the caller's to close."""

    def __init__(self, file: BinaryIO, comment: str = "") -> None:
        """Writes the section header with `comment`. Raises OSError."""
        self._file = file
        self._interfaces = 0
        options = _option(_COMMENT, comment.encode()) + _END_OF_OPTIONS if comment else b""
        self._block(_SECTION, struct.pack("<IHHq", _BYTE_ORDER, 1, 0, -1) + options)

    def add_interface(self, name: str) -> int:
        """Describe an interface; its number, for `write`."""
        self._block(
            _INTERFACE,
            struct.pack("<HHI", _RAW, 0, 0) + _option(_IF_NAME, name.encode()) + _END_OF_OPTIONS,
        )
        self._interfaces += 1
        return self._interfaces - 1

    def write(self, interface: int, timestamp_us: int, packet: bytes, outbound: bool) -> None:
        """Add one IP packet. Raises ValueError for an interface that was not added, OSError."""
        if not 0 <= interface < self._interfaces:
            raise ValueError(f"interface {interface} of {self._interfaces}")
        flags = _option(_EPB_FLAGS, struct.pack("<I", _OUTBOUND if outbound else _INBOUND))
        length = len(packet)
        head = struct.pack(
            "<IIIII",
            interface,
            timestamp_us >> 32,
            timestamp_us & 0xFFFF_FFFF,
            length,
            length,
        )
        self._block(_PACKET, head + packet + bytes(-length % 4) + flags + _END_OF_OPTIONS)

    def _block(self, kind: int, body: bytes) -> None:
        length = struct.pack("<I", 12 + len(body))
        self._file.write(struct.pack("<I", kind) + length + body + length)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)
