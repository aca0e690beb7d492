"""What an out-of-order queue costs: arrivals, from a transfer or a model, and their replay.

A `Trace` is what a receiver asked of its queue, in order: insertions and deliveries. One comes from
a transfer in virtual time, another from a model whose queue is as long as one likes; any kind of
queue answers the same trace alike, so that only the time differs. It is CPU time of this thread.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from mptcp.config import Config
from mptcp.reorder import MAX_RUNS, ReorderQueue, reorder_queues
from mptcp.reorder_shortcuts import Aggreg

from .multipath import Experiment, Link
from .registry import BenchError

SEGMENT: Final = 1400
NO_LIMIT: Final = 1 << 30
TIMED: Final = 20_000
"""Arrivals of the model that are timed."""

Operation = tuple[int, int, memoryview | None]
"""Subflow, DSN, data; or 0, RCV.NXT, None: take out what is ready."""


@dataclass(slots=True)
class Trace:
    """Operations: those that fill the queue first, and those that are timed."""

    before: list[Operation] = field(default_factory=list)
    timed: list[Operation] = field(default_factory=list)
    queued: int = 0
    """Segments in the queue, on average while it is timed."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay cost and what the queue told of the timed part."""

    ns_per_segment: float
    """For each insertion; deliveries are in it."""
    hit_share: float
    steps_per_segment: float
    nodes: int
    segments: int


FLOOR: Final = "dictionary"

_recorded: list[Operation] = []


class _Dictionary(ReorderQueue):
    """A dictionary by DSN, and nothing else: what it costs to keep segments and to come back to
    them, which grows with the memory that lies between, without any search. Segments must be whole,
    and none come twice."""

    __slots__ = ("_views",)

    def __init__(self, limit: int = MAX_RUNS) -> None:
        super().__init__(limit)
        self._views: dict[int, memoryview] = {}

    def insert(self, subflow: int, dsn: int, view: memoryview) -> int:
        self._views[dsn] = view
        self.misses += 1
        return len(view)

    def pop_ready(self, rcv_nxt: int) -> list[memoryview]:
        ready: list[memoryview] = []
        take = self._views.pop
        while (view := take(rcv_nxt, None)) is not None:
            ready.append(view)
            rcv_nxt += len(view)
        return ready

    def clear(self) -> None:
        self._views.clear()


class _Recorder(ReorderQueue):
    """The default queue, and a list of what it was asked."""

    def __init__(self, limit: int = MAX_RUNS) -> None:
        super().__init__(limit)
        self._queue = Aggreg(limit)  # which, compiled, can be no base of this
        _recorded.clear()

    def insert(self, subflow: int, dsn: int, view: memoryview) -> int:
        _recorded.append((subflow, dsn, memoryview(bytes(len(view)))))
        size = self._queue.insert(subflow, dsn, view)
        self._tell()
        return size

    def pop_ready(self, rcv_nxt: int) -> list[memoryview]:
        _recorded.append((0, rcv_nxt, None))
        ready = self._queue.pop_ready(rcv_nxt)
        self._tell()
        return ready

    def forget(self, subflow: int) -> None:
        self._queue.forget(subflow)

    def clear(self) -> None:
        self._queue.clear()
        self._tell()

    def _tell(self) -> None:
        for name in ("runs", "nodes", "first", "last", "memory", "hits", "misses", "steps"):
            setattr(self, name, getattr(self._queue, name))


def record(links: Sequence[Link], seed: int, seconds: float) -> tuple[Trace, float]:
    """What the receiver of a bulk transfer asked of its queue; the trace and the Mbit/s."""
    client = Config(max_subflows=64)
    reorder_queues.add("recorder", _Recorder)
    try:
        server = Config(max_subflows=64, reorder="recorder")
        experiment = Experiment(links, seed, client, server)
        experiment.connect()
        experiment.send()
        experiment.run(seconds)
    finally:
        reorder_queues.unregister("recorder")
    trace = Trace(timed=list(_recorded))
    _recorded.clear()
    if not any(view is not None for _, _, view in trace.timed):
        raise BenchError(f"nothing came out of order in {seconds:g} s")
    return trace, experiment.received * 8 / seconds / 1e6


def arrivals(subflows: int, spread: float, count: int, seed: int) -> list[tuple[int, int]]:
    """(subflow, number of the segment) in the order of arrival, `count` of them.

    The paths are of one rate, and their delays go from nothing to `spread` in even steps; the unit
    is the time of a segment on all of them together. The sender fills them in turns, in an order
    drawn anew for each round, with batches of 4 to 16 contiguous segments: what a few
    acknowledgements open.
    """
    rng = random.Random(f"{subflows} {seed}")
    paths = list(range(subflows))
    due: list[tuple[float, int, int]] = []
    while len(due) < count + spread:
        rng.shuffle(paths)
        for path in paths:
            late = spread * path / (subflows - 1)
            batch = range(len(due), len(due) + rng.randint(4, 16))
            due.extend((number + late, path + 1, number) for number in batch)
    return [(path, number) for _, path, number in sorted(due)[:count]]


def model(subflows: int, queued: int, seed: int, timed: int = TIMED) -> Trace:
    """A queue of about `queued` segments in its steady state, and `timed` arrivals more."""
    # Half the spread, on average, is between a segment and the slowest path's; that one must have
    # been heard for a while. When it has its turn seldom, there is less to wait for.
    spread = 2.0 * queued
    for _ in range(8):
        first = round(1.5 * spread)
        trace = _received(arrivals(subflows, spread, first + timed, seed), first)
        if 0.95 * queued < trace.queued < 1.05 * queued:
            break
        spread *= queued / trace.queued
    return trace


def _received(order: list[tuple[int, int]], first: int) -> Trace:
    """What a receiver asks of its queue; timed is what comes after the `first` arrivals."""
    block = bytes(SEGMENT)
    trace = Trace()
    held: set[int] = set()
    nxt = 0
    sizes = 0
    operations = trace.before
    for count, (path, number) in enumerate(order):
        if count == first:
            operations = trace.timed
        if count >= first:
            sizes += len(held)
        if number == nxt:
            # In order: it goes to the application past the queue, as `Receiving.on_data` has it.
            nxt += 1
            if nxt in held:
                operations.append((0, nxt * SEGMENT, None))
                while nxt in held:
                    held.remove(nxt)
                    nxt += 1
        else:
            held.add(number)
            operations.append((path, number * SEGMENT, memoryview(block)))
    trace.queued = max(1, sizes // (len(order) - first))
    return trace


def in_order(trace: Trace) -> list[Operation]:
    """What `trace.before` leaves in the queue, put there in the order of the data: a short way to
    the same contents for a queue that is searched from its tail."""
    edge = max((dsn for _, dsn, view in trace.before if view is None), default=0)
    held = {dsn: (path, dsn, view) for path, dsn, view in trace.before if view is not None}
    starts = sorted(held)
    while edge in held:
        edge += SEGMENT
    return [held[dsn] for dsn in starts if dsn >= edge]


def replay(kind: str, trace: Trace, most: int = NO_LIMIT) -> Replayed:
    """Time the trace, `most` of its operations, on a new queue of that kind (or `FLOOR`)."""
    made: type[ReorderQueue] = _Dictionary if kind == FLOOR else reorder_queues.get(kind)
    queue = made(NO_LIMIT)
    _run(queue, in_order(trace) if kind == "regular" and trace.before else trace.before)
    hits, misses, steps = queue.hits, queue.misses, queue.steps
    timed = trace.timed[:most]
    gc.collect()
    began = time.thread_time_ns()
    _run(queue, timed)
    took = time.thread_time_ns() - began
    hits, misses = queue.hits - hits, queue.misses - misses
    segments = hits + misses
    nodes = queue.nodes
    queue.clear()
    return Replayed(
        took / segments, hits / segments, (queue.steps - steps) / segments, nodes, segments
    )


def _run(queue: ReorderQueue, operations: Sequence[Operation]) -> None:
    insert, pop_ready = queue.insert, queue.pop_ready
    for subflow, dsn, view in operations:
        if view is not None:
            insert(subflow, dsn, view)
        else:
            pop_ready(dsn)
