"""SYN cookies: a SYN/ACK that keeps no state, and the ACK that brings it back (RFC 4987 §3.6).

The server's initial sequence number says all that must be remembered of a SYN, in Bernstein's
layout; relative to the client's ISN it is

    31     27 26   24 23                                0
    +--------+-------+-----------------------------------+
    | t % 32 |  MSS  |  MAC(secret, flow, client ISN, t) |      t counts periods of 64 s
    +--------+-------+-----------------------------------+

The options a 32-bit number has no room for go where the client returns them: into the low bits of
the Timestamps option's TSval, when the client offers timestamps (the layout is Linux's). Without
them a connection made from a cookie has no window scaling and no SACK.

Of the 2^32 numbers a blind attacker may guess for a flow, 16 are good at any time (two periods,
eight MSS values): one guess in 2^28.
"""

from __future__ import annotations

from bisect import bisect_right
from hashlib import blake2s
from typing import Final

PERIOD_US: Final = 64_000_000
"""Length of a period."""
PERIODS: Final = 2
"""A cookie is good in the period of its making and in the next: for 64 to 128 s, which is longer
than a peer repeats the ACK of a SYN/ACK that it has seen."""

MSS_VALUES: Final = (88, 536, 1220, 1300, 1400, 1440, 1460, 8960)
"""What the three bits stand for; an MSS in between is remembered as the next smaller one."""

_MAC_BYTES: Final = 3
_MAC_BITS: Final = 8 * _MAC_BYTES
_MAC_MASK: Final = (1 << _MAC_BITS) - 1
_PERIOD_MASK: Final = 31
_MASK32: Final = 0xFFFFFFFF

OPTION_BITS: Final = 6
"""Low bits of TSval that hold options: 4 for the window scale, then SACK-permitted, then ECN."""
_OPTION_MASK: Final = (1 << OPTION_BITS) - 1
_NO_WSCALE: Final = 15
_SACK: Final = 1 << 4
_ECN: Final = 1 << 5


class SynCookies:
    """The cookies of one host. Its only state is when the last one was sent."""

    __slots__ = ("_digest", "_digested", "_keyed", "sent_at")

    def __init__(self, secret: bytes) -> None:
        """`secret` is 16 to 32 bytes that nobody else knows."""
        self._keyed = blake2s(digest_size=_MAC_BYTES + 8, key=secret, person=b"syncooki")
        self._digested = b""
        self._digest = b""
        self.sent_at: int | None = None
        """Time of the last cookie, µs; None before the first."""

    def make(self, flow: bytes, irs: int, mss: int, now: int) -> int:
        """The ISN for the SYN/ACK: `flow` names the connection, `irs` is the SYN's number."""
        self.sent_at = now
        index = max(0, bisect_right(MSS_VALUES, mss) - 1)
        period = now // PERIOD_US
        high = (period & _PERIOD_MASK) << 3 | index
        return (irs + (high << _MAC_BITS | self._mac(flow, irs, period))) & _MASK32

    def recent(self, now: int) -> bool:
        """Whether an ACK that comes now can answer a cookie of ours."""
        return self.sent_at is not None and now - self.sent_at < PERIODS * PERIOD_US

    def check(self, flow: bytes, irs: int, cookie: int, now: int) -> int | None:
        """The MSS that `cookie`, an ISN that was acknowledged, stands for; None for no cookie."""
        value = (cookie - irs) & _MASK32
        current = now // PERIOD_US
        for period in range(current, current - PERIODS, -1):
            if period & _PERIOD_MASK == value >> 27 and value & _MAC_MASK == self._mac(
                flow, irs, period
            ):
                return MSS_VALUES[value >> _MAC_BITS & 7]
        return None

    def key(self, flow: bytes, irs: int, cookie: int, now: int) -> bytes:
        """Eight bytes that only this host can make, for a cookie that is good `now`.

        RFC 8684 §3.1 wants a key hard to guess, and a stateless server to know it again.
        """
        current = now // PERIOD_US
        period = current - (current - ((cookie - irs & _MASK32) >> 27) & _PERIOD_MASK)
        return self._secrets(flow, irs, period)[_MAC_BYTES:]

    def _mac(self, flow: bytes, irs: int, period: int) -> int:
        return int.from_bytes(self._secrets(flow, irs, period)[:_MAC_BYTES], "big")

    def _secrets(self, flow: bytes, irs: int, period: int) -> bytes:
        """MAC and key of a SYN. The last are kept: under a flood the two are asked for in turn."""
        message = flow + irs.to_bytes(4, "big") + (period & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "big")
        if message != self._digested:
            hashed = self._keyed.copy()
            hashed.update(message)
            self._digested = message
            self._digest = hashed.digest()
        return self._digest


def encode_options(ts_val: int, wscale: int | None, sack: bool, ecn: bool) -> int:
    """The TSval nearest below `ts_val` whose low bits tell the options of the SYN.

    `wscale` is the client's shift, 0..14, None when it offered none. The clock the client sees runs
    behind by at most 63 ticks and so does not go back when the connection has it from then on.
    """
    bits = _NO_WSCALE if wscale is None else min(wscale, 14)
    if sack:
        bits |= _SACK
    if ecn:
        bits |= _ECN
    value = (ts_val & ~_OPTION_MASK) | bits
    if value > ts_val:
        value -= 1 << OPTION_BITS
    return value & _MASK32


def decode_options(ts_ecr: int) -> tuple[int | None, bool, bool]:
    """(window scale or None, SACK-permitted, ECN) from an echoed TSval."""
    shift = ts_ecr & 15
    return (None if shift == _NO_WSCALE else shift, bool(ts_ecr & _SACK), bool(ts_ecr & _ECN))
