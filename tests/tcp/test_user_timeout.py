"""User timeout: RFC 9293 §3.9.1 and §3.10.8, RFC 5482; R1 and R2 of RFC 1122 §4.2.3.5."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from mptcp.config import Config
from mptcp.errors import ConnectionEnd
from mptcp.events import Closed, DeliveryProblem
from mptcp.wire.tcp import ACK, FIN, RST, SYN, Segment, user_timeout_option
from tests.options import Mss
from tests.peer import Peer, Wire, ms, seconds


@dataclass(frozen=True, slots=True)
class Uto:
    """The User Timeout Option, from its field as on the wire."""

    value: int

    def emit(self) -> bytes:
        return bytes((28, 4, self.value >> 8, self.value & 0xFF))


def limit_of(peer: Peer) -> int:
    """USER_TIMEOUT of the stack's side, µs."""
    user_timeout = peer.subflow().user_timeout
    assert user_timeout is not None
    return user_timeout.timeout_us


# -- the local timeout ---------------------------------------------------------------------


def test_unacknowledged_data() -> None:
    """RFC 9293 §3.10.8: USER TIMEOUT aborts; it counts from the first transmission."""
    wire = Wire(mptcp=False, nodelay=True, user_timeout_us=seconds(5))
    peer = Peer(wire)
    connection = peer.handshake(rtt=ms(100))
    connection.send(b"data")
    while not (seen := peer.expect(within=seconds(6))).flags & RST:
        assert seen.seq == 1
    assert seen.sent_at == seconds(5)
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.TIMED_OUT)
    assert wire.stack.counters["TcpExtTCPAbortOnTimeout"] == 1


def test_longer_than_r2() -> None:
    """RFC 5482 §1: a longer user timeout survives what the retransmission count would not."""
    wire = Wire(mptcp=False, nodelay=True, data_retries=3, user_timeout_us=seconds(1000))
    peer = Peer(wire)
    connection = peer.handshake(rtt=ms(100))
    connection.send(b"data")
    wire.advance(seconds(900))
    assert connection.ended is None
    peer.drain()
    peer.send(ACK, ack=5)
    peer.expect_nothing(until=seconds(5000))
    assert connection.ended is None


def test_shorter_than_a_probe_and_its_answer() -> None:
    """RFC 5482 §3.1, RFC 8985 §7.3: a tail loss probe has until the RTO to be answered; then a
    timeout that has come before ends the connection."""
    wire = Wire(mptcp=False, nodelay=True, user_timeout_us=ms(200))
    peer = Peer(wire)
    connection = peer.handshake(rtt=ms(100))
    connection.send(b"data")
    peer.expect(ACK, seq=1, length=4, at=0)
    peer.expect(ACK, seq=1, length=4, at=ms(300))
    assert peer.expect(within=seconds(2)).flags & RST
    assert wire.time == ms(600)
    assert connection.ended is ConnectionEnd.TIMED_OUT


def test_set_while_nothing_is_delivered() -> None:
    """RFC 9293 §3.9.1: the timeout can be set, changed and taken back at any time."""
    wire = Wire(mptcp=False, nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(rtt=ms(100))
    connection.send(b"data")
    wire.advance(seconds(10))
    connection.options.user_timeout(seconds(5))
    wire.advance(seconds(12))
    connection.options.user_timeout(seconds(60))
    wire.advance(seconds(30))
    connection.options.user_timeout(0)
    wire.advance(seconds(80))
    assert connection.ended is None
    connection.options.user_timeout(seconds(80))
    wire.advance(seconds(89))
    assert connection.ended is None
    wire.advance(seconds(91))
    assert connection.ended is ConnectionEnd.TIMED_OUT


def test_progress_starts_it_anew() -> None:
    """RFC 9293 §3.9.1: late data is delivered all the same; the next stall has its own time."""
    wire = Wire(mptcp=False, nodelay=True, user_timeout_us=seconds(5))
    peer = Peer(wire)
    connection = peer.handshake(rtt=ms(100))
    connection.send(b"one")
    wire.advance(seconds(4))
    peer.drain()
    peer.send(ACK, ack=4)
    wire.mark()
    wire.advance(seconds(3))
    connection.send(b"two")
    wire.advance(seconds(8) - 1)
    assert connection.ended is None
    wire.advance(seconds(8))
    assert connection.ended is ConnectionEnd.TIMED_OUT


def test_closed_window() -> None:
    """As TCP_USER_TIMEOUT: data held back by a zero window counts, though probes are answered."""
    wire = Wire(mptcp=False, nodelay=True, user_timeout_us=seconds(20))
    peer = Peer(wire)
    peer.window = 4
    connection = peer.handshake(rtt=ms(100))
    connection.send(b"data and more")
    peer.expect(ACK, length=4)
    peer.send(ACK, ack=5, window=0)
    wire.mark()
    while not (seen := peer.expect(within=seconds(21))).flags & RST:
        peer.send(ACK, ack=5, window=0)
    assert seen.sent_at == seconds(20)
    assert connection.ended is ConnectionEnd.TIMED_OUT


def test_window_that_opens_in_time() -> None:
    """RFC 9293 §3.8.6.1: a window that opens before the timeout ends the wait."""
    wire = Wire(mptcp=False, nodelay=True, user_timeout_us=seconds(20))
    peer = Peer(wire)
    peer.window = 4
    connection = peer.handshake(rtt=ms(100))
    connection.send(b"data and more")
    peer.expect(ACK, length=4)
    peer.send(ACK, ack=5, window=0)
    wire.advance(seconds(15))
    peer.drain()
    peer.send(ACK, ack=5, window=100)
    peer.expect(seq=5, length=9)
    peer.send(ACK, ack=14, window=100)
    wire.advance(seconds(500))
    assert connection.ended is None


def test_fin_counts() -> None:
    """RFC 9293 §3.10.4: a FIN that nobody acknowledges is data in this respect."""
    wire = Wire(mptcp=False, user_timeout_us=seconds(5))
    peer = Peer(wire)
    connection = peer.handshake(rtt=ms(100))
    connection.close()
    peer.expect(ACK | FIN)
    wire.advance(seconds(5))
    assert connection.ended is ConnectionEnd.TIMED_OUT


def test_open_has_a_timeout() -> None:
    """RFC 9293 §3.9.1.1: OPEN's timeout bounds the SYNs too."""
    wire = Wire(mptcp=False, user_timeout_us=seconds(10))
    peer = Peer(wire)
    connection = wire.stack.connect("10.0.0.2", 80)
    wire.mark()
    peer.expect(SYN)
    wire.advance(seconds(10) - 1)
    assert connection.ended is None
    wire.advance(seconds(10))
    assert connection.ended is ConnectionEnd.TIMED_OUT


def test_set_for_one_connection(wire: Wire) -> None:
    """RFC 1122 §4.2.3.5 (b): an application can set R2 for a particular connection."""
    peer, other = Peer(wire), Peer(wire, port=81)
    limited, unlimited = peer.handshake(rtt=ms(100)), other.handshake(rtt=ms(100))
    limited.options.user_timeout(seconds(5))
    limited.send(b"x")
    unlimited.send(b"x")
    wire.advance(seconds(200))
    assert limited.ended is ConnectionEnd.TIMED_OUT
    assert unlimited.ended is None
    with pytest.raises(ValueError, match="out of range"):
        unlimited.options.user_timeout(1)


def test_taken_back(wire: Wire, peer: Peer) -> None:
    """0 is R2 by retransmissions again, as in Linux."""
    connection = peer.handshake(rtt=ms(100))
    connection.options.user_timeout(seconds(5))
    connection.options.user_timeout(0)
    connection.send(b"x")
    wire.advance(seconds(100))
    assert connection.ended is None


def test_keepalive_ends_by_it() -> None:
    """With keep-alive too the user timeout takes the place of the count of probes (Linux)."""
    wire = Wire(mptcp=False)
    peer = Peer(wire)
    connection = peer.handshake()
    connection.options.keepalive(idle_us=seconds(10), interval_us=seconds(10), count=1)
    connection.options.user_timeout(seconds(45))
    for at in (10, 20, 30, 40):
        peer.expect(ACK, seq=0, length=0, at=seconds(at))
    assert peer.expect(at=seconds(50)).flags & RST
    assert connection.ended is ConnectionEnd.TIMED_OUT


# -- R1 and R2 -----------------------------------------------------------------------------


def test_r1_tells_the_application(wire: Wire, peer: Peer) -> None:
    """RFC 1122 §4.2.3.5 (c): at R1 (3 retransmissions at least) the application is told, once."""
    assert Config().r1_retries >= 3
    connection = peer.handshake(rtt=ms(100))
    subflow = peer.subflow()
    wire.take_events()
    connection.send(b"x")
    peer.expect(length=1)
    for number in range(4):  # a tail loss probe, then three
        assert wire.take_events() == [], number
        peer.expect(length=1, within=seconds(5))
    assert wire.take_events() == [DeliveryProblem(connection, subflow)]
    peer.expect(length=1, within=seconds(5))
    assert wire.take_events() == []
    assert connection.ended is None


def test_r2_is_100_seconds_at_least(wire: Wire, peer: Peer) -> None:
    """RFC 1122 §4.2.3.5: R2 SHOULD correspond to at least 100 seconds, with any RTT."""
    connection = peer.handshake(rtt=ms(1))
    connection.send(b"x")
    wire.advance(seconds(100))
    assert connection.ended is None
    wire.advance(seconds(2000))
    assert connection.ended is ConnectionEnd.TIMED_OUT


def test_r2_of_a_syn() -> None:
    """RFC 9293 §3.8.3 MUST-23 wants three minutes for a SYN: seven retries, as one may set it.

    The default is Linux's six, two minutes: an asyncio program has given up long before.
    """
    wire = Wire(mptcp=False, syn_retries=7)
    connection = wire.stack.connect("10.0.0.2", 80)
    wire.advance(seconds(180))
    assert connection.ended is None


# -- the option ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "field"),
    [(1, 1), (300, 300), (32767, 32767), (32768, 0x8000 | 547), (86400, 0x8000 | 1440)],
)
def test_codec(value: int, field: int) -> None:
    """RFC 5482 §3.3: kind 28, length 4, G (minutes) and 15 bits; rounded up where it must be."""
    assert user_timeout_option(value) == bytes((28, 4, field >> 8, field & 0xFF))


@pytest.mark.parametrize("value", [0, -1, 32767 * 60 + 1])
def test_codec_refuses(value: int) -> None:
    """RFC 5482 §3.3: zero is reserved and MUST NOT be sent."""
    with pytest.raises(ValueError, match="user timeout"):
        user_timeout_option(value)


def option_in(segment: Segment) -> int:
    return segment.user_timeout


def test_sent_in_the_syn_and_after_it() -> None:
    """RFC 5482 §3.2: in the SYN and again in the first segment without SYN."""
    wire = Wire(mptcp=False, user_timeout_option=True, user_timeout_us=seconds(1000))
    peer = Peer(wire)
    wire.stack.connect("10.0.0.2", 80)
    assert option_in(peer.expect(SYN).segment) == 1000
    peer.send(SYN | ACK, options=[Mss(1460)])
    assert option_in(peer.expect(ACK, ack=1).segment) == 1000
    peer.expect_nothing()


def test_not_sent_unless_enabled(wire: Wire, peer: Peer) -> None:
    """RFC 5482 §3: ENABLED defaults to false; then nothing is sent and nothing heeded."""
    wire.stack.connect("10.0.0.2", 80)
    assert option_in(peer.expect(SYN).segment) == 0
    peer.send(SYN | ACK, options=[Mss(1460), Uto(4000)])
    assert option_in(peer.expect(ACK, ack=1).segment) == 0
    assert peer.subflow().user_timeout is None


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        (0, 300),  # reserved: ignored
        (1, 300),  # less than what we advertise
        (600, 600),
        (0x8000 | 30, 1800),  # G: minutes
        (32767, 3600),  # U_LIMIT
    ],
)
def test_the_peers_value(remote: int, expected: int) -> None:
    """RFC 5482 §3.1: min(U_LIMIT, max(ADV_UTO, REMOTE_UTO, L_LIMIT))."""
    wire = Wire(mptcp=False, user_timeout_option=True)
    peer = Peer(wire)
    peer.handshake()
    peer.send(ACK, options=[Uto(remote)])
    assert limit_of(peer) == seconds(expected)


def test_lower_limit() -> None:
    """RFC 5482 §3.1: L_LIMIT, 100 s as RFC 1122 has it: a peer cannot make us impatient."""
    assert Config().user_timeout_lower_us == seconds(100)
    wire = Wire(mptcp=False, user_timeout_option=True, user_timeout_lower_us=seconds(500))
    peer = Peer(wire)
    peer.handshake()
    peer.send(ACK, options=[Uto(10)])
    assert limit_of(peer) == seconds(500)


def test_in_a_syn_of_the_peer() -> None:
    """RFC 5482 §3.2: the option counts in a SYN too."""
    wire = Wire(mptcp=False, user_timeout_option=True)
    wire.stack.listen(5000)
    peer = Peer(wire, port=40000, local_port=5000)
    peer.send(SYN, options=[Mss(1460), Uto(700)])
    assert option_in(peer.expect(SYN | ACK).segment) == 300
    assert limit_of(peer) == seconds(700)


def test_the_applications_value_stands() -> None:
    """RFC 5482 §3: CHANGEABLE becomes false when the application sets the timeout."""
    wire = Wire(mptcp=False)
    peer = Peer(wire)
    connection = peer.handshake()
    connection.options.user_timeout(seconds(20), advertise=True)
    assert option_in(peer.expect(ACK, length=0).segment) == 20
    peer.send(ACK, options=[Uto(1000)])
    assert limit_of(peer) == seconds(20)


def test_a_reset_changes_nothing() -> None:
    """RFC 5482 §3.3: a UTO in an RST is ignored: the segment ends the connection, no more."""
    wire = Wire(mptcp=False, user_timeout_option=True)
    peer = Peer(wire)
    peer.handshake()
    subflow = peer.subflow()
    peer.send(RST, options=[Uto(1000)])
    assert subflow.user_timeout is not None
    assert subflow.user_timeout.timeout_us == seconds(300)


def test_malformed(wire: Wire, peer: Peer) -> None:
    """RFC 5482 §3.3: the length is 4; anything else is skipped."""

    class Wrong:
        def emit(self) -> bytes:
            return bytes((28, 3, 1))

    connection = peer.handshake()
    peer.send(ACK, data=b"x", options=[Wrong()])
    assert connection.recv() == b"x"


def test_beside_the_keys_of_a_join() -> None:
    """A SYN/ACK of a joined subflow has no room for it: the HMAC goes first (RFC 8684 §3.2)."""
    wire = Wire(user_timeout_option=True, addresses=("10.0.0.1/24",))
    wire.stack.listen(5000)
    first = Peer(wire, port=40000, local_port=5000)
    first.handshake(active=False, mptcp=True)
    second = first.beside(port=40001, local_port=5000)
    second.join()
    assert len(wire.stack.connections) == 2
