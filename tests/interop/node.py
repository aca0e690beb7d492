"""This stack's end of an interop test: one connection of an `Engine`, played by a script.

    python -m tests.interop.node SPEC

SPEC (JSON): role (client, server), host, port, script, seed, period, digest, interfaces (a list of
[name, address, offload]), and as options `config` (fields of `Config`) and `backup` (names of
interfaces that are to be used as backups).
The report has the digests, the error that ended the script, the richest `mptcp_info` that was seen
(that with the most subflows, the latest of those), what was known at each gate, the bytes sent and
received at each local address by all subflows there ever were, and the counters of the stack.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import Any

import mptcp
from mptcp.events import Event, SubflowClosed, SubflowEstablished
from mptcp.info import MptcpInfo, subflow_info
from mptcp.subflow import Subflow
from tests.interop.script import CHUNK, Ledger, say


class Node:
    """An engine, the one connection of the test, and what was seen of it."""

    def __init__(self, engine: mptcp.Engine, spec: dict[str, Any]) -> None:
        self.engine = engine
        self.spec = spec
        self.ledger = Ledger(spec)
        self.info: MptcpInfo | None = None
        self.subflows: list[Subflow] = []
        self.closed: list[str] = []
        self.gates: list[dict[str, Any]] = []
        """What there was to know at each gate, when it opened."""
        self.joined = asyncio.Event()
        self.losses: list[tuple[int, str]] = []
        """Interfaces to lose, each once so many bytes have come."""
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        engine.on_event = self.on_event

    def on_event(self, event: Event) -> None:
        if isinstance(event, SubflowEstablished):
            self.subflows.append(event.subflow)
            self.joined.set()
        elif isinstance(event, SubflowClosed):
            self.closed.append(event.end.name)

    def look(self) -> None:
        info: MptcpInfo = self.writer.get_extra_info("mptcp_info")
        if self.info is None or len(info.subflows) >= len(self.info.subflows):
            self.info = info

    async def send(self, count: int) -> None:
        source = self.ledger.source
        end = source.sent + count
        while source.sent < end:
            self.writer.write(source.take(end - source.sent))
            await self.writer.drain()

    async def receive(self, count: int | None) -> None:
        """`count` bytes, or all up to the peer's end."""
        sink = self.ledger.sink
        end = None if count is None else sink.received + count
        while end is None or sink.received < end:
            limit = 4 * CHUNK if end is None else min(4 * CHUNK, end - sink.received)
            data = await self.reader.read(limit)
            if not data:
                if end is not None:
                    raise EOFError(f"the peer ended after {sink.received} bytes")
                return
            if sink.put(data):
                self.look()
            while self.losses and sink.received >= self.losses[0][0]:
                self.engine.interface_down(self.losses.pop(0)[1])

    async def wait_for_subflows(self, count: int) -> None:
        while len(self.subflows) < count:
            self.joined.clear()
            await self.joined.wait()

    async def send_all(self, count: int) -> None:
        await self.send(count)
        self.writer.write_eof()

    async def step(self, name: str, *arguments: Any) -> None:
        match name:
            case "exchange":
                await asyncio.gather(self.send_all(arguments[0]), self.receive(None))
            case "trade":
                await asyncio.gather(self.send(arguments[0]), self.receive(arguments[0]))
            case "send":
                await self.send(arguments[0])
            case "receive":
                await self.receive(arguments[0])
            case "eof":
                self.writer.write_eof()
            case "until_eof":
                await self.receive(None)
            case "gate":
                self.look()
                say("gate")
                await self.engine.loop.run_in_executor(None, sys.stdin.readline)
                info: MptcpInfo = self.writer.get_extra_info("mptcp_info")
                self.gates.append({"info": info.to_dict(), "counters": self.engine.stack.mib()})
            case "subflows":
                await self.wait_for_subflows(arguments[0])
            case "backup":
                self.writer.get_extra_info("options").backup(*arguments)
            case "lose":
                self.losses.append((arguments[1], arguments[0]))
            case "abort":
                self.writer.transport.abort()
            case "error":
                await self.receive(None)
                raise AssertionError("the connection ended in good order")
            case _:
                raise ValueError(f"no such step: {name}")

    async def open(self) -> None:
        """The connection of the test: accepted or made."""
        spec = self.spec
        if spec["role"] == "client":
            self.reader, self.writer = await self.engine.open_connection(
                spec["host"], spec["port"], limit=1 << 20
            )
            return
        accepted: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        accepted = self.engine.loop.create_future()

        async def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.set_result((reader, writer))

        server = await self.engine.start_server(on_client, port=spec["port"], limit=1 << 20)
        say("ready")
        self.reader, self.writer = await accepted
        server.close()

    async def play(self) -> None:
        """The script; the connection is over afterwards."""
        try:
            await self.open()
            self.look()
            for name, *arguments in self.spec["script"]:
                await self.step(name, *arguments)
                self.look()
            self.writer.close()
            await self.writer.wait_closed()
        except OSError as error:
            self.ledger.error = type(error).__name__

    def report(self) -> dict[str, Any]:
        """Everything the test may want to know."""
        subflows = [subflow_info(subflow) for subflow in self.subflows]
        sent = Counter[str]()
        received = Counter[str]()
        for subflow in subflows:
            sent[subflow.local] += subflow.bytes_sent
            received[subflow.local] += subflow.bytes_received
        return {
            **self.ledger.result(),
            "info": self.info.to_dict() if self.info is not None else None,
            "ever": len(subflows),
            "sent_from": dict(sent),
            "received_at": dict(received),
            "path_mtus": [subflow.path_mtu for subflow in subflows],
            "ecn": [subflow.ecn for subflow in subflows],
            "flows": [
                [flow.local, flow.remote, flow.remote_port, flow.bytes_sent, flow.bytes_received]
                for flow in subflows
            ],
            "closed": self.closed,
            "gates": self.gates,
            "counters": dict(self.engine.stack.counters),
        }


async def node(spec: dict[str, Any]) -> dict[str, Any]:
    """Run a specification to its report."""
    interfaces = [
        mptcp.Interface(name, address, offload=offload, backup=name in spec.get("backup", ()))
        for name, address, offload in spec["interfaces"]
    ]
    config = mptcp.Config(**spec.get("config", {}))
    async with mptcp.Engine(interfaces, config) as engine:
        program = Node(engine, spec)
        await program.play()
    return program.report()


def main() -> None:
    spec = json.loads(sys.argv[1])
    if not spec["interfaces"]:
        raise SystemExit("no interfaces")
    report = mptcp.run(node(spec))
    say("done", **report)


if __name__ == "__main__":
    main()
