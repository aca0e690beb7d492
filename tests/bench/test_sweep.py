"""Scenarios in virtual time: points, seeds, intervals, judgement, pictures; and the experiments."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mptcp.bench import cli
from mptcp.bench.interval import mean_interval, student_t
from mptcp.bench.multipath import (
    Experiment,
    Link,
    bulk,
    messages,
    payload_share,
    transfer,
)
from mptcp.bench.registry import BenchError, Options, scenarios
from mptcp.bench.results import Report, Row, Verdict
from mptcp.bench.sweep import Measured, Point, Sweep
from mptcp.config import Config

SLOW = Link(10_000_000, 5_000)


def silent(what: str, done: int, total: int) -> None:
    """No bar."""


class Squares(Sweep):
    """Its values are known."""

    name, summary, source, unit = "squares", "squares and seeds", "a figure", "things"
    seeds = 3

    def points(self, quick: bool) -> list[Point]:
        return [Point(f"p{n}", f"{n} squared", {"n": n}) for n in ((2,) if quick else (2, 3))]

    @staticmethod
    def measure(point: Point, seed: int, quick: bool) -> Measured:
        if point.settings["n"] > 3:
            raise ValueError("too large")
        return {"value": point.settings["n"] ** 2 + seed, "half": seed / 2}

    def judge(self, rows: dict[str, Row]) -> list[Verdict]:
        return [Verdict("nine is more than four", rows["p3"].mean > rows["p2"].mean)]


def test_students_t_and_the_interval_of_a_mean() -> None:
    """Student's distribution, from tables: 12.706 (1), 2.262 (9), 2.021 (40), 1.980 (120)."""
    expected = {1: 12.706, 9: 2.262, 30: 2.042, 31: 2.0395, 40: 2.021, 120: 1.980}
    for freedom, value in expected.items():
        assert student_t(freedom) == pytest.approx(value, abs=6e-4)
    low, high = mean_interval([1.0, 2.0, 3.0])  # s = 1, t(2) = 4.303, over √3
    assert (low, high) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5))
    assert mean_interval([5.0]) == (-math.inf, math.inf)
    assert mean_interval([5.0, 5.0]) == (5.0, 5.0)


def test_a_sweep_measures_each_point_with_each_seed_and_judges_the_whole() -> None:
    """Rows in the order of the points, a value a seed; judged when nothing was left out."""
    seen: list[tuple[str, int, int]] = []
    report = Squares().run(Options(), lambda *step: seen.append(step))
    assert [row.values for row in report.rows] == [[5, 6, 7], [10, 11, 12]]
    assert report.rows[0].details == [{"seed": n, "half": n / 2} for n in (1, 2, 3)]
    assert report.rows[0].detail("half") == [0.5, 1.0, 1.5]
    assert report.rows[0].interval == pytest.approx((6 - 2.4841, 6 + 2.4841), abs=1e-4)
    assert [verdict.met for verdict in report.verdicts] == [True]
    assert (seen[0], seen[-1]) == (("virtual time", 0, 6), ("virtual time", 6, 6))
    assert (report.source, report.settings["runs"]) == ("a figure", 3)


@pytest.mark.parametrize(
    ("options", "values", "verdicts", "said"),
    [
        (Options(quick=True), [[5]], 0, "quick run"),
        (Options(seeds=2, only=("p3",)), [[10, 11]], 0, "every point"),
        (Options(seeds=2), [[5, 6], [10, 11]], 1, "3 seeds"),
    ],
)
def test_what_is_no_full_run_says_so(
    options: Options, values: list[list[int]], verdicts: int, said: str
) -> None:
    """No judgement of a quick run or of some points; with fewer seeds it is a preview."""
    report = Squares().run(options, silent)
    assert [row.values for row in report.rows] == values
    assert len(report.verdicts) == verdicts
    assert said in report.notes[-1]


def test_a_measurement_that_fails_names_its_point_and_seed() -> None:
    """Point and seed are enough to have it again alone."""

    class Large(Squares):
        def points(self, quick: bool) -> list[Point]:
            return [Point("p4", "4 squared", {"n": 4})]

    with pytest.raises(BenchError, match=r"4 squared, seed [123]: too large \(test_sweep.py:\d+\)"):
        Large().run(Options(), silent)


def test_the_table_shows_medians_intervals_and_columns() -> None:
    """One run has no interval, and no remark no column."""
    rows = [Row("a", "A", "s", [1.0, 3.0], details=[{"x": 5.0}, {"x": 7.0}]), Row("b", "B", "s")]
    rows[1].values, rows[1].details = [2.0], [{}]
    report = Report("t", "T", {}, rows, source="fig. 1", columns={"x": "X"})
    table = report.table()
    assert table.title == "T (fig. 1)"
    cells = {str(column.header): list(column.cells) for column in table.columns}
    assert cells["95 % interval"] == ["-10.7 … 14.7", ""]
    assert (cells["median"], cells["X"]) == (["2.00", "2.00"], ["6.00", ""])
    assert "remark" not in cells


def test_links_have_a_queue_of_one_bandwidth_delay_product() -> None:
    """Of the RTT, 32 packets at least, and of a trace's mean rate."""
    assert Link(100_000_000, 10_000).queue == 250_000
    assert Link(100_000_000, 250).queue == 48_000
    assert Link(1, 1, queue_bytes=0).queue == 0
    trace = ((0, 10_000_000), (100_000, 30_000_000), (200_000, 0))
    assert Link(0, 50_000, rate_trace=trace).mean_bps == 20_000_000
    assert Link(0, 50_000, rate_trace=trace).queue == 250_000


@pytest.mark.parametrize(("count", "tcp"), [(1, True), (1, False), (2, False)])
def test_bulk_fills_what_the_headers_leave(count: int, tcp: bool) -> None:
    """RFC 8684 §3.3: a DSS of 22 bytes in every packet; the paths' shares add up to the goodput."""
    found = bulk([SLOW] * count, 1, seconds=2, warmup=1, tcp=tcp)
    assert found.mbit_s == pytest.approx(10 * count * payload_share(tcp=tcp), rel=0.01)
    assert sum(found.per_path) == pytest.approx(found.mbit_s)
    assert min(found.per_path) > 0.45 * found.mbit_s
    assert [at for at, _ in found.curve] == pytest.approx([n / 10 for n in range(1, 31)])
    after = [rate for at, rate in found.curve if at > 1.05]
    assert sum(after) / len(after) == pytest.approx(found.mbit_s, rel=0.01)
    assert len(found.info["subflows"]) == count
    assert found.info["fallback"] is tcp


def test_a_seed_repeats_a_lossy_run_and_another_one_does_not() -> None:
    """A figure that looks wrong can be had again alone; what is lost depends on the seed."""
    lossy = [SLOW, replace(SLOW, loss=0.02)]
    first, again, other = (bulk(lossy, seed, seconds=1, warmup=0.5) for seed in (1, 1, 2))
    assert first == again
    assert first.curve != other.curve
    assert first.per_path[0] > first.per_path[1]


def test_a_transfer_lasts_from_the_connect_to_the_last_byte() -> None:
    """RFC 9293: an RTT for the handshake, half of one and the bytes' time for the data."""
    took = transfer([SLOW], 1, size=1000, tcp=True)
    assert 15_800 < took < 16_200
    long = transfer([SLOW] * 2, 1, size=2_000_000)
    assert 2_000_000 * 8 / 20 < long < 0.7 * transfer([SLOW], 1, size=2_000_000, tcp=True)


def test_messages_are_delayed_by_the_path_and_by_what_waits_before_them() -> None:
    """Half an RTT and the serialization; a link with half the rate that is asked for queues."""
    apart = messages([SLOW], 1, size=1000, interval_us=20_000, count=20)
    assert len(apart) == 20
    assert all(5_800 < delay < 6_200 for delay in apart)
    crowded = messages([SLOW], 1, size=10_000, interval_us=4_000, count=50)
    assert crowded[-1] > 10 * crowded[0]


def test_an_experiment_can_be_touched_while_it_runs() -> None:
    """A path that is cut in the middle brings no more, and the other one carries on."""
    held = Experiment([SLOW, SLOW], 1, Config())
    held.connect()
    held.send()
    held.run(1.0)
    held.sim.set_down(held.paths[1], True)
    held.run(1.0)
    before = held.arrived()
    held.run(1.0)
    after = held.arrived()
    assert after[1] == before[1] > 0
    assert (after[0] - before[0]) * 8 > 9_000_000
    assert held.described()["counters"]["MPTcpExtMPJoinSynTx"] == 1


def test_what_never_arrives_is_an_error() -> None:
    """A dead link makes no figure."""
    dead = replace(SLOW, loss=1.0)
    with pytest.raises(BenchError, match="nothing arrived in the 1 s after"):
        bulk([dead], 1, seconds=1, warmup=0.5)
    with pytest.raises(BenchError, match="0 of 10 bytes arrived"):
        transfer([dead], 1, size=10)


def test_every_scenario_of_a_figure_says_what_it_is() -> None:
    """Name, unit, source, points with unlike keys; the quick ones are not more than all."""
    sweeps = [entry for entry in scenarios.values() if isinstance(entry, Sweep)]
    assert {"loss", "mss"} <= {entry.name for entry in sweeps}
    for entry in sweeps:
        assert entry.summary, entry.name
        assert entry.source, entry.name
        assert entry.unit, entry.name
        for quick in (True, False):
            keys = [point.key for point in entry.points(quick)]
            assert len(set(keys)) == len(keys) > 0
        assert len(entry.points(True)) <= len(entry.points(False))


def rows_of(text: str) -> dict[str, Any]:
    return {row["key"]: row for row in json.loads(text)["scenarios"][0]["rows"]}


@pytest.mark.parametrize("name", ["loss", "mss"])
def test_quick_runs_write_figures_and_pictures(name: str, tmp_path: Path) -> None:
    """Thesis fig. 5.3 and 5.5: the lossless link carries its own, more links carry more."""
    pytest.importorskip("matplotlib")
    assert cli.main(["run", name, "--quick", "--plot", str(tmp_path)]) == 0
    rows = rows_of((tmp_path / f"{name}.json").read_text())
    assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    if name == "loss":
        assert rows["loss0"]["median"] > 1.9 * rows["alone"]["median"]
        assert rows["loss5"]["details"][0]["a"] > 0.95 * rows["alone"]["median"]
    else:
        assert rows["mss1400-links3"]["median"] > 2.9 * rows["mss1400-links1"]["median"]
        detail = rows["mss8900-links3"]["details"][0]
        assert detail["cpu_mbit_s"] > rows["mss1400-links3"]["details"][0]["cpu_mbit_s"]


def test_a_quick_run_of_the_retransmission_policies(tmp_path: Path) -> None:
    """Thesis table 4.2: what a dead path holds goes on the other, unless nobody is to send it."""
    target = tmp_path / "found.json"
    assert cli.main(["run", "retransmissions", "--quick", "--json", str(target)]) == 0
    rows = rows_of(target.read_text())
    assert rows["cut-probe"]["median"] < 2_000 < 4_000 < rows["cut-rtx-same"]["median"]
    assert rows["lossy1-probe"]["median"] < 2_000


def judged(name: str, values: dict[str, tuple[list[float], dict[str, float]]]) -> list[bool]:
    entry = scenarios[name]
    assert isinstance(entry, Sweep)
    rows = {
        key: Row(key, key, entry.unit, list(runs), details=[detail] * len(runs))
        for key, (runs, detail) in values.items()
    }
    return [verdict.met for verdict in entry.judge(rows)]


@pytest.mark.parametrize(
    ("a", "total", "met"),
    [
        (91.0, [105.0, 106.0], [True, False]),  # the interval reaches below 1.05
        (90.0, [110.0, 111.0], [False, True]),
        (91.0, [110.0, 110.0], [True, True]),
    ],
)
def test_the_judgement_of_loss(a: float, total: list[float], met: list[bool]) -> None:
    """Thesis fig. 5.3: the lossless subflow keeps 95 %, both carry more than 1.05 × A alone."""
    found = {
        "tcp": ([96.0, 96.0], {"a": 96.0}),
        "alone": ([95.0, 95.0], {"a": 95.0}),
        "loss0": ([190.0, 190.0], {"a": 95.0}),
        "loss5": (total, {"a": a}),
    }
    assert judged("loss", found) == met
