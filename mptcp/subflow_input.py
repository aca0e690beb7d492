"""What a subflow does with the MPTCP options that arrive (RFC 8684 §3.1-§3.6).

The handshake's three answers first, then the options of an established subflow. TCP has checked the
segment's numbers before any of this is called (RFC 8684 §3: RFC 5961's window checks come first).
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from mptcp import keys
from mptcp.delivery import place_unmapped
from mptcp.errors import ConnectionEnd, FallbackReason
from mptcp.fallback import (
    acked_without_dss,
    fall_back,
    heed_answer,
    mp_fail_arrives,
    only_subflow_ever,
)
from mptcp.mapping import RxMapping
from mptcp.monitor import tell_subflow
from mptcp.tcp.state import NEVER, State
from mptcp.wire.dss import Dss
from mptcp.wire.mptcp_options import (
    RST_LACK_OF_RESOURCES,
    RST_MPTCP_SPECIFIC,
    AddAddr,
    MpCapable,
    MpFail,
    MpFastclose,
    MpJoinAck,
    MpJoinSynAck,
    MpPrio,
    MpTcprst,
    RemoveAddr,
)
from mptcp.wire.seq import unwrap
from mptcp.wire.tcp import ACK, Segment

if TYPE_CHECKING:
    from mptcp.subflow import Subflow


def answer_to_capable(subflow: Subflow, seg: Segment) -> None:
    """RFC 8684 §3.1: the SYN/ACK says whether this is an MPTCP connection."""
    for option in seg.mptcp:
        if (
            isinstance(option, MpCapable)
            and option.sender_key is not None
            and option.receiver_key is None
            and option.version == 1
            and option.hmac_sha256
            and not option.extensibility
        ):
            subflow.host.counters["MPTcpExtMPCapableSYNACKRX"] += 1
            subflow.meta.learn_peer(option)
            subflow.meta.stack.blackholes.worked(subflow.remote)
            return
    if not seg.flags & ACK:
        # Neither has the other's key, and RFC 8684 has no form that would bring both.
        subflow.host.counters["MPTcpExtSimultConnectFallback"] += 1
        fall_back(subflow.meta, FallbackReason.SIMULTANEOUS_OPEN)
        return
    subflow.host.counters["MPTcpExtMPCapableFallbackSYNACK"] += 1
    fall_back(subflow.meta, FallbackReason.SYN_ACK_WITHOUT_OPTION)


def answer_to_join(subflow: Subflow, seg: Segment) -> bool:
    """RFC 8684 §3.2: verify the HMAC of the SYN/ACK or reset the subflow."""
    for option in seg.mptcp:
        if isinstance(option, MpJoinSynAck):
            subflow.remote_nonce = option.nonce
            subflow.remote_id = option.address_id
            subflow.backup = option.backup
            meta = subflow.meta
            expected = keys.synack_hmac(
                meta.remote_key, meta.local_key, option.nonce, subflow.local_nonce
            )
            if hmac.compare_digest(expected, option.hmac):
                counters = subflow.host.counters
                counters["MPTcpExtMPJoinSynAckRx"] += 1
                if option.backup:
                    counters["MPTcpExtMPJoinSynAckBackupRx"] += 1
                if subflow.remote_port != meta.fendpoint.remote_port:
                    counters["MPTcpExtMPJoinPortSynAckRx"] += 1
                return True
            subflow.host.counters["MPTcpExtMPJoinSynAckHMacFailure"] += 1
            break
    subflow.host.reset_for(seg, MpTcprst(RST_MPTCP_SPECIFIC).emit())
    subflow.terminate(ConnectionEnd.REFUSED, subflow.host.now)
    return False


def third_ack(subflow: Subflow, seg: Segment, now: int) -> bool:
    """The third packet, at the passive side: keys or HMAC, or the subflow is refused."""
    meta = subflow.meta
    if subflow.is_join:
        reason = RST_MPTCP_SPECIFIC
        for option in seg.mptcp:
            if isinstance(option, MpJoinAck):
                mac = keys.ack_hmac(
                    meta.remote_key, meta.local_key, subflow.remote_nonce, subflow.local_nonce
                )
                if hmac.compare_digest(mac, option.hmac):
                    counters = subflow.host.counters
                    counters["MPTcpExtMPJoinAckRx"] += 1
                    if subflow.local_port != meta.fendpoint.local_port:
                        counters["MPTcpExtMPJoinPortAckRx"] += 1
                    proved = sum(1 for s in meta.subflows if s.state is not State.SYN_RECEIVED)
                    if proved < meta.config.max_subflows:
                        return True
                    # There was room when its SYN came; others were faster.
                    counters["MPTcpExtMPJoinRejected"] += 1
                    reason = RST_LACK_OF_RESOURCES
                    break
                subflow.host.counters["MPTcpExtMPJoinAckHMacFailure"] += 1
                break
        subflow.snd.una = subflow.snd.nxt
        transient = reason == RST_LACK_OF_RESOURCES
        subflow.abort(MpTcprst(reason, transient).emit(), ConnectionEnd.REFUSED)
        return False
    for option in seg.mptcp:
        if (
            isinstance(option, MpCapable)
            and option.sender_key is not None
            and option.receiver_key == meta.local_key
        ):
            subflow.host.counters["MPTcpExtMPCapableACKRX"] += 1
            meta.learn_peer(option)
            return True
    if seg.dss is not None:
        # MPTCP is in use but the keys have not come: the first data will bring them again.
        return False
    subflow.host.counters["MPTcpExtMPCapableFallbackACK"] += 1
    fall_back(meta, FallbackReason.THIRD_ACK_WITHOUT_OPTION)
    return True


def _take_options(subflow: Subflow, seg: Segment, now: int) -> bool:
    """MPTCP options other than DSS, on a segment whose numbers are in window (RFC 8684 §3)."""
    meta = subflow.meta
    for option in seg.mptcp:
        if isinstance(option, MpCapable):
            if option.data_length and not subflow.is_join and not subflow.is_active:
                # RFC 8684 §3.1: it stands for a mapping from the first byte of both spaces.
                length = option.data_length
                first = meta.remote_idsn + 1
                mapping = RxMapping(first, 1, length, length, option.checksum)
                subflow.rx_maps.add(mapping, subflow.next_ssn)
                meta.ack_64 = True
                if not subflow.fully_established:
                    subflow.fully_established = True
                    meta.membership.on_confirmed(now)
        elif isinstance(option, MpJoinAck):
            if subflow.is_join and not subflow.is_active:
                subflow.ack_now()  # our fourth ACK was lost
        elif isinstance(option, AddAddr):
            meta.paths.on_add_addr(subflow, option, now)
        elif isinstance(option, RemoveAddr):
            meta.paths.on_remove_addr(option, now)
        elif isinstance(option, MpPrio):
            subflow.backup = option.backup
            subflow.host.counters["MPTcpExtMPPrioRx"] += 1
            if meta.stack.monitors:
                tell_subflow(meta, subflow, "sub-priority")
            meta.dispatcher.wake()
        elif isinstance(option, MpFail):
            subflow.host.counters["MPTcpExtMPFailRx"] += 1
            mp_fail_arrives(meta, subflow, option, now)
        elif isinstance(option, MpFastclose) and option.receiver_key == meta.local_key:
            subflow.host.counters["MPTcpExtMPFastcloseRx"] += 1
            meta.on_fastclose(now)
            return False
    return subflow.state is not State.CLOSED


def _take_mapping(subflow: Subflow, dss: Dss, now: int) -> bool:
    """Remember what the peer declares; False when the segment must be dropped."""
    meta = subflow.meta
    assert dss.dsn is not None
    if (dss.checksum is not None) != meta.checksum:
        # RFC 8684 §3.3.1: a checksum where none was agreed, or none where one was.
        subflow.abort(MpTcprst(RST_MPTCP_SPECIFIC).emit(), ConnectionEnd.PROTOCOL)
        return False
    length = dss.length
    if length == 0:
        # RFC 8684 §3.7: the infinite mapping.
        subflow.host.counters["MPTcpExtInfiniteMapRx"] += 1
        if not only_subflow_ever(meta):
            # RFC 8684 §3.7: with other subflows, or after them, there is no single stream.
            subflow.host.counters["MPTcpExtFallbackFailed"] += 1
            subflow.abort(MpTcprst(RST_MPTCP_SPECIFIC).emit(), ConnectionEnd.PROTOCOL)
            return False
        fall_back(meta, FallbackReason.INFINITE_MAPPING)
        return True
    if dss.dsn_64:
        meta.ack_64 = True
    dsn = unwrap(dss.dsn, meta.rx.nxt, 64 if dss.dsn_64 else 32)
    payload = length - 1 if dss.data_fin else length
    if payload:
        waiting = subflow.unmapped
        due = subflow.next_ssn if waiting is None else waiting.ssn
        mapping = RxMapping(dsn, unwrap(dss.ssn, due), payload, length, dss.checksum)
        if not subflow.rx_maps.add(mapping, due):
            subflow.host.counters["MPTcpExtDSSNotMatching"] += 1
            if subflow.rx_maps.full():
                return False  # no room: the segment is not acknowledged and comes again
        if waiting is not None:
            place_unmapped(subflow, now)
            if subflow.closed:
                return False
    if dss.data_fin:
        meta.receiving.on_data_fin(dsn + payload, now)
    return True


def segment_options_arrive(subflow: Subflow, seg: Segment, now: int) -> bool:
    """All options of an acceptable segment; False when the segment must be dropped."""
    if not subflow.mptcp:
        if subflow.fail_dsn >= 0:
            heed_answer(subflow, seg)
        return True
    meta = subflow.meta
    if seg.mptcp and not _take_options(subflow, seg, now):
        return False
    dss = seg.dss
    if not subflow.fully_established:
        if subflow.is_join and subflow.is_active:
            # RFC 8684 §3.2: whatever acknowledges is the fourth ACK.
            subflow.fully_established = True
            subflow.upper_deadline = NEVER
            meta.membership.on_joined(subflow, now)
        elif dss is not None:
            subflow.fully_established = True
            meta.membership.on_confirmed(now)
    if not subflow.dss_acked and subflow.snd.una > subflow.first_seq:
        # RFC 8684 §3.7. An ACK with another MPTCP option (a long ADD_ADDR leaves no room for a
        # DSS) says nothing yet.
        if dss is not None:
            subflow.dss_acked = dss.data_ack is not None
        elif not seg.mptcp:
            return acked_without_dss(subflow)
    if dss is not None:
        subflow.dss_seen = True
        if dss.data_ack is not None:
            meta.on_data_ack(subflow, dss, seg.window << subflow.snd.wscale, now)
        if dss.dsn is not None and not _take_mapping(subflow, dss, now):
            return False
    return subflow.state is not State.CLOSED


def reset_options_arrive(subflow: Subflow, seg: Segment) -> None:
    """What an RST in the window says beside that."""
    for option in seg.mptcp:
        if isinstance(option, MpTcprst):
            subflow.reset_reason = option.reason
            subflow.reset_transient = option.transient
            subflow.host.counters["MPTcpExtMPRstRx"] += 1
        elif isinstance(option, MpFail):
            # RFC 8684 §3.7: nothing of it was DATA_ACKed; it goes again on the others.
            subflow.host.counters["MPTcpExtMPFailRx"] += 1
        elif isinstance(option, MpFastclose) and option.receiver_key == subflow.meta.local_key:
            subflow.host.counters["MPTcpExtMPFastcloseRx"] += 1
            subflow.meta.on_fastclose(subflow.host.now, subflow)
