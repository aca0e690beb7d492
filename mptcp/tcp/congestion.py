"""Congestion control of one subflow: the interface, and NewReno (RFC 5681, RFC 6582).

A controller takes numbers and changes only its own: it never sees a connection. `cwnd`, `ssthresh`
and all arguments are bytes, times are microseconds. Loss detection and recovery (which bytes to
resend) belong to `sender`; the controller only says how much may be in flight.

To add one: subclass `CongestionControl`, decorate with `@controllers.register("name")`, done. A
subclass must say `on_ack`, and may change how much a loss leaves (`reduced`) or any other answer;
one with state that follows from the window keeps it in `save` and `undo`.
"""

from __future__ import annotations

from typing import Final, Protocol

from mypy_extensions import mypyc_attr

from mptcp.registry import Registry
from mptcp.tcp.hystart import HyStart

INFINITE_SSTHRESH: Final = 1 << 62
ALL_IN_USE: Final = 1 << 62


@mypyc_attr(allow_interpreted_subclasses=True)
class CongestionControl:
    """Base class and contract. `siblings` are the controllers of the connection's live subflows.

    The list `siblings` is shared: the connection adds a controller when its subflow is established
    and removes it when the subflow ends. It holds `self` while the subflow lives.
    """

    def __init__(self, mss: int, initial_window: int, siblings: list[CongestionControl]) -> None:
        self.mss = mss
        self.cwnd = initial_window
        self.ssthresh = INFINITE_SSTHRESH
        self.siblings = siblings
        self.initial_window = initial_window
        """IW (RFC 6928), and so the restart window (RFC 5681 §4.1)."""
        self.hystart: HyStart | None = None
        """Ends the first slow start before the queue overflows; None: a loss ends it."""
        self.now = 0
        """The host's clock, µs. This and the next six are set before each call below."""
        self.acked_at = 0
        """When the last ACK came, µs."""
        self.srtt = 0
        """Smoothed RTT of the subflow, µs; 0 while unknown."""
        self.latest_rtt = 0
        """The newest RTT sample, µs; 0 while unknown."""
        self.min_rtt = 0
        """The least RTT sample of the last minutes (`Config.min_rtt_window_us`), µs; 0: unknown."""
        self.rounds = 0
        """Round trips so far: counts when what was sent after the last count is acknowledged."""
        self.delivered = 0
        """Bytes acknowledged or selected so far: a controller can tell how many lie between two
        losses."""
        self.used = ALL_IN_USE
        """What was in flight at most since the window was last in full use, bytes; `ALL_IN_USE`
        while it is."""
        self.in_recovery = False
        self._before: tuple[int, int] | None = None

    @property
    def in_slow_start(self) -> bool:
        return self.cwnd < self.ssthresh

    def on_ack(self, acked: int) -> None:
        """`acked` new bytes were acknowledged while the window was in full use."""
        raise NotImplementedError

    def on_app_limited(self) -> None:
        """From the last `on_ack` until now the window was not what held the sender back.

        There is no growth for such a time; a controller that counts time leaves it out.
        """

    def reduced(self, flight_size: int) -> int:
        """What a congestion event leaves of `flight_size` bytes (RFC 5681 (4): half)."""
        return flight_size // 2

    def on_loss(self, flight_size: int) -> None:
        """A loss was detected by SACK or duplicate ACKs: one reduction per window.

        `flight_size` is what was sent and not cumulatively acknowledged (RFC 5681 §2).
        """
        # RFC 5681 (4): a part of what is in flight, not of a window that was not used.
        self.ssthresh = max(self.reduced(flight_size), 2 * self.mss)
        self.cwnd = self.ssthresh
        self.in_recovery = True

    def on_recovered(self) -> None:
        """All that was outstanding at the loss is acknowledged."""
        self.in_recovery = False

    def on_timeout(self, flight_size: int, *, first: bool) -> None:
        """The retransmission timer expired; `first` is False for back-to-back time-outs."""
        if first:  # RFC 5681 §3.1: ssthresh is held when the same segment times out again
            self.ssthresh = max(self.reduced(flight_size), 2 * self.mss)
        self.cwnd = self.mss
        self.in_recovery = False

    def on_ecn(self, flight_size: int) -> None:
        """The peer echoes Congestion Experienced (RFC 3168 §6.1.2): as for a lost packet, once a
        window; nothing is resent, and the window may go down to one segment (RFC 9438 §4.6)."""
        self.on_loss(flight_size)
        self.cwnd = min(self.cwnd, max(self.reduced(flight_size), self.mss))
        self.in_recovery = False

    def on_underused(self, used: int) -> None:
        """For an RTO no more than `used` bytes were in flight (RFC 2861 §3.2)."""
        used = max(used, self.initial_window)
        if used < self.cwnd:
            self.ssthresh = max(self.ssthresh, self.cwnd * 3 // 4)
            self.cwnd = (self.cwnd + used) // 2

    def on_idle(self, timeouts: int) -> None:
        """Data is to be sent for the first time in `timeouts` >= 1 RTOs (RFC 2861 §3.1).

        The window is halved for each, but not below the restart window (RFC 5681 §4.1).
        """
        self.ssthresh = max(self.ssthresh, self.cwnd * 3 // 4)
        restart_window = min(self.initial_window, self.cwnd)
        self.cwnd = max(self.cwnd >> min(timeouts, 64), restart_window)

    def on_penalised(self) -> None:
        """The path is so slow that it holds up the connection's others: half the window, not
        because of congestion (Raiciu et al., NSDI 2012, §4.2)."""
        self.ssthresh = max(min(self.ssthresh, self.cwnd) // 2, 2 * self.mss)
        self.cwnd = max(self.cwnd // 2, self.mss)

    def save(self) -> None:
        """A reduction comes that may prove wrong: remember what `undo` is to restore."""
        self._before = (self.cwnd, self.ssthresh)

    def undo(self) -> None:
        """The last reduction was for nothing that was lost (RFC 4015, RFC 5682, RFC 2883)."""
        if self._before is not None:
            cwnd, self.ssthresh = self._before
            self.cwnd = max(self.cwnd, cwnd)
            self._before = None
        self.in_recovery = False


class Factory(Protocol):
    """What the registry holds."""

    def __call__(
        self, mss: int, initial_window: int, siblings: list[CongestionControl]
    ) -> CongestionControl: ...


controllers: Registry[Factory] = Registry("congestion control", "mptcp.congestion_control")


def slow_start(control: CongestionControl, acked: int) -> int:
    """Grow by the bytes covered (RFC 3465 with no limit) up to ssthresh; returns what is left over.

    Linux counts the same way: with segmentation offload one ACK covers 44 segments, and an
    increase of one MSS per ACK would make slow start linear. While ssthresh is infinite the
    controller's `hystart`, if it has one, watches the delay (RFC 9406).
    """
    if control.ssthresh == INFINITE_SSTHRESH and control.hystart is not None:
        hystart = control.hystart
        control.cwnd += hystart.grow(acked, control.latest_rtt, control.rounds)
        if not hystart.done:
            return 0
        control.ssthresh = control.cwnd  # RFC 9406 §4.2: congestion avoidance from here
        return acked
    room = control.ssthresh - control.cwnd
    if room <= 0:
        return acked
    used = min(acked, room)
    control.cwnd += used
    return acked - used


@mypyc_attr(allow_interpreted_subclasses=True)
class NewReno(CongestionControl):
    """RFC 5681 with appropriate byte counting (RFC 3465): one MSS per window acknowledged.

    With HyStart++, which Linux has in CUBIC only: RFC 9406 is made for any controller that has
    slow start, and Reno gains more by it. Slow start without it ends with a burst of losses as
    long as the queue and an `ssthresh` that may be far off, from where Reno grows by a segment in
    a round trip; Conservative Slow Start takes back an exit that was too early.
    """

    def __init__(self, mss: int, initial_window: int, siblings: list[CongestionControl]) -> None:
        super().__init__(mss, initial_window, siblings)
        self.hystart = HyStart()
        self.credit = 0
        """Bytes acknowledged since the window last grew (RFC 3465 §2.1: bytes_acked)."""

    def on_ack(self, acked: int) -> None:
        if self.cwnd < self.ssthresh:
            acked = slow_start(self, acked)
        credit = self.credit + acked
        # RFC 5681 §3.1 asks for one SMSS in each round trip, which delivers the whole segments that
        # fit; with the fraction counted too a window of a few segments would grow a fifth slower.
        while credit >= (whole := max(self.cwnd - self.cwnd % self.mss, self.mss)):
            credit -= whole
            self.cwnd += self.mss
        self.credit = credit

    def on_loss(self, flight_size: int) -> None:
        super().on_loss(flight_size)
        self.credit = 0

    def on_timeout(self, flight_size: int, *, first: bool) -> None:
        super().on_timeout(flight_size, first=first)
        self.credit = 0


controllers.add("newreno", NewReno)
