"""`python -m fuzz`: run the targets for a while, or play inputs again.

Exit status: 0 nothing found, 1 something found (with the command that replays it), 2 wrong usage,
130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from fuzz.seeds import seeds
from fuzz.states import STATES
from fuzz.targets import MODULES, ROOT, WORK, Target, folder, keep, kept, target

LONGEST: Final = 4096
"""Bytes of an input: the recorded exchanges have two thousand."""
KEPT_LONGEST: Final = 256
"""Bytes of an input that the repository keeps."""
INPUT_TIMEOUT_S: Final = 30
_STATUS: Final = re.compile(r"^#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)/(\S+)")


class _Parser(argparse.ArgumentParser):
    """Refuses in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"fuzz: {message}\n")


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    top = _Parser(prog="fuzz", description="Fuzz the parsers and the stack (see docs/fuzzing.md).")
    top.add_argument("--minutes", type=float, default=3.0, help="how long (%(default)s)")
    top.add_argument(
        "--target", metavar="NAME", help=f"{', '.join(MODULES)} or a module; all if not given"
    )
    top.add_argument("--replay", metavar="FILE", nargs="+", type=Path, help="play inputs again")
    top.add_argument(
        "--keep", action="store_true", help="keep the smallest inputs of equal coverage in the tree"
    )
    return top


class Run:
    """A process of one target, and what it has told."""

    def __init__(self, name: str, seconds: int, extra: Sequence[str] = ()) -> None:
        self.name = name
        place = ROOT / WORK
        (place / "found").mkdir(parents=True, exist_ok=True)
        self.log = place / f"{name}-{os.getpid()}-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "fuzz.worker", name]
        command += [f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-len_control=0"]
        command += [f"-timeout={INPUT_TIMEOUT_S}", "-rss_limit_mb=1024", "-reload=1"]
        command += [f"-artifact_prefix={WORK}/found/{name}-", *extra]
        command.append(str(folder(name, [])))
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
            )

    def figures(self) -> tuple[int, int, int, str]:
        """(executions, coverage, inputs, their size) so far."""
        executions = coverage = inputs = 0
        size = "0b"
        for line in self.lines():
            if match := _STATUS.match(line):
                executions, coverage = int(match[1]), int(match[2])
                inputs, size = int(match[4]), match[5]
        return executions, coverage, inputs, size

    def lines(self) -> list[str]:
        """What it has printed."""
        return self.log.read_text(encoding="utf-8", errors="replace").splitlines()

    def end(self) -> bool:
        """Wait, print the figures; True when nothing was found."""
        code = self.process.wait()
        lines = self.lines()
        executions, coverage, inputs, size = self.figures()
        print(
            f"{self.name}: {executions} executions, corpus of {inputs} inputs ({size}), "
            f"coverage {coverage}"
        )
        if code == 0:
            self.log.unlink()
            return True
        at = next((n for n, line in enumerate(lines) if "Uncaught Python" in line), -30)
        print("\n".join(lines[at : at + 60] if at >= 0 else lines[at:]))
        for line in lines:
            if match := re.search(rf"Test unit written to (\S*{self.name}-\S+)", line):
                print(f"replay: python -m fuzz --target {self.name} --replay {match[1]}")
                break
        else:
            print(f"the fuzzer ended with {code}: see {self.log}")
        return False

    def stop(self) -> None:
        """End it before its time."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def fuzz(names: Sequence[str], seconds: int) -> int:
    """Run the targets: the parsers a sixth of the time, then two processes for the stack."""
    for name in names:
        print(f"{name}: {len(folder_inputs(name))} inputs to begin with")
    plan: list[list[tuple[str, int]]] = [[(name, seconds)] for name in names]
    if list(names) == list(MODULES):
        plan = [[("stack", seconds)], [("wire", seconds // 6), ("stack", seconds - seconds // 6)]]
    good = True
    running: list[Run] = []
    try:
        while any(plan):
            running = [Run(*lane.pop(0)) for lane in plan if lane]
            # The lanes end together; a find of one does not stop the other.
            while running:
                for run in list(running):
                    if run.process.poll() is None:
                        continue
                    running.remove(run)
                    good &= run.end()
                    lane = next((lane for lane in plan if lane and run.name == "wire"), None)
                    if lane:
                        running.append(Run(*lane.pop(0)))
                time.sleep(0.2)
    except KeyboardInterrupt:
        for run in running:
            run.stop()
        return 130
    return 0 if good else 1


def folder_inputs(name: str) -> list[Path]:
    """The inputs of a target, the seeds and the kept ones among them."""
    return sorted(folder(name, [*seeds(name), *kept(name)]).iterdir())


def minimise(name: str) -> int:
    """Keep the smallest inputs that together reach what all reach."""
    everything = folder(name, [])
    chosen = ROOT / WORK / "smallest" / name
    chosen.mkdir(parents=True, exist_ok=True)
    for file in chosen.iterdir():
        file.unlink()
    command = [sys.executable, "-m", "fuzz.worker", name, "-merge=1", f"-max_len={LONGEST}"]
    done = subprocess.run(
        [*command, str(chosen), str(everything)], cwd=ROOT, capture_output=True, check=False
    )
    made = set(seeds(name))
    inputs = [file.read_bytes() for file in sorted(chosen.iterdir())]
    inputs = [data for data in inputs if len(data) <= KEPT_LONGEST and data not in made]
    keep(name, inputs)
    print(f"{name}: {len(inputs)} of {len(list(everything.iterdir()))} inputs are kept")
    return done.returncode


def describe(name: str, data: bytes) -> str:
    """One line about an input."""
    if name == "stack" and len(data) > 1:
        state = STATES[data[0] % len(STATES)][0]
        return f"{len(data)} bytes, state {state}, variant {data[1]:#04x}"
    return f"{len(data)} bytes"


def replay(name: str, play: Target, files: Sequence[Path]) -> int:
    """Play inputs again; the traceback of the first that fails."""
    for file in files:
        data = file.read_bytes()
        print(f"{file}: {describe(name, data)}")
        try:
            play(data)
        except Exception:
            traceback.print_exc()
            return 1
        print("held")
    return 0


def main() -> int:
    """See the module's text."""
    grammar = parser()
    asked = grammar.parse_args()
    if not 0 < asked.minutes <= 24 * 60:
        grammar.error(f"--minutes {asked.minutes}: more than 0, at most a day")
    names = [asked.target] if asked.target else list(MODULES)
    try:
        if asked.replay:
            if asked.target is None:
                names = [file_target(file) for file in asked.replay[:1]]
            return replay(names[0], target(names[0]), asked.replay)
        for name in names:
            target(name)
    except (ValueError, OSError) as error:
        grammar.error(str(error))
    try:
        import atheris  # noqa: F401
    except ImportError:
        grammar.error("atheris is not installed: make fuzz does that")
    code = fuzz(names, max(1, round(asked.minutes * 60)))
    if asked.keep and code == 0:
        code = max(minimise(name) for name in names)
    return code


def file_target(file: Path) -> str:
    """The target whose find a file is, by its name."""
    return next((name for name in MODULES if file.name.startswith(f"{name}-")), "stack")


if __name__ == "__main__":
    sys.exit(main())
