"""CUBIC (RFC 9438): growth by the time since the last congestion event, not by round trips.

    W_cubic(t) = C * (t - K)^3 + W_max        t from the start of congestion avoidance

Concave up to W_max, where the last congestion was, a plateau there, convex beyond; but never
slower than Reno would be (W_est, §4.3). Windows are bytes and times µs here; the RFC's unit, a
segment, is `mss`. What an ACK adds depends on the bytes it covers: an ACK for a chunk of 44
segments counts like the ACKs of the segments.

The same everywhere: K comes from an integer cube root, and the rest is IEEE arithmetic without
library functions.

Where Linux's `tcp_cubic.c` differs from the RFC, the RFC is followed:
  * Linux computes W_cubic at most every 1/32 s and in units of 1/1024 s; here it is exact per ACK.
  * Without a known W_max (slow start ended by delay, or a time-out) Linux grows by 5 % in a round
    trip at least; §4.8 and §4.10 start the convex curve at once, with K = 0.
  * Linux adds the least RTT to t where the RFC (§4.2) adds the smoothed one.
  * Linux keeps alpha_cubic = 0.53 for good; §4.3 goes over to 1 once W_est has reached the window
    of the last congestion event.
  * Linux reduces from cwnd, §4.6 from FlightSize.
Like Linux: per byte acknowledged, not per ACK (§4.4 reads "for each received new ACK", which with
delayed ACKs would be half of the curve); fast convergence is on (§4.7: it should be off for a
single flow, but a sender cannot know that it is alone); and a window above W_max at the start of
congestion avoidance is the new W_max.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import mypyc_attr

from mptcp.tcp.congestion import CongestionControl, controllers, slow_start
from mptcp.tcp.hystart import HyStart

C: Final = 0.4
"""Segments per s^3 (RFC 9438 §5.1)."""
BETA_TENTHS: Final = 7
"""beta_cubic = 0.7 (RFC 9438 §4.6)."""
ALPHA: Final = 3 * (10 - BETA_TENTHS) / (10 + BETA_TENTHS)
"""alpha_cubic, 0.53 (RFC 9438 §4.3): with beta_cubic it takes as much as Reno's AIMD(1, 0.5)."""

_NONE: Final = -1
"""No epoch: congestion avoidance has not begun since the last congestion event."""


def cube_root(value: int) -> int:
    """The greatest integer whose cube is at most `value` (0 for a value below 1)."""
    if value < 1:
        return 0
    root = 1 << -(-value.bit_length() // 3)  # not less than the result: Newton descends to it
    while True:
        better = (2 * root + value // (root * root)) // 3
        if better >= root:
            return root
        root = better


def time_to_plateau(distance: int, mss: int) -> int:
    """K in µs (RFC 9438 §4.2): until the curve has covered `distance` bytes, W_max - cwnd_epoch.

    K = cube root of (distance / mss / C) seconds, with C = 2/5; distance <= 0 gives 0.
    """
    return cube_root(distance * 5 * 10**18 // (2 * mss))


@mypyc_attr(allow_interpreted_subclasses=True)
class Cubic(CongestionControl):
    """RFC 9438 with HyStart++ for the first slow start (§4.10)."""

    def __init__(self, mss: int, initial_window: int, siblings: list[CongestionControl]) -> None:
        super().__init__(mss, initial_window, siblings)
        self.hystart = HyStart()
        self.w_max = 0
        """W_max: cwnd at the last congestion event, or less (fast convergence); 0: unknown."""
        self.cwnd_prior = 0
        """cwnd when ssthresh was last set (§4.1.2)."""
        self.k = 0
        """K, µs."""
        self.epoch = _NONE
        """t_epoch, µs; moved on by the time that does not count (§5.8)."""
        self.w_est = 0.0
        """W_est: the window Reno would have (§4.3)."""
        self.updated = 0
        """When the window was last updated, µs."""
        self.credit = 0.0
        """The fraction of a byte that growth is ahead of cwnd."""
        self._cubic_before: tuple[int, int, int, int, float] | None = None

    def on_ack(self, acked: int) -> None:
        if self.cwnd < self.ssthresh:
            acked = slow_start(self, acked)
            if acked <= 0:
                return
        now = self.now
        if self.epoch == _NONE:
            self._begin_epoch()
        self.updated = now
        cwnd = self.cwnd
        mss = self.mss
        # §4.3, eq. 4: Reno's window, by bytes.
        w_est = self.w_est
        w_est += (ALPHA if w_est < self.cwnd_prior else 1.0) * acked * mss / cwnd
        self.w_est = w_est
        seconds = (now - self.epoch - self.k) * 1e-6
        if self.w_max + C * mss * seconds * seconds * seconds < w_est:
            # Reno-friendly region: cwnd is W_est, which is not below cwnd but after an undo.
            if w_est > cwnd:
                self.cwnd = int(w_est)
            return
        seconds += self.srtt * 1e-6
        target = self.w_max + C * mss * seconds * seconds * seconds
        # §4.2: at most half as much again in a round trip. There is no growth below cwnd.
        target = min(target, 1.5 * cwnd)
        if target > cwnd:
            distance = target - cwnd
            growth = min(distance * acked / cwnd, distance) + self.credit
            whole = int(growth)
            self.credit = growth - whole
            self.cwnd = cwnd + whole

    def _begin_epoch(self) -> None:
        """Congestion avoidance begins (§4.2); after a time-out or HyStart++ W_max is unknown."""
        cwnd = self.cwnd
        self.epoch = self.now
        self.credit = 0.0
        self.w_est = float(cwnd)
        if self.w_max <= cwnd:
            # §4.8, §4.10: K = 0 and W_max = cwnd.
            self.w_max = cwnd
            self.k = 0
        else:
            self.k = time_to_plateau(self.w_max - cwnd, self.mss)
        if not self.cwnd_prior:
            self.cwnd_prior = cwnd  # §4.10: slow start ended without congestion

    def on_app_limited(self) -> None:
        # §4.2, §5.8: t must not include time in which the window was not in use, else W_cubic is
        # far ahead when the application sends in earnest again.
        if self.epoch != _NONE:
            self.epoch += self.now - self.updated
            self.updated = self.now

    def reduced(self, flight_size: int) -> int:
        return flight_size * BETA_TENTHS // 10

    def on_loss(self, flight_size: int) -> None:
        # §4.7 fast convergence: congestion came earlier than the last time, so another flow needs
        # room and the plateau is put lower.
        cwnd = self.cwnd
        self.w_max = cwnd * (10 + BETA_TENTHS) // 20 if cwnd < self.w_max else cwnd
        self.cwnd_prior = cwnd
        self.epoch = _NONE
        super().on_loss(flight_size)

    def on_timeout(self, flight_size: int, *, first: bool) -> None:
        if first:
            self.cwnd_prior = self.cwnd
        self.w_max = 0  # §4.8: the next congestion avoidance starts with K = 0, W_max = cwnd
        self.epoch = _NONE
        super().on_timeout(flight_size, first=first)

    def on_penalised(self) -> None:
        super().on_penalised()
        self.w_max = 0  # as after a time-out: the curve would lead back at once
        self.epoch = _NONE

    def on_underused(self, used: int) -> None:
        cwnd = self.cwnd
        super().on_underused(used)
        if self.cwnd < cwnd:
            self.epoch = _NONE  # off the curve: W_est of before would lead back at one bound

    def on_idle(self, timeouts: int) -> None:
        cwnd = self.cwnd
        super().on_idle(timeouts)
        if self.cwnd < cwnd:
            self.epoch = _NONE

    def save(self) -> None:
        super().save()
        self._cubic_before = (self.w_max, self.cwnd_prior, self.k, self.epoch, self.w_est)

    def undo(self) -> None:
        # §4.9.2: only while cwnd is below cwnd_prior; later the newer values are the better ones.
        if self._cubic_before is not None and self.cwnd < self.cwnd_prior:
            self.w_max, self.cwnd_prior, self.k, self.epoch, self.w_est = self._cubic_before
            self._cubic_before = None
            super().undo()
        else:
            self._before = self._cubic_before = None
            self.in_recovery = False


controllers.add("cubic", Cubic)
