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
from typing import TYPE_CHECKING

from mptcp.blackholes import plain_syn_answered
from mptcp.delivery import deliver, look_at_unmapped
from mptcp.errors import ConnectionEnd, FallbackReason
from mptcp.events import DeliveryProblem
from mptcp.fallback import fall_back
from mptcp.fastclose import FastCloseWait
from mptcp.mapping import RxMappings
from mptcp.signals import SignalRow
from mptcp.subflow_input import (
    answer_to_capable,
    answer_to_join,
    reset_options_arrive,
    segment_options_arrive,
    third_ack,
)
from mptcp.subflow_options import (
    count_reset,
    data_options_length,
    extra_options,
    prepared_options,
)
from mptcp.subflow_output import poll_transmit, pull
from mptcp.tcp import allowance
from mptcp.tcp.chunks import SentChunk
from mptcp.tcp.host import Host, Interface, Transmit
from mptcp.tcp.memory import FREE
from mptcp.tcp.output import Kind
from mptcp.tcp.state import NEVER, State
from mptcp.tcp_path import TcpPath
from mptcp.unmapped import Unmapped
from mptcp.wire.icmp import IcmpKind
from mptcp.wire.mptcp_options import (
    RST_MPTCP_SPECIFIC,
    RST_UNACCEPTABLE_PERFORMANCE,
    MpTcprst,
)
from mptcp.wire.tcp import Segment

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket


class Role(enum.Enum):
    """How a subflow came to be."""

    INITIAL_ACTIVE = 0
    INITIAL_PASSIVE = 1
    JOIN_ACTIVE = 2
    JOIN_PASSIVE = 3


class Subflow(TcpPath):
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
        self.is_active = role in (Role.INITIAL_ACTIVE, Role.JOIN_ACTIVE)
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
        self.capable_sent = False
        """Whether the last bare ACK before confirmation carried MP_CAPABLE (see
        `subflow_options`)."""
        self.infinite_due = False
        """The next new data declares the infinite mapping (RFC 8684 §3.7)."""
        self.mapped_end = 0
        """After a fallback: data before this sequence number may need the infinite mapping too."""
        self.fail_dsn = -1
        """DSN of the MP_FAIL that goes with bare ACKs until the peer answers; -1: none."""
        self.dss_acked = False
        """RFC 8684 §3.7: some of our data was acknowledged with a DATA_ACK, so DSSs pass."""
        self.infinite_from = 0
        """Where it begins, if it acts retroactively: an SSN; 0: with that data."""
        self.signals = SignalRow()
        self.unmapped: Unmapped | None = None
        """In-order data whose mapping has not come."""
        self.fast_close: FastCloseWait | None = None
        """FASTCLOSE_WAIT (RFC 8684 §3.5); the connection is over."""
        self.rx_maps = RxMappings(meta.rx, host.config.max_mappings)
        self.dss_seen = False
        self.join_retries = 0
        self.nodelay = meta.nodelay
        meta.options.apply(self)
        self.ended: ConnectionEnd | None = None
        self.reset_reason: int | None = None
        """Reason code of a received MP_TCPRST."""
        self.reset_transient = False
        """Its T flag: the path may be tried again (RFC 8684 §3.6)."""
        self.reset_sent: int | None = None
        """Reason code of the MP_TCPRST we sent."""
        self.suspected = False
        """It is silent, and its data is being cloned until it answers (`cloning`)."""
        self.suspect_at = NEVER
        """Its probe time-out has expired: when it is suspected unless it answers before."""
        self.cloned_to = 0
        """Below this sequence number others see to all that is missing (`cloning`)."""
        self.repeated = 0
        """Bytes of it that others have repeated in this round trip; -1: it has paid for that."""
        self.penalty_until = 0
        """The end of that round trip."""
        self.went_stale = False
        """Its retransmission timer has expired and nothing was acknowledged since."""

    def abort(self, options: bytes = b"", end: ConnectionEnd = ConnectionEnd.ABORTED) -> None:
        """As `TcpConnection.abort`; one that times out beside a working one says so."""
        timed_out = end is ConnectionEnd.TIMED_OUT and self.mptcp and not options
        if timed_out and self.meta.membership.has_other_working(self):
            # RFC 8684 §3.3.6, §3.6; the path may be tried again.
            options = MpTcprst(RST_UNACCEPTABLE_PERFORMANCE, True).emit()
        if self.state not in (State.CLOSED, State.SYN_SENT, State.TIME_WAIT):
            self.reset_sent = count_reset(self.host.counters, options)
        super().abort(options, end)

    # -- views -----------------------------------------------------------------------------------

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
    def first_seq(self) -> int:
        """Sequence number of the first byte in the data sequence space: its SSN is 1."""
        return self.snd.iss + 1 + self.syn_data_out

    @property
    def next_ssn(self) -> int:
        """SSN of the next byte the peer is to send."""
        return self.rcv_nxt - self.irs - self.syn_data_in

    def sendable(self, now: int) -> int:
        """Bytes this subflow would send if the scheduler chose it; 0 if it cannot."""
        if now < self.pace_deadline < NEVER and self.meta.tx.queued > self.snd.congestion_room():
            # Paced out, and more waits than its window takes: the others need not wait for it.
            return 0
        return allowance.sendable(self, now)

    # -- hooks: sending ------------------------------------------------------------------------

    def poll_transmit(self, now: int) -> Transmit | None:
        return poll_transmit(self, now)

    def queued(self) -> int:
        if self.is_join and not self.fully_established:
            return 0
        if self.early and self.mptcp:
            return 0  # a DSS needs the peer's key, or the knowledge that there will be none
        return self.meta.dispatcher.available(self)

    def has_unsent(self) -> bool:
        # A subflow is closed when everything is acknowledged, or by itself; only in plain TCP
        # does its FIN end the data.
        return not self.mptcp and self.meta.tx.queued > 0

    def has_more(self) -> bool:
        return self.meta.tx.queued > 0

    def held_by_buffer(self) -> bool:
        if not self.meta.writable_wanted:
            return False
        self.meta.buffers.on_starved()
        return True

    def send_window(self) -> int:
        return min(self.snd.window_room(), self.meta.dispatcher.send_window(self))

    def pull(self, limit: int, now: int) -> tuple[list[memoryview], object | None] | None:
        return pull(self, limit, now)

    def extra_options_length(self) -> int:
        if self.mptcp or self.infinite_due or self.snd.una < self.mapped_end:
            return data_options_length(self)
        return 0

    def extra_options(self, kind: Kind, chunk: SentChunk | None, room: int) -> list[bytes]:
        return extra_options(self, kind, chunk, room)

    def prepared_options(self, chunk: SentChunk | None, now: int) -> bytes | None:
        return prepared_options(self, chunk, now)

    def may_signal(self) -> bool:
        # MP_CAPABLE or MP_JOIN with keys leaves no room; they go until the peer confirms.
        if not self.mptcp:
            return True
        if not self.fully_established and self.is_active:
            return False
        if self.fast_close is not None or self.signals.may_go(self, self.host.now):
            return True
        if self.upper_deadline == NEVER:
            self.upper_deadline = self.signals.deadline(self)
            self.host.rearm(self)
        return False

    # -- hooks: handshake ----------------------------------------------------------------------

    def on_syn(self, seg: Segment) -> bool:
        if self.role is Role.INITIAL_ACTIVE:
            if self.mptcp:
                answer_to_capable(self, seg)
            else:
                plain_syn_answered(self, seg)
            return True
        if self.role is Role.JOIN_ACTIVE:
            return answer_to_join(self, seg)
        return True

    def accept_third_ack(self, seg: Segment, now: int) -> bool:
        return third_ack(self, seg, now) if self.mptcp else True

    def on_established(self, now: int) -> None:
        if not self.is_active:
            self.host.counters["TcpPassiveOpens"] += 1
        if self.mptcp:
            self.meta.controllers.append(self.cc)
        if self.role is Role.JOIN_ACTIVE:
            # RFC 8684 §3.2: repeat the third ACK until the fourth comes.
            self.upper_deadline = now + self.snd.rtt.rto
            self.host.rearm(self)
            self.ack_now()
        elif self.role is Role.JOIN_PASSIVE:
            self.fully_established = True
            self.ack_now()
        self.meta.membership.on_established(self, now)

    def peek_syn_data(self, limit: int) -> list[memoryview]:
        return self.meta.tx.peek(limit)

    def syn_data_acked(self, count: int) -> None:
        self.syn_data_out = count
        self.meta.on_syn_data_acked(count)

    def takes_syn_ack_data(self) -> bool:
        return not self.mptcp  # it has no mapping

    def on_early_open(self, payload: memoryview, now: int) -> None:
        self.meta.membership.on_early_open(self, payload, now)

    def on_upper_timeout(self, now: int) -> None:
        if self.fast_close is not None:
            self.fast_close.on_timeout(self, now)
            return
        if self.role is not Role.JOIN_ACTIVE or self.fully_established:
            self.host.mark_ready(self)  # for signals that have waited
            if self.suspect_at < NEVER:
                self.meta.dispatcher.cloning.suspect(self, now)
            if self.unmapped is not None:
                look_at_unmapped(self, now)
            return
        self.join_retries += 1
        if self.join_retries > self.config.synack_retries:
            self.abort(MpTcprst(RST_MPTCP_SPECIFIC).emit(), ConnectionEnd.TIMED_OUT)
            return
        self.upper_deadline = now + (self.snd.rtt.rto << self.join_retries)
        self.host.rearm(self)
        self.ack_now()

    def on_syn_timeout(self, now: int) -> None:
        # RFC 8684 §3.1, §3.9.3: after some SYNs without an answer try without the option.
        if (
            self.role is Role.INITIAL_ACTIVE
            and self.mptcp
            and self.snd.timeouts > self.config.syn_retries_mptcp
        ):
            self.host.counters["MPTcpExtMPCapableSYNTXDrop"] += 1
            fall_back(self.meta, FallbackReason.SYN_UNANSWERED)

    # -- hooks: receiving ----------------------------------------------------------------------

    def receive_window(self) -> int:
        return self.meta.receive_window()

    def refuses_data(self) -> bool:
        # With MPTCP the connection decides, which knows what fills its hole.
        if self.mptcp or self.meta.rx.memory <= FREE:
            return False
        self.memory.look()
        return True

    def on_options(self, seg: Segment, now: int) -> bool:
        return segment_options_arrive(self, seg, now)

    def on_reset_options(self, seg: Segment) -> None:
        reset_options_arrive(self, seg)

    def deliver(self, seq: int, view: memoryview, now: int) -> None:
        deliver(self, seq, view, now)

    # -- hooks: events -------------------------------------------------------------------------

    def on_acked(self, acked: int, now: int) -> None:
        self.suspect_at = NEVER
        if self.suspected:
            self.meta.dispatcher.cloning.on_answer(self)
        if self.went_stale:
            self.went_stale = False
            self.host.counters["MPTcpExtSubflowRecover"] += 1
        self.meta.on_subflow_acked(self, acked, now)

    def on_urgent(self, ahead: int) -> None:
        if not self.mptcp:
            self.meta.on_urgent(ahead)

    def on_fin(self, now: int) -> None:
        self.meta.membership.on_fin(self, now)

    def on_time_wait(self, now: int) -> None:
        self.meta.membership.on_time_wait(now)

    def on_probe(self, now: int) -> None:
        self.meta.dispatcher.cloning.on_probe(self, now)

    def on_rto(self, now: int) -> None:
        self.meta.dispatcher.cloning.on_timeout(self)
        self.meta.upkeep.on_stall(self, now)
        if self.mptcp and not self.went_stale:
            self.went_stale = True
            self.host.counters["MPTcpExtSubflowStale"] += 1
        if self.snd.timeouts == self.config.r1_retries:
            # RFC 1122 §4.2.3.5 (c): R1 is reached; the scheduler has known since the first.
            self.meta.stack.emit(DeliveryProblem(self.meta, self))

    def on_soft_error(self, kind: IcmpKind | None) -> None:
        self.meta.last_soft_error = kind.value if kind is not None else ""

    def on_closed(self, end: ConnectionEnd, now: int) -> None:
        self.ended = end
        if end is ConnectionEnd.INTERFACE_LOST and self.mptcp:
            self.host.counters["MPTcpExtRmSubflow"] += 1
        if self.cc in self.meta.controllers:
            self.meta.controllers.remove(self.cc)
        self.meta.membership.on_closed(self, end, now)

    def retry_limit(self) -> int:
        if self.meta.membership.has_other_working(self):
            return self.config.subflow_retries
        return super().retry_limit()
