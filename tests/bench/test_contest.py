"""Connections that compete for bottlenecks, and the scenarios of fairness and resource pooling."""

from __future__ import annotations

from pathlib import Path

import pytest

from mptcp.bench import cli
from mptcp.bench.contest import Flow, contest
from mptcp.bench.multipath import Link, payload_share
from mptcp.bench.registry import scenarios
from mptcp.bench.results import Report, Row
from mptcp.bench.sweep import Sweep

LINK = Link(5_000_000, 10_000)
POOLING = ["pooling-lia", "pooling-olia", "pooling-balia", "pooling-wvegas"]


def sweep(name: str) -> Sweep:
    entry = scenarios[name]
    assert isinstance(entry, Sweep)
    return entry


def test_what_the_flows_get_is_what_the_bottlenecks_carry() -> None:
    """RFC 8684 §3.3, 22 bytes of DSS: TCPs and a connection over both bottlenecks fill them."""
    flows = [Flow("lia", (0, 1)), Flow("newreno", (0,)), Flow("newreno", (1,))]
    mine, first, second = contest([LINK, LINK], flows, 1, seconds=3, warmup=2)
    assert mine.mbit_s == pytest.approx(sum(mine.per_bottleneck), rel=0.05)
    assert first.per_bottleneck == (first.mbit_s,)
    for number, other in ((0, first), (1, second)):
        carried = mine.per_bottleneck[number] / payload_share() + other.mbit_s / payload_share(
            tcp=True
        )
        assert carried == pytest.approx(5, rel=0.06)


def test_several_subflows_over_one_bottleneck_and_seeds() -> None:
    """Three uncoupled subflows are three TCPs; the seed says when the flows begin."""
    flows = [Flow("newreno", subflows=3), Flow("newreno")]
    found = [contest([LINK], flows, seed, seconds=4, warmup=3) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    mine, other = found[0]
    assert 1.7 < mine.mbit_s / other.mbit_s < 6
    assert not Flow("newreno").mptcp


def rows(values: dict[str, list[float]], **details: dict[str, list[float]]) -> dict[str, Row]:
    """Rows of these values, with details by name and row."""
    made = {}
    for key, runs in values.items():
        told = {name: by_row[key] for name, by_row in details.items() if key in by_row}
        each = [{name: column[n] for name, column in told.items()} for n in range(len(runs))]
        made[key] = Row(key, key, "", runs, details=list(each))
    return made


def test_the_judgement_of_fair_subflows() -> None:
    """Thesis fig. 5.9: LIA within 0.8 to 1.1 for each number, Reno grows beyond the noise."""
    fair: dict[str, list[float]] = {f"lia-{n}": [0.8, 1.0] for n in (1, 2, 3)}
    judge = sweep("fair-subflows").judge
    grows = {"newreno-1": [1.0, 1.0], "newreno-2": [2.0, 2.01], "newreno-3": [3.0, 3.01]}
    assert [v.met for v in judge(rows({**fair, **grows}))] == [True] * 4
    noisy = {**grows, "newreno-2": [1.5, 2.5]}
    assert [v.met for v in judge(rows({**fair, **noisy}))] == [True, True, True, False]
    greedy = {**fair, "lia-2": [1.1, 1.2], "lia-3": [0.7, 0.8]}
    assert [v.met for v in judge(rows({**greedy, **grows}))] == [True, False, False, True]


def test_the_judgement_of_fair_flows() -> None:
    """Thesis fig. 5.8: LIA is one TCP among 1 to 5, Reno on two subflows is more."""
    fair: dict[str, list[float]] = {f"lia-{n}": [0.9, 1.0] for n in range(1, 6)}
    double: dict[str, list[float]] = {f"newreno-{n}": [1.7, 1.8] for n in range(1, 6)}
    judge = sweep("fair-flows").judge
    assert [v.met for v in judge(rows({**fair, **double}))] == [True] * 6
    double["newreno-4"] = [0.9, 1.7]
    fair["lia-5"] = [0.7, 0.8]
    assert [v.met for v in judge(rows({**fair, **double}))] == [True] * 4 + [False] * 2


@pytest.mark.parametrize("name", ["pooling-lia", "pooling-wvegas"])
def test_the_judgement_of_pooling(name: str) -> None:
    """RFC 6356 §2: more than the best path, no less where it is crowded, no harm, balance."""
    values = {
        "idle-tcp": [9.6, 9.6],
        "idle": [14.0, 14.1],
        "busy-tcp": [4.8, 4.8],
        "busy": [6.2, 6.3],
        "crowded-tcp": [4.8, 4.8],
        "crowded": [4.73, 4.73],  # what a DSS takes of the packets apart, as much
        "crowded-apart": [7.0, 7.0],
        "shared-tcp": [4.8, 4.8],
        "shared": [4.7, 4.7],
        "shared-apart": [6.0, 6.0],
    }
    a = {"crowded": [4.5, 4.6], "crowded-apart": [4.7, 4.8]}
    b = {"crowded": [0.5, 0.6], "crowded-apart": [2.3, 2.2]}
    tcp = {"shared-tcp": [4.8, 4.8], "shared": [4.5, 4.5]}
    if name == "pooling-wvegas":
        del values["crowded-apart"], values["shared-apart"]
    judge = sweep(name).judge
    assert [v.met for v in judge(rows(values, a=a, b=b, tcp=tcp))] == [True] * 5
    values |= {"idle": [9.0, 9.1], "busy": [4.7, 4.9], "crowded": [4.7, 4.7]}
    b["crowded"] = [3.0, 3.1]
    tcp["shared"] = [3.2, 3.2]
    assert [v.met for v in judge(rows(values, a=a, b=b, tcp=tcp))] == [False] * 5


def test_a_quick_run_draws_stacked_bars(tmp_path: Path) -> None:
    """Thesis fig. 5.9: Reno on two subflows takes more than LIA on two."""
    pytest.importorskip("matplotlib")
    assert cli.main(["run", "fair-subflows", "--quick", "--plot", str(tmp_path)]) == 0
    assert (tmp_path / "fair-subflows.png").read_bytes()[:4] == b"\x89PNG"
    coupled, uncoupled = (
        sweep("fair-subflows").measure(point, 1, True)
        for point in sweep("fair-subflows").points(quick=True)
    )
    assert coupled["value"] < uncoupled["value"]
    assert coupled["mptcp"] + coupled["tcp"] > 9


@pytest.mark.parametrize("name", [*POOLING, "fair-flows"])
def test_the_others_measure_and_draw(name: str) -> None:
    """Each network once; the picture takes rows without details that a row has not."""
    matplotlib = pytest.importorskip("matplotlib.figure")
    entry = sweep(name)
    points = [p for p in entry.points(quick=True) if p.key.split("-")[-1] not in ("apart", "tcp")]
    assert entry.measure(points[0], 1, True)["value"] > 0.1
    made = [
        Row(point.key, point.label, entry.unit, [1.0], details=[{"a": 0.7, "mptcp": 1, "tcp": 2}])
        for point in entry.points(quick=True)
    ]
    settings = {"points": {point.key: point.settings for point in entry.points(quick=True)}}
    figure = matplotlib.Figure()
    entry.draw(Report(name, name, settings, made), figure)
    assert sum(len(axes.patches) for axes in figure.axes) >= len(made)
