"""Connections for the tests of path MTU discovery, and what they send."""

from __future__ import annotations

from typing import Any

from mptcp.meta_socket import MetaSocket
from mptcp.wire.tcp import ACK
from tests.peer import Peer, Seen, Wire, ms

MSS = 1460


def made(**changes: Any) -> Peer:
    """A plain TCP stack and its peer; no tail loss probe comes between the time-outs."""
    settings: dict[str, Any] = {
        "nodelay": True,
        "congestion_control": "newreno",
        "rack_tlp": False,
        **changes,
    }
    return Peer(Wire(mptcp=False, **settings), local_port=4000)


def made6(**changes: Any) -> Peer:
    """The same over IPv6."""
    wire = Wire(addresses=["fd00::1/64"], mptcp=False, nodelay=True, **changes)
    return Peer(wire, address="fd00::2", local="fd00::1", local_port=4000)


def sizes(seen: list[Seen]) -> list[int]:
    """Packet sizes of the segments with data."""
    return [segment.headers + len(segment.data) for segment in seen if segment.data]


def find_probe(peer: Peer, connection: MetaSocket) -> tuple[Seen, list[Seen]] | None:
    """Let everything be acknowledged and data flow until a probe comes; it and what came behind."""
    mss = peer.subflow().snd.mss
    for _ in range(60):
        connection.send(bytes(8 * MSS))
        sent = peer.drain()
        for number, seen in enumerate(sent):
            if len(seen.data) > mss:
                return seen, sent[number + 1 :]
        peer.send(ACK, at=peer.wire.time + ms(100))
    return None


def next_probe(peer: Peer, connection: MetaSocket) -> tuple[Seen, list[Seen]]:
    """The same; one must come."""
    found = find_probe(peer, connection)
    assert found is not None
    return found
