"""The MPTCP options a subflow puts on its segments (RFC 8684 §3.1-§3.3).

`segment_options` decides: a segment of an MPTCP subflow carries MP_CAPABLE, MP_JOIN or a DSS. A
retransmission asks again with the same chunk and so declares the same mapping, only the DATA_ACK
is new. TCP's own options and the order of sacrifice are `tcp.output.options_for`'s.
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import TYPE_CHECKING, Final

from mptcp import keys
from mptcp.mapping import TxMapping
from mptcp.tcp.chunks import SentChunk
from mptcp.tcp.output import Kind
from mptcp.wire.checksum import dss_checksum
from mptcp.wire.dss import Dss
from mptcp.wire.mptcp_options import (
    KIND_MPTCP,
    MpCapable,
    MpFail,
    MpJoinAck,
    MpJoinSyn,
    MpJoinSynAck,
)
from mptcp.wire.seq import MASK32, MASK64

if TYPE_CHECKING:
    from mptcp.subflow import Subflow

_DATA: Final = struct.Struct("!IIIIQQIHH")
_DATA_ACK_32: Final = struct.Struct("!IIIIIQIHH")
_ACK: Final = struct.Struct("!IIIIQ")
_ACK_32: Final = struct.Struct("!IIIII")
_TIMESTAMPS: Final = 0x0101080A  # NOP, NOP, kind 8, length 10
_DSS_DATA: Final = 0x1E1A200F  # kind 30, length 26, DSS, 64-bit DATA_ACK and DSN
_DSS_DATA_ACK_32: Final = 0x1E16200D  # length 22, 32-bit DATA_ACK
_DSS_ACK: Final = 0x1E0C2003  # kind 30, length 12, DSS, 64-bit DATA_ACK
_DSS_ACK_32: Final = 0x1E082001  # length 8, 32-bit DATA_ACK
_NOP_NOP: Final = 0x0101
_TCPRST: Final = 8  # subtype of MP_TCPRST


def prepared_options(subflow: Subflow, chunk: SentChunk | None, now: int) -> bytes | None:
    """The common option blocks, packed at once: timestamps with a DSS, its DSN of 64 bits.

    They are byte for byte what `segment_options` leads to, which serves everything else: other
    widths, checksums, SACK blocks, MP_CAPABLE and MP_JOIN, DATA_FIN.
    """
    meta = subflow.meta
    if not (
        subflow.fully_established
        and subflow.mptcp
        and subflow.ts_ok
        and meta.dsn_64
        and not meta.checksum
    ):
        return None
    if chunk is None:
        if meta.data_fin_due or subflow.reassembly.starts or subflow.dsack is not None:
            return None
        wide = meta.ack_64
        return (_ACK if wide else _ACK_32).pack(
            _TIMESTAMPS,
            subflow.timestamp(now),
            subflow.ts_recent,
            _DSS_ACK if wide else _DSS_ACK_32,
            meta.rx.nxt & (MASK64 if wide else MASK32),
        )
    mapping = chunk.mapping
    if not isinstance(mapping, TxMapping):
        return None
    wide = meta.ack_64
    return (_DATA if wide else _DATA_ACK_32).pack(
        _TIMESTAMPS,
        subflow.timestamp(now),
        subflow.ts_recent,
        _DSS_DATA if wide else _DSS_DATA_ACK_32,
        meta.rx.nxt & (MASK64 if wide else MASK32),
        mapping.dsn & MASK64,
        mapping.ssn & MASK32,
        mapping.length,
        _NOP_NOP,
    )


def data_options_length(subflow: Subflow) -> int:
    """The most `segment_options` takes on a data segment, padded to whole words."""
    meta = subflow.meta
    if meta.ack_64 and meta.dsn_64:
        return 28  # 26, with a checksum 28
    # 18 or 22, with a checksum 20 or 24. MP_CAPABLE with data takes 22 or 24 in the DSS's place.
    return 24


def infinite_mapping(subflow: Subflow, mapping: TxMapping) -> bytes:
    """RFC 8684 §3.7: Data-Level Length 0 and no DATA_ACK: from here on the subflow is the data."""
    wide = subflow.meta.dsn_64
    dsn = mapping.dsn & (MASK64 if wide else MASK32)
    return Dss(None, True, dsn, wide, mapping.ssn & MASK32, 0, mapping.checksum).emit()


def count_reset(counters: Counter[str], options: bytes) -> int | None:
    """Count the MP_TCPRST among the options of a RST; its reason (RFC 8684 §3.6), None without."""
    if len(options) >= 4 and options[0] == KIND_MPTCP and options[2] >> 4 == _TCPRST:
        counters["MPTcpExtMPRstTx"] += 1
        return options[3]
    return None


def segment_options(
    subflow: Subflow, kind: Kind, chunk: SentChunk | None, room: int
) -> list[bytes]:
    """The MPTCP options of a segment of an MPTCP subflow; `room` bytes are free for them."""
    if kind is Kind.SYN or kind is Kind.SYN_ACK:
        return [_syn_option(subflow, kind)]
    if not subflow.fully_established:
        if subflow.is_join and subflow.is_active:
            return [_join_ack(subflow)]
        if subflow.is_active:
            capable = _capable(subflow, chunk)
            if capable is not None and not _data_fin_turn(subflow, chunk):
                return [capable]
    meta = subflow.meta
    mapping = chunk.mapping if chunk is not None else None
    if isinstance(mapping, TxMapping):
        return [
            Dss(
                meta.data_ack(),
                meta.ack_64,
                mapping.dsn & (MASK64 if meta.dsn_64 else MASK32),
                meta.dsn_64,
                mapping.ssn & MASK32,
                mapping.length,
                mapping.checksum,
            ).emit()
        ]
    if not meta.remote_key:
        # SYN-RECEIVED: without the client's key there is nothing to acknowledge, and a DSS would
        # tell the client that its key has come (RFC 8684 §3.1).
        return []
    if meta.data_fin_due and room >= 28 and not subflow.reassembly.starts:
        # RFC 8684 §3.3.3: a DATA_FIN alone has SSN 0 and Data-Level Length 1.
        dsn = meta.data_fin_dsn & MASK64
        checksum = dss_checksum(dsn, 0, 1, 0) if meta.checksum else None
        wide = meta.dsn_64
        dsn = dsn if wide else dsn & MASK32
        return [Dss(meta.data_ack(), meta.ack_64, dsn, wide, 0, 1, checksum, True).emit()]
    if room < 12:
        return []
    return [Dss(meta.data_ack(), meta.ack_64).emit()]


def _syn_option(subflow: Subflow, kind: Kind) -> bytes:
    meta = subflow.meta
    required = subflow.config.checksum
    alone = not subflow.config.allow_join_initial_addr_port
    if kind is Kind.SYN:
        if subflow.is_join:
            return MpJoinSyn(
                subflow.backup_request, subflow.local_id, meta.remote_token, subflow.local_nonce
            ).emit()
        return MpCapable(checksum_required=required, no_join_initial=alone).emit()
    if subflow.is_join:
        mac = keys.synack_hmac(
            meta.local_key, meta.remote_key, subflow.local_nonce, subflow.remote_nonce
        )
        return MpJoinSynAck(
            subflow.backup_request, subflow.local_id, mac, subflow.local_nonce
        ).emit()
    return MpCapable(
        meta.local_key, checksum_required=required or meta.checksum, no_join_initial=alone
    ).emit()


def _join_ack(subflow: Subflow) -> bytes:
    meta = subflow.meta
    mac = keys.ack_hmac(meta.local_key, meta.remote_key, subflow.local_nonce, subflow.remote_nonce)
    return MpJoinAck(mac).emit()


def _data_fin_turn(subflow: Subflow, chunk: SentChunk | None) -> bool:
    """With a DATA_FIN and nothing else to send, bare ACKs carry MP_CAPABLE and it in turn.

    The third ACK may be lost, and a DATA_FIN means nothing to a peer that has no keys.
    """
    if chunk is not None or not subflow.meta.data_fin_due:
        subflow.capable_sent = True
        return False
    turn = subflow.capable_sent
    subflow.capable_sent = not turn
    return turn


def _capable(subflow: Subflow, chunk: SentChunk | None) -> bytes | None:
    """MP_CAPABLE of the third ACK, or of the first data until MPTCP is confirmed."""
    meta = subflow.meta
    if chunk is None:
        if subflow.snd.nxt != subflow.first_seq:
            return None
        return MpCapable(meta.local_key, meta.remote_key, checksum_required=meta.checksum).emit()
    mapping = chunk.mapping
    if isinstance(mapping, TxMapping) and mapping.ssn == 1:
        # RFC 8684 §3.1: the first data repeats MP_CAPABLE with its length, in place of a
        # DSS; any retransmitted part of it says the same.
        return MpCapable(
            meta.local_key,
            meta.remote_key,
            mapping.length,
            mapping.checksum,
            checksum_required=meta.checksum,
        ).emit()
    return None


def extra_options(subflow: Subflow, kind: Kind, chunk: SentChunk | None, room: int) -> list[bytes]:
    """The options of MPTCP of one segment, or what a connection that has fallen back still says."""
    if kind is Kind.RST:
        return []
    if not subflow.mptcp:
        mapping = chunk.mapping if chunk is not None else None
        if isinstance(mapping, TxMapping):
            # Also what was sent with another mapping before: should that have got lost, the
            # peer knows none for these bytes.
            return [infinite_mapping(subflow, mapping)]
        bare = chunk is None or not chunk.parts
        if subflow.fail_dsn >= 0 and bare and room >= 12:
            return [MpFail(subflow.fail_dsn).emit()]
        return []
    return segment_options(subflow, kind, chunk, room)
