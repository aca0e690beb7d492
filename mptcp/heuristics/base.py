"""The interface between a connection and its subflow heuristics (thesis §4.6).

The path manager knows which paths there are; a heuristic says when they are worth a subflow and
when a subflow costs more than it brings. A heuristic takes numbers (`Flow`) and answers yes or no:
it sees no connection. Which ones a connection has is `Config.heuristics` (`heuristics.rules`).

To write one: subclass `Heuristic`, decorate with `@heuristics.register("name")`, override `opens`,
`closes` or both. One object per connection, so it may keep state.
"""

from __future__ import annotations

from collections.abc import Sequence

from mptcp.registry import Registry
from mptcp.tcp.state import NEVER


class FlowPath:
    """What a subflow did in the last period; rates in bytes per second, times in µs."""

    __slots__ = (
        "backup",
        "best",
        "cwnd",
        "in_flight",
        "path_index",
        "rate",
        "resent",
        "sent",
        "srtt",
    )

    def __init__(self, path_index: int) -> None:
        self.path_index = path_index
        self.backup = False
        """Kept in reserve by either side (RFC 8684 §3.3.8): it is to carry nothing."""
        self.srtt = 0
        """Smoothed RTT; 0 while unknown."""
        self.cwnd = 0
        self.in_flight = 0
        self.sent = 0
        """Bytes sent, retransmissions included."""
        self.resent = 0
        """Bytes of these that were retransmissions."""
        self.rate = 0
        """Goodput: what the subflow's acknowledgements covered, and what arrived on it."""
        self.best = 0
        """What it has shown it can: the highest `rate` it ever had, or the one that its window and
        RTT allow, once that window has grown."""


class Flow:
    """What a heuristic may know of a connection: bytes, µs, bytes per second."""

    __slots__ = (
        "acked",
        "backlog",
        "blocked",
        "buffer",
        "is_client",
        "largest_write",
        "network_limited",
        "network_limited_since",
        "now",
        "paths",
        "period",
        "port",
        "rate",
        "received",
        "rtt",
        "since",
        "slow_start",
        "written",
    )

    def __init__(self, port: int, is_client: bool) -> None:
        self.port = port
        """The service's: the server's local port."""
        self.is_client = is_client
        self.now = 0
        self.since = 0
        """When the connection was confirmed as MPTCP: no subflow can be opened before."""
        self.rtt = 0
        """Smoothed RTT of the fastest subflow; 0 while unknown."""
        self.written = 0
        """Bytes the application has handed over, as far as the send buffer took them."""
        self.largest_write = 0
        """The largest piece it offered at once, whether the send buffer took all of it or not."""
        self.acked = 0
        """Bytes of these the peer has DATA_ACKed."""
        self.received = 0
        """Bytes that have come in order."""
        self.backlog = 0
        """Bytes written and not yet given to a subflow."""
        self.slow_start = True
        """The first subflow's window still grows exponentially; where this side mostly receives,
        what comes in a round trip does."""
        self.network_limited = False
        """More waits than the window takes, which the peer's window would admit; or where this
        side mostly receives, data comes without a pause of more than a round trip."""
        self.network_limited_since = NEVER
        """Since when without a break."""
        # For `closes`:
        self.period = 0
        """Length of the last period."""
        self.rate = 0
        """Goodput of the connection in it: what was DATA_ACKed, and what came in order."""
        self.blocked = 0.0
        """Share of it, 0 to 1, in which a subflow had room and the connection-level window or the
        send buffer did not let it send (thesis §4.3.5)."""
        self.buffer = 0
        """What may be outstanding: the smaller of the send buffer and the peer's window."""
        self.paths: Sequence[FlowPath] = ()
        """Subflows that work."""


class Heuristic:
    """Base class and contract."""

    period_us = 200_000
    """How often `closes` is asked while data moves; at least two round trips in any case."""

    watches_data = True
    """Whether the answer of `opens` may change with data, and not only with time."""

    def __init__(self, argument: str) -> None:
        """`argument` is what follows the colon in `Config.heuristics`, "" without one.

        Raises ValueError with a text that says what it should be.
        """
        if argument:
            raise ValueError(f"takes no argument, {argument!r} was given")

    def opens(self, flow: Flow) -> bool:
        """Whether the paths there are may have subflows from now on.

        Asked when the connection is confirmed, when the application writes, when data comes or is
        acknowledged, and at `deadline`, until it or another heuristic of the connection has said
        yes. That stands for the rest of the connection.
        """
        return False

    def deadline(self, flow: Flow) -> int:
        """When to ask `opens` though nothing has happened, µs; NEVER: not for that."""
        return NEVER

    def closes(self, flow: Flow) -> int:
        """The path index of a subflow that costs more than it brings; 0: none.

        Asked once a period while data moves and more than one subflow works. It is closed with
        MP_TCPRST "unacceptable performance" (RFC 8684 §3.6), and its path rests for a minute, then
        for two and so on; or until no other works. Should there be less goodput without it, it
        comes back and stays.
        """
        return 0


heuristics: Registry[type[Heuristic]] = Registry("heuristic", "mptcp.heuristics")


def number(argument: str, unit: str, low: float, high: float) -> float:
    """The one number a heuristic takes. Raises ValueError with what it should be."""
    try:
        value = float(argument)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise ValueError(f"takes {unit} from {low:g} to {high:g}, not {argument!r}")
    return value
