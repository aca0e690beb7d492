"""wVegas (draft-xu-mptcp-congestion-control-05) by numbers."""

from __future__ import annotations

import pytest

from mptcp.tcp.congestion import CongestionControl
from mptcp.wvegas import GRAIN_US, WVegas, drained, queued, weighted_alpha

MSS = 1000
MS = 1000


def control(siblings: list[CongestionControl], segments: int, base_ms: int) -> WVegas:
    """A controller in congestion avoidance that knows the length of its path."""
    found = WVegas(MSS, segments * MSS, siblings)
    found.ssthresh = found.cwnd
    found.min_rtt = found.srtt = base_ms * MS
    siblings.append(found)
    return found


def round_trip(cc: WVegas, rtt_us: int) -> None:
    """Ten ACKs with this RTT, the last of which ends the round."""
    cc.latest_rtt = cc.srtt = rtt_us
    for number in range(10):
        cc.rounds += number == 9
        cc.on_ack(MSS)


def test_the_formulas() -> None:
    """draft-xu §3, §4: 20 segments at 120 instead of 100 ms: a sixth waits. Weights by rate."""
    assert queued(20_000, 120_000, 100_000) == pytest.approx(20_000 / 6)
    assert queued(20_000, 100_000, 100_000) == 0
    assert weighted_alpha(1.0, 1.0) == 10
    assert weighted_alpha(3.0, 4.0) == 7.5
    assert weighted_alpha(1.0, 100.0) == 2  # the least
    assert drained(20_000, 200_000, 100_000) == 5_000


def test_below_the_target_it_grows_above_it_shrinks_by_a_segment() -> None:
    """draft-xu §4, step 2; the target of a single subflow becomes 10 once 2 are reached."""
    cc = control([], 20, 100)
    round_trip(cc, 105 * MS)  # 20 * 5 / 105 = 0.95 < 2
    assert (cc.cwnd, cc.alpha) == (21 * MSS, 2)
    round_trip(cc, 112 * MS)  # 21 * 12 / 112 = 2.25: the target is reached
    assert (cc.cwnd, cc.alpha) == (22 * MSS, 10)
    cc.cwnd = 120 * MSS
    round_trip(cc, 110 * MS)  # 120 * 10 / 110 = 10.9
    assert (cc.cwnd, cc.alpha) == (119 * MSS, 10)


def test_the_target_is_shared_by_rate() -> None:
    """draft-xu §4, step 1: weight_r = rate_r / sum of rates; all targets together are the total."""
    siblings: list[CongestionControl] = []
    first, second = control(siblings, 30, 100), control(siblings, 15, 100)
    round_trip(first, 150 * MS)
    assert first.alpha == 10  # the other has not reached its target yet
    round_trip(second, 125 * MS)  # rates 30 / 150 and 15 / 125: 5 to 3
    assert second.alpha == pytest.approx(10 * 3 / 8)
    first.cwnd = 30 * MSS
    round_trip(first, 150 * MS)
    assert first.alpha == pytest.approx(10 * 5 / 8)
    second.now = second.acked_at = 10_000_000  # the first is idle since
    second.cwnd = 15 * MSS
    round_trip(second, 400 * MS)
    assert second.alpha == 10


def test_slow_start_ends_when_a_segment_waits() -> None:
    """draft-xu §4: gamma = 1; what is left fits the path without a queue, and a segment."""
    cc = control([], 40, 100)
    cc.ssthresh = 1 << 40
    round_trip(cc, 100 * MS)
    assert (cc.cwnd, cc.in_slow_start) == (50 * MSS, True)  # every byte counts
    cc.latest_rtt = 125 * MS
    for number in range(10):
        cc.rounds += number == 9
        cc.on_ack(MSS)
    # 59 segments when the round ends: 59 * 100 / 125 = 47.2, and one.
    assert (cc.cwnd, cc.in_slow_start) == (48_200, False)


def test_back_off_when_the_queue_has_doubled() -> None:
    """draft-xu §4, step 3: twice the least queueing delay: cwnd * base / (2 * rtt)."""
    cc = control([], 300, 100)
    round_trip(cc, 102 * MS)  # 300 * 2 / 102 = 5.9: the first target is reached, the next is not
    assert (cc.alpha, cc.queue_delay, cc.cwnd) == (10, 0, 301 * MSS)
    for rtt, delay, segments in ((104, 4, 300), (107, 4, 299), (105, 4, 298)):
        round_trip(cc, rtt * MS)
        assert (cc.queue_delay, cc.cwnd) == (delay * MS, segments * MSS)
    round_trip(cc, 108 * MS)  # shrunk to 297 first
    assert (cc.queue_delay, cc.cwnd) == (0, 297 * MSS * 100 // 216)
    long = control([], 20_000, 100)
    long.alpha = 10
    round_trip(long, 100 * MS + 100)
    assert long.queue_delay == GRAIN_US  # jitter is no queue
    round_trip(long, 100 * MS + 1900)
    assert long.cwnd == 19_998 * MSS


def test_a_round_with_few_samples_says_nothing() -> None:
    """draft-xu §4: it needs RTTs of the round; without them it grows as TCP does."""
    cc = control([], 20, 100)
    cc.latest_rtt = 300 * MS
    cc.rounds += 1
    cc.on_ack(2 * MSS)
    assert (cc.cwnd, cc.queue_delay) == (21 * MSS, 0)


def test_losses_are_tcps() -> None:
    """draft-xu §4: half at a loss, one segment after a time-out; never below two otherwise."""
    siblings: list[CongestionControl] = []
    cc, other = control(siblings, 20, 100), control(siblings, 20, 100)
    round_trip(cc, 150 * MS)
    assert cc.rate > 0
    cc.cwnd = 20 * MSS
    cc.on_loss(20 * MSS)
    assert (cc.cwnd, cc.ssthresh) == (10 * MSS, 10 * MSS)
    cc.on_timeout(10 * MSS, first=True)
    assert (cc.cwnd, cc.ssthresh, cc.rate) == (MSS, 5 * MSS, 0)
    other.cwnd = 12 * MSS
    other.queue_delay = 500 * MS
    other.alpha = 10
    round_trip(other, 10_000 * MS)
    assert other.cwnd == 2 * MSS
