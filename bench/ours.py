"""Our ends of a measurement: an `Engine` on TUN devices, memory to memory, through a protocol."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import mptcp

from .meter import CpuClock, Meter
from .registry import BenchError
from .topology import MTU, PORT, Side, address, network

if TYPE_CHECKING:
    from .nodes import Arguments

BLOCK: Final = bytes(1 << 18)


def _interfaces(side: Side, paths: int) -> list[mptcp.Interface]:
    return [
        mptcp.Interface(
            f"t{path}", f"{address(side, path)}/24", mtu=MTU, routes=[network(side.other, path)]
        )
        for path in range(1, paths + 1)
    ]


def _config(args: Arguments) -> mptcp.Config:
    """The defaults, but for what the command line says."""
    changes: dict[str, Any] = {}
    if args.control is not None:
        changes["congestion_control"] = args.control
    if args.buffer is not None:
        changes["send_buffer"] = changes["receive_buffer"] = args.buffer
        initial = min(args.buffer, mptcp.Config().initial_receive_buffer)
        changes["initial_send_buffer"] = changes["initial_receive_buffer"] = initial
    return mptcp.Config(**changes)


def _describe(transport: asyncio.BaseTransport) -> dict[str, Any]:
    """What the stack knows of the connection, shortened to what explains a figure."""
    info = transport.get_extra_info("mptcp_info")
    return {
        "fallback": info.fallback_reason if info.fallback else None,
        "subflows": [
            {
                "local": subflow.local,
                "remote": subflow.remote,
                "srtt_us": subflow.srtt,
                "cwnd": subflow.cwnd,
                "bytes_sent": subflow.bytes_sent,
                "bytes_retransmitted": subflow.bytes_retransmitted,
                "bytes_received": subflow.bytes_received,
            }
            for subflow in info.subflows
        ],
    }


class BulkSender(asyncio.Protocol):
    """Keeps the transport's buffer full until the peer ends the connection."""

    def __init__(self, over: asyncio.Future[None]) -> None:
        self._over = over
        self._paused = False
        self._transport: asyncio.WriteTransport | None = None
        self.sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._fill()

    def _fill(self) -> None:
        transport = self._transport
        assert transport is not None
        while not self._paused and not transport.is_closing():
            transport.write(BLOCK)
            self.sent += len(BLOCK)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._fill()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._over.done():
            self._over.set_result(None)


class _Receiver(asyncio.Protocol):
    """Counts and forgets."""

    def __init__(self, over: asyncio.Future[dict[str, Any]], meter: Meter) -> None:
        self._over = over
        self._meter = meter
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._meter.add(len(data)) and not self._over.done():
            assert self._transport is not None
            self._over.set_result(_describe(self._transport))
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._over.done():
            reason = f": {exc}" if exc is not None else ""
            self._over.set_exception(
                BenchError(f"the connection ended before the measurement did{reason}")
            )


async def _send(args: Arguments) -> dict[str, Any]:
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with mptcp.Engine(_interfaces(Side.A, args.paths), _config(args)) as engine:
        transport, protocol = await engine.create_connection(
            lambda: BulkSender(over),
            address(Side.B, 1),
            PORT,
            local_addr=(address(Side.A, 1), 0),
        )
        started, cpu = time.perf_counter(), CpuClock()
        await asyncio.wait([over], timeout=args.warmup + args.seconds * 0.8)
        described = _describe(transport)  # while the connection lives
        await over
        elapsed = time.perf_counter() - started
        return {
            **described,
            "bytes": protocol.sent,
            "seconds": elapsed,
            **cpu.shares(),
            "counters": dict(engine.stack.counters),
        }


async def _receive(args: Arguments) -> dict[str, Any]:
    from .nodes import say

    over: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    meter = Meter(args.warmup, args.seconds)
    async with mptcp.Engine(_interfaces(Side.B, args.paths), _config(args)) as engine:
        await engine.create_server(lambda: _Receiver(over, meter), None, PORT)
        say({"ready": True})
        described = await over
        counters = dict(engine.stack.counters)
    return {**meter.result, **described, "counters": counters}


def send(args: Arguments) -> None:
    """The role `ours-send`."""
    from .nodes import say

    say(mptcp.run(_send(args)))


def receive(args: Arguments) -> None:
    """The role `ours-recv`."""
    from .nodes import say

    say(mptcp.run(_receive(args)))
