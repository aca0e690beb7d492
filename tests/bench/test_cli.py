"""The command line of the measurements: what it lists, refuses, and writes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mptcp.bench import cli, nodes
from mptcp.bench.registry import BenchError, Options, scenarios
from mptcp.bench.results import Report, Row, document, machine
from mptcp.tun.netns import Namespace, require_namespaces

CHECKOUT = Path(__file__).resolve().parents[2]


def bench(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def check_schema(found: dict[str, Any], names: list[str]) -> None:
    assert set(found) == {"schema", "started", "machine", "scenarios"}
    assert found["schema"] == 1
    assert {"kernel", "cpus", "python", "processor", "core", "commit"} <= set(found["machine"])
    assert [entry["scenario"] for entry in found["scenarios"]] == names
    for entry in found["scenarios"]:
        assert set(entry) == {
            *(
                "scenario",
                "title",
                "source",
                "columns",
                "settings",
                "took_s",
                "rows",
                "notes",
                "verdicts",
            )
        }
        assert entry["settings"]["runs"] >= 1
        for row in entry["rows"]:
            assert set(row) == {
                *(
                    "key",
                    "label",
                    "unit",
                    "median",
                    "interval",
                    "runs",
                    "ratios",
                    "remark",
                    "details",
                )
            }
            assert len(row["runs"]) == len(row["details"]) == entry["settings"]["runs"]
            assert min(row["runs"]) <= row["median"] <= max(row["runs"])
            assert row["median"] > 0


def test_list_names_every_scenario_and_case() -> None:
    result = bench("list")
    assert (result.returncode, result.stderr) == (0, "")
    for name, entry in scenarios.items():
        assert name in result.stdout
        assert entry.summary in result.stdout
        assert ", ".join(entry.cases()) in result.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["run", "warp"],
            "no scenario 'warp': there are ",
        ),
        (["run", "micro", "--only", "kernel-bbr"], "no case 'kernel-bbr'"),
        (["run", "micro", "--json", "/nowhere/at/all.json"], "/nowhere/at/all.json: No such file"),
        (["run", "micro", "--json", "/tmp"], "/tmp: Is a directory"),
        (["run", "micro", "--plot", "/proc/nope"], "/proc/nope: No such file"),
        (["run", "micro", "--plot", "/proc"], "/proc: No such file"),
        (["run", "micro", "--plot", __file__], "test_cli.py: Not a directory"),
        (["run", "micro", "--profile", __file__], "test_cli.py: Not a directory"),
        (["run", "micro", "--runs", "0"], "0 is not in 1..1000"),
        (["run", "micro", "--runs", "many"], "argument --runs: 'many' is not a whole number"),
        (["run", "micro", "--seconds", "-1"], "-1"),
        (["run", "micro", "--seconds", "1s"], "argument --seconds: '1s' is not a number of"),
        (["run"], "the following arguments are required: NAME"),
        (["fly"], "invalid choice: 'fly'"),
    ],
)
def test_refusals_are_one_line_and_status_2(
    arguments: list[str],
    text: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And nothing is measured before."""

    def measured(options: Options, progress: object) -> Report:
        raise AssertionError("measured")

    monkeypatch.setattr(scenarios["micro"], "run", measured)
    try:
        status: object = cli.main(arguments)
    except SystemExit as end:
        status = end.code
    printed = capsys.readouterr()
    assert (status, printed.out) == (2, "")
    assert text in printed.err
    assert printed.err.count("\n") == 1


def test_micro_writes_the_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "result.json"
    arguments = ["run", "micro", "--only", "mptcp2-chunks,tcp-packets", "--seconds", "0.2"]
    assert cli.main([*arguments, "--runs", "2", "--json", str(target)]) == 0
    found = json.loads(target.read_text())
    check_schema(found, ["micro"])
    rows = {row["key"]: row for row in found["scenarios"][0]["rows"]}
    assert list(rows) == [
        "mptcp2-chunks-sender",
        "mptcp2-chunks-receiver",
        "tcp-packets-sender",
        "tcp-packets-receiver",
    ]
    # A chunk is what the device cuts up, a packet is one segment.
    assert rows["mptcp2-chunks-sender"]["details"][0]["mean_bytes"] > 10 * 1460
    assert 1000 < rows["tcp-packets-sender"]["details"][0]["mean_bytes"] <= 1460
    assert "MPTCP, 2 paths, chunks, sender" in capsys.readouterr().out


def test_report_compares_medians_of_measured_rows_only() -> None:
    report = Report(
        "x",
        "X",
        {"runs": 3},
        [
            Row("a", "A", "Gbit/s", [1.0, 9.0, 3.0]),
            Row("b", "B", "Gbit/s", [6.0, 6.0, 7.0]),
            Row("c", "C", "Gbit/s"),
        ],
    )
    for base in ("b", "c", "no such row"):
        report.compare("a", base, base)
    assert report.rows[0].ratios == {"b": 0.5}
    entry = document([report], machine(), "now")["scenarios"][0]
    assert [row["key"] for row in entry["rows"]] == ["a", "b"]
    assert entry["rows"][0]["runs"] == [1.0, 9.0, 3.0]


def test_scenario_failure_is_one_line_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: Options, progress: object) -> Report:
        raise BenchError("the peer\nhas left")

    monkeypatch.setattr(scenarios["micro"], "run", fail)
    assert cli.main(["run", "micro"]) == 1
    assert capsys.readouterr().err == "bench: the peer has left\n"


def small(name: str) -> Report:
    return Report(name, "T", {"runs": 1}, [Row("a", "the row", "s", [1.0], details=[{}])])


def test_a_table_is_printed_before_what_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures are not lost, and the scenarios after it are measured."""
    for name in ("micro", "simulator"):
        monkeypatch.setattr(scenarios[name], "run", lambda options, progress, n=name: small(n))
    (tmp_path / "micro.json").mkdir()
    assert cli.main(["run", "micro", "simulator", "--plot", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.out.count("the row") == 2
    assert printed.err == f"bench: {tmp_path}/micro.json: Is a directory\n"
    assert (tmp_path / "simulator.json").exists()
    # The file of results goes away while it is measured.
    folder = tmp_path / "folder"
    folder.mkdir()
    target = folder / "x.json"

    def run(options: Options, progress: object) -> Report:
        target.unlink()
        folder.rmdir()
        return small("micro")

    monkeypatch.setattr(scenarios["micro"], "run", run)
    assert cli.main(["run", "micro", "--json", str(target)]) == 2
    printed = capsys.readouterr()
    assert "the row" in printed.out
    assert printed.err == f"bench: {target}: No such file or directory\n"


@pytest.mark.parametrize("held", [None, "", "old"])
def test_an_interrupted_run_leaves_no_empty_file(
    held: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was there before stays."""

    def interrupt(options: Options, progress: object) -> Report:
        raise KeyboardInterrupt

    monkeypatch.setattr(scenarios["micro"], "run", interrupt)
    target = tmp_path / "x.json"
    if held is not None:
        target.write_text(held)
    assert cli.main(["run", "micro", "--json", str(target)]) == 130
    assert (target.read_text() if target.exists() else None) == held


def run_program(program: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_children_of_the_pool_do_not_hear_an_interrupt() -> None:
    """Neither while they come up nor later: no traceback of theirs stands beside our line."""
    program = (
        "import signal\n"
        "from functools import partial\n"
        "from bench.pool import spread\n"
        "blocked = spread(partial(signal.pthread_sigmask, signal.SIG_BLOCK), [()])[0]\n"
        "print(signal.SIGINT in blocked, spread(signal.getsignal, [signal.SIGINT])[0].name)\n"
    )
    result = run_program(program)
    assert (result.stdout, result.stderr) == ("True SIG_IGN\n", "")


def test_missing_rights_are_one_line_and_status_2() -> None:
    # Where user namespaces are forbidden too; the helper's own tests see to the real refusal.
    program = (
        "import sys\n"
        "from mptcp.bench import cli\n"
        "from mptcp.tun.device import DeviceError\n"
        "def refuse(): raise DeviceError(1, 'no right to create network namespaces: run as root')\n"
        "cli.enter_user_namespace = refuse\n"
        "sys.exit(cli.main(['run', 'goodput', '--quick']))\n"
    )
    result = run_program(program)
    assert result.returncode == 2
    assert result.stderr == "bench: no right to create network namespaces: run as root\n"


def need_namespaces() -> None:
    reason = require_namespaces()
    if reason is not None:
        pytest.skip(reason)


def test_the_simulator_is_measured_against_real_time(tmp_path: Path) -> None:
    """Virtual seconds for each second of CPU, and whether the goal is met."""
    file = tmp_path / "result.json"
    arguments = ["run", "simulator", "--quick", "--seconds", "1", "--json", str(file)]
    assert cli.main(arguments) == 0
    found = json.loads(file.read_text())
    check_schema(found, ["simulator"])
    rows = {row["key"]: row for row in found["scenarios"][0]["rows"]}
    assert set(rows) == {"two-paths", "two-paths-chunks", "one-path"}
    two = rows["two-paths"]
    assert two["details"][0]["packets"] > 2000
    assert two["median"] == pytest.approx(two["details"][0]["ratio_cpu"])
    notes = " ".join(found["scenarios"][0]["notes"])
    assert ("NOT met" in notes) == (two["median"] < 10)


@pytest.mark.netns
def test_goodput_quick_run(tmp_path: Path) -> None:
    need_namespaces()
    target = tmp_path / "result.json"
    cases = ["kernel-reno", "ours-kernel", "kernel-ours", "ours-ours", "limit"]
    result = bench(
        *("run", "goodput", "--quick", "--seconds", "0.2"),
        *("--only", ",".join(cases), "--json", str(target)),
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(target.read_text())
    check_schema(found, ["goodput"])
    rows = {row["key"]: row for row in found["scenarios"][0]["rows"]}
    assert list(rows) == cases
    assert set(rows["ours-ours"]["ratios"]) == {"reno", "limit"}
    # The kernel says that it used what was asked for, and saw two subflows.
    detail = rows["kernel-reno"]["details"][0]
    assert (detail["cc"], detail["sender"]["cc"]) == ("reno", "reno")
    assert detail["kernel_counters_B"]["MPTcpExtMPJoinAckRx"] == 1
    for key in ("ours-kernel", "ours-ours"):
        sender = rows[key]["details"][0]["sender"]
        assert sender["fallback"] is None
        assert len(sender["subflows"]) == 2


@pytest.mark.netns
def test_interrupt_takes_everything_down() -> None:
    need_namespaces()
    program = subprocess.Popen(
        [sys.executable, "-m", "bench", "run", "goodput", "--only", "limit", "--seconds", "60"],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        children = wait_for_children(program)
        os.kill(program.pid, signal.SIGINT)
        out, err = program.communicate(timeout=20)
        assert (program.returncode, out) == (130, "")
        assert err == "bench: interrupted; everything is taken down\n"
        for child in children:
            assert select.select([child], [], [], 20)[0], "a node outlives its parent"
            os.close(child)
    finally:
        program.kill()
        program.communicate()


def wait_for_children(program: subprocess.Popen[str]) -> list[int]:
    """Process descriptors of the two node processes, once they are there."""
    for _ in range(2_000_000):
        assert program.poll() is None
        # A thread or a child may be gone before its file is read.
        with contextlib.suppress(OSError):
            children = [
                int(child)
                for task in Path(f"/proc/{program.pid}/task").glob("*/children")
                for child in task.read_text().split()
            ]
            if len(children) >= 2:
                return [os.pidfd_open(child) for child in children]
    raise AssertionError("the node processes did not come")


@pytest.mark.netns
def test_node_that_fails_says_why() -> None:
    need_namespaces()
    with Namespace.create("alone") as namespace:
        node = nodes.Node(namespace, "kernel-send")
        with pytest.raises(BenchError, match=r"kernel-send: \[Errno 99\]"):
            node.line(20)
        node.close(20)
        assert node.complaint().startswith("kernel-send: [Errno 99]")
