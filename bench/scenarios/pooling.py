"""The goals of RFC 6356 §2, one scenario for each coupled congestion control.

    improve throughput  a multipath flow does at least as well as a single one on the best path
    do no harm          it takes no more from any resource than a single flow there would
    balance congestion  it moves as much traffic as it can off its most congested paths

Bottlenecks of 10 Mbit/s, 40 ms and a queue of one bandwidth-delay product. "TCP" is NewReno; for
wVegas it is a single-path wVegas, as no flow that is controlled by delay holds its own beside one
that fills the queues, and its paper claims fairness among its own kind only.

  * idle paths: both are its own, of 10 and 5 Mbit/s; beside it TCP on the faster one
  * busy paths: one TCP on each; beside it a TCP in its place, on A alone
  * crowded paths: one TCP on path A, three on B: the best path is A. Beside it a TCP in its place,
    and the same connection with NewReno on each subflow (no coupling)
  * one bottleneck: two subflows and a TCP; beside it two TCPs, and two subflows without coupling

On the crowded paths the best that a connection can have is what a TCP has on A, and nothing more:
B has less to give to each. So there it is to have no less, the difference's 95 % interval and the
bytes that a DSS takes of each packet allowed for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from ..contest import Flow, contest
from ..interval import mean_interval
from ..multipath import Link, payload_share
from ..paths import MBIT
from ..plots import errors
from ..registry import scenario
from ..results import Report, Row, Verdict
from ..sweep import Measured, Point, Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINK: Final = Link(10 * MBIT, 20_000)
SLOWER: Final = Link(5 * MBIT, 20_000)
ON_B: Final = 3
"""TCPs on the crowded path."""
SECONDS: Final = 40.0
WARMUP_S: Final = 10.0
EQUAL_SHARES_ON_B: Final = (1 / (ON_B + 1)) / (1 / (ON_B + 1) + 1 / 2)
"""Of a connection's traffic the part on B if each subflow has what every other flow there has."""
SPARED: Final = 0.9
"""Of what a TCP has beside another TCP, what it has at least beside the connection."""


class Pooling(Sweep):
    """What the controllers' scenarios share: `control` is all that a subclass says."""

    source = "RFC 6356 §2"
    unit = "Mbit/s"
    control: ClassVar[str]
    single: ClassVar[str] = "newreno"
    """Congestion control of the single-path flows."""
    columns: ClassVar = {"a": "of it on A", "b": "on B", "tcp": "TCP on A"}

    def points(self, quick: bool) -> list[Point]:
        """See `Sweep`."""
        control, single = self.control, self.single
        return [
            Point(key, label, {"control": control, "single": single, "network": key.split("-")[0]})
            for key, label, control in (
                ("idle-tcp", "idle paths: TCP on the faster", ""),
                ("idle", f"idle paths: {control}", control),
                ("busy-tcp", "busy paths: TCP on A", ""),
                ("busy", f"busy paths: {control}", control),
                ("crowded-tcp", "crowded paths: TCP on A", ""),
                ("crowded", f"crowded paths: {control}", control),
                ("crowded-apart", "crowded paths: not coupled", "newreno"),
                ("shared-tcp", "one bottleneck: TCP", ""),
                ("shared", f"one bottleneck: {control}", control),
                ("shared-apart", "one bottleneck: not coupled", "newreno"),
            )
            if single == "newreno" or not key.endswith("-apart")
        ]

    @staticmethod
    def measure(point: Point, seed: int, quick: bool) -> Measured:
        """The goodput of the connection, or of the TCP in its place."""
        control, single = point.settings["control"], point.settings["single"]
        links = [LINK, LINK]
        others = [Flow(single, (0,)), *[Flow(single, (1,))] * ON_B]
        if point.settings["network"] == "idle":
            links, others = [LINK, SLOWER], []
        elif point.settings["network"] == "busy":
            others = [Flow(single, (0,)), Flow(single, (1,))]
        elif point.settings["network"] == "shared":
            links, others = [LINK], [Flow(single)]
        if not control:
            flow = Flow(single)
        elif len(links) > 1:
            flow = Flow(control, (0, 1))
        else:
            flow = Flow(control, subflows=2)
        mine, *rest = contest(
            links,
            [flow, *others],
            seed,
            seconds=2.0 if quick else SECONDS,
            warmup=2.0 if quick else WARMUP_S,
        )
        found: Measured = {"value": mine.mbit_s, "a": mine.per_bottleneck[0]}
        if len(mine.per_bottleneck) > 1:
            found["b"] = mine.per_bottleneck[1]
        if rest:
            found["tcp"] = rest[0].mbit_s
        if len(rest) > 1:
            found["tcps_b"] = sum(share.mbit_s for share in rest[1:])
        return found

    def judge(self, rows: dict[str, Row]) -> list[Verdict]:
        """The three goals, by means and with intervals where something is to be more."""
        idle, alone = rows["idle"], rows["idle-tcp"]
        busy, there = rows["busy"], rows["busy-tcp"]
        crowded, best = rows["crowded"], rows["crowded-tcp"]
        headers = payload_share(tcp=True) / payload_share()
        differences = [
            mine * headers - theirs
            for mine, theirs in zip(crowded.values, best.values, strict=True)
        ]
        low, high = mean_interval(differences)
        spared, beside = rows["shared"].detail("tcp"), rows["shared-tcp"].detail("tcp")
        ratio = sum(spared) / sum(beside)
        moved = _share_of_b(crowded)
        if "crowded-apart" in rows:
            apart = _share_of_b(rows["crowded-apart"])
            against, limit = f"{apart.mean:.3f} uncoupled", apart.interval[0]
        else:
            limit = EQUAL_SHARES_ON_B
            against = f"{limit:.3f} with equal shares on each path"
        return [
            Verdict(
                "idle paths: more than TCP on the better one: "
                f"{idle.mean:.2f} to {alone.mean:.2f} Mbit/s",
                idle.interval[0] > alone.interval[1],
            ),
            Verdict(
                "busy paths: more than TCP on one of them: "
                f"{busy.mean:.2f} to {there.mean:.2f} Mbit/s",
                busy.interval[0] > there.interval[1],
            ),
            Verdict(
                "crowded paths: no less than TCP on the better one: "
                f"{crowded.mean:.2f} to {best.mean:.2f} Mbit/s, the difference {low:.2f} to "
                f"{high:.2f} without the headers' part",
                high >= 0,
            ),
            Verdict(
                f"one bottleneck: TCP has at least {SPARED} of what another TCP leaves it: "
                f"{ratio:.2f}",
                ratio >= SPARED,
            ),
            Verdict(
                "crowded paths: less of its traffic is on the more crowded one: "
                f"{moved.mean:.3f} to {against}",
                moved.interval[1] < limit,
            ),
        ]

    def draw(self, report: Report, figure: Figure) -> None:
        """A panel for each network: the connection's goodput by path, the TCPs' beside it."""
        figure.set_size_inches(13, 5.5)
        panels = figure.subplots(1, 4, sharey=True)
        for panel, network, title in zip(
            panels,
            ("idle", "busy", "crowded", "shared"),
            ("better than the best path", "1 TCP on each", f"1 TCP on A, {ON_B} on B", "no harm"),
            strict=True,
        ):
            rows = [row for row in report.rows if row.key.split("-")[0] == network]
            _draw_network(panel, rows)
            panel.set_title(title)
        panels[0].set_ylabel("goodput, Mbit/s")
        handles: dict[str, Any] = {}
        for panel in panels:
            bars, labels = panel.get_legend_handles_labels()
            handles.update(zip(labels, bars, strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)


def _share_of_b(row: Row) -> Row:
    """Of a connection's traffic the part on B, run by run."""
    parts = [b / (a + b) for a, b in zip(row.detail("a"), row.detail("b"), strict=True)]
    return Row(row.key, row.label, "", parts)


def _draw_network(panel: Axes, rows: list[Row]) -> None:
    """Stacked: what it gets on A and on B; beside it the single-path flow on A."""
    places = range(len(rows))
    lower = [sum(row.detail("a")) / len(row.values) for row in rows]
    upper = [max(row.mean - a, 0.0) for row, a in zip(rows, lower, strict=True)]
    panel.bar(places, lower, 0.38, align="edge", color="C0", edgecolor="black", label="on path A")
    panel.bar(
        places, upper, 0.38, lower, align="edge", color="C1", edgecolor="black", label="on path B"
    )
    panel.errorbar(
        [place + 0.19 for place in places],
        [row.mean for row in rows],
        yerr=errors(rows),
        fmt="none",
        ecolor="black",
        capsize=3,
    )
    beside = [(n, row) for n, row in enumerate(rows) if row.detail("tcp")]
    others = [Row(row.key, row.label, row.unit, row.detail("tcp")) for _, row in beside]
    panel.bar(
        [n - 0.38 for n, _ in beside],
        [row.mean for row in others],
        0.38,
        yerr=errors(others),
        align="edge",
        color="white",
        edgecolor="black",
        capsize=3,
        label="the TCP beside it on A",
    )
    names = [row.label.split(": ")[1] for row in rows]
    panel.set_xticks(places, labels=names, rotation=20, ha="right", fontsize="small")
    panel.set_xlim(-0.6, len(rows) - 0.4)
    panel.grid(alpha=0.3, axis="y")


@scenario
class PoolingLia(Pooling):
    """`python -m bench run pooling-lia`."""

    name, control = "pooling-lia", "lia"
    summary = "the goals of coupled congestion control: LIA"


@scenario
class PoolingOlia(Pooling):
    """`python -m bench run pooling-olia`."""

    name, control = "pooling-olia", "olia"
    summary = "the goals of coupled congestion control: OLIA"


@scenario
class PoolingBalia(Pooling):
    """`python -m bench run pooling-balia`."""

    name, control = "pooling-balia", "balia"
    summary = "the goals of coupled congestion control: BALIA"


@scenario
class PoolingWVegas(Pooling):
    """`python -m bench run pooling-wvegas`."""

    name, control, single = "pooling-wvegas", "wvegas", "wvegas"
    summary = "the goals of coupled congestion control: wVegas among its own kind"
