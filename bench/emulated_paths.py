"""MPTCP over emulated paths in real time: two hosts, the link emulator between them.

    host A (sends)                                          host B (receives)
    kernel's 10.1.n.2 ---- link n ==== [ emulator ] ==== link n ---- 10.2.n.2 kernel's
    ours 10.1.n.2 - tn [kernel routes] -+                +- [kernel routes] tn - 10.2.n.2 ours

Each end is either the kernel's, with its addresses on the link devices, or ours, with them behind
the TUN devices t1, t2 of a process (see `ours`): the same paths, one routed hop more. Addresses and
programs are those of `topology` and `nodes`. A measurement has namespaces and an emulator of its
own. Invariant: path n's addresses reach each other over link n only.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from mptcp.tun.closing import Closing
from mptcp.tun.emulator import LinkEmulator, PathEnd, PathSpec
from mptcp.tun.netns import Namespace

from .nodes import Node
from .registry import BenchError
from .topology import MTU, Side, address, network

GRACE_S: Final = 15.0
_DEFAULT: Final = 131072
_LEAST_QUEUE_PACKETS: Final = 10


@dataclass(frozen=True, slots=True)
class Road:
    """One emulated path: no loss, a drop-tail queue of one bandwidth-delay product."""

    rate_bps: int
    rtt_us: int

    @property
    def queue_bytes(self) -> int:
        """At least ten packets."""
        return max(self.rate_bps * self.rtt_us // 8_000_000, _LEAST_QUEUE_PACKETS * MTU)


class EmulatedPaths(Closing):
    """The namespaces and the emulator; use it as a context manager, which takes them down."""

    def __init__(
        self, roads: Sequence[Road], *, ours: frozenset[Side], buffer: int | None = None
    ) -> None:
        """`buffer`: what the kernel's connections may buffer, bytes of payload; None: as it is.

        The kernel counts with the memory behind the payload, and by itself takes half of what it
        has for that (tcp_adv_win_scale, and what SO_RCVBUF doubles): so it is given twice as much.
        """
        self.ours = ours
        self._stack = ExitStack()
        try:
            self.ends = {
                side: self._stack.enter_context(Namespace.create(side.name)) for side in Side
            }
            for side in Side:
                self._settings(side, buffer)
            self.emulator = self._stack.enter_context(
                LinkEmulator.start(
                    [self._path(number, road) for number, road in enumerate(roads, 1)]
                )
            )
            for side in Side:
                self._routes(side, len(roads))
        except BaseException:
            self._stack.close()
            raise

    def _settings(self, side: Side, buffer: int | None) -> None:
        end = self.ends[side]
        for scope in ("all", "default"):
            end.sysctl(f"net.ipv4.conf.{scope}.rp_filter", 0)
        end.sysctl("net.mptcp.enabled", 1)
        end.sysctl("net.ipv4.tcp_no_metrics_save", 1)
        if buffer is not None:
            limits = f"4096 {min(_DEFAULT, 2 * buffer)} {2 * buffer}"
            end.sysctl("net.ipv4.tcp_rmem", limits)
            end.sysctl("net.ipv4.tcp_wmem", limits)
        if side in self.ours:
            end.enable_forwarding()

    def _path(self, number: int, road: Road) -> PathSpec:
        a, b = (
            PathEnd(
                device=f"link{number}",
                addresses=(
                    f"10.{10 + number}.0.{int(side)}/30",
                    *(() if side in self.ours else (f"{address(side, number)}/32",)),
                ),
                namespace=self.ends[side],
            )
            for side in Side
        )
        return PathSpec(
            name=str(number),
            a=a,
            b=b,
            rate_bps=road.rate_bps,
            delay_us=road.rtt_us // 2,
            queue_bytes=road.queue_bytes,
            mtu=MTU,
        )

    def _routes(self, side: Side, paths: int) -> None:
        end = self.ends[side]
        mine = side in self.ours
        end.set_mptcp_limits(subflows=paths - 1, add_addr_accepted=paths - 1)
        for number in range(1, paths + 1):
            end.add_route(
                network(side.other, number),
                device=f"link{number}",
                source=None if mine else address(side, number),
            )
            if not mine and side is Side.B and number > 1:
                # The client learns of the other addresses, and joins from what its routes say.
                end.add_mptcp_endpoint(address(side, number), flags=("signal",))

    def cut(self, path: int) -> None:
        """Nothing passes path `path` (1, 2) any more, and nobody is told."""
        self.emulator.set(str(path), down=True)

    def carried(self) -> list[int]:
        """Bytes that have crossed each path towards B."""
        stats = self.emulator.stats()
        return [stats[name]["forward"].bytes for name in sorted(stats)]

    def close(self) -> None:
        """Kill what runs inside and let the namespaces go."""
        self._stack.close()


class Transfer(Closing):
    """A bulk transfer from A to B over such paths; use it as a context manager."""

    def __init__(
        self, paths: EmulatedPaths, options: Sequence[str], *, label: str = "transfer"
    ) -> None:
        """Start it; `options` are those of `nodes`. Raises BenchError when an end fails."""
        self.label = label
        self._nodes: list[Node] = []
        try:
            for side, end in ((Side.B, "recv"), (Side.A, "send")):
                kind = "ours" if side in paths.ours else "kernel"
                node = Node(paths.ends[side], f"{kind}-{end}", options)
                self._nodes.append(node)
                if end == "recv":
                    node.line(GRACE_S)
        except BaseException:
            self.close()
            raise

    def result(self, patience: float) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the receiver and the sender tell at the end, within `patience` seconds.

        The kernel's sender tells nothing when it does not hear that the receiver has gone: that is
        no failure. Raises BenchError.
        """
        receiver, sender = self._nodes
        try:
            received = receiver.line(patience)
            if sender.role == "ours-send":
                return received, sender.line(GRACE_S)
            return received, {}
        except BenchError as error:
            said = "; ".join(filter(None, (node.complaint() for node in self._nodes)))
            raise BenchError(f"{self.label}: {said or error}") from error

    def close(self) -> None:
        """End what still runs."""
        for node in reversed(self._nodes):
            node.close()
