"""The states of a connection at the data level (RFC 8684 App. D), and its TIME-WAIT.

The states follow from what `MetaSocket` knows of the two DATA_FINs; nothing keeps them. Only
M_TIMEWAIT is a thing of its own: the side whose DATA_FIN was acknowledged before it had seen the
peer's cannot know that its own last DATA_ACK arrived. It keeps the token for 2 MSL, so that a peer
that lost every path at the last word may join once more, repeat its DATA_FIN and be answered. The
application has had its `Closed` by then.

Invariant: at most `max_time_wait` connections wait, the oldest gives way.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING

from mptcp.tcp.state import NEVER

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket
    from mptcp.stack import Stack


class DataState(enum.Enum):
    """RFC 8684 App. D, figure 17; M_OPENING stands for all before M_ESTAB."""

    M_OPENING = "M_OPENING"
    M_ESTAB = "M_ESTAB"
    M_FINWAIT_1 = "M_FINWAIT-1"
    M_FINWAIT_2 = "M_FINWAIT-2"
    M_CLOSING = "M_CLOSING"
    M_CLOSEWAIT = "M_CLOSEWAIT"
    M_LAST_ACK = "M_LAST-ACK"
    M_TIMEWAIT = "M_TIMEWAIT"
    M_CLOSED = "M_CLOSED"


def data_state(meta: MetaSocket) -> DataState:
    """The state of a connection; of plain TCP, that of the same events."""
    if meta.ended is not None:
        waiting = meta.time_wait is not None
        return DataState.M_TIMEWAIT if waiting else DataState.M_CLOSED
    if not meta.established:
        return DataState.M_OPENING
    if meta.eof:
        if not meta.write_closed:
            return DataState.M_CLOSEWAIT
        return DataState.M_LAST_ACK if meta.eof_first else DataState.M_CLOSING
    if not meta.write_closed:
        return DataState.M_ESTAB
    return DataState.M_FINWAIT_2 if meta.data_fin_acked else DataState.M_FINWAIT_1


class DataTimeWait:
    """M_TIMEWAIT of one connection: what the timer heap holds."""

    __slots__ = ("_deadline", "heap_deadline", "meta")

    def __init__(self, meta: MetaSocket, deadline: int) -> None:
        self.meta = meta
        self._deadline = deadline
        self.heap_deadline = NEVER  # kept by the stack

    def next_deadline(self) -> int:
        """The end of 2 MSL."""
        return self._deadline

    def handle_timeout(self, now: int) -> None:
        """M_CLOSED: the token is free; a subflow that came meanwhile and stayed is reset."""
        self._deadline = NEVER
        meta = self.meta
        meta.time_wait = None
        stack = meta.stack
        if stack.tokens.get(meta.token) is meta:
            del stack.tokens[meta.token]
        for subflow in list(meta.subflows):
            if subflow.is_join and not subflow.fin_queued:
                subflow.abort()


class DataTimeWaits:
    """All of a host."""

    __slots__ = ("_limit", "_waiting")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[DataTimeWait] = deque()

    def enter(self, stack: Stack, meta: MetaSocket) -> None:
        """The connection is over here; keep its token for a while."""
        waiting = self._waiting
        wait = DataTimeWait(meta, stack.now + stack.config.time_wait_us)
        meta.time_wait = wait
        waiting.append(wait)
        stack.rearm(wait)
        while len(waiting) > self._limit:
            waiting.popleft().handle_timeout(stack.now)
        while waiting and waiting[0].next_deadline() == NEVER:
            waiting.popleft()
