"""How much may go now: the size of segments and chunks, and of the next new data.

The same answer serves the scheduler, which asks before it chooses (`sendable`), and `output`, which
sends (`new_size`): what one promises and the other withholds would have each wait for the other.
Only `carry` changes a connection, and the path MTU's search, which moves on when it is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mptcp.tcp.state import CAN_SEND
from mptcp.tcp.undo import Frto

if TYPE_CHECKING:
    from mptcp.tcp.connection import TcpConnection

MAX_OPTIONS: Final = 40
MAX_CHUNK: Final = 65535 - 40 - 20 - MAX_OPTIONS
"""Payload of one chunk: an IPv6 packet with all TCP options stays below 64 KiB, and a mapping below
65,536 bytes (RFC 8684 §3.3: Data-Level Length is 16 bits)."""
TIMESTAMP_LENGTH: Final = 12


def chunk_limit(conn: TcpConnection, segment: int) -> int:
    """How many payload bytes one transmit may carry.

    max(2 MSS, min(cwnd / 2, pacing rate * 1 ms)): a slow path must not be hit by a burst of 64
    KiB. The pacing rate is Linux's: twice cwnd/SRTT in slow start, 1.2 times after.
    """
    if not conn.interface.offload:
        return segment
    snd = conn.snd
    cwnd = snd.cc.cwnd
    srtt = snd.rtt.srtt or 1000
    per_ms = cwnd * (2000 if snd.cc.in_slow_start else 1200) // srtt
    limit = min(MAX_CHUNK, max(2 * segment, min(cwnd >> 1, per_ms)))
    return max(limit - limit % segment, segment)  # a segment may be larger than MAX_CHUNK


def segment_size(conn: TcpConnection) -> int:
    """Payload of a full-sized segment: the MSS less the options of data (RFC 6691 §3)."""
    return conn.snd.mss - conn.extra_options_length() - (TIMESTAMP_LENGTH if conn.ts_ok else 0)


def carry(conn: TcpConnection, smss: int) -> None:
    """Full-sized segments carry `smss` bytes from now on: RFC 5681 §2's SMSS, options excluded.

    Windows are counted in it (Linux counts in `mss_cache`). It follows the path MTU and the
    options that data has: timestamps, a DSS of 32 or 64 bits, none after a fallback.
    """
    cc = conn.cc
    conn.snd.smss = cc.mss = smss
    if not conn.snd.bytes_sent and cc.cwnd == cc.initial_window:
        cc.cwnd = cc.initial_window = conn.initial_window(smss)
    elif cc.cwnd < smss:
        cc.cwnd = smss  # RFC 8201 §5.4: the window stays as it is, but it has to hold one segment


def sendable(conn: TcpConnection, now: int) -> int:
    """New bytes the connection would send, by every rule but pacing and the upper layer's choice.

    Pacing is for milliseconds and has a timer: whom the scheduler prefers is worth waiting for.
    """
    # What `_poll_data` would not send now must not be promised here: the scheduler would wait for
    # this subflow and this subflow for the scheduler.
    snd = conn.snd
    if snd.undo.frto is Frto.PROBING:
        return frto_size(conn, segment_size(conn))
    if snd.congestion_room() <= 0:
        return 0
    available = conn.queued()
    if available <= 0 or conn.state not in CAN_SEND or snd.board.next_lost() is not None:
        return 0
    return new_size(conn, available, segment_size(conn), conn.send_window(), now)[0]


def new_size(
    conn: TcpConnection, available: int, segment: int, window: int, now: int
) -> tuple[int, int]:
    """How much new data may go, pacing aside: for `sendable`, and for `_poll_data` that keeps it.

    The second is the size of the path MTU probe that is due (-1: it waits for room), 0 for none.
    """
    if now >= conn.pmtu.next_probe_at and (probe := conn.pmtu.due(conn, available, window, now)):
        return max(probe, 0), probe
    room = min(window, conn.snd.congestion_room(), chunk_limit(conn, segment))
    return whole_segments(conn, available, room, segment), 0


def frto_size(conn: TcpConnection, segment: int) -> int:
    """Payload of F-RTO's next new segment, whatever the congestion window says; 0 for none."""
    if conn.snd.undo.frto_left <= 0 or conn.state not in CAN_SEND:
        return 0
    return max(0, min(conn.queued(), conn.send_window(), segment))


def whole_segments(conn: TcpConnection, available: int, room: int, segment: int) -> int:
    """Sender's silly-window avoidance and Nagle (RFC 9293 §3.8.6.2.1, §3.7.4)."""
    size = min(available, room)
    if size <= 0:
        return 0
    if size >= segment:
        if size == available and conn.nodelay:
            return size
        return size - size % segment
    snd = conn.snd
    if size == available:
        if conn.nodelay or conn.fin_queued or not snd.board:
            return size
        return 0
    # (3) half of the largest window; (4) the override time-out is the persist timer's.
    if size >= snd.wnd_max // 2 or (conn.probe_pending and not snd.board):
        return size
    return 0
