"""Keep-alive: RFC 1122 §4.2.3.6, RFC 9293 §3.8.4; times and counts as Linux's tcp(7)."""

from __future__ import annotations

import pytest

from mptcp.config import Config
from mptcp.errors import ConnectionEnd
from mptcp.events import Closed, SubflowClosed
from mptcp.wire.tcp import ACK, FIN, RST
from tests.peer import Peer, Wire, ms, seconds


def alive() -> tuple[Wire, Peer]:
    """A plain TCP stack that probes after 10 s, then each 2 s, three times."""
    wire = Wire(
        mptcp=False,
        nodelay=True,
        keepalive=True,
        keepalive_idle_us=seconds(10),
        keepalive_interval_us=seconds(2),
        keepalive_count=3,
    )
    return wire, Peer(wire)


def test_off_by_default_and_two_hours() -> None:
    """RFC 9293 §3.8.4 MUST-25: off by default; MUST-28: two hours at least when turned on."""
    config = Config()
    assert not config.keepalive
    assert config.keepalive_idle_us >= seconds(7200)
    wire = Wire(mptcp=False)
    peer = Peer(wire)
    connection = peer.handshake()
    peer.expect_nothing(until=seconds(100_000))
    assert connection.ended is None


def test_probe_is_below_snd_una_and_carries_nothing() -> None:
    """RFC 9293 §3.8.4: SEG.SEQ = SND.NXT-1, no octet of data; the ACK shows that the peer lives."""
    wire, peer = alive()
    connection = peer.handshake()
    connection.send(b"hello")
    peer.expect(ACK, seq=1, length=5)
    peer.send(ACK)
    wire.mark()
    for number in range(1, 6):
        peer.expect(ACK, seq=5, ack=1, length=0, at=seconds(10) * number)
        peer.send(ACK)
    assert connection.ended is None
    assert wire.stack.counters["TcpExtTCPKeepAlive"] == 5
    assert wire.stack.counters["TcpExtTCPWinProbe"] == 0


def test_only_after_silence() -> None:
    """RFC 9293 §3.8.4 MUST-26: no probe within the interval after data or an ACK has come."""
    _, peer = alive()
    peer.handshake()
    for at in (4, 9, 15, 24):
        peer.send(ACK, data=b"x", at=seconds(at))
        peer.expect(ACK, within=ms(50))
    peer.expect_nothing(until=seconds(34) - 1)
    peer.expect(ACK, seq=0, length=0, at=seconds(34))


@pytest.mark.mib("TcpExtTCPAbortOnTimeout", "TcpExtTCPKeepAlive")
def test_unanswered_probes_end_the_connection() -> None:
    """RFC 1122 §4.2.3.6: a single lost probe must not end it; `count` in a row do."""
    wire, peer = alive()
    connection = peer.handshake()
    wire.take_events()
    for at in (10, 12, 14):
        peer.expect(ACK, seq=0, length=0, at=seconds(at))
    reset = peer.expect(at=seconds(16))
    assert reset.flags & RST
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.TIMED_OUT)
    assert wire.stack.connections == {}


def test_an_answer_starts_the_count_again() -> None:
    """RFC 9293 §3.8.4 MUST-29: no single unanswered probe means a dead connection."""
    _, peer = alive()
    connection = peer.handshake()
    peer.expect(ACK, seq=0, at=seconds(10))
    peer.expect(ACK, seq=0, at=seconds(12))
    peer.send(ACK, at=seconds(13))
    for at in (23, 25, 27):
        peer.expect(ACK, seq=0, at=seconds(at))
    assert connection.ended is None


def test_answered_by_a_reset() -> None:
    """RFC 9293 §3.8.4: a peer that has forgotten the connection answers a probe with RST."""
    wire, peer = alive()
    connection = peer.handshake()
    probe = peer.expect(ACK, seq=0, at=seconds(10))
    peer.send(RST, seq=probe.ack)
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.RESET)


def test_not_while_data_is_in_flight() -> None:
    """RFC 1122 §4.2.3.6: with data outstanding the retransmission timer does the asking."""
    wire, peer = alive()
    connection = peer.handshake(rtt=ms(100))
    connection.send(b"data")
    for _ in range(7):
        peer.expect(ACK, seq=1, length=4, within=seconds(60))
    assert wire.stack.counters["TcpExtTCPKeepAlive"] == 0
    assert connection.ended is None


def test_not_while_the_window_is_closed() -> None:
    """RFC 9293 §3.8.6.1: data behind a zero window has probes of its own."""
    wire, peer = alive()
    peer.window = 4
    connection = peer.handshake(rtt=ms(100))
    connection.send(b"data and more")
    peer.expect(ACK, seq=1, length=4)
    peer.send(ACK, ack=5, window=0)
    while wire.time < seconds(60):
        peer.expect(ACK, within=seconds(120))
        peer.send(ACK, ack=5, window=0)
    assert wire.stack.counters["TcpExtTCPKeepAlive"] == 0
    assert connection.ended is None


def test_half_closed_by_the_peer() -> None:
    """RFC 9293 §3.8.4: CLOSE-WAIT may last for ever too, so it is probed."""
    wire, peer = alive()
    connection = peer.handshake()
    peer.send(ACK | FIN)
    peer.expect(ACK, ack=2)
    for at in (10, 12, 14):
        peer.expect(ACK, seq=0, ack=2, at=seconds(at))
    wire.advance(seconds(16))
    assert connection.ended is ConnectionEnd.TIMED_OUT


def test_per_connection() -> None:
    """RFC 9293 §3.8.4 MUST-24: the application turns it on and off for each connection."""
    wire = Wire(mptcp=False)
    peer, other = Peer(wire), Peer(wire, port=81)
    probed, silent = peer.handshake(), other.handshake()
    probed.options.keepalive(idle_us=seconds(5), interval_us=seconds(1), count=2)
    peer.expect(ACK, seq=0, length=0, at=seconds(5))
    peer.send(ACK)
    probed.options.keepalive(False)
    peer.expect_nothing(until=seconds(10_000))
    other.expect_nothing()
    assert silent.ended is None
    assert probed.ended is None


def test_turned_on_before_connecting() -> None:
    """It may be set at once after connect(): the timer begins with the connection."""
    wire = Wire(mptcp=False)
    peer = Peer(wire)
    connection = wire.stack.connect("10.0.0.2", 80)
    connection.options.keepalive(idle_us=seconds(3))
    peer.expect(within=0)
    peer.expect_nothing(until=ms(900))
    peer.send(0x12, at=ms(950))
    peer.expect(ACK, ack=1)
    peer.expect(ACK, seq=0, at=ms(950) + seconds(3))


@pytest.mark.parametrize(
    "wrong", [{"idle_us": 0}, {"interval_us": 1 << 50}, {"count": 0}, {"count": 128}]
)
def test_out_of_range(wire: Wire, peer: Peer, wrong: dict[str, int]) -> None:
    """The ranges of Linux's socket options: one line says what is allowed."""
    connection = peer.handshake()
    with pytest.raises(ValueError, match="out of range"):
        connection.options.keepalive(**wrong)  # type: ignore[arg-type]


def test_each_subflow_by_itself() -> None:
    """With MPTCP each subflow is probed for itself: a dead path ends, the connection does not."""
    wire = Wire()
    wire.stack.listen(5000)
    first = Peer(wire, port=40000, local_port=5000)
    connection = first.handshake(active=False, mptcp=True)
    connection.options.keepalive(idle_us=seconds(5), interval_us=seconds(1), count=2)
    second = first.beside(port=40001, local_port=5000)
    second.join()
    wire.take_events()
    first.drain()
    second.drain()
    for _ in range(12):
        wire.advance(wire.time + seconds(1))
        if first.drain():
            first.send(ACK)
    ends = [event.end for event in wire.take_events() if isinstance(event, SubflowClosed)]
    assert ends == [ConnectionEnd.TIMED_OUT]
    assert connection.ended is None
    assert [subflow.remote_port for subflow in connection.subflows] == [40000]
