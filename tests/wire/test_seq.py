"""`unwrap`: congruent, nearest, right where the numbers wrap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcp.wire.seq import MASK32, MASK64, unwrap


@given(st.integers(0, 2**80), st.integers(-(2**31), 2**31 - 1))
def test_32_bits_round_trip(near: int, delta: int) -> None:
    """Whatever is within half the space comes back as it was."""
    assert unwrap((near + delta) & MASK32, near) == near + delta


@given(st.integers(0, 2**80), st.integers(-(2**63), 2**63 - 1))
def test_64_bits_round_trip(near: int, delta: int) -> None:
    """The data sequence space wraps like the subflow's, later (RFC 8684 §3.3.1)."""
    assert unwrap((near + delta) & MASK64, near, 64) == near + delta


@given(st.integers(0, MASK32), st.integers(0, 2**70), st.integers(1, 32))
def test_any_width(wire: int, near: int, bits: int) -> None:
    """Congruent modulo 2**bits, and nothing congruent is nearer."""
    value = unwrap(wire, near, bits)
    assert (value - wire) % (1 << bits) == 0
    assert abs(value - near) <= 1 << (bits - 1)


@pytest.mark.parametrize(
    ("wire", "near", "value"),
    [
        (0, MASK32, 1 << 32),
        (MASK32, 1 << 32, MASK32),
        (5, 5, 5),
        (MASK32, 0, -1),
        (0x80000000, 0, -0x80000000),  # exactly half: the older one
        (0x7FFFFFFF, 0, 0x7FFFFFFF),
    ],
)
def test_at_the_wrap(wire: int, near: int, value: int) -> None:
    """Spelled-out cases on both sides of 2**32 and of half the space."""
    assert unwrap(wire, near) == value
