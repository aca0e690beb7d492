"""Fallback: a connection becomes plain TCP, and what a wrong checksum leads to (RFC 8684 §3.7).

Only a connection whose first subflow is its only one, and always was, can fall back: then the
data sequence space is the subflow's own. The application goes on as if nothing had happened;
`FellBack` tells it why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp.errors import ConnectionEnd, FallbackReason
from mptcp.events import FellBack
from mptcp.tcp.state import NEVER, State
from mptcp.wire.mptcp_options import (
    RST_MIDDLEBOX,
    RST_MPTCP_SPECIFIC,
    MpFail,
    MpTcprst,
)
from mptcp.wire.seq import MASK64, unwrap
from mptcp.wire.tcp import Segment

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket
    from mptcp.subflow import Subflow


def fall_back(meta: MetaSocket, reason: FallbackReason, *, silent: bool = False) -> None:
    """RFC 8684 §3.7: plain TCP from now on. Only ever with a single subflow.

    `silent`: the peer asked for plain TCP, which is neither an event nor a failure.
    """
    if meta.fallback:
        return
    for subflow in list(meta.subflows):
        if subflow.is_join:  # not there yet, and the data will be in no space it could share
            subflow.abort(MpTcprst(RST_MPTCP_SPECIFIC).emit(), ConnectionEnd.PROTOCOL)
    meta.fallback = True
    meta.fallback_reason = reason
    if meta.data_fin_due:
        meta.data_fin_due = False
        meta.tx.nxt -= 1  # the FIN takes its place
    for subflow in meta.subflows:
        if subflow.mptcp and meta.established and not subflow.early:
            subflow.infinite_due = True
            subflow.mapped_end = subflow.snd.nxt
            # Until now DATA_ACKs freed data; from here on the subflow's ACKs do. What it has yet to
            # deliver is the end of what was sent, however much of it went twice.
            snd = subflow.snd
            waiting = snd.nxt - snd.una
            if subflow.fin_sent and waiting:
                waiting -= 1
            meta.tx.acknowledge(max(meta.tx.una, meta.tx.nxt - waiting))
        subflow.mptcp = False
    meta.tx.chunks.clear()
    meta.tx.retransmit.clear()
    meta.tx.wnd_end = 1 << 66
    meta.dispatcher.deadline = NEVER
    # The peer's DATA_FIN has a number in a space that is no more: its FIN is what ends its data.
    meta.rx.fin_dsn = None
    if not silent:
        meta.stack.counters["MPTcpExtFallback"] += 1
        meta.stack.emit(FellBack(meta, reason))
    # What waited for a checksum or a mapping: there will be none, and it comes before what follows.
    for subflow in list(meta.subflows):
        views = subflow.rx_maps.clear()
        if subflow.unmapped is not None:
            views += subflow.unmapped.clear()
            subflow.unmapped = None
        for view in views:
            meta.receiving.on_plain_data(view, meta.stack.now)
    if meta.write_closed and meta.established:
        meta.send_close()
    if not meta.eof and any(subflow.fin_received for subflow in meta.subflows):
        meta.eof = True  # it came while a FIN ended the subflow only
        meta.signal_readable()


def mp_fail_arrives(meta: MetaSocket, subflow: Subflow, option: MpFail, now: int) -> None:
    """RFC 8684 §3.7: the peer could not verify our data on this subflow."""
    if only_subflow_ever(meta):
        # The answer is an MP_FAIL too, for all that is to come, and plain TCP. The infinite mapping
        # acts retroactively: it begins where what the peer has verified ends.
        meta.stack.counters["MPTcpExtMPFailTx"] += 1
        subflow.controls.append(MpFail(meta.rx.nxt & MASK64).emit())
        meta.stack.mark_ready(subflow)
        tx = meta.tx
        failed = unwrap(option.dsn, tx.una, 64)
        start = failed if tx.una <= failed <= tx.nxt else tx.una
        subflow.infinite_from = start - meta.local_idsn
        fall_back(meta, FallbackReason.MP_FAIL_RECEIVED)
    else:
        # Not contiguous: no infinite mapping says where the rest of the data belongs.
        subflow.abort(MpTcprst(RST_MIDDLEBOX).emit(), ConnectionEnd.PROTOCOL)


def checksum_failed(meta: MetaSocket, subflow: Subflow, dsn: int) -> bool:
    """RFC 8684 §3.7: True when the payload is to be taken all the same, as plain TCP's.

    With other subflows the data will come again on one of them, so this one is reset. Alone,
    a middlebox that changes payload would change it again: the connection reverts to TCP, unless
    the data is not contiguous: then the subflow is reset too, and another may be joined.
    """
    if may_revert(meta) and dsn == meta.rx.nxt and not meta.rx.reorder:
        # It goes with every ACK until the peer has answered: one alone may get lost, and a FIN
        # that came first would end nothing but the subflow.
        meta.stack.counters["MPTcpExtMPFailTx"] += 1
        subflow.fail_dsn = dsn & MASK64
        subflow.ack_now()
        fall_back(meta, FallbackReason.CHECKSUM_FAILED)
        return True
    meta.stack.counters["MPTcpExtMPFailTx"] += 1
    options = MpFail(dsn & MASK64).emit() + MpTcprst(RST_MIDDLEBOX).emit()
    subflow.abort(options, ConnectionEnd.PROTOCOL)
    return False


def only_subflow_ever(meta: MetaSocket) -> bool:
    """The data sequence space is the subflow's, so that plain TCP can go on from here.

    Joins that have not succeeded, or never did, have carried nothing. Not so with another subflow,
    nor after one, nor when data went again under other numbers.
    """
    if meta.past_subflows or meta.tx.retransmit.taken_bytes:
        return False
    first = False
    for subflow in meta.subflows:
        if not subflow.is_join:
            first = True
        elif subflow.fully_established:
            return False
    return first


def may_revert(meta: MetaSocket) -> bool:
    """`only_subflow_ever`, where the peer has not reverted yet and must be able to follow.

    A join of ours whose third ACK is out has carried nothing, but the peer may have it established
    (RFC 8684 §3.2): it would then have to reset the subflow that goes on as plain TCP. Its data can
    go on the joined one.
    """
    return only_subflow_ever(meta) and not any(
        subflow.is_join and subflow.is_active and subflow.state is not State.SYN_SENT
        for subflow in meta.subflows
    )


def acked_without_dss(subflow: Subflow) -> bool:
    """RFC 8684 §3.7: data was acknowledged, and never any with a DATA_ACK. False: it was reset."""
    meta = subflow.meta
    if may_revert(meta):
        meta.stack.counters["MPTcpExtMPCapableDataFallback"] += 1
        fall_back(meta, FallbackReason.ACK_WITHOUT_DSS)
        return True
    subflow.abort(MpTcprst(RST_MIDDLEBOX).emit(), ConnectionEnd.PROTOCOL)
    return False


def heed_answer(subflow: Subflow, seg: Segment) -> None:
    """After our MP_FAIL: the peer has reverted too when it says so, or sends no DSS any more."""
    dss = seg.dss
    infinite = dss is not None and dss.dsn is not None and dss.length == 0
    silent = dss is None and not seg.mptcp
    if infinite or silent or any(isinstance(option, MpFail) for option in seg.mptcp):
        subflow.fail_dsn = -1
