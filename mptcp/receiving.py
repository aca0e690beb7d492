"""Data in: payload takes its place in the data sequence space, up to the end of the peer's data.

The queues are `data_queues.DataReceiver`; here is what a connection does with what its subflows
bring: what is outside the window or here already is dropped (RFC 8684 §3.3.5), what is in order is
told to the application, and the DATA_FIN (§3.3.3) is the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mptcp.errors import ConnectionEnd
from mptcp.tcp.memory import FREE

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket
    from mptcp.subflow import Subflow


NEARLY: Final = 2 * 1460
"""A sender leaves less than this of a window unused (RFC 9293 §3.8.6.2.1)."""


class Receiving:
    """One for each connection."""

    __slots__ = ("meta",)

    def __init__(self, meta: MetaSocket) -> None:
        self.meta = meta

    def maybe_update_window(self) -> None:
        """RFC 9293 §3.8.6.2.2: tell the peer when the window has opened by a good step."""
        meta = self.meta
        rx = meta.rx
        left = rx.adv - rx.nxt
        if left < rx.buffer // 2 and rx.buffer - rx.unread - left >= rx.buffer // 4:
            for subflow in meta.subflows:
                subflow.window_opened()

    def on_data(self, subflow: Subflow, dsn: int, view: memoryview, now: int) -> None:
        """Payload at its place in the data sequence space."""
        meta = self.meta
        if meta.ended is not None:
            return
        rx = meta.rx
        end = dsn + len(view)
        reorder = rx.reorder
        if dsn == rx.nxt and (not reorder.runs or reorder.first > end) and not rx.host.full:
            rx.append(view)
        else:
            if end <= rx.nxt:
                meta.stack.counters["MPTcpExtDuplicateData"] += 1
                return
            if dsn >= rx.nxt + rx.buffer:
                # RFC 8684 §3.3.5: outside the window: dropped, and not DATA_ACKed. Not measured
                # by `adv`: Linux counts a window that its TCP has not taken as smaller (same SEQ,
                # same ACK: RFC 9293 §3.10.7.4) from a newer DATA_ACK, and so sends beyond our
                # edge, but never beyond this one.
                meta.stack.counters["MPTcpExtNoDSSInWindow"] += 1
                return
            if rx.host.full and self._dropped(dsn):
                return
            if dsn > rx.nxt:
                if not reorder.has_room(2 * rx.buffer, view):
                    # Not DATA_ACKed, so it comes again (RFC 8684 §3.3.5); data at `nxt` is
                    # always taken.
                    meta.stack.counters["MPTcpExtRcvPruned"] += 1
                    return
                counters = meta.stack.counters
                counters["MPTcpExtOFOQueue"] += 1
                if end + NEARLY > rx.adv:
                    meta.buffers.on_exhausted()
                runs = reorder.runs
                if not runs or dsn >= reorder.last:
                    counters["MPTcpExtOFOQueueTail"] += 1
                reorder.insert(subflow.path_index, dsn, view)
                if reorder.runs <= runs:
                    counters["MPTcpExtOFOMerge"] += 1
                return
            # What is here already stays: the first copy wins (RFC 8684 §3.3.1).
            fresh = view[rx.nxt - dsn :]
            if reorder.runs and reorder.first < end:
                reorder.insert(subflow.path_index, rx.nxt, fresh)
            else:
                rx.append(fresh)
            for ready in reorder.pop_ready(rx.nxt):
                rx.append(ready)
        self._delivered(now)

    def _dropped(self, dsn: int) -> bool:
        """The host's memory is full: whether this is not kept, and so not DATA_ACKed.

        What fills the hole is taken, unless the application does not read: what lies beyond the
        hole leaves no other way.
        """
        meta = self.meta
        rx = meta.rx
        if dsn > rx.nxt and rx.reorder.memory > FREE:
            meta.stack.counters["MPTcpExtRcvPruned"] += 1
        elif dsn <= rx.nxt and rx.memory > FREE:
            meta.stack.counters["TcpExtTCPRcvQDrop"] += 1
        else:
            return False
        rx.host.look()
        return True

    def on_plain_data(self, view: memoryview, now: int) -> None:
        """In-order data of a connection that is plain TCP."""
        meta = self.meta
        meta.rx.append(view)
        self._delivered(now)

    def _delivered(self, now: int) -> None:
        meta = self.meta
        rx = meta.rx
        if meta.asking:
            meta.upkeep.on_data(now)
        if meta.app_closed:
            # RFC 1122 §4.2.2.13: data for an application that is gone. Before the end of the data
            # is looked at: with that the connection would have ended well.
            meta.stack.counters["TcpExtTCPAbortOnData"] += 1
            meta.end_at_once(ConnectionEnd.ABORTED, now)
            return
        if rx.fin_dsn is not None and rx.nxt == rx.fin_dsn:
            self._end_of_data(now)
        meta.signal_readable()

    def on_data_fin(self, dsn: int, now: int) -> None:
        """RFC 8684 §3.3.3: the DATA_FIN has the data sequence number `dsn`."""
        meta = self.meta
        rx = meta.rx
        if meta.eof or (rx.fin_dsn is None and dsn < rx.nxt):
            meta.ack_data(now)
            return
        if rx.fin_dsn is None:
            rx.fin_dsn = dsn
        if rx.nxt == rx.fin_dsn:
            self._end_of_data(now)

    def _end_of_data(self, now: int) -> None:
        meta = self.meta
        if meta.eof:
            return
        meta.eof = True
        meta.eof_first = not (meta.data_fin_due or meta.data_fin_acked)
        if not meta.fallback:
            meta.rx.nxt += 1  # the DATA_FIN takes one number
            meta.rx.adv += 1
            meta.ack_data(now)
        meta.signal_readable()
        meta.check_closed(now)
