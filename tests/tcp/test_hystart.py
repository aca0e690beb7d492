"""HyStart++ (RFC 9406): the numbers here are worked out from its §4.2 and §4.3 by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcp.coupled_cc import Lia
from mptcp.info import mptcp_info
from mptcp.sim import Simulation
from mptcp.tcp.congestion import INFINITE_SSTHRESH, CongestionControl, NewReno, slow_start
from mptcp.tcp.cubic import Cubic
from mptcp.tcp.hystart import HyStart
from mptcp.wvegas import WVegas

MSS = 1000


def rounds_of(hystart: HyStart, first: int, *rtts: int, samples: int = 8, acked: int = MSS) -> int:
    """One round of `samples` ACKs for each RTT (ms), numbered from `first`; what it grew by."""
    return sum(
        hystart.grow(acked, rtt * 1000, number)
        for number, rtt in enumerate(rtts, first)
        for _ in range(samples)
    )


@pytest.mark.parametrize(
    ("before", "after", "leaves"),
    [
        (8, 11, False),  # max(4, min(8/8, 16)) = 4 ms
        (8, 12, True),
        (64, 71, False),  # 64/8 = 8 ms
        (64, 72, True),
        (200, 215, False),  # min(200/8, 16) = 16 ms
        (200, 216, True),
    ],
)
def test_threshold(before: int, after: int, leaves: bool) -> None:
    """RFC 9406 §4.2: RttThresh = max(MIN_RTT_THRESH, min(lastRoundMinRTT / 8, MAX_RTT_THRESH))."""
    hystart = HyStart()
    rounds_of(hystart, 1, before, after)
    assert hystart.in_css is leaves


def test_slow_start_counts_every_byte() -> None:
    """RFC 9406 §4.2 with L = infinity (§4.3): the window grows by all that is acknowledged."""
    assert HyStart().grow(44 * MSS, 20_000, 1) == 44 * MSS


def test_eight_samples_are_needed() -> None:
    """RFC 9406 §4.2: a round is judged with N_RTT_SAMPLE = 8 samples, not with fewer."""
    hystart = HyStart()
    rounds_of(hystart, 1, 20)
    rounds_of(hystart, 2, 60, samples=7)
    assert not hystart.in_css
    rounds_of(hystart, 2, 60, samples=1)
    assert hystart.in_css


def test_the_least_sample_of_the_round_counts() -> None:
    """RFC 9406 §4.2: currentRoundMinRTT is a minimum, so late ACKs alone end nothing."""
    hystart = HyStart()
    rounds_of(hystart, 1, 20)
    rounds_of(hystart, 2, 60, samples=7)
    rounds_of(hystart, 2, 21, samples=1)
    rounds_of(hystart, 2, 60, samples=20)
    assert not hystart.in_css


def test_a_round_without_samples_is_no_baseline() -> None:
    """RFC 9406 §4.2: lastRoundMinRTT must be valid."""
    hystart = HyStart()
    rounds_of(hystart, 1, 20)
    hystart.grow(MSS, 0, 2)
    rounds_of(hystart, 3, 60)
    assert not hystart.in_css
    rounds_of(hystart, 4, 80)
    assert hystart.in_css


def test_conservative_slow_start_grows_by_a_quarter() -> None:
    """RFC 9406 §4.2: cwnd += N / CSS_GROWTH_DIVISOR; the eighth ACK of its round still counts full.

    No byte is lost to rounding, however the ACKs are cut.
    """
    hystart = HyStart()
    rounds_of(hystart, 1, 20)
    assert rounds_of(hystart, 2, 30) == 8 * MSS
    assert hystart.in_css
    assert rounds_of(hystart, 2, 30, samples=3) == 750
    assert rounds_of(hystart, 2, 30, samples=1000, acked=1) == 250
    assert not hystart.done


def test_css_lasts_five_rounds_the_partial_first_one_included() -> None:
    """RFC 9406 §4.2: after CSS_ROUNDS = 5 rounds congestion avoidance begins."""
    hystart = HyStart()
    rounds_of(hystart, 1, 20, 30, 30, 30, 30, 30)  # CSS from round 2, the partial first one, to 6
    assert not hystart.done
    assert hystart.grow(MSS, 30_000, 7) == 0
    assert hystart.done


def test_a_delay_that_falls_again_resumes_slow_start() -> None:
    """RFC 9406 §4.2: currentRoundMinRTT < cssBaselineMinRtt means that the exit was spurious.

    The delay may end slow start again later, and the rounds count anew.
    """
    hystart = HyStart()
    rounds_of(hystart, 1, 20, 30)
    rounds_of(hystart, 3, 29, samples=7)
    assert hystart.in_css
    rounds_of(hystart, 3, 29, samples=1)
    assert not hystart.in_css
    assert rounds_of(hystart, 3, 29, samples=4) == 4 * MSS
    rounds_of(hystart, 4, 34)  # 29 + 4 = 33 ms
    assert hystart.in_css
    rounds_of(hystart, 5, 34, 34, 34, 34)
    assert not hystart.done
    rounds_of(hystart, 9, 34)
    assert hystart.done


@given(
    st.lists(st.tuples(st.integers(1, 1 << 20), st.integers(0, 1 << 20), st.integers(0, 2))),
)
def test_growth_is_never_more_than_what_was_acknowledged(acks: list[tuple[int, int, int]]) -> None:
    """RFC 9406 §4.2, RFC 3465 §2.2: whatever the delays, 0 <= growth <= N + 3 carried bytes."""
    hystart = HyStart()
    number = 0
    total = grown = 0
    for acked, rtt, step in acks:
        number += step
        growth = hystart.grow(acked, rtt, number)
        total += acked
        grown += growth
        assert 0 <= growth <= acked + 3
        assert grown <= total
        assert not hystart.done or hystart.grow(MSS, rtt, number) == 0


@pytest.mark.parametrize("kind", [NewReno, Cubic])
def test_the_controller_leaves_slow_start(kind: type[CongestionControl]) -> None:
    """RFC 9406 §4.2: at the end ssthresh = cwnd, and growth is congestion avoidance's from then."""
    cc = kind(MSS, 10 * MSS, [])
    for number, rtt in enumerate((20, 30, 30, 30, 30, 30, 30), 1):
        cc.rounds = number
        cc.latest_rtt = cc.srtt = rtt * 1000
        for _ in range(8):
            cc.on_ack(MSS)
    # 10 + 8 + 8 in slow start, then 5 rounds of 8/4 less the first, partial one.
    assert cc.ssthresh == 34 * MSS
    assert 34 * MSS <= cc.cwnd < 34.5 * MSS


def test_later_slow_starts_are_plain() -> None:
    """RFC 9406 §4.2: only the initial slow start, else ssthresh is an estimate that ends it."""
    cc = NewReno(MSS, 10 * MSS, [])
    cc.on_timeout(40 * MSS, first=True)
    for number, rtt in enumerate((20, 60), 1):
        cc.rounds, cc.latest_rtt = number, rtt * 1000
        for _ in range(8):
            cc.on_ack(MSS)
    assert cc.cwnd == 17 * MSS


def test_an_undone_loss_leads_back_to_the_first_slow_start() -> None:
    """RFC 9438 §4.9.2, RFC 4015 §3.2: after a spurious reduction all is as before."""
    cc = NewReno(MSS, 10 * MSS, [])
    cc.rounds, cc.latest_rtt = 1, 20_000
    for _ in range(8):
        cc.on_ack(MSS)
    cc.save()
    cc.on_loss(18 * MSS)
    cc.undo()
    assert (cc.cwnd, cc.ssthresh) == (18 * MSS, INFINITE_SSTHRESH)
    cc.rounds, cc.latest_rtt = 2, 60_000
    for _ in range(9):
        cc.on_ack(MSS)
    assert cc.hystart is not None
    assert cc.hystart.in_css
    assert cc.cwnd == 26.25 * MSS


def test_without_hystart_slow_start_ignores_the_delay() -> None:
    """RFC 5681 §3.1: a controller without it (Config.hystart = False) grows until a loss."""
    for cc in (Lia(MSS, 10 * MSS, []), NewReno(MSS, 10 * MSS, [])):
        cc.hystart = None
        for number, rtt in enumerate((20, 60, 90, 120), 1):
            cc.rounds, cc.latest_rtt = number, rtt * 1000
            for _ in range(8):
                assert slow_start(cc, MSS) == 0
        assert cc.cwnd == 42 * MSS
    assert WVegas(MSS, 10 * MSS, []).hystart is None  # it looks at the delay itself


def overrun(hystart: bool) -> int:
    """Segments resent in 1.5 s over 20 Mbit/s and 40 ms with a queue of four BDP."""
    sim = Simulation(seed=1)
    a = sim.host("a", mptcp=False, congestion_control="newreno", hystart=hystart, autotune=False)
    b = sim.host("b", mptcp=False, autotune=False)
    sim.connect(
        a,
        "10.0.1.1/24",
        b,
        "10.0.1.2/24",
        rate_bps=20_000_000,
        delay_us=20_000,
        queue_bytes=400_000,
    )
    b.stack.listen(80)
    connection = a.stack.connect("10.0.1.2", 80)
    connection.send(bytes(4_000_000))
    sim.run(1_500_000)
    acked = mptcp_info(connection).subflows[0].bytes_acked
    assert acked > 2_500_000  # of 3.75 MB: the link was full all the same
    return a.stack.counters["TcpRetransSegs"]


@pytest.mark.slow
def test_slow_start_does_not_fill_a_deep_queue_twice() -> None:
    """RFC 9406 §1, §4.1: Conservative Slow Start overruns a queue by a quarter, not by a whole.

    The configuration switch is all that differs.
    """
    assert 3 * overrun(True) < overrun(False)
