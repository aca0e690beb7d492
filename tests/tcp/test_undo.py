"""Needless retransmissions: DSACK (RFC 2883), Eifel (RFC 3522, 4015), F-RTO (RFC 5682); PRR."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcp.tcp.prr import ProportionalRateReduction
from mptcp.tcp.recovery import Recovery
from mptcp.wire.tcp import ACK
from tests.options import Timestamps
from tests.peer import Peer, Wire, ms, seconds
from tests.tcp.test_recovery import MSS, edge, seqs, start

# -- DSACK, receiving side (RFC 2883 §4) -----------------------------------------------------------


def receiving() -> Peer:
    """A stack that has received the bytes [1, 1001) and acknowledged them."""
    wire = Wire(mptcp=False)
    peer = Peer(wire)
    peer.handshake()
    peer.send(ACK, data=bytes(1000))
    wire.advance(ms(50))
    peer.drain()
    return peer


def test_duplicate_segment_is_reported_once() -> None:
    """RFC 2883 §4: the first block of the next ACK, and of no other, tells what came twice."""
    peer = receiving()
    peer.send(ACK, seq=1, data=bytes(1000))
    assert peer.expect(ACK, ack=1001).sack == ((1, 1001),)
    peer.send(ACK, seq=2001, data=bytes(100))
    assert peer.expect(ACK, ack=1001).sack == ((2001, 2101),)


def test_partial_duplicate() -> None:
    """RFC 2883 §4.2.1: only the part that had come before."""
    peer = receiving()
    peer.send(ACK, seq=501, data=bytes(1000))
    peer.wire.advance(ms(100))
    assert peer.expect(ACK, ack=1501).sack == ((501, 1001),)


@pytest.mark.mib("TcpExtTCPDSACKOfoSent")
def test_duplicate_above_the_cumulative_ack() -> None:
    """RFC 2883 §4.1.2: the DSACK, then the block that holds it."""
    peer = receiving()
    peer.send(ACK, seq=2001, data=bytes(500))
    peer.expect(ACK, ack=1001)
    peer.send(ACK, seq=2501, data=bytes(500))
    peer.expect(ACK, ack=1001)
    peer.send(ACK, seq=2101, data=bytes(200))
    assert peer.expect(ACK, ack=1001).sack == ((2101, 2301), (2001, 3001))


def test_no_dsack_without_sack() -> None:
    """RFC 2018 §2: no SACK option unless it was permitted."""
    peer = Peer(Wire(mptcp=False))
    peer.handshake(sack=False)
    peer.send(ACK, data=bytes(10))
    peer.wire.advance(ms(50))
    peer.drain()
    peer.send(ACK, seq=1, data=bytes(10))
    assert peer.expect(ACK, ack=11).sack == ()


# -- sending side: undo ----------------------------------------------------------------------------


@pytest.mark.mib("TcpExtTCPDSACKUndo", "TcpExtTCPDSACKRecv")
def test_dsack_of_all_that_was_resent_undoes() -> None:
    """RFC 2883 §5, RFC 3708 §2: reordering beyond the window; cwnd and ssthresh come back."""
    peer = start(sack=True, data=40_000, rack_tlp=True)
    cc = peer.subflow().cc
    before = (cc.cwnd, cc.ssthresh)
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(5)))])
    assert edge(0) in seqs(peer.drain())
    assert cc.cwnd < before[0]
    peer.send(ACK, ack=edge(5))
    peer.send(ACK, ack=edge(5), options=[peer.sacked((edge(0), edge(1)))])
    assert cc.cwnd >= before[0]
    assert cc.ssthresh == before[1]
    snd = peer.subflow().snd
    assert (snd.recovery, snd.spurious) == (Recovery.OPEN, 1)
    assert snd.rack.reo_wnd_mult == 2


def test_dsack_of_a_part_undoes_nothing() -> None:
    """RFC 3708 §2: every retransmission must have been needless."""
    peer = start(sack=True, data=40_000, rack_tlp=True)
    cc = peer.subflow().cc
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(2), edge(9)))])
    resent = seqs(peer.drain())
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(2), edge(10)))], at=ms(150))
    resent += seqs(peer.drain())
    assert {edge(0), edge(1)} <= set(resent)
    cwnd = cc.cwnd
    peer.send(ACK, ack=edge(10), options=[peer.sacked((edge(0), edge(1)))], at=ms(200))
    assert cc.cwnd <= cwnd
    assert peer.subflow().snd.spurious == 0


def timed_out(*, timestamps: bool, data: int = 40_000) -> Peer:
    """Ten segments whose ACKs are late: the RTO has expired and the first has gone again."""
    wire = Wire(
        mptcp=False,
        nodelay=True,
        congestion_control="newreno",
        rack_tlp=False,
    )
    peer = Peer(wire)
    connection = peer.handshake(mss=MSS + 12, timestamps=timestamps, rtt=ms(100))
    peer.subflow().cc.cwnd = 10 * (MSS + (0 if timestamps else 12))
    connection.send(bytes(data))
    peer.first_flight = peer.drain()  # type: ignore[attr-defined]
    peer.expect(ACK, seq=1, within=seconds(2))
    peer.expect_nothing()
    return peer


@pytest.mark.mib("TcpExtTCPLossUndo")
def test_eifel_takes_a_time_out_back() -> None:
    """RFC 3522 §3.2: the ACK echoes the timestamp of the original, not of the retransmission."""
    peer = timed_out(timestamps=True)
    snd, cc = peer.subflow().snd, peer.subflow().cc
    assert (snd.recovery, cc.cwnd) == (Recovery.LOSS, MSS)
    first = peer.first_flight[0]  # type: ignore[attr-defined]
    old = first.option(Timestamps).val
    peer.ts_recent = old
    peer.send(ACK, ack=first.end)
    assert (snd.recovery, snd.spurious) == (Recovery.OPEN, 1)
    assert cc.cwnd >= 10 * MSS
    assert snd.board.next_lost() is None
    # RFC 4015 §3.2: new data goes out, nothing is resent.
    assert min(seqs(peer.drain())) > max(seqs(peer.first_flight))  # type: ignore[attr-defined]


def test_echo_of_the_retransmission_proves_the_loss() -> None:
    """RFC 3522 §3.2 (5): its timestamp is not older than the retransmission's."""
    peer = timed_out(timestamps=True)
    snd = peer.subflow().snd
    first = peer.first_flight[0]  # type: ignore[attr-defined]
    peer.send(ACK, ack=first.end)
    assert (snd.recovery, snd.spurious) == (Recovery.LOSS, 0)


@pytest.mark.mib("TcpExtTCPSpuriousRTOs")
def test_frto_spurious() -> None:
    """RFC 5682 §3.1: (2b) two new segments after the first ACK; (3b) the second acknowledges what
    was never sent again, so the time-out was spurious."""
    peer = timed_out(timestamps=False)
    snd, cc = peer.subflow().snd, peer.subflow().cc
    sent = peer.first_flight  # type: ignore[attr-defined]
    peer.send(ACK, ack=sent[0].end)
    new = peer.drain()
    assert seqs(new) == [sent[-1].end, sent[-1].end + snd.mss]
    peer.send(ACK, ack=sent[1].end)
    assert (snd.recovery, snd.spurious) == (Recovery.OPEN, 1)
    assert cc.cwnd >= 10 * MSS
    assert snd.board.next_lost() is None
    peer.send(ACK, ack=sent[-1].end)
    assert min(seqs(peer.drain())) > new[-1].seq


def test_frto_genuine() -> None:
    """RFC 5682 §3.1 (3a): only the new segments are reported, so the others were lost."""
    peer = timed_out(timestamps=False)
    snd = peer.subflow().snd
    sent = peer.first_flight  # type: ignore[attr-defined]
    peer.send(ACK, ack=sent[0].end)
    new = peer.drain()
    assert len(new) == 2
    peer.send(ACK, ack=sent[0].end, options=[peer.sacked((new[0].seq, new[0].end))])
    assert (snd.recovery, snd.spurious) == (Recovery.LOSS, 0)
    assert sent[1].seq in seqs(peer.drain())


def test_frto_duplicate_ack_first() -> None:
    """RFC 5682 §3.1 (2a): the first ACK advances nothing: conventional recovery at once."""
    peer = timed_out(timestamps=False)
    snd = peer.subflow().snd
    sent = peer.first_flight  # type: ignore[attr-defined]
    peer.send(ACK, ack=1, options=[peer.sacked((sent[3].seq, sent[3].end))])
    peer.drain()
    peer.send(ACK, ack=sent[0].end, options=[peer.sacked((sent[3].seq, sent[3].end))])
    assert seqs(peer.drain())[0] == sent[1].seq
    assert snd.spurious == 0


def test_frto_without_new_data() -> None:
    """RFC 5682 §3.1 (2b): nothing new to send: retransmit as ever."""
    peer = timed_out(timestamps=False, data=10_000)
    sent = peer.first_flight  # type: ignore[attr-defined]
    peer.send(ACK, ack=sent[0].end)
    assert seqs(peer.drain())[0] == sent[1].seq


def test_frto_without_new_data_while_the_mss_changes() -> None:
    """RFC 5682 §3.1 (2b): what counts is that nothing new was sent, not how large it would be."""
    peer = timed_out(timestamps=False, data=10_000)
    sent = peer.first_flight  # type: ignore[attr-defined]
    stack, now = peer.wire.stack, peer.wire.now
    stack.handle_packet(now, 1, memoryview(peer.packet(ACK, ack=sent[0].end)))
    stack.mtu_changed(now, 1, 1000)
    assert seqs(peer.drain())[0] == sent[1].seq


def test_frto_is_not_asked_twice() -> None:
    """RFC 5682 §3.1 (1): a further time-out before the first one's RecoveryPoint is reached means
    conventional recovery: what is missing goes again, not new data that a box may not let pass."""
    peer = timed_out(timestamps=False)
    sent = peer.first_flight  # type: ignore[attr-defined]
    peer.send(ACK, ack=sent[0].end)
    assert len(peer.drain()) == 2  # new data: is it there already?
    again = peer.expect(seq=sent[1].seq, within=seconds(10))  # nobody says: a second time-out
    peer.drain()
    peer.send(ACK, ack=again.end)
    assert seqs(peer.drain())[0] == sent[2].seq


# -- PRR (RFC 6937) --------------------------------------------------------------------------------


def test_prr_example_of_one_loss() -> None:
    """RFC 6937 §3.1, figure "RB": 20 segments, the first lost, ssthresh 10: one for two ACKs."""
    prr = ProportionalRateReduction()
    prr.start(20)
    pipe, log = 19, []
    for _ in range(19):
        pipe -= 1
        prr.on_ack(1, pipe, 10, 1)
        room = max(prr.room, 0)
        prr.on_sent(room)
        pipe += room
        log.append(room)
    assert sum(log) == 10
    assert log[:16] == [1, 0] * 8
    assert pipe == 10


@given(
    flight=st.integers(4, 100),
    losses=st.integers(1, 50),
    reduction=st.sampled_from([0.5, 0.7]),
)
def test_prr_ends_at_ssthresh_or_grows_slowly(flight: int, losses: int, reduction: float) -> None:
    """RFC 6937 §3.1: never more out than slow start would send; pipe ends at ssthresh or below."""
    losses = min(losses, flight - 1)
    ssthresh = max(int(flight * reduction), 2)
    prr = ProportionalRateReduction()
    prr.start(flight)
    pipe = flight - losses
    for delivered in range(1, flight - losses + 1):
        pipe -= 1
        prr.on_ack(1, pipe, ssthresh, 1)
        room = max(prr.room, 0)
        prr.on_sent(room)
        pipe += room
        assert prr.out <= 2 * delivered
    assert pipe <= ssthresh + 1
