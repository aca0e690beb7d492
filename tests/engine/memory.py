"""Two engines in one process, joined by devices in memory: no rights, no kernel, no sleeping."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Any, Self

from mptcp import Config, Engine, Interface
from mptcp.engine_interfaces import Attachment
from mptcp.tun.device import BytesLike, DeviceError

A, B = "10.0.1.1", "10.0.1.2"
A2, B2 = "10.0.2.1", "10.0.2.2"
QUEUE = 500  # a TUN's


class MemoryDevice:
    """One end of a cable; what is written here is read at `peer`."""

    def __init__(self, *, mtu: int = 1500, offload: bool = True) -> None:
        self.mtu = mtu
        self.offload = offload
        self.peer: MemoryDevice | None = None
        self.queue: deque[bytes] = deque()
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.gone = False
        self.closed = 0
        self.refuse: Callable[[bytes], bool] = lambda packet: False
        self.largest_queue = 0

    def fileno(self) -> int:
        return self.descriptor

    def read(self) -> bytes | None:
        if self.gone:
            raise DeviceError(errno.ENODEV, "the test took the device away")
        if self.queue:
            return self.queue.popleft()
        with suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)
        return None

    def write(self, vnet_header: BytesLike, parts: Sequence[BytesLike]) -> bool:
        if self.gone:
            raise DeviceError(errno.ENODEV, "the test took the device away")
        packet = b"".join((vnet_header, *parts))
        if self.refuse(packet):
            return False
        if self.peer is not None:
            self.peer.deliver(packet)
        return True

    def deliver(self, packet: bytes) -> None:
        """A packet for the engine of this end; one too many is dropped, as by a TUN."""
        if len(self.queue) < QUEUE and not self.closed:
            self.queue.append(packet)
            self.largest_queue = max(self.largest_queue, len(self.queue))
            os.eventfd_write(self.descriptor, 1)

    def vanish(self) -> None:
        """As a TUN device that is deleted: readable, and gone."""
        self.gone = True
        os.eventfd_write(self.descriptor, 1)

    def close(self) -> None:
        if not self.closed:
            os.close(self.descriptor)
        self.closed += 1


class Side:
    """The device factory of one engine; remembers what it gave."""

    def __init__(self, devices: dict[str, MemoryDevice]) -> None:
        self.devices = devices
        self.undone: list[str] = []

    def __call__(self, interface: Interface) -> Attachment:
        device = self.devices[interface.name]
        if device.descriptor < 0 or device.closed:
            raise DeviceError(errno.EBUSY, f"device '{interface.name}' is in use")
        return Attachment(device, lambda: self.undone.append(interface.name))


class Pair:
    """Two engines on one cable (or two); `async with` starts and stops both."""

    def __init__(
        self,
        config_a: Config | None = None,
        config_b: Config | None = None,
        *,
        paths: int = 1,
        offload: bool = True,
        **options: Any,
    ) -> None:
        ends: list[dict[str, MemoryDevice]] = [{}, {}]
        for path in range(1, paths + 1):
            one, other = MemoryDevice(offload=offload), MemoryDevice(offload=offload)
            one.peer, other.peer = other, one
            ends[0][f"p{path}"], ends[1][f"p{path}"] = one, other
        self.sides = [Side(end) for end in ends]
        addresses = [(A, A2), (B, B2)]
        self.a, self.b = (
            Engine(
                [
                    Interface(f"p{path + 1}", f"{own[path]}/24", routes=[f"{own[path]}/24"])
                    for path in range(paths)
                ],
                config,
                device_factory=side,
                **options,
            )
            for config, side, own in zip((config_a, config_b), self.sides, addresses, strict=True)
        )
        self._stack = AsyncExitStack()

    def b_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that both run in."""
        return self.b.loop

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let both engines run until `condition` holds; a deadline of five seconds."""
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 (what changes it tells nobody)
                await asyncio.sleep(0)

    def cut(self) -> None:
        """From now on packets are lost, both ways."""
        for side in self.sides:
            for device in side.devices.values():
                device.peer = None

    async def settle(self) -> None:
        """Let both engines run until nothing moves but time."""
        devices = [device for side in self.sides for device in side.devices.values()]
        quiet = 0
        while quiet < 5:
            await asyncio.sleep(0)
            busy = any(device.queue for device in devices)
            busy = busy or self.a._scheduled or self.b._scheduled
            quiet = 0 if busy else quiet + 1

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.a)
        await self._stack.enter_async_context(self.b)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()
        for side in self.sides:
            for device in side.devices.values():
                device.close()
