"""One MPTCP connection: the Multipath Transport of the thesis, the connection of RFC 8684.

Owns the decisions about the whole: what the peer may send, DATA_ACK, DATA_FIN and the end. The two
halves of the data sequence space are in `data_queues`; what comes in is taken by `receiving`, which
subflow gets which bytes is `dispatcher`'s, which paths are used is `paths`', how subflows come and
go is `membership`'s, everything of a single one is in `subflow`. A plain TCP connection is a
MetaSocket that has fallen back, with one subflow and no options: the application sees no
difference.

Invariants
  * Data is freed only when DATA_ACKed; a subflow keeps its own copy (a reference) until its TCP
    acknowledges it (RFC 8684 §3.3.5).
  * RCV.NXT + window never moves back at data level.
  * `subflows` holds live subflows only; `controllers` their congestion controllers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp import keys
from mptcp.buffers import Buffers
from mptcp.config import Config
from mptcp.data_queues import DataReceiver, DataSender
from mptcp.data_states import DataState, DataTimeWait, data_state
from mptcp.dispatcher import Dispatcher
from mptcp.errors import ConnectionEnd, FallbackReason, NotConnectedError
from mptcp.events import (
    Closed,
    Readable,
    Urgent,
    Writable,
)
from mptcp.fastclose import fast_close
from mptcp.info import MptcpInfo, mptcp_info
from mptcp.membership import Membership
from mptcp.path_manager.base import EndpointId
from mptcp.paths import PathControl
from mptcp.receiving import Receiving
from mptcp.reorder import reorder_queues
from mptcp.socket_options import SocketOptions
from mptcp.subflow import Subflow
from mptcp.tcp.congestion import CongestionControl
from mptcp.tcp.state import NEVER, State
from mptcp.upkeep import Upkeep
from mptcp.wire.dss import Dss
from mptcp.wire.mptcp_options import MpCapable
from mptcp.wire.seq import MASK32, MASK64, unwrap

if TYPE_CHECKING:
    from mptcp.stack import Listener, Stack


class MetaSocket:
    """A connection. Made by `Stack.connect()` or handed out by `Accepted`."""

    def __init__(
        self,
        stack: Stack,
        number: int,
        listener: Listener | None,
        local_key: bytes,
        config: Config,
    ) -> None:
        self.stack = stack
        self.config = config
        """The stack's, with the connection's own policies."""
        self.number = number
        """A small number that names the connection in logs."""
        self.listener = listener
        self.is_client = listener is None
        self.nodelay = config.nodelay
        self.congestion_control = config.congestion_control
        self.dispatcher = Dispatcher(self)
        self.paths = PathControl(self)
        self.membership = Membership(self)
        self.upkeep = Upkeep(self)
        self.asking = config.mptcp
        """The heuristics are to be asked when data is written, comes or is acknowledged."""
        self.receiving = Receiving(self)
        self.buffers = Buffers(self)
        self.options = SocketOptions(self)
        """What the application may set for this connection alone."""
        # keys (RFC 8684 §3.1)
        self.local_key = local_key
        self.remote_key = b""
        self.token = keys.token(local_key) if local_key else 0
        self.remote_token = 0
        self.local_idsn = stack.idsn(local_key) if local_key else 0
        self.remote_idsn = 0
        # agreed
        self.fallback = not config.mptcp
        self.fallback_reason = FallbackReason.DISABLED if self.fallback else None
        self.checksum = config.checksum
        self.ack_64 = False
        """Send 64-bit DATA_ACKs: the peer has sent a 64-bit DSN (RFC 8684 §3.3.2)."""
        self.dsn_64 = config.dsn_64
        self.confirmed = False
        """Both sides know that MPTCP is in use: subflows may be added (RFC 8684 §3.1)."""
        # data
        self.tx = DataSender(config.send_buffer, stack.memory)
        self.tx.start(self.local_idsn)
        reorder = reorder_queues.get(config.reorder)(config.max_reorder_runs)
        self.rx = DataReceiver(config.receive_buffer, reorder, stack.memory)
        # subflows
        self.subflows: list[Subflow] = []
        self.controllers: list[CongestionControl] = []
        self.past_subflows = 0
        # close
        self.established = False
        self.was_mptcp = False
        """It was MPTCP when it was established; it may have fallen back since."""
        self.write_closed = False
        self.app_closed = False
        self.urgent_mark = 0
        """The DSN after the peer's urgent data."""
        self.eof = False
        """The peer will send no more, and everything it sent has arrived in order."""
        self.eof_first = False
        """The peer's DATA_FIN came before ours went: M_CLOSEWAIT, M_LAST-ACK (RFC 8684 App. D)."""
        self.time_wait: DataTimeWait | None = None
        self.data_fin_dsn = 0
        self.data_fin_due = False
        """Our DATA_FIN is to be sent with bare ACKs until it is acknowledged."""
        self.data_fin_acked = False
        self.ended: ConnectionEnd | None = None
        self.ending = False
        """Its subflows are being reset with it: none is to take the place of another."""
        self.last_soft_error = ""
        """What an ICMP error last said of a subflow, e.g. "unreachable"; empty when none came, or
        data was acknowledged since."""
        # events and timers
        self.readable_pending = False
        self.writable_wanted = False
        self.orphan_deadline = NEVER
        self.heap_deadline = NEVER  # kept by the stack
        self.fendpoint = EndpointId(b"", 0, b"", 0)

    @property
    def state(self) -> DataState:
        """RFC 8684 App. D."""
        return data_state(self)

    def __repr__(self) -> str:
        mode = "TCP" if self.fallback else f"MPTCP token {self.token:08x}"
        return f"<MetaSocket {self.number} {mode}, {len(self.subflows)} subflows>"

    # -- the application's side ----------------------------------------------------------------

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Queue data; returns the bytes accepted, 0 when the send buffer is full.

        After a short count a `Writable` event comes when there is room. Raises NotConnectedError
        after `shutdown()`, `close()` or the end of the connection.
        """
        if self.write_closed or self.ended is not None:
            raise NotConnectedError("send after the connection was closed for writing")
        taken = self.tx.write(data)
        if taken < len(data):
            self.writable_wanted = True
        if taken:
            if self.asking:
                self.upkeep.on_write(len(data), self.stack.now)
            self.dispatcher.wake()
        return taken

    def recv_parts(self, limit: int = 1 << 30) -> list[memoryview]:
        """Take up to `limit` bytes of received data without copying; [] when none waits.

        Reading reopens the window.
        """
        self.readable_pending = False
        parts = self.rx.take(limit)
        if parts:
            if self.buffers.growing:
                self.buffers.on_read(parts, self.stack.now)
            self.receiving.maybe_update_window()
        return parts

    def recv(self, limit: int = 1 << 30) -> bytes:
        """As `recv_parts`, in one piece. b"" means nothing waits: the end if `eof`."""
        return b"".join(self.recv_parts(limit))

    def shutdown(self) -> None:
        """No more will be sent; what is queued will be. Receiving goes on. Idempotent."""
        if self.write_closed or self.ended is not None:
            return
        self.write_closed = True
        if not self.established:
            return
        self.send_close()

    def close(self) -> None:
        """The application is done: send what is queued, then end. Unread data is discarded.

        RFC 1122 §4.2.2.13: closing with unread data resets, so that the peer knows it was lost.
        """
        if self.ended is not None or self.app_closed:
            return
        self.app_closed = True
        if not self.established:
            if self.is_client:
                self.end_at_once(ConnectionEnd.ABORTED, self.stack.now)
            else:
                self.shutdown()
            return
        if self.rx.unread or self.rx.reorder:
            self.stack.counters["TcpExtTCPAbortOnClose"] += 1
            self.abort()
            return
        self.shutdown()
        for subflow in list(self.subflows):
            subflow.set_orphan(self.stack.now)
        self.check_closed(self.stack.now)
        self.wait_for_peer(self.stack.now)

    def wait_for_peer(self, now: int) -> None:
        """Closed here and all of it acknowledged: the peer's DATA_FIN is waited for a while only.

        Not before: what is queued may take any time to send (RFC 9293 §3.10.4).
        """
        if self.app_closed and self.data_fin_acked and self.ended is None and not self.fallback:
            self.orphan_deadline = min(self.orphan_deadline, now + self.config.fin_wait_2_us)
            self.stack.rearm(self)

    def abort(self) -> None:
        """End at once, by MP_FASTCLOSE (RFC 8684 §3.5) in the form of `Config.fast_close`."""
        if self.ended is None:
            self.end_at_once(ConnectionEnd.ABORTED, self.stack.now)

    def give_up(self, now: int) -> None:
        """The peer does not take data any more (RFC 1122 §4.2.3.5 R2)."""
        self.end_at_once(ConnectionEnd.TIMED_OUT, now)

    def end_at_once(self, end: ConnectionEnd, now: int) -> None:
        """End every subflow, tell the peer that it is the connection's end, and be over."""
        self.ending = True
        fast_close(self, now)
        self.finish(end, now)

    def data_ack(self) -> int:
        """DATA_ACK for the wire."""
        return self.rx.nxt & (MASK64 if self.ack_64 else MASK32)

    def on_data_ack(self, subflow: Subflow, dss: Dss, window: int, now: int) -> None:
        """RFC 8684 §3.3.2, §3.3.5: a DATA_ACK and the window that goes with it."""
        tx = self.tx
        assert dss.data_ack is not None
        data_ack = unwrap(dss.data_ack, tx.una, 64 if dss.data_ack_64 else 32)
        if data_ack > tx.nxt:
            self.stack.counters["MPTcpExtInvalidDataAck"] += 1
            return
        if data_ack > tx.una:
            self._acknowledged(data_ack, now)
        # RFC 8684 §3.3.5: the largest of what the subflows have said; it never shrinks.
        if data_ack + window > tx.wnd_end:
            tx.wnd_end = data_ack + window
            if tx.queued:
                self.dispatcher.wake()

    def _acknowledged(self, data_ack: int, now: int) -> None:
        tx = self.tx
        if self.writable_wanted:
            self.buffers.expand_send_buffer()
        tx.acknowledge(data_ack)
        self.dispatcher.backoff = 0
        if self.asking:
            self.upkeep.on_data(now)
        if self.data_fin_due and data_ack > self.data_fin_dsn:
            self.data_fin_due = False
            self.data_fin_acked = True
            self.check_closed(now)
            self.wait_for_peer(now)
        self.tell_writable()

    def tell_writable(self) -> None:
        """Wake the application if it waits for room and there is enough."""
        if self.writable_wanted and self.tx.writable():
            self.writable_wanted = False
            self.stack.emit(Writable(self))

    def on_subflow_acked(self, subflow: Subflow, acked: int, now: int) -> None:
        """In fallback the subflow's acknowledgements are the connection's."""
        if self.fallback and self.established:
            tx = self.tx
            una = min(tx.una + acked, tx.nxt)  # the FIN is not data
            if una > tx.una:
                self._acknowledged(una, now)

    def info(self) -> MptcpInfo:
        """A snapshot of everything there is to know of the connection (docs/stack-api.md)."""
        return mptcp_info(self)

    # -- receiving -----------------------------------------------------------------------------

    def receive_window(self) -> int:
        """The window to advertise on any subflow."""
        return self.rx.window()

    def on_urgent(self, ahead: int) -> None:
        """RFC 9293 §3.8.5, plain TCP: the next `ahead` bytes of the peer are urgent."""
        self.urgent_mark = self.rx.nxt + ahead
        self.stack.emit(Urgent(self))

    @property
    def urgent_left(self) -> int:
        """Bytes up to the end of the urgent data that the application has not taken; 0 if none."""
        return max(0, self.urgent_mark - (self.rx.nxt - self.rx.unread))

    def signal_readable(self) -> None:
        """Tell the application, once, that there is something to read or that it is the end."""
        if not self.readable_pending:
            self.readable_pending = True
            self.stack.emit(Readable(self))

    def ack_data(self, now: int) -> None:
        """Send the DATA_ACK (and a DATA_FIN that is due) now, on every subflow that can."""
        able = [s for s in self.subflows if s.usable or s.state is State.FIN_WAIT_2]
        for subflow in able or self.subflows:
            subflow.ack_now()

    # -- closing -------------------------------------------------------------------------------

    def send_close(self) -> None:
        """The application will write no more: DATA_FIN, or FIN in plain TCP."""
        if self.fallback:
            for subflow in list(self.subflows):
                subflow.close()
        self.dispatcher.wake()

    def data_fin_ready(self, now: int) -> bool:
        """Assign the DATA_FIN its number once all data has one; whether it is to be sent."""
        tx = self.tx
        if (
            self.write_closed
            and self.established
            and not self.fallback
            and not self.data_fin_due
            and not self.data_fin_acked
            and not tx.queued
        ):
            self.data_fin_dsn = tx.nxt
            tx.nxt += 1
            self.data_fin_due = True
            self.dispatcher.watch(now)
            return True
        return False

    def check_closed(self, now: int) -> None:
        """RFC 8684 §3.3.3: DATA_FIN acknowledged and the peer's received: close the subflows."""
        if self.ended is not None or self.fallback:
            return
        if self.data_fin_acked and self.eof:
            if not self.eof_first:
                self.stack.data_time_waits.enter(self.stack, self)
            for subflow in list(self.subflows):
                subflow.set_orphan(now)
                subflow.close()
            # A subflow that is dead must not hold up the connection (thesis §3.5): its own
            # timers end it.
            self.finish(ConnectionEnd.CLOSED, now)

    def finish(self, end: ConnectionEnd, now: int) -> None:
        """The connection is over for the application."""
        if self.ended is not None:
            return
        self.ended = end
        self.dispatcher.deadline = self.dispatcher.ask_at = NEVER
        self.orphan_deadline = NEVER
        if end is ConnectionEnd.ABORTED:
            self.rx.clear()
        else:
            self.rx.reorder.clear()  # what is in order can still be read
        self.tx.clear()
        for subflow in list(self.subflows):
            if subflow.is_join and subflow.state is State.SYN_SENT:
                subflow.abort()  # an attempt to join ends with what it was to join
        self.stack.emit(Closed(self, end))
        self.stack.forget_meta(self)

    # -- life of subflows ----------------------------------------------------------------------

    def learn_peer(self, option: MpCapable) -> None:
        """The peer's key has come with MP_CAPABLE (RFC 8684 §3.1)."""
        assert option.sender_key is not None
        if self.remote_key:
            return
        self.remote_key = option.sender_key
        self.remote_token = keys.token(self.remote_key)
        self.remote_idsn = self.stack.idsn(self.remote_key)
        self.rx.start(self.remote_idsn)
        if option.checksum_required:
            self.checksum = True
        if option.no_join_initial:
            self.paths.no_join_initial = True

    def on_syn_data_acked(self, count: int) -> None:
        """The peer has taken data from our SYN; it had no data sequence number."""
        self.tx.take(count)

    def on_fastclose(self, now: int, bearer: Subflow | None = None) -> None:
        """RFC 8684 §3.5: the peer closes at once; reset every subflow.

        `bearer`: the one whose RST has said so: a RST is not answered (RFC 9293 §3.10.7).
        """
        self.ending = True
        for subflow in list(self.subflows):
            if subflow is not bearer:
                subflow.abort()
        self.finish(ConnectionEnd.FAST_CLOSED, now)

    # -- time ----------------------------------------------------------------------------------

    def next_deadline(self) -> int:
        """When `handle_timeout` has something to do."""
        if self.ended is not None:
            return NEVER
        dispatcher = self.dispatcher
        return min(
            dispatcher.deadline,
            dispatcher.ask_at,
            self.orphan_deadline,
            self.paths.next_deadline(),
        )

    def handle_timeout(self, now: int) -> None:
        """Run what is due."""
        if self.ended is not None:
            return
        if now >= self.dispatcher.deadline:
            self.dispatcher.handle_timeout(now)
        if now >= self.dispatcher.ask_at:
            self.dispatcher.ask()
        if now >= self.orphan_deadline:
            end = ConnectionEnd.TIMED_OUT if self.app_closed else ConnectionEnd.NO_SUBFLOW
            self.end_at_once(end, now)
        else:
            self.paths.handle_timeout(now)
