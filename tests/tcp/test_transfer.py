"""Plain TCP end to end in the simulator: loss, reordering, duplication, wrap; the bytes decide."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mptcp.sim.network import SimHost, Simulation
from tests.transfers import exchange, network, open_programs, payload

PLAIN: dict[str, object] = {"mptcp": False}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("loss", [0.0, 0.01, 0.05])
@pytest.mark.parametrize("sack", [True, False])
def test_loss(seed: int, loss: float, sack: bool) -> None:
    """Every byte arrives both ways, with and without SACK."""
    config = {**PLAIN, "sack": sack}
    sim, a, b, _ = network(seed, a=config, b=config, loss=loss)
    up, down = payload(150_000, seed), payload(90_000, seed + 1)
    client, server = open_programs(a, b, up, down)
    exchange(sim, client, server, up, down)


@pytest.mark.parametrize("below", [1 << 20, 10])
@pytest.mark.parametrize("offload", [True, False])
@pytest.mark.parametrize("loss", [0.0, 0.02])
def test_sequence_wrap(below: int, offload: bool, loss: float) -> None:
    """RFC 9293 §3.4: both directions cross 2^32."""
    isn = (1 << 32) - below
    sim, a, b, _ = network(
        5, a=PLAIN, b=PLAIN, isn=lambda _: isn, offload=offload, loss=loss, rate_bps=50_000_000
    )
    size = (3 << 20) // 2 if below > 10 else 100_000
    up, down = payload(size, 1), payload(size, 2)
    client, server = open_programs(a, b, up, down)
    exchange(sim, client, server, up, down)


def test_throughput_without_loss() -> None:
    """10 Mbit/s, RTT 20 ms, a queue of one BDP: at least 90 % of the link in 8 Mbit."""
    sim, a, b, _ = network(1, a=PLAIN, b=PLAIN, queue_bytes=50_000)
    up = payload(4_000_000)
    client, server = open_programs(a, b, up, b"")
    began = sim.now
    exchange(sim, client, server, up, b"")
    rate = len(up) * 8 / (sim.now - began)
    assert rate > 9.0 * 0.95


def disturb(sim: Simulation, seed: int, drop: float, duplicate: float, hold: float) -> None:
    """A tap that drops, repeats and reorders packets of either host."""
    rng = random.Random(f"tap {seed}")
    held: list[tuple[SimHost, bytes]] = []

    def send(now: int, host: SimHost, packet: bytes) -> None:
        next(iter(host.out.values())).send(now, packet)

    def tap(now: int, host: SimHost, packet: bytes) -> bool:
        if held and rng.random() < 0.3:
            other, late = held.pop(rng.randrange(len(held)))
            send(now, other, late)
        dice = rng.random()
        if dice < drop:
            return False
        if dice < drop + hold:
            held.append((host, packet))
            return False
        if dice < drop + hold + duplicate:
            send(now, host, packet)
        return True

    sim.tap = tap


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1 << 16),
    up=st.integers(0, 60_000),
    down=st.integers(0, 60_000),
    writes=st.lists(st.integers(1, 5000), max_size=20),
    drop=st.sampled_from([0.0, 0.02, 0.1]),
    duplicate=st.sampled_from([0.0, 0.1]),
    hold=st.sampled_from([0.0, 0.1]),
    offload=st.booleans(),
    sack=st.booleans(),
    timestamps=st.booleans(),
    window=st.sampled_from([4096, 65536, 6 << 20]),
    early_end=st.booleans(),
)
def test_any_network(
    seed: int,
    up: int,
    down: int,
    writes: list[int],
    drop: float,
    duplicate: float,
    hold: float,
    offload: bool,
    sack: bool,
    timestamps: bool,
    window: int,
    early_end: bool,
) -> None:
    """Whatever the network does, the bytes arrive and the connection closes."""
    config: dict[str, object] = {
        **PLAIN,
        "sack": sack,
        "timestamps": timestamps,
        "receive_buffer": window,
    }
    sim, a, b, _ = network(seed, a=config, b=config, offload=offload, rate_bps=100_000_000)
    disturb(sim, seed, drop, duplicate, hold)
    first, second = payload(up, seed), payload(down, seed + 1)
    client, server = open_programs(a, b, first, second, writes=writes, early_end=early_end)
    exchange(sim, client, server, first, second, limit_us=600_000_000)


@pytest.mark.parametrize("segment", [1, 100, 1460])
def test_memory_of_an_unread_connection_is_bounded(segment: int) -> None:
    """What is charged for an unread stream stays below twice the buffer and a little."""
    buffer = 65536
    sim, a, b, _ = network(3, a={**PLAIN, "nodelay": True}, b={**PLAIN, "receive_buffer": buffer})
    data = payload(300_000)
    client, server = open_programs(a, b, data, b"", writes=[segment] * 3000)
    server.reading = False
    sim.run(20_000_000)
    assert server.connection is not None
    assert server.connection.rx.unread <= buffer
    assert server.peak_memory <= 2 * buffer + 4096
    server.reading = True
    server.read()
    exchange(sim, client, server, data, b"", limit_us=600_000_000)
