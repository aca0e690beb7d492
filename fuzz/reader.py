"""An input as a source of decisions: each read takes bytes from the front, zeros when it is empty.

Little of an input decides much, so that a mutation of one byte changes one decision; nothing here
can fail, and the same bytes always decide alike. `Writer` makes inputs the same way.
"""

from __future__ import annotations

from typing import Final

STEPS: Final = (0, 1, 2, 3, 4, 10, 20, 99, 536, 1000, 1400, 1460, 3000, 9000, 40_000, 65_535)
"""Sizes worth trying, one per low nibble."""


class Reader:
    """See the module's text."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes."""
        piece = self._data[self._at : self._at + count]
        self._at += count
        return piece.ljust(count, b"\0")

    def u8(self) -> int:
        """0..255."""
        at = self._at
        self._at += 1
        return self._data[at] if at < len(self._data) else 0

    def u16(self) -> int:
        """0..65535."""
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        """0..2**32-1."""
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        """0..2**64-1."""
        return int.from_bytes(self.take(8), "big")

    def delta(self) -> int:
        """A number around zero, mostly a small one: -32768..32767."""
        value = self.u8()
        if value < 0xF0:
            return value if value < 0x78 else value - 0xF0
        return (self.u16() ^ 0x8000) - 0x8000

    def size(self) -> int:
        """A length that is worth trying, 0..65535."""
        value = self.u8()
        return STEPS[value & 15] if value < 0xF0 else self.u16()


class Writer:
    """The inverse, for inputs made by code."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def u8(self, *values: int) -> Writer:
        """Append bytes."""
        self._parts.append(bytes(values))
        return self

    def u16(self, value: int) -> Writer:
        """Append a 16-bit number."""
        self._parts.append(value.to_bytes(2, "big"))
        return self

    def raw(self, data: bytes) -> Writer:
        """Append bytes as they are."""
        self._parts.append(data)
        return self

    def value(self) -> bytes:
        """The input."""
        return b"".join(self._parts)
