"""The TCP options of MPTCP version 1 (RFC 8684), kind 30, in every length form.

`parse_mptcp_option` turns a whole option (kind and length included) into a value, and the `emit`
method of a value gives the same bytes back, unpadded; flag bits the RFC reserves are ignored on
receipt and sent as zero, but for D..G of MP_CAPABLE, which the receiver has to judge. A value that
has no form on the wire makes `emit` raise ValueError. `Dss`, which travels with every data segment,
is in `mptcp.wire.dss`.

Keys, nonces and HMACs are `bytes`; tokens and sequence numbers are the ints on the wire.
"""

import struct
from dataclasses import KW_ONLY, dataclass
from typing import Final

from mptcp.wire.dss import Dss as Dss
from mptcp.wire.dss import parse_dss as parse_dss
from mptcp.wire.errors import ParseError

KIND_MPTCP: Final = 30

MP_CAPABLE: Final = 0
MP_JOIN: Final = 1
DSS: Final = 2
ADD_ADDR: Final = 3
REMOVE_ADDR: Final = 4
MP_PRIO: Final = 5
MP_FAIL: Final = 6
MP_FASTCLOSE: Final = 7
MP_TCPRST: Final = 8

# Reason codes of MP_TCPRST (RFC 8684 §3.6).
RST_UNSPECIFIED: Final = 0
RST_MPTCP_SPECIFIC: Final = 1
RST_LACK_OF_RESOURCES: Final = 2
RST_ADMIN_PROHIBITED: Final = 3
RST_TOO_MUCH_OUTSTANDING: Final = 4
RST_UNACCEPTABLE_PERFORMANCE: Final = 5
RST_MIDDLEBOX: Final = 6

_Buffer = bytes | bytearray | memoryview

_JOIN_SYN = struct.Struct("!BBBBI4s")
_FAIL = struct.Struct("!BBBBQ")


def _sized(name: str, value: bytes, length: int) -> bytes:
    if len(value) != length:
        raise ValueError(f"{name} must have {length} bytes, not {len(value)}")
    return value


def _byte(name: str, value: int) -> int:
    if not 0 <= value <= 0xFF:
        raise ValueError(f"{name} {value} does not fit in a byte")
    return value


@dataclass(slots=True)
class MpCapable:
    """MP_CAPABLE (RFC 8684 §3.1): SYN 4 bytes, SYN/ACK 12, ACK 20, with first data 22 or 24.

    The form follows from what is present: no key, the sender's key, both keys, a data length (of
    the first mapping), a checksum (which needs the data length). Flags: A `checksum_required`,
    B `extensibility`, C `no_join_initial`, D..G in `other_flags` (a mask of 0x1e, as on the wire),
    H `hmac_sha256`.
    """

    sender_key: bytes | None = None
    receiver_key: bytes | None = None
    data_length: int | None = None
    checksum: int | None = None
    _: KW_ONLY
    version: int = 1
    checksum_required: bool = False
    extensibility: bool = False
    no_join_initial: bool = False
    hmac_sha256: bool = True
    other_flags: int = 0

    def emit(self) -> bytes:
        """Return the option; ValueError for a combination of fields that has no form."""
        flags = (
            self.checksum_required << 7
            | self.extensibility << 6
            | self.no_join_initial << 5
            | (self.other_flags & 0x1E)
            | self.hmac_sha256
        )
        body = bytes((MP_CAPABLE << 4 | self.version & 0xF, flags))
        present = [
            value is not None
            for value in (self.sender_key, self.receiver_key, self.data_length, self.checksum)
        ]
        if present != sorted(present, reverse=True):
            raise ValueError("MP_CAPABLE: a field is present without the ones before it")
        if self.sender_key is not None:
            body += _sized("key", self.sender_key, 8)
        if self.receiver_key is not None:
            body += _sized("key", self.receiver_key, 8)
        for number in (self.data_length, self.checksum):
            if number is not None:
                if not 0 <= number <= 0xFFFF:
                    raise ValueError(f"MP_CAPABLE: {number} does not fit in 16 bits")
                body += number.to_bytes(2, "big")
        return bytes((KIND_MPTCP, 2 + len(body))) + body


@dataclass(slots=True)
class MpJoinSyn:
    """MP_JOIN of a SYN, 12 bytes (RFC 8684 §3.2). `token` is the receiver's, `nonce` 4 bytes."""

    backup: bool
    address_id: int
    token: int
    nonce: bytes

    def emit(self) -> bytes:
        """Return the option; ValueError when a field does not fit."""
        _byte("address id", self.address_id)
        _sized("nonce", self.nonce, 4)
        if not 0 <= self.token <= 0xFFFF_FFFF:
            raise ValueError("MP_JOIN: the token does not fit in 32 bits")
        first = MP_JOIN << 4 | self.backup
        return _JOIN_SYN.pack(KIND_MPTCP, 12, first, self.address_id, self.token, self.nonce)


@dataclass(slots=True)
class MpJoinSynAck:
    """MP_JOIN of a SYN/ACK, 16 bytes: `hmac` is the leftmost 64 bits, `nonce` 4 bytes."""

    backup: bool
    address_id: int
    hmac: bytes
    nonce: bytes

    def emit(self) -> bytes:
        """Return the option; ValueError when a field does not fit."""
        head = (KIND_MPTCP, 16, MP_JOIN << 4 | self.backup, _byte("address id", self.address_id))
        return bytes(head) + _sized("HMAC", self.hmac, 8) + _sized("nonce", self.nonce, 4)


@dataclass(slots=True)
class MpJoinAck:
    """MP_JOIN of the third ACK, 24 bytes: `hmac` is the leftmost 160 bits."""

    hmac: bytes

    def emit(self) -> bytes:
        """Return the option; ValueError when the HMAC does not have 20 bytes."""
        return bytes((KIND_MPTCP, 24, MP_JOIN << 4, 0)) + _sized("HMAC", self.hmac, 20)


@dataclass(slots=True)
class AddAddr:
    """ADD_ADDR (RFC 8684 §3.4.1): 16/18 bytes for IPv4, 28/30 for IPv6; 8/10/20/22 as an echo.

    `address` is 4 or 16 bytes, `hmac` the rightmost 64 bits, which an echo does not have.
    """

    address_id: int
    address: bytes
    port: int | None = None
    hmac: bytes | None = None
    echo: bool = False

    def emit(self) -> bytes:
        """Return the option; ValueError for a bad address, or unless it has either HMAC or E."""
        if len(self.address) not in (4, 16):
            raise ValueError("ADD_ADDR: an address has 4 or 16 bytes")
        body = bytes((ADD_ADDR << 4 | self.echo, _byte("address id", self.address_id)))
        body += self.address
        if self.port is not None:
            if not 0 <= self.port <= 0xFFFF:
                raise ValueError(f"ADD_ADDR: port {self.port}")
            body += self.port.to_bytes(2, "big")
        if self.echo == (self.hmac is not None):
            raise ValueError("ADD_ADDR: an advertisement needs an HMAC, an echo has none")
        if self.hmac is not None:
            body += _sized("HMAC", self.hmac, 8)
        return bytes((KIND_MPTCP, 2 + len(body))) + body


@dataclass(slots=True)
class RemoveAddr:
    """REMOVE_ADDR (RFC 8684 §3.4.2): 3 + n bytes, n >= 1 address ids of 0..255."""

    address_ids: tuple[int, ...]

    def emit(self) -> bytes:
        """Return the option; ValueError without ids, or for more than fit in the TCP options."""
        if not 1 <= len(self.address_ids) <= 37:
            raise ValueError("REMOVE_ADDR: 1 to 37 address ids")
        head = (KIND_MPTCP, 3 + len(self.address_ids), REMOVE_ADDR << 4)
        return bytes((*head, *self.address_ids))


@dataclass(slots=True)
class MpPrio:
    """MP_PRIO (RFC 8684 §3.3.8), 3 bytes: the sender wants this subflow as a backup, or not."""

    backup: bool

    def emit(self) -> bytes:
        """Return the option."""
        return bytes((KIND_MPTCP, 3, MP_PRIO << 4 | self.backup))


@dataclass(slots=True)
class MpFail:
    """MP_FAIL (RFC 8684 §3.7), 12 bytes: a mapping that starts at this 64-bit DSN failed."""

    dsn: int

    def emit(self) -> bytes:
        """Return the option; ValueError when the DSN is not a 64-bit number."""
        if not 0 <= self.dsn <= 0xFFFF_FFFF_FFFF_FFFF:
            raise ValueError("MP_FAIL: the DSN does not fit in 64 bits")
        return _FAIL.pack(KIND_MPTCP, 12, MP_FAIL << 4, 0, self.dsn)


@dataclass(slots=True)
class MpFastclose:
    """MP_FASTCLOSE (RFC 8684 §3.5), 12 bytes, with the key of the host it is sent to."""

    receiver_key: bytes

    def emit(self) -> bytes:
        """Return the option; ValueError when the key does not have 8 bytes."""
        return bytes((KIND_MPTCP, 12, MP_FASTCLOSE << 4, 0)) + _sized("key", self.receiver_key, 8)


@dataclass(slots=True)
class MpTcprst:
    """MP_TCPRST (RFC 8684 §3.6), 4 bytes: why a subflow is reset; `transient` is the T flag."""

    reason: int
    transient: bool = False

    def emit(self) -> bytes:
        """Return the option; ValueError when the reason is not in 0..255."""
        reason = _byte("reason", self.reason)
        return bytes((KIND_MPTCP, 4, MP_TCPRST << 4 | self.transient, reason))


MptcpOption = (
    MpCapable
    | MpJoinSyn
    | MpJoinSynAck
    | MpJoinAck
    | Dss
    | AddAddr
    | RemoveAddr
    | MpPrio
    | MpFail
    | MpFastclose
    | MpTcprst
)


def parse_mptcp_option(option: _Buffer) -> MptcpOption | None:
    """Parse one whole option, kind and length included; raises only ParseError.

    None for a subtype that is experimental or unknown, which is to be ignored. The form of MP_JOIN
    is told by its length; whether it fits the segment's flags is the caller's to judge.
    """
    size = len(option)
    if size < 3 or option[0] != KIND_MPTCP or option[1] != size:
        raise ParseError("not a whole MPTCP option")
    subtype = option[2] >> 4
    if subtype > MP_TCPRST:
        return None
    return _PARSERS[subtype](bytes(option), size)


def _parse_capable(option: bytes, size: int) -> MpCapable:
    if size not in (4, 12, 20, 22, 24):
        raise ParseError(f"MP_CAPABLE: length {size}")
    flags = option[3]
    return MpCapable(
        option[4:12] if size >= 12 else None,
        option[12:20] if size >= 20 else None,
        int.from_bytes(option[20:22], "big") if size >= 22 else None,
        int.from_bytes(option[22:24], "big") if size == 24 else None,
        version=option[2] & 0xF,
        checksum_required=flags & 0x80 != 0,
        extensibility=flags & 0x40 != 0,
        no_join_initial=flags & 0x20 != 0,
        hmac_sha256=flags & 0x01 != 0,
        other_flags=flags & 0x1E,
    )


def _parse_join(option: bytes, size: int) -> MpJoinSyn | MpJoinSynAck | MpJoinAck:
    backup = option[2] & 1 != 0
    if size == 12:
        return MpJoinSyn(backup, option[3], int.from_bytes(option[4:8], "big"), option[8:])
    if size == 16:
        return MpJoinSynAck(backup, option[3], option[4:12], option[12:])
    if size == 24:
        return MpJoinAck(option[4:])
    raise ParseError(f"MP_JOIN: length {size}")


def _parse_add_addr(option: bytes, size: int) -> AddAddr:
    echo = option[2] & 1 != 0
    body = size if echo else size - 8
    if body not in (8, 10, 20, 22):
        raise ParseError(f"ADD_ADDR: length {size}")
    end = 8 if body < 20 else 20
    port = int.from_bytes(option[end : end + 2], "big") if body > end else None
    return AddAddr(option[3], option[4:end], port, None if echo else option[body:], echo)


def _parse_remove_addr(option: bytes, size: int) -> RemoveAddr:
    if size < 4:
        raise ParseError("REMOVE_ADDR without an address id")
    return RemoveAddr(tuple(option[3:]))


def _parse_prio(option: bytes, size: int) -> MpPrio:
    if size != 3:
        raise ParseError(f"MP_PRIO: length {size}")
    return MpPrio(option[2] & 1 != 0)


def _parse_fail(option: bytes, size: int) -> MpFail:
    if size != 12:
        raise ParseError(f"MP_FAIL: length {size}")
    return MpFail(int.from_bytes(option[4:], "big"))


def _parse_fastclose(option: bytes, size: int) -> MpFastclose:
    if size != 12:
        raise ParseError(f"MP_FASTCLOSE: length {size}")
    return MpFastclose(option[4:])


def _parse_tcprst(option: bytes, size: int) -> MpTcprst:
    if size != 4:
        raise ParseError(f"MP_TCPRST: length {size}")
    return MpTcprst(option[3], option[2] & 1 != 0)


def _parse_whole_dss(option: bytes, size: int) -> Dss:
    return parse_dss(option, 0, size)


_PARSERS: Final = (
    _parse_capable,
    _parse_join,
    _parse_whole_dss,
    _parse_add_addr,
    _parse_remove_addr,
    _parse_prio,
    _parse_fail,
    _parse_fastclose,
    _parse_tcprst,
)
