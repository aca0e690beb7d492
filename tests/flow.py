"""A flow of raw segments between a test and one `Stack`: sending, receiving, relative numbers.

`tests.peer` adds the handshakes and explains the vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NoReturn

from mptcp import keys
from mptcp.addressing import parse_address
from mptcp.tcp.ranges import RangeSet
from mptcp.wire.dss import Dss
from mptcp.wire.mptcp_options import MpCapable
from mptcp.wire.seq import unwrap
from mptcp.wire.tcp import (
    ACK,
    FIN,
    RST,
    SYN,
    HeaderTemplate,
    Segment,
    emit_options,
    flag_names,
)
from tests.options import (
    Condition,
    Emits,
    Sack,
    Timestamps,
    options_of,
)
from tests.virtual import PEER_KEY, Seen, Wire

MASK32 = 0xFFFFFFFF
MASK64 = 0xFFFFFFFFFFFFFFFF
PSH = 8


class DataLevel:
    """What both ends know of one MPTCP connection, shared by the peers that are its subflows."""

    def __init__(self, key: bytes, idsn: int | None) -> None:
        self.key = key
        self.idsn = keys.idsn(key) if idsn is None else idsn
        self.stack_key = b""
        self.stack_idsn = 0
        self.nxt = 1
        """Next relative DSN the peer sends."""
        self.received = RangeSet()
        """Relative DSNs that came from the stack."""

    @property
    def data_ack(self) -> int:
        """Relative DATA_ACK of the peer."""
        block = self.received.containing(1)
        return block[1] if block else 1


class Flow:
    """One flow of the scripted host: `address`:`port` talking to the stack's `local`."""

    def __init__(
        self,
        wire: Wire,
        *,
        address: str = "10.0.0.2",
        port: int = 80,
        local: str = "10.0.0.1",
        local_port: int = 0,
        isn: int = 0x3000_0000,
        interface: int = 1,
        key: bytes = PEER_KEY,
        idsn: int | None = None,
    ) -> None:
        """`local_port` 0: learned from the stack's SYN."""
        self.wire = wire
        self.address = parse_address(address)
        self.port = port
        self.local = parse_address(local)
        self.local_port = local_port
        self.isn = isn
        self.interface = interface
        self.data = DataLevel(key, idsn)
        self.queue: deque[Seen] = deque()
        self.stack_isn = 0
        self.nxt = 0
        """Next relative sequence number to send."""
        self.received = RangeSet()
        self.window = 65535
        self.wscale = 0
        """Shift of the window fields this peer sends."""
        self.stack_wscale = 0
        self.timestamps = False
        self.ts_recent = 0
        self.mptcp = False
        self.local_nonce = b"\xb1\xb2\xb3\xb4"
        self.edge = 0
        self.own_data: list[tuple[int, int]] = []
        """Relative DSN ranges that came on this flow, the DATA_FIN included."""
        wire.peers.append(self)

    # -- what the stack sends ------------------------------------------------------------------

    def arrived(self, seg: Segment, raw: bytes, gso_size: int, headers: int) -> None:
        """Called by the wire for each segment of the stack."""
        if seg.flags & SYN:
            self.stack_isn = seg.seq
            self.stack_wscale = seg.wscale if seg.wscale is not None else 0
            self.received = RangeSet()
            self.received.add(0, 1)
        near = self.received.ends[-1] if self.received else 0
        seq = unwrap((seg.seq - self.stack_isn) & MASK32, near)
        ack = unwrap((seg.ack - self.isn) & MASK32, self.nxt) if seg.flags & ACK else 0
        if seg.ts_val >= 0:
            self.ts_recent = seg.ts_val
        seen = Seen(
            self.wire.time,
            seg.flags,
            seq,
            ack,
            seg.window,
            bytes(seg.payload),
            options_of(seg),
            raw,
            tuple((self._own(left), self._own(right)) for left, right in seg.sack),
            self._relative(seg.dss),
            gso_size,
            headers,
            seg,
        )
        if seen.end > seq and not seg.flags & RST:
            self.received.add(seq, seen.end)
        self._learn(seen)
        if seg.flags & (ACK | SYN | RST) == ACK and not self.mptcp:
            edge = ack + (seg.window << self.stack_wscale)
            # RFC 7323 §2.4: rounding may take back up to one unit of the scale.
            assert edge > self.edge - (1 << self.stack_wscale), "the window shrank"
            self.edge = max(edge, self.edge)
        self.wire.log.append(f"  < {seen}")
        self.queue.append(seen)

    def _own(self, wire_number: int) -> int:
        """A number of this peer's sequence space, relative."""
        return unwrap((wire_number - self.isn) & MASK32, self.nxt)

    def _relative(self, dss: Dss | None) -> Dss | None:
        if dss is None:
            return None
        data = self.data
        ack = dss.data_ack
        if ack is not None:
            mask = MASK64 if dss.data_ack_64 else MASK32
            ack = unwrap((ack - data.idsn) & mask, data.nxt, 64 if dss.data_ack_64 else 32)
        dsn = dss.dsn
        if dsn is not None:
            mask = MASK64 if dss.dsn_64 else MASK32
            near = data.received.ends[-1] if data.received else 1
            dsn = unwrap((dsn - data.stack_idsn) & mask, near, 64 if dss.dsn_64 else 32)
        return Dss(
            ack,
            dss.data_ack_64,
            dsn,
            dss.dsn_64,
            dss.ssn,
            dss.length,
            dss.checksum,
            dss.data_fin,
        )

    def _learn(self, seen: Seen) -> None:
        ranges = []
        for option in seen.options:
            if isinstance(option, MpCapable) and option.sender_key is not None:
                self.data.stack_key = option.sender_key
                self.data.stack_idsn = self.wire.stack.idsn(option.sender_key)
                if option.data_length:  # it maps SSN 1 to DSN 1
                    ranges.append((seen.seq, seen.seq + len(seen.data)))
        dss = seen.dss
        if dss is not None and dss.dsn is not None and dss.length:
            if seen.data:
                start = dss.dsn + (seen.seq - dss.ssn)
                ranges.append((start, start + len(seen.data)))
            if dss.data_fin:
                ranges.append((dss.dsn + dss.length - 1, dss.dsn + dss.length))
        for start, end in ranges:
            self.data.received.add(start, end)
        self.own_data += ranges

    # -- what the peer sends -------------------------------------------------------------------

    def acked(self) -> int:
        """The relative ACK number of the peer: all that came in order."""
        return self.received.ends[0] if self.received else 0

    def dss(
        self,
        *,
        data_ack: int | None = None,
        dsn: int | None = None,
        ssn: int = 0,
        length: int = 0,
        data_fin: bool = False,
        ack_64: bool = True,
        dsn_64: bool = True,
        checksum: int | None = None,
    ) -> Dss:
        """A DSS from relative numbers."""
        data = self.data
        if data_ack is not None:
            data_ack = (data.stack_idsn + data_ack) & (MASK64 if ack_64 else MASK32)
        if dsn is not None:
            dsn = (data.idsn + dsn) & (MASK64 if dsn_64 else MASK32)
        return Dss(data_ack, ack_64, dsn, dsn_64, ssn, length, checksum, data_fin)

    def packet(
        self,
        flags: int,
        *,
        seq: int | None = None,
        ack: int | None = None,
        data: bytes = b"",
        options: Sequence[Emits] = (),
        window: int | None = None,
        tos: int = 0,
    ) -> bytes:
        """The bytes `send` would send, without sending them."""
        seq = self.nxt if seq is None else seq
        if ack is None:
            ack = self.acked() if flags & ACK else 0
        chosen = list(options)
        if self.timestamps and not any(isinstance(o, Timestamps) for o in chosen):
            chosen.insert(0, Timestamps(self.wire.now // 1000, self.ts_recent))
        if self.mptcp and not flags & (SYN | RST) and not any(o.emit()[0] == 30 for o in chosen):
            chosen.append(self._auto_dss(seq, data))
        template = HeaderTemplate(self.address, self.local, self.port, self.local_port)
        header = template.build(
            (self.isn + seq) & MASK32,
            (self.stack_isn + ack) & MASK32 if flags & ACK else 0,
            flags,
            self.window if window is None else window,
            emit_options([option.emit() for option in chosen]),
            len(data),
            tos=tos,
        )
        template.finish_checksum(header, [data])
        self.nxt = max(self.nxt, seq + len(data) + (flags & FIN) + (flags >> 1 & 1))
        return bytes(header) + data

    def _auto_dss(self, seq: int, data: bytes) -> Dss:
        level = self.data
        if not data:
            return self.dss(data_ack=level.data_ack)
        dsn = level.nxt
        level.nxt += len(data)
        return self.dss(data_ack=level.data_ack, dsn=dsn, ssn=seq, length=len(data))

    def send(
        self,
        flags: int,
        *,
        seq: int | None = None,
        ack: int | None = None,
        data: bytes = b"",
        options: Sequence[Emits] = (),
        window: int | None = None,
        tos: int = 0,
        at: int | None = None,
    ) -> None:
        """Send a segment now or `at` a time.

        Defaults: the next sequence number, the ACK of all that came in order, the window of before,
        timestamps when agreed, and with MPTCP a DSS that maps `data` at the next DSN.
        """
        if at is not None:
            self.wire.advance(at)
        self.wire.flush()
        packet = self.packet(
            flags, seq=seq, ack=ack, data=data, options=options, window=window, tos=tos
        )
        shown = self.nxt - len(data) if seq is None else seq
        self.wire.log.append(
            f"> {self.wire.time / 1000:.3f} ms {flag_names(flags)} seq={shown} ack={ack} "
            f"len={len(data)} {list(options)}"
        )
        self.wire.inject(packet, self.interface)

    # -- what the peer expects -----------------------------------------------------------------

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
        data_ack: int | None = None,
        dsn: int | None = None,
        at: int | None = None,
        within: int | None = None,
    ) -> Seen:
        """Take the next segment of the stack and compare the fields given (PSH is ignored)."""
        __tracebackhide__ = True
        self.wire.flush()
        limit = at if at is not None else self.wire.time + (within or 0)
        while not self.queue:
            due = self.wire.next_timer()
            if due is None or due > limit:
                self._fail("nothing came")
            else:
                self.wire.advance(max(due, self.wire.time))
        seen = self.queue.popleft()
        wanted: dict[str, object] = {}
        got: dict[str, object] = {}
        dss = seen.dss
        for name, want, have in (
            ("flags", None if flags is None else flag_names(flags), flag_names(seen.flags & ~PSH)),
            ("seq", seq, seen.seq),
            ("ack", ack, seen.ack),
            ("length", length, len(seen.data)),
            ("data", data, seen.data),
            ("window", window, seen.window),
            ("sack", None if sack is None else tuple(sack), seen.sack),
            ("data_ack", data_ack, dss.data_ack if dss else None),
            ("dsn", dsn, dss.dsn if dss else None),
            ("at", at, seen.sent_at),
        ):
            if want is not None:
                wanted[name], got[name] = want, have
        if wanted != got:
            self._fail(f"wanted {wanted}, got {got}: {seen}")
        if options is not None and not options(seen.options):
            self._fail(f"the options are wrong: {seen}")
        return seen

    def expect_nothing(self, until: int | None = None) -> None:
        """No segment comes up to and at the time `until`, or has come by now."""
        __tracebackhide__ = True
        if until is None:
            self.wire.flush()
        else:
            self.wire.advance(until)
        if self.queue:
            self._fail(f"unexpected: {self.queue[0]}")

    def drain(self) -> list[Seen]:
        """Take all that has come by now."""
        self.wire.flush()
        seen = list(self.queue)
        self.queue.clear()
        return seen

    def _fail(self, why: str) -> NoReturn:
        __tracebackhide__ = True
        transcript = "\n".join(self.wire.log[-30:])
        raise AssertionError(f"{why}\n--- the last segments ---\n{transcript}")

    def sacked(self, *blocks: tuple[int, int]) -> Sack:
        """A SACK option of relative blocks of the stack's sequence space."""
        return Sack(tuple((self.stack_isn + a, self.stack_isn + b) for a, b in blocks))
