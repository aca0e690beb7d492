"""What a subflow sends: when it asks the connection for data, and the mapping that this gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp.mapping import TxMapping
from mptcp.tcp import output
from mptcp.tcp.host import Transmit
from mptcp.tcp.state import NEVER
from mptcp.wire.checksum import dss_checksum, parts_sum
from mptcp.wire.seq import MASK32, MASK64

if TYPE_CHECKING:
    from mptcp.subflow import Subflow


def poll_transmit(subflow: Subflow, now: int) -> Transmit | None:
    """The next packet of a subflow, None when it has none to send now."""
    meta = subflow.meta
    if meta.write_closed and not subflow.early and meta.data_fin_ready(now):
        meta.ack_data(now)
    dispatcher = meta.dispatcher
    if subflow.snd.board.lost and dispatcher.cloning.policy.on_loss:
        dispatcher.cloning.on_loss(subflow)
    transmit = output.poll_output(subflow, now)
    # What pacing holds back goes soon, and the scheduler's choice stands: the others must not
    # ask again before, they would get the same answer for ever.
    if (
        transmit is None
        and dispatcher.waiting
        and (subflow.pace_deadline == NEVER or not subflow.sendable(now))
    ):
        dispatcher.on_full(subflow, now)
    if transmit is None and dispatcher.clones_when_blocked(subflow, now):
        transmit = output.poll_output(subflow, now)
    pacer = subflow.pacer
    if (
        transmit is None
        and pacer is not None
        and pacer.held
        and subflow.pace_deadline == NEVER
        and subflow.snd.congestion_room() > 0
    ):
        pacer.held = False  # others took what it had waited to send
    return transmit


def pull(subflow: Subflow, limit: int, now: int) -> tuple[list[memoryview], object | None] | None:
    """Up to `limit` bytes and their mapping, None if the connection has none for it now."""
    if _first_data(subflow):
        # Design rule 2, RFC 8684 §3.1: the first data goes with MP_CAPABLE, one segment.
        limit = min(limit, subflow.snd.mss - subflow.extra_options_length() - 12)
    again = subflow.meta.tx.retransmit.taken_bytes
    taken = subflow.meta.dispatcher.pull(subflow, limit, now)
    if taken is None:
        return None
    parts, dsn, length = taken
    ssn = subflow.snd.nxt - subflow.snd.iss - subflow.syn_data_out
    if not subflow.mptcp:
        if not subflow.infinite_due:
            return parts, None
        subflow.infinite_due = False
        subflow.mapped_end = subflow.snd.nxt + length
        subflow.host.counters["MPTcpExtInfiniteMapTx"] += 1
        if subflow.infinite_from:
            dsn = subflow.meta.local_idsn + subflow.infinite_from
            ssn = subflow.infinite_from
        return parts, TxMapping(dsn, ssn, 0, 0 if subflow.meta.checksum else None)
    checksum = None
    if subflow.meta.checksum:
        checksum = dss_checksum(dsn & MASK64, ssn & MASK32, length, parts_sum(parts))
    return parts, TxMapping(
        dsn, ssn, length, checksum, subflow.meta.tx.retransmit.taken_bytes > again
    )


def _first_data(subflow: Subflow) -> bool:
    """Whether the next byte is the first one and must go with MP_CAPABLE."""
    return (
        subflow.is_active
        and not subflow.is_join
        and subflow.mptcp
        and not subflow.fully_established
        and subflow.snd.nxt == subflow.first_seq
    )
