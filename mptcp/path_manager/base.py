"""The interface between the Multipath Transport and a Path Manager (thesis §4.2).

The Path Manager (PM) owns the mapping table: path index -> endpoint ID. It tells the Multipath
Transport (MT, our `MetaSocket`) that the table has changed; the MT asks which indices there are and
for the endpoint ID of the ones it wants to use. Index 1 is the *fendpoint*, the first subflow's
path. Address signalling (ADD_ADDR, REMOVE_ADDR) is asked of the MT, which owns the option space.

To write one: subclass `PathManager`, decorate with `@path_managers.register("name")`. Every hook
has a default that does nothing, so a manager implements only what it is about.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mptcp.config import Config
from mptcp.registry import Registry
from mptcp.tcp.state import NEVER


@dataclass(frozen=True, slots=True)
class EndpointId:
    """(saddr, sport, daddr, dport); a source port of 0 leaves the choice to the MT."""

    local: bytes
    local_port: int
    remote: bytes
    remote_port: int


@dataclass(slots=True)
class Path:
    """A row of the mapping table."""

    index: int
    endpoint: EndpointId
    local_id: int = 0
    remote_id: int = 0
    backup: bool = False
    """Ask the peer to use it as a backup."""
    withdrawn: bool = False
    """The peer has removed its address: not to be used again once its subflow ends."""
    failures: int = 0
    """Failures in a row: it was refused, timed out or was lost."""
    failed_at: int = 0
    """When it last failed (µs)."""
    established: bool = False
    """It has carried a subflow at least once."""
    usable_at: int = 0
    """Not to be used before this time (µs)."""
    rests: bool = False
    """Until then because its subflow cost more than it brought."""


class MultipathTransport(Protocol):
    """What a path manager may ask of the connection."""

    @property
    def is_client(self) -> bool:
        """Whether this side opened the connection: only the client joins (thesis §4.3.2)."""

    @property
    def fendpoint(self) -> EndpointId: ...

    @property
    def no_join_initial(self) -> bool:
        """The peer set the C flag: no subflow to its initial address (RFC 8684 §3.1)."""

    @property
    def may_open(self) -> bool:
        """Whether the connection's heuristics let it use paths yet (`mptcp.heuristics`); the MT
        asks for the path indices when they do."""

    def local_addresses(self) -> list[tuple[int, bytes]]:
        """(address identifier, address) of the stack's interfaces that are up; the fendpoint's
        local address has identifier 0."""

    def route_quality(self, local: bytes, remote: bytes) -> int:
        """0: no route from `local` to `remote`; 1: by a default; 2: on-link or a given route."""

    def paths_changed(self) -> None:
        """The mapping table has changed: ask again (thesis fig. 4.2, message 1)."""

    def announce(self, address_id: int, address: bytes, port: int | None) -> bool:
        """Send ADD_ADDR; False when it cannot be sent now."""

    def withdraw(self, address_ids: tuple[int, ...]) -> bool:
        """Send REMOVE_ADDR; False when it cannot be sent now."""

    def close_path(self, path_index: int) -> None:
        """Close the subflow of a path: with FIN if it works, with RST if its address is gone."""

    def rtt(self) -> int:
        """Smoothed RTT of the connection's fastest subflow, µs."""


class PathManager:
    """Base class and contract; one object per connection."""

    def __init__(self, transport: MultipathTransport, config: Config) -> None:
        self.transport = transport
        self.config = config

    # events

    def on_established(self, now: int) -> None:
        """The connection is confirmed as MPTCP: subflows may be opened."""

    def on_add_addr(self, address_id: int, address: bytes, port: int, now: int) -> None:
        """The peer announced an address (its HMAC was right)."""

    def on_echo(self, address_id: int, now: int) -> None:
        """The peer confirmed our announcement."""

    def on_remove_addr(self, address_id: int, now: int) -> None:
        """The peer withdrew an address."""

    def on_local_addresses(self, now: int) -> None:
        """An interface came up or went down."""

    def on_peer_subflow(self, endpoint: EndpointId, local_id: int, remote_id: int) -> int:
        """The peer opened a subflow on a pair (thesis §4.2.1: a SYN discovers a path).

        Returns the path index it is to have; 0 if the manager keeps no row for it.
        """
        return 0

    def on_subflow_opened(self, path_index: int, now: int) -> None:
        """The MT has sent a SYN on the path; `on_subflow_established` or `_closed` follows."""

    def on_subflow_established(self, path_index: int, now: int) -> None:
        """A subflow runs on the path."""

    def on_subflow_closed(self, path_index: int, *, refused: bool, now: int) -> None:
        """The path's subflow ended; `refused`: the peer says it will not have it."""

    def on_costly(self, path_index: int, until: int) -> None:
        """The path's subflow has just been closed because it cost more than it brought: not to be
        offered again before `until` (µs; NEVER: the peer has closed it), or `on_stall`."""

    def on_stall(self, now: int) -> None:
        """The connection has no working subflow: even a costly one is better than none."""

    # requests of the MT

    def path_indices(self, now: int) -> list[int]:
        """The indices the MT may use now, in order of preference (thesis fig. 4.2)."""
        return []

    def path(self, index: int) -> Path:
        """The row of a path index. Raises KeyError for an unknown one."""
        raise KeyError(index)

    def table(self) -> list[Path]:
        """The whole mapping table."""
        return []

    # time

    def next_deadline(self) -> int:
        """When `handle_timeout` wants to be called."""
        return NEVER

    def handle_timeout(self, now: int) -> None:
        """A deadline has come; spurious calls do no harm."""


path_managers: Registry[type[PathManager]] = Registry("path manager", "mptcp.path_managers")
