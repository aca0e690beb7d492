"""What a measurement found: rows of medians, as a table for people and as JSON for programs.

A `Row` keeps the value of every run, so that the spread stays visible. A `Verdict` says whether the
figures are what they were to be. The JSON document is versioned: `SCHEMA` grows by one when a key
changes its meaning or goes away.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from rich.table import Table

from mptcp.compiled import is_compiled

from .interval import mean_interval

SCHEMA: Final = 1


@dataclass(slots=True)
class Row:
    """One quantity and its values, one a run."""

    key: str
    """Short name for programs and for `--only`."""
    label: str
    """What people read."""
    unit: str
    values: list[float] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    """Median over the median of another row, under a short name of that row."""
    details: list[dict[str, Any]] = field(default_factory=list)
    """Whatever else each run told, in the order of `values`."""
    remark: str = ""
    """What the reader must know of this row; one line."""

    @property
    def median(self) -> float:
        """Median of the runs. Raises statistics.StatisticsError when there is none."""
        return statistics.median(self.values)

    @property
    def mean(self) -> float:
        """Mean of the runs. Raises statistics.StatisticsError when there is none."""
        return statistics.fmean(self.values)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean; infinite for a single run. Raises StatisticsError."""
        return mean_interval(self.values)

    def detail(self, key: str) -> list[float]:
        """What each run that has it told under that key."""
        return [detail[key] for detail in self.details if key in detail]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "key": self.key,
            "label": self.label,
            "unit": self.unit,
            "median": self.median,
            "interval": list(self.interval) if len(self.values) > 1 else None,
            "runs": self.values,
            "ratios": self.ratios,
            "remark": self.remark,
            "details": self.details,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """One promise, and whether the figures keep it."""

    promise: str
    """With the figure that was found."""
    met: bool

    def __str__(self) -> str:
        return f"{'met' if self.met else 'NOT met'}: {self.promise}"


@dataclass(slots=True)
class Report:
    """The result of one scenario."""

    scenario: str
    title: str
    settings: dict[str, Any]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    """Empty where nothing was promised, or where the run was too short to tell."""
    source: str = ""
    """The figure that it stands beside; empty: none."""
    columns: dict[str, str] = field(default_factory=dict)
    """Details that the table shows: key to heading."""
    took_s: float = 0.0
    """Seconds of real time that it took."""
    tables: Callable[[], list[Table]] | None = None
    """How a terminal is to show it; None: as `table` does."""

    def row(self, key: str) -> Row | None:
        """The row of that key that has values, else None."""
        return next((row for row in self.rows if row.key == key and row.values), None)

    def compare(self, key: str, base: str, name: str) -> None:
        """Enter the ratio of row `key` to row `base` as `name`, if both were measured."""
        row, other = self.row(key), self.row(base)
        if row is not None and other is not None and other.median > 0:
            row.ratios[name] = row.median / other.median

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "scenario": self.scenario,
            "title": self.title,
            "source": self.source,
            "columns": self.columns,
            "settings": self.settings,
            "took_s": round(self.took_s, 1),
            "rows": [row.to_json() for row in self.rows if row.values],
            "notes": self.notes,
            "verdicts": [
                {"promise": verdict.promise, "met": verdict.met} for verdict in self.verdicts
            ],
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Self:
        """What `to_json` has made. Raises KeyError or TypeError for what it has not."""
        rows = [
            Row(
                key=row["key"],
                label=row["label"],
                unit=row["unit"],
                values=row["runs"],
                ratios=row["ratios"],
                details=row["details"],
                remark=row["remark"],
            )
            for row in entry["rows"]
        ]
        return cls(
            scenario=entry["scenario"],
            title=entry["title"],
            settings=entry["settings"],
            rows=rows,
            notes=entry["notes"],
            verdicts=[Verdict(**verdict) for verdict in entry["verdicts"]],
            source=entry["source"],
            columns=entry["columns"],
            took_s=entry["took_s"],
        )

    def shown(self) -> list[Table]:
        """How a terminal and the page show it."""
        return self.tables() if self.tables is not None else [self.table()]

    def table(self) -> Table:
        """For the terminal: median, 95 % interval of the mean, extremes, ratios."""
        rows = [row for row in self.rows if row.values]
        ratios = list(dict.fromkeys(name for row in rows for name in row.ratios))
        title = f"{self.title} ({self.source})" if self.source else self.title
        table = Table(title=title, title_justify="left", caption_justify="left")
        table.add_column("")
        for heading in ("median", "95 % interval", "min", "max"):
            table.add_column(heading, justify="right")
        table.add_column("unit")
        for name in ratios:
            table.add_column(f"÷ {name}", justify="right")
        for heading in self.columns.values():
            table.add_column(heading, justify="right")
        remarks = any(row.remark for row in rows)
        if remarks:
            table.add_column("remark")
        for row in rows:
            cells = [number(row.median), _between(row.interval)]
            cells += [number(value) for value in (min(row.values), max(row.values))]
            shares = [f"{row.ratios[name]:.2f}" if name in row.ratios else "" for name in ratios]
            told = [row.detail(key) for key in self.columns]
            medians = [number(statistics.median(values)) if values else "" for values in told]
            last = [row.remark] if remarks else []
            table.add_row(row.label, *cells, row.unit, *shares, *medians, *last)
        return table


def _between(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{number(low)} … {number(high)}" if math.isfinite(high) else ""


def counted(count: int, noun: str) -> str:
    """The noun with its number: "1 run", "2 runs"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def number(value: float) -> str:
    """Three significant digits, without an exponent for what is measured here."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "core": "compiled" if is_compiled() else "interpreted",
        "load_before": round(os.getloadavg()[0], 2),
        "commit": _commit(),
    }


def _commit() -> str:
    """Of the checkout that this file is in; empty outside of one."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).resolve().parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def described(values: dict[str, Any]) -> str:
    """What `machine` found, in a line."""
    commit = f", commit {values['commit']}" if values.get("commit") else ""
    return (
        f"Linux {values['kernel']}, {values['cpus']} CPUs ({values['processor']}), "
        f"{values['implementation']} {values['python']}, core {values['core']}, "
        f"load before {values['load_before']}{commit}"
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as info:
            for line in info:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def document(reports: list[Report], found: dict[str, Any], started: str) -> dict[str, Any]:
    """The JSON document of one call of the program; `found` is what `machine` said before it,
    `started` an ISO 8601 time."""
    return {
        "schema": SCHEMA,
        "started": started,
        "machine": found,
        "scenarios": [report.to_json() for report in reports],
    }
