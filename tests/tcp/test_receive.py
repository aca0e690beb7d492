"""Receiving: RFC 9293 §3.10.7.4 seventh; when to acknowledge: RFC 1122 §4.2.3.2, RFC 5681 §4.2."""

from __future__ import annotations

import pytest

from mptcp.events import Readable
from mptcp.wire.tcp import ACK, FIN
from tests.options import Timestamps
from tests.peer import PSH, Peer, Wire, ms

TEXT = bytes(range(256)) * 40


def quiet(peer: Peer) -> None:
    """Let the quick acknowledgements of a new connection pass: 20 segments, all acknowledged."""
    for _ in range(20):
        peer.send(ACK, data=b"q" * 1000)
    peer.wire.advance(peer.wire.time + ms(500))
    assert peer.drain()[-1].ack == peer.nxt
    peer.subflow().meta.recv()
    peer.wire.mark()


def test_in_order(wire: Wire, peer: Peer) -> None:
    """Data is handed over once, in order; one Readable until it is read."""
    connection = peer.handshake()
    wire.take_events()
    peer.send(ACK, data=TEXT[:1000])
    peer.send(ACK | PSH, data=TEXT[1000:1010])
    assert wire.take_events() == [Readable(connection)]
    assert connection.recv(400) == TEXT[:400]
    assert connection.recv() == TEXT[400:1010]
    assert connection.recv() == b""
    assert not connection.eof
    peer.send(ACK, data=b"more")
    assert wire.take_events() == [Readable(connection)]


@pytest.mark.mib("TcpExtTCPOFOQueue")
def test_out_of_order(wire: Wire, peer: Peer) -> None:
    """RFC 5681 §4.2: an immediate duplicate ACK for a hole, and one when it is filled."""
    connection = peer.handshake(sack=False)
    start = peer.nxt
    peer.send(ACK, seq=start + 1000, data=TEXT[1000:2000])
    peer.expect(ACK, ack=start, length=0)
    peer.send(ACK, seq=start + 2000, data=TEXT[2000:3000])
    peer.expect(ACK, ack=start, length=0)
    assert connection.recv() == b""
    peer.send(ACK, seq=start, data=TEXT[:500])
    peer.expect(ACK, ack=start + 500, length=0)
    peer.send(ACK, seq=start + 500, data=TEXT[500:1000])
    peer.expect(ACK, ack=start + 3000, length=0)
    peer.expect_nothing()
    assert connection.recv() == TEXT[:3000]


@pytest.mark.mib("TcpExtDelayedACKLost", "TcpExtTCPDSACKOldSent")
def test_duplicate(wire: Wire, peer: Peer) -> None:
    """§3.10.7.4 first: what has arrived already is answered with an ACK and dropped."""
    connection = peer.handshake()
    peer.send(ACK, data=TEXT[:1000])
    peer.drain()
    peer.send(ACK, seq=1, data=TEXT[:1000])
    peer.expect(ACK, ack=1001, length=0)
    assert connection.recv() == TEXT[:1000]


@pytest.mark.parametrize(
    "cuts",
    [
        [(0, 1000), (500, 1500)],
        [(500, 1500), (0, 1000)],
        [(500, 700), (600, 900), (0, 1500)],
        [(1000, 1200), (200, 400), (600, 800), (100, 1300), (0, 1500)],
        [(0, 600), (0, 1500)],
        [(10, 20), (20, 30), (5, 10), (0, 1500)],
    ],
)
def test_overlaps(wire: Wire, peer: Peer, cuts: list[tuple[int, int]]) -> None:
    """§3.10.7.4: segments may overlap in any way; every byte is delivered once."""
    connection = peer.handshake()
    for start, end in cuts:
        peer.send(ACK, seq=1 + start, data=TEXT[start:end])
    assert connection.recv() == TEXT[:1500]
    assert peer.drain()[-1].ack == 1501


def test_every_second_full_segment(wire: Wire, peer: Peer) -> None:
    """RFC 5681 §4.2: an ACK SHOULD be generated for at least every second full-sized segment."""
    peer.handshake()
    quiet(peer)
    start = peer.nxt
    for count in range(1, 9):
        peer.send(ACK, data=b"x" * 1460)
        if count % 2:
            peer.expect_nothing()
        else:
            peer.expect(ACK, ack=start + count * 1460, length=0)


@pytest.mark.mib("TcpExtDelayedACKs")
def test_delayed_ack_timer() -> None:
    """RFC 1122 §4.2.3.2: a lone segment is acknowledged when the timer says so, below 500 ms."""
    wire = Wire(mptcp=False, delayed_ack_us=ms(40))
    peer = Peer(wire)
    peer.handshake()
    quiet(peer)
    start = peer.nxt
    peer.send(ACK, data=b"x" * 10, at=ms(20))
    peer.send(ACK, data=b"x" * 10, at=ms(30))
    peer.expect_nothing(until=ms(59))
    peer.expect(ACK, ack=start + 20, length=0, at=ms(60))
    peer.expect_nothing(until=ms(1000))


def test_ack_rides_on_data(wire: Wire, peer: Peer) -> None:
    """RFC 1122 §4.2.3.2: a delayed ACK goes with data that leaves meanwhile."""
    connection = peer.handshake()
    quiet(peer)
    start = peer.nxt
    peer.send(ACK, data=b"x" * 10)
    connection.send(b"answer")
    peer.expect(ACK, seq=1, ack=start + 10, data=b"answer")
    peer.send(ACK)
    peer.expect_nothing(until=ms(1000))


def test_fin_is_acknowledged_at_once(wire: Wire, peer: Peer) -> None:
    """§3.10.7.4 eighth: acknowledge the FIN; `eof` only behind all the data."""
    connection = peer.handshake()
    quiet(peer)
    start = peer.nxt
    peer.send(ACK | FIN, data=b"end")
    peer.expect(ACK, ack=start + 4, length=0)
    assert connection.eof
    assert connection.recv() == b"end"


def test_fin_behind_a_hole(wire: Wire, peer: Peer) -> None:
    """A FIN that comes before the data it follows takes effect when the data has come."""
    connection = peer.handshake()
    peer.send(ACK | FIN, seq=101, data=TEXT[100:200])
    peer.expect(ACK, ack=1, length=0)
    assert not connection.eof
    peer.send(ACK, seq=1, data=TEXT[:100])
    if peer.expect(ACK).ack != 202:
        # The FIN itself need not have been kept: the peer repeats it.
        peer.send(ACK | FIN, seq=201)
        peer.expect(ACK, ack=202)
    assert connection.eof
    assert connection.recv() == TEXT[:200]


def test_data_after_fin_is_ignored(wire: Wire, peer: Peer) -> None:
    """§3.10.7.4 seventh, CLOSE-WAIT: this should not occur; ignore the segment text."""
    connection = peer.handshake()
    peer.send(ACK | FIN, data=b"end")
    peer.drain()
    peer.send(ACK, data=b"beyond")
    assert connection.recv() == b"end"
    assert connection.eof
    assert all(seen.ack == 5 for seen in peer.drain())


def test_sack_blocks_in_order_of_arrival(wire: Wire, peer: Peer) -> None:
    """RFC 2018 §4: the block of the segment that triggered the ACK first, then by recency."""
    peer.handshake()
    base = peer.nxt

    def arrive(number: int) -> tuple[tuple[int, int], ...]:
        start = base + number * 100
        peer.send(ACK, seq=start, data=b"x" * 100)
        return peer.expect(ACK, ack=base, length=0).sack

    def block(first: int, last: int | None = None) -> tuple[int, int]:
        return base + first * 100, base + (first if last is None else last) * 100 + 100

    assert arrive(1) == (block(1),)
    assert arrive(3) == (block(3), block(1))
    assert arrive(5) == (block(5), block(3), block(1))
    assert arrive(7) == (block(7), block(5), block(3), block(1))
    assert arrive(9) == (block(9), block(7), block(5), block(3))
    assert arrive(2) == (block(1, 3), block(9), block(7), block(5))
    assert arrive(6) == (block(5, 7), block(1, 3), block(9))
    assert arrive(11) == (block(11), block(5, 7), block(1, 3), block(9))
    peer.send(ACK, seq=base, data=b"x" * 100)
    answer = peer.expect(ACK, ack=base + 400, length=0)
    assert set(answer.sack) == {block(11), block(5, 7), block(9)}


def test_three_sack_blocks_beside_timestamps(wire: Wire, peer: Peer) -> None:
    """RFC 2018 §3: with timestamps there is room for three blocks."""
    peer.handshake(timestamps=True)
    base = peer.nxt
    for number in (1, 3, 5, 7):
        peer.send(ACK, seq=base + number * 100, data=b"x" * 100)
    answer = peer.drain()[-1]
    assert len(answer.sack) == 3
    assert isinstance(answer.option(Timestamps), Timestamps)
    assert len(answer.option_bytes) <= 40


def test_no_sack_unless_permitted(wire: Wire, peer: Peer) -> None:
    """RFC 2018 §4: not if the SYN did not permit it."""
    peer.handshake(sack=False)
    peer.send(ACK, seq=101, data=b"x" * 100)
    peer.expect(ACK, ack=1, sack=())


def test_urgent_data_stays_in_line(wire: Wire, peer: Peer) -> None:
    """RFC 6093 §6: urgent data is left in the stream."""
    connection = peer.handshake()
    peer.send(ACK | 0x20, data=b"abc")
    assert connection.recv() == b"abc"


def test_segment_without_ack_is_dropped(wire: Wire, peer: Peer) -> None:
    """§3.10.7.4 fifth: if the ACK bit is off, drop the segment."""
    connection = peer.handshake()
    peer.send(0, data=b"abc")
    assert connection.recv() == b""
    peer.expect_nothing()
