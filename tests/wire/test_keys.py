"""Known answers of RFC 8684 §3.1, §3.2 and §3.4.1."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcp import keys

KA = bytes.fromhex("0102030405060708")
KB = bytes.fromhex("1112131415161718")
RA = bytes.fromhex("a1a2a3a4")
RB = bytes.fromhex("b1b2b3b4")


@pytest.mark.row("I13")
def test_a_linux_trace() -> None:
    """Key, token and IDSN as printed by a Linux host (issue 176 of the kernel's MPTCP tracker)."""
    key = (9186175039591172243).to_bytes(8, "big")
    assert keys.token(key) == 2833190200
    assert keys.idsn(key) == 13562085501921405456


@pytest.mark.row("I13", "J4", "A2")
def test_known_answers() -> None:
    """Values computed from the text of RFC 8684 §3.1, §3.2, §3.4.1."""
    assert (keys.token(KA), keys.idsn(KA)) == (0x66840DDA, 0xF5A101D3D29D6F72)
    assert (keys.token(KB), keys.idsn(KB)) == (0xCCAD45AC, 0x535BEEA38E087C8E)
    # B answers the SYN, so it is local there; A sends the third ACK.
    assert keys.synack_hmac(KB, KA, RB, RA).hex() == "864b40428762fd06"
    assert keys.ack_hmac(KA, KB, RA, RB).hex() == "53037f2899475529844115fd07e665d23d3554fb"
    assert keys.add_addr_hmac(KA, KB, 2, bytes([192, 0, 2, 33]), None).hex() == "22405bc9f152e4b7"


@pytest.mark.row("A2")
def test_port_is_hashed_when_present() -> None:
    """RFC 8684 §3.4.1: the port takes part, as zero when it is absent."""
    address = bytes(range(16))
    absent = keys.add_addr_hmac(KA, KB, 2, address, None)
    assert absent == keys.add_addr_hmac(KA, KB, 2, address, 0)
    assert absent != keys.add_addr_hmac(KA, KB, 2, address, 5001)
    message = b"\x02" + address + (5001).to_bytes(2, "big")
    full = hmac.new(KA + KB, message, hashlib.sha256).digest()
    assert keys.add_addr_hmac(KA, KB, 2, address, 5001) == full[24:]


@pytest.mark.row("J4")
@given(st.binary(min_size=8, max_size=8), st.binary(min_size=8, max_size=8))
def test_truncations(local: bytes, remote: bytes) -> None:
    """RFC 8684 §3.2: leftmost 64 bits in the SYN/ACK, leftmost 160 in the ACK."""
    full = keys.join_hmac(local, remote, RA, RB)
    assert full == hmac.new(local + remote, RA + RB, hashlib.sha256).digest()
    assert keys.synack_hmac(local, remote, RA, RB) == full[:8]
    assert keys.ack_hmac(local, remote, RA, RB) == full[:20]
