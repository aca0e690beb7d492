"""What an engine's interfaces are: their description, their devices, and how the two come together.

An `Interface` is a description only. A `DeviceFactory` turns one into an `Attachment`: a device to
read and write, and the way to undo the set-up. `open_tun` is the factory of the real world; tests
and experiments may pass their own, which is all that keeps an engine from needing rights.

Invariant: whatever `open_tun` created or changed is gone after `Attachment.close()`; a device and
an address that were there before stay.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Final, Protocol

from mptcp.addressing import parse_prefix
from mptcp.stack import Offload
from mptcp.tcp.host import Interface as CoreInterface
from mptcp.tun.device import (
    F_DATA_VALID,
    F_NEEDS_CSUM,
    GSO_ECN,
    MAX_MTU,
    MIN_MTU,
    VNET_HDR,
    BytesLike,
    DeviceError,
    TunDevice,
    check_name,
)
from mptcp.tun.interface import (
    check_addresses_free,
    check_stack_address,
    configure_interface,
    kernel_side_address,
)

CACHE_LIMIT: Final = 4096
"""Entries of a cache that packets fill; then it starts anew."""
QUEUE_PACKETS: Final = 2048
"""What may wait in the kernel to be read: a tenth of a second of 20,000 forged SYNs a second, for
those who mean it wait in the same queue. A TUN's default is 500."""
TCP_CHECKSUM_OFFSET: Final = 16
"""Of the checksum in the TCP header (RFC 9293 §3.1)."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One attachment of the engine to a network: a TUN device and the addresses behind it.

    `address` is the stack's own, "ip/prefix", or a list of them; the kernel's side of the device
    gets the lowest other host address of each subnet. `mtu` in bytes (68 to 65535). `routes` are
    the prefixes reachable through it; None means every destination of the families it has an
    address of. Raises ValueError, in one line, for what cannot work.
    """

    name: str
    address: str | Sequence[str]
    _: KW_ONLY
    mtu: int = 1500
    offload: bool = True
    routes: Sequence[str] | None = None
    backup: bool = False
    """Ask peers to send by it only while no other subflow works (RFC 8684 §3.3.8)."""

    def __post_init__(self) -> None:
        try:
            check_name(self.name)
        except DeviceError as error:
            raise ValueError(str(error)) from None
        if not MIN_MTU <= self.mtu <= MAX_MTU:
            raise ValueError(
                f"interface {self.name}: MTU {self.mtu} is not in {MIN_MTU}..{MAX_MTU}"
            )
        if not self.addresses:
            raise ValueError(f"interface {self.name} has no address: give it one, ip/prefix")
        seen: set[bytes] = set()
        for text in self.addresses:
            try:
                check_stack_address(text)
                kernel_side_address(text)
                raw, _ = parse_prefix(text)
            except ValueError as error:
                raise ValueError(f"interface {self.name}: {error}") from None
            if raw in seen:
                raise ValueError(f"interface {self.name}: {text} is given twice")
            seen.add(raw)
        for route in self.routes or ():
            try:
                parse_prefix(route)
            except ValueError as error:
                raise ValueError(f"interface {self.name}: route {error}") from None

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses, as a tuple also when there is only one."""
        return (self.address,) if isinstance(self.address, str) else tuple(self.address)

    def for_stack(self, number: int, device: Device) -> CoreInterface:
        """The same as the core wants it; MTU and offload are what the device really has."""
        return CoreInterface(
            number,
            self.name,
            mtu=device.mtu,
            offload=device.offload,
            addresses=[parse_prefix(text) for text in self.addresses],
            routes=[parse_prefix(text) for text in self.routes or ()],
            backup=self.backup,
        )


class Device(Protocol):
    """What the engine needs of a device; `mptcp.tun.device.TunDevice` is one."""

    mtu: int
    offload: bool

    def fileno(self) -> int:
        """Readable when `read()` has something."""

    def read(self) -> bytes | None:
        """The next packet behind its virtio_net_hdr, None when there is none now.

        Raises DeviceError when the device has gone.
        """

    def write(self, vnet_header: BytesLike, parts: Sequence[BytesLike]) -> bool:
        """Send one packet; False when it was refused. Raises DeviceError as `read()`."""

    def close(self) -> None:
        """Let the device go. May be called twice."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """An open device, and how to take back what was set up around it."""

    device: Device
    undo: Callable[[], None]

    def close(self) -> None:
        """Undo the set-up and close the device, the second even when the first fails."""
        try:
            # Before the device closes: what it had before us must be put back while it exists.
            with contextlib.suppress(DeviceError):
                self.undo()
        finally:
            self.device.close()


DeviceFactory = Callable[[Interface], Attachment]


def open_tun(interface: Interface) -> Attachment:
    """Open (or create) the TUN device, give the kernel its side's addresses, bring it up.

    Acts on the network namespace of the calling thread. Raises DeviceError in one line, also when
    the kernel uses one of the addresses or routes its subnet elsewhere.
    """
    check_addresses_free(interface.name, interface.addresses)
    device = TunDevice(interface.name, mtu=interface.mtu, offload=interface.offload)
    try:
        configured = configure_interface(
            interface.name,
            addresses=[kernel_side_address(text) for text in interface.addresses],
            txqueuelen=QUEUE_PACKETS,
        )
    except BaseException:
        device.close()
        raise
    return Attachment(device, configured.remove)


class Offloads(dict[bytes, Offload]):
    """What each virtio_net_hdr says to the stack; the few there are come again and again."""

    def __missing__(self, header: bytes) -> Offload:
        flags, gso_type, _, gso_size, _, _ = VNET_HDR.unpack(header)
        if len(self) >= CACHE_LIMIT:
            self.clear()
        self[header] = offload = Offload(
            bool(flags & (F_NEEDS_CSUM | F_DATA_VALID)),
            gso_size if gso_type & ~GSO_ECN else 0,
            bool(gso_type & GSO_ECN),
        )
        return offload


class VnetHeaders(dict[tuple[int, int, int, int], bytes]):
    """The virtio_net_hdr with which the kernel finishes a packet.

    By header length, gso_type, gso_size and csum_start, as in a `Transmit`.
    """

    def __missing__(self, key: tuple[int, int, int, int]) -> bytes:
        length, gso_type, gso_size, csum_start = key
        if len(self) >= CACHE_LIMIT:
            self.clear()
        self[key] = header = VNET_HDR.pack(
            F_NEEDS_CSUM, gso_type, length, gso_size, csum_start, TCP_CHECKSUM_OFFSET
        )
        return header


class Port:
    """An interface of a running engine."""

    __slots__ = ("attachment", "core", "description", "device", "number")

    def __init__(self, number: int, description: Interface, attachment: Attachment) -> None:
        self.number = number
        """The interface id by which the stack knows it."""
        self.description = description
        self.attachment = attachment
        self.device = attachment.device
        self.core = description.for_stack(number, attachment.device)
