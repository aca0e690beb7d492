"""TUN devices with the kernel's checksum and segmentation offload.

A packet travels with the 10-byte virtio_net_hdr in front of it (IFF_VNET_HDR): reading brings TCP
chunks of up to 64 KiB that the kernel has not cut into segments yet, and one write of such a chunk
is cut by the kernel. `offload=False` keeps the header but has the kernel deliver finished packets
of at most the MTU; a system that knows no such header still works, only without offload.

A TunDevice owns one file descriptor and nothing else. A device that did not exist before goes with
its descriptor; one that existed is left as it was found. Addresses and the like are
`interface.py`'s.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import struct
from collections.abc import Sequence
from typing import Final, cast

import pytun

from .closing import Closing

VNET_HDR_LEN: Final = 10
# flags, gso_type, hdr_len, gso_size, csum_start, csum_offset; in the machine's byte order.
VNET_HDR: Final = struct.Struct("=BBHHHH")
VNET_HDR_NONE: Final = bytes(VNET_HDR_LEN)

VIRTIO_NET_HDR_F_NEEDS_CSUM: Final = 1
VIRTIO_NET_HDR_F_DATA_VALID: Final = 2
VIRTIO_NET_HDR_GSO_NONE: Final = 0
VIRTIO_NET_HDR_GSO_TCPV4: Final = 1
VIRTIO_NET_HDR_GSO_TCPV6: Final = 4
VIRTIO_NET_HDR_GSO_ECN: Final = 0x80

# The same under the short names that read well in the packet loops.
F_NEEDS_CSUM: Final = VIRTIO_NET_HDR_F_NEEDS_CSUM
F_DATA_VALID: Final = VIRTIO_NET_HDR_F_DATA_VALID
GSO_NONE: Final = VIRTIO_NET_HDR_GSO_NONE
GSO_TCPV4: Final = VIRTIO_NET_HDR_GSO_TCPV4
GSO_TCPV6: Final = VIRTIO_NET_HDR_GSO_TCPV6
GSO_ECN: Final = VIRTIO_NET_HDR_GSO_ECN

MIN_MTU: Final = 68  # RFC 791 §3.2: every module forwards 68 octets; also Linux's lower bound
MAX_MTU: Final = 65_535

_TUNSETOFFLOAD: Final = 0x4004_54D0
_TUN_F_CSUM: Final = 0x01
_TUN_F_TSO4: Final = 0x02
_TUN_F_TSO6: Final = 0x04
_TUN_F_TSO_ECN: Final = 0x08
_ALL_OFFLOADS: Final = _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6 | _TUN_F_TSO_ECN

# The largest IP packet with its header in front; a little more so that nothing is ever cut
# silently.
_READ_SIZE: Final = VNET_HDR_LEN + 65_536 + 54
_IFNAMSIZ: Final = 16
_BAD_NAME: Final = re.compile(r"[/:\s\x00]|%(?!d)")
# Refused writes that say nothing about the next one: full queue, no memory, device down, bad
# header.
_REFUSALS: Final = frozenset((errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EIO, errno.EINVAL))

BytesLike = bytes | bytearray | memoryview


class DeviceError(OSError):
    """A device cannot be opened or set up: one line that says what is wrong and how to mend it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.text = text

    def __str__(self) -> str:
        return self.text


def describe_open_failure(code: int, name: str, reason: str = "") -> str:
    """The line for a TUN device `name` that could not be opened with errno `code`."""
    if code in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return (
            "/dev/net/tun is missing: load the driver (modprobe tun), "
            "or give the container the device (--device /dev/net/tun)"
        )
    if code == errno.EACCES:  # of the file: TUNSETIFF itself says EPERM
        return (
            f"no right to open TUN device '{name}': /dev/net/tun may not be opened by this user: "
            "run as root, or have root run chmod 666 /dev/net/tun"
        )
    if code == errno.EPERM:
        # Inside a user namespace one has every right but over the networks outside of it.
        space = "in a network namespace of its own (unshare -n)"
        if not in_user_namespace():
            space = "inside a user namespace (unshare -Urn)"
        return (
            f"no right to open TUN device '{name}': run as root, add the capability NET_ADMIN "
            f"(--cap-add NET_ADMIN), or start {space}"
        )
    if code == errno.EBUSY:
        return f"TUN device '{name}' is in use by another program: stop it, or choose another name"
    if code == errno.EINVAL:
        return f"'{name}' exists and is no single-queue TUN device: choose another name"
    return f"TUN device '{name}' cannot be opened: {reason or os.strerror(code)}"


def in_user_namespace() -> bool:
    """Whether this process lives in a user namespace other than the machine's own."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as lines:
            return [line.split() for line in lines] != [["0", "0", "4294967295"]]
    except OSError:  # a kernel without user namespaces
        return False


def check_name(name: str) -> None:
    """Raise DeviceError(EINVAL) unless Linux would take `name` for an interface."""
    if (
        not name
        or len(name.encode()) >= _IFNAMSIZ
        or name in (".", "..")
        or _BAD_NAME.search(name) is not None
    ):
        raise DeviceError(
            errno.EINVAL,
            f"bad device name {name!r}: use 1 to {_IFNAMSIZ - 1} bytes without '/', ':' or spaces",
        )


def interface_exists(name: str) -> bool:
    """Whether the calling thread's network namespace has an interface `name`."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


class TunDevice(Closing):
    """One TUN device, non-blocking: whole packets in and out, each behind a virtio_net_hdr."""

    __slots__ = (
        "_descriptor",
        "_device",
        "created",
        "mtu",
        "name",
        "offload",
        "refusals",
        "vnet_header",
    )

    def __init__(
        self,
        name: str | None,
        *,
        mtu: int = 1500,
        offload: bool = True,
        vnet_header: bool = True,
    ) -> None:
        """Create the device, or attach to an existing one, in the calling thread's namespace.

        `name` None lets the kernel choose (tun0, tun1, …). `mtu` (68 to 65535 bytes) is set on a
        device created here; an existing one keeps its own, and the smaller of both counts.
        `vnet_header=False` asks for a device without the header, which has no offload.
        Raises DeviceError.
        """
        if name is not None:
            check_name(name)
        if not MIN_MTU <= mtu <= MAX_MTU:
            raise DeviceError(errno.EINVAL, f"bad MTU {mtu}: choose {MIN_MTU} to {MAX_MTU} bytes")
        existed = name is not None and interface_exists(name)
        # What a write was refused with, errno -> how often; the packets count as lost.
        self.refusals: dict[int, int] = {}
        self._device, self.vnet_header = _open(name, existed, vnet_header)
        try:
            self._descriptor: int = self._device.fileno()
            os.set_blocking(self._descriptor, False)
            self.name: str = self._device.name
            # The device did not exist before, and goes when this descriptor is closed.
            self.created = not existed
            self.mtu = self._adopt_mtu(mtu)
            self.offload = self._set_offload(offload and self.vnet_header)
        except BaseException:
            self._device.close()
            raise

    def _adopt_mtu(self, mtu: int) -> int:
        present = cast("int", self._device.mtu)
        if not self.created:
            return min(mtu, present)
        if present != mtu:
            try:
                self._device.mtu = mtu
            except OSError as error:
                code = error.errno or errno.EINVAL
                raise DeviceError(
                    code, f"MTU {mtu} refused by '{self.name}': {os.strerror(code)}"
                ) from error
        return mtu

    def _set_offload(self, wanted: bool) -> bool:
        """Tell the kernel what we take; True when it hands us unfinished, uncut packets."""
        try:
            fcntl.ioctl(self._descriptor, _TUNSETOFFLOAD, _ALL_OFFLOADS if wanted else 0)
        except OSError:
            # A kernel that cannot give offload delivers finished packets, which is all we need.
            return False
        return wanted

    def fileno(self) -> int:
        """The descriptor, for epoll or an event loop; -1 once closed."""
        return self._descriptor

    @property
    def refused(self) -> int:
        """How many writes the kernel refused."""
        return sum(self.refusals.values())

    def read(self) -> bytes | None:
        """The next packet behind its 10-byte header, or None when there is none at the moment.

        The result is exactly as large as the packet: CPython gives the rest of the read buffer
        back.
        Raises DeviceError when the device has gone.
        """
        try:
            packet = os.read(self._descriptor, _READ_SIZE)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._gone(error) from error
        return packet if self.vnet_header else VNET_HDR_NONE + packet

    def write(self, vnet_header: BytesLike, parts: Sequence[BytesLike]) -> bool:
        """Hand the kernel one packet, its bytes in `parts`; False when it was refused and counted.

        Raises DeviceError when the device has gone.
        """
        try:
            if self.vnet_header:
                os.writev(self._descriptor, (vnet_header, *parts))
            elif vnet_header == VNET_HDR_NONE:
                os.writev(self._descriptor, parts)
            else:  # an unfinished packet, on a system that cannot finish it
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        except OSError as error:
            code = error.errno or 0
            if code not in _REFUSALS:
                raise self._gone(error) from error
            self.refusals[code] = self.refusals.get(code, 0) + 1
            return False
        return True

    def _gone(self, error: OSError) -> DeviceError:
        code = error.errno or errno.EBADF
        if self._descriptor < 0:
            return DeviceError(code, f"TUN device '{self.name}' is closed")
        return DeviceError(code, f"TUN device '{self.name}' has gone: was the interface deleted?")

    def detach(self) -> int:
        """Give the descriptor to the caller, who closes it; this object is closed afterwards."""
        descriptor = os.dup(self._descriptor)
        self.close()
        return descriptor

    def close(self) -> None:
        """Close the descriptor (a device created here vanishes with it). May be called twice."""
        if self._descriptor >= 0:
            self._descriptor = -1
            self._device.close()


def _open(name: str | None, existed: bool, vnet_header: bool) -> tuple[pytun.TunTapDevice, bool]:
    """The open device, and whether it has the vnet header: a system may know none."""
    flags = pytun.IFF_TUN | pytun.IFF_NO_PI
    if vnet_header:
        # EINVAL on a new name can only mean an unknown flag; on an old name it is another kind of
        # device, and the second try gives the same answer.
        with contextlib.suppress(_VnetUnknown):
            return _open_flags(name, flags | pytun.IFF_VNET_HDR, not existed), True
    return _open_flags(name, flags, False), False


class _VnetUnknown(Exception):
    """The system knows TUN but not IFF_VNET_HDR."""


def _open_flags(name: str | None, flags: int, new: bool) -> pytun.TunTapDevice:
    try:
        return pytun.TunTapDevice(name=name or "", flags=flags)
    except OSError as error:
        code = error.errno or errno.EINVAL
        if code == errno.EINVAL and new and flags & pytun.IFF_VNET_HDR:
            raise _VnetUnknown from error
        text = describe_open_failure(code, name or "tun", error.strerror or str(error))
        raise DeviceError(code, text) from error
