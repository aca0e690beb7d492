"""Memory stays within what the `Config` allows: the accounts at every step, and the true bytes.

`soak.bounds` reads the stack's own accounts; here the object graph is walked and every buffer and
object that a stack keeps alive is added up, while peers do their worst.
"""

from __future__ import annotations

import enum
import random
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mptcp import keys
from mptcp.meta_socket import MetaSocket
from mptcp.stack import Offload, Stack
from mptcp.timers import FEW
from mptcp.wire.checksum import dss_checksum, parts_sum
from mptcp.wire.mptcp_options import MpJoinSyn
from mptcp.wire.seq import MASK64
from mptcp.wire.tcp import ACK, SYN
from soak.bounds import Peaks, check
from soak.program import Failure
from tests.options import Mss
from tests.peer import Peer, Wire, ms, seconds
from tests.properties.test_fast_path import variables

pytestmark = pytest.mark.interpreted

SHARED = (
    type, enum.Enum, ModuleType, FunctionType, CodeType, MethodType, BuiltinFunctionType
)  # fmt: skip
"""Code, and what all stacks share."""


def true_bytes(root: object) -> int:
    """The bytes that `root` keeps alive: every object and every buffer once."""
    seen: set[int] = set()
    total = 0
    waiting = [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or thing is None or isinstance(thing, SHARED):
            continue
        seen.add(id(thing))
        total += sys.getsizeof(thing)
        if isinstance(thing, memoryview):
            waiting.append(thing.obj)
        elif isinstance(thing, dict):
            waiting += thing.keys()
            waiting += thing.values()
        elif not isinstance(thing, int | float | str | bytes | bytearray):
            waiting += variables(thing).values()
            if hasattr(thing, "__iter__"):
                waiting += thing
    return total


def test_true_bytes_counts_a_buffer_once() -> None:
    """The measure itself: two views of one buffer keep that buffer alive, once."""
    buffer = bytes(100_000)
    one = true_bytes([memoryview(buffer)])
    two = true_bytes([memoryview(buffer)[:10], memoryview(buffer)[50:]])
    assert 100_000 < one < 101_000
    assert one < two < one + 1000


BUFFER = 64 << 10


def receiving(mptcp: bool) -> tuple[Wire, Peer, MetaSocket, int]:
    """A connection whose program never reads, its peer, and what the stack weighs empty."""
    wire = Wire(mptcp=mptcp, receive_buffer=BUFFER, send_buffer=BUFFER)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=mptcp)
    return wire, peer, connection, true_bytes(wire.stack)


def deliver(peer: Peer, seq: int, size: int, rest: int = 0) -> None:
    """`size` bytes at `seq`, in a buffer with `rest` bytes that were there before.

    In plain TCP the segment repeats them; with MPTCP they are new to the subflow (reinjected).
    """
    data = bytes(rest + size)
    at, options = seq - rest, []
    if peer.mptcp:
        at = peer.nxt if rest else seq
        options = [peer.dss(data_ack=1, dsn=seq - rest, ssn=at, length=len(data))]
    packet = peer.packet(ACK, seq=at, data=data, options=options)
    peer.wire.inject(packet, offload=Offload(True, 1000))
    check(peer.wire.stack, Peaks())


@pytest.mark.parametrize("mptcp", [False, True], ids=["TCP", "MPTCP"])
@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([1000], id="segments"),
        pytest.param([1], id="bytes"),
        pytest.param([40_000], id="chunks"),
        pytest.param([4000, 200], id="uneven"),
    ],
)
@pytest.mark.parametrize("holes", [False, True], ids=["in order", "with holes"])
def test_what_is_not_read(mptcp: bool, pieces: list[int], holes: bool) -> None:
    """RFC 9293 §3.8.6: more than the window is not taken; and what is taken costs at most four
    times the buffer, whatever the peer cuts it into, holes (RFC 2018) included."""
    wire, peer, connection, empty = receiving(mptcp)
    # A mapping that waits for its bytes is no payload, and has twice the buffer beside it at most.
    limit = (6 if mptcp else 4) * BUFFER
    seq, turn = 2 if holes else 1, 0
    while seq < 3 * BUFFER and turn < 3000:
        size = pieces[turn % len(pieces)]
        deliver(peer, seq, size)
        seq += size + holes
        turn += 1
        if not turn % 500:
            peer.drain()
            assert true_bytes(wire.stack) - empty < limit
    peer.drain()
    wire.take_events()
    held = true_bytes(wire.stack) - empty
    assert held < limit
    # The account is what the memory is.
    own = connection.rx.memory + connection.rx.reorder.memory + connection.rx.mapped
    own += sum(subflow.reassembly.memory for subflow in connection.subflows)
    assert 0.3 * own - 20_000 < held < 1.5 * own + 20_000


def test_what_waits_for_its_checksum() -> None:
    """RFC 8684 §3.3.1: a mapping is verified as a whole; until then single bytes of it wait, and
    must not cost hundreds each."""
    wire = Wire(mptcp=True, checksum=True, receive_buffer=2 * BUFFER)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True, confirm=False)
    mapping = peer.dss(data_ack=1, dsn=1, ssn=1, length=60_000, checksum=1)
    peer.send(ACK, data=b"x", options=[mapping])
    empty = true_bytes(wire.stack)
    for seq in range(2, 6_000):
        wire.inject(peer.packet(ACK, seq=seq, data=b"x", options=[peer.dss(data_ack=1)]))
    peer.drain()
    assert peer.subflow().rcv_nxt - peer.subflow().irs == 6_000
    assert connection.rx.unread == 0
    assert true_bytes(wire.stack) - empty < 30_000


def test_what_waits_for_its_checksum_keeps_nothing_else_alive() -> None:
    """Pieces at the end of long repetitions, which RFC 9293 §3.10.7.4 trims, wait alone; they are
    charged until they are verified (RFC 8684 §3.3.1)."""
    wire = Wire(mptcp=True, checksum=True, receive_buffer=2 * BUFFER)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True, confirm=False)
    data = bytes(60_000)
    dsn = (connection.remote_idsn + 1) & MASK64
    checksum = dss_checksum(dsn, 1, len(data), parts_sum([memoryview(data)]))
    mapping = peer.dss(data_ack=1, dsn=1, ssn=1, length=len(data), checksum=checksum)
    peer.send(ACK, data=data[:1], options=[mapping])
    empty = true_bytes(wire.stack)
    seq, own = 2, [peer.dss(data_ack=1)]
    while seq < len(data) - 4097:
        for size in (4096, 1):
            packet = peer.packet(ACK, seq=1, data=data[: seq + size - 1], options=own)
            wire.inject(packet, offload=Offload(True, 1000))
            seq += size
    assert len(data) - 5000 < connection.rx.mapped < 2 * len(data)
    assert true_bytes(wire.stack) - empty < 2 * len(data)
    assert connection.rx.unread == 0
    wire.inject(peer.packet(ACK, seq=seq, data=data[seq - 1 :], options=own))
    assert connection.recv() == data
    assert connection.rx.mapped == 0
    peer.drain()


def test_mappings_without_data() -> None:
    """RFC 8684 §3.3.1 lets a mapping come before its data: on bare ACKs they take no window, but
    what they weigh is bounded by the buffer, lessens the window, and ends with the subflow."""
    wire, peer, connection, empty = receiving(True)
    window = connection.rx.window()
    for number in range(4000):
        at = 100_000 + 10 * number
        peer.send(ACK, options=[peer.dss(data_ack=1, dsn=at, ssn=at, length=10)])
    peer.drain()
    assert 2 * BUFFER <= connection.rx.mapped < 2 * BUFFER + 1000
    assert true_bytes(wire.stack) - empty < 4 * BUFFER
    peer.send(ACK, data=bytes(BUFFER // 2))
    assert connection.recv() == bytes(BUFFER // 2)
    peer.drain()
    assert connection.rx.window() <= window - BUFFER // 2
    connection.abort()
    assert connection.rx.mapped == 0


@pytest.mark.parametrize("mptcp", [False, True], ids=["TCP", "MPTCP"])
def test_new_bytes_at_the_end_of_long_repetitions(mptcp: bool) -> None:
    """A chunk of 60,000 bytes of which only the last is new (RFC 9293 §3.10.7.4 trims the rest):
    the repetition must not stay alive with it."""
    wire, peer, connection, empty = receiving(mptcp)
    deliver(peer, 1, 1000)
    seq = 1001
    while seq < BUFFER - 5000:
        for size in (4096, 1):
            deliver(peer, seq, size, rest=min(seq - 1, 60_000))
            seq += size
    peer.drain()
    wire.take_events()
    assert connection.rx.unread > BUFFER // 3
    assert true_bytes(wire.stack) - empty < 2 * BUFFER


@pytest.mark.parametrize("mptcp", [False, True], ids=["TCP", "MPTCP"])
def test_what_is_not_acknowledged(mptcp: bool) -> None:
    """`send()` takes a send buffer and no more, in writes of any size; it costs about that."""
    wire, peer, connection, empty = receiving(mptcp)
    dice = random.Random(5)
    written = 0
    while taken := connection.send(bytes(dice.choice((1, 10, 1000, 30_000)))):
        written += taken
        wire.flush()
        check(wire.stack, Peaks())
    peer.drain()
    assert written == BUFFER
    assert true_bytes(wire.stack) - empty < 2 * BUFFER


def strangers(wire: Wire, number: int) -> None:
    """SYNs from so many addresses, none of which goes on."""
    for index in range(number):
        caller = Peer(wire, address=f"10.0.{index >> 8}.{index & 255}", port=4000, local_port=5000)
        caller.send(SYN, options=[Mss(1460)])
        wire.peers.remove(caller)


def test_strangers() -> None:
    """RFC 4987 §2: what SYNs make a host keep is bounded by the backlog, at about 10 KB each."""
    wire = Wire(mptcp=False, backlog=32)
    wire.stack.listen(5000)
    empty = true_bytes(wire.stack)
    strangers(wire, 600)
    wire.raw.clear()
    assert len(wire.stack.metas) <= 32
    assert true_bytes(wire.stack) - empty < 33 * 12_000


def test_joins_of_strangers() -> None:
    """RFC 8684 §3.2: subflows are limited whoever asks, and a wrong HMAC leaves nothing."""
    wire = Wire(addresses=("10.0.0.1/24",), max_subflows=4)
    wire.stack.listen(5000)
    caller = Peer(wire, port=40000, local_port=5000)
    connection = caller.handshake(active=False, mptcp=True)
    token = keys.token(caller.data.stack_key)
    for port in range(41_000, 41_200):
        flow = caller.beside(port=port, local_port=5000)
        flow.send(SYN, options=[Mss(1400), MpJoinSyn(False, 1, token, b"abcd")])
        wire.peers.remove(flow)
        check(wire.stack, Peaks())
    assert len(connection.subflows) <= 4
    wire.advance(seconds(200))
    assert len(connection.subflows) == 1


@settings(max_examples=30, deadline=None)
@given(gaps=st.lists(st.integers(1, 200), min_size=50, max_size=150), rtt=st.integers(1, 900))
def test_timers(gaps: list[int], rtt: int) -> None:
    """Timers are lazy, yet few: each object leaves a bounded number of entries behind, however
    its deadlines move (RFC 6298 §5 re-arms with every ACK)."""
    wire = Wire(mptcp=False, nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(rtt=ms(rtt))
    for number, gap in enumerate(gaps):
        wire.advance(wire.time + ms(gap))
        connection.send(b"x")
        peer.drain()
        if number % 3:
            peer.send(ACK, data=b"y" * (number % 2))
        else:
            peer.send(ACK, ack=1)
        connection.recv()
        check(wire.stack, Peaks())


def test_far_timers() -> None:
    """A timer that is far away (RFC 1122 §4.2.3.6: two hours of keep-alive) has one entry, however
    many near ones come and go before it."""
    wire = Wire(mptcp=False, nodelay=True, keepalive=True)
    peer = Peer(wire)
    connection = peer.handshake()
    for number in range(100):
        wire.advance(wire.time + ms(2000))
        connection.send(b"x")
        peer.drain()
        peer.send(ACK, ack=2 + number)
    assert len(wire.stack._timers) <= 5


def test_timers_of_what_has_ended() -> None:
    """Nor does the far timer of a connection keep the connection after its end."""
    wire = Wire(mptcp=False, keepalive=True)
    for port in range(1, 500):
        peer = Peer(wire, port=port)
        connection = peer.handshake(rtt=ms(1))
        wire.advance(seconds(2))
        connection.abort()
        wire.flush()
        wire.peers.remove(peer)
    assert not wire.stack.connections
    assert len(wire.stack._timers) <= 2 * FEW


def test_the_bounds_are_watched() -> None:
    """The watch itself: an account beyond its bound is a failure."""

    def spoil(change: Callable[[MetaSocket, Stack], None], message: str) -> None:
        wire, _, connection, _ = receiving(True)
        check(wire.stack, Peaks())
        change(connection, wire.stack)
        with pytest.raises(Failure, match=message):
            check(wire.stack, Peaks())

    def unread(connection: MetaSocket, _: Stack) -> None:
        connection.rx.unread = BUFFER + 1

    def queued(connection: MetaSocket, _: Stack) -> None:
        connection.tx.queued = BUFFER + 1

    def reordered(connection: MetaSocket, _: Stack) -> None:
        connection.rx.reorder.memory = 2 * BUFFER + 1

    def received(connection: MetaSocket, _: Stack) -> None:
        connection.rx.memory = 4 * BUFFER + 1

    def mapped(connection: MetaSocket, _: Stack) -> None:
        connection.rx.mapped = -1

    def reassembled(connection: MetaSocket, _: Stack) -> None:
        connection.subflows[0].reassembly.memory = 2 * BUFFER + 1

    def subflows(connection: MetaSocket, _: Stack) -> None:
        connection.subflows *= 9

    def timers(connection: MetaSocket, stack: Stack) -> None:
        stack._timers._entries *= 500

    spoil(unread, "receive buffer")
    spoil(queued, "send buffer")
    spoil(reordered, "reorder queue")
    spoil(received, "received")
    spoil(mapped, "mappings")
    spoil(reassembled, "reassembly")
    spoil(subflows, "subflows")
    spoil(timers, "timers")
