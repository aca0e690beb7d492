"""Backup subflows that we ask the peer for: the B flag of MP_JOIN, and MP_PRIO (RFC 8684 §3.3.8).

What is asked for concerns what the peer sends: it is to use such a subflow only while no other
works. How we send is the peer's to ask, and the scheduler's to do. An address may be a backup by
its interface (`Interface.backup`), and the application may say otherwise for a connection
(`connection.options.backup`), before its subflow exists or while it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp.addressing import parse_address
from mptcp.tcp.host import Interface
from mptcp.wire.mptcp_options import MpPrio

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket


class Priorities:
    """What the application has asked for, by local address; one object per connection."""

    __slots__ = ("_asked", "_meta")

    def __init__(self, meta: MetaSocket) -> None:
        self._meta = meta
        self._asked: dict[bytes, bool] = {}

    def wanted(self, local: bytes, interface: Interface) -> bool:
        """Whether a subflow from `local` is to be a backup: the B flag of its MP_JOIN."""
        return self._asked.get(local, interface.backup)

    def on_confirmed(self) -> None:
        """The first subflow works: MP_CAPABLE has no B flag, so MP_PRIO says it."""
        for subflow in self._meta.subflows:
            if self.wanted(subflow.local, subflow.interface):
                self.ask(subflow.local, True)

    def ask(self, address: str | bytes, backup: bool) -> None:
        """Note it, and tell the peer on each subflow from that address (MP_PRIO, on itself).

        Raises ValueError for what is no address.
        """
        local = parse_address(address)
        self._asked[local] = backup
        meta = self._meta
        for subflow in meta.subflows:
            if subflow.local == local and subflow.usable and subflow.backup_request != backup:
                subflow.backup_request = backup
                if meta.paths.signal(subflow, MpPrio(backup).emit()):
                    meta.stack.counters["MPTcpExtMPPrioTx"] += 1
