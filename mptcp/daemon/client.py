"""Connections through a running mptcpd: `mptcp.open_connection()` and `mptcp.start_server()`.

The daemon owns the stack; this side holds one end of a socket pair per connection, received over
the daemon's Unix socket, and a control socket beside it (handover.py). `DaemonTransport` joins the
two into what asyncio expects of a TCP connection: half-close, `ConnectionResetError` after a reset,
`abort()` that resets, and `get_extra_info("mptcp_info")`, a snapshot taken when the connection was
opened; `await refresh_info(writer)` takes a new one.

No rights are needed but that of opening the daemon's socket.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from mptcp.daemon.client_transport import DaemonTransport
from mptcp.daemon.messages import (
    MAX_REPLY,
    decode,
    encode,
    find_socket_path,
    receive_with_descriptors,
    to_exception,
    unavailable,
)
from mptcp.info import MptcpInfo

if TYPE_CHECKING:
    from mptcp.policies import Policies

LIMIT: Final = 65536
"""Default limit of a StreamReader, bytes: asyncio's."""
_CHUNK: Final = 65536

log = logging.getLogger("mptcp.client")

ClientConnected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]
LocalAddress = str | tuple[str, int]
SocketPath = str | os.PathLike[str]


class _Request:
    """A connection to the daemon's socket: one request, its reply, and what comes after."""

    def __init__(self, path: SocketPath | None) -> None:
        self.path = os.fspath(path) if path is not None else find_socket_path()
        self._loop = asyncio.get_running_loop()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.setblocking(False)
        self._buffer = bytearray()
        self._descriptors: list[int] = []

    async def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send the request; its reply. Raises DaemonError, or the error the daemon tells."""
        try:
            await self._loop.sock_connect(self._sock, self.path)
            await self._loop.sock_sendall(self._sock, encode(message))
        except OSError as error:
            raise unavailable(self.path, error) from None
        reply = await self.next_message()
        if reply is None:
            raise unavailable(self.path, ConnectionResetError("it hung up"))
        if reply.get("ok") is not True:
            raise to_exception(reply)
        return reply

    async def next_message(self) -> dict[str, Any] | None:
        """The daemon's next line; None at its end. Raises ValueError for what is no message."""
        while (end := self._buffer.find(b"\n")) < 0:
            try:
                data, descriptors = receive_with_descriptors(self._sock, _CHUNK)
            except (BlockingIOError, InterruptedError):
                await self._readable()
                continue
            except ConnectionError:
                return None
            self._descriptors += descriptors
            if not data or len(self._buffer) > MAX_REPLY:
                return None
            self._buffer += data
        line = self._buffer[:end]
        del self._buffer[: end + 1]
        return decode(line)

    def take_sockets(self) -> tuple[socket.socket, socket.socket]:
        """The data and the control socket that came with the last message. Raises OSError."""
        pair, self._descriptors = self._descriptors[:2], self._descriptors[2:]
        if len(pair) < 2 or -1 in pair:
            raise OSError(errno.EMFILE, "no file descriptor is left for the connection")
        data, control = (socket.socket(fileno=descriptor) for descriptor in pair)
        for sock in (data, control):
            sock.setblocking(False)
        return data, control

    def close(self) -> None:
        """Hang up; descriptors that nobody took are closed. Idempotent."""
        self._sock.close()
        for descriptor in self._descriptors:
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptors.clear()

    async def _readable(self) -> None:
        ready = asyncio.Event()
        self._loop.add_reader(self._sock.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            self._loop.remove_reader(self._sock.fileno())


async def _start(
    protocol: asyncio.Protocol,
    sockets: tuple[socket.socket, socket.socket],
    facts: dict[str, Any],
) -> DaemonTransport:
    data, control = sockets
    try:
        transport = DaemonTransport(protocol, control, facts)
        await transport.start(data)
    except BaseException:
        data.close()
        control.close()
        raise
    return transport


def _names(policies: Policies | None) -> dict[str, str | None] | None:
    return None if policies is None else dataclasses.asdict(policies)


async def open_connection(
    host: str,
    port: int,
    *,
    local_addr: LocalAddress | None = None,
    limit: int = LIMIT,
    policies: Policies | None = None,
    path: SocketPath | None = None,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to `host`:`port` (1 to 65535) by MPTCP through the daemon.

    `local_addr`: an address of the daemon's stack, or (address, port). `limit`: bytes the reader
    holds before it stops reading. `policies`: of this connection, where they are not the daemon's.
    `path`: the daemon's socket, None for the usual one.
    Raises DaemonError (an OSError) without a daemon, ConnectionRefusedError, TimeoutError or
    another OSError when the peer cannot be reached. Cancelling ends the attempt.
    """
    loop = asyncio.get_running_loop()
    request = _Request(path)
    try:
        facts = await request.ask(
            {
                "op": "connect",
                "host": host,
                "port": port,
                "local_addr": local_addr,
                "policies": _names(policies),
            }
        )
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport = await _start(protocol, request.take_sockets(), facts)
    finally:
        request.close()
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def refresh_info(writer: asyncio.StreamWriter) -> MptcpInfo | None:
    """A new snapshot of a daemon connection, which `get_extra_info("mptcp_info")` gives from then.

    Raises TypeError for a stream that does not come from the daemon.
    """
    transport = writer.transport
    if not isinstance(transport, DaemonTransport):
        raise TypeError("not a connection through the daemon: its mptcp_info is always fresh")
    return await transport.refresh_info()


class DaemonServer(asyncio.AbstractServer):
    """A port the daemon listens on for this program, until `close()` or the program's end."""

    def __init__(self, request: _Request, port: int, connected: ClientConnected, limit: int):
        self.port = port
        """The port that is listened on, also when 0 was asked for."""
        self._request = request
        self._connected = connected
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._starting: set[asyncio.Task[DaemonTransport]] = set()
        self._task = self._loop.create_task(self._accept())
        # Also when it is cancelled before its first step.
        self._task.add_done_callback(lambda done: request.close())

    def close(self) -> None:
        """Accept no more; connections live on. Idempotent."""
        self._task.cancel()

    async def wait_closed(self) -> None:
        """Wait until nothing is accepted any more. It does not wait for connections."""
        await asyncio.wait((self._task,))

    def is_serving(self) -> bool:
        """Whether connections are accepted; False too after the daemon has gone."""
        return not self._task.done() and not self._task.cancelling()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop it runs in."""
        return self._loop

    async def start_serving(self) -> None:
        """A server serves from its making: nothing to do."""

    async def serve_forever(self) -> None:
        """Serve until cancelled or closed, or the daemon goes; the server is closed afterwards."""
        try:
            await self.wait_closed()
        finally:
            self.close()

    async def _accept(self) -> None:
        try:
            while (message := await self._request.next_message()) is not None:
                if message.get("event") == "accept":
                    reader = asyncio.StreamReader(limit=self._limit, loop=self._loop)
                    protocol = asyncio.StreamReaderProtocol(reader, self._connected, self._loop)
                    try:
                        sockets = self._request.take_sockets()
                    except OSError as error:
                        log.warning("a connection cannot be accepted: %s", error)
                        continue
                    # A task of its own: close() ends the accepting, not what was accepted.
                    starting = self._loop.create_task(_start(protocol, sockets, message))
                    self._starting.add(starting)
                    starting.add_done_callback(self._starting.discard)
        except ValueError as error:
            log.warning("mptcpd says what is no message; no longer listening: %s", error)
        finally:
            self._request.close()


async def start_server(
    client_connected_cb: ClientConnected,
    host: str | None = None,
    port: int = 0,
    *,
    backlog: int | None = None,
    limit: int = LIMIT,
    policies: Policies | None = None,
    path: SocketPath | None = None,
) -> DaemonServer:
    """Listen on `port` (0: any free one) of the daemon's stack; as asyncio.start_server().

    `host`: an address of the stack, None for all. `backlog`: connections that may wait to be
    fetched, None for 128. `limit`, `policies` and `path` as for `open_connection`.
    Raises DaemonError (an OSError) without a daemon, OSError when the port is taken.
    """
    request = _Request(path)
    try:
        reply = await request.ask(
            {
                "op": "listen",
                "host": host,
                "port": port,
                "backlog": backlog,
                "policies": _names(policies),
            }
        )
    except BaseException:
        request.close()
        raise
    return DaemonServer(request, int(reply["port"]), client_connected_cb, limit)
