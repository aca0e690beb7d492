"""The stack under test in virtual time: what `Peer` talks to, and what it sees.

Every packet of the stack is checked on the way: checksum, options without fault, size within the
MTU. Times count from the last `Wire.mark()`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mptcp import keys
from mptcp.addressing import parse_prefix
from mptcp.config import Config
from mptcp.events import Event
from mptcp.stack import Offload, Stack
from mptcp.tcp.host import Interface, Transmit
from mptcp.wire.dss import Dss
from mptcp.wire.ip import TCP, parse_ip
from mptcp.wire.tcp import FIN, Segment, flag_names, parse_segment

if TYPE_CHECKING:
    from tests.flow import Flow

STACKS: list[Stack] = []
"""Those that the test at work has made with `Wire`: tests/conftest.py looks at their counters."""
PEER_KEY = bytes.fromhex("1112131415161718")


def ms(value: float) -> int:
    """Milliseconds as the microseconds that everything here counts in."""
    return round(value * 1000)


def seconds(value: float) -> int:
    """Seconds as microseconds."""
    return round(value * 1_000_000)


@dataclass(slots=True)
class Seen:
    """A segment of the stack, numbers relative; `sent_at` counts from the mark at arrival."""

    sent_at: int
    flags: int
    seq: int
    ack: int
    window: int
    data: bytes
    options: tuple[object, ...]
    option_bytes: bytes
    sack: tuple[tuple[int, int], ...]
    dss: Dss | None
    """The DSS with relative data sequence numbers."""
    gso_size: int
    headers: int
    segment: Segment

    @property
    def end(self) -> int:
        """The sequence number after the segment."""
        return self.seq + len(self.data) + (self.flags & FIN) + (self.flags >> 1 & 1)

    def option(self, kind: type[Any]) -> Any:
        """The first option of a type. Raises AssertionError when there is none."""
        found = [option for option in self.options if isinstance(option, kind)]
        assert found, f"no {kind.__name__} among {self.options}"
        return found[0]

    def __str__(self) -> str:
        return (
            f"{self.sent_at / 1000:.3f} ms {flag_names(self.flags)} seq={self.seq} ack={self.ack} "
            f"win={self.window} len={len(self.data)} {list(self.options)}"
        )


class Wire:
    """One `Stack`, its interfaces, and virtual time."""

    def __init__(
        self,
        *,
        seed: int = 1,
        mtu: int = 1500,
        offload: bool = False,
        addresses: Sequence[str] = ("10.0.0.1/24",),
        isn: int | None = None,
        idsn: int | None = None,
        config: Config | None = None,
        **changes: Any,
    ) -> None:
        """`changes` are fields of `Config`; `isn` and `idsn` fix the stack's initial numbers.

        Pacing and tuned buffers are off unless asked for: a script counts segments and windows.
        Subflows are opened at once, too, and a path with room is given data: a script waits for a
        SYN and for segments, not for what a heuristic counts or a scheduler expects.
        """
        self.now = 1_000_000
        self.zero = self.now
        entropy = random.Random(seed).randbytes
        self.stack = Stack(
            replace(
                config
                or Config(pacing=False, autotune=False, heuristics="at-once", scheduler="minrtt"),
                **changes,
            ),
            entropy,
            now=self.now,
            isn=None if isn is None else lambda _: isn,
            idsn=None if idsn is None else lambda key: keys.idsn(key) if key == PEER_KEY else idsn,
        )
        STACKS.append(self.stack)
        self.interfaces = []
        for number, address in enumerate(addresses, 1):
            interface = Interface(
                number,
                f"path{number}",
                mtu=mtu,
                offload=offload,
                addresses=[parse_prefix(address)],
            )
            self.interfaces.append(interface)
            self.stack.interface_up(self.now, interface)
        self.peers: list[Flow] = []
        self.raw: deque[bytes] = deque()
        """Packets that belong to no peer."""
        self.events: list[Event] = []
        self.refuse: Callable[[Transmit], bool] = lambda transmit: False
        """The device: True makes it refuse a packet."""
        self.log: list[str] = []

    def mark(self) -> None:
        """Let times count from now."""
        self.zero = self.now

    @property
    def time(self) -> int:
        """Microseconds since the mark."""
        return self.now - self.zero

    def take_events(self) -> list[Event]:
        """The events since the last call, in order."""
        events, self.events = self.events, []
        return events

    def flush(self) -> None:
        """Collect what the stack has to say at this instant."""
        while (transmit := self.stack.poll_transmit(self.now)) is not None:
            if self.refuse(transmit):
                self.stack.transmit_refused(self.now, transmit)
                continue
            self._sent(transmit)
        while (event := self.stack.poll_event()) is not None:
            self.events.append(event)

    def _sent(self, transmit: Transmit) -> None:
        packet = memoryview(transmit.packet())
        ip = parse_ip(packet)
        peer = None
        if ip.protocol == TCP:
            seg = parse_segment(packet, ip, verify_checksum=not transmit.csum_start)
            peer = self._peer_of(seg)
        if peer is None:
            self.raw.append(bytes(packet))
            return
        headers = len(transmit.header)
        interface = self.interfaces[transmit.interface - 1]
        on_link = min(transmit.gso_size or 65535, len(packet) - headers)
        assert headers + on_link <= interface.mtu, f"{headers}+{on_link} exceeds the MTU: {seg}"
        assert seg.bad_options == 0
        peer.arrived(seg, bytes(packet[ip.offset + 20 : headers]), transmit.gso_size, headers)

    def _peer_of(self, seg: Segment) -> Flow | None:
        bound = (seg.src, seg.sport, seg.dst, seg.dport)
        for peer in self.peers:
            if (peer.local, peer.local_port, peer.address, peer.port) == bound:
                return peer
        for peer in self.peers:
            if not peer.local_port and (peer.address, peer.port) == (seg.dst, seg.dport):
                peer.local, peer.local_port = seg.src, seg.sport
                return peer
        return None

    def inject(self, packet: bytes, interface: int = 1, offload: Offload | None = None) -> None:
        """Hand the stack a packet as the device would, and collect the answers."""
        self.stack.handle_packet(self.now, interface, memoryview(packet), offload)
        self.flush()

    def advance(self, to: int) -> None:
        """Let time pass up to `to` (since the mark), running every timer on the way."""
        self.flush()
        while (due := self.stack.poll_timeout()) is not None and due <= self.zero + to:
            self.now = max(self.now, due)
            self.stack.handle_timeout(self.now)
            self.flush()
        assert self.zero + to >= self.now, "time cannot go back"
        self.now = self.zero + to
        self.stack.handle_timeout(self.now)  # nothing is due: it only tells the time
        self.flush()

    def next_timer(self) -> int | None:
        """When the stack wants to be called, since the mark."""
        due = self.stack.poll_timeout()
        return None if due is None else due - self.zero
