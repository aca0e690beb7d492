"""The connection as its scheduler sees it: `scheduler.ConnectionView` over a `MetaSocket`.

Nothing is kept here: every answer is worked out when a scheduler asks, and those that never ask pay
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket
    from mptcp.subflow import Subflow


class SendingView:
    """See `scheduler.ConnectionView`."""

    __slots__ = ("meta",)

    def __init__(self, meta: MetaSocket) -> None:
        self.meta = meta

    @property
    def now(self) -> int:
        return self.meta.stack.now

    @property
    def paths(self) -> Sequence[Subflow]:
        subflows = self.meta.subflows
        usable = [s for s in subflows if s.usable and not s.suspected]
        # With none that takes new data, it is asked for what is to go again: any may have that.
        return [s for s in usable if not s.backup] or usable or subflows

    @property
    def window(self) -> int:
        tx = self.meta.tx
        return min(tx.wnd_end - tx.una, tx.capacity)

    @property
    def window_left(self) -> int:
        tx = self.meta.tx
        return max(0, min(tx.wnd_end, tx.una + tx.capacity) - tx.nxt - tx.ahead.size)

    @property
    def window_blocks(self) -> int:
        return self.meta.dispatcher.window_blocks

    @property
    def next_dsn(self) -> int:
        return self.meta.tx.nxt

    @property
    def more_waits(self) -> bool:
        return self.meta.writable_wanted

    @property
    def weights(self) -> Sequence[int]:
        return self.meta.config.scheduler_weights
