"""Passive joins: SYNs with MP_JOIN, demultiplexed by their token (RFC 8684 §3.2).

What is kept of a SYN depends on how many are under way. A connection has room for `HALF_OPEN`
subflows that wait for their third ACK; more of them, or `syn_cookies="always"`, and the SYN is
answered without keeping a subflow (`stateless`), so that who knows a token but not the keys cannot
take the places of those who know both.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

from mptcp import keys
from mptcp.opening import new_subflow
from mptcp.path_manager.base import EndpointId
from mptcp.stateless import JoinRequest, as_answered, cookie_for, send_cookie, syn_again
from mptcp.subflow import Role, Subflow
from mptcp.tcp.input import segment_arrives
from mptcp.tcp.state import State
from mptcp.wire.mptcp_options import (
    RST_ADMIN_PROHIBITED,
    RST_LACK_OF_RESOURCES,
    RST_MPTCP_SPECIFIC,
    MpJoinAck,
    MpJoinSyn,
    MpJoinSynAck,
    MpTcprst,
)
from mptcp.wire.tcp import Segment

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket
    from mptcp.stack import Stack

HALF_OPEN: Final = 2
"""Joins of one connection that wait for their third ACK with a subflow of their own."""


def join_arrives(stack: Stack, seg: Segment, option: MpJoinSyn, now: int, isn: int | None) -> None:
    """RFC 8684 §3.2: a SYN that wants to join the connection of a token."""
    meta = _joinable(stack, seg, option.token)
    if meta is None:
        return
    counters = stack.counters
    counters["MPTcpExtMPJoinSynRx"] += 1
    if option.backup:
        counters["MPTcpExtMPJoinSynBackupRx"] += 1
    if seg.dport != meta.fendpoint.local_port:
        counters["MPTcpExtMPJoinPortSynRx"] += 1
    cookies = stack.config.syn_cookies
    half_open = sum(1 for subflow in meta.subflows if subflow.state is State.SYN_RECEIVED)
    if cookies == "always" or (cookies == "auto" and half_open >= HALF_OPEN):
        _answer_only(stack, meta, seg, option, now)
        return
    if half_open >= HALF_OPEN:
        stack.counters["TcpExtListenDrops"] += 1
        return
    subflow = _subflow(stack, meta, seg, isn)
    subflow.remote_id = option.address_id
    subflow.remote_nonce = option.nonce
    subflow.backup = option.backup
    subflow.local_nonce = stack.entropy(4)
    _enter(subflow)
    subflow.open_passive(seg, now)


def _joinable(stack: Stack, seg: Segment, token: int) -> MetaSocket | None:
    """The connection of `token` if it takes one more subflow; else `seg` is refused."""
    meta = stack.tokens.get(token)
    over = meta is not None and meta.ended is not None and meta.time_wait is None
    if meta is None or over or meta.fallback or not meta.confirmed:
        stack.counters["MPTcpExtMPJoinNoTokenFound"] += 1
        stack.reset_for(seg, MpTcprst(RST_MPTCP_SPECIFIC).emit())
        return None
    # One that has not shown its HMAC yet takes nobody's place (RFC 8684 §5).
    proved = sum(1 for subflow in meta.subflows if subflow.state is not State.SYN_RECEIVED)
    if proved >= stack.config.max_subflows:
        stack.counters["MPTcpExtMPJoinRejected"] += 1
        # RFC 8684 §3.6: where the administrator wants one subflow only it is no use to try later.
        alone = stack.config.max_subflows == 1
        answer = MpTcprst(RST_ADMIN_PROHIBITED) if alone else MpTcprst(RST_LACK_OF_RESOURCES, True)
        stack.reset_for(seg, answer.emit())
        return None
    return meta


def _subflow(stack: Stack, meta: MetaSocket, seg: Segment, isn: int | None) -> Subflow:
    interface = stack.book.owner[seg.dst]
    return new_subflow(
        stack,
        meta,
        Role.JOIN_PASSIVE,
        interface,
        seg.dst,
        seg.dport,
        seg.src,
        seg.sport,
        isn,
    )


def _local_id(stack: Stack, meta: MetaSocket, local: bytes) -> int:
    return 0 if local == meta.fendpoint.local else stack.book.identifier(local)


def _enter(subflow: Subflow) -> None:
    """Give the subflow its identifier and its place in the path manager's table."""
    meta = subflow.meta
    subflow.local_id = _local_id(meta.stack, meta, subflow.local)
    endpoint = EndpointId(subflow.local, subflow.local_port, subflow.remote, subflow.remote_port)
    subflow.backup_request = meta.options.priorities.wanted(subflow.local, subflow.interface)
    subflow.path_index = meta.paths.manager.on_peer_subflow(
        endpoint, subflow.local_id, subflow.remote_id
    )


def _answer_only(stack: Stack, meta: MetaSocket, seg: Segment, option: MpJoinSyn, now: int) -> None:
    """SYN/ACK without a subflow behind it."""
    flow = stack.flow_key(seg.dst, seg.dport, seg.src, seg.sport)
    nonce = stack.entropy(4)
    request = JoinRequest(
        flow, option.token, nonce, option.nonce, option.address_id, option.backup, now
    )
    if not stack.joins.put(request, now):
        stack.counters["MPTcpExtHalfOpenJoinsDropped"] += 1
    mac = keys.synack_hmac(meta.local_key, meta.remote_key, nonce, option.nonce)
    backup = meta.options.priorities.wanted(seg.dst, stack.book.owner[seg.dst])
    answer = MpJoinSynAck(backup, _local_id(stack, meta, seg.dst), mac, nonce)
    send_cookie(stack, seg, cookie_for(stack, seg, now), now, answer.emit())


def join_ack_arrives(stack: Stack, seg: Segment, option: MpJoinAck, now: int) -> None:
    """The third ACK of a join that has no subflow yet: it gets one, or a RST."""
    flow = stack.flow_key(seg.dst, seg.dport, seg.src, seg.sport)
    mss = stack.cookies.check(flow, (seg.seq - 1) & 0xFFFFFFFF, (seg.ack - 1) & 0xFFFFFFFF, now)
    request = stack.joins.take(flow, now) if mss is not None else None
    if mss is None or request is None:
        stack.counters["TcpExtSyncookiesFailed"] += 1
        stack.reset_for(seg, MpTcprst(RST_LACK_OF_RESOURCES, True).emit())
        return
    meta = _joinable(stack, seg, request.token)
    if meta is None:
        return
    mac = keys.ack_hmac(meta.remote_key, meta.local_key, request.remote_nonce, request.local_nonce)
    if not hmac.compare_digest(mac, option.hmac):
        stack.counters["MPTcpExtMPJoinAckHMacFailure"] += 1
        stack.reset_for(seg, MpTcprst(RST_MPTCP_SPECIFIC).emit())
        return
    stack.counters["TcpExtSyncookiesRecv"] += 1
    subflow = _subflow(stack, meta, seg, (seg.ack - 1) & 0xFFFFFFFF)
    subflow.remote_id = request.address_id
    subflow.remote_nonce = request.remote_nonce
    subflow.backup = request.backup
    subflow.local_nonce = request.local_nonce
    _enter(subflow)
    subflow.open_passive(syn_again(seg, mss), now)
    as_answered(subflow)
    segment_arrives(subflow, seg, now)
