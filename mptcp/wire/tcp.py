"""TCP segments on their way in (RFC 9293 §3.1); the way out is `mptcp.wire.tcp_emit`.

`parse_segment` reads a whole header and all options it knows in one pass into a `Segment`, which
holds numbers as on the wire (`mptcp.wire.seq.unwrap` makes them comparable) and the payload as a
view on the packet. Judging any of it is the state machine's business, with three exceptions that
belong to the options themselves: those that mean something in a SYN only (MSS, window scale,
SACK permitted, fast open) are ignored elsewhere, a window scale above 14 counts as 14
(RFC 7323 §2.3), and a malformed option is skipped and counted instead of costing the segment.
"""

import struct
from typing import Final

from mptcp.wire.checksum import ones_sum, pseudo_sum
from mptcp.wire.errors import ChecksumError, ParseError
from mptcp.wire.ip import IpHeader
from mptcp.wire.mptcp_options import Dss, MptcpOption, parse_dss, parse_mptcp_option
from mptcp.wire.tcp_emit import (
    CSUM_OFFSET,
    SACK_PERMITTED,
    HeaderTemplate,
    emit_options,
    fast_open_option,
    mss_option,
    sack_option,
    timestamps_option,
    user_timeout_option,
    window_scale_option,
)

__all__ = [
    "ACK",
    "CSUM_OFFSET",
    "CWR",
    "ECE",
    "FIN",
    "PSH",
    "RST",
    "SACK_PERMITTED",
    "SYN",
    "URG",
    "HeaderTemplate",
    "Segment",
    "emit_options",
    "fast_open_option",
    "flag_names",
    "mss_option",
    "parse_segment",
    "sack_option",
    "timestamps_option",
    "user_timeout_option",
    "window_scale_option",
]

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10
URG: Final = 0x20
ECE: Final = 0x40
CWR: Final = 0x80

_FLAG_NAMES: Final = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")

_TCP = struct.Struct("!HHIIHHHH")
_FOUR = struct.Struct("!IIII")
_THREE = struct.Struct("!III")
_TWO = struct.Struct("!II")
_NOP_NOP_TIMESTAMPS: Final = 0x0101_080A

_NO_PAYLOAD: Final = memoryview(b"")


def flag_names(flags: int) -> str:
    """Return the names of TCP flags, as "SYN|ACK", for people."""
    return "|".join(name for bit, name in enumerate(_FLAG_NAMES) if flags >> bit & 1) or "none"


class Segment:
    """One TCP segment, numbers as on the wire. Mutable: the device layer adds what it knows."""

    __slots__ = (
        "ack",
        "bad_options",
        "dport",
        "dss",
        "dst",
        "fast_open",
        "flags",
        "gso_size",
        "mptcp",
        "mss",
        "payload",
        "sack",
        "sack_permitted",
        "seq",
        "sport",
        "src",
        "tos",
        "ts_ecr",
        "ts_val",
        "urgent",
        "user_timeout",
        "window",
        "wscale",
    )

    mss: int | None
    """Of a SYN; None when absent, and never 0."""
    wscale: int | None
    """Of a SYN, 0..14; None when absent."""
    sack_permitted: bool
    """Of a SYN."""
    ts_val: int
    """TSval of the Timestamps option (RFC 7323 §3), -1 when absent; `ts_ecr` is 0 then."""
    ts_ecr: int
    sack: tuple[tuple[int, int], ...]
    """(left, right) edges of the SACK blocks in their order (RFC 2018 §3); () when none."""
    dss: Dss | None
    """The first DSS option."""
    mptcp: tuple[MptcpOption, ...]
    """The other MPTCP options in their order; () when none."""
    fast_open: bytes | None
    """Of a SYN: the cookie (RFC 7413 §2), b"" for a request; None when absent."""
    user_timeout: int
    """Of the User Timeout option (RFC 5482 §3.3), in seconds; 0 when absent."""
    bad_options: int
    """How many malformed options were skipped, 1 more when the rest could not be read."""
    window: int
    """As on the wire, not scaled."""
    urgent: int
    """The urgent pointer as on the wire, whatever the URG flag."""
    tos: int
    """The TOS or traffic class byte of the IP header."""
    gso_size: int
    """Payload bytes of each segment merged into this one by the device; 0 when it is one."""

    def __init__(
        self,
        src: bytes,
        dst: bytes,
        sport: int,
        dport: int,
        seq: int,
        ack: int,
        flags: int,
        window: int,
        urgent: int = 0,
        payload: memoryview = _NO_PAYLOAD,
        tos: int = 0,
    ) -> None:
        """Make a segment without options; set them and `gso_size` afterwards."""
        self.src = src
        self.dst = dst
        self.sport = sport
        self.dport = dport
        self.seq = seq
        self.ack = ack
        self.flags = flags
        self.window = window
        self.urgent = urgent
        self.payload = payload
        self.tos = tos
        self.mss = None
        self.wscale = None
        self.sack_permitted = False
        self.ts_val = -1
        self.ts_ecr = 0
        self.sack = ()
        self.dss = None
        self.mptcp = ()
        self.fast_open = None
        self.user_timeout = 0
        self.bad_options = 0
        self.gso_size = 0

    def __repr__(self) -> str:
        parts = [
            f"{self.src.hex()}.{self.sport}>{self.dst.hex()}.{self.dport} {flag_names(self.flags)}",
            f"seq={self.seq} ack={self.ack} win={self.window} len={len(self.payload)}",
        ]
        if self.flags & URG:
            parts.append(f"urg={self.urgent}")
        if self.mss is not None:
            parts.append(f"mss={self.mss}")
        if self.wscale is not None:
            parts.append(f"wscale={self.wscale}")
        if self.sack_permitted:
            parts.append("sackOK")
        if self.ts_val >= 0:
            parts.append(f"ts={self.ts_val}/{self.ts_ecr}")
        if self.sack:
            parts.append("sack=" + ",".join(f"{left}-{right}" for left, right in self.sack))
        if self.fast_open is not None:
            parts.append(f"tfo={self.fast_open.hex()}")
        if self.user_timeout:
            parts.append(f"uto={self.user_timeout}")
        if self.dss is not None:
            parts.append(repr(self.dss))
        parts.extend(map(repr, self.mptcp))
        if self.bad_options:
            parts.append(f"bad_options={self.bad_options}")
        return f"Segment({' '.join(parts)})"


def parse_segment(packet: memoryview, ip: IpHeader, *, verify_checksum: bool) -> Segment:
    """Parse the TCP segment of a packet whose header `ip` is. Raises only ParseError.

    ChecksumError when `verify_checksum` and the sum over pseudo-header, header and payload is
    wrong; ParseError for a header that is too short or longer than the packet. The payload is a
    view on `packet`, so it is valid as long as that buffer is not reused.
    """
    offset = ip.offset
    end = ip.end
    if end - offset < 20:
        raise ParseError("shorter than a TCP header")
    sport, dport, seq, ack, offset_flags, window, _, urgent = _TCP.unpack_from(packet, offset)
    payload_at = offset + (offset_flags >> 12 << 2)
    at = offset + 20
    if payload_at < at or payload_at > end:
        raise ParseError("bad TCP data offset")
    src = ip.src
    dst = ip.dst
    if (
        verify_checksum
        and (pseudo_sum(src, dst, 6, end - offset) + ones_sum(packet[offset:end])) % 0xFFFF
    ):
        raise ChecksumError("TCP checksum")
    segment = Segment(
        src,
        dst,
        sport,
        dport,
        seq,
        ack,
        offset_flags & 0xFF,
        window,
        urgent,
        packet[payload_at:end],
        ip.tos,
    )
    if at != payload_at:
        # What every stack sends on an established connection first: NOP NOP TS (RFC 7323
        # appendix A), alone or followed by a DSS.
        if payload_at - at >= 16:
            head, ts_val, ts_ecr, following = _FOUR.unpack_from(packet, at)
            if head == _NOP_NOP_TIMESTAMPS:
                segment.ts_val = ts_val
                segment.ts_ecr = ts_ecr
                at += 12
                size = following >> 16 & 0xFF
                if following & 0xFF00_F000 == 0x1E00_2000 and 4 <= size <= payload_at - at:
                    try:
                        segment.dss = parse_dss(packet, at, size)
                    except ParseError:
                        segment.bad_options = 1
                    at += size
                    while at < payload_at and packet[at] == 1:
                        at += 1
        elif payload_at - at == 12:
            head, ts_val, ts_ecr = _THREE.unpack_from(packet, at)
            if head == _NOP_NOP_TIMESTAMPS:
                segment.ts_val = ts_val
                segment.ts_ecr = ts_ecr
                return segment
        if at != payload_at:
            _parse_options(packet, at, payload_at, segment)
    return segment


def _parse_options(packet: memoryview, at: int, end: int, segment: Segment) -> None:
    """Read the options in packet[at:end] into `segment`."""
    while at < end:
        kind = packet[at]
        if kind == 1:  # NOP
            at += 1
            continue
        if kind == 0:  # end of options
            return
        if at + 1 == end:
            segment.bad_options += 1
            return
        size = packet[at + 1]
        if size < 2 or at + size > end:
            # No telling where the next one starts: give up on the rest, as Linux does.
            segment.bad_options += 1
            return
        if kind == 30:
            try:
                if size > 2 and packet[at + 2] >> 4 == 2:
                    dss = parse_dss(packet, at, size)
                    if segment.dss is None:
                        segment.dss = dss
                else:
                    option = parse_mptcp_option(packet[at : at + size])
                    if option is not None:
                        segment.mptcp += (option,)
            except ParseError:
                segment.bad_options += 1
        elif kind == 5:
            if size < 10 or size & 7 != 2:
                segment.bad_options += 1
            else:
                segment.sack = tuple(_TWO.iter_unpack(packet[at + 2 : at + size]))
        elif kind == 8:
            if size != 10:
                segment.bad_options += 1
            else:
                segment.ts_val, segment.ts_ecr = _TWO.unpack_from(packet, at + 2)
        elif kind == 28:
            if size != 4:
                segment.bad_options += 1
            else:
                value = packet[at + 2] << 8 | packet[at + 3]
                segment.user_timeout = (value & 0x7FFF) * (60 if value & 0x8000 else 1)
        elif kind in (2, 3, 4, 34) and not _parse_syn_option(packet, at, kind, size, segment):
            segment.bad_options += 1
        at += size


def _parse_syn_option(packet: memoryview, at: int, kind: int, size: int, segment: Segment) -> bool:
    """Read an option that belongs in a SYN; return False when it is malformed."""
    if not segment.flags & SYN:
        return True  # RFC 9293 §3.2, RFC 7323 §2.2, RFC 2018 §2: ignored elsewhere
    if kind == 2:
        mss = packet[at + 2] << 8 | packet[at + 3] if size == 4 else 0
        if not mss:
            return False  # Linux ignores an MSS of 0 too: nothing could ever be sent
        segment.mss = mss
    elif kind == 3:
        if size != 3:
            return False
        segment.wscale = min(packet[at + 2], 14)
    elif kind == 4:
        if size != 2:
            return False
        segment.sack_permitted = True
    else:
        cookie = size - 2
        if cookie and (cookie < 4 or cookie > 16 or cookie & 1):
            return False  # RFC 7413 §2
        segment.fast_open = bytes(packet[at + 2 : at + size])
    return True
