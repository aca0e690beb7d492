"""Which subflow gets which bytes: the thesis's Packet Scheduler (§4.3.6, table 4.2).

Subflows pull: when one has room it asks, and gets, first, what waits in the retransmit queue, then
new data, if the scheduler chooses it. That queue holds what the policy clones of a subflow in
trouble (`cloning`), which goes on resending by itself, and what one that ended has left behind. A
watch on DATA_ACK covers the rest: a subflow's ACK alone does not say that data was accepted (RFC
8684 §3.3.6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mptcp.cloning import Cloning
from mptcp.retransmit_queue import DataChunk
from mptcp.scheduler import schedulers
from mptcp.send_order import Copies, enter, take_ahead
from mptcp.sending_view import SendingView
from mptcp.tcp.state import NEVER, State

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket
    from mptcp.subflow import Subflow

UNLIMITED = 1 << 30
LEAST_WAIT_US: Final = 1_000
"""A scheduler that always waits until now does not hold up the host."""


class Dispatcher:
    """One for each connection; the data itself is in `meta.tx`."""

    def __init__(self, meta: MetaSocket) -> None:
        self.meta = meta
        self.scheduler = schedulers.get(meta.config.scheduler)()
        self.scheduler.attach(SendingView(meta))
        self.looks_ahead = self.scheduler.looks_ahead()
        self.copies = Copies() if self.scheduler.duplicates() else None
        self.window_blocks = 0
        """How often a subflow had room and the connection-level window, or the buffer, had none."""
        self.cloning = Cloning(meta)
        self.waiting: list[Subflow] = []
        """Subflows that were refused data in favour of another; polled again when it is full."""
        self.chosen: Subflow | None = None
        """The scheduler's choice for the next chunk, until it is taken or no longer ready: it is
        asked once for each chunk, so that it may keep state."""
        self.silent: tuple[Subflow, int] | None = None
        """A choice that sent nothing when it was polled, and when: not to be waited for then."""
        self.ask_at = NEVER
        """When a scheduler that waits is asked again though no ACK has come."""
        self.deadline = NEVER
        self.backoff = 0
        self.unanswered = 0
        """How often in a row something was sent again because DATA_ACK stood still."""
        self.mark = 0
        """DATA_ACK when the watch was set."""

    def available(self, subflow: Subflow) -> int:
        """Bytes that wait for a subflow, windows not considered; 0 when it may not send any."""
        tx = self.meta.tx
        if self.meta.fallback:
            return tx.queued
        if subflow.suspected or (subflow.backup and self._regular_path_works()):
            return 0
        if tx.retransmit.items and not subflow.stale:
            item = tx.retransmit.first_for(subflow)
            if item is not None:
                # What follows counts too: the end of a stretch is not for Nagle to hold back.
                return item.end - max(item.dsn, tx.una) + tx.queued
        waiting = self.copies.waiting(tx, subflow) if self.copies is not None else 0
        if not (tx.queued or waiting) or not subflow.usable:
            return 0
        return waiting + tx.queued

    def _regular_path_works(self) -> bool:
        """RFC 8684 §3.3.8: backup subflows are for when no other works, not when it is full."""
        return any(s.usable and not s.backup for s in self.meta.subflows)

    def send_window(self, subflow: Subflow) -> int:
        """Bytes of the connection-level window that are left for `subflow`."""
        if self.meta.fallback:
            return UNLIMITED
        tx = self.meta.tx
        if tx.retransmit.items and tx.retransmit.first_for(subflow) is not None:
            return UNLIMITED  # it lies within the window already
        if self.copies is not None and self.copies.waiting(tx, subflow):
            return UNLIMITED
        return tx.wnd_end - tx.nxt

    def pull(
        self, subflow: Subflow, limit: int, now: int
    ) -> tuple[list[memoryview], int, int] | None:
        """Give `subflow` up to `limit` bytes: (parts, DSN, length). None: not now."""
        tx = self.meta.tx
        item = None
        if tx.retransmit.items and not self.meta.fallback:
            item = tx.retransmit.first_for(subflow)
        copies = self.copies
        if copies is not None and not self.meta.fallback:
            again = copies.take(tx, subflow, limit) if item is None else None
            if again is not None:
                self.meta.stack.counters["SchedulerDuplicates"] += 1
                return again
        elif len(self.meta.subflows) > 1:
            ready = [
                s
                for s in self.meta.subflows
                if s is subflow
                or (
                    (item is None or item.may_take(s))
                    and s.sendable(now) > 0
                    and (s, now) != self.silent
                )
            ]
            chosen = self.chosen
            if chosen is None or chosen not in ready:
                chosen = self.scheduler.select(ready, tx.queued)
                if chosen is not None and chosen not in ready:
                    # It could not send; asking for ever would hold up the host.
                    self.meta.stack.counters["SchedulerChoiceNotReady"] += 1
                    chosen = subflow
                elif chosen is None and item is not None:
                    chosen = subflow  # a scheduler may wait with new data, not with repairs
                elif chosen is None and not self._other_moves(subflow):
                    self.meta.stack.counters["SchedulerWaitsForNothing"] += 1
                    chosen = subflow
                elif chosen is None:
                    self._ask_again(now)
                self.chosen = chosen
            if chosen is not subflow:
                if subflow not in self.waiting:
                    self.waiting.append(subflow)
                if chosen is not None:
                    self.meta.stack.mark_ready(chosen)
                return None
            if self.looks_ahead and item is None and self._other_moves(subflow):
                skip = self.scheduler.skip(subflow, tx.queued)
                if skip > 0:
                    return self._pull_ahead(subflow, skip, limit, now)
            if self.waiting and subflow in self.waiting:
                self.waiting.remove(subflow)
        self.chosen = None
        if item is not None:
            self.meta.stack.counters["MPTcpExtMPTCPRetrans"] += 1
            return tx.retransmit.take(item, subflow, limit)
        dsn = tx.nxt
        if tx.ahead:
            limit = min(limit, tx.ahead.stretches[0][0] - dsn)
        parts = tx.take(limit)
        length = sum(map(len, parts))
        tx.nxt = dsn + length
        if not self.meta.fallback:
            self._sent(DataChunk(dsn, tx.nxt, parts, subflow), now)
            if tx.ahead:
                tx.nxt = tx.ahead.pass_by(tx.nxt)
            if copies is not None:
                copies.cursors[subflow] = tx.nxt
                self.wake()  # the others are to send it too
        return parts, dsn, length

    def _ask_again(self, now: int) -> None:
        """The scheduler waits: for ACKs, and until a time of its own."""
        again = self.scheduler.again()
        if again < NEVER:
            self.ask_at = max(again, now + LEAST_WAIT_US)
            self.meta.stack.rearm(self.meta)

    def _pull_ahead(
        self, subflow: Subflow, skip: int, limit: int, now: int
    ) -> tuple[list[memoryview], int, int] | None:
        """Thesis fig. 4.8: what `subflow` gets lies behind what faster ones will have sent."""
        self.chosen = None
        parts, dsn = take_ahead(self.meta.tx, skip, limit)
        if not parts:
            if subflow not in self.waiting:
                self.waiting.append(subflow)
            return None
        length = sum(map(len, parts))
        self._sent(DataChunk(dsn, dsn + length, parts, subflow), now)
        return parts, dsn, length

    def _sent(self, chunk: DataChunk, now: int) -> None:
        enter(self.meta.tx, chunk)
        if self.deadline == NEVER:
            self.watch(now)

    def _other_moves(self, subflow: Subflow) -> bool:
        """Whether another subflow will ask by itself: its data is on the way, or it is paced."""
        return any(
            s is not subflow
            and s.usable
            and not s.suspected
            and (s.snd.board or s.pace_deadline < NEVER)
            for s in self.meta.subflows
        )

    def on_full(self, subflow: Subflow, now: int) -> None:
        """`subflow` has nothing more to send: ask the ones that were passed over."""
        waiting = self.waiting
        if self.chosen is subflow and subflow.sendable(now) > 0:
            # It promises what it does not send: two that wait for each other would hold up the
            # host.
            self.meta.stack.counters["SchedulerChoiceSilent"] += 1
            self.silent = (subflow, now)
            self.chosen = None
        if subflow in waiting:
            return  # it was passed over itself
        self.waiting = []
        for other in waiting:
            if other.state is not State.CLOSED:
                self.meta.stack.mark_ready(other)

    def wake(self) -> None:
        """Something changed that may let a subflow send."""
        for subflow in self.meta.subflows:
            self.meta.stack.mark_ready(subflow)

    def ask(self) -> None:
        """The time until which the scheduler waited is over."""
        self.ask_at = NEVER
        self.wake()

    def clones_when_blocked(self, subflow: Subflow, now: int) -> bool:
        """`subflow` sends nothing: whether it was given what others are late with."""
        if len(self.meta.subflows) < 2 or self.copies is not None:
            return False
        return self.cloning.blocked(subflow, now)

    def watch(self, now: int) -> None:
        """Watch that DATA_ACK advances: a subflow's ACK alone does not say it was accepted."""
        slowest = max(
            (s.snd.rtt.rto for s in self.meta.subflows if s.usable),
            default=self.meta.config.initial_rto_us,
        )
        wait = min(2 * slowest << self.backoff, self.meta.config.max_rto_us)
        self.mark = self.meta.tx.una
        self.deadline = now + wait
        self.meta.stack.rearm(self.meta)

    def handle_timeout(self, now: int) -> None:
        """DATA_ACK may have stood still: resend the DATA_FIN, reinject what nobody carries.

        Not for ever: a subflow does not retransmit a DATA_FIN on a bare ACK, nor what it has had
        acknowledged, so RFC 1122 §4.2.3.5's R2 is counted here for them.
        """
        tx = self.meta.tx
        self.deadline = NEVER
        if not tx.chunks and not self.meta.data_fin_due:
            for subflow in self.meta.subflows:
                if subflow.fin_received and not tx.used:
                    subflow.close()  # it was kept open for what is acknowledged now
            return
        if tx.una == self.mark:
            if self.backoff < 10:
                self.backoff += 1
            if self.meta.data_fin_due and not tx.chunks:
                self.unanswered += 1
                self.meta.ack_data(now)
            elif tx.chunks and all(s.stale or not s.snd.board for s in tx.chunks[0].carriers):
                # Acknowledged by TCP but not at data level (RFC 8684 §3.3.6), or on dead paths.
                self.unanswered += 1
                first = tx.chunks[0]
                first.carriers.clear()
                tx.retransmit.offer(first)
                self.wake()
            if self.unanswered > self.meta.config.data_retries:
                self.meta.give_up(now)
                return
        else:
            self.unanswered = 0
        self.watch(now)
