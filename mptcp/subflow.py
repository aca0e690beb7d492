"""A TCP connection as a part of an MPTCP one (RFC 8684 §2, §3.1-§3.3).

Owns what is true of one subflow: how it was established (MP_CAPABLE or MP_JOIN), its mappings, the
address identifiers at both ends, its backup priority. Decisions about the whole connection (which
data, which window, fallback, close) are `meta_socket`'s, reached through `self.meta`.

Invariants
  * No payload leaves a joined subflow before its fourth ACK (RFC 8684 §3.2: PRE_ESTABLISHED).
  * A segment of an MPTCP subflow carries MP_CAPABLE, MP_JOIN or a DSS, never none of them, until
    the connection has fallen back; then it carries none.
"""

from __future__ import annotations

import enum
import hmac
from typing import TYPE_CHECKING

from mptcp import keys
from mptcp.errors import ConnectionEnd
from mptcp.mapping import RxMapping, RxMappings, TxMapping
from mptcp.tcp import output
from mptcp.tcp.connection import TcpConnection
from mptcp.tcp.host import Host, Interface, Transmit
from mptcp.tcp.output import Kind
from mptcp.tcp.scoreboard import SentChunk
from mptcp.tcp.state import NEVER, State
from mptcp.wire.checksum import dss_checksum, parts_sum
from mptcp.wire.dss import Dss
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
from mptcp.wire.seq import unwrap
from mptcp.wire.tcp import Segment

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket

MASK32 = 0xFFFFFFFF
MASK64 = 0xFFFFFFFFFFFFFFFF

REASON_MPTCP = 1
REASON_RESOURCES = 2
REASON_POLICY = 3
REASON_MIDDLEBOX = 6
"""MP_TCPRST reasons (RFC 8684 §3.6)."""


class Role(enum.Enum):
    """How a subflow came to be."""

    INITIAL_ACTIVE = 0
    INITIAL_PASSIVE = 1
    JOIN_ACTIVE = 2
    JOIN_PASSIVE = 3


class Subflow(TcpConnection):
    """One subflow. The initial one of a plain TCP connection is a Subflow with `mptcp` False."""

    def __init__(
        self,
        host: Host,
        meta: MetaSocket,
        role: Role,
        interface: Interface,
        local: bytes,
        local_port: int,
        remote: bytes,
        remote_port: int,
        iss: int,
        ts_offset: int,
    ) -> None:
        super().__init__(
            host,
            interface,
            local,
            local_port,
            remote,
            remote_port,
            iss,
            meta.controllers,
            meta.congestion_control,
            ts_offset,
        )
        self.meta = meta
        self.role = role
        self.is_join = role in (Role.JOIN_ACTIVE, Role.JOIN_PASSIVE)
        self.mptcp = host.config.mptcp
        """Whether this subflow speaks MPTCP (still)."""
        self.fully_established = False
        """RFC 8684 §3.1, §3.2: the peer has confirmed MPTCP on this subflow."""
        self.path_index = 0
        """The path manager's index of this subflow's path (thesis §4.2.1: 1 is the first)."""
        self.local_id = 0
        self.remote_id = 0
        self.backup = False
        """The peer asked us to use it as backup (B flag of MP_JOIN, or MP_PRIO)."""
        self.backup_request = False
        """We asked the peer to use it as backup."""
        self.local_nonce = b""
        self.remote_nonce = b""
        self.rx_maps = RxMappings()
        self.dss_seen = False
        self.join_retries = 0
        self.nodelay = meta.nodelay
        self.ended: ConnectionEnd | None = None
        self.reset_reason: int | None = None
        """Reason code of a received MP_TCPRST."""

    # -- views for schedulers ------------------------------------------------------------------

    @property
    def srtt(self) -> int:
        """Smoothed RTT, µs; 0 while unknown."""
        return self.snd.rtt.srtt

    @property
    def cwnd(self) -> int:
        """Congestion window, bytes."""
        return self.cc.cwnd

    @property
    def in_flight(self) -> int:
        """Bytes sent and neither acknowledged nor presumed lost."""
        return self.snd.board.in_flight

    @property
    def stale(self) -> bool:
        """The retransmission timer has expired and nothing was heard since."""
        return self.snd.timeouts > 0

    @property
    def usable(self) -> bool:
        """New data may be given to this subflow."""
        state = self.state
        return (
            (state is State.ESTABLISHED or state is State.CLOSE_WAIT)
            and not self.fin_queued
            and not self.snd.timeouts
            and (self.fully_established or not self.is_join)
        )

    @property
    def room(self) -> int:
        """Bytes the congestion window and this subflow's own window allow now."""
        snd = self.snd
        return min(snd.congestion_room(), snd.window_room())

    def sendable(self, now: int) -> int:
        """Bytes this subflow would send if the scheduler chose it; 0 if it cannot."""
        return output.sendable(self)

    # -- hooks: sending ------------------------------------------------------------------------

    def poll_transmit(self, now: int) -> Transmit | None:
        meta = self.meta
        if meta.write_closed and meta.data_fin_ready(now) and not self.acks_owed:
            self.acks_owed = 1
        transmit = output.poll_output(self, now)
        if transmit is None and meta.waiting:
            meta.subflow_full(self)
        return transmit

    def queued(self) -> int:
        if self.is_join and not self.fully_established:
            return 0
        return self.meta.available(self)

    def has_unsent(self) -> bool:
        # A subflow is closed when everything is acknowledged, or by itself; only in plain TCP
        # does its FIN end the data.
        return not self.mptcp and self.meta.tx.queued > 0

    def send_window(self) -> int:
        return min(self.snd.window_room(), self.meta.send_window(self))

    def pull(self, limit: int, now: int) -> tuple[list[memoryview], object | None] | None:
        if self._first_data():
            # Design rule 2, RFC 8684 §3.1: the first data goes with MP_CAPABLE, one segment.
            limit = min(limit, self.snd.mss - self.extra_options_length() - 12)
        taken = self.meta.pull(self, limit, now)
        if taken is None:
            return None
        parts, dsn, length = taken
        if not self.mptcp:
            return parts, None
        ssn = self.snd.nxt - self.snd.iss
        checksum = None
        if self.meta.checksum:
            checksum = dss_checksum(dsn & MASK64, ssn & MASK32, length, parts_sum(parts))
        return parts, TxMapping(dsn, ssn, length, checksum)

    def _first_data(self) -> bool:
        """Whether the next byte is the first one and must go with MP_CAPABLE."""
        return (
            self.role is Role.INITIAL_ACTIVE
            and self.mptcp
            and not self.fully_established
            and self.snd.nxt == self.snd.iss + 1
        )

    def extra_options_length(self) -> int:
        if not self.mptcp:
            return 0
        meta = self.meta
        length = 10 + (8 if meta.ack_64 else 4) + (8 if meta.dsn_64 else 4)
        if meta.checksum:
            length += 2
        # MP_CAPABLE with data takes 22 or 24 and needs no more than the DSS in its place.
        return max(length + 3 & ~3, 24)

    def extra_options(self, kind: Kind, chunk: SentChunk | None, room: int) -> list[bytes]:
        if not self.mptcp or kind is Kind.RST:
            return []
        if kind is Kind.SYN or kind is Kind.SYN_ACK:
            return [self._syn_option(kind)]
        if not self.fully_established:
            if self.role is Role.JOIN_ACTIVE:
                return [self._join_ack()]
            if self.role is Role.INITIAL_ACTIVE:
                capable = self._capable(chunk)
                if capable is not None:
                    return [capable]
        meta = self.meta
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
        if meta.data_fin_due and room >= 28 and not self.reassembly.starts:
            # RFC 8684 §3.3.3: a DATA_FIN alone has SSN 0 and Data-Level Length 1.
            dsn = meta.data_fin_dsn & MASK64
            checksum = dss_checksum(dsn, 0, 1, 0) if meta.checksum else None
            wide = meta.dsn_64
            dsn = dsn if wide else dsn & MASK32
            return [Dss(meta.data_ack(), meta.ack_64, dsn, wide, 0, 1, checksum, True).emit()]
        if room < 12:
            return []
        return [Dss(meta.data_ack(), meta.ack_64).emit()]

    def may_signal(self) -> bool:
        # MP_CAPABLE or MP_JOIN with keys leaves no room; they go until the peer confirms.
        return self.fully_established or self.role in (Role.INITIAL_PASSIVE, Role.JOIN_PASSIVE)

    def _syn_option(self, kind: Kind) -> bytes:
        meta = self.meta
        required = self.config.checksum
        if kind is Kind.SYN:
            if self.is_join:
                return MpJoinSyn(
                    self.backup_request, self.local_id, meta.remote_token, self.local_nonce
                ).emit()
            return MpCapable(checksum_required=required).emit()
        if self.is_join:
            mac = keys.synack_hmac(
                meta.local_key, meta.remote_key, self.local_nonce, self.remote_nonce
            )
            return MpJoinSynAck(self.backup_request, self.local_id, mac, self.local_nonce).emit()
        return MpCapable(meta.local_key, checksum_required=required or meta.checksum).emit()

    def _join_ack(self) -> bytes:
        meta = self.meta
        mac = keys.ack_hmac(meta.local_key, meta.remote_key, self.local_nonce, self.remote_nonce)
        return MpJoinAck(mac).emit()

    def _capable(self, chunk: SentChunk | None) -> bytes | None:
        """MP_CAPABLE of the third ACK, or of the first data until MPTCP is confirmed."""
        meta = self.meta
        first = self.snd.iss + 1
        if chunk is None:
            if self.snd.nxt != first:
                return None
            return MpCapable(
                meta.local_key, meta.remote_key, checksum_required=meta.checksum
            ).emit()
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

    # -- hooks: handshake ----------------------------------------------------------------------

    def on_syn(self, seg: Segment) -> bool:
        if self.role is Role.INITIAL_ACTIVE:
            if self.mptcp:
                self._answer_to_capable(seg)
            return True
        if self.role is Role.JOIN_ACTIVE:
            return self._answer_to_join(seg)
        return True

    def _answer_to_capable(self, seg: Segment) -> None:
        """RFC 8684 §3.1: the SYN/ACK says whether this is an MPTCP connection."""
        for option in seg.mptcp:
            if (
                isinstance(option, MpCapable)
                and option.sender_key is not None
                and option.receiver_key is None
                and option.version == 1
                and option.hmac_sha256
            ):
                self.meta.learn_peer(option)
                return
        self.host.counters["MPTcpExtMPCapableFallbackSYNACK"] += 1
        self.meta.fall_back("the SYN/ACK carried no usable MP_CAPABLE")

    def _answer_to_join(self, seg: Segment) -> bool:
        """RFC 8684 §3.2: verify the HMAC of the SYN/ACK or reset the subflow."""
        for option in seg.mptcp:
            if isinstance(option, MpJoinSynAck):
                self.remote_nonce = option.nonce
                self.remote_id = option.address_id
                self.backup = option.backup
                meta = self.meta
                expected = keys.synack_hmac(
                    meta.remote_key, meta.local_key, option.nonce, self.local_nonce
                )
                if hmac.compare_digest(expected, option.hmac):
                    self.host.counters["MPTcpExtMPJoinSynAckRx"] += 1
                    return True
                self.host.counters["MPTcpExtMPJoinSynAckHMacFailure"] += 1
                break
        self.host.reset_for(seg, self.interface.id, MpTcprst(REASON_MPTCP).emit())
        self.terminate(ConnectionEnd.REFUSED, self.host.now)
        return False

    def accept_third_ack(self, seg: Segment, now: int) -> bool:
        if not self.mptcp:
            return True
        meta = self.meta
        if self.is_join:
            for option in seg.mptcp:
                if isinstance(option, MpJoinAck):
                    mac = keys.ack_hmac(
                        meta.remote_key, meta.local_key, self.remote_nonce, self.local_nonce
                    )
                    if hmac.compare_digest(mac, option.hmac):
                        self.host.counters["MPTcpExtMPJoinAckRx"] += 1
                        return True
                    self.host.counters["MPTcpExtMPJoinAckHMacFailure"] += 1
                    break
            self.snd.una = self.snd.nxt
            self.abort(MpTcprst(REASON_MPTCP).emit(), ConnectionEnd.REFUSED)
            return False
        for option in seg.mptcp:
            if (
                isinstance(option, MpCapable)
                and option.sender_key is not None
                and option.receiver_key == meta.local_key
            ):
                meta.learn_peer(option)
                return True
        if seg.dss is not None:
            # MPTCP is in use but the keys have not come: the first data will bring them again.
            return False
        self.host.counters["MPTcpExtMPCapableFallbackACK"] += 1
        meta.fall_back("the third packet carried no MP_CAPABLE")
        return True

    def on_established(self, now: int) -> None:
        if self.mptcp:
            self.meta.controllers.append(self.cc)
        if self.role is Role.JOIN_ACTIVE:
            # RFC 8684 §3.2: repeat the third ACK until the fourth comes.
            self.upper_deadline = now + self.snd.rtt.rto
            self.ack_now()
        elif self.role is Role.JOIN_PASSIVE:
            self.fully_established = True
            self.ack_now()
        self.meta.on_subflow_established(self, now)

    def on_upper_timeout(self, now: int) -> None:
        if self.role is not Role.JOIN_ACTIVE or self.fully_established:
            return
        self.join_retries += 1
        if self.join_retries > self.config.synack_retries:
            self.abort(MpTcprst(REASON_MPTCP).emit(), ConnectionEnd.TIMED_OUT)
            return
        self.upper_deadline = now + (self.snd.rtt.rto << self.join_retries)
        self.ack_now()

    def on_syn_timeout(self, now: int) -> None:
        # RFC 8684 §3.1, §3.9.3: after some SYNs without an answer try without the option.
        if (
            self.role is Role.INITIAL_ACTIVE
            and self.mptcp
            and self.snd.timeouts > self.config.syn_retries_mptcp
        ):
            self.host.counters["MPTcpExtMPCapableSYNTXDrop"] += 1
            self.meta.fall_back("SYNs with MP_CAPABLE were not answered")

    # -- hooks: receiving ----------------------------------------------------------------------

    def receive_window(self) -> int:
        return self.meta.receive_window()

    def on_options(self, seg: Segment, now: int) -> bool:
        if not self.mptcp:
            return True
        meta = self.meta
        if seg.mptcp and not self._take_options(seg, now):
            return False
        dss = seg.dss
        if not self.fully_established:
            if self.role is Role.JOIN_ACTIVE:
                # RFC 8684 §3.2: whatever acknowledges is the fourth ACK.
                self.fully_established = True
                self.upper_deadline = NEVER
                meta.on_subflow_joined(self, now)
            elif dss is not None:
                self.fully_established = True
                meta.on_confirmed(now)
            elif self.role is Role.INITIAL_ACTIVE and self.snd.una > self.snd.iss + 1:
                # RFC 8684 §3.7: our data was acknowledged without a DSS.
                self.host.counters["MPTcpExtMPCapableDataFallback"] += 1
                meta.fall_back("data was acknowledged without a DSS")
                return True
        if dss is not None:
            self.dss_seen = True
            if dss.data_ack is not None:
                meta.on_data_ack(self, dss, seg.window << self.snd.wscale, now)
            if dss.dsn is not None and not self._take_mapping(dss, seg, now):
                return False
        return self.state is not State.CLOSED

    def _take_mapping(self, dss: Dss, seg: Segment, now: int) -> bool:
        """Remember what the peer declares; False when the segment must be dropped."""
        meta = self.meta
        assert dss.dsn is not None
        if (dss.checksum is not None) != meta.checksum:
            # RFC 8684 §3.3.1: a checksum where none was agreed, or none where one was.
            self.abort(MpTcprst(REASON_MPTCP).emit(), ConnectionEnd.PROTOCOL)
            return False
        length = dss.length
        if length == 0:
            # RFC 8684 §3.7: the infinite mapping.
            self.host.counters["MPTcpExtInfiniteMapRx"] += 1
            meta.fall_back("the peer sent an infinite mapping")
            return True
        if dss.dsn_64:
            meta.ack_64 = True
        dsn = unwrap(dss.dsn, meta.rx.nxt, 64 if dss.dsn_64 else 32)
        payload = length - 1 if dss.data_fin else length
        if payload:
            ssn = unwrap(dss.ssn, self.rcv_nxt - self.irs)
            mapping = RxMapping(dsn, ssn, payload, length, dss.checksum)
            if not self.rx_maps.add(mapping, self.rcv_nxt - self.irs):
                self.host.counters["MPTcpExtDSSNotMatching"] += 1
        if dss.data_fin:
            meta.on_data_fin(dsn + payload, now)
        return True

    def _take_options(self, seg: Segment, now: int) -> bool:
        """MPTCP options other than DSS, on a segment whose numbers are in window (RFC 8684 §3)."""
        meta = self.meta
        for option in seg.mptcp:
            if isinstance(option, MpCapable):
                if option.data_length and self.role is Role.INITIAL_PASSIVE:
                    # RFC 8684 §3.1: it stands for a mapping from the first byte of both spaces.
                    length = option.data_length
                    first = meta.remote_idsn + 1
                    mapping = RxMapping(first, 1, length, length, option.checksum)
                    self.rx_maps.add(mapping, self.rcv_nxt - self.irs)
                    meta.ack_64 = True
                    if not self.fully_established:
                        self.fully_established = True
                        meta.on_confirmed(now)
            elif isinstance(option, MpJoinAck):
                if self.role is Role.JOIN_PASSIVE:
                    self.ack_now()  # our fourth ACK was lost
            elif isinstance(option, AddAddr):
                meta.on_add_addr(self, option, now)
            elif isinstance(option, RemoveAddr):
                meta.on_remove_addr(option, now)
            elif isinstance(option, MpPrio):
                self.backup = option.backup
                self.host.counters["MPTcpExtMPPrioRx"] += 1
                meta.wake_subflows()
            elif isinstance(option, MpFail):
                self.host.counters["MPTcpExtMPFailRx"] += 1
                meta.on_mp_fail(self, option, now)
            elif isinstance(option, MpFastclose):
                if option.receiver_key == meta.local_key:
                    self.host.counters["MPTcpExtMPFastcloseRx"] += 1
                    meta.on_fastclose(now)
                    return False
        return self.state is not State.CLOSED

    def on_reset_options(self, seg: Segment) -> None:
        for option in seg.mptcp:
            if isinstance(option, MpTcprst):
                self.reset_reason = option.reason
                self.host.counters["MPTcpExtMPRstRx"] += 1
            elif isinstance(option, MpFastclose) and option.receiver_key == self.meta.local_key:
                self.host.counters["MPTcpExtMPFastcloseRx"] += 1
                self.meta.on_fastclose(self.host.now)

    def deliver(self, seq: int, view: memoryview, now: int) -> None:
        meta = self.meta
        ssn = seq - self.irs
        while self.mptcp and len(view):
            mapping = self.rx_maps.find(ssn)
            if mapping is None:
                if not self._unmapped(now):
                    return
                break
            offset = ssn - mapping.ssn
            count = min(len(view), mapping.length - offset)
            if mapping.checksum is None:
                meta.on_data(self, mapping.dsn + offset, view[:count], now)
            else:
                mapping.held.append(view[:count])
                if offset + count == mapping.length and not self._verify(mapping, now):
                    return
            ssn += count
            view = view[count:]
        if len(view):
            meta.on_plain_data(view, now)

    def _verify(self, mapping: RxMapping, now: int) -> bool:
        """RFC 8684 §3.3.1: check the whole mapping, then hand it up; False on a mismatch."""
        total = parts_sum(mapping.held)
        expected = dss_checksum(
            mapping.dsn & MASK64, mapping.ssn & MASK32, mapping.declared_length, total
        )
        if expected != mapping.checksum:
            self.host.counters["MPTcpExtDSSCsumErr"] += 1
            self.meta.on_checksum_failure(self, mapping.dsn, now)
            return False
        dsn = mapping.dsn
        for view in mapping.held:
            self.meta.on_data(self, dsn, view, now)
            dsn += len(view)
        mapping.held = []
        return True

    def _unmapped(self, now: int) -> bool:
        """In-order payload without a mapping. True when it is plain TCP's (fallback)."""
        if not self.is_join and not self.dss_seen and not self.fully_established:
            # RFC 8684 §3.7: options are stripped from the beginning.
            self.host.counters["MPTcpExtMPCapableDataFallback"] += 1
            self.meta.fall_back("data arrived without a mapping")
            return True
        # RFC 8684 §3.7: with mappings seen before, the subflow cannot be trusted any more.
        self.host.counters["MPTcpExtDSSNoMatchTCP"] += 1
        self.abort(MpTcprst(REASON_MIDDLEBOX).emit(), ConnectionEnd.PROTOCOL)
        return False

    # -- hooks: events -------------------------------------------------------------------------

    def on_acked(self, acked: int, now: int) -> None:
        self.meta.on_subflow_acked(self, acked, now)

    def on_fin(self, now: int) -> None:
        self.meta.on_subflow_fin(self, now)

    def on_time_wait(self, now: int) -> None:
        self.meta.on_subflow_time_wait(now)

    def on_rto(self, now: int) -> None:
        self.meta.on_subflow_rto(self, now)

    def on_closed(self, end: ConnectionEnd, now: int) -> None:
        self.ended = end
        if self.cc in self.meta.controllers:
            self.meta.controllers.remove(self.cc)
        self.meta.on_subflow_closed(self, end, now)

    def retry_limit(self) -> int:
        if self.meta.has_other_working(self):
            return self.config.subflow_retries
        return self.config.data_retries
