"""Data sequence numbers near 2^64 and near 2^32: RFC 8684 §3.3.1, both directions, both forms."""

from __future__ import annotations

import pytest

from mptcp import keys
from mptcp.wire.tcp import ACK
from tests.peer import PEER_KEY, Peer, Wire, ms
from tests.transfers import exchange, network, open_programs, payload

MIB = 1 << 20


@pytest.mark.row("D6")
@pytest.mark.parametrize("dsn_64", [True, False])
@pytest.mark.parametrize(
    "idsn",
    [(1 << 64) - MIB, (1 << 64) - 10, (1 << 32) - MIB, (7 << 32) - 10, 0, (1 << 63) - MIB],
    ids=["64 bits", "64 bits close", "32 bits", "32 bits close", "zero", "half"],
)
def test_both_directions_cross_the_wrap(idsn: int, dsn_64: bool) -> None:
    """Two paths, both directions, 2 MiB: every byte arrives, and both ends agree on the end."""
    config: dict[str, object] = {"dsn_64": dsn_64}
    sim, a, b, _ = network(
        3,
        paths=2,
        rate_bps=40_000_000,
        delay_us=5_000,
        a=config,
        b=config,
        idsn=lambda key: (idsn + key[0]) % (1 << 64),
        loss=0.005,
    )
    up, down = payload(2 * MIB, 1), payload(2 * MIB, 2)
    client, server = open_programs(a, b, up, down)
    exchange(sim, client, server, up, down)
    assert client.connection is not None
    assert not client.connection.fallback


@pytest.mark.row("D6")
@pytest.mark.parametrize("start", [(1 << 32) - 50, (1 << 64) - 50])
def test_promotion_of_32_bits(start: int) -> None:
    """§3.3.1 (D6): a 32-bit DSN is promoted; a wrap only where one is due, also out of order."""
    wire = Wire(nodelay=True)
    peer = Peer(wire, idsn=start)
    wire.stack._idsn = lambda key: start if key == PEER_KEY else keys.idsn(key)
    connection = peer.handshake(mptcp=True)
    # Out of order across the wrap: 101..200 first, then an old one again, then 1..100.
    peer.send(
        ACK,
        seq=101,
        data=b"b" * 100,
        options=[peer.dss(dsn=101, ssn=101, length=100, dsn_64=False)],
    )
    peer.send(
        ACK, seq=1, data=b"a" * 100, options=[peer.dss(dsn=1, ssn=1, length=100, dsn_64=False)]
    )
    peer.send(
        ACK, seq=1, data=b"a" * 100, options=[peer.dss(dsn=1, ssn=1, length=100, dsn_64=False)]
    )
    assert connection.recv() == b"a" * 100 + b"b" * 100
    wire.advance(ms(500))
    last = peer.drain()[-1]
    assert last.dss is not None
    assert last.dss.data_ack == 201


@pytest.mark.row("D6")
@pytest.mark.parametrize("dsn_64", [True, False])
def test_numbers_on_the_wire_wrap(dsn_64: bool) -> None:
    """What we send beyond the wrap is modulo 2^64 or 2^32."""
    wire = Wire(nodelay=True, idsn=(1 << 64) - 5, dsn_64=dsn_64)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True)
    numbers = []
    for _ in range(4):
        connection.send(b"abc")
        seen = peer.expect(ACK, data=b"abc")
        assert seen.segment.dss is not None
        numbers.append(seen.segment.dss.dsn)
    bits = 64 if dsn_64 else 32
    assert numbers == [((1 << 64) - 4 + 3 * n) % (1 << bits) for n in range(4)]
    peer.send(ACK)
    assert connection.tx.used == 0
