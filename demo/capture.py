"""Reads from a host's capture how much of the file a full packet carries.

The truth about headers is on the wire: options differ with the sender and its settings. Only the
head of the capture is read.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_FILE_HEADER: Final = 24
_RECORD: Final = struct.Struct("=IIII")
_PACKETS: Final = 20_000
_TCP: Final = 6


def packets(path: Path) -> Iterator[bytes]:
    """The IP packets of a capture by `mptcp.tun.pcap`. Raises OSError."""
    with open(path, "rb") as file:
        file.seek(_FILE_HEADER)
        while len(head := file.read(_RECORD.size)) == _RECORD.size:
            packet = file.read(_RECORD.unpack(head)[2])
            yield packet


def payload_per_packet(path: Path, source_prefix: bytes, mtu: int) -> tuple[int, int] | None:
    """(payload, packet) bytes of the packets that carry most of the data, None without any.

    Counts IPv4 packets of at most `mtu` bytes whose source address starts with `source_prefix`.
    """
    carried: Counter[tuple[int, int]] = Counter()
    for count, packet in enumerate(packets(path)):
        if count >= _PACKETS:
            break
        size = len(packet)
        if size > mtu or size < 40 or packet[0] >> 4 != 4 or packet[9] != _TCP:
            continue
        if not packet.startswith(source_prefix, 12):
            continue
        header = 4 * (packet[0] & 15)
        payload = size - header - 4 * (packet[header + 12] >> 4)
        if payload > 0:
            carried[payload, size] += payload
    return carried.most_common(1)[0][0] if carried else None
