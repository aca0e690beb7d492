"""Sequence numbers: the one place where they wrap.

Inside the stack a sequence number is an unbounded int, so that comparison is `<` and ranges are
ordinary; on the wire it is that int modulo 2**32 (RFC 9293 §3.4) or modulo 2**64 (RFC 8684 §3.3).
Emitting is `value & MASK32`; parsing is `unwrap(wire, near)`.
"""

from typing import Final

MASK32: Final = 0xFFFF_FFFF
MASK64: Final = 0xFFFF_FFFF_FFFF_FFFF

_HALF32: Final = 0x8000_0000


def unwrap(wire: int, near: int, bits: int = 32) -> int:
    """Return the int congruent to `wire` modulo 2**bits that is nearest to `near`.

    `near` is any unbounded int, usually the next expected number; the result lies in
    [near - 2**(bits-1), near + 2**(bits-1)) and is negative only when `near` is small. At exactly
    half the space the older number is chosen: a segment that far off is outside every window.
    """
    if bits == 32:
        return near + ((wire - near + _HALF32) & MASK32) - _HALF32
    half = 1 << (bits - 1)
    return near + ((wire - near + half) & ((1 << bits) - 1)) - half
