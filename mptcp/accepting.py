"""Passive opens: listeners, and SYNs that belong to no connection yet.

A SYN with MP_JOIN is looked up by its token before any listener is asked (RFC 8684 §3.2, thesis
§4.3.2): it may arrive at a port nobody listens on; `joining` has the rest. What a stranger's SYN
makes us store is bounded by the listener's backlog, `max_connections` and `max_subflows`; with the
backlog full a SYN makes us store nothing (SYN cookies), and its connection begins with the ACK of
the SYN/ACK.

A SYN whose Fast Open cookie is good is accepted at once, and counts in `fast_open_pending` instead
of `half_open` until its handshake is complete: at most `fast_open` of them at a time.
"""

from __future__ import annotations

import hmac
from collections import deque
from typing import TYPE_CHECKING, Final

from mptcp import keys
from mptcp.addressing import can_be_source, parse_address
from mptcp.config import Config
from mptcp.errors import AddressInUseError, ConnectionEnd, FallbackReason
from mptcp.fallback import fall_back
from mptcp.joining import join_ack_arrives, join_arrives
from mptcp.monitor import tell_listener
from mptcp.opening import new_meta, new_subflow
from mptcp.policies import Policies
from mptcp.stateless import as_answered, cookie_for, send_cookie, syn_again
from mptcp.subflow import Role, Subflow
from mptcp.tcp.fastopen import RESET_HOLD_US, ServerFastOpen, accept_early
from mptcp.tcp.input import segment_arrives
from mptcp.tcp.state import State
from mptcp.wire.mptcp_options import MpCapable, MpJoinAck, MpJoinSyn
from mptcp.wire.tcp import Segment

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket
    from mptcp.stack import Stack


_SILENT: Final = FallbackReason.SYN_WITHOUT_OPTION
"""The peer asked for plain TCP, which is no event."""


class Listener:
    """A port that accepts. `close()` stops it; connections it accepted live on."""

    def __init__(
        self,
        stack: Stack,
        address: bytes | None,
        port: int,
        backlog: int,
        fast_open: int,
        config: Config,
    ) -> None:
        self.stack = stack
        self.config = config
        """Of the connections it accepts: the stack's, perhaps with other policies."""
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
    policies: Policies | None = None,
) -> Listener:
    """See `Stack.listen`."""
    config = policies.applied(stack.config) if policies is not None else stack.config
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
    listener = Listener(stack, raw, port, backlog or config.backlog, fast_open, config)
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
                join_arrives(stack, seg, option, now, isn)
                return
            if isinstance(option, MpCapable):
                offer = option
    listener = listener_for(stack, seg)
    if listener is None:
        stack.reset_for(seg)
        return
    full = len(listener.half_open) >= listener.backlog
    cookies = stack.config.syn_cookies
    if full:
        name = "TcpExtTCPReqQFullDrop" if cookies == "never" else "TcpExtTCPReqQFullDoCookies"
        stack.counters[name] += 1
    if len(stack.metas) >= stack.config.max_connections or (full and cookies == "never"):
        stack.counters["TcpExtListenDrops"] += 1
    elif full or cookies == "always":
        _answer_with_cookie(stack, seg, offer, now)
    else:
        _accept(stack, listener, seg, offer, now, isn)


def _accept(
    stack: Stack,
    listener: Listener,
    seg: Segment,
    offer: MpCapable | None,
    now: int,
    isn: int | None = None,
    *,
    key: bytes = b"",
    reason: FallbackReason = _SILENT,
) -> None:
    """Begin a connection of `listener`, with the ISN and key given or new ones.

    `reason`: why it is plain TCP if there is no `offer`.
    """
    meta = new_meta(stack, listener, key, config=listener.config)
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
    if offer and _usable(offer):
        if not key:
            stack.counters["MPTcpExtMPCapableSYNRX"] += 1
        meta.checksum = meta.checksum or offer.checksum_required
    elif not meta.fallback:
        fall_back(meta, reason, silent=reason is _SILENT)
    subflow.open_passive(seg, now)
    if subflow.state is State.SYN_RECEIVED and _cookie_is_good(stack, listener, subflow, seg, now):
        listener.half_open.discard(meta)
        listener.fast_open_pending.add(meta)
        accept_early(subflow, seg, now)


def _usable(offer: MpCapable) -> bool:
    """RFC 8684 §3.1: a version we can answer (ours is 1), HMAC-SHA256, no unknown extension (B)."""
    return offer.version >= 1 and offer.hmac_sha256 and not offer.extensibility


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


def _answer_with_cookie(stack: Stack, seg: Segment, offer: MpCapable | None, now: int) -> None:
    """Answer a SYN and forget it (RFC 4987 §3.6), MP_CAPABLE included (RFC 8684 §3.1)."""
    config = stack.config
    isn = cookie_for(stack, seg, now)
    option = b""
    if offer is not None and _usable(offer):
        flow = stack.flow_key(seg.dst, seg.dport, seg.src, seg.sport)
        key = stack.cookies.key(flow, seg.seq, isn, now)
        if keys.token(key) in stack.tokens:
            # RFC 8684 §3.1: no key that is unique here, so no MP_CAPABLE.
            stack.counters["MPTcpExtMPFallbackTokenInit"] += 1
        else:
            stack.counters["MPTcpExtMPCapableSYNRX"] += 1
            option = MpCapable(
                key,
                checksum_required=config.checksum or offer.checksum_required,
                no_join_initial=not config.allow_join_initial_addr_port,
            ).emit()
    send_cookie(stack, seg, isn, now, option)


def cookie_arrives(stack: Stack, seg: Segment, now: int) -> bool:
    """An ACK for no connection, while cookies may be under way: True when it was one's.

    The ACK may carry data. False: it is to be answered with a RST (RFC 9293 §3.10.7.1).
    """
    if not can_be_source(seg.src) or seg.dst not in stack.book.owner:
        return False
    for option in seg.mptcp:
        if isinstance(option, MpJoinAck):
            join_ack_arrives(stack, seg, option, now)
            return True
    listener = listener_for(stack, seg)
    if listener is None:
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
    offer, key, reason = _what_was_agreed(stack, seg, flow, irs, isn, now)
    if offer is None and seg.dss is not None:
        return True  # MPTCP is in use but the keys have not come: the first data brings them again
    stack.counters["TcpExtSyncookiesRecv"] += 1
    _accept(stack, listener, syn_again(seg, mss), offer, now, isn, key=key, reason=reason)
    connection = stack.connections[flow]
    as_answered(connection)
    segment_arrives(connection, seg, now)
    return True


def _what_was_agreed(
    stack: Stack, seg: Segment, flow: bytes, irs: int, isn: int, now: int
) -> tuple[MpCapable | None, bytes, FallbackReason]:
    """(offer of the SYN, our key, why there is none) as the third ACK tells (RFC 8684 §3.1)."""
    if stack.config.mptcp:
        for option in seg.mptcp:
            if isinstance(option, MpCapable) and option.receiver_key is not None:
                key = stack.cookies.key(flow, irs, isn, now)
                if not hmac.compare_digest(key, option.receiver_key):
                    return None, b"", FallbackReason.THIRD_ACK_WITHOUT_OPTION
                if keys.token(key) in stack.tokens:
                    stack.counters["MPTcpExtMPFallbackTokenInit"] += 1
                    return None, b"", FallbackReason.TOKEN_TAKEN
                return MpCapable(checksum_required=option.checksum_required), key, _SILENT
    return None, b"", _SILENT
