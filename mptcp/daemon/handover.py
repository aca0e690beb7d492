"""A connection handed to a local program: its data socket and, beside it, its control socket.

A Unix stream pair knows an end of stream but no reset, so each connection has a second pair, on
which one JSON object a line goes:

- daemon to program: `{"event": "eof", "bytes": N}` when the peer has ended its stream of N bytes,
  and `{"event": "end", "errno": …, "error": …}` when the connection failed. Both are sent *before*
  the data socket ends. A program that sees the end of the data takes it for the peer's only if it
  has read "eof" and counted N bytes: a daemon that dies cannot pass for a peer that has finished;
- program to daemon: `{"op": "abort"}` resets the connection, `{"op": "info"}` asks for a snapshot,
  answered by `{"event": "info", "info": …}`.

The control socket's own end says that the program has closed the connection or died.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from typing import Any, Final

from mptcp.daemon.messages import MAX_REQUEST, decode, encode, errno_of, text_of
from mptcp.daemon.splice import Half, Splice

_MAX_INFO: Final = 64 << 10


class StreamControl:
    """The daemon's end of a connection's control socket. Owns the socket."""

    def __init__(
        self,
        sock: socket.socket,
        on_request: Callable[[dict[str, Any]], dict[str, Any] | None],
        on_gone: Callable[[], None],
    ) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self._on_request = on_request
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, message: dict[str, Any]) -> None:
        """Send at once, or not at all: a program that never reads its control socket loses."""
        line = encode(message)
        if self._sock.fileno() >= 0 and len(line) <= _MAX_INFO:
            with contextlib.suppress(OSError):
                self._sock.send(line, socket.MSG_NOSIGNAL)

    def close(self) -> None:
        """Idempotent."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _readable(self) -> None:
        try:
            data = self._sock.recv(4096)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self._buffer += data
        if not data or len(self._buffer) > MAX_REQUEST:
            self.close()
            self._on_gone()
            return
        while (end := self._buffer.find(b"\n")) >= 0:
            line = self._buffer[:end]
            del self._buffer[: end + 1]
            try:
                answer = self._on_request(decode(line))
            except ValueError as error:
                answer = {"event": "error", "error": str(error)}
            if answer is not None:
                self.send(answer)


class ProgramHalf(Half):
    """The side of a program that holds the other end of the pairs."""

    __slots__ = ("_control", "_eof_told", "gone")

    def __init__(self, splice: Splice) -> None:
        super().__init__(splice)
        self.gone = False
        """The program has closed the connection; what it wrote before may still be here."""
        self._control: StreamControl | None = None
        self._eof_told = False

    def control_by(self, sock: socket.socket) -> None:
        """Serve the control socket `sock`."""
        self._control = StreamControl(sock, self._request, self._program_gone)

    def eof_received(self) -> bool:
        stays = super().eof_received()
        if self.gone and stays:
            self._finish()
            return False
        return stays

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._control is not None:
            self._control.close()

    def write_eof(self) -> None:
        self._tell_eof()
        super().write_eof()

    def close(self) -> None:
        self._tell_eof()
        super().close()

    def _tell_eof(self) -> None:
        if self._control is not None and not self._eof_told:
            self._eof_told = True
            self._control.send({"event": "eof", "bytes": self.peer.received})

    def prepare_abort(self, reason: BaseException | None) -> None:
        if self._control is not None and reason is not None:
            end = {"event": "end", "errno": errno_of(reason), "error": text_of(reason)}
            self._control.send(end)

    def _request(self, message: dict[str, Any]) -> dict[str, Any] | None:
        match message.get("op"):
            case "abort":
                self.splice.abort(ConnectionAbortedError(errno.ECONNABORTED, "by the program"))
                return None
            case "info":
                return {"event": "info", "info": snapshot(self.peer.transport)}
        raise ValueError("unknown op; use abort or info")

    def _program_gone(self) -> None:
        self.gone = True
        if self.eof:
            self._finish()
        # Else what it wrote before is still to be read; the end of the data follows it.

    def drop_control(self) -> None:
        """Close the control socket of a connection that did not come about."""
        if self._control is not None:
            self._control.close()

    def _finish(self) -> None:
        """Nobody reads any more: end both sides once the data to MPTCP is out."""
        self.peer.close()
        if self.transport is not None and not self.closed:
            self.transport.abort()


def snapshot(transport: asyncio.BaseTransport | None) -> dict[str, Any] | None:
    """The connection's MptcpInfo as plain values; None when there is none."""
    info = transport.get_extra_info("mptcp_info") if transport is not None else None
    return None if info is None else dict(info.to_dict())


async def attach(splice: Splice) -> tuple[dict[str, Any], list[int]]:
    """Make the pairs of a splice whose MPTCP side is up, and connect the daemon's ends.

    Returns what to tell the program and the two descriptors to give it, data first, which the
    caller sends and then closes. Raises OSError (no descriptors left).
    """
    half = splice.local
    assert isinstance(half, ProgramHalf)
    data, data_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        control, control_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError:
        data.close()
        data_theirs.close()
        raise
    theirs = (data_theirs, control_theirs)
    for sock in (data, control, *theirs):
        sock.setblocking(False)
    try:
        half.control_by(control)
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: half, sock=data)
    except BaseException:
        for sock in (data, *theirs):
            sock.close()
        if half.transport is None:
            half.drop_control()
        raise
    mptcp = splice.mptcp.transport
    assert mptcp is not None
    facts = {
        "peername": mptcp.get_extra_info("peername"),
        "sockname": mptcp.get_extra_info("sockname"),
        "info": snapshot(mptcp),
    }
    return facts, [sock.detach() for sock in theirs]
