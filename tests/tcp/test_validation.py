"""Windows that are not used: RFC 2861, RFC 5681 §4.1, and what Linux makes of them."""

from __future__ import annotations

import pytest

from mptcp.tcp.congestion import INFINITE_SSTHRESH, NewReno
from mptcp.tcp.validation import CwndValidation
from mptcp.wire.tcp import ACK
from tests.peer import Peer, Wire, ms, seconds

MSS = 1000
RTO = 200_000


def controller(window: int, *, avoidance: bool = True) -> NewReno:
    """NewReno with a window of so many segments at time 0, IW 10."""
    cc = NewReno(MSS, 10 * MSS, [])
    cc.cwnd = window * MSS
    if avoidance:
        cc.ssthresh = window * MSS
    return cc


def at(cc: NewReno, now: int, number: int) -> NewReno:
    """The controller as the sender sets it before an ACK."""
    cc.now, cc.rounds = now, number
    return cc


# -- growth ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("in_flight", "avoidance", "grows"),
    [
        (100, True, True),
        (98, True, True),  # one segment that does not fit and one that is held back
        (97, True, False),
        (50, False, True),  # slow start: the window doubles, half of it was just added
        (49, False, False),
    ],
)
def test_a_full_window_grows(in_flight: int, avoidance: bool, grows: bool) -> None:
    """RFC 2861 §3, RFC 7661 §4.3: no growth unless the window limits the sender."""
    cc = at(controller(100, avoidance=avoidance), 1_000, 5)
    assert CwndValidation().limited(cc, in_flight * MSS, RTO) is grows


def test_a_small_window_needs_half_of_it() -> None:
    """RFC 2861 §3: two segments of slack must not make each ACK of a tiny window count."""
    validation = CwndValidation()
    assert not validation.limited(at(controller(2), 1_000, 1), MSS - 1, RTO)
    assert validation.limited(at(controller(2), 1_000, 1), MSS, RTO)


def test_full_earlier_in_the_round_trip() -> None:
    """RFC 2861 §3: ACKs that come in one batch find little in flight; the window was full."""
    validation = CwndValidation()
    cc = controller(100)
    assert validation.limited(at(cc, 1_000, 5), 100 * MSS, RTO)
    assert validation.limited(at(cc, 1_000, 5), 3 * MSS, RTO)
    assert not validation.limited(at(cc, 2_000, 6), 3 * MSS, RTO)


def test_a_busy_sender_grows_with_batched_acks(wire: Wire, peer: Peer) -> None:
    """RFC 5681 §3.1: slow start doubles the window though all ACKs arrive before the next send."""
    connection = peer.handshake(mss=MSS)
    cc = peer.subflow().cc
    connection.send(bytes(100 * MSS))
    edge = 1
    for window in (10, 20, 40):
        assert cc.cwnd == window * MSS
        assert sum(len(seen.data) for seen in peer.drain()) == window * MSS
        acks = [peer.packet(ACK, ack=edge + n * MSS) for n in range(1, window + 1)]
        edge += window * MSS
        for packet in acks:
            wire.stack.handle_packet(wire.now, 1, memoryview(packet))


# -- a window that is used in part -----------------------------------------------------------------


def test_window_of_an_application_limited_sender_decays() -> None:
    """RFC 2861 §3.2: after an RTO below the window, cwnd = (cwnd + used) / 2, ssthresh = 3/4.

    100 segments, 20 in use: 60, then 40; each needs an RTO of its own.
    """
    validation = CwndValidation()
    cc = controller(100)
    assert validation.limited(at(cc, 0, 1), 100 * MSS, RTO)
    assert not validation.limited(at(cc, 100_000, 2), 20 * MSS, RTO)
    assert not validation.limited(at(cc, RTO - 1, 3), 5 * MSS, RTO)
    assert cc.cwnd == 100 * MSS
    assert not validation.limited(at(cc, RTO, 4), 5 * MSS, RTO)
    assert (cc.cwnd, cc.ssthresh) == (60 * MSS, 100 * MSS)
    assert not validation.limited(at(cc, RTO + 1, 5), 20 * MSS, RTO)
    assert not validation.limited(at(cc, 2 * RTO, 6), 1 * MSS, RTO)
    assert (cc.cwnd, cc.ssthresh) == (40 * MSS, 100 * MSS)


def test_decay_stops_at_the_initial_window() -> None:
    """RFC 2861 §3.2 as in Linux (tcp_cwnd_application_limited): used counts as IW at least."""
    cc = controller(100, avoidance=False)
    cc.ssthresh = 30 * MSS
    cc.on_underused(1)
    assert (cc.cwnd, cc.ssthresh) == (55 * MSS, 75 * MSS)
    for _ in range(20):
        cc.on_underused(1)
    assert cc.cwnd == 10 * MSS
    assert cc.ssthresh == 75 * MSS
    small = controller(4)
    small.on_underused(1)
    assert (small.cwnd, small.ssthresh) == (4 * MSS, 4 * MSS)


def test_decay_can_be_turned_off() -> None:
    """Linux: tcp_slow_start_after_idle = 0 keeps the window; it does not grow all the same."""
    validation = CwndValidation()
    validation.decay = False
    cc = controller(100)
    assert not validation.limited(at(cc, 10 * RTO, 9), 5 * MSS, RTO)
    validation.restart(cc, 100 * RTO, RTO)
    assert cc.cwnd == 100 * MSS


# -- a window that is not used ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("idle", "window"), [(0.99, 64), (1.0, 32), (1.99, 32), (2.5, 16), (3, 10), (1e6, 10)]
)
def test_window_is_halved_for_each_idle_timeout(idle: float, window: int) -> None:
    """RFC 2861 §3.1: cwnd / 2 for each RTO; RFC 5681 §4.1: the restart window is min(IW, cwnd)."""
    validation = CwndValidation()
    validation.sent_at = 5_000
    cc = controller(64)
    cc.ssthresh = 20 * MSS
    validation.restart(cc, 5_000 + int(idle * RTO), RTO)
    assert cc.cwnd == window * MSS
    assert cc.ssthresh == (48 if window < 64 else 20) * MSS  # 3/4 of the window of before


def test_idle_time_counts_once() -> None:
    """RFC 2861 §3.1: a timeout of idleness halves once, though nothing could be sent after it."""
    validation = CwndValidation()
    cc = controller(64)
    for _ in range(5):
        validation.restart(cc, RTO, RTO)
    assert cc.cwnd == 32 * MSS
    validation.restart(cc, 2 * RTO, RTO)
    assert cc.cwnd == 16 * MSS


def grown(wire: Wire, peer: Peer, window: int) -> None:
    """A connection in congestion avoidance with so many segments of window, all acknowledged."""
    connection = peer.handshake(mss=MSS)
    cc = peer.subflow().cc
    cc.cwnd = cc.ssthresh = window * MSS
    connection.send(bytes(window * MSS))
    peer.drain()
    peer.send(ACK, at=wire.time + ms(5))


def test_the_first_burst_after_idleness(wire: Wire, peer: Peer) -> None:
    """RFC 5681 §4.1: before transmission begins, not after a first chunk of the old window."""
    grown(wire, peer, 40)
    wire.advance(wire.time + seconds(60))
    peer.subflow().meta.send(bytes(40 * MSS))
    assert sum(len(seen.data) for seen in peer.drain()) == 10 * MSS


def test_acks_are_not_data(wire: Wire, peer: Peer) -> None:
    """RFC 5681 §4.1: idle is who has sent no data; a receiver's ACKs do not keep its window."""
    grown(wire, peer, 40)
    for _ in range(40):
        peer.send(ACK, data=bytes(MSS), at=wire.time + ms(50))
    peer.drain()
    peer.subflow().meta.send(bytes(40 * MSS))
    assert sum(len(seen.data) for seen in peer.drain()) == 10 * MSS


def test_short_pauses_cost_nothing(wire: Wire, peer: Peer) -> None:
    """RFC 5681 §4.1: only after more than an RTO without data."""
    grown(wire, peer, 40)
    wire.advance(wire.time + ms(150))
    peer.subflow().meta.send(bytes(40 * MSS))
    assert sum(len(seen.data) for seen in peer.drain()) == 40 * MSS


def test_configuration() -> None:
    """Config.slow_start_after_idle = False, as Linux's sysctl of that name."""
    wire = Wire(mptcp=False, nodelay=True, slow_start_after_idle=False)
    peer = Peer(wire)
    grown(wire, peer, 40)
    wire.advance(wire.time + seconds(60))
    peer.subflow().meta.send(bytes(40 * MSS))
    assert sum(len(seen.data) for seen in peer.drain()) == 40 * MSS


def test_slow_start_goes_back_to_three_quarters() -> None:
    """RFC 2861 §3.1: ssthresh = max(ssthresh, 3/4 cwnd), and an infinite one stays infinite."""
    first = controller(64, avoidance=False)
    first.on_idle(1)
    assert (first.cwnd, first.ssthresh) == (32 * MSS, INFINITE_SSTHRESH)
    cc = controller(64)
    cc.ssthresh = 2 * MSS
    cc.on_idle(100)
    for _ in range(38):
        cc.on_ack(MSS)
    assert cc.cwnd == cc.ssthresh == 48 * MSS
    cc.on_ack(48 * MSS)
    assert cc.cwnd == 49 * MSS
