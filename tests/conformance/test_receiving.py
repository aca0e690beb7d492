"""Receiving: acknowledgements (RFC 1122 §4.2.3.2, RFC 5681 §4.2), SACK (RFC 2018, RFC 2883),
the window and silly windows (RFC 9293 §3.8.6, RFC 1122 §4.2.3.3), urgent data (RFC 6093)."""

from __future__ import annotations

import pytest

from mptcp.wire.tcp import ACK
from tests.conformance.peer import PSH, URG, Peer
from tests.conformance.vocabulary import App, Net
from tests.options import Sack, has, lacks
from tests.virtual import ms, seconds

FULL = 1460


def delayed(net: Net, **options: object) -> tuple[Peer, App]:
    """A connection that has taken a full-sized segment and delays its ACKs from now on."""
    peer, app = net.established(**options)  # type: ignore[arg-type]
    peer.send(ACK, data=b"0" * FULL)
    peer.send(ACK, data=b"0" * FULL)
    app.expect_read(b"0" * 2 * FULL)
    net.advance(net.time + ms(50))
    peer.drain()
    app.set(quickack=False)
    net.mark()
    return peer, app


def test_delayed_ack(net: Net) -> None:
    """RFC 1122 §4.2.3.2: one segment is acknowledged after a delay, at most 500 ms."""
    peer, app = delayed(net)
    start = peer.nxt
    peer.send(ACK, data=b"x" * 100, at=ms(20))
    peer.expect_nothing(until=ms(59))
    peer.expect(ACK, ack=start + 100, at=ms(60))
    app.expect_read(b"x" * 100)
    peer.expect_nothing(until=ms(150))


def test_every_second_segment(net: Net) -> None:
    """RFC 1122 §4.2.3.2, RFC 5681 §4.2: an ACK for at least every second full-sized segment."""
    peer, app = delayed(net)
    start = peer.nxt
    peer.send(ACK, data=b"x" * FULL)
    peer.expect_nothing()
    peer.send(ACK, data=b"y" * FULL)
    app.expect_read(b"x" * FULL + b"y" * FULL)
    peer.expect(ACK, ack=start + 2 * FULL)
    peer.expect_nothing(until=net.time + ms(60))


def test_data_carries_the_ack(net: Net) -> None:
    """RFC 9293 §3.8.6.3: an answer within the delay carries the ACK; no other follows."""
    peer, app = delayed(net)
    start = peer.nxt
    peer.send(ACK, data=b"question")
    app.expect_read(b"question")
    app.write(b"answer")
    peer.expect(ACK, seq=1, ack=start + 8, data=b"answer")
    peer.send(ACK)
    peer.expect_nothing(until=net.time + ms(80))


def test_out_of_order_is_acknowledged_at_once(net: Net) -> None:
    """RFC 5681 §4.2: a duplicate ACK at once for each segment beyond a hole."""
    peer, app = delayed(net)
    start = peer.nxt
    for n in range(1, 5):
        peer.send(ACK, seq=start + n * 1000, data=b"x" * 1000)
        peer.expect(ACK, ack=start, length=0)
    peer.send(ACK, seq=start, data=b"x" * 1000)
    peer.expect(ACK, ack=start + 5000)
    app.expect_read(b"x" * 5000)


def test_part_of_a_hole_is_acknowledged_at_once(net: Net) -> None:
    """RFC 5681 §4.2: a segment that fills all or part of a gap is acknowledged at once."""
    peer, _ = delayed(net)
    start = peer.nxt
    peer.send(ACK, seq=start + 2000, data=b"x" * 1000)
    peer.expect(ACK, ack=start)
    peer.send(ACK, seq=start, data=b"x" * 1000)
    peer.expect(ACK, ack=start + 1000)
    peer.send(ACK, seq=start + 1000, data=b"x" * 1000)
    peer.expect(ACK, ack=start + 3000)


def test_old_data_is_acknowledged_at_once(net: Net) -> None:
    """§3.10.7.4 first: what was received already is acknowledged at once, not delivered twice."""
    peer, app = delayed(net)
    start = peer.nxt
    peer.send(ACK, data=b"x" * FULL)
    peer.send(ACK, seq=start, data=b"y" * FULL)
    peer.expect(ACK, ack=start + FULL)
    app.expect_read(b"x" * FULL)
    app.expect_nothing_to_read()


def test_overlap_is_trimmed(net: Net) -> None:
    """§3.10.7.4 seventh: the part below RCV.NXT is cut off, the rest is new."""
    peer, app = net.established()
    peer.send(ACK, data=b"abcdef")
    peer.send(ACK, seq=4, data=b"defghi")
    app.expect_read(b"abcdefghi")
    seen = peer.drain()
    net.check(seen[-1].ack == 10 if seen else False, "both are acknowledged")


def test_overlap_with_what_waits(net: Net) -> None:
    """RFC 9293 §3.4: each octet counts once, in whatever pieces it comes."""
    peer, app = net.established()
    peer.send(ACK, seq=11, data=b"k" * 10)
    peer.send(ACK, seq=31, data=b"m" * 10)
    peer.send(ACK, seq=16, data=b"k" * 5 + b"l" * 10 + b"m" * 10)
    peer.send(ACK, seq=1, data=b"j" * 15)
    peer.drain()
    got = b""
    while (piece := app.read()) is not None:
        got += piece
    net.check(len(got) == 40, f"{len(got)} bytes")
    net.check(got[20:30] == b"l" * 10, "the middle came once")


def test_sack_of_the_newest_first(net: Net) -> None:
    """RFC 2018 §4: the first block holds the segment that caused the ACK, then the newest ones."""
    peer, _ = net.established()
    peer.send(ACK, seq=1001, data=b"x" * 1000)
    peer.expect(ACK, ack=1, sack=[(1001, 2001)])
    peer.send(ACK, seq=3001, data=b"x" * 1000)
    peer.expect(ACK, ack=1, sack=[(3001, 4001), (1001, 2001)])
    peer.send(ACK, seq=5001, data=b"x" * 1000)
    peer.expect(ACK, ack=1, sack=[(5001, 6001), (3001, 4001), (1001, 2001)])
    peer.send(ACK, seq=7001, data=b"x" * 1000)
    peer.expect(ACK, ack=1, sack=[(7001, 8001), (5001, 6001), (3001, 4001), (1001, 2001)])
    peer.send(ACK, seq=9001, data=b"x" * 1000)
    peer.expect(ACK, ack=1, sack=[(9001, 10001), (7001, 8001), (5001, 6001), (3001, 4001)])


def test_sack_merges(net: Net) -> None:
    """RFC 2018 §4: a block is as large as the contiguous data that the receiver holds."""
    peer, _ = net.established()
    peer.send(ACK, seq=1001, data=b"x" * 1000)
    peer.expect(ACK, ack=1, sack=[(1001, 2001)])
    peer.send(ACK, seq=3001, data=b"x" * 1000)
    peer.expect(ACK, ack=1, sack=[(3001, 4001), (1001, 2001)])
    peer.send(ACK, seq=2001, data=b"x" * 1000)
    peer.expect(ACK, ack=1, sack=[(1001, 4001)])
    peer.send(ACK, seq=1, data=b"x" * 1000)
    peer.expect(ACK, ack=4001, options=lacks(Sack))


def test_sack_with_timestamps(net: Net) -> None:
    """RFC 2018 §3: beside timestamps there is room for three blocks."""
    peer, _ = net.established(timestamps=True)
    for n in range(5):
        peer.send(ACK, seq=1001 + 2000 * n, data=b"x" * 1000)
    last = peer.drain()[-1]
    net.check(last.sack == ((9001, 10001), (7001, 8001), (5001, 6001)), f"{last.sack}")


def test_no_sack_unless_agreed(net: Net) -> None:
    """RFC 2018 §2: without SACK-permitted no SACK option is sent."""
    peer, _ = net.established(sack=False)
    peer.send(ACK, seq=1001, data=b"x" * 1000)
    peer.expect(ACK, ack=1, options=lacks(Sack))


def test_sack_disappears_with_the_hole(net: Net) -> None:
    """RFC 2018 §4: what RCV.NXT covers is no block any more; what is above still is."""
    peer, _ = net.established()
    peer.send(ACK, seq=1001, data=b"x" * 1000)
    peer.send(ACK, seq=3001, data=b"x" * 1000)
    peer.drain()
    peer.send(ACK, seq=1, data=b"x" * 1000)
    peer.expect(ACK, ack=2001, sack=[(3001, 4001)])


def test_dsack_of_a_repeated_segment(net: Net) -> None:
    """RFC 2883 §4.1: the duplicate's range is the first block, below the ACK."""
    peer, app = net.established()
    peer.send(ACK, data=b"x" * 1000)
    app.expect_read(b"x" * 1000)
    net.advance(net.time + ms(60))
    peer.drain()
    peer.send(ACK, seq=1, data=b"x" * 1000)
    peer.expect(ACK, ack=1001, sack=[(1, 1001)])


def test_dsack_is_said_once(net: Net) -> None:
    """RFC 2883 §4: a D-SACK block reports a duplicate in one ACK only."""
    peer, app = net.established()
    peer.send(ACK, data=b"x" * 1000)
    app.expect_read(b"x" * 1000)
    net.advance(net.time + ms(60))
    peer.drain()
    peer.send(ACK, seq=1, data=b"x" * 1000)
    peer.expect(ACK, ack=1001, sack=[(1, 1001)])
    peer.send(ACK, data=b"y" * 1000)
    peer.expect(ACK, ack=2001, options=lacks(Sack), within=ms(60))


def test_dsack_beyond_a_hole(net: Net) -> None:
    """RFC 2883 §4.1.3: a duplicate of what waits: its range, then the block that holds it."""
    peer, _ = net.established()
    peer.send(ACK, seq=1001, data=b"x" * 2000)
    peer.expect(ACK, ack=1, sack=[(1001, 3001)])
    peer.send(ACK, seq=1001, data=b"x" * 1000)
    peer.expect(ACK, ack=1, sack=[(1001, 2001), (1001, 3001)])


def test_dsack_of_a_part(net: Net) -> None:
    """RFC 2883 §4.2: only the part that was received before is reported."""
    peer, app = net.established()
    peer.send(ACK, data=b"x" * 1000)
    app.expect_read(b"x" * 1000)
    net.advance(net.time + ms(60))
    peer.drain()
    peer.send(ACK, seq=501, data=b"x" * 1000)
    seen = peer.expect(ACK, ack=1501, within=ms(60))
    net.check(seen.sack in (((501, 1001),), ()), f"{seen.sack}")
    app.expect_read(b"x" * 500)


def test_no_dsack_unless_agreed(net: Net) -> None:
    """RFC 2883 §4: D-SACK needs SACK-permitted."""
    peer, _ = net.established(sack=False)
    peer.send(ACK, data=b"x" * 1000)
    peer.drain()
    peer.send(ACK, seq=1, data=b"x" * 1000)
    peer.expect(ACK, ack=1001, options=lacks(Sack))


# -- the window ------------------------------------------------------------------------------------


def fill(net: Net, peer: Peer, size: int = FULL) -> int:
    """Send until the window is full; the bytes sent."""
    start = peer.nxt
    for _ in range(5000):
        peer.drain()
        room = peer.edge - peer.nxt
        if room <= 0:
            break
        peer.send(ACK, data=b"z" * min(size, room))
    net.advance(net.time + ms(60))
    return peer.nxt - start


def test_window_closes_and_opens(net: Net) -> None:
    """§3.8.6: the window closes with what is not read, and an update tells that it has opened."""
    net.tune("receive_buffer", 65536, "tcp_rmem", "4096 65536 65536")
    peer, app = net.established()
    sent = fill(net, peer)
    last = peer.drain()
    peer.send(ACK, seq=peer.nxt - 1, data=b"z")  # any old octet: where are we?
    seen = peer.expect(ACK)
    net.check(seen.window == 0, f"{seen} after {sent} bytes, {len(last)} ACKs left")
    net.check(seen.ack == peer.nxt, "all of it was taken")
    app.expect_read(b"z" * sent)
    seen = peer.expect(ACK, ack=peer.nxt)
    net.check(seen.window >= 2 * FULL, f"{seen}: a window update")


def test_zero_window_probe_is_answered(net: Net) -> None:
    """§3.8.6.1 (MUST-35): a probe of one octet into a closed window is acknowledged, not taken."""
    net.tune("receive_buffer", 65536, "tcp_rmem", "4096 65536 65536")
    peer, app = net.established()
    sent = fill(net, peer)
    peer.drain()
    for _ in range(3):
        peer.send(ACK, seq=1 + sent, data=b"!")
        seen = peer.expect(ACK, ack=1 + sent)
        net.check(seen.window == 0, f"{seen}: still closed")
        peer.nxt = 1 + sent
    app.expect_read(b"z" * sent)
    app.expect_nothing_to_read()


def test_silly_window_of_the_receiver(net: Net) -> None:
    """RFC 1122 §4.2.3.3: a window opens by a segment or half the buffer at least."""
    net.tune("receive_buffer", 65536, "tcp_rmem", "4096 65536 65536")
    peer, app = net.established()
    fill(net, peer)
    peer.drain()
    app.expect_read(b"z" * 100)
    peer.expect_nothing(until=net.time + ms(30))
    peer.send(ACK, seq=peer.nxt - 1, data=b"z")
    seen = peer.expect(ACK)
    net.check(seen.window == 0, f"{seen}: 100 bytes are no window")


def test_data_beyond_the_window(net: Net) -> None:
    """§3.10.7.4 first: what begins beyond the window is acknowledged and dropped."""
    peer, app = net.established()
    peer.send(ACK, seq=1 + peer.edge, data=b"x" * 100)
    peer.expect(ACK, ack=1, options=lacks(Sack))
    app.expect_nothing_to_read()


def test_last_octet_of_the_window(net: Net) -> None:
    """§3.10.7.4 first: the last octet of the window is inside, the next one is not."""
    peer, _ = net.established()
    edge = peer.edge
    peer.send(ACK, seq=edge - 1, data=b"x")
    peer.expect(ACK, ack=1, sack=[(edge - 1, edge)])
    peer.send(ACK, seq=edge, data=b"x")
    peer.expect(ACK, ack=1)


def test_bare_ack_at_the_edge_of_a_closed_window(net: Net) -> None:
    """§3.10.7.4 first: with a window of 0 a segment without text at RCV.NXT is acceptable."""
    net.tune("receive_buffer", 65536, "tcp_rmem", "4096 65536 65536")
    peer, app = net.established()
    app.set(nodelay=True)
    fill(net, peer)
    peer.drain()
    app.write(b"x" * 100)
    peer.expect(ACK, seq=1, length=100)
    peer.send(ACK, ack=101)
    app.write(b"y" * 100)
    peer.expect(ACK, seq=101, length=100)  # the first 100 were acknowledged: the next goes
    peer.send(ACK, ack=201)
    peer.expect_nothing(until=net.time + ms(250))


def test_window_updates_while_reading(net: Net) -> None:
    """RFC 1122 §4.2.3.3: an application that reads steadily keeps the window open."""
    peer, app = net.established()
    total = 0
    for _ in range(100):
        peer.drain()
        net.check(peer.edge - peer.nxt >= 2 * FULL, f"the window is open after {total} bytes")
        peer.send(ACK, data=b"x" * FULL)
        app.expect_read(b"x" * FULL)
        total += FULL


# -- urgent data -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pointer", [1, 3, 6, 100, 65535])
def test_urgent_data_is_in_line(net: Net, pointer: int) -> None:
    """RFC 6093 §6 (RFC 9293 §3.8.5): urgent data is received in line, whatever the pointer."""
    peer, app = net.established()
    app.set(oobinline=True)
    peer.send(ACK | URG | PSH, data=b"urgent", urgent=pointer)
    peer.expect(ACK, ack=7, within=ms(60))
    got = b""
    while piece := app.read():
        got += piece
    net.check(got == b"urgent", f"{got!r} was read")
    peer.send(ACK, data=b" and more")
    peer.expect(ACK, ack=16, within=ms(60))
    app.expect_read(b" and more")


def test_urgent_flag_without_data(net: Net) -> None:
    """RFC 9293 §3.8.5: URG on a bare ACK announces, and changes nothing else."""
    peer, app = net.established()
    app.set(oobinline=True)
    peer.send(ACK | URG, urgent=10)
    peer.expect_nothing()
    peer.send(ACK, data=b"0123456789")
    peer.expect(ACK, ack=11, within=ms(60))
    app.expect_read(b"0123456789")


def test_push_is_no_matter(net: Net) -> None:
    """RFC 9293 §3.9.1.3: without PSH the data is delivered as well."""
    peer, app = net.established()
    peer.send(ACK, data=b"no push")
    app.expect_read(b"no push")
    peer.send(ACK | PSH, data=b"push")
    app.expect_read(b"push")


def test_reserved_bits_are_ignored(net: Net) -> None:
    """RFC 9293 §3.1: reserved bits must be ignored by those that do not know them."""
    peer, app = net.established()
    peer.send(ACK | 0x100, data=b"x")
    peer.expect(ACK, ack=2, within=ms(60))
    app.expect_read(b"x")


def test_acks_do_not_answer_acks(net: Net) -> None:
    """RFC 9293 §3.10.7.4: a bare ACK in order is never answered."""
    peer, _ = net.established()
    for _ in range(5):
        peer.send(ACK)
    peer.expect_nothing(until=ms(60))


def test_sack_goes_with_the_next_data(net: Net) -> None:
    """RFC 2018 §4: while a hole is open ACKs should say so; on data both systems may leave it."""
    peer, app = net.established()
    peer.send(ACK, seq=1001, data=b"x" * 1000)
    peer.expect(ACK, ack=1, options=has(Sack))
    app.write(b"y" * 100)
    seen = peer.expect(ACK, seq=1, ack=1, data=b"y" * 100)
    carried = net.differs(
        "SACK blocks on data segments: Linux has them; we leave them to the bare ACK that each "
        "segment beyond the hole causes, so that data keeps one size",
        ours=(),
        kernel=((1001, 2001),),
    )
    net.check(seen.sack == carried, f"{seen.sack} on data")


def test_idle_connection_is_silent(net: Net) -> None:
    """RFC 1122 §4.2.3.6: no keep-alive unless the application asks."""
    peer, app = net.established()
    peer.expect_nothing(until=seconds(1))
    app.expect_state("ESTABLISHED")
