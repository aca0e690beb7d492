"""`python -m fuzz` as a person uses it: a short run, a find, its replay, wrong usage."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is not installed: make fuzz"
)


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "fuzz", *arguments],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
        timeout=100,
        env={**os.environ, "MPTCP_COMPILED": "0"},
    )


@needs_atheris
def test_a_clean_run_prints_its_figures() -> None:
    """Executions, size of the corpus, coverage; exit 0."""
    done = fuzz("--target", "wire", "--minutes", "0.05")
    assert done.returncode == 0, done.stdout + done.stderr
    match = re.search(r"wire: (\d+) executions, corpus of (\d+) inputs", done.stdout)
    assert match is not None, done.stdout
    assert int(match[1]) > 100
    assert int(match[2]) > 10


@needs_atheris
def test_a_find_ends_in_one_and_can_be_replayed() -> None:
    """The last line is the command that plays the input again, and that fails alike."""
    done = fuzz("--target", "tests.fuzz.planted", "--minutes", "0.5")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "IndexError: planted" in done.stdout
    match = re.search(r"replay: python -m fuzz (.*)", done.stdout)
    assert match is not None, done.stdout
    again = fuzz(*match[1].split())
    assert again.returncode == 1
    assert "IndexError: planted" in again.stderr


def test_an_input_that_holds(tmp_path: Path) -> None:
    """A replay says what is played and that it held."""
    file = tmp_path / "stack-input"
    file.write_bytes(bytes([6, 1, 0, 0, 0, 128, 4, 1, 0]))
    done = fuzz("--replay", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert "state ESTABLISHED, variant 0x01" in done.stdout
    assert done.stdout.endswith("held\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--minutes", "0"), "fuzz: --minutes 0.0: more than 0, at most a day\n"),
        (("--target", "none"), "fuzz: no target 'none': use one of stack, wire\n"),
    ],
)
def test_wrong_usage_is_one_line(arguments: tuple[str, ...], complaint: str) -> None:
    """Exit 2 and one line."""
    done = fuzz(*arguments)
    assert (done.returncode, done.stderr, done.stdout) == (2, complaint, "")


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    """Exit 2 and one line."""
    done = fuzz("--replay", str(tmp_path / "nothing"))
    assert done.returncode == 2
    assert done.stderr.startswith("fuzz: ")
    assert done.stderr.count("\n") == 1
