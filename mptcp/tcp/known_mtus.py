"""What the host knows of MTUs: common sizes, and the cache of paths that carry less (RFC 1191).

Sizes are whole packets, IP header included. How a connection uses it is `pmtu`'s.
"""

from __future__ import annotations

from typing import Final

from mptcp.config import SECOND

RAISE_US: Final = 600 * SECOND
"""How long a smaller size is kept before a larger one is tried (RFC 1191 §6.3, RFC 8201 §4)."""
FLOOR_V4: Final = 552
"""Less is not believed (Linux's min_pmtu): a tiny MTU is an attack on the sender's CPU."""
FLOOR_V6: Final = 1280
"""RFC 8201 §4: less must not have an effect."""
PLATEAUS: Final = (65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 552)
"""RFC 1191 §7, table 7-1, down to `FLOOR_V4`: for routers that do not tell the next hop's MTU."""


def plateau_below(size: int) -> int:
    """The largest common MTU below `size` (RFC 1191 §5), `FLOOR_V4` at least."""
    return next((plateau for plateau in PLATEAUS if plateau < size), FLOOR_V4)


class PathMtuCache:
    """MTUs that differ from the interface's, by (source, destination): RFC 1191 §6.2, §6.3.

    By source too, because two paths to one destination differ in it. Bounded: the oldest entry
    gives way. An entry ends after `RAISE_US`; the connections that use it then probe upward.
    """

    __slots__ = ("_entries", "_limit")

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._entries: dict[bytes, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, local: bytes, remote: bytes, now: int) -> tuple[int, int] | None:
        """(MTU, when it expires), None when nothing is known."""
        key = local + remote
        found = self._entries.get(key)
        if found is not None and now >= found[1]:
            del self._entries[key]
            return None
        return found

    def put(self, local: bytes, remote: bytes, mtu: int, now: int) -> None:
        """The path carries `mtu` bytes and no more."""
        self.forget(local, remote)
        while len(self._entries) >= self._limit:
            del self._entries[next(iter(self._entries))]
        self._entries[local + remote] = (mtu, now + RAISE_US)

    def forget(self, local: bytes, remote: bytes) -> None:
        """The path carries all the interface does."""
        self._entries.pop(local + remote, None)
