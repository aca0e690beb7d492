"""What a connection sends next, and how the segment is made.

`poll_output` is the one place that decides, as far as `allowance` lets it; `options_for` is the one
place that decides the options of a segment and their order of sacrifice. Order of service: reset,
SYN, retransmission, new data, FIN, bare ACKs. With an offload interface one transmit is a chunk of
up to 64 KiB that the device cuts into MSS-sized segments, all with the same options.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from mptcp.tcp.allowance import (
    MAX_CHUNK,
    MAX_OPTIONS,
    TIMESTAMP_LENGTH,
    carry,
    chunk_limit,
    frto_size,
    new_size,
    segment_size,
)
from mptcp.tcp.chunks import SentChunk
from mptcp.tcp.ecn import ECT_0
from mptcp.tcp.fastopen import add_fast_open
from mptcp.tcp.handshake import syn_options
from mptcp.tcp.host import GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, Transmit
from mptcp.tcp.pacing import hold
from mptcp.tcp.state import CAN_SEND, FLUSHING, NEVER, State
from mptcp.tcp.stats import BUSY, RWND, SNDBUF, segments
from mptcp.tcp.undo import FRTO_SEGMENTS, Frto
from mptcp.wire.tcp import (
    ACK,
    CWR,
    FIN,
    PSH,
    RST,
    SYN,
    emit_options,
    sack_option,
    timestamps_option,
)

if TYPE_CHECKING:
    from mptcp.tcp.connection import TcpConnection

MAX_VIEWS: Final = 64
"""A write of more pieces than this is joined first (IOV_MAX is 1024; a join is cheaper long
before)."""

MASK32: Final = 0xFFFFFFFF


class Kind(enum.Enum):
    """What a segment is for; decides its options."""

    SYN = 0
    SYN_ACK = 1
    DATA = 2
    ACK = 3
    RST = 4


def options_for(
    conn: TcpConnection, kind: Kind, now: int, chunk: SentChunk | None = None, control: bytes = b""
) -> bytes:
    """The options of a segment, at most 40 bytes, in this order of sacrifice.

    First to go are SACK blocks (they come again), then timestamps, and those only for an option
    that does not fit beside them (ADD_ADDR with IPv6 address and port takes 30 bytes; Linux
    drops timestamps there too). The upper layer's own options never go: without its DSS a segment
    means something else. `control` is one option that was asked to go on a pure ACK.
    """
    if kind is Kind.SYN or kind is Kind.SYN_ACK:
        own = syn_options(conn, now, kind is Kind.SYN_ACK)
        used = len(emit_options(own))
        own += conn.extra_options(kind, None, MAX_OPTIONS - used)
        if conn.fast_open is not None:
            own = add_fast_open(conn, own, kind is Kind.SYN_ACK)
        if conn.user_timeout is not None:
            own += conn.user_timeout.in_syn(MAX_OPTIONS - len(emit_options(own)))
        return emit_options(own)
    if not control:
        prepared = conn.prepared_options(chunk, now)
        if prepared is not None:
            return prepared
    options: list[bytes] = []
    room = MAX_OPTIONS
    if control:
        options.append(control)
        room -= len(control) + 3 & ~3
    if conn.ts_ok and (not control or room >= TIMESTAMP_LENGTH):
        options.insert(0, timestamps_option(conn.timestamp(now), conn.ts_recent))
        room -= TIMESTAMP_LENGTH
    extra = conn.extra_options(kind, chunk, room)
    if extra:
        options += extra
        room -= len(emit_options(extra))
    # On bare ACKs only: a data segment is already as long as the MTU allows, and a hole makes each
    # arrival send a bare ACK anyway.
    if kind is Kind.ACK and (conn.reassembly.starts or conn.dsack) and conn.snd.sack_ok:
        limit = min(4, (room - 4) // 8)
        blocks: list[tuple[int, int]] = []
        if conn.dsack is not None and limit > 0:
            blocks.append(conn.dsack)  # RFC 2883 §4: first, and once
            late = conn.dsack[1] <= conn.rcv_nxt
            conn.dsack = None
            name = "TcpExtTCPDSACKOldSent" if late else "TcpExtTCPDSACKOfoSent"
            conn.host.counters[name] += 1
        blocks += conn.reassembly.sack_blocks(limit - len(blocks)) if limit > len(blocks) else []
        if blocks:
            options.append(sack_option([(s & MASK32, e & MASK32) for s, e in blocks]))
    return emit_options(options)


def window_field(conn: TcpConnection, now: int) -> int:
    """The 16-bit window for a segment sent now; moves the promised right edge."""
    window = conn.receive_window()
    # RFC 9293 §3.8.6: never shrink. With MPTCP the window is the connection's, counted from
    # DATA_ACK (RFC 8684 §3.3.5), so at subflow level the edge may move while RCV.NXT stands.
    # What the field cannot say is not promised: it may be more than 65535 of the scale's units.
    field = min(window >> conn.rcv_wscale, 0xFFFF)
    edge = conn.rcv_nxt + (field << conn.rcv_wscale)
    if edge > conn.rcv_adv:
        conn.rcv_adv = edge
    return field


def _acknowledged(conn: TcpConnection) -> None:
    """A segment with the current RCV.NXT is going out."""
    conn.last_ack_sent = conn.rcv_nxt
    conn.ack_pending = 0
    conn.delack_deadline = NEVER


def _make(
    conn: TcpConnection,
    seq: int,
    flags: int,
    options: bytes,
    now: int,
    window: int,
    chunk: SentChunk | None = None,
    tos: int = 0,
) -> Transmit:
    """Header and checksum treatment of one segment or chunk."""
    payload: list[memoryview] = chunk.parts if chunk is not None else []
    length = sum(map(len, payload)) if len(payload) != 1 else len(payload[0])
    if len(payload) > MAX_VIEWS and chunk is not None:
        payload = chunk.parts = [memoryview(b"".join(payload))]
    header = conn.template.build(
        seq & MASK32, conn.rcv_nxt & MASK32, flags, window, options, length, tos=tos | conn.tos
    )
    interface = conn.interface
    csum_start = 0
    gso_type = GSO_NONE
    gso_size = 0
    if interface.offload:
        csum_start = conn.template.csum_start
        gso_size = conn.snd.mss - len(options)
        if length > gso_size and not conn.pmtu.is_probe(chunk):
            gso_type = GSO_TCPV4 if len(conn.local) == 4 else GSO_TCPV6
            if flags & CWR:
                gso_type |= GSO_ECN
        else:
            gso_size = 0
    else:
        conn.template.finish_checksum(header, payload)
    stats = conn.stats
    count = 1 if not gso_size else segments(length, gso_size)
    stats.segs_out += count
    if length:
        stats.data_segs_out += count
        stats.last_data_sent = now
    conn.last_sent_at = now
    return Transmit(interface.id, header, payload, gso_type, gso_size, csum_start, conn, chunk)


def send_data(conn: TcpConnection, chunk: SentChunk, now: int) -> Transmit:
    """A segment for `chunk`, sent for the first time or again."""
    options = options_for(conn, Kind.DATA, now, chunk)
    ecn = conn.ecn
    flags = ecn.ack_flags
    tos = 0
    if ecn.sends and (mark := ecn.mark(conn, chunk)) >= 0:
        flags |= mark
        tos = ECT_0
    if chunk.fin:
        flags |= FIN
    if chunk.parts and not conn.has_more():
        flags |= PSH  # RFC 9293 §3.9.1.2: no more is waiting
    conn.snd.validation.sent_at = now
    window = window_field(conn, now)
    _acknowledged(conn)
    if conn.acks_owed and not conn.reassembly.starts and conn.dsack is None:
        conn.acks_owed = 0
    return _make(conn, chunk.seq, flags, options, now, window, chunk, tos)


def send_ack(conn: TcpConnection, now: int, control: bytes = b"") -> Transmit:
    """A segment without payload at SND.NXT."""
    options = options_for(conn, Kind.ACK, now, None, control)
    window = window_field(conn, now)
    _acknowledged(conn)
    return _make(conn, conn.snd.nxt, conn.ecn.ack_flags, options, now, window)


def send_syn(conn: TcpConnection, now: int) -> Transmit:
    """SYN or SYN/ACK, first or repeated."""
    snd = conn.snd
    conn.syn_pending = False
    answer = conn.state is State.SYN_RECEIVED
    options = options_for(conn, Kind.SYN_ACK if answer else Kind.SYN, now)
    chunk = None
    after = snd.iss + 1
    if conn.fast_open is not None:
        parts = conn.fast_open.syn_data(conn, len(options))
        if parts:
            chunk = SentChunk(after, after + sum(map(len, parts)), parts, None, now)
            after = chunk.end
    if conn.syn_sent_at >= 0:
        conn.stats.total_retrans += 1
        conn.stats.syn_retrans += 1
        conn.host.counters["TcpRetransSegs"] += 1
        conn.host.counters["TcpExtTCPSynRetrans"] += 1
    snd.nxt = max(snd.nxt, after)  # a repeated SYN goes without data
    snd.rto_deadline = now + snd.rtt.rto
    conn.syn_sent_at = now
    conn.host.rearm(conn)
    window = min(conn.receive_window(), 0xFFFF)  # RFC 7323 §2.2: not scaled in a SYN
    if answer:
        conn.last_ack_sent = conn.rcv_nxt
    flags = SYN | ACK if answer else SYN
    flags |= conn.ecn.syn_flags(answer=answer, repeated=snd.timeouts > 0)
    return _make(conn, snd.iss, flags, options, now, window, chunk)


def poll_output(conn: TcpConnection, now: int) -> Transmit | None:
    """The next packet of this connection, or None when it has nothing to send now."""
    if conn.reset_pending is not None:
        options = conn.reset_pending
        conn.reset_pending = None
        # The host has forgotten the connection, and with it the sums of its `stats`.
        conn.host.counters["TcpOutRsts"] += 1
        conn.host.counters["TcpOutSegs"] += 1
        flags = RST | ACK if conn.irs or conn.rcv_nxt else RST
        return _make(conn, conn.snd.nxt, flags, options, now, 0)
    state = conn.state
    if conn.syn_pending:
        return send_syn(conn, now)
    if state is State.SYN_SENT or state is State.CLOSED:
        return None
    if state in FLUSHING or conn.early:
        sent = _poll_data(conn, now)
        if sent is not None:
            return sent
    if conn.controls and conn.may_signal():
        if conn.acks_owed:
            conn.acks_owed -= 1
        return send_ack(conn, now, conn.controls.popleft())
    if conn.probe_pending:
        conn.probe_pending = False
        return send_probe(conn, now)
    if conn.acks_owed:
        conn.acks_owed -= 1
        transmit = send_ack(conn, now)
        if conn.acks_owed:
            # The next duplicate ACK reports other holes: beside a DSS there is room for one
            # or two blocks only.
            recent = conn.reassembly.recent
            if len(recent) > 1:
                recent.append(recent.pop(0))
        return transmit
    return None


def send_probe(conn: TcpConnection, now: int) -> Transmit:
    """A segment that makes the peer tell its window: no payload, below SND.UNA.

    RFC 9293 §3.8.6.1 sends an octet of new data; like Linux we repeat an old sequence number
    instead, which every TCP must answer with an ACK (§3.10.7.4) and which needs no mapping.
    """
    options = options_for(conn, Kind.ACK, now)
    window = window_field(conn, now)
    return _make(conn, conn.snd.una - 1, conn.ecn.ack_flags, options, now, window)


def _poll_data(conn: TcpConnection, now: int) -> Transmit | None:
    """Retransmission, then new data, then FIN."""
    snd = conn.snd
    if not snd.tlp.due and snd.undo.frto is not Frto.PROBING:
        # The usual answers are no, and half of all questions come right after the last segment that
        # could be sent: nothing to send, not before the pacer's time, no room in the window.
        if now < conn.pace_deadline < NEVER:
            return None
        if not conn.fin_queued:
            if snd.una == snd.nxt:
                if not conn.queued():
                    return None
            elif not snd.board.lost and snd.congestion_room() <= 0:
                return None
    segment = segment_size(conn)
    if segment != snd.smss:
        carry(conn, segment)
    if snd.tlp.due:
        return _send_probe_of_tail(conn, segment, now)
    if snd.undo.frto is Frto.PROBING:
        sent = _send_frto_data(conn, segment, now)
        if snd.undo.frto is Frto.PROBING:
            return sent
    lost = snd.board.next_lost()
    if lost is not None:
        room = snd.congestion_room()
        # RFC 6675 §5 (4.3), RFC 6582 §3.2: the first lost segment goes whatever the pipe holds.
        if (
            room < min(segment, lost.end - lost.seq)
            and snd.board.in_flight > 0
            and not snd.resend_at_once
        ):
            return None
        pacer = conn.pacer
        paced = MAX_CHUNK
        if pacer is not None and not (paced := pacer.room(conn, segment, now)):
            hold(conn, pacer)
            return None
        snd.resend_at_once = False
        size = min(
            chunk_limit(conn, segment), max(room - room % segment, segment), paced - paced % segment
        )
        part = snd.resend(lost, size, now)
        if pacer is not None:
            pacer.spend(part.end - part.seq)
        conn.host.rearm(conn)
        return send_data(conn, part, now)
    available = conn.queued()
    if available > 0 and (conn.state in CAN_SEND or conn.early):
        if snd.una == snd.nxt:
            snd.validation.restart(snd.cc, now, snd.rtt.rto)
        window = conn.send_window()
        size, probe = new_size(conn, available, segment, window, now)
        if size > 0:
            pacer = conn.pacer
            if pacer is not None and (paced := pacer.room(conn, segment, now)) < size:
                if not paced:
                    hold(conn, pacer)
                    return None
                if not probe:  # which is one segment, a larger one
                    size = paced - paced % segment
            return _send_new(conn, size, now, segment, probe)
        if window < min(segment, available):
            if conn.stats.kind != RWND:
                conn.stats.enter(RWND, now)
            if not snd.board:
                _arm_persist(conn, now)
        return None
    stats = conn.stats
    stats.app_limited = True
    if stats.kind == BUSY and conn.held_by_buffer():
        stats.enter(SNDBUF, now)
    # RFC 9293 §3.10.4: a close in SYN-RECEIVED may wait for ESTABLISHED.
    if conn.fin_queued and not conn.fin_sent and not conn.early and not conn.has_unsent():
        return _send_fin(conn, now)
    return None


def _send_new(
    conn: TcpConnection, size: int, now: int, segment: int, probe: int = 0
) -> Transmit | None:
    """Up to `size` bytes at SND.NXT; None when the upper layer gives none now.

    `probe` > 0: the size of a path MTU probe that these bytes are to be (RFC 4821 §7).
    """
    pulled = conn.pull(size, now)
    if pulled is None:
        return None
    parts, mapping = pulled
    snd = conn.snd
    length = sum(map(len, parts))
    chunk = SentChunk(snd.nxt, snd.nxt + length, parts, mapping, now)
    snd.on_sent(chunk)
    if conn.pacer is not None:
        conn.pacer.spend(length)
    conn.probe_pending = False
    if probe > 0 and length > segment:
        conn.pmtu.on_probe_sent(conn, chunk)
    elif conn.pmtu.unproven and length >= segment:
        conn.pmtu.on_unproven(chunk)
    conn.persist_deadline = NEVER
    conn.host.rearm(conn)
    return send_data(conn, chunk, now)


def _send_probe_of_tail(conn: TcpConnection, segment: int, now: int) -> Transmit:
    """RFC 8985 §7.3: a new segment if there is one and the peer has room, else the last again."""
    snd = conn.snd
    size = min(conn.queued() if conn.state in CAN_SEND else 0, conn.send_window(), segment)
    snd.tlp.due = False
    transmit = _send_new(conn, size, now, segment) if size > 0 else None
    conn.host.counters["TcpExtTCPLossProbes"] += 1
    if transmit is not None:
        snd.probe_sent(now, is_retrans=False)
        return transmit
    part = snd.probe_again(segment, now)
    return send_data(conn, part, now)


def _send_frto_data(conn: TcpConnection, segment: int, now: int) -> Transmit | None:
    """RFC 5682 §2.1 (2b): new data instead of retransmissions; none to send ends the question."""
    snd = conn.snd
    size = frto_size(conn, segment)
    transmit = _send_new(conn, size, now, segment) if size > 0 else None
    if transmit is None and snd.undo.frto_left == FRTO_SEGMENTS:
        snd.undo.frto = Frto.OFF
    return transmit


def _arm_persist(conn: TcpConnection, now: int) -> None:
    """The window is closed and nothing is in flight: probe it (RFC 9293 §3.8.6.1)."""
    if conn.persist_deadline == NEVER and not conn.probe_pending:
        rtt = conn.snd.rtt
        wait = min(rtt.rto_base << min(conn.persist_backoff, 16), conn.config.max_rto_us)
        conn.persist_deadline = now + wait
        conn.host.rearm(conn)


def _send_fin(conn: TcpConnection, now: int) -> Transmit:
    """RFC 9293 §3.10.4: the FIN takes one sequence number and is kept like data."""
    snd = conn.snd
    conn.fin_sent = True
    if conn.state is State.ESTABLISHED:
        conn.state = State.FIN_WAIT_1
    elif conn.state is State.CLOSE_WAIT:
        conn.state = State.LAST_ACK
    chunk = SentChunk(snd.nxt, snd.nxt + 1, [], None, now, fin=True)
    snd.on_sent(chunk)
    conn.host.rearm(conn)
    return send_data(conn, chunk, now)
