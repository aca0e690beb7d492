"""A stack under attack in virtual time, and the rules that hold whatever a peer sends.

Invariants that `Violation` reports
  * Nothing escapes `handle_packet`, and a packet that parses is not dropped as if it did not: the
  only exception that bytes of a peer raise inside is the parser's (`ParseError`).
  * The stack's memory stays within its `Config` (`soak.bounds`).
  * What is acknowledged was sent: the last byte of every ACK, and no more data than came at all.
  * SND.UNA, SND.NXT and their like are in order at both levels; windows and time-outs are positive.
  * Packets out: whole, with right checksums, without bad options, within the MTU, and in bounded
  number for each packet in.
  * Timers: each call of `handle_timeout` at a deadline moves on; none is in the past for ever.
  * Events: `Closed` once for each connection the application knows, and nothing after it.
  * When the peers fall silent, no connection waits for ever to deliver something or to close.
  * In the end the stack still opens connections and moves data, and forgets what has ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from mptcp.errors import ConnectionEnd
from mptcp.events import Accepted, Closed, Connected, Event
from mptcp.meta_socket import MetaSocket
from mptcp.stack import Offload
from mptcp.tcp.host import Transmit
from mptcp.tcp.ranges import RangeSet
from mptcp.wire.errors import ParseError
from mptcp.wire.ip import TCP, parse_ip
from mptcp.wire.mptcp_options import MpCapable, MpJoinSyn, MpJoinSynAck
from mptcp.wire.seq import unwrap
from mptcp.wire.tcp import ACK, FIN, RST, SYN, Segment, parse_segment
from soak.bounds import Peaks, check
from soak.program import Failure
from tests.peer import Peer
from tests.virtual import Wire, seconds

BURST: Final = 20_000
"""Packets out in answer to one call: beyond any window here."""
CALLS: Final = 20_000
"""Timer calls within one step of the clock."""
PATIENCE_US: Final = 2 * 3600 * 1_000_000
"""Longer than any number of retransmissions takes (RFC 1122 §4.2.3.5: R2 is minutes)."""
MASK32: Final = 0xFFFFFFFF
KEPT: Final = 16
"""Packets of either side that may be sent again, or back."""


class Violation(AssertionError):
    """A rule above does not hold."""


class FuzzPeer(Peer):
    """A peer that expects nothing: it only keeps the numbers by which to forge good segments."""

    wild = False
    """Set after the handshake, which is a proper one."""
    stack_end = 1
    """Relative: after the last byte the stack has sent."""
    stack_ack = 0
    """Relative: the last acknowledgement of the stack."""
    right_edge = 65536
    """Relative: after the last byte the stack would take."""
    stack_nonce = b"\0\0\0\0"

    def __init__(self, wire: FuzzWire, **options: Any) -> None:
        super().__init__(wire, **options)
        self.fuzz = wire
        self.spoken = RangeSet()
        """Sequence numbers, relative, that segments of this flow have had, SYN and FIN included."""

    def note(self, seg: Segment) -> None:
        """A segment of this flow, from whatever operation."""
        start = (seg.seq - self.isn) & MASK32
        end = start + len(seg.payload) + (seg.flags & FIN) + (seg.flags >> 1 & 1)
        if end > start:
            self.spoken.add(start, end)
            if end > MASK32:
                self.spoken.add(0, end & MASK32)

    def check_ack(self, seg: Segment) -> None:
        """RFC 9293 §3.4: an ACK speaks of bytes that have come."""
        last = (seg.ack - self.isn - 1) & MASK32
        if self.fuzz.exact and self.spoken.containing(last) is None:
            raise Violation(f"ACK of {last}, which was never sent: {seg}")

    def arrived(self, seg: Segment, raw: bytes, gso_size: int, headers: int) -> None:
        """See `Flow`."""
        for option in seg.mptcp:
            if isinstance(option, MpJoinSyn | MpJoinSynAck):
                self.stack_nonce = option.nonce
            elif isinstance(option, MpCapable) and option.sender_key is not None:
                self.data.stack_key = option.sender_key
                self.data.stack_idsn = self.wire.stack.idsn(option.sender_key)
        if not self.wild:
            super().arrived(seg, raw, gso_size, headers)
        elif seg.flags & SYN:
            self.stack_isn = seg.seq
        if seg.ts_val >= 0:
            self.ts_recent = seg.ts_val
        if seg.flags & (ACK | RST) == ACK:
            self.check_ack(seg)
        if not seg.flags & RST:
            seq = unwrap((seg.seq - self.stack_isn) & MASK32, self.stack_end)
            end = seq + len(seg.payload) + (seg.flags & FIN) + (seg.flags >> 1 & 1)
            if end > self.stack_end or seg.flags & SYN:
                self.stack_end = end
            if seg.flags & ACK:
                self.stack_ack = unwrap((seg.ack - self.isn) & MASK32, self.nxt)
                self.right_edge = self.stack_ack + (seg.window << self.stack_wscale)
        if seg.dss is not None and seg.dss.dsn is not None and seg.dss.length:
            dsn = seg.dss.dsn
            level = self.data
            near = level.received.ends[-1] if level.received else 1
            start = unwrap(dsn - level.stack_idsn & MASK32, near)
            if 0 < start < 1 << 40:
                level.received.add(start, start + seg.dss.length)


class FuzzWire(Wire):
    """The stack, its clock and its application, every call followed by the rules."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.peaks = Peaks()
        self.sent: deque[bytes] = deque(maxlen=KEPT)
        """The stack's last packets."""
        self.injected: deque[bytes] = deque(maxlen=KEPT)
        self.known: dict[MetaSocket, ConnectionEnd | None] = {}
        """Connections the application has been told of, or has opened, and how they ended."""
        self.packets = 0
        """Packets of the stack since the last packet in."""
        self.payload = 0
        """Bytes of payload that have come, in whatever order and however often."""
        self.exact = True
        """Every segment was seen whole: no fragments yet."""
        self.tap: Callable[[int, bytes], None] | None = None
        """Gets each packet of the stack and its interface."""

    # -- out -------------------------------------------------------------------------------------

    def _sent(self, transmit: Transmit) -> None:
        self.packets += 1
        if self.packets > BURST:
            raise Violation(f"{self.packets} packets in answer to one call")
        packet = memoryview(transmit.packet())
        self.sent.append(bytes(packet[:200]))
        try:
            super()._sent(transmit)
        except ParseError as error:
            raise Violation(f"the stack sent {bytes(packet).hex()}: {error}") from error
        if self.tap is not None:
            self.tap(transmit.interface, bytes(packet))
        self.raw.clear()
        self.log.clear()
        for peer in self.peers:
            if isinstance(peer, FuzzPeer) and peer.wild:
                peer.queue.clear()

    def flush(self) -> None:
        """See `Wire`; events are judged at once."""
        super().flush()
        for event in self.events:
            self._judge(event)
        self.events.clear()

    def _judge(self, event: Event) -> None:
        connection = event.connection
        if self.known.get(connection) is not None:
            raise Violation(f"{event} after the end")
        if isinstance(event, Connected | Accepted):
            self.known[connection] = None
        elif isinstance(event, Closed):
            # docs/stack-api.md: a handshake that fails with a listener is told as well.
            if connection not in self.known and connection.listener is None:
                raise Violation(f"{event} of a connection nobody knows")
            self.known[connection] = event.end

    # -- in --------------------------------------------------------------------------------------

    def inject(self, packet: bytes, interface: int = 1, offload: Offload | None = None) -> None:
        """See `Wire`; what is sent is noted, that of proper handshakes too."""
        self._note(packet)
        super().inject(packet, interface, offload)

    def _note(self, packet: bytes) -> None:
        view = memoryview(packet)
        try:
            ip = parse_ip(view)
            if ip.is_fragment:
                self.exact = False
                self.payload += len(packet)
                return
            if ip.protocol != TCP:
                return
            seg = parse_segment(view, ip, verify_checksum=False)
        except ParseError:
            return
        self.payload += len(seg.payload)
        for peer in self.peers:
            if isinstance(peer, FuzzPeer) and (peer.address, peer.port) == (seg.src, seg.sport):
                peer.note(seg)

    def attack(self, packet: bytes, interface: int = 1, offload: Offload | None = None) -> None:
        """A packet of the peer, with the rules."""
        self.injected.append(packet)
        self.packets = 0
        counters = self.stack.counters
        before = counters["IpInHdrErrors"]
        good = _parses(packet)
        self.inject(packet, interface, offload)
        if good and counters["IpInHdrErrors"] != before:
            raise Violation(f"a packet that parses was dropped as if it did not: {packet.hex()}")
        self.judge()

    def judge(self) -> None:
        """The rules that hold at any time."""
        try:
            check(self.stack, self.peaks)
        except Failure as failure:
            raise Violation(str(failure)) from failure
        for meta in self.stack.metas:
            tx, rx = meta.tx, meta.rx
            if not tx.una <= tx.nxt:
                raise Violation(f"{meta}: {tx.una} acknowledged, {tx.nxt} next")
            if meta.remote_key and rx.nxt - meta.remote_idsn - 1 > self.payload + 1:
                raise Violation(f"{meta}: {rx.nxt - meta.remote_idsn - 1} bytes of {self.payload}")
        for connection in self.stack.connections.values():
            snd = connection.snd
            if not snd.iss <= snd.una <= snd.nxt:
                raise Violation(f"{connection}: SND.UNA {snd.una}, SND.NXT {snd.nxt}")
            if snd.wnd < 0 or snd.cc.cwnd <= 0 or snd.rtt.rto <= 0 or snd.mss <= 0:
                raise Violation(f"{connection}: {snd.wnd} {snd.cc.cwnd} {snd.rtt.rto} {snd.mss}")
        for meta, end in self.known.items():
            if end is None and meta not in self.stack.metas:
                raise Violation(f"{meta} is gone without a word: {meta.ended}")

    def pass_time(self, microseconds: int) -> None:
        """Let the clock run, timers included, with the rules."""
        end = self.now + microseconds
        calls = 0
        self.flush()
        while (due := self.stack.poll_timeout()) is not None and due <= end:
            calls += 1
            if calls > CALLS:
                raise Violation(f"{calls} timer calls in {microseconds} us")
            self.now = max(self.now, due)
            self.packets = 0
            self.stack.handle_timeout(self.now)
            self.flush()
            following = self.stack.poll_timeout()
            if following is not None and following < self.now:
                raise Violation(f"a timer of {following} at {self.now}")
        self.now = end
        self.stack.handle_timeout(end)
        self.flush()
        self.judge()

    # -- the end ---------------------------------------------------------------------------------

    def finish(self) -> None:
        """The stack serves a new client, and forgets the old ones."""
        for interface in self.interfaces:
            if interface.id not in self.stack.book.interfaces:
                self.stack.interface_up(self.now, interface)
        self.pass_time(seconds(3))
        self._serve()
        self._silence()
        for connection in list(self.known):
            connection.abort()  # what nobody has been told of ends by itself
            connection.recv()
        self.pass_time(seconds(3600))
        stack = self.stack
        for what in (stack.connections, stack.metas, stack.tokens):
            if what:
                raise Violation(f"an hour after the end there is still {what}")
        if any(listener.half_open for listener in stack.listeners.values()):
            raise Violation("half-open connections are left")
        if stack.poll_timeout() is not None:
            raise Violation(f"a timer at {stack.poll_timeout()} without a connection")

    def _silence(self) -> None:
        """The peers say no more: what has something to deliver, or is closed, gives up."""
        self.pass_time(PATIENCE_US)
        for meta in self.stack.metas:
            waits = meta.tx.used > 0 or meta.app_closed or not meta.established
            if waits and meta.ended is None:
                raise Violation(f"{meta} waits for ever: {meta.subflows}")

    def _serve(self) -> None:
        """A stranger connects, both send, and all arrives."""
        interface = self.interfaces[0]
        own = interface.addresses[0][0]
        text = ".".join(map(str, own)) if len(own) == 4 else _text6(own)
        other = "10.0.0.77" if len(own) == 4 else "fd00::77"
        listener = self.stack.listen(0)
        stranger = FuzzPeer(self, address=other, port=50_000, local=text)
        stranger.local_port = listener.port
        stranger.received = RangeSet()
        connection = stranger.handshake(active=False, timestamps=True)
        stranger.wild = True
        self.flush()
        try:
            assert connection.send(b"answer") == 6
            stranger.send(ACK, data=b"question")
            self.pass_time(seconds(1))
            assert connection.recv() == b"question"
            assert stranger.stack_end == 7
        except AssertionError as error:
            raise Violation("a new connection does not work afterwards") from error


def _text6(address: bytes) -> str:
    return ":".join(address[at : at + 2].hex() for at in range(0, 16, 2))


def _parses(packet: bytes) -> bool:
    """A whole TCP segment that the parser takes."""
    try:
        view = memoryview(packet)
        ip = parse_ip(view)
        if ip.protocol != TCP or ip.is_fragment:
            return False
        parse_segment(view, ip, verify_checksum=False)
    except ParseError:
        return False
    return True
