"""An application with one connection, and the byte-stream model it is checked against.

The model is trivial on purpose: what one program wrote is a slice of `SOURCE`, and what the other
reads must be that slice from its beginning on. What each program did (ended its data, closed,
aborted) and was told (end of data, end of the connection) is kept; `verdict` says at the end
whether it fits together.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from mptcp.errors import ConnectionEnd
from mptcp.events import Accepted, Closed, Connected, Event, Readable, Writable
from mptcp.meta_socket import MetaSocket
from soak.scenario import Side

SOURCE: Final = Random(8684).randbytes(1 << 19)
LONGEST: Final = 1 << 18
"""The most a program writes on one connection."""

At = Callable[[int, Callable[[], None]], None]


class Failure(AssertionError):
    """A property does not hold."""


class Program:
    """One side's application."""

    __slots__ = (
        "_at",
        "_read_due",
        "_side",
        "_size",
        "_write_due",
        "closed",
        "connection",
        "done_writing",
        "end",
        "ending",
        "eof",
        "name",
        "now",
        "offset",
        "opened",
        "peer",
        "read",
        "sent",
        "unread",
    )

    def __init__(self, name: str, side: Side, size: int, offset: int, ending: str, at: At) -> None:
        """Write `size` bytes of `SOURCE` from `offset` on, then end as `ending` says."""
        self.name = name
        self._side = side
        self._size = size
        self.offset = offset
        self.ending = ending
        self._at = at
        self.now: Callable[[], int] = lambda: 0
        self.connection: MetaSocket | None = None
        self.peer: Program | None = None
        self.opened = False
        self.sent = 0
        """Bytes the stack has accepted."""
        self.read = 0
        """Bytes the stack has handed over; they were right."""
        self.unread = 0
        """Bytes that waited in the stack when this program closed or aborted."""
        self.done_writing = False
        """It has said that no more comes (shutdown or close)."""
        self.closed = False
        """It has called close() or abort()."""
        self.eof = False
        self.end: ConnectionEnd | None = None
        self._read_due = False
        self._write_due = False

    @property
    def complete(self) -> bool:
        """All was written, and all that the peer wrote was read to its end."""
        return self.sent == self._size and self.eof

    # -- what the stack tells --------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        """An event of this program's connection."""
        if self.end is not None:
            raise Failure(f"{self.name}: {event} after Closed")
        match event:
            case Connected() | Accepted():
                if self.opened:
                    raise Failure(f"{self.name}: opened twice")
                self.opened = True
                if self.ending != "shutdown" and self._side.ending_at >= 0:
                    self._at(self.now() + self._side.ending_at, self.finish)
                self.write()
            case Writable():
                self.write()
            case Readable():
                if not self._side.read_pause_us:
                    self.take()
                elif not self._read_due:
                    self._read_due = True
                    self._at(self.now() + self._side.read_pause_us, self._read_turn)
            case Closed(end=end):
                self.end = end
                if not self.closed:
                    self.take(last=True)
            case _:
                pass

    # -- what the program does -------------------------------------------------------------------

    def write(self) -> None:
        """Give the stack what it takes."""
        connection = self.connection
        if self._write_due or self.done_writing or self.closed or self.end is not None:
            return
        assert connection is not None
        while self.sent < self._size:
            if connection.ended is not None:
                return  # Closed is on its way
            size = min(self._side.write_size, self._size - self.sent)
            at = self.offset + self.sent
            piece = bytearray(SOURCE[at : at + size])
            taken = connection.send(piece)
            piece[:] = bytes(size)  # what was taken is the stack's own by now
            self.sent += taken
            if taken < size:
                return
            if self._side.write_pause_us:
                self._write_due = True
                self._at(self.now() + self._side.write_pause_us, self._write_turn)
                return
        if self.ending == "shutdown" or self._side.ending_at < 0:
            self.finish()

    def _write_turn(self) -> None:
        self._write_due = False
        self.write()

    def _read_turn(self) -> None:
        self._read_due = False
        if self.end is None:
            self.take()

    def take(self, *, last: bool = False) -> None:
        """Read what waits and compare it with what the peer wrote; `last`: all there is."""
        connection = self.connection
        if self.closed or connection is None:
            return
        peer = self.peer
        while data := connection.recv(self._side.read_size):
            assert peer is not None
            at = peer.offset + self.read
            self.read += len(data)
            if self.read > peer.sent:
                raise Failure(f"{self.name} read {self.read} bytes of {peer.sent} written")
            if data != SOURCE[at : at + len(data)]:
                raise Failure(f"{self.name}: wrong bytes before {self.read} of {peer.sent}")
            if self._side.read_pause_us and not last:
                if not self._read_due:
                    self._read_due = True
                    self._at(self.now() + self._side.read_pause_us, self._read_turn)
                return
        if connection.eof and not self.eof and (peer is not None):
            self.eof = True
            if not peer.done_writing or self.read != peer.sent:
                raise Failure(
                    f"{self.name} was told the end of data after {self.read} bytes, but "
                    f"{peer.name} wrote {peer.sent} and has ended its data: {peer.done_writing}"
                )
            if self.done_writing and self.end is None:
                self._close()

    def finish(self) -> None:
        """End this side as the scenario says."""
        if self.closed or self.end is not None or self.connection is None:
            return
        if self.ending == "shutdown":
            self.done_writing = True
            self.connection.shutdown()
            if self.eof:
                self._close()
        elif self.ending == "close":
            self._close()
        else:
            self.give_up()

    def _close(self) -> None:
        assert self.connection is not None
        self.closed = True
        self.done_writing = True
        self.unread = self.connection.rx.unread
        self.connection.close()

    def give_up(self) -> None:
        """Abort the connection."""
        if self.connection is not None and self.end is None:
            self.unread = self.connection.rx.unread
            self.closed = True
            self.connection.abort()

    def poke(self) -> None:
        """The other side is long gone: do what makes TCP find that out (RFC 9293 §3.5.1)."""
        if self.end is not None or self.connection is None or self.connection.ended is not None:
            return
        if self.done_writing or self.connection.tx.room() == 0:
            if not self.closed:
                self.give_up()
        else:
            at = self.offset + self.sent
            self.sent += self.connection.send(SOURCE[at : at + 1])


def verdict(client: Program, server: Program | None) -> None:
    """Raise `Failure` unless both programs were told the truth."""
    if server is None:
        # Nobody was there: the client cannot have been told that all went well.
        if client.end is ConnectionEnd.CLOSED and client.sent:
            raise Failure(f"client: {client.sent} bytes to nobody, ended well")
        return
    for x, y in ((client, server), (server, client)):
        received = y.read + y.unread
        if received > x.sent:
            raise Failure(f"{y.name} holds {received} bytes of the {x.sent} that were written")
        if x.end is ConnectionEnd.CLOSED and received < x.sent:
            raise Failure(
                f"{x.name} ended well, but {y.name} (which ended: {y.end}) has {received} of "
                f"its {x.sent} bytes"
            )
        # A program that closed or aborted by itself asked for no more.
        if y.end is ConnectionEnd.CLOSED and not y.closed and y.read < x.sent:
            raise Failure(f"{y.name} ended well with {y.read} of {x.sent} bytes")
        if y.end is ConnectionEnd.CLOSED and not y.closed and not y.eof:
            raise Failure(f"{y.name} ended well without an end of data")


def state(program: Program | None) -> str:
    """One line about a program, for reports."""
    if program is None:
        return "no program"
    return (
        f"{program.name}: {program.ending}, sent {program.sent}, read {program.read}, "
        f"unread {program.unread}, done writing {program.done_writing}, closed {program.closed}, "
        f"eof {program.eof}, end {program.end}, {program.connection}"
    )
