"""What this side has sent and is not yet acknowledged: the RFC 6675 scoreboard.

The unit is a *chunk*: the payload of one transmission, up to 64 KiB with segmentation offload. SACK
and loss work at byte and MSS granularity: a chunk is split where an acknowledgement or a
retransmission cuts it (`chunks`).

Invariants
  * `chunks[head:]` are in sequence order, contiguous from SND.UNA to SND.NXT.
  * `in_flight` is RFC 6675's pipe: the bytes of chunks whose status is IN_FLIGHT.
  * `sacked` holds exactly the ranges of chunks whose status is SACKED.
  * Chunks in flight that were never sent again are in the order they were sent; those that were
  stand in `repeated`, in the order they were sent again. So loss detection by time (RFC 8985) looks
  at the head of two lists.
Cost: O(newly acknowledged) per ACK plus O(log n) to find a SACK edge.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from operator import attrgetter
from typing import Final

from mptcp.tcp.chunks import IN_FLIGHT, LOST, SACKED, SentChunk
from mptcp.tcp.ranges import RangeSet
from mptcp.tcp.state import NEVER

DUP_THRESH: Final = 3
"""RFC 6675 §2: DupThresh."""

MAX_PIECES: Final = 4096
"""Pieces that SACK blocks may have cut chunks into at any time. A peer that reports every other
byte would else have an object made for each (CVE-2019-11478 was of that kind); where it reports
more, only whole chunks are taken as sacked, and the rest is sent again at worst."""

_seq = attrgetter("seq")


def _sent_at(entry: tuple[int, int, SentChunk]) -> int:
    return entry[2].sent_at


class Scoreboard:
    """RFC 6675's scoreboard over chunks."""

    __slots__ = (
        "chunks",
        "head",
        "in_flight",
        "loss_edge",
        "lost",
        "lost_again",
        "newest_at",
        "newest_end",
        "newest_resent",
        "oldest_original",
        "pieces",
        "repeated",
        "resent_acked",
        "sacked",
        "sacked_bytes",
    )

    def __init__(self) -> None:
        self.chunks: list[SentChunk] = []
        self.head = 0
        self.in_flight = 0
        self.sacked = RangeSet()
        self.sacked_bytes = 0
        self.pieces = 0
        """Outstanding chunks that an edge of a SACK block has made, at most `MAX_PIECES`."""
        self.lost: deque[SentChunk] = deque()
        """Chunks to send again; entries whose status changed since are skipped when read."""
        self.repeated: deque[tuple[int, int, SentChunk]] = deque()
        """Retransmissions in the order they were made: (SND.NXT then, how often, chunk)."""
        self.loss_edge = -1
        """Below it every chunk is sacked, marked lost or already retransmitted."""
        self.lost_again = -1
        """When the newest retransmission that the last marking found lost had been sent; -1: none
        was."""
        self.begin_ack()

    def begin_ack(self) -> None:
        """Forget what the last ACK delivered; the next ACK's deliveries are noted here."""
        self.newest_at = -1
        """When the most recently sent chunk that was newly delivered was sent; -1: none was."""
        self.newest_end = 0
        self.newest_resent = False
        self.oldest_original = NEVER
        """The lowest end of a newly delivered chunk that was sent once only."""
        self.resent_acked = False
        """Whether the cumulative ACK covers a chunk that was sent more than once."""

    def __bool__(self) -> bool:
        return self.head < len(self.chunks)

    def first(self) -> SentChunk:
        """The oldest outstanding chunk. Raises IndexError when there is none."""
        return self.chunks[self.head]

    def last(self) -> SentChunk:
        """The outstanding chunk that ends at SND.NXT. Raises IndexError when there is none."""
        return self.chunks[-1]

    def add(self, chunk: SentChunk) -> None:
        """Enter a chunk sent for the first time; its seq is SND.NXT."""
        self.chunks.append(chunk)
        self.in_flight += chunk.end - chunk.seq

    def _delivered(self, chunk: SentChunk) -> None:
        """Note a chunk that no ACK had covered before."""
        if chunk.resent:
            pass
        elif chunk.end < self.oldest_original:
            self.oldest_original = chunk.end
        if chunk.sent_at > self.newest_at or (
            chunk.sent_at == self.newest_at and chunk.end > self.newest_end
        ):
            self.newest_at = chunk.sent_at
            self.newest_end = chunk.end
            self.newest_resent = chunk.resent

    def acknowledge(self, ack: int) -> None:
        """Forget all below `ack`, noting what is newly delivered (see `begin_ack`)."""
        chunks = self.chunks
        head = self.head
        while head < len(chunks):
            chunk = chunks[head]
            if chunk.end > ack:
                if chunk.seq >= ack:
                    break
                self._cut(head, ack)
            if chunk.status == SACKED:
                self.sacked_bytes -= chunk.end - chunk.seq
            else:
                if chunk.status == IN_FLIGHT:
                    self.in_flight -= chunk.end - chunk.seq
                if chunk.resent:
                    self.resent_acked = True
                self._delivered(chunk)
                chunk.status = IN_FLIGHT  # no longer wanted by the lost queue
            if chunk.piece:
                self.pieces -= 1
            chunk.seq = chunk.end  # marks it as gone for the queues
            head += 1
        self.head = head
        if head > 64 and head * 2 > len(chunks):
            del chunks[:head]
            self.head = 0
        if self.sacked:
            self.sacked.drop_below(ack)
        repeated = self.repeated
        while repeated and repeated[0][2].seq >= repeated[0][2].end:
            repeated.popleft()  # without SACK nobody else looks, and each keeps its data alive

    def _cut(self, index: int, at: int) -> None:
        """Divide the chunk at `index` in two; the queues that hold it get the rest too."""
        chunk = self.chunks[index]
        rest = chunk.cut(at)
        self.chunks.insert(index + 1, rest)
        if chunk.status == LOST:
            self.lost.insert(self.lost.index(chunk) + 1, rest)
        elif chunk.status == IN_FLIGHT and chunk.retransmissions:
            repeated = self.repeated
            for place, (nxt, times, held) in enumerate(repeated):
                if held is chunk and times == chunk.retransmissions:
                    repeated.insert(place + 1, (nxt, times, rest))
                    break

    def _split_at(self, seq: int, *, begins: bool) -> int:
        """Index of the chunk at `seq`, where a SACK block `begins` or ends: cuts one in two there.

        With `MAX_PIECES` it cuts none: the block loses its part of the chunk.
        """
        chunks = self.chunks
        index = bisect_right(chunks, seq, lo=self.head, key=_seq) - 1
        if index < self.head:
            return self.head
        chunk = chunks[index]
        if chunk.seq == seq:
            return index
        if chunk.end > seq:
            if self.pieces >= MAX_PIECES:
                return index + 1 if begins else index
            self._cut(index, seq)
            self.chunks[index + 1].piece = True
            self.pieces += 1
        return index + 1

    def select(self, start: int, end: int) -> None:
        """Mark [start, end) as selectively acknowledged, noting what is newly delivered.

        The range must lie within what is outstanding.
        """
        for gap_start, gap_end in self.sacked.missing(start, end):
            index = self._split_at(gap_start, begins=True)
            stop = self._split_at(gap_end, begins=False)
            if index >= stop:
                continue
            self.sacked.add(self.chunks[index].seq, self.chunks[stop - 1].end)
            for chunk in self.chunks[index:stop]:
                size = chunk.end - chunk.seq
                if chunk.status == IN_FLIGHT:
                    self.in_flight -= size
                chunk.status = SACKED
                self.sacked_bytes += size
                self._delivered(chunk)

    def mark_lost(self, chunk: SentChunk) -> None:
        """Take the chunk out of the pipe and queue it for retransmission."""
        if chunk.status == IN_FLIGHT:
            self.in_flight -= chunk.end - chunk.seq
            chunk.status = LOST
            self.lost.append(chunk)

    def mark_first_lost(self, size: int) -> bool:
        """Mark up to `size` bytes at SND.UNA as lost; whether there were any to mark."""
        if not self:
            return False
        chunk = self.first()
        if chunk.status != IN_FLIGHT:
            return False
        if chunk.end - chunk.seq > size:
            self._cut(self.head, chunk.seq + size)
        self.mark_lost(chunk)
        return True

    def mark_by_time(self, sent_at: int, end: int, horizon: int) -> tuple[bool, int]:
        """RFC 8985 §6.2 step 5: lost is what was sent before the segment (`sent_at`, `end`), which
        is delivered, and not after `horizon` = now - RACK.rtt - reordering window.

        Returns whether anything was newly marked, and when the first chunk that is not yet lost
        but may become so was sent (NEVER: none). `lost_again` tells of lost retransmissions.
        """
        marked = False
        waiting = NEVER
        self.lost_again = -1
        repeated = self.repeated
        while repeated:
            _, times, chunk = repeated[0]
            if (
                chunk.status == IN_FLIGHT
                and chunk.retransmissions == times
                and chunk.seq < chunk.end
            ):
                if chunk.sent_at > sent_at or (chunk.sent_at == sent_at and chunk.end >= end):
                    break
                if chunk.sent_at > horizon:
                    waiting = chunk.sent_at
                    break
                self.mark_lost(chunk)
                self.lost_again = chunk.sent_at
                marked = True
            repeated.popleft()
        chunks = self.chunks
        index = self._first_unmarked()
        while index < len(chunks):
            chunk = chunks[index]
            if chunk.status == IN_FLIGHT and not chunk.retransmissions:
                if chunk.sent_at > sent_at or (chunk.sent_at == sent_at and chunk.end >= end):
                    break
                if chunk.sent_at > horizon:
                    waiting = min(waiting, chunk.sent_at)
                    break
                self.mark_lost(chunk)
                marked = True
            elif chunk.status == SACKED:
                index = self._end_of_run(index)
            index += 1
        self.loss_edge = chunks[index].seq if index < len(chunks) else chunks[-1].end
        return marked, waiting

    def _first_unmarked(self) -> int:
        """Index of the first chunk at or above `loss_edge`."""
        return max(self.head, bisect_right(self.chunks, self.loss_edge, lo=self.head, key=_seq) - 1)

    def _end_of_run(self, index: int) -> int:
        """Index of the last chunk of the sacked run that `index` is in: runs are not walked."""
        run = self.sacked.containing(self.chunks[index].seq)
        if run is None:
            return index
        return bisect_right(self.chunks, run[1] - 1, lo=index, key=_seq) - 1

    def mark_by_sack(self, mss: int) -> bool:
        """RFC 6675 IsLost: lost is what has more than (DupThresh - 1) * SMSS sacked above it.

        A retransmission is lost too when as much is sacked of what was sent after it: RFC 6675
        leaves that to the timer, but a full queue drops retransmissions like anything else, and
        meanwhile the pipe is let run on (Linux has always looked; RFC 8985 §3 does by time).
        Returns whether anything was newly marked.
        """
        threshold = (DUP_THRESH - 1) * mss
        above = 0
        edge = -1  # a hole below it has enough sacked above
        exact = -1  # so has anything sent at or below this number
        starts, ends = self.sacked.starts, self.sacked.ends
        for index in range(len(starts) - 1, -1, -1):
            size = ends[index] - starts[index]
            if above + size > threshold:
                edge = starts[index]
                exact = ends[index] - (threshold + 1 - above)
                break
            above += size
        marked = False
        self.lost_again = -1
        repeated = self.repeated
        while repeated and repeated[0][0] <= exact:
            _, times, chunk = repeated.popleft()
            if (
                chunk.status == IN_FLIGHT
                and chunk.retransmissions == times
                and chunk.seq < chunk.end
            ):
                self.mark_lost(chunk)
                self.lost_again = chunk.sent_at
                marked = True
        if edge <= self.loss_edge:
            return marked
        chunks = self.chunks
        index = self._first_unmarked()
        self.loss_edge = edge
        while index < len(chunks):
            chunk = chunks[index]
            if chunk.seq >= edge:
                break
            if chunk.status == IN_FLIGHT and not chunk.retransmissions:
                self.mark_lost(chunk)
                marked = True
            elif chunk.status == SACKED:
                index = self._end_of_run(index)
            index += 1
        return marked

    def mark_all_lost(self, horizon: int = NEVER) -> None:
        """The timer expired: the first chunk and all sent at or before `horizon` are lost.

        RFC 6298 (5.4) with RFC 6675 §5.1 resends all that is not sacked; RFC 8985 §6.3 spares
        what left so recently that nothing can be known of it.
        """
        self.lost.clear()
        spared: list[tuple[int, int, SentChunk]] = []
        first = True
        for chunk in self.chunks[self.head :]:
            if chunk.status == SACKED:
                continue
            if first or chunk.status == LOST or chunk.sent_at <= horizon:
                if chunk.status == IN_FLIGHT:
                    self.in_flight -= chunk.end - chunk.seq
                chunk.status = LOST
                chunk.retransmissions = 0
                self.lost.append(chunk)
            elif chunk.retransmissions:
                spared.append((self.chunks[-1].end, chunk.retransmissions, chunk))
            first = False
        spared.sort(key=_sent_at)
        self.repeated = deque(spared)

    def unmark_lost(self) -> None:
        """The recovery was for nothing: what was marked lost and not yet resent is in flight."""
        back = []
        for chunk in self.chunks[self.head :]:
            if chunk.status == LOST:
                chunk.status = IN_FLIGHT
                self.in_flight += chunk.end - chunk.seq
                if chunk.resent:
                    back.append(chunk)
        self.lost.clear()
        self.loss_edge = -1
        if back:
            self._take_up(back)

    def _take_up(self, back: list[SentChunk]) -> None:
        """Enter retransmissions in `repeated` that are in flight again, each at its time.

        What SND.NXT was then is forgotten: that of the next one is no less.
        """
        ends = {chunk.end for chunk in back}
        entries = [
            entry
            for entry in self.repeated
            if entry[2].status == IN_FLIGHT
            and entry[2].retransmissions == entry[1]
            and entry[2].seq < entry[2].end
            and entry[2].end not in ends
        ]
        for chunk in back:
            chunk.retransmissions = max(chunk.retransmissions, 1)  # a time-out has forgotten them
            entries.append((-1, chunk.retransmissions, chunk))
        entries.sort(key=_sent_at)
        nxt = self.chunks[-1].end
        for place in range(len(entries) - 1, -1, -1):
            if entries[place][0] < 0:
                entries[place] = (nxt, *entries[place][1:])
            nxt = entries[place][0]
        self.repeated = deque(entries)

    def forget_sack(self) -> None:
        """The receiver reneged (RFC 2018 §8): treat what was sacked as outstanding again."""
        for chunk in self.chunks[self.head :]:
            if chunk.status == SACKED:
                chunk.status = LOST
        self.sacked.clear()
        self.sacked_bytes = 0
        self.loss_edge = -1

    def next_lost(self) -> SentChunk | None:
        """The first chunk that waits for retransmission, left in the queue."""
        lost = self.lost
        while lost:
            chunk = lost[0]
            if chunk.status == LOST and chunk.seq < chunk.end:
                return chunk
            lost.popleft()
        return None

    def lost_within(self, start: int, end: int) -> bool:
        """Whether all that waits for retransmission lies in [start, end)."""
        return all(
            start <= chunk.seq and chunk.end <= end for chunk in self.lost if chunk.status == LOST
        )

    def resend(self, chunk: SentChunk, size: int, now: int) -> SentChunk:
        """Put up to `size` bytes of a lost chunk back in flight; returns the part to transmit."""
        self.lost.popleft()
        if chunk.end - chunk.seq > size:
            index = bisect_right(self.chunks, chunk.seq, lo=self.head, key=_seq) - 1
            rest = chunk.cut(chunk.seq + size)
            self.chunks.insert(index + 1, rest)
            self.lost.appendleft(rest)
        chunk.status = IN_FLIGHT
        self.in_flight += chunk.end - chunk.seq
        self._sent_again(chunk, now)
        return chunk

    def resend_tail(self, size: int, now: int) -> SentChunk:
        """Send up to `size` bytes before SND.NXT again (RFC 8985 §7.3); they are in flight."""
        last = self.last()
        if last.end - last.seq > size:
            self._cut(len(self.chunks) - 1, last.end - size)
            last = self.last()
        self._sent_again(last, now)
        return last

    def _sent_again(self, chunk: SentChunk, now: int) -> None:
        chunk.retransmissions += 1
        chunk.resent = True
        chunk.sent_at = now
        self.repeated.append((self.chunks[-1].end, chunk.retransmissions, chunk))
