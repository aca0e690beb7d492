"""Fallback: a connection becomes plain TCP, and what a wrong checksum leads to (RFC 8684 §3.7).

Only a connection whose first subflow is its only one, and always was, can fall back: then the
data sequence space is the subflow's own. The application goes on as if nothing had happened;
`FellBack` tells it why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp.errors import ConnectionEnd
from mptcp.events import FellBack
from mptcp.tcp.state import NEVER
from mptcp.wire.mptcp_options import RST_ADMIN_PROHIBITED, MpFail, MpTcprst
from mptcp.wire.seq import MASK64

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket
    from mptcp.subflow import Subflow


def fall_back(meta: MetaSocket, reason: str, *, silent: bool = False) -> None:
    """RFC 8684 §3.7: plain TCP from now on. Only ever with a single subflow.

    `silent`: the peer asked for plain TCP, which is neither an event nor a failure.
    """
    if meta.fallback:
        return
    meta.fallback = True
    meta.fallback_reason = reason
    for subflow in meta.subflows:
        if subflow.mptcp and meta.established and not subflow.early:
            subflow.infinite_due = True
            # Until now DATA_ACKs freed data; the subflow's ACKs so far do from here on.
            acked = max(0, subflow.snd.una - subflow.snd.iss - 1 - subflow.syn_data_out)
            meta.tx.acknowledge(min(meta.local_idsn + 1 + acked, meta.tx.nxt))
        subflow.mptcp = False
    if meta.data_fin_due:
        meta.data_fin_due = False
        meta.tx.nxt -= 1  # the FIN takes its place
    meta.tx.chunks.clear()
    meta.tx.reinject.clear()
    meta.tx.wnd_end = 1 << 66
    meta.dispatcher.deadline = NEVER
    if not silent:
        meta.stack.counters["MPTcpExtFallback"] += 1
        meta.stack.emit(FellBack(meta, reason))
    # What waited for a checksum: nothing will verify it now, and it comes before what follows.
    for subflow in list(meta.subflows):
        for view in subflow.rx_maps.take_held():
            meta.receiving.on_plain_data(view, meta.stack.now)
    if meta.write_closed and meta.established:
        meta.send_close()


def mp_fail_arrives(meta: MetaSocket, subflow: Subflow, option: MpFail, now: int) -> None:
    """RFC 8684 §3.7: the peer could not verify our data on this subflow."""
    if only_subflow_ever(meta):
        # The answer is an MP_FAIL too, then plain TCP with the infinite mapping.
        _send_mp_fail(meta, subflow, option.dsn)
        fall_back(meta, "the peer reported a checksum failure (MP_FAIL)")
    else:
        subflow.abort(MpTcprst(RST_ADMIN_PROHIBITED).emit(), ConnectionEnd.PROTOCOL)


def checksum_failed(meta: MetaSocket, subflow: Subflow, dsn: int) -> bool:
    """RFC 8684 §3.7: True when the payload is to be taken all the same, as plain TCP's.

    With other subflows the data will come again on one of them, so this one is reset. Alone,
    a middlebox that changes payload would change it again: the connection reverts to TCP.
    """
    if only_subflow_ever(meta):
        _send_mp_fail(meta, subflow, dsn & MASK64)
        fall_back(meta, "a DSS checksum was wrong on the only subflow")
        return True
    meta.stack.counters["MPTcpExtMPFailTx"] += 1
    subflow.abort(MpFail(dsn & MASK64).emit(), ConnectionEnd.PROTOCOL)
    return False


def only_subflow_ever(meta: MetaSocket) -> bool:
    """The data sequence space is the subflow's, so that plain TCP can go on from here."""
    return len(meta.subflows) == 1 and not meta.past_subflows and not meta.subflows[0].is_join


def _send_mp_fail(meta: MetaSocket, subflow: Subflow, dsn: int) -> None:
    meta.stack.counters["MPTcpExtMPFailTx"] += 1
    subflow.controls.append(MpFail(dsn).emit())
    meta.stack.mark_ready(subflow)
