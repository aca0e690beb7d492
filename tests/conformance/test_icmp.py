"""ICMP errors: RFC 1122 §4.2.3.9, RFC 5927, RFC 5461, path MTU (RFC 1191, RFC 8201)."""

from __future__ import annotations

import pytest

from mptcp.wire.icmp import IcmpKind
from mptcp.wire.tcp import ACK, SYN
from tests.conformance.vocabulary import Net
from tests.options import Mss
from tests.virtual import ms

HARD = [IcmpKind.PORT_UNREACHABLE, IcmpKind.PROTOCOL_UNREACHABLE]
SOFT = [IcmpKind.UNREACHABLE, IcmpKind.ADMIN_PROHIBITED, IcmpKind.TIME_EXCEEDED]


@pytest.mark.parametrize("kind", [*HARD, IcmpKind.UNREACHABLE])
def test_unreachable_while_opening(net: Net, kind: IcmpKind) -> None:
    """RFC 5461 §4.1: in SYN-SENT both systems take it as an answer: the attempt ends."""
    peer = net.peer()
    app = net.connected(peer)
    syn = peer.expect(SYN)
    peer.icmp(syn, kind)
    app.expect_state("CLOSED")
    peer.expect_nothing(until=net.time + ms(50))


def test_time_exceeded_while_opening(net: Net) -> None:
    """RFC 1122 §4.2.3.9: time exceeded is a soft error: the attempt goes on."""
    peer = net.peer()
    app = net.connected(peer)
    syn = peer.expect(SYN)
    peer.icmp(syn, IcmpKind.TIME_EXCEEDED)
    then = net.differs(
        "time exceeded in SYN-SENT: the attempt goes on (RFC 1122 §4.2.3.9: a loop of routes may "
        "be brief); Linux ends it",
        ours="SYN-SENT",
        kernel="CLOSED",
    )
    app.expect_state(then)


@pytest.mark.parametrize("kind", [*HARD, *SOFT])
def test_error_about_an_established_connection(net: Net, kind: IcmpKind) -> None:
    """RFC 5927 §5.2: hard errors do not end a synchronized connection; soft ones never did."""
    peer, app = net.established()
    app.write(b"x" * 100)
    seen = peer.expect(ACK, seq=1, length=100)
    peer.icmp(seen, kind)
    app.expect_state("ESTABLISHED")
    peer.send(ACK, ack=101)
    app.write(b"y" * 100)
    peer.expect(ACK, seq=101, length=100)


def test_error_about_what_is_not_in_flight(net: Net) -> None:
    """RFC 5927 §4.1: an error that quotes a number outside the flight is no error of ours."""
    peer, app = net.established()
    app.write(b"x" * 1460)
    seen = peer.expect(ACK, seq=1, length=1460)
    peer.send(ACK, ack=1461)
    peer.icmp(seen, IcmpKind.PACKET_TOO_BIG, mtu=1000)
    app.write(b"y" * 2920)
    sizes = [len(s.data) for s in peer.drain()]
    net.check(sizes == [1460, 1460], f"{sizes}: the MSS is as before")


def test_wrong_number_while_opening(net: Net) -> None:
    """RFC 5927 §4.1: a SYN's error has to quote its number too."""
    peer = net.peer()
    app = net.connected(peer)
    syn = peer.expect(SYN)
    peer.icmp(syn, IcmpKind.PORT_UNREACHABLE, shift=77)
    app.expect_state("SYN-SENT")


@pytest.mark.parametrize("mtu", [1400, 1280, 1000, 576])
def test_packet_too_big(net: Net, mtu: int) -> None:
    """RFC 1191 §6.4: what was too big goes again at once, in segments that fit, with DF."""
    peer, app = net.established()
    app.write(b"x" * 1460)
    seen = peer.expect(ACK, seq=1, length=1460)
    net.check(bool(seen.packet[6] & 0x40), "DF is set")
    peer.icmp(seen, IcmpKind.PACKET_TOO_BIG, mtu=mtu)
    again = peer.expect(ACK, seq=1, length=mtu - 40)
    net.check(bool(again.packet[6] & 0x40), "and again")
    peer.send(ACK, ack=1461)
    peer.drain()
    app.write(b"y" * 3000)
    sizes = [len(s.data) for s in peer.drain()]
    net.check(max(sizes) == mtu - 40, f"{sizes}: the path's MSS from now on")


def test_packet_too_big_in_ipv6(net: Net) -> None:
    """RFC 8201 §4: the same over IPv6."""
    peer, app = net.established(mss=1440, ipv6=True)
    app.write(b"x" * 1440)
    seen = peer.expect(ACK, seq=1, length=1440)
    peer.icmp(seen, IcmpKind.PACKET_TOO_BIG, mtu=1300)
    peer.expect(ACK, seq=1, length=1240)


def test_packet_too_big_that_is_not(net: Net) -> None:
    """RFC 1191 §6.4: an MTU that is not smaller than the packet's says nothing."""
    peer, app = net.established()
    app.write(b"x" * 1460)
    seen = peer.expect(ACK, seq=1, length=1460)
    peer.icmp(seen, IcmpKind.PACKET_TOO_BIG, mtu=1500)
    peer.expect_nothing(until=net.time + ms(30))


def test_absurd_mtu(net: Net) -> None:
    """RFC 1191 §3: an MTU below 68 cannot be; both systems have a floor of 552."""
    peer, app = net.established()
    app.write(b"x" * 1460)
    seen = peer.expect(ACK, seq=1, length=1460)
    peer.icmp(seen, IcmpKind.PACKET_TOO_BIG, mtu=100)
    again = peer.expect(ACK, seq=1, within=ms(300))
    net.check(len(again.data) >= 512, f"{again}: not below the floor")


def test_path_mtu_is_shared(net: Net) -> None:
    """RFC 1191 §6.1: what one connection has learned of a path holds for the next one."""
    peer, app = net.established()
    app.write(b"x" * 1460)
    seen = peer.expect(ACK, seq=1, length=1460)
    peer.icmp(seen, IcmpKind.PACKET_TOO_BIG, mtu=1200)
    peer.expect(ACK, seq=1, length=1160)
    other = net.peer(port=81)
    second = net.connected(other)
    other.expect(SYN)
    other.send(SYN | ACK, options=[Mss(1460)])
    other.expect(ACK, seq=1)
    second.write(b"y" * 2000)
    sizes = [len(s.data) for s in other.drain()]
    net.check(max(sizes) == 1160, f"{sizes}")
