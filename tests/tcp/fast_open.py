"""What the tests of TCP Fast Open share (RFC 7413)."""

from __future__ import annotations

from typing import Any

from mptcp.events import (
    FellBack,
    SubflowClosed,
    SubflowEstablished,
)
from mptcp.meta_socket import MetaSocket
from mptcp.wire.tcp import ACK, RST, SYN
from tests.options import FastOpen, Mss, has
from tests.peer import Peer, Wire

COOKIE = bytes.fromhex("c0c1c2c3c4c5c6c7")
PORT = 5000


def kinds(wire: Wire) -> list[type]:
    """Types of the events since the last call, without what tells of MPTCP only."""
    hidden = (FellBack, SubflowEstablished, SubflowClosed)
    return [type(event) for event in wire.take_events() if not isinstance(event, hidden)]


def only_event(wire: Wire, kind: type[Any]) -> Any:
    (event,) = [event for event in wire.take_events() if isinstance(event, kind)]
    return event


def prime(wire: Wire, *, mss: int = 1000, cookie: bytes = COOKIE) -> None:
    """Let the stack get a cookie from 10.0.0.2 on a connection that is over."""
    peer = Peer(wire, port=81)
    connection = wire.stack.connect("10.0.0.2", 81, fast_open=True)
    peer.expect(SYN, options=has(FastOpen(b"")))
    peer.send(SYN | ACK, options=[Mss(mss), FastOpen(cookie)])
    peer.expect(ACK)
    connection.abort()
    peer.expect(RST | ACK)
    wire.take_events()
    wire.peers.remove(peer)
    wire.mark()


def connect(wire: Wire, data: bytes) -> MetaSocket:
    return wire.stack.connect("10.0.0.2", 80, data=data, fast_open=True)
