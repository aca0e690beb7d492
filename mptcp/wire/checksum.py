"""The Internet checksum (RFC 1071) and the DSS checksum (RFC 8684 §3.3.1).

A *sum* here is a partial ones'-complement sum: any non-negative int, meaningful modulo 0xffff, so
that sums of parts are added with `+`. Only `finish` makes the 16 bits that go on the wire. Since
2**16 == 1 (mod 0xffff), the sum of a buffer is one bignum modulo the constant, which is the fastest
way CPython has; data with its checksum included is right when its sum is 0 modulo 0xffff.
"""

from collections.abc import Iterable
from typing import Final

Buffer = bytes | bytearray | memoryview
"""What the functions take: a contiguous buffer of bytes."""

_from_bytes = int.from_bytes

# The modulo costs about as much per byte as reading the integer, and both work on the whole; so
# larger buffers are read in pieces, which are added (cheap) before the one modulo. Measured.
_PLAIN_MAX: Final = 1024
_QUARTERS_MAX: Final = 16384
_CHUNK: Final = 4096


def ones_sum(data: Buffer) -> int:
    """Return the big-endian 16-bit ones'-complement sum of `data`, in 0..0xfffe.

    An odd last byte counts as if followed by a zero byte.
    """
    length = len(data)
    if length <= _PLAIN_MAX:
        total = _from_bytes(data, "big")
    elif length <= _QUARTERS_MAX:
        # Pieces are cut at even distances from the END, so that an odd length needs one shift only.
        piece = (length >> 3) << 1
        cut = length - piece
        cut2 = cut - piece
        cut3 = cut2 - piece
        total = (
            _from_bytes(data[:cut3], "big")
            + _from_bytes(data[cut3:cut2], "big")
            + _from_bytes(data[cut2:cut], "big")
            + _from_bytes(data[cut:], "big")
        )
    else:
        if not isinstance(data, memoryview):
            data = memoryview(data)
        start = length % _CHUNK
        total = _from_bytes(data[:start], "big")
        for at in range(start, length, _CHUNK):
            total += _from_bytes(data[at : at + _CHUNK], "big")
    if length & 1:
        return (total % 0xFFFF << 8) % 0xFFFF
    return total % 0xFFFF


def combine(*sums: int) -> int:
    """Return the sum of partial sums, in 0..0xffff, and 0 only when all of them are 0.

    Each part but the last must have even length; `parts_sum` is for the others.
    """
    total = sum(sums)
    return total and ((total - 1) % 0xFFFF + 1)


def finish(total: int) -> int:
    """Return the 16-bit checksum to store, 0..0xffff: the complement of the folded sum.

    A sum of 0 means all-zero data, whose checksum is 0xffff; any other multiple of 0xffff gives 0.
    """
    return -total % 0xFFFF if total else 0xFFFF


def pseudo_sum(src: bytes, dst: bytes, protocol: int, length: int) -> int:
    """Return the sum of the pseudo-header of RFC 9293 §3.1 (IPv4) or RFC 8200 §8.1 (IPv6).

    `length` is that of the transport header and payload in bytes. The result is not reduced: it is
    never 0, so that `finish` keeps telling 0 from 0xffff.
    """
    return _from_bytes(src, "big") % 0xFFFF + _from_bytes(dst, "big") % 0xFFFF + protocol + length


def parts_sum(parts: Iterable[Buffer]) -> int:
    """Return the sum of the concatenation of `parts`, in 0..0xfffe, whatever their lengths."""
    total = 0
    odd = False
    for part in parts:
        part_sum = ones_sum(part)
        # A part that starts at an odd offset has its bytes swapped (RFC 1071 §2 (B)).
        total += part_sum << 8 if odd else part_sum
        if len(part) & 1:
            odd = not odd
    return total % 0xFFFF


def dss_checksum(dsn: int, ssn: int, length: int, data_sum: int) -> int:
    """Return the checksum of a data sequence mapping (RFC 8684 §3.3.1).

    `dsn` is always the full 64-bit number, even when the option carries 32 bits of it; `ssn` is the
    relative subflow sequence number, `length` the data-level length as in the option (so including
    a DATA_FIN), and `data_sum` the `ones_sum`/`parts_sum` of the mapped payload.
    """
    return finish(dsn % 0xFFFF + ssn % 0xFFFF + length + data_sum)
