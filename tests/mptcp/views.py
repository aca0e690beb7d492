"""Paths and connections as schedulers see them: plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

MSS = 1000


@dataclass
class View:
    """A path as a scheduler sees it."""

    srtt: int
    path_index: int
    backup: bool = False
    cwnd: int = 10 * MSS
    in_flight: int = 0
    room: int = 10 * MSS
    rttvar: int = 0
    smss: int = MSS
    bytes_sent: int = 0
    acked_at: int = -1
    waiting_since: int = -1

    @property
    def rate(self) -> int:
        return self.cwnd * 1_000_000 // self.srtt if self.srtt else 0


@dataclass
class Connection:
    """A connection as a scheduler sees it."""

    paths: Sequence[View]
    now: int = 0
    window: int = 1 << 20
    window_left: int = 1 << 20
    window_blocks: int = 0
    next_dsn: int = 1
    more_waits: bool = False
    weights: Sequence[int] = field(default_factory=tuple)
