"""Opening a connection: RFC 9293 §3.5, §3.10.7.1 to §3.10.7.4 in the states before ESTABLISHED."""

from __future__ import annotations

import itertools

import pytest

from mptcp.wire.tcp import ACK, FIN, RST, SYN
from tests.conformance.peer import PSH
from tests.conformance.states import half_open
from tests.conformance.vocabulary import Net
from tests.options import Emits, Mss, SackPermitted, Timestamps, WindowScale, has, lacks, only
from tests.virtual import ms, seconds


def test_active_open(net: Net) -> None:
    """RFC 9293 figure 6; RFC 6691, RFC 7323 §1.3, RFC 2018 §2: what a SYN offers."""
    peer = net.peer()
    app = net.connected(peer)
    app.expect_state("SYN-SENT")
    peer.expect(SYN, length=0, options=only(Mss(1460), WindowScale, SackPermitted(), Timestamps))
    peer.send(SYN | ACK, options=[Mss(1460)])
    peer.expect(ACK, seq=1, ack=1, length=0, options=only())
    app.expect_state("ESTABLISHED")
    app.expect_nothing_to_read()
    peer.expect_nothing(until=net.time + ms(50))


def test_passive_open(net: Net) -> None:
    """RFC 9293 figure 6 from the other side: accepted when the third segment has come."""
    listener = net.listen(5000)
    peer = net.peer(local_port=5000)
    peer.send(SYN, options=[Mss(1400), SackPermitted(), WindowScale(2)])
    peer.expect(SYN | ACK, seq=0, ack=1, options=only(Mss(1460), SackPermitted(), WindowScale))
    listener.expect_none()
    peer.send(ACK)
    app = listener.expect_accept()
    app.expect_state("ESTABLISHED")
    listener.expect_none()
    peer.expect_nothing(until=net.time + ms(50))


@pytest.mark.parametrize("missing", [Mss, SackPermitted, Timestamps, WindowScale])
def test_answer_what_was_offered(net: Net, missing: type) -> None:
    """RFC 2018 §2, RFC 7323 §2.2, §3.2: in a SYN/ACK only what the SYN had; the MSS always."""
    net.listen(5000)
    peer = net.peer(local_port=5000)
    offers: list[Emits] = [Mss(1400), SackPermitted(), Timestamps(9, 0), WindowScale(3)]
    kinds = {type(offer) for offer in offers} - {missing}
    peer.send(SYN, options=[offer for offer in offers if type(offer) in kinds])
    answer = peer.expect(SYN | ACK, ack=1)
    got = {type(option) for option in answer.options}
    net.check(got == kinds | {Mss}, f"{got} answers {kinds}")


def test_options_switched_off(net: Net) -> None:
    """RFC 7323 §1.3, RFC 2018 §2: each of them is optional for the host that opens."""
    net.configure(timestamps=False, sack=False, window_scaling=False)
    peer = net.peer()
    net.connected(peer)
    peer.expect(SYN, options=only(Mss(1460)))
    peer.send(SYN | ACK, options=[Mss(1460)])
    peer.expect(ACK, options=only())


def test_unoffered_options_are_ignored(net: Net) -> None:
    """RFC 7323 §2.2, §3.2: an option of a SYN/ACK that the SYN did not offer means nothing."""
    net.configure(timestamps=False, sack=False, window_scaling=False)
    peer = net.peer()
    app = net.connected(peer)
    peer.expect(SYN)
    peer.send(
        SYN | ACK,
        options=[Mss(1460), SackPermitted(), Timestamps(9, 0), WindowScale(7)],
        window=100,
    )
    peer.expect(ACK, ack=1, options=only())
    app.set(nodelay=True)
    net.check(app.write(b"x" * 200) == 200, "the send buffer takes 200 bytes")
    peer.expect(ACK, seq=1, length=100)  # the window of 100 bytes is 100 bytes


@pytest.mark.parametrize("ack", [0, 2, 1 << 31])
def test_unacceptable_ack_in_syn_sent(net: Net, ack: int) -> None:
    """§3.10.7.3 first: SEG.ACK =< ISS or > SND.NXT is answered with <SEQ=SEG.ACK><CTL=RST>."""
    peer = net.peer()
    app = net.connected(peer)
    peer.expect(SYN)
    peer.send(SYN | ACK, seq=0, ack=ack, options=[Mss(1460)])
    answer = peer.expect(RST)
    net.check(
        answer.segment.seq == (peer.stack_isn + ack) & 0xFFFFFFFF, f"the RST is at {answer.seq}"
    )
    app.expect_state("SYN-SENT")
    peer.send(RST | ACK, seq=0, ack=ack)
    peer.expect_nothing()
    app.expect_state("SYN-SENT")
    peer.send(SYN | ACK, seq=0, ack=1, options=[Mss(1460)])
    peer.expect(ACK, seq=1, ack=1)


def test_refused(net: Net) -> None:
    """§3.10.7.3 second: an RST with an acceptable ACK ends the attempt."""
    peer = net.peer()
    app = net.connected(peer)
    peer.expect(SYN)
    peer.send(RST | ACK, seq=0, ack=1)
    app.expect_error("refused")
    app.expect_state("CLOSED")
    peer.expect_nothing(until=net.time + ms(20))


def test_blind_reset_in_syn_sent(net: Net) -> None:
    """§3.10.7.3 second: an RST without ACK is dropped."""
    peer = net.peer()
    app = net.connected(peer)
    peer.expect(SYN)
    peer.send(RST, seq=0)
    peer.expect_nothing()
    app.expect_state("SYN-SENT")
    app.expect_nothing_to_read()


def test_bare_ack_in_syn_sent(net: Net) -> None:
    """§3.10.7.3 fourth, fifth: an acceptable ACK without SYN or RST does nothing."""
    peer = net.peer()
    app = net.connected(peer)
    peer.expect(SYN)
    peer.send(ACK, seq=0, ack=1)
    peer.expect_nothing()
    app.expect_state("SYN-SENT")


def test_fin_in_syn_sent(net: Net) -> None:
    """§3.10.7.3, eighth of §3.10.7.4: a FIN before the SYN cannot be validated and is dropped."""
    peer = net.peer()
    app = net.connected(peer)
    peer.expect(SYN)
    peer.send(FIN, seq=0)
    peer.expect_nothing()
    app.expect_state("SYN-SENT")
    peer.send(SYN | ACK, seq=0, ack=1, options=[Mss(1460)])
    peer.expect(ACK, seq=1, ack=1)


def test_simultaneous_open(net: Net) -> None:
    """RFC 9293 figure 7: two SYNs cross; each is answered with SYN/ACK."""
    peer = net.peer()
    app = net.connected(peer)
    peer.expect(SYN, seq=0)
    peer.send(SYN, seq=0, options=[Mss(1460)])
    peer.expect(SYN | ACK, seq=0, ack=1)
    app.expect_state("SYN-RECEIVED")
    peer.send(SYN | ACK, seq=0, ack=1, options=[Mss(1460)])
    app.expect_state("ESTABLISHED")
    peer.drain()  # figure 7 lets the last SYN/ACK go unanswered, RFC 5961 §4.2 challenges it
    peer.send(ACK, data=b"hello")
    app.expect_read(b"hello")


def test_simultaneous_open_by_ack(net: Net) -> None:
    """§3.10.7.4 fifth, SYN-RECEIVED: a plain ACK of the SYN completes a simultaneous open too."""
    peer = net.peer()
    app = net.connected(peer)
    peer.expect(SYN, seq=0)
    peer.send(SYN, seq=0, options=[Mss(1460)])
    peer.expect(SYN | ACK, seq=0, ack=1)
    peer.send(ACK, seq=1, ack=1, data=b"hello")
    app.expect_state("ESTABLISHED")
    app.expect_read(b"hello")


def test_first_data_with_the_third_segment(net: Net) -> None:
    """§3.5: data may come with the ACK that completes the handshake."""
    listener = net.listen(5000)
    peer = net.peer(local_port=5000)
    peer.send(SYN, options=[Mss(1400)])
    peer.expect(SYN | ACK)
    peer.send(ACK, data=b"hello")
    peer.expect(ACK, ack=6, within=ms(100))
    listener.expect_accept().expect_read(b"hello")


def test_fin_with_the_third_segment(net: Net) -> None:
    """§3.10.7.4 fifth to eighth: ACK, data and FIN of one segment are processed in this order."""
    listener = net.listen(5000)
    peer = net.peer(local_port=5000)
    peer.send(SYN, options=[Mss(1400)])
    peer.expect(SYN | ACK)
    peer.send(FIN | ACK, data=b"hello")
    peer.expect(ACK, ack=7, within=ms(100))
    app = listener.expect_accept()
    app.expect_state("CLOSE-WAIT")
    app.expect_read(b"hello")
    app.expect_end()


def test_closed_port(net: Net) -> None:
    """§3.10.7.1: without ACK the answer is <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>."""
    peer = net.peer(local_port=81)
    peer.send(SYN, options=[Mss(1460)])
    answer = peer.expect(RST | ACK, ack=1, length=0, options=only())
    net.check(answer.segment.seq == 0, f"the number is {answer.segment.seq}")
    peer.send(SYN | PSH, seq=100, data=b"hello")
    peer.expect(RST | ACK, ack=106)
    peer.send(FIN, seq=100, data=b"hello")
    peer.expect(RST | ACK, ack=106)


@pytest.mark.parametrize("listening", [False, True])
def test_ack_to_nowhere(net: Net, listening: bool) -> None:
    """§3.10.7.1, §3.10.7.2 second: an ACK is answered <SEQ=SEG.ACK><CTL=RST>, an RST never."""
    if listening:
        net.listen(81)
    peer = net.peer(local_port=81)
    for flags in (ACK, FIN | ACK, SYN | ACK):
        peer.send(flags, seq=1, ack=777, data=b"" if flags & SYN else b"x")
        answer = peer.expect(RST, length=0)
        net.check(answer.segment.seq == 777, f"the number is {answer.segment.seq}")
    for flags in (RST, RST | ACK, RST | SYN, RST | FIN):
        peer.send(flags, seq=1, ack=777)
        peer.expect_nothing()


def test_neither_syn_nor_ack_to_a_listener(net: Net) -> None:
    """§3.10.7.2 fourth: what has none of RST, ACK and SYN is dropped."""
    listener = net.listen(5000)
    peer = net.peer(local_port=5000)
    peer.send(0, seq=1, data=b"x")
    peer.expect_nothing()
    peer.send(FIN, seq=1)
    peer.expect_nothing()
    listener.expect_none()


def test_bad_checksum(net: Net) -> None:
    """RFC 9293 §3.1 (MUST-3): a segment whose checksum is wrong is dropped."""
    listener = net.listen(5000)
    peer = net.peer(local_port=5000)
    peer.send(SYN, options=[Mss(1460)], damage=True)
    peer.expect_nothing(until=net.time + ms(20))
    peer.send(SYN, seq=0, options=[Mss(1460)])
    peer.expect(SYN | ACK, ack=1)
    peer.send(ACK, damage=True, data=b"x")
    peer.expect_nothing()
    listener.expect_none()


def test_syn_retransmission(net: Net) -> None:
    """RFC 6298 (2.1), (5.5): one second, then doubled; the same SYN each time (§3.8.1)."""
    peer = net.peer()
    net.connected(peer)
    first = peer.expect(SYN)
    net.mark()
    again = peer.expect(SYN, at=seconds(1))
    net.check(again.segment.seq == first.segment.seq, "the same number")
    again = peer.expect(SYN, at=seconds(3))
    net.check(again.segment.seq == first.segment.seq, "the same number")


def test_connect_gives_up(net: Net) -> None:
    """RFC 9293 §3.8.3 (MUST-20): after the last SYN the application is told."""
    net.configure(syn_retries=1)
    peer = net.peer()
    app = net.connected(peer)
    peer.expect(SYN)
    net.mark()
    peer.expect(SYN, at=seconds(1))
    app.expect_state("SYN-SENT")
    peer.expect_nothing(until=seconds(3))
    net.advance(
        net.differs(
            "no rule: the step of the kernel's timer wheel", ours=seconds(3), kernel=seconds(3.4)
        )
    )
    app.expect_error("timed out")


def test_synack_retransmission(net: Net) -> None:
    """RFC 9293 §3.8.1, RFC 6298 (2.1): the SYN/ACK after a second and then three, unchanged."""
    peer = half_open(net)
    first = peer.expect(SYN | ACK, seq=0, ack=1, at=seconds(1))
    again = peer.expect(SYN | ACK, seq=0, ack=1, at=seconds(3))
    net.check(first.segment.seq == again.segment.seq, "the same number")


def test_repeated_syn(net: Net) -> None:
    """§3.10.7.4 first: the peer repeats its SYN: it has not seen the SYN/ACK, which goes again."""
    peer = half_open(net)
    peer.send(SYN, seq=0, options=[Mss(1460), SackPermitted()], at=ms(700))
    peer.expect(SYN | ACK, seq=0, ack=1)
    peer.send(ACK, seq=1, ack=1)
    peer.expect_nothing()


def test_repeated_synack(net: Net) -> None:
    """RFC 5961 §4.2: our third segment was lost; the SYN/ACK again is answered with an ACK."""
    peer, app = net.established()
    peer.send(SYN | ACK, seq=0, ack=1, options=[Mss(1460)])
    peer.expect(ACK, seq=1, ack=1, length=0)
    app.expect_state("ESTABLISHED")


def test_bad_third_ack(net: Net) -> None:
    """§3.10.7.4 fifth, SYN-RECEIVED: an unacceptable ACK is answered <SEQ=SEG.ACK><CTL=RST>."""
    peer = half_open(net)
    for ack in (0, 2, 1 << 31):
        peer.send(ACK, seq=1, ack=ack)
        answer = peer.expect(RST)
        net.check(answer.segment.seq == (peer.stack_isn + ack) & 0xFFFFFFFF, "<SEQ=SEG.ACK>")
    peer.send(ACK, seq=1, ack=1, data=b"x")
    peer.expect(ACK, ack=2, within=ms(100))


def test_out_of_window_in_syn_received(net: Net) -> None:
    """§3.10.7.4 first: an unacceptable segment is answered with <SEQ=SND.NXT><ACK=RCV.NXT>."""
    peer = half_open(net)
    peer.send(ACK, seq=1 << 30, ack=1, data=b"x")
    peer.expect(ACK, seq=1, ack=1)
    peer.send(ACK, seq=1, ack=1, data=b"x")
    peer.expect(ACK, ack=2, within=ms(100))


def test_reset_in_syn_received(net: Net) -> None:
    """§3.10.7.4 second: back to LISTEN; the listener goes on."""
    listener = net.listen(5000)
    peer = net.peer(local_port=5000)
    peer.send(SYN, options=[Mss(1460)])
    peer.expect(SYN | ACK, ack=1)
    peer.send(RST, seq=1)
    peer.send(ACK, seq=1, ack=1)
    peer.expect(RST)  # the connection is forgotten
    listener.expect_none()
    other = net.peer(port=40001, local_port=5000)
    other.send(SYN, options=[Mss(1460)])
    other.expect(SYN | ACK, ack=1)
    other.send(ACK)
    listener.expect_accept().expect_state("ESTABLISHED")


def test_out_of_window_reset_in_syn_received(net: Net) -> None:
    """RFC 5961 §3.2: a RST outside the window is dropped in SYN-RECEIVED too."""
    peer = half_open(net)
    peer.send(RST, seq=1 << 30)
    peer.expect_nothing()
    peer.send(ACK, seq=1, ack=1, data=b"x")
    peer.expect(ACK, ack=2, within=ms(100))


def test_fin_without_ack_in_syn_received(net: Net) -> None:
    """§3.10.7.4 fifth: a segment without ACK is dropped."""
    peer = half_open(net)
    peer.send(FIN, seq=1)
    peer.expect_nothing()
    peer.send(ACK, seq=1, ack=1, data=b"x")
    peer.expect(ACK, ack=2, within=ms(100))


def test_data_on_a_syn(net: Net) -> None:
    """RFC 9293 §3.4: data on a SYN may be kept or dropped; unacknowledged it comes again."""
    listener = net.listen(5000)
    peer = net.peer(local_port=5000)
    peer.send(SYN, data=b"early", options=[Mss(1460)])
    peer.expect(SYN | ACK, ack=1)
    peer.send(ACK, seq=1, ack=1, data=b"early")
    peer.expect(ACK, ack=6, within=ms(100))
    listener.expect_accept().expect_read(b"early")


def test_close_in_syn_sent(net: Net) -> None:
    """§3.10.4, SYN-SENT: the attempt is forgotten; a late SYN/ACK is refused."""
    peer = net.peer()
    app = net.connected(peer)
    peer.expect(SYN)
    app.close()
    peer.expect_nothing()
    peer.send(SYN | ACK, ack=1, options=[Mss(1460)])
    answer = peer.expect(RST)
    net.check(answer.seq == 1, "<SEQ=SEG.ACK>")


def test_listener_goes(net: Net) -> None:
    """RFC 9293 §3.10.4, LISTEN: who connects afterwards is refused."""
    listener = net.listen(5000)
    listener.close()
    peer = net.peer(local_port=5000)
    peer.send(SYN, options=[Mss(1460)])
    peer.expect(RST | ACK, ack=1)


def test_ipv6_open(net: Net) -> None:
    """RFC 9293 §3.7.1: over IPv6 the MSS offered is the MTU less 60."""
    peer = net.peer(ipv6=True)
    app = net.connected(peer)
    peer.expect(SYN, options=has(Mss(1440)))
    peer.send(SYN | ACK, options=[Mss(1440)])
    peer.expect(ACK, ack=1, options=lacks(Mss))
    app.expect_state("ESTABLISHED")


def test_isn_differs_by_tuple_and_time(net: Net) -> None:
    """RFC 6528 §3: per 4-tuple a clock; other tuples begin elsewhere."""
    numbers: list[int] = []
    for port in (40000, 40001, 40002):
        peer = net.peer(port=port, local_port=5000)
        if not numbers:
            net.listen(5000)
        peer.send(SYN, options=[Mss(1460)])
        numbers.append(peer.expect(SYN | ACK).segment.seq)
    apart = [(b - a) & 0xFFFFFFFF for a, b in itertools.pairwise(numbers)]
    net.check(all(gap > 1_000_000 for gap in apart), f"{numbers} are close together")
