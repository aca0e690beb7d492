"""Middleboxes that cut, join, keep and repeat segments, packet by packet."""

from __future__ import annotations

from mptcp.tun.middlebox.base import NEVER
from mptcp.wire.tcp import ACK, FIN, PSH, RST, SYN
from tests.tun.boxes import (
    TIMESTAMPS,
    box,
    dss,
    open_flow,
    packet,
    passes,
    read,
    through,
)

MASK32 = 0xFFFFFFFF


def test_split_copies_options() -> None:
    """RFC 8684 §6: both halves have the DSS, as TSO makes it; PSH and FIN end the second."""
    splitter = box("split")
    options = (TIMESTAMPS, b"\1", b"\1", dss(1, 5))
    raw = packet(b"abcde", seq=MASK32 - 1, flags=ACK | PSH | FIN, options=options)
    first, second = (segment for _, segment in passes(splitter, raw))
    assert [bytes(part.payload) for part in (first, second)] == [b"abc", b"de"]
    assert (first.seq, second.seq) == (MASK32 - 1, 1)
    assert (first.flags, second.flags) == (ACK, ACK | PSH | FIN)
    for part in (first, second):
        assert part.ts_val == 1
        assert part.dss is not None
        assert part.dss.length == 5


def test_split_keeps_options_on_the_first_half() -> None:
    """RFC 8684 §6: the second half has TCP's own options only; small segments and SYNs stay."""
    splitter = box("split", options="first", least=3)
    parts = passes(splitter, packet(b"abcd", options=(TIMESTAMPS, b"\1", b"\1", dss(1, 4))))
    assert [part.dss is not None for _, part in parts] == [True, False]
    assert [part.ts_val for _, part in parts] == [1, 1]
    assert len(passes(splitter, packet(b"ab"))) == 1
    assert len(passes(splitter, packet(b"abcd", flags=SYN))) == 1


def test_coalesce() -> None:
    """RFC 8684 §6: two that follow each other become one, which has the first one's options."""
    joiner = box("coalesce", hold_us=500)
    assert passes(joiner, packet(b"abc", seq=1, options=(dss(1, 3),))) == []
    assert joiner.next_deadline() == 500
    raw = packet(b"def", seq=4, ack=9, flags=ACK | PSH, options=(dss(4, 3),))
    both = through(joiner, raw, now=100)
    assert (both.seq, both.ack, both.flags) == (1, 9, ACK | PSH)
    assert bytes(both.payload) == b"abcdef"
    assert both.dss is not None
    assert (both.dss.ssn, both.dss.length) == (1, 3)
    assert joiner.next_deadline() == NEVER


def test_coalesce_lets_go() -> None:
    """Whatever cannot be joined ends the wait: time, a gap, a FIN by itself, the MTU, the other
    segment's kind; nothing is lost and the order stays."""
    joiner = box("coalesce", hold_us=500, mtu=600, skip=1)
    assert bytes(through(joiner, packet(b"skipped")).payload) == b"skipped"
    assert passes(joiner, packet(b"abc", seq=1), now=10) == []
    assert joiner.handle_timeout(509) == []
    ((way, held),) = joiner.handle_timeout(510)
    assert way
    assert bytes(read(held).payload) == b"abc"
    assert passes(joiner, packet(b"abc", seq=1)) == []
    gap = [bytes(segment.payload) for _, segment in passes(joiner, packet(b"ghi", seq=7))]
    assert gap == [b"abc"]  # and the later one waits
    fin = [segment.flags & FIN for _, segment in passes(joiner, packet(seq=10, flags=ACK | FIN))]
    assert fin == [0, FIN]
    assert passes(joiner, packet(bytes(300), seq=20)) == []
    sizes = [len(s.payload) for _, s in passes(joiner, packet(bytes(300), seq=320, flags=ACK))]
    assert sizes == [300]
    assert len(passes(joiner, packet(seq=620, flags=RST))) == 2


def test_no_holes() -> None:
    """RFC 8684 §6, normalizers: data above a hole is not passed, nor an ACK of data not seen."""
    blocker = box("no-holes", direction="forward")
    open_flow(blocker)
    assert passes(blocker, packet(b"late", seq=11)) == []
    assert passes(blocker, packet(ack=15, forward=False), forward=False) == []
    assert through(blocker, packet(ack=1, forward=False), forward=False).ack == 1
    assert len(through(blocker, packet(bytes(10), seq=1)).payload) == 10
    assert len(through(blocker, packet(b"late", seq=11)).payload) == 4
    assert len(through(blocker, packet(bytes(10), seq=1)).payload) == 10  # sent again
    assert through(blocker, packet(ack=15, forward=False), forward=False).ack == 15
    assert len(through(blocker, packet(b"x", seq=99, forward=False), forward=False).payload) == 1
    assert blocker.counters == {"holes": 1, "unseen": 1}


def test_normalise_gives_old_data() -> None:
    """RFC 8684 §6: what comes again has its first content, whole or in part; new data is new."""
    normaliser = box("normalise", cache=8)
    open_flow(normaliser, isn=MASK32 - 2)
    start = MASK32 - 1  # numbers wrap

    def sent(data: bytes, offset: int) -> bytes:
        raw = packet(data, seq=start + offset & MASK32, options=(dss(1, 4),))
        return bytes(through(normaliser, raw).payload)

    assert sent(b"abcd", 0) == b"abcd"
    assert sent(b"ABCD", 0) == b"abcd"
    assert sent(b"CDef", 2) == b"cdef"
    assert sent(b"ghijkl", 6) == b"ghijkl"  # the cache is full: the oldest is forgotten
    assert sent(b"GH", 6) == b"gh"
    assert sent(b"AB", 0) == b"AB"
    assert normaliser.counters == {"restored": 3}


def test_normalise_replays() -> None:
    """RFC 8684 §6: an old segment comes again, its data and its options as they were."""
    normaliser = box("normalise", replay=3)
    open_flow(normaliser)
    for number in range(3):
        seen = passes(normaliser, packet(b"%d" % number, seq=1 + number, options=(dss(1, 1),)))
    assert [bytes(segment.payload) for _, segment in seen] == [b"2", b"0"]
    assert seen[1][1].seq == 1
    assert seen[1][1].dss is not None


def test_pep_acknowledges() -> None:
    """RFC 3135 §3.1: data is acknowledged at once, without MPTCP options, with the window that the
    receiver left; the receiver's own ACK, which says nothing new, stays."""
    pep = box("pep", direction="forward")
    open_flow(pep)
    pep.process(0, packet(ack=1, forward=False, window=1000), False)
    options = (b"\1", b"\1", TIMESTAMPS, dss(1, 100))
    pep.process(0, packet(b"", ack=1, forward=False, options=(b"\1", b"\1", TIMESTAMPS)), False)
    data, own = passes(pep, packet(bytes(100), seq=1, ack=1, options=options))
    assert data[0]
    assert data[1].dss is not None
    assert (own[0], own[1].ack, own[1].seq, own[1].flags) == (False, 101, 1, ACK)
    assert own[1].window == 900
    assert own[1].dss is None
    assert own[1].mptcp == ()
    assert (own[1].ts_val, own[1].ts_ecr) == (1, 1)  # the receiver's clock, the sender's echo
    assert passes(pep, packet(ack=101, forward=False), forward=False) == []
    answer = packet(b"answer", ack=51, forward=False)
    assert through(pep, answer, forward=False).ack == 101  # it never goes back


def test_pep_repeats_until_it_has_arrived() -> None:
    """RFC 3135 §3.1: what it has acknowledged is its own to deliver: by time and by the third
    duplicate; the sender's repetition is only answered."""
    pep = box("pep", direction="forward", rto_us=1000)
    open_flow(pep)
    pep.process(0, packet(ack=1, forward=False), False)
    for number in range(2):
        pep.process(0, packet(bytes(10), seq=1 + 10 * number), True)
    assert pep.next_deadline() == 1000
    ((way, repeated),) = pep.handle_timeout(1000)
    assert way
    assert (read(repeated).seq, pep.next_deadline()) == (1, 2000)
    ((onward, own),) = passes(pep, packet(bytes(10), seq=1), now=1100)
    assert (onward, own.ack) == (False, 21)
    assert passes(pep, packet(ack=11, forward=False), forward=False, now=1200) == []
    assert pep.next_deadline() == 2200
    seen = [passes(pep, packet(ack=11, forward=False), forward=False, now=1300) for _ in range(3)]
    assert seen[:2] == [[], []]
    ((_, again),) = seen[2]
    assert (again.seq, len(again.payload)) == (11, 10)
    assert passes(pep, packet(ack=21, forward=False), forward=False) == []
    assert pep.next_deadline() == NEVER


def test_pep_leaves_holes_fins_and_the_handshake_alone() -> None:
    """Before data, above a hole and at the end the ends speak for themselves."""
    pep = box("pep")
    open_flow(pep)
    hole = passes(pep, packet(bytes(10), seq=11))
    assert [(onward, s.ack) for onward, s in hole] == [(True, 1), (False, 1)]
    assert through(pep, packet(ack=1, forward=False), forward=False).ack == 1
    fin = passes(pep, packet(b"end", seq=1, flags=ACK | FIN))
    assert fin[0][1].flags & FIN
    assert fin[1][1].ack == 1  # the FIN and its data are not acknowledged here
    assert through(pep, packet(ack=5, forward=False), forward=False).ack == 5
    assert through(pep, packet(seq=5, flags=RST)).flags == RST
    assert bytes(through(pep, packet(b"x", seq=5)).payload) == b"x"  # it has forgotten the flow


def test_pep_keeps_to_its_buffer_and_tells_of_room() -> None:
    """What it cannot keep it does not acknowledge; a window that was closed opens again in words
    of its own (RFC 9293 §3.8.6.2.2)."""
    pep = box("pep", direction="forward", buffer=4096)
    open_flow(pep)
    pep.process(0, packet(ack=1, forward=False, window=5000), False)
    for number in range(4):
        outputs = passes(pep, packet(bytes(1000), seq=1 + 1000 * number))
        assert len(outputs) == 2
    assert outputs[1][1].window == 1000
    assert passes(pep, packet(bytes(1000), seq=4001)) == []
    assert pep.counters["full"] == 1
    raw = packet(ack=4001, forward=False, window=9000)
    update = through(pep, raw, forward=False)
    assert (update.ack, update.window) == (4001, 9000)
