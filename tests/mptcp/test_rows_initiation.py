"""The checklist's rows of connection initiation that have no test elsewhere: RFC 8684 §3, §3.1."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from mptcp import keys
from mptcp.addressing import parse_address, parse_prefix
from mptcp.config import Config
from mptcp.errors import FallbackReason
from mptcp.events import FellBack
from mptcp.stack import Stack
from mptcp.tcp.host import Interface
from mptcp.wire.dss import Dss
from mptcp.wire.mptcp_options import (
    AddAddr,
    MpCapable,
    MpFail,
    MpFastclose,
    MpJoinSyn,
    MpPrio,
    RemoveAddr,
)
from mptcp.wire.tcp import ACK, RST, SYN
from tests.options import Emits, Mss, SackPermitted, has, lacks
from tests.peer import PEER_KEY, Peer, Wire, ms, seconds

NO_MPTCP = lacks(MpCapable, Dss)
SERVER = parse_address("10.0.0.2")


def signals(local_key: bytes) -> list[Emits]:
    """One of each signal that would change something, with every secret right."""
    address = parse_address("10.0.1.2")
    mac = keys.add_addr_hmac(PEER_KEY, local_key, 3, address, None)
    return [
        MpFastclose(local_key),
        MpFail(1),
        MpPrio(True),
        AddAddr(3, address, None, mac),
        RemoveAddr((0,)),
    ]


@pytest.mark.row("I1")
@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize(
    ("seq", "ack"),
    [(10_000_000, None), (-10, None), (None, 5_000_000), (None, -100_000_000)],
    ids=["above the window", "below it", "ack of the unsent", "ack too old"],
)
def test_signals_outside_the_window(number: int, seq: int | None, ack: int | None) -> None:
    """§3, RFC 5961 §5.2: what a segment says counts only if its numbers are acceptable.

    A segment below the window is answered with an ACK, no more.
    """
    wire = Wire(nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True)
    wire.advance(seconds(1))
    peer.drain()
    option = signals(connection.local_key)[number]
    peer.send(ACK, seq=seq, ack=ack, options=[peer.dss(data_ack=1), option])
    assert connection.ended is None
    assert not connection.fallback
    assert not peer.subflow().backup
    assert [subflow.remote for subflow in connection.subflows] == [SERVER]
    assert connection.paths.manager.table()[0].remote_id == 0
    for name in ("MPFastcloseRx", "MPFailRx", "MPPrioRx", "AddAddr", "RmAddr"):
        assert f"MPTcpExt{name}" not in wire.stack.counters
    assert not any(seen.flags & RST for seen in peer.drain())


@pytest.mark.row("I1")
def test_fastclose_on_a_reset_that_is_challenged(wire: Wire, peer: Peer) -> None:
    """RFC 5961 §3.2: a RST in the window but not at its edge is challenged, its options too."""
    connection = peer.handshake(mptcp=True)
    peer.send(RST | ACK, seq=100, options=[MpFastclose(connection.local_key)])
    assert connection.ended is None
    peer.expect(ACK, ack=1)


@pytest.mark.row("I2")
@pytest.mark.parametrize("signal", [True, False])
def test_duplicate_acks_with_a_signal(wire: Wire, peer: Peer, signal: bool) -> None:
    """§3, §4: three duplicate ACKs that carry an MPTCP option are no loss; three without are."""
    connection = peer.handshake(mptcp=True, sack=False, rtt=ms(50))
    connection.send(bytes(1400))
    peer.drain()
    peer.send(ACK)
    connection.send(bytes(14_000))
    assert len(peer.drain()) == 10
    data_ack = peer.dss(data_ack=1401)
    options: list[Emits] = [data_ack, MpPrio(False)] if signal else [data_ack]
    for _ in range(4):
        peer.send(ACK, ack=1401, options=options)
    again = [seen for seen in peer.drain() if seen.data]
    assert bool(again) is not signal


@pytest.mark.row("I4")
def test_a_key_whose_token_is_taken_is_not_used() -> None:
    """§3.1: a token identifies one connection of the host: at a collision another key is made."""
    repeated = [b"12345678", b"12345678", b"abcdefgh"]
    spare = random.Random(1)

    def entropy(count: int) -> bytes:
        return repeated.pop(0) if count == 8 else spare.randbytes(count)

    stack = Stack(Config(), entropy)
    stack.interface_up(0, Interface(1, "a", addresses=[parse_prefix("10.0.0.1/24")]))
    first = stack.connect("10.0.0.2", 80)
    second = stack.connect("10.0.0.2", 80)
    assert (first.local_key, second.local_key) == (b"12345678", b"abcdefgh")
    assert stack.tokens == {first.token: first, second.token: second}


@pytest.mark.row("I9")
@pytest.mark.parametrize("wanted", [True, False])
def test_the_administrator_decides_about_checksums(wanted: bool) -> None:
    """§3.1: the A bit says what the configuration says, in the SYN and in the SYN/ACK."""
    wire = Wire(checksum=wanted)
    peer = Peer(wire)
    wire.stack.connect("10.0.0.2", 80)
    assert peer.expect(SYN).option(MpCapable).checksum_required is wanted
    wire.stack.listen(5000)
    caller = Peer(wire, port=40000, local_port=5000)
    caller.send(SYN, options=[Mss(1460), MpCapable()])
    assert caller.expect(SYN | ACK).option(MpCapable).checksum_required is wanted


@pytest.mark.row("I18")
@pytest.mark.parametrize("late", [False, True], ids=["third ACK", "with data"])
def test_a_key_that_is_not_ours_ends_mptcp(wire: Wire, caller: Peer, late: bool) -> None:
    """§3.1: the third ACK brings back another key than the one we sent: plain TCP, no options."""
    caller.send(SYN, options=[Mss(1460), MpCapable()])
    caller.expect(SYN | ACK, options=has(MpCapable))
    data = b"hello" if late else b""
    wrong = MpCapable(PEER_KEY, b"\x01" * 8, len(data) or None)
    caller.send(ACK, data=data, options=[wrong])
    connection = caller.subflow().meta
    assert connection.fallback_reason is FallbackReason.THIRD_ACK_WITHOUT_OPTION
    assert connection.recv() == data
    connection.send(b"plain")
    caller.drain()
    caller.send(ACK, data=b"!")
    for seen in caller.drain():
        assert NO_MPTCP(seen.options)
    join = caller.beside(port=40001, local_port=5000)
    join.send(SYN, options=[Mss(1400), MpJoinSyn(False, 1, connection.token, b"abcd")])
    join.expect(RST | ACK)


@pytest.mark.row("I16")
@pytest.mark.mib("MPTcpExtSimultConnectFallback")
def test_simultaneous_open_is_plain_tcp(wire: Wire, peer: Peer) -> None:
    """§3.1 has no form in which crossing SYNs could exchange keys: no option from there on."""
    connection = wire.stack.connect("10.0.0.2", 80)
    peer.expect(SYN, options=has(MpCapable))
    peer.send(SYN, options=[Mss(1460), MpCapable()])
    peer.expect(SYN | ACK, ack=1, options=NO_MPTCP)
    peer.send(SYN | ACK, seq=0, options=[Mss(1460)])
    assert connection.established
    assert connection.fallback_reason is FallbackReason.SIMULTANEOUS_OPEN
    assert wire.stack.counters["MPTcpExtSimultConnectFallback"] == 1


# -- destinations where the option is lost (I17) --------------------------------------------------


def swallowed(wire: Wire, port: int) -> None:
    """A connection whose SYNs with MP_CAPABLE vanish, while the plain one is answered."""
    peer = Peer(wire, port=port)
    wire.stack.connect("10.0.0.2", port)
    while True:
        seen = peer.expect(SYN, within=seconds(60))
        if NO_MPTCP(seen.options):
            break
    peer.send(SYN | ACK, options=[Mss(1460), SackPermitted()])
    peer.expect(ACK, ack=1)


def offers(wire: Wire, port: int) -> bool:
    """Whether a new connection's first SYN carries MP_CAPABLE."""
    peer = Peer(wire, port=port)
    wire.stack.connect("10.0.0.2", port)
    seen = peer.expect(SYN)
    peer.send(RST | ACK, ack=1)
    return has(MpCapable)(seen.options)


@pytest.mark.row("I17")
@pytest.mark.mib("MPTcpExtBlackhole", "MPTcpExtMPCapableSYNTXDisabled")
def test_a_black_hole_is_remembered_and_asked_again() -> None:
    """§3.9.3: the next connections there begin as plain TCP, for an hour; then one tries again, and
    the time doubles at the next failure. Another destination is not concerned."""
    wire = Wire(nodelay=True)
    swallowed(wire, 81)
    wire.take_events()
    assert not offers(wire, 82)
    (event,) = [e for e in wire.take_events() if isinstance(e, FellBack)]
    assert event.reason is FallbackReason.BLACKHOLE
    assert wire.stack.counters["MPTcpExtMPCapableSYNTXDisabled"] == 1
    other = Peer(wire, address="10.0.0.3", port=80)
    wire.stack.connect("10.0.0.3", 80)
    other.expect(SYN, options=has(MpCapable))
    (entry,) = wire.stack.blackholes.table()
    assert (entry.address, entry.failures) == (SERVER, 1)
    assert entry.until - entry.since == seconds(3600)
    wire.advance(entry.until - wire.zero)
    swallowed(wire, 83)
    (entry,) = wire.stack.blackholes.table()
    assert (entry.failures, entry.until - entry.since) == (2, seconds(7200))
    assert wire.stack.counters["MPTcpExtBlackhole"] == 2


def forgotten_by_success(wire: Wire) -> None:
    """After the hour MPTCP gets through."""
    (entry,) = wire.stack.blackholes.table()
    wire.advance(entry.until - wire.zero)
    Peer(wire, port=90).handshake(mptcp=True)


def forgotten_by_hand(wire: Wire) -> None:
    """The administrator clears the address."""
    assert wire.stack.blackholes.clear(SERVER) == 1
    assert wire.stack.blackholes.clear(SERVER) == 0


def forgotten_with_all(wire: Wire) -> None:
    """The administrator clears everything."""
    assert wire.stack.blackholes.clear() == 1


@pytest.mark.row("I17")
@pytest.mark.parametrize("way", [forgotten_by_success, forgotten_by_hand, forgotten_with_all])
def test_a_black_hole_is_forgotten(way: Callable[[Wire], None]) -> None:
    """§3.9.3: how long is policy; success ends it, and so does whoever is in charge."""
    wire = Wire(nodelay=True)
    swallowed(wire, 81)
    way(wire)
    assert wire.stack.blackholes.table() == []
    assert offers(wire, 91)


@pytest.mark.row("I17")
def test_no_black_hole_without_proof() -> None:
    """§3.9.3: a host that answers nothing at all, or whose late answer has the option, is none."""
    wire = Wire(nodelay=True)
    peer = Peer(wire)
    wire.stack.connect("10.0.0.2", 80)
    wire.advance(seconds(600))
    assert peer.drain()
    assert wire.stack.blackholes.table() == []
    late = Peer(wire, port=81)
    wire.stack.connect("10.0.0.2", 81)
    while has(MpCapable)(late.expect(SYN, within=seconds(60)).options):
        pass
    late.send(SYN | ACK, options=[Mss(1460), MpCapable(PEER_KEY)])
    late.expect(ACK, options=NO_MPTCP)
    assert wire.stack.blackholes.table() == []


@pytest.mark.row("I17")
def test_black_holes_are_bounded() -> None:
    """The oldest failure gives way, and the time has a limit of 64 times the first."""
    wire = Wire(blackhole_entries=2)
    holes = wire.stack.blackholes
    for host in (b"aaaa", b"bbbb", b"cccc"):
        holes.failed(host, 0)
    assert [entry.address for entry in holes.table()] == [b"bbbb", b"cccc"]
    for _ in range(40):
        holes.failed(b"cccc", 0)
    assert holes.table()[-1].until == 64 * seconds(3600)
    wire = Wire(blackhole_timeout_us=0)
    wire.stack.blackholes.failed(b"aaaa", 0)
    assert wire.stack.blackholes.table() == []


# -- servers that keep no state (I5) --------------------------------------------------------------


def cookie_server(**changes: object) -> tuple[Wire, Peer]:
    """A listener that answers every SYN without keeping it, and a client."""
    wire = Wire(nodelay=True, syn_cookies="always", **changes)  # type: ignore[arg-type]
    wire.stack.listen(5000)
    return wire, Peer(wire, port=40000, local_port=5000)


@pytest.mark.row("I5")
@pytest.mark.parametrize("checksum", [False, True])
def test_mptcp_through_a_syn_cookie(checksum: bool) -> None:
    """§3.1: nothing is kept of the SYN; the third ACK brings both keys, and the server knows its
    own again. Checksums, data and the token are as with any other connection."""
    wire, peer = cookie_server()
    connection = peer.handshake(
        active=False,
        mptcp=True,
        timestamps=True,
        wscale=7,
        confirm=False,
        capable=MpCapable(checksum_required=checksum),
    )
    assert (connection.fallback, connection.checksum) == (False, checksum)
    assert connection.local_key == peer.data.stack_key
    assert wire.stack.tokens == {keys.token(peer.data.stack_key): connection}
    if not checksum:
        hello = MpCapable(PEER_KEY, connection.local_key, 5)
        peer.send(ACK, data=b"hello", options=[hello])
        assert connection.recv() == b"hello"
        connection.send(b"welcome")
        assert [seen.data for seen in peer.drain() if seen.data] == [b"welcome"]


@pytest.mark.row("I5")
def test_a_cookie_whose_third_ack_got_lost() -> None:
    """§3.1: the first data brings the keys again; a DSS without them makes no connection."""
    wire, peer = cookie_server()
    peer.send(SYN, options=[Mss(1400), MpCapable()])
    key = peer.expect(SYN | ACK).option(MpCapable).sender_key
    assert wire.stack.metas == set()
    peer.send(ACK, seq=1, data=b"hello", options=[peer.dss(dsn=1, ssn=1, length=5)])
    assert wire.stack.metas == set()
    peer.expect_nothing()
    peer.send(ACK, seq=1, data=b"hello", options=[MpCapable(PEER_KEY, key, 5)])
    (connection,) = wire.stack.metas
    assert not connection.fallback
    assert connection.recv() == b"hello"


@pytest.mark.row("I5", "I18")
def test_a_cookie_with_another_key() -> None:
    """§3.1: a key that was not made here is not taken: plain TCP."""
    wire, peer = cookie_server()
    peer.send(SYN, options=[Mss(1400), MpCapable()])
    peer.expect(SYN | ACK, options=has(MpCapable))
    peer.send(ACK, options=[MpCapable(PEER_KEY, b"guessed!")])
    (connection,) = wire.stack.metas
    assert connection.fallback_reason is FallbackReason.THIRD_ACK_WITHOUT_OPTION


@pytest.mark.row("I5")
@pytest.mark.mib("MPTcpExtMPFallbackTokenInit")
@pytest.mark.parametrize("when", ["at the SYN", "at the ACK"])
def test_a_cookie_whose_token_is_taken(when: str) -> None:
    """§3.1: a stateless server that has no unique key for the client does not answer MP_CAPABLE; if
    the token is taken while the key is under way the connection is plain TCP."""
    wire, peer = cookie_server()
    peer.send(SYN, options=[Mss(1400), MpCapable()])
    key = peer.expect(SYN | ACK).option(MpCapable).sender_key
    other = Peer(wire, port=40001, local_port=5000)
    wire.stack.tokens[keys.token(key)] = other.handshake(active=False, mptcp=True)
    if when == "at the SYN":
        peer.send(SYN, seq=0, options=[Mss(1400), MpCapable()])
        peer.expect(SYN | ACK, options=NO_MPTCP)
        assert wire.stack.counters["MPTcpExtMPFallbackTokenInit"] == 1
    else:
        peer.send(ACK, options=[MpCapable(PEER_KEY, key)])
        assert peer.subflow().meta.fallback_reason is FallbackReason.TOKEN_TAKEN


@pytest.mark.row("I5")
def test_cookies_give_different_keys() -> None:
    """§3.1: keys are hard to guess: another flow, client or host has another one."""
    seen = set()
    for seed in (1, 2):
        wire = Wire(seed=seed, syn_cookies="always")
        wire.stack.listen(5000)
        for port in (40000, 40001):
            for isn in (100, 200):
                peer = Peer(wire, port=port, local_port=5000, isn=isn)
                peer.send(SYN, options=[Mss(1400), MpCapable()])
                seen.add(peer.expect(SYN | ACK).option(MpCapable).sender_key)
                wire.peers.clear()
    assert len(seen) == 8


@pytest.mark.row("I11")
@pytest.mark.parametrize("allowed", [True, False])
def test_the_c_flag_is_sent_as_configured(allowed: bool) -> None:
    """§3.1: C=1 asks that no subflow come to this address and port; from a cookie as well."""
    for cookies in ("never", "always"):
        wire = Wire(allow_join_initial_addr_port=allowed, syn_cookies=cookies)
        peer = Peer(wire)
        wire.stack.connect("10.0.0.2", 80)
        assert peer.expect(SYN).option(MpCapable).no_join_initial is not allowed
        wire.stack.listen(5000)
        caller = Peer(wire, port=40000, local_port=5000)
        caller.send(SYN, options=[Mss(1460), MpCapable()])
        assert caller.expect(SYN | ACK).option(MpCapable).no_join_initial is not allowed
