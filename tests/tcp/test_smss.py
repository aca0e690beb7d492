"""SMSS, what windows are counted in, is what segments carry: RFC 5681 §2, without options."""

from __future__ import annotations

from typing import Any

import pytest

from mptcp.wire.mptcp_options import MpFail
from mptcp.wire.tcp import ACK
from tests.peer import Peer, Wire, ms, seconds
from tests.tcp.test_recovery import seqs


def made(*, mptcp: bool = False, **changes: Any) -> Peer:
    return Peer(Wire(mptcp=mptcp, nodelay=True, congestion_control="newreno", **changes))


@pytest.mark.parametrize(("timestamps", "carried"), [(False, 1460), (True, 1448)])
def test_the_initial_window_is_ten_segments(timestamps: bool, carried: int) -> None:
    """RFC 6928 §2: 10 * MSS, and no small segment after them though less than 14600 has gone."""
    peer = made()
    connection = peer.handshake(mss=1460, timestamps=timestamps, rtt=ms(100))
    connection.send(bytes(100_000))
    assert [len(seen.data) for seen in peer.drain()] == [carried] * 10
    cc = peer.subflow().cc
    assert (cc.mss, cc.initial_window) == (carried, 10 * carried)


def test_the_loss_window_is_one_segment() -> None:
    """RFC 5681 §3.1: LW is one full-sized segment, ssthresh at least two."""
    peer = made(rack_tlp=False)
    connection = peer.handshake(mss=1460, timestamps=True, rtt=ms(100))
    connection.send(bytes(1448))
    peer.drain()
    peer.expect(ACK, seq=1, length=1448, within=seconds(3))
    cc = peer.subflow().cc
    assert (cc.cwnd, cc.ssthresh) == (1448, 2 * 1448)


def test_congestion_avoidance_adds_what_a_segment_carries() -> None:
    """RFC 5681 (3): one SMSS for each window."""
    peer = made()
    connection = peer.handshake(mss=1460, timestamps=True, rtt=ms(100))
    cc = peer.subflow().cc
    cc.ssthresh = cc.cwnd
    connection.send(bytes(100_000))
    sent = peer.drain()
    peer.send(ACK, ack=sent[-1].end, at=ms(100))
    assert cc.cwnd == 11 * 1448
    assert len(peer.drain()) == 11


def test_newreno_resends_whole_segments_of_a_chunk() -> None:
    """RFC 6582 §3.2: the first hole is one segment, also where a device cuts the segments."""
    peer = made(offload=True, rack_tlp=False)
    connection = peer.handshake(mss=1460, sack=False, timestamps=True, rtt=ms(1))
    connection.send(bytes(20 * 1448))
    peer.drain()
    for _ in range(3):
        peer.send(ACK, ack=1)
    resent = [seen for seen in peer.drain() if seen.seq < 1449]
    assert [(seen.seq, len(seen.data)) for seen in resent] == [(1, 1448)]
    peer.send(ACK, ack=1449)
    assert seqs(peer.drain())[0] == 1449
    peer.send(ACK, ack=2 * 1448 + 1)
    assert (2 * 1448 + 1) in seqs(peer.drain())


def test_a_dss_is_not_counted_and_a_fallback_gives_it_back() -> None:
    """RFC 8684 §3.3: a DSS takes 24 bytes of each segment, 28 when both numbers have 64 bits; §3.7:
    plain TCP has none."""
    peer = made(mptcp=True)
    connection = peer.handshake(mptcp=True, mss=1460, timestamps=True, rtt=ms(100))
    cc = peer.subflow().cc
    connection.send(bytes(100_000))
    assert [len(seen.data) for seen in peer.drain() if seen.data] == [1424] * 10
    assert cc.mss == 1424
    peer.send(ACK, data=b"x", at=ms(100))
    assert {len(seen.data) for seen in peer.drain() if seen.data} == {1420}
    assert cc.mss == 1420
    level = peer.data
    peer.send(ACK, options=[MpFail((level.stack_idsn + 1) % 2**64)])
    assert connection.fallback
    peer.drain()
    peer.mptcp = False
    connection.send(bytes(100_000))
    peer.send(ACK, at=ms(200))
    assert len(peer.drain()[-1].data) == 1448
    assert cc.mss == 1448


def test_the_path_mtu_counts() -> None:
    """RFC 8201 §5.4: the window is not widened by a smaller MSS, which is what it is counted in."""
    peer = made()
    peer.handshake(mss=1460, timestamps=True)
    subflow = peer.subflow()
    subflow.meta.send(bytes(1448))
    peer.drain()
    peer.send(ACK)
    cwnd = subflow.cc.cwnd
    peer.wire.stack.mtu_changed(peer.wire.now, 1, 1052)
    assert (subflow.snd.smss, subflow.cc.mss, subflow.cc.cwnd) == (1000, 1000, cwnd)
