"""The options of the SYN exchange and the move to ESTABLISHED.

MSS (RFC 6691), window scale and timestamps (RFC 7323 §2.2, §3.2), SACK-permitted (RFC 2018 §2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp.tcp.allowance import carry, segment_size
from mptcp.tcp.keepalive import start_keepalive
from mptcp.tcp.state import NEVER, State
from mptcp.tcp.user_timeout import advertise
from mptcp.wire.tcp import (
    SACK_PERMITTED,
    Segment,
    mss_option,
    timestamps_option,
    window_scale_option,
)

if TYPE_CHECKING:
    from mptcp.tcp.connection import TcpConnection

DEFAULT_MSS_V4 = 536
DEFAULT_MSS_V6 = 1220
"""RFC 9293 §3.7.1: assumed when the peer sends no MSS option."""
RTO_AFTER_LOST_SYN_US = 3_000_000
MIN_MSS = 88
"""Below this an announced MSS is raised: a tiny MSS is an attack on the sender's CPU, and
MPTCP's 40 bytes of options must leave room for payload."""


def wanted_wscale(receive_buffer: int) -> int:
    """The shift that lets the 16-bit window field express the whole receive buffer."""
    shift = 0
    while shift < 14 and (receive_buffer >> shift) > 0xFFFF:
        shift += 1
    return shift


def syn_options(conn: TcpConnection, now: int, answer: bool) -> list[bytes]:
    """TCP's own options of a SYN (`answer` False) or SYN/ACK."""
    config = conn.config
    options = [mss_option(conn.mss_limit)]
    if conn.ts_ok if answer else config.timestamps:
        echo = conn.ts_recent if answer else 0
        options.append(timestamps_option(conn.timestamp(now), echo))
    if conn.snd.sack_ok if answer else config.sack:
        options.append(SACK_PERMITTED)
    if conn.wscale_ok if answer else config.window_scaling:
        shift = conn.rcv_wscale if answer else wanted_wscale(config.receive_buffer)
        options.append(window_scale_option(shift))
    return options


def peer_mss(seg: Segment) -> int:
    """The MSS that a SYN or SYN/ACK announces, or RFC 9293 §3.7.1's default."""
    if seg.mss is not None:
        return seg.mss
    return DEFAULT_MSS_V4 if len(seg.src) == 4 else DEFAULT_MSS_V6


def take_syn(conn: TcpConnection, seg: Segment, now: int) -> bool:
    """Adopt what the peer's SYN or SYN/ACK offers (and we offered or accept).

    False when the layer above refuses it and has ended the connection.
    """
    config = conn.config
    snd = conn.snd
    conn.ecn.on_syn(seg)
    conn.irs = seg.seq
    conn.rcv_nxt = seg.seq + 1
    conn.last_ack_sent = conn.rcv_nxt
    conn.pmtu.start(conn, max(peer_mss(seg), MIN_MSS), now)
    if seg.wscale is not None and config.window_scaling:
        # RFC 7323 §2.3: a shift above 14 is used as 14.
        snd.wscale = min(seg.wscale, 14)
        conn.wscale_ok = True
        conn.rcv_wscale = wanted_wscale(config.receive_buffer)
    snd.sack_ok = seg.sack_permitted and config.sack
    conn.ts_ok = seg.ts_val >= 0 and config.timestamps
    if conn.ts_ok:
        conn.ts_recent = seg.ts_val
        conn.ts_recent_at = now
    if seg.user_timeout and conn.user_timeout is not None:
        conn.user_timeout.on_option(seg.user_timeout)
    # RFC 7323 §2.2: the window of a SYN is never scaled.
    snd.wnd = snd.wnd_max = seg.window
    snd.wl1 = seg.seq
    snd.wl2 = snd.una
    conn.rcv_adv = conn.rcv_nxt + min(conn.receive_window(), 0xFFFF)
    if not conn.on_syn(seg):
        return False
    carry(conn, segment_size(conn))  # which options data will have is known now
    conn.cc.cwnd = conn.cc.initial_window = conn.initial_window(snd.smss)
    return True


def establish(conn: TcpConnection, now: int) -> None:
    """SND.UNA has passed our SYN and we have the peer's: ESTABLISHED."""
    snd = conn.snd
    conn.state = State.ESTABLISHED
    snd.validation.sent_at = now
    # What was sent early (RFC 7413 §4.2.2) shared the timer of the SYN/ACK.
    snd.rto_deadline = now + snd.rtt.rto if snd.board else NEVER
    conn.early = False
    if conn.syn_sent_at < 0:
        pass  # a SYN cookie: there is nothing to measure from
    elif snd.timeouts == 0:
        snd.rtt.sample(conn.syn_rtt if conn.syn_rtt >= 0 else now - conn.syn_sent_at, now)
        conn.cc.srtt = snd.rtt.srtt
    else:
        # RFC 5681 §3.1: after a lost SYN the initial window is one segment.
        conn.cc.cwnd = snd.smss
        if not snd.rtt.srtt:
            # RFC 6298 (5.7): no sample, and one second was too short for the SYN.
            snd.rtt.rto_base = max(snd.rtt.rto_base, RTO_AFTER_LOST_SYN_US)
    snd.timeouts = 0
    snd.rtt.reset_back_off()
    snd.recovery_point = snd.una
    conn.user_timeout_deadline = NEVER
    if conn.keepalive is not None:
        start_keepalive(conn, now)
    advertise(conn)
    conn.on_established(now)
    conn.host.mark_ready(conn)
