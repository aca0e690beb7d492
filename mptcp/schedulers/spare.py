"""Paths kept for later: `backup`, when the others fail, and `overflow`, when they are full.

Thesis §4.3.6. Both prefer the paths in the order of their indices, the first subflow's first. What
the peer asked for with the B flag or MP_PRIO (RFC 8684 §3.3.8) comes before that.
"""

from __future__ import annotations

from collections.abc import Sequence

from mypy_extensions import mypyc_attr

from mptcp.scheduler import P, Scheduler, schedulers


@mypyc_attr(allow_interpreted_subclasses=True)
class Backup(Scheduler):
    """The first path that works, full or not; no other (3G beside Wi-Fi, where bytes cost)."""

    def select(self, ready: Sequence[P], queued: int) -> P | None:
        first = min(self.connection.paths, key=lambda path: path.path_index)
        for path in ready:
            if path is first:
                return path
        return None


@mypyc_attr(allow_interpreted_subclasses=True)
class Overflow(Scheduler):
    """The first path that has room: the next one only takes what does not fit before it."""

    def select(self, ready: Sequence[P], queued: int) -> P | None:
        return min(ready, key=lambda path: (path.backup, path.path_index))


schedulers.add("backup", Backup)
schedulers.add("overflow", Overflow)
