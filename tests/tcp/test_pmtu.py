"""Path MTU discovery by ICMP (RFC 1191, RFC 8201, RFC 5927), its cache, and the interface's MTU."""

from __future__ import annotations

from typing import Any

import pytest

from mptcp.meta_socket import MetaSocket
from mptcp.tcp.host import Transmit
from mptcp.tcp.known_mtus import PLATEAUS, RAISE_US, PathMtuCache, plateau_below
from mptcp.wire.tcp import ACK, FIN, SYN
from tests.options import Mss
from tests.peer import Peer, Seen, Wire, ms, seconds
from tests.tcp.icmp import too_big
from tests.tcp.path_mtu import MSS, made, made6, next_probe, sizes

# -- ICMP ----------------------------------------------------------------------------------------


def test_too_big_resends_all_that_was_too_big_and_reduces_no_window() -> None:
    """RFC 1191 §6.4: smaller segments at once; lost that way is not lost to congestion."""
    peer = made()
    connection = peer.handshake(mss=MSS, rtt=ms(100))
    connection.send(bytes(20 * MSS))
    sent = peer.drain()
    assert sizes(sent) == [1500] * 10
    cc = peer.subflow().cc
    before = (cc.cwnd, cc.ssthresh)
    peer.wire.inject(too_big(peer, sent[0], 1400))
    resent = peer.drain()
    assert (cc.cwnd, cc.ssthresh) == before
    assert max(sizes(resent)) == 1400
    assert resent[0].seq == 1
    assert sum(len(seen.data) for seen in resent) == 10 * MSS
    for seen in sent[1:]:
        peer.wire.inject(too_big(peer, seen, 1400))
    peer.expect_nothing()
    assert peer.wire.stack.counters["TcpPathMtuReduced"] == 1


def test_pieces_of_what_was_too_big_keep_their_mapping() -> None:
    """RFC 8684 §3.3.1: what is cut anew carries the mapping that was declared for it."""
    wire = Wire(nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True)
    connection.send(b"x")
    peer.expect()
    peer.send(ACK)
    connection.send(bytes(1400))
    seen = peer.expect(length=1400)
    wire.inject(too_big(peer, seen, 1000))
    resent = peer.drain()
    assert len(resent) == 2
    for piece in resent:
        assert piece.dss is not None
        assert seen.dss is not None
        mapping = (seen.dss.dsn, seen.dss.ssn, seen.dss.length)
        assert (piece.dss.dsn, piece.dss.ssn, piece.dss.length) == mapping
    assert max(sizes(resent)) <= 1000


def test_too_big_with_offload() -> None:
    """The gso_size follows, so that the device cuts what fits (RFC 1191 §6.4)."""
    peer = made(offload=True)
    connection = peer.handshake(mss=MSS, rtt=ms(1))
    connection.send(bytes(100 * MSS))
    first = peer.expect(seq=1)
    assert first.gso_size == MSS
    peer.drain()
    peer.wire.inject(too_big(peer, first, 1400))
    resent = peer.drain()
    assert {seen.gso_size for seen in resent if seen.gso_size} == {1360}
    assert resent[0].seq == 1


@pytest.mark.parametrize("told", [1500, 1600, 65535])
def test_too_big_never_raises(told: int) -> None:
    """RFC 1191 §3, RFC 8201 §4: the estimate is never raised by such a message."""
    peer = made()
    connection = peer.handshake(mss=MSS)
    connection.send(bytes(MSS))
    peer.wire.inject(too_big(peer, peer.expect(length=MSS), told))
    peer.expect_nothing()
    peer.send(ACK)
    connection.send(bytes(2 * MSS))
    assert sizes(peer.drain()) == [1500, 1500]
    assert peer.wire.stack.counters["TcpPathMtuIgnored"] == 1


def test_claim_that_the_quoted_packet_fits() -> None:
    """RFC 5927 §7.2: an MTU that the quoted packet does not exceed cannot be true."""
    peer = made()
    connection = peer.handshake(mss=MSS)
    connection.send(bytes(MSS))
    seen = peer.expect(length=MSS)
    peer.wire.inject(too_big(peer, seen, 1200, size=1200))
    peer.expect_nothing()
    peer.wire.inject(too_big(peer, seen, 1200, size=1201))
    assert sizes(peer.drain())[0] == 1200


@pytest.mark.parametrize("told", [68, 300, 551, 552])
def test_least_mtu_of_ipv4(told: int) -> None:
    """RFC 5927 §7.1 tells what a claimed 68 does; nothing below 552 is taken (as Linux)."""
    peer = made()
    connection = peer.handshake(mss=MSS)
    connection.send(bytes(MSS))
    peer.wire.inject(too_big(peer, peer.expect(length=MSS), told))
    assert max(sizes(peer.drain())) == 552


def test_least_mtu_of_ipv6() -> None:
    """RFC 8201 §4: a message that tells less than 1280 changes nothing; 1280 itself does."""
    peer = made6()
    connection = peer.handshake(mss=1440)
    connection.send(bytes(1440))
    seen = peer.expect(length=1440)
    peer.wire.inject(too_big(peer, seen, 1279))
    peer.expect_nothing()
    peer.wire.inject(too_big(peer, seen, 1280))
    assert max(sizes(peer.drain())) == 1280


@pytest.mark.parametrize(("size", "plateau"), [(1500, 1492), (1492, 1006), (1006, 552), (600, 552)])
def test_router_that_does_not_tell(size: int, plateau: int) -> None:
    """RFC 1191 §5, §7.1: the next plateau below the packet that was dropped."""
    peer = made(mtu=size)
    connection = peer.handshake(mss=MSS)
    connection.send(bytes(size - 40))
    peer.wire.inject(too_big(peer, peer.expect(length=size - 40), 0))
    assert max(sizes(peer.drain())) == plateau


def test_plateaus() -> None:
    """RFC 1191 §7: table 7-1 goes down; below its end there is nothing."""
    assert list(PLATEAUS) == sorted(PLATEAUS, reverse=True)
    assert plateau_below(70_000) == 65535
    assert plateau_below(552) == 552


@pytest.mark.parametrize("offset", [-5000, 1460, 200_000, 1 << 31])
def test_too_big_must_quote_what_is_in_flight(offset: int) -> None:
    """RFC 5927 §4.1: SND.UNA <= SEG.SEQ < SND.NXT, or the message is dropped and counted."""
    peer = made()
    connection = peer.handshake(mss=MSS)
    connection.send(bytes(MSS))
    seen = peer.expect(length=MSS)
    peer.wire.inject(too_big(peer, seen, 1200, offset=offset))
    peer.expect_nothing()
    peer.send(ACK)
    connection.send(bytes(MSS))
    peer.expect(length=MSS)
    assert peer.wire.stack.counters["TcpExtOutOfWindowIcmps"] == 1


def proven(**changes: Any) -> tuple[Peer, MetaSocket, Seen]:
    """A connection on which full-sized segments got through, and one more of them in flight."""
    peer = made(**changes)
    connection = peer.handshake(mss=MSS, rtt=ms(100))
    connection.send(bytes(MSS))
    peer.expect(length=MSS)
    peer.send(ACK, at=ms(100))
    connection.send(bytes(MSS))
    return peer, connection, peer.expect(length=MSS)


@pytest.mark.mib("TcpPathMtuPending")
def test_claim_against_experience_waits() -> None:
    """RFC 5927 §7.2: larger packets got through, so the claim waits; the ACK refutes it."""
    peer, connection, seen = proven()
    peer.wire.inject(too_big(peer, seen, 600))
    peer.expect_nothing()
    peer.send(ACK)
    connection.send(bytes(MSS))
    assert sizes(peer.drain()) == [1500]
    resent = peer.expect(within=seconds(3))
    assert resent.headers + len(resent.data) == 1500, "the refuted claim took effect later"
    counters = peer.wire.stack.counters
    assert (counters["TcpPathMtuPending"], counters["TcpPathMtuReduced"]) == (1, 0)


def test_claim_against_experience_is_believed_when_the_segment_times_out() -> None:
    """RFC 5927 §7.2: a real change of the path costs one time-out of the quoted segment."""
    peer, _, seen = proven()
    peer.wire.inject(too_big(peer, seen, 1400))
    peer.expect_nothing()
    first = peer.expect(seq=seen.seq, within=seconds(3))
    assert sizes([first, *peer.drain()])[0] == 1400
    assert peer.wire.stack.counters["TcpPathMtuReduced"] == 1


def test_second_smaller_claim_right_after_the_first() -> None:
    """RFC 1191 §6.4: two links on the way, each smaller than the last: both take effect at once."""
    peer = made()
    connection = peer.handshake(mss=MSS)
    connection.send(bytes(MSS))
    peer.wire.inject(too_big(peer, peer.expect(length=MSS), 1400))
    first = peer.drain()[0]
    peer.wire.inject(too_big(peer, first, 1300))
    assert sizes(peer.drain())[0] == 1300


@pytest.mark.mib("TcpPathMtuIgnored")
def test_too_big_about_a_syn() -> None:
    """A SYN is smaller than any MTU that is believed: the message is nonsense."""
    peer = made()
    peer.wire.stack.connect(peer.address, peer.port, local_addr=(peer.local, 4000))
    syn = peer.expect(SYN)
    peer.wire.inject(too_big(peer, syn, 576))
    peer.send(SYN | ACK, options=[Mss(MSS)])
    peer.expect(ACK)
    peer.subflow().meta.send(bytes(MSS))
    assert sizes(peer.drain()) == [1500]


def test_announced_mss_is_the_interfaces() -> None:
    """RFC 1191 §3.1: the MSS option speaks of what we receive, whatever our path's MTU is."""
    peer = made()
    connection = peer.handshake(mss=MSS)
    connection.send(bytes(MSS))
    peer.wire.inject(too_big(peer, peer.expect(length=MSS), 1200))
    peer.drain()
    other = Peer(peer.wire, port=81, local_port=4001)
    peer.wire.stack.connect(other.address, other.port, local_addr=(other.local, 4001))
    assert other.expect(SYN).option(Mss).value == 1460


# -- the cache -----------------------------------------------------------------------------------


def test_new_connections_know_the_path() -> None:
    """RFC 1191 §6.2: what one connection learned serves the next to the same destination."""
    peer = made()
    connection = peer.handshake(mss=MSS)
    connection.send(bytes(MSS))
    peer.wire.inject(too_big(peer, peer.expect(length=MSS), 1200))
    peer.drain()
    other = Peer(peer.wire, port=81, local_port=4001)
    other.handshake(mss=MSS).send(bytes(4000))
    assert max(sizes(other.drain())) == 1200
    elsewhere = Peer(peer.wire, address="10.0.0.3", local_port=4002)
    elsewhere.handshake(mss=MSS).send(bytes(4000))
    assert max(sizes(elsewhere.drain())) == 1500


def test_joined_subflow_knows_the_path() -> None:
    """RFC 1191 §6.2 for MP_JOIN: by source and destination, since each is a path of its own."""
    wire = Wire(nodelay=True, addresses=["10.0.0.1/24", "10.1.0.1/24"])
    peer = Peer(wire, port=80)
    connection = peer.handshake(mptcp=True)
    connection.send(bytes(1428))
    seen = peer.expect()
    wire.inject(too_big(peer, seen, 1100))
    assert max(sizes(peer.drain())) <= 1100
    cache = wire.stack.path_mtus
    assert cache.get(peer.local, peer.address, wire.now) == (1100, wire.now + RAISE_US)
    assert cache.get(bytes([10, 1, 0, 1]), peer.address, wire.now) is None


def test_cache_ages_and_is_bounded() -> None:
    """RFC 1191 §6.3: ten minutes; what strangers can make us store is limited."""
    cache = PathMtuCache(limit=3)
    for number in range(5):
        cache.put(b"here", bytes([number]), 1000 + number, now=number)
    assert len(cache) == 3
    assert cache.get(b"here", bytes([1]), 10) is None
    assert cache.get(b"here", bytes([4]), 10) == (1004, 4 + RAISE_US)
    cache.put(b"here", bytes([2]), 900, now=20)
    cache.put(b"here", bytes([5]), 900, now=20)
    assert cache.get(b"here", bytes([3]), 20) is None, "the entry refreshed last goes last"
    assert cache.get(b"here", bytes([2]), 20 + RAISE_US) is None
    assert len(cache) == 2
    cache.forget(b"here", bytes([5]))
    assert cache.get(b"here", bytes([5]), 21) is None


# -- the interface -------------------------------------------------------------------------------


@pytest.mark.mib("TcpPathMtuReduced")
def test_interface_mtu_shrinks() -> None:
    """What the interface no longer takes goes again in smaller segments (RFC 1191 §6.4)."""
    peer = made()
    connection = peer.handshake(mss=MSS)
    connection.send(bytes(3 * MSS))
    assert sizes(peer.drain()) == [1500] * 3
    stack = peer.wire.stack
    stack.mtu_changed(peer.wire.now, 1, 1300)
    resent = peer.drain()
    assert max(sizes(resent)) == 1300
    assert sum(len(seen.data) for seen in resent) == 3 * MSS
    other = Peer(peer.wire, port=81, local_port=4001)
    stack.connect(other.address, other.port, local_addr=(other.local, 4001))
    assert other.expect(SYN).option(Mss).value == 1260


def test_interface_mtu_grows() -> None:
    """RFC 4821 §7: a larger size is probed, up to what the peer announced."""
    peer = made(mtu=1300)
    connection = peer.handshake(mss=MSS, rtt=ms(100))
    connection.send(bytes(5 * MSS))
    assert max(sizes(peer.drain())) == 1300
    peer.wire.stack.mtu_changed(peer.wire.now, 1, 9000)
    peer.send(ACK, at=ms(100))
    probe, _ = next_probe(peer, connection)
    assert sizes([probe]) == [1500]
    peer.send(ACK)
    assert peer.subflow().snd.mss == MSS


@pytest.mark.parametrize("mtu", [67, 65536])
def test_interface_mtu_is_validated(mtu: int) -> None:
    """RFC 791 §3.2: every link carries 68 bytes."""
    with pytest.raises(ValueError, match="MTU"):
        made().wire.stack.mtu_changed(0, 1, mtu)


@pytest.mark.parametrize("family", [4, 6])
def test_every_ipv4_packet_has_df(family: int) -> None:
    """RFC 1191 §3: DF on whatever is sent, from SYN to FIN and RST."""
    peer = made() if family == 4 else made6()
    headers: list[bytes] = []

    def keep(transmit: Transmit) -> bool:
        headers.append(bytes(transmit.header[:8]))
        return False

    peer.wire.refuse = keep
    connection = peer.handshake(mss=1400)
    connection.send(bytes(5000))
    peer.send(ACK, data=bytes(100))
    peer.drain()
    connection.close()
    peer.send(ACK | FIN)
    peer.send(ACK, seq=90_000, ack=1)
    peer.wire.flush()
    assert len(headers) > 5
    if family == 4:
        assert all(header[6] & 0x40 for header in headers)
    else:
        assert {header[0] >> 4 for header in headers} == {6}
