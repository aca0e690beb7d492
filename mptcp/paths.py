"""The Multipath Transport's side of path management, one object per connection.

Owns the connection's path manager and everything said between the two (thesis §4.2.1): which
subflows to open, and the address options ADD_ADDR, REMOVE_ADDR and MP_PRIO (RFC 8684 §3.4), which
travel on pure ACKs. `PathControl` is the `MultipathTransport` that a path manager sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp import keys
from mptcp.addressing import can_be_source
from mptcp.errors import ConnectionEnd
from mptcp.monitor import tell_announced, tell_removed
from mptcp.path_manager.base import EndpointId, path_managers
from mptcp.removal import Removal
from mptcp.tcp.state import NEVER
from mptcp.wire.mptcp_options import RST_UNSPECIFIED, AddAddr, MpTcprst, RemoveAddr

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket
    from mptcp.subflow import Subflow


class PathControl:
    """See the module's text; the methods of the first part are documented in
    `path_manager.base.MultipathTransport`."""

    def __init__(self, meta: MetaSocket) -> None:
        self.meta = meta
        self.stack = meta.stack
        self.manager = path_managers.get(meta.config.path_manager)(self, meta.config)
        self.no_join_initial = False
        self.announced: set[int] = set()
        """Identifiers of ours that the peer was told and that were not withdrawn."""
        self.accepted: set[int] = set()
        """Identifiers of the peer's, likewise."""
        self.removal = Removal()

    # -- MultipathTransport --------------------------------------------------------------------

    @property
    def is_client(self) -> bool:
        return self.meta.is_client

    @property
    def fendpoint(self) -> EndpointId:
        return self.meta.fendpoint

    def local_addresses(self) -> list[tuple[int, bytes]]:
        first = self.meta.fendpoint.local
        book = self.stack.book
        return [
            (0 if address == first else book.identifier(address), address)
            for address in book.usable()
        ]

    def route_quality(self, local: bytes, remote: bytes) -> int:
        return self.stack.book.quality(local, remote)

    def rtt(self) -> int:
        return min((s.srtt for s in self.meta.subflows if s.srtt), default=0)

    def announce(self, address_id: int, address: bytes, port: int | None) -> bool:
        meta = self.meta
        subflow = next((s for s in meta.subflows if s.usable), None)
        if subflow is None or not meta.remote_key:
            return False
        mac = keys.add_addr_hmac(meta.local_key, meta.remote_key, address_id, address, port)
        if not self.signal(subflow, AddAddr(address_id, address, port, mac).emit()):
            self.stack.counters["MPTcpExtAddAddrTxDrop"] += 1
            return False
        self.announced.add(address_id)
        self.stack.counters["MPTcpExtAddAddrTx"] += 1
        return True

    def withdraw(self, address_ids: tuple[int, ...]) -> bool:
        subflow = next((s for s in self.meta.subflows if s.usable), None)
        if subflow is None:
            return False
        sent = self.signal(subflow, RemoveAddr(address_ids).emit())
        self.stack.counters["MPTcpExtRmAddrTx" if sent else "MPTcpExtRmAddrTxDrop"] += 1
        if sent:
            self.announced.difference_update(address_ids)
        return sent

    def close_path(self, path_index: int) -> None:
        for subflow in list(self.meta.subflows):
            if subflow.path_index != path_index:
                continue
            if subflow.local in self.stack.book.owner and subflow.usable:
                # RFC 8684 §3.4.2: what still works MUST be closed with FIN.
                subflow.set_orphan(self.stack.now)
                subflow.close()
            else:
                subflow.abort(MpTcprst(RST_UNSPECIFIED).emit(), ConnectionEnd.INTERFACE_LOST)

    @property
    def may_open(self) -> bool:
        return self.meta.upkeep.may_open

    def paths_changed(self) -> None:
        """Open subflows on the paths the PM offers (thesis fig. 4.2, messages 2 and 3)."""
        meta = self.meta
        if self.active and meta.upkeep.may_open:
            now = self.stack.now
            for index in self.manager.path_indices(now):
                if len(meta.subflows) >= meta.config.max_subflows:
                    break
                if all(s.path_index != index for s in meta.subflows):
                    self.manager.on_subflow_opened(index, now)
                    self.stack.join(meta, self.manager.path(index))
        self.stack.rearm(meta)

    # -- the connection's calls ----------------------------------------------------------------

    @property
    def active(self) -> bool:
        """The connection is MPTCP, confirmed, and not over: it may have more subflows."""
        meta = self.meta
        return meta.confirmed and not meta.fallback and meta.ended is None

    def signal(self, subflow: Subflow, option: bytes) -> bool:
        """Queue an option for a pure ACK of `subflow`."""
        waiting = subflow.controls
        if option in waiting or len(waiting) >= self.meta.config.max_waiting_signals:
            return False
        waiting.append(option)
        self.stack.mark_ready(subflow)
        return True

    def on_add_addr(self, subflow: Subflow, option: AddAddr, now: int) -> None:
        """RFC 8684 §3.4.1: verify, echo, tell the path manager."""
        counters = self.stack.counters
        if option.echo:
            counters["MPTcpExtEchoAdd"] += 1
            self.manager.on_echo(option.address_id, now)
            return
        meta = self.meta
        expected = keys.add_addr_hmac(
            meta.remote_key, meta.local_key, option.address_id, option.address, option.port
        )
        if option.hmac != expected:
            counters["MPTcpExtAddAddrHMacFailure"] += 1
            return  # RFC 8684 §3.4.1: silently ignored
        counters["MPTcpExtAddAddr"] += 1
        if option.port is not None:
            counters["MPTcpExtPortAdd"] += 1
        if not self._takes(option):
            counters["MPTcpExtAddAddrDrop"] += 1
            return
        echo = AddAddr(option.address_id, option.address, option.port, None, True).emit()
        sent = self.signal(subflow, echo)
        counters["MPTcpExtEchoAddTx" if sent else "MPTcpExtEchoAddTxDrop"] += 1
        self.accepted.add(option.address_id)
        if self.stack.monitors:
            tell_announced(meta, option.address_id, option.address, option.port)
        # RFC 8684 §3.4.1: without a port it is that of the subflow that brought the option.
        port = option.port if option.port is not None else subflow.remote_port
        self.manager.on_add_addr(option.address_id, option.address, port, now)
        self.stack.rearm(meta)

    def _takes(self, option: AddAddr) -> bool:
        """Whether an announced address is one host's, not ours, and there is room for it.

        Address 0 is the first subflow's own, which may change its port (RFC 8684 §3.4.1).
        """
        if option.address in self.stack.book.owner or not can_be_source(option.address):
            return False
        number = option.address_id
        known = not number or number in self.accepted
        return known or len(self.accepted - {0}) < self.meta.config.max_addresses

    def on_remove_addr(self, option: RemoveAddr, now: int) -> None:
        """RFC 8684 §3.4.2: the peer has lost addresses; unknown ones are ignored."""
        meta = self.meta
        self.stack.counters["MPTcpExtRmAddr"] += len(option.address_ids)
        self.accepted.difference_update(option.address_ids)
        for address_id in option.address_ids:
            if self.stack.monitors:
                tell_removed(meta, address_id)
            indices = [p.index for p in self.manager.table() if p.remote_id == address_id]
            self.manager.on_remove_addr(address_id, now)
            for subflow in list(meta.subflows):
                if subflow.remote_id == address_id or subflow.path_index in indices:
                    self.removal.ask(subflow, now)
        self.stack.rearm(meta)

    def on_local_addresses(self, now: int) -> None:
        """The stack's interfaces have changed."""
        if self.active:
            self.manager.on_local_addresses(now)
            self.stack.rearm(self.meta)

    def next_deadline(self) -> int:
        """The path manager's, the heuristics', or that of a path that is being asked."""
        if not self.active:
            return NEVER
        upkeep = self.meta.upkeep.deadline
        return min(self.manager.next_deadline(), self.removal.deadline, upkeep)

    def handle_timeout(self, now: int) -> None:
        """Let the path manager work if it is due."""
        if now >= self.removal.deadline:
            self.removal.handle_timeout(now)
        if self.active and now >= self.manager.next_deadline():
            self.manager.handle_timeout(now)
        if self.active and now >= self.meta.upkeep.deadline:
            self.meta.upkeep.handle_timeout(now)
