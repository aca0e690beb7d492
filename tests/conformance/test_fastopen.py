"""TCP Fast Open: RFC 7413, client and server."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from mptcp.wire.tcp import ACK, RST, SYN, fast_open_option
from tests.conformance.peer import Peer
from tests.conformance.vocabulary import App, Listener, Net
from tests.options import Mss, SackPermitted
from tests.virtual import ms, seconds

COOKIE = bytes(range(1, 9))


@dataclass(frozen=True, slots=True)
class FastOpen:
    """The Fast Open option: b"" asks for a cookie (RFC 7413 §2)."""

    cookie: bytes = b""

    def emit(self) -> bytes:
        return fast_open_option(self.cookie)


def client(net: Net) -> None:
    """The system may open fast as a client."""
    net.tune("", None, "tcp_fastopen", 1)


def server(net: Net) -> tuple[Listener, Peer]:
    """A listener that takes data from SYNs."""
    net.tune("", None, "tcp_fastopen", 2)
    return net.listen(5000, fast_open=5), net.peer(local_port=5000)


def cookie_of(net: Net) -> tuple[Listener, Peer, bytes]:
    """A server, and the cookie that it gives this peer's address."""
    listener, first = server(net)
    first.send(SYN, options=[Mss(1460), SackPermitted(), FastOpen()])
    cookie = first.expect(SYN | ACK, ack=1).segment.fast_open
    net.check(cookie is not None and len(cookie) >= 4, f"the cookie is {cookie!r}")
    first.send(ACK)
    listener.expect_accept()
    assert cookie is not None
    return listener, net.peer(port=40001, local_port=5000), cookie


def test_cookie_request_is_answered(net: Net) -> None:
    """RFC 7413 §4.2.1: a request is answered with a cookie; the data waits for the handshake."""
    cookie_of(net)


def test_no_cookie_unless_asked(net: Net) -> None:
    """RFC 7413 §4.1.1: a SYN without the option gets none."""
    _, peer = server(net)
    peer.send(SYN, options=[Mss(1460)])
    seen = peer.expect(SYN | ACK, ack=1)
    net.check(seen.segment.fast_open is None, "no option")


def test_no_cookie_of_an_ordinary_listener(net: Net) -> None:
    """RFC 7413 §4.2.1: Fast Open is for listeners whose application has agreed."""
    net.tune("", None, "tcp_fastopen", 2)
    net.listen(5000)
    peer = net.peer(local_port=5000)
    peer.send(SYN, options=[Mss(1460), FastOpen()])
    seen = peer.expect(SYN | ACK, ack=1)
    net.check(seen.segment.fast_open is None, "no option")


def test_data_of_a_syn_is_delivered(net: Net) -> None:
    """RFC 7413 §4.2.2: with a valid cookie the application has the data before the third ACK."""
    listener, peer, cookie = cookie_of(net)
    peer.send(SYN, data=b"hello", options=[Mss(1460), SackPermitted(), FastOpen(cookie)])
    peer.expect(SYN | ACK, ack=6)
    app = listener.expect_accept()
    app.expect_read(b"hello")
    peer.send(ACK)
    app.expect_state("ESTABLISHED")
    peer.send(ACK, data=b" world")
    app.expect_read(b" world")


def test_answer_before_the_third_ack(net: Net) -> None:
    """RFC 7413 §4.2.2: the server may answer before the handshake is complete."""
    listener, peer, cookie = cookie_of(net)
    peer.send(SYN, data=b"get", options=[Mss(1460), SackPermitted(), FastOpen(cookie)])
    peer.expect(SYN | ACK, ack=4)
    app = listener.expect_accept()
    app.expect_read(b"get")
    app.write(b"answer")
    peer.expect(ACK, seq=1, ack=4, data=b"answer")
    peer.send(ACK)
    app.expect_state("ESTABLISHED")


def test_invalid_cookie(net: Net) -> None:
    """RFC 7413 §4.2.2: a wrong cookie: the data is not taken, and a fresh cookie is given."""
    listener, peer, cookie = cookie_of(net)
    wrong = bytes(byte ^ 0x55 for byte in cookie)
    peer.send(SYN, data=b"hello", options=[Mss(1460), SackPermitted(), FastOpen(wrong)])
    seen = peer.expect(SYN | ACK, ack=1)
    net.check(seen.segment.fast_open == cookie, f"{seen.segment.fast_open!r}: the right cookie")
    listener.expect_none()
    peer.send(ACK, seq=1, data=b"hello")
    listener.expect_accept().expect_read(b"hello")


def test_cookie_of_another_address(net: Net) -> None:
    """RFC 7413 §4.1.2: a cookie belongs to the address that asked for it."""
    listener, _, cookie = cookie_of(net)
    peer = net.peer(address="10.0.0.77", local_port=5000)
    peer.send(SYN, data=b"hello", options=[Mss(1460), FastOpen(cookie)])
    peer.expect(SYN | ACK, ack=1)
    listener.expect_none()


def test_cookie_without_data(net: Net) -> None:
    """RFC 7413 §4.2.2: a valid cookie without data is an ordinary SYN."""
    _, peer, cookie = cookie_of(net)
    peer.send(SYN, options=[Mss(1460), FastOpen(cookie)])
    peer.expect(SYN | ACK, ack=1)


def test_reset_of_a_fast_open(net: Net) -> None:
    """RFC 7413 §4.2.2: a RST in SYN-RECEIVED tells the application."""
    listener, peer, cookie = cookie_of(net)
    peer.send(SYN, data=b"hello", options=[Mss(1460), FastOpen(cookie)])
    peer.expect(SYN | ACK, ack=6)
    app = listener.expect_accept()
    app.expect_read(b"hello")
    peer.send(RST, seq=6)
    peer.expect_nothing()
    app.expect_state("CLOSED")


def primed(net: Net) -> Peer:
    """The client has a cookie of the peer's address; the next connection's peer is returned."""
    client(net)
    first = net.peer()
    app = net.connect(first.address, first.port, fast_open=True)
    seen = first.expect(SYN, length=0)
    net.check(seen.segment.fast_open == b"", "it asks for a cookie")
    first.send(SYN | ACK, options=[Mss(1460), SackPermitted(), FastOpen(COOKIE)])
    first.expect(ACK, seq=1, ack=1)
    app.close()
    first.drain()
    first.send(RST | ACK, seq=1, ack=2)
    first.drain()
    net.peers.remove(first)
    return net.peer()


def open_fast(net: Net, peer: Peer, data: bytes) -> App:
    """The system connects with data."""
    return net.connect(peer.address, peer.port, data=data, fast_open=True)


def test_client_sends_data_in_the_syn(net: Net) -> None:
    """RFC 7413 §4.2.1: with a cookie the SYN carries it, and the data."""
    peer = primed(net)
    app = open_fast(net, peer, b"hello")
    seen = peer.expect(SYN, data=b"hello")
    net.check(seen.segment.fast_open == COOKIE, f"{seen.segment.fast_open!r}")
    peer.send(SYN | ACK, ack=6, options=[Mss(1460), SackPermitted()])
    peer.expect(ACK, seq=6, ack=1, length=0)
    app.expect_state("ESTABLISHED")
    app.write(b" world")
    peer.expect(ACK, seq=6, data=b" world")


def test_server_takes_the_syn_only(net: Net) -> None:
    """RFC 7413 §4.2.2: data that the SYN/ACK does not acknowledge goes again at once."""
    peer = primed(net)
    open_fast(net, peer, b"hello")
    peer.expect(SYN, data=b"hello")
    peer.send(SYN | ACK, ack=1, options=[Mss(1460), SackPermitted()])
    sent = b"".join(seen.data for seen in peer.drain())
    net.check(sent == b"hello", f"{sent!r} after the SYN/ACK")


def test_data_with_the_synack(net: Net) -> None:
    """RFC 7413 §4.2.2: the server's data may follow its SYN/ACK at once."""
    peer = primed(net)
    app = open_fast(net, peer, b"get")
    peer.expect(SYN, data=b"get")
    peer.send(SYN | ACK, ack=4, options=[Mss(1460), SackPermitted()])
    peer.send(ACK, ack=4, data=b"answer")
    app.expect_read(b"answer")


def test_syn_again_is_plain(net: Net) -> None:
    """RFC 7413 §4.1.3, §4.2.1: the SYN is repeated without data and without the option."""
    peer = primed(net)
    open_fast(net, peer, b"hello")
    peer.expect(SYN, data=b"hello")
    again = peer.expect(SYN, length=0, within=seconds(1))
    net.check(again.segment.fast_open is None, "no option")
    peer.send(SYN | ACK, ack=1, options=[Mss(1460)])
    sent = b"".join(seen.data for seen in peer.drain())
    net.check(sent == b"hello", f"{sent!r} after the SYN/ACK")


@pytest.mark.parametrize(("size", "least"), [(1000, 1000), (3000, 1400)])
def test_syn_data_fits_one_segment(net: Net, size: int, least: int) -> None:
    """RFC 7413 §4.2.1: the SYN with data is one segment; no more goes before the ACK."""
    peer = primed(net)
    open_fast(net, peer, b"x" * size)
    syn = peer.expect(SYN)
    net.check(least <= len(syn.data) <= min(size, 1440), f"{len(syn.data)} bytes in the SYN")
    net.check(len(syn.packet) <= 1500, "one packet")
    peer.expect_nothing(until=net.time + ms(20))
    peer.send(SYN | ACK, ack=1 + len(syn.data), options=[Mss(1460), SackPermitted()])
    peer.expect(ACK, seq=1 + len(syn.data), ack=1)
