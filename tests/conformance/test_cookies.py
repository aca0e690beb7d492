"""SYN cookies: RFC 4987 §3.6. Both systems answer every SYN without state here."""

from __future__ import annotations

from mptcp.wire.tcp import ACK, FIN, RST, SYN
from tests.conformance.peer import Peer
from tests.conformance.vocabulary import App, Listener, Net
from tests.options import Emits, Mss, SackPermitted, Timestamps, WindowScale, has, lacks
from tests.virtual import ms


def answered(net: Net, *, timestamps: bool = False) -> tuple[Listener, Peer]:
    """A SYN has been answered with a cookie."""
    net.tune("syn_cookies", "always", "tcp_syncookies", 2)
    listener = net.listen(5000)
    peer = net.peer(local_port=5000)
    options: list[Emits] = [Mss(1400), SackPermitted(), WindowScale(7)]
    if timestamps:
        options.insert(0, Timestamps(peer.clock(), 0))
    peer.send(SYN, options=options)
    syn = peer.expect(SYN | ACK, ack=1)
    peer.agree(syn, 7 if timestamps else None, timestamps)
    return listener, peer


def accepted(net: Net, *, timestamps: bool = False) -> tuple[Peer, App]:
    """A connection made of a cookie."""
    listener, peer = answered(net, timestamps=timestamps)
    peer.send(ACK)
    return peer, listener.expect_accept()


def test_handshake(net: Net) -> None:
    """RFC 4987 §3.6: the ACK that returns the cookie makes the connection."""
    peer, app = accepted(net)
    app.expect_state("ESTABLISHED")
    peer.send(ACK, data=b"hello")
    app.expect_read(b"hello")
    app.write(b"world")
    peer.expect(ACK, data=b"world" if not peer.queue else None)


def test_no_options_without_timestamps(net: Net) -> None:
    """RFC 4987 §3.6: there is no room for SACK and window scale in a cookie of 32 bits."""
    net.tune("syn_cookies", "always", "tcp_syncookies", 2)
    net.listen(5000)
    peer = net.peer(local_port=5000)
    peer.send(SYN, options=[Mss(1400), SackPermitted(), WindowScale(7)])
    peer.expect(SYN | ACK, options=lacks(SackPermitted, WindowScale, Timestamps))


def test_options_with_timestamps(net: Net) -> None:
    """RFC 4987 §3.6: they fit into the timestamp's low bits, which the client echoes."""
    net.tune("syn_cookies", "always", "tcp_syncookies", 2)
    net.listen(5000)
    peer = net.peer(local_port=5000)
    peer.send(SYN, options=[Timestamps(7, 0), Mss(1400), SackPermitted(), WindowScale(7)])
    peer.expect(SYN | ACK, options=has(SackPermitted(), WindowScale, Timestamps))


def test_mss_is_remembered(net: Net) -> None:
    """RFC 4987 §3.6: an approximation of the MSS, never above it, is in the cookie."""
    peer, app = accepted(net)
    app.write(b"x" * 5000)
    sizes = [len(seen.data) for seen in peer.drain() if seen.data]
    net.check(bool(sizes), "data is sent")
    net.check(max(sizes) <= 1400, f"{sizes}: not above the peer's MSS")
    net.check(max(sizes) >= 500, f"{sizes}: and not far below")


def test_sack_is_remembered(net: Net) -> None:
    """RFC 4987 §3.6: SACK that the timestamp carried is in use."""
    peer, _ = accepted(net, timestamps=True)
    peer.send(ACK, seq=1001, data=b"x" * 1000)
    peer.expect(ACK, ack=1, sack=[(1001, 2001)])


def test_data_with_the_cookie(net: Net) -> None:
    """RFC 4987 §3.6: the ACK may carry data."""
    listener, peer = answered(net)
    peer.send(ACK, data=b"hello")
    peer.expect(ACK, ack=6, within=ms(60))
    listener.expect_accept().expect_read(b"hello")


def test_wrong_cookie(net: Net) -> None:
    """RFC 4987 §3.6, RFC 9293 §3.10.7.2 second: an ACK that is no cookie is reset."""
    listener, peer = answered(net)
    peer.send(ACK, seq=1, ack=12345)
    peer.expect(RST, seq=12345)
    listener.expect_none()
    peer.send(ACK, seq=1, ack=1)
    listener.expect_accept().expect_state("ESTABLISHED")


def test_cookie_of_another_flow(net: Net) -> None:
    """RFC 4987 §3.6: a cookie is bound to addresses and ports."""
    listener, peer = answered(net)
    other = net.peer(port=40001, local_port=5000, isn=peer.isn)
    other.stack_isn = peer.stack_isn
    other.send(ACK, seq=1, ack=1)
    other.expect(RST)
    listener.expect_none()


def test_no_state_is_kept(net: Net) -> None:
    """RFC 4987 §3.6: nothing is kept, so no SYN/ACK is repeated."""
    listener, peer = answered(net)
    peer.expect_nothing(until=net.time + ms(1300))
    listener.expect_none()


def test_close_of_a_cookie_connection(net: Net) -> None:
    """RFC 4987 §3.6: afterwards it is a connection like any other."""
    peer, app = accepted(net, timestamps=True)
    peer.send(FIN | ACK)
    peer.expect(ACK, ack=2, within=ms(60))
    app.expect_end()
    app.close()
    peer.expect(FIN | ACK, seq=1, ack=2)
    peer.send(ACK)
    peer.expect_nothing()
