"""NewReno (RFC 5681, RFC 3465, RFC 6928), the controllers' contract, and both on a bottleneck."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcp.config import Config
from mptcp.coupled_cc import Lia
from mptcp.events import Event, Readable
from mptcp.sim import Simulation
from mptcp.stack import Stack
from mptcp.tcp.congestion import INFINITE_SSTHRESH, CongestionControl, NewReno, controllers
from mptcp.tcp.cubic import Cubic
from mptcp.wire.tcp import ACK
from tests.peer import Peer, Wire, ms, seconds

MSS = 1000


def newreno(window: int) -> NewReno:
    """NewReno in congestion avoidance with so many segments of window."""
    cc = NewReno(MSS, 10 * MSS, [])
    cc.cwnd = cc.ssthresh = window * MSS
    return cc


# -- NewReno --------------------------------------------------------------------------------------


def test_one_segment_for_each_window() -> None:
    """RFC 3465 §2.1: when cwnd bytes are acknowledged, cwnd grows by SMSS (RFC 5681 §3.1)."""
    cc = newreno(10)
    for window in range(10, 20):
        assert cc.cwnd == window * MSS
        cc.on_ack(cc.cwnd - 1)
        assert cc.cwnd == window * MSS
        cc.on_ack(1)
    assert cc.cwnd == 20 * MSS


def test_slow_start_ends_at_ssthresh_exactly() -> None:
    """RFC 5681 §3.1: slow start below ssthresh; what an ACK covers beyond counts for avoidance."""
    cc = NewReno(MSS, 10 * MSS, [])
    cc.ssthresh = 15 * MSS
    cc.on_ack(4 * MSS)
    assert cc.cwnd == 14 * MSS
    cc.on_ack(15 * MSS)
    assert (cc.cwnd, cc.credit) == (15 * MSS, 14 * MSS)
    cc.on_ack(1 * MSS)
    assert cc.cwnd == 16 * MSS


@given(
    window=st.integers(2, 500),
    ssthresh=st.integers(2, 500),
    pieces=st.lists(st.integers(1, 64_000), min_size=1, max_size=40),
)
def test_how_acks_are_cut_does_not_matter(window: int, ssthresh: int, pieces: list[int]) -> None:
    """RFC 3465 §2: bytes count, not ACKs: one ACK for all of them is worth the same."""
    one, many = newreno(window), newreno(window)
    one.ssthresh = many.ssthresh = ssthresh * MSS
    one.on_ack(sum(pieces))
    for piece in pieces:
        many.on_ack(piece)
    assert (one.cwnd, one.credit) == (many.cwnd, many.credit)


@pytest.mark.parametrize(("flight", "left"), [(100, 50), (7, 3.5), (4, 2), (3, 2), (0, 2)])
def test_half_of_what_is_in_flight(flight: int, left: float) -> None:
    """RFC 5681 (4): ssthresh = max(FlightSize / 2, 2*SMSS), at a loss and at a time-out."""
    cc = newreno(100)
    cc.on_ack(50 * MSS)
    cc.on_loss(flight * MSS)
    assert (cc.cwnd, cc.ssthresh, cc.credit) == (left * MSS, left * MSS, 0)
    assert cc.in_recovery
    cc.on_recovered()
    assert not cc.in_recovery
    cc = newreno(100)
    cc.on_ack(50 * MSS)
    cc.on_timeout(flight * MSS, first=True)
    assert (cc.cwnd, cc.ssthresh, cc.credit) == (MSS, left * MSS, 0)
    cc.on_timeout(MSS, first=False)
    assert cc.ssthresh == left * MSS


def test_ecn_may_reduce_to_one_segment() -> None:
    """RFC 3168 §6.1.2: halved as for a loss, down to one segment; ssthresh by RFC 5681."""
    cc = newreno(4)
    for window in (2, 1, 1):
        cc.on_ecn(cc.cwnd)
        assert (cc.cwnd, cc.ssthresh, cc.in_recovery) == (window * MSS, 2 * MSS, False)


def test_undo() -> None:
    """RFC 4015 §3.2, RFC 5682 §3: what a spurious time-out took away comes back, once."""
    cc = newreno(100)
    cc.ssthresh = 80 * MSS
    cc.save()
    cc.on_timeout(100 * MSS, first=True)
    cc.on_ack(3 * MSS)
    cc.undo()
    assert (cc.cwnd, cc.ssthresh) == (100 * MSS, 80 * MSS)
    cc.on_loss(60 * MSS)
    cc.undo()
    assert (cc.cwnd, cc.ssthresh, cc.in_recovery) == (30 * MSS, 30 * MSS, False)


@pytest.mark.parametrize(
    ("mss", "window"), [(536, 5360), (1460, 14600), (1461, 14600), (7300, 14600), (8960, 17920)]
)
def test_initial_window(mss: int, window: int) -> None:
    """RFC 6928 §2: min(10*MSS, max(2*MSS, 14600)); it is the restart window too (RFC 5681 §4.1)."""
    wire = Wire(mptcp=False, mtu=9000)
    peer = Peer(wire)
    peer.handshake(mss=mss)
    cc = peer.subflow().cc
    assert (cc.cwnd, cc.initial_window, cc.ssthresh) == (window, window, INFINITE_SSTHRESH)


@pytest.mark.parametrize(
    ("reordering", "after_sack", "after_ack"), [(True, 12, 13), (False, 10, 11)]
)
def test_growth_for_what_was_only_late(reordering: bool, after_sack: int, after_ack: int) -> None:
    """RFC 3465 §2: each byte counts once, and where packets overtake each other, when it arrives.

    As in Linux (tcp_may_raise_cwnd): without known reordering only ACKs that advance count.
    """
    peer = Peer(Wire(mptcp=False, nodelay=True, congestion_control="newreno"))
    connection = peer.handshake(mss=MSS, rtt=ms(100))
    cc = peer.subflow().cc
    peer.subflow().snd.rack.reordering_seen = reordering
    connection.send(bytes(10 * MSS))
    peer.drain()
    peer.send(ACK, ack=1, options=[peer.sacked((1 + MSS, 1 + 3 * MSS))], at=ms(100))
    assert cc.cwnd == after_sack * MSS
    peer.send(ACK, ack=1 + 3 * MSS)
    assert cc.cwnd == after_ack * MSS


def test_an_ack_after_a_timeout_counts_for_one_segment() -> None:
    """RFC 3465 §2.3: L = 1 after a time-out: without SACK the ACK covers what arrived long before.

    Ten segments, the first one lost; its retransmission fills the hole: cwnd 2, not 5 (ssthresh).
    """
    peer = Peer(Wire(mptcp=False, nodelay=True, congestion_control="newreno", sack=False))
    connection = peer.handshake(mss=MSS)
    cc = peer.subflow().cc
    connection.send(bytes(10 * MSS))
    peer.drain()
    peer.expect(ACK, seq=1, length=MSS, within=seconds(2))
    assert (cc.cwnd, cc.ssthresh) == (MSS, 5 * MSS)
    peer.send(ACK, ack=1 + 10 * MSS)
    assert cc.cwnd == 2 * MSS


# -- the contract ---------------------------------------------------------------------------------


class Plain(CongestionControl):
    """The least a third party must write."""

    def on_ack(self, acked: int) -> None:
        self.cwnd += acked


def test_the_least_controller() -> None:
    """docs/tcp.md: `on_ack` is all that must be said; RFC 5681's answers are the defaults."""
    cc = Plain(MSS, 10 * MSS, [])
    assert cc.in_slow_start
    assert cc.hystart is None
    cc.on_ack(10 * MSS)
    cc.on_app_limited()
    cc.save()
    cc.on_loss(20 * MSS)
    assert (cc.cwnd, cc.ssthresh) == (10 * MSS, 10 * MSS)
    assert not cc.in_slow_start
    cc.undo()
    assert (cc.cwnd, cc.ssthresh) == (20 * MSS, INFINITE_SSTHRESH)
    with pytest.raises(NotImplementedError):
        CongestionControl(MSS, 10 * MSS, []).on_ack(1)


def test_reduced_is_the_one_place_for_beta() -> None:
    """RFC 9438 §4.6 and RFC 5681 (4) differ in a factor; a third party changes one method."""

    class Gentle(NewReno):
        def reduced(self, flight_size: int) -> int:
            return flight_size * 9 // 10

    for event, window in ((Gentle.on_loss, 90), (Gentle.on_ecn, 90)):
        cc = Gentle(MSS, 100 * MSS, [])
        event(cc, 100 * MSS)
        assert (cc.cwnd, cc.ssthresh) == (window * MSS, 90 * MSS)
    cc = Gentle(MSS, 100 * MSS, [])
    cc.on_timeout(100 * MSS, first=True)
    assert (cc.cwnd, cc.ssthresh) == (MSS, 90 * MSS)


def test_what_is_built_in() -> None:
    """The names that a configuration may give."""
    for name, kind in (("newreno", NewReno), ("cubic", Cubic), ("lia", Lia)):
        assert controllers.get(name) is kind
        Stack(Config(congestion_control=name), bytes)


def test_hystart_is_a_switch() -> None:
    """RFC 9406 §4: SHOULD, so it can be turned off."""
    for on in (True, False):
        peer = Peer(Wire(mptcp=False, congestion_control="cubic", hystart=on))
        peer.handshake(mss=MSS)
        assert (peer.subflow().cc.hystart is not None) is on


# -- on a bottleneck ------------------------------------------------------------------------------


def share(name: str, flows: int, seconds: int, rate: int) -> list[int]:
    """Bytes that each of `flows` delivers over one bottleneck with 40 ms and a queue of one BDP."""
    sim = Simulation(seed=7)
    a = sim.host("a", mptcp=False, congestion_control=name)
    b = sim.host("b", mptcp=False)
    sim.connect(
        a,
        "10.0.1.1/24",
        b,
        "10.0.1.2/24",
        rate_bps=rate,
        delay_us=20_000,
        queue_bytes=rate // 8 * 40 // 1000,
    )
    received: dict[object, int] = {}

    def read(event: Event) -> None:
        if isinstance(event, Readable):
            count = len(event.connection.recv())
            received[event.connection] = received.get(event.connection, 0) + count

    b.on_event = read
    b.stack.listen(80)
    senders = [a.stack.connect("10.0.1.2", 80) for _ in range(flows)]
    chunk = bytes(1 << 20)
    for _ in range(seconds * 4):
        for sender in senders:
            while sender.send(chunk):
                pass
        sim.run(250_000)
    return list(received.values())


@pytest.mark.parametrize("name", ["newreno", "cubic"])
def test_one_flow_fills_the_link(name: str) -> None:
    """RFC 5681 §3.1, RFC 9438 §5.2: with a queue of one BDP a link of 20 Mbit/s is never idle.

    A segment of 1448 bytes takes 1500 on the link.
    """
    (received,) = share(name, 1, 5, 20_000_000)
    assert received * 8 > 0.9 * 20_000_000 * 5 * 1448 / 1500


@pytest.mark.slow
@pytest.mark.parametrize("name", ["newreno", "cubic"])
def test_two_flows_share_equally(name: str) -> None:
    """RFC 9438 §5.6, RFC 5681: equal flows get equal shares; Jain's index over 60 s >= 0.98.

    A queue of fewer packets than these 27 shows which flow's packets come just before a place is
    free (drop-tail's phase effects), not how the controllers share.
    """
    shares = share(name, 2, 60, 8_000_000)
    assert len(shares) == 2
    assert sum(shares) ** 2 / (2 * sum(value * value for value in shares)) >= 0.98
    assert sum(shares) * 8 > 0.9 * 8_000_000 * 60 * 1448 / 1500
