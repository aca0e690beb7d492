"""Payload of a subflow in its order: to its place in the data sequence space (RFC 8684 §3.3.1).

Each byte goes where its mapping says; with checksums a mapping is verified whole before any of it
goes on. What has no mapping waits for one (`unmapped`), or is plain TCP's where the options have
been stripped from the beginning (§3.7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp.errors import ConnectionEnd, FallbackReason
from mptcp.fallback import checksum_failed, fall_back
from mptcp.mapping import RxMapping
from mptcp.unmapped import PATIENCE_US, Unmapped
from mptcp.wire.checksum import dss_checksum, parts_sum
from mptcp.wire.mptcp_options import RST_MIDDLEBOX, MpTcprst
from mptcp.wire.seq import MASK32, MASK64

if TYPE_CHECKING:
    from mptcp.subflow import Subflow


def deliver(subflow: Subflow, seq: int, view: memoryview, now: int) -> None:
    if not subflow.mptcp:
        subflow.meta.receiving.on_plain_data(view, now)
    elif subflow.unmapped is not None:
        subflow.unmapped.add(view)
        place_unmapped(subflow, now)
    else:
        ssn = seq - subflow.irs - subflow.syn_data_in
        mapping = subflow.rx_maps.find(ssn)
        if mapping is not None and mapping.checksum is None:
            end = ssn - mapping.ssn + len(view)
            if end <= mapping.length:  # the usual case: one mapping covers all
                dsn = mapping.dsn + ssn - mapping.ssn
                subflow.meta.receiving.on_data(subflow, dsn, view, now)
                if end == mapping.length:
                    subflow.rx_maps.done(mapping)
                return
        _take(subflow, ssn, view, now)


def _take(subflow: Subflow, ssn: int, view: memoryview, now: int) -> None:
    """In-order payload: what is mapped goes to its place, the rest waits or is plain TCP's."""
    count = _place(subflow, ssn, view, now)
    if not 0 <= count < len(view):
        return
    rest = view[count:]
    if subflow.mptcp and not _falls_back(subflow, now):
        waiting = subflow.unmapped = Unmapped(subflow.meta.rx, ssn + count, now)
        waiting.add(rest)
        look_at_unmapped(subflow, now)
    else:
        subflow.meta.receiving.on_plain_data(rest, now)


def _place(subflow: Subflow, ssn: int, view: memoryview, now: int) -> int:
    """Give the connection what is mapped from `ssn` on; returns how much, -1 at the end."""
    start = ssn
    while subflow.mptcp and len(view):
        mapping = subflow.rx_maps.find(ssn)
        if mapping is None:
            break
        offset = ssn - mapping.ssn
        count = min(len(view), mapping.length - offset)
        if mapping.checksum is None:
            subflow.meta.receiving.on_data(subflow, mapping.dsn + offset, view[:count], now)
        else:
            subflow.rx_maps.hold(mapping, view[:count])
            if offset + count == mapping.length and not _verify(subflow, mapping, now):
                return -1
        if offset + count == mapping.length:
            subflow.rx_maps.done(mapping)
        ssn += count
        view = view[count:]
    return ssn - start


def place_unmapped(subflow: Subflow, now: int) -> None:
    """A mapping, or more data, has come to what has waited for its mapping."""
    waiting = subflow.unmapped
    assert waiting is not None
    if subflow.rx_maps.find(waiting.ssn) is None:
        look_at_unmapped(subflow, now)
        return
    subflow.unmapped = None
    views = waiting.views
    while views:
        count = _place(subflow, waiting.ssn, views[0], now)
        if count < 0:
            waiting.clear()
            return
        waiting.taken(count)
        if views and not subflow.mptcp:
            for view in waiting.clear():
                subflow.meta.receiving.on_plain_data(view, now)
        elif count == 0:
            break
    if views:
        waiting.deadline = now + PATIENCE_US
        subflow.unmapped = waiting
        look_at_unmapped(subflow, now)


def look_at_unmapped(subflow: Subflow, now: int) -> None:
    """RFC 8684 §3.3.1, §3.7: not for longer than a window, nor for ever."""
    waiting = subflow.unmapped
    assert waiting is not None
    if waiting.size > subflow.meta.rx.buffer or now >= waiting.deadline:
        subflow.host.counters["MPTcpExtDSSNoMatchTCP"] += 1
        subflow.abort(MpTcprst(RST_MIDDLEBOX).emit(), ConnectionEnd.PROTOCOL)
    elif waiting.deadline < subflow.upper_deadline:
        subflow.upper_deadline = waiting.deadline
        subflow.host.rearm(subflow)


def _verify(subflow: Subflow, mapping: RxMapping, now: int) -> bool:
    """RFC 8684 §3.3.1: check the whole mapping, then hand it up; False on a mismatch."""
    total = parts_sum(mapping.held)
    expected = dss_checksum(
        mapping.dsn & MASK64, mapping.ssn & MASK32, mapping.declared_length, total
    )
    if expected != mapping.checksum:
        subflow.host.counters["MPTcpExtDataCsumErr"] += 1
        return checksum_failed(subflow.meta, subflow, mapping.dsn)  # True: held bytes are delivered
    dsn = mapping.dsn
    for view in mapping.held:
        subflow.meta.receiving.on_data(subflow, dsn, view, now)
        dsn += len(view)
    return True


def _falls_back(subflow: Subflow, now: int) -> bool:
    """Whether in-order payload without a mapping makes the connection plain TCP."""
    if subflow.is_join or subflow.dss_seen or subflow.fully_established:
        return False
    # RFC 8684 §3.7: options are stripped from the beginning.
    subflow.host.counters["MPTcpExtMPCapableDataFallback"] += 1
    fall_back(subflow.meta, FallbackReason.DATA_WITHOUT_MAPPING)
    return True
