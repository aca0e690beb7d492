"""A SYN flood from random sources, beside clients that mean it and a transfer that is under way.

        F floods ──── f, veth ────┐
                                  R ──── veth, s ──── kernel, forwards ──── TUN t1 ── ours 10.1.1.2
        C kernel clients ── c ────┘

One listener gets it all: the flood, a bulk transfer to a kernel client that began before, and
kernel clients that connect one after the other and want an answer. Undisturbed figures are taken
first, in the same run. What we answer to the forged sources ends in the router (RFC 4987 §2: they
must not answer, or their resets would clean up after the attacker).
"""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from mptcp.tun.closing import Closing
from mptcp.tun.netns import Namespace

from ..flood import SERVER, SOURCES
from ..nodes import Node
from ..registry import BenchError, Options, Progress, scenario
from ..results import Report, Row, Verdict

RATE: Final = 21_000
"""SYNs a second that the flooder aims at."""
LEAST_RATE: Final = 20_000
LEAST_CONNECTS: Final = 100
MOST_P99_MS: Final = 1000.0
LEAST_SHARE: Final = 0.5
MOST_GROWTH_MB: Final = 20.0
_GRACE_S: Final = 30.0
_SETTLE_S: Final = 1.0
_SAMPLE_S: Final = 0.1


class FloodNetwork(Closing):
    """The namespaces, up and routed; a context manager, which takes them down."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        try:
            self.router, self.server, self.clients, self.flooder = (
                self._stack.enter_context(Namespace.create(label)) for label in "RSCF"
            )
            for namespace in (self.router, self.server):
                namespace.enable_forwarding()
                namespace.sysctl("net.ipv4.conf.all.rp_filter", 0)
                namespace.sysctl("net.ipv4.conf.default.rp_filter", 0)
            self.clients.sysctl("net.mptcp.enabled", 1)
            for number, (name, end) in enumerate(
                (("s", self.server), ("c", self.clients), ("f", self.flooder)), 1
            ):
                network = f"10.20.{number}."
                end.veth(
                    self.router,
                    name,
                    addresses=[network + "1/24"],
                    other_addresses=[network + "2/24"],
                )
                end.add_route("default", via=network + "2")
            self.router.add_route(f"{SERVER}/32", via="10.20.1.1")
            self.router.add_blackhole(SOURCES)
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """Kill what runs inside and let the namespaces go."""
        self._stack.close()


@dataclass(frozen=True, slots=True)
class _Lengths:
    runs: int
    seconds: float
    warmup: float
    connects: int


def _lengths(options: Options) -> _Lengths:
    if options.quick:
        return _Lengths(options.runs or 1, options.seconds or 1.0, 0.5, 20)
    return _Lengths(options.runs or 3, options.seconds or 5.0, 2.0, 200)


_ROWS: Final = (
    ("syns", "SYNs sent", "1/s"),
    ("answered", "SYNs answered without state", "1/s"),
    ("bulk", "bulk transfer, undisturbed", "Gbit/s"),
    ("bulk-flooded", "bulk transfer, flooded", "Gbit/s"),
    ("p50", "connect, undisturbed, p50", "ms"),
    ("p99", "connect, undisturbed, p99", "ms"),
    ("p50-flooded", "connect, flooded, p50", "ms"),
    ("p99-flooded", "connect, flooded, p99", "ms"),
    ("served-flooded", "connect and answer, flooded, p99", "ms"),
    ("growth", "memory grown by the flood", "MB"),
)


@scenario
class SynFlood:
    """`python -m bench run synflood`."""

    name = "synflood"
    summary = f"{RATE} forged SYNs a second, beside kernel clients and a bulk transfer"
    needs_rights = True
    source = ""

    def cases(self) -> list[str]:
        """See `Scenario`."""
        return ["flood"]

    def run(self, options: Options, progress: Progress) -> Report:
        """See `Scenario`."""
        lengths = _lengths(options)
        rows = {key: Row(key, label, unit) for key, label, unit in _ROWS}
        for number in range(lengths.runs):
            progress(f"run {number + 1}", number, lengths.runs)
            profile = []
            if options.profile is not None:
                profile = [f"--profile={options.profile / f'synflood-{number + 1}.pstats'}"]
            values, details = _measure(lengths, profile)
            for key, row in rows.items():
                row.values.append(values[key])
                row.details.append(details if key == "syns" else {})
        progress("done", lengths.runs, lengths.runs)
        report = Report(
            self.name,
            f"SYN flood, median of {lengths.runs} × {lengths.connects} connects",
            {
                "runs": lengths.runs,
                "seconds": lengths.seconds,
                "warmup": lengths.warmup,
                "connects": lengths.connects,
                "rate": RATE,
            },
            list(rows.values()),
        )
        report.compare("bulk-flooded", "bulk", "undisturbed")
        report.compare("p99-flooded", "p99", "undisturbed")
        report.notes.append(
            "One listener for all; forged sources out of 198.18.0.0/15, answers to them vanish."
        )
        if not options.quick:
            report.verdicts += _verdicts(report, lengths)
        return report


def _measure(lengths: _Lengths, profile: list[str]) -> tuple[dict[str, float], dict[str, Any]]:
    """One run: its figure for each row, and what the programs told."""
    with FloodNetwork() as network, ExitStack() as stack:

        def start(namespace: Namespace, role: str, *options: str) -> Node:
            node = Node(namespace, role, [role, *options], module="flood", stdin=True)
            stack.callback(node.close)
            node.line(_GRACE_S)
            return node

        server = start(network.server, "server", *profile)
        flooder = start(network.flooder, "flooder", f"--rate={RATE}")
        clients = start(network.clients, "connects", f"--count={lengths.connects}")
        bulk = start(network.clients, "bulk")

        def ask(node: Node, patience: float = _GRACE_S) -> dict[str, Any]:
            node.tell(b"\n")
            return node.line(patience)

        def rate(first: dict[str, Any], last: dict[str, Any]) -> float:
            return float((last["bytes"] - first["bytes"]) * 8 / (last["at"] - first["at"]) / 1e9)

        time.sleep(lengths.warmup)
        first = ask(bulk)
        time.sleep(lengths.seconds)
        undisturbed = rate(first, ask(bulk))
        patience = _GRACE_S + lengths.connects * 10
        before = ask(clients, patience)
        memory = server.resident()
        told_before = ask(server)
        flooder.tell(b"\n")
        time.sleep(_SETTLE_S)
        first = ask(bulk)
        clients.tell(b"\n")
        peak = memory
        ends = time.monotonic() + lengths.seconds
        while time.monotonic() < ends:
            time.sleep(_SAMPLE_S)
            peak = max(peak, server.resident())
        during = clients.line(patience)
        flooded = rate(first, ask(bulk))
        peak = max(peak, server.resident())
        flooder.end_input()
        flood = flooder.line(_GRACE_S)
        told = ask(server)
        answered = told["counters"].get("TcpExtSyncookiesSent", 0)
        if during["failed"] == lengths.connects:
            raise BenchError("no client has connected under the flood")
        values = {
            "syns": flood["per_s"],
            "answered": answered / flood["seconds"],
            "bulk": undisturbed,
            "bulk-flooded": flooded,
            "p50": statistics.median(before["opened_ms"]),
            "p99": _p99(before["opened_ms"]),
            "p50-flooded": statistics.median(during["opened_ms"]),
            "p99-flooded": _p99(during["opened_ms"]),
            "served-flooded": _p99(during["served_ms"]),
            "growth": (peak - memory) / 1e6,
        }
        details = {
            "flood": flood,
            "undisturbed": before,
            "flooded": during,
            "resident_mb": [memory / 1e6, peak / 1e6],
            "server_before": told_before,
            "server": told,
        }
        return values, details


def _p99(values: list[float]) -> float:
    """The value that 99 of 100 do not exceed."""
    return sorted(values)[max(0, -(-len(values) * 99 // 100) - 1)]


def _verdicts(report: Report, lengths: _Lengths) -> list[Verdict]:
    """The promises, each for the median of the runs; failed connects count in any."""
    median = {row.key: row.median for row in report.rows}
    failed = sum(
        detail["flooded"]["failed"] for detail in report.rows[0].details if "flooded" in detail
    )
    share = median["bulk-flooded"] / median["bulk"]
    return [
        Verdict(
            f"{median['syns']:,.0f} SYNs/s were sent: at least {LEAST_RATE:,}",
            median["syns"] >= LEAST_RATE,
        ),
        Verdict(
            f"{failed} of {lengths.connects * lengths.runs} clients failed: none, and at least "
            f"{LEAST_CONNECTS} connects",
            not failed and lengths.connects >= LEAST_CONNECTS,
        ),
        Verdict(
            f"99 of 100 clients connect within {median['p99-flooded']:.0f} ms: "
            f"at most {MOST_P99_MS:.0f}",
            median["p99-flooded"] <= MOST_P99_MS,
        ),
        Verdict(
            f"the transfer keeps {share:.2f} of its rate: at least {LEAST_SHARE}",
            share >= LEAST_SHARE,
        ),
        Verdict(
            f"memory grows by {median['growth']:.1f} MB: less than {MOST_GROWTH_MB:.0f}",
            median["growth"] < MOST_GROWTH_MB,
        ),
    ]
