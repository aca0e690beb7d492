"""The command line: `list`, `run NAME…` and `report`.

Exit status: 0 measured, 1 a measurement failed, 2 it cannot be done (unknown name, missing right,
unwritable file or folder), 3 measured, and a promise of the scenario is not kept, 130 interrupted;
whatever is not 0 comes with one line on stderr. Namespaces, devices and child processes go with the
scenario's context managers, and with the process itself.

With `--plot DIR` every scenario leaves NAME.json there, and NAME.png if it has a picture. Whether
files can be written is found out before anything is measured; if one cannot all the same, the table
comes before the complaint.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from mptcp.tun.device import DeviceError
from mptcp.tun.netns import enter_user_namespace

from . import scenarios as _scenarios
from .registry import BenchError, Options, Progress, Scenario, scenarios
from .report import Section, as_text, keep, load, now, perform, sections, write
from .results import Report, counted, described, machine

assert _scenarios is not None  # imported for what it registers


class _Parser(argparse.ArgumentParser):
    """Refuses in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"bench: {message}\n")


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not in the range above 0 to 3600")
    return value


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if not 1 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not in 1..1000")
    return value


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    top = _Parser(prog="bench", description="Measurements of this stack beside the kernel's.")
    commands = top.add_subparsers(dest="command", required=True, metavar="list | run | report")
    commands.add_parser("list", help="name the scenarios and their cases")
    run = commands.add_parser("run", help="run scenarios")
    run.add_argument("names", nargs="+", metavar="NAME", help="as in `bench list`")
    run.add_argument("--quick", action="store_true", help="one short run: does it work?")
    run.add_argument(
        "--runs", type=_count, help="runs of each case in real time (the median counts)"
    )
    run.add_argument("--seeds", type=_count, help="seeds of each point in virtual time")
    run.add_argument("--seconds", type=_positive, help="length of one measurement")
    run.add_argument("--only", default="", metavar="CASE,…", help="these cases only")
    run.add_argument("--json", type=Path, metavar="FILE", help="write the results; - is stdout")
    run.add_argument(
        "--plot", type=Path, metavar="DIR", help="leave a picture and the figures of each there"
    )
    run.add_argument("--profile", type=Path, metavar="DIR", help="cProfile our own processes")
    report = commands.add_parser("report", help="one HTML page of every scenario of a figure")
    report.add_argument("--quick", action="store_true", help="one short run of each")
    report.add_argument("--only", default="", metavar="NAME,…", help="these scenarios only")
    report.add_argument("--runs", type=_count, help="as of `run`")
    report.add_argument("--seeds", type=_count, help="as of `run`")
    report.add_argument(
        "--from",
        dest="folder",
        type=Path,
        metavar="DIR",
        help="measure nothing: the newest result of each in DIR/*.json, written by `run`",
    )
    report.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        default=Path("bench-report.html"),
        help="the page (default bench-report.html)",
    )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status. Raises SystemExit(2) for wrong usage."""
    args = parser().parse_args(arguments)
    console = Console(stderr=True)
    if args.command == "list":
        _list()
        return 0
    try:
        return _report(args, console) if args.command == "report" else _run(args, console)
    except KeyboardInterrupt:
        sys.stderr.write("bench: interrupted; everything is taken down\n")
        return 130
    except DeviceError as error:
        return _complain(str(error), 2)
    except BenchError as error:
        return _complain(str(error), 1)


def _complain(text: str, status: int) -> int:
    sys.stderr.write(f"bench: {' '.join(text.split())}\n")
    return status


def _refused(error: OSError, place: Path | None) -> int:
    """Complain of a file; `place` is what to name if the error names none."""
    return _complain(f"{error.filename or place}: {error.strerror or error}", 2)


@contextlib.contextmanager
def _reserved(path: Path | None) -> Iterator[None]:
    """Find out whether the file can be written; if nothing is, leave none. Raises OSError."""
    if path is None:
        yield
        return
    new = not path.exists()
    if not path.is_fifo():  # its reader would take this for the end
        path.open("ab").close()
    try:
        yield
    finally:
        if new and path.is_file() and not path.stat().st_size:
            path.unlink()


def _prepare(folder: Path) -> None:
    """Make a folder, if there is none, that files can be written to. Raises OSError."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(error.errno, error.strerror, folder) from error


def _list() -> None:
    for entry in scenarios.values():
        source = f" ({entry.source})" if entry.source else ""
        print(f"{entry.name:10} {entry.summary}{source}")
        print(f"{'':10} cases: {', '.join(entry.cases())}")


def _chosen(names: Sequence[str], only: Sequence[str]) -> list[Scenario] | str:
    """The scenarios of `names`, or the line that refuses them."""
    unknown = [name for name in names if name not in scenarios]
    if unknown:
        return f"no scenario '{unknown[0]}': there are {', '.join(scenarios)}"
    chosen = [scenarios[name] for name in dict.fromkeys(names)]
    known = [case for entry in chosen for case in entry.cases()]
    strange = [case for case in only if case not in known]
    if strange:
        return f"no case '{strange[0]}': there are {', '.join(known)}"
    return chosen


def _run(args: argparse.Namespace, console: Console) -> int:
    only = tuple(case for case in args.only.split(",") if case)
    chosen = _chosen(args.names, only)
    if isinstance(chosen, str):
        return _complain(chosen, 2)
    options = Options(
        quick=args.quick,
        runs=args.runs,
        seeds=args.seeds,
        seconds=args.seconds,
        only=only,
        profile=args.profile,
    )
    to_stdout = args.json is not None and str(args.json) == "-"
    file = None if to_stdout else args.json
    with contextlib.ExitStack() as stack:
        try:  # rather now than after minutes of measuring
            stack.enter_context(_reserved(file))
            for folder in (args.plot, args.profile):
                if folder is not None:
                    _prepare(folder)
        except OSError as error:
            return _refused(error, file)
        return _measure(chosen, options, file, to_stdout, args.plot, console)


def _measure(
    chosen: list[Scenario],
    options: Options,
    file: Path | None,
    to_stdout: bool,
    pictures: Path | None,
    console: Console,
) -> int:
    """Run them all and tell what was found, on the terminal and in files."""
    if any(entry.needs_rights for entry in chosen):
        enter_user_namespace()
    found, started = machine(), now()
    reports: list[Report] = []
    drawn: list[str] = []
    unwritten: list[tuple[OSError, Path | None]] = []
    for entry in chosen:
        with _progress(console) as progress:
            reports.append(perform(entry, options, progress))
        try:
            if pictures is not None:  # at once: the others may take hours
                drawn.append(keep(reports[-1], pictures, found, started))
        except OSError as error:
            unwritten.append((error, pictures))
    text = as_text(reports, found, started)
    if to_stdout:
        sys.stdout.write(text)
    else:
        _print(reports, found)
        for line in drawn:
            print(f"  {line}")
    try:
        if file is not None:
            file.write_text(text, encoding="utf-8")
    except OSError as error:
        unwritten.append((error, file))
    if unwritten:
        return _refused(*unwritten[0])
    missed = [verdict for report in reports for verdict in report.verdicts if not verdict.met]
    if missed:
        count = "1 promise is" if len(missed) == 1 else f"{len(missed)} promises are"
        return _complain(f"{count} not kept, the first: {missed[0].promise}", 3)
    return 0


def _report(args: argparse.Namespace, console: Console) -> int:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_reserved(args.output))
            held = load(args.folder, _passed_over) if args.folder is not None else []
        except OSError as error:
            return _refused(error, args.output)
        return _make_page(args, held, console)


def _passed_over(name: str, why: str) -> None:
    _complain(f"passed over: {name}: {why}", 0)


def _make_page(args: argparse.Namespace, held: list[Section], console: Console) -> int:
    """Measure, unless a folder of results is given, and write the page."""
    names = [name for name in args.only.split(",") if name]
    if args.folder is not None:
        found = [section for section in held if not names or section.name in names]
        if not found:
            return _complain(f"{args.folder}: no result of a scenario there", 2)
    else:
        chosen = _chosen(names or [name for name in scenarios if scenarios[name].source], ())
        if isinstance(chosen, str):
            return _complain(chosen, 2)
        options = Options(quick=args.quick, runs=args.runs, seeds=args.seeds)
        with _progress(console) as progress:
            found = []
            for section in sections(chosen, options, progress):
                found.append(section)
                console.print(f"  {section.summary}", highlight=False)
    try:
        write(args.output, found)
    except OSError as error:
        return _refused(error, args.output)
    print(f"  {args.output}: {counted(len(found), 'scenario')}")
    failed = [section for section in found if section.report is None]
    missed = [section for section in found if section.missed]
    if failed:
        return _complain(f"{len(failed)} not measured, the first: {failed[0].summary}", 1)
    if missed:
        return _complain(f"promises are not kept by {len(missed)}: {missed[0].summary}", 3)
    return 0


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("setting up", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield show


def _print(reports: list[Report], found: dict[str, object]) -> None:
    out = Console()
    if not out.is_terminal:
        out = Console(width=160)
    for report in reports:
        for table in report.shown():
            out.print(table)
        for note in report.notes:
            out.print(f"  {note}", highlight=False)
        for verdict in report.verdicts:
            out.print(f"  {verdict}", highlight=False)
    print(f"  {described(found)}")
