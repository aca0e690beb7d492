"""Sending in another order than the queue's: stretches ahead of it, and stretches on every subflow.

`Ahead` remembers what was taken from the middle of portion A of the send queue, for a path on which
it arrives later than what comes before it (thesis §4.3.6, fig. 4.8). `Copies` remembers how far
each subflow has come with the data of the connection when all of them carry all of it.

Invariants
  * The stretches of `Ahead` lie beyond `tx.nxt`, in order, apart from each other and from `tx.nxt`;
    what lies between them is in `tx.queue`, in the same order.
  * `tx.chunks` stays in the order of data sequence numbers.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from mptcp.tcp.chunks import split_parts

if TYPE_CHECKING:
    from mptcp.data_queues import DataSender
    from mptcp.retransmit_queue import DataChunk
    from mptcp.subflow import Subflow

_dsn: Final = attrgetter("dsn")


class Ahead:
    """Data sent before what precedes it in the data sequence space."""

    __slots__ = ("size", "stretches")

    def __init__(self) -> None:
        self.stretches: list[tuple[int, int]] = []
        """(first DSN, DSN after the last)."""
        self.size = 0
        """Bytes in them."""

    def __bool__(self) -> bool:
        return bool(self.stretches)

    def clear(self) -> None:
        """Forget them."""
        self.stretches.clear()
        self.size = 0

    def place(self, nxt: int, skip: int) -> tuple[int, int]:
        """Where the unsent byte number `skip` (from 0) lies, and how many unsent ones follow in a
        row, itself included, before a stretch that was sent."""
        dsn = nxt + skip
        for start, end in self.stretches:
            if dsn < start:
                return dsn, start - dsn
            dsn += end - start
        return dsn, 1 << 62

    def add(self, dsn: int, end: int) -> None:
        """[dsn, end) was sent; it touches at most the stretch before and the one after."""
        self.size += end - dsn
        stretches = self.stretches
        index = bisect_right(stretches, (dsn, end))
        if index < len(stretches) and stretches[index][0] == end:
            end = stretches.pop(index)[1]
        if index and stretches[index - 1][1] == dsn:
            index -= 1
            dsn = stretches.pop(index)[0]
        stretches.insert(index, (dsn, end))

    def pass_by(self, nxt: int) -> int:
        """The next unsent DSN once everything before `nxt` is sent."""
        stretches = self.stretches
        if stretches and stretches[0][0] == nxt:
            start, nxt = stretches.pop(0)
            self.size -= nxt - start
        return nxt


def take_ahead(tx: DataSender, skip: int, limit: int) -> tuple[list[memoryview], int]:
    """Take up to `limit` bytes out of portion A, behind its first `skip` bytes: (parts, DSN).

    No parts when the peer's window ends before them, or the queue does.
    """
    dsn, run = tx.ahead.place(tx.nxt, skip)
    limit = min(limit, run, tx.wnd_end - dsn, tx.queued - skip)
    if limit <= 0:
        return [], dsn
    before = tx.take(skip)
    parts = tx.take(limit)
    tx.queue.extendleft(reversed(before))
    tx.queued += skip
    tx.ahead.add(dsn, dsn + limit)
    return parts, dsn


def enter(tx: DataSender, chunk: DataChunk) -> None:
    """A chunk goes into portion B, where its number says."""
    chunks = tx.chunks
    if chunks and chunks[-1].dsn > chunk.dsn:
        insort(chunks, chunk, key=_dsn)
    else:
        chunks.append(chunk)


class Copies:
    """How far each subflow has come, when all of them carry all of the data."""

    __slots__ = ("cursors",)

    def __init__(self) -> None:
        self.cursors: dict[Subflow, int] = {}
        """Subflow -> the DSN after what it has sent."""

    def waiting(self, tx: DataSender, subflow: Subflow) -> int:
        """Bytes that others have sent, this one has not, and the peer has not acknowledged."""
        chunks = tx.chunks
        if not chunks:
            return 0
        return max(0, chunks[-1].end - max(self.cursors.get(subflow, 0), tx.una))

    def take(
        self, tx: DataSender, subflow: Subflow, limit: int
    ) -> tuple[list[memoryview], int, int] | None:
        """Up to `limit` of those bytes: (parts, DSN, length). None when there are none."""
        chunks = tx.chunks
        dsn = max(self.cursors.get(subflow, 0), tx.una)
        parts: list[memoryview] = []
        first = dsn
        index = max(0, bisect_right(chunks, dsn, key=_dsn) - 1)
        while index < len(chunks) and dsn - first < limit:
            chunk = chunks[index]
            index += 1
            if subflow in chunk.carriers or chunk.end <= dsn:
                if parts:
                    break
                first = dsn = max(dsn, chunk.end)
                continue
            _, rest = split_parts(chunk.parts, dsn - chunk.dsn)
            piece, left = split_parts(rest, limit - (dsn - first))
            parts += piece
            dsn += sum(map(len, piece))
            if not left:
                chunk.carriers.append(subflow)
        self.cursors[subflow] = dsn
        return (parts, first, dsn - first) if parts else None
