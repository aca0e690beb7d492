"""Segments that do not belong: RFC 5961 (blind injection), RFC 7323 §5 (PAWS), bad packets."""

from __future__ import annotations

import pytest

from mptcp.stack import Offload
from mptcp.tcp.state import State
from mptcp.wire.tcp import ACK, RST, SYN
from tests.options import Mss, Timestamps, has, lacks
from tests.peer import Peer, Wire, ms, seconds

FAR = 1 << 30


@pytest.mark.parametrize("offset", [1, 100, 60_000])
@pytest.mark.mib("TcpCurrEstab", "TcpExtTCPChallengeACK")
def test_reset_in_window_is_challenged(wire: Wire, peer: Peer, offset: int) -> None:
    """RFC 5961 §3.2: in the window but not exactly RCV.NXT: challenge ACK, no reset."""
    peer.handshake()
    peer.send(RST, seq=1 + offset)
    peer.expect(ACK, seq=1, ack=1, length=0)
    assert peer.subflow().state is State.ESTABLISHED


@pytest.mark.parametrize("seq", [0, -FAR, FAR])
def test_reset_outside_the_window_is_dropped(wire: Wire, peer: Peer, seq: int) -> None:
    """RFC 5961 §3.2 (1): silently."""
    peer.handshake()
    peer.send(RST, seq=seq)
    peer.expect_nothing()
    assert peer.subflow().state is State.ESTABLISHED


def test_exact_reset_with_a_hole(wire: Wire, peer: Peer) -> None:
    """RFC 5961 §3.2 (3): SEG.SEQ = RCV.NXT resets, data out of order or not."""
    peer.handshake()
    peer.send(ACK, seq=100, data=b"x")
    peer.drain()
    peer.send(RST, seq=1)
    assert wire.stack.connections == {}


@pytest.mark.parametrize("seq", [0, 1, 2, 50_000, -FAR, FAR])
@pytest.mark.mib("TcpExtTCPSYNChallenge")
def test_syn_in_established_is_challenged(wire: Wire, peer: Peer, seq: int) -> None:
    """RFC 5961 §4.2: whatever its number, a SYN gets a challenge ACK and nothing else."""
    peer.handshake()
    peer.send(SYN, seq=seq, options=[Mss(1460)])
    peer.expect(ACK, seq=1, ack=1, length=0)
    assert peer.subflow().state is State.ESTABLISHED
    peer.nxt = 1
    peer.send(ACK, data=b"still here")
    assert peer.subflow().meta.recv() == b"still here"


def test_challenge_acks_are_limited() -> None:
    """RFC 5961 §7: a system-wide limit per second."""
    wire = Wire(mptcp=False, challenge_acks_per_second=1)
    peer = Peer(wire)
    peer.handshake()
    for _ in range(20):
        peer.send(RST, seq=100)
    assert len(peer.drain()) == 1
    peer.send(RST, seq=100, at=seconds(2))
    assert len(peer.drain()) == 1


def test_the_limit_of_challenge_acks_cannot_be_counted() -> None:
    """RFC 5961 §7, CVE-2016-5696: what one connection used up must not be seen by another, so no
    two seconds have the same limit; on average it is the one that is configured."""
    wire = Wire(mptcp=False, challenge_acks_per_second=20)
    peer = Peer(wire)
    peer.handshake()
    counts = []
    for second in range(2, 102):
        wire.advance(seconds(second))
        for _ in range(40):
            peer.send(RST, seq=100)
        counts.append(len(peer.drain()))
    assert min(counts) >= 10
    assert max(counts) <= 29
    assert len(set(counts)) > 10
    assert 18 < sum(counts) / len(counts) < 21
    assert wire.stack.counters["TcpExtTCPChallengeACK"] == sum(counts)


def test_challenge_acks_can_be_turned_off() -> None:
    """RFC 5961 §7: a limit of 0 answers none, and resets nothing either."""
    wire = Wire(mptcp=False, challenge_acks_per_second=0)
    peer = Peer(wire)
    peer.handshake()
    peer.send(RST, seq=100)
    peer.expect_nothing()
    assert not peer.subflow().closed


@pytest.mark.parametrize("beyond", [1, 1000, 1 << 30])
def test_ack_of_unsent_data(wire: Wire, peer: Peer, beyond: int) -> None:
    """§3.10.7.4 fifth: SEG.ACK > SND.NXT: send an ACK, drop the segment, its payload too."""
    connection = peer.handshake()
    peer.send(ACK, ack=1 + beyond, data=b"evil")
    peer.expect(ACK, seq=1, ack=1, length=0)
    assert connection.recv() == b""


def test_old_ack_within_the_window_is_ignored(wire: Wire, peer: Peer) -> None:
    """§3.10.7.4 fifth: a duplicate ACK (SEG.ACK =< SND.UNA) can be ignored; the data counts."""
    connection = peer.handshake(mss=1000)
    connection.send(bytes(3000))
    peer.drain()
    peer.send(ACK, ack=3001)
    peer.send(ACK, ack=1001, data=b"good")
    assert connection.recv() == b"good"


def test_blind_old_ack(wire: Wire, peer: Peer) -> None:
    """RFC 5961 §5.2: SEG.ACK < SND.UNA - MAX.SND.WND: challenge ACK, the data is dropped."""
    connection = peer.handshake()
    peer.send(ACK, ack=1 - 70_000, data=b"evil")
    peer.expect(ACK, seq=1, ack=1, length=0)
    assert connection.recv() == b""


@pytest.mark.parametrize("seq", [1 + 70_000, -FAR, FAR])
def test_data_outside_the_window(seq: int) -> None:
    """§3.10.7.4 first: unacceptable: an ACK in reply, nothing taken."""
    wire = Wire(mptcp=False, receive_buffer=65536, window_scaling=False)
    peer = Peer(wire)
    connection = peer.handshake()
    peer.send(ACK, seq=seq, data=b"x" * 100)
    peer.expect(ACK, seq=1, ack=1, length=0)
    assert connection.recv() == b""
    assert peer.subflow().reassembly.memory == 0


def test_unacceptable_segment_does_not_move_the_state(wire: Wire, peer: Peer) -> None:
    """§3.10.7.4 first: after the ACK, "drop the unacceptable segment and return"."""
    peer.window = 8000
    connection = peer.handshake(mss=1000)
    peer.send(ACK, data=b"x" * 10)
    connection.send(bytes(3000))
    peer.drain()
    peer.send(ACK, seq=-FAR, ack=3001, window=1)
    snd = peer.subflow().snd
    assert snd.una == peer.stack_isn + 1
    assert snd.wnd == 8000


# -- timestamps ----------------------------------------------------------------------------


def test_timestamps_are_on_every_segment(wire: Wire, peer: Peer) -> None:
    """RFC 7323 §3.2: once negotiated, TSopt MUST be in every non-RST segment."""
    connection = peer.handshake(timestamps=True, mss=1000)
    connection.send(bytes(3000))
    peer.send(ACK, data=b"x" * 10)
    connection.recv()
    connection.close()
    wire.advance(seconds(5))
    for seen in peer.drain():
        assert has(Timestamps)(seen.options)


def test_no_timestamps_unless_agreed(wire: Wire, peer: Peer) -> None:
    """RFC 7323 §3.2: MUST NOT be sent unless it was in the SYN that came."""
    connection = peer.handshake(timestamps=False)
    connection.send(b"x")
    peer.expect(ACK, options=lacks(Timestamps))


def test_echo_of_the_earliest_unacknowledged_segment() -> None:
    """RFC 7323 §4.3: with a delayed ACK, the TSval of the segment that came first is echoed."""
    wire = Wire(mptcp=False)
    peer = Peer(wire)
    peer.handshake(timestamps=True)
    for _ in range(20):  # quick ACKs of a new connection
        peer.send(ACK, data=b"q" * 1000, at=wire.time + ms(1))
    wire.advance(seconds(1))
    peer.drain()
    base = wire.now // 1000
    peer.send(ACK, data=b"x" * 10, options=[Timestamps(base + 1, peer.ts_recent)])
    peer.send(ACK, data=b"x" * 10, options=[Timestamps(base + 2, peer.ts_recent)])
    answer = peer.expect(ACK, within=ms(500))
    assert answer.option(Timestamps).ecr == base + 1
    # A hole: nothing changes before the left edge moves, SEG.SEQ =< Last.ACK.sent.
    peer.send(ACK, seq=peer.nxt + 10, data=b"y", options=[Timestamps(base + 3, peer.ts_recent)])
    assert peer.expect(ACK).option(Timestamps).ecr == base + 1
    # The segment that fills it is echoed.
    peer.send(
        ACK, seq=peer.nxt - 11, data=b"z" * 10, options=[Timestamps(base + 4, peer.ts_recent)]
    )
    assert peer.expect(ACK).option(Timestamps).ecr == base + 4


@pytest.mark.mib("TcpExtPAWSEstab")
def test_paws(wire: Wire, peer: Peer) -> None:
    """RFC 7323 §5.3 R1: a timestamp older than TS.Recent: ACK and drop; a RST is exempt."""
    connection = peer.handshake(timestamps=True)
    now = wire.now // 1000
    peer.send(ACK, data=b"new", options=[Timestamps(now + 1000, peer.ts_recent)])
    peer.drain()
    peer.send(ACK, data=b"old", options=[Timestamps(now + 999, peer.ts_recent)])
    peer.expect(ACK, ack=4, length=0)
    assert connection.recv() == b"new"
    peer.nxt = 4
    peer.send(RST, options=[Timestamps(now, peer.ts_recent)])
    assert wire.stack.connections == {}


def test_paws_and_a_needless_repeat_in_a_stream(wire: Wire, peer: Peer) -> None:
    """RFC 7323 §5.3 R2, R3: what lies before RCV.NXT leaves TS.Recent alone, so that what was sent
    before it and comes late is taken. After a silence its time is echoed: an ACK was lost."""
    connection = peer.handshake(timestamps=True)
    base = wire.now // 1000
    peer.send(ACK, data=b"abc", options=[Timestamps(base, peer.ts_recent)])
    peer.drain()
    repeat = [Timestamps(base + 9, peer.ts_recent)]
    peer.send(ACK, seq=1, data=b"abc", options=repeat)
    assert peer.expect(ACK, ack=4).option(Timestamps).ecr == base
    peer.send(ACK, seq=4, data=b"def", options=[Timestamps(base + 5, peer.ts_recent)])
    peer.drain()
    assert connection.recv() == b"abcdef"
    peer.send(ACK, seq=4, data=b"def", options=repeat, at=ms(300))
    assert peer.expect(ACK, ack=7).option(Timestamps).ecr == base + 9


def test_paws_for_bare_acks_is_limited(wire: Wire, peer: Peer) -> None:
    """RFC 7323 §5.3 R1 asks for an ACK; were two ends with strange clocks to answer each other's
    without limit (RFC 5961 §7 has one for its own), they would never end."""
    peer.handshake(timestamps=True)
    now = wire.now // 1000
    peer.send(ACK, data=b"new", options=[Timestamps(now + 1000, peer.ts_recent)])
    peer.drain()
    for _ in range(5):
        peer.send(ACK, options=[Timestamps(now, peer.ts_recent)])
    assert len(peer.drain()) == 1
    assert wire.stack.counters["TcpExtPAWSEstab"] == 5
    peer.send(ACK, options=[Timestamps(now, peer.ts_recent)], at=ms(50))
    assert len(peer.drain()) == 1


def test_paws_across_the_wrap_of_the_clock(wire: Wire, peer: Peer) -> None:
    """RFC 7323 §5.2: timestamps are compared modulo 2^32."""
    peer.ts_recent = 0
    connection = peer.handshake(timestamps=True)
    for stamp in (wire.now // 1000 + 0x7FFFFFFF, 0xFFFFFFFF, 5):
        peer.send(ACK, data=b"a", options=[Timestamps(stamp, peer.ts_recent)])
    assert connection.recv() == b"aaa"
    peer.send(ACK, data=b"a", options=[Timestamps(0xFFFFFFFF, peer.ts_recent)])
    assert connection.recv() == b""


def test_paws_expires_after_24_days(wire: Wire, peer: Peer) -> None:
    """RFC 7323 §5.5: TS.Recent is invalid after 24 idle days."""
    connection = peer.handshake(timestamps=True)
    stamp = wire.now // 1000
    peer.send(ACK, data=b"a", options=[Timestamps(stamp, peer.ts_recent)])
    day = seconds(24 * 3600)
    wire.advance(25 * day)
    peer.send(ACK, data=b"b", options=[Timestamps((stamp - 5000) & 0xFFFFFFFF, peer.ts_recent)])
    assert connection.recv() == b"ab"


# -- bad packets ---------------------------------------------------------------------------


@pytest.mark.mib("TcpInErrs", "TcpInCsumErrors")
def test_bad_checksum_is_dropped_and_counted(wire: Wire, peer: Peer) -> None:
    """Design rule 2: verified when the device has not; trusted when it has."""
    connection = peer.handshake()
    packet = bytearray(peer.packet(ACK, data=b"abcd"))
    packet[-1] ^= 0xFF
    wire.inject(bytes(packet))
    assert wire.stack.counters["TcpInCsumErrors"] == 1
    assert connection.recv() == b""
    peer.expect_nothing()
    wire.inject(bytes(packet), offload=Offload(trusted=True))
    assert connection.recv() == b"abc\x9b"


def test_bad_ip_checksum(wire: Wire, peer: Peer) -> None:
    """RFC 1122 §3.2.1.2: a datagram with a bad header checksum is silently discarded."""
    connection = peer.handshake()
    packet = bytearray(peer.packet(ACK, data=b"abcd"))
    packet[8] ^= 1  # TTL
    wire.inject(bytes(packet), offload=Offload(trusted=True))
    assert connection.recv() == b""
    peer.expect_nothing()


@pytest.mark.parametrize("size", [0, 1, 19, 20, 30, 39, 40, 41])
@pytest.mark.mib("IpInHdrErrors")
def test_truncated_packets(wire: Wire, peer: Peer, size: int) -> None:
    """No packet makes the stack raise."""
    peer.handshake()
    whole = peer.packet(ACK, data=b"abcd")
    wire.inject(whole[:size])
    peer.expect_nothing()
    assert peer.subflow().state is State.ESTABLISHED


@pytest.mark.mib("IpInAddrErrors")
def test_foreign_address(wire: Wire, peer: Peer) -> None:
    """RFC 1122 §3.2.1.3: not for us: dropped and counted, no RST."""
    peer.local = b"\x0a\x00\x00\x63"
    peer.local_port = 80
    peer.send(SYN, options=[Mss(1460)])
    peer.expect_nothing()
    assert not wire.raw
    assert wire.stack.counters["IpInAddrErrors"] == 1


def test_resets_are_limited() -> None:
    """What a stranger makes the stack send is bounded."""
    wire = Wire(mptcp=False, resets_per_second=7)
    peer = Peer(wire, local_port=4444)
    for _ in range(50):
        peer.send(SYN, seq=0, options=[Mss(1460)])
    assert len(peer.drain()) == 7


@pytest.mark.parametrize("source", ["224.0.0.1", "255.255.255.255", "0.0.0.0", "127.0.0.1"])
def test_syn_from_an_impossible_source(wire: Wire, source: str) -> None:
    """RFC 1122 §4.2.3.10: a SYN with an invalid source address MUST be ignored (§3.2.1.3)."""
    wire.stack.listen(5000)
    peer = Peer(wire, address=source, port=9, local_port=5000)
    peer.send(SYN, options=[Mss(1460)])
    peer.expect_nothing()
    assert wire.stack.metas == set()
