"""The scripted host of a conformance script: raw segments with relative numbers.

The SYN of either side has the number 0. What the system under test sends waits in order until
`expect` takes it: without a time it must have left by now, `at` says when, `within` how much later
than now it may leave. PSH is never compared. The right edge of the system's window must not move
back (RFC 9293 §3.8.6), which every segment is checked for.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from mptcp.tcp.ranges import RangeSet
from mptcp.wire.checksum import finish, ones_sum, pseudo_sum
from mptcp.wire.icmp import IcmpKind, packet_too_big, unreachable
from mptcp.wire.seq import unwrap
from mptcp.wire.tcp import ACK, FIN, RST, SYN, Segment, emit_options, flag_names
from tests.conformance.vocabulary import LOCAL4, LOCAL6, PEER4, PEER6, Net, raw_address
from tests.options import Condition, Emits, Sack, Timestamps, WindowScale, options_of

MASK32: Final = 0xFFFFFFFF
PSH: Final = 8
URG: Final = 32
ECE: Final = 64
CWR: Final = 128
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_TCP = struct.Struct("!HHIIHHHH")


@dataclass(slots=True)
class Seen:
    """A segment of the system under test, numbers relative, `sent_at` µs since the mark."""

    sent_at: int
    flags: int
    seq: int
    ack: int
    window: int
    data: bytes
    options: tuple[object, ...]
    sack: tuple[tuple[int, int], ...]
    ecn: int
    """ECN field of the IP header (RFC 3168 §5)."""
    packet: bytes
    """The whole IP packet."""
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
        ecn = f" ecn={self.ecn}" if self.ecn else ""
        return (
            f"{self.sent_at / 1000:.3f} ms {flag_names(self.flags)} seq={self.seq} ack={self.ack} "
            f"win={self.window} len={len(self.data)}{ecn} {list(self.options)} {self.sack or ''}"
        )


class Peer:
    """One host and port; the flow's other end is learned from what comes, or is `local_port`."""

    def __init__(
        self,
        net: Net,
        *,
        port: int | None = None,
        local_port: int = 0,
        isn: int = 0x3000_0000,
        ipv6: bool = False,
        address: str = "",
    ) -> None:
        """`local_port` 0: the system connects to us; its port is learned from its SYN."""
        self.net = net
        self.address = address or (PEER6 if ipv6 else PEER4)
        self.raw = raw_address(self.address)
        self.local = raw_address(LOCAL6 if ipv6 else LOCAL4)
        self.port = port if port is not None else (40000 if local_port else 80)
        self.local_port = local_port
        self.isn = isn
        self.stack_isn = 0
        self.queue: deque[Seen] = deque()
        self.nxt = 0
        """Next relative sequence number to send."""
        self.received = RangeSet()
        self.window = 65535
        self.wscale = 0
        self.stack_wscale = 0
        self.timestamps = False
        self.ts_recent = 0
        self.edge = 0
        """Right edge of the system's window, relative to our numbers."""
        self.ecn = 0
        """ECN field of what this peer sends, unless told otherwise."""
        net.peers.append(self)

    # -- what comes ----------------------------------------------------------------------------

    def owns(self, seg: Segment) -> bool:
        """Whether a segment of the system belongs to this flow."""
        if (seg.dst, seg.dport) != (self.raw, self.port):
            return False
        if not self.local_port:
            if not seg.flags & SYN:
                return False
            self.local_port = seg.sport
        return seg.sport == self.local_port

    def arrived(self, seg: Segment, packet: bytes, at: int) -> None:
        """Called for each segment of the flow."""
        if seg.flags & SYN:
            self.stack_isn = seg.seq
            self.received = RangeSet()
            self.received.add(0, 1)
        near = self.received.ends[-1] if self.received else 0
        seq = unwrap((seg.seq - self.stack_isn) & MASK32, near)
        ack = unwrap((seg.ack - self.isn) & MASK32, self.nxt) if seg.flags & ACK else 0
        if seg.ts_val >= 0:
            self.ts_recent = seg.ts_val
        blocks = tuple(
            (
                unwrap((left - self.isn) & MASK32, self.nxt),
                unwrap((right - self.isn) & MASK32, self.nxt),
            )
            for left, right in seg.sack
        )
        seen = Seen(
            at,
            seg.flags,
            seq,
            ack,
            seg.window,
            bytes(seg.payload),
            options_of(seg),
            blocks,
            seg.tos & 3,
            packet,
            seg,
        )
        self.net.log.append(f"  < {seen}")
        if seen.end > seq and not seg.flags & RST:
            self.received.add(seq, seen.end)
        if seg.flags & (ACK | SYN | RST) == ACK:
            edge = ack + (seg.window << self.stack_wscale)
            if edge <= self.edge - (1 << self.stack_wscale):
                self.net.fail(f"the window shrank from {self.edge} to {edge}: {seen}")
            self.edge = max(edge, self.edge)
        self.queue.append(seen)

    def agree(self, syn: Seen, wscale: int | None, timestamps: bool) -> None:
        """Take the options that the system's SYN or SYN/ACK makes common."""
        offered = [o.shift for o in syn.options if isinstance(o, WindowScale)]
        if wscale is not None and offered:
            self.wscale = wscale
            self.stack_wscale = offered[0]
        self.timestamps = timestamps and any(isinstance(o, Timestamps) for o in syn.options)

    def clock(self) -> int:
        """TSval of this peer: milliseconds."""
        return self.net.now // 1000 & MASK32

    def acked(self) -> int:
        """What the peer acknowledges: all that came in order."""
        return self.received.ends[0] if self.received else 0

    def sacked(self, *blocks: tuple[int, int]) -> Sack:
        """A SACK option of relative blocks of the system's sequence space."""
        return Sack(tuple((self.stack_isn + a, self.stack_isn + b) for a, b in blocks))

    # -- what goes -----------------------------------------------------------------------------

    def packet(
        self,
        flags: int,
        *,
        seq: int | None = None,
        ack: int | None = None,
        data: bytes = b"",
        options: Sequence[Emits] = (),
        window: int | None = None,
        urgent: int = 0,
        ecn: int | None = None,
        damage: bool = False,
    ) -> bytes:
        """The bytes `send` would send."""
        seq = self.nxt if seq is None else seq
        if ack is None:
            ack = self.acked() if flags & ACK else 0
        chosen = list(options)
        if self.timestamps and not any(isinstance(o, Timestamps) for o in chosen):
            chosen.insert(0, Timestamps(self.clock(), self.ts_recent))
        block = emit_options([option.emit() for option in chosen])
        header = bytearray(
            _TCP.pack(
                self.port,
                self.local_port,
                (self.isn + seq) & MASK32,
                (self.stack_isn + ack) & MASK32 if flags & ACK else 0,
                (5 + len(block) // 4) << 12 | flags,
                self.window if window is None else window,
                0,
                urgent,
            )
        )
        segment = bytes(header) + block + data
        total = pseudo_sum(self.raw, self.local, 6, len(segment)) + ones_sum(segment)
        checksum = finish(total) ^ (0x5555 if damage else 0)
        segment = segment[:16] + checksum.to_bytes(2, "big") + segment[18:]
        if seq <= self.nxt:  # what lies beyond a hole, or anywhere, is not what comes next
            self.nxt = max(self.nxt, seq + len(data) + (flags & FIN) + (flags >> 1 & 1))
        return self._ip(segment, self.ecn if ecn is None else ecn)

    def _ip(self, segment: bytes, tos: int) -> bytes:
        if len(self.raw) == 16:
            head = _IPV6.pack(6 << 28 | tos << 20, len(segment), 6, 64, self.raw, self.local)
        else:
            fields = [0x45, tos, 20 + len(segment), 0, 0x4000, 64, 6, 0, self.raw, self.local]
            fields[7] = finish(ones_sum(_IPV4.pack(*fields)))
            head = _IPV4.pack(*fields)
        return head + segment

    def send(
        self,
        flags: int,
        *,
        seq: int | None = None,
        ack: int | None = None,
        data: bytes = b"",
        options: Sequence[Emits] = (),
        window: int | None = None,
        urgent: int = 0,
        ecn: int | None = None,
        damage: bool = False,
        at: int | None = None,
    ) -> None:
        """Send a segment now or `at` a time.

        Defaults: the next sequence number, the ACK of all that came in order, the window of before,
        timestamps when agreed. `ecn` is the field of the IP header; `damage` spoils the checksum.
        """
        if at is not None:
            self.net.advance(at)
        self.net.collect()
        start = self.nxt if seq is None else seq
        packet = self.packet(
            flags,
            seq=seq,
            ack=ack,
            data=data,
            options=options,
            window=window,
            urgent=urgent,
            ecn=ecn,
            damage=damage,
        )
        shown = self.acked() if ack is None else ack
        self.net.log.append(
            f"> {self.net.time / 1000:.3f} ms {flag_names(flags)} seq={start} ack={shown} "
            f"len={len(data)} {list(options)}"
        )
        self.net.inject(packet)

    def icmp(self, seen: Seen, kind: IcmpKind, *, mtu: int = 0, shift: int = 0) -> None:
        """A router between us says this of a segment of the system.

        `mtu` of PACKET_TOO_BIG; `shift` is added to the number of the segment it quotes.
        """
        quoted = bytearray(seen.packet)
        at = (20 if len(self.raw) == 4 else 40) + 4
        number = int.from_bytes(quoted[at : at + 4], "big") + shift & MASK32
        quoted[at : at + 4] = number.to_bytes(4, "big")
        if kind is IcmpKind.PACKET_TOO_BIG:
            message = packet_too_big(memoryview(quoted), mtu, self.raw)
        else:
            message = unreachable(memoryview(quoted), self.raw, kind)
        assert message is not None
        self.net.log.append(f"> {self.net.time / 1000:.3f} ms ICMP {kind.value} {mtu or ''}")
        self.net.inject(message)

    # -- what is expected ----------------------------------------------------------------------

    def expect(
        self,
        flags: int | None = None,
        *,
        seq: int | None = None,
        ack: int | None = None,
        length: int | None = None,
        data: bytes | None = None,
        window: int | None = None,
        options: Condition | None = None,
        sack: Sequence[tuple[int, int]] | None = None,
        ecn: int | None = None,
        urgent: int | None = None,
        at: int | None = None,
        within: int | None = None,
        slack: int = 0,
    ) -> Seen:
        """Take the next segment of the system and compare the fields given.

        `slack` is added to the tolerance of `at`, both ways: for a time that is no rule.
        """
        __tracebackhide__ = True
        net = self.net
        net.count()
        net.collect()
        due = at if at is not None else net.time + (within or 0)
        early, late = net.tolerance(due if at is not None else within or 0)
        early += slack
        late += slack
        while not self.queue and net.wait(due + late):
            pass
        if not self.queue:
            net.fail(f"nothing came by {net.time / 1000:.3f} ms")
        seen = self.queue.popleft()
        wanted: dict[str, object] = {}
        got: dict[str, object] = {}
        for name, want, have in (
            ("flags", None if flags is None else flag_names(flags), flag_names(seen.flags & ~PSH)),
            ("seq", seq, seen.seq),
            ("ack", ack, seen.ack),
            ("length", length, len(seen.data)),
            ("data", data, seen.data),
            ("window", window, seen.window),
            ("sack", None if sack is None else tuple(sack), seen.sack),
            ("ecn", ecn, seen.ecn),
            ("urgent", urgent, seen.segment.urgent),
        ):
            if want is not None:
                wanted[name], got[name] = want, have
        if wanted != got:
            net.fail(f"wanted {wanted}, got {got}: {seen}")
        if at is not None and not at - early <= seen.sent_at <= at + late:
            net.fail(f"wanted at {at / 1000:.3f} ms: {seen}")
        if options is not None and not options(seen.options):
            net.fail(f"the options are wrong: {seen}")
        return seen

    def expect_nothing(self, until: int | None = None) -> None:
        """No segment leaves up to the time `until`, or has left by now."""
        __tracebackhide__ = True
        net = self.net
        net.count()
        net.collect()
        if until is not None:
            early, _ = net.tolerance(until)
            while not self.queue and net.wait(until - early):
                pass
        if self.queue:
            net.fail(f"unexpected: {self.queue[0]}")

    def drain(self) -> list[Seen]:
        """Take all that has come by now."""
        self.net.collect()
        seen = list(self.queue)
        self.queue.clear()
        return seen
