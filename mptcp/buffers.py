"""How large the buffers of one connection are, and when they grow.

They begin at `initial_…_buffer` and grow up to the configuration's `…_buffer`, as far as the paths
carry and the application takes; they never shrink (thesis §4.3.5). How much is needed is worked out
in `tcp.autotune` for plain TCP and in `tuning` for MPTCP. What the application has set is left as
it is, and nothing grows while the host is short of memory (`tcp.memory`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp.tcp.autotune import CWNDS, ReceiveTuning, send_buffer
from mptcp.tuning import ConnectionTuning

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket
    from mptcp.subflow import Subflow


class Buffers:
    """One for each connection. Sizes in bytes."""

    __slots__ = ("_meta", "_plain", "_receive_set", "_send_set", "_tuned", "send_tuned", "tuning")

    def __init__(self, meta: MetaSocket) -> None:
        self._meta = meta
        self._receive_set = False
        self._send_set = False
        self._plain: ReceiveTuning | None = None
        self.tuning: ConnectionTuning | None = None
        """Of an MPTCP connection, while its receive buffer may grow."""
        self._tuned = False
        self.send_tuned = False
        """The send buffer may grow."""

    @property
    def growing(self) -> bool:
        """Whether reading may make the receive buffer larger."""
        return self._tuned

    def set_receive(self, size: int) -> None:
        """Fix the receive buffer."""
        self._receive_set = True
        self._meta.rx.buffer = size
        self._stop_tuning()

    def set_send(self, size: int) -> None:
        """Fix the send buffer."""
        self._send_set = True
        self._meta.tx.capacity = size
        self.send_tuned = False

    def on_open(self, subflow: Subflow) -> None:
        """The connection stands: from here on its buffers are tuned."""
        meta = self._meta
        config = meta.config
        if not config.autotune:
            return
        if not self._send_set:
            self.send_tuned = True
            tx = meta.tx
            tx.capacity = max(tx.used, min(config.initial_send_buffer, config.send_buffer))
        if self._receive_set:
            return
        rx = meta.rx
        rx.buffer = min(config.initial_receive_buffer, config.receive_buffer)
        # The whole of the cap was offered; promised is what a SYN can say of it, 64 KiB.
        rx.adv = rx.nxt + subflow.rcv_adv - subflow.rcv_nxt
        if rx.buffer >= config.receive_buffer:
            return
        self._tuned = True
        now = subflow.host.now
        if meta.fallback:
            subflow.receive_tuning = self._plain = ReceiveTuning(
                subflow, config.receive_buffer, now
            )
        else:
            self.tuning = ConnectionTuning(config.receive_buffer)
            self.tuning.add(subflow, now)

    def on_joined(self, subflow: Subflow, now: int) -> None:
        """One more subflow may carry data."""
        if self.tuning is not None:
            self.tuning.add(subflow, now)

    def on_read(self, parts: list[memoryview], now: int) -> None:
        """The application took `parts`, of a connection whose buffer is `growing`."""
        meta = self._meta
        rx = meta.rx
        if not meta.subflows or meta.stack.memory.pressed:
            return
        limit = meta.config.receive_buffer
        if self.tuning is not None:
            # What a program leaves in the queue it would leave in a larger one too.
            if rx.unread <= rx.buffer >> 1:
                rx.buffer = max(rx.buffer, min(self.tuning.wanted(), limit))
        elif self._plain is not None:
            rx.buffer = self._plain.on_read(meta.subflows[0], sum(map(len, parts)), rx.buffer, now)
        if rx.buffer >= limit:
            self._stop_tuning()

    def on_exhausted(self) -> None:
        """What lies beyond a hole has come to the edge of the window: a path takes longer to mend
        a loss than any round trip says (RFC 6182 §5.3 names the RTO), and the others would stop.

        The ACK that goes out for it tells of twice the window. Nobody gets it for nothing: not
        more than has been delivered so far.
        """
        meta = self._meta
        rx = meta.rx
        if self.tuning is None or rx.unread > rx.buffer >> 1 or meta.stack.memory.pressed:
            return
        delivered = rx.nxt - meta.remote_idsn
        rx.buffer = max(rx.buffer, min(2 * rx.buffer, delivered, meta.config.receive_buffer))

    def _stop_tuning(self) -> None:
        self._tuned = False
        if self.tuning is not None:
            self.tuning.stop()
            self.tuning = None
        self._plain = None
        for subflow in self._meta.subflows:
            subflow.receive_tuning = None

    def on_starved(self) -> None:
        """A subflow could send, but all that the buffer takes is in flight: the DATA_ACK that a
        silent path holds up must not stop the others."""
        meta = self._meta
        tx = meta.tx
        if not self.send_tuned or meta.fallback or meta.stack.memory.pressed:
            return
        wanted = min(2 * (tx.nxt - tx.una), meta.config.send_buffer)
        if wanted > tx.capacity and tx.wnd_end > tx.nxt:
            tx.capacity = wanted
            meta.tell_writable()

    def expand_send_buffer(self) -> None:
        """The application waits for room, and a DATA_ACK is about to be taken."""
        meta = self._meta
        tx = meta.tx
        if not self.send_tuned or not meta.subflows or meta.stack.memory.pressed:
            return
        limit = meta.config.send_buffer
        if meta.fallback:
            tx.capacity = send_buffer(meta.subflows[0], tx.capacity, limit)
            return
        # Thesis §4.3.6: the product of each path's bandwidth with the delay of the slowest one; the
        # congestion window is that with its own.
        rtt_max = 0
        for subflow in meta.subflows:
            if subflow.usable and subflow.srtt > rtt_max:
                rtt_max = subflow.srtt
        needed = 0
        for subflow in meta.subflows:
            if subflow.usable and subflow.srtt:
                needed += CWNDS * subflow.cwnd * rtt_max // subflow.srtt
        tx.capacity = max(tx.capacity, min(needed, limit))
