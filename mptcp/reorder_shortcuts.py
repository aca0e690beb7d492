"""The two reorder queues with shortcuts: `Shortcuts` and `Aggreg`, the default (thesis §4.3.5).

A shortcut that names the right place costs O(1), whatever is queued; otherwise the search goes from
the subflow's own place (or from the head) towards the tail and from the tail towards it at once,
and ends at the nearer. `reorder` has the invariants.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from mptcp.reorder import MAX_RUNS, LinkedQueue, Node, Shortcut, reorder_queues
from mptcp.tcp.reassembly import true_size

TURNS: Final = 8
"""How many of the subflows that came before one another are asked for the place of the next."""


class Shortcuts(LinkedQueue):
    """A list, and for each subflow the node after which its next data is expected.

    A subflow mostly goes on in one of three places, each named and checked by two comparisons (a
    hit). It continues what it brought, or jumps a hole that another has yet to fill: the slot after
    its own last data. Else it continues the run of another that has gone on from there,
    being faster: `left` knows these by the DSN where they end. Or its path has its turn after some
    other one of like delay: after the one it followed the last time, or that one's own predecessor.
    Beside these the end of the queue is everybody's shortcut, as it is in TCP's own.

    Linux's MPTCP of the thesis's authors tries the shortcuts of all subflows (mptcp_ofo_queue.c),
    which is no longer cheap for 64 of them.
    """

    __slots__ = ("left", "shortcuts")

    def __init__(self, limit: int = MAX_RUNS, aggregate: bool = False) -> None:
        super().__init__(limit, aggregate)
        self.shortcuts: dict[int, Shortcut] = {}
        self.left: dict[int, Node] = {}
        """Nodes by the DSN at which they end; one key for each node at most."""

    def _seek(self, subflow: int, dsn: int) -> Node | None:
        ahead = self.head
        back = self.tail
        mine = self.shortcuts.get(subflow)
        if mine is not None:
            slot = mine.slot()
            if slot is not None and slot.end != dsn:
                self._file(slot)
            if slot is None or slot.start <= dsn:
                if slot is not None:
                    ahead = slot.next
                if ahead is None or ahead.start > dsn:
                    self.hits += 1
                    return slot
            else:
                back = slot.prev
            named = self._named(mine, dsn)
            if named is not None:
                self.hits += 1
                return named
            tail = self.tail
            if tail is not None and tail.start <= dsn:
                self.hits += 1
                self._follows(mine, tail)
                return tail
        self.misses += 1
        # One step from below, one from above, until either has found it. `ahead` cannot run out:
        # if all from there on begin at or below `dsn`, so does `back`, the last of them.
        steps = 0
        while back is not None and back.start > dsn:
            if ahead is None or ahead.start > dsn:
                back = ahead.prev if ahead is not None else None
                break
            ahead = ahead.next
            back = back.prev
            steps += 2
        self.steps += steps
        self._follows(mine, back)
        return back

    def _follows(self, mine: Shortcut | None, node: Node | None) -> None:
        """The subflow has its turn after whoever brought the end of `node`, and will again."""
        if mine is not None and node is not None and node.user is not mine:
            mine.after = node.user

    def _named(self, mine: Shortcut, dsn: int) -> Node | None:
        """The place of `dsn` by another subflow's shortcut, or by what one has left."""
        node = self.left.get(dsn)
        if node is not None and node.end == dsn:
            following = node.next
            if following is None or following.start > dsn:
                return node
        other = mine.after
        tries = 0
        while other is not None and tries < TURNS:
            node = other.slot()
            if node is not None and node.start <= dsn:
                following = node.next
                if following is None or following.start > dsn:
                    return node
            other = other.after
            tries += 1
        return None

    def _file(self, node: Node) -> None:
        """A subflow goes elsewhere: whoever comes to fill the hole after `node` finds it."""
        if node.filed != node.end:
            if node.filed >= 0:
                self.left.pop(node.filed, None)
            node.filed = node.end
            self.left[node.end] = node

    def _leaving(self, node: Node) -> None:
        if node.filed >= 0:
            self.left.pop(node.filed, None)

    def _settled(self, subflow: int, node: Node) -> None:
        mine = self.shortcuts.get(subflow)
        if mine is None:
            mine = self.shortcuts[subflow] = Shortcut()
        mine.node = node
        node.user = mine

    def forget(self, subflow: int) -> None:
        """See `ReorderQueue`."""
        gone = self.shortcuts.pop(subflow, None)
        if gone is not None:
            gone.node = gone.after = None

    def clear(self) -> None:
        """See `ReorderQueue`."""
        super().clear()
        for shortcut in self.shortcuts.values():
            shortcut.node = shortcut.after = None
        self.shortcuts.clear()
        self.left.clear()


class Aggreg(Shortcuts):
    """Nodes of contiguous segments, and a shortcut for each subflow."""

    __slots__ = ()

    def __init__(self, limit: int = MAX_RUNS) -> None:
        super().__init__(limit, aggregate=True)

    def insert(self, subflow: int, dsn: int, view: memoryview) -> int:
        """See `ReorderQueue`."""
        mine = self.shortcuts.get(subflow)
        node = mine.node if mine is not None else None
        if node is not None and node.end == dsn and node.alive:
            self.hits += 1
        else:
            node = self._seek(subflow, dsn)
        size = len(view)
        end = dsn + size
        if node is None or mine is None or node.end != dsn:
            return self._fill(subflow, node, dsn, view)
        # What nearly always comes: more of a run, below a hole or at the end.
        following = node.next
        if following is None:
            self.last = end
        elif following.start <= end:
            return self._fill(subflow, node, dsn, view)
        charge = true_size(view)
        self.memory += charge
        node.charge += charge
        more = node.more
        if more is None:
            node.more = deque((view,))
        else:
            more.append(view)
        node.end = end
        mine.node = node
        node.user = mine
        return size


reorder_queues.add("shortcuts", Shortcuts)
reorder_queues.add("aggreg", Aggreg)
