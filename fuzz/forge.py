"""Options as an input decides them: every kind and length, mostly with numbers that nearly fit.

Half of what is drawn is right (token, HMAC, key, checksum, the next number), so that it gets past
the first check; the other half is wrong in one field.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fuzz.harness import FuzzPeer
from fuzz.reader import Reader
from fuzz.states import dss_checksum
from mptcp import keys
from mptcp.wire.mptcp_options import (
    AddAddr,
    MpCapable,
    MpFail,
    MpFastclose,
    MpJoinAck,
    MpJoinSyn,
    MpJoinSynAck,
    MpPrio,
    MpTcprst,
    RemoveAddr,
)
from mptcp.wire.tcp import (
    SACK_PERMITTED,
    fast_open_option,
    mss_option,
    sack_option,
    timestamps_option,
    user_timeout_option,
)

MASK32: Final = 0xFFFFFFFF
MASK64: Final = (1 << 64) - 1


class Draft:
    """The segment that the options are for."""

    __slots__ = ("data", "peer", "seq")

    def __init__(self, peer: FuzzPeer, seq: int, data: bytes) -> None:
        self.peer = peer
        self.seq = seq
        """Relative."""
        self.data = data


Make = Callable[[Reader, Draft], bytes]


def _mss(reader: Reader, draft: Draft) -> bytes:
    return mss_option(reader.u16() or 1)


def _wscale(reader: Reader, draft: Draft) -> bytes:
    return bytes((3, 3, reader.u8()))


def _sack_permitted(reader: Reader, draft: Draft) -> bytes:
    return SACK_PERMITTED


def _timestamps(reader: Reader, draft: Draft) -> bytes:
    peer = draft.peer
    val = peer.wire.now // 1000 + reader.delta()
    ecr = peer.ts_recent + reader.delta()
    return timestamps_option(val & MASK32, ecr & MASK32)


def _sack(reader: Reader, draft: Draft) -> bytes:
    peer = draft.peer
    blocks = []
    for _ in range(1 + reader.u8() % 4):
        left = peer.stack_isn + peer.stack_end - reader.size() + reader.delta()
        right = left + reader.size()
        blocks.append((left & MASK32, right & MASK32))
    return sack_option(blocks)


def _fast_open(reader: Reader, draft: Draft) -> bytes:
    size = reader.u8()
    if size & 1:
        return fast_open_option(b"")
    return fast_open_option(reader.take(4 + (size >> 1) % 7 * 2))


def _user_timeout(reader: Reader, draft: Draft) -> bytes:
    return user_timeout_option(1 + reader.u16() % 30_000)


def _any(reader: Reader, draft: Draft) -> bytes:
    """Any kind, any length, also one that does not fit."""
    kind, told = reader.u8(), reader.u8()
    return bytes((kind, told)) + reader.take(min(max(told, 2) - 2, 38))


def _any_mptcp(reader: Reader, draft: Draft) -> bytes:
    """Any subtype in any length."""
    size = 3 + reader.u8() % 38
    return bytes((30, size)) + reader.take(size - 2)


def _capable(reader: Reader, draft: Draft) -> bytes:
    level = draft.peer.data
    bits = reader.u8()
    flags = reader.u8()
    sender = level.key if bits & 8 == 0 else reader.take(8)
    receiver = (level.stack_key or bytes(8)) if bits & 16 == 0 else reader.take(8)
    form = bits & 7
    option = MpCapable(
        sender if form else None,
        receiver if form > 1 else None,
        (len(draft.data) + reader.delta()) & 0xFFFF if form > 2 else None,
        reader.u16() if form > 4 else None,
        version=1 if bits & 0x60 else reader.u8() & 15,
        checksum_required=flags & 0x80 != 0,
        extensibility=flags & 0x40 != 0,
        no_join_initial=flags & 0x20 != 0,
        other_flags=flags & 0x1E,
        hmac_sha256=flags & 1 == 0,
    )
    return option.emit()


def _join_syn(reader: Reader, draft: Draft) -> bytes:
    bits = reader.u8()
    token = keys.token(draft.peer.data.stack_key) if bits & 1 == 0 else reader.u32()
    nonce = draft.peer.local_nonce
    return MpJoinSyn(bits & 2 != 0, reader.u8(), token, nonce).emit()


def _join_synack(reader: Reader, draft: Draft) -> bytes:
    bits = reader.u8()
    peer = draft.peer
    level = peer.data
    mac = keys.synack_hmac(level.key, level.stack_key, peer.local_nonce, peer.stack_nonce)
    if bits & 1:
        mac = reader.take(8)
    return MpJoinSynAck(bits & 2 != 0, reader.u8(), mac, peer.local_nonce).emit()


def _join_ack(reader: Reader, draft: Draft) -> bytes:
    peer = draft.peer
    level = peer.data
    mac = keys.ack_hmac(level.key, level.stack_key, peer.local_nonce, peer.stack_nonce)
    return MpJoinAck(reader.take(20) if reader.u8() & 1 else mac).emit()


def _dss(reader: Reader, draft: Draft) -> bytes:
    """Each variant of RFC 8684 §3.3; the numbers from the peer's own, the checksum mostly right."""
    peer = draft.peer
    level = peer.data
    bits, more = reader.u8(), reader.u8()
    data_ack = None
    if bits & 1 == 0:
        data_ack = level.data_ack + (reader.delta() if more & 1 else 0)
        if more & 2:
            data_ack = reader.u64() - level.stack_idsn & MASK64
    dsn: int | None = None
    ssn, length, checksum = 0, 0, None
    if bits & 2 == 0:
        dsn = level.nxt
        ssn = draft.seq
        length = len(draft.data)
        if more & 4:
            dsn += reader.delta()
        if more & 8:
            dsn = reader.u64() - level.idsn & MASK64
        if more & 16:
            ssn += reader.delta()
        if more & 32:
            length = reader.size()
        elif bits & 4:
            length += 1
        length &= 0xFFFF
        ssn &= MASK32
        if bits & 8:
            absolute = level.idsn + dsn & MASK64
            checksum = dss_checksum(absolute, ssn, length, draft.data)
            if more & 64:
                checksum = reader.u16()
        elif dsn == level.nxt and not more & 128:
            level.nxt += length
    option = peer.dss(
        data_ack=data_ack,
        dsn=dsn,
        ssn=ssn,
        length=length,
        data_fin=bits & 6 == 4,
        ack_64=bits & 16 == 0,
        dsn_64=bits & 32 == 0,
        checksum=checksum,
    )
    return option.emit()


def _add_addr(reader: Reader, draft: Draft) -> bytes:
    bits = reader.u8()
    level = draft.peer.data
    address_id = reader.u8()
    address = bytes([10, 0, 1, 2]) if bits & 1 == 0 else reader.take(4)
    if bits & 2:
        address = b"\xfd" + bytes(14) + bytes([reader.u8()])
    port = reader.u16() if bits & 4 else None
    if bits & 8:
        return AddAddr(address_id, address, port, None, True).emit()
    mac = keys.add_addr_hmac(level.key, level.stack_key, address_id, address, port)
    if bits & 16:
        mac = reader.take(8)
    return AddAddr(address_id, address, port, mac).emit()


def _remove_addr(reader: Reader, draft: Draft) -> bytes:
    count = 1 + reader.u8() % 37
    if count > 4:
        return RemoveAddr(tuple(range(count))).emit()
    return RemoveAddr(tuple(reader.take(count))).emit()


def _prio(reader: Reader, draft: Draft) -> bytes:
    return MpPrio(reader.u8() & 1 != 0).emit()


def _fail(reader: Reader, draft: Draft) -> bytes:
    level = draft.peer.data
    dsn = level.stack_idsn + 1 + reader.delta() if reader.u8() & 1 == 0 else reader.u64()
    return MpFail(dsn & MASK64).emit()


def _fastclose(reader: Reader, draft: Draft) -> bytes:
    key = draft.peer.data.stack_key or bytes(8)
    return MpFastclose(reader.take(8) if reader.u8() & 1 else key).emit()


def _tcprst(reader: Reader, draft: Draft) -> bytes:
    bits = reader.u8()
    return MpTcprst(bits >> 1 & 15, bits & 1 != 0).emit()


OPTIONS: Final[tuple[Make, ...]] = (
    _dss, _dss, _dss, _add_addr, _remove_addr, _prio, _fail, _fastclose, _tcprst, _capable,
    _join_syn, _join_synack, _join_ack, _mss, _wscale, _sack_permitted, _timestamps, _sack,
    _fast_open, _user_timeout, _any, _any_mptcp,
)  # fmt: skip
"""By number in the input: new ones go to the end."""


def options(reader: Reader, draft: Draft) -> bytes:
    """The options of a segment, padded, as many as fit."""
    control = reader.u8()
    whole = b""
    if draft.peer.timestamps and control & 0x80 == 0:
        peer = draft.peer
        whole = b"\1\1" + timestamps_option(peer.wire.now // 1000 & MASK32, peer.ts_recent)
    for _ in range(control & 3):
        option = OPTIONS[reader.u8() % len(OPTIONS)](reader, draft)
        if len(whole) + len(option) <= 40:
            whole += option
    return whole + b"\1" * (-len(whole) % 4)
