"""Leads a connection into each state of RFC 9293 §3.3.2."""

from __future__ import annotations

from mptcp.wire.tcp import ACK, FIN, SYN
from tests.conformance.peer import Peer
from tests.conformance.vocabulary import App, Net
from tests.options import Mss, SackPermitted

SYNCHRONIZED = (
    "ESTABLISHED",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "CLOSE-WAIT",
    "CLOSING",
    "LAST-ACK",
    "TIME-WAIT",
)


def lead(net: Net, state: str) -> tuple[Peer, App]:
    """A connection in a synchronized `state`, opened by the system, and nothing in flight from it
    but the FIN of FIN-WAIT-1, CLOSING and LAST-ACK. Neither side has sent data.

    Afterwards `peer.nxt` is the number that the system expects next, and the system's SND.NXT is 1
    before its FIN, 2 after it. The application holds its socket still.
    """
    peer, app = net.established()
    if state in ("FIN-WAIT-1", "FIN-WAIT-2", "CLOSING", "TIME-WAIT"):
        app.shutdown()
        peer.expect(FIN | ACK, seq=1, ack=1)
        if state in ("FIN-WAIT-2", "TIME-WAIT"):
            peer.send(ACK, ack=2)
            if state == "TIME-WAIT":
                app.expect_state("FIN-WAIT-2")
                peer.send(FIN | ACK, ack=2)
                peer.expect(ACK, seq=2, ack=2)
        if state == "CLOSING":
            peer.send(FIN | ACK, ack=1)
            peer.expect(ACK, ack=2)
    elif state in ("CLOSE-WAIT", "LAST-ACK"):
        peer.send(FIN | ACK, ack=1)
        peer.expect(ACK, seq=1, ack=2, within=50_000)
        if state == "LAST-ACK":
            app.shutdown()
            peer.expect(FIN | ACK, seq=1, ack=2)
    if state != "TIME-WAIT":
        app.expect_state(state)
    net.mark()
    return peer, app


def half_open(net: Net) -> Peer:
    """A listener's connection in SYN-RECEIVED."""
    net.listen(5000)
    peer = net.peer(local_port=5000)
    peer.send(SYN, options=[Mss(1460), SackPermitted()])
    peer.expect(SYN | ACK, seq=0, ack=1)
    net.mark()
    return peer
