"""Network address translation (RFC 3022): NAT44 (addresses) and NAPT (addresses and ports).

The inside is where forward begins. A translation is made by an inside host's SYN (NAPT) or first
packet (NAT44) and forgotten after `idle_us` without a packet; what belongs to none is dropped, or
answered with a RST. Only TCP of IPv4 is translated, all else is dropped.
"""

from __future__ import annotations

import ipaddress
import random
from collections import OrderedDict
from collections.abc import Sequence

from .base import MAX_FLOWS, Box, Outputs, Segments, check_choice, check_range, register
from .packet import ACK, RST, SYN, Flow, TcpPacket

_DAY_US = 86_400_000_000


def _ipv4(name: str, text: object) -> bytes:
    try:
        return ipaddress.IPv4Address(str(text)).packed
    except ValueError as error:
        raise ValueError(f"{name} = {text!r} is no IPv4 address") from error


class _Translator(Box):
    """What both share: no packet passes untranslated, strangers may be told."""

    def __init__(self, *, rng: random.Random, idle_us: int, stranger: str) -> None:
        super().__init__(rng=rng)
        check_range("idle_us", idle_us, 1_000, _DAY_US)
        check_choice("stranger", stranger, ("drop", "rst"))
        self._idle_us = idle_us
        self._tells = stranger == "rst"

    def process(self, now: int, packet: bytes, forward: bool) -> Outputs:
        """See `Box`."""
        if len(packet) < 20 or packet[0] >> 4 != 4 or TcpPacket.read(packet) is None:
            self.count("untranslatable")
            return []
        return super().process(now, packet, forward)

    def _refuse(self, segment: TcpPacket, forward: bool) -> Segments:
        """RFC 9293 §3.5.2's reset for a segment that belongs to nothing here."""
        self.count("strangers")
        if not self._tells or segment.flags & RST:
            return []
        if segment.flags & ACK:
            return [(not forward, segment.answer(RST, segment.ack, 0))]
        return [(not forward, segment.answer(RST | ACK, 0, segment.end))]


@register
class Nat44(_Translator):
    """Gives each inside address one of a pool of outside addresses; ports stay."""

    name = "nat44"

    def __init__(
        self,
        *,
        rng: random.Random,
        outside: Sequence[str],
        idle_us: int = 600_000_000,
        stranger: str = "drop",
    ) -> None:
        """`outside`: the pool, 1 to 1024 addresses. When all are taken by others in use, what comes
        from a further inside address is a stranger's."""
        super().__init__(rng=rng, idle_us=idle_us, stranger=stranger)
        if isinstance(outside, str) or not 1 <= len(outside) <= MAX_FLOWS:
            raise ValueError(f"outside = {outside!r}: a list of 1 to {MAX_FLOWS} addresses")
        self._free = [_ipv4("outside", address) for address in outside]
        if len(set(self._free)) != len(self._free):
            raise ValueError("outside: an address stands there twice")
        self._inside: dict[bytes, bytes] = {}  # by outside address
        self._outside: OrderedDict[bytes, tuple[bytes, int]] = OrderedDict()
        """By inside address: the outside one, and when it was used last."""

    def segment(self, now: int, segment: TcpPacket, forward: bool) -> Segments:
        """See `Box`."""
        self._expire(now)
        if forward:
            used = self._outside.get(segment.src)
            if used is None and not self._free:
                return self._refuse(segment, forward)
            public = self._free.pop(0) if used is None else used[0]
            self._touch(now, segment.src, public)
            segment.src = public
            return [(forward, segment)]
        inside = self._inside.get(segment.dst)
        if inside is None:
            return self._refuse(segment, forward)
        self._touch(now, inside, segment.dst)
        segment.dst = inside
        return [(forward, segment)]

    def _touch(self, now: int, inside: bytes, public: bytes) -> None:
        self._inside[public] = inside
        self._outside[inside] = public, now
        self._outside.move_to_end(inside)

    def _expire(self, now: int) -> None:
        while self._outside:
            inside, (public, used) = next(iter(self._outside.items()))
            if used + self._idle_us > now:
                return
            del self._outside[inside], self._inside[public]
            self._free.append(public)
            self.count("expired")


class _Binding:
    """One translated flow."""

    __slots__ = ("flow", "port", "used")

    def __init__(self, flow: Flow, port: int, used: int) -> None:
        self.flow = flow
        self.port = port
        self.used = used


@register
class Napt(_Translator):
    """Hides all inside hosts behind one address; each flow gets a port of its own."""

    name = "napt"

    def __init__(
        self,
        *,
        rng: random.Random,
        outside: str,
        first_port: int = 20_000,
        last_port: int = 29_999,
        idle_us: int = 600_000_000,
        stranger: str = "drop",
        max_flows: int = MAX_FLOWS,
    ) -> None:
        """Beyond `max_flows` (1 to 65535), or without a free port, new flows are strangers'."""
        super().__init__(rng=rng, idle_us=idle_us, stranger=stranger)
        check_range("first_port", first_port, 1, 65535)
        check_range("last_port", last_port, first_port, 65535)
        check_range("max_flows", max_flows, 1, 65535)
        self._address = _ipv4("outside", outside)
        self._ports = (first_port, last_port)
        self._limit = min(max_flows, last_port - first_port + 1)
        self._by_flow: OrderedDict[Flow, _Binding] = OrderedDict()
        self._by_port: dict[int, _Binding] = {}

    def segment(self, now: int, segment: TcpPacket, forward: bool) -> Segments:
        """See `Box`."""
        self._expire(now)
        if forward:
            binding = self._by_flow.get(segment.flow(True))
            if binding is None and segment.flags & (SYN | ACK) == SYN:
                binding = self._bind(now, segment.flow(True))
            if binding is None:
                return self._refuse(segment, forward)
            segment.src, segment.sport = self._address, binding.port
        else:
            binding = self._by_port.get(segment.dport) if segment.dst == self._address else None
            # Address- and port-dependent filtering (RFC 5382 §4.3's strictest).
            if binding is None or binding.flow[2:] != (segment.src, segment.sport):
                return self._refuse(segment, forward)
            segment.dst, segment.dport = binding.flow[:2]
        binding.used = now
        self._by_flow.move_to_end(binding.flow)
        return [(forward, segment)]

    def _bind(self, now: int, flow: Flow) -> _Binding | None:
        if len(self._by_flow) >= self._limit:
            self.count("full")
            return None
        first, last = self._ports
        port = self.rng.randint(first, last)
        while port in self._by_port:
            port = first if port == last else port + 1
        binding = _Binding(flow, port, now)
        self._by_flow[flow] = self._by_port[port] = binding
        return binding

    def _expire(self, now: int) -> None:
        while self._by_flow:
            flow, binding = next(iter(self._by_flow.items()))
            if binding.used + self._idle_us > now:
                return
            del self._by_flow[flow], self._by_port[binding.port]
            self.count("expired")
