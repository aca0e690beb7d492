"""`asyncio.Transport` on a connection of the stack.

Back-pressure is real both ways. Sending: the stack accepts up to its send buffer, what it refuses
waits here, and above the high-water mark the protocol is told to pause. Receiving: while reading
is paused nothing is taken from the stack, so its window closes and the peer stops. Nothing here
bounds what a program writes without waiting: that is `drain()`'s task, as everywhere in asyncio.

Invariants
  * `connection_made` first, then data in order, `eof_received` at most once, `connection_lost` last
    and exactly once, each from a callback of its own or from `resume_reading`'s.
  * At most `READ_BUDGET` bytes are handed over in one turn of the loop.
  * `_buffer` is empty unless the stack has refused data and a `Writable` event is due.

A transport that was closed is lost for its protocol as soon as the peer has acknowledged
everything, not when the peer has closed too; the stack sees to the rest, as a kernel would.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from mptcp.addressing import format_address
from mptcp.driver import Driver
from mptcp.errors import ConnectionEnd, NotConnectedError
from mptcp.events import Closed, Event, Readable, Writable
from mptcp.info import mptcp_info
from mptcp.meta_socket import MetaSocket
from mptcp.tcp.state import State

READ_BUDGET: Final = 256 << 10
READ_PIECE: Final = 64 << 10
"""Bytes handed over at once: a protocol that pauses is obeyed after so many."""
HIGH_WATER: Final = 64 << 10

_FIN_ACKED: Final = (State.FIN_WAIT_2, State.TIME_WAIT, State.CLOSED)

logger = logging.getLogger("mptcp.engine")


def flushed(connection: MetaSocket) -> bool:
    """Whether the peer has acknowledged all that was sent, its end included."""
    if connection.fallback:
        return all(subflow.state in _FIN_ACKED for subflow in connection.subflows)
    return connection.data_fin_acked


def set_nodelay(connection: MetaSocket) -> None:
    """No Nagle, as asyncio has it for TCP sockets; also for the subflows to come."""
    connection.nodelay = True
    for subflow in connection.subflows:
        subflow.nodelay = True


class MptcpTransport(asyncio.Transport):
    """A transport; made by the engine's `create_connection` and by its servers."""

    # asyncio's loop.start_tls() asks for it.
    _start_tls_compatible = True

    def __init__(
        self,
        driver: Driver,
        connection: MetaSocket,
        protocol: asyncio.BaseProtocol,
        on_lost: Callable[[MptcpTransport], None] | None = None,
    ) -> None:
        end = connection.fendpoint
        tail = () if len(end.local) == 4 else (0, 0)
        super().__init__(
            {
                "peername": (format_address(end.remote), end.remote_port, *tail),
                "sockname": (format_address(end.local), end.local_port, *tail),
                "connection": connection,
                "options": connection.options,
            }
        )
        self.connection = connection
        self._driver = driver
        self._loop = driver.loop
        self._on_lost = on_lost
        self._buffer: deque[bytes | memoryview] = deque()
        self._size = 0  # bytes in _buffer
        self._high = HIGH_WATER
        self._low = HIGH_WATER // 4
        self._protocol_paused = False
        self._paused = False  # reading
        self._read_due = False  # _read is scheduled
        self._eof_written = False
        self._eof_delivered = False
        self._closing = False
        self._ended: ConnectionEnd | None = None  # of a connection with data still to hand over
        self._lost = False
        self.set_protocol(protocol)
        set_nodelay(connection)
        driver.handlers[connection] = self

    def __repr__(self) -> str:
        state = "lost" if self._lost else "closing" if self._closing else "open"
        return f"<MptcpTransport {state} {self.connection!r}>"

    def start(self) -> None:
        """Tell the protocol; data follows in the next turn. Raises what the protocol raises."""
        try:
            self._protocol.connection_made(self)
        except BaseException:
            self._driver.handlers.pop(self.connection, None)
            self._lost = self._closing = True
            self.connection.abort()
            self._driver.schedule()
            raise
        self._schedule_read()

    # -- asyncio.BaseTransport -----------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """ "peername", "sockname", "connection" (MetaSocket), "mptcp_info" (`info.MptcpInfo`),
        "options" (`socket_options.SocketOptions`: keep-alive, user timeout, buffers)."""
        if name == "mptcp_info":
            return mptcp_info(self.connection)
        return super().get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Data goes to `protocol` from now on."""
        self._protocol = protocol
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol data goes to."""
        return self._protocol

    def is_closing(self) -> bool:
        """Whether the transport is closing or closed."""
        return self._closing

    def close(self) -> None:
        """Send what is written, then end; reading stops now. `connection_lost(None)` follows."""
        if self._closing:
            return
        self._closing = True
        if self._ended is not None:
            self._lose(None)
        elif not self._buffer:
            self._close_connection()

    def _close_connection(self) -> None:
        self._driver.advance()
        self.connection.close()
        self._driver.lingering[self.connection] = self._check_flushed
        self._driver.schedule()

    def _check_flushed(self) -> None:
        if flushed(self.connection):
            self._lose(None)

    def abort(self) -> None:
        """End at once, discarding what is written (RST). `connection_lost(None)` follows."""
        self._force_close(None)

    def _force_close(self, exc: BaseException | None) -> None:
        """Also asyncio.sslproto's way to report a fatal error."""
        if not self._lost:
            self._lose(exc)
            self._driver.advance()
            self.connection.abort()
            self._driver.schedule()

    # -- asyncio.ReadTransport -----------------------------------------------------------------

    def is_reading(self) -> bool:
        """Whether data is handed over."""
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        """Leave data in the stack, whose window then closes. Idempotent."""
        self._paused = True

    def resume_reading(self) -> None:
        """Go on reading. Idempotent."""
        if self._paused:
            self._paused = False
            self._schedule_read()

    def _schedule_read(self) -> None:
        if not self._read_due and not self._lost:
            self._read_due = True
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        """Hand over what has arrived, within the budget of one turn."""
        self._read_due = False
        connection = self.connection
        left = READ_BUDGET
        while not self._paused and not self._closing:
            parts = self._take(min(left, READ_PIECE))
            if not parts:
                self._deliver_eof()
                break
            left -= parts
            if left <= 0:
                if connection.rx.unread or connection.eof:
                    self._schedule_read()
                break
        if left < READ_BUDGET:
            self._driver.schedule()  # the window may have opened

    def _take(self, limit: int) -> int:
        """Give the protocol up to `limit` bytes; how many it was, 0 when none waits."""
        protocol = self._protocol
        try:
            if self._buffered:
                assert isinstance(protocol, asyncio.BufferedProtocol)
                if not self.connection.rx.unread:
                    return 0
                target = memoryview(protocol.get_buffer(-1)).cast("B")
                if not len(target):
                    raise RuntimeError("get_buffer() returned an empty buffer")
                size = 0
                for part in self.connection.recv_parts(min(limit, len(target))):
                    target[size : size + len(part)] = part
                    size += len(part)
                protocol.buffer_updated(size)
                return size
            assert isinstance(protocol, asyncio.Protocol)
            parts = self.connection.recv_parts(limit)
            if not parts:
                return 0
            if isinstance(protocol, asyncio.StreamReaderProtocol):
                # A StreamReader copies into its own buffer: joining first would be a copy more.
                for part in parts:
                    protocol.data_received(part)  # type: ignore[arg-type]
                return sum(map(len, parts))
            data = b"".join(parts)
            protocol.data_received(data)
            return len(data)
        except Exception as error:
            self._protocol_failed("taking data", error)
            return 0

    def _deliver_eof(self) -> None:
        """The peer's end, after all its data; then the connection's, if it is over."""
        connection = self.connection
        if self._closing or connection.rx.unread:
            return
        if connection.eof and not self._eof_delivered:
            self._eof_delivered = True
            protocol = self._protocol
            try:
                assert isinstance(protocol, asyncio.Protocol | asyncio.BufferedProtocol)
                keep_open = protocol.eof_received()
            except Exception as error:
                self._protocol_failed("taking the end of data", error)
                return
            if not keep_open:
                self.close()
        if self._ended is not None:
            self._lose(None)

    def _protocol_failed(self, what: str, error: Exception) -> None:
        logger.error("the protocol failed while %s", what, exc_info=error)
        self._force_close(error)

    # -- asyncio.WriteTransport ----------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send; never blocks. Raises TypeError, and RuntimeError after `write_eof()`."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be bytes-like, not {type(data).__name__}")
        if self._eof_written:
            raise RuntimeError("write() after write_eof()")
        if not isinstance(data, bytes):
            data = memoryview(data).cast("B")
        if self._closing or not data:
            return
        if not self._buffer:
            try:
                taken = self.connection.send(data)
            except NotConnectedError:
                return  # its Closed event is on its way to connection_lost()
            self._driver.schedule()
            if taken == len(data):
                return
            data = memoryview(data)[taken:]
        # What is kept must not change under us when the caller reuses its buffer.
        kept = data if isinstance(data, bytes) or isinstance(data.obj, bytes) else bytes(data)
        self._buffer.append(kept)
        self._size += len(kept)
        if self._size > self._high and not self._protocol_paused:
            self._protocol_paused = True
            self._tell("pause_writing", self._protocol.pause_writing)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send them all."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Half-close works."""
        return True

    def write_eof(self) -> None:
        """End our direction after what is written; reading goes on. Idempotent."""
        if self._closing or self._eof_written:
            return
        self._eof_written = True
        if not self._buffer:
            self._driver.advance()
            self.connection.shutdown()
            self._driver.schedule()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Marks in bytes, of what waits beyond the stack's send buffer. Raises ValueError."""
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high}) must be >= low ({low}) must be >= 0")
        self._high = high
        self._low = low
        if self._size > high and not self._protocol_paused:
            self._protocol_paused = True
            self._tell("pause_writing", self._protocol.pause_writing)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """(low, high), bytes."""
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        """Bytes that wait for room in the stack's send buffer."""
        return self._size

    def _flush(self) -> None:
        """The stack has room again."""
        buffer = self._buffer
        try:
            while buffer:
                data = buffer[0]
                taken = self.connection.send(data)
                self._size -= taken
                if taken < len(data):
                    buffer[0] = memoryview(data)[taken:]
                    break
                buffer.popleft()
        except NotConnectedError:
            return
        if not buffer:
            if self._eof_written:
                self.connection.shutdown()
            if self._closing:
                self._close_connection()
        if self._protocol_paused and self._size <= self._low:
            self._protocol_paused = False
            self._tell("resume_writing", self._protocol.resume_writing)
        self._driver.schedule()

    def _tell(self, what: str, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            logger.exception("the protocol's %s failed", what)

    # -- events and the end --------------------------------------------------------------------

    def handle_event(self, event: Event) -> None:
        """One event of our connection."""
        kind = type(event)
        if kind is Readable:
            if not self._read_due:
                self._read()
        elif kind is Writable:
            self._flush()
        elif isinstance(event, Closed):
            self._on_closed(event.end)

    def _on_closed(self, end: ConnectionEnd) -> None:
        if self._closing:
            # What the application asked for is no error, unless something could not be sent.
            wanted = end is ConnectionEnd.CLOSED or end is ConnectionEnd.ABORTED
            clean = not self._buffer and (wanted or flushed(self.connection))
            self._lose(None if clean else end.to_exception(self.connection.last_soft_error))
        elif end is ConnectionEnd.CLOSED:
            # Both directions have ended, but there may be data the protocol has not taken.
            self._ended = end
            self._schedule_read()
        else:
            self._lose(end.to_exception(self.connection.last_soft_error))

    def _lose(self, exc: BaseException | None) -> None:
        """Have `connection_lost` called, once."""
        if self._lost:
            return
        self._lost = True
        self._closing = True
        self._buffer.clear()
        self._size = 0
        self._driver.handlers.pop(self.connection, None)
        self._driver.lingering.pop(self.connection, None)
        self._loop.call_soon(self._call_connection_lost, exc)

    def _call_connection_lost(self, exc: BaseException | None) -> None:
        try:
            # The declared type is Exception; asyncio itself passes on what sslproto gives it.
            self._protocol.connection_lost(exc)  # type: ignore[arg-type]
        finally:
            if self._on_lost is not None:
                self._on_lost(self)
