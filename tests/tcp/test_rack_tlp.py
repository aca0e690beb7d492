"""Loss found by time, and probes for lost tails: RFC 8985."""

from __future__ import annotations

import pytest

from mptcp.tcp.rack import REO_WND_PERSIST, Rack
from mptcp.tcp.recovery import Recovery
from mptcp.tcp.rtt import RttEstimator
from mptcp.tcp.tlp import MAX_ACK_DELAY_US, MIN_PTO_US, TailLossProbe, Verdict
from mptcp.wire.tcp import ACK
from tests.peer import Peer, Wire, ms, seconds
from tests.tcp.test_recovery import MSS, edge, segments, seqs, start


def flight(data: int = 10_000, **changes: bool) -> Peer:
    """Ten segments sent at 0 with an RTT of 100 ms, of which the ACKs come at 100 ms."""
    return start(sack=True, data=data, rack_tlp=True, **changes)


# -- RACK ----------------------------------------------------------------------------------------


@pytest.mark.mib("TcpExtTCPSackRecovery", "TcpExtTCPFastRetrans", "TcpRetransSegs")
def test_as_quick_as_three_duplicates() -> None:
    """§6.2 step 4: with DupThresh segments sacked and no reordering seen, nothing is waited for."""
    peer = flight()
    for stop in (2, 3):
        peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(stop)))])
        peer.expect_nothing()
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(4)))])
    assert seqs(peer.drain()) == [edge(0)]


def test_one_sack_is_enough_after_a_while() -> None:
    """§6.2 steps 4 and 5: a single segment sacked, then RACK.rtt and a quarter of the minimal RTT
    after the hole was sent it is lost; RFC 6675 would wait for the timer."""
    peer = flight()
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(2)))])
    peer.expect_nothing(until=ms(124))
    peer.expect(ACK, seq=edge(0), at=ms(125))


@pytest.mark.mib("TcpExtTCPSACKReorder")
def test_small_reordering_costs_nothing() -> None:
    """§6.2 step 4: what arrives within the reordering window was not lost."""
    peer = flight(40_000)
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(2)))])
    peer.send(ACK, ack=edge(2), at=ms(120))
    snd = peer.subflow().snd
    assert (snd.recovery, snd.bytes_retransmitted) == (Recovery.OPEN, 0)
    assert snd.rack.reordering_seen


def test_patience_once_reordering_was_seen() -> None:
    """§6.2 step 4: then three sacked segments no longer make it hurry."""
    peer = flight(40_000)
    peer.subflow().snd.rack.reordering_seen = True
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(6)))])
    assert edge(0) not in seqs(peer.drain())
    peer.expect_nothing(until=ms(124))
    assert seqs([peer.expect(ACK, at=ms(125)), *peer.drain()])[0] == edge(0)


def test_reordering_is_seen_in_what_was_sent_once_only() -> None:
    """§6.2 step 3: a retransmission that arrives late says nothing of reordering."""
    peer = flight()
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(10)))])
    assert seqs(peer.drain()) == [edge(0)]
    peer.send(ACK, ack=edge(10), at=ms(200))
    assert not peer.subflow().snd.rack.reordering_seen


@pytest.mark.mib("TcpExtTCPLostRetransmit")
def test_lost_retransmission() -> None:
    """§3.3: a retransmission is lost when what was sent after it is delivered."""
    peer = flight(40_000)
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(10)))])
    sent = seqs(peer.drain())
    assert sent[0] == edge(0)
    last = sent[-1] + MSS
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), last))], at=ms(200))
    assert seqs(peer.drain())[0] == edge(0)


def test_lost_retransmission_is_a_second_sign_of_congestion() -> None:
    """RFC 5681 §4.3: the window is lowered twice."""
    peer = flight(40_000)
    cc = peer.subflow().cc
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(10)))])
    last = seqs(peer.drain())[-1] + MSS
    once = cc.ssthresh
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), last))], at=ms(200))
    peer.drain()
    assert cc.ssthresh < once
    twice = cc.ssthresh
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), last))])
    assert cc.ssthresh == twice


def test_time_out_spares_what_left_just_now() -> None:
    """§6.3: on expiry the first segment is lost, and what was sent long ago; not the newest."""
    wire = Wire(mptcp=False, nodelay=True, min_rto_us=ms(200), congestion_control="newreno")
    peer = Peer(wire)
    connection = peer.handshake(mss=MSS, rtt=ms(100))
    snd = peer.subflow().snd
    connection.send(bytes(2 * MSS))
    peer.drain()
    snd.tlp.cancel()
    wire.advance(snd.rto_deadline - wire.zero - ms(50))
    connection.send(bytes(MSS))
    peer.drain()
    snd.tlp.cancel()
    peer.expect(ACK, seq=edge(0), within=ms(60))
    status = {chunk.seq - snd.iss: chunk.status for chunk in snd.board.chunks}
    assert status == {1: 0, 1001: 1, 2001: 0}  # in flight, lost, in flight


def test_window_of_reordering() -> None:
    """§6.2 step 4 in numbers: a quarter of the minimal RTT, times what DSACKs asked, <= SRTT."""
    rack = Rack(0)
    assert rack.reo_wnd(False, 40_000, 60_000) == 10_000
    assert rack.reo_wnd(True, 40_000, 60_000) == 0
    rack.reordering_seen = True
    assert rack.reo_wnd(True, 40_000, 60_000) == 10_000
    rack.on_dsack(100, 200)
    assert rack.reo_wnd(True, 40_000, 60_000) == 20_000
    rack.on_dsack(150, 300)  # the same round
    assert rack.reo_wnd(True, 40_000, 60_000) == 20_000
    for una in range(300, 1300, 100):
        rack.on_dsack(una, una + 50)
    assert rack.reo_wnd(True, 40_000, 60_000) == 60_000
    for _ in range(REO_WND_PERSIST):
        assert rack.reo_wnd_mult > 1
        rack.on_recovered()
    assert rack.reo_wnd(True, 40_000, 60_000) == 10_000


def test_most_recently_sent() -> None:
    """§6.2 step 2: RACK.xmit_ts and RACK.end_seq never go back; ties are broken by sequence."""
    rack = Rack(0)
    rack.on_delivered(1000, 500, 3000)
    assert (rack.xmit_at, rack.end_seq, rack.rtt) == (1000, 500, 2000)
    rack.on_delivered(900, 900, 3100)
    assert (rack.xmit_at, rack.end_seq, rack.rtt) == (1000, 500, 2000)
    rack.on_delivered(1000, 600, 3200)
    assert (rack.xmit_at, rack.end_seq, rack.rtt) == (1000, 600, 2200)


# -- TLP -----------------------------------------------------------------------------------------


def test_probe_time_out() -> None:
    """§7.2, TLP_calc_PTO: 2 SRTT, more for a lone segment, one second without SRTT, at most RTO."""
    tlp = TailLossProbe()
    rtt = RttEstimator(1_000_000, 200_000, 120_000_000)
    far = 1 << 60
    tlp.arm(5, rtt, False, far)
    assert tlp.deadline == 5 + 1_000_000
    rtt.sample(50_000, 0)
    tlp.arm(5, rtt, False, far)
    assert tlp.deadline == 5 + 100_000
    tlp.arm(5, rtt, True, far)
    assert tlp.deadline == 5 + 100_000 + MAX_ACK_DELAY_US
    tlp.arm(5, rtt, True, 250_000)
    assert tlp.deadline == 250_000
    fast = RttEstimator(1_000_000, 200_000, 120_000_000)
    fast.sample(100, 0)
    tlp.arm(5, fast, False, far)
    assert tlp.deadline == 5 + MIN_PTO_US


def test_last_segment_again() -> None:
    """§7.3: no new data, so the last segment is the probe; its ACK starts fast recovery."""
    peer = flight()
    peer.send(ACK, ack=edge(7))  # the last three are lost
    peer.expect_nothing(until=ms(299))
    peer.expect(ACK, seq=edge(9), at=ms(300))
    assert peer.subflow().cc.in_slow_start
    peer.send(ACK, ack=edge(7), options=[peer.sacked((edge(9), edge(10)))], at=ms(400))
    assert seqs(peer.drain()) == segments(7, 9)
    assert peer.subflow().snd.recovery is Recovery.FAST


@pytest.mark.mib("TcpExtTCPLossProbes")
def test_new_data_as_a_probe() -> None:
    """§7.3: the congestion window does not hold the probe back."""
    peer = flight(40_000)
    assert peer.subflow().snd.congestion_room() == 0
    peer.expect(ACK, seq=edge(10), at=ms(200))
    peer.expect_nothing(until=ms(300))  # one probe, then the RTO


def test_probe_respects_the_window() -> None:
    """§7.3: new data only where the receive window has room."""
    peer = flight(40_000)
    peer.window = 10 * MSS
    peer.send(ACK, ack=edge(0), window=10 * MSS)
    peer.drain()
    peer.expect(ACK, seq=edge(9), within=ms(300))


def test_no_probe_in_recovery_or_with_sacks() -> None:
    """§7.2: the SACKs will tell; RACK's timer does the rest."""
    peer = flight()
    assert peer.subflow().snd.tlp.deadline == ms(200) + peer.wire.zero
    peer.send(ACK, ack=edge(1), options=[peer.sacked((edge(2), edge(3)))])
    assert peer.subflow().snd.tlp.deadline > seconds(1000)


def test_no_probe_without_sack() -> None:
    """§7.2: it needs SACK to tell what the probe brought."""
    peer = start(sack=False, rack_tlp=True)
    assert peer.subflow().snd.tlp.deadline > seconds(1000)


def test_time_out_is_put_off_by_the_probe() -> None:
    """§7.3: the RTO is restarted when the probe is sent."""
    wire = Wire(mptcp=False, nodelay=True, min_rto_us=ms(200))
    peer = Peer(wire)
    connection = peer.handshake(mss=MSS, rtt=ms(100))
    rto = peer.subflow().snd.rtt.rto
    connection.send(bytes(2 * MSS))
    peer.drain()
    peer.expect(ACK, seq=edge(1), at=ms(200))
    peer.expect(ACK, seq=edge(0), at=ms(200) + rto)


@pytest.mark.mib("TcpExtTCPLossProbeRecovery")
def test_a_repaired_loss_reduces_the_window() -> None:
    """§7.4.2 (2): the probe filled the hole unseen; what was sent after it is acknowledged."""
    peer = flight()
    peer.send(ACK, ack=edge(9))
    peer.expect(ACK, seq=edge(9), within=seconds(1))
    cwnd = peer.subflow().cc.cwnd
    peer.send(ACK, ack=edge(10), at=peer.wire.time + ms(100))
    assert peer.subflow().cc.cwnd >= cwnd  # nothing is known yet
    peer.subflow().meta.send(bytes(MSS))
    peer.drain()
    peer.send(ACK, ack=edge(11), at=peer.wire.time + ms(100))
    assert peer.subflow().cc.cwnd < cwnd
    assert peer.subflow().snd.recovery is Recovery.OPEN


def test_a_repaired_loss_is_not_taken_back_with_an_older_one() -> None:
    """§7.4.2 (2), RFC 3708 §2: DSACKs of what was resent before say nothing of the probe's loss."""
    peer = flight()
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(5)))])
    assert seqs(peer.drain()) == [edge(0)]
    peer.send(ACK, ack=edge(10), at=ms(200))
    peer.subflow().meta.send(bytes(MSS))
    peer.drain()
    peer.expect(ACK, seq=edge(10), within=seconds(1))
    peer.send(ACK, ack=edge(11))
    peer.subflow().meta.send(bytes(MSS))
    peer.drain()
    before = peer.subflow().cc.cwnd
    peer.send(ACK, ack=edge(12), at=peer.wire.time + ms(100))
    reduced = peer.subflow().cc.cwnd
    assert reduced < before
    for number in (0, 10):
        peer.send(ACK, ack=edge(12), options=[peer.sacked((edge(number), edge(number + 1)))])
    assert (peer.subflow().cc.cwnd, peer.subflow().snd.spurious) == (reduced, 0)


@pytest.mark.parametrize("dsack", [True, False])
def test_a_needless_probe_reduces_nothing(dsack: bool) -> None:
    """§7.4.2 (1), (3): a DSACK or a duplicate ACK tells that both copies arrived."""
    peer = flight()
    peer.send(ACK, ack=edge(9))
    peer.expect(ACK, seq=edge(9), within=seconds(1))
    peer.send(ACK, ack=edge(10))
    options = [peer.sacked((edge(9), edge(10)))] if dsack else []
    peer.subflow().meta.send(bytes(MSS))
    peer.drain()
    cwnd = peer.subflow().cc.cwnd
    peer.send(ACK, ack=edge(10), options=options)
    peer.send(ACK, ack=edge(11), at=peer.wire.time + ms(100))
    assert peer.subflow().cc.cwnd >= cwnd


@pytest.mark.parametrize(
    ("is_retrans", "ack", "dsack", "bare", "verdict"),
    [
        (True, 99, None, False, Verdict.NONE),
        (False, 100, None, False, Verdict.NO_LOSS),
        (True, 100, None, False, Verdict.NONE),
        (True, 100, None, True, Verdict.NO_LOSS),
        (True, 100, (50, 100), False, Verdict.NO_LOSS),
        (True, 101, (50, 100), False, Verdict.NO_LOSS),
        (True, 101, None, False, Verdict.REPAIRED),
        (True, 101, (40, 90), False, Verdict.REPAIRED),
    ],
)
def test_verdicts(
    is_retrans: bool, ack: int, dsack: tuple[int, int] | None, bare: bool, verdict: Verdict
) -> None:
    """§7.4.2, TLP_process_ack, line by line; an episode ends with its verdict."""
    tlp = TailLossProbe()
    tlp.end_seq = 100
    tlp.is_retrans = is_retrans
    assert tlp.on_ack(ack, dsack, bare) is verdict
    assert (tlp.end_seq < 0) == (verdict is not Verdict.NONE)
    if verdict is not Verdict.NONE:
        assert tlp.on_ack(ack, dsack, bare) is Verdict.NONE


def test_probe_in_place_of_the_timer() -> None:
    """§7.2: PTO is never later than the RTO and then comes in its place: no window is reduced
    before the probe, too, has had its time (§7.3)."""
    wire = Wire(mptcp=False, nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(rtt=ms(100))
    connection.send(b"x")
    peer.expect(length=1, at=0)
    snd, window = peer.subflow().snd, peer.subflow().cc.cwnd
    peer.expect(length=1, at=ms(300))  # 2 SRTT + max_ack_delay would be 400
    assert (snd.timeouts, snd.cc.cwnd) == (0, window)
    peer.expect(length=1, at=ms(600))
    assert snd.timeouts == 1


def test_no_probe_for_what_is_sacked() -> None:
    """§7.2: with anything sacked RACK's timer finds the losses, however late it comes."""
    peer = flight()
    rack = peer.subflow().snd.rack
    rack.reordering_seen, rack.reo_wnd_mult = True, 4
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(9), edge(10)))], at=ms(150))
    peer.expect_nothing(until=ms(249))
    peer.expect(ACK, seq=edge(0), at=ms(250))
