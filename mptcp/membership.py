"""The subflows of a connection: how each begins, joins, ends, and what the whole makes of it.

The list is `MetaSocket.subflows`; which paths are wanted is `paths`', which subflow sends is
`dispatcher`'s. A subflow that leaves takes nothing with it: what only it carried is offered to the
others, and without any the connection waits for a while (break before make, RFC 8684 App. D).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp.errors import ConnectionEnd
from mptcp.events import Accepted, Connected, SubflowClosed, SubflowEstablished
from mptcp.monitor import tell_connection
from mptcp.path_manager.base import EndpointId
from mptcp.tcp.state import NEVER
from mptcp.wire.mptcp_options import RST_MPTCP_SPECIFIC, RST_UNACCEPTABLE_PERFORMANCE

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket
    from mptcp.subflow import Subflow


class Membership:
    """One for each connection."""

    __slots__ = ("meta",)

    def __init__(self, meta: MetaSocket) -> None:
        self.meta = meta

    def has_other_working(self, subflow: Subflow) -> bool:
        """Whether a subflow other than this one can carry data."""
        meta = self.meta
        return any(s is not subflow and s.usable for s in meta.subflows)

    def on_established(self, subflow: Subflow, now: int) -> None:
        """Three-way handshake done (a joined subflow of ours still waits for its fourth ACK)."""
        meta = self.meta
        if not subflow.is_join:
            if not meta.established:
                self._open(subflow)
            tx = meta.tx
            tx.wnd_end = max(tx.wnd_end, tx.una + subflow.snd.wnd)
            if meta.listener is not None:
                meta.listener.completed(meta)
            if meta.write_closed:
                meta.send_close()
            meta.stack.emit(SubflowEstablished(meta, subflow))
            meta.tell_writable()  # a SYN has carried some
        elif subflow.fully_established:
            self.on_joined(subflow, now)

    def _open(self, subflow: Subflow) -> None:
        """The first subflow is there for the application."""
        meta = self.meta
        meta.established = True
        meta.was_mptcp = not meta.fallback
        meta.fendpoint = EndpointId(
            subflow.local, subflow.local_port, subflow.remote, subflow.remote_port
        )
        subflow.path_index = 1
        meta.buffers.on_open(subflow)
        if meta.listener is not None:
            meta.stack.emit(Accepted(meta.listener, meta))
        else:
            meta.stack.emit(Connected(meta))

    def on_early_open(self, subflow: Subflow, payload: memoryview, now: int) -> None:
        """TCP Fast Open: a SYN with a good cookie and perhaps data (RFC 7413 §4.2.2)."""
        meta = self.meta
        self._open(subflow)
        meta.tx.wnd_end = max(meta.tx.wnd_end, meta.tx.una + subflow.snd.wnd)
        if len(payload):
            meta.rx.append(payload)
            if not meta.fallback:  # it lies before the data sequence space (RFC 8684 appendix B)
                meta.rx.nxt -= len(payload)
            meta.signal_readable()

    def on_joined(self, subflow: Subflow, now: int) -> None:
        """A joined subflow may carry data."""
        meta = self.meta
        if meta.ended is not None:
            return  # its fourth ACK came late: the connection is over, and so is this subflow
        meta.stack.emit(SubflowEstablished(meta, subflow))
        meta.orphan_deadline = NEVER
        meta.buffers.on_joined(subflow, now)
        meta.wait_for_peer(now)
        meta.paths.manager.on_subflow_established(subflow.path_index, now)
        meta.upkeep.on_joined()
        for chunk in meta.tx.chunks:
            if not chunk.carriers:
                meta.tx.retransmit.offer(chunk)
        meta.dispatcher.wake()

    def on_confirmed(self, now: int) -> None:
        """RFC 8684 §3.1: a DSS has come: MPTCP works on this path both ways."""
        meta = self.meta
        if not meta.confirmed and not meta.fallback:
            meta.confirmed = True
            if meta.stack.monitors:
                tell_connection(meta, "established")
            meta.paths.manager.on_established(now)
            meta.upkeep.on_confirmed(now)
            meta.options.priorities.on_confirmed()
            meta.stack.rearm(meta)

    def on_fin(self, subflow: Subflow, now: int) -> None:
        """The peer closes a subflow; in plain TCP that is the end of its data."""
        meta = self.meta
        if meta.ended is not None:
            subflow.close()
            return
        if meta.fallback:
            if not meta.eof:
                meta.eof = True
                meta.signal_readable()
        elif meta.data_fin_acked or not meta.tx.used or self.has_other_working(subflow):
            # RFC 8684 §3.3.3: a FIN closes the subflow only; answer in kind. The last subflow
            # stays open our way while data is outstanding.
            subflow.close()

    def on_time_wait(self, now: int) -> None:
        """Both FINs of a subflow are acknowledged; in plain TCP the connection is over."""
        meta = self.meta
        if meta.fallback:
            meta.finish(ConnectionEnd.CLOSED, now)

    def on_closed(self, subflow: Subflow, end: ConnectionEnd, now: int) -> None:
        """A subflow has left: reinject what only it carried, and see what remains."""
        meta = self.meta
        if subflow in meta.subflows:
            meta.subflows.remove(subflow)
            if subflow.fully_established or not subflow.is_join:
                meta.past_subflows += 1
        meta.rx.reorder.forget(subflow.path_index)
        subflow.rx_maps.clear()
        if subflow.unmapped is not None:
            subflow.unmapped.clear()
        meta.tx.retransmit.forget(subflow)
        if meta.ended is not None:
            return
        if meta.established:
            meta.stack.emit(SubflowClosed(meta, subflow, end, subflow.reset_reason))
        if meta.fallback or not meta.established or subflow.early:
            meta.finish(end, now)
            return
        if meta.ending:
            return
        for chunk in meta.tx.chunks:
            if subflow in chunk.carriers:
                chunk.carriers.remove(subflow)
                if not chunk.carriers or end is not ConnectionEnd.CLOSED:
                    meta.tx.retransmit.offer(chunk)
        # RFC 8684 §3.6: without the T flag the path SHOULD NOT be tried again.
        told = end is ConnectionEnd.REFUSED or subflow.reset_reason is not None
        refused = told and not subflow.reset_transient
        meta.paths.manager.on_subflow_closed(subflow.path_index, refused=refused, now=now)
        if refused and subflow.reset_reason == RST_UNACCEPTABLE_PERFORMANCE:
            meta.paths.manager.on_costly(subflow.path_index, NEVER)
        meta.upkeep.on_stall(subflow, now)
        if all(other.is_join and not other.fully_established for other in meta.subflows):
            # Attempts to join do not count: there may be new ones for ever.
            self._without_any(subflow, end, now)
        meta.dispatcher.wake()
        meta.stack.rearm(meta)

    def _without_any(self, subflow: Subflow, end: ConnectionEnd, now: int) -> None:
        """Break before make: wait for a subflow for a while (RFC 8684 App. D)."""
        meta = self.meta
        if meta.eof and meta.data_fin_acked:
            meta.finish(ConnectionEnd.CLOSED, now)
        elif end is ConnectionEnd.REFUSED and subflow.reset_reason == RST_MPTCP_SPECIFIC:
            # The peer does not know the token any more: the connection is gone there. A bare RST
            # may come from a firewall and says nothing of the connection. With all data arrived
            # both ways only the acknowledgement of our DATA_FIN is missing: the peer has had it.
            done = meta.eof and meta.data_fin_due and meta.tx.una == meta.data_fin_dsn
            meta.finish(ConnectionEnd.CLOSED if done else ConnectionEnd.RESET, now)
        elif meta.orphan_deadline == NEVER:
            meta.orphan_deadline = now + meta.config.orphan_timeout_us
            meta.stack.rearm(meta)
