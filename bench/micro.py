"""The stack's own cost: two `Stack`s back to back in memory, no device, no loop, virtual time.

What is timed is only what happens inside the stacks; joining header and payload into the packet
that the other side gets (the device's work) is left out, and so is the price of the clock itself.
The sender's share is `send` + `poll_transmit` + the acknowledgements coming in, the receiver's is
`handle_packet` + events + `recv_parts` + the acknowledgements going out, timers belong to both.
"""

from __future__ import annotations

import random
import statistics
import time
from dataclasses import dataclass
from typing import Final

from mptcp.addressing import parse_prefix
from mptcp.config import Config
from mptcp.events import Accepted, Connected
from mptcp.meta_socket import MetaSocket
from mptcp.stack import Offload, Stack
from mptcp.tcp.host import Interface

from .registry import BenchError

BLOCK: Final = bytes(1 << 18)
BATCH: Final = 16
"""Packets handed over before the other side answers: about what an engine reads in a wake-up."""
ROUND_TRIP_US: Final = 200
PORT: Final = 5001

# CPU time, so that what other processes take of the machine does not count.
_clock = time.thread_time_ns


@dataclass(slots=True)
class Cost:
    """Nanoseconds spent in each part, and what was done with them."""

    write: int = 0
    transmit: int = 0
    ack_in: int = 0
    packet_in: int = 0
    read: int = 0
    ack_out: int = 0
    packets: int = 0
    """Packets (or chunks) with payload."""
    timers: tuple[int, int] = (0, 0)
    """Of the sender, of the receiver."""
    acks: int = 0
    bytes: int = 0

    @property
    def sender_us(self) -> float:
        """Microseconds of the sending side for each packet."""
        spent = self.write + self.transmit + self.ack_in + self.timers[0]
        return spent / self.packets / 1000

    @property
    def receiver_us(self) -> float:
        """Microseconds of the receiving side for each packet."""
        spent = self.packet_in + self.read + self.ack_out + self.timers[1]
        return spent / self.packets / 1000

    def parts(self) -> dict[str, float]:
        """Microseconds of each part for each packet, and sizes."""
        scale = 1000 * self.packets
        return {
            "write": self.write / scale,
            "transmit": self.transmit / scale,
            "ack_in": self.ack_in / scale,
            "packet_in": self.packet_in / scale,
            "read": self.read / scale,
            "ack_out": self.ack_out / scale,
            "sender_timers": self.timers[0] / scale,
            "receiver_timers": self.timers[1] / scale,
            "mean_bytes": self.bytes / self.packets,
            "acks_per_packet": self.acks / self.packets,
        }


class Pair:
    """A sender and a receiver with `paths` paths between them, connected."""

    def __init__(self, *, paths: int, offload: bool, mptcp: bool, mtu: int = 1500) -> None:
        """Raises BenchError when the connection does not come about as asked."""
        self.now = 1_000_000
        config = Config(mptcp=mptcp)
        self.offload = Offload(trusted=True, gso_size=1448) if offload else None
        self.stacks: list[Stack] = []
        for side in (1, 2):
            stack = Stack(config, random.Random(side).randbytes, now=self.now)
            for path in range(1, paths + 1):
                stack.interface_up(
                    self.now,
                    Interface(
                        path,
                        f"if{path}",
                        mtu=mtu,
                        offload=offload,
                        addresses=[parse_prefix(f"10.{side}.{path}.2/24")],
                        routes=[parse_prefix(f"10.{3 - side}.{path}.0/24")],
                    ),
                )
            self.stacks.append(stack)
        self.sender, self.receiver = self.stacks
        self.receiver.listen(PORT)
        self.connection: MetaSocket = self.sender.connect("10.2.1.2", PORT)
        self.accepted: MetaSocket | None = None
        self._tick_cost = int(statistics.median(_ticks() for _ in range(1001)))
        self._establish(paths, mptcp)

    def _establish(self, paths: int, mptcp: bool) -> None:
        cost = Cost()
        for _ in range(10_000):
            self.turn(cost)
            if (
                self.accepted is not None
                and len(self.connection.subflows) == paths
                and all(subflow.usable for subflow in self.connection.subflows)
                and cost.bytes > 1 << 24
            ):
                break
        else:
            raise BenchError(f"{len(self.connection.subflows)} of {paths} subflows came about")
        if self.connection.fallback is mptcp:
            raise BenchError(f"fallback is {self.connection.fallback}, MPTCP was {mptcp}")

    def turn(self, cost: Cost) -> None:
        """Fill the send buffer, move one batch of packets, read, acknowledge."""
        tick = self._tick_cost
        sender, receiver, connection = self.sender, self.receiver, self.connection
        now = self.now
        if connection.established:
            before = _clock()
            while connection.send(BLOCK) == len(BLOCK):
                pass
            cost.write += _clock() - before - tick
        moved = 0
        for _ in range(BATCH):
            before = _clock()
            transmit = sender.poll_transmit(now)
            cost.transmit += _clock() - before - tick
            if transmit is None:
                break
            moved += 1
            size = sum(map(len, transmit.payload))
            packet = memoryview(transmit.packet())
            interface = transmit.interface
            cost.packets += size > 0
            cost.bytes += size
            before = _clock()
            receiver.handle_packet(now, interface, packet, self.offload)
            cost.packet_in += _clock() - before - tick
        self._read(cost)
        self.now = now = now + ROUND_TRIP_US
        while True:
            before = _clock()
            transmit = receiver.poll_transmit(now)
            cost.ack_out += _clock() - before - tick
            if transmit is None:
                break
            moved += 1
            cost.acks += 1
            packet = memoryview(transmit.packet())
            interface = transmit.interface
            before = _clock()
            sender.handle_packet(now, interface, packet, self.offload)
            cost.ack_in += _clock() - before - tick
        before = _clock()
        while (event := sender.poll_event()) is not None:
            if isinstance(event, Connected):
                self.connection = event.connection
        cost.ack_in += _clock() - before - tick
        if not moved:
            self._skip()
        before = _clock()
        sender.handle_timeout(self.now)
        between = _clock()
        receiver.handle_timeout(self.now)
        cost.timers = (
            cost.timers[0] + between - before - tick,
            cost.timers[1] + _clock() - between - tick,
        )

    def _read(self, cost: Cost) -> None:
        before = _clock()
        while (event := self.receiver.poll_event()) is not None:
            if isinstance(event, Accepted):
                self.accepted = event.connection
        if self.accepted is not None:
            self.accepted.recv_parts()
        cost.read += _clock() - before - self._tick_cost

    def _skip(self) -> None:
        """Nothing moves: jump to the next deadline, as a simulator would."""
        deadlines = [stack.poll_timeout() for stack in self.stacks]
        waiting = [deadline for deadline in deadlines if deadline is not None]
        if not waiting:
            raise BenchError("nothing moves and nothing waits")
        self.now = max(self.now, min(waiting))


def _ticks() -> int:
    before = _clock()
    return _clock() - before


def measure(*, paths: int, offload: bool, mptcp: bool, packets: int, mtu: int = 1500) -> Cost:
    """The cost of moving `packets` packets (at least 1) after the connection has warmed up.

    Raises BenchError when the connection falls back, lacks a subflow or stands still.
    """
    pair = Pair(paths=paths, offload=offload, mptcp=mptcp, mtu=mtu)
    cost = Cost()
    while cost.packets < packets:
        pair.turn(cost)
    return cost
