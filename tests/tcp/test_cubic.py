"""CUBIC (RFC 9438). The expected numbers are worked out from the RFC's equations by hand.

Windows are written in segments of 1000 bytes, so that a byte is a thousandth of a segment.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcp.tcp.congestion import INFINITE_SSTHRESH, CongestionControl, NewReno
from mptcp.tcp.cubic import Cubic, cube_root, time_to_plateau

MSS = 1000
RTT = 100_000


def cubic(window: int, *, rtt: int = RTT) -> Cubic:
    """A controller in slow start, whose window is `window` segments, at time 1 s."""
    cc = Cubic(MSS, 10 * MSS, [])
    cc.cwnd = window * MSS
    cc.now = 1_000_000
    cc.srtt = cc.latest_rtt = cc.min_rtt = rtt
    return cc


def after_loss(window: int, *, rtt: int = RTT) -> Cubic:
    """After a loss at `window` segments, at the first ACK of congestion avoidance (t = 0)."""
    cc = cubic(window, rtt=rtt)
    cc.on_loss(window * MSS)
    cc.on_recovered()
    cc.on_ack(1)
    return cc


def rounds(cc: CongestionControl, until: int, per_ack: int = 1) -> Iterator[int]:
    """ACKs of `per_ack` segments, evenly over each round trip, up to the time `until` µs.

    Yields the time after each ACK.
    """
    clock = float(cc.now)
    while clock < until:
        acked = per_ack * MSS
        clock += acked * cc.srtt / cc.cwnd
        cc.now = int(clock)
        cc.on_ack(acked)
        yield cc.now


# -- the curve ------------------------------------------------------------------------------------


@given(st.integers(0, 1 << 200))
def test_cube_root(value: int) -> None:
    """RFC 9438 §4.2 eq. 2: exact, so that K is the same on every machine."""
    root = cube_root(value)
    assert root**3 <= value < (root + 1) ** 3
    assert cube_root(-value) == (0 if value else root)


@pytest.mark.parametrize(
    ("distance", "microseconds"),
    [
        (30, 4_217_163),  # cube root of 30 / 0.4 = 75
        (12, 3_107_232),  # of 30
        (3200, 20_000_000),  # of 8000
        (0, 0),
        (-5, 0),
    ],
)
def test_time_to_plateau(distance: int, microseconds: int) -> None:
    """RFC 9438 §4.2 eq. 2: K = cube root of (W_max - cwnd_epoch) / C, with C = 0.4 (§5.1)."""
    assert time_to_plateau(distance * MSS, MSS) == microseconds


def test_multiplicative_decrease() -> None:
    """RFC 9438 §4.6: ssthresh = 0.7 * FlightSize and cwnd = ssthresh, W_max = cwnd before."""
    cc = cubic(100)
    cc.on_loss(90 * MSS)
    assert (cc.ssthresh, cc.cwnd, cc.w_max, cc.cwnd_prior) == (
        63 * MSS,
        63 * MSS,
        100 * MSS,
        100 * MSS,
    )
    assert cc.in_recovery


def test_one_step_in_the_concave_region() -> None:
    """RFC 9438 §4.2, §4.4: the step is (target - cwnd) / cwnd per segment, target W_cubic(t + RTT).

    W_cubic(0.6 s) = 100 - 0.4 * (4.217163 - 0.6)^3 = 81.069; (81.069 - 70) / 70 * 7 = 1.1069.
    """
    cc = after_loss(100)
    assert cc.cwnd == 70 * MSS
    cc.now += 500_000
    cc.on_ack(7 * MSS)
    assert cc.cwnd == 71_106


def test_the_curve() -> None:
    """RFC 9438 §4.2 eq. 1: concave up to W_max at K = 4.217 s, convex beyond.

    100 - 0.4 * (4.217163 - t)^3 at t = 1 .. 6 s; cwnd follows within a round trip's growth.
    """
    cc = after_loss(100, rtt=50_000)
    cc.cwnd_prior = 1 << 40  # leaves Reno's estimate behind: §4.3 is tested below
    start = cc.now
    expected = {1: 86.681, 2: 95.640, 3: 99.279, 4: 99.996, 5: 100.192, 6: 102.267}
    reno = cc.w_est
    for second, window in expected.items():
        for _ in rounds(cc, start + second * 1_000_000):
            cc.w_est = reno
        assert cc.cwnd / MSS == pytest.approx(window, abs=0.7)


@pytest.mark.parametrize("per_ack", [2, 10, 44])
def test_stretched_acks_give_the_same_curve(per_ack: int) -> None:
    """RFC 9438 §4.3, RFC 3465: bytes are counted, so an ACK for 44 segments is 44 ACKs."""
    plain, stretched = after_loss(400), after_loss(400)
    ends = [plain.now + seconds * 1_000_000 for seconds in (1, 2, 4, 6, 8, 12)]
    for end in ends:
        for _ in rounds(plain, end):
            pass
        for _ in rounds(stretched, end, per_ack):
            pass
        assert stretched.cwnd == pytest.approx(plain.cwnd, rel=0.012)


def test_the_target_is_at_most_half_as_much_again() -> None:
    """RFC 9438 §4.2: target <= 1.5 * cwnd, however far W_cubic is ahead."""
    cc = after_loss(100)
    cc.now += 60_000_000  # W_cubic(60 s) is above 69,000 segments
    cc.on_ack(70 * MSS)
    assert cc.cwnd == 105 * MSS


def test_no_step_below_the_window() -> None:
    """RFC 9438 §4.2: target = cwnd where W_cubic(t + RTT) is below cwnd; the window stands."""
    cc = after_loss(100, rtt=1)
    cc.now += 2_000_000
    for _ in range(200):
        cc.w_est = 0.0  # not Reno's estimate, which knows no target
        cc.on_ack(100 * MSS)  # many windows at one instant: cwnd reaches W_cubic and stays
    # 100 - 0.4 * (4.217163 - 2)^3 = 95.640
    assert cc.cwnd == pytest.approx(95_640, abs=2)
    cc.cwnd = 97 * MSS
    cc.on_ack(50 * MSS)
    assert cc.cwnd == 97 * MSS


# -- the Reno-friendly region ---------------------------------------------------------------------


def test_reno_friendly_region() -> None:
    """RFC 9438 §4.3 eq. 4: W_est grows by alpha_cubic = 3 * 0.3 / 1.7 = 0.529 a round trip.

    At 5 ms W_cubic is far below it, so cwnd = W_est: 14 segments + 10 round trips * 0.529.
    """
    cc = after_loss(20, rtt=5_000)
    for number in range(10):
        cc.now += 5_000
        cc.on_ack(cc.cwnd)
        assert cc.cwnd / MSS == pytest.approx(14 + 0.5294 * (number + 1), abs=0.002)


def test_alpha_is_one_from_the_window_of_the_last_congestion() -> None:
    """RFC 9438 §4.3: once W_est >= cwnd_prior, alpha_cubic is 1 as Reno's."""
    cc = after_loss(20, rtt=1_000)
    steps = []
    while cc.cwnd < 23 * MSS:
        before = cc.cwnd
        cc.now += 1_000
        cc.on_ack(cc.cwnd)
        steps.append((before, cc.cwnd - before))
    below = {step for window, step in steps if window < 20 * MSS}
    above = {step for window, step in steps if window >= 20 * MSS}
    assert below <= {529, 530}
    assert above <= {999, 1000}
    assert below
    assert above


def average_window(cc: CongestionControl, loss: float, rtt: int, losses: int) -> float:
    """Time average of cwnd in segments when one of 1/`loss` segments is lost, from the 5th loss."""
    cc.srtt = cc.latest_rtt = cc.min_rtt = rtt
    cc.ssthresh = cc.cwnd
    area = span = sent = 0.0
    seen = 0
    per_ack = 1 if loss > 1e-4 else 8
    clock = float(cc.now)
    while seen < losses:
        step = per_ack * MSS * rtt / cc.cwnd
        clock += step
        cc.now = int(clock)
        cc.rounds = int(clock) // rtt
        cc.on_ack(per_ack * MSS)
        if seen >= 5:
            area += cc.cwnd * step
            span += step
        sent += per_ack
        if sent * loss >= 1:
            sent -= 1 / loss
            seen += 1
            cc.on_loss(cc.cwnd)
            cc.on_recovered()
    return area / span / MSS


@pytest.mark.parametrize(
    ("loss", "rtt", "segments"),
    [
        (1e-2, 100_000, 12),
        (1e-3, 100_000, 38),
        (1e-4, 100_000, 187),
        (1e-5, 100_000, 1054),
        (1e-3, 10_000, 38),
        (1e-4, 10_000, 120),
    ],
)
def test_response_function(loss: float, rtt: int, segments: int) -> None:
    """RFC 9438 §5.1, tables 1 and 2 (C = 0.4): the average window for a loss rate.

    Where the curve rules, it comes out by 1.05 * RTT^0.75 / p^0.75; else it is Reno's. The model
    behind the latter is approximate ("not absolutely precise", §4.3).
    """
    average = average_window(cubic(segments), loss, rtt, 25)
    assert average == pytest.approx(segments, rel=0.14)


@pytest.mark.parametrize(("loss", "segments"), [(1e-2, 12), (1e-3, 38), (1e-4, 120)])
def test_response_function_of_newreno(loss: float, segments: int) -> None:
    """RFC 9438 §5.1, table 1, column Reno: 1.2 / sqrt(p) segments (RFC 3649 §12)."""
    cc = NewReno(MSS, segments * MSS, [])
    assert average_window(cc, loss, 100_000, 25) == pytest.approx(segments, rel=0.05)


# -- congestion events ----------------------------------------------------------------------------


def test_fast_convergence() -> None:
    """RFC 9438 §4.7: at a loss below W_max the plateau is put at cwnd * (1 + 0.7) / 2.

    cwnd 80, W_max = 68, cwnd_epoch 56: K = cube root of 12 / 0.4 = 3.107232 s.
    """
    cc = after_loss(100)
    cc.cwnd = 80 * MSS
    cc.on_loss(80 * MSS)
    assert (cc.w_max, cc.cwnd_prior, cc.cwnd) == (68 * MSS, 80 * MSS, 56 * MSS)
    cc.on_ack(1)
    assert cc.k == 3_107_232
    # From the lower W_max on, 80 segments are above it: no fast convergence.
    cc.cwnd = 80 * MSS
    cc.on_loss(80 * MSS)
    assert cc.w_max == 80 * MSS


def test_minimum_of_two_segments() -> None:
    """RFC 9438 §4.6: ssthresh, and cwnd after a loss, are at least 2 MSS."""
    cc = cubic(3)
    cc.on_loss(1 * MSS)
    assert (cc.ssthresh, cc.cwnd) == (2 * MSS, 2 * MSS)


def test_ecn_may_reduce_to_one_segment() -> None:
    """RFC 9438 §4.6: at ECE cwnd is at least 1 MSS, ssthresh at least 2 MSS; nothing is resent."""
    cc = cubic(100)
    cc.on_ecn(100 * MSS)
    assert (cc.cwnd, cc.ssthresh, cc.w_max) == (70 * MSS, 70 * MSS, 100 * MSS)
    for _ in range(20):
        cc.on_ecn(cc.cwnd)
    assert (cc.cwnd, cc.ssthresh) == (MSS, 2 * MSS)
    assert not cc.in_recovery


def test_timeout() -> None:
    """RFC 9438 §4.8: ssthresh by beta_cubic, cwnd 1 MSS; then K = 0 and W_max = cwnd of the start.

    cwnd + 0.4 * t^3 from the beginning of congestion avoidance at 70 segments: 73.2 after 2 s.
    """
    cc = after_loss(200, rtt=1_000_000)
    cc.on_timeout(100 * MSS, first=True)
    assert (cc.cwnd, cc.ssthresh) == (MSS, 70 * MSS)
    while cc.cwnd < cc.ssthresh:
        cc.on_ack(min(cc.cwnd, cc.ssthresh - cc.cwnd))
    cc.on_ack(1)
    assert (cc.k, cc.w_max) == (0, 70 * MSS)
    cc.now += 1_000_000
    cc.on_ack(70 * MSS)  # W_cubic(1 s) = 70.4 and W_est = 70.5: Reno-friendly
    assert cc.cwnd == 70_529
    cc.now += 1_000_000
    cc.on_ack(35 * MSS)  # target W_cubic(3 s) = 80.8: half of a window closes half of the distance
    assert cc.cwnd / MSS == pytest.approx(70.529 + (80.8 - 70.529) * 35 / 70.529, abs=0.001)


def test_back_to_back_timeouts_hold_ssthresh() -> None:
    """RFC 5681 §3.1, to which RFC 9438 §4.8 refers."""
    cc = cubic(100)
    cc.on_timeout(100 * MSS, first=True)
    cc.on_timeout(1 * MSS, first=False)
    assert (cc.ssthresh, cc.cwnd, cc.cwnd_prior) == (70 * MSS, MSS, 100 * MSS)


def test_slow_start_left_by_delay() -> None:
    """RFC 9438 §4.10: W_max is unknown then: cwnd_prior = W_max = cwnd and K = 0."""
    cc = cubic(50)
    cc.ssthresh = cc.cwnd  # what HyStart++ does (test_hystart)
    cc.on_ack(1)
    assert (cc.cwnd_prior, cc.w_max, cc.k) == (50 * MSS, 50 * MSS, 0)
    start = cc.now
    for _ in rounds(cc, start + 5_000_000):
        pass
    # 50 + 0.4 * 5^3 = 100; Reno's estimate has alpha = 1 at once, as W_est >= cwnd_prior: 100 too.
    assert cc.cwnd / MSS == pytest.approx(100, abs=2)


def state(cc: Cubic) -> tuple[object, ...]:
    """The variables of RFC 9438 §4.9.2 and the flag of recovery."""
    return (
        cc.cwnd,
        cc.ssthresh,
        cc.w_max,
        cc.k,
        cc.epoch,
        cc.w_est,
        cc.cwnd_prior,
        cc.in_recovery,
    )


@given(
    window=st.integers(2, 100_000),
    flight=st.floats(0.1, 1),
    acks=st.lists(st.tuples(st.integers(1, 100_000), st.integers(0, 2_000_000)), max_size=20),
    timeout=st.booleans(),
    later=st.integers(0, 3),
)
def test_undo_restores_everything(
    window: int, flight: float, acks: list[tuple[int, int]], timeout: bool, later: int
) -> None:
    """RFC 9438 §4.9.1, §4.9.2: a spurious reduction is taken back whole while cwnd < cwnd_prior."""
    cc = after_loss(window)
    for acked, wait in acks:
        cc.now += wait
        cc.on_ack(acked)
    before = state(cc)
    cwnd = cc.cwnd
    cc.save()
    in_flight = int(cwnd * flight)
    if timeout:
        cc.on_timeout(in_flight, first=True)
    else:
        cc.on_loss(in_flight)
    for _ in range(later if cc.cwnd + 3 * MSS < cwnd else 0):
        cc.now += 1000
        cc.on_ack(100)
    reduced = cc.cwnd
    cc.undo()
    if reduced < cwnd:
        assert state(cc) == before
    assert cc.cwnd >= min(reduced, cwnd)
    assert not cc.in_recovery


def test_undo_that_comes_too_late_changes_nothing() -> None:
    """RFC 9438 §4.9.2: with cwnd already above cwnd_prior the recent values are kept."""
    cc = after_loss(100)
    cc.save()
    cc.on_loss(70 * MSS)
    cc.on_recovered()
    cc.on_ack(1)
    cc.now += 10_000_000
    while cc.cwnd < 71 * MSS:
        cc.on_ack(10 * MSS)
    before = state(cc)
    cc.undo()
    assert state(cc) == before
    cc.undo()
    assert state(cc) == before


# -- application-limited flows --------------------------------------------------------------------


def test_time_without_use_does_not_count() -> None:
    """RFC 9438 §4.2, §5.8: t MUST NOT include periods in which the flow was application-limited."""
    busy, lazy = after_loss(100), after_loss(100)
    for cc in (busy, lazy):
        for _ in rounds(cc, cc.now + 1_000_000):
            pass
    lazy.now += 600_000_000
    lazy.on_app_limited()
    for cc in (busy, lazy):
        for _ in rounds(cc, cc.now + 1_000_000):
            pass
    assert lazy.cwnd == busy.cwnd
    assert lazy.now - busy.now == 600_000_000


def test_idle_window_starts_a_new_curve() -> None:
    """RFC 2861 §3.1, RFC 9438 §4.2: after idleness slow start to 3/4, then a curve to W_max.

    cwnd_epoch 75 (3/4 of 100): K = cube root of 25 / 0.4 = 3.968502 s.
    """
    cc = after_loss(100)
    cc.cwnd = 100 * MSS
    cc.on_idle(2)
    assert (cc.cwnd, cc.ssthresh) == (25 * MSS, 75 * MSS)
    while cc.cwnd < 75 * MSS:
        cc.on_ack(10 * MSS)
    cc.on_ack(1)
    assert cc.k == 3_968_502
    assert cc.cwnd == 75 * MSS
    assert cc.w_est == pytest.approx(75 * MSS, abs=100)


def test_a_window_that_is_not_cut_keeps_its_curve() -> None:
    """RFC 2861 §3.1: below the restart window there is nothing to cut, and nothing changes."""
    cc = after_loss(10)
    epoch = cc.epoch
    cc.on_idle(3)
    cc.on_underused(0)
    assert (cc.cwnd, cc.epoch) == (7 * MSS, epoch)
    cc.cwnd = 40 * MSS
    cc.on_underused(20 * MSS)
    assert cc.cwnd == 30 * MSS
    assert cc.epoch != epoch


# -- invariants -----------------------------------------------------------------------------------

EVENTS = st.one_of(
    st.tuples(st.just("ack"), st.integers(0, 200_000)),
    st.tuples(st.just("wait"), st.integers(0, 30_000_000)),
    st.tuples(st.sampled_from(["loss", "ecn", "timeout", "again"]), st.integers(0, 1000)),
    st.tuples(st.sampled_from(["limited", "under", "save", "undo"]), st.integers(0, 100_000)),
    st.tuples(st.just("idle"), st.integers(1, 100)),
)


@pytest.mark.parametrize("kind", [Cubic, NewReno])
@given(events=st.lists(EVENTS, max_size=60), rtt=st.integers(0, 3_000_000))
def test_invariants(kind: type[CongestionControl], events: list[tuple[str, int]], rtt: int) -> None:
    """RFC 5681 §3.1, RFC 9438 §4: 1 MSS <= cwnd and 2 MSS <= ssthresh whatever happens.

    Growth comes by ACKs only, not more than slow start's (plus a segment of Reno's estimate), and
    only congestion or disuse takes away.
    """
    cc = kind(MSS, 10 * MSS, [])
    cc.srtt = cc.latest_rtt = cc.min_rtt = rtt
    for name, number in events:
        before = cc.cwnd
        if name == "ack":
            cc.rounds += 1
            cc.on_ack(number)
            assert before <= cc.cwnd <= before + number + MSS
        elif name == "wait":
            cc.now += number
        elif name == "loss":
            cc.on_loss(before * number // 1000)
            assert cc.cwnd <= max(before, 2 * MSS)
        elif name == "ecn":
            cc.on_ecn(before * number // 1000)
            assert cc.cwnd <= max(before, MSS)
        elif name in ("timeout", "again"):
            cc.on_timeout(before * number // 1000, first=name == "timeout")
            assert cc.cwnd == MSS
        elif name == "limited":
            cc.on_app_limited()
            assert cc.cwnd == before
        elif name == "under":
            cc.on_underused(number)
            assert before // 2 <= cc.cwnd <= before
        elif name == "idle":
            cc.on_idle(number)
            assert min(before, 10 * MSS) <= cc.cwnd <= before
        elif name == "save":
            cc.save()
        else:
            cc.undo()
            assert cc.cwnd >= before
        assert cc.cwnd >= MSS
        assert 2 * MSS <= cc.ssthresh <= INFINITE_SSTHRESH
