"""Urgent data that comes in (RFC 9293 §3.8.5 with RFC 6093): part of the stream, and told of.

The pointer names the octet after the urgent data, which is what every TCP sends (RFC 6093 §2.2,
against RFC 1122's letter). The data stays in line, as RFC 6093 §3 has it; nothing is taken out of
the stream. Nothing urgent is sent: new applications are not to use it (RFC 6093 §6), asyncio has no
call for it, and neither has MPTCP a pointer at data level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mptcp.tcp.connection import TcpConnection
    from mptcp.wire.tcp import Segment


def urgent_arrives(conn: TcpConnection, seg: Segment, seq: int) -> None:
    """RFC 9293 §3.10.7.4 sixth: RCV.UP <- max(RCV.UP, SEG.UP), and tell the user if it is ahead."""
    pointer = seq + seg.urgent
    if pointer > conn.rcv_up and pointer > conn.rcv_nxt:
        conn.rcv_up = pointer
        conn.host.counters["TcpExtTCPUrgentReceived"] += 1
        conn.on_urgent(pointer - conn.rcv_nxt)
