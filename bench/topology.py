"""The network of the two-path measurements.

        A (sends)                    R                    B (receives)
    10.1.1.2 ──── a1, veth ──── r1a  router  r1b ──── veth, b1 ──── 10.2.1.2
    10.1.2.2 ──── a2, veth ──── r2a          r2b ──── veth, b2 ──── 10.2.2.2

A and B are hosts, R routes; everything lives in anonymous network namespaces. An end that is the
kernel's has its two addresses on its veth devices. An end that is ours has them behind two TUN
devices `t1`, `t2` that stand in the same namespace, which routes between them and the same veth
devices: the same pairs and the same router for everybody, and one hop more for our ends.

Invariant: path i uses the devices numbered i only, in both directions.
"""

from __future__ import annotations

import enum
from contextlib import ExitStack
from typing import Final

from mptcp.tun.closing import Closing
from mptcp.tun.netns import Namespace

PATHS: Final = 2
MTU: Final = 1500
PORT: Final = 5001


class Side(enum.IntEnum):
    """Which end of the network; the value is the second number of its addresses."""

    A = 1
    B = 2

    @property
    def other(self) -> Side:
        """The opposite end."""
        return Side.B if self is Side.A else Side.A


def address(side: Side, path: int) -> str:
    """The address of an end on a path (1 or 2)."""
    return f"10.{int(side)}.{path}.2"


def network(side: Side, path: int) -> str:
    """The prefix of an end's address on a path."""
    return f"10.{int(side)}.{path}.0/24"


def veth_name(side: Side, path: int) -> str:
    """The end's own veth device."""
    return f"{side.name.lower()}{path}"


class TwoPaths(Closing):
    """The namespaces, up and routed; use it as a context manager, which takes them down."""

    def __init__(self, *, ours: frozenset[Side]) -> None:
        """`ours`: the ends whose addresses will be behind TUN devices."""
        self.ours = ours
        self._stack = ExitStack()
        try:
            self.router = self._stack.enter_context(Namespace.create("R"))
            self.router.enable_forwarding()
            self.ends = {
                side: self._stack.enter_context(Namespace.create(side.name)) for side in Side
            }
            for side in Side:
                self._set_up(side)
        except BaseException:
            self._stack.close()
            raise

    def _set_up(self, side: Side) -> None:
        end = self.ends[side]
        # IPv6 addresses are not used, and a router would announce itself.
        end.sysctl("net.ipv4.conf.all.rp_filter", 0)
        end.sysctl("net.ipv4.conf.default.rp_filter", 0)
        end.sysctl("net.mptcp.enabled", 1)
        end.set_mptcp_limits(subflows=PATHS - 1, add_addr_accepted=PATHS - 1)
        mine = side in self.ours
        if mine:
            end.enable_forwarding()
        for path in range(1, PATHS + 1):
            device = veth_name(side, path)
            transit = f"10.{10 + int(side)}.{path}."
            own = [] if mine else [f"{address(side, path)}/32"]
            end.veth(
                self.router,
                device,
                f"r{path}{side.name.lower()}",
                addresses=[transit + "1/30", *own],
                other_addresses=[transit + "2/30"],
                mtu=MTU,
            )
            self.router.add_route(network(side, path), via=transit + "1")
            end.add_route(
                network(side.other, path),
                via=transit + "2",
                source=None if mine else address(side, path),
            )
            if not mine and side is Side.B and path > 1:
                # The client learns of the other addresses, and joins from what its routes say.
                end.add_mptcp_endpoint(address(side, path), flags=("signal",))

    def bytes_sent(self, side: Side) -> list[int]:
        """Bytes the end has put on each of its veth devices so far, one number a path."""
        table = _device_table(self.ends[side])
        return [table[veth_name(side, path)] for path in range(1, PATHS + 1)]

    def counters(self, side: Side) -> dict[str, int]:
        """The kernel's MPTCP counters at that end which are not 0."""
        counted = self.ends[side].counters()
        return {name: value for name, value in counted.items() if name[:5] == "MPTcp" and value}

    def close(self) -> None:
        """Kill what runs inside and let the namespaces go."""
        self._stack.close()


class BarePath(Closing):
    """TUN `t1` in A, a veth pair, TUN `t1` in B: the road of the bare read and write loop."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        try:
            self.ends = {
                side: self._stack.enter_context(Namespace.create(side.name)) for side in Side
            }
            a, b = self.ends[Side.A], self.ends[Side.B]
            a.veth(b, "v", addresses=["10.9.0.1/30"], other_addresses=["10.9.0.2/30"], mtu=MTU)
            for side, gateway in ((Side.A, "10.9.0.2"), (Side.B, "10.9.0.1")):
                self.ends[side].enable_forwarding()
                self.ends[side].add_route(network(side.other, 1), via=gateway)
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """Kill what runs inside and let the namespaces go."""
        self._stack.close()


def _device_table(namespace: Namespace) -> dict[str, int]:
    """Bytes sent by each device of the namespace."""

    def read() -> dict[str, int]:
        # Of the thread, which is inside; /proc/net would be the process's.
        with open("/proc/thread-self/net/dev", encoding="ascii") as table:
            rows = [line.partition(":") for line in table.readlines()[2:]]
        return {name.strip(): int(numbers.split()[8]) for name, _, numbers in rows}

    return namespace.call(read)
