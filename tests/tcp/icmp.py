"""ICMP errors as a router on the way would send them, about segments of the scripted peer."""

from __future__ import annotations

from mptcp.wire.icmp import IcmpKind, packet_too_big, unreachable
from mptcp.wire.ip import TCP, ip_header
from tests.peer import Peer, Seen

ROUTER = bytes([10, 0, 0, 254])
ROUTER6 = b"\xfd" + bytes(14) + b"\xfe"


def quoted(peer: Peer, seen: Seen, *, offset: int = 0, size: int = 0) -> memoryview:
    """The packet of the stack that was `seen`; `size` and `offset` (of its number) as forged."""
    seq = (seen.segment.seq + offset) & 0xFFFFFFFF
    tcp = (
        seen.segment.sport.to_bytes(2, "big")
        + seen.segment.dport.to_bytes(2, "big")
        + seq.to_bytes(4, "big")
        + bytes(4)
        + bytes([(20 + len(seen.option_bytes)) << 2, 0x10])
        + bytes(6)
        + seen.option_bytes
        + seen.data
    )
    headers = 20 if len(peer.local) == 4 else 40
    tcp = tcp[: size - headers] if size else tcp
    return memoryview(ip_header(peer.local, peer.address, TCP, len(tcp)) + tcp)


def router(peer: Peer) -> bytes:
    """The address of a router of the peer's family."""
    return ROUTER if len(peer.local) == 4 else ROUTER6


def too_big(peer: Peer, seen: Seen, mtu: int, *, offset: int = 0, size: int = 0) -> bytes:
    """Fragmentation needed / packet too big about a segment; an MTU of 0 is that of old routers."""
    error = packet_too_big(quoted(peer, seen, offset=offset, size=size), mtu, router(peer))
    assert error is not None
    return error


def error_about(peer: Peer, seen: Seen, kind: IcmpKind, *, offset: int = 0) -> bytes:
    """An error of `kind` about a segment."""
    error = unreachable(quoted(peer, seen, offset=offset), router(peer), kind)
    assert error is not None
    return error
