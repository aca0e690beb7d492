"""The proxies: `[[listen]]` and `[[forward]]`, and the counters of every way into the daemon.

A `Service` is a source of spliced connections under one name: a rule of the configuration, or the
clients of the control socket. It bounds how many connections live at a time, counts them, and ends
them with the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from mptcp.daemon.configuration import ForwardTable, ListenTable, Settings
from mptcp.daemon.messages import text_of
from mptcp.daemon.splice import ErrorWatch, Half, Opener, Splice, TcpHalf
from mptcp.event_stream import EventStream
from mptcp.info import MptcpInfo
from mptcp.policies import Policies

LINES_PER_SECOND: Final = 20

log = logging.getLogger("mptcp.daemon")
connection_log = logging.getLogger("mptcp.daemon.connection")

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class ServerLike(Protocol):
    """What is used of `mptcp.streams.Server` and of asyncio.Server."""

    def close(self) -> None: ...
    async def wait_closed(self) -> Any: ...


class EngineLike(Protocol):
    """What the daemon uses of `mptcp.Engine`; the tests put kernel sockets in its place."""

    stack: Any

    async def create_connection(
        self,
        protocol_factory: Callable[[], Half],
        host: str,
        port: int,
        *,
        local_addr: str | None = None,
        policies: Policies | None = None,
    ) -> Any: ...

    async def create_server(
        self,
        protocol_factory: ProtocolFactory,
        host: str | None = None,
        port: int = 0,
        *,
        backlog: int | None = None,
        policies: Policies | None = None,
    ) -> Any: ...

    def connections(self) -> list[MptcpInfo]: ...

    def monitor(self) -> EventStream: ...

    async def __aenter__(self) -> Any: ...
    async def __aexit__(self, *exc: Any) -> Any: ...


class RateLimit(logging.Filter):
    """Lets at most `LINES_PER_SECOND` lines pass, and tells how many it held back.

    Whoever can connect can cause lines: they must not fill a disk.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._second = -1
        self._passed = 0
        self._held = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line passes."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._passed = second, 0
            if self._held:
                record.msg = f"({self._held} lines left out) {record.msg}"
                self._held = 0
        if self._passed >= LINES_PER_SECOND:
            self._held += 1
            return False
        self._passed += 1
        return True


class Service:
    """Spliced connections of one kind, counted."""

    def __init__(self, title: str, watch: ErrorWatch, max_connections: int) -> None:
        self.title = title
        self.watch = watch
        self.max_connections = max_connections
        self.active: set[Splice] = set()
        self.connections = 0
        """Connections begun, those that failed included."""
        self.failures = 0
        """Connections that ended with an error, at once or later."""
        self.refused = 0
        """Connections turned away at `max_connections`."""
        self._bytes_out = 0
        self._bytes_in = 0

    def splice(self, local: Callable[[Splice], Half], open_other: Opener) -> Splice:
        """A new connection, which is counted until it ends."""
        splice = Splice(self.watch, local, open_other, self._ended)
        self.connections += 1
        self.active.add(splice)
        if len(self.active) > self.max_connections:
            self.refused += 1
            splice.end = ConnectionRefusedError(
                errno.ECONNREFUSED, f"more than {self.max_connections} connections"
            )
        return splice

    def _ended(self, splice: Splice) -> None:
        self.active.discard(splice)
        self._bytes_out += splice.local.received
        self._bytes_in += splice.mptcp.received
        self.failures += splice.end is not None
        level = logging.DEBUG if splice.end is None else logging.INFO
        connection_log.log(level, "%s: %s", self.title, splice.describe_end())

    def forget(self, splice: Splice, error: BaseException) -> None:
        """A connection whose first side never came up."""
        splice.end = splice.end or error
        self._ended(splice)

    def counters(self) -> dict[str, Any]:
        """Numbers since the start; bytes out are those that went into MPTCP."""
        return {
            "name": self.title,
            "active": len(self.active),
            "connections": self.connections,
            "failures": self.failures,
            "refused": self.refused,
            "bytes_out": self._bytes_out + sum(s.local.received for s in self.active),
            "bytes_in": self._bytes_in + sum(s.mptcp.received for s in self.active),
        }

    def abort(self) -> None:
        """Reset what is still open."""
        for splice in list(self.active):
            splice.abort(ConnectionAbortedError(errno.ECONNABORTED, "the daemon ends"))

    async def close(self) -> None:
        """Accept no more."""


class ListenRule(Service):
    """`[[listen]]`: MPTCP connections go to a local TCP service."""

    def __init__(self, engine: EngineLike, watch: ErrorWatch, table: ListenTable) -> None:
        super().__init__(table.title, watch, table.max_connections)
        self._engine = engine
        self._table = table
        self._server: ServerLike | None = None

    async def start(self) -> None:
        """Listen. Raises OSError or ValueError."""
        self._server = await self._engine.create_server(
            self._accept, self._table.address, self._table.port, policies=self._table.policies
        )
        log.info("%s: MPTCP port %d to %s", self.title, self._table.port, self._table.to)

    def _accept(self) -> Half:
        return self.splice(TcpHalf, self._open).mptcp

    async def _open(self, splice: Splice) -> None:
        to = self._table.to
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: splice.local, to.host, to.port)
        except OSError as error:
            connection_log.warning("%s: %s does not answer: %s", self.title, to, text_of(error))
            raise

    async def close(self) -> None:
        """Accept no more."""
        if self._server is not None:
            self._server.close()


class ForwardRule(Service):
    """`[[forward]]`: local TCP connections go to a remote MPTCP service."""

    def __init__(self, engine: EngineLike, watch: ErrorWatch, table: ForwardTable) -> None:
        super().__init__(table.title, watch, table.max_connections)
        self._engine = engine
        self._table = table
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The TCP port that is listened on."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen. Raises OSError."""
        listen = self._table.listen
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                self._accept, listen.host, listen.port, backlog=1024
            )
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            which = f"[[forward]] {self._table.name}" if self._table.name else "this [[forward]]"
            raise OSError(
                error.errno,
                f"{listen} is in use by another program: stop it, or choose another listen "
                f"address for {which}",
            ) from None
        log.info("%s: TCP %s to MPTCP %s", self.title, listen, self._table.to)

    def _accept(self) -> Half:
        return self.splice(TcpHalf, self._open).local

    async def _open(self, splice: Splice) -> None:
        to = self._table.to
        try:
            await self._engine.create_connection(
                lambda: splice.mptcp,
                to.host,
                to.port,
                local_addr=self._table.local_address,
                policies=self._table.policies,
            )
        except OSError as error:
            connection_log.warning("%s: %s does not answer: %s", self.title, to, text_of(error))
            raise

    async def close(self) -> None:
        """Accept no more."""
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(OSError):
                await self._server.wait_closed()


def make_rules(
    engine: EngineLike, watch: ErrorWatch, settings: Settings
) -> list[ListenRule | ForwardRule]:
    """The rules of a configuration, in the order of the file; none is started."""
    return [
        *(ListenRule(engine, watch, table) for table in settings.listen),
        *(ForwardRule(engine, watch, table) for table in settings.forward),
    ]
