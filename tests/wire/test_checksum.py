"""Checksums against a plain reading of RFC 1071, scapy, and RFC 8684 §3.3.1."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import checksum as scapy_checksum

from mptcp.wire.checksum import combine, dss_checksum, finish, ones_sum, parts_sum, pseudo_sum


def slow_checksum(data: bytes) -> int:
    """RFC 1071 §1, word by word."""
    if len(data) & 1:
        data += b"\0"
    total = 0
    for (word,) in struct.iter_unpack("!H", data):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


# Sizes on both sides of each change of method, odd and even.
_SIZES = (0, 1, 2, 19, 20, 1023, 1024, 1025, 1026, 1460, 2921, 16383, 16384, 16385, 20481, 65535)


@pytest.mark.parametrize("size", _SIZES)
@pytest.mark.parametrize("fill", [0x00, 0xFF, None])
def test_sizes(size: int, fill: int | None) -> None:
    """Every way of summing gives the same, as bytes and as a view."""
    data = bytes(i * i * 31 >> 3 & 0xFF for i in range(size)) if fill is None else bytes([fill])
    data = data if fill is None else data * size
    assert 0 <= ones_sum(data) < 0xFFFF
    assert ones_sum(memoryview(data)) == ones_sum(bytearray(data)) == ones_sum(data)
    # All-zero and all-one sums are the same number modulo 0xffff; both checksums verify.
    assert finish(ones_sum(data)) % 0xFFFF == slow_checksum(data) % 0xFFFF
    assert slow_checksum(data) == scapy_checksum(data)


@given(st.binary(max_size=5000))
def test_any_data(data: bytes) -> None:
    """Data followed by its checksum sums to zero."""
    checksum = finish(ones_sum(data))
    padded = data + b"\0" * (len(data) & 1)
    assert ones_sum(padded + checksum.to_bytes(2, "big")) == 0
    assert checksum % 0xFFFF == slow_checksum(data) % 0xFFFF


@given(st.lists(st.binary(max_size=9)))
def test_parts(parts: list[bytes]) -> None:
    """Parts of odd length in the middle swap the bytes of what follows (RFC 1071 §2 (B))."""
    assert parts_sum(parts) == ones_sum(b"".join(parts))


@given(st.lists(st.integers(0, 1 << 40)))
def test_combine_and_finish(sums: list[int]) -> None:
    """Folding keeps the value, and keeps zero apart from 0xffff."""
    folded = combine(*sums)
    assert 0 <= folded <= 0xFFFF
    assert folded % 0xFFFF == sum(sums) % 0xFFFF
    assert (folded == 0) == (sum(sums) == 0)
    assert finish(folded) == finish(sum(sums)) == folded ^ 0xFFFF


@pytest.mark.parametrize("size", [4, 16])
def test_pseudo_header(size: int) -> None:
    """RFC 9293 §3.1 and RFC 8200 §8.1: addresses, zero, protocol, length."""
    src, dst = bytes(range(1, size + 1)), bytes(range(100, 100 + size))
    if size == 4:
        header = src + dst + struct.pack("!BBH", 0, 6, 1234)
    else:
        header = src + dst + struct.pack("!IHBB", 1234, 0, 0, 6)
    assert finish(pseudo_sum(src, dst, 6, 1234)) == slow_checksum(header)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(1, 65535), st.binary())
def test_dss_checksum(dsn: int, ssn: int, length: int, data: bytes) -> None:
    """RFC 8684 §3.3.1: pseudo-header of DSN, subflow sequence number, length and zeros."""
    header = struct.pack("!QIHH", dsn, ssn, length, 0)
    assert dss_checksum(dsn, ssn, length, parts_sum([data])) == slow_checksum(header + data)


def test_dss_checksum_of_a_bare_data_fin() -> None:
    """RFC 8684 §3.3.3: SSN 0, length 1, no data; by hand: 0x0000 0001 0002 0003 + 0001."""
    assert dss_checksum(0x0000_0001_0002_0003, 0, 1, 0) == 0xFFFF - 7
