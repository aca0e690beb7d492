"""The short way of a SYN that is answered by a cookie: it says what the long way says."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcp.addressing import parse_address, parse_prefix
from mptcp.config import Config
from mptcp.stack import Stack
from mptcp.tcp.host import Interface
from mptcp.wire.mptcp_options import MpCapable, MpJoinSyn
from mptcp.wire.tcp import SYN, HeaderTemplate, emit_options
from tests.options import FastOpen, Mss, SackPermitted, Timestamps, WindowScale
from tests.peer import Peer, Wire

NOW = 123_456_789

OPTIONS = st.lists(
    st.one_of(
        st.builds(Mss, st.integers(0, 65535)).map(lambda option: option.emit()),
        st.builds(WindowScale, st.integers(0, 20)).map(lambda option: option.emit()),
        st.just(SackPermitted().emit()),
        st.builds(Timestamps, st.integers(0, 2**32 - 1), st.just(0)).map(lambda o: o.emit()),
        st.just(MpCapable().emit()),
        st.just(MpJoinSyn(False, 1, 77, b"abcd").emit()),
        st.just(FastOpen(b"").emit()),
        st.binary(min_size=1, max_size=6),
    ),
    max_size=4,
).filter(lambda options: sum(len(option) + 3 & ~3 for option in options) <= 40)


def answers(packet: bytes, config: Config, *, early: bool) -> list[bytes]:
    """What a fresh stack sends for one SYN, by either way."""
    stack = Stack(config, random.Random(5).randbytes, now=NOW)
    addresses = [parse_prefix("10.0.0.1/24"), parse_prefix("fd00::1/64")]
    stack.interface_up(NOW, Interface(1, "path", mtu=1400, addresses=addresses))
    stack.listen(5000)
    if early:
        stack.cookies.sent_at = NOW - 1
    stack.handle_packet(NOW, 1, memoryview(packet))
    sent = []
    while (transmit := stack.poll_transmit(NOW)) is not None:
        sent.append(transmit.packet())
    assert not stack.connections
    return sent


@given(
    options=OPTIONS,
    more_flags=st.sampled_from([0, 0x08, 0x20, 0x40, 0x80, 0xC0]),
    tos=st.sampled_from([0, 1, 2, 3, 0xFC]),
    seq=st.integers(0, 2**32 - 1),
    port=st.sampled_from([5000, 5001]),
    family=st.sampled_from([4, 6]),
    data=st.sampled_from([b"", b"x", b"yy"]),
    damage=st.integers(-200, 70),
    ecn=st.sampled_from(["off", "passive"]),
    sack=st.booleans(),
    window_scaling=st.booleans(),
    timestamps=st.booleans(),
)
def test_both_ways_give_the_same_answer(
    options: list[bytes],
    more_flags: int,
    tos: int,
    seq: int,
    port: int,
    family: int,
    data: bytes,
    damage: int,
    ecn: str,
    sack: bool,
    window_scaling: bool,
    timestamps: bool,
) -> None:
    """RFC 4987 §3.6: a cookie says what the SYN said, however the SYN was read."""
    config = Config(
        syn_cookies="always",
        ecn=ecn,
        sack=sack,
        window_scaling=window_scaling,
        timestamps=timestamps,
    )
    source, target = ("10.0.0.2", "10.0.0.1") if family == 4 else ("fd00::2", "fd00::1")
    template = HeaderTemplate(parse_address(source), parse_address(target), 4000, port)
    header = template.build(
        seq, 0, SYN | more_flags, 1000, emit_options(options), len(data), tos=tos
    )
    template.finish_checksum(header, [data])
    packet = bytearray(bytes(header) + data)
    if 0 <= damage < len(packet):
        packet[damage] ^= 0x11
    long_way = answers(bytes(packet), config, early=False)
    assert answers(bytes(packet), config, early=True) == long_way


def test_a_flood_makes_no_object_of_its_segments() -> None:
    """RFC 4987 §3.6: with the backlog full, SYNs are answered and nothing is kept of them."""
    wire = Wire(mptcp=False)
    wire.stack.listen(5000, backlog=1)
    for number in range(20):
        Peer(wire, address=f"10.9.0.{number + 1}", port=9, local_port=5000).send(
            SYN, options=[Mss(1460)]
        )
    assert len(wire.stack.connections) == 1
    assert wire.stack.counters["TcpExtSyncookiesSent"] == 19
    assert wire.stack.counters["TcpExtTCPReqQFullDoCookies"] == 19


@pytest.mark.mib("IpOutAnswersDropped")
def test_answers_that_wait_are_bounded() -> None:
    """RFC 4987 §3.6: what a stranger makes the host store is bounded, packets to send included."""
    wire = Wire(mptcp=False, syn_cookies="always", max_waiting_answers=10)
    wire.stack.listen(5000)
    for number in range(30):
        peer = Peer(wire, address=f"10.9.0.{number + 1}", port=9, local_port=5000)
        packet = peer.packet(SYN, options=[Mss(1460)])
        wire.stack.handle_packet(wire.now, 1, memoryview(packet))
    assert wire.stack.counters["IpOutAnswersDropped"] == 20
    sent = 0
    while wire.stack.poll_transmit(wire.now) is not None:
        sent += 1
    assert sent == wire.stack.counters["TcpExtSyncookiesSent"] == 10


def test_answers_leave_connections_their_turn() -> None:
    """RFC 4987 §2: a flood is not to hold up those who are connected: they take turns with it."""
    wire = Wire(mptcp=False, syn_cookies="always", initial_window_segments=10)
    wire.stack.listen(5000)
    peer = Peer(wire, port=80)
    connection = peer.handshake(mss=1000)
    connection.send(bytes(8000))
    for number in range(40):
        stranger = Peer(wire, address=f"10.9.0.{number + 1}", port=9, local_port=5000)
        packet = stranger.packet(SYN, options=[Mss(1460)])
        wire.stack.handle_packet(wire.now, 1, memoryview(packet))
    order = []
    while (transmit := wire.stack.poll_transmit(wire.now)) is not None:
        order.append(transmit.connection is not None)
    assert sum(order) == 8
    assert len(order) == 48
    # One of five is the connection's as long as it has something to send.
    assert all(any(order[at : at + 5]) for at in range(0, 40, 5))
