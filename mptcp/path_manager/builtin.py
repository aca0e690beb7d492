"""The built-in path manager: local addresses, ADD_ADDR, REMOVE_ADDR (thesis §4.2.1, RFC 8684 §3.4).

(event, action) pairs, thesis table 4.1:
  * an address table changed -> add the new useful pairs to the mapping table, drop those gone
  * the mapping table changed -> notify the MT
  * the MT asks for an endpoint ID -> answer from the table

Which pairs are useful: a pair that brings an address, local or remote, that no path uses yet, the
best routed first. Two hosts with two addresses each so get two paths, not four that share links;
`fullmesh` takes every pair that has a route.

A lost subflow's path stays in the table and is offered again after a delay that doubles; one that
has never worked is tried a few times only (RFC 8684 §3.4.1: SHOULD NOT try again what failed; a
fresh ADD_ADDR or interface starts anew).
"""

from __future__ import annotations

from mptcp.config import Config
from mptcp.path_manager.base import (
    EndpointId,
    MultipathTransport,
    Path,
    PathManager,
    path_managers,
)
from mptcp.tcp.state import NEVER

FENDPOINT = 1
NEVER_WORKED_LIMIT = 3
GRACE_US = 50_000
"""How long new local addresses wait for the peer's ADD_ADDRs before they join its first address:
with an address of the peer's own on the same path the pair is better."""


class _Announcement:
    """An ADD_ADDR of ours that has not been echoed."""

    __slots__ = ("address", "address_id", "deadline", "tries")

    def __init__(self, address_id: int, address: bytes, deadline: int) -> None:
        self.address_id = address_id
        self.address = address
        self.tries = 0
        self.deadline = deadline


@path_managers.register("builtin")
class BuiltinPathManager(PathManager):
    """See the module's text."""

    full_mesh = False

    def __init__(self, transport: MultipathTransport, config: Config) -> None:
        super().__init__(transport, config)
        self.paths: dict[int, Path] = {}
        self.next_index = FENDPOINT
        self.remote: dict[int, tuple[bytes, int]] = {}
        """remote_addr_table: identifier -> (address, port)."""
        self.announced: dict[int, bytes] = {}
        self.pending: list[_Announcement] = []
        self.withdrawing: set[int] = set()
        """Identifiers whose REMOVE_ADDR no subflow could carry yet."""
        self.grace_until = NEVER
        self.in_grace = False
        self.active: set[int] = set()
        """Indices of paths with a subflow, or with a SYN on its way."""
        self.ready = False

    # events

    def on_established(self, now: int) -> None:
        transport = self.transport
        self.ready = True
        fendpoint = transport.fendpoint
        self._add(fendpoint, 0, 0).established = True
        self.active.add(FENDPOINT)
        self.remote[0] = (fendpoint.remote, fendpoint.remote_port)
        if transport.is_client:
            self.in_grace = True
            self.grace_until = now + max(GRACE_US, 2 * transport.rtt())
            self._update(now)  # an ADD_ADDR may have come before the confirmation
        elif self.config.announce_addresses:
            self._announce_all(now)

    def on_add_addr(self, address_id: int, address: bytes, port: int, now: int) -> None:
        if address_id != 0 and len(self.remote) > self.config.max_addresses:
            return
        known = self.remote.get(address_id)
        if known is not None and known[0] != address:
            # RFC 8684 §3.4.1: an identifier keeps its address until it is removed.
            return
        self.remote[address_id] = (address, port)
        for path in list(self.paths.values()):
            if path.remote_id != address_id:
                continue
            path.withdrawn = False
            if known is not None and known[1] != port and path.endpoint.remote_port == known[1]:
                # RFC 8684 §3.4.1: a new port SHOULD be tried; what works on the old one goes on.
                if path.index not in self.active:
                    del self.paths[path.index]
                if self._free(EndpointId(path.endpoint.local, 0, address, port)):
                    again = EndpointId(path.endpoint.local, 0, address, port)
                    self._add(again, path.local_id, address_id)
            elif path.index not in self.active:
                # Announced anew it may be tried anew, but not at the pace of announcements: the
                # address may be a victim's (RFC 6181 §4).
                path.failures = 0
                path.usable_at = max(now, path.failed_at + self.config.rejoin_delay_us)
        self._update(now)

    def on_echo(self, address_id: int, now: int) -> None:
        self.pending = [entry for entry in self.pending if entry.address_id != address_id]

    def on_remove_addr(self, address_id: int, now: int) -> None:
        self.remote.pop(address_id, None)
        for path in list(self.paths.values()):
            if path.remote_id == address_id:
                if path.index in self.active:
                    path.withdrawn = True  # the MT asks whether it still works
                else:
                    del self.paths[path.index]
        self._update(now)

    def on_local_addresses(self, now: int) -> None:
        if not self.ready:
            return
        present = {address for _, address in self.transport.local_addresses()}
        gone = {i for i, address in self.announced.items() if address not in present}
        for address_id in gone:
            self.announced.pop(address_id, None)
            self.on_echo(address_id, now)
        for path in list(self.paths.values()):
            if path.endpoint.local not in present:
                if path.established:
                    gone.add(path.local_id)  # MP_JOIN has announced it, or it is the first's: 0
                self._drop(path)
        self.withdrawing = {i for i in self.withdrawing if i not in self._present_ids()} | gone
        self._withdraw()
        if not self.transport.is_client and self.config.announce_addresses:
            self._announce_all(now)
        self._update(now)

    def on_peer_subflow(self, endpoint: EndpointId, local_id: int, remote_id: int) -> int:
        return self._add(endpoint, local_id, remote_id).index

    def on_subflow_opened(self, path_index: int, now: int) -> None:
        self.active.add(path_index)

    def on_subflow_established(self, path_index: int, now: int) -> None:
        self.active.add(path_index)
        path = self.paths.get(path_index)
        if path is not None:
            path.established = True
            path.failures = 0
            path.rests = False
        self._withdraw()

    def on_subflow_closed(self, path_index: int, *, refused: bool, now: int) -> None:
        self.active.discard(path_index)
        path = self.paths.get(path_index)
        if path is None:
            return
        if path.withdrawn:
            del self.paths[path_index]
            return
        if not self.transport.is_client:
            if path_index != FENDPOINT:
                del self.paths[path_index]  # the client opens it again if it wants to
            return
        path.failures += 1
        path.failed_at = now
        # RFC 8684 §3.1: after C=1 no further subflow goes to the first address and port.
        barred = path.remote_id == 0 and self.transport.no_join_initial
        if barred or refused or (not path.established and path.failures >= NEVER_WORKED_LIMIT):
            path.usable_at = NEVER
        else:
            delay = self.config.rejoin_delay_us << min(path.failures - 1, 16)
            path.usable_at = now + min(delay, self.config.rejoin_max_delay_us)
        self.transport.paths_changed()

    def on_costly(self, path_index: int, until: int) -> None:
        path = self.paths.get(path_index)
        if path is not None:
            path.usable_at = until
            path.rests = True

    def on_stall(self, now: int) -> None:
        for path in self.paths.values():
            if path.rests and path.index not in self.active:
                path.rests = False
                path.usable_at = now

    # requests

    def path_indices(self, now: int) -> list[int]:
        if not self.transport.is_client:
            return []
        return [
            path.index
            for path in self.paths.values()
            if path.index not in self.active and path.usable_at <= now
        ]

    def path(self, index: int) -> Path:
        return self.paths[index]

    def table(self) -> list[Path]:
        return list(self.paths.values())

    # time

    def next_deadline(self) -> int:
        deadline = self.grace_until
        for entry in self.pending:
            deadline = min(deadline, entry.deadline)
        if self.transport.is_client and self.transport.may_open:
            for path in self.paths.values():
                if path.index not in self.active:
                    deadline = min(deadline, path.usable_at)
        return deadline

    def handle_timeout(self, now: int) -> None:
        if now >= self.grace_until:
            self.grace_until = NEVER
            self.in_grace = False
            self._update(now)
        for entry in list(self.pending):
            if now >= entry.deadline:
                self._send(entry, now)
        self.transport.paths_changed()
        if not self.transport.may_open:
            return  # it asks when it may
        for path in self.paths.values():
            if path.index not in self.active and path.usable_at <= now:
                # Not taken now (a limit, no interface): ask again later.
                path.usable_at = now + self.config.rejoin_delay_us

    # the mapping table

    def _add(self, endpoint: EndpointId, local_id: int, remote_id: int) -> Path:
        path = Path(self.next_index, endpoint, local_id, remote_id)
        self.paths[path.index] = path
        self.next_index += 1
        return path

    def _free(self, endpoint: EndpointId) -> bool:
        """Whether there is room for a path and none yet with these addresses and this port."""
        return len(self.paths) < self.config.max_subflows and all(
            (path.endpoint.local, path.endpoint.remote, path.endpoint.remote_port)
            != (endpoint.local, endpoint.remote, endpoint.remote_port)
            for path in self.paths.values()
        )

    def _present_ids(self) -> set[int]:
        return {address_id for address_id, _ in self.transport.local_addresses()}

    def _withdraw(self) -> None:
        """RFC 8684 §3.4.2: tell the peer which addresses are gone, as soon as a subflow can."""
        if self.withdrawing and self.transport.withdraw(tuple(sorted(self.withdrawing))):
            self.withdrawing.clear()

    def _drop(self, path: Path) -> None:
        if path.index in self.active:
            self.transport.close_path(path.index)
            self.active.discard(path.index)
        self.paths.pop(path.index, None)

    def _update(self, now: int) -> None:
        """Add every pair that has become useful (thesis table 4.1, first row)."""
        if not self.ready or not self.transport.is_client:
            return
        transport = self.transport
        local = transport.local_addresses()
        used_local = {path.endpoint.local for path in self.paths.values()}
        used_remote = {path.endpoint.remote for path in self.paths.values()}
        pairs = []
        for local_id, address in local:
            for remote_id, (remote, port) in self.remote.items():
                if remote_id == 0 and transport.no_join_initial:
                    continue
                quality = transport.route_quality(address, remote)
                if quality and len(address) == len(remote):
                    new = (address not in used_local) + (remote not in used_remote)
                    pairs.append((-quality, -new, remote_id, local_id, address, remote, port))
        known = {(path.endpoint.local, path.endpoint.remote) for path in self.paths.values()}
        for _, _, remote_id, local_id, address, remote, port in sorted(pairs):
            if (address, remote) in known:
                continue
            if not self.full_mesh:
                if address in used_local and remote in used_remote:
                    continue
                if self.in_grace and (address in used_local or remote in used_remote):
                    continue
            if len(self.paths) >= self.config.max_subflows:
                break
            self._add(EndpointId(address, 0, remote, port), local_id, remote_id)
            known.add((address, remote))
            used_local.add(address)
            used_remote.add(remote)
        transport.paths_changed()

    # announcements

    def _announce_all(self, now: int) -> None:
        for address_id, address in self.transport.local_addresses():
            if address_id and address_id not in self.announced:
                self.announced[address_id] = address
                entry = _Announcement(address_id, address, now)
                self.pending.append(entry)
                self._send(entry, now)

    def _send(self, entry: _Announcement, now: int) -> None:
        """RFC 8684 §3.4.1: repeat until echoed, a few times."""
        if entry.tries > self.config.add_addr_retries:
            self.pending.remove(entry)
            return
        port = self.config.announce_port or None
        if self.transport.announce(entry.address_id, entry.address, port):
            entry.tries += 1
        entry.deadline = now + (self.config.add_addr_timeout_us << max(entry.tries - 1, 0))


@path_managers.register("fullmesh")
class FullMeshPathManager(BuiltinPathManager):
    """Every local address to every address of the peer that a route leads to."""

    full_mesh = True
