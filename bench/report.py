"""Results that last: the files that a run leaves, and the page of all scenarios of a figure."""

from __future__ import annotations

import datetime
import io
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mptcp.tun.device import DeviceError
from mptcp.tun.netns import enter_user_namespace

from .page import Part, page
from .plots import save_figure
from .registry import BenchError, Draws, Options, Progress, Scenario, scenarios
from .results import SCHEMA, Report, described, document, machine


def now() -> str:
    """The time in ISO 8601, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def as_text(reports: Sequence[Report], found: dict[str, Any], started: str) -> str:
    """The JSON document; see `results.document`."""
    return json.dumps(document(list(reports), found, started), indent=2) + "\n"


def perform(entry: Scenario, options: Options, progress: Progress) -> Report:
    """Run a scenario; note how long it took, and if it was quick. Raises what `run` does."""
    began = time.monotonic()
    report = entry.run(options, progress)
    report.took_s = time.monotonic() - began
    report.settings.setdefault("quick", options.quick)
    return report


def keep(report: Report, folder: Path, found: dict[str, Any], started: str) -> str:
    """Leave NAME.json and NAME.png in `folder`; a line that says so. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    figures, picture = (folder / f"{report.scenario}.{kind}" for kind in ("json", "png"))
    figures.write_text(as_text([report], found, started), encoding="utf-8")
    entry = scenarios[report.scenario]
    if not isinstance(entry, Draws):
        return f"figures: {figures}"
    try:
        save_figure(entry, report, picture)
    except ImportError:
        return f"figures: {figures} (no plot: matplotlib is missing)"
    return f"plot: {picture}, figures: {figures}"


@dataclass(slots=True)
class Section:
    """A scenario on the page."""

    name: str
    report: Report | None
    """None: it could not be measured."""
    failure: str
    """Why not, in one line."""
    started: str
    machine: dict[str, Any]

    @property
    def missed(self) -> int:
        """Promises that are not kept."""
        return sum(not verdict.met for verdict in self.report.verdicts) if self.report else 0

    @property
    def summary(self) -> str:
        """One line: promises and time, or why there is nothing."""
        if self.report is None:
            return f"{self.name}: {self.failure}"
        total = len(self.report.verdicts)
        kept = f"{total - self.missed} of {total} promises kept" if total else "not judged"
        return f"{self.name}: {kept}, {self.report.took_s:.0f} s"


def sections(
    entries: Sequence[Scenario], options: Options, progress: Progress
) -> Iterator[Section]:
    """Measure one scenario after the other; one that fails does not stop the rest."""
    refused = ""
    if any(entry.needs_rights for entry in entries):
        try:
            enter_user_namespace()
        except DeviceError as error:
            refused = " ".join(str(error).split())
    found = machine()
    for place, entry in enumerate(entries, 1):
        started = now()

        def show(
            what: str,
            done: int,
            total: int,
            head: str = f"{place}/{len(entries)} {entry.name}",
        ) -> None:
            progress(f"{head}: {what}", done, total)

        show("begins", 0, 1)
        report, failure = None, refused if entry.needs_rights else ""
        if not failure:
            try:
                report = perform(entry, options, show)
            except (BenchError, OSError) as error:
                failure = " ".join(str(error).split())
        yield Section(entry.name, report, failure, started, found)


def load(folder: Path, passed_over: Callable[[str, str], None]) -> list[Section]:
    """The newest result of each scenario in the *.json of `folder`.

    `passed_over` is told the name of each that is no result of this program, and why. Raises
    OSError if the folder cannot be read.
    """
    newest: dict[str, Section] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix != ".json":
            continue
        try:
            held = _read(path)
        except _NoResult as error:
            passed_over(path.name, str(error))
            continue
        for section in held:
            known = newest.get(section.name)
            if known is None or known.started < section.started:
                newest[section.name] = section
    return list(newest.values())


class _NoResult(Exception):
    """A file is no result of this program: why."""


def _read(path: Path) -> list[Section]:
    """What a run has left. Raises _NoResult."""
    try:
        text = path.read_text(encoding="utf-8")
        held = json.loads(text) if text.strip() else None
    except OSError as error:
        raise _NoResult(error.strerror) from error
    except ValueError as error:
        raise _NoResult(f"no JSON: {error}") from error
    if held is None:
        raise _NoResult("empty")
    try:
        if held["schema"] != SCHEMA:
            raise _NoResult(f"schema {held['schema']!r}, not {SCHEMA}")
        reports = [Report.from_json(entry) for entry in held["scenarios"]]
        started, found = str(held["started"]), held["machine"]
        described(found)  # rather now than when the page is written
    except KeyError as error:
        raise _NoResult(f"no result of this program: it lacks {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise _NoResult("no result of this program") from error
    return [Section(report.scenario, report, "", started, found) for report in reports]


def _order(section: Section) -> tuple[bool, list[tuple[int, str]], str]:
    """By source, numbers as numbers: fig. 5.2 before fig. 5.13; what has none comes last."""
    entry = scenarios.get(section.name)
    source = section.report.source if section.report else entry.source if entry else ""
    parts = re.findall(r"\d+|\D+", source)
    return not source, [(int(x), "") if x.isdigit() else (-1, x) for x in parts], section.name


def _part(section: Section) -> Part:
    entry = scenarios.get(section.name)
    report = section.report
    if report is None:
        title = entry.summary if entry is not None else ""
        source = entry.source if entry is not None else ""
        return Part(section.name, title, source, failure=section.failure)
    return Part(
        section.name,
        report.title,
        report.source,
        report.shown(),
        report.notes,
        report.verdicts,
        _picture(entry, report) if entry is not None else b"",
        f"{section.started}, {report.took_s:.0f} s, {described(section.machine)}",
    )


def _picture(entry: Scenario, report: Report) -> bytes:
    """As PNG; empty when there is none."""
    if not isinstance(entry, Draws) or not any(row.values for row in report.rows):
        return b""
    held = io.BytesIO()
    try:
        save_figure(entry, report, held)
    except ImportError:
        return b""
    return held.getvalue()


def write(path: Path, found: Sequence[Section]) -> None:
    """Write the page. Raises OSError."""
    ordered = sorted(found, key=_order)
    path.write_text(page([_part(section) for section in ordered], now()), encoding="utf-8")
