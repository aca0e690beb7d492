"""DSS, the data sequence signal of MPTCP version 1 (RFC 8684 §3.3), subtype 2 of TCP option 30.

It travels with every segment of an MPTCP connection, so it is a plain slotted class, and parser
and emitter look up one precompiled Struct per combination of flags.
"""

import struct
from typing import Final

from mptcp.wire.errors import ParseError

_Buffer = bytes | bytearray | memoryview

# Flags of the DSS option (RFC 8684 §3.3): F m M a A, bits 4..0.
_DATA_FIN: Final = 0x10
_DSN_64: Final = 0x08
_DSN_PRESENT: Final = 0x04
_ACK_64: Final = 0x02
_ACK_PRESENT: Final = 0x01


def _dss_layout(flags: int) -> tuple[int, struct.Struct, struct.Struct]:
    """Return length without checksum, and the Struct after the flags byte without and with one."""
    body = ""
    if flags & _ACK_PRESENT:
        body += "Q" if flags & _ACK_64 else "I"
    if flags & _DSN_PRESENT:
        body += ("Q" if flags & _DSN_64 else "I") + "IH"
    plain = struct.Struct("!" + body)
    return 4 + plain.size, plain, struct.Struct("!" + body + "H")


_DSS_LAYOUTS: Final = [_dss_layout(flags & 0x0F) for flags in range(32)]
_DSS_EMIT: Final = [
    (
        struct.Struct("!BBBB" + plain.format[1:]),
        struct.Struct("!BBBB" + checked.format[1:]),
        length,
    )
    for length, plain, checked in _DSS_LAYOUTS
]


class Dss:
    """DSS, the data sequence signal (RFC 8684 §3.3): a DATA_ACK, a mapping, or both. 4..28 bytes.

    `data_ack` and `dsn` are the numbers on the wire, of 64 or 32 bits as `data_ack_64` and `dsn_64`
    say (both True when the number is absent); None when absent. With a mapping (`dsn` present) go
    `ssn` (relative to the subflow's SYN), `length` (0: infinite mapping), `checksum` (None when the
    option has none) and `data_fin`; without, they are 0, 0, None and False, for an F flag without
    a mapping says nothing.
    """

    __slots__ = (
        "checksum",
        "data_ack",
        "data_ack_64",
        "data_fin",
        "dsn",
        "dsn_64",
        "length",
        "ssn",
    )

    def __init__(
        self,
        data_ack: int | None = None,
        data_ack_64: bool = True,
        dsn: int | None = None,
        dsn_64: bool = True,
        ssn: int = 0,
        length: int = 0,
        checksum: int | None = None,
        data_fin: bool = False,
    ) -> None:
        self.data_ack = data_ack
        self.data_ack_64 = data_ack_64
        self.dsn = dsn
        self.dsn_64 = dsn_64
        self.ssn = ssn
        self.length = length
        self.checksum = checksum
        self.data_fin = data_fin

    def _fields(self) -> tuple[int | None, ...]:
        return (
            self.data_ack,
            self.data_ack_64,
            self.dsn,
            self.dsn_64,
            self.ssn,
            self.length,
            self.checksum,
            self.data_fin,
        )

    def __eq__(self, other: object) -> bool:
        return self._fields() == other._fields() if isinstance(other, Dss) else NotImplemented

    def __repr__(self) -> str:
        parts = []
        if self.data_ack is not None:
            parts.append(f"data_ack={self.data_ack}" + ("" if self.data_ack_64 else " (32)"))
        if self.dsn is not None:
            parts.append(f"dsn={self.dsn}" + ("" if self.dsn_64 else " (32)"))
            parts.append(f"ssn={self.ssn} length={self.length}")
        if self.checksum is not None:
            parts.append(f"checksum={self.checksum:#06x}")
        if self.data_fin:
            parts.append("DATA_FIN")
        return f"Dss({' '.join(parts)})"

    def emit(self) -> bytes:
        """Return the option; ValueError when a number does not fit its form."""
        try:
            data_ack = self.data_ack
            dsn = self.dsn
            if dsn is None:
                if self.data_fin or self.checksum is not None:
                    raise ValueError("DSS: a DATA_FIN or a checksum needs a mapping")
                if data_ack is None:
                    return b"\x1e\x04\x20\x00"
                flags = 3 if self.data_ack_64 else 1
                layout, _, size = _DSS_EMIT[flags]
                return layout.pack(30, size, 0x20, flags, data_ack)
            flags = _DSN_PRESENT | _DSN_64 if self.dsn_64 else _DSN_PRESENT
            if self.data_fin:
                flags |= _DATA_FIN
            checksum = self.checksum
            if data_ack is None:
                plain, checked, size = _DSS_EMIT[flags]
                if checksum is None:
                    return plain.pack(30, size, 0x20, flags, dsn, self.ssn, self.length)
                return checked.pack(30, size + 2, 0x20, flags, dsn, self.ssn, self.length, checksum)
            flags |= 3 if self.data_ack_64 else 1
            plain, checked, size = _DSS_EMIT[flags]
            if checksum is None:
                return plain.pack(30, size, 0x20, flags, data_ack, dsn, self.ssn, self.length)
            return checked.pack(
                30, size + 2, 0x20, flags, data_ack, dsn, self.ssn, self.length, checksum
            )
        except struct.error as error:
            raise ValueError(f"DSS: {error}") from None


def parse_dss(data: _Buffer, offset: int, size: int) -> Dss:
    """Parse the DSS option of `size` bytes at `offset`; the caller has seen its kind and subtype.

    ParseError when the size does not belong to the flags, or `data` ends before.
    """
    if size < 4:
        raise ParseError("DSS: too short")
    try:
        flags = data[offset + 3] & 0x1F
        length, plain, checked = _DSS_LAYOUTS[flags]
        # The two most frequent forms first.
        if flags & 5 == 5:
            if size == length:
                ack, dsn, ssn, mapped = plain.unpack_from(data, offset + 4)
                return Dss(ack, flags & 2 != 0, dsn, flags & 8 != 0, ssn, mapped, None, flags > 15)
            if size == length + 2:
                ack, dsn, ssn, mapped, csum = checked.unpack_from(data, offset + 4)
                return Dss(ack, flags & 2 != 0, dsn, flags & 8 != 0, ssn, mapped, csum, flags > 15)
        elif flags & 1:
            if size == length:
                return Dss(plain.unpack_from(data, offset + 4)[0], flags & 2 != 0)
        elif flags & 4:
            if size == length:
                dsn, ssn, mapped = plain.unpack_from(data, offset + 4)
                return Dss(None, True, dsn, flags & 8 != 0, ssn, mapped, None, flags > 15)
            if size == length + 2:
                dsn, ssn, mapped, csum = checked.unpack_from(data, offset + 4)
                return Dss(None, True, dsn, flags & 8 != 0, ssn, mapped, csum, flags > 15)
        elif size == 4:
            return Dss()
    except (IndexError, struct.error):
        raise ParseError("DSS: truncated") from None
    raise ParseError(f"DSS: length {size} for flags {flags:#x}")
