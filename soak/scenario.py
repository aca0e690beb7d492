"""What one session does: plain numbers, from a seed or from a line of JSON.

A `Scenario` names everything a run depends on, so that the line `Scenario.to_line()` prints
replays it anywhere. Shares are per mille, times are microseconds, sizes are bytes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from random import Random
from typing import Any, Final

from mptcp.config import DEFAULT_HEURISTICS
from mptcp.reorder import reorder_queues
from mptcp.retransmission import policies
from mptcp.scheduler import schedulers
from mptcp.stack import BUILT_IN_POLICIES

ENDINGS: Final = ("shutdown", "close", "abort")
CONTROLLERS: Final = ("lia", "newreno", "cubic")
ECN: Final = ("on", "passive", "off")
assert BUILT_IN_POLICIES  # registered: their names are drawn from
HEURISTICS: Final = ("at-once", "at-once", DEFAULT_HEURISTICS, "after-bytes:4000", "never")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One host: how its stack is set and what its program does."""

    mptcp: bool = True
    offload: bool = False
    sack: bool = True
    timestamps: bool = True
    window_scaling: bool = True
    nodelay: bool = True
    checksum: bool = False
    ecn: str = "passive"
    congestion_control: str = "lia"
    scheduler: str = "timedistance"
    retransmission: str = "probe"
    reorder: str = "aggreg"
    heuristics: str = "at-once"
    repeats: bool = True
    """Opportunistic retransmission, of the end of the data too."""
    receive_buffer: int = 1 << 16
    send_buffer: int = 1 << 16
    size: int = 12_000
    """Bytes the program writes on each connection."""
    write_size: int = 4_000
    write_pause_us: int = 0
    """Between two writes; 0: as fast as they are taken."""
    read_size: int = 1 << 16
    read_pause_us: int = 0
    """Between two reads; 0: whatever has come, at once."""
    ending: str = "shutdown"
    """What ends the first connection on this side: `shutdown` after all is written, then `close`
    at the peer's end; `close` without waiting for it; `abort`."""
    ending_at: int = -1
    """Virtual time after the opening at which `close` or `abort` strikes; -1: when all is
    written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One session; see `session.run`."""

    seed: int = 0
    """Of the dice: fates of packets, entropy of the stacks, times of what happens."""
    paths: int = 1
    ipv6: bool = False
    mtu: int = 576
    delay_us: int = 5_000
    """One way, on the first path; each further path has half as much again."""
    drop: int = 30
    corrupt: int = 20
    duplicate: int = 60
    late: int = 250
    late_us: int = 30_000
    """The most that a late packet is held up beyond its path's delay."""
    burst: int = 0
    """A drop takes up to this many of the packets behind it along."""
    mark: int = 0
    """Of the packets that allow it (RFC 3168 ECT) so many are marked on their way."""
    cuts: int = 0
    """Times a path is cut for a while."""
    interface_losses: int = 0
    """Times a host loses one of its interfaces for a while."""
    isn: int | None = None
    """Where ISNs are near; None: as RFC 6528 has them."""
    idsn: int | None = None
    client: Side = field(default_factory=Side)
    server: Side = field(default_factory=Side)

    def to_line(self) -> str:
        """The scenario as one line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_line(cls, line: str) -> Scenario:
        """Back from `to_line`. Raises ValueError, TypeError."""
        values: dict[str, Any] = json.loads(line)
        if not isinstance(values, dict):
            raise ValueError("not an object")
        for side in ("client", "server"):
            values[side] = Side(**values.get(side, {}))
        return cls(**values)

    @classmethod
    def from_seed(cls, seed: int) -> Scenario:
        """The scenario that `python -m soak` runs under this number."""
        dice = Random(seed)
        chance = dice.random
        kind = chance()
        mptcp = (True, True) if kind < 0.6 else (False, False) if kind < 0.85 else (True, False)
        if dice.random() < 0.5:
            mptcp = mptcp[::-1]
        # The larger sizes more often: the small ones cost a multiple of the packets.
        mtu = dice.choice((280, 576, 576, 1280, 1280, 1280, 1500, 1500, 1500, 1500))
        late = dice.choice((400, 500, 600))
        wrap = chance() < 0.3
        # Enough packets for 50 of them to be disturbed, ACKs included, and not many more.
        packets = 16_000 // (late + 100)
        total = int(max(21_000, packets * 0.65 * (mtu - 80)) * (1 + 0.3 * chance()))
        share = dice.choice((0, 1, 2, 3, 4))
        totals = (total * share // 4, total - total * share // 4)
        graceful = chance() < 0.7
        found = cls(
            seed=seed,
            paths=dice.choice((1, 1, 2, 2, 3)),
            ipv6=chance() < 0.25,
            mtu=mtu,
            delay_us=dice.choice((100, 2_000, 10_000, 50_000)),
            drop=dice.choice((0, 10, 30, 60)),
            corrupt=dice.choice((0, 10, 30)),
            duplicate=dice.choice((0, 30, 100)),
            late=late,
            late_us=dice.choice((1_000, 20_000, 100_000, 400_000)),
            burst=dice.choice((0, 0, 0, 3)),
            mark=dice.choice((0, 0, 50, 300)),
            cuts=dice.choice((0, 0, 1, 2)),
            interface_losses=1 if chance() < 0.08 else 0,
            isn=(1 << 32) - dice.randrange(1, 20_000) if wrap else None,
            idsn=(1 << dice.choice((32, 64))) - dice.randrange(1, 20_000) if wrap else None,
            client=_side(dice, mptcp[0], totals[0], graceful),
            server=_side(dice, mptcp[1], totals[1], graceful),
        )
        # By dice of their own: what was drawn before is as it was without them.
        dice = Random(f"policies {seed}")
        return replace(
            found, client=_policies(dice, found.client), server=_policies(dice, found.server)
        )


def _policies(dice: Random, side: Side) -> Side:
    """The defaults in every other session, anything else in the others."""
    plain = dice.random() < 0.5
    return replace(
        side,
        scheduler=side.scheduler if plain else dice.choice(schedulers.names()),
        retransmission=side.retransmission if plain else dice.choice(policies.names()),
        reorder=side.reorder if plain else dice.choice(reorder_queues.names()),
        heuristics=dice.choice(HEURISTICS),
        repeats=dice.random() < 0.5,
    )


def _side(dice: Random, mptcp: bool, size: int, graceful: bool) -> Side:
    chance = dice.random
    small = chance() < 0.3
    ending = "shutdown" if graceful else dice.choice(ENDINGS)
    return Side(
        mptcp=mptcp,
        offload=chance() < 0.3,
        sack=chance() < 0.8,
        timestamps=chance() < 0.8,
        window_scaling=chance() < 0.8,
        nodelay=chance() < 0.7,
        checksum=chance() < 0.15,
        ecn=dice.choice(ECN),
        congestion_control=dice.choice(CONTROLLERS),
        receive_buffer=dice.choice((4096, 6_000, 9_000))
        if small
        else dice.choice((1 << 15, 1 << 18)),
        send_buffer=dice.choice((4096, 6_000)) if chance() < 0.3 else 1 << 17,
        size=size,
        write_size=max(dice.choice((200, 1_000, 5_000, 40_000)), size // 80),
        write_pause_us=dice.choice((0, 0, 0, 2_000, 20_000)),
        read_size=max(dice.choice((300, 4_000, 1 << 16)), size // 50),
        read_pause_us=dice.choice((0, 0, 0, 3_000, 30_000)),
        ending=ending,
        ending_at=-1 if chance() < 0.5 else dice.randrange(0, 400_000),
    )
