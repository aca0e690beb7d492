"""Path MTU discovery: by ICMP (RFC 1191, RFC 8201, RFC 5927) and by probes (RFC 4821, RFC 8899)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mptcp.events import Accepted, Event, Readable
from mptcp.meta_socket import MetaSocket
from mptcp.sim.network import SimHost, Simulation
from mptcp.tcp.host import Transmit
from mptcp.tcp.known_mtus import PLATEAUS, RAISE_US, PathMtuCache, plateau_below
from mptcp.wire.icmp import packet_too_big
from mptcp.wire.ip import parse_ip
from mptcp.wire.tcp import ACK, FIN, SYN
from tests.options import Mss
from tests.peer import Peer, Seen, Wire, ms, seconds
from tests.tcp.icmp import ROUTER, ROUTER6, too_big

MSS = 1460


def made(**changes: Any) -> Peer:
    """A plain TCP stack and its peer; no tail loss probe comes between the time-outs."""
    settings: dict[str, Any] = {
        "nodelay": True,
        "congestion_control": "newreno",
        "rack_tlp": False,
        **changes,
    }
    return Peer(Wire(mptcp=False, **settings), local_port=4000)


def made6(**changes: Any) -> Peer:
    """The same over IPv6."""
    wire = Wire(addresses=["fd00::1/64"], mptcp=False, nodelay=True, **changes)
    return Peer(wire, address="fd00::2", local="fd00::1", local_port=4000)


def sizes(seen: list[Seen]) -> list[int]:
    """Packet sizes of the segments with data."""
    return [segment.headers + len(segment.data) for segment in seen if segment.data]


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


# -- probes, scripted ----------------------------------------------------------------------------


def black_hole(**changes: Any) -> tuple[Peer, MetaSocket, Seen]:
    """A connection whose full-sized segments time out until they are small."""
    peer = made(min_rto_us=seconds(1), **changes)
    connection = peer.handshake(mss=MSS, rtt=ms(100))
    connection.send(bytes(50 * MSS))
    assert sizes(peer.drain()) == [1500] * 10
    while True:
        seen = peer.expect(seq=1, within=seconds(20))
        if seen.headers + len(seen.data) < 1500:
            return peer, connection, seen
        assert seen.sent_at < seconds(10), "still sending full-sized segments"


def test_black_hole() -> None:
    """RFC 2923 §2.1, RFC 4821 §7.7: after R1 time-outs (RFC 1122 §4.2.3.5), smaller segments."""
    peer, _, seen = black_hole()
    assert seen.headers + len(seen.data) == 1064
    assert peer.wire.stack.counters["TcpMtuBlackHoles"] == 1
    # More than one second, doubled at each time-out (RFC 6298): the third is after 1.1 * 7.
    assert seconds(7) <= seen.sent_at <= seconds(8)


def test_black_hole_of_what_is_smaller_still() -> None:
    """RFC 4821 §7.7: if the base does not get through either, it falls again; no further."""
    peer, _, seen = black_hole()
    firsts = [seen]
    while len(firsts) < 6:
        seen = peer.expect(within=seconds(200))
        if seen.seq == 1:
            firsts.append(seen)
    assert sizes(firsts) == [1064, 1064, 1064, 552, 552, 552]


def test_black_hole_detection_can_be_off() -> None:
    """Linux's tcp_mtu_probing=0: the same size again and again."""
    peer = made(min_rto_us=seconds(1), mtu_probing="off")
    peer.handshake(mss=MSS).send(bytes(3 * MSS))
    peer.drain()
    for _ in range(5):
        resent = peer.expect(seq=1, within=seconds(60))
        assert sizes([resent]) == [1500]


def test_small_segments_that_time_out_are_no_black_hole() -> None:
    """RFC 4821 §7.7: the size is blamed only when what times out is large."""
    peer = made(min_rto_us=seconds(1))
    peer.handshake(mss=MSS).send(bytes(500))
    peer.drain()
    for _ in range(5):
        peer.expect(seq=1, length=500, within=seconds(60))
    assert peer.wire.stack.counters["TcpMtuBlackHoles"] == 0


def find_probe(peer: Peer, connection: MetaSocket) -> tuple[Seen, list[Seen]] | None:
    """Let everything be acknowledged and data flow until a probe comes; it and what came behind."""
    mss = peer.subflow().snd.mss
    for _ in range(60):
        connection.send(bytes(8 * MSS))
        sent = peer.drain()
        for number, seen in enumerate(sent):
            if len(seen.data) > mss:
                return seen, sent[number + 1 :]
        peer.send(ACK, at=peer.wire.time + ms(100))
    return None


def next_probe(peer: Peer, connection: MetaSocket) -> tuple[Seen, list[Seen]]:
    """The same; one must come."""
    found = find_probe(peer, connection)
    assert found is not None
    return found


def test_probe_that_arrives() -> None:
    """RFC 4821 §7.6.1: its size is adopted. The black hole is gone, so the first try is the top."""
    peer, connection, _ = black_hole()
    probe, _ = next_probe(peer, connection)
    assert sizes([probe]) == [1500]
    peer.send(ACK)
    assert peer.subflow().pmtu.mtu == 1500
    connection.send(bytes(30 * MSS))
    assert sizes(peer.drain())[0] == 1500
    assert peer.wire.stack.counters["TcpExtTCPMTUPSuccess"] == 1
    assert len(peer.wire.stack.path_mtus) == 0


def lose(peer: Peer, probe: Seen, behind: list[Seen]) -> list[Seen]:
    """SACK what came behind the probe; what the stack sends on that."""
    assert len(behind) >= 3, "RFC 4821 §7.4: data behind a probe shows its loss"
    peer.send(ACK, ack=probe.seq, options=[peer.sacked((probe.end, behind[-1].end))])
    resent = peer.drain()
    peer.send(ACK, ack=max(seen.end for seen in [*behind, *resent]))
    return resent


def test_probe_that_is_lost_is_no_congestion() -> None:
    """RFC 4821 §7.6.2: its data goes again in smaller segments, and the window stays."""
    peer, connection, _ = black_hole()
    probe, behind = next_probe(peer, connection)
    cc = peer.subflow().cc
    before = (cc.cwnd, cc.ssthresh)
    resent = [seen for seen in lose(peer, probe, behind) if seen.seq < probe.end]
    assert [seen.seq for seen in resent] == [probe.seq, probe.seq + 1024]
    assert sum(len(seen.data) for seen in resent) == len(probe.data)
    assert cc.cwnd >= before[0]
    assert cc.ssthresh == before[1]
    assert peer.wire.stack.counters["TcpExtTCPMTUPFail"] == 1
    assert peer.wire.stack.counters["TcpRetransTimeouts"] == 3


@pytest.mark.parametrize("offload", [False, True])
def test_probe_that_is_lost_with_rack_and_timestamps(offload: bool) -> None:
    """RFC 8985 §6.2 finds it, by time; RFC 4821 §7.6.2: no window is reduced for it."""
    peer = made(mtu_probing="on", offload=offload, rack_tlp=True)
    connection = peer.handshake(mss=MSS, rtt=ms(100), timestamps=True)
    connection.send(bytes(14_000))
    probe, *behind = [seen for seen in peer.drain() if seen.data]
    assert sizes([probe]) == [1500]
    cc = peer.subflow().cc
    before = (cc.cwnd, cc.ssthresh)
    peer.send(ACK, ack=1, options=[peer.sacked((probe.end, behind[-1].end))], at=ms(100))
    peer.wire.advance(ms(200))
    resent = [seen for seen in peer.drain() if len(seen.data) > 0 and seen.seq < probe.end]
    assert sum(len(seen.data) for seen in resent) == len(probe.data)
    assert max(seen.gso_size + 52 if seen.gso_size else sizes([seen])[0] for seen in resent) == 1064
    assert cc.cwnd >= before[0]
    assert cc.ssthresh == before[1]
    assert peer.wire.stack.counters["TcpExtTCPMTUPFail"] == 1


def test_tail_loss_probe_fits_beside_its_options() -> None:
    """RFC 8985 §7.3 with RFC 6691 §3: the probe of a chunk's tail is one segment of the size."""
    peer = made(rack_tlp=True, offload=True)
    connection = peer.handshake(mss=MSS, rtt=ms(10), timestamps=True)
    connection.send(bytes(10 * 1448))
    assert sum(len(seen.data) for seen in peer.drain()) == 10 * 1448
    probe = peer.expect(within=ms(300))
    assert (len(probe.data), probe.gso_size, probe.end) == (1448, 0, 1 + 10 * 1448)


def test_loss_beside_the_probe_is_congestion() -> None:
    """RFC 4821 §7.6.3: other losses in the same window reduce it as ever."""
    peer, connection, _ = black_hole()
    probe, behind = next_probe(peer, connection)
    cc = peer.subflow().cc
    before = cc.cwnd
    for last in range(2, len(behind) + 1):
        block = peer.sacked((behind[1].seq, behind[last - 1].end))
        peer.send(ACK, ack=probe.seq, options=[block])
    assert cc.ssthresh < before


def test_search_ends() -> None:
    """RFC 4821 §7.3: two losses of a size end it; the search closes in, then rests ten minutes."""
    limit = 1300
    peer, connection, _ = black_hole()
    tried: list[int] = []
    while (found := find_probe(peer, connection)) is not None:
        probe, behind = found
        tried.append(sizes([probe])[0])
        if tried[-1] > limit:
            lose(peer, probe, behind)
        else:
            peer.send(ACK)
    assert len(tried) < 20
    assert tried[:2] == [1500, 1500]
    assert limit - 8 <= peer.subflow().pmtu.mtu <= limit
    assert all(tried.count(size) == (2 if size > limit else 1) for size in tried)
    # RFC 1191 §6.3: after ten minutes the path is tried again.
    peer.send(ACK, at=peer.wire.time + RAISE_US)
    assert sizes([next_probe(peer, connection)[0]]) == [1500]


def test_probing_from_the_start() -> None:
    """`mtu_probing = "on"` (Linux: 2): from a base upward, without any loss before."""
    peer = made(mtu_probing="on")
    connection = peer.handshake(mss=MSS, rtt=ms(100))
    connection.send(bytes(30 * MSS))
    sent = sizes(peer.drain())
    assert sent[0] == 1500, "the first data is the first probe"
    assert set(sent[1:]) == {1064}


def test_probe_needs_data_behind_it() -> None:
    """RFC 4821 §7.4: a request of a few segments is not made slower by a probe."""
    peer = made(mtu_probing="on")
    peer.handshake(mss=MSS, rtt=ms(100)).send(bytes(2500))
    assert max(sizes(peer.drain())) == 1064


def test_probe_with_offload_is_one_packet() -> None:
    """RFC 4821 §7: a probe leaves whole, beside chunks that the device cuts."""
    peer = made(mtu_probing="on", offload=True)
    connection = peer.handshake(mss=MSS, rtt=ms(1))
    connection.send(bytes(60 * MSS))
    probe, *others = peer.drain()
    assert (len(probe.data), probe.gso_size) == (MSS, 0)
    assert {seen.gso_size for seen in others if seen.gso_size} == {1024}
    peer.send(ACK, ack=probe.end)
    connection.send(bytes(60 * MSS))
    assert {seen.gso_size for seen in peer.drain() if seen.gso_size} == {MSS}


def test_router_answers_a_probe() -> None:
    """RFC 4821 §7.6.2: the size it tells is the next to try; nothing falls, nothing waits."""
    peer = made(mtu_probing="on")
    connection = peer.handshake(mss=MSS, rtt=ms(100))
    connection.send(bytes(30 * MSS))
    probe, *_ = peer.drain()
    peer.wire.inject(too_big(peer, probe, 1300))
    resent = [seen for seen in peer.drain() if seen.seq < probe.end]
    assert max(sizes(resent)) == 1064
    assert sum(len(seen.data) for seen in resent) == MSS
    peer.send(ACK, at=ms(100))
    assert sizes([next_probe(peer, connection)[0]]) == [1300]


def test_time_out_with_a_probe_outstanding() -> None:
    """RFC 4821 §7.6.4: when everything is lost the probe proves nothing; it comes again later."""
    peer = made(mtu_probing="on", min_rto_us=seconds(1))
    connection = peer.handshake(mss=MSS, rtt=ms(100))
    connection.send(bytes(30 * MSS))
    assert sizes(peer.drain())[0] == 1500
    assert sizes([peer.expect(seq=1, within=seconds(3))]) == [1064]
    peer.send(ACK)
    assert peer.wire.stack.counters["TcpExtTCPMTUPFail"] == 0
    assert sizes([next_probe(peer, connection)[0]]) == [1500]


def test_without_probing_a_larger_size_is_simply_used_again() -> None:
    """RFC 1191 §6.3: ten minutes after a reduction the full size is tried."""
    peer = made(mtu_probing="off")
    connection = peer.handshake(mss=MSS)
    connection.send(bytes(MSS))
    peer.wire.inject(too_big(peer, peer.expect(length=MSS), 1200))
    peer.drain()
    peer.send(ACK, at=RAISE_US - ms(1))
    connection.send(bytes(5 * MSS))
    assert max(sizes(peer.drain())) == 1200
    peer.send(ACK, at=RAISE_US + ms(1))
    connection.send(bytes(5 * MSS))
    assert 1500 in sizes(peer.drain())


# -- the interface -------------------------------------------------------------------------------


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


# -- whole transfers -----------------------------------------------------------------------------


class Transfer:
    """Two stacks over a path that carries `limit` bytes; bigger packets vanish, or a router tells.

    Both send `size` bytes.
    """

    def __init__(
        self, size: int, limit: int, *, tells: bool, v6: bool = False, loss: float = 0.0, **how: Any
    ) -> None:
        queue = how.pop("queue_bytes", 0)
        offload = how.pop("offload", False)
        self.sim = Simulation(seed=7)
        config = {"nodelay": True, **how}
        self.hosts = [self.sim.host(name, **config) for name in ("a", "b")]
        self.limit = limit
        self.tells = tells
        self.too_big = 0
        self.sim.tap = self.tap
        self.sim.connect(
            self.hosts[0],
            "fd00::1/64" if v6 else "10.0.0.1/24",
            self.hosts[1],
            "fd00::2/64" if v6 else "10.0.0.2/24",
            rate_bps=20_000_000,
            delay_us=10_000,
            queue_bytes=queue,
            loss=loss,
            offload=offload,
        )
        self.size = size
        self.left = {host: size for host in self.hosts}
        self.got = {host: 0 for host in self.hosts}
        self.ends: dict[SimHost, MetaSocket] = {}
        for host in self.hosts:
            host.on_event = self.watcher(host)
        self.hosts[1].stack.listen(80)
        target = "fd00::2" if v6 else "10.0.0.2"
        self.ends[self.hosts[0]] = self.hosts[0].stack.connect(target, 80)

    def watcher(self, host: SimHost) -> Callable[[Event], None]:
        def on_event(event: Event) -> None:
            if isinstance(event, Accepted):
                self.ends[host] = event.connection
            elif isinstance(event, Readable):
                self.got[host] += len(event.connection.recv())
            connection = self.ends.get(host)
            if connection is not None and connection.established and self.left[host]:
                self.left[host] -= connection.send(bytes(min(self.left[host], 1 << 18)))
                connection.writable_wanted = True

        return on_event

    def tap(self, now: int, sender: SimHost, packet: bytes) -> bool:
        if len(packet) <= self.limit:
            return True
        self.too_big += 1
        if self.tells:
            router = ROUTER if parse_ip(memoryview(packet)).version == 4 else ROUTER6
            error = packet_too_big(memoryview(packet), self.limit, router)
            assert error is not None
            sender.stack.handle_packet(now, 1, memoryview(error))
        return False

    def done(self) -> bool:
        return all(got == self.size for got in self.got.values())

    def run(self, duration: int) -> int:
        """Both have all; the virtual time it took."""
        start = self.sim.now
        assert self.sim.run(duration, until=self.done), (self.got, self.too_big)
        return self.sim.now - start


@pytest.mark.parametrize("offload", [False, True], ids=["plain", "offload"])
@pytest.mark.parametrize("mptcp", [False, True], ids=["tcp", "mptcp"])
@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
def test_transfer_past_a_router_that_tells(offload: bool, mptcp: bool, v6: bool) -> None:
    """RFC 1191 §6.4, RFC 8201 §5.4: both directions go on without a time-out."""
    transfer = Transfer(400_000, 1300, tells=True, v6=v6, mptcp=mptcp, offload=offload)
    transfer.run(seconds(2))
    for host in transfer.hosts:
        assert host.stack.counters["TcpRetransTimeouts"] == 0
        assert host.stack.counters["TcpPathMtuReduced"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("offload", [False, True], ids=["plain", "offload"])
@pytest.mark.parametrize("mptcp", [False, True], ids=["tcp", "mptcp"])
@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
def test_transfer_through_a_black_hole(offload: bool, mptcp: bool, v6: bool) -> None:
    """RFC 4821 §7.7: both directions pass after R1; the search ends within 8 bytes of the limit."""
    transfer = Transfer(1_500_000, 1400, tells=False, v6=v6, mptcp=mptcp, offload=offload)
    transfer.run(seconds(12))
    for host in transfer.hosts:
        subflow = transfer.ends[host].subflows[0]
        assert 1392 <= subflow.pmtu.mtu <= 1400
        assert host.stack.counters["TcpMtuBlackHoles"] == 1
        assert host.stack.path_mtus.get(subflow.local, subflow.remote, host.stack.now) is not None


def test_black_hole_that_is_none() -> None:
    """An outage looks like one; afterwards the full size is back within a second (RFC 4821 §7)."""
    transfer = Transfer(6_000_000, 1500, tells=False, mptcp=False, queue_bytes=60_000)
    transfer.sim.run(ms(500))
    transfer.limit = 0
    transfer.sim.run(seconds(4))
    transfer.limit = 1500
    transfer.run(seconds(15))
    sender = transfer.hosts[0]
    assert sender.stack.counters["TcpMtuBlackHoles"] >= 1
    assert transfer.ends[sender].subflows[0].pmtu.mtu == 1500
    assert len(sender.stack.path_mtus) == 0


def test_probing_on_a_lossy_path() -> None:
    """RFC 4821 §7.3: a probe lost by chance is tried once more before its size is given up."""
    transfer = Transfer(3_000_000, 1500, tells=False, mptcp=False, mtu_probing="on", loss=0.005)
    transfer.run(seconds(30))
    assert [end.subflows[0].pmtu.mtu for end in transfer.ends.values()] == [1500, 1500]
