"""Destinations where SYNs with MP_CAPABLE vanish: a cache for the whole host (RFC 8684 §3.9.3).

A connection whose SYNs with the option got no answer and whose plain one did has met a black hole.
The address is then given plain SYNs for `timeout_us`; the first connection after that tries the
option again, and a failure doubles the time, up to `MAX_FACTOR` times, as Linux does for all
destinations at once. An answer with MP_CAPABLE clears the entry.

Invariant: at most `limit` entries; the one that failed longest ago gives way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mptcp.errors import FallbackReason
from mptcp.wire.mptcp_options import MpCapable
from mptcp.wire.tcp import Segment

if TYPE_CHECKING:
    from mptcp.subflow import Subflow

MAX_FACTOR: Final = 64


@dataclass(slots=True)
class Blackhole:
    """One destination. Times are the host's, in µs."""

    address: bytes
    failures: int
    """In a row."""
    since: int
    """When the last failure was seen."""
    until: int
    """From when on MPTCP is tried again."""


class Blackholes:
    """The cache of one host."""

    __slots__ = ("_entries", "_limit", "_timeout_us")

    def __init__(self, limit: int, timeout_us: int) -> None:
        """`timeout_us` 0 or `limit` 0: nothing is remembered."""
        self._entries: dict[bytes, Blackhole] = {}
        self._limit = limit if timeout_us else 0
        self._timeout_us = timeout_us

    def blocks(self, address: bytes, now: int) -> bool:
        """Whether a SYN to `address` is to go without MP_CAPABLE."""
        entry = self._entries.get(address)
        return entry is not None and now < entry.until

    def failed(self, address: bytes, now: int) -> None:
        """The option was lost on the way to `address` where plain TCP got through."""
        if not self._limit:
            return
        before = self._entries.pop(address, None)
        failures = before.failures + 1 if before is not None else 1
        factor = min(1 << min(failures - 1, 16), MAX_FACTOR)
        while len(self._entries) >= self._limit:
            del self._entries[next(iter(self._entries))]
        until = now + factor * self._timeout_us
        self._entries[address] = Blackhole(address, failures, now, until)

    def worked(self, address: bytes) -> None:
        """`address` has answered with MP_CAPABLE."""
        if self._entries:
            self._entries.pop(address, None)

    def table(self) -> list[Blackhole]:
        """What is known, the latest failure last; expired entries count the failures so far."""
        return list(self._entries.values())

    def clear(self, address: bytes | None = None) -> int:
        """Forget `address`, or all; returns how many entries there were."""
        if address is not None:
            return 1 if self._entries.pop(address, None) is not None else 0
        count = len(self._entries)
        self._entries.clear()
        return count


def plain_syn_answered(subflow: Subflow, seg: Segment) -> None:
    """A connection that gave up on MP_CAPABLE is established: was it the option that got lost?"""
    meta = subflow.meta
    if meta.fallback_reason is not FallbackReason.SYN_UNANSWERED:
        return
    if any(isinstance(option, MpCapable) for option in seg.mptcp):
        return  # the answer to an earlier SYN: it did get through
    meta.stack.blackholes.failed(subflow.remote, meta.stack.now)
    meta.stack.counters["MPTcpExtBlackhole"] += 1
