"""The demonstration's network: two hosts, two emulated paths, and routes that keep them apart.

    host a                                                              host b
    stack 10.1.1.2 - mp1 [kernel] link1 ==== 40 Mbit/s, 15 ms ==== link1 [kernel] mp1 - 10.2.1.2
    stack 10.1.2.2 - mp2 [kernel] link2 ==== 20 Mbit/s, 40 ms ==== link2 [kernel] mp2 - 10.2.2.2

The stacks' devices mp1 and mp2 are made by the `mptcpd` of each host. In each host a rule per
source address chooses the table of its path, so packets from path n's address can only use path n.
A kernel peer as host b has the addresses 10.2.n.2 itself, on link n.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mptcp.tun.emulator import LinkEmulator, PathEnd, PathSpec
from mptcp.tun.netns import Namespace

MTU: Final = 1500
_TABLE: Final = 100  # routing table of path n: this + n


@dataclass(frozen=True, slots=True)
class PathPlan:
    """One path; its delay is given as the round-trip time, half of it each way."""

    number: int
    rate_bps: int
    rtt_us: int

    @property
    def name(self) -> str:
        return f"path {self.number}"

    @property
    def queue_bytes(self) -> int:
        """One bandwidth-delay product."""
        return self.rate_bps * self.rtt_us // 8_000_000

    @property
    def description(self) -> str:
        return f"{self.rate_bps // 1_000_000} Mbit/s, {self.rtt_us // 1000} ms round trip"


PATHS: Final = (PathPlan(1, 40_000_000, 15_000), PathPlan(2, 20_000_000, 40_000))


def stack_address(host: str, path: int) -> str:
    """The address of host "a" or "b" on a path (1, 2)."""
    return f"10.{1 if host == 'a' else 2}.{path}.2"


def stack_prefix(host: str, path: int) -> str:
    """The prefix that address lies in."""
    return f"10.{1 if host == 'a' else 2}.{path}.0/24"


@dataclass(frozen=True, slots=True)
class Network:
    """The two hosts and what joins them."""

    a: Namespace
    b: Namespace
    emulator: LinkEmulator

    def cut(self, path: PathPlan, down: bool) -> None:
        """Take a path down (everything on it is lost without a word) or bring it back."""
        self.emulator.set(path.name, down=down)

    def delivered(self) -> list[int]:
        """IP bytes each path has carried from b to a, the direction of the file."""
        stats = self.emulator.stats()
        return [stats[path.name]["backward"].bytes for path in PATHS]


@contextlib.contextmanager
def network(*, kernel_peer: bool) -> Iterator[Network]:
    """Build the network; it vanishes at the end. Raises DeviceError, EmulatorError."""
    with contextlib.ExitStack() as stack:
        a = stack.enter_context(Namespace.create("host a"))
        b = stack.enter_context(Namespace.create("host b"))
        emulator = stack.enter_context(
            LinkEmulator.start([_spec(path, a, b, kernel_peer) for path in PATHS])
        )
        for host, namespace in (("a", a), ("b", b)):
            namespace.enable_forwarding()
            for path in PATHS:
                table = _TABLE + path.number
                namespace.add_route("default", device=f"link{path.number}", table=table)
                namespace.add_source_rule(stack_address(host, path.number), table)
        yield Network(a, b, emulator)


def _spec(path: PathPlan, a: Namespace, b: Namespace, kernel_peer: bool) -> PathSpec:
    device = f"link{path.number}"
    b_addresses = [f"10.0.{path.number}.2/30"]
    if kernel_peer:
        b_addresses.append(f"{stack_address('b', path.number)}/32")
    return PathSpec(
        name=path.name,
        a=PathEnd(device=device, addresses=(f"10.0.{path.number}.1/30",), namespace=a),
        b=PathEnd(device=device, addresses=tuple(b_addresses), namespace=b),
        rate_bps=path.rate_bps,
        delay_us=path.rtt_us // 2,
        queue_bytes=path.queue_bytes,
        mtu=MTU,
    )
