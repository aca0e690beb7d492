"""Segments that arrived before their turn, at the subflow level (RFC 9293 §3.10.7.4).

Invariants: entries are disjoint, sorted, all above RCV.NXT; where bytes arrive twice the first copy
is kept. `memory` charges what an entry really pins: the whole buffer its view belongs to. Bounded
by the caller through `memory` and `len()`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final

from mptcp.tcp.ranges import RangeSet

ENTRY_OVERHEAD: Final = 256
"""Bytes of bookkeeping charged for each view held (memoryview, list slots), measured roughly."""


def true_size(view: memoryview) -> int:
    """The memory a view keeps alive: its whole underlying buffer and the bookkeeping."""
    base = view.obj
    return (len(base) if base is not None else len(view)) + ENTRY_OVERHEAD  # type: ignore[arg-type]


class Reassembly:
    """Out-of-order segments of one subflow, and the SACK blocks that report them."""

    __slots__ = ("memory", "ranges", "recent", "starts", "views")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.views: list[memoryview] = []
        self.ranges = RangeSet()
        self.recent: list[int] = []
        """A byte of each block, most recently changed first (RFC 2018 §4)."""
        self.memory = 0

    def __len__(self) -> int:
        return len(self.starts)

    def insert(self, seq: int, view: memoryview) -> None:
        """Keep the bytes of [seq, seq + len) that are not here yet."""
        end = seq + len(view)
        for start, stop in self.ranges.missing(seq, end):
            piece = view[start - seq : stop - seq]
            index = bisect_left(self.starts, start)
            self.starts.insert(index, start)
            self.views.insert(index, piece)
            self.memory += true_size(piece)
        block_start, _ = self.ranges.add(seq, end)
        # RFC 2018 §4: the first block reports the segment that triggered the ACK.
        recent = self.recent
        recent[:] = [
            byte
            for byte in recent
            if (block := self.ranges.containing(byte)) is not None and block[0] != block_start
        ]
        recent.insert(0, seq)
        del recent[8:]

    def overlap(self, start: int, end: int) -> tuple[int, int]:
        """The first part of [start, end) that is here already; (start, start) when none is."""
        ranges = self.ranges
        index = bisect_right(ranges.ends, start)
        if index < len(ranges.starts) and ranges.starts[index] < end:
            return max(ranges.starts[index], start), min(ranges.ends[index], end)
        return start, start

    def pop_ready(self, rcv_nxt: int) -> list[memoryview]:
        """Remove and return the views that continue at `rcv_nxt`, in order."""
        ready: list[memoryview] = []
        count = 0
        for start, view in zip(self.starts, self.views, strict=True):
            end = start + len(view)
            if start > rcv_nxt:
                break
            count += 1
            self.memory -= true_size(view)
            if end > rcv_nxt:
                ready.append(view[rcv_nxt - start :])
                rcv_nxt = end
        if count:
            del self.starts[:count]
            del self.views[:count]
            self.ranges.drop_below(rcv_nxt)
        return ready

    def sack_blocks(self, limit: int) -> list[tuple[int, int]]:
        """Up to `limit` blocks, the most recently changed first."""
        blocks: list[tuple[int, int]] = []
        for byte in self.recent:
            block = self.ranges.containing(byte)
            if block is not None and block not in blocks:
                blocks.append(block)
                if len(blocks) == limit:
                    break
        return blocks

    def clear(self) -> None:
        """Forget everything (the connection ends)."""
        self.starts.clear()
        self.views.clear()
        self.ranges.clear()
        self.recent.clear()
        self.memory = 0
