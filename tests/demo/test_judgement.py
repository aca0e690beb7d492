"""The demonstration's arithmetic and its verdicts."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.judgement import (
    LEAST_RETURN_BYTES,
    Delivery,
    PathUse,
    Run,
    judge,
    longest_stall,
)

SECOND = 1_000_000
START = 50 * SECOND


def delivery(rate_bps: float, seconds: int) -> Delivery:
    """A download at a constant rate, sampled every 100 ms."""
    made = Delivery(done=True)
    for tenth in range(10 * seconds + 1):
        made.add(START + tenth * SECOND // 10, round(rate_bps / 80 * tenth))
    return made


def path(totals: dict[int, int]) -> PathUse:
    """A path's totals by seconds since START."""
    made = PathUse()
    for second, total in totals.items():
        made.add(START + second * SECOND, total)
    return made


def good_run() -> Run:
    """A run that keeps every promise: 57 of 60 Mbit/s, the cut from 7 s to 10 s."""
    mine = delivery(54_000_000, 15)
    mine.gaps.append((START + 7 * SECOND, START + 7 * SECOND + 240_000))
    return Run(
        delivery=mine,
        paths=[
            path({0: 0, 7: 35_000_000, 10: 35_000_000, 11: 39_000_000, 15: 60_000_000}),
            path({0: 0, 15: 40_000_000}),
        ],
        path_names=["path 1", "path 2"],
        path_rates=[40_000_000, 20_000_000],
        cut=START + 7 * SECOND,
        restored=START + 10 * SECOND,
        cut_path=0,
        sent_digest="aa",
        received_digest="aa",
        payload=1420,
        packet=1500,
        judge_stall=True,
    )


def missed(run: Run) -> list[str]:
    return [finding.name for finding in judge(run) if finding.kept is False]


def kept(run: Run) -> list[str]:
    return [finding.name for finding in judge(run) if finding.kept]


def test_a_good_run_keeps_every_promise() -> None:
    assert missed(good_run()) == []
    assert kept(good_run()) == ["SHA-256", "goodput", "stall", "path 1 back"]


def test_the_ceiling_counts_payload_only() -> None:
    texts = {finding.name: finding.text for finding in judge(good_run())}
    # RFC 8684 §3.3: 28 bytes of DSS and 12 of timestamps leave 1420 of 1500.
    assert texts["ceiling"].endswith("= 56.80 Mbit/s")
    assert "54.00 Mbit/s before the cut (2.0 s to 7.0 s) = 95.1%" in texts["goodput"]


@pytest.mark.parametrize(
    ("share", "kept_it"), [(0.91, False), (0.9199, False), (0.921, True), (1.0, True)]
)
def test_goodput_is_held_against_92_percent(share: float, kept_it: bool) -> None:
    run = dataclasses.replace(good_run(), delivery=delivery(56_800_000 * share, 15))
    assert ("goodput" in missed(run)) is not kept_it


def test_goodput_leaves_out_the_first_two_seconds_and_the_cut() -> None:
    slow_start = Delivery()
    for second, megabits in enumerate([0, 10, 20, 74, 128, 182, 236, 290, 290, 290, 290]):
        slow_start.add(START + second * SECOND, megabits * 125_000)
    assert slow_start.goodput(START + 2 * SECOND, START + 7 * SECOND) == 54_000_000
    assert "goodput" in kept(dataclasses.replace(good_run(), delivery=slow_start))


def test_a_file_too_short_for_the_warm_up_is_not_judged() -> None:
    run = dataclasses.replace(good_run(), cut=START + 2_500_000)
    assert "goodput" not in missed(run) + kept(run)


def test_different_digests_are_a_miss() -> None:
    assert missed(dataclasses.replace(good_run(), received_digest="ab")) == ["SHA-256"]


@pytest.mark.parametrize("length", [1_000_001, 5_000_000])
def test_a_stall_at_the_cut_is_a_miss_unless_the_kernel_sends(length: int) -> None:
    run = good_run()
    run.delivery.gaps.append((run.cut + 100, run.cut + 100 + length))
    assert missed(run) == ["stall"]
    kernel = dataclasses.replace(run, judge_stall=False)
    assert missed(kernel) == []
    assert "stall" not in kept(kernel)


def test_a_stall_elsewhere_is_shown_and_not_the_cuts() -> None:
    run = good_run()
    run.delivery.gaps.append((START + SECOND, START + 3 * SECOND))
    findings = judge(run)
    assert [finding.text for finding in findings if "longest" in finding.text] == [
        "2.00 s is the longest of all, at 1.0 s"
    ]
    assert missed(run) == []


def test_a_path_that_only_answers_probes_is_not_back() -> None:
    run = good_run()
    probes = path({0: 0, 7: 35_000_000, 10: 35_000_000, 15: 35_000_000 + LEAST_RETURN_BYTES - 1})
    run = dataclasses.replace(run, paths=[probes, run.paths[1]])
    assert missed(run) == ["path 1 back"]


def test_no_gap_is_no_stall() -> None:
    run = good_run()
    run.delivery.gaps.clear()
    assert longest_stall([]) is None
    assert missed(run) == []


GAPS = st.lists(
    st.tuples(st.integers(0, 1000), st.integers(1, 1000)).map(lambda gap: (gap[0], sum(gap)))
)


@given(GAPS, st.integers(0, 1500), st.integers(1, 500))
def test_the_longest_stall_touches_the_window_and_none_that_does_is_longer(
    gaps: list[tuple[int, int]], begin: int, length: int
) -> None:
    found = longest_stall(gaps, begin, begin + length)
    instants = range(begin, begin + length)
    touching = [b - a for a, b in gaps if any(a <= instant < b for instant in instants)]
    assert (found.length if found else 0) >= max(touching, default=0)
    if found is not None:
        assert (found.begin, found.begin + found.length) in gaps


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 10**7)), min_size=2), st.data())
def test_the_interpolated_total_never_decreases(
    steps: list[tuple[int, int]], data: st.DataObject
) -> None:
    made = Delivery()
    time = total = 0
    for wait, got in steps:
        time, total = time + wait, total + got
        made.add(time, total)
    inside = st.integers(made.start, made.end)
    first, second = sorted((data.draw(inside), data.draw(inside)))
    assert made.totals[0] <= made.at(first) <= made.at(second) <= made.total
    assert [made.at(each) for each in made.times] == made.totals


def test_the_rate_of_a_path_is_that_of_the_last_second() -> None:
    use = path({0: 0, 1: 125_000, 2: 250_000, 3: 2_750_000})
    assert use.rate() == 20_000_000
    assert path({0: 0}).rate() == 0.0
