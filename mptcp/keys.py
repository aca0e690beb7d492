"""Keys of an MPTCP connection and what is derived from them (RFC 8684 §3.1, §3.2, §3.4.1).

Keys are the 8 bytes in network byte order, as on the wire. Only SHA-256 is defined for version 1
(the H flag). Making keys and nonces is the caller's: entropy is injected.
"""

import hmac
from hashlib import sha256
from typing import Final

KEY_LENGTH: Final = 8
NONCE_LENGTH: Final = 4


def token(key: bytes) -> int:
    """Return the 32-bit token: the most significant 32 bits of SHA-256(key) (RFC 8684 §3.2)."""
    return int.from_bytes(sha256(key).digest()[:4], "big")


def idsn(key: bytes) -> int:
    """Return the initial data sequence number, the least significant 64 bits of SHA-256(key).

    It is the number of the (virtual) SYN: the first byte of data has DSN idsn + 1 (RFC 8684 §3.1).
    """
    return int.from_bytes(sha256(key).digest()[-8:], "big")


def join_hmac(
    local_key: bytes, remote_key: bytes, local_nonce: bytes, remote_nonce: bytes
) -> bytes:
    """Return the 32-byte HMAC that the host owning `local_key` sends in MP_JOIN (RFC 8684 §3.2).

    Keys are 8 bytes, nonces 4. To check the peer's, call it with the peer's as local. Compare with
    `hmac.compare_digest`.
    """
    return hmac.digest(local_key + remote_key, local_nonce + remote_nonce, "sha256")


def synack_hmac(
    local_key: bytes, remote_key: bytes, local_nonce: bytes, remote_nonce: bytes
) -> bytes:
    """Return the leftmost 64 bits of `join_hmac`, for the SYN/ACK."""
    return join_hmac(local_key, remote_key, local_nonce, remote_nonce)[:8]


def ack_hmac(local_key: bytes, remote_key: bytes, local_nonce: bytes, remote_nonce: bytes) -> bytes:
    """Return the leftmost 160 bits of `join_hmac`, for the third ACK."""
    return join_hmac(local_key, remote_key, local_nonce, remote_nonce)[:20]


def add_addr_hmac(
    sender_key: bytes, receiver_key: bytes, address_id: int, address: bytes, port: int | None
) -> bytes:
    """Return the rightmost 64 bits of the HMAC of an ADD_ADDR (RFC 8684 §3.4.1).

    `address` is 4 or 16 bytes; without a port, two zero bytes are hashed in its place.
    """
    message = bytes((address_id,)) + address + (port or 0).to_bytes(2, "big")
    return hmac.digest(sender_key + receiver_key, message, "sha256")[-8:]
