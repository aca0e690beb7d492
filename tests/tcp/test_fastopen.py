"""TCP Fast Open, the server, in plain TCP: RFC 7413 (sections are that RFC's)."""

from __future__ import annotations

from typing import Any

import pytest

from mptcp.errors import ConnectionEnd
from mptcp.events import (
    Accepted,
    Closed,
    Event,
    Readable,
)
from mptcp.tcp.fastopen import CookieKeys
from mptcp.tcp.state import State
from mptcp.wire.tcp import ACK, FIN, RST, SYN
from tests.options import Emits, FastOpen, Mss, SackPermitted, WindowScale, has, lacks
from tests.peer import Peer, Wire, ms, seconds
from tests.tcp.fast_open import COOKIE, PORT, kinds, only_event

# -- cookies (§4.1.2) ------------------------------------------------------------------------------


def test_a_cookie_is_of_an_address() -> None:
    """§4.1.2: a keyed MAC of the client's address, both families; 8 bytes."""
    keys = CookieKeys(bytes(32), 1000)
    four, six = bytes(4), bytes(16)
    assert len(keys.cookie(four, 0)) == 8
    assert keys.check(four, keys.cookie(four, 0), 0) == 1
    assert keys.check(six, keys.cookie(four, 0), 0) == 0
    assert keys.check(b"\1" * 4, keys.cookie(four, 0), 0) == 0
    assert keys.check(four, keys.cookie(four, 0)[:4], 0) == 0
    assert CookieKeys(b"\1" * 32, 1000).check(four, keys.cookie(four, 0), 0) == 0


def test_keys_rotate() -> None:
    """§4.1.2: the server expires cookies by changing keys; two are good at a time."""
    keys = CookieKeys(bytes(32), 1000)
    cookie = keys.cookie(bytes(4), 500)
    assert [keys.check(bytes(4), cookie, now) for now in (999, 1000, 1999, 2000)] == [1, 2, 2, 0]


# -- the server (§4.2.2) ---------------------------------------------------------------------------


@pytest.fixture
def server(wire: Wire) -> Wire:
    wire.stack.listen(PORT, fast_open=2)
    return wire


def cookie_of(wire: Wire, address: str = "10.0.0.2", port: int = 39999) -> bytes:
    """Ask the stack for a cookie, as a client would, and drop that connection."""
    peer = Peer(wire, address=address, port=port, local_port=PORT)
    peer.send(SYN, options=[Mss(1400), FastOpen(b"")])
    answer = peer.expect(SYN | ACK, ack=1, length=0, options=has(FastOpen))
    peer.send(RST, seq=1)
    wire.take_events()
    wire.peers.remove(peer)
    cookie: bytes = answer.option(FastOpen).cookie
    return cookie


def fast(wire: Wire, port: int = 40000, data: bytes = b"request", **extra: Any) -> Peer:
    """A client that opens with a good cookie; its SYN has been sent."""
    peer = Peer(wire, port=port, local_port=PORT)
    options: list[Emits] = [Mss(1400), FastOpen(cookie_of(wire))]
    peer.send(SYN, data=data, options=options, **extra)
    return peer


def test_a_cookie_is_given(server: Wire) -> None:
    """§4.2.1: for an empty option; always the same for an address, within a key's life."""
    first = cookie_of(server)
    assert len(first) == 8
    assert cookie_of(server) == first
    assert cookie_of(server, "10.0.0.3") != first
    peer = Peer(server, port=40000, local_port=PORT)
    peer.send(SYN, data=b"early", options=[Mss(1400), FastOpen(b"")])
    peer.expect(SYN | ACK, ack=1)
    assert kinds(server) == []  # without a cookie the data is not taken
    peer.send(ACK, seq=1, data=b"early")
    assert only_event(server, Accepted).connection.recv() == b"early"


def test_data_before_the_handshake_is_complete(server: Wire) -> None:
    """§4.2.2: delivered with the SYN, acknowledged by the SYN/ACK, answered before
    the ACK of that."""
    peer = fast(server)
    events = server.take_events()
    kinds_of: list[type[Event]] = [type(event) for event in events]
    assert kinds_of == [Accepted, Readable]
    connection = events[0].connection
    assert connection.recv() == b"request"
    assert peer.subflow().state is State.SYN_RECEIVED
    connection.send(b"response")
    peer.expect(SYN | ACK, seq=0, ack=8, length=0, options=lacks(FastOpen))
    peer.expect(ACK, seq=1, ack=8, data=b"response")
    peer.send(ACK, ack=9, at=ms(20))
    assert peer.subflow().state is State.ESTABLISHED
    assert connection.tx.used == 0
    assert peer.subflow().srtt == ms(20)
    peer.expect_nothing(until=seconds(30))
    assert kinds(server) == []
    assert server.stack.counters["TcpExtTCPFastOpenPassive"] == 1


def test_the_ack_may_leave_early_data_open(server: Wire) -> None:
    """§4.2.2: the ACK of the SYN/ACK alone; the early data has a timer of its own from then on."""
    peer = fast(server)
    only_event(server, Accepted).connection.send(b"response")
    peer.expect(SYN | ACK, ack=8)
    peer.expect(ACK, data=b"response")  # and is lost
    peer.send(ACK, ack=1, at=ms(20))
    peer.expect(ACK, seq=1, data=b"response", within=seconds(1))
    peer.send(ACK, ack=9)
    peer.expect_nothing(until=seconds(30))


def test_early_data_keeps_to_the_initial_window(server: Wire) -> None:
    """§4.2.2 with RFC 6928: SYN-RECEIVED is no licence for more than an initial window, nor than
    the window of the SYN."""
    peer = fast(server)
    peer.expect(SYN | ACK)
    connection = only_event(server, Accepted).connection
    connection.send(bytes(40000))
    assert sum(len(seen.data) for seen in peer.drain()) == 14000
    small = Peer(server, port=40001, local_port=PORT)
    small.send(SYN, window=2801, options=[Mss(1400), WindowScale(7), FastOpen(cookie_of(server))])
    small.expect(SYN | ACK)
    only_event(server, Accepted).connection.send(bytes(40000))
    assert sum(len(seen.data) for seen in small.drain()) == 2800


def test_data_after_the_syn(server: Wire) -> None:
    """§4.2.2: the client goes on after its SYN's data, with the ACK of the SYN/ACK."""
    peer = fast(server)
    peer.expect(SYN | ACK, ack=8)
    peer.send(ACK, seq=8, ack=1, data=b" and more")
    assert only_event(server, Accepted).connection.recv() == b"request and more"


@pytest.mark.mib("TcpExtTCPFastOpenPassive")
def test_a_cookie_without_data(server: Wire) -> None:
    """§4.2.2: a good cookie alone lets the server speak first."""
    peer = fast(server, data=b"")
    connection = only_event(server, Accepted).connection
    connection.send(b"220 ready")
    peer.expect(SYN | ACK, ack=1)
    peer.expect(ACK, seq=1, data=b"220 ready")


@pytest.mark.parametrize("cookie", [bytes(8), b"1234", bytes(16)])
@pytest.mark.mib("TcpExtTCPFastOpenPassiveFail")
def test_a_bad_cookie(server: Wire, cookie: bytes) -> None:
    """§4.2.2: an ordinary handshake, only the SYN acknowledged, with a fresh cookie."""
    good = cookie_of(server)
    peer = Peer(server, port=40000, local_port=PORT)
    peer.send(SYN, data=b"request", options=[Mss(1400), FastOpen(cookie)])
    peer.expect(SYN | ACK, ack=1, options=has(FastOpen(good)))
    assert kinds(server) == []
    peer.send(ACK, seq=1, data=b"request")
    assert only_event(server, Accepted).connection.recv() == b"request"
    assert server.stack.counters["TcpExtTCPFastOpenPassiveFail"] == 1


def test_a_cookie_of_someone_else(server: Wire) -> None:
    """§4.1.2, §5.1: a cookie is good from the address it was given to."""
    other = cookie_of(server, "10.0.0.3")
    peer = Peer(server, port=40000, local_port=PORT)
    peer.send(SYN, data=b"request", options=[Mss(1400), FastOpen(other)])
    peer.expect(SYN | ACK, ack=1)
    assert kinds(server) == []


@pytest.mark.mib("TcpExtTCPFastOpenPassiveAltKey")
def test_an_older_cookie_is_renewed() -> None:
    """§4.1.2: with the key before the data is taken, and the SYN/ACK brings a new cookie."""
    wire = Wire(mptcp=False, fast_open=5, fast_open_key_us=seconds(10))
    wire.stack.listen(PORT)
    old = cookie_of(wire)
    wire.mark()
    for number, (at, taken) in enumerate(((9, True), (19, False))):
        peer = Peer(wire, port=40000 + number, local_port=PORT)
        peer.send(SYN, data=b"x", options=[Mss(1400), FastOpen(old)], at=seconds(at))
        fresh = peer.expect(SYN | ACK, ack=1 + taken).option(FastOpen).cookie
        assert fresh != old
    assert wire.stack.counters["TcpExtTCPFastOpenPassiveAltKey"] == 1


def test_off_by_default(wire: Wire) -> None:
    """§2.1: an application must have agreed to data that may come twice."""
    wire.stack.listen(PORT)
    peer = Peer(wire, port=40000, local_port=PORT)
    peer.send(SYN, data=b"x", options=[Mss(1400), FastOpen(b"")])
    peer.expect(SYN | ACK, ack=1, options=lacks(FastOpen))


@pytest.mark.mib("TcpExtTCPFastOpenListenOverflow")
def test_the_limit_of_pending_requests(server: Wire) -> None:
    """§4.2.2, §5.1: beyond the limit the SYN is one without a cookie; a place that is free again
    is taken."""
    first, second = fast(server, 40001), fast(server, 40002)
    for peer in (first, second):
        peer.expect(SYN | ACK, ack=8)
    assert kinds(server) == [Accepted, Readable]  # what cookie_of has not taken
    third = fast(server, 40003)
    third.expect(SYN | ACK, ack=1, options=lacks(FastOpen))
    assert kinds(server) == []
    assert server.stack.counters["TcpExtTCPFastOpenListenOverflow"] == 1
    first.send(ACK)
    fast(server, 40004).expect(SYN | ACK, ack=8)


def test_a_reset_request_stays_pending_for_a_while(server: Wire) -> None:
    """§5.1: or the resets of the forged addresses' owners would make room for more."""
    for port in (40001, 40002):
        peer = fast(server, port)
        peer.expect(SYN | ACK, ack=8)
        server.take_events()
        peer.send(RST, seq=8)
        assert only_event(server, Closed).end is ConnectionEnd.RESET
    server.mark()
    fast(server, 40003).expect(SYN | ACK, ack=1)
    server.advance(seconds(59.9))
    fast(server, 40004).expect(SYN | ACK, ack=1)
    server.advance(seconds(60.1))
    fast(server, 40005).expect(SYN | ACK, ack=8)


def test_a_lost_syn_ack(server: Wire) -> None:
    """§4.2.2, RFC 6298: repeated without data; it acknowledges the SYN's data again, which is
    delivered once."""
    peer = fast(server)
    connection = only_event(server, Accepted).connection
    server.mark()
    peer.expect(SYN | ACK, ack=8)
    connection.send(b"response")
    peer.expect(ACK, data=b"response")
    peer.expect(SYN | ACK, ack=8, length=0, at=seconds(1))
    peer.send(SYN, seq=0, options=[Mss(1400)])  # the client repeats its SYN, plainly
    peer.expect(SYN | ACK, seq=0, ack=8)
    peer.send(SYN, seq=0, data=b"request", options=[Mss(1400)])
    peer.expect(SYN | ACK, seq=0, ack=8)
    peer.send(ACK, seq=8, ack=9)
    assert connection.recv() == b"request"
    assert connection.tx.used == 0


def test_early_data_does_not_delay_the_syn_ack(server: Wire) -> None:
    """RFC 9293 §3.10.8, RFC 6298 §5: the SYN/ACK is repeated when its timer expires; a tail loss
    probe (RFC 8985 §7.2) is not for a connection that is not synchronized."""
    options: list[Emits] = [Mss(1400), SackPermitted(), FastOpen(cookie_of(server))]
    peer = Peer(server, port=40000, local_port=PORT)
    peer.send(SYN, data=b"request", options=options)
    only_event(server, Accepted).connection.send(b"answer")
    peer.expect(SYN | ACK)
    peer.expect(ACK, seq=1, length=6)
    server.mark()
    peer.expect(SYN | ACK, within=seconds(1))


def test_a_request_that_is_never_completed() -> None:
    """RFC 9293 §3.8.3: given up after the SYN/ACK's retries; the application is told."""
    wire = Wire(mptcp=False, synack_retries=2)
    listener = wire.stack.listen(PORT, fast_open=2)
    fast(wire)
    connection = only_event(wire, Accepted).connection
    wire.advance(seconds(20))
    assert only_event(wire, Closed) == Closed(connection, ConnectionEnd.TIMED_OUT)
    assert not listener.fast_open_pending
    assert wire.stack.connections == {}


@pytest.mark.parametrize("read", [True, False])
def test_close_before_the_handshake_is_complete(server: Wire, read: bool) -> None:
    """RFC 9293 §3.10.4: in SYN-RECEIVED a close waits for ESTABLISHED; with unread data it is a
    reset (RFC 1122 §4.2.2.13)."""
    peer = fast(server)
    connection = only_event(server, Accepted).connection
    peer.expect(SYN | ACK, ack=8)
    if read:
        connection.recv()
    connection.send(b"bye")
    connection.close()
    if not read:
        peer.expect(RST | ACK)
        assert server.stack.connections == {}
        return
    peer.expect(ACK, data=b"bye")
    peer.expect_nothing()
    peer.send(ACK, ack=1)
    peer.expect(ACK | FIN, seq=4)
    peer.send(ACK | FIN, ack=5)
    peer.expect(ACK)
    assert peer.subflow().state is State.TIME_WAIT


def test_a_closed_listener_keeps_what_it_accepted(server: Wire) -> None:
    """A connection that the application has is its own, whatever becomes of the listener."""
    peer = fast(server)
    connection = only_event(server, Accepted).connection
    peer.expect(SYN | ACK, ack=8)
    next(iter(server.stack.listeners.values())).close()
    peer.send(ACK)
    assert connection.established
    assert peer.subflow().state is State.ESTABLISHED


def test_with_a_full_backlog_there_is_no_fast_open() -> None:
    """RFC 4987 §3.6: a SYN cookie has no memory for it: the data comes again with the ACK."""
    wire = Wire(mptcp=False)
    wire.stack.listen(PORT, backlog=1, fast_open=5)
    cookie = cookie_of(wire)
    Peer(wire, port=39000, local_port=PORT).send(SYN, options=[Mss(1400)])
    peer = Peer(wire, port=40000, local_port=PORT)
    peer.send(SYN, data=b"x", options=[Mss(1400), FastOpen(cookie)])
    peer.expect(SYN | ACK, ack=1, options=lacks(FastOpen))
    assert wire.stack.counters["TcpExtSyncookiesSent"] == 1


def test_options_of_the_handshake_hold(server: Wire) -> None:
    """RFC 7323 §2.2, RFC 2018 §2 with Fast Open: agreed as ever, the window of the SYN unscaled."""
    peer = Peer(server, port=40000, local_port=PORT)
    options: list[Emits] = [Mss(1400), SackPermitted(), WindowScale(3)]
    options.append(FastOpen(cookie_of(server)))
    peer.wscale = 3
    peer.send(SYN, data=b"request", window=1000, options=options)
    subflow = peer.subflow()
    assert (subflow.snd.wnd, subflow.snd.wscale, subflow.snd.sack_ok) == (1000, 3, True)
    peer.expect(SYN | ACK, ack=8, options=has(SackPermitted(), WindowScale))
    peer.send(ACK, window=1000)
    assert subflow.snd.wnd == 8000


def test_ipv6_both_sides() -> None:
    """§4.1.2: the cookie is of the whole IPv6 address; 1220 is the MSS of who names none."""
    wire = Wire(addresses=["fd00::1/64"], mptcp=False, nodelay=True)
    wire.stack.listen(PORT, fast_open=1)
    peer = Peer(wire, address="fd00::2", local="fd00::1", port=40000, local_port=PORT)
    cookie = wire.stack.fast_open_keys.cookie(peer.address, wire.now)
    peer.send(SYN, data=b"six", options=[FastOpen(cookie)])
    peer.expect(SYN | ACK, ack=4)
    assert only_event(wire, Accepted).connection.recv() == b"six"
    for port, length in ((80, 0), (81, 1200)):
        server = Peer(wire, address="fd00::2", local="fd00::1", port=port)
        wire.stack.connect("fd00::2", port, data=bytes(1200), fast_open=True)
        syn = server.expect(SYN)
        assert len(syn.data) == min(length, 1220 - len(syn.option_bytes))
        server.send(SYN | ACK, ack=1 + len(syn.data), options=[FastOpen(COOKIE)])
