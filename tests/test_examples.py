"""The examples run as they are told to, and print what they promise."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.simulate import simulate

ROOT = Path(__file__).parents[1]


def figures(example: str, *arguments: str) -> list[tuple[str, list[float]]]:
    """Of each line that an example prints the first word, and the numbers."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / example), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},  # this checkout, whatever is installed
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [
        (line.split()[0], [float(number) for number in re.findall(r"\d+(?:\.\d+)?", line)])
        for line in done.stdout.splitlines()
    ]


def test_round_robin_uses_both_paths_where_min_rtt_keeps_to_the_fast_one() -> None:
    (name, minrtt), (other, rr) = figures("round_robin.py")
    assert (name, other) == ("minrtt", "rr")
    _, fast, _, slow, elapsed = minrtt
    _, rr_fast, _, rr_slow, rr_elapsed = rr
    for sent in (fast + slow, rr_fast + rr_slow):
        assert 2_000_000 <= sent < 2_100_000  # all of it, and hardly anything twice
    assert slow < 0.05 * fast
    assert 0.5 * rr_fast < rr_slow < 1.1 * rr_fast
    # 50 messages of 40 kB need 11 ms each at 30 Mbit/s, and 5 ms to cross the fast path.
    assert 50 * 15 < elapsed < 50 * 35
    assert 1.3 * elapsed < rr_elapsed < 50 * 100


def test_half_reno_gets_more_out_of_a_lossy_path() -> None:
    (name, (seconds, rate)), (other, (half_seconds, half_rate)) = figures("half_reno.py")
    assert (name, other) == ("newreno", "half_reno")
    assert 1.15 * rate < half_rate < 20  # the link's
    for time, speed in ((seconds, rate), (half_seconds, half_rate)):
        assert abs(time * speed - 40) < 1  # Mbit: the figures belong together


def test_controllers_run_by_name() -> None:
    """Any registered name, the example's own among them; an error tells which there are."""
    found = figures("half_reno.py", "half_reno", "cubic")
    assert [name for name, _ in found] == ["half_reno", "cubic"]
    assert found[0][1][1] > found[1][1][1]  # a quarter less at a loss beats 3/10
    source = (ROOT / "examples" / "half_reno.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 40
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "half_reno.py"), "nonesuch"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode != 0
    assert "unknown congestion control 'nonesuch': use one of balia, " in done.stderr


def test_two_ports_opens_a_second_subflow_on_the_same_addresses() -> None:
    (_, (one, port, acked)), (_, (two, other_port, other_acked)) = figures("two_ports.py")
    assert (one, two) == (1, 2)
    assert port != other_port
    assert min(acked, other_acked) > 0
    assert acked + other_acked == 120_000


def test_an_experiment_of_thirty_lines_with_a_plot(tmp_path: Path) -> None:
    """Both paths carry their part; the outage of one does not stop the other."""
    plot = tmp_path / "plot.png"
    (name, (goodput,)), (wifi, (first,)), (lte, (second,)) = figures("experiment.py", str(plot))
    assert (name, wifi, lte) == ("goodput", "Wi-Fi", "LTE")
    assert 4 < first < 8 * 24 / 30
    assert second > 2
    assert 0.9 * (first + second) < goodput < first + second
    assert plot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_an_experiment_tells_how_it_is_used(tmp_path: Path) -> None:
    """`--help` is a question, not the name of a plot."""
    script = str(ROOT / "examples" / "experiment.py")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env=env,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage:" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_scheduler_of_forty_lines_runs_by_its_name() -> None:
    """`steady` is registered by its file; over two equal paths both carry their part."""
    source = ROOT / "examples" / "steady.py"
    assert len(source.read_text().splitlines()) <= 40
    asked = ("--bytes", "2000000", "--path", "20/5", "--path", "20/5")
    done = simulate("--load", str(source), "--scheduler", "steady", *asked)
    assert (done.returncode, done.stderr) == (0, "")
    one, two, whole = done.stdout.splitlines()
    assert whole.startswith("2000000 bytes in ")
    sent = [int(line.split()[2]) for line in (one, two)]
    assert min(sent) > 300_000
    assert 2_000_000 <= sum(sent) < 2_100_000


def test_a_name_that_nobody_registered_is_told_with_those_there_are() -> None:
    """One line, and the status of a wrong command line."""
    for arguments in (
        ("--scheduler", "steady"),
        ("--congestion-control", "steady"),
        ("--path-manager", "steady"),
        ("--heuristics", "steady"),
    ):
        done = simulate(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(
            r"python -m mptcp\.sim: unknown [a-z ]+ 'steady': use one of [a-z, -]+\n", done.stderr
        )
    for wrong in (("--path", "fast"), ("--set", "nothing=1"), ("--load", "nowhere.py")):
        done = simulate(*wrong)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_a_heuristic_of_forty_lines_runs_by_its_name() -> None:
    """`patience` pays for the second path only when it must: 1 MB is done in time without it, 5 MB
    are not, and then take little longer than with both at once."""
    source = ROOT / "examples" / "patience.py"
    assert len(source.read_text().splitlines()) <= 40
    paths = ("--path", "10/10", "--path", "10/10")
    # It judges by what the application could write: the whole send buffer from the beginning.
    loaded = ("--load", str(source), *paths, "--set", "autotune=false")

    def figures_of(rules: str, size: int) -> tuple[int, float]:
        """Paths that carried something, and ms."""
        done = simulate(*loaded, "--heuristics", rules, "--bytes", str(size))
        assert (done.returncode, done.stderr) == (0, "")
        *paths, whole = done.stdout.splitlines()
        return len(paths), float(whole.split()[3])

    assert figures_of("patience", 1_000_000)[0] == 1
    used, patient = figures_of("patience", 5_000_000)
    _, at_once = figures_of("at-once", 5_000_000)
    assert used == 2
    assert at_once < patient < 1.15 * at_once


def test_the_command_that_patience_prints_shows_its_rule() -> None:
    """Five megabytes need the second path, one does not, and `never` never opens it."""
    text = (ROOT / "examples" / "patience.py").read_text(encoding="utf-8")
    command = re.search(r"python -m mptcp\.sim ((?:.*\\\n)*.*)", text)
    assert command is not None
    asked = shlex.split(command[1].replace("\\\n", " "))

    def paths(*more: str) -> int:
        done = simulate(*asked, *more)
        assert (done.returncode, done.stderr) == (0, "")
        return len(done.stdout.splitlines()) - 1

    assert paths() == 2
    assert paths("--bytes", "1000000") == 1
    assert paths("--heuristics", "never") == 1
