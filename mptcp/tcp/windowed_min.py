"""The least of the samples of a while ago until now, in constant space: Kathleen Nichols' filter.

Three samples are kept: the least of the window, the least of what came after it, and the least of
what came after that. When the first gets too old the next takes its place. So a path that has
become longer is believed after one window at the latest; Linux keeps its least RTT the same way
(RFC 8985 §6.2 step 1 leaves the filter open, and wants the least of a recent time).

Invariants: `value` <= `_second` <= `_third`, `_first_at` <= `_second_at` <= `_third_at`; none is
older than the window when `update` returns.
Cost: two comparisons for most samples.
"""

from __future__ import annotations


class WindowedMin:
    """The least sample of the last `window` µs; 0 until there is one."""

    __slots__ = (
        "_first_at",
        "_look_at",
        "_second",
        "_second_at",
        "_third",
        "_third_at",
        "value",
        "window",
    )

    def __init__(self, window: int) -> None:
        self.window = window
        self.value = 0
        self._first_at = 0
        self._second = 0
        self._second_at = 0
        self._third = 0
        self._third_at = 0
        self._look_at = 0  # until then only a sample that is less than the third changes anything

    def update(self, sample: int, now: int) -> int:
        """Take a sample (above 0) of the time `now`; returns the least of the window."""
        if sample > self._third and now < self._look_at:
            return self.value
        window = self.window
        if sample <= self.value or not self.value or now - self._third_at > window:
            self.value = self._second = self._third = sample
            self._first_at = self._second_at = self._third_at = now
        else:
            if sample <= self._second:
                self._second = self._third = sample
                self._second_at = self._third_at = now
            elif sample <= self._third:
                self._third = sample
                self._third_at = now
            age = now - self._first_at
            if age > window:
                self._shift(sample, now)
                if now - self._first_at > window:
                    self._shift(sample, now)
            elif self._second_at == self._first_at and age > window // 4:
                # Have a successor before the first runs out, though it is larger.
                self._second = self._third = sample
                self._second_at = self._third_at = now
            elif self._third_at == self._second_at and age > window // 2:
                self._third = sample
                self._third_at = now
        if self._second_at == self._first_at:
            self._look_at = self._first_at + window // 4
        elif self._third_at == self._second_at:
            self._look_at = self._first_at + window // 2
        else:
            self._look_at = self._first_at + window
        return self.value

    def _shift(self, sample: int, now: int) -> None:
        """The first is too old."""
        self.value = self._second
        self._first_at = self._second_at
        self._second = self._third
        self._second_at = self._third_at
        self._third = sample
        self._third_at = now
