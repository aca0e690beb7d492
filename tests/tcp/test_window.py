"""Flow control, both sides: RFC 9293 §3.8.6, RFC 7323 §2, RFC 1122 §4.2.3.3-4, §4.2.2.16-17."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mptcp.errors import ConnectionEnd
from mptcp.events import Closed, Writable
from mptcp.wire.tcp import ACK
from tests.peer import Peer, Wire, ms, seconds


def fill(peer: Peer, size: int) -> int:
    """Send `size` bytes of data in segments of 1000; returns the right edge promised then."""
    for at in range(0, size, 1000):
        peer.send(ACK, data=b"x" * min(1000, size - at))
    peer.wire.advance(peer.wire.time + ms(500))
    last = peer.drain()[-1]
    return last.ack + (last.window << peer.stack_wscale)


def test_advertised_window_is_the_free_buffer() -> None:
    """§3.8.6.2.2: RCV.WND is what the buffer still takes, rounded to the scale."""
    wire = Wire(mptcp=False, receive_buffer=256 << 10)
    peer = Peer(wire)
    peer.handshake(wscale=7)
    scale = 1 << peer.stack_wscale
    assert peer.stack_wscale == 3  # 256 KiB need three bits more than 16, less one byte
    assert (256 << 10) - fill(peer, 10_000) + 10_001 in range(10_000 - 1, 10_000 + scale)


def test_window_closes_and_reopens() -> None:
    """An unread stream closes the window at the promised edge; reading opens it by a good step."""
    wire = Wire(mptcp=False, receive_buffer=16384, window_scaling=False)
    peer = Peer(wire)
    connection = peer.handshake()
    edge = fill(peer, 16384)
    assert edge == 1 + 16384
    peer.send(ACK, data=b"one too many")
    peer.expect(ACK, ack=edge, window=0, length=0)
    assert len(connection.recv(100)) == 100
    # RFC 1122 §4.2.3.3: no small steps, at least min(half the buffer, MSS).
    peer.expect_nothing()
    assert len(connection.recv()) == 16284
    peer.expect(ACK, ack=edge, window=16384, length=0)


def test_window_never_shrinks() -> None:
    """§3.8.6: a promised right edge is kept whatever the application does (`Peer` checks)."""
    wire = Wire(mptcp=False, receive_buffer=65536)
    peer = Peer(wire)
    connection = peer.handshake(wscale=0)
    for step in range(60):
        peer.send(ACK, data=b"x" * 900)
        if step % 7 == 0:
            connection.recv(step * 100)
    assert len(peer.drain()) > 30


def test_many_small_segments_do_not_break_the_promise() -> None:
    """The promised window is taken in one-byte segments too: nothing of it is dropped."""
    wire = Wire(mptcp=False, receive_buffer=4096)
    peer = Peer(wire)
    connection = peer.handshake()
    for _ in range(1000):
        peer.send(ACK, data=b"y")
    wire.advance(ms(500))
    assert peer.drain()[-1].ack == 1001
    assert connection.recv() == b"y" * 1000


def test_data_beyond_the_window_is_trimmed() -> None:
    """§3.10.7.4: the part of a segment in the window is taken, the rest is not."""
    wire = Wire(mptcp=False, receive_buffer=4096, window_scaling=False)
    peer = Peer(wire)
    connection = peer.handshake()
    for at in range(0, 4000, 1000):
        peer.send(ACK, seq=1 + at, data=b"x" * 1000)
    peer.send(ACK, seq=4001, data=b"y" * 1000)
    last = peer.drain()[-1]
    assert (last.ack, last.window) == (4097, 0)
    assert connection.recv() == b"x" * 4000 + b"y" * 96


@pytest.mark.parametrize("delta", [0, 1])
def test_probe_of_a_closed_window(delta: int) -> None:
    """§3.8.6.1: a zero-window probe (0 or 1 octet at the edge, or below) is always acknowledged."""
    wire = Wire(mptcp=False, receive_buffer=4096, window_scaling=False)
    peer = Peer(wire)
    peer.handshake()
    edge = fill(peer, 4096)
    peer.send(ACK, seq=edge, data=b"x" * delta, at=seconds(1))
    if delta:
        peer.expect(ACK, ack=edge, window=0, length=0)
    peer.send(ACK, seq=edge - 1)
    peer.expect(ACK, ack=edge, window=0, length=0)


# -- the sender ----------------------------------------------------------------------------


def test_sends_what_the_window_takes(wire: Wire, peer: Peer) -> None:
    """§3.8.6: never beyond SND.UNA + SND.WND; an update lets more go."""
    peer.window = 2500
    connection = peer.handshake(mss=1000)
    connection.send(bytes(5000))
    assert [(seen.seq, len(seen.data)) for seen in peer.drain()] == [(1, 1000), (1001, 1000)]
    peer.send(ACK, ack=2001)
    assert [(seen.seq, len(seen.data)) for seen in peer.drain()] == [(2001, 1000), (3001, 1000)]
    peer.send(ACK, ack=4001)
    assert [(seen.seq, len(seen.data)) for seen in peer.drain()] == [(4001, 1000)]


def test_scaled_window(wire: Wire, peer: Peer) -> None:
    """RFC 7323 §2.3: SND.WND = SEG.WND << Snd.Wind.Shift."""
    peer.window = 3
    connection = peer.handshake(mss=1000, wscale=10)
    peer.send(ACK, window=3)
    connection.send(bytes(5000))
    assert sum(len(seen.data) for seen in peer.drain()) == 3000  # 3072, in whole segments


def test_old_segment_does_not_set_the_window(wire: Wire, peer: Peer) -> None:
    """§3.10.7.4: only if SND.WL1 < SEG.SEQ, or equal and SND.WL2 =< SEG.ACK."""
    connection = peer.handshake(mss=1000)
    peer.send(ACK, data=b"x" * 10, window=5000)
    peer.send(ACK, seq=1, ack=1, window=20)
    connection.send(bytes(5000))
    assert sum(len(seen.data) for seen in peer.drain()) == 5000


def test_peer_shrinks_its_window(wire: Wire, peer: Peer) -> None:
    """§3.8.6: a sender MUST be robust against a shrinking window; what was sent may be resent."""
    connection = peer.handshake(mss=1000)
    connection.send(bytes(3000))
    assert len(peer.drain()) == 3
    peer.send(ACK, ack=1, window=500)
    connection.send(bytes(1000))
    peer.expect_nothing()
    peer.send(ACK, ack=3001, window=1000)
    peer.expect(ACK, seq=3001, length=1000)


@pytest.mark.mib("TcpExtTCPWinProbe")
def test_zero_window_probes() -> None:
    """§3.8.6.1: the first probe after an RTO, then at exponentially growing intervals; no give-up.

    "SHOULD increase exponentially the interval between successive probes"; "MUST allow the
    connection to stay open" as long as the receiver acknowledges the probes (RFC 1122 §4.2.2.17).
    """
    wire = Wire(mptcp=False, nodelay=True, min_rto_us=seconds(1), max_rto_us=seconds(60))
    peer = Peer(wire)
    peer.window = 1000
    connection = peer.handshake(mss=1000, rtt=ms(10))
    connection.send(bytes(3000))
    peer.expect(ACK, seq=1, length=1000)
    peer.send(ACK, ack=1001, window=0)
    wire.mark()
    times = []
    for _ in range(12):
        probe = peer.expect(within=seconds(61))
        assert probe.seq in (1000, 1001)
        assert len(probe.data) <= 1
        times.append(probe.sent_at)
        peer.send(ACK, ack=1001, window=0)
    rto = times[0]
    assert seconds(1) <= rto <= seconds(1) + ms(40)
    gaps = [b - a for a, b in pairwise(times)]
    assert gaps[:5] == [rto * 2, rto * 4, rto * 8, rto * 16, rto * 32]
    assert gaps[5:] == [seconds(60)] * 6
    assert connection.ended is None
    peer.send(ACK, ack=1001, window=2000)
    peer.expect(seq=1001, length=1000)
    peer.expect(seq=2001, length=1000)


def test_unanswered_zero_window_probes_give_up() -> None:
    """RFC 1122 §4.2.2.17, §4.2.3.5: a peer that does not even answer probes is gone in the end."""
    wire = Wire(mptcp=False, nodelay=True, data_retries=5)
    peer = Peer(wire)
    peer.window = 0
    connection = peer.handshake(rtt=ms(10))
    connection.send(b"x")
    wire.advance(seconds(3600))
    assert Closed(connection, ConnectionEnd.TIMED_OUT) in wire.take_events()


def test_silly_window_avoidance(wire: Wire, peer: Peer) -> None:
    """§3.8.6.2.1: not a crumb, unless it is all, or half the largest window, or time has passed."""
    peer.window = 4000
    connection = peer.handshake(mss=1000)
    connection.send(bytes(10000))
    assert len(peer.drain()) == 4
    peer.send(ACK, ack=1001, window=3100)
    peer.expect_nothing()
    peer.send(ACK, ack=4001, window=1000)
    peer.expect(ACK, seq=4001, length=1000)
    peer.expect_nothing()


def test_persist_sends_a_crumb(wire: Wire, peer: Peer) -> None:
    """§3.8.6.2.1 (4): with a window smaller than a segment for ever, the override timer sends."""
    peer.window = 100
    connection = peer.handshake(mss=1000)
    connection.send(bytes(1000))
    total = 0
    for _ in range(6):
        seen = peer.expect(ACK, within=seconds(60))
        total += len(seen.data)
        peer.send(ACK)
    assert total > 0


def test_send_buffer_is_bounded_and_reopens() -> None:
    """Back-pressure: send() takes what fits, Writable comes when there is room."""
    wire = Wire(mptcp=False, send_buffer=8192, nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(mss=1000)
    wire.take_events()
    assert connection.send(bytes(10000)) == 8192
    assert connection.send(b"x") == 0
    assert wire.take_events() == []
    peer.drain()
    peer.send(ACK)
    peer.drain()
    peer.send(ACK)
    assert wire.take_events() == [Writable(connection)]
    assert connection.send(bytes(10000)) == 8192
