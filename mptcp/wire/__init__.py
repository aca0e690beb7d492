"""Bytes <-> values: IP, TCP, MPTCP options, ICMP, checksums, fragments. Pure functions, no state.

Rules of this package: no I/O, clock, randomness or logging; addresses are raw `bytes` of length
4 or 16; a parser raises only `ParseError`, an emitter raises `ValueError` for values that have no
form on the wire. The per-packet objects (`IpHeader`, `Segment`, `Dss`) are plain slotted classes
because creating a frozen dataclass costs more than reading the whole header.
"""

from mptcp.wire.errors import ChecksumError, ParseError

__all__ = ["ChecksumError", "ParseError"]
