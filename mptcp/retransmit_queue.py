"""The retransmit queue of thesis §4.3.6, figure 4.9: what is to be sent again on another subflow.

It stands above the scheduler and ahead of the shared send queue. An item is a stretch of data: a
whole chunk that its subflow failed to deliver (`offer`), or a piece of one (`offer_piece`). The
subflow that sent it first goes on repairing its own sequence space by itself (RFC 8684 §3.3.6); an
item is for the others only.

Invariants
  * Items are in the order of the DSNs at which they began.
  * A subflow is given nothing that it has carried, and an item with a `target` goes there only.
  * A chunk is in the queue once (`DataChunk.reinjecting`).
"""

from __future__ import annotations

from bisect import insort
from operator import attrgetter
from typing import TYPE_CHECKING

from mptcp.tcp.chunks import split_parts

if TYPE_CHECKING:
    from mptcp.subflow import Subflow

_dsn = attrgetter("dsn")


class DataChunk:
    """A stretch of the B part of the send queue: given to a subflow and not yet DATA_ACKed."""

    __slots__ = ("carriers", "dsn", "end", "parts", "reinjecting")

    def __init__(self, dsn: int, end: int, parts: list[memoryview], carrier: Subflow) -> None:
        self.dsn = dsn
        self.end = end
        self.parts = parts
        self.carriers: list[Subflow] = [carrier]
        """Live subflows that it was sent on: the thesis's path_bitmap."""
        self.reinjecting = False


class Reinjection:
    """What is left to send again of a stretch, on a subflow that has not carried it."""

    __slots__ = ("carriers", "chunk", "dsn", "end", "parts", "source", "takers", "target")

    def __init__(
        self,
        dsn: int,
        end: int,
        parts: list[memoryview],
        carriers: list[Subflow],
        chunk: DataChunk | None,
        target: Subflow | None,
        source: Subflow | None,
    ) -> None:
        self.dsn = dsn
        self.end = end
        self.parts = parts
        self.carriers = carriers
        self.chunk = chunk
        """The whole chunk that this is; None for a piece."""
        self.target = target
        """The only subflow that may take it; None: any that has not carried it."""
        self.source = source
        """The subflow that failed to deliver it, if its answer would make this needless."""
        self.takers: list[Subflow] = []
        """Subflows that have taken a part; carriers of the chunk once the last part is taken."""

    def may_take(self, subflow: Subflow) -> bool:
        """Whether it is for that one."""
        return (self.target is None or self.target is subflow) and subflow not in self.carriers


class RetransmitQueue:
    """One for each connection, within its `DataSender`."""

    __slots__ = ("items", "nothing_for", "taken_bytes", "una")

    def __init__(self) -> None:
        self.items: list[Reinjection] = []
        self.nothing_for: set[Subflow] = set()
        """Subflows for which there is nothing, until something is offered: each packet asks."""
        self.taken_bytes = 0
        """Bytes that went again so far."""
        self.una = 0
        """The lowest DSN not DATA_ACKed."""

    def acknowledge(self, data_ack: int) -> None:
        """Everything below `data_ack` has arrived."""
        self.una = data_ack
        items = self.items
        count = 0
        for item in items:
            if item.end > data_ack:
                break
            if item.chunk is not None:
                item.chunk.reinjecting = False
            count += 1
        if count:
            del items[:count]

    def offer(
        self, chunk: DataChunk, target: Subflow | None = None, source: Subflow | None = None
    ) -> None:
        """Queue a whole chunk, for `target` or for whoever may; as it is when it is here already,
        but then it is no subflow's in particular."""
        self.nothing_for.clear()
        if chunk.reinjecting:
            if target is None:
                self._free(chunk)
        elif chunk.end > self.una:
            chunk.reinjecting = True
            item = Reinjection(
                chunk.dsn, chunk.end, chunk.parts, chunk.carriers, chunk, target, source
            )
            insort(self.items, item, key=_dsn)

    def offer_piece(
        self,
        dsn: int,
        parts: list[memoryview],
        carrier: Subflow,
        target: Subflow | None = None,
    ) -> None:
        """Queue a piece that starts at `dsn`, which `carrier` has sent and goes on repairing."""
        end = dsn + sum(map(len, parts))
        if end > self.una:
            self.nothing_for.clear()
            insort(
                self.items,
                Reinjection(dsn, end, parts, [carrier], None, target, None),
                key=_dsn,
            )

    def _free(self, chunk: DataChunk) -> None:
        for item in self.items:
            if item.chunk is chunk:
                item.target = None
                item.source = None

    def first_for(self, subflow: Subflow) -> Reinjection | None:
        """The first stretch waiting that `subflow` may take."""
        if subflow in self.nothing_for:
            return None
        for item in self.items:
            if item.end > self.una and item.may_take(subflow):
                return item
        self.nothing_for.add(subflow)
        return None

    def take(
        self, item: Reinjection, subflow: Subflow, size: int
    ) -> tuple[list[memoryview], int, int]:
        """Give up to `size` bytes of `item` to `subflow`: (parts, dsn, length)."""
        dsn = item.dsn
        if dsn < self.una:  # part of it has arrived meanwhile
            _, item.parts = split_parts(item.parts, self.una - dsn)
            dsn = self.una
        length = min(size, item.end - dsn)
        parts, rest = split_parts(item.parts, length)
        if subflow not in item.takers:
            item.takers.append(subflow)
        if rest:
            item.parts = rest
            item.dsn = dsn + length
        else:
            self._remove(item)
            if item.chunk is not None:
                carriers = item.carriers
                carriers += [taker for taker in item.takers if taker not in carriers]
        self.taken_bytes += length
        return parts, dsn, length

    def _remove(self, item: Reinjection) -> None:
        self.items.remove(item)
        if item.chunk is not None:
            item.chunk.reinjecting = False

    def withdraw(self, source: Subflow) -> None:
        """`source` answers after all: what waits because of its silence is not needed.

        Of what was taken in part the rest is left to `source`, which has carried all of it.
        """
        for item in [item for item in self.items if item.source is source]:
            self._remove(item)

    def release(self, target: Subflow) -> None:
        """`target` has timed out: what was for it alone is for any."""
        self.nothing_for.clear()
        for item in self.items:
            if item.target is target:
                item.target = None

    def forget(self, subflow: Subflow) -> None:
        """A subflow has ended: the parts that it took of a chunk are to go again, with all of the
        chunk; it will not be taken for a carrier, and what was for it alone is for any."""
        self.nothing_for.clear()
        for item in self.items:
            if item.source is subflow:
                item.source = None
            if item.target is subflow:
                item.target = None
            if subflow in item.takers:
                item.takers.remove(subflow)
                if item.chunk is not None:
                    item.dsn = item.chunk.dsn
                    item.parts = item.chunk.parts

    def clear(self) -> None:
        """Forget everything."""
        for item in self.items:
            if item.chunk is not None:
                item.chunk.reinjecting = False
        self.items.clear()
