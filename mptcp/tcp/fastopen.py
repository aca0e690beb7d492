"""TCP Fast Open (RFC 7413): data in the SYN, for peers that have proved their address before.

Three parts. `CookieKeys` makes and checks a server's cookies: a MAC of the client's address, with
a key that changes with time; the key before is good too. `CookieCache` is what a client remembers
of servers: cookies, their MSS, and where Fast Open does not work. `ClientFastOpen` and
`ServerFastOpen` are what one connection keeps during its handshake.

A client's SYN data stays at the front of the send queue until a SYN/ACK acknowledges it; what was
not acknowledged is then sent like any other data (RFC 7413 §4.2.2): there is nothing to
resend and no loss to react to. With MPTCP it lies outside the data sequence space and before it
(RFC 8684 appendix B, erratum 6609): the byte after it has DSN IDSN + 1 and SSN 1.

Invariants
  * Fast Open is tried with the first SYN only; a repeated SYN is a plain one (RFC 7413 §4.1.3.1).
  * The cache never holds more than its capacity; the least recently used goes first.
"""

from __future__ import annotations

from hashlib import blake2s
from hmac import compare_digest
from typing import TYPE_CHECKING, Final

from mptcp.tcp.handshake import peer_mss
from mptcp.wire.tcp import SACK_PERMITTED, Segment, fast_open_option
from mptcp.wire.tcp_emit import MAX_OPTIONS

if TYPE_CHECKING:
    from mptcp.tcp.connection import TcpConnection

COOKIE_LENGTH: Final = 8
"""Bytes of our cookies (RFC 7413 §4.1.1 allows 4 to 16)."""
MAX_DOUBLINGS: Final = 6
"""A path that loses SYNs with data is left alone for up to 2^6 times the first wait."""
RESET_HOLD_US: Final = 60_000_000
"""RFC 7413 §5.1: a request that was reset counts as pending for so long, or an attacker could use
resets to have the next forged one accepted at once (the value is Linux's)."""
_TIMESTAMPS: Final = b"\x01\x01\x08"
"""How `timestamps_option` begins."""


class CookieKeys:
    """A server's cookies (RFC 7413 §4.1.2)."""

    __slots__ = ("_period_us", "_secret")

    def __init__(self, secret: bytes, period_us: int) -> None:
        """A new key every `period_us`, derived from `secret` (16 to 32 bytes) and the time."""
        self._secret = secret
        self._period_us = period_us

    def cookie(self, address: bytes, now: int) -> bytes:
        """The cookie of a client."""
        return self._make(address, now // self._period_us)

    def check(self, address: bytes, cookie: bytes, now: int) -> int:
        """0: not ours or too old. 1: of the current key. 2: of the key before, good as well."""
        period = now // self._period_us
        if compare_digest(cookie, self._make(address, period)):
            return 1
        if compare_digest(cookie, self._make(address, period - 1)):
            return 2
        return 0

    def _make(self, address: bytes, period: int) -> bytes:
        message = address + (period & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "big")
        return blake2s(
            message, digest_size=COOKIE_LENGTH, key=self._secret, person=b"fastopen"
        ).digest()


class _Entry:
    __slots__ = ("cookie", "losses", "mss", "retry_at")

    def __init__(self) -> None:
        self.cookie = b""
        self.mss = 0
        self.losses = 0
        """SYNs with data that were lost in a row while plain ones came through."""
        self.retry_at = 0
        """Before this time Fast Open is not tried."""


class CookieCache:
    """What a client knows of servers, by address (RFC 7413 §4.1.3)."""

    __slots__ = ("_capacity", "_entries", "_retry_us")

    def __init__(self, capacity: int, retry_us: int) -> None:
        """`retry_us`: how long a server is left alone after the first failure."""
        self._capacity = capacity
        self._retry_us = retry_us
        self._entries: dict[bytes, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def look_up(self, address: bytes, now: int) -> tuple[bytes, int] | None:
        """(cookie, MSS) for the next SYN; the cookie is b"" to ask for one, None: a plain SYN."""
        entry = self._entries.pop(address, None)
        if entry is None:
            return b"", 0
        self._entries[address] = entry  # the most recently used is last
        if now < entry.retry_at:
            return None
        return entry.cookie, entry.mss

    def learn(self, address: bytes, cookie: bytes, mss: int) -> None:
        """The server has given a cookie."""
        entry = self._touch(address)
        entry.cookie = cookie
        entry.mss = mss

    def worked(self, address: bytes) -> None:
        """The server has taken data from a SYN."""
        entry = self._entries.get(address)
        if entry is not None:
            entry.losses = 0

    def failed(self, address: bytes, now: int) -> None:
        """RFC 7413 §4.1.3.1: Fast Open did not work with this server, or not on the way to it."""
        entry = self._touch(address)
        entry.retry_at = now + (self._retry_us << min(entry.losses, MAX_DOUBLINGS))
        entry.losses += 1

    def _touch(self, address: bytes) -> _Entry:
        entry = self._entries.pop(address, None) or _Entry()
        while self._entries and len(self._entries) >= self._capacity:
            del self._entries[next(iter(self._entries))]
        if self._capacity:
            self._entries[address] = entry
        return entry


class ClientFastOpen:
    """Fast Open of one active open, until the SYN/ACK."""

    __slots__ = ("_cache", "_cookie", "_mss", "asked", "sent", "tried")

    def __init__(self, cache: CookieCache, address: bytes, now: int) -> None:
        known = cache.look_up(address, now)
        self._cache = cache
        self._cookie, self._mss = known or (b"", 0)
        self.tried = known is None
        """The SYN with the option has gone, or none is to go."""
        self.asked = False
        """The first SYN had the option."""
        self.sent = 0
        """Bytes of data in the SYN."""

    def option(self) -> bytes:
        """The option of the next SYN, b"" for none."""
        return b"" if self.tried else fast_open_option(self._cookie)

    def syn_data(self, conn: TcpConnection, options: int) -> list[memoryview]:
        """The data for the SYN that leaves now with `options` bytes of options."""
        if self.tried:
            return []
        self.tried = self.asked = True
        if not self._cookie:
            conn.host.counters["TcpExtTCPFastOpenCookieReqd"] += 1
            return []
        # RFC 7413 §4.2.2: as much as the server's MSS lets through, and the path to it.
        limit = min(self._mss, conn.mss_limit) - options
        parts = conn.peek_syn_data(limit) if limit > 0 else []
        self.sent = sum(map(len, parts))
        return parts

    def answered(self, conn: TcpConnection, seg: Segment, acked: int, now: int) -> None:
        """The SYN/ACK has come and acknowledges `acked` bytes of the SYN's data."""
        counters = conn.host.counters
        if seg.fast_open:
            self._cache.learn(conn.remote, seg.fast_open, peer_mss(seg))
        if acked:
            self._cache.worked(conn.remote)
            conn.syn_data_acked(acked)
            counters["TcpExtTCPFastOpenActive"] += 1
            return
        if self.sent:
            counters["TcpExtTCPFastOpenActiveFail"] += 1
        if seg.fast_open or not self.asked:
            return  # with a new cookie the next try is a better one
        if conn.snd.timeouts:
            counters["TcpExtTCPFastOpenBlackhole"] += 1
        if self.sent or conn.snd.timeouts:
            self._cache.failed(conn.remote, now)

    def gave_up(self, conn: TcpConnection, now: int) -> None:
        """No SYN/ACK has come, or an ICMP error (§4.1.3.1 counts both)."""
        if self.asked:
            self._cache.failed(conn.remote, now)


class ServerFastOpen:
    """Fast Open of one passive open, until the first SYN/ACK has gone."""

    __slots__ = ("_cookie",)

    def __init__(self, cookie: bytes) -> None:
        self._cookie = cookie

    def option(self) -> bytes:
        """The cookie, for one SYN/ACK: what may have got that lost is left out of the next."""
        cookie, self._cookie = self._cookie, b""
        return fast_open_option(cookie) if cookie else b""

    def syn_data(self, conn: TcpConnection, options: int) -> list[memoryview]:
        """Ours waits for the SYN/ACK to be on its way."""
        return []

    def answered(self, conn: TcpConnection, seg: Segment, acked: int, now: int) -> None:
        """There is no SYN/ACK to a SYN/ACK."""

    def gave_up(self, conn: TcpConnection, now: int) -> None:
        """A server has nothing to learn from it."""


def add_fast_open(conn: TcpConnection, options: list[bytes], answer: bool) -> list[bytes]:
    """The options of a SYN or SYN/ACK with Fast Open's added, where it has one.

    Where room is short SACK-permitted goes into the padding of the timestamps, and where that is
    not enough there are no timestamps on this connection (RFC 8684 appendix B.1). An option that
    does not fit even so is left out.
    """
    assert conn.fast_open is not None
    option = conn.fast_open.option()
    if not option:
        return options
    more = [*options, option]
    if _size(more) > MAX_OPTIONS:
        stamps = [item for item in more if item[:3] == _TIMESTAMPS]
        if stamps and SACK_PERMITTED in more:
            more = [item for item in more if item not in (SACK_PERMITTED, stamps[0])]
            more.append(SACK_PERMITTED + stamps[0][2:])
    if _size(more) > MAX_OPTIONS:
        more = [item for item in [*options, option] if item[:3] != _TIMESTAMPS]
        if _size(more) > MAX_OPTIONS:
            return options
        if answer:
            conn.ts_ok = False
    return more


def _size(options: list[bytes]) -> int:
    return sum(len(option) + 3 & ~3 for option in options)


def accept_early(conn: TcpConnection, seg: Segment, now: int) -> None:
    """RFC 7413 §4.2.2: the cookie is good: take the SYN's data, let the server answer.

    `conn` is in SYN-RECEIVED and stays there until the ACK of its SYN/ACK.
    """
    payload = seg.payload[: conn.receive_window()]
    conn.early = True
    conn.rcv_nxt += len(payload)
    conn.rcv_adv = max(conn.rcv_adv, conn.rcv_nxt)
    conn.bytes_received += len(payload)
    conn.syn_data_in = len(payload)
    conn.on_early_open(payload, now)
