"""What a TCP connection needs from the host it lives in, and what it gives back to send.

A connection never calls out to I/O: it tells its `Host` that it has something to send or that its
deadline moved, and is polled.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

from mptcp.config import Config

if TYPE_CHECKING:
    from mptcp.tcp.chunks import SentChunk
    from mptcp.tcp.connection import TcpConnection
    from mptcp.tcp.known_mtus import PathMtuCache
    from mptcp.tcp.memory import HostMemory
    from mptcp.wire.tcp import Segment

GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_ECN: Final = 0x80
"""Beside one of the two: CWR is on the first segment only (VIRTIO_NET_HDR_GSO_ECN)."""


class Interface:
    """One attachment of the host to a network, as the core sees it.

    `addresses` are raw bytes with prefix lengths; `routes` are the destinations reachable through
    it (empty: every destination of the families it has an address of). `backup`: peers are asked to
    use it only while no other works (RFC 8684 §3.3.8).
    """

    __slots__ = ("addresses", "backup", "id", "mtu", "name", "offload", "routes", "up")

    def __init__(
        self,
        id: int,
        name: str,
        *,
        mtu: int = 1500,
        offload: bool = False,
        addresses: list[tuple[bytes, int]] | None = None,
        routes: list[tuple[bytes, int]] | None = None,
        backup: bool = False,
    ) -> None:
        self.id = id
        self.name = name
        self.mtu = mtu
        self.offload = offload
        self.addresses = addresses or []
        self.routes = routes or []
        self.backup = backup
        self.up = True


class Transmit:
    """One packet to write: header, payload views, and what is left to the device.

    `gso_type`/`gso_size` ask the device to segment, with GSO_ECN beside the type when CWR is for
    the first segment only; when `csum_start` is not 0 the device is to complete the TCP checksum
    that starts there. The views are valid until the next call into the stack. A packet the device
    refuses is reported with `Stack.transmit_refused`.
    """

    __slots__ = (
        "chunk",
        "connection",
        "csum_start",
        "gso_size",
        "gso_type",
        "header",
        "interface",
        "payload",
    )

    def __init__(
        self,
        interface: int,
        header: bytes | bytearray,
        payload: list[memoryview],
        gso_type: int = GSO_NONE,
        gso_size: int = 0,
        csum_start: int = 0,
        connection: TcpConnection | None = None,
        chunk: SentChunk | None = None,
    ) -> None:
        self.interface = interface
        self.header = header
        self.payload = payload
        self.gso_type = gso_type
        self.gso_size = gso_size
        self.csum_start = csum_start
        self.connection = connection
        self.chunk = chunk

    @property
    def csum_offset(self) -> int:
        """Where the TCP checksum field lies after `csum_start` (RFC 9293 §3.1)."""
        return 16

    def packet(self) -> bytes:
        """Header and payload in one piece (tests, captures, the simulator)."""
        return b"".join([self.header, *self.payload])


class Host(Protocol):
    """The services of `stack.Stack` that a connection uses."""

    config: Config
    counters: Counter[str]
    memory: HostMemory
    now: int
    path_mtus: PathMtuCache

    def mark_ready(self, connection: TcpConnection) -> None:
        """The connection may have something to transmit: poll it."""

    def rearm(self, connection: TcpConnection) -> None:
        """The connection's `next_deadline()` may have become earlier."""

    def forget(self, connection: TcpConnection) -> None:
        """The connection is CLOSED: drop it from the demultiplexer."""

    def enter_time_wait(self, connection: TcpConnection) -> None:
        """The connection is in TIME-WAIT (their number is bounded)."""

    def allow_challenge_ack(self, now: int) -> bool:
        """RFC 5961 §7: whether one more challenge ACK may be sent."""

    def reset_for(self, seg: Segment, options: bytes = b"") -> None:
        """Answer `seg` with the RST of RFC 9293 §3.10.7.1, carrying `options`."""
