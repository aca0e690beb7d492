"""The path manager `ndiffports`: several subflows over the first pair of addresses."""

from __future__ import annotations

import pytest

from mptcp.sim.network import SimHost
from tests.transfers import Program, exchange, network, open_programs, payload


def pairs(program: Program) -> list[tuple[bytes, bytes]]:
    assert program.connection is not None
    return [(flow.local, flow.remote) for flow in program.connection.subflows]


@pytest.mark.parametrize(("wanted", "limit", "opened"), [(1, 8, 1), (3, 8, 3), (5, 4, 4)])
def test_as_many_as_wanted(wanted: int, limit: int, opened: int) -> None:
    """RFC 8684 §2.2: subflows may share a pair of addresses with ports of their own; another
    address of the host is not used."""
    config: dict[str, object] = {"path_manager": "ndiffports", "ndiffports": wanted}
    sim, a, b, _ = network(8, paths=2, a={**config, "max_subflows": limit})
    up = payload(2_000_000)
    client, server = open_programs(a, b, up, b"")
    sim.run(1_000_000)
    assert len(pairs(client)) == opened
    assert len(set(pairs(client))) == 1
    assert client.connection is not None
    flows = client.connection.subflows
    assert len({flow.local_port for flow in flows}) == opened
    assert all(flow.snd.bytes_acked > 1 for flow in flows)
    exchange(sim, client, server, up, b"")


def reset_second(host: SimHost, program: Program) -> None:
    assert program.connection is not None
    program.connection.subflows[1].abort()
    host.wake()


def test_a_lost_one_comes_back() -> None:
    """RFC 8684 §3.8.2: a lost subflow's path may be tried again, after a while."""
    sim, a, b, _ = network(9, paths=1, a={"path_manager": "ndiffports", "ndiffports": 3})
    up = payload(4_000_000)
    client, server = open_programs(a, b, up, b"")
    sim.run(500_000)
    assert len(pairs(client)) == 3
    reset_second(a, client)
    sim.run(100_000)
    assert len(pairs(client)) == 2
    sim.run(1_500_000)
    assert len(pairs(client)) == 3
    exchange(sim, client, server, up, b"")


def test_none_where_the_first_address_takes_no_more() -> None:
    """RFC 8684 §3.1, C flag: no subflow to the peer's first address."""
    sim, a, b, _ = network(
        10,
        paths=1,
        a={"path_manager": "ndiffports", "ndiffports": 3},
        b={"allow_join_initial_addr_port": False},
    )
    up = payload(500_000)
    client, server = open_programs(a, b, up, b"")
    sim.run(200_000)
    assert len(pairs(client)) == 1
    exchange(sim, client, server, up, b"")
