"""Two transports joined into one connection: what comes in on one side goes out on the other.

Works at the level of asyncio protocols: a chunk that arrives is handed to the other side's
`write()` in the same call, without a queue, task or copy of its own.

Invariants:
- What waits inside is bounded: a side whose write buffer is above its limit (`BUFFER`) stops the
  reading of the other, so the sender's window closes.
- The end of stream travels as such: a half-closed side goes on receiving.
- An error on one side aborts the other with a reset; a clean end closes it after all its data.
- `Splice.on_end` is called exactly once, when both sides are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import select
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from mptcp.daemon.messages import text_of
from mptcp.errors import MptcpError

BUFFER: Final = 256 << 10
"""Bytes that may wait in a side's write buffer before the other side stops reading."""
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER, no time: close() sends a RST

log = logging.getLogger("mptcp.daemon.connection")

Opener = Callable[["Splice"], Awaitable[Any]]


class ErrorWatch:
    """Notices errors of sockets that nobody reads at the moment.

    asyncio sees a RST when it reads or writes. A side that is paused, or has sent its FIN, is not
    read; its RST would stay unseen for as long as the other side is silent. An epoll set without
    any wanted event still reports EPOLLERR.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._ready)

    def add(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Call `callback` once when the socket `descriptor` has an error."""
        # One shot: a socket closed by both sides would otherwise report EPOLLHUP for ever.
        self._epoll.register(descriptor, select.EPOLLONESHOT)
        self._callbacks[descriptor] = callback

    def discard(self, descriptor: int) -> None:
        """Forget `descriptor`, which may be closed already."""
        if self._callbacks.pop(descriptor, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Stop watching."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _ready(self) -> None:
        for descriptor, events in self._epoll.poll(0):
            callback = self._callbacks.get(descriptor)
            if callback is not None and events & select.EPOLLERR:
                callback()


class Half(asyncio.Protocol):
    """One side of a splice."""

    __slots__ = ("_early", "_paused", "closed", "eof", "peer", "received", "splice", "transport")

    peer: Half

    def __init__(self, splice: Splice) -> None:
        self.splice = splice
        self.transport: asyncio.Transport | None = None
        self.received = 0
        """Bytes that came in on this side."""
        self.eof = False
        """This side has sent its end of stream."""
        self.closed = False
        self._paused = False
        self._early: list[bytes] = []

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=BUFFER)
        self.splice.half_open(self)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        other = self.peer.transport
        if other is None:
            # uvloop starts reading after connection_made(), whatever that has asked for.
            self._early.append(data)
            self._paused = False
            self.pause_reading()
        elif not other.is_closing():
            other.write(data)

    def pause_writing(self) -> None:
        self.peer.pause_reading()

    def resume_writing(self) -> None:
        self.peer.resume_reading()

    def eof_received(self) -> bool:
        if self.eof:
            return not self.peer.eof
        self.eof = True
        return self.splice.half_closed(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.splice.half_lost(self, exc)

    # What the splice asks of a side

    def pause_reading(self) -> None:
        """Let the sender of this side wait."""
        if not self._paused and not self.eof and self.transport is not None:
            self._paused = True
            if not self.transport.is_closing():
                self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo pause_reading()."""
        if self._paused and self.transport is not None:
            self._paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def pass_on_early_data(self) -> None:
        """Give the other side, which is up now, what came before it was."""
        early, self._early = self._early, []
        for data in early:
            if self.peer.transport is not None and not self.peer.transport.is_closing():
                self.peer.transport.write(data)

    def write_eof(self) -> None:
        """Pass on the other side's end of stream, after its data."""
        if self.transport is not None and not self.closed and not self.transport.is_closing():
            with contextlib.suppress(OSError):  # gone; connection_lost follows
                self.transport.write_eof()

    def close(self) -> None:
        """End this side after its data."""
        if self.transport is not None and not self.closed:
            self.transport.close()

    def abort(self, reason: BaseException | None) -> None:
        """End this side at once, so that its program gets an error."""
        if self.transport is not None and not self.closed:
            self.prepare_abort(reason)
            self.transport.abort()

    def prepare_abort(self, reason: BaseException | None) -> None:
        """Hook: what it takes that the program on this side sees an error and no clean end."""


class MptcpHalf(Half):
    """The MPTCP side; the stack's abort() resets the connection by itself."""

    __slots__ = ()


class TcpHalf(Half):
    """The side of a kernel TCP socket."""

    __slots__ = ("_descriptor",)

    def __init__(self, splice: Splice) -> None:
        super().__init__(splice)
        self._descriptor = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        sock = transport.get_extra_info("socket")
        self._descriptor = sock.fileno()
        with contextlib.suppress(OSError):  # reset already: reading will tell
            # A program that vanished without a word must not hold the connection for ever.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.splice.watch.add(self._descriptor, self._socket_error)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.splice.watch.discard(self._descriptor)
        super().connection_lost(exc)

    def prepare_abort(self, reason: BaseException | None) -> None:
        assert self.transport is not None
        with contextlib.suppress(OSError):
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)

    def _socket_error(self) -> None:
        # While it is read, reading finds the error after the data in front of it.
        if (self._paused or self.eof) and not self.closed:
            self.splice.abort(ConnectionResetError(errno.ECONNRESET, "reset by the TCP side"))


class Splice:
    """A connection in two halves: `mptcp`, and `local` towards a program on this machine.

    One half is accepted or opened first; as soon as it is up, `open_other` opens the second, while
    the first does not read.
    """

    __slots__ = ("_on_end", "_open_other", "_opening", "end", "local", "mptcp", "settled", "watch")

    def __init__(
        self,
        watch: ErrorWatch,
        local: Callable[[Splice], Half],
        open_other: Opener,
        on_end: Callable[[Splice], None],
    ) -> None:
        self.watch = watch
        self.mptcp: Half = MptcpHalf(self)
        self.local = local(self)
        self.mptcp.peer, self.local.peer = self.local, self.mptcp
        self._open_other = open_other
        self._opening: asyncio.Future[Any] | None = None
        self._on_end: Callable[[Splice], None] | None = on_end
        self.end: BaseException | None = None
        """Why the connection failed; None while it lives and after a clean end."""
        self.settled: asyncio.Future[BaseException | None] | None = None
        """Set by whoever waits for the second half: resolved to None once it is up, or to the
        reason why it will not be."""

    @property
    def halves(self) -> tuple[Half, Half]:
        """Both sides."""
        return self.mptcp, self.local

    def abort(self, reason: BaseException) -> None:
        """End both sides with an error. May be called at any time."""
        self.end = self.end or reason
        if self._opening is not None:
            self._opening.cancel()
        for half in self.halves:
            half.abort(reason)

    # What the halves report

    def half_open(self, half: Half) -> None:
        """A side is up."""
        peer = half.peer
        if self.end is not None:
            half.abort(self.end)
        elif peer.transport is None:
            half.pause_reading()
            opening: asyncio.Future[Any] = asyncio.ensure_future(self._open_other(self))
            self._opening = opening
            opening.add_done_callback(self._opened)
        elif peer.closed:  # gone while this side was being opened
            half.close()
        else:
            peer.resume_reading()
            peer.pass_on_early_data()
            if peer.eof:
                half.write_eof()

    def half_closed(self, half: Half) -> bool:
        """A side has sent its end of stream. Returns whether it stays open for the rest."""
        half.peer.write_eof()
        if half.peer.eof:
            for each in self.halves:
                each.close()
        return not half.peer.eof

    def half_lost(self, half: Half, error: BaseException | None) -> None:
        """A side is gone, with an error or cleanly."""
        peer = half.peer
        if error is not None and self.end is None and not peer.closed:
            self.end = error
        if peer.transport is None:
            if self._opening is not None and not self._opening.done():
                self._opening.cancel()  # _opened() follows, and ends the splice
            else:
                self._finish()
        elif peer.closed:
            self._finish()
        elif self.end is not None:
            peer.abort(self.end)
        else:
            peer.close()

    def _opened(self, opening: asyncio.Future[Any]) -> None:
        if opening.cancelled():
            error: BaseException | None = ConnectionAbortedError(errno.ECONNABORTED, "given up")
        else:
            error = opening.exception()
            if error is not None and not isinstance(error, (OSError, MptcpError, ValueError)):
                log.error("opening the other side failed unexpectedly", exc_info=error)
        self._settle(error)
        if error is None:
            return  # from here on the halves report
        alive = [half for half in self.halves if half.transport is not None and not half.closed]
        self.end = self.end or error
        for half in alive:
            half.abort(self.end)
        if not alive:
            self._finish()

    def _settle(self, error: BaseException | None) -> None:
        if self.settled is not None and not self.settled.done():
            self.settled.set_result(error)

    def _finish(self) -> None:
        self._settle(self.end or ConnectionAbortedError(errno.ECONNABORTED, "closed at once"))
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(self)

    def describe_end(self) -> str:
        """One line for the log: what went over, and how it ended."""
        end = "closed" if self.end is None else f"failed: {text_of(self.end)}"
        return f"{self.local.received} bytes out, {self.mptcp.received} bytes in, {end}"
