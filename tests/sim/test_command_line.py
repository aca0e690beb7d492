"""`python -m mptcp.sim`: what is wrong is told in one line, which names where it is wrong."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from mptcp.sim.__main__ import main
from tests.simulate import simulate

ROOT = Path(__file__).parents[2]
START = "python -m mptcp.sim: "
TWO_PATHS = ("--path", "20/5", "--path", "20/5", "--bytes", "500000")
AT_ONCE = ("--heuristics", "at-once")


def refused(*arguments: str) -> str:
    """The line that it prints instead of a table."""
    done = simulate(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith(START)
    return done.stderr.removeprefix(START).rstrip()


def scheduler(folder: Path, body: str, before: str = "") -> tuple[str, str]:
    """A file that registers the scheduler `own`, whose class begins in line 5, and `--load` it."""
    file = folder / "own.py"
    file.write_text(
        "import signal\n"
        "from mptcp.scheduler import Scheduler, schedulers\n"
        f"{before}\n"
        '@schedulers.register("own")\n'
        "class Own(Scheduler):\n" + "".join(f"    {line}\n" for line in body.splitlines())
    )
    return "--load", str(file)


PATH_FORM = "use MBIT/MS or MBIT/MS/PERCENT, such as 30/5 or 30/40/1"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--set", "autotune=maybe"), "'maybe' is no truth value: use true or false"),
        (("--set", "mptcp=1"), "'1' is no truth value: use true or false"),
        (("--set", "min_rto_us=abc"), "'abc' is no whole number: use one such as 200000"),
        (("--set", "min_rto_us=5"), "min_rto_us = 5 is out of range: use 1000 to 60000000"),
        (("--set", "ephemeral_ports=1"), "it takes 2 numbers, not 1: use 32768,60999 or so"),
        (("--set", "scheduler_weights=a"), "'a' is no list of whole numbers: use 2,1 or so"),
        (
            ("--set", "mptpc=true"),
            "Config has no field 'mptpc': use FIELD=VALUE, such as scheduler=minrtt"
            " (mptcp/config.py has all)",
        ),
        (("--path", "30"), f"there is no delay: {PATH_FORM}"),
        (("--path", "30/5/1/1"), f"4 parts are too many: {PATH_FORM}"),
        (("--path", "a/b"), f"'a' is no number: {PATH_FORM}"),
        (("--path", "nan/5"), f"'nan' is no number: {PATH_FORM}"),
        (("--path", "30/inf"), f"'inf' is no number: {PATH_FORM}"),
        (("--path", "30/5/100"), f"a loss of 100 % is not from 0 to below 100: {PATH_FORM}"),
        (
            ("--path", "0/5"),
            f"a rate of 0 Mbit/s is not from 0.000001 to 1000000: {PATH_FORM}",
        ),
        (("--path", "30/-1"), f"a delay of -1 ms is not from 0 to 600000: {PATH_FORM}"),
        (("--bytes", "-5"), "it is no whole number of bytes: use 1 or more"),
        (("--bytes", "0"), "it is no whole number of bytes: use 1 or more"),
        (("--bytes", "many"), "it is no whole number of bytes: use 1 or more"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_right(
    arguments: tuple[str, str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main(list(arguments))
    name, given = arguments
    assert tuple(capsys.readouterr()) == ("", f"{START}argument {name}: {given}: {told}\n")


def test_settings_that_are_right_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("autotune=False", "min_rto_us=1000", "ephemeral_ports=2000,2001", "ecn=on")
    given = [word for setting in settings for word in ("--set", setting)]
    assert main([*given, "--set", "scheduler_weights=", "--path", "0.5/0/0", "--bytes", "1"]) == 0
    assert capsys.readouterr().out.endswith("\n1 bytes in 4 ms\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\n\ndef f(:\n", ":3: SyntaxError: invalid syntax"),
        ("\nimport nowhere\n", ":2: ModuleNotFoundError: No module named 'nowhere'"),
        (
            "\nfrom mptcp.scheduler import Nothing\n",
            ":2: ImportError: cannot import name 'Nothing' from 'mptcp.scheduler'",
        ),
        ("def f():\n    return 1 / 0\n\nf()\n", ":2: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit('two\\nlines')\n", ":2: SystemExit: two lines"),
        ("raise ValueError", ":1: ValueError"),
    ],
)
def test_a_file_that_cannot_be_loaded(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(text)
    assert refused("--load", str(file)).startswith(f"{file}{told}")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("pass", ":5: Own has no select(): NotImplementedError"),
        (
            "def select(self, ready, queued):\n    return min(())",
            ":7: ValueError: min() {}",
        ),
        (
            "def select(self, ready):\n    return ready[0]",
            ":6: TypeError: Own.select() takes 2 positional arguments but 3 were given",
        ),
        (
            "def __init__(self, n):\n    self.n = n",
            ":6: TypeError: Own.__init__() missing 1 required positional argument: 'n'",
        ),
    ],
)
def test_a_scheduler_that_fails(body: str, told: str, tmp_path: Path) -> None:
    """The line is that of its own code, however deep in the stack it was asked."""
    loaded = scheduler(tmp_path, body)
    line = refused(*loaded, "--scheduler", "own", *AT_ONCE, *TWO_PATHS)
    told = told.split("{")[0]  # the rest is the interpreter's
    assert line.startswith(f"{loaded[1]}{told}")


def test_other_policies_that_fail(tmp_path: Path) -> None:
    """A heuristic and a controller, by the file's name as it was given."""
    file = tmp_path / "own.py"
    file.write_text(
        "from mptcp.heuristics import Heuristic, heuristics\n"
        "from mptcp.tcp.congestion import CongestionControl, controllers\n"
        "@heuristics.register('own')\n"
        "class Own(Heuristic):\n"
        "    def opens(self, flow):\n"
        "        return flow.nothing\n"
        "@controllers.register('own')\n"
        "class Control(CongestionControl):\n"
        "    pass\n"
        "@heuristics.register('bare')\n"
        "class Bare:\n"
        "    pass\n"
    )
    for option, told in (
        ("--heuristics", ":6: AttributeError: 'Flow' object has no attribute 'nothing'"),
        ("--congestion-control", ":8: Control has no "),
    ):
        line = refused("--load", str(file), option, "own", *TWO_PATHS)
        assert line.startswith(f"{file}{told}")
    line = refused("--load", str(file), "--heuristics", "bare")
    assert line == f"{file}:11: TypeError: Bare() takes no arguments"


@pytest.mark.parametrize("while_loaded", [True, False])
def test_ctrl_c_ends_it_with_a_line(while_loaded: bool, tmp_path: Path) -> None:
    interrupt = "signal.raise_signal(signal.SIGINT)"
    body = f"def select(self, ready, queued):\n    {interrupt}"
    loaded = scheduler(tmp_path, body, interrupt if while_loaded else "")
    done = simulate(*loaded, "--scheduler", "own", *AT_ONCE, *TWO_PATHS)
    assert (done.returncode, done.stdout) == (128 + signal.SIGINT, "")
    assert done.stderr == "mptcp.sim: interrupted\n"


@pytest.mark.parametrize(
    ("body", "counter"),
    [
        ("def select(self, ready, queued):\n    return None", "SchedulerWaitsForNothing"),
        (
            "def select(self, ready, queued):\n"
            "    return next((p for p in self.connection.paths if p not in ready), ready[0])",
            "SchedulerChoiceNotReady",
        ),
    ],
)
def test_what_a_scheduler_should_not_do_is_counted_below(
    body: str, counter: str, tmp_path: Path
) -> None:
    done = simulate(*scheduler(tmp_path, body), "--scheduler", "own", *AT_ONCE, *TWO_PATHS)
    assert (done.returncode, done.stderr) == (0, "")
    *_, whole, last = done.stdout.splitlines()
    assert whole.startswith("500000 bytes in ")
    assert re.fullmatch(rf"{counter}: [1-9]\d*", last)


def test_a_scheduler_that_does_well_has_nothing_counted(tmp_path: Path) -> None:
    body = "def select(self, ready, queued):\n    return ready[0]"
    done = simulate(*scheduler(tmp_path, body), "--scheduler", "own", *AT_ONCE, *TWO_PATHS)
    assert done.stdout.splitlines()[-1].startswith("500000 bytes in ")
