"""Ending a connection: RFC 9293 §3.6, §3.10.4, RFC 1122 §4.2.2.13."""

from __future__ import annotations

import pytest

from mptcp.wire.tcp import ACK, FIN, RST, SYN
from tests.conformance.vocabulary import Net
from tests.options import Mss
from tests.virtual import ms, seconds


def test_normal_close(net: Net) -> None:
    """RFC 9293 figure 12: FIN, ACK, FIN, ACK; the application sees the end."""
    peer, app = net.established()
    app.close()
    peer.expect(FIN | ACK, seq=1, ack=1, length=0)
    peer.send(ACK, ack=2)
    peer.expect_nothing()
    peer.send(FIN | ACK, ack=2)
    peer.expect(ACK, seq=2, ack=2)
    peer.expect_nothing(until=net.time + ms(50))


def test_close_after_data(net: Net) -> None:
    """§3.10.4: what is queued goes before the FIN."""
    peer, app = net.established()
    app.set(nodelay=True)
    app.write(b"x" * 2000)
    app.close()
    peer.expect(ACK, seq=1, length=1460)
    peer.expect(seq=1461, length=540)
    last = peer.expect(FIN | ACK, seq=2001, length=0)
    net.check(last.end == 2002, "the FIN takes a number")
    peer.send(ACK, ack=2002)
    peer.expect_nothing()


def test_close_waits_for_the_window(net: Net) -> None:
    """§3.10.4: the FIN waits for data that the peer's window does not let out."""
    peer, app = net.established()
    peer.send(ACK, window=1460)
    peer.window = 1460
    app.write(b"x" * 2920)
    app.close()
    peer.expect(ACK, seq=1, length=1460)
    peer.expect_nothing()
    peer.send(ACK, ack=1461, window=2000)
    second = peer.expect(seq=1461, length=1460)
    if not second.flags & FIN:  # a separate FIN is as good
        peer.send(ACK, ack=2921)
        peer.expect(FIN | ACK, seq=2921)
    peer.send(ACK, ack=2922)
    peer.expect_nothing()


def test_peer_closes_first(net: Net) -> None:
    """§3.6 case 2: the application may go on sending after the peer's FIN, then closes."""
    peer, app = net.established()
    peer.send(FIN | ACK, data=b"bye")
    peer.expect(ACK, ack=5, within=ms(60))
    app.expect_read(b"bye")
    app.expect_end()
    app.write(b"answer")
    peer.expect(ACK, seq=1, data=b"answer")
    peer.send(ACK)
    app.close()
    peer.expect(FIN | ACK, seq=7, ack=5)
    peer.send(ACK)
    peer.send(ACK, data=b"?")
    peer.expect(RST)


def test_half_close_receives(net: Net) -> None:
    """§3.6 case 1 (MUST-15): after shutdown the peer's data still comes."""
    peer, app = net.established()
    app.shutdown()
    peer.expect(FIN | ACK, seq=1)
    peer.send(ACK, ack=2)
    for n in range(5):
        peer.send(ACK, data=b"x" * 1000)
        app.expect_read(b"x" * 1000)
        net.check(peer.acked() == 2, f"round {n}: nothing more is sent by us")
    peer.send(FIN | ACK)
    app.expect_end()
    seen = [s for s in peer.drain() if s.ack == peer.nxt]
    net.check(len(seen) == 1, "the FIN is acknowledged")


def test_simultaneous_close(net: Net) -> None:
    """RFC 9293 figure 13: both FINs cross; CLOSING, TIME-WAIT."""
    peer, app = net.established()
    app.shutdown()
    peer.expect(FIN | ACK, seq=1, ack=1)
    peer.send(FIN | ACK, ack=1)
    peer.expect(ACK, seq=2, ack=2)
    app.expect_state("CLOSING")
    peer.send(ACK, ack=2)
    peer.send(FIN | ACK, seq=1, ack=2)
    peer.expect(ACK, seq=2, ack=2)


def test_close_with_unread_data(net: Net) -> None:
    """RFC 1122 §4.2.2.13: closing with received data unread resets: the peer knows it was lost."""
    peer, app = net.established()
    peer.send(ACK, data=b"unread")
    peer.drain()
    app.close()
    reset = peer.expect()
    net.check(bool(reset.flags & RST), "a RST")
    net.check(reset.seq == 1, "at SND.NXT")


@pytest.mark.parametrize("acked", [False, True])
def test_data_after_close(net: Net, acked: bool) -> None:
    """RFC 1122 §4.2.2.13: data for an application that has closed is answered with a RST."""
    peer, app = net.established()
    app.close()
    peer.expect(FIN | ACK, seq=1)
    peer.send(ACK, ack=2 if acked else 1)
    peer.expect_nothing()
    peer.send(ACK, data=b"late")
    reset = peer.expect()
    net.check(bool(reset.flags & RST), f"{reset} is a RST")
    peer.send(ACK, data=b"later")
    peer.expect(RST)


def test_ack_after_close(net: Net) -> None:
    """§3.10.4, FIN-WAIT-2: bare ACKs for a closed application are no data: no RST."""
    peer, app = net.established()
    app.close()
    peer.expect(FIN | ACK, seq=1)
    peer.send(ACK, ack=2)
    peer.send(ACK, ack=2)
    peer.expect_nothing(until=ms(50))
    peer.send(FIN | ACK, ack=2)
    peer.expect(ACK, seq=2, ack=2)


def test_fin_wait_2_ends(net: Net) -> None:
    """RFC 1122 §4.2.2.20 (discussion): nobody reads: FIN-WAIT-2 is left after a time-out."""
    net.configure(fin_wait_2_s=1)
    peer, app = net.established()
    app.close()
    peer.expect(FIN | ACK, seq=1)
    peer.send(ACK, ack=2)
    peer.expect_nothing(until=ms(900))
    net.advance(
        net.differs("no rule: the step of the kernel's timer wheel", ours=ms(1001), kernel=ms(1300))
    )
    peer.send(FIN | ACK, ack=2)
    peer.expect(RST)


def test_fin_wait_2_of_a_reader_lasts(net: Net) -> None:
    """§3.6 case 1: half closed is not closed: FIN-WAIT-2 lasts as long as the application."""
    net.configure(fin_wait_2_s=1)
    peer, app = net.established()
    app.shutdown()
    peer.expect(FIN | ACK, seq=1)
    peer.send(ACK, ack=2)
    peer.expect_nothing(until=ms(1500))
    peer.send(ACK, data=b"still here")
    app.expect_read(b"still here")
    app.expect_state("FIN-WAIT-2")


def test_fin_beyond_a_hole(net: Net) -> None:
    """§3.10.7.4 eighth: a FIN counts only when all before it has come."""
    peer, app = net.established()
    peer.send(FIN | ACK, seq=1001, data=b"b" * 100)
    peer.expect(ACK, ack=1)
    app.expect_state("ESTABLISHED")
    app.expect_nothing_to_read()
    peer.send(ACK, seq=1, data=b"a" * 1000)
    got = peer.expect(ACK)
    if got.ack != 1102:
        peer.send(FIN | ACK, seq=1001, data=b"b" * 100)  # we need not have kept the FIN
        peer.expect(ACK, ack=1102, within=ms(60))
    kept = net.differs(
        "a FIN beyond a hole: its payload is kept, the FIN waits for its retransmission; "
        "Linux keeps both",
        ours=1101,
        kernel=1102,
    )
    net.check(got.ack == kept, f"the hole's filling is answered with {got.ack}")
    app.expect_read(b"a" * 1000 + b"b" * 100)
    app.expect_end()
    app.expect_state("CLOSE-WAIT")


def test_fin_is_retransmitted_with_back_off(net: Net) -> None:
    """§3.8.1, RFC 6298 (5.5): the FIN is repeated like data, at doubled intervals.

    The first repeat may be a tail loss probe (RFC 8985 §7), which does not back off.
    """
    peer, app = net.established()
    app.shutdown()
    peer.expect(FIN | ACK, seq=1, at=0)
    times = [peer.expect(FIN | ACK, seq=1, within=ms(900)).sent_at for _ in range(3)]
    second, third = times[1] - times[0], times[2] - times[1]
    net.check(ms(195) <= times[0] <= ms(260), f"{times}: about the least RTO")
    net.check(1.8 * second <= third <= 2.3 * second, f"{times}: doubled")
    peer.send(ACK, ack=2)
    app.expect_state("FIN-WAIT-2")


def test_abort_with_data_queued(net: Net) -> None:
    """§3.10.5 (MUST-14 aside): ABORT flushes what is queued and resets at SND.NXT."""
    peer, app = net.established()
    peer.send(ACK, window=1460)
    app.write(b"x" * 5000)
    peer.expect(ACK, seq=1, length=1460)
    app.abort()
    reset = peer.expect(length=0)
    net.check(bool(reset.flags & RST), f"{reset} is a RST")
    net.check(reset.seq == 1461, f"{reset} is at SND.NXT")
    peer.expect_nothing(until=net.time + ms(300))


def test_reset_drops_what_waits(net: Net) -> None:
    """§3.10.7.4 second: a RST ends both directions; what had come in order can be read before."""
    peer, app = net.established()
    peer.send(ACK, data=b"last words")
    peer.drain()
    peer.send(RST)
    app.expect_read(b"last words")
    app.expect_error("reset")


def test_reset_with_data(net: Net) -> None:
    """RFC 9293 §3.10.7.4 second (MAY-..): a RST may carry text, which is no data."""
    peer, app = net.established()
    peer.send(RST, data=b"go away")
    app.expect_error("reset")
    peer.expect_nothing()


def test_time_wait_refuses_an_old_syn(net: Net) -> None:
    """§3.10.7.4 first, RFC 5961 §4: a SYN of the past is acknowledged with the old numbers."""
    listener = net.listen(5000)
    peer = net.peer(local_port=5000)
    peer.send(SYN, options=[Mss(1460)])
    peer.expect(SYN | ACK, ack=1)
    peer.send(ACK)
    app = listener.expect_accept()
    app.close()
    peer.expect(FIN | ACK, seq=1)
    peer.send(FIN | ACK, ack=2)
    peer.expect(ACK, seq=2, ack=2)
    peer.send(SYN, seq=-50_000, options=[Mss(1460)])
    peer.expect(ACK, seq=2, ack=2)
    listener.expect_none()


def test_time_wait_answers_data(net: Net) -> None:
    """§3.10.7.4 first: whatever is not acceptable in TIME-WAIT is acknowledged."""
    peer, app = net.established()
    app.close()
    peer.expect(FIN | ACK, seq=1)
    peer.send(FIN | ACK, ack=2)
    peer.expect(ACK, seq=2, ack=2)
    peer.send(ACK, seq=2 - 100, ack=2, data=b"x" * 50)
    peer.expect(ACK, seq=2, ack=2)
    peer.send(ACK, ack=2)
    peer.expect_nothing()


def test_last_ack_gives_up(net: Net) -> None:
    """RFC 1122 §4.2.3.5: a FIN that is never acknowledged is given up after R2."""
    net.configure(data_retries=1)
    peer, app = net.established()
    peer.send(FIN | ACK)
    peer.expect(ACK, ack=2, within=ms(60))
    app.shutdown()
    peer.expect(FIN | ACK, seq=1)
    net.advance(seconds(2.5))
    tries = [seen for seen in peer.drain() if seen.flags & FIN]
    net.check(1 <= len(tries) <= 4, f"{len(tries)} retransmissions")
    app.expect_state("CLOSED")


def test_time_wait_takes_a_later_syn(net: Net) -> None:
    """§3.6.1, RFC 1122 §4.2.2.13: a SYN beyond the old numbers opens the pair again."""
    listener = net.listen(5000)
    peer = net.peer(local_port=5000)
    peer.send(SYN, options=[Mss(1460)])
    peer.expect(SYN | ACK, ack=1)
    old_isn = peer.stack_isn
    peer.send(ACK)
    app = listener.expect_accept()
    app.close()
    peer.expect(FIN | ACK, seq=1)
    peer.send(FIN | ACK, ack=2)
    peer.expect(ACK, seq=2, ack=2)
    peer.send(SYN, seq=100_000, options=[Mss(1460)])
    answer = peer.expect(SYN | ACK, ack=100_001)
    # RFC 1122 §4.2.2.13 (1): its ISN is larger than the largest number of the old incarnation.
    gap = (answer.segment.seq - (old_isn + 2)) & 0xFFFFFFFF
    net.check(0 < gap < 1 << 31, f"the new ISN is {gap} beyond the old numbers")
    peer.nxt = 100_001
    peer.send(ACK, ack=1, data=b"again")
    listener.expect_accept().expect_read(b"again")
