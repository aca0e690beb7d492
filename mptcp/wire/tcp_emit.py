"""TCP segments on their way out: options (RFC 9293 §3.1) and the headers of one flow.

A `HeaderTemplate` holds what never changes between the packets of a flow, already summed, so that
`build` is one pack and a few additions. It leaves the TCP checksum to whoever has the payload: the
kernel behind VIRTIO_NET_HDR_F_NEEDS_CSUM, or `finish_checksum`.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from mptcp.wire.checksum import Buffer, ones_sum, parts_sum

CSUM_OFFSET: Final = 16
"""Where the checksum is in a TCP header."""

MAX_OPTIONS: Final = 40
"""The data offset has four bits: 60 bytes of header at most."""

SACK_PERMITTED: Final = b"\x04\x02"
_NOPS: Final = (b"", b"\x01", b"\x01\x01", b"\x01\x01\x01")

_TIMESTAMPS = struct.Struct("!III")
_BLOCK = struct.Struct("!II")
_CHECKSUM = struct.Struct("!H")


def emit_options(options: Iterable[bytes]) -> bytes:
    """Return `options` one after the other, each padded with NOPs to a multiple of 4 bytes.

    ValueError when the whole is longer than 40 bytes. To make two short options share a word, give
    them joined.
    """
    block = b"".join([option + _NOPS[-len(option) & 3] for option in options])
    if len(block) > MAX_OPTIONS:
        raise ValueError(f"{len(block)} bytes of TCP options, {MAX_OPTIONS} fit")
    return block


def mss_option(mss: int) -> bytes:
    """Return the Maximum Segment Size option, 4 bytes; ValueError unless 0 <= mss <= 65535."""
    if not 0 <= mss <= 0xFFFF:
        raise ValueError(f"MSS {mss}")
    return bytes((2, 4, mss >> 8, mss & 0xFF))


def window_scale_option(shift: int) -> bytes:
    """Return the Window Scale option, 3 bytes; ValueError unless `shift` is in 0..14."""
    if not 0 <= shift <= 14:
        raise ValueError(f"window scale {shift}")
    return bytes((3, 3, shift))


def timestamps_option(val: int, ecr: int) -> bytes:
    """Return NOP, NOP and the Timestamps option, 12 bytes; `val` and `ecr` in 0..2**32-1.

    struct.error when they are not: they are clock values the caller has masked.
    """
    return _TIMESTAMPS.pack(0x0101_080A, val, ecr)


def sack_option(blocks: Sequence[tuple[int, int]]) -> bytes:
    """Return NOP, NOP and the SACK option for 1 to 4 (left, right) edges in 0..2**32-1.

    ValueError for another number of blocks.
    """
    if not 1 <= len(blocks) <= 4:
        raise ValueError(f"{len(blocks)} SACK blocks")
    head = bytes((1, 1, 5, 2 + 8 * len(blocks)))
    return head + b"".join([_BLOCK.pack(left, right) for left, right in blocks])


def fast_open_option(cookie: bytes) -> bytes:
    """Return the Fast Open option (RFC 7413 §2): b"" requests a cookie, else 4..16 bytes, even.

    ValueError for another length.
    """
    if cookie and (len(cookie) not in range(4, 17, 2)):
        raise ValueError(f"a fast open cookie of {len(cookie)} bytes")
    return bytes((34, 2 + len(cookie))) + cookie


def user_timeout_option(seconds: int) -> bytes:
    """Return the User Timeout option (RFC 5482 §3.3), 4 bytes; `seconds` above 32767 go as minutes.

    ValueError for less than 1 (0 is reserved) and for more than 32767 minutes.
    """
    if not 1 <= seconds <= 0x7FFF * 60:
        raise ValueError(f"a user timeout of {seconds} s")
    value = seconds if seconds <= 0x7FFF else 0x8000 | -(-seconds // 60)
    return bytes((28, 4, value >> 8, value & 0xFF))


# One pack for both headers: version and TOS, length, identification, then flags, TTL and protocol
# as one number, checksum, then addresses and ports as they never change.
_IPV4_TCP = struct.Struct("!HHHIH12sIIHHHH")
_IPV6_TCP = struct.Struct("!IHH36sIIHHHH")


class HeaderTemplate:
    """The IP and TCP headers of one direction of a flow.

    `src` and `dst` are both 4 or both 16 bytes (else ValueError); `ttl` is also the hop limit.
    `csum_start` is the length of the IP header: where the bytes start that the TCP checksum covers.
    IPv4 packets have DF set: path MTU discovery is the stack's (RFC 1191).
    """

    __slots__ = ("_after_ip", "_constant", "_is_ipv4", "_middle", "_pseudo", "csum_start")

    csum_start: int

    def __init__(self, src: bytes, dst: bytes, sport: int, dport: int, *, ttl: int = 64) -> None:
        if len(src) != len(dst) or len(src) not in (4, 16):
            raise ValueError("addresses have 4 or 16 bytes, both the same")
        if not 0 < ttl <= 0xFF or not 0 <= sport <= 0xFFFF or not 0 <= dport <= 0xFFFF:
            raise ValueError("ttl or port out of range")
        self._is_ipv4 = len(src) == 4
        addresses = src + dst
        ports = sport.to_bytes(2, "big") + dport.to_bytes(2, "big")
        self._after_ip = addresses + ports
        self._pseudo = ones_sum(addresses) + 6
        if self._is_ipv4:
            self.csum_start = 20
            self._middle = 0x4000 << 16 | ttl << 8 | 6  # DF, TTL, TCP
            self._constant = 0x4500 + self._middle % 0xFFFF + ones_sum(addresses)
        else:
            self.csum_start = 40
            self._middle = 6 << 8 | ttl
            self._constant = 0

    def build(
        self,
        seq: int,
        ack: int,
        flags: int,
        window: int,
        options: bytes,
        payload_length: int,
        *,
        tos: int = 0,
        identification: int = 0,
        flow_label: int = 0,
    ) -> bytearray:
        """Return IP header, TCP header and `options` for a payload of `payload_length` bytes.

        `seq` and `ack` are in 0..2**32-1, `flags` and `tos` in 0..255, `window` is what goes on
        the wire, `options` comes from `emit_options`; `identification` is used by IPv4,
        `flow_label` by IPv6. The IPv4 header checksum is filled in; the TCP checksum field holds
        the folded sum of the pseudo-header, not complemented: what VIRTIO_NET_HDR_F_NEEDS_CSUM
        wants. ValueError when the packet would be larger than its length field can tell, or a
        number does not fit its field.
        """
        length = len(options)
        if length & 3 or length > 40:
            raise ValueError(f"{length} bytes of TCP options")
        tcp_length = 20 + length + payload_length
        try:
            if self._is_ipv4:
                total = 20 + tcp_length
                header = bytearray(
                    _IPV4_TCP.pack(
                        0x4500 | tos,
                        total,
                        identification,
                        self._middle,
                        -(self._constant + tos + total + identification) % 0xFFFF,
                        self._after_ip,
                        seq,
                        ack,
                        (20 + length << 10) | flags,
                        window,
                        (self._pseudo + tcp_length) % 0xFFFF,
                        0,
                    )
                )
            else:
                header = bytearray(
                    _IPV6_TCP.pack(
                        0x6000_0000 | tos << 20 | flow_label,
                        tcp_length,
                        self._middle,
                        self._after_ip,
                        seq,
                        ack,
                        (20 + length << 10) | flags,
                        window,
                        (self._pseudo + tcp_length) % 0xFFFF,
                        0,
                    )
                )
        except struct.error as error:
            raise ValueError(f"TCP/IP header: {error}") from None
        header += options
        return header

    def finish_checksum(self, header: bytearray, payload: Sequence[Buffer]) -> None:
        """Complete the TCP checksum of a `build` result in place, for the payload in parts.

        The payload must have the length `build` was told. Call it once: it starts from the
        pseudo-header sum in the field.
        """
        start = self.csum_start
        # A TCP header has a whole number of 16-bit words, so the sums simply add up.
        total = ones_sum(header[start:]) + parts_sum(payload)
        _CHECKSUM.pack_into(header, start + CSUM_OFFSET, -total % 0xFFFF)
