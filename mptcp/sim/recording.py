"""Captures: packets as hosts or links see them, into a pcapng file or a bounded memory.

Time stamps are virtual, so the same scenario and seed give the same bytes. A `Recorder` may be
attached to any number of hosts and directions; each place is an interface of the file.
"""

from __future__ import annotations

from collections import deque
from typing import BinaryIO, Protocol

from mptcp.sim.direction import Direction, Seen
from mptcp.sim.host import SimHost
from mptcp.tun.pcapng import PcapngWriter


class Recorder(Protocol):
    """Somewhere packets can be put."""

    def place(self, name: str) -> Seen:
        """What to call with the packets of a place."""


class FileRecorder:
    """Writes packets as they come. The file stays the caller's to close."""

    def __init__(self, file: BinaryIO, comment: str = "") -> None:
        self._writer = PcapngWriter(file, comment)

    def place(self, name: str) -> Seen:
        """See `Recorder`."""
        number = self._writer.add_interface(name)
        write = self._writer.write

        def seen(now: int, packet: bytes, leaving: bool) -> None:
            write(number, now, packet, leaving)

        return seen


class MemoryRecorder:
    """Keeps the newest packets, to be written when something has gone wrong."""

    def __init__(self, packets: int = 100_000) -> None:
        self._packets: deque[tuple[int, int, bytes, bool]] = deque(maxlen=packets)
        self._names: list[str] = []

    def place(self, name: str) -> Seen:
        """See `Recorder`."""
        number = len(self._names)
        self._names.append(name)
        keep = self._packets.append

        def seen(now: int, packet: bytes, leaving: bool) -> None:
            keep((number, now, packet, leaving))

        return seen

    def write(self, file: BinaryIO, comment: str = "") -> int:
        """Write what is kept; the number of packets."""
        writer = PcapngWriter(file, comment)
        for name in self._names:
            writer.add_interface(name)
        for packet in self._packets:
            writer.write(*packet)
        return len(self._packets)


def attach(recorder: Recorder, where: SimHost | Direction) -> None:
    """Record what a host sends and gets, or what enters and leaves a link.

    A link is two places: what is in the first and not in the second was lost on the way.
    """
    if isinstance(where, SimHost):
        where.on_packet = _both(where.on_packet, recorder.place(where.name))
    else:
        where.on_entry = _both(where.on_entry, recorder.place(f"{where.name} in"))
        where.on_exit = _both(where.on_exit, recorder.place(f"{where.name} out"))


def _both(first: Seen | None, second: Seen) -> Seen:
    """Tell two."""
    if first is None:
        return second
    other = first

    def seen(now: int, packet: bytes, leaving: bool) -> None:
        other(now, packet, leaving)
        second(now, packet, leaving)

    return seen
