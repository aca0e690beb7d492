"""Path MTU of one connection: told by ICMP (RFC 1191, RFC 8201) or found by probes (RFC 4821).

Sizes are whole packets, IP header included. Three sources change the size in use, `mtu`:

  * "Packet too big", when it quotes what is in flight (RFC 5927 §4.1, the caller's check) and can
    be true. It takes effect at once while nothing larger has ever got through; afterwards only if
    the quoted segment times out (RFC 5927 §7.2), so that a forged one does no harm to a connection
    that works.
  * Time-outs of full-sized segments, when nobody tells: a black hole (RFC 2923 §2.1). Then a size
    that practically every path carries is used, and from there the search goes up.
  * Probes upward (RFC 4821 §7): segments of real data, one outstanding; the loss of one is no
    congestion. Every `RAISE_US` after a reduction the path is tried again (RFC 1191 §6.3).

Invariants
  * `floor` <= `mtu` <= `ceiling`, unless the interface or the peer takes less than `floor`.
  * `Sender.mss` is `mtu` less the headers, never above what the peer announced.
  * Idle, it costs one comparison for new data (`next_probe_at`) and one for an ACK (`watching`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mptcp.tcp.allowance import TIMESTAMP_LENGTH, carry, segment_size
from mptcp.tcp.chunks import IN_FLIGHT, LOST, SACKED, SentChunk
from mptcp.tcp.known_mtus import FLOOR_V4, FLOOR_V6, RAISE_US, plateau_below
from mptcp.tcp.recovery import Recovery
from mptcp.tcp.scoreboard import DUP_THRESH
from mptcp.tcp.state import NEVER

if TYPE_CHECKING:
    from mptcp.tcp.connection import TcpConnection

BLACK_HOLE_TIMEOUTS: Final = 3
"""Time-outs in a row of a full-sized segment before its size is held to be the reason: R1 of RFC
1122 §4.2.3.5; Linux looks at about the same time. As often again, and the next smaller base is
tried. To be wrong costs little: the first probe is for the old size."""
MAX_PROBES: Final = 2
"""Losses of a probe of one size before the size is held to be too large: one may be congestion, or
a lossy link (RFC 8899 §5.1.2 has 3 for a probe that carries nothing and delays nobody)."""
SEARCH_STEP: Final = 8
"""The search ends when no more than this can be gained (as Linux)."""

BASE_V4: Final = (1064, 552)
"""Sizes to fall to: Linux's tcp_base_mss of 1024; then its min_pmtu."""
BASE_V6: Final = (1280,)
"""RFC 8200 §5: every IPv6 link carries as much."""


class PathMtu:
    """The path's MTU as one connection sees it."""

    __slots__ = (
        "_acked",
        "_awaited_end",
        "_bases",
        "_failures",
        "_high",
        "_peer_limit",
        "_pending",
        "_pending_seq",
        "_probe_end",
        "_probe_size",
        "_searching",
        "_top_tried",
        "ceiling",
        "floor",
        "headers",
        "mtu",
        "next_probe_at",
        "probe",
        "unproven",
        "watching",
    )

    def __init__(self, is_ipv4: bool, interface_mtu: int) -> None:
        self.headers = 40 if is_ipv4 else 60
        self.floor = FLOOR_V4 if is_ipv4 else FLOOR_V6
        self._bases = BASE_V4 if is_ipv4 else BASE_V6
        self.mtu = interface_mtu
        """Size of the largest packet that is sent."""
        self.ceiling = interface_mtu
        """What the interface and the peer's MSS allow."""
        self._peer_limit = interface_mtu
        self._acked = 0  # largest packet known to have got through since the last reduction
        self.unproven = True
        """No packet of `mtu` bytes has got through or is awaited."""
        self._awaited_end = NEVER  # when SND.UNA gets here, a packet of `mtu` bytes has
        self._pending = 0  # MTU of an ICMP error that waits for a time-out (RFC 5927 §7.2)
        self._pending_seq = 0
        self.probe: SentChunk | None = None
        """The data of the one outstanding probe."""
        self._probe_end = 0
        self._probe_size = 0
        self._high = 0  # largest size that may still be possible (RFC 4821 §7.1: search_high)
        self._searching = False
        self._top_tried = False
        self._failures = 0
        self.next_probe_at = NEVER
        """When a probe may be sent next."""
        self.watching = False
        """Whether ACKs are to be shown to `on_ack`."""

    # -- beginning -----------------------------------------------------------------------------

    def start(self, conn: TcpConnection, peer_mss: int, now: int) -> None:
        """The peer's SYN has come: from its MSS and what is known of the path, the size to use."""
        self._peer_limit = peer_mss + self.headers
        self.ceiling = min(self._peer_limit, conn.interface.mtu)
        self.next_probe_at = NEVER
        mtu = self.ceiling
        known = conn.host.path_mtus.get(conn.local, conn.remote, now)
        if known is not None and known[0] < mtu:
            mtu, self.next_probe_at = known
        elif conn.config.mtu_probing == "on" and mtu > self._bases[0]:
            mtu = self._bases[0]
            self._search_from(now)
        self._use(conn, mtu)

    def on_interface_mtu(self, conn: TcpConnection, mtu: int, now: int) -> None:
        """The interface's MTU is now `mtu`."""
        self.ceiling = min(self._peer_limit, mtu)
        if self.mtu > self.ceiling:
            self._lower(conn, self.ceiling, now)
            self.next_probe_at = NEVER  # there is nothing above
        elif self.mtu < self.ceiling and not self._searching:
            self.next_probe_at = now

    def _use(self, conn: TcpConnection, mtu: int) -> None:
        """Cut segments for `mtu` from now on; what is in flight keeps its mappings."""
        self.mtu = mtu
        self.unproven = True
        self._awaited_end = NEVER
        conn.snd.mss = mtu - self.headers
        carry(conn, segment_size(conn))

    # -- told by a router ----------------------------------------------------------------------

    def too_big(self, conn: TcpConnection, seq: int, mtu: int | None, size: int, now: int) -> bool:
        """A router dropped the packet of `size` bytes that began at `seq`; it can forward `mtu`.

        `seq` is in flight. `mtu` is None from a router of before RFC 1191. False when the message
        is not believed; a believed one may be without effect, or have it later.
        """
        if mtu is None:
            mtu = plateau_below(min(size or self.mtu, self.mtu))
        elif size and mtu >= size:
            return False  # RFC 5927 §7.2: it would have fitted
        if mtu < self.floor:
            if self.floor == FLOOR_V6:
                return False  # RFC 8201 §4: below 1280 it must not have an effect
            mtu = self.floor
        probe = self.probe
        if probe is not None and probe.seq <= seq < self._probe_end:
            if self.mtu <= mtu < self._probe_size:
                # RFC 4821 §7.6.2: the answer to a probe. The router's size is the next to try.
                self._high = mtu
                self._top_tried = False
                self._drop_probe(conn, now)
                self.next_probe_at = now
            if mtu >= self.mtu:
                return mtu < self._probe_size
        if mtu >= self.mtu:
            return False
        if mtu < self._acked:
            # RFC 5927 §7.2: larger ones have got through, so let the segment prove it by its loss.
            self._pending = mtu
            self._pending_seq = seq
            self.watching = True
            conn.host.counters["TcpPathMtuPending"] += 1
            return True
        self._lower(conn, mtu, now)
        return True

    def _lower(self, conn: TcpConnection, mtu: int, now: int) -> None:
        """The path carries `mtu` and no more: adopt it, resend what is larger (RFC 1191 §6.4).

        What was too big is gone but says nothing of congestion: no window is reduced.
        """
        self._use(conn, mtu)
        self._end_probe(conn)
        self._searching = False
        self._acked = 0
        self._pending = 0
        self.watching = False
        self.next_probe_at = now + RAISE_US
        host = conn.host
        host.path_mtus.put(conn.local, conn.remote, mtu, now)
        host.counters["TcpPathMtuReduced"] += 1
        snd = conn.snd
        board = snd.board
        segment = segment_size(conn)
        for chunk in board.chunks[board.head :]:
            if chunk.status == IN_FLIGHT and chunk.end - chunk.seq > segment:
                board.mark_lost(chunk)
                snd.resend_at_once = True
        host.mark_ready(conn)

    # -- black holes ---------------------------------------------------------------------------

    def on_timeout(self, conn: TcpConnection, now: int) -> None:
        """The retransmission timer has expired; everything outstanding is marked lost."""
        snd = conn.snd
        if self.probe is not None:
            # RFC 4821 §7.6.4: with so much lost, the loss of the probe says nothing of its size.
            self._end_probe(conn)
            self.next_probe_at = now
        if self._pending:
            self._lower(conn, self._pending, now)
            return
        known = conn.host.path_mtus.get(conn.local, conn.remote, now)
        if known is not None and known[0] < self.mtu:
            self._lower(conn, known[0], now)  # another connection has found out
            return
        if snd.timeouts < BLACK_HOLE_TIMEOUTS or conn.config.mtu_probing == "off":
            return
        smaller = [base for base in self._bases if base < self.mtu]
        step = 1 + len(self._bases) - len(smaller)
        if not smaller or snd.timeouts < step * BLACK_HOLE_TIMEOUTS:
            return
        base = smaller[0]
        first = snd.board.first()
        if first.end - first.seq <= base - self.headers - self._options(conn):
            return  # a small segment does not get through either: it is not the size
        conn.host.counters["TcpMtuBlackHoles"] += 1
        high = self.mtu
        self._lower(conn, base, now)
        self._search_from(now)
        self._high = high

    # -- the search (RFC 4821 §7) --------------------------------------------------------------

    def _search_from(self, now: int) -> None:
        """Search between the size in use and the ceiling."""
        self._high = self.ceiling
        self._searching = True
        self._top_tried = False
        self._failures = 0
        self.next_probe_at = now

    def _options(self, conn: TcpConnection) -> int:
        return conn.extra_options_length() + (TIMESTAMP_LENGTH if conn.ts_ok else 0)

    def _next_size(self) -> int:
        """The size to probe, 0 when the search is over.

        The top first: it is right when the black hole was none or has gone. Then halves.
        """
        if self._high - self.mtu < (1 if not self._top_tried else SEARCH_STEP):
            return 0
        return self._high if not self._top_tried else (self.mtu + self._high + 1) // 2

    def _due_payload(self, conn: TcpConnection, now: int) -> int:
        """Payload of the probe that is due, 0 for none."""
        snd = conn.snd
        if self.probe is not None or snd.timeouts or snd.board.sacked:
            return 0
        if snd.recovery is not Recovery.OPEN:
            return (
                0  # RFC 4821 §7.4: its loss must stand out, and what recovery sends must not wait
            )
        if not self._searching:
            if self.mtu >= self.ceiling:
                self.next_probe_at = NEVER
                return 0
            if conn.config.mtu_probing == "off":
                # RFC 1191 §6.3: simply use the larger size, and see what the routers say.
                self.next_probe_at = NEVER
                self._use(conn, self.ceiling)
                return 0
            self._search_from(now)
        self._high = min(self._high, self.ceiling)
        size = self._next_size()
        if not size:
            self._searching = False
            self.next_probe_at = now + RAISE_US if self.mtu < self.ceiling else NEVER
            return 0
        return size - self.headers - self._options(conn)

    def due(self, conn: TcpConnection, available: int, window: int, now: int) -> int:
        """Payload of the probe to send now, -1 to wait for room for one, 0 to go on without.

        To be asked from `next_probe_at` on. Nothing waits unless ACKs are on their way.
        """
        payload = self._due_payload(conn, now)
        if not payload:
            return 0
        segment = segment_size(conn)
        snd = conn.snd
        needed = payload + DUP_THRESH * segment  # RFC 4821 §7.4: so that its loss is seen quickly
        if payload <= segment or min(available, snd.wnd, snd.cc.cwnd) < needed:
            return 0
        if min(window, snd.congestion_room()) >= payload:
            return payload
        return -1 if snd.board else 0

    def on_probe_sent(self, conn: TcpConnection, chunk: SentChunk) -> None:
        """The data of a probe goes out."""
        self.probe = chunk
        self._probe_end = chunk.end
        self._probe_size = chunk.end - chunk.seq + self.headers + self._options(conn)
        conn.snd.spared = (chunk.seq, chunk.end)
        self.next_probe_at = NEVER
        self.watching = True

    def on_unproven(self, chunk: SentChunk) -> None:
        """Full-sized data goes out, and none of that size has been acknowledged yet."""
        self._awaited_end = chunk.end
        self.unproven = False
        self.watching = True

    def is_probe(self, chunk: SentChunk | None) -> bool:
        """Whether the chunk goes out in one packet, larger than the others."""
        return chunk is not None and chunk is self.probe and not chunk.resent

    def on_ack(self, conn: TcpConnection, now: int) -> None:
        """An ACK was processed, while `watching`."""
        snd = conn.snd
        una = snd.una
        if una >= self._awaited_end:
            self._awaited_end = NEVER
            self._acked = self.mtu
        if self._pending and una > self._pending_seq:
            self._pending = 0  # RFC 5927 §7.2: it was delivered after all
        probe = self.probe
        if probe is not None:
            if probe.resent or (probe.status == LOST and una < self._probe_end):
                self._probe_failed(conn, now)
            elif una >= self._probe_end or probe.status == SACKED:
                self._probe_arrived(conn, now)
        self.watching = bool(self._pending or self.probe is not None or self._awaited_end != NEVER)

    def _probe_arrived(self, conn: TcpConnection, now: int) -> None:
        """RFC 4821 §7.6.1: the path carries the size."""
        self._end_probe(conn)
        host = conn.host
        host.counters["TcpExtTCPMTUPSuccess"] += 1
        self._top_tried = self._top_tried or self._probe_size >= self._high
        self._use(conn, self._probe_size)
        self._acked = self.mtu
        self.unproven = False
        self._failures = 0
        self.next_probe_at = now
        if self.mtu < self.ceiling:
            host.path_mtus.put(conn.local, conn.remote, self.mtu, now)
        else:
            host.path_mtus.forget(conn.local, conn.remote)

    def _probe_failed(self, conn: TcpConnection, now: int) -> None:
        """RFC 4821 §7.6.2: it was lost, and it alone or first."""
        conn.host.counters["TcpExtTCPMTUPFail"] += 1
        self._failures += 1
        if self._failures >= MAX_PROBES:
            self._failures = 0
            self._high = self._probe_size - 1
            self._top_tried = True
        self._drop_probe(conn, now)
        self.next_probe_at = now + 2 * conn.snd.rtt.srtt

    def _drop_probe(self, conn: TcpConnection, now: int) -> None:
        """The probe did not arrive: send its data again at once, in segments of the size in use."""
        snd = conn.snd
        probe = self.probe
        if probe is not None:
            for chunk in snd.board.chunks[snd.board.head :]:
                if chunk.seq >= self._probe_end:
                    break
                if chunk.status == IN_FLIGHT and not chunk.resent and chunk.seq >= probe.seq:
                    snd.board.mark_lost(chunk)
            snd.resend_at_once = True
            conn.host.mark_ready(conn)
        self._end_probe(conn)

    def _end_probe(self, conn: TcpConnection) -> None:
        self.probe = None
        conn.snd.spared = None
