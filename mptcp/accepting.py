"""Passive opens: listeners, and SYNs that belong to no connection yet.

A SYN with MP_JOIN is looked up by its token before any listener is asked (RFC 8684 §3.2, thesis
§4.3.2): it may arrive at a port nobody listens on. What a stranger's SYN makes us store is bounded
by the listener's backlog, `max_connections` and `max_subflows`; with the backlog full a SYN makes
us store nothing (SYN cookies), and its connection begins with the ACK of the SYN/ACK.

A SYN whose Fast Open cookie is good is accepted at once, and counts in `fast_open_pending` instead
of `half_open` until its handshake is complete: at most `fast_open` of them at a time.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from mptcp.addressing import can_be_source, parse_address
from mptcp.errors import AddressInUseError, ConnectionEnd
from mptcp.fallback import fall_back
from mptcp.monitor import tell_listener
from mptcp.opening import new_meta, new_subflow
from mptcp.path_manager.base import EndpointId
from mptcp.subflow import Role, Subflow
from mptcp.tcp.ecn import Ecn
from mptcp.tcp.fastopen import RESET_HOLD_US, ServerFastOpen, accept_early
from mptcp.tcp.handshake import peer_mss, wanted_wscale
from mptcp.tcp.input import segment_arrives
from mptcp.tcp.state import State
from mptcp.tcp.syncookies import decode_options, encode_options
from mptcp.wire.mptcp_options import (
    RST_LACK_OF_RESOURCES,
    RST_MPTCP_SPECIFIC,
    MpCapable,
    MpJoinSyn,
    MpTcprst,
)
from mptcp.wire.tcp import (
    ACK,
    CWR,
    ECE,
    SACK_PERMITTED,
    SYN,
    HeaderTemplate,
    Segment,
    emit_options,
    mss_option,
    timestamps_option,
    window_scale_option,
)

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket
    from mptcp.stack import Stack


class Listener:
    """A port that accepts. `close()` stops it; connections it accepted live on."""

    def __init__(
        self, stack: Stack, address: bytes | None, port: int, backlog: int, fast_open: int
    ) -> None:
        self.stack = stack
        self.address = address
        self.port = port
        self.backlog = backlog
        self.half_open: set[MetaSocket] = set()
        """Connections whose handshake is not complete: at most `backlog`."""
        self.fast_open = fast_open
        """How many may be in `fast_open_pending`; 0: SYNs bring no data."""
        self.fast_open_pending: set[MetaSocket] = set()
        """Connections accepted by their SYN whose handshake is not complete."""
        self._fast_open_resets: deque[int] = deque()
        """Until when those that were reset meanwhile count as pending (RFC 7413 §5.1)."""

    def completed(self, meta: MetaSocket) -> None:
        """The handshake of `meta` is complete."""
        self.half_open.discard(meta)
        self.fast_open_pending.discard(meta)

    def ended(self, meta: MetaSocket, now: int) -> None:
        """`meta` is over, perhaps before its handshake was complete."""
        self.half_open.discard(meta)
        if meta in self.fast_open_pending:
            self.fast_open_pending.remove(meta)
            self.stack.counters["TcpExtTCPFastOpenPassiveFail"] += 1
            if meta.ended is ConnectionEnd.RESET:
                self._fast_open_resets.append(now + RESET_HOLD_US)

    def fast_open_room(self, now: int) -> bool:
        """Whether one more connection may be accepted by its SYN."""
        resets = self._fast_open_resets
        while resets and resets[0] <= now:
            resets.popleft()
        return len(self.fast_open_pending) + len(resets) < self.fast_open

    def close(self) -> None:
        """Accept no more. Idempotent."""
        if self.stack.listeners.pop((self.address, self.port), None) and self.stack.monitors:
            tell_listener(self, "listener-closed")
        for meta in list(self.half_open):
            meta.abort()
        self.half_open.clear()


def listen(
    stack: Stack,
    port: int,
    address: str | bytes | None = None,
    *,
    backlog: int | None = None,
    fast_open: int | None = None,
) -> Listener:
    """See `Stack.listen`."""
    raw = parse_address(address) if address else None
    if raw is not None and raw not in stack.book.owner:
        stack.book.choose(raw, raw)  # raises with the list of what there is
    if not 0 <= port <= 65535:
        raise ValueError(f"port {port} is not in 0..65535")
    if port == 0:
        low, high = stack.config.ephemeral_ports
        port = next(
            (p for p in range(low, high + 1) if not _listening(stack, raw, p)),
            0,
        )
    if port == 0 or _listening(stack, raw, port):
        raise AddressInUseError(98, f"port {port} is already listened on: choose another")
    if fast_open is None:
        fast_open = stack.config.fast_open
    listener = Listener(stack, raw, port, backlog or stack.config.backlog, fast_open)
    stack.listeners[raw, port] = listener
    if stack.monitors:
        tell_listener(listener, "listener-created")
    return listener


def _listening(stack: Stack, address: bytes | None, port: int) -> bool:
    if address is None:
        return any(p == port for _, p in stack.listeners)
    return (address, port) in stack.listeners or (None, port) in stack.listeners


def listener_for(stack: Stack, seg: Segment) -> Listener | None:
    """Who accepts at the destination of `seg`."""
    return stack.listeners.get((seg.dst, seg.dport)) or stack.listeners.get((None, seg.dport))


def syn_arrives(stack: Stack, seg: Segment, now: int, isn: int | None = None) -> None:
    """A SYN for which there is no connection (any more: then `isn` is the number to begin with)."""
    if not can_be_source(seg.src) or not seg.sport or not seg.dport:
        stack.counters["IpInAddrErrors"] += 1
        return
    offer: MpCapable | None = None
    if stack.config.mptcp:
        for option in seg.mptcp:
            if isinstance(option, MpJoinSyn):
                _join(stack, seg, option, now, isn)
                return
            if isinstance(option, MpCapable):
                offer = option
    listener = listener_for(stack, seg)
    if listener is None:
        stack.reset_for(seg, seg.interface)
        return
    full = len(listener.half_open) >= listener.backlog
    cookies = stack.config.syn_cookies
    if full:
        name = "TcpExtTCPReqQFullDrop" if cookies == "never" else "TcpExtTCPReqQFullDoCookies"
        stack.counters[name] += 1
    if len(stack.metas) >= stack.config.max_connections or (full and cookies == "never"):
        stack.counters["TcpExtListenDrops"] += 1
    elif full or cookies == "always":
        _send_cookie(stack, seg, now)
    else:
        _accept(stack, listener, seg, offer, now, isn)


def _accept(
    stack: Stack,
    listener: Listener,
    seg: Segment,
    offer: MpCapable | None,
    now: int,
    isn: int | None = None,
) -> None:
    """Begin a connection of `listener`, with the ISN given or RFC 6528's."""
    meta = new_meta(stack, listener)
    listener.half_open.add(meta)
    subflow = new_subflow(
        stack,
        meta,
        Role.INITIAL_PASSIVE,
        stack.book.owner[seg.dst],
        seg.dst,
        seg.dport,
        seg.src,
        seg.sport,
        isn,
    )
    # RFC 8684 §3.1: a version we can answer (ours is 1), HMAC-SHA256, no unknown extension (B).
    if offer and offer.version >= 1 and offer.hmac_sha256 and not offer.extensibility:
        stack.counters["MPTcpExtMPCapableSYNRX"] += 1
        meta.checksum = meta.checksum or offer.checksum_required
    elif not meta.fallback:
        fall_back(meta, "the SYN carried no usable MP_CAPABLE", silent=True)
    subflow.open_passive(seg, now)
    if subflow.state is State.SYN_RECEIVED and _cookie_is_good(stack, listener, subflow, seg, now):
        listener.half_open.discard(meta)
        listener.fast_open_pending.add(meta)
        accept_early(subflow, seg, now)


def _cookie_is_good(
    stack: Stack, listener: Listener, subflow: Subflow, seg: Segment, now: int
) -> bool:
    """RFC 7413 §4.2.2: judge the Fast Open cookie of a SYN; see that the answer has one if due."""
    offered = seg.fast_open
    if offered is None or not listener.fast_open:
        return False
    key = stack.fast_open_keys.check(seg.src, offered, now) if offered else 0
    if key and not listener.fast_open_room(now):
        # §4.2.2: as if there was no cookie; a new one would only invite the next try.
        stack.counters["TcpExtTCPFastOpenListenOverflow"] += 1
        return False
    if key:
        stack.counters["TcpExtTCPFastOpenPassive"] += 1
    elif offered:
        stack.counters["TcpExtTCPFastOpenPassiveFail"] += 1
    else:
        stack.counters["TcpExtTCPFastOpenCookieReqd"] += 1
    if key == 2:
        stack.counters["TcpExtTCPFastOpenPassiveAltKey"] += 1
    if key != 1:
        subflow.fast_open = ServerFastOpen(stack.fast_open_keys.cookie(seg.src, now))
    return key > 0


def _send_cookie(stack: Stack, seg: Segment, now: int) -> None:
    """Answer a SYN and forget it (RFC 4987 §3.6).

    Only what `syncookies` can bring back is agreed to, so MP_CAPABLE is not answered.
    """
    config = stack.config
    interface = stack.book.owner[seg.dst]
    flow = stack.flow_key(seg.dst, seg.dport, seg.src, seg.sport)
    version = len(seg.dst)
    limit = interface.mtu - (40 if version == 4 else 60)
    isn = stack.cookies.make(flow, seg.seq, min(peer_mss(seg), limit), now)
    options = [mss_option(limit)]
    flags = SYN | ACK
    if seg.ts_val >= 0 and config.timestamps:
        wscale = seg.wscale if config.window_scaling else None
        sack = seg.sack_permitted and config.sack
        clock = (now // 1000 + stack.timestamp_offset(flow)) & 0xFFFFFFFF
        ecn = Ecn(config.ecn)
        ecn.on_syn(seg)
        flags |= ecn.syn_flags(answer=True, repeated=False)
        value = encode_options(clock, wscale, sack, ecn.sends)
        options.append(timestamps_option(value, seg.ts_val))
        if sack:
            options.append(SACK_PERMITTED)
        if wscale is not None:
            options.append(window_scale_option(wanted_wscale(config.receive_buffer)))
    template = HeaderTemplate(seg.dst, seg.src, seg.dport, seg.sport)
    window = min(config.receive_buffer, 0xFFFF)
    header = template.build(
        isn, (seg.seq + 1) & 0xFFFFFFFF, flags, window, emit_options(options), 0
    )
    template.finish_checksum(header, [])
    stack.counters["TcpExtSyncookiesSent"] += 1
    stack.send_raw(interface.id, bytes(header))


def cookie_arrives(stack: Stack, seg: Segment, now: int) -> bool:
    """An ACK for no connection, while cookies may be under way: True when it was one's.

    The ACK may carry data. False: it is to be answered with a RST (RFC 9293 §3.10.7.1).
    """
    listener = listener_for(stack, seg)
    if listener is None or not can_be_source(seg.src):
        return False
    flow = stack.flow_key(seg.dst, seg.dport, seg.src, seg.sport)
    irs = (seg.seq - 1) & 0xFFFFFFFF
    isn = (seg.ack - 1) & 0xFFFFFFFF
    mss = stack.cookies.check(flow, irs, isn, now)
    if mss is None:
        stack.counters["TcpExtSyncookiesFailed"] += 1
        return False
    if len(stack.metas) >= stack.config.max_connections:
        stack.counters["TcpExtListenOverflows"] += 1
        return True  # no answer: the peer repeats its data, and there may be room then
    stack.counters["TcpExtSyncookiesRecv"] += 1
    # The SYN as it was, as far as it matters.
    syn = Segment(seg.src, seg.dst, seg.sport, seg.dport, irs, 0, SYN, seg.window)
    syn.interface = seg.interface
    syn.mss = mss
    if seg.ts_val >= 0:
        syn.ts_val = seg.ts_val
        syn.wscale, syn.sack_permitted, ecn = decode_options(seg.ts_ecr)
        if ecn:
            syn.flags |= ECE | CWR
    _accept(stack, listener, syn, None, now, isn)
    connection = stack.connections[flow]
    connection.syn_pending = False
    connection.snd.nxt = connection.snd.iss + 1
    connection.ecn.syn_flags(answer=True, repeated=False)  # as `_send_cookie` has answered
    segment_arrives(connection, seg, now)
    return True


def _join(stack: Stack, seg: Segment, option: MpJoinSyn, now: int, isn: int | None) -> None:
    """RFC 8684 §3.2: a SYN that wants to join the connection of a token."""
    meta = stack.tokens.get(option.token)
    counters = stack.counters
    if meta is None or meta.fallback or meta.ended is not None or not meta.confirmed:
        counters["MPTcpExtMPJoinNoTokenFound"] += 1
        stack.reset_for(seg, seg.interface, MpTcprst(RST_MPTCP_SPECIFIC).emit())
        return
    if len(meta.subflows) >= stack.config.max_subflows:
        counters["MPTcpExtMPJoinRejected"] += 1
        stack.reset_for(seg, seg.interface, MpTcprst(RST_LACK_OF_RESOURCES).emit())
        return
    counters["MPTcpExtMPJoinSynRx"] += 1
    if option.backup:
        counters["MPTcpExtMPJoinSynBackupRx"] += 1
    if seg.dport != meta.fendpoint.local_port:
        counters["MPTcpExtMPJoinPortSynRx"] += 1
    subflow = new_subflow(
        stack,
        meta,
        Role.JOIN_PASSIVE,
        stack.book.owner[seg.dst],
        seg.dst,
        seg.dport,
        seg.src,
        seg.sport,
        isn,
    )
    subflow.remote_id = option.address_id
    subflow.remote_nonce = option.nonce
    subflow.backup = option.backup
    subflow.backup_request = meta.options.priorities.wanted(seg.dst, subflow.interface)
    subflow.local_nonce = stack.entropy(4)
    if seg.dst != meta.fendpoint.local:
        subflow.local_id = stack.book.identifier(seg.dst)
    subflow.path_index = meta.paths.manager.on_peer_subflow(
        EndpointId(seg.dst, seg.dport, seg.src, seg.sport), subflow.local_id, subflow.remote_id
    )
    subflow.open_passive(seg, now)
