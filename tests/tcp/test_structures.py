"""RangeSet, Reassembly and the RFC 6675 scoreboard against models too simple to be wrong."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mptcp.tcp.chunks import IN_FLIGHT, LOST, SACKED, SentChunk, split_parts
from mptcp.tcp.ranges import RangeSet
from mptcp.tcp.reassembly import ENTRY_OVERHEAD, Reassembly
from mptcp.tcp.scoreboard import MAX_PIECES, Scoreboard

MSS = 10
spans = st.tuples(st.integers(0, 120), st.integers(1, 40)).map(lambda t: (t[0], t[0] + t[1]))


def runs(numbers: set[int]) -> list[tuple[int, int]]:
    """The maximal runs of a set of integers."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return found


@given(st.lists(st.tuples(st.booleans(), spans), max_size=30), spans)
def test_ranges(steps: list[tuple[bool, tuple[int, int]]], probe: tuple[int, int]) -> None:
    """A RangeSet is a set of integers, kept as its runs."""
    ranges = RangeSet()
    model: set[int] = set()
    for drop, (start, end) in steps:
        if drop:
            ranges.drop_below(start)
            model = {n for n in model if n >= start}
        else:
            merged = ranges.add(start, end)
            model |= set(range(start, end))
            assert merged in runs(model)
            assert merged[0] <= start < end <= merged[1]
        assert ranges.pairs() == runs(model)
        assert ranges.total() == len(model)
        assert len(ranges) == len(runs(model))
        assert bool(ranges) == bool(model)
    whole = set(range(*probe))
    assert ranges.missing(*probe) == runs(whole - model)
    assert ranges.covers(*probe) == (whole <= model)
    block = ranges.containing(probe[0])
    assert block == next((r for r in runs(model) if r[0] <= probe[0] < r[1]), None)
    ranges.clear()
    assert ranges.pairs() == []


@given(
    st.lists(st.tuples(spans, st.integers(0, 255)), max_size=25),
    st.lists(st.integers(0, 170), max_size=4).map(sorted),
)
def test_reassembly(arrivals: list[tuple[tuple[int, int], int]], advances: list[int]) -> None:
    """What comes out is what came in first, in order; memory is what is held and no more."""
    queue = Reassembly()
    model: dict[int, int] = {}
    at = 0
    for (start, end), value in arrivals:
        queue.insert(start, memoryview(bytes([value]) * (end - start)))
        for number in range(start, end):
            model.setdefault(number, value)
        assert queue.ranges.pairs() == runs(set(model))
        # RFC 2018 §4: first the block with the segment just received.
        first = queue.sack_blocks(4)[0]
        assert first[0] <= start
        assert end <= first[1]
        assert len(set(queue.sack_blocks(4))) == len(queue.sack_blocks(4)) <= 4
        assert set(queue.sack_blocks(4)) <= set(runs(set(model)))
    for step in advances:
        at = max(at, step)
        got = b"".join(queue.pop_ready(at))
        expected = []
        number = at
        while number in model:
            expected.append(model[number])
            number += 1
        assert got == bytes(expected)
        at = number
        model = {n: v for n, v in model.items() if n > at}
        assert queue.ranges.pairs() == runs(set(model))
    assert queue.memory >= len(queue) * ENTRY_OVERHEAD + len(model)
    if not queue.starts:
        assert queue.memory == 0
    queue.clear()
    assert (queue.memory, len(queue), queue.sack_blocks(4)) == (0, 0, [])


@given(st.lists(st.binary(min_size=1, max_size=8), max_size=8), st.data())
def test_split_parts(parts: list[bytes], data: st.DataObject) -> None:
    """Cutting a gather list anywhere loses and copies nothing."""
    whole = b"".join(parts)
    at = data.draw(st.integers(0, len(whole)))
    left, right = split_parts([memoryview(part) for part in parts], at)
    assert (b"".join(left), b"".join(right)) == (whole[:at], whole[at:])


class BoardMachine(RuleBasedStateMachine):
    """The scoreboard against one status per byte."""

    def __init__(self) -> None:
        super().__init__()
        self.board = Scoreboard()
        self.una = 100
        self.nxt = 100
        self.status: dict[int, int] = {}
        self.resent: dict[int, int] = {}
        """SND.NXT when the byte was sent again."""
        self.sent_at: dict[int, int] = {}
        self.ever: set[int] = set()
        """Bytes that were ever sent again."""
        self.mapping: dict[int, int] = {}
        self.time = 0

    @rule(size=st.integers(1, 60))
    def send(self, size: int) -> None:
        self.time += 1
        view = memoryview(bytes(n % 251 for n in range(self.nxt, self.nxt + size)))
        chunk = SentChunk(self.nxt, self.nxt + size, [view], self.time, self.time)
        self.board.add(chunk)
        for number in range(self.nxt, self.nxt + size):
            self.status[number] = IN_FLIGHT
            self.mapping[number] = self.sent_at[number] = self.time
        self.nxt += size

    @precondition(lambda self: self.nxt > self.una)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        ack = data.draw(st.integers(self.una + 1, self.nxt))
        self.board.begin_ack()
        self.board.acknowledge(ack)
        self.delivered(self.una, ack)
        assert self.board.resent_acked == any(
            self.status[n] != SACKED and n in self.ever for n in range(self.una, ack)
        )
        for number in range(self.una, ack):
            del self.status[number]
            self.resent.pop(number, None)
        self.una = ack

    def delivered(self, start: int, end: int) -> None:
        """RFC 8985 §6.2 steps 1 to 3 want the newest segment, and the lowest that was sent once."""
        board = self.board
        fresh = [n for n in range(start, end) if self.status[n] != SACKED]
        assert board.newest_at == max((self.sent_at[n] for n in fresh), default=-1)
        originals = [n for n in fresh if n not in self.ever]
        assert (board.oldest_original < 1 << 60) == bool(originals)
        if originals:
            assert min(originals) < board.oldest_original <= end

    @precondition(lambda self: self.nxt > self.una + 1)
    @rule(data=st.data())
    def select(self, data: st.DataObject) -> None:
        start = data.draw(st.integers(self.una + 1, self.nxt - 1))
        end = data.draw(st.integers(start + 1, self.nxt))
        self.board.begin_ack()
        self.board.select(start, end)
        self.delivered(start, end)
        for number in range(start, end):
            self.status[number] = SACKED

    @rule()
    def is_lost(self) -> None:
        """RFC 6675 §4: more than (DupThresh - 1) * SMSS bytes sacked above.

        Of what was sent again: as much sacked of what was sent after that.
        """
        self.board.mark_by_sack(MSS)
        sacked = sorted((n for n, status in self.status.items() if status == SACKED), reverse=True)
        # More than 2 * MSS bytes are sacked above every number below this.
        edge = sacked[2 * MSS] if len(sacked) > 2 * MSS else -1
        for number, status in self.status.items():
            if status != IN_FLIGHT:
                continue
            since = self.resent.get(number)
            if since is None:
                if number < edge:
                    self.status[number] = LOST
            elif since <= edge:
                self.status[number] = LOST

    @rule(data=st.data())
    def is_lost_by_time(self, data: st.DataObject) -> None:
        """RFC 8985 §6.2 step 5: sent before what is delivered, and long enough ago."""
        newest = data.draw(st.integers(0, self.time + 1))
        horizon = data.draw(st.integers(-1, self.time + 1))
        marked, waiting = self.board.mark_by_time(newest, -1, horizon) if self.board else (False, 0)
        lost = False
        waits = []
        for number, status in self.status.items():
            if status == IN_FLIGHT and self.sent_at[number] < newest:
                if self.sent_at[number] <= horizon:
                    self.status[number] = LOST
                    lost = True
                else:
                    waits.append(self.sent_at[number])
        assert marked == lost
        if self.board:
            assert waiting == min(waits, default=1 << 62)

    @rule(spared=st.integers(0, 5))
    def time_out(self, spared: int) -> None:
        """RFC 6298 (5.4), RFC 8985 §6.3: the first, and what was not sent just now."""
        horizon = self.time - spared
        left = self.board.chunks[self.board.head :]
        first = next((chunk for chunk in left if chunk.status != SACKED), None)
        self.board.mark_all_lost(horizon)
        for number, status in self.status.items():
            if status != SACKED and (
                status == LOST
                or self.sent_at[number] <= horizon
                or (first is not None and number < first.end)
            ):
                self.status[number] = LOST
                self.resent.pop(number, None)
            elif number in self.resent:
                self.resent[number] = self.nxt  # it counts from here

    @rule()
    def take_back(self) -> None:
        """RFC 4015 §3.2: nothing was lost. A retransmission is as old as it is (RFC 8985 §6.2), and
        was sent when SND.NXT was no higher than at the next one."""
        self.board.unmark_lost()
        lost = [n for n, status in self.status.items() if status == LOST]
        for number in sorted(lost, key=lambda n: self.sent_at[n], reverse=True):
            self.status[number] = IN_FLIGHT
            if number in self.ever:
                later = [
                    since
                    for n, since in self.resent.items()
                    if self.status[n] == IN_FLIGHT and self.sent_at[n] > self.sent_at[number]
                ]
                self.resent[number] = min(later, default=self.nxt)

    @precondition(lambda self: LOST in self.status.values())
    @rule(size=st.integers(1, 30))
    def resend(self, size: int) -> None:
        self.time += 1
        lost = self.board.next_lost()
        assert lost is not None
        part = self.board.resend(lost, size, self.time)
        assert 0 < part.end - part.seq <= size
        assert b"".join(part.parts) == bytes(n % 251 for n in range(part.seq, part.end))
        for number in range(part.seq, part.end):
            assert self.status[number] == LOST
            assert self.mapping[number] == part.mapping
            self.status[number] = IN_FLIGHT
            self.resent[number] = self.nxt
            self.sent_at[number] = self.time
            self.ever.add(number)

    @precondition(
        lambda self: not any(s == LOST for s in self.status.values()) and bool(self.board)
    )
    @rule(size=st.integers(1, 30))
    def probe(self, size: int) -> None:
        """RFC 8985 §7.3: the last segment again."""
        if self.board.last().status != IN_FLIGHT:
            return
        self.time += 1
        part = self.board.resend_tail(size, self.time)
        assert (part.end, part.end - part.seq <= size) == (self.nxt, True)
        for number in range(part.seq, part.end):
            self.resent[number] = self.nxt
            self.sent_at[number] = self.time
            self.ever.add(number)

    @invariant()
    def agrees(self) -> None:
        board = self.board
        chunks = board.chunks[board.head :]
        assert bool(board) == (self.nxt > self.una)
        at = self.una
        for chunk in chunks:
            assert chunk.seq == at
            assert chunk.end > chunk.seq
            assert all(self.status[n] == chunk.status for n in range(chunk.seq, chunk.end)), chunks
            at = chunk.end
        assert at == self.nxt
        statuses = list(self.status.values())
        assert board.in_flight == statuses.count(IN_FLIGHT)
        assert board.sacked_bytes == statuses.count(SACKED)
        assert board.sacked.pairs() == runs({n for n, s in self.status.items() if s == SACKED})
        assert (board.next_lost() is not None) == (LOST in statuses)


TestBoard = BoardMachine.TestCase


def test_a_retransmission_taken_back_is_as_old_as_it_is() -> None:
    """RFC 8985 §6.2 step 5, after RFC 4015 §3.2: it must not hide what was sent before it."""
    board = Scoreboard()
    for number in range(3):
        board.add(SentChunk(10 * number, 10 * number + 10, [memoryview(bytes(10))], None, number))
    board.mark_all_lost()
    first = board.next_lost()
    assert first is not None
    board.resend(first, 10, 5)
    board.mark_all_lost()
    board.unmark_lost()
    assert board.mark_by_time(2, 30, 100) == (True, 1 << 62)
    assert [chunk.status for chunk in board.chunks] == [IN_FLIGHT, LOST, IN_FLIGHT]
    assert board.mark_by_time(6, 0, 4) == (True, 5)
    assert board.mark_by_time(6, 0, 5) == (True, 1 << 62)
    assert first.status == LOST


def test_pieces_are_bounded() -> None:
    """RFC 2018 §4 lets a receiver report any byte: one that reports every other has no object made
    for each here; what is outstanding is delivered all the same."""
    board = Scoreboard()
    size = 6 * MAX_PIECES
    mapping = object()
    board.add(SentChunk(0, size, [memoryview(bytes(size))], mapping, 1))
    board.add(SentChunk(size, size + 10, [memoryview(bytes(10))], mapping, 2))
    for start in range(1, size - 2, 3):
        board.select(start, start + 1)
    assert board.pieces == len(board.chunks) - 2 == MAX_PIECES
    assert board.sacked_bytes == board.sacked.total() == MAX_PIECES // 2
    board.select(size - 1, size + 10)  # of what cannot be cut, the whole chunk behind
    assert board.sacked.pairs()[-1] == (size, size + 10)
    assert {chunk.mapping for chunk in board.chunks} == {mapping}
    outstanding = sum(c.end - c.seq for c in board.chunks if c.status == IN_FLIGHT)
    assert board.in_flight == outstanding == size - MAX_PIECES // 2
    board.acknowledge(size)
    assert (board.pieces, board.in_flight, board.sacked_bytes) == (0, 0, 10)


def test_repeated_chunks_are_let_go() -> None:
    """RFC 6582: without SACK nobody asks for lost retransmissions, and what was acknowledged must
    not be kept alive by the list of them while the flow goes on."""
    board = Scoreboard()
    board.add(SentChunk(0, 10, [memoryview(bytes(10))], None, 1))
    for number in range(1, 100):
        board.add(SentChunk(10 * number, 10 * number + 10, [memoryview(bytes(10))], None, 1))
        board.mark_first_lost(10)
        lost = board.next_lost()
        assert lost is not None
        board.resend(lost, 10, 2)
        board.acknowledge(10 * number)
        assert len(board.repeated) == 0


@given(st.lists(spans, max_size=20), spans)
def test_overlap(arrivals: list[tuple[int, int]], probe: tuple[int, int]) -> None:
    """RFC 2883 §4: what arrives again is told of from its first byte on."""
    queue = Reassembly()
    model: set[int] = set()
    for start, end in arrivals:
        queue.insert(start, memoryview(bytes(end - start)))
        model |= set(range(start, end))
    twice = runs(model & set(range(*probe)))
    assert queue.overlap(*probe) == (twice[0] if twice else (probe[0], probe[0]))
