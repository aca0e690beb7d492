"""Capture files: classic pcap with microsecond stamps and bare IP packets (LINKTYPE_RAW).

A writer owns its file, knows no clock (the caller gives the stamps) and never grows the file beyond
`max_bytes`. What it leaves is a readable capture at any time after `flush()`.
"""

from __future__ import annotations

import os
import struct
from typing import Final

from .closing import Closing
from .device import BytesLike

LINKTYPE_RAW: Final = 101
_MAGIC: Final = 0xA1B2_C3D4  # microseconds; its byte order tells the reader ours
_FILE_HEADER: Final = struct.Struct("=IHHiIII")
_RECORD_HEADER: Final = struct.Struct("=IIII")
_BUFFER: Final = 1 << 18
_US_PER_SECOND: Final = 1_000_000


class PcapWriter(Closing):
    """Writes IP packets to a pcap file; use it as a context manager."""

    def __init__(
        self, path: str | os.PathLike[str], snaplen: int = 65_535, *, max_bytes: int | None = None
    ) -> None:
        """Create (or empty) the file.

        `snaplen`: how many bytes of a packet are kept, 1 to 262144. `max_bytes`: the file ends
        before a packet that would make it larger; later ones are only counted. Raises OSError,
        ValueError.
        """
        if not 1 <= snaplen <= 262_144:
            raise ValueError(f"snaplen {snaplen} is not within 1 to 262144")
        self.snaplen = snaplen
        self.max_bytes = max_bytes
        self.written = 0  # packets in the file
        self.skipped = 0  # packets that came after the file was full
        self.size = _FILE_HEADER.size  # bytes
        self._file = open(path, "wb", buffering=_BUFFER)  # noqa: SIM115 (closed by close())
        self._file.write(_FILE_HEADER.pack(_MAGIC, 2, 4, 0, 0, snaplen, LINKTYPE_RAW))

    def write(self, timestamp_us: int, *parts: BytesLike) -> None:
        """Add one IP packet, given in parts. `timestamp_us`: microseconds since 1970."""
        packet = parts[0] if len(parts) == 1 else b"".join(parts)
        kept = min(len(packet), self.snaplen)
        size = self.size + _RECORD_HEADER.size + kept
        if self.skipped or (self.max_bytes is not None and size > self.max_bytes):
            self.skipped += 1
            return
        seconds, microseconds = divmod(timestamp_us, _US_PER_SECOND)
        self._file.write(_RECORD_HEADER.pack(seconds, microseconds, kept, len(packet)))
        self._file.write(packet if kept == len(packet) else packet[:kept])
        self.size = size
        self.written += 1

    def flush(self) -> None:
        """Make what was written so far visible to readers."""
        self._file.flush()

    def close(self) -> None:
        """Flush and close. May be called twice."""
        self._file.close()
