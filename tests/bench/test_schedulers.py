"""The scenarios of the schedulers work, and judge by what they are given."""

from __future__ import annotations

from typing import Any

import pytest

from mptcp.bench.registry import Options
from mptcp.bench.results import Row
from mptcp.bench.scenarios import lookahead, schedulers
from mptcp.bench.sweep import Sweep


@pytest.mark.parametrize("entry", [schedulers.Schedulers(), lookahead.LookAhead()])
def test_a_quick_run(entry: Sweep) -> None:
    """Thesis §4.3.6: every point has a value, and a quick run is not judged."""
    report = entry.run(Options(quick=True), lambda what, done, total: None)
    assert all(row.values and row.values[0] > 0 for row in report.rows)
    assert report.verdicts == []


def test_figure_4_8() -> None:
    """Thesis fig. 4.8: "segments 19, 20" to the slow path."""
    assert lookahead.fig_4_8() == (19, 20)


def rows(champion: dict[str, float], redundant: float) -> dict[str, Row]:
    """A result: min-RTT takes 100 ms everywhere, give or take 5; the champion so much in the cells
    named, beginning with what they are named by, and else the same."""
    found = {}
    for point in schedulers.Schedulers().points(quick=False):
        factor = 1.0
        if point.settings["scheduler"] == schedulers.CHAMPION:
            factor = next((f for key, f in champion.items() if point.key.startswith(key)), 1.0)
        values = [factor * (100 + spread) for spread in (-5, 0, 5)]
        details: list[dict[str, Any]] = [{"file": value, "late": value} for value in values]
        found[point.key] = Row(point.key, point.label, "ms", values, details=details)
    found["drops-redundant"].values = [redundant * 100]
    return found


@pytest.mark.parametrize(
    ("champion", "redundant", "met"),
    [
        ({"1to10": 0.8}, 1.05, [True, True, True]),
        ({"1to10": 0.95}, 1.06, [True, False, False]),
        ({"1to10": 0.8, "1to3-64": 1.3}, 1.0, [False, True, True]),
    ],
)
def test_the_judgement(champion: dict[str, float], redundant: float, met: list[bool]) -> None:
    """No worse in any cell, a tenth better in some, redundant within a twentieth."""
    verdicts = schedulers.Schedulers().judge(rows(champion, redundant))
    assert [verdict.met for verdict in verdicts] == met
