"""What transports, servers and connecting coroutines need of the engine, and it of them.

Types only: with them, streams know no engine, and an engine of another kind can carry them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from mptcp.events import Event
from mptcp.meta_socket import MetaSocket
from mptcp.stack import Stack

if TYPE_CHECKING:
    from mptcp.accepting import Listener


class Handler(Protocol):
    """Takes the events of one connection."""

    def handle_event(self, event: Event) -> None:
        """`poll_event()` returned `event` for the connection."""

    def is_closing(self) -> bool:
        """The application is done with the connection, and its end is awaited."""


class Driver(Protocol):
    """The engine as its streams see it."""

    stack: Stack
    handlers: dict[MetaSocket, Handler]
    """Who takes the events of a connection."""
    acceptors: dict[Listener, Callable[[MetaSocket], None]]
    """Who takes the connections of a listener."""
    lingering: dict[MetaSocket, Callable[[], None]]
    """Called at each turn, until removed, for connections that are closed for the application and
    not yet flushed."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop the engine runs in."""

    def advance(self) -> None:
        """To be called before calls into the stack that start timers: it knows the time only from
        us, and we may have been idle for long."""

    def schedule(self) -> None:
        """To be called after every call into the stack."""
