"""Memory: what a stack holds for its connections stays within what its `Config` allows.

`check` reads the stack's own accounts, cheap enough for every step; that the accounts are true is
measured on the object graph in the tests.
"""

from __future__ import annotations

from typing import Final

from mptcp.joining import HALF_OPEN
from mptcp.stack import Stack
from mptcp.tcp.state import State
from soak.program import Failure

TIMERS_PER_OBJECT: Final = 64
"""Timers are lazy: each object may leave early entries behind."""


MAPPED_IN_ORDER: Final = 256 << 10
"""What a subflow may have beside, for the mapping that is being filled: 64 KiB and their due."""


class Peaks:
    """The highest shares of each bound that a session came to."""

    __slots__ = ("receive", "reorder", "send", "timers")

    def __init__(self) -> None:
        self.send = 0.0
        self.receive = 0.0
        self.reorder = 0.0
        self.timers = 0.0


def check(stack: Stack, peaks: Peaks) -> None:
    """Raise `Failure` when something is beyond its bound."""
    config = stack.config
    for meta in stack.metas:
        tx, rx = meta.tx, meta.rx
        used = tx.used - meta.data_fin_due
        if used > tx.capacity:
            raise Failure(f"send buffer {used} of {tx.capacity}")
        share = used / tx.capacity
        if share > peaks.send:
            peaks.send = share
        if rx.unread > rx.buffer:
            raise Failure(f"receive buffer {rx.unread} of {rx.buffer}")
        if rx.memory + rx.reorder.memory > 4 * rx.buffer:
            raise Failure(f"{rx.memory} + {rx.reorder.memory} received, of 4 * {rx.buffer}")
        share = (rx.memory + rx.reorder.memory) / (2 * rx.buffer)
        if share > peaks.receive:
            peaks.receive = share
        if not 0 <= rx.mapped <= 2 * rx.buffer + MAPPED_IN_ORDER * len(stack.connections):
            raise Failure(f"{rx.mapped} for mappings, of 2 * {rx.buffer}")
        if rx.reorder.memory > 2 * rx.buffer:
            raise Failure(f"reorder queue {rx.reorder.memory} of 2 * {rx.buffer}")
        proved = sum(1 for s in meta.subflows if s.state is not State.SYN_RECEIVED)
        if proved > config.max_subflows or len(meta.subflows) - proved > max(HALF_OPEN, 1):
            raise Failure(f"{proved} of {len(meta.subflows)} subflows, of {config.max_subflows}")
    for connection in stack.connections.values():
        memory = connection.reassembly.memory
        if memory:
            share = memory / (2 * config.receive_buffer)
            if share > peaks.reorder:
                peaks.reorder = share
            if share > 1:
                raise Failure(f"reassembly {memory} of 2 * {config.receive_buffer}")
    objects = len(stack.connections) + len(stack.metas) + 1
    share = len(stack._timers._entries) / objects
    if share > peaks.timers:
        peaks.timers = share
        if share > TIMERS_PER_OBJECT:
            raise Failure(f"{len(stack._timers._entries)} timers for {objects} objects")
