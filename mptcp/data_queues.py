"""The two halves of a connection's data sequence space: what is to be sent, what has been received.

Data sequence numbers are unbounded integers congruent to the wire's modulo 2^64 (`wire.seq`); a
connection that has fallen back to TCP counts on in the same space, without telling anyone.

`DataSender` holds thesis §4.3.6's shared send queue (figure 4.7) in its two portions: A, never
given to a subflow (`queue`), and B, sent and kept until it is DATA_ACKed (`chunks`). Subflows pull
from the bottom of A; what one failed to deliver the others find in the retransmit queue
(`retransmit`, figure 4.9), which goes ahead of A.

`DataReceiver` holds the data in order that the application has not taken, and the reorder queue.
Its window is one for the whole connection, anchored at DATA_ACK (RFC 8684 §3.3.1; per-subflow
windows can deadlock: thesis §4.3.5).
"""

from __future__ import annotations

from collections import deque
from typing import Final

from mptcp.reorder import ReorderQueue
from mptcp.reorder_shortcuts import Aggreg
from mptcp.retransmit_queue import DataChunk, RetransmitQueue
from mptcp.send_order import Ahead
from mptcp.tcp.memory import FREE, PRESSED_WINDOW, HostMemory
from mptcp.tcp.reassembly import true_size

COALESCE: Final = 4096
"""Writes and segments smaller than this are joined, so that one-byte ones do not cost a view
each."""


class DataSender:
    """Send side of the data sequence space."""

    __slots__ = (
        "ahead",
        "capacity",
        "chunks",
        "host",
        "nxt",
        "queue",
        "queued",
        "reserved",
        "retransmit",
        "una",
        "wnd_end",
    )

    def __init__(self, capacity: int, host: HostMemory | None = None) -> None:
        self.capacity = capacity
        self.host = host or HostMemory()
        self.reserved = FREE
        """Its account there (`tcp.memory`)."""
        self.una = 0  # lowest DSN not DATA_ACKed
        self.nxt = 0  # next DSN to give to a subflow
        self.wnd_end = 0  # largest DATA_ACK + window seen (RFC 8684 §3.3.5: it never shrinks)
        self.queue: deque[memoryview] = deque()
        """Portion A."""
        self.queued = 0
        """Bytes in it."""
        self.chunks: deque[DataChunk] = deque()
        """Portion B, in DSN order."""
        self.retransmit = RetransmitQueue()
        self.ahead = Ahead()
        """What of portion A lies beyond `nxt`."""

    def start(self, idsn: int) -> None:
        """Begin after the IDSN, which is the octet of the SYN (RFC 8684 §3.1)."""
        self.una = self.nxt = idsn + 1
        self.wnd_end = self.una
        self.retransmit.una = self.una

    @property
    def used(self) -> int:
        """Bytes the application has written and the peer has not acknowledged."""
        return self.nxt - self.una + self.queued + self.ahead.size

    def room(self) -> int:
        """Bytes `write` would take."""
        capacity = self.capacity
        if self.host.full:
            self.host.look()
            capacity = min(capacity, FREE) if self.host.full else capacity
        return max(0, capacity - self.used)

    def writable(self) -> bool:
        """Whether to wake a program that waits for room.

        A third is free (Linux's `sk_stream_is_writeable`), or subflows that could send find nothing
        in portion A while what a slow one carries keeps B large.
        """
        free = self.capacity - self.used
        return free * 3 >= self.capacity or (not self.queued and free * 8 >= self.capacity)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Queue as much of `data` as fits; returns the bytes taken.

        An immutable `bytes` is kept by reference, anything else is copied.
        """
        size = min(len(data), self.room())
        if size <= 0:
            return 0
        if size <= COALESCE and self.queue and len(self.queue[-1]) + size <= COALESCE:
            self.queue[-1] = memoryview(b"".join((self.queue[-1], memoryview(data)[:size])))
        else:
            whole = data if isinstance(data, bytes) else bytes(memoryview(data)[:size])
            self.queue.append(memoryview(whole)[:size])
        self.queued += size
        if self.used > self.reserved:
            self.reserved = self.host.reserve(self.reserved, self.used)
        return size

    def peek(self, size: int) -> list[memoryview]:
        """Up to `size` bytes from the bottom of portion A, left there."""
        parts: list[memoryview] = []
        for view in self.queue:
            if size <= 0:
                break
            parts.append(view[:size])
            size -= len(view)
        return parts

    def take(self, size: int) -> list[memoryview]:
        """Remove up to `size` bytes from the bottom of portion A."""
        parts: list[memoryview] = []
        queue = self.queue
        while size > 0 and queue:
            view = queue[0]
            if len(view) <= size:
                parts.append(queue.popleft())
                size -= len(view)
                self.queued -= len(view)
            else:
                parts.append(view[:size])
                queue[0] = view[size:]
                self.queued -= size
                size = 0
        return parts

    def acknowledge(self, data_ack: int) -> None:
        """Everything below `data_ack` has arrived."""
        self.una = data_ack
        chunks = self.chunks
        while chunks and chunks[0].end <= data_ack:
            chunks.popleft()
        self.retransmit.acknowledge(data_ack)

    def clear(self) -> None:
        """Forget everything (the connection ends)."""
        self.queue.clear()
        self.chunks.clear()
        self.retransmit.clear()
        self.ahead.clear()
        self.queued = 0


WINDOW_STEP: Final = 1460
"""A full-sized segment of most paths."""


class DataReceiver:
    """Receive side of the data sequence space."""

    __slots__ = (
        "adv",
        "buffer",
        "fin_dsn",
        "host",
        "mapped",
        "memory",
        "nxt",
        "queue",
        "reorder",
        "reserved",
        "step",
        "unread",
    )

    def __init__(
        self, buffer: int, reorder: ReorderQueue | None = None, host: HostMemory | None = None
    ) -> None:
        self.buffer = buffer
        self.host = host or HostMemory()
        self.reserved = FREE
        """Its account there (`tcp.memory`)."""
        self.step = min(buffer // 2, WINDOW_STEP)
        """The window moves on by at least so much (RFC 9293 §3.8.6.2.2, silly windows)."""
        self.nxt = 0  # next DSN expected: what DATA_ACK says
        self.adv = 0  # right edge of the window promised
        self.queue: deque[memoryview] = deque()
        self.unread = 0
        self.memory = 0
        """Bytes kept alive by `queue`, buffers and bookkeeping included."""
        self.mapped = 0
        """Bytes kept alive by the mappings of the subflows (`mapping.RxMappings`)."""
        self.reorder = reorder if reorder is not None else Aggreg()
        self.fin_dsn: int | None = None

    def start(self, idsn: int) -> None:
        """The peer's IDSN is known: its first byte has the DSN after it.

        A window promised before is counted on from there.
        """
        shift = idsn + 1 - self.nxt
        self.nxt += shift
        self.adv += shift

    def window(self) -> int:
        """Bytes the peer may send beyond `nxt` now; moves the promised edge, never back."""
        free = self.buffer - self.unread
        held = self.memory + self.reorder.memory + self.mapped
        if held > self.reserved:
            self.reserved = self.host.reserve(self.reserved, held)
        if self.host.pressed:
            self.host.look()
            if self.host.pressed:
                free = min(free, PRESSED_WINDOW - self.unread)
        # What is charged beyond twice the buffer shrinks the offer: small segments pin more than
        # they carry (Linux's sk_rmem_alloc against sk_rcvbuf does the same).
        spare = (2 * self.buffer - held) // 2
        edge = self.nxt + max(0, min(free, spare))
        if edge - self.adv >= self.step:
            self.adv = edge
        # Linux may have sent beyond the edge (`receiving.on_data` says why): then there is no room.
        return max(0, self.adv - self.nxt)

    def append(self, view: memoryview) -> None:
        """In-order data for the application; `nxt` moves with it."""
        size = len(view)
        self.nxt += size
        self.unread += size
        queue = self.queue
        if size < COALESCE and queue and len(queue[-1]) + size <= COALESCE:
            self.memory -= true_size(queue[-1])
            queue[-1] = memoryview(b"".join((queue[-1], view)))
            self.memory += true_size(queue[-1])
        else:
            charge = true_size(view)
            if charge > 2 * size + COALESCE:
                # The end of what was repeated for the most part: do not keep all of it alive.
                view = memoryview(bytes(view))
                charge = true_size(view)
            queue.append(view)
            self.memory += charge

    def take(self, limit: int) -> list[memoryview]:
        """Remove up to `limit` bytes for the application."""
        parts: list[memoryview] = []
        queue = self.queue
        while limit > 0 and queue:
            view = queue[0]
            if len(view) <= limit:
                queue.popleft()
                self.memory -= true_size(view)
                parts.append(view)
                limit -= len(view)
                self.unread -= len(view)
            else:
                parts.append(view[:limit])
                queue[0] = view[limit:]
                self.unread -= limit
                limit = 0
        return parts

    def clear(self) -> None:
        """Forget what the application will not take any more."""
        self.queue.clear()
        self.unread = 0
        self.memory = 0
        self.reorder.clear()
