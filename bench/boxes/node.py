"""One end of a case in real time, a process of its own in its namespace: ours or the kernel's.

    python -m bench.boxes.node SPEC

SPEC (JSON): `stack` ("ours", "kernel"), `case`, `traffic` (keys of the tables in `cases`), `role`
("client", "server"), `host` (to connect to), `interfaces` (of ours: [name, address, route] each).
A server says {"ready": true} when it listens; both end with one line of what they saw.
"""

from __future__ import annotations

import asyncio
import errno
import json
import signal
import socket
import struct
import sys
import threading
import time
from dataclasses import asdict
from typing import Any, Final

import mptcp
from mptcp.errors import ConnectionEnd
from mptcp.events import Closed, Event, FellBack, SubflowClosed, SubflowEstablished
from mptcp.subflow import Subflow

from .cases import CASES, PAUSE_S, PORT, TRAFFIC, Case, Traffic, content, same
from .result import Seen, digest

IPPROTO_MPTCP: Final = 262
SOL_MPTCP: Final = 284
MPTCP_INFO: Final = 1
_FLAGS: Final = struct.Struct("=6B2xI")
"""The beginning of linux/mptcp.h's struct mptcp_info: counts, then flags (bit 0: fallback)."""
PATIENCE_S: Final = 45.0
_READ: Final = 1 << 18


class Part:
    """What an end has to send and to get."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.case: Case = next(case for case in CASES if case.key == spec["case"])
        self.traffic: Traffic = next(t for t in TRAFFIC if t.name == spec["traffic"])
        self.client = spec["role"] == "client"
        up, down = content(1, self.traffic.up), content(2, self.traffic.down)
        self.outgoing, self.awaited = (up, down) if self.client else (down, up)
        waits = self.traffic.answers and not self.client
        self.waits_for = self.traffic.up if waits else 0
        self.got = bytearray()

    def pieces(self) -> list[bytes]:
        """What is sent at once; between two there is a pause."""
        if not self.case.pause:
            return [self.outgoing]
        middle = len(self.outgoing) // 2
        return [self.outgoing[:middle], self.outgoing[middle:]]

    def told(self) -> dict[str, Any]:
        """What is said of the bytes that came."""
        got = bytes(self.got)
        return {
            "whole": same(self.case, self.awaited, got),
            "received": len(got),
            "digest": digest(got),
        }


class Ours:
    """An engine with one connection."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.opened: list[Subflow] = []
        self.seen = Seen(False, [], [])
        self.end: ConnectionEnd | None = None
        self.ready = asyncio.Event()  # the bytes that the server waits for are there

    def on_event(self, event: Event) -> None:
        """Note what happens to the connection."""
        match event:
            case SubflowEstablished():
                self.opened.append(event.subflow)
            case SubflowClosed():
                if event.end is not ConnectionEnd.CLOSED:
                    self.seen.broken.append(event.subflow.local[2])
                if event.reason is not None:
                    self.seen.reasons.append(event.reason)
            case FellBack():
                self.seen.why = event.reason.value
            case Closed():
                self.end = event.end
            case _:
                pass

    async def play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both directions to their ends."""
        await asyncio.gather(self._send(writer), self._receive(reader))
        self.seen.fallback = writer.get_extra_info("mptcp_info").fallback
        writer.close()
        await writer.wait_closed()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        if self.part.waits_for:
            await self.ready.wait()
        for number, piece in enumerate(self.part.pieces()):
            if number:
                await asyncio.sleep(PAUSE_S)
            writer.write(piece)
            await writer.drain()
        writer.write_eof()

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        part = self.part
        while data := await reader.read(_READ):
            part.got += data
            if len(part.got) >= part.waits_for:
                self.ready.set()

    def report(self) -> Seen:
        """What was seen, once it is over."""
        self.seen.opened = [(s.local[2], s.fully_established) for s in self.opened]
        return self.seen


async def ours(spec: dict[str, Any]) -> dict[str, Any]:
    """The role played by an engine."""
    part = Part(spec)
    end = Ours(part)
    interfaces = [
        mptcp.Interface(name, address, routes=[route])
        for name, address, route in spec["interfaces"]
    ]
    trouble = ""
    config = mptcp.Config(checksum=part.case.checksum, heuristics="at-once")
    async with mptcp.Engine(interfaces, config) as engine:
        engine.on_event = end.on_event
        try:
            async with asyncio.timeout(PATIENCE_S):
                if part.client:
                    await end.play(*await engine.open_connection(spec["host"], PORT))
                else:
                    await _serve(engine, end)
        except (OSError, TimeoutError) as error:
            trouble = f"ours: {type(error).__name__} {error}"
    return {"seen": asdict(end.report()), "trouble": trouble, **part.told()}


async def _serve(engine: mptcp.Engine, end: Ours) -> None:
    accepted: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
    accepted = engine.loop.create_future()

    async def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not accepted.done():
            accepted.set_result((reader, writer))

    await engine.start_server(on_client, port=PORT)
    say({"ready": True})
    await end.play(*await accepted)


class Kernel:
    """A kernel MPTCP socket with one connection."""

    def __init__(self, part: Part, sock: socket.socket) -> None:
        self.part = part
        self.socket = sock
        self.fallback = False
        self.ready = threading.Event()
        self.failure = ""

    def play(self) -> None:
        """Both directions to their ends. Raises OSError."""
        thread = threading.Thread(target=self._send, daemon=True)
        thread.start()
        try:
            while data := self.socket.recv(_READ):
                self.part.got += data
                self._look()
                if len(self.part.got) >= self.part.waits_for:
                    self.ready.set()
            thread.join(PATIENCE_S)
            self._look()
        finally:
            self.ready.set()
            self.socket.close()

    def _send(self) -> None:
        if self.part.waits_for:
            self.ready.wait(PATIENCE_S)
        try:
            for number, piece in enumerate(self.part.pieces()):
                if number:
                    time.sleep(PAUSE_S)
                self.socket.sendall(piece)
                self._look()
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.failure = f"kernel sends: {error}"

    def _look(self) -> None:
        try:
            raw = self.socket.getsockopt(SOL_MPTCP, MPTCP_INFO, _FLAGS.size)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENOPROTOOPT):
                self.fallback = True  # a TCP socket, which an MPTCP listener gives too
            return
        self.fallback = bool(_FLAGS.unpack(raw)[-1] & 1)


def kernel(spec: dict[str, Any]) -> dict[str, Any]:
    """The role played by the kernel."""
    part = Part(spec)
    trouble, fallback = "", False
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        sock.settimeout(PATIENCE_S)
        try:
            if part.client:
                sock.connect((spec["host"], PORT))
                connection = sock
            else:
                sock.bind(("", PORT))
                sock.listen(8)
                say({"ready": True})
                connection, _ = sock.accept()
                connection.settimeout(PATIENCE_S)
            end = Kernel(part, connection)
            try:
                end.play()
            finally:
                trouble, fallback = end.failure, end.fallback
        except OSError as error:
            trouble = f"kernel: {error}"
    return {"fallback": fallback, "trouble": trouble, **part.told()}


def say(values: dict[str, Any]) -> None:
    """One JSON line to the parent."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Play the role of the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    spec = json.loads(sys.argv[1])
    say(mptcp.run(ours(spec)) if spec["stack"] == "ours" else kernel(spec))


if __name__ == "__main__":
    main()
