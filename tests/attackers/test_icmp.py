"""Forged ICMP errors (RFC 5927), and ICMP for its own sake (RFC 6633, RFC 1812 §4.3.2.8)."""

from __future__ import annotations

import pytest

from mptcp.subflow import Subflow
from mptcp.wire.checksum import finish, ones_sum
from mptcp.wire.icmp import IcmpKind, packet_too_big, unreachable
from mptcp.wire.ip import ICMP, ip_header
from mptcp.wire.tcp import ACK
from tests.attackers.scene import Scene, segment

ROUTER = bytes((10, 9, 9, 9))
KINDS = [
    IcmpKind.UNREACHABLE,
    IcmpKind.PORT_UNREACHABLE,
    IcmpKind.PROTOCOL_UNREACHABLE,
    IcmpKind.ADMIN_PROHIBITED,
]


def quoted(subflow: Subflow, seq: int) -> memoryview:
    """A segment of this host as an error would quote it."""
    return memoryview(
        segment(
            *(subflow.local, subflow.local_port, subflow.remote, subflow.remote_port, ACK),
            seq=seq,
            data=bytes(1400),
        )
    )


def strike(scene: Scene, kind: IcmpKind, mtu: int, blind: bool) -> None:
    """An error about each subflow of the server, every two milliseconds."""
    draw = scene.random.getrandbits

    def errors() -> list[bytes]:
        packets = []
        for subflow in scene.subflows():
            seq = draw(32) if blind else subflow.snd.una
            packet = quoted(subflow, seq)
            if kind is IcmpKind.PACKET_TOO_BIG:
                error = packet_too_big(packet, mtu, ROUTER)
            else:
                error = unreachable(packet, ROUTER, kind)
            assert error is not None
            packets.append(error)
        return packets

    scene.every(2000, errors)


@pytest.mark.parametrize("kind", [*KINDS, IcmpKind.PACKET_TOO_BIG], ids=lambda kind: kind.value)
def test_blind_errors(kind: IcmpKind) -> None:
    """RFC 5927 §4.1: an error that quotes no sequence number in flight is not believed."""
    scene = Scene(61, openers=2)
    before = [subflow.snd.mss for subflow in scene.subflows()]
    subflows = list(scene.subflows())
    strike(scene, kind, 68, blind=True)
    scene.finish()
    assert [subflow.snd.mss for subflow in subflows] == before
    assert scene.counters["TcpExtOutOfWindowIcmps"] > 300


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
def test_errors_of_one_who_reads_along(kind: IcmpKind) -> None:
    """RFC 5927 §5.2, RFC 1122 §4.2.3.9: in a synchronized state no error ends a connection."""
    scene = Scene(62, openers=2)
    strike(scene, kind, 0, blind=False)
    scene.finish()
    assert scene.counters["IcmpInDestUnreachs"] > 50


@pytest.mark.parametrize("mtu", [0, 1, 68, 296, 552])
def test_small_mtus_of_one_who_reads_along(mtu: int) -> None:
    """RFC 5927 §7.2: a lie about the MTU makes the segments of one path smaller; all arrives."""
    scene = Scene(63, openers=2, size=300_000)
    strike(scene, IcmpKind.PACKET_TOO_BIG, mtu, blind=False)
    scene.finish()
    assert scene.counters["TcpPathMtuIgnored"] > 0


def icmp(kind: int, code: int, body: bytes, target: bytes) -> bytes:
    message = bytes((kind, code, 0, 0)) + body
    checksum = finish(ones_sum(message)).to_bytes(2, "big")
    message = message[:2] + checksum + message[4:]
    return ip_header(ROUTER, target, ICMP, len(message)) + message


def test_echo_flood() -> None:
    """RFC 1812 §4.3.2.8: a limited number of ICMP messages is looked at, and no answer beyond."""
    scene = Scene(64, openers=2, server={"icmp_per_second": 100})
    ping = icmp(8, 0, bytes(32), bytes((10, 0, 1, 2)))
    scene.every(1000, lambda: [ping] * 5)
    scene.finish()
    assert scene.counters["IcmpInEchos"] <= 100 * (scene.sim.now // 1_000_000 + 1)
    assert scene.counters["IcmpInRateLimited"] > 1000


def test_source_quench() -> None:
    """RFC 6633 §3: ignored, however many; the window does not care."""
    scene = Scene(65, openers=2)
    scene.every(
        2000,
        lambda: [
            icmp(4, 0, bytes(4) + bytes(quoted(s, s.snd.una))[:28], s.local)
            for s in scene.subflows()
        ],
    )
    scene.finish()
    assert scene.counters["IcmpInSrcQuenchs"] > 300
