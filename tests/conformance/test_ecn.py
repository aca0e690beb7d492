"""Explicit Congestion Notification: RFC 3168."""

from __future__ import annotations

import pytest

from mptcp.wire.tcp import ACK, FIN, SYN
from tests.conformance.peer import CWR, ECE, Peer
from tests.conformance.vocabulary import App, Net
from tests.options import Mss, SackPermitted
from tests.virtual import ms, seconds

ECT_1, ECT_0, CE = 1, 2, 3


def offering(net: Net) -> None:
    """The system offers ECN in its SYNs."""
    net.tune("ecn", "on", "tcp_ecn", 1)


def agreed(net: Net, *, rtt: int = 0) -> tuple[Peer, App]:
    """A connection that the system has opened with ECN agreed."""
    offering(net)
    peer = net.peer()
    app = net.connected(peer)
    peer.expect(SYN | ECE | CWR)
    peer.send(SYN | ACK | ECE, options=[Mss(1000), SackPermitted()], at=net.time + rtt)
    peer.expect(ACK, seq=1, ack=1)
    net.mark()
    return peer, app


def test_not_offered_by_default(net: Net) -> None:
    """RFC 3168 §6.1.1: by default both systems accept ECN and do not ask for it."""
    peer = net.peer()
    net.connected(peer)
    peer.expect(SYN, ecn=0)


def test_offer(net: Net) -> None:
    """RFC 3168 §6.1.1: the ECN-setup SYN has ECE and CWR; it is not ECT itself."""
    offering(net)
    peer = net.peer()
    net.connected(peer)
    peer.expect(SYN | ECE | CWR, ecn=0)


def test_accepted(net: Net) -> None:
    """RFC 3168 §6.1.1: the ECN-setup SYN/ACK has ECE and not CWR; it is not ECT."""
    net.listen(5000)
    peer = net.peer(local_port=5000)
    peer.send(SYN | ECE | CWR, options=[Mss(1000), SackPermitted()])
    peer.expect(SYN | ACK | ECE, ecn=0)


@pytest.mark.parametrize("flags", [ECE, CWR, 0])
def test_half_an_offer_is_none(net: Net, flags: int) -> None:
    """RFC 3168 §6.1.1: a SYN that has not both flags is no ECN-setup SYN."""
    net.listen(5000)
    peer = net.peer(local_port=5000)
    peer.send(SYN | flags, options=[Mss(1000)])
    peer.expect(SYN | ACK, ecn=0)


def test_switched_off(net: Net) -> None:
    """RFC 3168 §6.1.1: a host may refuse."""
    net.tune("ecn", "off", "tcp_ecn", 0)
    net.listen(5000)
    peer = net.peer(local_port=5000)
    peer.send(SYN | ECE | CWR, options=[Mss(1000)])
    peer.expect(SYN | ACK)


def test_refused(net: Net) -> None:
    """RFC 3168 §6.1.1: a SYN/ACK without ECE: no ECN."""
    offering(net)
    peer = net.peer()
    app = net.connected(peer)
    peer.expect(SYN | ECE | CWR)
    peer.send(SYN | ACK, options=[Mss(1000)])
    peer.expect(ACK, seq=1)
    app.write(b"x" * 1000)
    peer.expect(ACK, seq=1, length=1000, ecn=0)


def test_reflected(net: Net) -> None:
    """RFC 3168 §6.1.1.1: a SYN/ACK that reflects both flags comes from a broken host: no ECN."""
    offering(net)
    peer = net.peer()
    net.connected(peer)
    peer.expect(SYN | ECE | CWR)
    peer.send(SYN | ACK | ECE | CWR, options=[Mss(1000)])
    third = net.differs(
        "a SYN/ACK with both ECE and CWR: no ECN (RFC 3168 §6.1.1.1); Linux since 6.18 reads it as "
        "AccECN's (RFC 9768), which we leave out",
        ours=ACK,
        kernel=ACK | CWR,
    )
    peer.expect(third, seq=1, ack=1)


def test_fallback_after_a_lost_syn(net: Net) -> None:
    """RFC 3168 §6.1.1.1: a SYN that is not answered goes again without ECN."""
    offering(net)
    peer = net.peer()
    net.connected(peer)
    peer.expect(SYN | ECE | CWR)
    peer.expect(SYN, within=seconds(1))


def test_data_is_ect(net: Net) -> None:
    """RFC 3168 §6.1.2, §6.1.4: new data is ECT(0), bare ACKs are not."""
    peer, app = agreed(net)
    app.write(b"x" * 2000)
    peer.expect(ACK, seq=1, ecn=ECT_0)
    peer.expect(ACK, seq=1001, ecn=ECT_0)
    peer.send(ACK, data=b"y" * 1000)
    peer.expect(ACK, ack=1001, length=0, ecn=0, within=ms(60))


def test_data_of_a_server_is_ect(net: Net) -> None:
    """RFC 3168 §6.1.2: the side that accepted as well."""
    listener = net.listen(5000)
    peer = net.peer(local_port=5000)
    peer.send(SYN | ECE | CWR, options=[Mss(1000), SackPermitted()])
    peer.expect(SYN | ACK | ECE)
    peer.send(ACK)
    app = listener.expect_accept()
    app.write(b"x" * 1000)
    peer.expect(ACK, seq=1, ecn=ECT_0)


def test_retransmission_is_not_ect(net: Net) -> None:
    """RFC 3168 §6.1.5: a retransmitted segment is not ECT."""
    peer, app = agreed(net)
    app.write(b"x" * 1000)
    peer.expect(ACK, seq=1, ecn=ECT_0)
    peer.expect(ACK, seq=1, ecn=0, within=ms(300))


def test_probe_is_not_ect(net: Net) -> None:
    """RFC 3168 §6.1.6: a window probe is not ECT."""
    peer, app = agreed(net)
    peer.send(ACK, window=0)
    app.write(b"x" * 1000)
    peer.expect(ACK, ecn=0, within=ms(300))


def test_receiver_echoes_until_cwr(net: Net) -> None:
    """RFC 3168 §6.1.3: after CE every ACK has ECE until a segment with CWR comes."""
    peer, app = agreed(net)
    peer.send(ACK, data=b"a" * 1000, ecn=CE)
    peer.expect(ACK | ECE, ack=1001, within=ms(60))
    peer.send(ACK, data=b"b" * 1000, ecn=ECT_0)
    peer.expect(ACK | ECE, ack=2001, within=ms(60))
    peer.send(ACK | CWR, data=b"c" * 1000, ecn=ECT_0)
    peer.expect(ACK, ack=3001, within=ms(60))
    app.expect_read(b"a" * 1000 + b"b" * 1000 + b"c" * 1000)


def test_cwr_with_a_new_mark(net: Net) -> None:
    """RFC 3168 §6.1.3: CWR on a segment that is marked itself: the echo goes on."""
    peer, _ = agreed(net)
    peer.send(ACK, data=b"a" * 1000, ecn=CE)
    peer.expect(ACK | ECE, ack=1001, within=ms(60))
    peer.send(ACK | CWR, data=b"b" * 1000, ecn=CE)
    peer.expect(ACK | ECE, ack=2001, within=ms(60))


def test_data_carries_the_echo(net: Net) -> None:
    """RFC 3168 §6.1.3: ECE goes on whatever acknowledges, data included."""
    peer, app = agreed(net)
    peer.send(ACK, data=b"a" * 1000, ecn=CE)
    peer.expect(ACK | ECE, ack=1001, within=ms(60))
    app.write(b"x" * 500)
    peer.expect(ACK | ECE, seq=1, length=500)


def test_no_echo_without_agreement(net: Net) -> None:
    """RFC 3168 §6.1.1: not agreed: CE means nothing, and no ECE is sent."""
    peer, _ = net.established()
    peer.send(ACK, data=b"a" * 1000, ecn=CE)
    peer.expect(ACK, ack=1001, within=ms(60))


def test_ece_without_agreement(net: Net) -> None:
    """RFC 3168 §6.1.1: not agreed: ECE means nothing."""
    peer, app = net.established(mss=1000)
    app.write(b"x" * 20_000)
    net.check(len(peer.drain()) == 10, "the initial window")
    peer.send(ACK | ECE, ack=2001)
    sent = peer.drain()
    net.check(len(sent) == 4, f"{len(sent)}: slow start goes on")
    net.check(not any(seen.flags & CWR for seen in sent), "no CWR")


def test_sender_halves_once(net: Net) -> None:
    """RFC 3168 §6.1.2: ECE halves the window once in a window of data, and CWR says so."""
    peer, app = agreed(net, rtt=ms(40))
    app.write(b"x" * 40_000)
    net.check(len(peer.drain()) == 10, "the initial window")
    net.advance(ms(40))
    sent = []
    for n in range(1, 11):
        peer.send(ACK | ECE, ack=1 + 1000 * n)
        sent += peer.drain()
    net.check(3 <= len(sent) <= 6, f"{len(sent)} segments: the window went to half of ten")
    marks = [seen.seq for seen in sent if seen.flags & CWR]
    net.check(len(marks) == 1, f"{marks}: CWR once")
    net.check(marks[0] == sent[0].seq, "on the first new segment")
    net.check(all(seen.ecn == ECT_0 for seen in sent), "and all of it is ECT")


def test_second_window_halves_again(net: Net) -> None:
    """RFC 3168 §6.1.2: an echo for what was sent after the reduction is a new one."""
    peer, app = agreed(net, rtt=ms(40))
    app.write(b"x" * 60_000)
    net.check(len(peer.drain()) == 10, "the initial window")
    net.advance(ms(40))
    peer.send(ACK | ECE, ack=5001)
    peer.send(ACK | ECE, ack=10_001)
    first = peer.drain()
    net.check(sum(bool(seen.flags & CWR) for seen in first) == 1, "one reduction")
    peer.send(ACK | ECE, ack=peer.received.ends[0], at=ms(80))
    second = peer.drain()
    net.check(sum(bool(seen.flags & CWR) for seen in second) == 1, "and another")
    net.check(0 < len(second) <= 4, f"{len(second)} segments: halved again")


def test_fin_echoes(net: Net) -> None:
    """RFC 3168 §6.1.3: a marked FIN is echoed as well."""
    peer, app = agreed(net)
    peer.send(FIN | ACK, data=b"bye", ecn=CE)
    peer.expect(ACK | ECE, ack=5, within=ms(60))
    app.expect_read(b"bye")
    app.expect_end()


def test_ect_1_is_ect(net: Net) -> None:
    """RFC 3168 §5: ECT(1) is as good as ECT(0): no congestion."""
    peer, _ = agreed(net)
    peer.send(ACK, data=b"a" * 1000, ecn=ECT_1)
    peer.expect(ACK, ack=1001, within=ms(60))
