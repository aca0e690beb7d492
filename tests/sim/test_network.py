"""Routers, shared links, sizes and times: what packets meet on their way through a simulation."""

from __future__ import annotations

import pytest

from mptcp.errors import ConnectionEnd
from mptcp.sim import Bulk, LinkChange, Router, SimHost, Simulation, Sink, dumbbell
from mptcp.sim.fragmenting import fragment
from mptcp.sim.router import one_hop_less
from mptcp.tun.linkem import Damaged
from mptcp.wire.checksum import ones_sum
from mptcp.wire.fragments import Reassembler
from mptcp.wire.icmp import IcmpError, IcmpKind, parse_icmp
from mptcp.wire.ip import UDP, ip_header, parse_ip
from mptcp.wire.tcp import SYN, HeaderTemplate

A, B = bytes([10, 0, 1, 1]), bytes([10, 0, 3, 1])
A6, B6 = bytes.fromhex("fd01") + bytes(13) + b"\1", bytes.fromhex("fd03") + bytes(13) + b"\1"


def line(
    sim: Simulation, *, mtu: int = 1500, icmp: bool = True, family: int = 4
) -> tuple[SimHost, SimHost, list[Router]]:
    """Host a, two routers with a link of `mtu` between them, host b."""
    a, b = sim.host("a"), sim.host("b")
    r, s = sim.router("r", icmp=icmp), sim.router("s", icmp=icmp)
    net = "10.0.{}.{}/24" if family == 4 else "fd0{}::{}/64"
    sim.connect(a, net.format(1, 1), r, net.format(1, 9), delay_us=1000)
    sim.connect(r, net.format(2, 8), s, net.format(2, 9), delay_us=1000, mtu=mtu)
    sim.connect(s, net.format(3, 9), b, net.format(3, 1), delay_us=1000)
    return a, b, [r, s]


class Listening:
    """What reaches a host, seen from outside."""

    def __init__(self, host: SimHost) -> None:
        self.packets: list[bytes] = []
        host.on_packet = self

    def __call__(self, now: int, packet: bytes, leaving: bool) -> None:
        if not leaving:
            self.packets.append(packet)

    def errors(self) -> list[IcmpError]:
        """The ICMP errors among them."""
        found = []
        for packet in self.packets:
            view = memoryview(packet)
            ip = parse_ip(view)
            if ip.protocol in (1, 58):
                message = parse_icmp(view, ip)
                assert isinstance(message, IcmpError)
                found.append(message)
        return found


def tcp_packet(
    source: bytes = A, destination: bytes = B, *, payload: int = 0, ttl: int | None = None
) -> bytes:
    """A SYN with data, as no stack would send it."""
    template = HeaderTemplate(source, destination, 1000, 80)
    data = memoryview(bytes(payload))
    header = bytearray(template.build(1, 0, SYN, 1000, b"", payload))
    template.finish_checksum(header, [data])
    packet = bytearray(header + data)
    if ttl is not None:
        if len(source) == 4:
            packet[8] = ttl
            packet[10:12] = b"\0\0"
            packet[10:12] = (-ones_sum(packet[:20]) % 0xFFFF).to_bytes(2, "big")
        else:
            packet[7] = ttl
    return bytes(packet)


@pytest.mark.parametrize("family", [4, 6])
def test_a_transfer_over_two_routers(family: int) -> None:
    """RFC 1812 §5.2.1, RFC 8200 §3: routes are found; three links of 1 ms each way make the RTT."""
    sim = Simulation(seed=2)
    a, b, routers = line(sim, family=family)
    heard = Listening(b)
    sink = Sink(b)
    bulk = Bulk(a, "10.0.3.1" if family == 4 else "fd03::1", size=500_000)
    with sim.explain_failure("two routers"):
        assert sim.run(10_000_000, until=lambda: bulk.end is not None)
        assert bulk.end is ConnectionEnd.CLOSED
        assert sink.received == 500_000
    sim.run(1_000_000)  # the last acknowledgement arrives
    assert {parse_ip(memoryview(packet)).ttl for packet in heard.packets} == {64 - 2}
    assert routers[0].counters["IpForwDatagrams"] == routers[1].counters["IpForwDatagrams"] > 350


@pytest.mark.parametrize(("a", "b"), [(A, B), (A6, B6)])
def test_the_hop_limit_falls_and_the_checksum_follows(a: bytes, b: bytes) -> None:
    """RFC 1812 §5.3.1 and RFC 1141: every router lowers it, the header sums up; no repairs."""
    for size in range(0, 1200, 7):
        before = tcp_packet(a, b, payload=size)
        after = one_hop_less(before)
        ip = parse_ip(memoryview(after))  # verifies the checksum
        assert ip.ttl == parse_ip(memoryview(before)).ttl - 1
        changed = sum(x != y for x, y in zip(before, after, strict=True))
        assert 1 <= changed <= (3 if a is A else 1)
    broken = bytearray(tcp_packet())
    broken[10] ^= 1
    assert ones_sum(one_hop_less(bytes(broken))[:20]) % 0xFFFF
    assert type(one_hop_less(Damaged(tcp_packet()))) is Damaged


@pytest.mark.parametrize("family", [4, 6])
def test_a_packet_at_the_end_of_its_life_is_reported(family: int) -> None:
    """RFC 1812 §5.3.1, RFC 8200 §3: time exceeded, from the router where it happened."""
    sim = Simulation(seed=2)
    a, _, _ = line(sim, family=family)
    heard = Listening(a)
    ends = (A, B) if family == 4 else (A6, B6)
    sim.run(0)
    for ttl in (1, 2):
        a.out[1].send(sim.now, tcp_packet(*ends, ttl=ttl))
    sim.run(10_000)
    assert [error.kind for error in heard.errors()] == [IcmpKind.TIME_EXCEEDED] * 2
    sources = [parse_ip(memoryview(packet)).src[-1] for packet in heard.packets]
    nets = [parse_ip(memoryview(packet)).src[2 if family == 4 else 1] for packet in heard.packets]
    assert (sources, nets) == ([9, 9], [1, 2])


def test_no_route_ends_an_open() -> None:
    """RFC 1812 §5.2.7.1: destination unreachable; RFC 1122 §4.2.3.9: it ends a SYN-SENT."""
    sim = Simulation(seed=2)
    a, _, routers = line(sim)
    heard = Listening(a)
    connection = a.stack.connect("192.0.2.1", 80)
    sim.run(5_000_000)
    assert connection.ended is ConnectionEnd.UNREACHABLE
    assert heard.errors()[0].kind is IcmpKind.UNREACHABLE
    assert routers[0].counters["IpOutNoRoutes"] == 1


@pytest.mark.parametrize("family", [4, 6])
def test_a_small_mtu_on_the_way_is_told(family: int) -> None:
    """RFC 1191 §3, RFC 8201 §4: too big, with the MTU; the transfer goes on in smaller packets."""
    sim = Simulation(seed=2)
    a, b, routers = line(sim, mtu=1300, family=family)
    heard = Listening(a)
    sink = Sink(b)
    Bulk(a, "10.0.3.1" if family == 4 else "fd03::1", size=300_000)
    with sim.explain_failure("path MTU"):
        assert sim.run(20_000_000, until=lambda: sink.received == 300_000)
    assert {(error.kind, error.mtu) for error in heard.errors()} == {
        (IcmpKind.PACKET_TOO_BIG, 1300)
    }
    assert routers[0].counters["IpFragFails"] > 0
    assert routers[0].counters["IpFragCreates"] == 0


def test_a_silent_router_is_a_black_hole() -> None:
    """RFC 2923 §2.1: large packets vanish, small ones pass, and nobody says so."""
    sim = Simulation(seed=2)
    a, b, routers = line(sim, mtu=1300, icmp=False)
    heard, arrived = Listening(a), Listening(b)
    sim.run(0)
    for payload in (1000, 1400):
        a.out[1].send(sim.now, tcp_packet(payload=payload))
    sim.run(10_000)
    assert heard.errors() == []
    assert [len(packet) for packet in arrived.packets] == [1040]
    assert routers[0].counters["IpFragFails"] == 1


def test_what_may_be_fragmented_is() -> None:
    """RFC 791 §3.2: a packet without DF arrives in pieces that make it whole, cut twice here."""
    sim = Simulation(seed=2)
    a, b = sim.host("a"), sim.host("b")
    r, s = sim.router("r"), sim.router("s")
    sim.connect(a, "10.0.1.1/24", r, "10.0.1.9/24")
    sim.connect(r, "10.0.2.8/24", s, "10.0.2.9/24", mtu=1000)
    sim.connect(s, "10.0.3.9/24", b, "10.0.3.1/24", mtu=500)
    arrived = Listening(b)
    body = bytes(range(256)) * 5
    packet = ip_header(A, B, UDP, len(body), identification=7, dont_fragment=False) + body
    sim.run(0)
    a.out[1].send(sim.now, packet)
    sim.run(1000)
    assert max(len(piece) for piece in arrived.packets) <= 500
    whole = None
    reassembler = Reassembler(1 << 20)
    for piece in arrived.packets:
        whole = reassembler.add(sim.now, memoryview(piece), parse_ip(memoryview(piece)))
    assert whole is not None
    assert whole[20:] == body


def test_fragments_repeat_the_options_that_ask_for_it() -> None:
    """RFC 791 §3.1: an option with the copied flag is in every fragment, others in the first."""
    options = b"\x94\x04\0\0" + b"\x07\x04\x04\0"  # router alert (copied), record route (not)
    plain = bytearray(ip_header(A, B, UDP, 8 + 100, dont_fragment=False))
    plain[0] = 0x47
    plain[10:12] = b"\0\0"
    whole = bytearray(plain + options + bytes(100))
    whole[10:12] = (-ones_sum(whole[:28]) % 0xFFFF).to_bytes(2, "big")
    first, second = fragment(bytes(whole), 92)
    assert first[20:28] == options
    assert second[20:24] == options[:4]
    assert (second[0], len(second)) == (0x46, 24 + 36)
    for piece in (first, second):
        assert ones_sum(piece[: (piece[0] & 15) * 4]) % 0xFFFF == 0


def test_the_longest_prefix_wins_and_a_route_overrides_what_was_found() -> None:
    """RFC 1812 §5.2.4.3: longest match; a static route comes before one of equal length."""
    sim = Simulation(seed=1)
    a = sim.host("a")
    r = sim.router("r")
    b, c, d = sim.host("b"), sim.host("c"), sim.host("d")
    sim.connect(a, "10.0.0.1/24", r, "10.0.0.9/24")
    for number, host in enumerate((b, c, d), 1):
        sim.connect(r, f"10.0.{number}.9/24", host, f"10.0.{number}.1/24")
    out = list(r.out.values())
    r.route("0.0.0.0/0", out[1])
    r.route("10.9.0.0/16", out[2])
    r.route("10.9.9.0/24", out[3])
    r.route("10.0.3.0/24", out[1])
    sim.run(0)
    ways = {
        "10.0.2.5": c,
        "192.0.2.1": b,
        "10.9.1.1": c,
        "10.9.9.1": d,
        "10.0.3.1": b,
    }
    for destination, host in ways.items():
        way = r.way(bytes(map(int, destination.split("."))))
        assert way is not None
        assert way.target is host, destination
    with pytest.raises(ValueError, match="does not leave r"):
        r.route("10.0.0.0/8", a.out[1])


def test_a_router_answers_a_ping() -> None:
    """RFC 1812 §4.3.3.6: an echo request to the router's own address is answered."""
    sim = Simulation(seed=1)
    a, _, _ = line(sim)
    heard = Listening(a)
    echo = bytes([8, 0]) + b"\0\0" + b"\0\7\0\1ping"
    echo = echo[:2] + (-ones_sum(echo) % 0xFFFF).to_bytes(2, "big") + echo[4:]
    sim.run(0)
    a.out[1].send(sim.now, ip_header(A, bytes([10, 0, 2, 9]), 1, len(echo)) + echo)
    sim.run(10_000)
    (reply,) = heard.packets
    assert (reply[20], reply[24:]) == (0, b"\0\7\0\1ping")


def test_a_damaged_header_goes_no_further_than_a_router() -> None:
    """RFC 1812 §5.2.2: a header that does not sum up is dropped; the payload is not looked at."""
    sim = Simulation(seed=1)
    a, b, routers = line(sim)
    arrived = Listening(b)
    sim.run(0)
    bad = bytearray(tcp_packet())
    bad[16] ^= 1
    fine = bytearray(tcp_packet())
    fine[30] ^= 1
    a.out[1].send(sim.now, Damaged(bad))
    a.out[1].send(sim.now, Damaged(fine))
    sim.run(10_000)
    assert len(arrived.packets) == 1
    assert routers[0].counters["IpInHdrErrors"] == 1
    assert b.stack.counters["TcpInCsumErrors"] == 1


@pytest.mark.parametrize("rubbish", [b"", b"\x45", b"\x60" * 30, bytes(60), b"\x45" + bytes(30)])
def test_rubbish_stops_at_a_router(rubbish: bytes) -> None:
    """RFC 1812 §5.2.2: whatever a middlebox may have made of a packet, a router survives it."""
    sim = Simulation(seed=1)
    a, b, _ = line(sim)
    arrived = Listening(b)
    sim.run(0)
    a.out[1].send(sim.now, rubbish)
    a.out[1].send(sim.now, tcp_packet())
    sim.run(10_000)
    assert len(arrived.packets) == 1


def test_marks_take_the_place_of_drops_end_to_end() -> None:
    """RFC 3168 §5, §6.1: CoDel marks, the sender slows down, nothing is lost or sent twice."""
    sim = Simulation(seed=1)
    a, b = sim.host("a", mptcp=False, ecn="on"), sim.host("b", mptcp=False, ecn="on")
    there, _ = sim.connect(
        a,
        "10.0.0.1/24",
        b,
        "10.0.0.2/24",
        rate_bps=10_000_000,
        delay_us=10_000,
        queue_bytes=300_000,
        aqm="codel",
        ecn=True,
    )
    sink = Sink(b)
    bulk = Bulk(a, "10.0.0.2")
    sim.run(5_000_000)
    assert there.link.stats.marked > 5
    assert there.link.stats.drops_aqm == there.link.stats.drops_queue == 0
    assert sink.received * 8 / 5 > 8_000_000
    assert bulk.connection is not None
    assert bulk.connection.subflows[0].snd.bytes_retransmitted == 0


def test_two_flows_share_one_bottleneck() -> None:
    """Both TCPs go through one queue: together they have the link, and each a fair part of it."""
    sim = Simulation(seed=4)
    senders = [sim.host(f"s{n}", mptcp=False, congestion_control="newreno") for n in range(2)]
    receivers = [sim.host(f"r{n}", mptcp=False) for n in range(2)]
    forward, _ = dumbbell(
        sim, senders, receivers, rate_bps=10_000_000, delay_us=10_000, queue_bytes=50_000
    )
    sinks = [Sink(host) for host in receivers]
    bulks = [Bulk(host, f"10.0.{128 + n}.1") for n, host in enumerate(senders)]
    with sim.explain_failure("two flows"):
        sim.run(20_000_000)
        rates = [sink.received * 8 / 20 for sink in sinks]
        assert 9_000_000 < sum(rates) < 9_700_000
        assert min(rates) > 2_500_000
    assert forward.link.stats.drops_queue > 0
    assert all(bulk.connection is not None and bulk.connection.fallback for bulk in bulks)


def test_mptcp_and_plain_tcp_compete() -> None:
    """A plain host is a mode: the same server takes both, one of them in fallback."""
    sim = Simulation(seed=4)
    hosts = [sim.host("multi"), sim.host("plain", mptcp=False)]
    server = sim.host("server")
    r = sim.router("r")
    for number, host in enumerate(hosts):
        sim.connect(host, f"10.0.{number}.1/24", r, f"10.0.{number}.9/24", delay_us=5000)
    sim.connect(r, "10.0.9.9/24", server, "10.0.9.1/24", rate_bps=5_000_000, queue_bytes=40_000)
    sink = Sink(server)
    for host in hosts:
        Bulk(host, "10.0.9.1")
    sim.run(5_000_000)
    assert sorted(connection.fallback for connection in sink.connections) == [False, True]


@pytest.mark.parametrize("offload", [False, True])
def test_a_chunk_is_packets_to_the_link(offload: bool) -> None:
    """A chunk of many segments: each packet is of at most the MTU and is lost by itself."""
    sim = Simulation(seed=3)
    a, b = sim.host("a", offload=offload), sim.host("b", offload=offload)
    there, _ = sim.connect(
        a,
        "10.0.0.1/24",
        b,
        "10.0.0.2/24",
        rate_bps=50_000_000,
        delay_us=5000,
        forward=LinkChange(loss_list=(30, 31, 50), corrupt=0.01),
    )
    sizes: list[int] = []
    there.on_entry = lambda now, packet, leaving: sizes.append(len(packet))
    sink = Sink(b)
    bulk = Bulk(a, "10.0.0.2", size=2_000_000)
    with sim.explain_failure("chunks"):
        assert sim.run(20_000_000, until=lambda: bulk.end is not None)
        assert sink.received == 2_000_000
    assert max(sizes) == 1500
    assert there.link.stats.drops_loss == 3
    assert there.link.stats.corrupted > 5
    # Nobody vouches for a damaged packet, offload or not.
    counters = b.stack.counters
    assert counters["TcpInCsumErrors"] + counters["IpInHdrErrors"] > 0
    refused = counters["TcpInCsumErrors"] + counters["IpInHdrErrors"] + counters["IpInAddrErrors"]
    assert refused == there.link.stats.corrupted


def test_a_link_of_a_smaller_mtu_swallows_what_is_larger() -> None:
    """Between two hosts nobody is there to say "too big": a black hole."""
    sim = Simulation(seed=3)
    a, b = sim.host("a"), sim.host("b")
    there, _ = sim.connect(
        a, "10.0.0.1/24", b, "10.0.0.2/24", delay_us=1000, forward=LinkChange(mtu=1400)
    )
    Sink(b)
    Bulk(a, "10.0.0.2")
    sim.run(500_000)
    assert there.link.stats.drops_mtu > 0


def test_times_are_kept_and_in_order() -> None:
    """Calls happen at their time, those of one time in the order in which they were made."""
    sim = Simulation(start_us=1000)
    seen: list[tuple[int, str]] = []
    sim.at(3000, lambda: seen.append((sim.now, "b")))
    sim.at(2000, lambda: seen.append((sim.now, "a")))
    sim.at(3000, lambda: seen.append((sim.now, "c")))
    sim.at(500, lambda: seen.append((sim.now, "late")))
    sim.every(1500, lambda: seen.append((sim.now, "tick")))
    assert not sim.run(4000)
    assert sim.now == 5000
    assert seen == [
        (1000, "late"),
        (2000, "a"),
        (2500, "tick"),
        (3000, "b"),
        (3000, "c"),
        (4000, "tick"),
    ]
    with pytest.raises(ValueError, match="period"):
        sim.every(0, lambda: None)


def test_what_is_done_between_events_is_noticed() -> None:
    """A program that `at` calls may use a connection of any host: its data goes out then."""
    sim = Simulation(seed=1)
    a, b = sim.host("a"), sim.host("b")
    path = sim.connect(a, "10.0.0.1/24", b, "10.0.0.2/24", delay_us=10_000)
    sink = Sink(b)
    connection = a.stack.connect("10.0.0.2", 5001)
    began = sim.now
    sim.at(began + 1_000_000, lambda: connection.send(b"x" * 100))
    assert sim.run(2_000_000, until=lambda: sink.received == 100)
    assert sim.now == began + 1_010_000
    sim.at(began + 1_500_000, lambda: sim.set_down(path, True))
    sim.at(began + 1_600_000, lambda: connection.send(b"y" * 100))
    sim.run(1_000_000)
    assert sink.received == 100
    assert path[0].link.stats.drops_down > 0
    sim.set_down(path, False)
    assert sim.run(10_000_000, until=lambda: sink.received == 200)


def test_a_host_needs_an_address() -> None:
    sim = Simulation()
    for address in ("10.0.0.1", "fd00::1"):
        with pytest.raises(ValueError, match=f'"{address}" has no prefix length: say "{address}/'):
            sim.connect(sim.host("a"), address, sim.host("b"), "10.0.0.2/24")
    with pytest.raises(ValueError, match="needs an address"):
        sim.connect(sim.host("a"), None, sim.router("r"), None)
    with pytest.raises(ValueError, match="MTU"):
        sim.connect(sim.router("r"), None, sim.router("s"), None, mtu=60)
