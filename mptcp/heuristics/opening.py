"""When to open additional subflows: the proposals of thesis §4.6, one small class each.

They work for the side that opens subflows whichever way the data goes: what is written and what
comes in both count.
"""

from __future__ import annotations

from typing import Final

from mptcp.heuristics.base import Flow, Heuristic, heuristics, number

_UNKNOWN_RTT_US: Final = 1_000_000
"""RFC 6298 §2.1's guess."""
_LONGEST_S: Final = 24 * 3600


@heuristics.register("at-once")
class AtOnce(Heuristic):
    """As soon as the protocol lets it (RFC 8684 §3.1)."""

    watches_data = False

    def opens(self, flow: Flow) -> bool:
        return True


@heuristics.register("never")
class Never(Heuristic):
    """Only when the first subflow stalls: the second path is a spare."""

    watches_data = False

    def opens(self, flow: Flow) -> bool:
        return False


@heuristics.register("after-bytes")
class AfterBytes(Heuristic):
    """When the application has written, or got, more than so many bytes.

    What is written counts before it is sent, as far as the send buffer takes it: somebody who hands
    over much at once has a long flow.
    """

    def __init__(self, argument: str) -> None:
        self.limit = int(number(argument, "bytes", 0, 1 << 40))

    def opens(self, flow: Flow) -> bool:
        return flow.written > self.limit or flow.received > self.limit


@heuristics.register("write-size")
class WriteSize(Heuristic):
    """When the application has offered so many bytes at once: only a hint, as the thesis says,
    for it may split what it has into small writes."""

    def __init__(self, argument: str) -> None:
        self.limit = int(number(argument, "bytes", 1, 1 << 30))

    def opens(self, flow: Flow) -> bool:
        return flow.largest_write >= self.limit


@heuristics.register("after-slow-start")
class AfterSlowStart(Heuristic):
    """When the first subflow has filled its path."""

    def opens(self, flow: Flow) -> bool:
        return not flow.slow_start


@heuristics.register("network-limited")
class NetworkLimited(Heuristic):
    """When the network has been the limit for so many round trips (1 by default), and neither
    application was."""

    def __init__(self, argument: str) -> None:
        self.rtts = number(argument or "1", "round trips", 0, 1000)

    def opens(self, flow: Flow) -> bool:
        wait = self.rtts * (flow.rtt or _UNKNOWN_RTT_US)
        return flow.network_limited and flow.now - flow.network_limited_since >= wait


class _After(Heuristic):
    """When the connection has lived for some time."""

    watches_data = False

    def opens(self, flow: Flow) -> bool:
        return flow.now >= self.deadline(flow)


@heuristics.register("after-time")
class AfterTime(_After):
    """So many seconds after it was confirmed, whatever it does, so that it may survive a failure
    of its path."""

    def __init__(self, argument: str) -> None:
        self.wait = round(number(argument, "seconds", 0, _LONGEST_S) * 1e6)

    def deadline(self, flow: Flow) -> int:
        return flow.since + self.wait


@heuristics.register("after-rtts")
class AfterRtts(_After):
    """So many round trips after it was confirmed: by then a short flow is over (thesis §5.4.2)."""

    def __init__(self, argument: str) -> None:
        self.rtts = number(argument, "round trips", 0, 1000)
        self.rtt = _UNKNOWN_RTT_US
        """The shortest so far: it must not run away before a queue that grows."""

    def deadline(self, flow: Flow) -> int:
        if flow.rtt:
            self.rtt = min(self.rtt, flow.rtt)
        return flow.since + round(self.rtts * self.rtt)
