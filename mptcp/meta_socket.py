"""One MPTCP connection: the Multipath Transport of the thesis, the connection of RFC 8684.

Owns the decisions about the whole: what the peer may send, DATA_ACK, DATA_FIN and the end, the
life of subflows, fallback. The two halves of the data sequence space are in `data_queues`; which
subflow gets which bytes is `dispatcher`'s, which paths are used is `paths`', everything of a single
subflow is in `subflow`. A plain TCP connection is a MetaSocket that has
fallen back, with one subflow and no options: the application sees no difference.

Invariants
  * Data is freed only when DATA_ACKed; a subflow keeps its own copy (a reference) until its TCP
    acknowledges it (RFC 8684 §3.3.5).
  * RCV.NXT + window never moves back at data level.
  * `subflows` holds live subflows only; `controllers` their congestion controllers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp import keys
from mptcp.data_queues import DataReceiver, DataSender
from mptcp.dispatcher import Dispatcher
from mptcp.errors import ConnectionEnd, NotConnectedError
from mptcp.events import (
    Accepted,
    Closed,
    Connected,
    Readable,
    SubflowClosed,
    SubflowEstablished,
    Urgent,
    Writable,
)
from mptcp.path_manager.base import EndpointId
from mptcp.paths import PathControl
from mptcp.socket_options import SocketOptions
from mptcp.subflow import Subflow
from mptcp.tcp.congestion import CongestionControl
from mptcp.tcp.state import NEVER, State
from mptcp.wire.dss import Dss
from mptcp.wire.mptcp_options import (
    RST_MPTCP_SPECIFIC,
    MpCapable,
    MpFastclose,
)
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
    ) -> None:
        config = stack.config
        self.stack = stack
        self.config = config
        self.number = number
        """A small number that names the connection in logs."""
        self.listener = listener
        self.is_client = listener is None
        self.nodelay = config.nodelay
        self.congestion_control = config.congestion_control
        self.dispatcher = Dispatcher(self)
        self.paths = PathControl(self)
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
        self.fallback_reason = "MPTCP is off in the configuration" if self.fallback else ""
        self.checksum = config.checksum
        self.ack_64 = False
        """Send 64-bit DATA_ACKs: the peer has sent a 64-bit DSN (RFC 8684 §3.3.2)."""
        self.dsn_64 = config.dsn_64
        self.confirmed = False
        """Both sides know that MPTCP is in use: subflows may be added (RFC 8684 §3.1)."""
        # data
        self.tx = DataSender(config.send_buffer)
        self.tx.start(self.local_idsn)
        self.rx = DataReceiver(config.receive_buffer)
        # subflows
        self.subflows: list[Subflow] = []
        self.controllers: list[CongestionControl] = []
        self.past_subflows = 0
        # close
        self.established = False
        self.write_closed = False
        self.app_closed = False
        self.urgent_mark = 0
        """The DSN after the peer's urgent data."""
        self.eof = False
        """The peer will send no more, and everything it sent has arrived in order."""
        self.data_fin_dsn = 0
        self.data_fin_due = False
        """Our DATA_FIN is to be sent with bare ACKs until it is acknowledged."""
        self.data_fin_acked = False
        self.ended: ConnectionEnd | None = None
        self.last_soft_error = ""
        """What an ICMP error last said of a subflow, e.g. "unreachable"; empty when none came, or
        data was acknowledged since."""
        # events and timers
        self.readable_pending = False
        self.writable_wanted = False
        self.orphan_deadline = NEVER
        self.heap_deadline = NEVER  # kept by the stack
        self.fendpoint = EndpointId(b"", 0, b"", 0)

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
            self.dispatcher.wake()
        return taken

    def recv_parts(self, limit: int = 1 << 30) -> list[memoryview]:
        """Take up to `limit` bytes of received data without copying; [] when none waits.

        Reading reopens the window.
        """
        self.readable_pending = False
        parts = self.rx.take(limit)
        if parts:
            if self.options.tuning is not None:
                self.options.on_read(parts, self.stack.now)
            self._maybe_update_window()
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
                self._abort_all()
                self.finish(ConnectionEnd.ABORTED, self.stack.now)
            else:
                self.shutdown()
            return
        if self.rx.unread or self.rx.reorder:
            self.abort()
            return
        self.shutdown()
        for subflow in list(self.subflows):
            subflow.set_orphan(self.stack.now)
        self._check_closed(self.stack.now)
        self._wait_for_peer(self.stack.now)

    def _wait_for_peer(self, now: int) -> None:
        """Closed here and all of it acknowledged: the peer's DATA_FIN is waited for a while only.

        Not before: what is queued may take any time to send (RFC 9293 §3.10.4).
        """
        if self.app_closed and self.data_fin_acked and self.ended is None and not self.fallback:
            self.orphan_deadline = min(self.orphan_deadline, now + self.config.fin_wait_2_us)
            self.stack.rearm(self)

    def abort(self) -> None:
        """End at once: RST with MP_FASTCLOSE on every subflow (RFC 8684 §3.5, option R)."""
        if self.ended is None:
            self._abort_all()
            self.finish(ConnectionEnd.ABORTED, self.stack.now)

    def _abort_all(self) -> None:
        options = b""
        if not self.fallback and self.remote_key:
            options = MpFastclose(self.remote_key).emit()
            self.stack.counters["MPTcpExtMPFastcloseTx"] += 1
        for subflow in list(self.subflows):
            subflow.abort(options if subflow.mptcp else b"")

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
        tx.acknowledge(data_ack)
        self.dispatcher.backoff = 0
        if self.data_fin_due and data_ack > self.data_fin_dsn:
            self.data_fin_due = False
            self.data_fin_acked = True
            self._check_closed(now)
            self._wait_for_peer(now)
        if self.writable_wanted:
            self.options.expand_send_buffer()
            if tx.used * 2 <= tx.capacity:
                self.writable_wanted = False
                self.stack.emit(Writable(self))

    def on_subflow_acked(self, subflow: Subflow, acked: int, now: int) -> None:
        """In fallback the subflow's acknowledgements are the connection's."""
        if self.fallback and self.established:
            tx = self.tx
            una = min(tx.una + acked, tx.nxt)  # the FIN is not data
            if una > tx.una:
                self._acknowledged(una, now)

    # -- receiving -----------------------------------------------------------------------------

    def receive_window(self) -> int:
        """The window to advertise on any subflow."""
        return self.rx.window()

    def _maybe_update_window(self) -> None:
        """RFC 9293 §3.8.6.2.2: tell the peer when the window has opened by a good step."""
        rx = self.rx
        left = rx.adv - rx.nxt
        if left < rx.buffer // 2 and rx.buffer - rx.unread - left >= rx.buffer // 4:
            for subflow in self.subflows:
                subflow.window_opened()

    def on_data(self, subflow: Subflow, dsn: int, view: memoryview, now: int) -> None:
        """Payload at its place in the data sequence space."""
        if self.ended is not None:
            return
        rx = self.rx
        end = dsn + len(view)
        head = rx.reorder.head
        if dsn == rx.nxt and (head is None or head.start > end):
            rx.append(view)
        else:
            if end <= rx.nxt:
                self.stack.counters["MPTcpExtDuplicateData"] += 1
                return
            if dsn >= rx.nxt + rx.buffer:
                # RFC 8684 §3.3.5: outside the window: dropped, and not DATA_ACKed. Not measured
                # by `adv`: Linux counts a window that its TCP has not taken as smaller (same SEQ,
                # same ACK: RFC 9293 §3.10.7.4) from a newer DATA_ACK, and so sends beyond our
                # edge, but never beyond this one.
                self.stack.counters["MPTcpExtNoDSSInWindow"] += 1
                return
            if dsn > rx.nxt:
                if not rx.reorder.has_room(2 * rx.buffer, view):
                    # Not DATA_ACKed, so it comes again (RFC 8684 §3.3.5); data at `nxt` is
                    # always taken.
                    self.stack.counters["MPTcpExtRcvPruned"] += 1
                    return
                self.stack.counters["MPTcpExtOFOQueue"] += 1
                rx.reorder.insert(subflow.path_index, dsn, view)
                return
            # What is here already stays: the first copy wins (RFC 8684 §3.3.1).
            rx.reorder.insert(subflow.path_index, rx.nxt, view[rx.nxt - dsn :])
            for ready in rx.reorder.pop_ready(rx.nxt):
                rx.append(ready)
        self._delivered(now)

    def on_urgent(self, ahead: int) -> None:
        """RFC 9293 §3.8.5, plain TCP: the next `ahead` bytes of the peer are urgent."""
        self.urgent_mark = self.rx.nxt + ahead
        self.stack.emit(Urgent(self))

    @property
    def urgent_left(self) -> int:
        """Bytes up to the end of the urgent data that the application has not taken; 0 if none."""
        return max(0, self.urgent_mark - (self.rx.nxt - self.rx.unread))

    def on_plain_data(self, view: memoryview, now: int) -> None:
        """In-order data of a connection that is plain TCP."""
        self.rx.append(view)
        self._delivered(now)

    def _delivered(self, now: int) -> None:
        rx = self.rx
        if rx.fin_dsn is not None and rx.nxt == rx.fin_dsn:
            self._end_of_data(now)
        if self.app_closed:
            # RFC 1122 §4.2.2.13: data for an application that is gone.
            self._abort_all()
            self.finish(ConnectionEnd.ABORTED, now)
            return
        self._signal_readable()

    def _signal_readable(self) -> None:
        if not self.readable_pending:
            self.readable_pending = True
            self.stack.emit(Readable(self))

    def on_data_fin(self, dsn: int, now: int) -> None:
        """RFC 8684 §3.3.3: the DATA_FIN has the data sequence number `dsn`."""
        rx = self.rx
        if self.eof or (rx.fin_dsn is None and dsn < rx.nxt):
            self.ack_data(now)
            return
        if rx.fin_dsn is None:
            rx.fin_dsn = dsn
        if rx.nxt == rx.fin_dsn:
            self._end_of_data(now)

    def _end_of_data(self, now: int) -> None:
        if self.eof:
            return
        self.eof = True
        if not self.fallback:
            self.rx.nxt += 1  # the DATA_FIN takes one number
            self.rx.adv += 1
            self.ack_data(now)
        self._signal_readable()
        self._check_closed(now)

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

    def _check_closed(self, now: int) -> None:
        """RFC 8684 §3.3.3: DATA_FIN acknowledged and the peer's received: close the subflows."""
        if self.ended is not None or self.fallback:
            return
        if self.data_fin_acked and self.eof:
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
        self.dispatcher.deadline = NEVER
        self.orphan_deadline = NEVER
        if end is ConnectionEnd.ABORTED:
            self.rx.clear()
        else:
            self.rx.reorder.clear()  # what is in order can still be read
        self.tx.clear()
        self.stack.emit(Closed(self, end))
        self.stack.forget_meta(self)

    # -- life of subflows ----------------------------------------------------------------------

    def has_other_working(self, subflow: Subflow) -> bool:
        """Whether a subflow other than this one can carry data."""
        return any(s is not subflow and s.usable for s in self.subflows)

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

    def on_subflow_established(self, subflow: Subflow, now: int) -> None:
        """Three-way handshake done (a joined subflow of ours still waits for its fourth ACK)."""
        if not subflow.is_join:
            if not self.established:
                self._open(subflow)
            tx = self.tx
            tx.wnd_end = max(tx.wnd_end, tx.una + subflow.snd.wnd)
            if self.listener is not None:
                self.listener.completed(self)
            if self.write_closed:
                self.send_close()
            self.stack.emit(SubflowEstablished(self, subflow))
            if self.writable_wanted and tx.used * 2 <= tx.capacity:  # a SYN has carried some
                self.writable_wanted = False
                self.stack.emit(Writable(self))
        elif subflow.fully_established:
            self.on_subflow_joined(subflow, now)

    def _open(self, subflow: Subflow) -> None:
        """The first subflow is there for the application."""
        self.established = True
        self.fendpoint = EndpointId(
            subflow.local, subflow.local_port, subflow.remote, subflow.remote_port
        )
        subflow.path_index = 1
        self.options.on_open(subflow)
        if self.listener is not None:
            self.stack.emit(Accepted(self.listener, self))
        else:
            self.stack.emit(Connected(self))

    def on_early_open(self, subflow: Subflow, payload: memoryview, now: int) -> None:
        """TCP Fast Open: a SYN with a good cookie and perhaps data (RFC 7413 §4.2.2)."""
        self._open(subflow)
        self.tx.wnd_end = max(self.tx.wnd_end, self.tx.una + subflow.snd.wnd)
        if len(payload):
            self.rx.append(payload)
            if not self.fallback:  # it lies before the data sequence space (RFC 8684 appendix B)
                self.rx.nxt -= len(payload)
            self._signal_readable()

    def on_syn_data_acked(self, count: int) -> None:
        """The peer has taken data from our SYN; it had no data sequence number."""
        self.tx.take(count)

    def on_subflow_joined(self, subflow: Subflow, now: int) -> None:
        """A joined subflow may carry data."""
        if self.ended is not None:
            return  # its fourth ACK came late: the connection is over, and so is this subflow
        self.stack.emit(SubflowEstablished(self, subflow))
        self.orphan_deadline = NEVER
        self._wait_for_peer(now)
        self.paths.manager.on_subflow_established(subflow.path_index, now)
        for chunk in self.tx.chunks:
            if not chunk.carriers:
                self.tx.offer_again(chunk)
        self.dispatcher.wake()

    def on_confirmed(self, now: int) -> None:
        """RFC 8684 §3.1: a DSS has come: MPTCP works on this path both ways."""
        if not self.confirmed and not self.fallback:
            self.confirmed = True
            self.paths.manager.on_established(now)
            self.stack.rearm(self)

    def on_subflow_fin(self, subflow: Subflow, now: int) -> None:
        """The peer closes a subflow; in plain TCP that is the end of its data."""
        if self.ended is not None:
            return
        if self.fallback:
            if not self.eof:
                self.eof = True
                self._signal_readable()
        else:
            # RFC 8684 §3.3.3: a FIN closes the subflow only; answer in kind.
            subflow.close()

    def on_subflow_time_wait(self, now: int) -> None:
        """Both FINs of a subflow are acknowledged; in plain TCP the connection is over."""
        if self.fallback:
            self.finish(ConnectionEnd.CLOSED, now)

    def on_subflow_closed(self, subflow: Subflow, end: ConnectionEnd, now: int) -> None:
        """A subflow has left: reinject what only it carried, and see what remains."""
        if subflow in self.subflows:
            self.subflows.remove(subflow)
            self.past_subflows += 1
        self.rx.reorder.forget(subflow.path_index)
        self.tx.nothing_for.discard(subflow)
        if self.ended is not None:
            return
        if self.established:
            self.stack.emit(SubflowClosed(self, subflow, end, subflow.reset_reason))
        if self.fallback or not self.established or subflow.early:
            self.finish(end, now)
            return
        for chunk in self.tx.chunks:
            if subflow in chunk.carriers:
                chunk.carriers.remove(subflow)
                if not chunk.carriers or end is not ConnectionEnd.CLOSED:
                    self.tx.offer_again(chunk)
        # RFC 8684 §3.6: without the T flag the path SHOULD NOT be tried again.
        told = end is ConnectionEnd.REFUSED or subflow.reset_reason is not None
        refused = told and not subflow.reset_transient
        self.paths.manager.on_subflow_closed(subflow.path_index, refused=refused, now=now)
        if not self.subflows:
            self._without_subflow(subflow, end, now)
        self.dispatcher.wake()
        self.stack.rearm(self)

    def _without_subflow(self, subflow: Subflow, end: ConnectionEnd, now: int) -> None:
        """Break before make: wait for a subflow for a while (RFC 8684 App. D)."""
        if self.eof and self.data_fin_acked:
            self.finish(ConnectionEnd.CLOSED, now)
        elif end is ConnectionEnd.REFUSED and subflow.reset_reason == RST_MPTCP_SPECIFIC:
            # The peer does not know the token any more: the connection is gone there. A bare RST
            # may come from a firewall and says nothing of the connection.
            self.finish(ConnectionEnd.RESET, now)
        elif self.orphan_deadline == NEVER:
            self.orphan_deadline = now + self.config.orphan_timeout_us
            self.stack.rearm(self)

    def on_fastclose(self, now: int) -> None:
        """RFC 8684 §3.5: the peer closes at once; reset every subflow."""
        for subflow in list(self.subflows):
            subflow.abort()
        self.finish(ConnectionEnd.FAST_CLOSED, now)

    # -- time ----------------------------------------------------------------------------------

    def next_deadline(self) -> int:
        """When `handle_timeout` has something to do."""
        if self.ended is not None:
            return NEVER
        return min(self.dispatcher.deadline, self.orphan_deadline, self.paths.next_deadline())

    def handle_timeout(self, now: int) -> None:
        """Run what is due."""
        if self.ended is not None:
            return
        if now >= self.dispatcher.deadline:
            self.dispatcher.handle_timeout(now)
        if now >= self.orphan_deadline:
            self._abort_all()
            end = ConnectionEnd.TIMED_OUT if self.app_closed else ConnectionEnd.NO_SUBFLOW
            self.finish(end, now)
        else:
            self.paths.handle_timeout(now)
