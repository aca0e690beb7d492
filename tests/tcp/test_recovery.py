"""Loss recovery and congestion: RFC 5681, RFC 6582 (without SACK), RFC 6675 (with SACK)."""

from __future__ import annotations

import pytest

from mptcp.wire.tcp import ACK
from tests.peer import Peer, Seen, Wire, ms, seconds

MSS = 1000


def start(*, sack: bool, data: int = 40_000, window: int = 10, rack_tlp: bool = False) -> Peer:
    """A connection that has sent a window of 10 segments, RTT 100 ms, `newreno`."""
    wire = Wire(
        mptcp=False,
        nodelay=True,
        congestion_control="newreno",
        min_rto_us=seconds(1),
        rack_tlp=rack_tlp,
    )
    peer = Peer(wire)
    connection = peer.handshake(mss=MSS, sack=sack, rtt=ms(100))
    peer.subflow().cc.cwnd = window * MSS
    connection.send(bytes(data))
    assert [seen.seq for seen in peer.drain()] == segments(0, window)
    wire.advance(ms(100))
    return peer


def segments(first: int, stop: int) -> list[int]:
    """Sequence numbers of segments [first, stop)."""
    return [1 + number * MSS for number in range(first, stop)]


def seqs(seen: list[Seen]) -> list[int]:
    """What was sent, in order."""
    return [segment.seq for segment in seen if segment.data]


def edge(number: int) -> int:
    """The sequence number where segment `number` begins."""
    return 1 + number * MSS


def test_slow_start() -> None:
    """RFC 5681 §3.1: cwnd grows by what each ACK covers, at most one SMSS for one segment."""
    peer = start(sack=True)
    for number in range(1, 6):
        peer.send(ACK, ack=edge(number))
        assert seqs(peer.drain()) == segments(8 + 2 * number, 10 + 2 * number)


def test_stretch_ack_in_slow_start() -> None:
    """One ACK of the whole window doubles it (RFC 3465 without its limit: offload's ACKs)."""
    peer = start(sack=True)
    peer.send(ACK, ack=edge(10))
    assert seqs(peer.drain()) == segments(10, 30)


def test_congestion_avoidance() -> None:
    """RFC 5681 §3.1: about one SMSS for each window acknowledged."""
    peer = start(sack=True, data=200_000)
    cc = peer.subflow().cc
    cc.ssthresh = 10 * MSS
    for window in range(10, 14):
        assert cc.cwnd == window * MSS
        for _ in range(window):
            peer.send(ACK, ack=peer.subflow().snd.una - peer.stack_isn + MSS)
        peer.drain()
    assert cc.cwnd == 14 * MSS


def test_growth_needs_a_used_window() -> None:
    """RFC 7661 §1: a window that the application does not fill says nothing and does not grow."""
    peer = start(sack=True, data=10_000)
    peer.send(ACK, ack=edge(10))
    cwnd = peer.subflow().cc.cwnd
    for _ in range(20):
        peer.subflow().meta.send(b"x" * 100)
        peer.drain()
        peer.send(ACK)
    assert peer.subflow().cc.cwnd == cwnd


@pytest.mark.parametrize("sack", [True, False])
def test_fast_retransmit(sack: bool) -> None:
    """RFC 5681 §3.2: the third duplicate ACK resends the missing segment, the second does not."""
    peer = start(sack=sack)
    for count in (2, 3):
        blocks = [peer.sacked((edge(1), edge(count)))] if sack else []
        peer.send(ACK, ack=edge(0), options=blocks)
        assert edge(0) not in seqs(peer.drain())
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(4)))] if sack else [])
    sent = seqs(peer.drain())
    assert sent[0] == edge(0)
    assert sent.count(edge(0)) == 1


@pytest.mark.parametrize("data", [10_000, 40_000])
def test_ssthresh_and_cwnd_after_loss(data: int) -> None:
    """RFC 5681 (4): ssthresh = max(FlightSize / 2, 2*SMSS); RFC 6675 §5 (4.2): cwnd = ssthresh.

    FlightSize is what was sent and not yet *cumulatively* acknowledged (§2), and what limited
    transmit added does not count (§3.2 (1)): 10 segments here.
    """
    peer = start(sack=True, data=data)
    for count in (2, 3, 4):
        peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(count)))])
    cc = peer.subflow().cc
    assert cc.ssthresh == 5 * MSS
    assert cc.cwnd == cc.ssthresh


@pytest.mark.mib("TcpExtTCPRenoRecovery")
def test_full_recovery_with_newreno() -> None:
    """RFC 6582 §3.2 (3): a full ACK ends recovery with cwnd no larger than ssthresh (or flight)."""
    peer = start(sack=False, data=10_000)
    for _ in range(3):
        peer.send(ACK, ack=edge(0))
    assert seqs(peer.drain()) == [edge(0)]
    for _ in range(6):
        peer.send(ACK, ack=edge(0))
    peer.expect_nothing()
    peer.send(ACK, ack=edge(10))
    cc = peer.subflow().cc
    assert cc.ssthresh == 5 * MSS
    assert MSS <= cc.cwnd <= cc.ssthresh + MSS


def test_partial_acks_of_newreno() -> None:
    """RFC 6582 §3.2 (3): a partial ACK resends the next hole at once, without three duplicates."""
    peer = start(sack=False, data=10_000)
    for _ in range(3):
        peer.send(ACK, ack=edge(0))
    assert seqs(peer.drain()) == [edge(0)]
    peer.send(ACK, ack=edge(4))
    assert seqs(peer.drain()) == [edge(4)]
    peer.send(ACK, ack=edge(7))
    assert seqs(peer.drain()) == [edge(7)]
    peer.send(ACK, ack=edge(10))
    peer.expect_nothing()
    assert peer.subflow().snd.bytes_retransmitted == 3 * MSS


def test_no_second_reduction_in_one_window() -> None:
    """RFC 6582 §3.2 (1): dup ACKs that do not cover `recover` start no new fast retransmit."""
    peer = start(sack=False, data=10_000)
    for _ in range(3):
        peer.send(ACK, ack=edge(0))
    peer.drain()
    peer.send(ACK, ack=edge(5))
    assert seqs(peer.drain()) == [edge(5)]
    ssthresh = peer.subflow().cc.ssthresh
    for _ in range(5):
        peer.send(ACK, ack=edge(5))
    peer.send(ACK, ack=edge(10))
    assert peer.subflow().cc.ssthresh == ssthresh


def test_sack_recovers_several_holes() -> None:
    """RFC 6675 §4 IsLost: lost is what has more than (DupThresh - 1)*SMSS sacked above it."""
    peer = start(sack=True, data=10_000)
    # 0, 2 and 5 are missing, 9 is in flight still.
    holes = [(edge(1), edge(2)), (edge(3), edge(5)), (edge(6), edge(9))]
    peer.send(ACK, ack=edge(0), options=[peer.sacked(*holes)])
    assert seqs(peer.drain()) == [edge(0), edge(2), edge(5)]
    peer.send(ACK, ack=edge(10))
    peer.expect_nothing(until=seconds(10))
    assert peer.subflow().snd.bytes_retransmitted == 3 * MSS


def test_not_lost_below_the_threshold() -> None:
    """RFC 6675 §4: with two segments sacked above it a hole is not lost (it may be reordered)."""
    peer = start(sack=True, data=10_000)
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(3)))])
    peer.expect_nothing()
    peer.send(ACK, ack=edge(3))
    assert peer.subflow().snd.bytes_retransmitted == 0


def test_pipe_limits_what_is_sent_in_recovery() -> None:
    """RFC 6937 §3: while the pipe is above ssthresh, one segment for two delivered (RecoverFS 10,
    ssthresh 5), CEIL to a whole one; RFC 6675 §4 NextSeg: lost segments first, then new data."""
    peer = start(sack=True)
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(4)))])
    # prr_delivered 3: CEIL(1.5).
    assert seqs(peer.drain()) == [edge(0), edge(10)]
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(5)))])
    assert seqs(peer.drain()) == []  # prr_delivered 4: 2 - prr_out 2
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(6)))])
    assert seqs(peer.drain()) == [edge(11)]  # CEIL(2.5) - 2
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(7)))])
    assert seqs(peer.drain()) == []  # the pipe is 5: ssthresh - pipe
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(9)))])
    assert seqs(peer.drain()) == [edge(12)]  # the pipe is 4


def test_recover_fs_leaves_out_what_was_sacked_before() -> None:
    """RFC 9937 §6.1 (RecoverFS): segments of limited transmit do not make the reduction slower.

    A window of 10, two SACKs one by one, each answered by a new segment; the third begins recovery:
    SND.NXT - SND.UNA is 12, but 10 can be delivered in it. So sndcnt is CEIL(n * 5 / 10).
    """
    peer = start(sack=True, rack_tlp=True)
    for number in (2, 3):
        peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(number)))])
        assert seqs(peer.drain()) == [edge(8 + number)]
    sent = []
    for number in range(4, 9):
        peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(number)))])
        sent.append(seqs(peer.drain()))
    assert peer.subflow().snd.prr.recover_fs == 10 * MSS
    assert sent == [[edge(0)], [], [edge(12)], [], [edge(13)]]


def test_lost_retransmission_halves_the_window_again() -> None:
    """RFC 5681 §4.3: two signs, lowered twice: half of the window that the first left, not half of
    what is in the pipe while the recovery goes on."""
    peer = start(sack=True, rack_tlp=True, window=20)
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(4)))])
    assert peer.subflow().cc.ssthresh == 10 * MSS
    assert edge(0) in seqs(peer.drain())
    peer.send(ACK, ack=edge(0), at=ms(150), options=[peer.sacked((edge(1), edge(20)))])
    sent = seqs(peer.drain())
    # What was sent after the retransmission arrives a round trip later: the retransmission did not.
    top = max(sent) + MSS
    peer.send(ACK, ack=edge(0), at=ms(260), options=[peer.sacked((edge(1), top))])
    assert edge(0) in seqs(peer.drain())
    assert peer.subflow().cc.ssthresh == 5 * MSS


def test_lost_retransmission_waits_for_the_timer() -> None:
    """RFC 6675 §5.1, RFC 6298: the resent segment lost again is resent by the RTO."""
    peer = start(sack=True, data=10_000)
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(10)))])
    assert seqs(peer.drain()) == [edge(0)]
    again = peer.expect(ACK, seq=edge(0), within=seconds(3))
    assert again.sent_at >= ms(100) + seconds(1)
    peer.send(ACK, ack=edge(10))
    peer.expect_nothing(until=seconds(60))


def test_lost_retransmission_is_seen_by_sack() -> None:
    """RFC 8985 §3's case: more than two segments that were sent after the retransmission are
    sacked, so it is lost too, and no time-out is needed."""
    peer = start(sack=True)
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(10)))])
    sent = seqs(peer.drain())
    assert sent[:4] == [edge(0), *segments(10, 13)]
    for stop in (11, 12):
        peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(stop)))])
        assert edge(0) not in seqs(peer.drain())
    for stop in (13, 14):
        peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(stop)))])
    assert seqs(peer.drain()).count(edge(0)) == 1


def test_timeout_resends_what_is_not_sacked() -> None:
    """RFC 6675 §5.1: after an RTO the SACK information is kept; slow start from one segment."""
    peer = start(sack=True, data=10_000)
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(3), edge(5)))])
    peer.expect_nothing()
    peer.expect(ACK, seq=edge(0), within=seconds(3))
    peer.expect_nothing()
    cc = peer.subflow().cc
    assert cc.cwnd == MSS
    assert cc.ssthresh == 5 * MSS
    peer.send(ACK, ack=edge(1), options=[peer.sacked((edge(3), edge(5)))])
    assert seqs(peer.drain()) == segments(1, 3)
    peer.send(ACK, ack=edge(5))
    assert seqs(peer.drain()) == segments(5, 9)


def test_ssthresh_is_held_over_repeated_timeouts() -> None:
    """RFC 5681 §3.1: when the segment has been resent already, ssthresh is held constant."""
    peer = start(sack=True, data=10_000)
    for _ in range(4):
        peer.expect(ACK, seq=edge(0), within=seconds(20))
        assert peer.subflow().cc.ssthresh == 5 * MSS
        assert peer.subflow().cc.cwnd == MSS


@pytest.mark.mib("TcpExtTCPSACKReneging")
def test_reneging_receiver() -> None:
    """RFC 2018 §8: SACK is advisory; after a time-out what was sacked may have to be resent."""
    peer = start(sack=True, data=10_000)
    peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(10)))])
    assert seqs(peer.drain()) == [edge(0)]
    peer.send(ACK, ack=edge(1))  # the block at the edge is gone: the receiver reneged
    resent = set()
    for number in range(1, 10):
        if edge(number) not in resent:
            resent.update(seqs([peer.expect(ACK, within=seconds(100))]))
        peer.send(ACK, ack=edge(number + 1))
        resent.update(seqs(peer.drain()))
    assert resent == set(segments(1, 10))
    peer.expect_nothing(until=peer.wire.time + seconds(120))


def test_idle_restart() -> None:
    """RFC 5681 §4.1: after an idle RTO cwnd = min(IW, cwnd) before more is sent."""
    peer = start(sack=True, data=30_000)
    for stop in (10, 30):
        peer.send(ACK, ack=edge(stop))
    peer.drain()
    assert peer.subflow().cc.cwnd > 20 * MSS
    peer.wire.advance(seconds(30))
    peer.subflow().meta.send(bytes(40_000))
    assert len(peer.drain()) == 10


def test_duplicate_ack_needs_nothing_new() -> None:
    """RFC 5681 §2: no duplicate if it carries data, changes the window, or nothing is in flight."""
    peer = start(sack=False, data=10_000)
    for count in range(6):
        peer.send(ACK, ack=edge(0), window=30_000 + count)
        peer.send(ACK, ack=edge(0), window=30_000 + count, data=b"x")
    assert seqs(peer.drain()) == []
    peer.send(ACK, ack=edge(10))
    for _ in range(6):
        peer.send(ACK, ack=edge(10))
    assert seqs(peer.drain()) == []


def test_nonsense_sack_is_harmless() -> None:
    """Blocks outside (SND.UNA, SND.NXT], turned round or huge change nothing."""
    peer = start(sack=True, data=10_000)
    snd = peer.subflow().snd
    for block in (
        (edge(5), edge(5)),
        (edge(6), edge(2)),
        (edge(9), edge(40)),
        (edge(0) - 5000, edge(0) - 1000),
        (edge(3) + (1 << 31), edge(4) + (1 << 31)),
    ):
        peer.send(ACK, ack=edge(0), options=[peer.sacked(block)])
    assert seqs(peer.drain()) == []
    assert snd.board.in_flight == 10 * MSS
    peer.send(ACK, ack=edge(10))
    peer.expect_nothing(until=seconds(60))
