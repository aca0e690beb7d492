"""What stands on every picture: what it shows, beside what, of how many runs."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest

from mptcp.bench.plots import draw_fairness, draw_tcp, heading, save_figure
from mptcp.bench.registry import Options, scenarios
from mptcp.bench.report import perform
from mptcp.bench.results import Report, Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

SWEPT: dict[str, Any] = {"points": {}}


@pytest.mark.parametrize(
    ("title", "source", "settings", "text"),
    [
        ("T", "fig. 1", {"runs": 10, "quick": False} | SWEPT, "T (fig. 1, 10 seeds)"),
        ("T", "fig. 1", {"runs": 1, "quick": True} | SWEPT, "T (fig. 1, 1 seed, quick run)"),
        ("T", "", {"runs": 3}, "T (3 runs)"),
        ("T, 1 run", "fig. 1", {"runs": 1, "quick": True}, "T, 1 run (fig. 1, quick run)"),
        ("T", "", {}, "T"),
    ],
)
def test_heading(title: str, source: str, settings: dict[str, Any], text: str) -> None:
    """Title, source, runs once, and whether it was a quick one."""
    assert heading(Report("x", title, settings, [], source=source)) == text


class Picture:
    """Something to draw, whose figure can be looked at afterwards."""

    def __init__(self, drawn: Callable[[Report, Figure], None] | None = None) -> None:
        self.drawn = drawn
        self.figure: Figure | None = None

    def draw(self, report: Report, figure: Figure) -> None:
        """See `Draws`."""
        self.figure = figure
        if self.drawn is not None:
            self.drawn(report, figure)
        else:
            figure.set_size_inches(6, 4)
            for panel in figure.subplots(1, 2):
                panel.set_title("of the panel")


@pytest.mark.parametrize("title", ["short", "a title of many words " * 12])
def test_every_picture_has_its_heading_above_the_axes(title: str) -> None:
    """A long one is wrapped: it stays within the picture, and clear of what is drawn."""
    pytest.importorskip("matplotlib")
    picture = Picture()
    report = Report("x", title, {"runs": 2}, [Row("a", "A", "s", [1.0, 2.0])], source="fig. 1")
    save_figure(picture, report, io.BytesIO())
    figure = picture.figure
    assert figure is not None
    (text,) = figure.texts
    assert text.get_text() == f"{title} (fig. 1, 2 runs)"
    box = text.get_window_extent()
    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert box.y1 <= figure.bbox.y1
    for panel in figure.axes:
        assert panel.get_tightbbox().y1 < box.y0  # type: ignore[union-attr]


def test_no_picture_has_two_headings() -> None:
    """Those that had a title before have the same as the others."""
    pytest.importorskip("matplotlib")
    cell = {"control": "cubic", "part": "virtual", "rtt_ms": 20, "loss": 0.01, "reorder": False}
    sharing = {"flows": ["a"], "samples": [[[0, 0], [1, 9], [2, 20]]]}
    settings = {"runs": 1, "controls": ["cubic"], "rate_bps": 1e8}
    for drawn, detail in ((draw_tcp, cell), (draw_fairness, sharing)):
        picture = Picture(drawn)
        report = Report("x", "T", settings, [Row("a", "A", "", [1.0], details=[detail])])
        save_figure(picture, report, io.BytesIO())
        assert picture.figure is not None
        assert picture.figure.get_suptitle() == "T (1 run)"
        assert "T" not in [text.get_text() for text in picture.figure.texts]


@pytest.mark.parametrize("quick", [True, False])
def test_a_report_knows_that_it_was_a_quick_run(
    quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the scenario enters itself."""
    entry = scenarios["micro"]
    monkeypatch.setattr(entry, "run", lambda options, progress: Report("x", "T", {}, []))
    report = perform(entry, Options(quick=quick), lambda what, done, total: None)
    assert heading(report) == ("T (quick run)" if quick else "T")
