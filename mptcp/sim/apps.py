"""Small programs in virtual time: bulk sender, sink, request and response.

Each uses one host and one connection (a server: all connections of its port), starts when told and
counts what it does. They are handlers of `SimHost.handle` and `SimHost.accept`, so that any number
of them may live on one host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mptcp.errors import ConnectionEnd
from mptcp.events import Closed, Connected, Event, Readable, Writable
from mptcp.meta_socket import MetaSocket
from mptcp.sim.host import SimHost
from mptcp.sim.series import Series

PORT: Final = 5001
_BLOCK: Final = memoryview(bytes(1 << 18))
_READ: Final = 1 << 20


class Sink:
    """Listens on a port and takes whatever comes on any number of connections."""

    def __init__(self, host: SimHost, port: int = PORT) -> None:
        """Raises AddressInUseError."""
        self.received = 0
        """Bytes, of all connections."""
        self.connections: list[MetaSocket] = []
        self._host = host
        host.accept(host.stack.listen(port), self._accept)

    def goodput(self, period_us: int = 100_000) -> Series:
        """Sample `received` from now on: `.mbit_s` is the goodput of each slice of time."""
        return self._host.sim.sample(period_us, lambda: self.received)

    def _accept(self, connection: MetaSocket) -> Callable[[Event], None]:
        self.connections.append(connection)

        def on_event(event: Event) -> None:
            if isinstance(event, Readable):
                for part in connection.recv_parts():
                    self.received += len(part)
                if connection.eof:
                    connection.close()

        return on_event


class _Client:
    """A program that connects once."""

    def __init__(self, host: SimHost, remote: str, port: int, start_us: int | None) -> None:
        self.connection: MetaSocket | None = None
        """None until the start."""
        self.end: ConnectionEnd | None = None
        """How the connection ended, None while it lives."""
        self._host = host
        self._remote = (remote, port)
        if start_us is None or start_us <= host.sim.now:
            self._start()
        else:
            host.sim.at(start_us, self._start)

    def _start(self) -> None:
        self.connection = self._host.stack.connect(*self._remote)
        self._host.handle(self.connection, self._on_event)

    def _on_event(self, event: Event) -> None:
        match event:
            case Readable():
                self.read()
            case Connected():
                self.connected()
            case Writable():
                self.writable()
            case Closed():
                self.end = event.end
            case _:
                pass

    def connected(self) -> None:
        """The connection is there."""

    def writable(self) -> None:
        """There is room in the send buffer again."""

    def read(self) -> None:
        """Data or the peer's end is waiting."""


class Bulk(_Client):
    """Sends zeros as fast as the connection takes them."""

    def __init__(
        self,
        host: SimHost,
        remote: str,
        port: int = PORT,
        *,
        size: int | None = None,
        start_us: int | None = None,
    ) -> None:
        """`size` in bytes, None for without end; `start_us`: virtual time, None: at once."""
        self._left = size
        self.written = 0
        """Bytes that the connection has taken."""
        super().__init__(host, remote, port, start_us)

    def connected(self) -> None:
        """See `_Client`."""
        self.writable()

    def writable(self) -> None:
        """See `_Client`."""
        connection = self.connection
        assert connection is not None
        while self._left is None or self.written < self._left:
            room = len(_BLOCK)
            if self._left is not None:
                room = min(room, self._left - self.written)
            taken = connection.send(_BLOCK[:room])
            self.written += taken
            if taken < room:
                return
        connection.shutdown()

    def read(self) -> None:
        """See `_Client`: whatever comes is not looked at; the peer's end ends us."""
        assert self.connection is not None
        self.connection.recv(_READ)
        if self.connection.eof:
            self.connection.close()


class Responder:
    """Answers each request of a fixed size with a response of a fixed size, on any connection."""

    def __init__(self, host: SimHost, request: int, response: int, port: int = PORT) -> None:
        """Sizes in bytes, 1 or more."""
        self._request = request
        self._response = bytes(response)
        self.answered = 0
        host.accept(host.stack.listen(port), self._accept)

    def _accept(self, connection: MetaSocket) -> Callable[[Event], None]:
        got = 0
        pending = bytearray()

        def on_event(event: Event) -> None:
            nonlocal got
            if isinstance(event, Readable):
                got += len(connection.recv(_READ))
                while got >= self._request:
                    got -= self._request
                    self.answered += 1
                    pending.extend(self._response)
            if isinstance(event, Readable | Writable):
                del pending[: connection.send(pending)]
                if connection.eof and not pending:
                    connection.close()

        return on_event


class Requests(_Client):
    """Sends a request, waits for the whole response, thinks, and again."""

    def __init__(
        self,
        host: SimHost,
        remote: str,
        request: int,
        response: int,
        port: int = PORT,
        *,
        count: int,
        think_us: int = 0,
        start_us: int | None = None,
    ) -> None:
        """Sizes in bytes as of the `Responder`; `count` requests, then the connection closes."""
        self.latencies: list[int] = []
        """Microseconds from each request to the last byte of its response."""
        self._request = bytes(request)
        self._response = response
        self._left = count
        self._think_us = think_us
        self._got = 0
        self._asked_at = 0
        self._unsent = memoryview(b"")
        super().__init__(host, remote, port, start_us)

    def connected(self) -> None:
        """See `_Client`."""
        self._ask()

    def _ask(self) -> None:
        self._left -= 1
        self._asked_at = self._host.sim.now
        self._unsent = memoryview(self._request)
        self.writable()

    def writable(self) -> None:
        """See `_Client`."""
        assert self.connection is not None
        self._unsent = self._unsent[self.connection.send(self._unsent) :]

    def read(self) -> None:
        """See `_Client`."""
        connection, sim = self.connection, self._host.sim
        assert connection is not None
        self._got += len(connection.recv(_READ))
        if self._got < self._response:
            return
        self._got = 0
        self.latencies.append(sim.now - self._asked_at)
        if self._left == 0:
            connection.close()
        elif self._think_us:
            sim.at(sim.now + self._think_us, self._ask)
        else:
            self._ask()
