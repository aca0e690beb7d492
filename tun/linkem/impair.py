"""What befalls a packet that has left the queue: loss, damage, a twin, a detour.

`Impairments` belongs to one link and decides with that link's random source, in a fixed order
(loss, damage, duplication, delay), so that a seed and the packets' order determine everything. A
kind that is off draws no number.
"""

from __future__ import annotations

import random
from typing import Final

from .change import LinkChange, LinkStats

_NS_PER_US: Final = 1_000
_FIELDS: Final = (
    "loss",
    "duplicate",
    "reorder",
    "corrupt",
    "burst_loss",
    "loss_list",
    "jitter_us",
    "reorder_us",
    "jitter_reorders",
)


class Damaged(bytes):
    """A packet with a flipped bit, so that nobody vouches for its checksum."""

    __slots__ = ()


class Impairments:
    """The state of one link's impairments."""

    __slots__ = (
        "_bad",
        "_burst",
        "_corrupt",
        "_count",
        "_duplicate",
        "_in_order",
        "_jitter",
        "_loss",
        "_lost",
        "_random",
        "_reorder",
        "_reorder_ns",
    )

    def __init__(self, source: random.Random) -> None:
        self._random = source
        self._loss = 0.0
        self._burst: tuple[float, float, float, float] | None = None
        self._bad = False  # Gilbert-Elliott's state
        self._lost: frozenset[int] = frozenset()  # of the loss list, by number
        self._count = 0  # packets since the loss list was set
        self._corrupt = 0.0
        self._duplicate = 0.0
        self._reorder = 0.0
        self._reorder_ns = 0
        self._jitter = 0  # ns
        self._in_order = True

    @staticmethod
    def concerns(change: LinkChange) -> bool:
        """Whether `change` is about impairments at all."""
        return any(getattr(change, name) is not None for name in _FIELDS)

    def change(self, change: LinkChange) -> bool:
        """Take what `change` says; whether anything is still impaired."""
        if change.loss is not None:
            self._loss = change.loss
        if change.burst_loss is not None:
            given = change.burst_loss
            self._bad = False
            self._burst = (*given, *(0.0, 0.0, 1.0, 0.0)[len(given) :]) if given else None  # type: ignore[assignment]
        if change.loss_list is not None:
            self._lost, self._count = frozenset(change.loss_list), 0
        if change.corrupt is not None:
            self._corrupt = change.corrupt
        if change.duplicate is not None:
            self._duplicate = change.duplicate
        if change.reorder is not None:
            self._reorder = change.reorder
        if change.reorder_us is not None:
            self._reorder_ns = change.reorder_us * _NS_PER_US
        if change.jitter_us is not None:
            self._jitter = change.jitter_us * _NS_PER_US
        if change.jitter_reorders is not None:
            self._in_order = not change.jitter_reorders
        return bool(
            self._loss
            or self._burst
            or self._lost
            or self._corrupt
            or self._duplicate
            or self._reorder
            or self._reorder_ns
            or self._jitter
            or not self._in_order
        )

    def apply(self, packet: bytes, stats: LinkStats) -> list[tuple[int, bool, bytes]]:
        """What arrives of a packet: (extra delay in ns, whether in order, packet) each."""
        if self._is_lost():
            stats.drops_loss += 1
            return []
        draw = self._random.random
        if self._corrupt and draw() < self._corrupt:
            stats.corrupted += 1
            bit = self._random.randrange(len(packet) * 8)
            damaged = bytearray(packet)
            damaged[bit >> 3] ^= 1 << (bit & 7)
            packet = Damaged(damaged)
        copies = 1
        if self._duplicate and draw() < self._duplicate:
            stats.duplicated += 1
            copies = 2
        arriving = []
        for _ in range(copies):
            extra, in_order = 0, self._in_order
            if self._jitter:
                extra = self._random.randrange(self._jitter + 1)
            if self._reorder and draw() < self._reorder:
                stats.reordered += 1
                extra += self._reorder_ns
                in_order = False
            arriving.append((extra, in_order, packet))
        return arriving

    def _is_lost(self) -> bool:
        draw = self._random.random
        lost = bool(self._loss) and draw() < self._loss
        if self._lost:
            self._count += 1
            lost = lost or self._count in self._lost
        if self._burst is not None:
            to_bad, to_good, loss_bad, loss_good = self._burst
            lost = draw() < (loss_bad if self._bad else loss_good) or lost
            if draw() < (to_good if self._bad else to_bad):
                self._bad = not self._bad
        return lost
