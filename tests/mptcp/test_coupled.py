"""Coupled congestion control: the formulas by hand, the windows byte by byte, whose window counts.

RFC 6356 (LIA), draft-khalili-mptcp-congestion-control-05 (OLIA), draft-walid-mptcp-congestion-
control-04 (BALIA). wVegas is in `test_wvegas`, the fairness they are for in `tests/bench`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar

import pytest

from mptcp.coupled_cc import (
    IDLE_US,
    Balia,
    Coupled,
    Lia,
    Olia,
    balia_alpha,
    balia_increase,
    balia_reduced,
    olia_alphas,
    olia_increase,
)
from mptcp.scheduler import P, Scheduler, schedulers
from mptcp.tcp.congestion import ALL_IN_USE, INFINITE_SSTHRESH, CongestionControl, controllers
from mptcp.tcp.validation import CwndValidation
from tests.transfers import exchange, network, open_programs, payload

MSS = 1000
MS = 1000
COUPLED: list[type[Coupled]] = [Lia, Olia, Balia]


def control(
    kind: type[Coupled], siblings: list[CongestionControl], segments: int, rtt_ms: int = 100
) -> Coupled:
    """A controller in congestion avoidance, among its siblings."""
    found = kind(MSS, segments * MSS, siblings)
    found.ssthresh = found.cwnd
    found.srtt = rtt_ms * MS
    siblings.append(found)
    return found


def pair(kind: type[Coupled], first: tuple[int, int], second: tuple[int, int]) -> list[Coupled]:
    """Two siblings: (segments, RTT in ms) of each."""
    siblings: list[CongestionControl] = []
    return [control(kind, siblings, *first), control(kind, siblings, *second)]


# -- the formulas ---------------------------------------------------------------------------------

EQUAL = [(10_000, 100_000), (10_000, 100_000)]
UNLIKE_WINDOWS = [(20_000, 100_000), (5_000, 100_000)]
UNLIKE_RTTS = [(10_000, 20_000), (10_000, 200_000)]


@pytest.mark.parametrize(
    ("paths", "increases"),
    [
        (EQUAL, (25.0, 25.0)),  # 10^6 * 10,000 / 20,000^2
        (UNLIKE_WINDOWS, (32.0, 8.0)),  # 10^6 * w / 25,000^2
        (UNLIKE_RTTS, (10**6 * 2.5e-5 / 0.3025, 10**6 * 2.5e-7 / 0.3025)),
        ([(10_000, 100_000)], (100.0,)),  # alone: TCP's
    ],
)
def test_olia_without_a_better_path(
    paths: list[tuple[int, int]], increases: tuple[float, ...]
) -> None:
    """draft-khalili §2: the first term, w_r / rtt_r^2 / (sum w_p / rtt_p)^2, for 1000 bytes."""
    found = [olia_increase(path, paths, 0.0, 1000, MSS) for path in paths]
    assert found == pytest.approx(increases, rel=1e-12)


def test_olia_moves_window_to_the_better_path() -> None:
    """draft-khalili §2: windows 5 and 10, the first path loses less: alpha is 1/2 and -1/2.

    10^6 * (5000 / 15,000^2 + 1/2 / 5000) = 122.2, 10^6 * (10,000 / 15,000^2 - 1/2 / 10,000) = -5.6.
    """
    paths = [(5_000, 100_000), (10_000, 100_000)]
    alphas = olia_alphas([5, 10], [3.0, 2.0])
    assert alphas == [0.5, -0.5]
    found = [olia_increase(paths[i], paths, alphas[i], 1000, MSS) for i in (0, 1)]
    assert found == pytest.approx([1100 / 9, -50 / 9], rel=1e-12)


@pytest.mark.parametrize(
    ("windows", "qualities", "alphas"),
    [
        ([10], [1.0], [0.0]),
        ([10, 10], [1.0, 1.0], [0.0, 0.0]),  # the best have the largest window
        ([10, 5], [2.0, 1.0], [0.0, 0.0]),  # so has the one best
        ([5, 10, 10], [2.0, 1.0, 1.0], [1 / 3, -1 / 6, -1 / 6]),
        ([5, 5, 10], [2.0, 2.0, 1.0], [1 / 6, 1 / 6, -1 / 3]),
        ([5, 7, 10], [2.0, 1.0, 1.0], [1 / 3, 0.0, -1 / 3]),  # neither best nor largest: 0
        ([10, 5], [2.0, 2.0], [-0.5, 0.5]),  # both are best, one has the larger window
    ],
)
def test_olia_alphas(windows: list[int], qualities: list[float], alphas: list[float]) -> None:
    """draft-khalili §2: best_paths, max_w_paths and collected_paths; what is given is gained."""
    found = olia_alphas(windows, qualities)
    assert found == pytest.approx(alphas, rel=1e-12)
    assert sum(found) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("paths", "increases", "left"),
    [
        (EQUAL, (25.0, 25.0), (5_000, 5_000)),
        # The second: alpha 4, 8 * 5/2 * 8/5; it loses three quarters.
        (UNLIKE_WINDOWS, (32.0, 32.0), (10_000, 1_250)),
        # alpha 10: 0.826 * 11/2 * 14/5.
        (UNLIKE_RTTS, (25 / 0.3025, 0.25 / 0.3025 * 15.4), (5_000, 2_500)),
        # alpha 1.25: 10^6 * 8000 / 18,000^2 * 2.25/2 * 5.25/5; 8000 - 4000 * 1.25.
        (
            [(10_000, 100_000), (8_000, 100_000)],
            (10**10 / 18_000**2, 8 * 10**9 / 18_000**2 * 1.125 * 1.05),
            (5_000, 3_000),
        ),
        ([(10_000, 100_000)], (100.0,), (5_000,)),  # alone: TCP's
    ],
)
def test_balia(
    paths: list[tuple[int, int]], increases: tuple[float, ...], left: tuple[int, ...]
) -> None:
    """draft-walid §3: the increase for 1000 bytes, and what a loss leaves of the window."""
    found = [balia_increase(path, paths, 1000, MSS) for path in paths]
    assert found == pytest.approx(increases, rel=1e-12)
    assert tuple(balia_reduced(path[0], balia_alpha(path, paths)) for path in paths) == left


# -- the windows, byte by byte --------------------------------------------------------------------


def exact(
    kind: type[Coupled], paths: Sequence[tuple[int, int]], acked: int, between: Sequence[int]
) -> Fraction:
    """What the first path grows by, as a fraction; `between`: bytes between losses of each."""
    (cwnd, rtt), unit = paths[0], acked * MSS
    rate = sum(Fraction(w, r) for w, r in paths)
    if kind is Lia:
        # alpha / cwnd_total = max(w / r^2) / (sum w / r)^2 (RFC 6356 §3.1)
        best = max(Fraction(w, r * r) for w, r in paths)
        return min(unit * best / (rate * rate), Fraction(unit, cwnd))
    share = unit * Fraction(cwnd, rtt * rtt) / (rate * rate)
    if kind is Balia:
        alpha = max(Fraction(w, r) for w, r in paths) * rtt / cwnd
        return share * (1 + alpha) / 2 * (4 + alpha) / 5
    qualities = [size / path[1] ** 2 for size, path in zip(between, paths, strict=True)]
    part = olia_alphas([path[0] // MSS for path in paths], qualities)[0]  # of 3, by 1 or 2 or 3
    return share + unit * Fraction(part).limit_denominator(9) / cwnd


@pytest.mark.parametrize("kind", COUPLED)
def test_every_byte_with_changing_rtts(kind: type[Coupled]) -> None:
    """RFC 6356 §3.1: alpha follows the RTT. 3 subflows, 2000 ACKs, each with a new RTT.

    After every ACK each window is to the byte what exact arithmetic makes of it.
    """
    rng = random.Random(6356)
    siblings: list[CongestionControl] = []
    controls = [control(kind, siblings, segments) for segments in (4, 20, 90)]
    credit = [Fraction(0)] * 3
    cwnds = [c.cwnd for c in controls]
    for _ in range(2000):
        turn, acked = rng.randrange(3), rng.randrange(1, 4 * MSS)
        controls[turn].srtt = rng.randrange(1 * MS, 400 * MS)
        controls[turn].delivered += acked
        order = [turn, *(i for i in range(3) if i != turn)]
        paths = [(cwnds[i], controls[i].srtt) for i in order]
        credit[turn] += exact(kind, paths, acked, [controls[i].delivered for i in order])
        cwnds[turn] += int(credit[turn])
        credit[turn] -= int(credit[turn])
        controls[turn].on_ack(acked)
        assert [c.cwnd for c in controls] == cwnds


@pytest.mark.parametrize("kind", COUPLED)
def test_alone_it_is_tcp(kind: type[Coupled]) -> None:
    """RFC 6356 §3, draft-khalili §2, draft-walid §3: one path: one MSS for each window."""
    alone = control(kind, [], 10)
    alone.on_ack(10 * MSS)
    assert alone.cwnd == 11 * MSS
    alone.on_loss(11 * MSS)
    assert alone.cwnd == 11 * MSS // 2


@pytest.mark.parametrize("kind", COUPLED)
def test_slow_start_is_each_subflows_own(kind: type[Coupled]) -> None:
    """RFC 6356 §3: slow start, fast retransmit and fast recovery are as in TCP; what goes beyond
    ssthresh in the same ACK is coupled."""
    first, second = pair(kind, (10, 100), (20, 100))
    first.ssthresh = INFINITE_SSTHRESH
    first.on_ack(10 * MSS)
    assert first.cwnd == 20 * MSS
    second.on_ack(MSS)
    assert second.cwnd == 20 * MSS + 12  # 10^6 * 20,000 / 40,000^2: the new window counts
    first.cwnd, first.ssthresh = 10 * MSS, 15 * MSS
    second.cwnd = 15 * MSS
    first.on_ack(10 * MSS)
    # Five segments of slow start; 5 * 10^6 * 15,000 / 30,000^2 = 83 for the other five.
    assert first.cwnd == 15 * MSS + 83


@pytest.mark.parametrize("kind", COUPLED)
def test_a_subflow_in_recovery_counts_with_ssthresh(kind: type[Coupled]) -> None:
    """RFC 6356 §3: ssthresh_i replaces cwnd_i, which may be inflated."""
    first, other = pair(kind, (10, 100), (20, 100))
    other.on_loss(20 * MSS)
    left = other.ssthresh  # half
    assert left == 10 * MSS
    other.cwnd = 50 * MSS
    first.on_ack(10 * MSS)
    assert first.cwnd == 10 * MSS + 250  # as with 10 segments each
    other.on_recovered()
    other.cwnd = left
    first.cwnd = 10 * MSS
    first.on_ack(10 * MSS)
    assert first.cwnd == 10 * MSS + 250


@pytest.mark.parametrize("kind", COUPLED)
def test_losses(kind: type[Coupled]) -> None:
    """RFC 6356 §3, draft-khalili §2: half; draft-walid §3: more on the slower path. The other
    subflow's window stays."""
    first, second = pair(kind, (20, 100), (5, 100))
    second.on_loss(5 * MSS)
    least = {Lia: 2500, Olia: 2500, Balia: 2000}[kind]  # Balia: 1250, but two segments at least
    assert (first.cwnd, second.cwnd) == (20 * MSS, least)
    first.on_loss(20 * MSS)
    assert (first.cwnd, first.ssthresh) == (10 * MSS, 10 * MSS)
    first.save()
    first.on_timeout(10 * MSS, first=True)
    assert (first.cwnd, first.ssthresh) == (MSS, 5 * MSS)
    first.undo()
    assert (first.cwnd, first.ssthresh) == (10 * MSS, 10 * MSS)


# -- whose window counts --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", COUPLED)
def test_an_idle_subflow_takes_no_part(kind: type[Coupled]) -> None:
    """RFC 6356 §3.1 takes w / rtt for a rate. Nothing was acknowledged for an RTT and 200 ms: the
    other grows as if it were alone, and does not once it is not."""
    first, idle = pair(kind, (10, 100), (10, 100))
    idle.acked_at = 1_000_000
    for now, growth in (
        (idle.acked_at + 100 * MS + IDLE_US, 250),
        (idle.acked_at + 100 * MS + IDLE_US + 1, MSS),
        (idle.acked_at + 60_000_000, MSS),
    ):
        first.now, first.cwnd, first.credit = now, 10 * MSS, 0.0
        first.on_ack(10 * MSS)
        assert first.cwnd == 10 * MSS + growth
    idle.acked_at = first.now
    first.cwnd = 10 * MSS
    first.on_ack(10 * MSS)
    assert first.cwnd == 10 * MSS + 250


@pytest.mark.parametrize("kind", COUPLED)
def test_an_application_limited_subflow_counts_with_what_it_uses(kind: type[Coupled]) -> None:
    """RFC 6356 §3.1, RFC 7661 §4.3: a window of 100 of which 10 are in use counts as 10."""
    first, limited = pair(kind, (10, 100), (100, 100))
    limited.used = 10 * MSS
    first.on_ack(10 * MSS)
    assert first.cwnd == 10 * MSS + 250
    limited.used = 0  # nothing at all
    first.cwnd = 10 * MSS
    first.on_ack(10 * MSS)
    assert first.cwnd == 11 * MSS


def test_validation_tells_what_is_in_use() -> None:
    """RFC 2861 §3.2, RFC 7661 §4.3: the most in flight at once, until the window is full again."""
    cc = control(Lia, [], 20)
    validation = CwndValidation()
    cc.rounds = 1
    assert cc.used == ALL_IN_USE
    for in_flight, limited, used in (
        (4 * MSS, False, 4 * MSS),
        (7 * MSS, False, 7 * MSS),
        (3 * MSS, False, 7 * MSS),
        (18 * MSS, True, ALL_IN_USE),
        (5 * MSS, True, ALL_IN_USE),  # of the same round trip
    ):
        assert validation.limited(cc, in_flight, 10**6) is limited
        assert cc.used == used
    cc.rounds = 2
    assert not validation.limited(cc, 2 * MSS, 10**6)
    assert cc.used == 2 * MSS


@schedulers.register("test-only")
class Only(Scheduler):
    """The paths that a test allows."""

    allowed: ClassVar[set[int]] = {1, 2}

    def select(self, ready: Sequence[P], queued: int) -> P | None:
        return next((path for path in ready if path.path_index in self.allowed), None)


def test_a_subflow_that_becomes_idle_gives_its_share_back() -> None:
    """RFC 6356 §3: with its sibling idle a subflow grows by one MSS a round trip, with its sibling
    busy by a quarter (equal windows and RTTs).

    100 ms round trips without a queue, so windows and RTTs follow from the formulas.
    """
    Only.allowed = {1, 2}
    sim, a, b, _ = network(
        6, paths=2, rate_bps=50_000_000, a={"scheduler": "test-only"}, delay_us=50_000
    )
    client, _ = open_programs(a, b, bytes(60_000_000), b"")
    sim.run(500_000)
    assert client.connection is not None
    first, second = client.connection.subflows
    growth = []
    for allowed in ({1, 2}, {1}):
        Only.allowed = allowed
        for subflow in (first, second):
            subflow.cc.ssthresh = subflow.cc.cwnd = 40 * subflow.cc.mss
        sim.run(1_000_000)  # what was on its way is acknowledged, and the pause has been noticed
        before, rounds = first.cc.cwnd, first.cc.rounds
        sim.run(2_000_000)
        growth.append((first.cc.cwnd - before) / first.cc.mss / (first.cc.rounds - rounds))
    assert first.cc.rounds > 30
    assert growth == pytest.approx([0.25, 1.0], rel=0.08)


# -- OLIA's memory --------------------------------------------------------------------------------


def test_olia_counts_bytes_between_losses() -> None:
    """draft-khalili §2: l_r = max(l_1r, l_2r): between the last two losses, and since."""
    cc = control(Olia, [], 10)
    assert isinstance(cc, Olia)
    square = (100 * MS) ** 2
    cc.delivered = 50_000
    assert cc.quality() == 50_000 / square
    cc.on_loss(10 * MSS)
    cc.delivered = 80_000
    assert cc.quality() == 50_000 / square  # 30,000 since
    cc.delivered = 110_000
    assert cc.quality() == 60_000 / square
    cc.save()
    cc.on_timeout(10 * MSS, first=True)
    cc.on_timeout(10 * MSS, first=False)  # the same loss
    assert cc.quality() == 60_000 / square
    cc.undo()  # it was none
    cc.delivered = 130_000
    assert cc.quality() == 80_000 / square


def test_olia_gives_to_the_path_that_loses_less() -> None:
    """draft-khalili §2: the numbers of `test_olia_moves_window_to_the_better_path`, by ACKs."""
    small, large = pair(Olia, (5, 100), (10, 100))
    small.delivered, large.delivered = 300_000, 200_000
    small.on_ack(MSS)
    assert small.cwnd == 5 * MSS + 122
    small.cwnd = 5 * MSS
    large.on_ack(MSS)
    assert large.cwnd == 10 * MSS - 5
    assert large.credit == pytest.approx(-5 / 9, rel=1e-5)


def test_olia_may_leave_one_segment() -> None:
    """draft-khalili §2: with several paths the least ssthresh is one segment, alone it is two."""
    small, _ = pair(Olia, (2, 100), (10, 100))
    small.on_loss(2 * MSS)
    assert (small.cwnd, small.ssthresh) == (MSS, MSS)
    alone = control(Olia, [], 2)
    alone.on_loss(2 * MSS)
    assert (alone.cwnd, alone.ssthresh) == (2 * MSS, 2 * MSS)


# -- in a connection ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lia", "olia", "balia", "wvegas"])
def test_two_unlike_paths_are_used(name: str) -> None:
    """RFC 6356 §2 goal 1: two paths, one of them twice as long: more than the better one carries.

    20 Mbit/s each with a queue of 60 packets; 12 MB alone would take 4.8 s at best.
    """
    sim, a, b, paths = network(
        7,
        paths=2,
        rate_bps=20_000_000,
        a={"congestion_control": name},
        delay_us=10_000,
        queue_bytes=90_000,
    )
    up = payload(12_000_000)
    start = sim.now
    client, server = open_programs(a, b, up, b"")
    assert sim.run(20_000_000, until=lambda: len(server.incoming) == len(up))
    assert sim.now - start < 4_000_000
    carried = [path[0].link.stats.bytes for path in paths]
    assert min(carried) > 0.25 * sum(carried)
    exchange(sim, client, server, up, b"")


def test_they_are_there_by_name() -> None:
    """The error of a wrong name lists them."""
    with pytest.raises(ValueError, match=r"balia, cubic, .*lia, newreno, olia, .*wvegas"):
        controllers.get("nonesuch")
