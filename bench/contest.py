"""Connections that compete for bottlenecks in virtual time: TCP and MPTCP side by side.

Every flow has a host of its own, joined to the routers before the bottlenecks it uses; behind the
bottlenecks stands one server. A bottleneck is a drop-tail queue; the flows' own links are fast, and
jitter there (which reorders nothing) keeps one flow's packets from always coming just when a place
in the queue is free. When in the first second a flow begins is drawn from the seed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mptcp.config import Config
from mptcp.meta_socket import MetaSocket
from mptcp.sim import Bulk, Simulation, Sink
from mptcp.sim.apps import PORT

from .multipath import Link

START_US: Final = 1_000_000
"""All flows begin within this time."""
JITTER_US: Final = 1_000


@dataclass(frozen=True)
class Flow:
    """One connection that sends without end."""

    control: str
    over: tuple[int, ...] = (0,)
    """Bottlenecks, from 0; the first subflow takes the first one. More than one: MPTCP."""
    subflows: int = 0
    """Over one bottleneck: this many from ports of their own; 0: plain TCP."""

    @property
    def mptcp(self) -> bool:
        """Whether it is MPTCP."""
        return len(self.over) > 1 or self.subflows > 0


@dataclass(frozen=True)
class Share:
    """What one flow got."""

    mbit_s: float
    """Goodput."""
    per_bottleneck: tuple[float, ...]
    """Payload that arrived over each, Mbit/s, duplicates included; for TCP its goodput."""


def contest(
    bottlenecks: Sequence[Link],
    flows: Sequence[Flow],
    seed: int,
    *,
    seconds: float,
    warmup: float,
) -> list[Share]:
    """Let them compete; what each flow got in `seconds` after `warmup` (both virtual seconds).

    The delay of a bottleneck is what packets need from end to end without a queue.
    """
    held = _Contest(bottlenecks, flows, seed)
    held.sim.run(round(warmup * 1e6))
    before = held.counts()
    held.sim.run(round(seconds * 1e6))
    scale = 8 / seconds / 1e6
    return [
        Share((got - had) * scale, tuple((b - a) * scale for a, b in zip(old, new, strict=True)))
        for (had, old), (got, new) in zip(before, held.counts(), strict=True)
    ]


class _Contest:
    """The network: flow i is host i + 1, its link to bottleneck k has the network 10.(i+1).k.0."""

    def __init__(self, bottlenecks: Sequence[Link], flows: Sequence[Flow], seed: int) -> None:
        self.sim = sim = Simulation(seed)
        self._flows = flows
        chances = random.Random(f"contest {seed}")
        self._server = sim.host("server")
        routers = [sim.router(f"r{number}") for number in range(len(bottlenecks))]
        for number, (router, link) in enumerate(zip(routers, bottlenecks, strict=True)):
            sim.connect(
                router,
                f"10.200.{number}.254/24",
                self._server,
                f"10.200.{number}.1/24",
                rate_bps=link.rate_bps,
                delay_us=link.delay_us // 2,
                queue_bytes=link.queue,
                mtu=link.mtu,
                loss=link.loss,
                b_routes=[f"10.{flow + 1}.{number}.0/24" for flow in range(len(flows))],
            )
        self.sinks = [Sink(self._server, PORT + number) for number in range(len(flows))]
        for number, flow in enumerate(flows):
            host = sim.host(
                f"flow{number}",
                Config(
                    mptcp=flow.mptcp,
                    congestion_control=flow.control,
                    path_manager="ndiffports" if flow.subflows else "builtin",
                    ndiffports=max(flow.subflows, 1),
                ),
            )
            for at in flow.over:
                link = bottlenecks[at]
                sim.connect(
                    host,
                    f"10.{number + 1}.{at}.1/24",
                    routers[at],
                    f"10.{number + 1}.{at}.254/24",
                    delay_us=link.delay_us - link.delay_us // 2,
                    mtu=link.mtu,
                    jitter_us=JITTER_US,
                    a_routes=[f"10.200.{at}.0/24"],
                )
            start = sim.now + chances.randrange(START_US)
            Bulk(host, f"10.200.{flow.over[0]}.1", PORT + number, start_us=start)

    def counts(self) -> list[tuple[int, tuple[int, ...]]]:
        """Of each flow what its receiver got, and over which bottleneck."""
        found = []
        for flow, sink in zip(self._flows, self.sinks, strict=True):
            per = [0] * len(flow.over)
            for connection in sink.connections:
                for place, at in enumerate(flow.over):
                    per[place] += _arrived(connection, at)
            found.append((sink.received, tuple(per)))
        return found


def _arrived(connection: MetaSocket, bottleneck: int) -> int:
    """Payload that came over a bottleneck, told by the server's address."""
    return sum(
        subflow.bytes_received for subflow in connection.subflows if subflow.local[2] == bottleneck
    )
