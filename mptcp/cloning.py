"""When and where the data of a subflow in trouble is cloned: fills the retransmit queue.

The signs of trouble are a time-out, a probe time-out and a loss; what follows from each is the
policy's (`retransmission`). Beside that, a subflow that could send and may not, because the
connection-level window or the send buffer is full of what others are late to deliver, sends again
what is missing (opportunistic retransmission), and the late one is slowed down (penalisation) when
that is most of what its window lets it carry: after Raiciu et al., How Hard Can It Be?, NSDI 2012,
§4.2.

Invariants
  * Only what is outstanding on the subflow in question is cloned, after a time-out or a probe by
    whole chunks: what it has had acknowledged is DATA_ACKed soon, or the watch on DATA_ACK sees to
    it (`dispatcher`). What is only SACKed is outstanding: it waits at the receiver for what the
    subflow has lost before it.
  * A copy that is lost or late is not copied again: its first subflow repairs it. A subflow that
    times out is cloned with the copies it carries.
  * A subflow is penalised once in its round trip at most.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from mptcp.mapping import TxMapping
from mptcp.retransmission import policies
from mptcp.tcp.chunks import LOST, SACKED, SentChunk
from mptcp.tcp.ranges import RangeSet
from mptcp.tcp.recovery import Recovery
from mptcp.tcp.state import NEVER

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket
    from mptcp.subflow import Subflow

_seq: Final = attrgetter("seq")


def dsn_of(subflow: Subflow, chunk: SentChunk) -> int:
    """The DSN of the first byte of something sent; -1 when it has no mapping (a FIN)."""
    mapping = chunk.mapping
    if not isinstance(mapping, TxMapping):
        return -1
    return mapping.dsn + chunk.seq - subflow.first_seq + 1 - mapping.ssn


def original_dsn(subflow: Subflow, chunk: SentChunk) -> int:
    """As `dsn_of`; -1 also for a copy, which another subflow goes on repairing."""
    mapping = chunk.mapping
    return -1 if isinstance(mapping, TxMapping) and mapping.copy else dsn_of(subflow, chunk)


def outstanding(subflow: Subflow) -> RangeSet:
    """The DSNs that a subflow has sent and not had acknowledged."""
    ranges = RangeSet()
    board = subflow.snd.board
    for chunk in islice(board.chunks, board.head, None):
        dsn = dsn_of(subflow, chunk)
        if dsn >= 0:
            ranges.add(dsn, dsn + chunk.end - chunk.seq)
    return ranges


def _mark(subflow: Subflow, cloned: bool) -> None:
    """Note of all that a subflow has outstanding whether the others see to it."""
    board = subflow.snd.board
    for chunk in islice(board.chunks, board.head, None):
        chunk.cloned = cloned
    subflow.cloned_to = 0


class Cloning:
    """One for each connection."""

    __slots__ = ("meta", "opportunistic", "penalises", "policy", "repeats_tail")

    def __init__(self, meta: MetaSocket) -> None:
        self.meta = meta
        entropy = meta.stack.entropy
        self.policy = policies.get(meta.config.retransmission)(
            lambda count: int.from_bytes(entropy(4), "big") % count
        )
        self.opportunistic = meta.config.opportunistic_retransmission
        self.repeats_tail = meta.config.repeat_tail
        self.penalises = meta.config.penalisation

    # -- by the policy -------------------------------------------------------------------------

    def _candidates(self) -> list[Subflow]:
        """Those that may carry new data; backups if there are no others (RFC 8684 §3.3.8)."""
        usable = [s for s in self.meta.subflows if s.usable and not s.suspected]
        if any(not s.backup for s in usable):
            usable = [s for s in usable if not s.backup]
        return usable

    def on_timeout(self, subflow: Subflow) -> None:
        """Thesis figure 4.10: clone what the subflow has not delivered."""
        if self.meta.fallback or len(self.meta.subflows) < 2:
            return
        subflow.suspected = False
        subflow.suspect_at = NEVER
        self.meta.tx.retransmit.release(subflow)
        if self.policy.on_timeout:
            self._clone_outstanding(subflow, None)

    def on_probe(self, subflow: Subflow, now: int) -> None:
        """Two round trips of silence: begin before the time-out, unless the RTT has been so
        unsteady that more must be waited for: RFC 6298's SRTT + 4 RTTVAR is what the time-out would
        be, but for its floor of 200 ms."""
        if self.policy.on_probe and len(self.meta.subflows) > 1 and not self.meta.fallback:
            rtt = subflow.snd.rtt
            subflow.suspect_at = now + 4 * rtt.rttvar - rtt.srtt
            self.suspect(subflow, now)

    def suspect(self, subflow: Subflow, now: int) -> None:
        """Clone what it has outstanding, if it is time.

        From then on until it answers it gets no new data: its probe is to repeat what the others
        have, not to add something that they do not.
        """
        if now < subflow.suspect_at:
            subflow.upper_deadline = min(subflow.upper_deadline, subflow.suspect_at)
            self.meta.stack.rearm(subflow)
            return
        subflow.suspect_at = NEVER
        if subflow.snd.board and any(s is not subflow for s in self._candidates()):
            self._clone_outstanding(subflow, subflow)
            subflow.suspected = True

    def _clone_outstanding(self, subflow: Subflow, source: Subflow | None) -> None:
        candidates = self._candidates()
        retransmit = self.meta.tx.retransmit
        ranges = outstanding(subflow)
        for chunk in self.meta.tx.chunks:
            if subflow in chunk.carriers and ranges.missing(chunk.dsn, chunk.end) != [
                (chunk.dsn, chunk.end)
            ]:
                others = [s for s in candidates if s not in chunk.carriers or s is subflow]
                target = self.policy.destination(others, subflow) if others else None
                if target is not subflow:
                    retransmit.offer(chunk, target, source)
        _mark(subflow, True)
        self.meta.dispatcher.wake()

    def on_loss(self, subflow: Subflow) -> None:
        """Something of the subflow's is marked lost: clone what has not been before."""
        meta = self.meta
        if len(meta.subflows) < 2 or meta.fallback:
            return
        candidates = self._candidates()
        found = False
        for chunk in subflow.snd.board.lost:
            if chunk.cloned or chunk.status != LOST or chunk.seq >= chunk.end:
                continue
            chunk.cloned = True
            dsn = original_dsn(subflow, chunk)
            if dsn < 0 or not candidates:
                continue
            target = self.policy.destination(candidates, subflow)
            if target is not subflow:
                meta.tx.retransmit.offer_piece(dsn, list(chunk.parts), subflow, target)
                found = True
        if found:
            meta.dispatcher.wake()

    def on_answer(self, subflow: Subflow) -> None:
        """A subflow that was suspected has had data acknowledged."""
        subflow.suspected = False
        if subflow.snd.recovery is Recovery.OPEN:  # and nothing is lost
            self.meta.tx.retransmit.withdraw(subflow)
            _mark(subflow, False)

    # -- the window is full --------------------------------------------------------------------

    def blocked(self, subflow: Subflow, now: int) -> bool:
        """Whether something was queued for `subflow`, which has room and nothing to send.

        What another is late with goes again if it would be there sooner by half a round trip, or
        is overdue. At the end of what the application had to say it must be a whole one, and what
        is overdue is the policy's business.
        """
        meta = self.meta
        tx = meta.tx
        snd = subflow.snd
        if tx.queued and tx.wnd_end - tx.nxt >= snd.smss:
            return False
        full = tx.queued > 0 or meta.writable_wanted
        if (
            not (full or self.repeats_tail)
            or meta.fallback
            or not subflow.usable
            or subflow.suspected
            or not snd.rtt.srtt
            or now < subflow.pace_deadline < NEVER
            or snd.congestion_room() < snd.smss
            or snd.window_room() < snd.smss
        ):
            return False
        if full:
            meta.dispatcher.window_blocks += 1
        arrival = now + snd.rtt.srtt * (3 if full else 4) // 2
        return self._repeat(subflow, arrival, now if full else 0, now, full)

    def _repeat(
        self, subflow: Subflow, arrival: int, overdue_since: int, now: int, full: bool
    ) -> bool:
        """Queue for `subflow` the first thing that others are late with, if there is any."""
        first: SentChunk | None = None
        first_dsn = 0
        culprit = subflow
        for other in self.meta.subflows:
            if other is not subflow and other.snd.board:
                chunk = self._late(other, arrival, overdue_since)
                if chunk is not None:
                    dsn = dsn_of(other, chunk)
                    if first is None or dsn < first_dsn:
                        first = chunk
                        first_dsn = dsn
                        culprit = other
        if first is None:
            return False
        if full:
            if self.penalises:
                self._penalise(culprit, first.end - first.seq, now)
            if not self.opportunistic:
                return False
        first.cloned = True
        self.meta.stack.counters["MPTcpExtOpportunisticRetrans"] += 1
        self.meta.tx.retransmit.offer_piece(first_dsn, list(first.parts), culprit, subflow)
        return True

    def _late(self, other: Subflow, arrival: int, overdue_since: int) -> SentChunk | None:
        """The first thing of `other` that is missing, if it was due after `arrival` or should have
        been there at `overdue_since`.

        Not what is SACKed: while the path lives it waits there for what is being repaired. When the
        path is gone it is cloned as what is outstanding.
        """
        snd = other.snd
        board = snd.board
        una = self.meta.tx.una
        index = bisect_left(board.chunks, other.cloned_to, lo=board.head, key=_seq)
        for chunk in islice(board.chunks, index, None):
            if chunk.status != SACKED and not chunk.cloned:
                dsn = original_dsn(other, chunk)
                if dsn >= 0 and dsn + chunk.end - chunk.seq > una:
                    due = chunk.sent_at + snd.rtt.srtt
                    if arrival < due or due + 4 * snd.rtt.rttvar < overdue_since:
                        return chunk
                    return None
            other.cloned_to = chunk.end
        return None

    def _penalise(self, subflow: Subflow, size: int, now: int) -> None:
        """Halve the window of a subflow most of whose window had to be sent again by others.

        NSDI 2012 halves whenever it blocks. With LIA's growth on a long path one such halving in
        seconds keeps it from ever being filled, while to repeat the little that was late costs next
        to nothing. Of one that is late as a rule most goes again, and it is halved.
        """
        snd = subflow.snd
        if now >= subflow.penalty_until:
            subflow.penalty_until = now + snd.rtt.srtt
            subflow.repeated = 0
        elif subflow.repeated < 0:
            return  # it was halved in this round trip
        subflow.repeated += size
        if snd.recovery is Recovery.OPEN and (
            2 * subflow.repeated >= snd.cc.cwnd or not self.opportunistic
        ):
            subflow.repeated = -1
            snd.cc.now = now
            snd.cc.on_penalised()
            self.meta.stack.counters["MPTcpExtPenalised"] += 1
