"""Loss recovery: fast retransmit and recovery (RFC 5681, 6582, 6675), limited transmit (RFC 3042),
PRR (RFC 6937), RACK-TLP (RFC 8985), F-RTO (RFC 5682), RTT samples (RFC 6298), undo (RFC 3708).

The flights are of 1000-byte segments, sent at 0; a round trip is 40 ms.
"""

from __future__ import annotations

from mptcp.wire.tcp import ACK
from tests.conformance.peer import Peer
from tests.conformance.vocabulary import App, Net
from tests.options import Sack
from tests.virtual import ms

RTT = ms(40)


def flight(net: Net, segments: int, queued: int = 0, *, sack: bool = True) -> tuple[Peer, App]:
    """`segments` of data have just been sent and `queued` more wait for the window."""
    peer, app = net.established(mss=1000, rtt=RTT, sack=sack)
    peer.send(ACK)  # Linux calls the first ACK after the SYN/ACK a window update
    app.write(b"x" * 1000 * (segments + queued))
    starts = [seen.seq for seen in peer.drain()]
    net.check(starts == [1 + 1000 * n for n in range(segments)], f"{starts}")
    return peer, app


def blocks(peer: Peer, *ranges: tuple[int, int]) -> list[Sack]:
    """SACK option of segment ranges: (1, 3) is segments 1 and 2 of the flight (0 the first)."""
    return [peer.sacked(*((1 + 1000 * a, 1 + 1000 * b) for a, b in ranges))]


def only_classic(net: Net) -> None:
    """Switch RACK and TLP off: loss by counting and by the retransmission timer alone."""
    net.tune("rack_tlp", False, "tcp_early_retrans", 0)
    net.tune("", None, "tcp_recovery", 0)


def starts_of(peer: Peer) -> list[int]:
    """Which segments (by their index in the flight) have come by now."""
    return [seen.seq // 1000 for seen in peer.drain()]


def test_fast_retransmit(net: Net) -> None:
    """RFC 6675 §5 (4), RFC 8985 §6.2: the third SACK resends the first hole at once."""
    peer, _ = flight(net, 10)
    peer.send(ACK, ack=1, options=blocks(peer, (1, 2)), at=RTT)
    peer.expect_nothing()
    peer.send(ACK, ack=1, options=blocks(peer, (1, 3)))
    peer.expect_nothing()
    peer.send(ACK, ack=1, options=blocks(peer, (1, 4)))
    peer.expect(ACK, seq=1, length=1000)
    peer.expect_nothing()


def test_limited_transmit(net: Net) -> None:
    """RFC 3042 §2: the first two duplicate ACKs each let a new segment out."""
    peer, app = flight(net, 10)
    app.write(b"y" * 1000)
    peer.expect_nothing(until=RTT - ms(1))
    for n in (0, 1):
        peer.send(ACK, ack=1, options=blocks(peer, (1, 2 + n)), at=RTT if n == 0 else None)
        peer.expect(ACK, seq=10_001 + 1000 * n, length=1000)
        app.write(b"y" * 1000)
        peer.expect_nothing()
    peer.send(ACK, ack=1, options=blocks(peer, (1, 4)))
    peer.expect(ACK, seq=1, length=1000)


def test_fast_retransmit_without_sack(net: Net) -> None:
    """RFC 5681 §3.2 (2): three duplicate ACKs resend the first segment."""
    peer, _ = flight(net, 10, sack=False)
    net.advance(RTT)
    for _ in range(2):
        peer.send(ACK, ack=1)
        peer.expect_nothing()
    peer.send(ACK, ack=1)
    peer.expect(ACK, seq=1, length=1000)
    peer.expect_nothing()


def test_limited_transmit_without_sack(net: Net) -> None:
    """RFC 3042 §2: the same with duplicate ACKs."""
    peer, app = flight(net, 10, sack=False)
    app.write(b"y" * 1000)
    net.advance(RTT)
    for n in (0, 1):
        peer.send(ACK, ack=1)
        peer.expect(ACK, seq=10_001 + 1000 * n, length=1000)
        app.write(b"y" * 1000)
        peer.expect_nothing()
    peer.send(ACK, ack=1)
    peer.expect(ACK, seq=1)


def test_no_duplicate_with_data_or_window(net: Net) -> None:
    """RFC 5681 §2: an ACK with data, or that changes the window, is no duplicate ACK."""
    peer, app = flight(net, 10, sack=False)
    net.advance(RTT)
    for n in range(3):
        peer.send(ACK, ack=1, data=b"y" * 10)
        peer.send(ACK, ack=1, window=60_000 - n)
    app.expect_read(b"y" * 30)
    resent = [seen.seq for seen in peer.drain() if seen.data]
    net.check(resent == [], f"{resent}")


def test_partial_ack_without_sack(net: Net) -> None:
    """RFC 6582 §3.2 step 3: a partial ACK resends the next hole at once."""
    peer, _ = flight(net, 10, sack=False)
    net.advance(RTT)
    for _ in range(8):  # segments 0 and 4 are lost
        peer.send(ACK, ack=1)
    peer.expect(ACK, seq=1, length=1000)
    peer.drain()
    peer.send(ACK, ack=4001, at=2 * RTT)
    again = peer.expect(ACK, seq=4001, length=1000)
    net.check(again.sent_at - 2 * RTT < ms(12), f"{again}: at once")


def test_full_ack_ends_recovery(net: Net) -> None:
    """RFC 6582 §3.2 step 3: an ACK of all that was sent before the loss resends nothing more."""
    peer, app = flight(net, 10, sack=False)
    net.advance(RTT)
    for _ in range(9):
        peer.send(ACK, ack=1)
    net.check(starts_of(peer) == [0], "only the first again")
    peer.send(ACK, ack=10_001, at=2 * RTT)
    peer.expect_nothing(until=2 * RTT + ms(20))
    app.write(b"y" * 40_000)
    sent = len(starts_of(peer))
    net.check(3 <= sent <= 6, f"{sent} segments: half of the ten")


def test_two_holes(net: Net) -> None:
    """RFC 6675 §5: every hole below what was SACKed three segments above is resent."""
    peer, _ = flight(net, 10)
    net.advance(RTT)
    peer.send(ACK, ack=1, options=blocks(peer, (1, 2)))
    peer.send(ACK, ack=1, options=blocks(peer, (3, 4), (1, 2)))
    peer.send(ACK, ack=1, options=blocks(peer, (3, 5), (1, 2)))
    got = starts_of(peer)
    for n in range(6, 11):
        peer.send(ACK, ack=1, options=blocks(peer, (3, n), (1, 2)))
        got += starts_of(peer)
    net.check(got == [0, 2], f"{got}: the holes, each once, in order")


def test_sacked_data_is_not_resent(net: Net) -> None:
    """RFC 2018 §5, RFC 6675 §5 (C): what was SACKed is not sent again, by the timer neither."""
    peer, _ = flight(net, 6)
    peer.send(ACK, ack=1, options=blocks(peer, (1, 2), (3, 4)), at=RTT)
    net.advance(ms(500))
    got = set(starts_of(peer))
    net.check(0 in got, f"{got}: the first hole")
    net.check(not got & {1, 3}, f"{got}: what was SACKed is not among them")


def test_reordering_of_two(net: Net) -> None:
    """RFC 5681 §3.2: two duplicates and then the hole is filled: nothing is resent."""
    peer, _ = flight(net, 10)
    peer.send(ACK, ack=1, options=blocks(peer, (1, 2)), at=RTT)
    peer.send(ACK, ack=1, options=blocks(peer, (1, 3)))
    peer.send(ACK, ack=3001)
    peer.send(ACK, ack=10_001)
    peer.expect_nothing(until=RTT + ms(100))


def test_rack_reordering_window(net: Net) -> None:
    """RFC 8985 §6.2 step 4, 5: one SACK above a hole: resent a quarter of the RTT later."""
    peer, _ = flight(net, 4)
    peer.send(ACK, ack=1, options=blocks(peer, (1, 2)), at=RTT)
    peer.expect_nothing(until=RTT + ms(9))
    # Sent at 0, RTT 40 ms, window 10 ms: due at 50 ms.
    peer.expect(ACK, seq=1, length=1000, at=RTT + ms(10), slack=ms(5))


def test_rack_filled_in_time(net: Net) -> None:
    """RFC 8985 §6.2: what comes within the reordering window is not resent."""
    peer, _ = flight(net, 4)
    peer.send(ACK, ack=1, options=blocks(peer, (1, 2)), at=RTT)
    peer.send(ACK, ack=2001, at=RTT + ms(3))
    peer.send(ACK, ack=4001, at=RTT + ms(4))
    peer.expect_nothing(until=RTT + ms(100))


def test_rack_lost_retransmission(net: Net) -> None:
    """RFC 8985 §6.2: a retransmission is lost too when what was sent after it is delivered."""
    peer, _ = flight(net, 10, 10)
    net.advance(RTT)
    for n in range(2, 11):
        peer.send(ACK, ack=1, options=blocks(peer, (1, n)))
    got = starts_of(peer)
    net.check(got.count(0) == 1, f"{got}: resent once")
    new = [n for n in got if n >= 10 and n > got[got.index(0)]]
    after = [n for n in got[got.index(0) + 1 :] if n >= 10]
    net.check(bool(after) and bool(new), f"{got}: new segments after it")
    peer.send(ACK, ack=1, options=blocks(peer, (1, max(after) + 1)), at=2 * RTT)
    again = peer.expect(ACK, within=ms(30))
    more = [again.seq // 1000, *starts_of(peer)]
    if 0 not in more:
        net.advance(2 * RTT + ms(30))
        more += starts_of(peer)
    net.check(0 in more, f"{more}: resent a second time, long before the time-out")


def test_tail_loss_probe(net: Net) -> None:
    """RFC 8985 §7.2, §7.3: after 2 SRTT without an ACK the last segment goes again."""
    peer, _ = flight(net, 4)
    peer.expect_nothing(until=2 * RTT - ms(1))
    peer.expect(ACK, seq=3001, length=1000, at=2 * RTT, slack=ms(4))
    peer.expect_nothing(until=2 * RTT + ms(50))  # one probe only


def test_tail_loss_probe_with_new_data(net: Net) -> None:
    """RFC 8985 §7.3: where there is new data the probe is new data."""
    peer, _ = flight(net, 10, 5)
    peer.expect(ACK, seq=10_001, length=1000, at=2 * RTT, slack=ms(4))


def test_tail_loss_probe_of_one_segment(net: Net) -> None:
    """RFC 8985 §7.2: a single segment waits for a delayed ACK too; the RTO is the bound."""
    peer, _ = flight(net, 1)
    peer.expect_nothing(until=ms(200))
    peer.expect(ACK, seq=1, length=1000, within=ms(100))


def test_recovery_after_a_probe(net: Net) -> None:
    """RFC 8985 §7.4.2: the SACK of the probe lets RACK find the holes before it."""
    peer, _ = flight(net, 5)
    peer.send(ACK, ack=1001, at=RTT)
    probe = peer.expect(ACK, within=ms(150))
    net.check(probe.seq == 4001, f"{probe}: the tail")
    peer.send(ACK, ack=1001, options=blocks(peer, (4, 5)), at=probe.sent_at + RTT)
    first = peer.expect(ACK, seq=1001, within=ms(40))
    net.check(first.sent_at - probe.sent_at - RTT < ms(30), f"{first}: before the time-out")
    peer.send(ACK, ack=2001, options=blocks(peer, (4, 5)), at=first.sent_at + RTT)
    rest = starts_of(peer)
    net.check(set(rest) <= {2, 3, 1}, f"{rest}")


def test_probe_that_was_not_needed(net: Net) -> None:
    """RFC 8985 §7.4.1: a DSACK says that the probe was a duplicate: nothing was lost."""
    peer, app = flight(net, 4)
    peer.expect(ACK, seq=3001, length=1000, within=ms(120))
    peer.send(ACK, ack=4001)
    peer.send(ACK, ack=4001, options=[peer.sacked((3001, 4001))])
    peer.expect_nothing(until=net.time + ms(50))
    app.write(b"y" * 40_000)
    sent = len(starts_of(peer))
    net.check(sent >= 10, f"{sent} segments: the window was not reduced")


def test_proportional_rate_reduction(net: Net) -> None:
    """RFC 6937 §3: over the recovery a segment is sent for every two that are delivered."""
    peer, _ = flight(net, 10, 30)
    net.advance(RTT)
    counts = []
    for n in range(2, 11):
        peer.send(ACK, ack=1, options=blocks(peer, (1, n)))
        counts.append(len(starts_of(peer)))
    net.check(counts[:3] == [1, 1, 1], f"{counts}: limited transmit, then the hole")
    net.check(max(counts) == 1, f"{counts}: never a burst")
    net.check(sum(counts[3:]) in (2, 3, 4), f"{counts}: about half of the six delivered after it")


def test_window_after_recovery(net: Net) -> None:
    """RFC 5681 §3.2 (6), RFC 6937: in the end the window is ssthresh, half of the flight."""
    peer, app = flight(net, 10)
    net.advance(RTT)
    for n in range(2, 11):
        peer.send(ACK, ack=1, options=blocks(peer, (1, n)))
    net.check(starts_of(peer) == [0], "the hole")
    peer.send(ACK, ack=10_001, at=2 * RTT)
    app.write(b"y" * 40_000)
    sent = len(starts_of(peer))
    net.check(4 <= sent <= 6, f"{sent} segments: half of ten")


def test_frto_original_acks(net: Net) -> None:
    """RFC 5682 §2.1 (2b), (3b): after a spurious time-out nothing but the first is resent."""
    only_classic(net)
    peer, _ = flight(net, 10, 10)
    peer.expect(ACK, seq=1, length=1000, within=ms(300))
    peer.expect_nothing()
    peer.send(ACK, ack=2001)  # the original flight is acknowledged, late
    new = starts_of(peer)
    allowed = net.differs(
        "F-RTO: two new segments before the verdict (RFC 5682 §2.1 (2b)); Linux sends what the "
        "window lets out",
        ours=[10, 11],
        kernel=[10, 11, 12, 13],
    )
    net.check(new == allowed, f"{new}: new segments instead of retransmissions")
    peer.send(ACK, ack=3001)
    more = starts_of(peer)
    net.check(all(n >= 12 for n in more), f"{more}: the time-out was spurious: go on")
    for n in range(4, 11):
        peer.send(ACK, ack=1 + 1000 * n)
    more = starts_of(peer)
    net.check(all(n >= 12 for n in more), f"{more}: nothing of the flight is resent")


def test_frto_real_loss(net: Net) -> None:
    """RFC 5682 §2.1 (2a): a duplicate ACK after the time-out: it was a loss: resend."""
    only_classic(net)
    peer, _ = flight(net, 6)
    peer.expect(ACK, seq=1, length=1000, within=ms(300))
    peer.send(ACK, ack=1001)
    peer.expect(ACK, seq=1001, length=1000)


def test_dsack_undo(net: Net) -> None:
    """RFC 3708 §2, RFC 8985 §6.2: a DSACK for all that was resent: the window comes back."""
    peer, app = flight(net, 10, 3)
    net.advance(RTT)
    for n in range(2, 5):
        peer.send(ACK, ack=1, options=blocks(peer, (1, n)))
    net.check(starts_of(peer) == [10, 11, 0], "resent for three SACKs")
    peer.send(ACK, ack=10_001)  # merely reordered
    peer.send(ACK, ack=10_001, options=[peer.sacked((1, 1001))])
    app.write(b"y" * 40_000)
    sent = len(starts_of(peer))
    net.check(sent >= 8, f"{sent} segments: the window of before")


def test_sample_ends_the_back_off(net: Net) -> None:
    """RFC 6298 §5 (last paragraph): a new sample collapses the RTO."""
    only_classic(net)
    peer, app = net.established(mss=1000)
    app.write(b"x" * 1000)
    peer.expect(ACK, seq=1)
    peer.expect(ACK, seq=1, within=ms(300))
    peer.expect(ACK, seq=1, within=ms(600))
    peer.send(ACK, ack=1001)
    app.write(b"y" * 1000)
    peer.expect(ACK, seq=1001)
    peer.send(ACK, ack=2001, at=net.time + ms(5))
    app.write(b"z" * 1000)
    start = peer.expect(ACK, seq=2001).sent_at
    again = peer.expect(ACK, seq=2001, within=ms(400))
    net.check(again.sent_at - start <= ms(300), f"{again}: the least RTO again")


def test_rtt_by_timestamps(net: Net) -> None:
    """RFC 7323 §4.1: with timestamps the ACK of a retransmission is a sample."""
    only_classic(net)
    peer, app = net.established(mss=1000, timestamps=True)
    app.write(b"x" * 988)
    peer.expect(ACK, seq=1)
    peer.expect(ACK, seq=1, within=ms(300))
    peer.expect(ACK, seq=1, within=ms(600))
    peer.send(ACK, ack=989)
    app.write(b"y" * 988)
    start = peer.expect(ACK, seq=989).sent_at
    again = peer.expect(ACK, seq=989, within=ms(1000))
    net.check(again.sent_at - start <= ms(300), f"{again}: the least RTO again")


def test_rto_grows_with_the_rtt(net: Net) -> None:
    """RFC 6298 (2.2): the first sample R: RTO = R + max(G, 4 R/2): three round trips."""
    only_classic(net)
    peer, app = net.established(mss=1000, rtt=ms(200))
    app.write(b"x" * 1000)
    peer.expect(ACK, seq=1)
    again = peer.expect(ACK, seq=1, within=ms(900))
    net.check(ms(590) <= again.sent_at <= ms(660), f"{again}: 600 ms")


def test_sack_option_below_the_ack(net: Net) -> None:
    """RFC 2883 §4: a block below the ACK reports a duplicate; it is no loss signal."""
    peer, _ = flight(net, 10)
    net.advance(RTT)
    peer.send(ACK, ack=2001)
    for _ in range(3):
        peer.send(ACK, ack=2001, options=[peer.sacked((1, 1001))])
    peer.expect_nothing()


def test_sack_of_what_was_not_sent(net: Net) -> None:
    """RFC 2018 §3, RFC 6675 §4: blocks beyond SND.NXT or the wrong way round are ignored."""
    peer, app = flight(net, 4)
    net.advance(RTT)
    for wrong in ((20_001, 30_001), (3001, 2001), (1001, 90_001)):
        peer.send(ACK, ack=1, options=[peer.sacked(wrong)])
    peer.expect_nothing()
    peer.send(ACK, ack=4001)
    app.write(b"y" * 1000)
    peer.expect(ACK, seq=4001)


def test_karn(net: Net) -> None:
    """RFC 6298 §3, (5.5): the ACK of what was sent twice is no sample; the back-off stays."""
    only_classic(net)
    peer, app = net.established(mss=1000)
    app.write(b"x" * 1000)
    peer.expect(ACK, seq=1)
    first = peer.expect(ACK, seq=1, within=ms(300))
    second = peer.expect(ACK, seq=1, within=ms(600))
    peer.send(ACK, ack=1001, at=second.sent_at + ms(5))
    app.write(b"y" * 1000)
    start = peer.expect(ACK, seq=1001).sent_at
    again = peer.expect(ACK, seq=1001, within=ms(1100))
    net.check(first.sent_at < second.sent_at, "twice")
    gap = again.sent_at - start
    net.check(gap >= ms(700), f"{gap} µs: the doubled RTO holds until there is a sample")


def test_dsack_undo_when_idle(net: Net) -> None:
    """RFC 3708 §2, RFC 8985 §6.2: a DSACK for all that was resent: the window comes back."""
    peer, app = flight(net, 10)
    net.advance(RTT)
    for n in range(2, 5):
        peer.send(ACK, ack=1, options=blocks(peer, (1, n)))
    net.check(starts_of(peer) == [0], "resent for three SACKs")
    peer.send(ACK, ack=10_001)  # merely reordered
    peer.send(ACK, ack=10_001, options=[peer.sacked((1, 1001))])
    app.write(b"y" * 40_000)
    sent = len(starts_of(peer))
    net.check(sent >= 9, f"{sent} segments: the window of before")
