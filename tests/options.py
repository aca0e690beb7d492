"""TCP options as values for the scripted peer: what a test sends and what it expects.

Each class emits its bytes as the MPTCP options of `mptcp.wire` do; `options_of` reads a parsed
segment back into the same values, and `has` and `lacks` make the conditions of `Peer.expect`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mptcp.wire.tcp import (
    SACK_PERMITTED,
    Segment,
    fast_open_option,
    mss_option,
    sack_option,
    timestamps_option,
    window_scale_option,
)


class Emits(Protocol):
    """An option that knows its bytes."""

    def emit(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Mss:
    """Maximum segment size (RFC 9293 §3.7.1), bytes."""

    value: int

    def emit(self) -> bytes:
        return mss_option(self.value)


@dataclass(frozen=True, slots=True)
class WindowScale:
    """Window scale (RFC 7323 §2), 0..14 when sent properly."""

    shift: int

    def emit(self) -> bytes:
        if self.shift > 14:
            return bytes((3, 3, self.shift))
        return window_scale_option(self.shift)


@dataclass(frozen=True, slots=True)
class SackPermitted:
    """RFC 2018 §2."""

    def emit(self) -> bytes:
        return SACK_PERMITTED


@dataclass(frozen=True, slots=True)
class Timestamps:
    """RFC 7323 §3.2."""

    val: int
    ecr: int

    def emit(self) -> bytes:
        return timestamps_option(self.val & 0xFFFFFFFF, self.ecr & 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Sack:
    """RFC 2018 §3: (left, right) pairs, absolute 32-bit numbers on the wire."""

    blocks: tuple[tuple[int, int], ...]

    def emit(self) -> bytes:
        return sack_option([(left & 0xFFFFFFFF, right & 0xFFFFFFFF) for left, right in self.blocks])


@dataclass(frozen=True, slots=True)
class FastOpen:
    """RFC 7413 §4.1.1: the cookie, b"" to ask for one."""

    cookie: bytes = b""

    def emit(self) -> bytes:
        return fast_open_option(self.cookie)


def options_of(seg: Segment) -> tuple[object, ...]:
    """Every option of a segment, TCP's first, then the DSS, then the other MPTCP ones."""
    found: list[object] = []
    if seg.mss is not None:
        found.append(Mss(seg.mss))
    if seg.wscale is not None:
        found.append(WindowScale(seg.wscale))
    if seg.sack_permitted:
        found.append(SackPermitted())
    if seg.ts_val >= 0:
        found.append(Timestamps(seg.ts_val, seg.ts_ecr))
    if seg.sack:
        found.append(Sack(seg.sack))
    if seg.fast_open is not None:
        found.append(FastOpen(seg.fast_open))
    if seg.dss is not None:
        found.append(seg.dss)
    found.extend(seg.mptcp)
    return tuple(found)


Condition = Callable[[tuple[object, ...]], bool]


def has(*wanted: object) -> Condition:
    """A condition: for each of `wanted` there is that option (a value), or one of that type."""

    def holds(options: tuple[object, ...]) -> bool:
        return all(
            any(isinstance(o, w) if isinstance(w, type) else o == w for o in options)
            for w in wanted
        )

    return holds


def lacks(*unwanted: type) -> Condition:
    """A condition: no option of these types."""
    return lambda options: not any(isinstance(o, unwanted) for o in options)


def only(*wanted: object) -> Condition:
    """A condition: exactly these options (values or types), in any order."""

    def holds(options: tuple[object, ...]) -> bool:
        return len(options) == len(wanted) and has(*wanted)(options)

    return holds
