"""Streams, connections and servers: asyncio's high-level calls, as methods of the engine.

`StreamApi` is mixed into `Engine`. It turns events of the stack into transports: an active open
waits for `Connected` in a `_Connecting`, a listener's `Accepted` becomes a transport at once. TLS
is asyncio's own `SSLProtocol` on top of our transport.

Invariant: a connection has exactly one handler from its SYN to its end, or none after its
transport was lost; a coroutine that is cancelled leaves no connection behind.
"""

from __future__ import annotations

import asyncio
import socket
import ssl as ssl_module
from asyncio import sslproto
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from mptcp.driver import Driver
from mptcp.errors import ConnectionEnd, NoRouteError
from mptcp.events import Closed, Connected, Event
from mptcp.meta_socket import MetaSocket
from mptcp.policies import Policies
from mptcp.transport import MptcpTransport

if TYPE_CHECKING:
    from mptcp.accepting import Listener

LIMIT = 65536
"""Default limit of a StreamReader, bytes: asyncio's."""

ClientConnected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]
ProtocolFactory = Callable[[], asyncio.BaseProtocol]
LocalAddress = str | tuple[str, int]
P = TypeVar("P", bound=asyncio.BaseProtocol)


class _Connecting:
    """Handler of a connection whose SYN is out."""

    def __init__(self, driver: Driver, connection: MetaSocket) -> None:
        self.done: asyncio.Future[None] = driver.loop.create_future()
        driver.handlers[connection] = self

    def handle_event(self, event: Event) -> None:
        if self.done.done():
            return
        if isinstance(event, Connected):
            self.done.set_result(None)
        elif isinstance(event, Closed):
            self.done.set_exception(
                event.end.to_exception(event.connection.last_soft_error)
                or ConnectionResetError(ConnectionEnd.RESET.value)
            )

    def is_closing(self) -> bool:
        return False


class Server(asyncio.AbstractServer):
    """A listening port and the connections it has accepted; asyncio.Server's manners."""

    def __init__(
        self,
        driver: Driver,
        listeners: list[Listener],
        protocol_factory: ProtocolFactory,
        ssl: ssl_module.SSLContext | None,
    ) -> None:
        self._driver = driver
        self._listeners = listeners
        self._factory = protocol_factory
        self._ssl = ssl
        self._transports: set[MptcpTransport] = set()
        self._loop = driver.loop
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self.port = listeners[0].port
        """The port that is listened on, also when 0 was asked for."""
        self.address: str | None = None
        """The address that is listened on, None for all."""
        for listener in listeners:
            driver.acceptors[listener] = self._accept

    def __repr__(self) -> str:
        state = "serving" if self.is_serving() else "closed"
        return f"<mptcp.Server {state} {self.address or '*'}:{self.port}>"

    def _accept(self, connection: MetaSocket) -> None:
        protocol = self._factory()
        if self._ssl is not None:
            protocol = sslproto.SSLProtocol(
                self._driver.loop, protocol, self._ssl, _unused(self._driver), True
            )
        transport = MptcpTransport(
            self._driver, connection, protocol, on_lost=self._transports.discard
        )
        self._transports.add(transport)
        try:
            transport.start()
        except BaseException:
            self._transports.discard(transport)
            raise

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop it runs in."""
        return self._loop

    def is_serving(self) -> bool:
        """Whether new connections are accepted."""
        return not self._closed.done()

    def close(self) -> None:
        """Accept no more; connections live on. Idempotent."""
        if self._closed.done():
            return
        self._closed.set_result(None)
        for listener in self._listeners:
            self._driver.acceptors.pop(listener, None)
            listener.close()
        self._driver.schedule()

    def close_clients(self) -> None:
        """`close()` every connection that was accepted."""
        for transport in list(self._transports):
            transport.close()

    def abort_clients(self) -> None:
        """`abort()` every connection that was accepted."""
        for transport in list(self._transports):
            transport.abort()

    async def wait_closed(self) -> None:
        """Wait for `close()`. It does not wait for connections, which may stay for ever."""
        await asyncio.shield(self._closed)

    async def start_serving(self) -> None:
        """A server serves from its making: nothing to do."""

    async def serve_forever(self) -> None:
        """Serve until cancelled or closed; the server is closed afterwards."""
        try:
            await self.wait_closed()
        finally:
            self.close()


def _unused(driver: Driver) -> asyncio.Future[None]:
    """A waiter for SSLProtocol that nobody waits for: a failed handshake is no error of ours."""
    waiter: asyncio.Future[None] = driver.loop.create_future()
    waiter.add_done_callback(lambda done: done.cancelled() or done.exception())
    return waiter


async def _resolve(driver: Driver, host: str, port: int) -> list[str]:
    """The addresses of `host`, which may be one already. Raises OSError (socket.gaierror)."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return [host]
    found = await driver.loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _client_context(ssl: ssl_module.SSLContext | bool | None) -> ssl_module.SSLContext | None:
    if ssl is None or ssl is False:
        return None
    if ssl is True:
        return ssl_module.create_default_context()
    if isinstance(ssl, ssl_module.SSLContext):
        return ssl
    raise TypeError(f"ssl must be an SSLContext or True, not {type(ssl).__name__}")


class StreamApi:
    """The calls of an application. Needs what `Driver` says."""

    async def create_connection(
        self: Driver,
        protocol_factory: Callable[[], P],
        host: str,
        port: int,
        *,
        local_addr: LocalAddress | None = None,
        data: bytes = b"",
        fast_open: bool = False,
        policies: Policies | None = None,
        ssl: ssl_module.SSLContext | bool | None = None,
        server_hostname: str | None = None,
    ) -> tuple[asyncio.Transport, P]:
        """Connect, and give the connection to a protocol; asyncio's loop.create_connection().

        `host` is an address or a name, whose addresses are tried in turn. `local_addr`, an
        address or (address, port), chooses the interface. `data` is sent first; with `fast_open` it
        goes in the SYN once the server has given a cookie (RFC 7413), and may then reach the
        server twice: not for TLS, whose first bytes are its own (ValueError). `policies`: the
        scheduler, congestion control and path manager of this connection, where they are not the
        engine's. `server_hostname` is for TLS, `host` if None.
        Raises ConnectionRefusedError, TimeoutError, NoRouteError or another OSError; ValueError for
        a bad port or policy; LocalError at the limit of connections. Cancelling ends the attempt.
        """
        context = _client_context(ssl)
        if context is not None and data:
            raise ValueError("data is for plain connections: with TLS write it when it is open")
        local = (local_addr, 0) if isinstance(local_addr, str) else local_addr
        failure: OSError | None = None
        for address in await _resolve(self, host, port):
            try:
                self.advance()
                connection = self.stack.connect(
                    address,
                    port,
                    local_addr=local,
                    data=data,
                    fast_open=fast_open,
                    policies=policies,
                )
            except NoRouteError as error:
                failure = failure or error
                continue
            try:
                await _connected(self, connection)
                break
            except OSError as error:
                failure = error
        else:
            raise failure or OSError(f"{host} has no address")
        try:
            protocol = protocol_factory()
            if context is None:
                transport: asyncio.Transport = MptcpTransport(self, connection, protocol)
                transport.start()  # type: ignore[attr-defined]
            else:
                name = host if server_hostname is None else server_hostname
                transport = await _secure(self, connection, protocol, context, name)
        except BaseException:
            connection.abort()
            self.schedule()
            raise
        return transport, protocol

    async def open_connection(
        self: Driver,
        host: str,
        port: int,
        *,
        local_addr: LocalAddress | None = None,
        limit: int = LIMIT,
        data: bytes = b"",
        fast_open: bool = False,
        policies: Policies | None = None,
        ssl: ssl_module.SSLContext | bool | None = None,
        server_hostname: str | None = None,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As asyncio.open_connection(); the rest as `create_connection`.

        `limit`: bytes the reader holds before it stops reading from the stack.
        """
        loop = self.loop
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await StreamApi.create_connection(
            self,
            lambda: protocol,
            host,
            port,
            local_addr=local_addr,
            data=data,
            fast_open=fast_open,
            policies=policies,
            ssl=ssl,
            server_hostname=server_hostname,
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def create_server(
        self: Driver,
        protocol_factory: ProtocolFactory,
        host: str | Sequence[str] | None = None,
        port: int = 0,
        *,
        backlog: int | None = None,
        fast_open: int | None = None,
        policies: Policies | None = None,
        ssl: ssl_module.SSLContext | None = None,
    ) -> Server:
        """Listen on `port` (0: any free one) of `host`: an address, several, or None for all.

        `backlog`: half-open connections kept, None for the configuration's; `fast_open` likewise:
        connections accepted with data of their SYN (RFC 7413) before the handshake is complete.
        `policies`: of the connections accepted, where they are not the engine's.
        Raises AddressInUseError, NoRouteError (not our address), both OSError; ValueError.
        """
        if ssl is not None and not isinstance(ssl, ssl_module.SSLContext):
            raise TypeError(f"ssl must be an SSLContext, not {type(ssl).__name__}")
        hosts = [host] if host is None or isinstance(host, str) else list(host)
        listeners: list[Listener] = []
        try:
            for name in hosts:
                # The unspecified addresses mean what they mean to bind(): all there are.
                wildcard = name in (None, "", "0.0.0.0", "::")
                address = None if wildcard or name is None else name
                if address is not None:
                    address = (await _resolve(self, address, port))[0]
                listeners.append(
                    self.stack.listen(
                        port, address, backlog=backlog, fast_open=fast_open, policies=policies
                    )
                )
                port = listeners[0].port
            if not listeners:
                raise ValueError("no host to listen on: give an address, or None for all")
            server = Server(self, listeners, protocol_factory, ssl)
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        if listeners[0].address is not None:
            server.address = socket.inet_ntop(
                socket.AF_INET if len(listeners[0].address) == 4 else socket.AF_INET6,
                listeners[0].address,
            )
        return server

    async def start_server(
        self: Driver,
        client_connected_cb: ClientConnected,
        host: str | Sequence[str] | None = None,
        port: int = 0,
        *,
        limit: int = LIMIT,
        backlog: int | None = None,
        fast_open: int | None = None,
        policies: Policies | None = None,
        ssl: ssl_module.SSLContext | None = None,
    ) -> Server:
        """As asyncio.start_server(); the rest as `create_server`."""
        loop = self.loop

        def factory() -> asyncio.StreamReaderProtocol:
            reader = asyncio.StreamReader(limit=limit, loop=loop)
            return asyncio.StreamReaderProtocol(reader, client_connected_cb, loop=loop)

        return await StreamApi.create_server(
            self,
            factory,
            host,
            port,
            backlog=backlog,
            fast_open=fast_open,
            policies=policies,
            ssl=ssl,
        )


async def _connected(driver: Driver, connection: MetaSocket) -> None:
    """Wait for the handshake; the connection is gone when this raises."""
    connecting = _Connecting(driver, connection)
    driver.schedule()
    try:
        await connecting.done
    except BaseException:
        connection.abort()
        driver.handlers.pop(connection, None)
        driver.schedule()
        raise


async def _secure(
    driver: Driver,
    connection: MetaSocket,
    protocol: asyncio.BaseProtocol,
    context: ssl_module.SSLContext,
    name: str,
) -> asyncio.Transport:
    """TLS on a new connection: the transport for `protocol`, once the handshake is done."""
    done: asyncio.Future[None] = driver.loop.create_future()
    secured = sslproto.SSLProtocol(driver.loop, protocol, context, done, False, name or None)
    MptcpTransport(driver, connection, secured).start()
    await done
    transport: asyncio.Transport = secured._app_transport
    return transport
