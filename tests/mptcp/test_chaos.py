"""Random failures of paths and interfaces in the middle of transfers; IPv6 and mixed families."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mptcp.sim.network import Simulation
from tests.transfers import exchange, network, open_programs, payload

failures = st.lists(
    st.tuples(
        st.sampled_from(["cut", "restore", "interface down", "interface up"]),
        st.integers(0, 1),  # path
        st.sampled_from(["a", "b"]),
        st.integers(10, 1500),  # ms until the next
    ),
    max_size=8,
)


@settings(max_examples=20, deadline=None)
@example(
    seed=1882,
    events=[("interface down", 0, "a", 10)],
    loss=0.02,
    offload=False,
    early_end=False,
)
@example(  # a subflow ends when it has taken a piece of what is to go again
    seed=0,
    events=[
        ("interface down", 0, "b", 97),
        ("interface down", 1, "a", 85),
        ("cut", 0, "a", 85),
        ("cut", 0, "a", 85),
        ("interface down", 0, "a", 97),
    ],
    loss=0.0,
    offload=True,
    early_end=False,
)
@given(
    seed=st.integers(0, 1 << 16),
    events=failures,
    loss=st.sampled_from([0.0, 0.02]),
    offload=st.booleans(),
    early_end=st.booleans(),
)
def test_paths_come_and_go(
    seed: int,
    events: list[tuple[str, int, str, int]],
    loss: float,
    offload: bool,
    early_end: bool,
) -> None:
    """What fails comes back in the end: every byte arrives, and nothing is left of it."""
    sim, a, b, paths = network(
        seed, paths=2, rate_bps=10_000_000, delay_us=10_000, loss=loss, offload=offload
    )
    up, down = payload(1_500_000, seed), payload(200_000, seed + 1)
    client, server = open_programs(a, b, up, down, early_end=early_end)
    sim.run(100_000)
    # Until both have the other's key a connection is its first subflow (RFC 8684 §3.1).
    assert sim.run(
        until=lambda: (
            server.connection is not None
            and server.connection.confirmed
            and client.connection is not None
            and client.connection.confirmed
        )
    )
    interfaces = {host.name: dict(host.stack.book.interfaces) for host in (a, b)}
    for kind, path, side, wait in events:
        host = a if side == "a" else b
        present = path + 1 in host.stack.book.interfaces
        if kind in ("cut", "restore"):
            sim.set_down(paths[path], kind == "cut")
        elif kind == "interface down" and present:
            host.stack.interface_down(sim.now, path + 1)
        elif kind == "interface up" and not present:
            host.stack.interface_up(sim.now, interfaces[side][path + 1])
        sim.run(wait * 1000)
    for number, path_ends in enumerate(paths):
        sim.set_down(path_ends, False)
        for host in (a, b):
            if number + 1 not in host.stack.book.interfaces:
                host.stack.interface_up(sim.now, interfaces[host.name][number + 1])
    exchange(sim, client, server, up, down, limit_us=600_000_000, goodbye=False)
    sim.run(200_000_000)
    for host in (a, b):
        assert (host.stack.connections, host.stack.metas, host.stack.tokens) == ({}, set(), {})
        assert host.stack.poll_timeout() is None


@pytest.mark.parametrize(
    "addresses",
    [
        [("fd00:0::1/64", "fd00:0::2/64"), ("fd00:1::1/64", "fd00:1::2/64")],
        [("10.0.0.1/24", "10.0.0.2/24"), ("fd00:1::1/64", "fd00:1::2/64")],
        [("fd00:0::1/64", "fd00:0::2/64"), ("10.0.1.1/24", "10.0.1.2/24")],
    ],
    ids=["IPv6", "IPv4 first", "IPv6 first"],
)
@pytest.mark.parametrize("offload", [True, False])
def test_families(addresses: list[tuple[str, str]], offload: bool) -> None:
    """Two paths of IPv6, and of both families: both carry data."""
    print("simulation seed 21")
    sim = Simulation(21)
    a, b = sim.host("a"), sim.host("b")
    paths = [
        sim.connect(
            a, left, b, right, rate_bps=20_000_000, delay_us=5_000, loss=0.005, offload=offload
        )
        for left, right in addresses
    ]
    up, down = payload(2_000_000, 1), payload(1_000_000, 2)
    client, server = open_programs(a, b, up, down, remote=addresses[0][1].partition("/")[0])
    exchange(sim, client, server, up, down)
    assert min(path[0].link.stats.bytes for path in paths) > 200_000
