"""The two reorder queues without shortcuts: `Regular` and `Tree` (thesis §4.3.5, table 5.1).

They are for comparison; `reorder` has the invariants and the others.

`Tree` is an AVL tree beside the list: the heights of a node's two subtrees differ by one at most,
so that a search passes 1.44 log2(nodes) of them. The list finds the neighbours, which in a tree
alone costs a walk of its own (the thesis's complaint), and says where a new node hangs.
"""

from __future__ import annotations

from mptcp.reorder import MAX_RUNS, LinkedQueue, Node, reorder_queues


class Regular(LinkedQueue):
    """A list of segments, searched from the tail.

    That is TCP's own way, whose segments come late at the tail; here the search is as long as what
    the faster subflows have brought meanwhile.
    """

    __slots__ = ()

    def _seek(self, subflow: int, dsn: int) -> Node | None:
        self.misses += 1
        node = self.tail
        steps = 0
        while node is not None and node.start > dsn:
            node = node.prev
            steps += 1
        self.steps += steps
        return node


class Leaf(Node):
    """A node with its place in the tree."""

    __slots__ = ("height", "left", "parent", "right")

    def __init__(self, start: int, view: memoryview) -> None:
        super().__init__(start, view)
        self.left: Leaf | None = None
        self.right: Leaf | None = None
        self.parent: Leaf | None = None
        self.height = 1
        """Levels of the tree from here down."""


class Tree(LinkedQueue):
    """Nodes of contiguous segments in a balanced search tree, without shortcuts."""

    __slots__ = ("root",)

    def __init__(self, limit: int = MAX_RUNS) -> None:
        super().__init__(limit, aggregate=True)
        self.root: Leaf | None = None

    def _seek(self, subflow: int, dsn: int) -> Node | None:
        self.misses += 1
        found: Leaf | None = None
        leaf = self.root
        steps = 0
        while leaf is not None:
            steps += 1
            if leaf.start <= dsn:
                found = leaf
                leaf = leaf.right
            else:
                leaf = leaf.left
        self.steps += steps
        return found

    def _make(self, start: int, view: memoryview) -> Node:
        return Leaf(start, view)

    def _linked(self, node: Node) -> None:
        """Hang it at the free side of a neighbour: one of the two has one."""
        assert isinstance(node, Leaf)
        before, after = node.prev, node.next
        if isinstance(before, Leaf) and before.right is None:
            before.right = node
            node.parent = before
        elif isinstance(after, Leaf):
            after.left = node
            node.parent = after
        else:
            self.root = node
        self._balance(node.parent)

    def _leaving(self, node: Node) -> None:
        assert isinstance(node, Leaf)
        left, right = node.left, node.right
        if left is None or right is None:
            lowest = node.parent
            self._replace(node, left if left is not None else right)
        else:
            # The next one in order takes its place; it has nothing at its left.
            heir = node.next
            assert isinstance(heir, Leaf)
            if heir is right:
                lowest = heir
            else:
                lowest = heir.parent
                self._replace(heir, heir.right)
                heir.right = right
                right.parent = heir
            heir.left = left
            left.parent = heir
            heir.height = node.height
            self._replace(node, heir)
        node.left = node.right = node.parent = None
        self._balance(lowest)

    def clear(self) -> None:
        """See `ReorderQueue`."""
        node = self.head
        while isinstance(node, Leaf):
            node.left = node.right = node.parent = None
            node = node.next
        self.root = None
        super().clear()

    def _replace(self, leaf: Leaf, other: Leaf | None) -> None:
        """`other` hangs where `leaf` did."""
        parent = leaf.parent
        if parent is None:
            self.root = other
        elif parent.left is leaf:
            parent.left = other
        else:
            parent.right = other
        if other is not None:
            other.parent = parent

    def _balance(self, leaf: Leaf | None) -> None:
        """Heights and balance again, from `leaf` up to where nothing changes."""
        while leaf is not None:
            lean = height(leaf.left) - height(leaf.right)
            before = leaf.height
            if lean > 1 and leaf.left is not None:
                if height(leaf.left.left) < height(leaf.left.right):
                    self._rotate_left(leaf.left)
                leaf = self._rotate_right(leaf)
            elif lean < -1 and leaf.right is not None:
                if height(leaf.right.right) < height(leaf.right.left):
                    self._rotate_right(leaf.right)
                leaf = self._rotate_left(leaf)
            else:
                measure(leaf)
            if leaf.height == before:
                return
            leaf = leaf.parent

    def _rotate_left(self, leaf: Leaf) -> Leaf:
        """The right child takes the place of `leaf`, which becomes its left child."""
        riser = leaf.right
        assert riser is not None
        self._replace(leaf, riser)
        leaf.right = riser.left
        if leaf.right is not None:
            leaf.right.parent = leaf
        riser.left = leaf
        leaf.parent = riser
        measure(leaf)
        measure(riser)
        return riser

    def _rotate_right(self, leaf: Leaf) -> Leaf:
        """The mirror image."""
        riser = leaf.left
        assert riser is not None
        self._replace(leaf, riser)
        leaf.left = riser.right
        if leaf.left is not None:
            leaf.left.parent = leaf
        riser.right = leaf
        leaf.parent = riser
        measure(leaf)
        measure(riser)
        return riser


def height(leaf: Leaf | None) -> int:
    """Levels of a subtree that may be empty."""
    return 0 if leaf is None else leaf.height


def measure(leaf: Leaf) -> None:
    """The height of `leaf` from those of its children."""
    leaf.height = 1 + max(height(leaf.left), height(leaf.right))


reorder_queues.add("regular", Regular)
reorder_queues.add("tree", Tree)
