"""Path MTU discovery by probes (RFC 4821, RFC 8899), and whole transfers past small links."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mptcp.events import Accepted, Event, Readable
from mptcp.meta_socket import MetaSocket
from mptcp.sim.network import SimHost, Simulation
from mptcp.tcp.known_mtus import RAISE_US
from mptcp.wire.icmp import packet_too_big
from mptcp.wire.ip import parse_ip
from mptcp.wire.tcp import ACK
from tests.peer import Peer, Seen, ms, seconds
from tests.tcp.icmp import ROUTER, ROUTER6, too_big
from tests.tcp.path_mtu import MSS, find_probe, made, next_probe, sizes
from tests.tcp.test_recovery import seqs

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


@pytest.mark.mib("TcpMtuBlackHoles")
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


@pytest.mark.mib("TcpExtTCPMTUPSuccess")
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


@pytest.mark.mib("TcpExtTCPMTUPFail")
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
    assert peer.wire.stack.counters["TcpExtTCPTimeouts"] == 3


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


def test_no_probe_holds_recovery_up() -> None:
    """RFC 4821 §7.4: none while losses are outstanding; without SACK each duplicate ACK above the
    third lets a new segment out (RFC 6582 §3.2 step 3), however large the due probe would be."""
    peer = made(mtu=1300)
    connection = peer.handshake(mss=8960, sack=False, rtt=ms(100))
    peer.subflow().cc.cwnd = 40 * 1260
    connection.send(bytes(100 * 1260))
    assert len(peer.drain()) == 40
    for _ in range(3):
        peer.send(ACK, ack=1)
    assert seqs(peer.drain())[-1] == 1
    peer.wire.stack.mtu_changed(peer.wire.now, 1, 4000)
    for _ in range(30):
        peer.send(ACK, ack=1)
    assert set(sizes(peer.drain())) == {1300}
    assert peer.subflow().snd.nxt == peer.subflow().snd.una + 52 * 1260  # the peer's window


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
        assert host.stack.counters["TcpExtTCPTimeouts"] == 0
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
