"""SYN cookies: RFC 4987 §3.6, and what must survive without state (RFC 7323, RFC 2018)."""

from __future__ import annotations

import pytest

from mptcp.config import Config
from mptcp.events import Accepted
from mptcp.tcp.state import State
from mptcp.tcp.syncookies import (
    MSS_VALUES,
    PERIOD_US,
    SynCookies,
    decode_options,
    encode_options,
)
from mptcp.wire.mptcp_options import MpCapable
from mptcp.wire.tcp import ACK, CWR, ECE, FIN, RST, SYN
from tests.options import Mss, SackPermitted, Timestamps, WindowScale, has, lacks, only
from tests.peer import PEER_KEY, Peer, Wire, ms, seconds

FLOW = bytes(range(12))
MINUTE = PERIOD_US  # of the cookies' clock


def accepted(wire: Wire) -> list[Accepted]:
    return [event for event in wire.take_events() if isinstance(event, Accepted)]


@pytest.fixture
def always() -> Wire:
    """A stack that answers every SYN with a cookie."""
    wire = Wire(mptcp=False, nodelay=True, syn_cookies="always")
    wire.stack.listen(5000)
    return wire


# -- the number ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mss", [20, 88, 536, 537, 1219, 1220, 1459, 1460, 9000, 65535])
@pytest.mark.parametrize("irs", [0, 1, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_a_cookie_tells_the_mss(mss: int, irs: int) -> None:
    """RFC 4987 §3.6: the ISN encodes the MSS; never more than was announced (but the least)."""
    cookies = SynCookies(bytes(32))
    cookie = cookies.make(FLOW, irs, mss, 5 * MINUTE)
    found = cookies.check(FLOW, irs, cookie, 5 * MINUTE + 1)
    assert found == max([value for value in MSS_VALUES if value <= mss], default=MSS_VALUES[0])


def test_a_cookie_ages() -> None:
    """RFC 4987 §3.6: the counter bounds how long a cookie is good: this period and the next."""
    cookies = SynCookies(bytes(32))
    cookie = cookies.make(FLOW, 7, 1460, 10 * MINUTE)
    assert cookies.check(FLOW, 7, cookie, 12 * MINUTE - 1) == 1460
    assert cookies.check(FLOW, 7, cookie, 12 * MINUTE) is None
    # The counter's five bits come round after 32 periods; the MAC knows the whole counter.
    assert cookies.check(FLOW, 7, cookie, 42 * MINUTE) is None


def test_a_cookie_is_of_one_flow_and_one_host() -> None:
    """RFC 4987 §3.6: addresses, ports, the client's ISN and a secret are in the MAC."""
    cookies = SynCookies(bytes(32))
    cookie = cookies.make(FLOW, 7, 1460, 0)
    assert cookies.check(FLOW, 7, cookie, 0) == 1460
    assert cookies.check(FLOW[::-1], 7, cookie, 0) is None
    assert cookies.check(FLOW, 8, cookie + 1, 0) is None
    assert SynCookies(b"\1" * 32).check(FLOW, 7, cookie, 0) is None


def test_the_key_of_a_cookie() -> None:
    """RFC 8684 §3.1: the key that went with a cookie is found again as long as that is good; others
    of the flow, or of another flow, have another one."""
    cookies = SynCookies(bytes(32))
    cookie = cookies.make(FLOW, 7, 1460, 10 * MINUTE)
    key = cookies.key(FLOW, 7, cookie, 10 * MINUTE)
    later = SynCookies(bytes(32))
    assert later.key(FLOW, 7, cookie, 12 * MINUTE - 1) == key
    again = later.make(FLOW, 7, 1460, 11 * MINUTE)
    other_flow = later.make(FLOW[::-1], 7, 1460, 10 * MINUTE)
    keys = {
        key,
        later.key(FLOW, 7, again, 11 * MINUTE),
        later.key(FLOW[::-1], 7, other_flow, 10 * MINUTE),
        SynCookies(b"\1" * 32).key(FLOW, 7, cookie, 10 * MINUTE),
    }
    assert len(keys) == 4
    assert {len(each) for each in keys} == {8}


def test_few_numbers_are_cookies() -> None:
    """RFC 4987 §3.6: guessing: of all numbers that share a MAC only the right head is good."""
    cookies = SynCookies(bytes(32))
    cookie = cookies.make(FLOW, 0, 1460, 3 * MINUTE)
    tail = cookie & 0xFFFFFF
    good = [head for head in range(256) if cookies.check(FLOW, 0, head << 24 | tail, 3 * MINUTE)]
    assert {head >> 3 for head in good} == {3}  # the period; any of the eight MSS values
    for bit in range(24):
        assert cookies.check(FLOW, 0, cookie ^ 1 << bit, 3 * MINUTE) is None


def test_recently_sent() -> None:
    """Without a cookie under way an ACK cannot be one's: nothing is computed for strangers."""
    cookies = SynCookies(bytes(32))
    assert not cookies.recent(0)
    cookies.make(FLOW, 0, 1460, 1000)
    assert cookies.recent(1000 + 2 * MINUTE - 1)
    assert not cookies.recent(1000 + 2 * MINUTE)


@pytest.mark.parametrize("wscale", [None, 0, 7, 14])
@pytest.mark.parametrize("sack", [False, True])
@pytest.mark.parametrize("ecn", [False, True])
@pytest.mark.parametrize("clock", [64, 127, 128, 0xFFFF_FFFF])
def test_options_in_the_timestamp(wscale: int | None, sack: bool, ecn: bool, clock: int) -> None:
    """RFC 7323 §3: TSval is echoed, so it carries the options; it never runs ahead (§5.4)."""
    value = encode_options(clock, wscale, sack, ecn)
    assert decode_options(value) == (wscale, sack, ecn)
    assert 0 <= clock - value < 64


def test_options_in_a_timestamp_near_zero() -> None:
    """The clock wraps at 2^32 (RFC 7323 §5.2); so does what is taken from it."""
    value = encode_options(3, 7, True, True)
    assert decode_options(value) == (7, True, True)
    assert (3 - value) & 0xFFFFFFFF < 64


def test_the_setting_is_checked() -> None:
    with pytest.raises(ValueError, match="syn_cookies"):
        Config(syn_cookies="sometimes")


# -- on the wire -----------------------------------------------------------------------------------


@pytest.mark.mib("TcpExtSyncookiesSent")
def test_no_state_is_kept(always: Wire) -> None:
    """RFC 4987 §3.6: the SYN/ACK is sent once and all is forgotten; nothing is repeated."""
    peer = Peer(always, port=40000, local_port=5000)
    peer.send(SYN, options=[Mss(1400), SackPermitted(), WindowScale(2)])
    peer.expect(SYN | ACK, seq=0, ack=1, length=0, options=only(Mss(1460)))
    assert always.stack.connections == {}
    assert not always.stack.metas
    assert always.next_timer() is None
    peer.expect_nothing(until=seconds(60))
    assert always.stack.counters["TcpExtSyncookiesSent"] == 1


def test_the_ack_opens_the_connection(always: Wire) -> None:
    """RFC 4987 §3.6: from the ACK: the MSS of the SYN, rounded down, and the window unscaled."""
    peer = Peer(always, port=40000, local_port=5000)
    peer.send(SYN, options=[Mss(1430), SackPermitted(), WindowScale(2)])
    peer.expect(SYN | ACK, seq=0, ack=1)
    peer.send(ACK, seq=1, ack=1, window=9000, at=ms(50))
    (event,) = accepted(always)
    subflow = peer.subflow()
    assert subflow.state is State.ESTABLISHED
    assert (subflow.snd.mss, subflow.snd.wscale, subflow.snd.wnd) == (1400, 0, 9000)
    assert not subflow.snd.sack_ok
    assert subflow.srtt == 0  # when the SYN/ACK left is not known (RFC 6298 §3)
    event.connection.send(bytes(30000))
    assert [len(seen.data) for seen in peer.drain()] == [1400] * 6  # the peer's window
    assert always.stack.counters["TcpExtSyncookiesRecv"] == 1


def test_options_survive_in_the_timestamp(always: Wire) -> None:
    """RFC 7323 §2.2, §3.2, RFC 2018 §2: with timestamps, scale and SACK are agreed on as usual."""
    peer = Peer(always, port=40000, local_port=5000)
    peer.send(SYN, options=[Mss(1460), SackPermitted(), WindowScale(5), Timestamps(77, 0)])
    answer = peer.expect(
        SYN | ACK, ack=1, options=only(Mss(1460), SackPermitted(), WindowScale, Timestamps)
    )
    stamp = answer.option(Timestamps)
    assert stamp.ecr == 77
    peer.wscale = 5
    peer.send(ACK, seq=1, ack=1, window=100, options=[Timestamps(80, stamp.val)])
    (event,) = accepted(always)
    subflow = peer.subflow()
    assert (subflow.snd.wscale, subflow.snd.wnd, subflow.snd.sack_ok) == (5, 3200, True)
    assert subflow.ts_ok
    assert subflow.ts_recent == 80
    assert subflow.rcv_wscale == answer.option(WindowScale).shift
    event.connection.send(b"x")
    data = peer.expect(ACK, seq=1, data=b"x", options=has(Timestamps))
    assert (data.option(Timestamps).val - stamp.val) & 0xFFFFFFFF < 0x8000_0000  # PAWS passes


@pytest.mark.parametrize(
    ("config", "gone", "agreed"),
    [
        (Config(syn_cookies="always", timestamps=False), Timestamps, (False, False, False)),
        (Config(syn_cookies="always", sack=False), SackPermitted, (True, False, True)),
        (Config(syn_cookies="always", window_scaling=False), WindowScale, (True, True, False)),
    ],
    ids=["timestamps", "sack", "window-scaling"],
)
def test_what_is_off_is_not_agreed_to(
    config: Config, gone: type, agreed: tuple[bool, bool, bool]
) -> None:
    """RFC 7323 §2.2, §3.2, RFC 2018 §2: an option is answered only when it will be used."""
    wire = Wire(config=config)
    wire.stack.listen(5000)
    peer = Peer(wire, port=40000, local_port=5000)
    peer.send(SYN, options=[Mss(1460), SackPermitted(), WindowScale(5), Timestamps(77, 0)])
    answer = peer.expect(SYN | ACK, options=lacks(gone))
    stamps = [o for o in answer.options if isinstance(o, Timestamps)]
    peer.send(ACK, seq=1, ack=1, options=[Timestamps(78, s.val) for s in stamps])
    subflow = peer.subflow()
    assert (subflow.ts_ok, subflow.snd.sack_ok, subflow.wscale_ok) == agreed


def test_data_with_the_ack(always: Wire) -> None:
    """RFC 9293 §3.5: the ACK of the SYN/ACK may carry data; so may one that comes in its place."""
    peer = Peer(always, port=40000, local_port=5000)
    peer.send(SYN, options=[Mss(1400)])
    peer.expect(SYN | ACK)
    peer.send(ACK, seq=1, ack=1, data=b"hello")
    (event,) = accepted(always)
    assert event.connection.recv() == b"hello"
    peer.expect(ACK, ack=6, within=ms(500))
    peer.send(ACK | FIN)
    peer.expect(ACK, ack=7)
    assert event.connection.eof


@pytest.mark.parametrize(("seq", "ack"), [(1, 2), (2, 1), (0, 1), (1, 0x0800_0001)])
@pytest.mark.mib("TcpExtSyncookiesFailed")
def test_a_wrong_cookie_is_reset(always: Wire, seq: int, ack: int) -> None:
    """RFC 9293 §3.10.7.1: an ACK that is no cookie's is answered <SEQ=SEG.ACK><CTL=RST>."""
    peer = Peer(always, port=40000, local_port=5000)
    peer.send(SYN, options=[Mss(1400)])
    peer.expect(SYN | ACK)
    peer.send(ACK, seq=seq, ack=ack)
    assert peer.expect(RST).segment.seq == (peer.stack_isn + ack) & 0xFFFFFFFF
    assert accepted(always) == []
    assert always.stack.counters["TcpExtSyncookiesFailed"] == 1
    assert always.stack.connections == {}


def test_an_old_cookie_is_reset(always: Wire) -> None:
    """RFC 4987 §3.6: a cookie is good for one to two periods of 64 s."""
    peer = Peer(always, port=40000, local_port=5000)
    peer.send(SYN, options=[Mss(1400)])
    peer.expect(SYN | ACK)
    other = Peer(always, port=40001, local_port=5000)
    other.send(SYN, options=[Mss(1400)], at=seconds(100))
    other.expect(SYN | ACK)
    peer.send(ACK, seq=1, ack=1, at=seconds(130))
    peer.expect(RST)
    other.send(ACK, seq=1, ack=1)
    assert len(accepted(always)) == 1


def test_an_ack_without_a_cookie_under_way(wire: Wire) -> None:
    """RFC 9293 §3.10.7.1: with no cookie sent lately the ACK is answered as ever."""
    wire.stack.listen(5000)
    peer = Peer(wire, port=40000, local_port=5000)
    peer.send(ACK, seq=1, ack=1)
    peer.expect(RST)
    assert "TcpExtSyncookiesFailed" not in wire.stack.counters


@pytest.mark.mib("TcpExtTCPReqQFullDoCookies")
def test_a_full_backlog_sends_cookies() -> None:
    """RFC 4987 §3.6: only when the SYN queue is full; who is in it is served as before."""
    wire = Wire(mptcp=False, nodelay=True)
    listener = wire.stack.listen(5000, backlog=2)
    strangers = [Peer(wire, port=40000 + n, local_port=5000) for n in range(2)]
    for stranger in strangers:
        stranger.send(SYN, options=[Mss(1400)])
        stranger.expect(SYN | ACK)
    assert "TcpExtSyncookiesSent" not in wire.stack.counters
    late = Peer(wire, port=50000, local_port=5000)
    late.send(SYN, options=[Mss(1400)])
    late.expect(SYN | ACK)
    assert (len(listener.half_open), len(wire.stack.connections)) == (2, 2)
    late.send(ACK, seq=1, ack=1)
    strangers[0].send(ACK, seq=1, ack=1)
    assert len(accepted(wire)) == 2
    assert len(listener.half_open) == 1
    assert wire.stack.counters["TcpExtSyncookiesSent"] == 1


def test_a_flood_costs_nothing() -> None:
    """RFC 4987 §2: SYNs from forged addresses leave no state beyond the backlog."""
    wire = Wire(mptcp=False)
    listener = wire.stack.listen(5000, backlog=8)
    for port in range(1024, 1424):
        forged = Peer(wire, address="10.0.0.9", port=port, local_port=5000)
        forged.send(SYN, options=[Mss(1400)])
        wire.peers.remove(forged)
    assert len(listener.half_open) == len(wire.stack.connections) == len(wire.stack.metas) == 8
    assert wire.stack.counters["TcpExtSyncookiesSent"] == 392
    honest = Peer(wire, port=40000, local_port=5000)
    honest.handshake(active=False)
    assert len(accepted(wire)) == 1


@pytest.mark.mib("TcpExtListenOverflows")
def test_the_limit_of_connections_holds(always: Wire) -> None:
    """An ACK beyond `max_connections` is dropped; its repeat is taken when there is room."""
    wire = Wire(mptcp=False, syn_cookies="always", max_connections=1)
    wire.stack.listen(5000)
    peers = [Peer(wire, port=40000 + n, local_port=5000) for n in range(2)]
    for peer in peers:
        peer.send(SYN, options=[Mss(1400)])
        peer.expect(SYN | ACK)
    peers[0].send(ACK, seq=1, ack=1)
    (first,) = accepted(wire)
    peers[1].send(ACK, seq=1, ack=1, data=b"x")
    peers[1].expect_nothing()
    assert wire.stack.counters["TcpExtListenOverflows"] == 1
    first.connection.abort()
    peers[1].send(ACK, seq=1, ack=1, data=b"x")
    (second,) = accepted(wire)
    assert second.connection.recv() == b"x"


def test_a_closed_listener_takes_no_cookie(always: Wire) -> None:
    """RFC 9293 §3.10.7.1: nobody listens any more: RST."""
    peer = Peer(always, port=40000, local_port=5000)
    peer.send(SYN, options=[Mss(1400)])
    peer.expect(SYN | ACK)
    next(iter(always.stack.listeners.values())).close()
    peer.send(ACK, seq=1, ack=1)
    peer.expect(RST)


def test_a_cookie_of_plain_tcp() -> None:
    """RFC 8684 §3.1: with MPTCP off MP_CAPABLE is not answered, so the peer falls back."""
    wire = Wire(syn_cookies="always", nodelay=True, mptcp=False)
    wire.stack.listen(5000)
    peer = Peer(wire, port=40000, local_port=5000)
    peer.send(SYN, options=[Mss(1400), MpCapable()])
    peer.expect(SYN | ACK, options=lacks(MpCapable))
    peer.send(ACK, seq=1, ack=1, data=b"plain")
    (event,) = accepted(wire)
    assert event.connection.fallback
    assert event.connection.recv() == b"plain"
    event.connection.send(b"yes")
    peer.expect(ACK, ack=6, length=0)
    peer.expect(ACK, data=b"yes", options=lacks(MpCapable))


def test_a_client_connects_through_a_cookie() -> None:
    """MPTCP is offered, the SYN/ACK of a host without it makes it plain TCP, bytes arrive."""
    wire = Wire(nodelay=True)
    peer = Peer(wire)
    connection = wire.stack.connect("10.0.0.2", 80)
    peer.expect(SYN, options=has(MpCapable))
    cookie = SynCookies(PEER_KEY * 2).make(FLOW, peer.stack_isn, 1460, 0)
    peer.isn = cookie
    peer.send(SYN | ACK, seq=0, ack=1, options=[Mss(1460)])
    peer.expect(ACK, seq=1, ack=1)
    assert connection.fallback
    connection.send(b"x")
    assert peer.expect(ACK, seq=1, data=b"x").segment.ack == (cookie + 1) & 0xFFFFFFFF


@pytest.mark.mib("TcpExtSyncookiesRecv")
def test_ecn_through_a_cookie(always: Wire) -> None:
    """RFC 3168 §6.1.1: the agreement on ECN is in the timestamp too, and is not made without."""
    peer = Peer(always, port=40000, local_port=5000)
    peer.send(SYN | ECE | CWR, options=[Mss(1460), Timestamps(77, 0)])
    stamp = peer.expect(SYN | ACK | ECE).option(Timestamps)
    peer.send(ACK, seq=1, ack=1, options=[Timestamps(78, stamp.val)])
    assert peer.subflow().ecn.sends
    other = Peer(always, port=40001, local_port=5000)
    other.send(SYN | ECE | CWR, options=[Mss(1460)])
    other.expect(SYN | ACK)
    other.send(ACK, seq=1, ack=1)
    assert not other.subflow().ecn.sends


def test_ipv6() -> None:
    """RFC 9293 §3.7.1: the same over IPv6: our MSS is the MTU less 60, 1220 is assumed of none."""
    wire = Wire(addresses=["fd00::1/64"], mptcp=False, nodelay=True, syn_cookies="always")
    wire.stack.listen(5000)
    peer = Peer(wire, address="fd00::2", local="fd00::1", port=40000, local_port=5000)
    peer.send(SYN)
    peer.expect(SYN | ACK, ack=1, options=only(Mss(1440)))
    peer.send(ACK, seq=1, ack=1)
    (event,) = accepted(wire)
    event.connection.send(bytes(2000))
    assert [len(seen.data) for seen in peer.drain()] == [1220, 780]


def test_a_source_that_cannot_be(always: Wire) -> None:
    """RFC 1122 §4.2.3.10, §3.2.2: neither a cookie nor a RST goes to a multicast address."""
    peer = Peer(always, address="224.0.0.1", port=40000, local_port=5000)
    peer.send(SYN, options=[Mss(1400)])
    peer.send(ACK, seq=1, ack=1)
    peer.expect_nothing()
    assert "TcpExtSyncookiesSent" not in always.stack.counters
