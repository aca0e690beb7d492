"""RTT and RTO by RFC 6298's own arithmetic, worked out by hand; Karn; back-off; give-up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcp.errors import ConnectionEnd
from mptcp.events import Closed
from mptcp.tcp.rtt import RttEstimator
from mptcp.tcp.windowed_min import WindowedMin
from mptcp.wire.tcp import ACK, RST
from tests.options import Timestamps
from tests.peer import Peer, Wire, ms, seconds

# Samples in µs; after each (SRTT, RTTVAR) by (2.2) and (2.3): RTTVAR = 3/4 RTTVAR + 1/4 |SRTT - R|,
# then SRTT = 7/8 SRTT + 1/8 R. All values divide evenly.
TABLE = [
    (80_000, 80_000, 40_000),
    (80_000, 80_000, 30_000),
    (160_000, 90_000, 42_500),
    (90_000, 90_000, 31_875),
    (250_000, 110_000, 23_906 + 40_000),
]


def test_smoothing() -> None:
    """RFC 6298 (2.2), (2.3)."""
    rtt = RttEstimator(seconds(1), 1_000, seconds(60))
    for sample, srtt, rttvar in TABLE:
        rtt.sample(sample, 0)
        assert rtt.srtt == srtt
        assert abs(rtt.rttvar - rttvar) <= 1  # integer division


def test_initial_rto() -> None:
    """RFC 6298 (2.1): one second until there is a sample."""
    assert RttEstimator(seconds(1), ms(200), seconds(60)).rto == seconds(1)


@pytest.mark.parametrize(
    ("samples", "rto"),
    [
        ([500_000], 1_500_000),  # SRTT + 4 * R/2
        ([500_000, 500_000], 1_250_000),  # RTTVAR 187,500
        ([500_000, 900_000], 550_000 + 4 * 287_500),
    ],
)
def test_rto(samples: list[int], rto: int) -> None:
    """RFC 6298 (2.2), (2.3): RTO <- SRTT + max(G, K*RTTVAR), K = 4."""
    rtt = RttEstimator(seconds(1), 1_000, seconds(60))
    for sample in samples:
        rtt.sample(sample, 0)
    assert rtt.rto == rto


@given(st.lists(st.integers(0, 10_000_000), min_size=1, max_size=60))
def test_rto_stays_in_its_bounds(samples: list[int]) -> None:
    """RFC 6298 (2.4), (2.5), (5.5): never below SRTT + minimum nor above the maximum."""
    rtt = RttEstimator(seconds(1), ms(200), seconds(60))
    for sample in samples:
        rtt.sample(sample, 0)
        assert min(rtt.srtt + ms(200), seconds(60)) <= rtt.rto <= seconds(60)
        assert min(rtt.min_rtt, rtt.srtt) <= rtt.srtt <= max(*samples, 1)
    for _ in range(20):
        before = rtt.rto
        rtt.back_off()
        assert rtt.rto == min(2 * before, seconds(60))
    rtt.reset_back_off()
    assert rtt.rto <= seconds(60)


def test_back_off_and_give_up() -> None:
    """RFC 6298 (5.4)-(5.6): the earliest segment, doubling; RFC 1122 §4.2.3.5 R2: then the end."""
    wire = Wire(mptcp=False, nodelay=True, data_retries=4, min_rto_us=ms(200), rack_tlp=False)
    peer = Peer(wire)
    connection = peer.handshake(mss=1000, rtt=ms(100))
    assert peer.subflow().snd.rtt.rto == ms(300)
    wire.take_events()
    connection.send(bytes(3000))
    assert [seen.seq for seen in peer.drain()] == [1, 1001, 2001]
    for at in (300, 900, 2100, 4500):
        again = peer.expect(ACK, at=ms(at), length=1000)
        assert again.seq == 1
        peer.expect_nothing()
    peer.expect_nothing(until=ms(9299))
    assert connection.ended is None
    assert peer.expect(at=ms(9300)).flags & RST
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.TIMED_OUT)
    assert wire.stack.connections == {}


def test_back_off_is_kept_until_new_data_is_acknowledged() -> None:
    """RFC 6298 §5: the backed-off RTO holds for the retransmission; Karn: no sample from it."""
    wire = Wire(mptcp=False, nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(mss=1000, rtt=ms(100))
    srtt = peer.subflow().srtt
    connection.send(b"x")
    peer.expect(ACK, seq=1)
    peer.expect(ACK, seq=1, at=ms(300))
    peer.send(ACK, ack=2, at=ms(350))
    assert peer.subflow().srtt == srtt == ms(100)
    wire.mark()
    connection.send(b"y")
    peer.expect(ACK, seq=2)
    peer.send(ACK, ack=3, at=ms(180))
    assert peer.subflow().srtt == ms(110)


def test_timestamps_measure_retransmissions() -> None:
    """RFC 7323 §4: with timestamps the echo tells which transmission was acknowledged."""
    wire = Wire(mptcp=False, nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(mss=1000, rtt=ms(100), timestamps=True)
    connection.send(b"x")
    peer.expect(ACK, seq=1)
    again = peer.expect(ACK, seq=1, within=seconds(1))
    stamp = again.option(Timestamps)
    peer.send(ACK, ack=2, options=[Timestamps(0xFFFF, stamp.val)], at=wire.time + ms(20))
    assert peer.subflow().srtt == ms(90)  # 7/8 of 100 + 1/8 of 20
    assert peer.subflow().snd.rtt.min_rtt == ms(20)


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(1, 50)), min_size=1, max_size=80),
)
def test_least_rtt_of_a_window(steps: list[tuple[int, int]]) -> None:
    """RFC 8985 §6.2 step 1: a sample of the window, no more than the newest, and the least where
    the least is not older than a quarter of the window."""
    least = WindowedMin(1000)
    samples: list[tuple[int, int]] = []
    now = 0
    for wait, sample in steps:
        now += wait
        samples.append((now, sample))
        got = least.update(sample, now)
        assert got == least.value
        assert got in {kept for at, kept in samples if now - at <= 1000}
        assert got <= min(kept for at, kept in samples if now - at <= 250)


def test_a_path_that_has_become_longer_is_believed() -> None:
    """RFC 8985 §6.2 step 1: the least RTT is of a recent time (Linux: five minutes)."""
    rtt = RttEstimator(seconds(1), ms(200), seconds(60), seconds(300))
    for second in range(100):
        rtt.sample(ms(20), seconds(second))
    for second in range(100, 1000):
        rtt.sample(ms(80), seconds(second))
        assert rtt.min_rtt == (ms(20) if second < 400 else ms(80))
    rtt.sample(ms(15), seconds(1000))
    assert rtt.min_rtt == ms(15)


def test_the_window_of_the_least_rtt_is_a_setting() -> None:
    """RFC 8985 §6.2 step 4: the reordering window follows the path: a quarter of the least RTT."""
    wire = Wire(mptcp=False, nodelay=True, min_rtt_window_us=seconds(10))
    peer = Peer(wire)
    connection = peer.handshake(mss=1000, rtt=ms(20))
    for second in range(1, 30):
        wire.advance(seconds(second))
        connection.send(b"x")
        peer.drain()
        peer.send(ACK, at=seconds(second) + ms(60))
        snd = peer.subflow().snd
        assert snd.cc.min_rtt == snd.rtt.min_rtt == (ms(20) if second < 10 else ms(60))
    assert snd.rack.reo_wnd(False, snd.rtt.min_rtt, snd.rtt.srtt) == ms(15)


def test_timer_restarts_with_each_new_ack() -> None:
    """RFC 6298 (5.3): an ACK of new data restarts the timer; (5.2): none runs without data."""
    wire = Wire(mptcp=False, nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(mss=1000, rtt=ms(100))
    connection.send(bytes(2000))
    assert len(peer.drain()) == 2
    peer.send(ACK, ack=1001, at=ms(100))
    rto = peer.subflow().snd.rtt.rto
    peer.expect(ACK, seq=1001, at=ms(100) + rto)
    peer.send(ACK, ack=2001)
    peer.expect_nothing(until=seconds(1000))


def test_maximum_rto() -> None:
    """RFC 6298 (2.5): at least 60 s may be the most."""
    wire = Wire(mptcp=False, nodelay=True, max_rto_us=seconds(60), data_retries=15)
    peer = Peer(wire)
    connection = peer.handshake(mss=1000, rtt=ms(100))
    connection.send(b"x")
    times = [peer.expect(ACK, seq=1, within=seconds(61)).sent_at for _ in range(14)]
    assert times[-1] - times[-2] == seconds(60)
