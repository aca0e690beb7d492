"""The scenarios of windows and buffers: thesis fig. 4.5, fig. 5.2 and §4.3.5."""

from __future__ import annotations

from mptcp.bench.results import Row, Verdict
from mptcp.bench.scenarios.autotune import Autotune
from mptcp.bench.scenarios.buffers import DELAYS_MS, SIZES, Buffers
from mptcp.bench.scenarios.deadlock import BUFFER, CUT_S, SEGMENT, Deadlock, SubflowWindows


def test_the_model_deadlocks_for_the_reason_of_the_figure() -> None:
    """Thesis fig. 4.5: before the cut both paths deliver; after it the shared buffer is full of
    what lies beyond the hole, so path 2 is told a zero window, and what path 1 lost cannot go."""
    model = SubflowWindows()
    curve = model.run(3_000_000)
    at_cut = next(got for at, got, _ in curve if at >= CUT_S)
    assert at_cut > 3.0  # MB, of 5 that both links carry in a second
    assert curve[-1][1] == curve[-30][1]
    assert model.window[1] == 0
    assert len(model.held) == BUFFER // SEGMENT
    assert model.again
    assert model.rcv_nxt in model.again


def test_the_model_goes_on_without_a_cut() -> None:
    """It is the cut that stops it, and not the model."""
    model = SubflowWindows()
    model.down = False
    curve = model.run(900_000)
    assert curve[-1][1] > curve[-10][1] > 2.5


def rows(share_of_tcp: float, large: float) -> dict[str, Row]:
    found = {}
    for point in Buffers().points(quick=False):
        delay, size = point.settings["delay_ms"], point.settings["size"]
        value = 90.0 if delay < 0 else 90.0 * share_of_tcp if delay == 500 else large
        found[point.key] = Row(point.key, point.label, "Mbit/s", [value] * 5)
        assert size in SIZES
    return found


def met(verdicts: list[Verdict]) -> list[bool]:
    return [verdict.met for verdict in verdicts]


def test_fig_5_2_is_judged_cell_by_cell() -> None:
    """95 % of the payload ceiling with large buffers and 0 or 10 ms; nowhere less than TCP."""
    judge = Buffers().judge
    assert met(judge(rows(1.0, 189.0))) == [True] * (1 + len(DELAYS_MS))
    assert met(judge(rows(0.94, 189.0))) == [True, True, True, True, False]
    assert met(judge(rows(1.0, 175.0))) == [False, True, True, True, True]


def test_the_other_two_are_judged() -> None:
    """A zero window, a stop, a buffer too large or too late, goodput lost: each is seen."""
    good = {
        "tuned": Row("tuned", "", "", [40.0], details=[
            {"alone_kib": 200.0, "buffer_kib": 2000.0, "needed_kib": 1900.0, "late_ms": 200.0}
        ]),
        "whole": Row("whole", "", "", [41.0]),
    }  # fmt: skip
    assert met(Autotune().judge(good)) == [True] * 4
    good["tuned"].details[0].update(alone_kib=900.0, needed_kib=500.0, late_ms=900.0)
    good["tuned"].values[:] = [30.0]
    assert met(Autotune().judge(good)) == [False] * 4
    pair = {
        "connection": Row("connection", "", "", [18.0], details=[{"window_kib": 200.0}]),
        "subflows": Row("subflows", "", "", [0.0], details=[{"window_kib": 0.0}]),
    }
    assert met(Deadlock().judge(pair)) == [True] * 3
    pair["connection"].details[0]["window_kib"] = 0.0
    pair["connection"].values[:] = [3.0]
    pair["subflows"].values[:] = [9.0]
    assert met(Deadlock().judge(pair)) == [False] * 3
