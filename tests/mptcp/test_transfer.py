"""MPTCP end to end in the simulator: whatever the network does, the bytes arrive and it closes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mptcp.sim.network import SimHost, Simulation
from mptcp.timers import Timed
from mptcp.wire.ip import parse_ip
from mptcp.wire.tcp import parse_segment
from tests.transfers import exchange, network, open_programs, payload


def disturb(sim: Simulation, seed: int, drop: float, duplicate: float, hold: float) -> None:
    """A tap that drops, repeats and reorders packets of either host, path by path."""
    rng = random.Random(f"tap {seed}")
    held: list[tuple[SimHost, bytes]] = []

    def send(now: int, host: SimHost, packet: bytes) -> None:
        # 10.0.n.x: the third byte of the source names the path.
        list(host.out.values())[packet[14]].send(now, packet)

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


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1 << 16),
    up=st.integers(0, 80_000),
    down=st.integers(0, 80_000),
    writes=st.lists(st.integers(1, 5000), max_size=20),
    paths=st.integers(1, 3),
    drop=st.sampled_from([0.0, 0.02, 0.1]),
    duplicate=st.sampled_from([0.0, 0.1]),
    hold=st.sampled_from([0.0, 0.1]),
    offload=st.booleans(),
    dsn_64=st.booleans(),
    timestamps=st.booleans(),
    checksum=st.booleans(),
    mptcp=st.sampled_from([(True, True), (True, True), (True, False), (False, True)]),
    window=st.sampled_from([8192, 65536, 6 << 20]),
    early_end=st.booleans(),
)
def test_any_network(
    seed: int,
    up: int,
    down: int,
    writes: list[int],
    paths: int,
    drop: float,
    duplicate: float,
    hold: float,
    offload: bool,
    dsn_64: bool,
    timestamps: bool,
    checksum: bool,
    mptcp: tuple[bool, bool],
    window: int,
    early_end: bool,
) -> None:
    """Random sizes, writes, losses, paths, options; one side or both with MPTCP."""
    config: dict[str, object] = {
        "dsn_64": dsn_64,
        "timestamps": timestamps,
        "checksum": checksum,
        "receive_buffer": window,
    }
    sim, a, b, _ = network(
        seed,
        paths=paths,
        a={**config, "mptcp": mptcp[0]},
        b={**config, "mptcp": mptcp[1]},
        offload=offload,
        rate_bps=100_000_000,
    )
    disturb(sim, seed, drop, duplicate, hold)
    first, second = payload(up, seed), payload(down, seed + 1)
    client, server = open_programs(a, b, first, second, writes=writes, early_end=early_end)
    exchange(sim, client, server, first, second, limit_us=900_000_000)


@pytest.mark.parametrize("rates", [(20, 20), (40, 10), (10, 2)])
def test_two_paths_add_up(rates: tuple[int, int]) -> None:
    """Two clean paths with queues of about a BDP: at least 85 % of the sum of their rates."""
    print("simulation seed 5")
    sim = Simulation(5)
    a, b = sim.host("a"), sim.host("b")
    for number, rate in enumerate(rates):
        sim.connect(
            a,
            f"10.0.{number}.1/24",
            b,
            f"10.0.{number}.2/24",
            rate_bps=rate * 1_000_000,
            delay_us=(10_000, 20_000)[number],
            queue_bytes=max(30_000, rate * 5_000),
        )
    size = sum(rates) * 1_000_000 // 8 * 4
    up = payload(size)
    client, server = open_programs(a, b, up, b"")
    sim.run(1_000_000)
    before, began = len(server.incoming), sim.now
    sim.run(2_000_000)
    goodput = (len(server.incoming) - before) * 8 / (sim.now - began)
    assert goodput > 0.85 * sum(rates) * 1380 / 1500
    exchange(sim, client, server, up, b"")


@pytest.mark.row("D18")
@pytest.mark.parametrize("segment", [50, 1400])
def test_memory_of_an_unread_connection_is_bounded(segment: int) -> None:
    """Two paths, an application that does not read: at most twice the buffer and a little."""
    buffer = 65536
    sim, a, b, _ = network(3, paths=2, a={"nodelay": True}, b={"receive_buffer": buffer}, loss=0.02)
    data = payload(400_000)
    client, server = open_programs(a, b, data, b"", writes=[segment] * 4000)
    server.reading = False
    peak = 0
    for _ in range(500):
        sim.run(20_000)
        if server.connection is not None:
            rx = server.connection.rx
            held = sum(subflow.reassembly.memory for subflow in server.connection.subflows)
            peak = max(peak, rx.memory + rx.reorder.memory + held)
    assert peak <= 2 * buffer + 65536
    server.reading = True
    server.read()
    exchange(sim, client, server, data, b"", limit_us=600_000_000)


def test_every_segment_keeps_the_rules_of_the_wire() -> None:
    """Both hosts, two lossy paths: whole options, within the MTU, MPTCP on each segment."""
    sim, a, b, _ = network(9, paths=2, rate_bps=20_000_000, loss=0.02, offload=True)
    seen = 0

    def tap(now: int, host: SimHost, packet: bytes) -> bool:
        nonlocal seen
        view = memoryview(packet)
        ip = parse_ip(view)
        seg = parse_segment(view, ip, verify_checksum=True)
        assert seg.bad_options == 0
        assert len(packet) <= 1500
        assert seg.flags & 4 or seg.dss is not None or seg.mptcp, seg
        if seg.dss is not None and seg.dss.dsn is not None and len(seg.payload):
            dss = seg.dss
            assert dss.length <= 65535
        seen += 1
        return True

    sim.tap = tap
    up, down = payload(1_000_000, 1), payload(1_000_000, 2)
    client, server = open_programs(a, b, up, down)
    exchange(sim, client, server, up, down)
    assert seen > 1000


@pytest.mark.parametrize("seed", range(4))
def test_the_stack_tells_its_deadlines(seed: int) -> None:
    """`poll_timeout()` is never later than any deadline of a connection or subflow."""
    sim, a, b, paths = network(seed, paths=2, rate_bps=5_000_000, loss=0.05)
    up, down = payload(300_000, 1), payload(100_000, 2)
    client, server = open_programs(a, b, up, down)

    def check() -> bool:
        for host in (a, b):
            stack = host.stack
            due = stack.poll_timeout()
            timed: list[Timed] = [*stack.connections.values(), *stack.metas]
            first = min((item.next_deadline() for item in timed), default=1 << 62)
            assert first >= 1 << 62 or (due is not None and due <= first)
        return client.done and server.done

    sim.run(1_000_000, until=check)
    sim.set_down(paths[seed % 2], True)
    sim.run(2_000_000, until=check)
    sim.set_down(paths[seed % 2], False)
    sim.run(60_000_000, until=check)
    exchange(sim, client, server, up, down)


def test_a_run_is_a_function_of_its_seed() -> None:
    """The same seed gives the same packets at the same times; another one does not."""

    def trace(seed: int) -> list[tuple[int, bytes]]:
        sim, a, b, _ = network(seed, paths=2, loss=0.05)
        packets: list[tuple[int, bytes]] = []

        def tap(now: int, host: SimHost, packet: bytes) -> bool:
            packets.append((now, packet))
            return True

        sim.tap = tap
        data = payload(100_000)
        client, server = open_programs(a, b, data, data)
        exchange(sim, client, server, data, data)
        return packets

    assert trace(1) == trace(1)
    assert trace(1) != trace(2)
