"""Peers that keep the rules of the handshake and no other: what they can make a host store, and
how fast they can make it send (RFC 8684 §5, RFC 6181 §4, RFC 5681, RFC 3465)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mptcp import keys
from mptcp.addressing import parse_address
from mptcp.wire.mptcp_options import AddAddr, RemoveAddr
from mptcp.wire.tcp import ACK, RST, SYN
from tests.attackers.scene import Scene, segment
from tests.peer import Peer

BUFFER = 64 << 10
SMALL: dict[str, object] = {"receive_buffer": BUFFER, "send_buffer": BUFFER}


def striking(scene: Scene, packets: Callable[[], list[bytes]]) -> None:
    """Twenty packets of a rogue each millisecond, from its own network."""

    def strike() -> None:
        for packet in packets():
            scene.put(packet, 4)

    scene.sim.every(1000, strike)


def test_single_bytes_with_holes() -> None:
    """RFC 9293 §3.8.6, RFC 6181 §4: one byte in two, all over the window: what is held is bounded
    by the memory it takes, not by the bytes it has."""
    scene = Scene(31, server=SMALL)
    peer = scene.peer(mptcp=False)
    flow = peer.subflow()
    at = 2

    def holes() -> list[bytes]:
        nonlocal at
        packets = []
        for _ in range(20):
            packets.append(peer.packet(ACK, seq=at, data=b"x"))
            at = at + 2 if at < BUFFER - 2 else 2
        assert flow.reassembly.memory <= 2 * BUFFER
        assert len(flow.reassembly) <= 2 * BUFFER // 256
        peer.drain()
        return packets

    striking(scene, holes)
    scene.finish()
    assert scene.counters["TcpExtTCPOFODrop"] > 1000


@pytest.mark.parametrize("server", [SMALL, {"max_reorder_runs": 100}], ids=["bytes", "runs"])
def test_single_bytes_with_holes_in_the_data(server: dict[str, object]) -> None:
    """RFC 8684 §3.3.5: the same in the data sequence space, in order on the subflow: the reorder
    queue is bounded in memory and in runs."""
    scene = Scene(32, server=server)
    peer = scene.peer()
    rx = peer.subflow().meta.rx
    dsn = 2

    def holes() -> list[bytes]:
        nonlocal dsn
        packets = []
        for _ in range(20):
            mapping = peer.dss(data_ack=1, dsn=dsn, ssn=peer.nxt, length=1)
            packets.append(peer.packet(ACK, data=b"x", options=[mapping]))
            dsn = dsn + 2 if dsn < BUFFER - 2 else 2
        assert rx.reorder.memory <= 2 * rx.buffer
        assert rx.reorder.runs <= scene.server.stack.config.max_reorder_runs
        peer.drain()
        return packets

    striking(scene, holes)
    scene.finish()
    assert scene.counters["MPTcpExtRcvPruned"] > 1000


def test_overlapping_mappings() -> None:
    """RFC 8684 §3.3.1: a mapping once declared stays: what contradicts it is not followed."""
    scene = Scene(33, openers=2)
    peer = scene.peer()
    meta = peer.subflow().meta
    scene.put(peer.packet(ACK, options=[peer.dss(data_ack=1, dsn=1, ssn=1, length=1000)]), 4)
    for ssn, dsn, length in ((1, 5001, 1000), (500, 9001, 1000), (1, 1, 2000), (999, 7, 3)):
        other = peer.dss(data_ack=1, dsn=dsn, ssn=ssn, length=length)
        scene.put(peer.packet(ACK, options=[other]), 4)
    assert scene.counters["MPTcpExtDSSNotMatching"] == 4
    data = bytes(range(250)) * 4
    same = peer.dss(data_ack=1, dsn=1, ssn=1, length=1000)
    scene.put(peer.packet(ACK, seq=1, data=data[:600], options=[same]), 4)
    wrong = peer.dss(data_ack=1, dsn=20_001, ssn=601, length=400)
    scene.put(peer.packet(ACK, seq=601, data=data[600:], options=[wrong]), 4)
    assert meta.recv() == data
    scene.finish()


def test_mappings_without_data() -> None:
    """RFC 8684 §3.3.1: mappings may come before their bytes; how many wait is bounded."""
    scene = Scene(34, openers=2, server={"max_mappings": 500})
    peer = scene.peer()
    flow = peer.subflow()
    ssn = 10

    def mappings() -> list[bytes]:
        nonlocal ssn
        packets = []
        for _ in range(20):
            ahead = peer.dss(data_ack=1, dsn=ssn, ssn=ssn, length=5)
            packets.append(peer.packet(ACK, options=[ahead]))
            ssn += 10
        assert len(flow.rx_maps.maps) <= 500
        return packets

    striking(scene, mappings)
    scene.finish()
    assert len(flow.rx_maps.maps) == 500
    assert scene.counters["MPTcpExtDSSNotMatching"] > 1000


# -- how fast ------------------------------------------------------------------------------------


class Taker:
    """A rogue that is sent as much as it can make the server send."""

    def __init__(self, number: int) -> None:
        self.scene = Scene(40 + number, size=100_000, openers=1)
        self.peer = peer = self.scene.peer(mptcp=False, wscale=8)
        self.flow = peer.subflow()
        self.first = self.flow.cc.cwnd
        self.flow.meta.send(bytes(6_000_000))
        self.acked = 1
        self.most_in_flight = 0

    def run(self, acks: Callable[[int], list[int]], rounds: int = 8, rtt_us: int = 20_000) -> None:
        """Each round trip what has come is acknowledged: `acks(new)` are the numbers to say."""
        scene, peer = self.scene, self.peer
        for _ in range(rounds):
            scene.sim.run(rtt_us)
            peer.drain()
            new = peer.acked()
            for number in acks(new):
                scene.put(peer.packet(ACK, ack=number), 4)
            self.acked = new
            flight = self.flow.snd.nxt - self.flow.snd.una
            self.most_in_flight = max(self.most_in_flight, flight)

    def honest(self, new: int) -> list[int]:
        """RFC 9293 §3.8.6.3: one acknowledgement for two segments."""
        return [*range(self.acked + 2896, new, 2896), new]


def honest() -> Taker:
    taker = Taker(0)
    taker.run(taker.honest)
    assert taker.flow.cc.cwnd > 4 * taker.first
    return taker


def test_split_acknowledgements() -> None:
    """RFC 3465 §2: bytes are counted, not ACKs: a hundred for each segment open the window no
    further than an honest receiver's."""
    taker = Taker(0)
    taker.run(lambda new: [*range(taker.acked + 14, new, 14), new])
    fair = honest()
    assert taker.flow.cc.cwnd <= fair.flow.cc.cwnd
    assert taker.most_in_flight <= fair.most_in_flight
    taker.scene.finish()


def test_optimistic_acknowledgements() -> None:
    """RFC 9293 §3.10.7.4, RFC 5961 §5.2: ACKs of what has not been sent yet are not believed: they
    do not open the window, whatever they say."""
    taker = Taker(0)
    taker.run(
        lambda new: [
            *(new + ahead for ahead in (1, 1448, 14_480, 1 << 20, 1 << 30)),
            *taker.honest(new),
            *(new + ahead for ahead in (1, 1448, 14_480, 1 << 20, 1 << 30)),
        ]
    )
    fair = honest()
    assert taker.flow.cc.cwnd <= fair.flow.cc.cwnd
    assert taker.most_in_flight <= fair.most_in_flight
    assert taker.scene.counters["TcpExtTCPChallengeACK"] > 20
    taker.scene.finish()


def test_acknowledged_before_it_came() -> None:
    """RFC 3465 §2.1: who acknowledges what is still under way cannot be told from who is near; but
    the window grows by at most what was sent and acknowledged."""
    taker = Taker(0)
    sent = 0

    def all_sent(new: int) -> list[int]:
        nonlocal sent
        sent = taker.flow.snd.nxt - taker.flow.snd.iss
        return [sent]

    taker.run(all_sent)
    assert taker.flow.cc.cwnd <= taker.first + sent
    taker.scene.finish()


def test_repeated_acknowledgements() -> None:
    """RFC 5681 §3.2: duplicates that no segment has caused do not make the server send more than
    an honest receiver would get."""
    taker = Taker(0)
    taker.run(lambda new: [*taker.honest(new), *[new] * 300])
    fair = honest()
    assert taker.most_in_flight <= fair.most_in_flight
    assert taker.flow.cc.cwnd <= fair.flow.cc.cwnd
    taker.scene.finish()


# -- addresses -----------------------------------------------------------------------------------


def rogue_server(scene: Scene) -> Peer:
    """The attacked host connects to somebody who turns out to be a rogue."""
    peer = Peer(scene.wire, address="10.0.4.1", port=443, local="10.0.4.2", interface=4)
    peer.handshake(active=True, mptcp=True)
    return peer


def announce(peer: Peer, number: int, address: bytes, port: int | None = None) -> bytes:
    """A right ADD_ADDR: only the peer itself can make it (RFC 8684 §3.4.1)."""
    data = peer.data
    mac = keys.add_addr_hmac(data.key, data.stack_key, number, address, port)
    return peer.packet(ACK, options=[AddAddr(number, address, port, mac)])


def watch_syns(scene: Scene) -> list[bytes]:
    """From now on: the SYNs that the attacked host sends, but those to the rogue itself."""
    found: list[bytes] = []

    def seen(now: int, packet: bytes, leaving: bool) -> None:
        known = packet[16:20] == bytes((10, 0, 4, 1))
        if leaving and packet[33] & (SYN | ACK) == SYN and not known:
            found.append(packet)

    scene.server.on_packet = seen
    return found


@pytest.mark.mib("MPTcpExtAddAddrDrop")
def test_many_addresses() -> None:
    """RFC 8684 §3.4.1, RFC 6181 §4: 255 announced addresses: `max_addresses` are remembered,
    `max_subflows` joined at a time."""
    scene = Scene(50, openers=2, server={"max_addresses": 5, "path_manager": "fullmesh"})
    peer = rogue_server(scene)
    meta = peer.subflow().meta
    syns = watch_syns(scene)
    numbers = iter(range(1, 256))

    def addresses() -> list[bytes]:
        return [
            announce(peer, number, bytes((10, 0, 4, 2 + number % 250)))
            for _, number in zip(range(3), numbers, strict=False)
        ]

    striking(scene, addresses)
    scene.finish()
    assert len(meta.subflows) <= meta.config.max_subflows
    assert 1 <= len({syn[16:20] for syn in syns}) <= 5
    assert scene.counters["MPTcpExtAddAddr"] == 255
    assert scene.counters["MPTcpExtAddAddrDrop"] >= 250


@pytest.mark.parametrize(
    "address",
    ["224.0.0.1", "255.255.255.255", "127.0.0.1", "0.0.0.0", "10.0.1.2", "10.0.3.2"],
)
def test_addresses_that_are_nobodys(address: str) -> None:
    """RFC 8684 §3.4.1, RFC 1122 §3.2.1.3: no SYN is sent to many, to nobody, or to ourselves."""
    scene = Scene(51, openers=1, size=100_000)
    peer = rogue_server(scene)
    syns = watch_syns(scene)
    scene.put(announce(peer, 9, parse_address(address)), 4)
    scene.sim.run(2_000_000)
    assert syns == []
    assert scene.counters["MPTcpExtAddAddrDrop"] == 1
    scene.finish()


def test_somebody_elses_address() -> None:
    """RFC 6181 §4 (flooding): a rogue that announces a victim's address again and again makes this
    host send it a SYN now and then, not one for each announcement."""
    scene = Scene(52, openers=2)
    peer = rogue_server(scene)
    victim = bytes((10, 0, 4, 77))
    syns = watch_syns(scene)
    answered = 0

    def again() -> list[bytes]:
        nonlocal answered
        refusals = []
        for syn in syns[answered:]:  # the victim wants nothing of it
            sport, dport = (int.from_bytes(syn[at : at + 2], "big") for at in (20, 22))
            ack = int.from_bytes(syn[24:28], "big") + 1
            refusals.append(segment(victim, dport, syn[12:16], sport, RST | ACK, ack=ack))
        answered = len(syns)
        return [*refusals, announce(peer, 7, victim)]

    striking(scene, again)
    began = scene.sim.now
    scene.sim.run(3_000_000)
    scene.finish()
    assert {syn[16:20] for syn in syns} == {victim}
    spent = scene.sim.now - began
    assert 2 <= len(syns) <= 2 + spent // scene.server.stack.config.rejoin_delay_us


def test_removed_again_and_again() -> None:
    """RFC 8684 §3.4.2: identifiers that were never announced are ignored."""
    scene = Scene(53, openers=2)
    peer = scene.peer()
    ids = RemoveAddr(tuple(range(1, 30)))
    striking(scene, lambda: [peer.packet(ACK, options=[ids])] * 5)
    scene.finish()
    assert peer.subflow().meta.subflows == [peer.subflow()]
