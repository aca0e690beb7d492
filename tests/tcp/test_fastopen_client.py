"""TCP Fast Open, the client, in plain TCP: RFC 7413 (sections are that RFC's)."""

from __future__ import annotations

import pytest

from mptcp.errors import ConnectionEnd
from mptcp.events import (
    Closed,
    Connected,
    Writable,
)
from mptcp.tcp.fastopen import CookieCache, ServerFastOpen, add_fast_open
from mptcp.wire.icmp import IcmpKind, unreachable
from mptcp.wire.tcp import ACK, RST, SACK_PERMITTED, SYN, mss_option
from tests.options import Emits, FastOpen, Mss, Timestamps, has, lacks
from tests.peer import Peer, Wire, seconds
from tests.tcp.fast_open import COOKIE, connect, kinds, prime

# -- the client (§4.2) ---------------------------------------------------------------------------


@pytest.mark.mib("TcpExtTCPFastOpenCookieReqd")
def test_a_cookie_is_asked_for(wire: Wire, peer: Peer) -> None:
    """§4.2.1 step 1: a SYN with an empty option and no data; the data comes after."""
    connection = connect(wire, b"hello")
    peer.expect(SYN, seq=0, length=0, options=has(FastOpen(b"")))
    peer.send(SYN | ACK, ack=1, options=[Mss(1000), FastOpen(COOKIE)])
    peer.expect(ACK, seq=1, data=b"hello", options=lacks(FastOpen))
    assert kinds(wire) == [Connected]
    assert connection.established
    assert wire.stack.counters["TcpExtTCPFastOpenCookieReqd"] == 1


@pytest.mark.mib("TcpExtTCPFastOpenActive")
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


@pytest.mark.mib("TcpExtTCPFastOpenBlackhole")
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


@pytest.mark.mib("TcpExtTCPFastOpenActiveFail")
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
