"""Networks that experiments keep building."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mptcp.sim.host import SimHost
from mptcp.sim.network import Path, Simulation

ACCESS_US = 100
"""Delay of the links between the hosts and their router."""


def dumbbell(
    sim: Simulation,
    senders: Sequence[SimHost],
    receivers: Sequence[SimHost],
    *,
    network: int = 0,
    access_us: Sequence[int] | None = None,
    mtu: int = 1500,
    **bottleneck: Any,
) -> Path:
    """One bottleneck that all pairs of a sender and a receiver share; returns its path.

    Sender i is 10.`network`.i.1, receiver i 10.`network`.(128 + i).1, each behind a fast link to
    the router of its side; `access_us` is the delay of each sender's link, for unlike round trips.
    `bottleneck` is what `connect` takes: rate, delay, queue and the rest.
    """
    left, right = sim.router(f"left{network}"), sim.router(f"right{network}")
    delays = access_us or [ACCESS_US] * len(senders)
    for hosts, router, base in ((senders, left, 0), (receivers, right, 128)):
        for number, host in enumerate(hosts):
            subnet = f"10.{network}.{base + number}"
            delay = delays[number] if base == 0 else ACCESS_US
            sim.connect(host, f"{subnet}.1/24", router, f"{subnet}.254/24", delay_us=delay)
    return sim.connect(
        left, f"10.{network}.255.1/30", right, f"10.{network}.255.2/30", mtu=mtu, **bottleneck
    )
