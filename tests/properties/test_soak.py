"""`python -m soak`: a slice of its sessions in every test run, and its manners."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from soak import __main__ as command
from soak.program import Failure
from soak.scenario import Scenario
from soak.session import Session
from soak.tally import MIN_BYTES, MIN_EVENTS, Tally, run_batch

ROOT = Path(command.__file__).parent.parent
SLICE = 75


@pytest.mark.parametrize("first", range(0, 4 * SLICE, SLICE))
def test_a_slice(first: int) -> None:
    """The first sessions of `make soak`: RFC 9293 §3.8's promise, each against the model."""
    tally = run_batch(range(first, first + SLICE))
    assert [text for _, text in tally.failures] == []
    assert tally.sessions == SLICE
    assert min(tally.bytes) >= MIN_BYTES
    assert min(tally.events) >= MIN_EVENTS
    for kind in ("dropped", "corrupted", "duplicated", "late", "overtaken", "changes"):
        assert tally.kinds[kind] > SLICE / 2, f"hardly anything was {kind}"
    assert tally.errors > SLICE / 20


def soak(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "soak", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_program_counts() -> None:
    """Exit status 0, and a table that says what the sessions went through."""
    process = soak("--sessions", "60", "--seed", "5")
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert "60 sessions" in out
    assert "network events" in out


def test_a_word_for_a_number_is_refused_in_one_line() -> None:
    """Status 2, and the option and the word; no name of a function of ours."""
    process = soak("--sessions", "many")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err == "soak: argument --sessions: 'many' is not a whole number\n"


def test_ctrl_c_ends_it_with_a_summary() -> None:
    """130, no traceback, and the figures so far."""
    process = soak("--sessions", "1000000", "--processes", "1")
    assert process.stdout is not None
    process.stdout.readline()  # it says what it will do before it begins
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "soak: interrupted\n"
    assert "sessions in" in out


def test_a_failure_names_the_command_that_replays_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seed and scenario are printed; the command runs the very session again and says 1."""

    def broken(self: Session, min_bytes: int, min_events: int) -> None:
        raise Failure("the bytes are wrong")

    with monkeypatch.context() as patch:
        patch.setattr(Session, "run", broken)
        tally = run_batch(range(3, 4))
        ((seed, text),) = tally.failures
        assert seed == 3
        line = text.rpartition("--replay '")[2].rstrip("'")
        assert Scenario.from_line(line) == Scenario.from_seed(3)
        assert command.main(["--replay", "3"]) == 1
        assert "the bytes are wrong" in capsys.readouterr().out
        assert command.main(["--replay", line]) == 1
    assert command.main(["--replay", "3"]) == 0
    assert "held" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["{", "[]", '{"sead":1}', '{"client":{"nodelay":1,"x":2}}'])
def test_nonsense_is_refused(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line and exit status 2."""
    assert command.main(["--replay", what]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_tallies_add_up() -> None:
    """Two processes' figures are one's."""
    both, parts = run_batch(range(10, 14)), Tally()
    for part in (range(10, 12), range(12, 14)):
        parts.merge(run_batch(part))
    assert parts == both
