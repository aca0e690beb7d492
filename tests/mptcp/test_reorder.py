"""The connection-level reorder queue and the mappings against models too simple to be wrong."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mptcp.data_queues import DataReceiver
from mptcp.mapping import MAPPING_OVERHEAD, MAX_MAPPINGS, RxMapping, RxMappings
from mptcp.reorder import ReorderQueue

arrivals = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 150), st.integers(1, 40), st.integers(0, 255)),
    max_size=40,
)


def runs(numbers: set[int]) -> int:
    """How many maximal runs a set of integers has."""
    return sum(1 for number in numbers if number - 1 not in numbers)


def shape(queue: ReorderQueue) -> list[tuple[int, int]]:
    """The nodes from head to tail, with the links checked."""
    found = []
    node, before = queue.head, None
    while node is not None:
        assert node.prev is before
        assert sum(map(len, node.views)) == node.end - node.start
        found.append((node.start, node.end))
        node, before = node.next, node
    assert queue.tail is before
    return found


@given(arrivals, st.lists(st.integers(0, 190), max_size=4).map(sorted))
def test_against_a_dictionary(steps: list[tuple[int, int, int, int]], advances: list[int]) -> None:
    """First copy wins, order comes out, nodes are the runs, memory is charged and given back."""
    queue = ReorderQueue()
    model: dict[int, int] = {}
    for count, (subflow, start, size, value) in enumerate(steps, 1):
        new = queue.insert(subflow, start, memoryview(bytes([value]) * size))
        fresh = [n for n in range(start, start + size) if n not in model]
        assert new == len(fresh)
        model.update(dict.fromkeys(fresh, value))
        assert queue.hits + queue.misses == count
        nodes = shape(queue)
        assert len(nodes) == queue.nodes == runs(set(model))
        assert all(a[1] < b[0] for a, b in pairwise(nodes))
        assert queue.memory >= len(model)
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
        assert queue.nodes == len(shape(queue)) == runs(set(model))
    if not model:
        assert not queue
        assert queue.memory == 0


@given(st.integers(1, 6), st.integers(2, 40), st.integers(0, 1 << 16))
def test_a_subflow_that_continues_itself_hits(paths: int, each: int, seed: int) -> None:
    """Data in order on each subflow, interleaved across them: all but the first insert hit."""
    queue = ReorderQueue()
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
    assert queue.nodes == paths


def test_forgotten_shortcut() -> None:
    """A subflow that ends takes its shortcut along; the data stays."""
    queue = ReorderQueue()
    queue.insert(1, 100, memoryview(b"abc"))
    queue.forget(1)
    queue.insert(1, 103, memoryview(b"def"))
    assert queue.misses == 2
    assert b"".join(queue.pop_ready(100)) == b"abcdef"


def test_shortcut_to_a_node_that_is_gone() -> None:
    """A shortcut to a delivered or merged node is not followed."""
    queue = ReorderQueue()
    queue.insert(1, 10, memoryview(b"ab"))
    queue.insert(2, 12, memoryview(b"cd"))
    assert b"".join(queue.pop_ready(10)) == b"abcd"
    queue.insert(1, 12, memoryview(b"xy"))
    assert shape(queue) == [(12, 14)]
    queue.clear()
    queue.insert(1, 14, memoryview(b"z"))
    assert shape(queue) == [(14, 15)]


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
