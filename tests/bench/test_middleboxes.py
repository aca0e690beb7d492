"""`bench run middleboxes`: what it plans, shows and judges."""

from __future__ import annotations

import inspect
import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mptcp.bench.boxes.cases import CASES, Case, Outcome
from mptcp.bench.boxes.result import Result, Seen, judge
from mptcp.bench.registry import Options
from mptcp.bench.scenarios import middleboxes
from mptcp.bench.scenarios.middleboxes import WHO, Middleboxes, plan
from mptcp.tun.middlebox import boxes


def nothing(what: str, done: int, total: int) -> None:
    """A progress display that nobody looks at."""


def case(key: str) -> Case:
    (found,) = [case for case in CASES if case.key == key]
    return found


def test_every_case_has_a_section_and_a_key_of_its_own() -> None:
    """The table says where in RFC 8684 an expectation stands."""
    assert len({case.key for case in CASES}) == len(CASES)
    for entry in CASES:
        assert "§" in entry.asks or "appendix" in entry.asks, entry.key
        assert entry.expected
        assert entry.kernel or entry.why_not, entry.key


def test_the_document_has_every_case_and_every_box() -> None:
    """docs/middleboxes.md: the table's rows are the cases, the boxes' rows name every parameter."""
    text = (Path(__file__).parents[2] / "docs" / "middleboxes.md").read_text(encoding="utf-8")
    rows = {
        cells[0].strip(" `"): line
        for line in text.splitlines()
        if line.startswith("| `") and (cells := line.strip("|").split("|"))
    }
    for entry in CASES:
        assert entry.asks in rows[entry.key], entry.key
        assert " or ".join(outcome.value for outcome in entry.expected) in rows[entry.key]
    described = text.split("## The boxes")[1].split("\n## ")[0]
    for name, kind in boxes.items():
        (line,) = [line for line in described.splitlines() if line.startswith(f"| `{name}`")]
        for parameter in set(inspect.signature(kind).parameters) - {"rng"}:
            assert f"`{parameter}`" in line, f"{name}: {parameter}"


def test_plan() -> None:
    """Ours to ours always; with the kernel each connects, unless that makes no sense."""
    assert [who for _, who, _ in plan(Options(only=("isn",)))] == list(WHO)
    assert [who for _, who, _ in plan(Options(only=("isn",), quick=True))] == [WHO[0]]
    assert [who for _, who, _ in plan(Options(only=("rst-only-path",)))] == [WHO[0]]
    assert len(list(plan(Options(quick=True)))) == len(CASES)


def test_a_case_in_virtual_time_is_shown_and_judged() -> None:
    """The report has the outcome, the bytes, the digests and what the RFC asks."""
    report = Middleboxes().run(Options(only=("strip-syn",), quick=True), nothing)
    (row,) = report.rows
    assert row.details[0]["met"]
    assert row.details[0]["received"] == 600_000
    assert len(row.details[0]["digest"].split()) == 2
    assert [verdict.met for verdict in report.verdicts] == [True]
    assert report.tables is not None
    out = Console(width=300, file=io.StringIO())
    out.print(*report.tables())
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "TCP, 600,000 B" in text
    assert "§3.1, §6" in text


def test_what_is_otherwise_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that differs from what the RFC asks breaks the promise, and is named."""
    wrong = replace(case("strip-syn"), expected=(Outcome.KEPT,))
    monkeypatch.setattr(middleboxes, "CASES", (wrong,))
    report = Middleboxes().run(Options(quick=True), nothing)
    (verdict,) = report.verdicts
    assert not verdict.met
    assert verdict.promise.endswith("0 of 1 cases end as RFC 8684 asks; not strip-syn")
    assert any("strip-syn" in note and "both" in note for note in report.notes)


@pytest.mark.parametrize(
    ("opened", "broken", "paths", "outcome"),
    [
        ([(1, True)], [], 1, Outcome.KEPT),
        ([(1, True), (1, True)], [1], 1, Outcome.REVIVED),
        ([(1, True), (2, True)], [1], 2, Outcome.RESET),
        ([(2, True)], [], 2, Outcome.NOT_JOINED),
        ([(1, False), (2, True)], [1], 2, Outcome.NOT_JOINED),
        ([(1, True), (2, True)], [2], 2, Outcome.KEPT),
    ],
)
def test_judge(
    opened: list[tuple[int, bool]], broken: list[int], paths: int, outcome: Outcome
) -> None:
    """What the ends saw of the path with the box, and what it is called."""
    table = replace(case("isn"), paths=paths, boxed=1)
    seen = Seen(False, opened, broken)
    assert judge(table, [seen], [False, False]) is outcome
    assert judge(table, [seen], [True, True]) is Outcome.FELL_BACK
    assert judge(table, [seen], [True, False]) is None


def test_a_reason_that_is_asked_for_must_be_there() -> None:
    """RFC 8684 §3.6: where §3.7 wants "middlebox interference", the outcome alone is not enough."""
    asked = case("lose-dss")
    assert asked.reason == 6
    assert Result(Outcome.RESET, True, 1.0, [6]).met(asked)
    assert not Result(Outcome.RESET, True, 1.0, [1]).met(asked)
    assert not Result(Outcome.RESET, False, 1.0, [6]).met(asked)
