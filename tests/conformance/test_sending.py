"""Sending: the initial window (RFC 6928), Nagle and silly windows (RFC 9293 §3.7.4, §3.8.6.2.1,
RFC 1122 §4.2.3.4), the persist timer (§3.8.6.1), slow start (RFC 5681), RTO (RFC 6298)."""

from __future__ import annotations

import pytest

from mptcp.wire.tcp import ACK, SYN
from tests.conformance.peer import PSH, Peer
from tests.conformance.vocabulary import Net
from tests.options import Mss
from tests.virtual import ms, seconds


def burst(peer: Peer) -> int:
    """The bytes that have come by now."""
    return sum(len(seen.data) for seen in peer.drain())


@pytest.mark.parametrize("mss", [536, 1000, 1460])
def test_initial_window(net: Net, mss: int) -> None:
    """RFC 6928 §2: min(10 MSS, max(2 MSS, 14600))."""
    peer, app = net.established(mss=mss)
    app.write(b"x" * 40_000)
    sizes = [len(seen.data) for seen in peer.drain()]
    net.check(sizes == [mss] * 10, f"{sizes}")


def test_initial_window_of_a_server(net: Net) -> None:
    """RFC 6928 §2: the same for the side that accepted."""
    peer, app = net.established(active=False)
    app.write(b"x" * 40_000)
    sizes = [len(seen.data) for seen in peer.drain()]
    net.check(sizes == [1460] * 10, f"{sizes}")


def test_initial_window_of_jumbo_frames(net: Net) -> None:
    """RFC 6928 §2: with a large MSS 14600 bytes or two segments."""
    net.configure(mtu=9000)
    peer, app = net.established(mss=8960)
    app.write(b"x" * 200_000)
    segments = net.differs(
        "the initial window with a large MSS: max(2 MSS, 14600) (RFC 6928 §2); Linux sends ten "
        "segments of any size, here as much as the peer's window takes",
        ours=2,
        kernel=8,
    )
    sizes = [len(seen.data) for seen in peer.drain()]
    net.check(len(sizes) == segments, f"{sizes}")


def test_initial_window_after_a_lost_syn(net: Net) -> None:
    """RFC 5681 §3.1: after a lost SYN the initial window is one segment."""
    peer = net.peer()
    app = net.connected(peer)
    peer.expect(SYN)
    peer.expect(SYN, within=seconds(1))
    peer.send(SYN | ACK, options=[Mss(1000)])
    peer.expect(ACK, seq=1)
    app.write(b"x" * 5000)
    sizes = [len(seen.data) for seen in peer.drain()]
    segments = net.differs(
        "the initial window after one lost SYN: one segment (RFC 5681 §3.1); Linux has it so only "
        "after a second one",
        ours=1,
        kernel=5,
    )
    net.check(sizes == [1000] * segments, f"{sizes}")


def test_slow_start(net: Net) -> None:
    """RFC 5681 §3.1 (2): each acknowledged segment lets out two."""
    peer, app = net.established(mss=1000, rtt=ms(20))
    app.write(b"x" * 60_000)
    net.check(burst(peer) == 10_000, "the initial window")
    for n in range(1, 6):
        peer.send(ACK, ack=1 + 2000 * n, at=ms(20 + 2 * n))
        sent = burst(peer)
        net.check(sent == 4000, f"{sent} bytes for an ACK of two segments")


def test_stretch_ack_in_slow_start(net: Net) -> None:
    """RFC 3465 §2.2 with L of the burst: an ACK of the whole flight doubles it."""
    peer, app = net.established(mss=1000, rtt=ms(20))
    app.write(b"x" * 60_000)
    net.check(burst(peer) == 10_000, "the initial window")
    peer.send(ACK, ack=10_001, at=ms(20))
    sent = burst(peer)
    net.check(sent == 20_000, f"{sent} bytes after the whole window was acknowledged")


def test_push_on_the_last_segment(net: Net) -> None:
    """RFC 9293 §3.9.1.2: PSH on the last segment of what was written."""
    peer, app = net.established(mss=1000)
    app.set(nodelay=True)
    app.write(b"x" * 2500)
    seen = peer.drain()
    net.check([len(s.data) for s in seen] == [1000, 1000, 500], f"{seen}")
    net.check(bool(seen[-1].flags & PSH), "PSH at the end")
    net.check(not seen[0].flags & PSH, "and not at the beginning")


# -- Nagle and silly windows -----------------------------------------------------------------------


def test_nagle(net: Net) -> None:
    """RFC 9293 §3.7.4, RFC 1122 §4.2.3.4: a small segment waits while data is unacknowledged."""
    peer, app = net.established()
    app.write(b"a")
    peer.expect(ACK, seq=1, data=b"a")  # nothing is in flight: at once
    app.write(b"b")
    app.write(b"cd")
    peer.expect_nothing(until=ms(30))
    peer.send(ACK, ack=2)
    peer.expect(ACK, seq=2, data=b"bcd")


def test_nagle_lets_full_segments_go(net: Net) -> None:
    """RFC 1122 §4.2.3.4: a full-sized segment does not wait."""
    peer, app = net.established(mss=1000, rtt=ms(40))
    app.write(b"a")
    peer.expect(ACK, seq=1, data=b"a")
    app.write(b"b" * 1500)
    peer.expect(ACK, seq=2, length=1000)
    peer.expect_nothing(until=ms(30))
    peer.send(ACK, ack=1002)
    peer.expect(ACK, seq=1002, length=500)


def test_nodelay(net: Net) -> None:
    """RFC 1122 §4.2.3.4 (MUST): the application can turn Nagle off."""
    peer, app = net.established()
    app.set(nodelay=True)
    for n, text in enumerate((b"a", b"b", b"c"), 1):
        app.write(text)
        peer.expect(ACK, seq=n, data=text)


def test_nodelay_releases_what_waits(net: Net) -> None:
    """RFC 1122 §4.2.3.4: turned off later, what was held goes at once."""
    peer, app = net.established()
    app.write(b"a")
    peer.expect(ACK, seq=1, data=b"a")
    app.write(b"b")
    peer.expect_nothing(until=ms(20))
    app.set(nodelay=True)
    peer.expect(ACK, seq=2, data=b"b")


def test_close_releases_what_waits(net: Net) -> None:
    """RFC 9293 §3.10.4: a FIN pushes: Nagle does not hold the last data."""
    peer, app = net.established()
    app.write(b"a")
    peer.expect(ACK, seq=1, data=b"a")
    app.write(b"b")
    app.shutdown()
    seen = peer.drain()
    net.check(b"".join(s.data for s in seen) == b"b", f"{seen}")
    net.check(seen[-1].end == 4, "the FIN")


def test_silly_window_of_the_sender(net: Net) -> None:
    """RFC 9293 §3.8.6.2.1: a small part of the data does not go into a small window at once."""
    peer, app = net.established(mss=1000)
    peer.send(ACK, window=4000)
    app.write(b"x" * 10_000)
    net.check(burst(peer) == 4000, "the window")
    peer.send(ACK, ack=4001, window=100)
    peer.expect_nothing(until=net.time + ms(90))
    # The override time-out of 0.1 to 1 s, or a window.
    part = peer.expect(ACK, seq=4001, within=ms(1000))
    net.check(len(part.data) == 100, f"{part}: what the window takes")


def test_half_of_the_largest_window(net: Net) -> None:
    """RFC 9293 §3.8.6.2.1 (3): half of the largest window the peer ever had is worth sending."""
    peer, app = net.established(mss=1460, window=600)
    app.set(nodelay=True)
    app.write(b"x" * 3000)
    net.check(burst(peer) == 600, "the whole window, in whatever pieces")
    peer.send(ACK, ack=601, window=300)
    net.check(burst(peer) == 300, "half the window")


def test_window_is_respected(net: Net) -> None:
    """§3.8.6: never beyond SND.UNA + SND.WND."""
    peer, app = net.established(mss=1000, rtt=ms(40))
    peer.send(ACK, window=3000)
    app.write(b"x" * 10_000)
    net.check(burst(peer) == 3000, "three segments")
    peer.send(ACK, ack=1001, window=2000)
    peer.expect_nothing(until=net.time + ms(20))
    peer.send(ACK, ack=1001, window=4000)
    net.check(burst(peer) == 2000, "two more")


def test_shrunk_window(net: Net) -> None:
    """§3.8.6 (MUST-34): a peer that takes its window back is bad manners, but no disaster."""
    peer, app = net.established(mss=1000, rtt=ms(40))
    peer.send(ACK, window=4000)
    app.write(b"x" * 8000)
    net.check(burst(peer) == 4000, "the window")
    peer.send(ACK, ack=1001, window=1000)  # the edge goes from 4001 back to 2001
    peer.expect_nothing(until=net.time + ms(20))
    peer.send(ACK, ack=4001, window=4000)
    net.check(burst(peer) == 4000, "the rest")
    app.expect_state("ESTABLISHED")


def test_old_window_update(net: Net) -> None:
    """§3.10.7.4 fifth: SND.WL1, SND.WL2: an older segment does not change the window."""
    peer, app = net.established(mss=1000)
    peer.send(ACK, data=b"abc", window=2000)
    app.expect_read(b"abc")
    peer.send(ACK, seq=1, window=9000)  # older than what set the window
    peer.drain()
    app.write(b"x" * 9000)
    net.check(burst(peer) == 2000, "the window of the newest segment")


# -- the persist timer -----------------------------------------------------------------------------


def closed_window(net: Net) -> Peer:
    """All sent is acknowledged, more waits, and the window is 0 (since the mark)."""
    peer, app = net.established(mss=1000, rtt=ms(20))
    peer.send(ACK, window=2000)
    app.write(b"x" * 10_000)
    net.check(burst(peer) == 2000, "the window")
    net.advance(net.time + ms(20))
    net.mark()
    peer.send(ACK, ack=2001, window=0)
    peer.expect_nothing()
    return peer


def test_zero_window_probes(net: Net) -> None:
    """§3.8.6.1 (MUST-36, SHLD-29, SHLD-30): probes after an RTO, then at doubled intervals."""
    peer = closed_window(net)
    first = peer.expect(ACK, within=ms(300))
    net.check(ms(180) <= first.sent_at <= ms(260), f"{first}: about an RTO")
    net.check(first.seq in (2000, 2001), f"{first}: at the edge")
    net.check(len(first.data) <= 1, "an octet at most")
    peer.send(ACK, ack=2001, window=0)
    second = peer.expect(ACK, within=ms(600))
    net.check(ms(380) <= second.sent_at - first.sent_at <= ms(520), f"{second}: doubled")
    peer.send(ACK, ack=2001, window=0)
    third = peer.expect(ACK, within=ms(1200))
    gap = third.sent_at - second.sent_at
    net.check(ms(760) <= gap <= ms(1000), f"{third}: doubled again")


def test_window_opens(net: Net) -> None:
    """§3.8.6.1: an update of the window lets data go at once."""
    peer = closed_window(net)
    peer.expect(ACK, within=ms(300))
    peer.send(ACK, ack=2001, window=3000)
    net.check(burst(peer) == 3000, "at once")


def test_probes_go_on_while_answered(net: Net) -> None:
    """§3.8.6.1 (MUST-37), RFC 1122 §4.2.2.17: answered probes never end a connection."""
    net.configure(data_retries=1)
    peer = closed_window(net)
    for _ in range(3):
        peer.expect(ACK, within=ms(1200))
        peer.send(ACK, ack=2001, window=0)
    peer.send(ACK, ack=2001, window=1000)
    peer.expect(ACK, seq=2001, length=1000)


def test_probe_octet_may_be_taken(net: Net) -> None:
    """§3.8.6.1: an ACK above the probe, window still 0, is no reason to stop."""
    peer = closed_window(net)
    peer.expect(ACK, within=ms(300))
    peer.send(ACK, ack=2001, window=0)
    peer.expect(ACK, within=ms(600))
    peer.send(ACK, ack=2001, window=2000)
    net.check(burst(peer) == 2000, "it goes on")


# -- the retransmission timer ----------------------------------------------------------------------


def test_rto_doubles(net: Net) -> None:
    """RFC 6298 §5 (5.4)-(5.6): the earliest segment again; the timer doubles each time.

    The first repeat may be a tail loss probe (RFC 8985 §7).
    """
    peer, app = net.established()
    app.write(b"x" * 100)
    peer.expect(ACK, seq=1, length=100, at=0)
    times = [peer.expect(ACK, seq=1, length=100, within=ms(900)).sent_at for _ in range(3)]
    net.check(ms(195) <= times[0] <= ms(260), f"{times}: the least RTO")
    one, two = times[1] - times[0], times[2] - times[1]
    net.check(1.8 * one <= two <= 2.3 * one, f"{times}: doubled")


def test_rto_resends_the_earliest_only(net: Net) -> None:
    """RFC 6298 (5.4), RFC 5681 §3.1: one segment after a time-out: the loss window."""
    peer, app = net.established(mss=1000, rtt=ms(10))
    app.write(b"x" * 5000)
    net.check(burst(peer) == 5000, "five segments")
    net.advance(ms(300))
    seen = peer.drain()
    resent = [s.seq for s in seen]
    # A tail loss probe (RFC 8985 §7.3) may have sent the last one.
    net.check([s for s in resent if s != 4001] == [1], f"{resent}")


def test_slow_start_after_a_time_out(net: Net) -> None:
    """RFC 5681 §3.1: from one segment: each ACK lets two out."""
    peer, app = net.established(mss=1000, rtt=ms(10))
    app.write(b"x" * 6000)
    net.check(burst(peer) == 6000, "six segments")
    net.advance(ms(300))
    peer.drain()
    peer.send(ACK, ack=1001)
    second = [s.seq for s in peer.drain()]
    net.check(second == [1001, 2001], f"{second}: two segments for one")
    peer.send(ACK, ack=3001)
    third = [s.seq for s in peer.drain()]
    net.check(third[:3] == [3001, 4001, 5001], f"{third}: the rest")


def test_ack_restarts_the_timer(net: Net) -> None:
    """RFC 6298 (5.3): each ACK of new data starts the timer again."""
    peer, app = net.established(mss=1000, rtt=ms(40))
    app.write(b"x" * 10_000)
    net.check(burst(peer) == 10_000, "ten segments")
    for n in range(1, 8):
        peer.send(ACK, ack=1 + 1000 * n, at=ms(40 * n))
        peer.expect_nothing(until=ms(40 * n + 20))
    peer.send(ACK, ack=10_001)
    peer.expect_nothing(until=net.time + ms(300))


def test_no_timer_when_all_is_acknowledged(net: Net) -> None:
    """RFC 6298 (5.2): all data acknowledged: the timer is off."""
    peer, app = net.established()
    app.write(b"x" * 1000)
    peer.expect(ACK, length=1000)
    peer.send(ACK, ack=1001, at=ms(10))
    peer.expect_nothing(until=ms(400))


def test_connection_gives_up(net: Net) -> None:
    """RFC 1122 §4.2.3.5: after R2 the connection is closed and the application told."""
    net.configure(data_retries=1)
    peer, app = net.established()
    app.write(b"x")
    peer.expect(ACK, length=1)
    net.advance(seconds(2.2))
    app.expect_error("timed out")
    peer.drain()
    peer.send(ACK, ack=2)
    peer.expect()


def test_partial_ack_inside_a_segment(net: Net) -> None:
    """RFC 9293 §3.10.7.4 fifth: an ACK may be anywhere between SND.UNA and SND.NXT."""
    peer, app = net.established(mss=1000)
    app.write(b"abcdefghij" * 100)
    peer.expect(ACK, seq=1, length=1000)
    peer.send(ACK, ack=501)
    again = peer.expect(ACK, within=ms(400))
    net.check(again.end == 1001, f"{again}")
    net.check(again.seq in (1, 501), f"{again}: the rest, or the whole")
    peer.send(ACK, ack=1001)
    peer.expect_nothing(until=net.time + ms(50))


def test_idle_restart(net: Net) -> None:
    """RFC 2861 §3 (RFC 5681 §4.1): each idle RTO halves the window, to the initial one at least."""
    peer, app = net.established(mss=1000, rtt=ms(10))
    app.write(b"x" * 60_000)
    for _ in range(12):
        net.advance(net.time + ms(10))
        peer.drain()
        peer.send(ACK)
    peer.drain()
    net.advance(net.time + ms(500))
    peer.drain()
    app.write(b"y" * 40_000)
    sent = burst(peer)
    net.check(sent == 17_000, f"{sent} bytes: 70 segments, halved for each of two RTOs")
