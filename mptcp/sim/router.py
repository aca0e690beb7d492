"""Routers: several ports, longest-prefix routes, TTL, and the ICMP errors that hosts learn from.

A router forwards at once; queues belong to its links. Routes to every network of the simulation are
found by themselves (fewest hops, then the order of `connect`); `route()` adds or overrides.
RFC 1812 §5.2, §5.3; RFC 8200 §5: no fragments of IPv6, nor of IPv4 with DF.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from mptcp.addressing import in_prefix, parse_prefix
from mptcp.sim.direction import Direction
from mptcp.sim.fragmenting import fragment
from mptcp.tun.linkem import Damaged
from mptcp.wire import ParseError
from mptcp.wire.icmp import (
    EchoRequest,
    IcmpKind,
    echo_reply,
    packet_too_big,
    parse_icmp,
    unreachable,
)
from mptcp.wire.ip import ICMP, ICMPV6, parse_ip

_DONT_FRAGMENT: Final = 0x40  # in byte 6 of an IPv4 header


class Router:
    """A node that forwards."""

    def __init__(self, name: str, *, icmp: bool = True) -> None:
        """Without `icmp` it says nothing of what it drops: a black hole for large packets."""
        self.name = name
        self.icmp = icmp
        self.out: dict[int, Direction] = {}
        """By port, from 1 in the order of `connect`."""
        self.counters: Counter[str] = Counter()
        """IP MIB names (RFC 4293): what was forwarded, and what not and why."""
        self._own: set[bytes] = set()
        self._found: list[tuple[bytes, int, Direction]] = []
        self._static: list[tuple[bytes, int, Direction]] = []
        self._cache: dict[bytes, Direction | None] = {}

    def add_port(self, direction: Direction) -> None:
        """`direction` leaves here."""
        self.out[len(self.out) + 1] = direction
        self._own.update(direction.source_address)

    def route(self, prefix: str, direction: Direction) -> None:
        """Send what `prefix` covers out of `direction`, which leaves here. Raises ValueError."""
        if direction not in self.out.values():
            raise ValueError(f"{direction.name} does not leave {self.name}")
        self._static.append((*parse_prefix(prefix), direction))
        self._cache.clear()

    def found_routes(self, routes: list[tuple[bytes, int, Direction]]) -> None:
        """The simulation has looked where every network is."""
        self._found = routes
        self._cache.clear()

    def way(self, destination: bytes) -> Direction | None:
        """Where a packet for `destination` leaves: longest prefix, static before found."""
        best, length = None, -1
        for prefix, bits, direction in (*self._static, *self._found):
            if bits > length and in_prefix(destination, prefix, bits):
                best, length = direction, bits
        return best

    def take(self, now: int, direction: Direction, packet: bytes) -> None:
        """See `Node`: forward, or say why not."""
        back = self.out[direction.interface_id]
        is_ipv4 = bool(packet) and packet[0] >> 4 == 4
        if type(packet) is Damaged or len(packet) < (20 if is_ipv4 else 40):
            # RFC 1812 §5.2.2: a header that does not sum up is not worth looking at.
            try:
                parse_ip(memoryview(packet))
            except ParseError:
                self.counters["IpInHdrErrors"] += 1
                return
        destination = packet[16:20] if is_ipv4 else packet[24:40]
        if destination in self._own:
            self._for_us(now, back, packet)
            return
        try:
            way = self._cache[destination]
        except KeyError:
            way = self._cache[destination] = self.way(destination)
        if way is None:
            self.counters["IpOutNoRoutes"] += 1
            self._complain(now, back, packet, IcmpKind.UNREACHABLE)
            return
        ttl = packet[8] if is_ipv4 else packet[7]
        if ttl <= 1:
            self.counters["IpInHdrErrors"] += 1
            self._complain(now, back, packet, IcmpKind.TIME_EXCEEDED)
            return
        pieces = [packet]
        if len(packet) > way.mtu:
            if not is_ipv4 or packet[6] & _DONT_FRAGMENT:
                self.counters["IpFragFails"] += 1
                self._complain(now, back, packet, IcmpKind.PACKET_TOO_BIG, way.mtu)
                return
            pieces = fragment(packet, way.mtu)
            self.counters["IpFragCreates"] += len(pieces)
        self.counters["IpForwDatagrams"] += 1
        for piece in pieces:
            way.send(now, one_hop_less(piece))

    def _complain(
        self, now: int, back: Direction, packet: bytes, kind: IcmpKind, mtu: int = 0
    ) -> None:
        """Tell the sender (RFC 1812 §4.3), from our address where the packet came in."""
        width = 4 if packet[0] >> 4 == 4 else 16
        source = next((a for a in back.source_address if len(a) == width), None)
        if not self.icmp or source is None:
            return
        view = memoryview(packet)
        try:
            if kind is IcmpKind.PACKET_TOO_BIG:
                message = packet_too_big(view, mtu, source)
            else:
                message = unreachable(view, source, kind)
        except ParseError:
            return
        if message is None:
            return
        self.counters["IcmpOutMsgs"] += 1
        # The way to the sender need not be the one by which its packet came.
        way = self.way(packet[12:16] if width == 4 else packet[8:24]) or back
        way.send(now, message)

    def _for_us(self, now: int, back: Direction, packet: bytes) -> None:
        """Answer a ping; nothing else is at home here."""
        view = memoryview(packet)
        try:
            ip = parse_ip(view)
            if ip.protocol in (ICMP, ICMPV6) and isinstance(parse_icmp(view, ip), EchoRequest):
                (self.way(ip.src) or back).send(now, echo_reply(view, ip))
        except ParseError:
            self.counters["IpInHdrErrors"] += 1


def one_hop_less(packet: bytes) -> bytes:
    """The packet with its TTL or hop limit lowered by one (RFC 1812 §5.3.1)."""
    changed = bytearray(packet)
    if packet[0] >> 4 == 4:
        changed[8] -= 1
        # RFC 1141: the sum of the header falls by 0x0100, so its complement grows by it. A wrong
        # checksum stays wrong.
        total = int.from_bytes(packet[10:12], "big") + 0x0100
        changed[10:12] = ((total & 0xFFFF) + (total >> 16)).to_bytes(2, "big")
    else:
        changed[7] -= 1
    return type(packet)(changed)
