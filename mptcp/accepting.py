"""Passive opens: listeners, and SYNs that belong to no connection yet.

A SYN with MP_JOIN is looked up by its token before any listener is asked (RFC 8684 §3.2, thesis
§4.3.2): it may arrive at a port nobody listens on. What a stranger's SYN makes us store is bounded
by the listener's backlog, `max_connections` and `max_subflows`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp.fallback import fall_back
from mptcp.path_manager.base import EndpointId
from mptcp.subflow import Role
from mptcp.wire.mptcp_options import (
    RST_LACK_OF_RESOURCES,
    RST_MPTCP_SPECIFIC,
    MpCapable,
    MpJoinSyn,
    MpTcprst,
)
from mptcp.wire.tcp import Segment

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket
    from mptcp.stack import Stack


class Listener:
    """A port that accepts. `close()` stops it; connections it accepted live on."""

    def __init__(self, stack: Stack, address: bytes | None, port: int, backlog: int) -> None:
        self.stack = stack
        self.address = address
        self.port = port
        self.backlog = backlog
        self.half_open: set[MetaSocket] = set()
        """Connections whose handshake is not complete: at most `backlog`."""

    def accepted(self, meta: MetaSocket) -> None:
        """The handshake of `meta` is complete."""
        self.half_open.discard(meta)

    def close(self) -> None:
        """Accept no more. Idempotent."""
        self.stack.listeners.pop((self.address, self.port), None)
        for meta in list(self.half_open):
            meta.abort()
        self.half_open.clear()


def syn_arrives(stack: Stack, seg: Segment, now: int) -> None:
    """A SYN for which there is no connection."""
    if not _can_be_source(seg.src) or not seg.sport or not seg.dport:
        stack.counters["IpInAddrErrors"] += 1
        return
    offer: MpCapable | None = None
    if stack.config.mptcp:
        for option in seg.mptcp:
            if isinstance(option, MpJoinSyn):
                _join(stack, seg, option, now)
                return
            if isinstance(option, MpCapable):
                offer = option
    listener = stack.listeners.get((seg.dst, seg.dport)) or stack.listeners.get((None, seg.dport))
    if listener is None:
        stack.reset_for(seg, seg.interface)
    elif (
        len(listener.half_open) >= listener.backlog
        or len(stack.metas) >= stack.config.max_connections
    ):
        stack.counters["TcpExtListenDrops"] += 1
    else:
        _accept(stack, listener, seg, offer, now)


def _can_be_source(address: bytes) -> bool:
    """RFC 1122 §3.2.1.3, §4.2.3.10: no multicast, broadcast, loopback or unspecified source."""
    if len(address) == 4:
        return address[0] not in (0, 127) and address[0] < 224
    return address[0] != 0xFF and any(address[:15])  # ff00::/8; :: and ::1


def _accept(
    stack: Stack, listener: Listener, seg: Segment, offer: MpCapable | None, now: int
) -> None:
    """Begin a connection of `listener`."""
    stack.counters["TcpPassiveOpens"] += 1
    meta = stack.new_meta(listener)
    listener.half_open.add(meta)
    subflow = stack.new_subflow(
        meta,
        Role.INITIAL_PASSIVE,
        stack.book.owner[seg.dst],
        seg.dst,
        seg.dport,
        seg.src,
        seg.sport,
    )
    # RFC 8684 §3.1: a version we can answer (ours is 1), HMAC-SHA256, no unknown extension (B).
    if offer and offer.version >= 1 and offer.hmac_sha256 and not offer.extensibility:
        stack.counters["MPTcpExtMPCapableSYNRX"] += 1
        meta.checksum = meta.checksum or offer.checksum_required
    elif not meta.fallback:
        fall_back(meta, "the SYN carried no usable MP_CAPABLE", silent=True)
    subflow.open_passive(seg, now)


def _join(stack: Stack, seg: Segment, option: MpJoinSyn, now: int) -> None:
    """RFC 8684 §3.2: a SYN that wants to join the connection of a token."""
    meta = stack.tokens.get(option.token)
    if meta is None or meta.fallback or meta.ended is not None or not meta.confirmed:
        stack.counters["MPTcpExtMPJoinNoTokenFound"] += 1
        stack.reset_for(seg, seg.interface, MpTcprst(RST_MPTCP_SPECIFIC).emit())
        return
    if len(meta.subflows) >= stack.config.max_subflows:
        stack.counters["MPTcpExtMPJoinRejected"] += 1
        stack.reset_for(seg, seg.interface, MpTcprst(RST_LACK_OF_RESOURCES).emit())
        return
    stack.counters["MPTcpExtMPJoinSynRx"] += 1
    subflow = stack.new_subflow(
        meta,
        Role.JOIN_PASSIVE,
        stack.book.owner[seg.dst],
        seg.dst,
        seg.dport,
        seg.src,
        seg.sport,
    )
    subflow.remote_id = option.address_id
    subflow.remote_nonce = option.nonce
    subflow.backup = option.backup
    subflow.local_nonce = stack.entropy(4)
    if seg.dst != meta.fendpoint.local:
        subflow.local_id = stack.book.identifier(seg.dst)
    subflow.path_index = meta.paths.manager.on_peer_subflow(
        EndpointId(seg.dst, seg.dport, seg.src, seg.sport), subflow.local_id, subflow.remote_id
    )
    subflow.open_passive(seg, now)
