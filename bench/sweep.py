"""A figure in virtual time: one quantity over points and seeds, judged and drawn.

A scenario of this kind says which points its figure has and how one of them is measured with one
seed; this module spreads the measurements over the processors, collects them in rows and asks for
the judgement. A measurement is a function of (point, seed, quick): a value that looks wrong can be
had again alone.

    @scenario
    class Fig(Sweep):
        name, summary, source, unit = "fig", "…", "thesis fig. 5.0", "Mbit/s"

        def points(self, quick): return [Point("a", "A", {"rate": 1})]

        @staticmethod
        def measure(point, seed, quick): return {"value": 1.0, "detail": 2.0}
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .plots import draw_bars
from .pool import spread
from .registry import BenchError, Options, Progress
from .results import Report, Row, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Measured = dict[str, Any]
"""What one measurement found: "value" is the main figure, the others are details (numbers, or lists
for plots)."""


@dataclass(frozen=True)
class Point:
    """One cell of a figure. It can be pickled."""

    key: str
    """For `--only` and for programs."""
    label: str
    """What people read."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Plain values: they are written as JSON, and `draw` may get them back from there."""


@dataclass(frozen=True, slots=True)
class _Job:
    measure: Callable[[Point, int, bool], Measured]
    point: Point
    seed: int
    quick: bool


class Sweep:
    """Base class and contract; a subclass is decorated with `@scenario`."""

    name: str = ""
    summary: str = ""
    source: str = ""
    """Of which figure: "thesis fig. 5.2"."""
    unit: str = ""
    """Of the main value."""
    needs_rights: bool = False
    seeds: int = 10
    """What a judgement takes; they count from 1."""
    quick_seeds: int = 1
    columns: ClassVar[Mapping[str, str]] = {}
    """Details that the table shows beside the value: key to heading; their medians stand there."""

    def points(self, quick: bool) -> list[Point]:
        """The cells, the dearest first where it matters."""
        raise NotImplementedError

    @staticmethod
    def measure(point: Point, seed: int, quick: bool) -> Measured:
        """One cell with one seed, in a process of a pool and in virtual time."""
        raise NotImplementedError

    def judge(self, rows: dict[str, Row]) -> list[Verdict]:
        """What was promised, with what was found. `rows` has every point, by its key."""
        return []

    def notes(self) -> list[str]:
        """What the reader of the figures must know."""
        return []

    def draw(self, report: Report, figure: Figure) -> None:
        """Draw what stands in `report.rows`; here: bars with intervals."""
        draw_bars(figure.subplots(), [row for row in report.rows if row.values], self.unit)

    def cases(self) -> list[str]:
        """See `Scenario`."""
        return [point.key for point in self.points(quick=False)]

    def run(self, options: Options, progress: Progress) -> Report:
        """See `Scenario`."""
        every = self.points(options.quick)
        points = [point for point in every if not options.only or point.key in options.only]
        seeds = options.seeds or (self.quick_seeds if options.quick else self.seeds)
        jobs = [
            _Job(type(self).measure, point, seed, options.quick)
            for seed in range(1, seeds + 1)
            for point in points
        ]
        progress("virtual time", 0, len(jobs))
        found = spread(_measure, jobs, lambda done: progress("virtual time", done, len(jobs)))
        rows = {point.key: Row(point.key, point.label, self.unit) for point in points}
        for job, measured in zip(jobs, found, strict=True):
            row = rows[job.point.key]
            row.values.append(measured.pop("value"))
            row.details.append({"seed": job.seed, **measured})
        report = Report(
            self.name,
            self.summary,
            {
                "runs": seeds,
                "quick": options.quick,
                "points": {point.key: point.settings for point in points},
            },
            list(rows.values()),
            self.notes(),
            source=self.source,
            columns=dict(self.columns),
        )
        if options.quick:
            report.notes.append("not judged: a quick run says that it works, not what it shows.")
        elif len(points) < len(every):
            report.notes.append("not judged: that takes every point.")
        else:
            report.verdicts = self.judge(rows)
            if report.verdicts and seeds < self.seeds:
                report.notes.append(f"a preview: the judgement takes {self.seeds} seeds.")
        return report


def _measure(job: _Job) -> Measured:
    """One job, in a process of the pool."""
    try:
        return dict(job.measure(job.point, job.seed, job.quick))
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = str(error) or type(error).__name__
        where = (
            ""
            if isinstance(error, BenchError)
            else f" ({Path(place.filename).name}:{place.lineno})"
        )
        raise BenchError(f"{job.point.label}, seed {job.seed}: {said}{where}") from error
