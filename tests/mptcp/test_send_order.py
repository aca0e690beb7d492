"""Data out of the queue's order, and on every subflow: look-ahead and redundant scheduling."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcp.data_queues import DataSender
from mptcp.events import Event, Readable
from mptcp.meta_socket import MetaSocket
from mptcp.retransmit_queue import DataChunk
from mptcp.send_order import Copies, enter, take_ahead
from mptcp.tcp.allowance import segment_size
from tests.mptcp.test_failover import spans
from tests.peer import Peer, Seen, Wire, ms
from tests.transfers import exchange, network, open_programs, payload
from tests.virtual import STACKS

if TYPE_CHECKING:
    from mptcp.subflow import Subflow

TWO = ("10.0.0.1/24", "10.0.1.1/24")
SECOND_PATH = {"address": "10.0.1.2", "local": "10.0.1.1", "interface": 2}


def carrier(name: str) -> Subflow:
    """Something that can be told from others: the queue asks no more of a subflow.

    The sources do; the compiled core wants a `Subflow`.
    """
    return cast("Subflow", name)


def joined(parts: list[memoryview]) -> bytes:
    return b"".join(parts)


@pytest.mark.interpreted
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), max_size=20),
)
def test_stretches_taken_ahead_leave_the_rest_in_order(
    writes: list[int], takes: list[tuple[int, int]]
) -> None:
    """RFC 8684 §3.3: every byte goes once, under its own DSN; checked against a list of the numbers
    not yet sent."""
    tx = DataSender(1 << 20)
    tx.start(0)
    tx.wnd_end = 1 << 20
    data = bytes(i % 251 for i in range(sum(writes)))
    start = 0
    for size in writes:
        tx.queue.append(memoryview(data)[start : start + size])
        start += size
    tx.queued = len(data)
    unsent = list(range(1, len(data) + 1))
    for skip, limit in takes:
        if skip:
            parts, dsn = take_ahead(tx, skip, limit)
        else:
            if tx.ahead:
                limit = min(limit, tx.ahead.stretches[0][0] - tx.nxt)
            parts, dsn = tx.take(limit), tx.nxt
        piece = joined(parts)
        expected = unsent[skip : skip + limit]
        expected = expected[
            : next((i for i, (x, y) in enumerate(pairwise(expected), 1) if y > x + 1), None)
        ]
        assert list(range(dsn, dsn + len(piece))) == expected
        assert piece == bytes(data[number - 1] for number in expected)
        unsent = [number for number in unsent if number not in expected]
        if not piece:
            continue
        enter(tx, DataChunk(dsn, dsn + len(piece), parts, carrier("x")))
        if not skip:
            tx.nxt = tx.ahead.pass_by(dsn + len(piece)) if tx.ahead else dsn + len(piece)
        assert tx.nxt == (unsent[0] if unsent else len(data) + 1)
        assert tx.queued == len(unsent)
        assert tx.used == len(data)
    numbers = [chunk.dsn for chunk in tx.chunks]
    assert numbers == sorted(numbers)


def test_nothing_is_taken_ahead_beyond_the_window() -> None:
    """RFC 8684 §3.3.5: the peer's window ends somewhere, also for what goes first."""
    tx = DataSender(1 << 20)
    tx.start(0)
    tx.write(bytes(1000))
    tx.wnd_end = 501
    assert [len(part) for part in take_ahead(tx, 400, 300)[0]] == [100]
    assert take_ahead(tx, 400, 300) == ([], 501)
    assert take_ahead(tx, 900, 300)[0] == []


@pytest.mark.interpreted
def test_copies_pass_over_what_has_arrived() -> None:
    """A subflow carries what others have sent from where it is, or from DATA_ACK; its own not."""
    tx = DataSender(1 << 20)
    tx.start(0)
    a, b = carrier("a"), carrier("b")
    data = payload(30)
    for dsn in (1, 11, 21):
        chunk = DataChunk(
            dsn, dsn + 10, [memoryview(data)[dsn - 1 : dsn + 9]], b if dsn == 21 else a
        )
        enter(tx, chunk)
    tx.nxt = 31
    copies = Copies()
    assert copies.waiting(tx, b) == 30
    taken = copies.take(tx, b, 14)
    assert taken is not None
    assert (joined(taken[0]), *taken[1:]) == (data[:14], 1, 14)
    assert tx.chunks[0].carriers == [a, b]
    assert tx.chunks[1].carriers == [a]
    tx.acknowledge(17)
    taken = copies.take(tx, b, 14)
    assert taken is not None
    assert (joined(taken[0]), *taken[1:]) == (data[16:20], 17, 4)
    assert copies.take(tx, b, 14) is None  # the rest is its own
    assert copies.waiting(tx, b) == 0
    taken = copies.take(tx, a, 14)
    assert taken is not None
    assert (joined(taken[0]), *taken[1:]) == (data[20:], 21, 10)


def slow_and_fast(scheduler: str) -> tuple[MetaSocket, Peer, Peer, int]:
    """Fig. 4.8: RTTs of 100 and 10 ms, two segments each in the windows; and a segment's size."""
    wire = Wire(addresses=TWO, nodelay=True, scheduler=scheduler)
    wire.stack.listen(5000)
    slow = Peer(wire, port=40000, local_port=5000)
    connection = slow.handshake(active=False, mptcp=True, mss=1400, rtt=ms(100))
    fast = slow.beside(port=40001, local_port=5000, **SECOND_PATH)
    fast.join()
    size = segment_size(fast.subflow())
    for flow, rtt in ((slow, 100), (fast, 10)):
        subflow = flow.subflow()
        subflow.snd.rtt.srtt = ms(rtt)
        subflow.cc.cwnd = subflow.cc.ssthresh = 2 * size
        flow.drain()
    return connection, slow, fast, size


def segments(seen: list[Seen], size: int) -> list[int]:
    """The numbers, from 1, of the segments that were sent."""
    return [start // size + 1 for start, _ in spans(seen)]


def test_fig_4_8_segments_19_and_20_to_the_slow_path() -> None:
    """Thesis §4.3.6, fig. 4.8, with the windows and RTTs of its text."""
    connection, slow, fast, size = slow_and_fast("lookahead")
    connection.send(bytes(40 * size))
    assert segments(fast.drain(), size) == [1, 2]
    assert segments(slow.drain(), size) == [19, 20]
    assert connection.tx.used == 40 * size


def test_fig_4_8_min_rtt_sends_3_and_4_there() -> None:
    """Thesis §4.3.6: "our current scheduler would allocate segments 3 and 4"."""
    connection, slow, fast, size = slow_and_fast("minrtt")
    connection.send(bytes(40 * size))
    assert segments(fast.drain(), size) == [1, 2]
    assert segments(slow.drain(), size) == [3, 4]


def test_a_queue_too_short_for_the_slow_path_is_left_to_the_fast_one() -> None:
    """Fig. 4.8 with 18 segments in the queue: all of them arrive sooner over the fast path."""
    connection, slow, fast, size = slow_and_fast("lookahead")
    connection.send(bytes(18 * size))
    assert segments(fast.drain(), size) == [1, 2]
    assert slow.drain() == []
    assert connection.stack.counters["SchedulerWaitsForNothing"] == 0


@pytest.mark.parametrize("scheduler", ["lookahead", "daps", "ecf", "blest", "redundant"])
@pytest.mark.parametrize("loss", [0.0, 0.02])
def test_all_arrives_whatever_the_order(scheduler: str, loss: float) -> None:
    """RFC 8684 §3.3: unlike paths with small buffers, offload and losses: the data is the same."""
    sim, a, b, _ = network(
        7,
        paths=2,
        rate_bps=20_000_000,
        delay_us=3_000,
        loss=loss,
        a={"scheduler": scheduler, "send_buffer": 200_000, "heuristics": "at-once"},
        b={"receive_buffer": 100_000},
    )
    sim.connect(a, "10.9.0.1/24", b, "10.9.0.2/24", rate_bps=2_000_000, delay_us=40_000, loss=loss)
    up = payload(1_500_000)
    client, server = open_programs(a, b, up, b"", writes=[1, 999, 5000])
    exchange(sim, client, server, up, b"")
    assert client.connection is not None
    assert len(client.connection.subflows) == 3
    assert a.stack.counters["SchedulerWaitsForNothing"] == 0


@pytest.mark.mib("SchedulerDuplicates")
def test_redundant_carries_everything_on_both_paths() -> None:
    """Equal paths: each has sent nearly all of it, the one ahead what the other had not yet."""
    sim, a, b, paths = network(8, paths=2, rate_bps=20_000_000, a={"scheduler": "redundant"})
    STACKS.append(a.stack)
    up = payload(400_000)
    client, server = open_programs(a, b, up, b"")
    exchange(sim, client, server, up, b"")
    assert min(path[0].link.stats.bytes for path in paths) > 0.7 * len(up)
    assert a.stack.mib()["SchedulerDuplicates"] > 50


@pytest.mark.parametrize("scheduler", ["backup", "handover", "overflow", "aggregate"])
def test_a_path_in_reserve(scheduler: str) -> None:
    """Thesis §4.3.6: what fits the first path goes there, though the second is faster; when the
    first is cut, the second carries the rest."""
    own = {"scheduler": scheduler, "nodelay": True, "heuristics": "at-once"}
    sim, a, b, paths = network(9, paths=1, rate_bps=20_000_000, a=own)
    paths.append(
        sim.connect(a, "10.9.0.1/24", b, "10.9.0.2/24", rate_bps=20_000_000, delay_us=2_000)
    )
    received = bytearray()

    def take(event: Event) -> None:
        if isinstance(event, Readable):
            received.extend(event.connection.recv())

    b.on_event = take
    b.stack.listen(80)
    connection = a.stack.connect("10.0.0.2", 80)
    sim.run(500_000)
    before = [path[0].link.stats.bytes for path in paths]
    for _ in range(40):
        connection.send(bytes(5_000))
        sim.run(20_000)
    carried = [path[0].link.stats.bytes - then for path, then in zip(paths, before, strict=True)]
    assert len(received) == 200_000
    first, second = carried if scheduler != "aggregate" else carried[::-1]
    assert first > 190_000
    assert second < 20_000  # until the second path is there, and what tells of it
    sim.set_down(paths[0], True)
    for _ in range(40):
        connection.send(bytes(5_000))
        sim.run(20_000)
    assert sim.run(5_000_000, until=lambda: len(received) == 400_000)


def test_handover_leaves_a_path_that_is_cut_under_load() -> None:
    """Apple's service type: the next path has its turn once an ACK is overdue by its measure, and
    before any time-out of TCP's, though nothing comes that would ask the scheduler again."""
    sim, a, b, first = network(
        2, rate_bps=20_000_000, delay_us=100_000, queue_bytes=2_000_000,
        a={"scheduler": "handover", "retransmission": "rto", "heuristics": "at-once"}, b={},
    )  # fmt: skip
    sim.connect(a, "10.0.9.1/24", b, "10.0.9.2/24", rate_bps=20_000_000, delay_us=25_000)
    client, _ = open_programs(a, b, bytes(8_000_000), b"")
    sim.run(2_000_000)
    assert client.connection is not None
    one, two = client.connection.subflows
    before = two.bytes_sent
    sim.set_down(first[0], True)
    cut = sim.now
    assert sim.run(2_000_000, until=lambda: two.bytes_sent > before)
    assert one.stats.last_ack_recv < sim.now
    assert sim.now - one.stats.last_ack_recv <= one.srtt + max(4 * one.rttvar, 50_000) + 2_000
    assert sim.now - cut < 2 * one.srtt
