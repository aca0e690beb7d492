"""`bench run aggregation` and `failover`: MPTCP in real time beside the kernel's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mptcp.bench.emulated_paths import Road
from mptcp.bench.meter import Meter
from mptcp.bench.registry import BenchError, Options
from mptcp.bench.results import Report, Row
from mptcp.bench.scenarios import aggregation, failover

from .test_cli import bench, need_namespaces


def scenario(path: Path, name: str) -> dict[str, Any]:
    (found,) = json.loads(path.read_text())["scenarios"]
    assert found["scenario"] == name
    return {row["key"]: row for row in found["rows"]}


def test_the_cells_are_the_ones_asked_for() -> None:
    """RTT ratios 1, 2, 5, 10 with small and large buffers; queues of one BDP."""
    assert len({cell.key for cell in aggregation.CELLS}) == 8
    assert {cell.ratio for cell in aggregation.CELLS} == {1, 2, 5, 10}
    assert sorted(aggregation.BUFFERS.values()) == [128 << 10, 4 << 20]
    for cell in aggregation.CELLS:
        first, second = cell.roads
        assert second.rtt_us == cell.ratio * first.rtt_us
        assert second.queue_bytes == second.rate_bps * second.rtt_us // 8_000_000
    assert Road(8_000_000, 1_000).queue_bytes == 15_000
    assert [road.rtt_us for road in failover.ROADS] == [20_000, 40_000]


def test_a_meter_tells_where_nothing_came(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 ms and more count, on the clock that the parent's cut is told by."""
    now = 100.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    meter = Meter(warmup=0.1, seconds=1.0)
    for step in (0.0, 0.2, 0.01, 0.3, 0.015, 0.025, 1.0):
        now += step
        meter.add(1000)
    assert meter.done
    assert [(round(end, 3), round(length, 3)) for end, length in meter.result["pauses"]] == [
        (100.51, 0.3),
        (100.55, 0.025),
        (101.55, 1.0),
    ]
    assert meter.result["ended_at"] == now


def aggregated(ratios: list[float]) -> Report:
    """A report in which ours is `ratios` of the kernel's best."""
    rows = []
    for cell, ratio in zip(aggregation.CELLS, ratios, strict=True):
        rows.append(Row(f"ours-{cell.key}", cell.label, "", [0.9 * ratio] * 3))
        for control, part in zip(aggregation.KERNEL, (0.5, 0.9, 0.8), strict=True):
            rows.append(Row(f"kernel-{control}-{cell.key}", cell.label, "", [part] * 3))
    report = Report("aggregation", "A", {}, rows)
    aggregation.compare(report, list(aggregation.CELLS))
    return report


@pytest.mark.parametrize(
    ("ratios", "met"),
    [
        ([1.1, 1.0, 1.0, 1.0, 0.96, 0.96, 0.96, 0.5], [True, True]),
        ([1.1, 1.0, 1.0, 1.0, 0.96, 0.96, 0.94, 0.5], [False, True]),
        ([0.99] * 8, [True, False]),
    ],
)
def test_the_judgement_of_aggregation(ratios: list[float], met: list[bool]) -> None:
    """0.95 of the kernel's best control in 80 % of the cells, better in some; failing ones named.

    Of eight cells, seven are more than 80 % and six are less.
    """
    verdicts = aggregation.judge(aggregated(ratios))
    assert [verdict.met for verdict in verdicts] == met
    failing = [
        cell.label
        for cell, ratio in zip(aggregation.CELLS, ratios, strict=True)
        if ratio < aggregation.LEAST
    ]
    assert all(label in verdicts[0].promise for label in failing)
    assert verdicts[0].promise.endswith("none") is not bool(failing)


@pytest.mark.parametrize(
    ("ours", "met"), [([250.0, 300.0], [True, True]), ([200.0, 401.0], [True, False])]
)
def test_the_judgement_of_failover(ours: list[float], met: list[bool]) -> None:
    """Median and worst, each no longer than the kernel's."""
    rows = {"ours": Row("ours", "", "ms", ours), "kernel": Row("kernel", "", "ms", [300.0, 400.0])}
    assert [verdict.met for verdict in failover.judge(rows)] == met


@pytest.mark.netns
@pytest.mark.timeout(90)
def test_aggregation_quick_run(tmp_path: Path) -> None:
    """Thesis fig. 5.2: both paths carry their share, whoever sends."""
    need_namespaces()
    pytest.importorskip("matplotlib")
    result = bench("run", "aggregation", "--quick", "--plot", str(tmp_path), timeout=80)
    assert result.returncode == 0, result.stderr
    rows = scenario(tmp_path / "aggregation.json", "aggregation")
    assert list(rows) == ["ours-r2-4m", "kernel-cubic-r2-4m"]
    for row in rows.values():
        assert 0.3 < row["median"] < 1
        assert min(row["details"][0]["path_shares"]) > 0.2
    ours = rows["ours-r2-4m"]
    assert ours["ratios"]["kernel's best"] == ours["median"] / rows["kernel-cubic-r2-4m"]["median"]
    assert len(ours["details"][0]["subflows"]) == 2
    assert (tmp_path / "aggregation.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.netns
@pytest.mark.timeout(90)
def test_failover_quick_run(tmp_path: Path) -> None:
    """Thesis §4.3.6: what the cut path carried comes over the other one, within seconds."""
    need_namespaces()
    pytest.importorskip("matplotlib")
    arguments = ["run", "failover", "--quick", "--runs", "1", "--plot", str(tmp_path)]
    result = bench(*arguments, timeout=80)
    assert result.returncode == 0, result.stderr
    rows = scenario(tmp_path / "failover.json", "failover")
    assert list(rows) == ["ours", "kernel"]
    for row in rows.values():
        assert 20 < row["median"] < 3000  # an RTT at least: what was in flight is lost
        assert row["details"][0]["goodput_mbit_s"] > 5
    assert (tmp_path / "failover.png").read_bytes()[:4] == b"\x89PNG"


def test_a_transfer_that_gets_stuck_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One transfer that says nothing does not cost the figure, and the page says so; two in a row
    are a fault."""
    stuck = [True, False]

    def fill(cell: aggregation.Cell, who: str, warmup: float, seconds: float) -> dict[str, object]:
        if stuck and stuck.pop(0):
            raise BenchError(f"{who}, {cell.label}: said nothing")
        return {"filled": 0.9, "cell": cell.key, "who": who}

    monkeypatch.setattr(aggregation, "fill", fill)
    options = Options(runs=1, only=("r1-128k", "ours"))
    report = aggregation.Aggregation().run(options, lambda *_: None)
    assert [row.values for row in report.rows] == [[0.9]]
    assert "measured again: ours, RTT 1:1, 128 KiB: said nothing" in report.notes
    stuck[:] = [True, True]
    with pytest.raises(BenchError, match="said nothing"):
        aggregation.Aggregation().run(options, lambda *_: None)
