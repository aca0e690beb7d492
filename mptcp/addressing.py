"""The host's interfaces, addresses and routes: which interface a packet leaves by.

Addresses are raw bytes. A route is a prefix reachable through an interface; an interface without
routes reaches every destination of the families it has an address of.
"""

from __future__ import annotations

import ipaddress

from mptcp.errors import NoRouteError
from mptcp.tcp.host import Interface


def parse_address(address: str | bytes) -> bytes:
    """Raw form of an address given as text or already raw. Raises ValueError."""
    if isinstance(address, bytes):
        if len(address) not in (4, 16):
            raise ValueError(f"an address has 4 or 16 bytes, not {len(address)}")
        return address
    return ipaddress.ip_address(address).packed


def parse_prefix(prefix: str) -> tuple[bytes, int]:
    """`"10.1.2.3/24"` as (address bytes, prefix length); host bits are kept. Raises ValueError."""
    interface = ipaddress.ip_interface(prefix)
    return interface.ip.packed, interface.network.prefixlen


def format_address(address: bytes) -> str:
    """Text form of a raw address."""
    return str(ipaddress.ip_address(address)) if address else ""


def in_prefix(address: bytes, prefix: bytes, length: int) -> bool:
    """Whether `address` lies in `prefix`/`length` (of the same family)."""
    if len(address) != len(prefix):
        return False
    shift = len(address) * 8 - length
    return int.from_bytes(address, "big") >> shift == int.from_bytes(prefix, "big") >> shift


def can_be_source(address: bytes) -> bool:
    """RFC 1122 §3.2.1.3, §4.2.3.10: no multicast, broadcast, loopback or unspecified source."""
    if len(address) == 4:
        return address[0] not in (0, 127) and address[0] < 224
    return address[0] != 0xFF and any(address[:15])  # ff00::/8; :: and ::1


class AddressBook:
    """Interfaces by id and by owned address."""

    def __init__(self) -> None:
        self.interfaces: dict[int, Interface] = {}
        self.owner: dict[bytes, Interface] = {}
        self._ids: dict[bytes, int] = {}

    def add(self, interface: Interface) -> None:
        """An interface is up. Raises ValueError when another owns one of its addresses."""
        for address, _ in interface.addresses:
            other = self.owner.get(address)
            if other is not None and other.id != interface.id:
                raise ValueError(
                    f"{format_address(address)} is the address of {other.name} and of "
                    f"{interface.name}: give each interface its own"
                )
        self.interfaces[interface.id] = interface
        interface.up = True
        for address, _ in interface.addresses:
            self.owner[address] = interface
            self.identifier(address)

    def remove(self, interface_id: int) -> Interface | None:
        """An interface is down; its addresses stay known, so that they keep their identifiers."""
        interface = self.interfaces.pop(interface_id, None)
        if interface is not None:
            interface.up = False
            for address, _ in interface.addresses:
                self.owner.pop(address, None)
        return interface

    def identifier(self, address: bytes) -> int:
        """The MPTCP address identifier of a local address: 1..255, stable for the host's life.

        RFC 8684 §3.4.1: unique per address; 0 is the address of the first subflow, which a
        connection sees to itself.
        """
        if address not in self._ids:
            self._ids[address] = len(self._ids) % 255 + 1
        return self._ids[address]

    def usable(self) -> list[bytes]:
        """Addresses of interfaces that are up, in configuration order."""
        return list(self.owner)

    def quality(self, local: bytes, remote: bytes) -> int:
        """How `remote` is reached from `local`: 0 not, 1 by default, 2 on-link or by a route."""
        interface = self.owner.get(local)
        if interface is None or len(local) != len(remote):
            return 0
        if any(in_prefix(remote, address, n) for address, n in interface.addresses):
            return 2
        if not interface.routes:
            return 1
        lengths = [n for prefix, n in interface.routes if in_prefix(remote, prefix, n)]
        if not lengths:
            return 0
        return 2 if max(lengths) > 0 else 1

    def choose(self, remote: bytes, local: bytes | None = None) -> tuple[bytes, Interface]:
        """Source address and interface for a destination.

        Raises NoRouteError, whose text says what is missing.
        """
        if local is not None:
            owner = self.owner.get(local)
            if owner is None:
                raise NoRouteError(
                    f"{format_address(local)} is not an address of this stack: use one of "
                    + (", ".join(map(format_address, self.owner)) or "(none: no interface is up)")
                )
            if not self.quality(local, remote):
                raise NoRouteError(
                    f"no route to {format_address(remote)} through {owner.name}: add it to the "
                    "interface's routes"
                )
            return local, owner
        ranked = [(self.quality(address, remote), address) for address in self.owner]
        best = max(ranked, key=lambda item: item[0], default=(0, b""))
        if not best[0]:
            raise NoRouteError(
                f"no route to {format_address(remote)}: no interface has an address of its family "
                "and a route that covers it"
            )
        return best[1], self.owner[best[1]]
