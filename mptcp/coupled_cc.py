"""Coupled congestion control: LIA, OLIA and BALIA; wVegas, by delay, is in `wvegas`.

The subflows of a connection share one aggressiveness, so that at a shared bottleneck they together
take no more than one TCP would, and the traffic moves away from congested paths (RFC 6356 §2).

    LIA    RFC 6356: linked increases
    OLIA   Khalili et al. 2012, draft-khalili-mptcp-congestion-control: the optimum of resource
           pooling, and for paths that are better than their window shows a bonus, taken from the
           path with the largest window
    BALIA  Peng, Walid, Hwang and Low 2016, draft-walid-mptcp-congestion-control: between the two,
           with a decrease that depends on how this path compares with the best one

Pure functions first (numbers in, numbers out), then the controllers that feed them. A path is a
pair: its window in bytes and its smoothed RTT in µs. In all of them slow start is NewReno's, for
each subflow by itself, with HyStart++ (RFC 9406): coupled growth is slow, so a burst of losses at
the end of slow start would cost more here than anywhere.

What counts as a path's window
  * in fast recovery ssthresh, as cwnd may be inflated (RFC 6356 §3);
  * where the application or the scheduler does not fill it, what was in use (`used`): the formulas
    take windows for rates times RTT, and a window that is not used is no rate;
  * nothing of a subflow from which no ACK came for a while: it takes no part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from mypy_extensions import mypyc_attr

from mptcp.tcp.congestion import CongestionControl, controllers, slow_start
from mptcp.tcp.hystart import HyStart

Path = tuple[int, int]
"""(window in bytes, RTT in µs), both above 0."""

IDLE_US: Final = 200_000
"""A subflow is idle when for its RTT and this, or its RTT again, nothing was acknowledged: about a
retransmission timeout, after which RFC 2861 §3.1 holds a window to be out of date, too."""

ROUNDING: Final = 1e-6
"""What sums of floats may be short of a whole byte."""


# -- LIA ------------------------------------------------------------------------------------------


def lia_alpha(paths: Iterable[Path]) -> float:
    """alpha of RFC 6356 §3.1.

    alpha = cwnd_total * max(cwnd_i / rtt_i^2) / (sum(cwnd_i / rtt_i))^2. Raises ValueError
    without a path.
    """
    total = 0
    best = 0.0
    rate = 0.0
    for cwnd, rtt in paths:
        total += cwnd
        best = max(best, cwnd / (rtt * rtt))
        rate += cwnd / rtt
    if total <= 0:
        raise ValueError("LIA needs at least one path with a window")
    return total * best / (rate * rate)


def lia_increase(alpha: float, acked: int, mss: int, cwnd: int, cwnd_total: int) -> float:
    """Bytes to add to a window for `acked` bytes (RFC 6356 §3, byte form).

    The lesser of the coupled increase and what NewReno would add on this path alone, so that
    a multipath flow is never more aggressive than TCP on any of its paths (goal 2).
    """
    return min(alpha * acked * mss / cwnd_total, acked * mss / cwnd)


# -- OLIA -----------------------------------------------------------------------------------------


def olia_alphas(windows: Sequence[int], qualities: Sequence[float]) -> list[float]:
    """alpha_r of each path (draft-khalili §2): which windows move towards which paths.

    `windows` in segments; `qualities` l_r / rtt_r^2, with l_r the bytes between losses: 2 l is the
    square of the window that a TCP would have there. A best path without the largest window is
    "collected" and gets a bonus, the paths with the largest window give it; else all are 0.
    """
    number = len(windows)
    best = max(qualities, default=0.0)
    largest = max(windows, default=0)
    collected = [
        quality >= best and window < largest
        for window, quality in zip(windows, qualities, strict=True)
    ]
    gaining = sum(collected)
    if not gaining:
        return [0.0] * number
    giving = windows.count(largest)
    return [
        1 / (number * gaining) if gains else (-1 / (number * giving) if window == largest else 0.0)
        for window, gains in zip(windows, collected, strict=True)
    ]


def olia_increase(path: Path, paths: Iterable[Path], alpha: float, acked: int, mss: int) -> float:
    """Bytes to add to the window of `path`, one of `paths`, for `acked` bytes (draft-khalili §2).

    acked * mss * ((w_r / rtt_r^2) / (sum(w_p / rtt_p))^2 + alpha_r / w_r); it may be negative.
    """
    cwnd, rtt = path
    rate = sum(window / time for window, time in paths)
    return acked * mss * (cwnd / (rtt * rtt) / (rate * rate) + alpha / cwnd)


# -- BALIA ----------------------------------------------------------------------------------------


def balia_alpha(path: Path, paths: Iterable[Path]) -> float:
    """alpha_r = max(x_k) / x_r (draft-walid §3), with x the rate w / rtt; at least 1."""
    return max(window / time for window, time in paths) * path[1] / path[0]


def balia_increase(path: Path, paths: Sequence[Path], acked: int, mss: int) -> float:
    """Bytes to add to the window of `path`, one of `paths`, for `acked` bytes (draft-walid §3).

    acked * mss * x_r / rtt_r / (sum x_k)^2 * (1 + alpha_r) / 2 * (4 + alpha_r) / 5.
    """
    cwnd, rtt = path
    rate = sum(window / time for window, time in paths)
    alpha = balia_alpha(path, paths)
    share = cwnd / (rtt * rtt) / (rate * rate)
    return acked * mss * share * (1 + alpha) / 2 * (4 + alpha) / 5


def balia_reduced(flight_size: int, alpha: float) -> int:
    """What a loss leaves (draft-walid §3): less half of it times min(alpha_r, 1.5)."""
    return flight_size - int(flight_size * min(alpha, 1.5) / 2)


# -- the controllers ------------------------------------------------------------------------------


def window_in_use(control: CongestionControl) -> int:
    """The window of a subflow as the formulas take it (see the module's text), bytes."""
    # RFC 6356 §3: ssthresh for a subflow in fast retransmit.
    window = min(control.cwnd, control.ssthresh) if control.in_recovery else control.cwnd
    return min(window, control.used)


def taking_part(control: CongestionControl, now: int) -> bool:
    """Whether a subflow has an RTT and was acknowledged something of late."""
    srtt = control.srtt
    return srtt > 0 and now - control.acked_at <= srtt + max(srtt, IDLE_US) and control.used > 0


@mypyc_attr(allow_interpreted_subclasses=True)
class Coupled(CongestionControl):
    """What the coupled ones have in common: slow start, and growth by fractions of a byte.

    A subclass says `increase`.
    """

    def __init__(self, mss: int, initial_window: int, siblings: list[CongestionControl]) -> None:
        super().__init__(mss, initial_window, siblings)
        self.hystart = HyStart()
        self.credit = 0.0

    def increase(self, acked: int) -> float:
        """Bytes to add in congestion avoidance for `acked` bytes; the RTT is known."""
        raise NotImplementedError

    def others(self) -> list[CongestionControl]:
        """The connection's other subflows that take part now."""
        now = self.now
        return [s for s in self.siblings if s is not self and taking_part(s, now)]

    def path(self) -> Path:
        """This subflow, whose window is in use: an ACK for it has just come."""
        return (min(self.cwnd, self.ssthresh) if self.in_recovery else self.cwnd, self.srtt)

    def paths(self) -> list[Path]:
        """This subflow and then the others."""
        return [self.path()] + [(window_in_use(s), s.srtt) for s in self.others()]

    def on_ack(self, acked: int) -> None:
        if self.cwnd < self.ssthresh:
            acked = slow_start(self, acked)
            if acked <= 0:
                return
        # Fractions of a byte are carried: with many paths one ACK may be worth less than a byte.
        growth = self.credit + (self.increase(acked) if self.srtt else acked * self.mss / self.cwnd)
        whole = int(growth + ROUNDING)
        self.credit = growth - whole
        self.cwnd = max(self.cwnd + whole, self.mss)


@mypyc_attr(allow_interpreted_subclasses=True)
class Lia(Coupled):
    """RFC 6356: Linked Increases."""

    def increase(self, acked: int) -> float:
        paths = self.paths()
        if len(paths) == 1:
            return acked * self.mss / self.cwnd
        total = sum(window for window, _ in paths)
        return lia_increase(lia_alpha(paths), acked, self.mss, self.cwnd, total)


@mypyc_attr(allow_interpreted_subclasses=True)
class Olia(Coupled):
    """Opportunistic Linked Increases."""

    def __init__(self, mss: int, initial_window: int, siblings: list[CongestionControl]) -> None:
        super().__init__(mss, initial_window, siblings)
        self.lost_at = 0
        """`delivered` at the last loss."""
        self.between = 0
        """l_1: bytes delivered between the last two losses."""
        self._olia_before = (0, 0)

    def quality(self) -> float:
        """l_r / rtt_r^2, with l_r = max(l_1, l_2) and l_2 the bytes since the last loss."""
        return max(self.between, self.delivered - self.lost_at) / (self.srtt * self.srtt)

    def increase(self, acked: int) -> float:
        others = [s for s in self.others() if isinstance(s, Olia)]
        own = self.path()
        if not others:
            return acked * self.mss / own[0]
        paths = [own] + [(window_in_use(s), s.srtt) for s in others]
        # By whole segments: windows that differ by less are the same, as where they are counted so.
        windows = [own[0] // self.mss] + [window_in_use(s) // s.mss for s in others]
        alphas = olia_alphas(windows, [self.quality()] + [s.quality() for s in others])
        return olia_increase(own, paths, alphas[0], acked, self.mss)

    def on_loss(self, flight_size: int) -> None:
        self._lost()
        super().on_loss(flight_size)
        self._least(flight_size)

    def on_timeout(self, flight_size: int, *, first: bool) -> None:
        if first:
            self._lost()
        super().on_timeout(flight_size, first=first)
        if first:
            self._least(flight_size)

    def _least(self, flight_size: int) -> None:
        """draft-khalili §2: with other paths ssthresh may be one segment, so that slow start does
        not put more on a congested one than it gets rid of."""
        if self.ssthresh == 2 * self.mss and len(self.siblings) > 1:
            self.ssthresh = max(self.reduced(flight_size), self.mss)
            self.cwnd = min(self.cwnd, self.ssthresh)

    def _lost(self) -> None:
        self.between = self.delivered - self.lost_at
        self.lost_at = self.delivered

    def save(self) -> None:
        super().save()
        self._olia_before = (self.lost_at, self.between)

    def undo(self) -> None:
        if self._before is not None:
            self.lost_at, self.between = self._olia_before
        super().undo()


@mypyc_attr(allow_interpreted_subclasses=True)
class Balia(Coupled):
    """Balanced Linked Adaptation."""

    def increase(self, acked: int) -> float:
        paths = self.paths()
        return balia_increase(paths[0], paths, acked, self.mss)

    def reduced(self, flight_size: int) -> int:
        if not self.srtt:
            return super().reduced(flight_size)
        paths = self.paths()
        return balia_reduced(flight_size, balia_alpha(paths[0], paths))


controllers.add("lia", Lia)
controllers.add("olia", Olia)
controllers.add("balia", Balia)
