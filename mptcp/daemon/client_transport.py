"""A connection that the daemon carries, as an asyncio transport.

Owns the program's ends of the data and the control socket (handover.py has what goes over the
latter). The end of the data counts as the peer's only if the daemon said so before; anything else
is a reset. The control socket is read when the data socket ends, or when a snapshot is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterable
from typing import Any, cast

from mptcp.daemon.messages import MAX_REPLY, decode, encode, to_exception
from mptcp.info import MptcpInfo, PathInfo, SubflowInfo
from mptcp.linux_info import MptcpKernelInfo, TcpInfo

_CHUNK = 65536


def info_from(values: dict[str, Any] | None) -> MptcpInfo | None:
    """An MptcpInfo from the plain values of its `to_dict()`."""
    if values is None:
        return None
    rest = {
        **values,
        "mptcp_info": MptcpKernelInfo(**values["mptcp_info"]),
        "subflows": [
            SubflowInfo(**{**subflow, "tcp_info": TcpInfo(**subflow["tcp_info"])})
            for subflow in values["subflows"]
        ],
        "paths": [PathInfo(**path) for path in values["paths"]],
    }
    return MptcpInfo(**rest)


class DaemonTransport(asyncio.Transport):
    """One end of a connection that the daemon carries; an asyncio transport like any other."""

    def __init__(
        self, protocol: asyncio.Protocol, control: socket.socket, facts: dict[str, Any]
    ) -> None:
        super().__init__(
            {
                "mptcp_info": info_from(facts.get("info")),
                "peername": _address(facts.get("peername")),
                "sockname": _address(facts.get("sockname")),
            }
        )
        self._extras: dict[str, Any] = self._extra  # type: ignore[attr-defined]
        self._protocol = protocol
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._inner: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._received = 0
        self._length: int | None = None
        self._error: OSError | None = None
        self._aborted = False
        self._info_waiters: list[asyncio.Future[None]] = []

    async def start(self, data: socket.socket) -> None:
        """Take over the data socket; `connection_made` follows."""
        await self._loop.create_unix_connection(lambda: _Inner(self), sock=data)

    async def refresh_info(self) -> MptcpInfo | None:
        """Ask the daemon for a new snapshot; the last one if the connection is gone."""
        if self._control.fileno() >= 0 and not self.is_closing():
            waiter = self._loop.create_future()
            self._info_waiters.append(waiter)
            self._loop.add_reader(self._control.fileno(), self._read_control)
            try:
                self._tell({"op": "info"})
                await waiter
            finally:
                if waiter in self._info_waiters:
                    self._info_waiters.remove(waiter)
                if not self._info_waiters and self._control.fileno() >= 0:
                    self._loop.remove_reader(self._control.fileno())
        return cast("MptcpInfo | None", self._extras["mptcp_info"])

    # asyncio.Transport

    @property
    def inner(self) -> asyncio.Transport:
        """The transport of the data socket."""
        assert self._inner is not None
        return self._inner

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self.inner.is_closing()

    def close(self) -> None:
        self.inner.close()

    def abort(self) -> None:
        """Reset the connection."""
        if not self._aborted:
            self._aborted = True
            self._tell({"op": "abort"})
            self.inner.abort()

    def is_reading(self) -> bool:
        return self.inner.is_reading()

    def pause_reading(self) -> None:
        if not self.inner.is_closing():
            self.inner.pause_reading()

    def resume_reading(self) -> None:
        if not self.inner.is_closing():
            self.inner.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.inner.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self.inner.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self.inner.get_write_buffer_limits()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        # asyncio's transports ignore what comes after the end; uvloop's raise RuntimeError.
        if not self.inner.is_closing():
            self.inner.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        if not self.inner.is_closing():
            self.inner.write_eof()

    def can_write_eof(self) -> bool:
        return True

    # The data socket's callbacks

    def made(self, inner: asyncio.Transport) -> None:
        """The data socket is connected."""
        self._inner = inner
        self._protocol.connection_made(self)

    def data_received(self, data: bytes) -> None:
        """Data from the peer."""
        self._received += len(data)
        self._protocol.data_received(data)

    def eof_received(self) -> bool:
        """The end of the data: of the peer's stream, or of the connection by an error."""
        self._read_control()
        if self._error is None and self._length != self._received:
            self._error = ConnectionResetError(errno.ECONNRESET, "mptcpd went away")
        if self._error is not None:
            self._aborted = True
            self.inner.abort()
            return False
        return bool(self._protocol.eof_received())

    def lost(self, error: Exception | None) -> None:
        """The data socket is closed."""
        if not self._aborted or self._error is not None:
            self._read_control()
            error = self._error or error
        if isinstance(error, BrokenPipeError):
            error = ConnectionResetError(errno.ECONNRESET, "the connection was reset")
        self._close_control()
        self._protocol.connection_lost(error)

    @property
    def protocol(self) -> asyncio.Protocol:
        """Who gets the data."""
        return self._protocol

    # The control socket

    def _tell(self, message: dict[str, Any]) -> None:
        if self._control.fileno() >= 0:
            with contextlib.suppress(OSError):  # gone: the data socket's end follows
                self._control.send(encode(message), socket.MSG_NOSIGNAL)

    def _read_control(self) -> None:
        """Take in what the daemon has said so far; never waits."""
        while self._control.fileno() >= 0:
            try:
                data = self._control.recv(_CHUNK)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                data = b""
            if not data or len(self._buffer) > MAX_REPLY:
                self._close_control()
                break
            self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0:
            line = self._buffer[:end]
            del self._buffer[: end + 1]
            with contextlib.suppress(ValueError):
                self._heard(decode(line))

    def _heard(self, message: dict[str, Any]) -> None:
        match message.get("event"):
            case "eof":
                self._length = message.get("bytes")
            case "end":
                self._error = to_exception(message)
            case "info":
                self._extras["mptcp_info"] = info_from(message.get("info"))
                self._wake()

    def _wake(self) -> None:
        for waiter in self._info_waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _close_control(self) -> None:
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control.fileno())
            self._control.close()
        self._wake()


class _Inner(asyncio.Protocol):
    """Protocol of the data socket."""

    def __init__(self, outer: DaemonTransport) -> None:
        self._outer = outer
        self.data_received = outer.data_received  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._outer.made(cast(asyncio.Transport, transport))

    def eof_received(self) -> bool:
        return self._outer.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._outer.lost(exc)

    def pause_writing(self) -> None:
        self._outer.protocol.pause_writing()

    def resume_writing(self) -> None:
        self._outer.protocol.resume_writing()


def _address(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
