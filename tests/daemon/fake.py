"""An engine whose "MPTCP" is kernel TCP on loopback, and a daemon on it: no rights needed."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self, cast

from mptcp.blackholes import Blackholes
from mptcp.config import Config
from mptcp.daemon.configuration import parse
from mptcp.daemon.service import Daemon
from mptcp.event_stream import EventStream
from mptcp.info import MptcpInfo, PathInfo, SubflowInfo
from mptcp.linux_info import MptcpKernelInfo, TcpInfo
from mptcp.policies import Policies
from mptcp.stack import Stack

PATIENCE_S = 20.0

_ONES: dict[str, Any] = {field.name: 1 for field in dataclasses.fields(TcpInfo)}
_ZEROS: dict[str, Any] = {field.name: 0 for field in dataclasses.fields(MptcpKernelInfo)}
INFO = MptcpInfo(
    number=7,
    fallback=False,
    fallback_reason="",
    token=0xCAFE,
    remote_token=0xBEEF,
    local="10.9.1.2",
    local_port=40000,
    remote="10.9.2.2",
    remote_port=80,
    snd_una=1,
    snd_nxt=1,
    rcv_nxt=1,
    send_queued=0,
    receive_queued=0,
    receive_window=65535,
    reinjected_bytes=0,
    checksum=False,
    eof=False,
    ended=None,
    established=True,
    server_side=False,
    scheduler="minrtt",
    reorder_queued=0,
    reorder="aggreg",
    reorder_runs=0,
    reorder_hits=0,
    reorder_misses=0,
    reorder_steps=0,
    past_subflows=0,
    mptcp_info=MptcpKernelInfo(**_ZEROS),
    subflows=[
        SubflowInfo(
            path_index=1,
            interface="tun1",
            local="10.9.1.2",
            local_port=40000,
            remote="10.9.2.2",
            remote_port=80,
            local_id=0,
            remote_id=0,
            state="ESTABLISHED",
            backup=False,
            stale=False,
            srtt=15_000,
            rttvar=1000,
            rto=200_000,
            cwnd=14_600,
            ssthresh=None,
            in_flight=0,
            mss=1460,
            path_mtu=1500,
            ecn=False,
            bytes_sent=11,
            bytes_acked=11,
            bytes_retransmitted=0,
            bytes_received=22,
            role="initial-active",
            congestion_control="lia",
            recovery="open",
            spurious=0,
            min_rtt=14_000,
            rack_rtt=15_000,
            reordering_seen=False,
            pacing_rate=0,
            delivery_rate=1_000_000,
            backup_request=False,
            reset_reason=None,
            tcp_info=TcpInfo(**_ONES),
        )
    ],
    paths=[
        PathInfo(
            index=1,
            local="10.9.1.2",
            remote="10.9.2.2",
            remote_port=80,
            established=True,
            failures=0,
        )
    ],
)


class FakeTransport(asyncio.Transport):
    """A kernel transport that behaves as MptcpTransport where the two differ."""

    def __init__(self, inner: asyncio.Transport, engine: FakeEngine) -> None:
        super().__init__()
        self.inner = inner
        self.engine = engine
        for name in (
            *("write", "write_eof", "close", "is_closing", "pause_reading", "resume_reading"),
            *("get_write_buffer_size", "set_write_buffer_limits"),
        ):
            setattr(self, name, getattr(inner, name))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "mptcp_info":
            return self.engine.info
        return self.inner.get_extra_info(name, default)

    def abort(self) -> None:
        sock = self.inner.get_extra_info("socket")
        if not self.inner.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.inner.abort()


class _Shim(asyncio.Protocol):
    def __init__(self, protocol: asyncio.Protocol, engine: FakeEngine) -> None:
        self.protocol = protocol
        self.engine = engine
        self.data_received = protocol.data_received  # type: ignore[method-assign]
        self.eof_received = protocol.eof_received  # type: ignore[method-assign]
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.engine.open += 1
        self.protocol.connection_made(
            FakeTransport(cast(asyncio.Transport, transport), self.engine)
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self.engine.open -= 1
        self.protocol.connection_lost(exc)


class FakeEngine:
    """What the daemon needs of an Engine, over kernel sockets."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.info = INFO
        self.stack = SimpleNamespace(
            mib=lambda: {"TcpActiveOpens": 3, "MPTcpExtMPRstTx": 0, "TcpOutRsts": 2},
            blackholes=Blackholes(4, 60_000_000),
            now=5_000_000,
        )
        for last in (1, 2):
            self.stack.blackholes.failed(bytes((192, 0, 2, last)), last * 1_000_000)
        self.core = Stack(Config(), lambda count: bytes(count))
        """Only for its event stream."""
        self.open = 0
        """"MPTCP" connections that live."""
        self.started = self.stopped = 0
        self.connecting = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.hang = False
        """Whether connects never end by themselves."""
        self.fail_start: BaseException | None = None
        self.policies: list[Policies | None] = []
        """Of each connection and listener asked for, in order."""

    async def __aenter__(self) -> Self:
        self.started += 1
        if self.fail_start is not None:
            raise self.fail_start
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self.stopped += 1

    def connections(self) -> list[MptcpInfo]:
        return [self.info] * self.open

    def monitor(self) -> EventStream:
        return EventStream(self.core.monitor())

    async def create_connection(
        self,
        protocol_factory: Callable[[], Any],
        host: str,
        port: int,
        *,
        local_addr: Any = None,
        policies: Policies | None = None,
    ) -> Any:
        self.policies.append(policies)
        self.connecting.set()
        if self.hang:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.cancelled.set()
        return await asyncio.get_running_loop().create_connection(
            lambda: _Shim(protocol_factory(), self), host, port
        )

    async def create_server(
        self,
        protocol_factory: Callable[[], Any],
        host: str | None = None,
        port: int = 0,
        *,
        backlog: int | None = None,
        policies: Policies | None = None,
    ) -> asyncio.Server:
        self.policies.append(policies)
        return await asyncio.get_running_loop().create_server(
            lambda: _Shim(protocol_factory(), self), host or self.host, port
        )


class Harness:
    """A daemon on a FakeEngine with one listen rule and one forward rule.

    program -> `forward_port` -> daemon -> `remote_port` (the test's own server, "MPTCP")
    "MPTCP" client -> `listen_port` -> daemon -> `service_port` (the test's own server)
    """

    def __init__(self, folder: Path, host: str, port: Callable[[], int]) -> None:
        self.host = host
        self.forward_port, self.remote_port = port(), port()
        self.listen_port, self.service_port = port(), port()
        self.path = str(folder / "control")
        self.extra = ""
        self.engine = FakeEngine(host)
        self.stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._listeners: list[asyncio.Server] = []

    def text(self) -> str:
        return f"""
[daemon]
socket = "{self.path}"
{self.extra}
[[interface]]
name = "tun1"
address = "10.9.1.2/24"
[[listen]]
port = {self.listen_port}
to = "{self.host}:{self.service_port}"
name = "in"
max_connections = 60
[[forward]]
listen = "{self.host}:{self.forward_port}"
to = "{self.host}:{self.remote_port}"
name = "out"
"""

    def socket_exists(self) -> bool:
        return Path(self.path).exists()

    async def start(self) -> None:
        self.daemon = Daemon(parse(self.text().encode(), "test.toml"), self.engine)
        ready = asyncio.Event()
        self._task = asyncio.ensure_future(self.daemon.run(self.stop, ready.set))
        waiting = asyncio.ensure_future(ready.wait())
        await asyncio.wait((waiting, self._task), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            self._task.result()

    async def end(self) -> None:
        self.stop.set()
        if self._task is not None:
            async with asyncio.timeout(PATIENCE_S):
                await self._task
            self._task = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for listener in self._listeners:
            listener.close()
        await self.end()

    # The ends around the daemon, as asyncio streams

    async def serve(self, callback: Callable[..., Any], port: int) -> None:
        """A kernel TCP server of the test's, until its end."""
        self._listeners.append(await asyncio.start_server(callback, self.host, port))

    async def pair(self, way: str) -> tuple[Stream, Stream]:
        """(who opened, who accepted) of one connection through the rule "in" or "out"."""
        entry, exit_port = {
            "out": (self.forward_port, self.remote_port),
            "in": (self.listen_port, self.service_port),
        }[way]
        accepted: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()

        def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.set_result(Stream(reader, writer))

        await self.serve(on_client, exit_port)
        async with asyncio.timeout(PATIENCE_S):
            opener = Stream(*await asyncio.open_connection(self.host, entry))
            return opener, await accepted

    def service(self, name: str) -> dict[str, Any]:
        """The counters of one service."""
        (found,) = [each for each in self.daemon.services if each.title == name]
        return found.counters()

    async def until(self, condition: Callable[[], Any]) -> None:
        """Let the loop turn until `condition` holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
                await asyncio.sleep(0)


def digest(data: bytes) -> str:
    """What to compare of megabytes: pytest would print their difference."""
    return hashlib.sha256(data).hexdigest()


class Stream:
    """A reader and a writer, with the few calls the tests make."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(PATIENCE_S):
            await self.writer.drain()

    async def read(self, size: int = -1) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await (self.reader.read() if size < 0 else self.reader.readexactly(size))

    def end(self) -> None:
        self.writer.write_eof()

    def reset(self) -> None:
        """Close with a RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        async with asyncio.timeout(PATIENCE_S):
            try:
                await self.writer.wait_closed()
            except ConnectionError:
                return
