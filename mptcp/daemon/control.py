"""The control socket: JSON lines over a Unix stream socket, guarded by file permissions.

Each client is one `Session`, a task that answers one request after the other. Whatever a client
sends, it gets an answer or is dropped; the daemon goes on. Bounds: `MAX_REQUEST` bytes a line,
`max_clients` sessions, `STATUS_LIMIT` connections in one status, the listener's backlog of
connections that its client has not fetched.

Requests (messages.py has the framing): ping, version, status, info, counters, paths, monitor,
connect, listen. A connection is handed over as two descriptors with the reply (handover.py). A
client that goes away during `connect` cancels the attempt; one that goes away after `listen` closes
the listener, after `monitor` the stream. A client that reads its events too slowly misses some,
and is told how many.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import os
import socket
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from mptcp.daemon.handover import ProgramHalf, attach
from mptcp.daemon.messages import MAX_REQUEST, decode, encode, error_reply, text_of
from mptcp.daemon.rules import EngineLike, Service
from mptcp.daemon.splice import Half, Splice
from mptcp.errors import MptcpError
from mptcp.event_stream import EventStream
from mptcp.policies import Policies

STATUS_LIMIT: Final = 10_000
DEFAULT_BACKLOG: Final = 128
_RETRY_ACCEPT_S: Final = 0.1
_CREDENTIALS: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid

log = logging.getLogger("mptcp.daemon.control")


class ControlSocket:
    """The listening socket in the file system, from `open()` to `close()`."""

    def __init__(self, path: str, mode: int, group: int | None) -> None:
        self.path = path
        self._mode = mode
        self._group = group
        self._made_folder = False
        self._inode = 0
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.setblocking(False)

    def open(self) -> None:
        """Bind and listen; a socket left by a dead daemon is replaced.

        Raises OSError in one line: a living daemon, no right, or a file of another kind.
        """
        folder = Path(self.path).parent
        try:
            if not folder.is_dir():
                folder.mkdir(mode=0o755)
                self._made_folder = True
            self._remove_stale()
            # Nobody gets in between bind() and chmod().
            before = os.umask(0o177)
            try:
                self.socket.bind(self.path)
            finally:
                os.umask(before)
            self._inode = os.stat(self.path).st_ino
            if self._group is not None:
                os.chown(self.path, -1, self._group)
            os.chmod(self.path, self._mode)
            self.socket.listen(128)
        except BlockingIOError:
            raise self._in_use() from None
        except OSError as error:
            self.close()
            if error.errno == errno.EADDRINUSE:
                raise self._in_use() from None
            if isinstance(error, _SocketInUseError):
                raise
            raise OSError(
                error.errno,
                f"control socket {self.path} cannot be made: {text_of(error)}; "
                "name another place in [daemon] socket",
            ) from None

    def close(self) -> None:
        """Close, and remove what was made. Idempotent."""
        self.socket.close()
        with contextlib.suppress(OSError):
            if self._inode and os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        self._inode = 0
        if self._made_folder:
            self._made_folder = False
            with contextlib.suppress(OSError):  # somebody put something there
                Path(self.path).parent.rmdir()

    def _in_use(self) -> OSError:
        return _SocketInUseError(
            errno.EADDRINUSE,
            f"control socket {self.path} is in use by a running mptcpd; stop that one, "
            "or name another in [daemon] socket",
        )

    def _remove_stale(self) -> None:
        try:
            kind = os.lstat(self.path).st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(kind):
            raise OSError(errno.EEXIST, "there is a file that is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(self.path)
            except ConnectionRefusedError:
                os.unlink(self.path)
                return
        raise self._in_use()


class _SocketInUseError(OSError):
    pass


class ControlServer:
    """Accepts clients on a ControlSocket and runs their sessions."""

    def __init__(
        self,
        sock: socket.socket,
        engine: EngineLike,
        clients: Service,
        queries: dict[str, Callable[[dict[str, Any]], dict[str, Any]]],
        max_clients: int,
    ) -> None:
        self.engine = engine
        self.clients = clients
        self.queries = queries
        self._socket = sock
        self._max_clients = max_clients
        self._sessions: set[asyncio.Task[None]] = set()

    @property
    def session_count(self) -> int:
        """Clients connected now."""
        return len(self._sessions)

    async def serve(self) -> None:
        """Accept until cancelled; the sessions end with it."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    client, _ = await loop.sock_accept(self._socket)
                except OSError as error:  # no descriptors left: wait for some to come back
                    log.warning("a client cannot be accepted: %s", text_of(error))
                    await asyncio.sleep(_RETRY_ACCEPT_S)
                    continue
                client.setblocking(False)
                if len(self._sessions) >= self._max_clients:
                    busy = BlockingIOError(errno.EAGAIN, "too many clients; try again later")
                    with client, contextlib.suppress(OSError):
                        client.send(encode(error_reply(busy)))
                    continue
                task = loop.create_task(Session(self, client).run())
                self._sessions.add(task)
                task.add_done_callback(self._sessions.discard)
        finally:
            sessions = list(self._sessions)
            for task in sessions:
                task.cancel()
            await asyncio.gather(*sessions, return_exceptions=True)


class Session:
    """One client of the control socket. Owns its socket."""

    def __init__(self, server: ControlServer, sock: socket.socket) -> None:
        self._server = server
        self._sock = sock
        self._buffer = bytearray()
        self._loop = asyncio.get_running_loop()
        self._reading: asyncio.Task[bytearray | None] | None = None
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Answer requests until the client goes."""
        try:
            self._log_credentials()
            while (line := await self._next_line()) is not None:
                try:
                    request = decode(line)
                    if not await self._handle(request):
                        break
                except (ValueError, OSError, MptcpError) as error:
                    await self._send(error_reply(error))
        except OSError as error:  # the client went away in the middle
            log.debug("client lost: %s", text_of(error))
        except Exception:
            log.exception("a session failed; its client is dropped")
        finally:
            if self._reading is not None:
                self._reading.cancel()
                await asyncio.gather(self._reading, return_exceptions=True)
            self._sock.close()

    def _log_credentials(self) -> None:
        if log.isEnabledFor(logging.DEBUG):
            raw = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            log.debug("client pid %d uid %d gid %d", *_CREDENTIALS.unpack(raw))

    # Lines in and out

    async def _next_line(self) -> bytearray | None:
        task = self._begin_line()
        try:
            return await task
        finally:
            if task.done():
                self._reading = None

    def _begin_line(self) -> asyncio.Task[bytearray | None]:
        """The task that reads the next line; never two at a time."""
        if self._reading is None:
            self._reading = self._loop.create_task(self._read_line())
        return self._reading

    async def _read_line(self) -> bytearray | None:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) >= MAX_REQUEST:
                problem = ValueError(f"the request is longer than {MAX_REQUEST} bytes; shorten it")
                await self._send(error_reply(problem))
                return None  # where the next line begins is unknown
            data = await self._loop.sock_recv(self._sock, MAX_REQUEST - len(self._buffer))
            if not data:
                return None
            self._buffer += data
        line = self._buffer[:end]
        del self._buffer[: end + 1]
        return line

    async def _send(self, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
        """Send one line, with descriptors if given, which are closed in any case."""
        try:
            line = encode(message)
            async with self._sending:
                sent = 0
                while descriptors and not sent:
                    try:
                        sent = socket.send_fds(self._sock, [line], descriptors)
                    except (BlockingIOError, InterruptedError):
                        await self._writable()
                # Once the descriptors are out there is nothing to wait for, or to be cancelled in.
                if sent < len(line):
                    await self._loop.sock_sendall(self._sock, line[sent:])
        finally:
            for descriptor in descriptors or ():
                os.close(descriptor)

    async def _writable(self) -> None:
        ready = asyncio.Event()
        self._loop.add_writer(self._sock.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            self._loop.remove_writer(self._sock.fileno())

    # Requests

    async def _handle(self, request: dict[str, Any]) -> bool:
        """Answer `request`. Returns whether the session goes on."""
        op = request.get("op")
        if op == "connect":
            return await self._connect(request)
        if op == "listen":
            await self._listen(request)
            return False
        if op == "monitor":
            await self._monitor()
            return False
        query = self._server.queries.get(op) if isinstance(op, str) else None
        if query is None:
            known = ", ".join([*self._server.queries, "connect", "listen", "monitor"])
            raise ValueError(f"unknown op; use one of {known}")
        await self._send({"ok": True, **query(request)})
        return True

    async def _connect(self, request: dict[str, Any]) -> bool:
        host = _text(request, "host")
        port = _number(request, "port", 1, 65535)
        local = _local_address(request)
        splice = self._server.clients.splice(
            ProgramHalf, functools.partial(self._hand_over, reply={"ok": True})
        )
        splice.settled = settled = self._loop.create_future()
        policies = _policies(request)
        opening = asyncio.ensure_future(self._open(splice, host, port, local, policies))
        # A client that goes away, or talks when it should wait, gives the attempt up.
        line = self._begin_line()
        try:
            await asyncio.wait((opening, line), return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                raise ConnectionAbortedError(errno.ECONNABORTED, "given up by the client")
            await opening
            failure = await settled
            if failure is not None:
                raise failure
        except BaseException as error:
            await _cancel(opening)
            if splice.mptcp.transport is None:
                self._server.clients.forget(splice, error)
            else:
                splice.abort(error)
            raise
        return True

    async def _open(
        self, splice: Splice, host: str, port: int, local: Any, policies: Policies
    ) -> None:
        if splice.end is not None:  # too many connections
            raise splice.end
        await self._server.engine.create_connection(
            lambda: splice.mptcp, host, port, local_addr=local, policies=policies
        )

    async def _hand_over(self, splice: Splice, *, reply: dict[str, Any]) -> None:
        """Open the program's side of `splice` and give it to the client."""
        facts, descriptors = await attach(splice)
        await self._send({**reply, **facts}, descriptors)

    async def _listen(self, request: dict[str, Any]) -> None:
        host = _text(request, "host") if request.get("host") is not None else None
        port = _number(request, "port", 0, 65535)
        backlog = _number(request, "backlog", 1, 65535, DEFAULT_BACKLOG)
        # Connections that the client has not fetched yet, and the tasks that offer them.
        offers: set[asyncio.Task[None]] = set()

        def accept() -> Half:
            splice = self._server.clients.splice(ProgramHalf, offer)
            if len(offers) >= backlog:
                splice.end = ConnectionRefusedError(errno.ECONNREFUSED, "the backlog is full")
            return splice.mptcp

        def offer(splice: Splice) -> asyncio.Task[None]:
            task = self._loop.create_task(self._hand_over(splice, reply={"event": "accept"}))
            offers.add(task)
            task.add_done_callback(offers.discard)
            return task

        listener = await self._server.engine.create_server(
            accept, host, port, backlog=backlog, policies=_policies(request)
        )
        try:
            await self._send({"ok": True, "port": _port_of(listener)})
            while await self._next_line() is not None:
                pass  # whatever it says; its end closes the listener
        finally:
            listener.close()
            await _cancel(*offers)

    async def _monitor(self) -> None:
        """The event stream, one line an event, until the client goes."""
        stream = self._server.engine.monitor()
        log.info("events are read by a client")
        forwarding = self._loop.create_task(self._forward(stream))
        try:
            while await self._next_line() is not None:
                pass  # whatever it says; its end is the end of the stream
        finally:
            stream.close()
            await _cancel(forwarding)

    async def _forward(self, stream: EventStream) -> None:
        await self._send({"ok": True, "pid": os.getpid()})
        async for event in stream:
            values = event.to_dict()
            kind = values.pop("type")
            await self._send({"event": kind, "unix_time": round(time.time(), 6), **values})


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _port_of(listener: Any) -> int:
    port = getattr(listener, "port", None)
    return int(port if port is not None else listener.sockets[0].getsockname()[1])


def _text(request: dict[str, Any], key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str) or not value or len(value) > 255:
        raise ValueError(f'{key} is missing or no text; send e.g. "{key}": "10.1.0.2"')
    return value


def _number(
    request: dict[str, Any], key: str, low: int, high: int, default: int | None = None
) -> int:
    value = request.get(key)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{key} is missing or out of range; send a number from {low} to {high}")
    return value


def _policies(request: dict[str, Any]) -> Policies:
    """The policies of the connection, where they are not the daemon's. Raises ValueError."""
    given = request.get("policies") or {}
    kinds = ("scheduler", "congestion_control", "path_manager", "heuristics")
    if not isinstance(given, dict) or not given.keys() <= set(kinds):
        raise ValueError('policies is {"scheduler": NAME, …}: of ' + ", ".join(kinds))
    names = {kind: given.get(kind) for kind in kinds}
    if not all(name is None or isinstance(name, str) for name in names.values()):
        raise ValueError("policies are named by texts")
    return Policies(**names)


def _local_address(request: dict[str, Any]) -> Any:
    """An address, or an (address, port) pair, or None."""
    value = request.get("local_addr")
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):
        return value[0], _number({"port": value[1]}, "port", 0, 65535)
    raise ValueError('local_addr is no address; send e.g. "10.9.1.2" or ["10.9.1.2", 0]')
