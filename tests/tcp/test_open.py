"""Opening a connection: RFC 9293 §3.5, §3.10.7.2-3.10.7.4; RFC 6298 §2, §5; RFC 6528."""

from __future__ import annotations

import pytest

from mptcp.errors import ConnectionEnd
from mptcp.events import (
    Accepted,
    Closed,
    Connected,
    FellBack,
    Readable,
    SubflowEstablished,
)
from mptcp.tcp.state import State
from mptcp.wire.icmp import IcmpKind, unreachable
from mptcp.wire.tcp import ACK, RST, SYN
from tests.options import Emits, Mss, SackPermitted, Timestamps, WindowScale, has, only
from tests.peer import Peer, Wire, ms, seconds


def kinds(wire: Wire) -> list[type]:
    """Types of the events since the last call, without what tells of MPTCP only."""
    hidden = (FellBack, SubflowEstablished)
    return [type(event) for event in wire.take_events() if not isinstance(event, hidden)]


def test_active_open(wire: Wire, peer: Peer) -> None:
    """RFC 9293 figure 6: SYN, SYN/ACK, ACK, and the options of RFC 7323 and RFC 2018."""
    connection = wire.stack.connect("10.0.0.2", 80)
    peer.expect(
        SYN, seq=0, length=0, options=only(Mss(1460), WindowScale, SackPermitted(), Timestamps)
    )
    assert not connection.established
    peer.send(SYN | ACK, ack=1, options=[Mss(1000)])
    peer.expect(ACK, seq=1, ack=1, length=0, options=only())
    assert kinds(wire) == [Connected]
    assert connection.established
    assert connection.fallback
    assert peer.subflow().state is State.ESTABLISHED


def test_passive_open(wire: Wire) -> None:
    """The listener answers with SYN/ACK, and accepts when the third segment has come."""
    listener = wire.stack.listen(5000)
    peer = Peer(wire, port=40000, local_port=5000)
    peer.send(SYN, options=[Mss(1400), SackPermitted(), WindowScale(2)])
    peer.expect(SYN | ACK, seq=0, ack=1, options=only(Mss(1460), SackPermitted(), WindowScale))
    assert kinds(wire) == []
    peer.send(ACK, ack=1)
    peer.expect_nothing(until=seconds(10))
    (accepted,) = [event for event in wire.take_events() if isinstance(event, Accepted)]
    assert accepted.listener is listener
    assert accepted.connection.established


@pytest.mark.parametrize("option", [SackPermitted, Timestamps, WindowScale])
def test_answer_only_what_was_offered(wire: Wire, option: type) -> None:
    """RFC 2018 §2, RFC 7323 §2.2, §3.2: an option goes in a SYN/ACK only if it was in the SYN."""
    wire.stack.listen(5000)
    peer = Peer(wire, port=40000, local_port=5000)
    offers: dict[type, Emits] = {
        SackPermitted: SackPermitted(),
        Timestamps: Timestamps(9, 0),
        WindowScale: WindowScale(3),
    }
    peer.send(SYN, options=[Mss(1400), *(o for kind, o in offers.items() if kind is not option)])
    answer = peer.expect(SYN | ACK)
    assert {type(o) for o in answer.options} == {Mss, *offers} - {option}


def test_first_data_with_the_third_ack(wire: Wire) -> None:
    """RFC 9293 §3.5: data may come with the ACK that completes the handshake."""
    wire.stack.listen(5000)
    peer = Peer(wire, port=40000, local_port=5000)
    peer.send(SYN, options=[Mss(1400)])
    peer.expect(SYN | ACK)
    peer.send(ACK, ack=1, data=b"hello")
    (accepted,) = [event for event in wire.take_events() if isinstance(event, Accepted)]
    assert accepted.connection.recv() == b"hello"
    peer.expect(ACK, ack=6, within=ms(500))


def test_simultaneous_open(wire: Wire, peer: Peer) -> None:
    """RFC 9293 figure 7: two SYNs cross; each is answered with SYN/ACK."""
    connection = wire.stack.connect("10.0.0.2", 80)
    peer.expect(SYN, seq=0)
    peer.send(SYN, seq=0, options=[Mss(1460)])
    peer.expect(SYN | ACK, seq=0, ack=1)
    assert peer.subflow().state is State.SYN_RECEIVED
    peer.send(SYN | ACK, seq=0, ack=1, options=[Mss(1460)])
    assert peer.subflow().state is State.ESTABLISHED
    assert kinds(wire) == [Connected]
    connection.send(b"x")
    while (seen := peer.expect(ACK, ack=1, within=ms(500))).data != b"x":
        pass
    assert seen.seq == 1


def test_refused(wire: Wire, peer: Peer) -> None:
    """RFC 9293 §3.10.7.3 second: an acceptable RST ends the attempt."""
    connection = wire.stack.connect("10.0.0.2", 80)
    peer.expect(SYN)
    peer.send(RST | ACK, seq=0, ack=1)
    assert wire.take_events() == [Closed(connection, ConnectionEnd.REFUSED)]
    peer.expect_nothing(until=seconds(300))


@pytest.mark.parametrize("ack", [0, 2, 1 << 31])
def test_unacceptable_ack_in_syn_sent(wire: Wire, peer: Peer, ack: int) -> None:
    """§3.10.7.3 first: SEG.ACK =< ISS or > SND.NXT is answered with <SEQ=SEG.ACK><CTL=RST>."""
    connection = wire.stack.connect("10.0.0.2", 80)
    peer.expect(SYN)
    peer.send(SYN | ACK, seq=0, ack=ack, options=[Mss(1460)])
    answer = peer.expect(RST)
    assert answer.segment.seq == (peer.stack_isn + ack) & 0xFFFFFFFF
    assert not connection.established
    peer.send(RST | ACK, seq=0, ack=ack)
    peer.expect_nothing()
    assert kinds(wire) == []
    peer.send(SYN | ACK, seq=0, ack=1, options=[Mss(1460)])
    peer.expect(ACK, seq=1, ack=1)


def test_blind_reset_in_syn_sent(wire: Wire, peer: Peer) -> None:
    """A RST without ACK says nothing in SYN-SENT (§3.10.7.3 second)."""
    connection = wire.stack.connect("10.0.0.2", 80)
    peer.expect(SYN)
    peer.send(RST, seq=0)
    assert wire.take_events() == []
    assert connection.ended is None


@pytest.mark.mib("TcpOutRsts")
def test_no_listener(wire: Wire) -> None:
    """§3.10.7.1: a SYN to a closed port is answered <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>."""
    peer = Peer(wire, port=40000, local_port=81)
    peer.send(SYN, options=[Mss(1460)])
    answer = peer.expect(RST | ACK, ack=1, length=0, options=only())
    assert answer.segment.seq == 0


def test_no_connection(wire: Wire) -> None:
    """§3.10.7.1: an ACK to nowhere is answered <SEQ=SEG.ACK><CTL=RST>, a RST not at all."""
    wire.stack.listen(81)
    peer = Peer(wire, port=40000, local_port=81)
    peer.send(ACK, seq=1, ack=777, data=b"x")
    answer = peer.expect(RST)
    assert answer.segment.seq == 777
    peer.send(RST, seq=1)
    peer.send(RST | ACK, seq=1, ack=777)
    peer.expect_nothing(until=seconds(10))


@pytest.mark.mib("TcpExtTCPTimeouts", "TcpExtTCPSynRetrans")
def test_syn_retransmission_and_give_up() -> None:
    """RFC 6298 (2.1), (5.5): 1 s, then doubled; RFC 9293 §3.8.3: in the end the user is told."""
    wire = Wire(mptcp=False, syn_retries=3, timestamps=False)
    peer = Peer(wire)
    connection = wire.stack.connect("10.0.0.2", 80)
    first = peer.expect(SYN)
    wire.mark()
    for at in (1, 3, 7):
        again = peer.expect(SYN, at=seconds(at))
        assert again.segment.seq == first.segment.seq
        assert again.option_bytes == first.option_bytes
    peer.expect_nothing(until=seconds(14.9))
    assert wire.take_events() == []
    peer.expect_nothing(until=seconds(15))
    assert wire.take_events() == [Closed(connection, ConnectionEnd.TIMED_OUT)]
    assert wire.stack.connections == {}
    assert wire.next_timer() is None


def test_karn_in_the_handshake(wire: Wire, peer: Peer) -> None:
    """RFC 6298 §3: no sample from a SYN that was sent twice; §5.7: RTO re-initialised to 3 s.

    (5.7): "if the timer expires awaiting the ACK of a SYN segment and the TCP implementation is
    using an RTO less than 3 seconds, the RTO MUST be re-initialized to 3 seconds when data
    transmission begins".
    """
    connection = wire.stack.connect("10.0.0.2", 80)
    peer.expect(SYN)
    peer.expect(SYN, within=seconds(1))
    peer.send(SYN | ACK, options=[Mss(1460)])
    peer.expect(ACK, seq=1)
    assert peer.subflow().srtt == 0
    wire.mark()
    connection.send(b"x")
    peer.expect(ACK, seq=1, length=1)
    peer.expect(ACK, seq=1, length=1, at=seconds(3))


def test_initial_window_after_a_lost_syn(wire: Wire, peer: Peer) -> None:
    """RFC 5681 §3.1: after a SYN was lost the initial window is one segment."""
    connection = wire.stack.connect("10.0.0.2", 80)
    peer.expect(SYN)
    peer.expect(SYN, within=seconds(1))
    peer.send(SYN | ACK, options=[Mss(1000)])
    peer.expect(ACK, seq=1)
    connection.send(bytes(5000))
    assert [seen.data for seen in peer.drain()] == [bytes(1000)]


def test_initial_window(wire: Wire, peer: Peer) -> None:
    """RFC 6928 §2: min(10 MSS, max(2 MSS, 14600))."""
    connection = peer.handshake(mss=1000)
    connection.send(bytes(30000))
    assert [len(seen.data) for seen in peer.drain()] == [1000] * 10


def test_syn_ack_retransmission() -> None:
    """RFC 9293 §3.8.1, RFC 6298: the SYN/ACK is repeated, then given up, its place is free."""
    wire = Wire(mptcp=False, synack_retries=2, timestamps=False)
    listener = wire.stack.listen(5000, backlog=1)
    peer = Peer(wire, port=40000, local_port=5000)
    peer.send(SYN, options=[Mss(1400)])
    wire.mark()
    first = peer.expect(SYN | ACK, seq=0, ack=1)
    for at in (1, 3):
        again = peer.expect(SYN | ACK, seq=0, ack=1, at=seconds(at))
        assert again.option_bytes == first.option_bytes
    peer.expect_nothing(until=seconds(6.9))
    assert len(listener.half_open) == 1
    wire.advance(seconds(7))
    assert len(listener.half_open) == 0
    assert wire.stack.connections == {}
    assert kinds(wire) in ([], [Closed])


def test_repeated_syn_is_answered_again(wire: Wire) -> None:
    """The peer that repeats its SYN has not seen the SYN/ACK: it gets another, same numbers."""
    wire.stack.listen(5000)
    peer = Peer(wire, port=40000, local_port=5000)
    peer.send(SYN, options=[Mss(1400)])
    first = peer.expect(SYN | ACK, seq=0, ack=1)
    peer.send(SYN, seq=0, options=[Mss(1400)], at=ms(300))
    again = peer.expect(SYN | ACK, seq=0, ack=1)
    assert again.segment.seq == first.segment.seq
    peer.send(ACK, seq=1, ack=1)
    assert kinds(wire) == [Accepted]


def test_lost_third_ack(wire: Wire, peer: Peer) -> None:
    """§3.10.7.4: the SYN/ACK again, in ESTABLISHED, is answered with an ACK."""
    peer.handshake()
    peer.send(SYN | ACK, seq=0, ack=1, options=[Mss(1460)])
    peer.expect(ACK, seq=1, ack=1, length=0)
    assert peer.subflow().state is State.ESTABLISHED


def test_bad_third_ack(wire: Wire) -> None:
    """§3.10.7.4 fifth, SYN-RECEIVED: an unacceptable ACK is answered <SEQ=SEG.ACK><CTL=RST>."""
    wire.stack.listen(5000)
    peer = Peer(wire, port=40000, local_port=5000)
    peer.send(SYN, options=[Mss(1400)])
    peer.expect(SYN | ACK)
    peer.send(ACK, seq=1, ack=2)
    answer = peer.expect(RST)
    assert answer.seq == 2
    peer.send(ACK, seq=1, ack=1)
    assert kinds(wire) == [Accepted]


@pytest.mark.mib("TcpExtEmbryonicRsts")
def test_reset_in_syn_received(wire: Wire) -> None:
    """§3.10.7.4 second: back to LISTEN; the listener is as before."""
    wire.stack.listen(5000, backlog=1)
    peer = Peer(wire, port=40000, local_port=5000)
    peer.send(SYN, options=[Mss(1400)])
    peer.expect(SYN | ACK)
    peer.send(RST, seq=1)
    assert wire.stack.connections == {}
    wire.take_events()
    other = Peer(wire, port=40001, local_port=5000)
    other.handshake(active=False)
    assert kinds(wire) == [Accepted]


@pytest.mark.mib("TcpExtListenDrops", "TcpExtTCPReqQFullDrop")
def test_backlog() -> None:
    """RFC 4987 §3.1: a full backlog drops SYNs; a place that becomes free is taken."""
    wire = Wire(mptcp=False, syn_cookies="never")
    wire.stack.listen(5000, backlog=1)
    first = Peer(wire, port=40000, local_port=5000)
    second = Peer(wire, port=40001, local_port=5000)
    first.send(SYN, options=[Mss(1400)])
    first.expect(SYN | ACK)
    second.send(SYN, options=[Mss(1400)])
    second.expect_nothing()
    assert wire.stack.counters["TcpExtListenDrops"] == 1
    first.send(ACK, ack=1)
    second.send(SYN, seq=0, options=[Mss(1400)])
    second.expect(SYN | ACK, seq=0, ack=1)


def test_listener_close_resets_half_open(wire: Wire) -> None:
    """Who waits for an accept that cannot come is reset; SYNs are refused from now on."""
    listener = wire.stack.listen(5000)
    peer = Peer(wire, port=40000, local_port=5000)
    peer.send(SYN, options=[Mss(1400)])
    peer.expect(SYN | ACK)
    listener.close()
    assert peer.expect(within=0).flags & RST
    other = Peer(wire, port=40001, local_port=5000)
    other.send(SYN, options=[Mss(1400)])
    other.expect(RST | ACK, ack=1)


def test_default_mss(wire: Wire, peer: Peer) -> None:
    """RFC 9293 §3.7.1: without the option a send MSS of 536 is assumed (IPv4)."""
    connection = wire.stack.connect("10.0.0.2", 80)
    peer.expect(SYN)
    peer.send(SYN | ACK)
    peer.expect(ACK)
    connection.send(bytes(600))
    assert [len(seen.data) for seen in peer.drain()] == [536, 64]


def test_default_mss_ipv6() -> None:
    """RFC 9293 §3.7.1: 1220 for IPv6; our own MSS is the MTU less 60."""
    wire = Wire(addresses=["fd00::1/64"], mptcp=False, nodelay=True)
    peer = Peer(wire, address="fd00::2", local="fd00::1")
    connection = wire.stack.connect("fd00::2", 80)
    peer.expect(SYN, options=has(Mss(1440)))
    peer.send(SYN | ACK)
    peer.expect(ACK)
    connection.send(bytes(1300))
    assert [len(seen.data) for seen in peer.drain()] == [1220, 80]


@pytest.mark.parametrize("offered", [14, 15, 255])
def test_window_scale_above_14(wire: Wire, peer: Peer, offered: int) -> None:
    """RFC 7323 §2.3: a shift above 14 is used as 14."""
    wire.stack.connect("10.0.0.2", 80)
    peer.expect(SYN)
    peer.send(SYN | ACK, options=[Mss(1460), WindowScale(offered)])
    peer.expect(ACK)
    peer.send(ACK, window=3)
    assert peer.subflow().snd.wnd == 3 << 14


def test_syn_window_is_not_scaled(wire: Wire, peer: Peer) -> None:
    """RFC 7323 §2.2: the window of a SYN is taken as it is."""
    wire.stack.connect("10.0.0.2", 80)
    syn = peer.expect(SYN)
    assert syn.window == 65535  # 6 MiB of buffer, and nothing to shift by yet
    peer.send(SYN | ACK, window=1000, options=[Mss(1460), WindowScale(7)])
    peer.expect(ACK)
    assert peer.subflow().snd.wnd == 1000


def test_icmp_unreachable_ends_the_attempt(wire: Wire, peer: Peer) -> None:
    """RFC 1122 §4.2.3.9 by way of RFC 5461: while opening, unreachable is an answer."""
    connection = wire.stack.connect("10.0.0.2", 80)
    syn = wire.stack.poll_transmit(wire.now)
    assert syn is not None
    error = unreachable(memoryview(syn.packet()), peer.address, IcmpKind.PORT_UNREACHABLE)
    assert error is not None
    wire.inject(error)
    assert wire.take_events() == [Closed(connection, ConnectionEnd.UNREACHABLE)]


@pytest.mark.row("I1")
def test_isn_moves_with_time() -> None:
    """RFC 6528 §3: per 4-tuple a clock of 4 µs; different tuples start elsewhere."""
    numbers = {}
    for at in (0, 1_000_000):
        wire = Wire(mptcp=False)
        wire.advance(at)
        for port in (80, 81):
            peer = Peer(wire, port=port)
            wire.stack.connect("10.0.0.2", port, local_addr=("10.0.0.1", 40000))
            numbers[at, port] = peer.expect(SYN).segment.seq
    for port in (80, 81):
        assert (numbers[1_000_000, port] - numbers[0, port]) & 0xFFFFFFFF == 250_000
    assert numbers[0, 80] != numbers[0, 81]


def test_close_before_established(wire: Wire, peer: Peer) -> None:
    """§3.10.4, SYN-SENT: close() forgets the attempt; a late SYN/ACK is refused."""
    connection = wire.stack.connect("10.0.0.2", 80)
    peer.expect(SYN)
    connection.close()
    wire.flush()
    assert wire.take_events() == [Closed(connection, ConnectionEnd.ABORTED)]
    peer.send(SYN | ACK, ack=1, options=[Mss(1460)])
    assert peer.expect(RST).seq == 1


def test_data_in_a_syn_without_fast_open(wire: Wire) -> None:
    """RFC 9293 §3.10.7.2: only the SYN is acknowledged: its data comes again, and is taken once."""
    wire.stack.listen(5000)
    peer = Peer(wire, port=40000, local_port=5000)
    peer.send(SYN, seq=0, data=b"early", options=[Mss(1400)])
    peer.expect(SYN | ACK, seq=0, ack=1)
    assert kinds(wire) == []
    peer.send(ACK, seq=1, ack=1, data=b"early")
    (accepted,) = [event for event in wire.take_events() if isinstance(event, Accepted)]
    assert accepted.connection.recv() == b"early"


def test_data_in_a_syn_ack(wire: Wire, peer: Peer) -> None:
    """RFC 9293 §3.10.7.3 fourth: text in the segment that opens is processed as usual."""
    connection = wire.stack.connect("10.0.0.2", 80)
    peer.expect(SYN)
    peer.send(SYN | ACK, seq=0, ack=1, data=b"welcome", options=[Mss(1460)])
    peer.expect(ACK, seq=1, ack=8)
    assert kinds(wire) == [Connected, Readable]
    assert connection.recv() == b"welcome"


def test_simultaneous_open_both_acked(wire: Wire, peer: Peer) -> None:
    """RFC 9293 figure 7, the other order: the ACK of our SYN/ACK alone opens as well."""
    connection = wire.stack.connect("10.0.0.2", 80)
    peer.expect(SYN, seq=0)
    peer.send(SYN, seq=0, options=[Mss(1460)])
    peer.expect(SYN | ACK, seq=0, ack=1)
    peer.send(ACK, seq=1, ack=1, data=b"x")
    assert connection.established
    assert connection.recv() == b"x"


def test_half_open_discovered_by_our_syn(wire: Wire, peer: Peer) -> None:
    """RFC 9293 figure 9: the peer remembers a connection that we have lost: its ACK is reset,
    which ends it there, and the repeated SYN opens a new one."""
    connection = wire.stack.connect("10.0.0.2", 80)
    first = peer.expect(SYN)
    wire.mark()
    peer.send(ACK, seq=300, ack=100_000, at=ms(10))  # what a synchronized peer answers to a SYN
    reset = peer.expect(RST)
    assert reset.segment.seq == (peer.stack_isn + 100_000) & 0xFFFFFFFF
    assert connection.ended is None
    peer.nxt = 0
    again = peer.expect(SYN, at=seconds(1))
    assert again.segment.seq == first.segment.seq
    peer.send(SYN | ACK, seq=0, ack=1, options=[Mss(1460)])
    assert connection.established


@pytest.mark.mib("TcpExtBeyondWindow")
def test_half_open_discovered_by_their_syn(wire: Wire) -> None:
    """RFC 9293 figure 9, the other end: a SYN for a connection that lives here is challenged, and
    the RST that follows ends it (RFC 5961 §4.2)."""
    wire.stack.listen(5000)
    peer = Peer(wire, port=40000, local_port=5000)
    old = peer.handshake(active=False)
    wire.take_events()
    peer.send(SYN, seq=500_000, options=[Mss(1460)])
    challenge = peer.expect(ACK, seq=1, ack=1, length=0)
    peer.send(RST, seq=challenge.ack)
    assert old.ended is ConnectionEnd.RESET
    peer.nxt = 600_000
    peer.send(SYN, options=[Mss(1460)])
    peer.expect(SYN | ACK, seq=0, ack=600_001)


def test_half_open_discovered_by_data(wire: Wire) -> None:
    """RFC 9293 figure 10: data for a connection that is not here is answered with a RST."""
    peer = Peer(wire, port=40000, local_port=5000)
    peer.send(ACK, seq=300, ack=100, data=b"hello?")
    assert peer.expect(RST).segment.seq == (peer.stack_isn + 100) & 0xFFFFFFFF


def test_old_duplicate_syn(wire: Wire) -> None:
    """RFC 9293 figure 8: an old SYN is answered, the peer resets it, the real one opens."""
    wire.stack.listen(5000)
    peer = Peer(wire, port=40000, local_port=5000)
    peer.send(SYN, seq=90, options=[Mss(1460)])
    peer.expect(SYN | ACK, seq=0, ack=91)
    peer.send(RST, seq=91)
    assert wire.stack.connections == {}
    wire.take_events()
    peer.nxt = 100
    peer.send(SYN, options=[Mss(1460)])
    peer.expect(SYN | ACK, seq=0, ack=101)
    peer.send(ACK, seq=101, ack=1)
    assert kinds(wire) == [Accepted]


def test_isn_is_a_secret_of_the_host() -> None:
    """RFC 6528 §3: F is keyed: another secret, other numbers for the same flow."""
    numbers = set()
    for seed in range(8):
        wire = Wire(mptcp=False, seed=seed)
        peer = Peer(wire)
        wire.stack.connect("10.0.0.2", 80, local_addr=("10.0.0.1", 40000))
        numbers.add(peer.expect(SYN).segment.seq)
    assert len(numbers) == 8


def test_isn_of_passive_opens(wire: Wire) -> None:
    """RFC 6528 §3: the same rule for the SYN/ACK: by flow, and 250 ticks a millisecond."""
    wire.stack.listen(5000)
    seen = []
    for at in (0, 1):
        peer = Peer(wire, port=40000, local_port=5000)
        peer.send(SYN, options=[Mss(1460)], at=seconds(at))
        peer.expect(SYN | ACK)
        seen.append(peer.stack_isn)
        peer.send(RST, seq=1)
        wire.peers.remove(peer)
    assert (seen[1] - seen[0]) & 0xFFFFFFFF == 250_000
