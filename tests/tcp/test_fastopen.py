"""TCP Fast Open, both sides, in plain TCP: RFC 7413 (sections are that RFC's)."""

from __future__ import annotations

from typing import Any

import pytest

from mptcp.errors import ConnectionEnd
from mptcp.events import (
    Accepted,
    Closed,
    Connected,
    Event,
    FellBack,
    Readable,
    SubflowClosed,
    SubflowEstablished,
    Writable,
)
from mptcp.meta_socket import MetaSocket
from mptcp.tcp.fastopen import CookieCache, CookieKeys, ServerFastOpen, add_fast_open
from mptcp.tcp.state import State
from mptcp.wire.icmp import IcmpKind, unreachable
from mptcp.wire.tcp import ACK, FIN, RST, SACK_PERMITTED, SYN, mss_option
from tests.options import Emits, FastOpen, Mss, SackPermitted, Timestamps, WindowScale, has, lacks
from tests.peer import Peer, Wire, ms, seconds

COOKIE = bytes.fromhex("c0c1c2c3c4c5c6c7")
PORT = 5000


def kinds(wire: Wire) -> list[type]:
    """Types of the events since the last call, without what tells of MPTCP only."""
    hidden = (FellBack, SubflowEstablished, SubflowClosed)
    return [type(event) for event in wire.take_events() if not isinstance(event, hidden)]


def only_event(wire: Wire, kind: type[Any]) -> Any:
    (event,) = [event for event in wire.take_events() if isinstance(event, kind)]
    return event


# -- the client (§4.2) ---------------------------------------------------------------------------


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


def test_a_cookie_is_asked_for(wire: Wire, peer: Peer) -> None:
    """§4.2.1 step 1: a SYN with an empty option and no data; the data comes after."""
    connection = connect(wire, b"hello")
    peer.expect(SYN, seq=0, length=0, options=has(FastOpen(b"")))
    peer.send(SYN | ACK, ack=1, options=[Mss(1000), FastOpen(COOKIE)])
    peer.expect(ACK, seq=1, data=b"hello", options=lacks(FastOpen))
    assert kinds(wire) == [Connected]
    assert connection.established
    assert wire.stack.counters["TcpExtTCPFastOpenCookieReqd"] == 1


def test_data_in_the_syn(wire: Wire, peer: Peer) -> None:
    """§4.2.2: cookie and data in the SYN, acknowledged by the SYN/ACK."""
    prime(wire)
    connection = connect(wire, b"request")
    peer.expect(SYN, seq=0, data=b"request", options=has(FastOpen(COOKIE)))
    assert connection.tx.used == 7  # it may have to be sent again
    peer.send(SYN | ACK, ack=8, options=[Mss(1000)])
    peer.expect(ACK, seq=8, ack=1, length=0)
    assert kinds(wire) == [Connected]
    assert connection.tx.used == 0
    connection.send(b"more")
    peer.expect(ACK, seq=8, data=b"more")
    assert wire.stack.counters["TcpExtTCPFastOpenActive"] == 1


@pytest.mark.parametrize("acked", [0, 1, 300])
def test_unacknowledged_syn_data_is_sent_again(wire: Wire, peer: Peer, acked: int) -> None:
    """§4.2.2: what the SYN/ACK leaves is sent at once, in order, with what follows it."""
    prime(wire)
    data = bytes(range(256)) * 10
    connection = connect(wire, data)
    syn = peer.expect(SYN, seq=0, options=has(FastOpen(COOKIE)))
    peer.send(SYN | ACK, ack=1 + acked, options=[Mss(1000)])
    sent = [seen for seen in peer.drain() if seen.data]
    assert [seen.seq for seen in sent] == [1 + acked, 1001 + acked, 2001 + acked]
    assert syn.data[:acked] + b"".join(seen.data for seen in sent) == data
    peer.send(ACK, ack=1 + len(data))
    assert connection.tx.used == 0
    assert "TcpRetransSegs" not in wire.stack.counters
    failed = wire.stack.counters["TcpExtTCPFastOpenActiveFail"]
    assert failed == (0 if acked else 1)


def test_the_window_is_whole_after_a_refusal(wire: Wire, peer: Peer) -> None:
    """§4.2.2 with RFC 6928: data of a SYN that was not taken is no loss: the initial
    window."""
    prime(wire)
    connect(wire, bytes(30000))
    peer.expect(SYN)
    peer.send(SYN | ACK, ack=1, options=[Mss(1000)])
    assert [len(seen.data) for seen in peer.drain() if seen.data] == [1000] * 10


@pytest.mark.parametrize("mss", [300, 536, 1460, 9000])
def test_syn_data_fits_the_cached_mss(wire: Wire, peer: Peer, mss: int) -> None:
    """§4.2.2: data of the SYN plus options stay within the MSS the server gave, and our MTU."""
    prime(wire, mss=mss)
    connect(wire, bytes(20000))
    syn = peer.expect(SYN, options=has(FastOpen(COOKIE)))
    assert len(syn.data) == min(mss, 1460) - len(syn.option_bytes)


def test_a_repeated_syn_is_plain(wire: Wire, peer: Peer) -> None:
    """§4.1.3.1: after a time-out neither data nor the option: something may drop them."""
    prime(wire)
    connect(wire, b"request")
    first = peer.expect(SYN, data=b"request")
    again = peer.expect(SYN, seq=0, length=0, at=seconds(1), options=lacks(FastOpen))
    assert again.segment.seq == first.segment.seq
    peer.send(SYN | ACK, ack=1, options=[Mss(1000)])
    peer.expect(ACK, seq=1, data=b"request")
    assert kinds(wire) == [Connected]


def test_a_late_syn_ack_for_the_data(wire: Wire, peer: Peer) -> None:
    """§4.2.2: the SYN/ACK to the first SYN is good after the second SYN has left."""
    prime(wire)
    connect(wire, b"request")
    peer.expect(SYN, data=b"request")
    peer.expect(SYN, length=0, within=seconds(1))
    peer.send(SYN | ACK, ack=8, options=[Mss(1000)])
    peer.expect(ACK, seq=8, ack=1, length=0)
    peer.expect_nothing(until=seconds(5))


@pytest.mark.parametrize("acked", [0, 7])
def test_black_hole_detection(wire: Wire, acked: int) -> None:
    """§4.1.3.1: where a SYN with Fast Open is lost and a plain one is not, plain ones follow for a
    while; not when the data came through after all."""
    prime(wire)
    waits = []
    for round_, wait in enumerate((60, 120)):
        peer = Peer(wire, port=82 + round_)
        wire.stack.connect("10.0.0.2", 82 + round_, data=b"request", fast_open=True)
        peer.expect(SYN, data=b"request")
        peer.expect(SYN, length=0, within=seconds(1))
        peer.send(SYN | ACK, ack=1 + acked, options=[Mss(1000)])
        wire.mark()
        if acked:
            break
        assert wire.stack.counters["TcpExtTCPFastOpenBlackhole"] == 1 + round_
        for port, at in ((90, 0.0), (91, wait - 0.001)):
            wire.advance(seconds(at))
            plain = Peer(wire, port=port + 10 * round_)
            wire.stack.connect("10.0.0.2", port + 10 * round_, data=b"x", fast_open=True)
            plain.expect(SYN, length=0, options=lacks(FastOpen))
            plain.send(SYN | ACK, ack=1, options=[Mss(1000)])
            plain.expect(ACK, data=b"x")
            plain.send(ACK)
        wire.advance(seconds(wait))
        waits.append(wait)
    last = Peer(wire, port=200)
    wire.stack.connect("10.0.0.2", 200, data=b"again", fast_open=True)
    last.expect(SYN, data=b"again", options=has(FastOpen(COOKIE)))
    assert waits == ([] if acked else [60, 120])


def test_a_lost_request_for_a_cookie_counts_too(wire: Wire, peer: Peer) -> None:
    """§4.1.3.1: the option alone may be what a middlebox drops."""
    connect(wire, b"x")
    peer.expect(SYN, options=has(FastOpen(b"")))
    peer.expect(SYN, within=seconds(1), options=lacks(FastOpen))
    peer.send(SYN | ACK, ack=1, options=[Mss(1000)])
    other = Peer(wire, port=81)
    wire.stack.connect("10.0.0.2", 81, fast_open=True)
    other.expect(SYN, options=lacks(FastOpen))


def test_a_refusal_of_the_data_is_remembered(wire: Wire, peer: Peer) -> None:
    """§4.1.3.1: a SYN/ACK without cookie that leaves the data is a negative answer as well; one
    with a new cookie is not."""
    prime(wire)
    for number, (fresh, again) in enumerate(((COOKIE[::-1], True), (None, False))):
        port = 100 + 2 * number
        first = Peer(wire, port=port)
        wire.stack.connect("10.0.0.2", port, data=b"x", fast_open=True)
        first.expect(SYN, data=b"x")
        options: list[Emits] = [Mss(1000)]
        if fresh is not None:
            options.append(FastOpen(fresh))
        first.send(SYN | ACK, ack=1, options=options)
        second = Peer(wire, port=port + 1)
        wire.stack.connect("10.0.0.2", port + 1, data=b"y", fast_open=True)
        second.expect(SYN, data=b"y" if again else b"")
        second.send(RST | ACK, seq=0, ack=2 if again else 1)
    assert "TcpExtTCPFastOpenBlackhole" not in wire.stack.counters


@pytest.mark.parametrize("icmp", [True, False])
def test_no_answer_at_all_is_remembered(icmp: bool) -> None:
    """§4.1.3.1: ICMP errors and time-outs are negative answers."""
    wire = Wire(mptcp=False, syn_retries=1, fast_open_retry_us=seconds(3600))
    prime(wire)
    peer = Peer(wire)
    connection = connect(wire, b"request")
    transmit = wire.stack.poll_transmit(wire.now)
    assert transmit is not None
    if icmp:
        packet = memoryview(transmit.packet())
        error = unreachable(packet, peer.address, IcmpKind.PORT_UNREACHABLE)
        assert error is not None
        wire.inject(error)
    else:
        peer.local_port = 1  # whose SYNs these are is of no interest
        wire.advance(seconds(10))
    assert connection.ended in (ConnectionEnd.UNREACHABLE, ConnectionEnd.TIMED_OUT)
    other = Peer(wire, port=81)
    wire.stack.connect("10.0.0.2", 81, data=b"x", fast_open=True)
    other.expect(SYN, length=0, options=lacks(FastOpen))


def test_a_server_without_fast_open(wire: Wire, peer: Peer) -> None:
    """§4.2.1: no cookie in the SYN/ACK: an ordinary connection, and the next SYN asks again."""
    connect(wire, b"x")
    peer.expect(SYN, options=has(FastOpen(b"")))
    peer.send(SYN | ACK, ack=1, options=[Mss(1000)])
    peer.expect(ACK, seq=1, data=b"x")
    other = Peer(wire, port=81)
    wire.stack.connect("10.0.0.2", 81, fast_open=True)
    other.expect(SYN, length=0, options=has(FastOpen(b"")))


def test_a_new_cookie_replaces_the_old(wire: Wire, peer: Peer) -> None:
    """§4.1.3: the client caches the latest; an unsolicited one counts for nothing."""
    prime(wire)
    connect(wire, b"x")
    peer.expect(SYN, options=has(FastOpen(COOKIE)))
    peer.send(SYN | ACK, ack=1, options=[Mss(1000), FastOpen(b"newer!")])
    wire.flush()
    second = Peer(wire, port=81)
    wire.stack.connect("10.0.0.2", 81, data=b"y")
    second.expect(SYN, length=0, options=lacks(FastOpen))
    second.send(SYN | ACK, ack=1, options=[Mss(1000), FastOpen(b"strange!")])
    wire.flush()
    third = Peer(wire, port=82)
    wire.stack.connect("10.0.0.2", 82, data=b"z", fast_open=True)
    third.expect(SYN, data=b"z", options=has(FastOpen(b"newer!")))


def test_data_in_the_syn_ack(wire: Wire, peer: Peer) -> None:
    """§4.2.2 seen by the client: the server may answer with data in or after its SYN/ACK."""
    prime(wire)
    connection = connect(wire, b"request")
    peer.expect(SYN, data=b"request")
    peer.send(SYN | ACK, ack=8, data=b"resp", options=[Mss(1000)])
    peer.expect(ACK, seq=8, ack=5)
    peer.send(ACK, ack=8, data=b"onse")
    assert connection.recv() == b"response"


def test_a_refused_syn_with_data(wire: Wire, peer: Peer) -> None:
    """RFC 9293 §3.10.7.3: the RST acknowledges the SYN and all its data."""
    prime(wire)
    connection = connect(wire, b"request")
    peer.expect(SYN, data=b"request")
    peer.send(RST | ACK, seq=0, ack=8)
    assert wire.take_events() == [Closed(connection, ConnectionEnd.REFUSED)]


def test_more_than_was_sent_is_not_acknowledged(wire: Wire, peer: Peer) -> None:
    """RFC 9293 §3.10.7.3 first: SEG.ACK > SND.NXT, the data of the SYN counted."""
    prime(wire)
    connection = connect(wire, b"request")
    peer.expect(SYN)
    peer.send(SYN | ACK, ack=9, options=[Mss(1000)])
    peer.expect(RST)
    assert not connection.established


def test_simultaneous_open_takes_no_syn_data(wire: Wire, peer: Peer) -> None:
    """RFC 9293 figure 7 with §4.2.2: the crossing SYN acknowledges nothing."""
    prime(wire)
    connection = connect(wire, b"request")
    peer.expect(SYN, data=b"request")
    peer.send(SYN, seq=0, options=[Mss(1000)])
    peer.expect(SYN | ACK, seq=0, ack=1, length=0)
    peer.send(ACK, seq=1, ack=1)
    assert connection.established
    peer.expect(ACK, seq=1, data=b"request")


def test_a_full_buffer_becomes_writable() -> None:
    """The bytes a SYN carried make room, and the application is told."""
    wire = Wire(mptcp=False, nodelay=True, send_buffer=4096)
    peer = Peer(wire)
    prime(wire, mss=1460)
    connection = connect(wire, bytes(1400))
    assert connection.send(bytes(8000)) == 4096 - 1400
    syn = peer.expect(SYN)
    peer.send(SYN | ACK, ack=1 + len(syn.data), options=[Mss(1460)])
    peer.drain()
    peer.send(ACK)
    assert Writable in kinds(wire)


def test_data_without_fast_open(wire: Wire, peer: Peer) -> None:
    """`data` alone only saves a call: RFC 9293 §3.10.2, queued until the handshake is over."""
    connection = wire.stack.connect("10.0.0.2", 80, data=b"first")
    connection.send(b" second")
    peer.expect(SYN, length=0, options=lacks(FastOpen))
    peer.send(SYN | ACK, ack=1, options=[Mss(1000)])
    assert b"".join(seen.data for seen in peer.drain()) == b"first second"
    with pytest.raises(ValueError, match="send buffer"):
        wire.stack.connect("10.0.0.2", 80, data=bytes(wire.stack.config.send_buffer + 1))


def test_no_room_even_without_timestamps(wire: Wire, peer: Peer) -> None:
    """§4.1.1: the option is limited by the remaining space: without any it is left out."""
    peer.handshake(timestamps=True)
    subflow = peer.subflow()
    subflow.fast_open = ServerFastOpen(bytes(16))
    options = [mss_option(1460), SACK_PERMITTED, bytes(18)]
    assert add_fast_open(subflow, options, True) == options
    assert subflow.ts_ok
    assert add_fast_open(subflow, options, True) == options  # nor is it tried again


def test_no_room_for_the_option() -> None:
    """RFC 8684 appendix B.1: a cookie of 16 bytes fits beside TCP's options when they share words
    (RFC 7323 appendix A), and beside MP_CAPABLE it costs the timestamps."""
    wire = Wire(mptcp=False)
    prime(wire, cookie=bytes(range(16)))
    peer = Peer(wire)
    connect(wire, b"x")
    syn = peer.expect(SYN, data=b"x", options=has(FastOpen(bytes(range(16))), Timestamps))
    assert len(syn.option_bytes) <= 40
    wire = Wire()
    prime(wire, cookie=bytes(range(16)))
    peer = Peer(wire)
    connect(wire, b"x")
    peer.expect(SYN, data=b"x", options=lacks(Timestamps))


# -- the cache (§4.1.3) ----------------------------------------------------------------------------


def test_the_cache_is_bounded() -> None:
    """§4.1.3: least recently used first; design rule 6."""
    cache = CookieCache(2, 1)
    for name in (b"a", b"b"):
        cache.learn(name, name * 4, 1000)
    assert cache.look_up(b"a", 0) == (b"aaaa", 1000)
    cache.learn(b"c", b"cccc", 1000)
    assert len(cache) == 2
    assert cache.look_up(b"b", 0) == (b"", 0)
    assert cache.look_up(b"a", 0) == (b"aaaa", 1000)
    cache.failed(b"d", 0)
    assert cache.look_up(b"c", 0) == (b"", 0)
    assert cache.look_up(b"d", 0) is None
    nothing = CookieCache(0, 1)
    nothing.learn(b"a", b"aaaa", 1000)
    assert len(nothing) == 0


def test_failures_double_the_wait() -> None:
    """§4.1.3.1: the age of a negative entry grows with failures in a row, up to 64 times."""
    cache = CookieCache(4, 10)
    cache.learn(b"a", b"aaaa", 1000)
    now = 0
    for wait in (10, 20, 40, 80, 160, 320, 640, 640):
        cache.failed(b"a", now)
        assert cache.look_up(b"a", now + wait - 1) is None
        now += wait
        assert cache.look_up(b"a", now) == (b"aaaa", 1000)
    cache.worked(b"a")
    cache.failed(b"a", now)
    assert cache.look_up(b"a", now + 10) == (b"aaaa", 1000)


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


def test_a_cookie_without_data(server: Wire) -> None:
    """§4.2.2: a good cookie alone lets the server speak first."""
    peer = fast(server, data=b"")
    connection = only_event(server, Accepted).connection
    connection.send(b"220 ready")
    peer.expect(SYN | ACK, ack=1)
    peer.expect(ACK, seq=1, data=b"220 ready")


@pytest.mark.parametrize("cookie", [bytes(8), b"1234", bytes(16)])
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
