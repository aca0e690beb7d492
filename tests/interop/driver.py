"""A `Stack` on TUN devices without an engine: for what an engine keeps to itself (ISN, IDSN, keys).

Synchronous, one thread for any number of hosts; real devices and real time otherwise.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import Any, Final

from mptcp.addressing import parse_prefix
from mptcp.config import Config
from mptcp.events import (
    Accepted,
    Closed,
    Connected,
    Event,
    FellBack,
    Readable,
    SubflowEstablished,
    Writable,
)
from mptcp.meta_socket import MetaSocket
from mptcp.stack import Offload, Stack
from mptcp.subflow import Subflow
from mptcp.tcp.host import Interface
from mptcp.tun.device import (
    F_DATA_VALID,
    F_NEEDS_CSUM,
    GSO_ECN,
    VNET_HDR,
    VNET_HDR_LEN,
    VNET_HDR_NONE,
    TunDevice,
)
from mptcp.tun.interface import kernel_side_address
from tests.interop.lab import Lab, address, prefix_length
from tests.interop.script import Ledger, defaults_for

PACKETS_A_TURN: Final = 64
LONGEST_WAIT_S: Final = 0.1


def clock() -> int:
    """Monotonic microseconds."""
    return time.monotonic_ns() // 1000


class Host:
    """One stack, its devices in a namespace of the lab, and one connection that exchanges bytes."""

    def __init__(
        self,
        network: Lab,
        size: int,
        *,
        far: bool = False,
        config: Config | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        **options: Any,
    ) -> None:
        """`size` bytes are sent, then the direction is ended. `options`: Stack's `isn`, `idsn`."""
        self.size = size
        self.ledger = Ledger(defaults_for(seed=11 + far))
        self.stack = Stack(config or Config(), entropy, now=clock(), **options)
        self.connection: MetaSocket | None = None
        self.subflows: list[Subflow] = []
        self.closed: Closed | None = None
        self.fallback: str | None = None
        self.devices: dict[int, tuple[int, TunDevice]] = {}
        namespace = network.far if far else network.near
        for path, family in enumerate(network.families, 1):
            own = f"{address(3 if far else 1, path, family, 2)}/{prefix_length(family)}"
            device = namespace.tun(f"t{path}")
            self.devices[device.fileno()] = (path, device)
            namespace.configure(device.name, addresses=[kernel_side_address(own)])
            self.stack.interface_up(
                clock(),
                Interface(
                    path,
                    device.name,
                    mtu=device.mtu,
                    offload=device.offload,
                    addresses=[parse_prefix(own)],
                ),
            )

    def close(self) -> None:
        """Close the devices, which vanish with that."""
        for _, device in self.devices.values():
            device.close()

    def on_event(self, event: Event) -> None:
        if isinstance(event, Connected | Accepted):
            self.connection = event.connection
            self.send()
        elif isinstance(event, Writable):
            self.send()
        elif isinstance(event, Readable):
            for part in event.connection.recv_parts():
                self.ledger.sink.put(part)
        elif isinstance(event, SubflowEstablished):
            self.subflows.append(event.subflow)
        elif isinstance(event, FellBack):
            self.fallback = event.reason.value
        elif isinstance(event, Closed):
            self.closed = event

    def send(self) -> None:
        """Give the connection what it takes."""
        assert self.connection is not None
        source = self.ledger.source
        while source.sent < self.size:
            # Only what certainly fits is taken from the source: it counts as sent.
            room = self.connection.tx.capacity - self.connection.tx.used
            if room < 1:
                self.connection.writable_wanted = True
                return
            piece = source.take(min(room, self.size - source.sent))
            assert self.connection.send(piece) == len(piece)
        self.connection.shutdown()

    def turn(self, readable: set[int]) -> None:
        """Packets in, timers, events, packets out."""
        for descriptor in readable & self.devices.keys():
            path, device = self.devices[descriptor]
            for _ in range(PACKETS_A_TURN):
                packet = device.read()
                if packet is None:
                    break
                flags, gso_type, _, gso_size, _, _ = VNET_HDR.unpack_from(packet)
                offload = Offload(
                    bool(flags & (F_NEEDS_CSUM | F_DATA_VALID)),
                    gso_size if gso_type & ~GSO_ECN else 0,
                )
                self.stack.handle_packet(clock(), path, memoryview(packet)[VNET_HDR_LEN:], offload)
        self.stack.handle_timeout(clock())
        self.events()
        self.transmit()
        self.events()

    def events(self) -> None:
        while (event := self.stack.poll_event()) is not None:
            self.on_event(event)

    def transmit(self) -> None:
        devices = dict(self.devices.values())
        while (transmit := self.stack.poll_transmit(clock())) is not None:
            header = VNET_HDR_NONE
            if transmit.csum_start:
                header = VNET_HDR.pack(
                    F_NEEDS_CSUM,
                    transmit.gso_type,
                    len(transmit.header),
                    transmit.gso_size,
                    transmit.csum_start,
                    transmit.csum_offset,
                )
            parts = [transmit.header, *transmit.payload]
            if not devices[transmit.interface].write(header, parts):
                self.stack.transmit_refused(clock(), transmit)

    def wait(self) -> float:
        """Seconds until the next timer."""
        deadline = self.stack.poll_timeout()
        if deadline is None:
            return LONGEST_WAIT_S
        return min(LONGEST_WAIT_S, max(0.0, (deadline - clock()) / 1e6))


def drive(hosts: list[Host], until: Callable[[], bool], patience: float = 30.0) -> None:
    """Run the hosts until `until()`. Raises AssertionError when that takes longer than patience."""
    end = time.monotonic() + patience
    readable: set[int] = set()
    while True:
        for host in hosts:
            host.turn(readable)
        if until():
            return
        assert time.monotonic() < end, [(host.ledger.result(), host.closed) for host in hosts]
        descriptors = [descriptor for host in hosts for descriptor in host.devices]
        wait = min(host.wait() for host in hosts)
        readable = set(select.select(descriptors, [], [], wait)[0])
