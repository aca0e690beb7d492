"""The connection-level out-of-order queue: aggregated nodes plus shortcuts (thesis §4.3.5).

Data arrives in order on each subflow but interleaved across them, so what a subflow brings usually
continues what it brought before. The queue is a doubly linked list of *nodes*, each a contiguous
run of data sequence space made of many segments (aggregation), and each subflow keeps a *shortcut*
to the node it extended last. A hit costs O(1); a miss searches from the tail.

Invariants
  * Nodes are sorted, disjoint and not adjacent; all lie above RCV.NXT at data level.
  * The first copy of a byte is kept (RFC 8684 §3.3.1).
  * `memory` charges the buffers that views keep alive.
"""

from __future__ import annotations

from mptcp.tcp.reassembly import true_size

MAX_RUNS = 4096
"""The default of `Config.max_reorder_runs`."""


class Node:
    """A contiguous run [start, end) of data sequence space, as views in order."""

    __slots__ = ("alive", "end", "next", "prev", "start", "views")

    def __init__(self, start: int, view: memoryview) -> None:
        self.start = start
        self.end = start + len(view)
        self.views = [view]
        self.prev: Node | None = None
        self.next: Node | None = None
        self.alive = True


class ReorderQueue:
    """Out-of-order data of one connection."""

    __slots__ = ("head", "hits", "limit", "memory", "misses", "nodes", "shortcuts", "steps", "tail")

    def __init__(self, limit: int = MAX_RUNS) -> None:
        """At most `limit` nodes."""
        self.limit = limit
        self.head: Node | None = None
        self.tail: Node | None = None
        self.nodes = 0
        self.memory = 0
        self.shortcuts: dict[int, Node] = {}
        self.hits = 0
        """Insertions that the subflow's shortcut answered."""
        self.misses = 0
        self.steps = 0
        """Nodes passed by searches."""

    def __bool__(self) -> bool:
        return self.head is not None

    def has_room(self, limit: int, view: memoryview) -> bool:
        """Whether `view` may be kept; tiny pieces with holes between them are an attack."""
        return self.nodes < self.limit and self.memory + true_size(view) <= limit

    def insert(self, subflow: int, dsn: int, view: memoryview) -> int:
        """Keep the bytes of [dsn, dsn + len) not here yet; returns how many were new.

        `subflow` is any stable number of the subflow that carried them.
        """
        end = dsn + len(view)
        node = self.shortcuts.get(subflow)
        if node is not None and node.alive and node.end == dsn:
            self.hits += 1
        else:
            self.misses += 1
            node = self._search(dsn)
        start = dsn
        added = 0
        while start < end:
            # `node` is the last one that begins at or below `start` (None: before the head).
            if node is not None and node.end > start:
                start = node.end
                continue
            following = node.next if node is not None else self.head
            stop = min(end, following.start) if following is not None else end
            if stop > start:
                piece = view[start - dsn : stop - dsn]
                node = self._place(node, start, piece)
                added += stop - start
                start = stop
                following = node.next
            if following is not None and node is not None and node.end == following.start:
                self._merge(node, following)
            elif start < end:
                node = following
        if node is not None:
            self.shortcuts[subflow] = node
        return added

    def _search(self, dsn: int) -> Node | None:
        """The last node that begins at or below `dsn`, from the tail: new data is mostly late."""
        node = self.tail
        while node is not None and node.start > dsn:
            node = node.prev
            self.steps += 1
        return node

    def _place(self, node: Node | None, start: int, piece: memoryview) -> Node:
        """Append `piece` to `node` when it continues it, else link a new node after it."""
        self.memory += true_size(piece)
        if node is not None and node.end == start:
            node.views.append(piece)
            node.end += len(piece)
            return node
        fresh = Node(start, piece)
        following = node.next if node is not None else self.head
        fresh.prev = node
        fresh.next = following
        if node is not None:
            node.next = fresh
        else:
            self.head = fresh
        if following is not None:
            following.prev = fresh
        else:
            self.tail = fresh
        self.nodes += 1
        return fresh

    def _merge(self, node: Node, following: Node) -> None:
        """`following` continues `node`: make them one (aggregation)."""
        node.views.extend(following.views)
        node.end = following.end
        self._unlink(following)

    def _unlink(self, node: Node) -> None:
        if node.prev is not None:
            node.prev.next = node.next
        else:
            self.head = node.next
        if node.next is not None:
            node.next.prev = node.prev
        else:
            self.tail = node.prev
        node.alive = False
        self.nodes -= 1

    def pop_ready(self, rcv_nxt: int) -> list[memoryview]:
        """Remove and return the views that continue at `rcv_nxt`; forget what lies below."""
        ready: list[memoryview] = []
        while self.head is not None and self.head.start <= rcv_nxt:
            node = self.head
            at = node.start
            for view in node.views:
                self.memory -= true_size(view)
                if at + len(view) > rcv_nxt:
                    ready.append(view[max(0, rcv_nxt - at) :])
                at += len(view)
            rcv_nxt = max(rcv_nxt, node.end)
            self._unlink(node)
        return ready

    def forget(self, subflow: int) -> None:
        """A subflow ended: drop its shortcut."""
        self.shortcuts.pop(subflow, None)

    def clear(self) -> None:
        """Forget everything (the connection ends)."""
        node = self.head
        while node is not None:
            node.alive = False
            node = node.next
        self.head = self.tail = None
        self.shortcuts.clear()
        self.nodes = 0
        self.memory = 0
