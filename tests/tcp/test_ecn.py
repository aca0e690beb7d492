"""Explicit Congestion Notification (RFC 3168)."""

from __future__ import annotations

from typing import Any

import pytest

from mptcp.stack import Offload
from mptcp.tcp.host import GSO_ECN, GSO_TCPV4, Transmit
from mptcp.tcp.state import State
from mptcp.wire.ip import parse_ip
from mptcp.wire.tcp import ACK, CWR, ECE, FIN, RST, SYN
from tests.options import Mss, SackPermitted
from tests.peer import Peer, Seen, Wire, ms, seconds

MSS = 1000
ECT_1 = 1
ECT_0 = 2
CE = 3


def made(ecn: str = "on", **changes: Any) -> Peer:
    """A plain TCP stack and its peer."""
    settings: dict[str, Any] = {"nodelay": True, "min_rto_us": seconds(1), **changes}
    return Peer(
        Wire(mptcp=False, congestion_control="newreno", ecn=ecn, **settings), local_port=4000
    )


def sending(data: int = 40_000, window: int = 10, **changes: Any) -> Peer:
    """An ECN connection that has sent a window, RTT 100 ms."""
    peer = made(**changes)
    connection = peer.handshake(mss=MSS, ecn=True, rtt=ms(100))
    peer.subflow().cc.cwnd = window * MSS
    connection.send(bytes(data))
    return peer


def tos(seen: Seen) -> int:
    """The ECN field of a segment of the stack."""
    return seen.segment.tos & 3


def syn_of(peer: Peer) -> Seen:
    """Have the stack connect; its SYN."""
    peer.wire.stack.connect(peer.address, peer.port, local_addr=(peer.local, 4000))
    return peer.expect()


# -- the SYN exchange (§6.1.1) -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "flags"), [("on", SYN | ECE | CWR), ("passive", SYN), ("off", SYN)]
)
def test_offer(mode: str, flags: int) -> None:
    """RFC 3168 §6.1.1: an ECN-setup SYN has ECE and CWR, and is itself not ECT."""
    syn = syn_of(made(mode))
    assert (syn.flags, tos(syn)) == (flags, 0)


@pytest.mark.parametrize(
    ("mode", "offered", "answer"),
    [
        ("on", ECE | CWR, ECE),
        ("passive", ECE | CWR, ECE),
        ("off", ECE | CWR, 0),
        ("on", 0, 0),
        ("on", ECE, 0),
        ("on", CWR, 0),
    ],
)
def test_answer(mode: str, offered: int, answer: int) -> None:
    """RFC 3168 §6.1.1: ECE alone answers a SYN with both bits, nothing answers any other."""
    peer = made(mode)
    peer.wire.stack.listen(4000)
    peer.send(SYN | offered, options=[Mss(MSS)])
    seen = peer.expect(SYN | ACK | answer, ack=1)
    assert tos(seen) == 0


@pytest.mark.parametrize("field", [ECT_1, ECT_0, CE])
def test_syn_that_is_ect_is_not_believed(field: int) -> None:
    """RFC 3168 §6.1.1: no SYN is ECT; one that is was changed on the way."""
    peer = made()
    peer.wire.stack.listen(4000)
    peer.send(SYN | ECE | CWR, options=[Mss(MSS)], tos=field)
    peer.expect(SYN | ACK, ack=1)


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("mode", ["on", "passive", "off"])
def test_data_is_ect_when_both_agreed(active: bool, mode: str) -> None:
    """RFC 3168 §6.1.1: ECT only between an ECN-setup SYN and an ECN-setup SYN/ACK."""
    peer = made(mode)
    agreed = mode == "on" if active else mode != "off"
    if not active:
        peer.wire.stack.listen(4000)
    connection = peer.handshake(active=active, ecn=agreed)
    assert not [seen for seen in peer.drain() if tos(seen)]
    connection.send(bytes(3000))
    data = [seen for seen in peer.drain() if seen.data]
    assert [tos(seen) for seen in data] == [ECT_0 if agreed else 0] * len(data)
    assert data


@pytest.mark.parametrize("bits", [0, ECE | CWR, CWR])
def test_answer_that_is_no_ecn_setup(bits: int) -> None:
    """RFC 3168 §6.1.1: a SYN/ACK with other bits than ECE alone (old hosts reflect both)."""
    peer = made()
    syn_of(peer)
    peer.send(SYN | ACK | bits, options=[Mss(MSS)])
    peer.expect(ACK)
    peer.subflow().meta.send(bytes(500))
    assert tos(peer.expect(ACK, length=500)) == 0
    peer.send(ACK, data=b"x" * 100, tos=CE)
    assert not peer.expect(ACK, ack=101).flags & ECE


def test_syn_that_is_not_answered_goes_again_without_ecn() -> None:
    """RFC 3168 §6.1.1.1: a middlebox may drop ECN-setup SYNs; the connection opens without ECN."""
    peer = made()
    syn_of(peer)
    peer.expect(SYN, within=seconds(2))
    peer.send(SYN | ACK, options=[Mss(MSS)])
    peer.expect(ACK)
    peer.subflow().meta.send(bytes(500))
    assert tos(peer.expect(ACK, length=500)) == 0


def test_withdrawn_offer_that_came_through() -> None:
    """RFC 3168 §6.1.1: after a SYN without ECN no ECT is sent, but CE is still echoed."""
    peer = made()
    syn_of(peer)
    peer.expect(SYN, within=seconds(2))
    peer.send(SYN | ACK | ECE, options=[Mss(MSS)])
    peer.expect(ACK)
    peer.subflow().meta.send(bytes(500))
    assert tos(peer.expect(ACK, length=500)) == 0
    peer.send(ACK, data=bytes(1000), tos=CE)
    peer.expect(ACK | ECE, ack=1001)


def test_repeated_syn_without_ecn_withdraws_it() -> None:
    """RFC 3168 §6.1.1: a non-ECN-setup SYN was received: no ECN-setup SYN/ACK, no ECT."""
    peer = made()
    peer.wire.stack.listen(4000)
    peer.send(SYN | ECE | CWR, options=[Mss(MSS)])
    peer.expect(SYN | ACK | ECE)
    peer.send(SYN, seq=0, options=[Mss(MSS)])
    peer.expect(SYN | ACK)
    peer.send(ACK)
    peer.subflow().meta.send(bytes(500))
    assert tos(peer.expect(ACK, length=500)) == 0


def test_mptcp_subflows_use_ecn() -> None:
    """RFC 8684 leaves ECN to TCP: a subflow negotiates it in its own SYN exchange."""
    peer = Peer(Wire(nodelay=True, ecn="on"))
    connection = peer.handshake(mptcp=True, ecn=True)
    connection.send(bytes(1000))
    seen = peer.expect(length=1000)
    assert tos(seen) == ECT_0
    peer.send(ACK, data=bytes(100), tos=CE)
    assert peer.expect().flags & ECE


# -- the receiver (§6.1.3) -----------------------------------------------------------------------


def test_ce_is_echoed_until_cwr() -> None:
    """RFC 3168 §6.1.3: ECE on every ACK from a CE packet until one with CWR comes."""
    peer = made()
    connection = peer.handshake(ecn=True)
    peer.send(ACK, data=bytes(1000), tos=ECT_0)
    assert not peer.expect(ack=1001).flags & ECE
    peer.send(ACK, data=bytes(1000), tos=CE)
    peer.expect(ACK | ECE, ack=2001)
    for number in range(3, 6):
        peer.send(ACK, data=bytes(1000), tos=ECT_0)
        peer.expect(ACK | ECE, ack=number * 1000 + 1)
    connection.send(b"also on data")
    peer.expect(ACK | ECE, data=b"also on data")
    peer.send(ACK | CWR, data=bytes(1000), tos=ECT_0)
    peer.expect(ACK, ack=6001)
    peer.send(ACK, data=bytes(1000), tos=ECT_0)
    peer.expect(ACK, ack=7001)


def test_ce_in_the_packet_that_carries_cwr() -> None:
    """RFC 3168 §6.1.3: CWR ends the old echo; a CE mark on the same packet begins a new one."""
    peer = made()
    peer.handshake(ecn=True)
    peer.send(ACK, data=bytes(1000), tos=CE)
    peer.expect(ACK | ECE)
    peer.send(ACK | CWR, data=bytes(1000), tos=CE)
    peer.expect(ACK | ECE, ack=2001)


def test_ce_mark_on_what_is_not_acceptable() -> None:
    """RFC 3168 §6.1.5: CE on data outside the window is ignored."""
    peer = made()
    peer.handshake(ecn=True)
    peer.send(ACK, data=bytes(1000))
    peer.expect(ACK, ack=1001)
    peer.send(ACK, seq=1, data=bytes(1000), tos=CE)
    peer.expect(ACK, ack=1001)
    peer.send(ACK, seq=50_000_000, data=bytes(1000), tos=CE)
    peer.expect(ACK, ack=1001)


def test_ce_mark_on_a_pure_ack() -> None:
    """RFC 3168 §6.1.4: pure ACKs are not ECT; a mark on one is nobody's congestion."""
    peer = made()
    peer.handshake(ecn=True)
    peer.send(ACK, tos=CE)
    peer.send(ACK, data=bytes(1000))
    peer.expect(ACK, ack=1001)


def test_ce_mark_on_data_out_of_order() -> None:
    """RFC 3168 §6.1.3: a mark counts when it comes, not when the hole before it is filled."""
    peer = made()
    peer.handshake(ecn=True)
    peer.send(ACK, seq=1001, data=bytes(1000), tos=CE)
    peer.expect(ACK | ECE, ack=1)


def test_ce_without_negotiation() -> None:
    """RFC 3168 §6.1.1: without agreement CE is not echoed, nor is ECE heeded."""
    peer = made("passive")
    connection = peer.handshake(mss=MSS)
    peer.send(ACK, data=bytes(1000), tos=CE)
    peer.expect(ACK, ack=1001)
    connection.send(bytes(4000))
    cwnd = peer.subflow().cc.cwnd
    sent = peer.drain()
    peer.send(ACK | ECE | CWR, ack=sent[-1].end)
    assert peer.subflow().cc.cwnd >= cwnd
    connection.send(bytes(4000))
    assert not [seen for seen in peer.drain() if seen.flags & (ECE | CWR) or tos(seen)]


@pytest.mark.mib("IpExtInCEPkts")
def test_ce_mark_is_told_at_once() -> None:
    """The first ACKs after a mark are not delayed: the sender is to slow down now (as Linux)."""
    peer = made()
    peer.handshake(ecn=True)
    peer.subflow().quick_acks = 0
    peer.send(ACK, data=bytes(100))
    peer.expect_nothing()
    peer.send(ACK, data=bytes(100), tos=CE)
    peer.expect(ACK | ECE, ack=201)


def test_merged_chunk_with_ce_and_cwr() -> None:
    """A chunk the device merged: CWR is its first segment's, CE every one's: ECE goes on."""
    peer = Peer(
        Wire(mptcp=False, nodelay=True, ecn="on", offload=True),
        local_port=4000,
    )
    peer.handshake(ecn=True)
    offload = Offload(trusted=True, gso_size=1000, ecn=True)
    peer.wire.inject(peer.packet(ACK, data=bytes(5000), tos=CE), 1, offload)
    peer.expect(ACK | ECE, ack=5001)
    peer.wire.inject(peer.packet(ACK | CWR, data=bytes(5000), tos=CE), 1, offload)
    peer.expect(ACK | ECE, ack=10_001)
    peer.wire.inject(peer.packet(ACK | CWR, data=bytes(5000), tos=ECT_0), 1, offload)
    peer.expect(ACK, ack=15_001)


# -- the sender (§6.1.2) -------------------------------------------------------------------------


def test_ece_halves_the_window_once() -> None:
    """RFC 3168 §6.1.2: as for a loss, once for a window of data; CWR on the next new data."""
    peer = sending()
    cc = peer.subflow().cc
    sent = peer.drain()
    assert (len(sent), {tos(seen) for seen in sent}) == (10, {ECT_0})
    peer.send(ACK | ECE, ack=1 + MSS, at=ms(100))
    assert (cc.cwnd, cc.ssthresh) == (5 * MSS, 5 * MSS)
    for number in range(2, 6):
        peer.send(ACK | ECE, ack=1 + number * MSS)
        peer.expect_nothing()
    peer.send(ACK | ECE, ack=1 + 6 * MSS)
    first = peer.expect(seq=1 + 10 * MSS)
    assert first.flags & CWR
    peer.send(ACK | ECE, ack=1 + 7 * MSS)
    assert not peer.expect(seq=1 + 11 * MSS).flags & CWR
    for number in range(8, 11):
        peer.send(ACK | ECE, ack=1 + number * MSS)
    assert cc.cwnd == 5 * MSS
    assert not [seen for seen in peer.drain() if seen.flags & CWR]


def test_ece_in_the_next_window_halves_again() -> None:
    """RFC 3168 §6.1.2: the next reduction is for data that was sent after the last one."""
    peer = sending(data=100_000)
    cc = peer.subflow().cc
    peer.drain()
    peer.send(ACK | ECE, ack=1 + 10 * MSS, at=ms(100))
    assert cc.cwnd == 5 * MSS
    assert [bool(seen.flags & CWR) for seen in peer.drain()] == [True] + [False] * 4
    peer.send(ACK | ECE, ack=1 + 11 * MSS, at=ms(200))
    assert cc.cwnd == max(5 * MSS // 2, 2 * MSS)
    assert peer.wire.stack.counters["TcpEcnReductions"] == 2


def test_nothing_is_resent_for_ece() -> None:
    """RFC 3168 §6.1.2: a mark is no loss."""
    peer = sending(data=10_000)
    peer.drain()
    peer.send(ACK | ECE, ack=1 + 5 * MSS, at=ms(100))
    peer.send(ACK, ack=1 + 10 * MSS)
    peer.expect_nothing(until=seconds(5))
    assert peer.wire.stack.counters["TcpRetransSegs"] == 0


@pytest.mark.mib("TcpEcnReductions")
def test_ack_with_ece_does_not_grow_the_window() -> None:
    """RFC 3168 §6.1.2: no increase in response to an ACK with ECE."""
    peer = sending(data=100_000)
    cc = peer.subflow().cc
    peer.drain()
    peer.send(ACK | ECE, ack=1 + MSS, at=ms(100))
    for number in range(2, 11):
        peer.send(ACK | ECE, ack=1 + number * MSS)
        peer.drain()
        assert cc.cwnd == 5 * MSS


@pytest.mark.parametrize("marked_first", [True, False])
def test_a_drop_and_a_mark_in_one_window(marked_first: bool) -> None:
    """RFC 3168 §6.1.2: the window is halved once when packets are both dropped and marked."""
    peer = sending(data=100_000)
    cc = peer.subflow().cc
    peer.drain()
    first = ECE if marked_first else 0
    peer.send(ACK | first, ack=1 + MSS, at=ms(100))
    for number in range(3, 7):
        block = peer.sacked((1 + 2 * MSS, 1 + number * MSS))
        peer.send(ACK | ECE, ack=1 + MSS, options=[block])
        peer.drain()
    assert cc.ssthresh == pytest.approx(5 * MSS, abs=MSS)
    assert peer.wire.stack.counters["TcpRetransSegs"] == 1
    # What was outstanding then: a mark on what was sent later is another sign.
    edge = peer.subflow().snd.recovery_point - peer.stack_isn
    peer.send(ACK | ECE, ack=edge)
    assert cc.ssthresh == pytest.approx(5 * MSS, abs=MSS)


def test_retransmission_is_not_ect() -> None:
    """RFC 3168 §6.1.5: a retransmitted packet is not ECT; new data after it tells CWR."""
    peer = sending(data=100_000)
    peer.drain()
    peer.send(ACK, ack=1 + MSS, at=ms(100))
    peer.drain()
    for number in range(3, 8):
        peer.send(ACK, ack=1 + MSS, options=[peer.sacked((1 + 2 * MSS, 1 + number * MSS))])
    sent = peer.drain()
    edge = max(seen.end for seen in sent)
    assert [tos(seen) for seen in sent if seen.seq == 1 + MSS] == [0]
    assert not [seen for seen in sent if seen.seq == 1 + MSS and seen.flags & CWR]
    peer.send(ACK, ack=edge)
    new = [seen for seen in sent + peer.drain() if seen.flags & CWR]
    assert [tos(seen) for seen in new] == [ECT_0]


def test_time_out_tells_cwr() -> None:
    """RFC 3168 §6.1.2: CWR after a reduction for any reason, on new data, not on the old."""
    peer = sending(data=20_000)
    peer.drain()
    peer.subflow().snd.rack_tlp = False  # no probe comes before the time-out
    peer.subflow().snd.tlp.cancel()
    resent = peer.expect(seq=1, within=seconds(3))
    assert (tos(resent), resent.flags & CWR) == (0, 0)
    peer.send(ACK, ack=1 + 10 * MSS)
    new = peer.drain()
    assert [bool(seen.flags & CWR) for seen in new] == [True] + [False] * (len(new) - 1)


def test_window_probe_and_fin_are_not_ect() -> None:
    """RFC 3168 §6.1.4, §6.1.6: ECT neither on window probes nor on segments without data."""
    peer = made()
    connection = peer.handshake(ecn=True)
    peer.send(ACK, window=0)
    connection.send(bytes(1000))
    probe = peer.expect(length=0, within=seconds(5))
    assert tos(probe) == 0
    peer.send(ACK, window=65535)
    assert tos(peer.expect(length=1000)) == ECT_0
    peer.send(ACK)
    connection.close()
    assert tos(peer.expect(ACK | FIN, length=0)) == 0


def test_reset_carries_no_ecn() -> None:
    """RFC 3168 §6.1.4: nor on an RST, though CE is being echoed."""
    peer = made()
    connection = peer.handshake(ecn=True)
    peer.send(ACK, data=bytes(1000), tos=CE)
    peer.expect(ACK | ECE)
    connection.abort()
    reset = peer.expect()
    assert (reset.flags & RST, reset.flags & (ECE | CWR), tos(reset)) == (RST, 0, 0)


@pytest.mark.parametrize("address", ["10.0.0.2", "fd00::2"])
def test_cwr_on_a_chunk(address: str) -> None:
    """RFC 3168 §6.1.2: of a chunk only the first segment has CWR: VIRTIO_NET_HDR_GSO_ECN."""
    four = "." in address
    local = "10.0.0.1" if four else "fd00::1"
    wire = Wire(
        mptcp=False,
        nodelay=True,
        ecn="on",
        offload=True,
        addresses=[local + ("/24" if four else "/64")],
    )
    peer = Peer(wire, address=address, local=local, local_port=4000)
    kept: list[Transmit] = []

    def keep(transmit: Transmit) -> bool:
        kept.append(transmit)
        return False

    wire.refuse = keep
    connection = peer.handshake(mss=MSS, ecn=True, rtt=ms(1))
    peer.subflow().cc.cwnd = 40 * MSS
    connection.send(bytes(200_000))
    sent = peer.drain()
    assert {tos(seen) for seen in sent if seen.data} == {ECT_0}
    kept.clear()
    peer.send(ACK | ECE)
    wire.flush()
    first, *others = [transmit for transmit in kept if transmit.gso_type]
    assert first.gso_type == (GSO_TCPV4 if four else 4) | GSO_ECN
    packet = memoryview(first.packet())
    assert packet[parse_ip(packet).offset + 13] & CWR
    assert not [transmit for transmit in others if transmit.gso_type & GSO_ECN]
    assert others


def test_ece_on_the_last_ack_of_a_close() -> None:
    """ECE is heeded or not, never a reason to misread a segment (RFC 9293 §3.10.7.4)."""
    peer = sending(data=1000)
    peer.subflow().meta.close()
    peer.drain()
    peer.send(ACK | ECE)
    assert peer.subflow().state is State.FIN_WAIT_2
    peer.send(ACK | FIN | ECE | CWR, options=[])
    peer.expect(ACK, ack=2)
    assert peer.subflow().state is State.TIME_WAIT


def test_mode_is_validated() -> None:
    """A `Config` that exists is legal."""
    with pytest.raises(ValueError, match="ecn = 'maybe': use one of off, passive, on"):
        made("maybe")


def test_simultaneous_open_with_ecn() -> None:
    """RFC 3168 §6.1.1 with RFC 9293 figure 7: both sent an ECN-setup SYN, both answer with ECE."""
    peer = made()
    syn_of(peer)
    peer.send(SYN | ECE | CWR, options=[Mss(MSS), SackPermitted()])
    peer.expect(SYN | ACK | ECE, ack=1)
    peer.send(SYN | ACK | ECE, seq=0, options=[Mss(MSS), SackPermitted()])
    peer.subflow().meta.send(bytes(500))
    assert tos(next(seen for seen in peer.drain() if seen.data)) == ECT_0


def test_recovery_that_was_needless_is_not_told() -> None:
    """RFC 3168 §6.1.2 with RFC 2883: a reduction that is taken back announces no CWR."""
    peer = sending(data=10_000)
    peer.drain()
    for number in range(2, 6):
        peer.send(ACK, ack=1, options=[peer.sacked((1 + MSS, 1 + number * MSS))], at=ms(100))
    resent = [seen for seen in peer.drain() if seen.data]
    assert [seen.seq for seen in resent] == [1]
    assert peer.subflow().cc.ssthresh < 10 * MSS
    again = peer.sacked((1, 1 + MSS))
    peer.send(ACK, ack=1 + 5 * MSS, options=[again])
    assert peer.subflow().snd.spurious == 1
    peer.subflow().meta.send(bytes(5000))
    new = [seen for seen in peer.drain() if seen.data]
    assert new
    assert not [seen for seen in new if seen.flags & CWR]


def test_reduction_for_a_mark_is_not_taken_back() -> None:
    """RFC 3168 §6.1.2: what shows later that a recovery was needless restores no marked window."""
    peer = sending(data=100_000)
    peer.drain()
    cc = peer.subflow().cc
    for number in range(2, 6):
        peer.send(ACK, ack=1, options=[peer.sacked((1 + MSS, 1 + number * MSS))], at=ms(100))
    sent = peer.drain()
    end = max([1 + 10 * MSS, *(seen.end for seen in sent)])
    peer.send(ACK, ack=end)
    later = [seen for seen in peer.drain() if seen.data]
    peer.send(ACK | ECE, ack=later[-1].end)
    marked = cc.cwnd
    peer.send(ACK, options=[peer.sacked((1, 1 + MSS))])
    assert marked <= cc.cwnd <= marked + MSS  # what the ACK covers counts as ever
    assert peer.wire.stack.counters["TcpEcnReductions"] == 1
