"""Fig 5.6 of the thesis: arrivals, their replay on every kind of queue, what is judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from mptcp.bench import reordering
from mptcp.bench.multipath import Link
from mptcp.bench.plots import save_figure
from mptcp.bench.registry import BenchError, Options
from mptcp.bench.reordering import (
    FLOOR,
    NO_LIMIT,
    SEGMENT,
    Trace,
    in_order,
    model,
    record,
    replay,
)
from mptcp.bench.results import Report, Row
from mptcp.bench.scenarios import reorder
from mptcp.reorder import LinkedQueue, reorder_queues


def spans(kind: str, trace: Trace, *, short: bool) -> list[tuple[int, int]]:
    """The runs in a queue after the part of a trace that fills it."""
    queue = reorder_queues.get(kind)(NO_LIMIT)
    assert isinstance(queue, LinkedQueue)
    reordering._run(queue, in_order(trace) if short else trace.before)
    found: list[tuple[int, int]] = []
    node = queue.head
    while node is not None:
        if found and found[-1][1] == node.start:
            found[-1] = (found[-1][0], node.end)
        else:
            found.append((node.start, node.end))
        node = node.next
    return found


@pytest.mark.parametrize("subflows", [2, 8, 64])
@pytest.mark.parametrize("queued", [100, 2_000])
def test_the_model_queues_what_it_is_told(subflows: int, queued: int) -> None:
    """Thesis fig 5.6: as many segments wait for the slowest path as asked, each subflow's come in
    order, and none twice; the short way to fill a queue leaves the same in it."""
    trace = model(subflows, queued, seed=1, timed=2_000)
    assert trace.queued == pytest.approx(queued, rel=0.1)
    last: dict[int, int] = {}
    seen: set[int] = set()
    for path, dsn, view in trace.before + trace.timed:
        if view is not None:
            assert dsn > last.get(path, -1)
            assert dsn % SEGMENT == 0
            assert dsn not in seen
            last[path] = dsn
            seen.add(dsn)
    assert set(last) <= set(range(1, subflows + 1))
    wanted = spans("regular", trace, short=False)
    for kind in reorder.KINDS:
        assert spans(kind, trace, short=kind == "regular") == wanted


def test_a_replay_tells_what_it_cost() -> None:
    """Thesis §4.3.5: the same arrivals on each kind: the same segments, shortcuts only where there
    are any, and the tree's search shorter than the list's."""
    trace = model(8, 300, seed=2, timed=1_000)
    found = {kind: replay(kind, trace) for kind in reorder.KINDS}
    assert len({one.segments for one in found.values()}) == 1
    assert all(one.ns_per_segment > 0 for one in found.values())
    assert (found["regular"].hit_share, found["tree"].hit_share) == (0, 0)
    assert found["shortcuts"].hit_share > 0.8
    assert found["aggreg"].hit_share > 0.8
    assert found["tree"].steps_per_segment < found["regular"].steps_per_segment / 2
    assert found["aggreg"].nodes == found["tree"].nodes < found["regular"].nodes
    assert replay("aggreg", trace, most=100).segments <= 100


def test_the_dictionary_delivers_what_came() -> None:
    """What the costs are held against does the work: it gives out all segments, in order."""
    trace = model(8, 300, seed=2, timed=1_000)
    arrived = reordering._Dictionary()
    queue = reorder_queues.get("aggreg")(NO_LIMIT)
    for subflow, dsn, view in trace.before + trace.timed:
        if view is not None:
            assert arrived.insert(subflow, dsn, view) == queue.insert(subflow, dsn, view)
        else:
            ready = arrived.pop_ready(dsn)
            assert ready == queue.pop_ready(dsn)
            assert ready
    assert replay(FLOOR, trace).segments == replay("aggreg", trace).segments


def test_a_download_without_anything_to_reorder() -> None:
    """One path keeps its order: that is told, not divided by."""
    with pytest.raises(BenchError, match=r"nothing came out of order in 0\.05 s"):
        record([Link(10_000_000, 2_000)], 1, 0.05)
    assert "recorder" not in reorder_queues.names()


def silent(what: str, done: int, total: int) -> None:
    """No bar."""


def test_a_quick_run(tmp_path: Path) -> None:
    """Two cases, four kinds, beside the model a dictionary, a picture; nothing is judged."""
    options = Options(quick=True, only=("unlike-8", "model-8-1000"))
    report = reorder.Reorder().run(options, silent)
    assert [row.key for row in report.rows] == [
        *(f"unlike-8-{kind}" for kind in reorder.KINDS),
        *(f"model-8-1000-{kind}" for kind in (*reorder.KINDS, FLOOR)),
    ]
    hits = {row.key: row.detail("hits_percent") for row in report.rows}
    assert hits["unlike-8-regular"] == [0]
    assert hits["unlike-8-aggreg"][0] > 80
    assert hits["model-8-1000-shortcuts"][0] > 80
    assert report.verdicts == []
    assert report.title.endswith(", 1 run")
    picture = tmp_path / "reorder.png"
    save_figure(reorder.Reorder(), report, picture)
    assert picture.stat().st_size > 10_000


def made(growth: float, hits: float, floor: float) -> Report:
    """A report whose costs grow by `growth` from the shortest queue to the longest, the
    dictionary's by `floor`."""
    rows = []
    for cell in (*reorder.DOWNLOADS, *reorder.MODELS):
        for kind in cell.kinds:
            grown = floor if kind == FLOOR else growth
            cost = 500.0 * (grown if cell.queued == 100_000 else 1)
            details = [{"hits_percent": hits}]
            rows.append(Row(f"{cell.key}-{kind}", cell.label, "ns/segment", [cost], {}, details))
    return Report("reorder", "made", {}, rows)


@pytest.mark.parametrize(
    ("growth", "hits", "floor", "met"),
    [
        (1.4, 85.0, 1.0, [True] * 6),
        (1.6, 85.0, 1.0, [True, True, True, True, True, False]),
        (2.6, 85.0, 1.7, [True, True, True, True, True, False]),
        (2.5, 85.0, 1.7, [True] * 6),
        (1.4, 79.0, 1.0, [False, False, False, False, True, True]),
    ],
)
def test_the_judgement(growth: float, hits: float, floor: float, met: list[bool]) -> None:
    """Promised of fig 5.6: hits of 80 % and more, and a cost that stays within 1.5, the slowness
    of memory apart."""
    verdicts = list(reorder.judge(made(growth, hits, floor)))
    assert [verdict.met for verdict in verdicts] == met
