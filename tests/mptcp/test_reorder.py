"""The connection-level reorder queue and the mappings against models too simple to be wrong."""

from __future__ import annotations

import gc
import math
import random
import weakref
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcp.config import Config
from mptcp.data_queues import DataReceiver
from mptcp.info import mptcp_info
from mptcp.mapping import MAPPING_OVERHEAD, MAX_MAPPINGS, RxMapping, RxMappings
from mptcp.reorder import MAX_RUNS, LinkedQueue, ReorderQueue, reorder_queues
from mptcp.reorder_shortcuts import Aggreg, Shortcuts
from mptcp.reorder_variants import Leaf, Tree
from tests.transfers import exchange, network, open_programs, payload

KINDS = ("regular", "tree", "shortcuts", "aggreg")

arrivals = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 150), st.integers(1, 40), st.integers(0, 255)),
    max_size=40,
)


def runs(numbers: set[int]) -> int:
    """How many maximal runs a set of integers has."""
    return sum(1 for number in numbers if number - 1 not in numbers)


def shape(queue: LinkedQueue) -> list[tuple[int, int]]:
    """The nodes from head to tail, with the links and the bounds checked."""
    found: list[tuple[int, int]] = []
    node, before = queue.head, None
    while node is not None:
        assert node.alive
        assert node.prev is before
        assert len(node.view) + sum(map(len, node.more or ())) == node.end - node.start
        found.append((node.start, node.end))
        node, before = node.next, node
    assert queue.tail is before
    assert queue.nodes == len(found)
    if found:
        assert (queue.first, queue.last) == (found[0][0], found[-1][1])
    return found


def merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in order, those that touch made one."""
    found: list[tuple[int, int]] = []
    for start, end in spans:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def leaves(leaf: Leaf | None, parent: Leaf | None = None) -> list[Leaf]:
    """The nodes of a tree in order; every height, balance and parent is checked."""
    if leaf is None:
        return []
    assert leaf.parent is parent
    heights = [0 if side is None else side.height for side in (leaf.left, leaf.right)]
    assert abs(heights[0] - heights[1]) <= 1
    assert leaf.height == 1 + max(heights)
    return [*leaves(leaf.left, leaf), leaf, *leaves(leaf.right, leaf)]


def check(queue: LinkedQueue, held: set[int]) -> None:
    """Everything a queue says of itself, against the numbers of the bytes it holds."""
    nodes = shape(queue)
    assert queue.runs == len(merged(nodes)) == runs(held)
    assert bool(queue) == bool(held)
    assert sum(end - start for start, end in nodes) == len(held)
    assert all(a[1] <= b[0] for a, b in pairwise(nodes))
    if queue.aggregate:
        assert nodes == merged(nodes)
    assert queue.memory >= len(held)
    if not held:
        assert queue.memory == 0
    if isinstance(queue, Tree):
        assert [(leaf.start, leaf.end) for leaf in leaves(queue.root)] == nodes


def made(kind: str, limit: int = MAX_RUNS) -> LinkedQueue:
    """A queue by the name that a `Config` has for it."""
    queue = reorder_queues.get(kind)(limit)
    assert isinstance(queue, LinkedQueue)
    return queue


def test_the_table_of_the_thesis() -> None:
    """Thesis table 5.1: which of the three optimisations each kind has; the default has two."""
    assert reorder_queues.names() == sorted(KINDS)
    has = {
        kind: (isinstance(queue, Tree), queue.aggregate, isinstance(queue, Shortcuts))
        for kind, queue in ((kind, made(kind)) for kind in KINDS)
    }
    assert has == {
        "regular": (False, False, False),
        "tree": (True, True, False),
        "shortcuts": (False, False, True),
        "aggreg": (False, True, True),
    }
    assert Config().reorder == "aggreg"


@pytest.mark.parametrize("kind", KINDS)
@given(arrivals, st.lists(st.integers(0, 190), max_size=4).map(sorted))
def test_against_a_dictionary(
    kind: str, steps: list[tuple[int, int, int, int]], advances: list[int]
) -> None:
    """RFC 8684 §3.3.1: the first copy of a byte wins. Order comes out, nodes are the runs or the
    segments, memory is charged and given back."""
    queue = made(kind)
    model: dict[int, int] = {}
    for count, (subflow, start, size, value) in enumerate(steps, 1):
        new = queue.insert(subflow, start, memoryview(bytes([value]) * size))
        fresh = [n for n in range(start, start + size) if n not in model]
        assert new == len(fresh)
        model.update(dict.fromkeys(fresh, value))
        assert queue.hits + queue.misses == count
        check(queue, set(model))
    at = 0
    for step in advances:
        at = max(at, step)
        got = b"".join(queue.pop_ready(at))
        number = at
        while number in model:
            number += 1
        assert got == bytes(model[n] for n in range(at, number))
        at = number
        model = {n: v for n, v in model.items() if n > at}
        check(queue, set(model))


moves = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 4), st.integers(0, 90), st.integers(1, 30)),
        st.integers(0, 25),  # how far the application gets, or a hole is filled
    ),
    max_size=80,
)


@given(moves)
def test_all_kinds_are_one(steps: list[tuple[int, int, int] | int]) -> None:
    """Insertions and deliveries in any order: every kind says and gives the same, to the view,
    and what comes out is what the trivial model has (RFC 8684 §3.3.1: the first copy wins)."""
    queues = [made(kind) for kind in KINDS]
    model: dict[int, int] = {}
    nxt = 0
    for count, step in enumerate(steps):
        if isinstance(step, int):
            nxt += step
            given_out = [[bytes(view) for view in queue.pop_ready(nxt)] for queue in queues]
            assert given_out.count(given_out[0]) == len(KINDS)
            out = bytearray()
            while nxt in model:
                out.append(model[nxt])
                nxt += 1
            assert b"".join(given_out[0]) == out
            model = {n: v for n, v in model.items() if n >= nxt}
        else:
            subflow, offset, size = step
            start = nxt + 1 + offset
            data = memoryview(bytes([count]) * size)
            assert len({queue.insert(subflow, start, data) for queue in queues}) == 1
            for number in range(start, start + size):
                model.setdefault(number, count)
        told = {(queue.memory, queue.runs, queue.first, queue.last) for queue in queues}
        assert len(told) == 1
        for queue in queues:
            check(queue, set(model))
    for queue in queues:
        queue.clear()
        check(queue, set())


@pytest.mark.parametrize("kind", ["shortcuts", "aggreg"])
@given(st.integers(1, 6), st.integers(2, 40), st.integers(0, 1 << 16))
def test_a_subflow_that_continues_itself_hits(kind: str, paths: int, each: int, seed: int) -> None:
    """Data in order on each subflow, interleaved across them: all but the first insert hit."""
    queue = made(kind)
    rng = random.Random(seed)
    # Path p carries a stretch of its own, far from the others'.
    places = dict.fromkeys(range(paths), 0)
    while any(count < each for count in places.values()):
        open_paths = [p for p, count in places.items() if count < each]
        path = rng.choice(open_paths)
        start = 10_000 * (path + 1) + 10 * places[path]
        assert queue.insert(path, start, memoryview(b"x" * 10)) == 10
        places[path] += 1
    assert queue.misses == paths
    assert queue.hits == paths * (each - 1)
    assert queue.runs == paths
    assert queue.nodes == (paths if queue.aggregate else paths * each)


@pytest.mark.parametrize("kind", ["shortcuts", "aggreg"])
def test_the_slot_of_a_subflow(kind: str) -> None:
    """Thesis §4.3.5: the shortcut is the slot where the next segment is expected: what comes there
    need not touch what came before. After a delivery the slot is the one before the head."""
    queue = made(kind)
    queue.insert(1, 100, memoryview(b"abc"))
    queue.insert(2, 300, memoryview(b"abc"))
    assert (queue.hits, queue.misses) == (0, 2)
    queue.insert(1, 200, memoryview(b"abc"))  # beyond its own, before the other's
    assert (queue.hits, queue.steps) == (1, 0)
    queue.insert(1, 400, memoryview(b"abc"))  # beyond the other's: the end is everybody's shortcut
    assert (queue.hits, queue.misses, queue.steps) == (2, 2, 0)
    assert b"".join(queue.pop_ready(100)) == b"abc"
    assert b"".join(queue.pop_ready(200)) == b"abc"
    queue.insert(2, 303, memoryview(b"def"))
    assert b"".join(queue.pop_ready(300)) == b"abcdef"
    queue.insert(2, 390, memoryview(b"abc"))  # its node is delivered: before the head
    assert (queue.hits, queue.misses) == (4, 2)
    check(queue, {390, 391, 392, 400, 401, 402})


def test_steps_of_a_search() -> None:
    """How far each kind looks: from the tail, down a tree, or from the nearer of two ends."""
    found = {}
    for kind in KINDS:
        queue = made(kind)
        for number in range(1000):
            queue.insert(1, 10 * number + 10, memoryview(b"x"))
        before = queue.steps
        queue.insert(2, 105, memoryview(b"x"))  # after the tenth: subflow 2 has no shortcut
        found[kind] = queue.steps - before
        assert queue.runs == 1001
    assert found["regular"] == 990
    assert found["shortcuts"] == found["aggreg"] == 2 * 10
    assert 1 <= found["tree"] <= 15  # 1.44 log2(1000)


@pytest.mark.parametrize("order", ["up", "down", "mixed"])
def test_a_tree_stays_a_tree(order: str) -> None:
    """Whatever the order of arrival, and while the head goes and holes are filled, no search
    passes more than 1.44 log2(n + 2) nodes."""
    queue = Tree()
    numbers = list(range(1, 2001))
    if order == "down":
        numbers.reverse()
    elif order == "mixed":
        random.Random(5).shuffle(numbers)
    held: set[int] = set()
    for number in numbers:
        before = queue.steps
        queue.insert(1, 2 * number, memoryview(b"x"))
        assert queue.steps - before <= 1.4405 * math.log2(len(held) + 3)
        held.add(2 * number)
    check(queue, held)
    for number in random.Random(6).sample(range(1, 2000), 1500):
        queue.insert(2, 2 * number + 1, memoryview(b"y"))  # two nodes become one
        held.add(2 * number + 1)
        if number % 50 == 0:
            check(queue, held)
            lowest = min(held)
            while lowest in held:
                held.remove(lowest)
                lowest += 1
            queue.pop_ready(min(queue.first, lowest))
            check(queue, held)


@pytest.mark.parametrize("kind", ["tree", "aggreg"])
def test_holes_filled_backwards(kind: str) -> None:
    """Nodes that become one: the smaller goes into the larger, so that filling holes from the end
    costs no more than from the start, and a shortcut finds what has become of its node."""
    queue = made(kind)
    for number in range(64):
        queue.insert(number, 20 * number, memoryview(b"x" * 10))
    for number in reversed(range(63)):
        queue.insert(99, 20 * number + 10, memoryview(b"y" * 10))
    assert queue.runs == 1
    if isinstance(queue, Aggreg):
        for number in range(64):
            node, hops = queue.shortcuts[number].node, 0
            assert node is not None
            while node.into is not None:
                node, hops = node.into, hops + 1
            assert node is queue.head
            assert hops <= 7
    hits = queue.hits
    for number in range(64):
        queue.insert(number, 1270 + number, memoryview(b"z"))
    # Each by its own, though the nodes they knew are gone.
    assert queue.hits - hits == (64 if kind == "aggreg" else 0)
    assert b"".join(queue.pop_ready(0)) == (b"x" * 10 + b"y" * 10) * 63 + b"x" * 10 + b"z" * 64
    check(queue, set())


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_delivered_is_let_go(kind: str) -> None:
    """A subflow that stands still has a shortcut to a node that is gone: neither that one's data
    nor the data of its neighbours of then stays alive by it, for nobody is charged for it."""
    queue = made(kind)
    seen = []
    queue.insert(1, 10, memoryview(b"old"))
    nxt = 10
    for number in range(20):
        view = memoryview(bytes([number]) * 10)
        seen.append(weakref.ref(view))
        queue.insert(2, 20 + 20 * number, view)
        del view
        queue.insert(3, 40 + 20 * number, memoryview(b"next"))
        queue.pop_ready(nxt)
        nxt = 20 + 20 * number
    queue.pop_ready(nxt)
    gc.collect()
    assert [ref() for ref in seen] == [None] * len(seen)
    queue.insert(1, nxt + 50, memoryview(b"more"))
    queue.clear()
    assert (queue.memory, queue.runs, queue.head) == (0, 0, None)


@pytest.mark.parametrize("kind", KINDS)
def test_limits_are_the_same(kind: str) -> None:
    """Runs are bounded, whatever the nodes are; a run that grows is one still."""
    queue = made(kind, 3)
    for number in range(20):
        assert queue.has_room(1 << 20, memoryview(b"x"))
        queue.insert(1, 10 + number, memoryview(b"x"))
    queue.insert(1, 100, memoryview(b"x"))
    assert queue.has_room(queue.memory + 300, memoryview(b"x"))
    assert not queue.has_room(queue.memory + 1, memoryview(b"x"))
    queue.insert(1, 200, memoryview(b"x"))
    assert not queue.has_room(1 << 20, memoryview(b"x"))


@pytest.mark.parametrize("kind", KINDS)
def test_forgotten_shortcut(kind: str) -> None:
    """A subflow that ends takes its shortcut along; the data stays."""
    queue = made(kind)
    queue.insert(1, 100, memoryview(b"abc"))
    queue.forget(1)
    queue.insert(1, 103, memoryview(b"def"))
    assert queue.misses == 2
    assert b"".join(queue.pop_ready(100)) == b"abcdef"


@pytest.mark.parametrize("kind", KINDS)
def test_shortcut_to_a_node_that_is_gone(kind: str) -> None:
    """A shortcut to a delivered or merged node is not followed."""
    queue = made(kind)
    queue.insert(1, 10, memoryview(b"ab"))
    queue.insert(2, 12, memoryview(b"cd"))
    assert b"".join(queue.pop_ready(10)) == b"abcd"
    queue.insert(1, 12, memoryview(b"xy"))
    assert shape(queue) == [(12, 14)]
    queue.clear()
    queue.insert(1, 14, memoryview(b"z"))
    assert shape(queue) == [(14, 15)]


class Sorted(ReorderQueue):
    """Somebody else's queue: whole segments in a dictionary, the longest of one start."""

    def __init__(self, limit: int = MAX_RUNS) -> None:
        super().__init__(limit)
        self.held: dict[int, int] = {}

    def insert(self, subflow: int, dsn: int, view: memoryview) -> int:
        before = len(self.held)
        for offset, byte in enumerate(view):
            self.held.setdefault(dsn + offset, byte)
        self._count()
        return len(self.held) - before

    def pop_ready(self, rcv_nxt: int) -> list[memoryview]:
        self.held = {number: byte for number, byte in self.held.items() if number >= rcv_nxt}
        ready = bytearray()
        while rcv_nxt in self.held:
            ready.append(self.held.pop(rcv_nxt))
            rcv_nxt += 1
        self._count()
        return [memoryview(bytes(ready))] if ready else []

    def clear(self) -> None:
        self.held.clear()
        self._count()

    def _count(self) -> None:
        self.runs = runs(set(self.held))
        self.memory = len(self.held)
        if self.held:
            self.first, self.last = min(self.held), max(self.held) + 1


@pytest.fixture
def foreign() -> Iterator[str]:
    """The name of `Sorted`, while a test runs."""
    reorder_queues.add("sorted", Sorted)
    yield "sorted"
    reorder_queues.unregister("sorted")


@pytest.mark.parametrize("kind", [*KINDS, "foreign"])
def test_a_transfer_with_each(kind: str, request: pytest.FixtureRequest) -> None:
    """RFC 8684 §3.3: two unlike paths that lose: the stream is whole with any queue,
    also one that came by the registry, and what was counted is told."""
    name = request.getfixturevalue("foreign") if kind == "foreign" else kind
    options = {"reorder": name, "scheduler": "minrtt"}
    sim, a, b, _ = network(4, a=options, b=options, loss=0.02)
    sim.connect(
        *(a, "10.0.9.1/24", b, "10.0.9.2/24"), rate_bps=5_000_000, delay_us=60_000, loss=0.01
    )
    data = payload(60_000 if kind == "foreign" else 300_000)
    client, server = open_programs(a, b, data, b"")
    exchange(sim, client, server, data, b"")
    assert server.connection is not None
    info = mptcp_info(server.connection)
    assert info.reorder == name
    assert (info.reorder_queued, info.reorder_runs) == (0, 0)
    if kind != "foreign":
        assert info.reorder_misses > 0
        assert (info.reorder_hits > 0) == (kind in ("shortcuts", "aggreg"))


@given(st.lists(st.tuples(st.integers(1, 120), st.integers(1, 30)), max_size=30))
def test_mappings(declared: list[tuple[int, int]]) -> None:
    """The first declaration of an SSN holds; a contradiction is told; a repetition is not one."""
    rx = DataReceiver(1 << 20)
    maps = RxMappings(rx)
    model: dict[int, int] = {}
    for number, (ssn, length) in enumerate(declared):
        dsn = 1000 * (number + 1)
        wanted = set(range(ssn, ssn + length))
        taken = maps.add(RxMapping(dsn, ssn, length, length, None), 1)
        if taken:
            assert not wanted & set(model)
            model.update({n: dsn + n - ssn for n in wanted})
            assert maps.add(RxMapping(dsn, ssn, length, length, None), 1)
        else:
            assert wanted & set(model)
        assert rx.mapped == len(maps.maps) * MAPPING_OVERHEAD
    for ssn in range(1, 160):
        found = maps.find(ssn)
        assert (found is not None) == (ssn in model)
        if found is not None:
            assert found.dsn + ssn - found.ssn == model[ssn]
    assert (maps.maps, rx.mapped) == ([], 0)


def test_mappings_are_bounded() -> None:
    """A stranger cannot make us keep mappings without end, nor more of them than the buffer is."""
    for buffer, limit in ((1 << 20, MAX_MAPPINGS), (1 << 16, -(-(1 << 17) // MAPPING_OVERHEAD))):
        maps = RxMappings(DataReceiver(buffer))
        for number in range(1, limit + 10):
            ssn = 1 + 2 * number
            assert maps.add(RxMapping(ssn, ssn, 1, 1, None), 1) == (number <= limit)
        assert maps.full()
        assert maps.add(RxMapping(1, 1, 1, 1, None), 1)  # what is due next is always taken
        assert maps.clear() == []
        assert maps.rx.mapped == 0


def test_late_mappings_are_ignored() -> None:
    """What was delivered needs no mapping any more."""
    maps = RxMappings(DataReceiver(1 << 20))
    assert maps.add(RxMapping(5000, 1, 100, 100, None), 101)
    assert maps.maps == []
