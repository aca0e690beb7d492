"""`bench run tcp` and `bench run fairness`: what they measure, plan and judge."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mptcp.bench import cli
from mptcp.bench.emulated import Outcome
from mptcp.bench.paths import MBIT, Cell
from mptcp.bench.pool import spread
from mptcp.bench.registry import BenchError, Options
from mptcp.bench.response import goodput, reno_window
from mptcp.bench.results import Report, Row, Verdict
from mptcp.bench.scenarios import fairness, tcp
from mptcp.bench.virtual import SAMPLE_S, Job, share, transfer
from mptcp.tcp.congestion import controllers

from .test_cli import CHECKOUT, bench, need_namespaces, wait_for_children


def test_the_grid_is_the_one_asked_for() -> None:
    """Loss 0/0.1/1/3 %, RTT 10/50/200 ms, reordering 0/1 %; six real cells with each of them."""
    seen = {(cell.loss, cell.rtt_us, cell.reorder) for cell in tcp.GRID}
    assert len(seen) == len(tcp.GRID) == 24
    assert {cell.queue_bytes for cell in tcp.GRID} == {125_000, 625_000, 2_500_000}
    assert len(tcp.REAL) == 6
    assert set(tcp.REAL) <= set(tcp.GRID)
    assert {cell.loss for cell in tcp.REAL} == set(tcp.LOSSES)
    assert {cell.rtt_us for cell in tcp.REAL} == {1000 * rtt for rtt in tcp.RTTS_MS}
    assert {cell.reorder for cell in tcp.REAL} == set(tcp.REORDERINGS)
    assert Cell(MBIT, 10_000).queue_bytes == 32 * 1500


def test_a_clean_path_is_filled_in_virtual_time() -> None:
    """RFC 5681: without loss the link is the limit; 1448 of 1500 bytes are payload."""
    cell = Cell(10 * MBIT, 20_000)
    found = transfer(Job(cell, "newreno", 1, 2.0, 5.0))
    assert found["mbit_per_s"] == pytest.approx(10 * 1448 / 1500, rel=0.02)
    assert found["lost"] == 0


def test_a_lossy_path_gives_what_the_response_function_says() -> None:
    """RFC 5681 as AIMD: within a third of √(3/2p) over some 100 losses; the seed repeats it."""
    cell = Cell(20 * MBIT, 20_000, 0.01)
    job = Job(cell, "newreno", 1, 2.0, 15.0)
    found = transfer(job)
    expected = goodput(reno_window(0.01, 0.02), 0.01, 0.02, 20 * MBIT) / MBIT
    assert found["lost"] > 50
    assert found["mbit_per_s"] == pytest.approx(expected, rel=0.33)
    assert transfer(job) == found


def test_flows_of_one_simulation_share_its_link() -> None:
    """Two flows together fill it, and the samples grow to the end."""
    lines = share(Job(Cell(10 * MBIT, 20_000), "newreno", 1, 0.0, 4.0), 2, 7_000)
    assert [line[0] for line in lines] == [(0.0, 0), (0.0, 0)]
    for line in lines:
        assert [time for time, _ in line] == [SAMPLE_S * step for step in range(9)]
        assert [total for _, total in line] == sorted(total for _, total in line)
        assert line[-1][1] > 0
    assert sum(line[-1][1] for line in lines) * 8 / 4 > 0.85 * 10 * MBIT


def test_a_stalled_flow_is_an_error_not_a_figure() -> None:
    """A stack that stops sending must not come out as a small median."""
    samples = [(0.0, 0), (0.5, 500_000), (1.0, 1_000_000), (1.5, 1_000_000), (2.0, 1_000_000)]
    outcome = Outcome([samples], [{}], 0.0, {}, {})
    assert outcome.goodput(0, 0.0, 1.0) == pytest.approx(1_000_000 * 8 / 1.5 / 1e6)
    with pytest.raises(BenchError, match="nothing arrived between 1 s and 2 s"):
        outcome.goodput(0, 1.0, 2.0)
    with pytest.raises(BenchError, match="shorter than two samples"):
        outcome.goodput(0, 2.0, 2.0)


def test_jain() -> None:
    """Jain, Chiu, Hawe 1984: (1+3)² / 2(1+9) = 0.8; equal shares 1; all for one of four 1/4."""
    assert fairness.jain([1, 3]) == pytest.approx(0.8)
    assert fairness.jain([7, 7, 7]) == pytest.approx(1)
    assert fairness.jain([5, 0, 0, 0]) == pytest.approx(0.25)


def test_pool_keeps_the_order_and_tells_each_end() -> None:
    told: list[int] = []
    assert spread(abs, [-3, 2, -1], told.append) == [3, 2, 1]
    assert told == [1, 2, 3]
    assert spread(int, []) == []
    with pytest.raises(ValueError, match="'x'"):
        spread(int, ["1", "x"])


def plan(**options: Any) -> tcp._Plan:
    return tcp._plan(Options(**options))


def test_only_chooses_of_each_kind_it_names() -> None:
    everything = plan()
    assert (everything.grid, everything.real) == (tcp.GRID, tcp.REAL)
    assert set(everything.controls) == set(tcp.CONTROLS) & set(controllers.names())
    chosen = plan(only=("virtual", "loss1-rtt10", "newreno"))
    assert [cell.key for cell in chosen.grid] == ["loss1-rtt10"]
    assert (chosen.real, chosen.controls) == ((), ("newreno",))
    assert plan(quick=True).seconds < 5
    assert not plan(quick=True).judged
    assert not plan(runs=2).judged
    assert not plan(seconds=10).judged


def test_pairs_run_at_once_but_what_fills_the_link_runs_alone() -> None:
    rows: list[Row] = []
    pairs = list(tcp._pairs(plan(only=("newreno",)), rows))
    assert len(rows) == 2 * len(tcp.REAL)
    batches = tcp._batches(pairs)
    assert sum(map(len, batches)) == 2 * len(pairs)
    for batch in batches:
        lossless = [part for part in batch if not part.trial.cell.loss]
        assert not lossless or len(batch) == 1
        assert len(batch) <= 10
        # Ours and the kernel's with one seed over one cell run beside each other.
        seen = [(part.trial.cell, part.control, part.trial.seed) for part in batch]
        assert lossless or all(seen.count(entry) == 2 for entry in seen)


def judged_report(ratios: list[float]) -> tuple[Report, tcp._Plan]:
    """A report in which ours is `ratios` of the kernel's, over the six cells."""
    rows = []
    for control in tcp.CONTROLS:
        for cell, ratio in zip(tcp.REAL, ratios, strict=True):
            rows += [
                Row(f"ours-{control}-{cell.key}", "", "Mbit/s", [10 * ratio] * 5),
                Row(f"kernel-{control}-{cell.key}", "", "Mbit/s", [10.0] * 5),
            ]
    wanted = tcp._Plan(tuple(tcp.CONTROLS), (), tcp.REAL, 1, 5, 30.0, 5.0, False)
    return Report("tcp", "T", {}, rows), wanted


@pytest.mark.parametrize(
    ("ratios", "met"),
    [
        ([1.0, 0.96, 0.95, 0.95, 0.9, 0.81], [True, True]),
        ([1.2, 1.0, 1.0, 1.0, 1.0, 0.79], [True, False]),
        ([1.2, 1.0, 0.94, 0.94, 0.94, 0.94], [False, True]),
    ],
)
def test_judgement(ratios: list[float], met: list[bool]) -> None:
    """The median ratio to the kernel ≥ 0.95, none below 0.8."""
    report, wanted = judged_report(ratios)
    assert wanted.judged
    verdicts = tcp._verdicts(report, wanted)
    assert [verdict.met for verdict in verdicts] == met
    assert [str(verdict).startswith("met: ") for verdict in verdicts] == met


def test_a_missed_promise_is_status_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run(options: Options, progress: object) -> Report:
        row = Row("a", "A", "Mbit/s", [1.0], details=[{}])
        verdicts = [Verdict("as good: 1.0", True), Verdict("as fast: 0.5", False)]
        return Report("tcp", "M", {"runs": 1}, [row], verdicts=verdicts)

    monkeypatch.setattr(tcp.Tcp, "run", lambda self, options, progress: run(options, progress))
    monkeypatch.setattr(tcp.Tcp, "draw", lambda self, report, figure: figure.subplots())
    monkeypatch.setattr(cli, "enter_user_namespace", lambda: None)
    assert cli.main(["run", "tcp", "--plot", str(tmp_path / "out")]) == 3
    printed = capsys.readouterr()
    assert "NOT met: as fast: 0.5" in printed.out
    assert printed.err == "bench: 1 promise is not kept, the first: as fast: 0.5\n"
    found = json.loads((tmp_path / "out" / "tcp.json").read_text())
    assert found["scenarios"][0]["verdicts"][1] == {"promise": "as fast: 0.5", "met": False}
    assert (tmp_path / "out" / "tcp.png").exists()


def scenario(text: str, name: str) -> dict[str, Any]:
    (found,) = json.loads(text)["scenarios"]
    assert found["scenario"] == name
    rows: list[dict[str, Any]] = found["rows"]
    return {row["key"]: row for row in rows}


@pytest.mark.netns
def test_tcp_quick_run(tmp_path: Path) -> None:
    need_namespaces()
    pytest.importorskip("matplotlib")
    cells = "newreno,loss1-rtt10"
    result = bench(
        *("run", "tcp", "--quick", "--only", cells, "--seconds", "1.5"),
        *("--json", "-", "--plot", str(tmp_path)),
    )
    assert result.returncode == 0, result.stderr
    rows = scenario(result.stdout, "tcp")
    assert list(rows) == [f"{who}-newreno-loss1-rtt10" for who in ("virtual", "ours", "kernel")]
    ours, kernel = rows["ours-newreno-loss1-rtt10"], rows["kernel-newreno-loss1-rtt10"]
    assert ours["ratios"]["kernel"] == pytest.approx(ours["median"] / kernel["median"])
    detail = kernel["details"][0]
    assert detail["sender"]["congestion_control"] == "reno"
    assert detail["link"]["lost"] > 0
    assert detail["lateness_us"]["probes"] > 50
    sender = ours["details"][0]["sender"]
    assert sender["bytes_retransmitted"] > 0
    assert scenario((tmp_path / "tcp.json").read_text(), "tcp").keys() == rows.keys()
    assert (tmp_path / "tcp.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.netns
def test_fairness_quick_run(tmp_path: Path) -> None:
    need_namespaces()
    pytest.importorskip("matplotlib")
    cases = ["virtual-newreno", "ours-newreno", "mixed-newreno", "kernel-reno"]
    result = bench(
        *("run", "fairness", "--quick", "--only", ",".join(cases), "--seconds", "1.5"),
        *("--json", "-", "--plot", str(tmp_path)),
    )
    assert result.returncode == 0, result.stderr
    rows = scenario(result.stdout, "fairness")
    assert list(rows) == cases
    for row in rows.values():
        assert 0.5 <= row["median"] <= 1
        # Together they fill the link but for slow start.
        assert 10 < sum(row["details"][0]["mbit_per_s"]) < 20
    assert (tmp_path / "fairness.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.netns
@pytest.mark.parametrize("only", ["virtual,loss0-rtt200", "real,loss0-rtt200"])
def test_interrupt_takes_everything_down(only: str) -> None:
    need_namespaces()
    program = subprocess.Popen(
        [sys.executable, "-m", "bench", "run", "tcp", "--only", only],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        children = wait_for_children(program)
        os.killpg(program.pid, signal.SIGINT)  # as a terminal does
        out, err = program.communicate(timeout=30)
        assert (program.returncode, out) == (130, "")
        assert err == "bench: interrupted; everything is taken down\n"
        for child in children:
            assert select.select([child], [], [], 20)[0], "a child outlives its parent"
            os.close(child)
    finally:
        program.kill()
        program.communicate()
