"""Packets for the unit tests of middleboxes, read back by the stack's own, independent parser."""

from __future__ import annotations

import ipaddress
import random
from typing import Any

from mptcp.tun.middlebox import Box, TcpPacket, boxes
from mptcp.wire.dss import Dss
from mptcp.wire.ip import parse_ip
from mptcp.wire.tcp import ACK, SYN, Segment, parse_segment

A, B = "10.0.0.1", "10.0.0.2"
PORT_A, PORT_B = 40000, 80
CAPABLE = bytes.fromhex("1e0c0181") + b"k" * 8
TIMESTAMPS = bytes.fromhex("080a0000000100000002")


def box(name: str, **parameters: Any) -> Box:
    """A box by its registered name, with a generator of its own."""
    return boxes[name](rng=random.Random(7), **parameters)


def packet(
    payload: bytes = b"",
    *,
    seq: int = 1,
    ack: int = 1,
    flags: int = ACK,
    options: tuple[bytes, ...] = (),
    forward: bool = True,
    a: str = A,
    b: str = B,
    port_a: int = PORT_A,
    port_b: int = PORT_B,
    window: int = 1000,
) -> bytes:
    """A packet between A and B; `forward` is from A."""
    ends = [(ipaddress.ip_address(a).packed, port_a), (ipaddress.ip_address(b).packed, port_b)]
    (src, sport), (dst, dport) = ends if forward else ends[::-1]
    if len(src) == 4:
        header = bytes.fromhex("450000000001400040060000") + src + dst
    else:
        header = bytes.fromhex("6000000000000640") + src + dst
    made = TcpPacket(header, src, dst)
    made.sport, made.dport, made.seq, made.ack = sport, dport, seq, ack
    made.flags, made.window = flags, window
    made.options, made.payload = list(options), payload
    return made.write()


def read(raw: bytes) -> Segment:
    """A packet as the stack reads it; checksums have to be right."""
    view = memoryview(raw)
    return parse_segment(view, parse_ip(view), verify_checksum=True)


def passes(
    through: Box, raw: bytes, *, forward: bool = True, now: int = 0
) -> list[tuple[bool, Segment]]:
    """What a box makes of a packet: (whether it goes on in the packet's direction, segment)."""
    return [(way == forward, read(out)) for way, out in through.process(now, raw, forward)]


def through(passed: Box, raw: bytes, *, forward: bool = True, now: int = 0) -> Segment:
    """As `passes`, for the one segment that is to go on."""
    (answer,) = passes(passed, raw, forward=forward, now=now)
    assert answer[0]
    return answer[1]


def open_flow(passed: Box, isn: int = 0, peer_isn: int = 0) -> None:
    """SYN, SYN/ACK and the third ACK of the flow go through."""
    passed.process(0, packet(flags=SYN, seq=isn, ack=0), True)
    passed.process(0, packet(flags=SYN | ACK, seq=peer_isn, ack=isn + 1, forward=False), False)
    passed.process(0, packet(seq=isn + 1, ack=peer_isn + 1), True)


def dss(ssn: int, length: int) -> bytes:
    """A DSS that maps `length` bytes, DSN equal to the SSN."""
    return Dss(7, True, ssn, True, ssn, length, None).emit()
