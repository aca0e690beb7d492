"""The connection-level out-of-order queue (thesis §4.3.5): the interface, and what all are made of.

Data arrives in order on each subflow but interleaved across them, so what a subflow brings usually
comes right after what it brought before. Three things can be done about that, each by itself
(thesis table 5.1), and a queue of each of the four kinds is one line of the table:

    regular     a list of segments, searched from its tail as TCP's own queue is
    tree        aggregation, and a balanced tree to search
    shortcuts   a list of segments, and for each subflow the slot after its last one
    aggreg      aggregation and shortcuts: the default

Aggregation keeps a contiguous run of data sequence space as one *node*, however many segments it
was made of. The queues with shortcuts are in `reorder_shortcuts`, the others in `reorder_variants`.

To add a kind: subclass `ReorderQueue`, `reorder_queues.add("name", cls)`, `Config.reorder`.

Invariants
  * Nodes are sorted and disjoint; all lie above RCV.NXT at data level. Aggregated, they do not
    touch each other either.
  * The first copy of a byte is kept (RFC 8684 §3.3.1).
  * `memory` charges the buffers that views keep alive; a node that has left the queue (a shortcut
    may still name it) keeps neither views nor other nodes of the queue.
  * `memory`, `runs`, `first`, `last` and the views that come out are the same for every kind.
"""

from __future__ import annotations

from collections import deque

from mypy_extensions import mypyc_attr

from mptcp.registry import Registry
from mptcp.tcp.reassembly import true_size

MAX_RUNS = 4096
"""The default of `Config.max_reorder_runs`."""


@mypyc_attr(allow_interpreted_subclasses=True)
class ReorderQueue:
    """Out-of-order data of one connection: what every kind of queue can do and tells."""

    __slots__ = ("first", "hits", "last", "limit", "memory", "misses", "nodes", "runs", "steps")

    def __init__(self, limit: int = MAX_RUNS) -> None:
        """At most `limit` contiguous runs."""
        self.limit = limit
        self.runs = 0
        """Contiguous runs of data, with holes between them."""
        self.nodes = 0
        """Elements of the structure: runs or segments."""
        self.first = 0
        """DSN of the first byte, when there is one (`runs`)."""
        self.last = 0
        """DSN after the last byte, when there is one."""
        self.memory = 0
        self.hits = 0
        """Insertions whose place a shortcut named, the subflow's own or another's, or the end of
        the queue: nothing was searched."""
        self.misses = 0
        """The other insertions."""
        self.steps = 0
        """Nodes passed by searches."""

    def __bool__(self) -> bool:
        return self.runs > 0

    def has_room(self, limit: int, view: memoryview) -> bool:
        """Whether `view` may be kept; tiny pieces with holes between them are an attack."""
        return self.runs < self.limit and self.memory + true_size(view) <= limit

    def insert(self, subflow: int, dsn: int, view: memoryview) -> int:
        """Keep the bytes of [dsn, dsn + len) not here yet; returns how many were new.

        `subflow` is any stable number of the subflow that carried them.
        """
        raise NotImplementedError

    def pop_ready(self, rcv_nxt: int) -> list[memoryview]:
        """Remove and return the views that continue at `rcv_nxt`; forget what lies below."""
        raise NotImplementedError

    def forget(self, subflow: int) -> None:
        """A subflow ended: what was kept for it alone goes."""

    def clear(self) -> None:
        """Forget everything (the connection ends); the counts stay."""
        raise NotImplementedError


reorder_queues: Registry[type[ReorderQueue]] = Registry("reorder queue", "mptcp.reorder_queues")


@mypyc_attr(allow_interpreted_subclasses=True)
class Node:
    """A contiguous run [start, end) of data sequence space, as views in order."""

    __slots__ = (
        "alive",
        "charge",
        "end",
        "filed",
        "into",
        "more",
        "next",
        "prev",
        "start",
        "user",
        "view",
    )

    def __init__(self, start: int, view: memoryview) -> None:
        self.start = start
        self.end = start + len(view)
        self.view = view
        """The first view."""
        self.more: deque[memoryview] | None = None
        """Those after it, if any."""
        self.charge = 0
        """The memory of all of them."""
        self.prev: Node | None = None
        self.next: Node | None = None
        self.alive = True
        """It is in the queue."""
        self.into: Node | None = None
        """The node that took this one's data when two became one."""
        self.user: Shortcut | None = None
        """The shortcut that came here last (`reorder_shortcuts`)."""
        self.filed = -1
        """Its key in `Shortcuts.left`, -1: none."""


class Shortcut:
    """What is known of one subflow: where it is, and after whom it came when it last went on."""

    __slots__ = ("after", "node")

    def __init__(self) -> None:
        self.node: Node | None = None
        """Where its last data is; may be gone: merged into another, or delivered."""
        self.after: Shortcut | None = None

    def slot(self) -> Node | None:
        """The node after which the next data is expected; None: before the head, as after what
        has been delivered."""
        node = self.node
        if node is None:
            return None
        into = node.into
        while into is not None:
            node = into
            into = node.into
        self.node = node
        return node if node.alive else None


NOTHING = memoryview(b"")


@mypyc_attr(allow_interpreted_subclasses=True)
class LinkedQueue(ReorderQueue):
    """A doubly linked list of nodes; how a place is found is the subclass's (`_seek`)."""

    __slots__ = ("aggregate", "head", "tail")

    def __init__(self, limit: int = MAX_RUNS, aggregate: bool = False) -> None:
        """`aggregate`: what touches becomes one node; otherwise a node is a segment."""
        super().__init__(limit)
        self.aggregate = aggregate
        self.head: Node | None = None
        self.tail: Node | None = None

    def _seek(self, subflow: int, dsn: int) -> Node | None:
        """The last node that begins at or below `dsn` (None: before the head); counts itself."""
        raise NotImplementedError

    def _settled(self, subflow: int, node: Node) -> None:
        """What `subflow` brought ends in `node`, or was there already."""

    def _make(self, start: int, view: memoryview) -> Node:
        """A new node."""
        return Node(start, view)

    def _linked(self, node: Node) -> None:
        """`node` has come into the list."""

    def _leaving(self, node: Node) -> None:
        """`node` is about to leave the list."""

    def insert(self, subflow: int, dsn: int, view: memoryview) -> int:
        """See `ReorderQueue`."""
        return self._fill(subflow, self._seek(subflow, dsn), dsn, view)

    def _fill(self, subflow: int, node: Node | None, dsn: int, view: memoryview) -> int:
        """`insert`, its place found: put what is new of `view` into the holes from `node` on."""
        end = dsn + len(view)
        start = dsn
        added = 0
        while start < end:
            # `node` is the last one that begins at or below `start` (None: before the head).
            if node is not None and node.end > start:
                start = node.end  # here already: the first copy stays
                continue
            following = self.head if node is None else node.next
            if following is not None and following.start <= start:
                node = following
                continue
            stop = end if following is None else min(end, following.start)
            piece = view if stop - start == len(view) else view[start - dsn : stop - dsn]
            node = self._place(node, following, start, piece)
            added += stop - start
            start = stop
        if self.head is not None and self.tail is not None:
            self.first = self.head.start
            self.last = self.tail.end
        if node is not None:
            self._settled(subflow, node)
        return added

    def _place(
        self, node: Node | None, following: Node | None, start: int, piece: memoryview
    ) -> Node:
        """Put `piece` between `node` and `following`, where nothing is; the node that has it."""
        stop = start + len(piece)
        charge = true_size(piece)
        self.memory += charge
        left = node is not None and node.end == start
        right = following is not None and following.start == stop
        if self.aggregate:
            if left and node is not None:
                append(node, piece, charge)
                return self._merge(node, following) if right and following is not None else node
            if right and following is not None:
                prepend(following, piece, charge)
                return following
        self.runs += 1 - left - right
        fresh = self._make(start, piece)
        fresh.charge = charge
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
        self._linked(fresh)
        return fresh

    def _merge(self, node: Node, following: Node) -> Node:
        """`following` continues `node`: make them one, the one of more views, and return it.

        So each view moves O(log n) times, in whatever order holes are filled, and as many nodes at
        most lie between one that is gone and the one that has its data (`Node.into`).
        """
        self.runs -= 1
        node.charge = following.charge = node.charge + following.charge
        more = node.more
        theirs = following.more
        if theirs is not None and (more is None or len(theirs) > len(more)):
            theirs.appendleft(following.view)
            if more is not None:
                theirs.extendleft(reversed(more))
            following.view = node.view
            following.start = node.start
            self._unlink(node)
            node.into = following
            return following
        if more is None:
            more = node.more = deque()
        more.append(following.view)
        if theirs is not None:
            more.extend(theirs)
        node.end = following.end
        self._unlink(following)
        following.into = node
        return node

    def _unlink(self, node: Node) -> None:
        self._leaving(node)
        if node.prev is not None:
            node.prev.next = node.next
        else:
            self.head = node.next
        if node.next is not None:
            node.next.prev = node.prev
        else:
            self.tail = node.prev
        self.nodes -= 1
        forsake(node)

    def pop_ready(self, rcv_nxt: int) -> list[memoryview]:
        """See `ReorderQueue`."""
        ready: list[memoryview] = []
        node = self.head
        while node is not None and node.start <= rcv_nxt:
            self.memory -= node.charge
            if node.start == rcv_nxt:
                # Not looked at one by one: after so long a wait none is in a cache any more.
                ready.append(node.view)
                if node.more is not None:
                    ready.extend(node.more)
                rcv_nxt = node.end
            elif node.end > rcv_nxt:
                at = node.start
                for view in (node.view, *(node.more or ())):
                    end = at + len(view)
                    if end > rcv_nxt:
                        ready.append(view[max(0, rcv_nxt - at) :])
                    at = end
                rcv_nxt = node.end
            following = node.next
            if following is None or following.start > node.end:
                self.runs -= 1
            self._unlink(node)
            node = following
        if node is not None:
            self.first = node.start
        return ready

    def clear(self) -> None:
        """See `ReorderQueue`."""
        node = self.head
        while node is not None:
            following = node.next
            forsake(node)
            node = following
        self.head = self.tail = None
        self.nodes = self.runs = 0
        self.memory = 0


def append(node: Node, piece: memoryview, charge: int) -> None:
    """`piece` continues `node`."""
    node.charge += charge
    more = node.more
    if more is None:
        node.more = deque((piece,))
    else:
        more.append(piece)
    node.end += len(piece)


def prepend(node: Node, piece: memoryview, charge: int) -> None:
    """`node` continues `piece`."""
    node.charge += charge
    if node.more is None:
        node.more = deque((node.view,))
    else:
        node.more.appendleft(node.view)
    node.view = piece
    node.start -= len(piece)


def forsake(node: Node) -> None:
    """The node is out of the queue: whoever still knows it keeps nothing else alive by it."""
    node.alive = False
    node.view = NOTHING
    node.more = None
    node.prev = node.next = None
    node.user = None
