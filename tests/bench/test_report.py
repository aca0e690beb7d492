"""`bench report`: one page of all scenarios of a figure, measured now or before."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from mptcp.bench import cli, report
from mptcp.bench.page import Part, page
from mptcp.bench.registry import BenchError, Options, scenarios
from mptcp.bench.results import SCHEMA, Report, Row, Verdict, machine


class Reader(HTMLParser):
    """What a browser would find: whether tags match, what is linked, what is fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.identifiers: set[str] = set()
        self.links: set[str] = set()
        self.fetched: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.identifiers |= {values["id"]} if values.get("id") else set()  # type: ignore[arg-type]
        if values.get("href"):
            self.links.add(str(values["href"]))
        if values.get("src"):
            self.fetched.append(str(values["src"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


def example(name: str = "loss", source: str = "thesis fig. 5.3") -> Report:
    rows = [
        Row(key, key, "Mbit/s", [90.0 + n, 92.0 + n], details=[{"a": 80.0, "seed": 1}] * 2)
        for n, key in enumerate(("tcp", "alone", "loss0"))
    ]
    settings = {"runs": 2, "points": {row.key: {"loss": 0.0, "links": 1} for row in rows}}
    verdicts = [Verdict("a < b & c", True), Verdict("more", False)]
    return Report(name, "T <1>", settings, rows, ["note"], verdicts, source, {"a": "link A"}, 12.5)


def test_a_report_comes_back_from_its_json() -> None:
    """All that a page shows stands in the file."""
    before = example()
    after = Report.from_json(json.loads(json.dumps(before.to_json())))
    assert after == before
    assert after.rows[0].interval == before.rows[0].interval


def test_the_page_is_whole_and_fetches_nothing() -> None:
    """Contents, verdicts, tables, pictures; every text escaped, every link within the page."""
    table = Table(title="A <table>")
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_row(Text("x < y"), "1")
    parts = [
        Part("one", "One & all", "fig. 1", [table], ["a <note>"], example().verdicts, b"\x89PNG"),
        Part("two", "Two", "", failure="no right <to>"),
        Part("three", "Three", ""),
        Part("four", "Four", ""),
    ]
    text = page(parts, "now")
    found = Reader(text)
    assert found.links == {"#one", "#two", "#three", "#four"}
    assert found.identifiers == {"one", "two", "three", "four"}
    assert found.fetched == ["data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()]
    assert {"x < y", "1", "1 of 2 met", "not measured"} <= set(found.cells)
    assert "<p>4 scenarios, 1 of 2 promises kept, 2 not judged, 1 not measured. Written" in text
    assert "<p>1 scenario, 1 of 2 promises kept. Written" in page(parts[:1], "now")
    assert '<li class="met">a &lt; b &amp; c</li><li class="missed">more</li>' in text
    assert "http" not in text


def test_the_newest_result_of_each_is_taken_in_the_order_of_the_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """5.3 before 5.13, what stands beside no figure last; other files are passed over, aloud."""
    pytest.importorskip("matplotlib")
    for file, name, source, when in (
        ("a.json", "loss", "thesis fig. 5.3", "2026-01-01"),
        ("b.json", "loss", "thesis fig. 5.3", "2026-01-03"),
        ("c.json", "loss", "thesis fig. 5.3", "2026-01-02"),
        ("d.json", "gone", "thesis fig. 5.13", "2026-01-01"),
        ("e.json", "another", "", "2026-01-01"),
    ):
        text = report.as_text([example(name, source)], machine(), when)
        (tmp_path / file).write_text(text)
    (tmp_path / "f.json").write_text('{"schema": 1}')
    (tmp_path / "g.json").write_text("no JSON")
    (tmp_path / "h.json").write_text(json.dumps({"schema": SCHEMA + 1}))
    (tmp_path / "i.txt").write_text("no JSON")
    (tmp_path / "j.json").write_text("")
    (tmp_path / "k.json").write_bytes(b"\xff\xfe")
    (tmp_path / "l.json").write_text("[1]")
    (tmp_path / "m.json").mkdir()
    odd = json.loads((tmp_path / "a.json").read_text()) | {"machine": {}}
    (tmp_path / "n.json").write_text(json.dumps(odd))
    target = tmp_path / "page.html"
    assert cli.main(["report", "--from", str(tmp_path), "--output", str(target)]) == 3
    head = "bench: passed over: "
    lines = capsys.readouterr().err.splitlines()
    told = dict(line.removeprefix(head).split(": ", 1) for line in lines if line.startswith(head))
    assert told.pop("k.json").startswith("no JSON: 'utf-8' codec")
    assert told == {
        "f.json": "no result of this program: it lacks 'scenarios'",
        "g.json": "no JSON: Expecting value: line 1 column 1 (char 0)",
        "h.json": f"schema {SCHEMA + 1}, not {SCHEMA}",
        "j.json": "empty",
        "l.json": "no result of this program",
        "m.json": "Is a directory",
        "n.json": "no result of this program: it lacks 'kernel'",
    }
    assert len(lines) == len(told) + 2
    text = target.read_text()
    found = Reader(text)
    assert re.findall(r'<h2 id="(\w+)">', text) == ["loss", "gone", "another"]
    assert "2026-01-03, 12 s, Linux" in text
    assert "2026-01-02" not in text
    # Only of a scenario that is there is it known how to draw it.
    assert len(found.fetched) == 1
    assert base64.b64decode(found.fetched[0].partition(",")[2])[:4] == b"\x89PNG"


def test_a_scenario_that_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has its place on the page, and the status says so."""

    def fail(options: Options, progress: object) -> Report:
        raise BenchError("the link\nis down")

    monkeypatch.setattr(scenarios["mss"], "run", fail)
    monkeypatch.setattr(scenarios["loss"], "run", lambda options, progress: example())
    target = tmp_path / "page.html"
    assert cli.main(["report", "--only", "mss,loss", "--output", str(target)]) == 1
    printed = capsys.readouterr()
    assert printed.err.endswith("bench: 1 not measured, the first: mss: the link is down\n")
    assert "loss: 1 of 2 promises kept, 0 s" in printed.err
    text = target.read_text()
    assert "<strong>Not measured:</strong> the link is down" in text
    assert {"1 of 2 met", "not measured"} <= set(Reader(text).cells)


def test_a_quick_report_measures(tmp_path: Path) -> None:
    """The command as the checks run it, of one scenario."""
    pytest.importorskip("matplotlib")
    target = tmp_path / "page.html"
    assert cli.main(["report", "--quick", "--only", "loss", "--output", str(target)]) == 0
    text = target.read_text()
    found = Reader(text)
    assert "MPTCP, 5 % lost on B" in found.cells
    assert len(found.fetched) == 1
    assert f"Linux {machine()['kernel']}" in text


@pytest.mark.netns
@pytest.mark.realtime
@pytest.mark.timeout(600)
def test_every_figure_is_measured_in_a_quick_report(tmp_path: Path) -> None:
    """All of them, those with namespaces too: each works, whatever it shows."""
    pytest.importorskip("matplotlib")
    target = tmp_path / "page.html"
    assert cli.main(["report", "--quick", "--output", str(target)]) == 0
    text = target.read_text()
    assert "Not measured" not in text
    for name, entry in scenarios.items():
        assert not entry.source or f'id="{name}"' in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--only", "warp"], "no scenario 'warp': there are"),
        (["--from", "/nowhere"], "/nowhere: No such file"),
        (["--from", "."], "no result of a scenario there"),
        (["--output", "/nowhere/page.html"], "/nowhere/page.html: No such file"),
        (["--output", "/tmp"], "/tmp: Is a directory"),
    ],
)
def test_refusals_are_one_line_and_status_2(
    arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """As of `run`."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", *arguments]) == 2
    printed = capsys.readouterr()
    assert text in printed.err
    assert (printed.err.count("\n"), printed.out) == (1, "")
    assert not list(tmp_path.iterdir())


def test_every_figure_is_on_the_page() -> None:
    """What has a source is in `report`; what stands beside no figure is not."""
    figures = {name for name, entry in scenarios.items() if entry.source}
    assert {"loss", "mss"} <= figures
    assert not figures & {"micro", "goodput", "simulator", "synflood", "middleboxes"}
