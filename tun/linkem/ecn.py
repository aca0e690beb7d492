"""Congestion marks on IP packets (RFC 3168 §5)."""

from __future__ import annotations

from typing import Final

CE: Final = 0b11


def mark_ce(packet: bytes) -> bytes | None:
    """`packet` with CE set; None when it is not ECT, so that it has to be dropped.

    The IPv4 header checksum is updated, not computed anew (RFC 1624): a wrong one stays wrong.
    """
    version = packet[0] >> 4
    if version == 4:
        tos = packet[1]
        if not tos & CE:
            return None
        if tos & CE == CE:
            return packet
        marked = bytearray(packet)
        marked[1] = tos | CE
        # RFC 1624 eqn. 3: HC' = ~(~HC + ~m + m'), with m' - m the bit that was set.
        total = (~int.from_bytes(packet[10:12], "big") & 0xFFFF) + (tos | CE) - tos
        total = (total & 0xFFFF) + (total >> 16)
        marked[10:12] = (~total & 0xFFFF).to_bytes(2, "big")
    elif version == 6:
        ecn = packet[1] >> 4 & CE  # the traffic class lies in bits 4 to 11 of the header
        if not ecn:
            return None
        if ecn == CE:
            return packet
        marked = bytearray(packet)
        marked[1] |= CE << 4
    else:
        return None
    return type(packet)(marked)  # a damaged packet stays one
