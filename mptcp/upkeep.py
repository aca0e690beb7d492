"""When a connection gets more subflows and loses one again: asks its heuristics (thesis §4.6).

Which paths there are is the path manager's; whether they may be used yet is said here. One object
per connection, on the side that opens subflows and on the other one too, whose heuristics for
closing count as much.

Invariants
  * `may_open` never goes back to False: a heuristic delays the subflows, it does not forbid them.
  * A connection whose last working subflow stalls or ends uses every path it has, at once, whatever
    the heuristics say.
  * The last working subflow is never closed, and a closing that does not help is taken back.
  * What data brings in costs one comparison (`MetaSocket.asking`), except while something waits to
    be opened; closing is looked at once a period while data moves, and an idle connection sets no
    timer for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mptcp.config import SECOND
from mptcp.errors import ConnectionEnd
from mptcp.heuristics.base import Flow, FlowPath, Heuristic
from mptcp.heuristics.closing import PERIODS
from mptcp.heuristics.rules import closes_some, opens_itself, parse
from mptcp.tcp.state import NEVER
from mptcp.wire.mptcp_options import RST_UNACCEPTABLE_PERFORMANCE, MpTcprst

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket
    from mptcp.subflow import Subflow

REST_US: Final = 60 * SECOND
"""How long the path of a subflow that was closed for its cost is left alone; doubled each time."""
MAX_REST_SHIFT: Final = 6
GROWTH: Final = 1.25
"""From round trip to round trip what comes grows by this at least while the peer is in slow start;
it doubles, but acknowledgements may be delayed."""
PAUSE_US: Final = 1_000
SETTLE: Final = 2
"""Periods after a closing that do not count: what was lost with the subflow is sent again."""
INITIAL_WINDOW: Final = 10
"""Segments (RFC 6928): what a window has that was never put to the test."""
FOREVER: Final = 1 << 20
"""More often than any path is closed."""


class _Mark:
    """The counts of a subflow at the last look."""

    __slots__ = ("acked", "best", "blocked", "received", "resent", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.resent = 0
        self.acked = 0
        self.received = 0
        self.blocked = 0
        self.best = 0


class _Trial:
    """A subflow that was closed: what the goodput was with it, until it is known without."""

    __slots__ = ("left", "path_index", "rate", "rates")

    def __init__(self, path_index: int, rate: float) -> None:
        self.path_index = path_index
        self.rate = rate
        self.rates: list[int] = []
        self.left = SETTLE + PERIODS


class Upkeep:
    """See the module's text."""

    __slots__ = (
        "_arrived",
        "_closers",
        "_flow",
        "_marks",
        "_meta",
        "_moved",
        "_openers",
        "_rates",
        "_rests",
        "_round_at",
        "_round_bytes",
        "_round_from",
        "_tick",
        "_ticked",
        "_trial",
        "deadline",
        "may_open",
    )

    def __init__(self, meta: MetaSocket) -> None:
        self._meta = meta
        self._openers: list[Heuristic] = []
        self._closers: list[Heuristic] = []
        self._flow = Flow(0, meta.is_client)
        self.may_open = False
        """Whether subflows may be opened on the paths there are."""
        self.deadline = NEVER
        """When `handle_timeout` is to be called."""
        self._tick = NEVER
        self._ticked = 0
        self._moved = 0
        self._marks: dict[int, _Mark] = {}
        self._rests: dict[int, int] = {}
        """How often the subflow of a path was closed for its cost; `FOREVER`: never again."""
        self._rates: list[int] = []
        """Goodput of the last periods."""
        self._trial: _Trial | None = None
        # What the side that receives knows of the sender
        self._arrived = 0
        self._round_at = 0
        self._round_from = 0
        self._round_bytes = 0

    # -- what the connection tells -------------------------------------------------------------

    def on_confirmed(self, now: int) -> None:
        """The connection is MPTCP both ways: from here on it may have subflows."""
        meta = self._meta
        end = meta.fendpoint
        flow = self._flow
        flow.port = end.remote_port if meta.is_client else end.local_port
        flow.since = now
        rules = parse(meta.config.heuristics, flow.port)
        self._openers = [rule for rule in rules if opens_itself(rule)]
        self._closers = [rule for rule in rules if closes_some(rule)]
        if not self._openers:
            self._open(now)
        else:
            self._ask(now)
        if not self.may_open:
            meta.asking = any(rule.watches_data for rule in self._openers)

    def on_write(self, size: int, now: int) -> None:
        """The application has offered `size` bytes, of which some were taken."""
        flow = self._flow
        if size > flow.largest_write:
            flow.largest_write = size
        self.on_data(now)

    def on_data(self, now: int) -> None:
        """Data has come, or was acknowledged; called while `MetaSocket.asking`."""
        meta = self._meta
        if not meta.paths.active:
            meta.asking = meta.ended is None and not meta.fallback  # it may be confirmed yet
        elif not self.may_open:
            self._ask(now)
        else:
            meta.asking = False
            if self._closers and len(meta.subflows) > 1:
                self._measure(now)
                self._tick = now + self._period()
                self._set_deadline()

    def on_joined(self) -> None:
        """There is one more subflow that works."""
        if self._closers and self._tick == NEVER:
            self._meta.asking = True

    def on_stall(self, subflow: Subflow, now: int) -> None:
        """`subflow` has met a time-out, or is gone: if it was the last, nothing is held back."""
        meta = self._meta
        if not meta.paths.active or meta.membership.has_other_working(subflow):
            return
        if not self.may_open:
            meta.stack.counters["MPTcpExtHeuristicsOverruled"] += 1
            meta.asking = False
            self.may_open = True
        meta.paths.manager.on_stall(now)
        meta.paths.paths_changed()

    def handle_timeout(self, now: int) -> None:
        """`deadline` has come."""
        if not self.may_open:
            self._ask(now)
        elif now >= self._tick:
            self._look(now)

    # -- opening -------------------------------------------------------------------------------

    def _ask(self, now: int) -> None:
        flow = self._refresh(now)
        meta = self._meta
        if meta.write_closed and meta.eof and not meta.tx.queued:
            self.deadline = NEVER
            return  # nothing is left to send or to come
        deadline = NEVER
        for rule in self._openers:
            if rule.opens(flow):
                self._open(now)
                return
            deadline = min(deadline, rule.deadline(flow))
        if deadline <= now:  # it says no at its own time: ask with the next data
            deadline = NEVER
        if deadline != self.deadline:
            earlier = deadline < self.deadline
            self.deadline = deadline
            if earlier:
                meta.stack.rearm(meta)

    def _open(self, now: int) -> None:
        self.may_open = True
        self.deadline = NEVER
        self._meta.asking = False
        self._meta.paths.paths_changed()

    def _refresh(self, now: int) -> Flow:
        meta = self._meta
        tx = meta.tx
        flow = self._flow
        flow.now = now
        flow.rtt = meta.paths.rtt()
        flow.written = max(0, tx.nxt + tx.queued - meta.local_idsn - 1)
        flow.acked = max(0, tx.una - meta.local_idsn - 1)
        received = max(0, meta.rx.nxt - meta.remote_idsn - 1)
        if received > flow.received:
            self._on_arrival(received, now)
        flow.received = received
        flow.backlog = tx.queued or int(meta.writable_wanted)
        if flow.written >= received and meta.subflows:
            first = meta.subflows[0]
            flow.slow_start = first.cc.in_slow_start
            limited = tx.queued > 0 and first.in_flight + tx.queued > first.cwnd
            self._limited(limited and tx.wnd_end > tx.nxt, now)
        return flow

    def _limited(self, limited: bool, now: int) -> None:
        flow = self._flow
        if limited != flow.network_limited:
            flow.network_limited = limited
            flow.network_limited_since = now if limited else NEVER

    def _on_arrival(self, received: int, now: int) -> None:
        """What the receiver sees of the sender's window: bursts and pauses."""
        flow = self._flow
        if flow.written >= received:
            return
        rtt = flow.rtt
        if now - self._arrived > rtt + rtt // 4 + PAUSE_US:
            self._limited(False, now)
            self._round_at = now
            self._round_from = flow.received
            self._round_bytes = 0
        self._limited(True, now)
        self._arrived = now
        if rtt and now - self._round_at >= rtt:
            came = flow.received - self._round_from
            if self._round_bytes and came < GROWTH * self._round_bytes:
                flow.slow_start = False
            self._round_bytes = came
            self._round_from = flow.received
            self._round_at = now

    # -- closing -------------------------------------------------------------------------------

    def _period(self) -> int:
        slowest = max((s.srtt for s in self._meta.subflows), default=0)
        return max(2 * slowest, max(rule.period_us for rule in self._closers))

    def _set_deadline(self) -> None:
        self.deadline = self._tick
        self._meta.stack.rearm(self._meta)

    def _look(self, now: int) -> None:
        """A period is over: did every subflow earn its keep?"""
        meta = self._meta
        self._tick = self.deadline = NEVER
        if not meta.paths.active or (len(meta.subflows) < 2 and self._trial is None):
            return
        if meta.tx.una + meta.rx.nxt == self._moved and not meta.tx.used:
            self._trial = None
            meta.asking = True  # idle: the next data sets the timer
            return
        flow = self._measure(now)
        self._rates = [*self._rates[1 - PERIODS :], flow.rate]
        if self._trial is not None:
            self._judge(self._trial, flow, now)
        elif len(flow.paths) > 1:
            for rule in self._closers:
                index = rule.closes(flow)
                if index:
                    self._close(index, now)
                    break
        self._tick = now + self._period()
        self._set_deadline()

    def _judge(self, trial: _Trial, flow: Flow, now: int) -> None:
        """Is there more without the subflow?"""
        trial.left -= 1
        if not flow.backlog:
            self._trial = None  # the application is the limit now: nothing can be told
        elif trial.left < PERIODS:
            trial.rates.append(flow.rate)
            if not trial.left:
                self._trial = None
                if sum(trial.rates) < len(trial.rates) * trial.rate:
                    self._rests[trial.path_index] = FOREVER
                    self._meta.paths.manager.on_costly(trial.path_index, now)
                    self._meta.paths.paths_changed()

    def _measure(self, now: int) -> Flow:
        """Fill in what `closes` is asked with, since the last call."""
        meta = self._meta
        flow = self._refresh(now)
        flow.period = now - self._ticked
        self._ticked = now
        moved = meta.tx.una + meta.rx.nxt
        flow.rate = (moved - self._moved) * SECOND // max(flow.period, 1)
        self._moved = moved
        flow.buffer = min(meta.tx.capacity, max(0, meta.tx.wnd_end - meta.tx.una))
        flow.blocked = 0.0
        paths = []
        for subflow in meta.subflows:
            path, blocked = self._measure_path(subflow, flow.period, now)
            flow.blocked = max(flow.blocked, min(1.0, blocked / max(flow.period, 1)))
            if subflow.usable:
                paths.append(path)
        flow.paths = paths
        return flow

    def _measure_path(self, subflow: Subflow, period: int, now: int) -> tuple[FlowPath, int]:
        snd = subflow.snd
        mark = self._marks.setdefault(subflow.path_index, _Mark())
        _, rwnd, sndbuf = subflow.stats.times(now)
        path = FlowPath(subflow.path_index)
        path.backup = subflow.backup or subflow.backup_request
        path.srtt = subflow.srtt
        path.cwnd = subflow.cwnd
        path.in_flight = subflow.in_flight
        path.sent = snd.bytes_sent - mark.sent
        path.resent = snd.bytes_retransmitted - mark.resent
        moved = snd.bytes_acked - mark.acked + subflow.bytes_received - mark.received
        path.rate = moved * SECOND // max(period, 1)
        mark.best = path.best = max(mark.best, path.rate)
        # Half of what slow start's window has grown to was never in use (`CwndValidation`).
        used = min(path.cwnd, subflow.cc.used)
        if path.srtt and used > INITIAL_WINDOW * snd.smss and not subflow.cc.in_slow_start:
            path.best = max(path.best, used * SECOND // path.srtt)
        blocked = rwnd + sndbuf - mark.blocked
        mark.sent = snd.bytes_sent
        mark.resent = snd.bytes_retransmitted
        mark.acked = snd.bytes_acked
        mark.received = subflow.bytes_received
        mark.blocked = rwnd + sndbuf
        return path, blocked

    def _close(self, index: int, now: int) -> None:
        meta = self._meta
        subflow = next((s for s in meta.subflows if s.path_index == index), None)
        times = self._rests.get(index, 0)
        if subflow is None or times == FOREVER or not meta.membership.has_other_working(subflow):
            return
        self._rests[index] = times + 1
        self._trial = _Trial(index, sum(self._rates) / len(self._rates))
        self._marks.pop(index, None)
        meta.stack.counters["MPTcpExtSubflowsCostly"] += 1
        # Not by FIN: what is in flight on it is what holds the others up, and goes on them now.
        subflow.abort(MpTcprst(RST_UNACCEPTABLE_PERFORMANCE).emit(), ConnectionEnd.ABORTED)
        meta.paths.manager.on_costly(index, now + (REST_US << min(times, MAX_REST_SHIFT)))
