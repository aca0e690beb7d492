"""The kernel's side of an interface: MTU, addresses, queue length, up; and taking it all back.

All of it acts on the network namespace of the calling thread. What was there before is never
removed: `Configured` remembers what `configure_interface` changed and `remove()` undoes that and
only that. Nor is it disturbed: `check_addresses_free` refuses addresses that the kernel already
uses or routes elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from .device import DeviceError, in_user_namespace
from .linux import in_namespace, in_thread, open_current_namespace

IFA_F_NODAD: Final = 0x02
_IFF_UP: Final = 0x01
_SETTING: Final = re.compile(r"[A-Za-z0-9_./-]+")

# The kernel's side of a point-to-point device has nobody to ask or to announce itself to: no
# duplicate address detection, no router solicitations, no link-local address of its own
# (addr_gen_mode none).
_QUIET_IPV6: Final = (("accept_dad", "0"), ("router_solicitations", "0"), ("addr_gen_mode", "1"))

Address = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def kernel_side_address(stack_address: str) -> str:
    """The kernel's address, with its prefix, on the device whose other side is `stack_address`.

    It is the lowest other host address of the subnet: "10.9.1.2/24" gives "10.9.1.1/24". Never the
    network or broadcast address of IPv4 (a /31 has neither, RFC 3021) and never the subnet-router
    anycast address of IPv6 (RFC 4291 §2.6.1; a /127 has none, RFC 6164).
    Raises ValueError when the text is no address with a prefix, or the subnet has no room.
    """
    if "/" not in stack_address:
        raise ValueError(f"address {stack_address!r} lacks its prefix: write e.g. 10.9.1.2/24")
    own = ipaddress.ip_interface(stack_address)
    network = own.network
    first, last = int(network.network_address), int(network.broadcast_address)
    if network.num_addresses > 2:
        first += 1  # network address, or subnet-router anycast
        last -= own.version == 4
    elif network.num_addresses == 1:
        raise ValueError(f"{stack_address} has no room for the kernel's side: shorten the prefix")
    if not first <= int(own.ip) <= last:
        raise ValueError(f"{own.ip} is no host address of {network}: choose another one")
    lowest = first + 1 if int(own.ip) == first else first
    # Counted in the network's own family: a small IPv6 number would turn into an IPv4 address.
    return f"{type(own.ip)(lowest)}/{network.prefixlen}"


def check_stack_address(stack_address: str) -> None:
    """Raise ValueError unless `stack_address`, "ip/prefix", is one that packets can carry here.

    The kernel drops what comes from a loopback, multicast or unspecified address (RFC 1122
    §3.2.1.3, RFC 4291 §2.5.2, §2.5.3, §2.7), and would answer the first by itself.
    """
    own = ipaddress.ip_interface(stack_address).ip
    for kind, found in (
        ("a loopback", own.is_loopback),
        ("a multicast", own.is_multicast),
        ("the unspecified", own.is_unspecified),
    ):
        if found:
            raise ValueError(f"{stack_address} is {kind} address: choose another one")


def check_addresses_free(name: str, addresses: Iterable[str]) -> None:
    """Raise DeviceError(EADDRINUSE) when the kernel has other uses for one of `addresses`.

    `addresses` ("ip/prefix") are those of a stack behind the interface `name`, which need not exist
    yet. None may be an address of the kernel's own in the calling thread's namespace, nor may its
    subnet overlap one on another interface: the kernel would keep the packets, or send them the
    other way. Link-local subnets are on every link and overlap nothing. Also works inside a running
    event loop. Raises ValueError for a malformed address.
    """
    in_thread(_check_addresses_free, name, [ipaddress.ip_interface(text) for text in addresses])


def _check_addresses_free(name: str, addresses: list[Address]) -> None:
    with IPRoute() as netlink:
        devices = {link["index"]: link.get_attr("IFLA_IFNAME") for link in netlink.get_links()}
        for message in netlink.get_addr():
            subnet = message.get_attr("IFA_ADDRESS")  # the peer's, on a point-to-point link
            if subnet is None:
                continue
            local = message.get_attr("IFA_LOCAL") or subnet
            length = message["prefixlen"]
            device = devices.get(message["index"], "a new interface")
            for own in addresses:
                same = own.ip == ipaddress.ip_address(local)
                if device == name:
                    if same:
                        raise DeviceError(
                            errno.EADDRINUSE,
                            f"{own} is the kernel's own address on {name}: choose another one",
                        )
                elif _overlap(own, ipaddress.ip_interface(f"{subnet}/{length}")) or (
                    same and not _on_every_link(own)
                ):
                    raise DeviceError(
                        errno.EADDRINUSE,
                        f"{own} ({name}) overlaps {local}/{length} on {device}: "
                        "choose a subnet of its own",
                    )


def _on_every_link(address: Address) -> bool:
    return address.version == 6 and address.is_link_local  # RFC 4007 §5: unique on its link only


def _overlap(one: Address, other: Address) -> bool:
    return (
        one.version == other.version
        and not (one.is_link_local or other.is_link_local)
        and one.network.overlaps(other.network)
    )


def read_setting(name: str) -> str:
    """The sysctl `name` ("net.ipv4.ip_forward", or with slashes) of the thread's namespace."""
    return _setting_path(name).read_text(encoding="ascii").strip()


def write_setting(name: str, value: str) -> None:
    """Set the sysctl `name` in the thread's namespace. Raises OSError."""
    _setting_path(name).write_text(value, encoding="ascii")


def _setting_path(name: str) -> Path:
    # With slashes, an interface's name may hold dots ("net/ipv4/conf/eth0.5/forwarding").
    path = name if "/" in name else name.replace(".", "/")
    if _SETTING.fullmatch(path) is None or ".." in path.split("/"):
        raise ValueError(f"bad sysctl name {name!r}")
    return Path("/proc/sys") / path


@contextlib.contextmanager
def netlink_errors(what: str) -> Iterator[None]:
    """Turn pyroute2's errors into a DeviceError that says what was tried."""
    try:
        yield
    except NetlinkError as error:
        code = error.code or errno.EINVAL
        reason = os.strerror(code)
        if code in (errno.EPERM, errno.EACCES):
            reason = "no right: run as root, or with the capability NET_ADMIN"
            if not in_user_namespace():
                reason += ", or in a user namespace (unshare -Urn)"
        raise DeviceError(code, f"{what}: {reason}") from error


def link_index(netlink: IPRoute, name: str) -> int:
    """The index of the interface `name`. Raises DeviceError(ENODEV)."""
    found = netlink.link_lookup(ifname=name)
    if not found:
        raise DeviceError(errno.ENODEV, f"there is no interface '{name}'")
    return int(found[0])


def add_addresses(netlink: IPRoute, index: int, addresses: Iterable[str]) -> list[Address]:
    """Add "ip/prefix" addresses without duplicate address detection; returns those that are new."""
    added = []
    for text in addresses:
        address = ipaddress.ip_interface(text)
        options: dict[str, Any] = {"flags": IFA_F_NODAD} if address.version == 6 else {}
        with netlink_errors(f"address {text} cannot be added"):
            try:
                netlink.addr(
                    "add",
                    index=index,
                    address=str(address.ip),
                    prefixlen=address.network.prefixlen,
                    **options,
                )
            except NetlinkError as error:
                if error.code == errno.EEXIST:
                    continue
                raise
        added.append(address)
    return added


class Configured:
    """What `configure_interface` changed on one interface."""

    def __init__(self, name: str) -> None:
        self.name = name
        # The namespace it happened in; held open so that remove() finds it from any thread.
        self._namespace = open_current_namespace()
        self._addresses: list[Address] = []
        self._settings: list[tuple[str, str]] = []
        self._link: dict[str, Any] = {}

    def apply(
        self, mtu: int | None, addresses: list[str], up: bool, txqueuelen: int | None
    ) -> None:
        """Make the changes, remembering the state before each. Raises DeviceError."""
        with IPRoute() as netlink:
            index = link_index(netlink, self.name)
            before = netlink.get_links(index)[0]
            self._quieten_ipv6()
            wanted: dict[str, Any] = {}
            if mtu is not None and before.get_attr("IFLA_MTU") != mtu:
                wanted["mtu"] = mtu
                self._link["mtu"] = before.get_attr("IFLA_MTU")
            if txqueuelen is not None and before.get_attr("IFLA_TXQLEN") != txqueuelen:
                wanted["txqlen"] = txqueuelen
                self._link["txqlen"] = before.get_attr("IFLA_TXQLEN")
            if up and not before["flags"] & _IFF_UP:
                wanted["state"] = "up"
                self._link["state"] = "down"
            if wanted:
                with netlink_errors(f"interface '{self.name}' cannot be set up"):
                    netlink.link("set", index=index, **wanted)
            for text in addresses:  # one by one, so that a failure half way can be undone
                self._addresses += add_addresses(netlink, index, [text])

    def _quieten_ipv6(self) -> None:
        for key, value in _QUIET_IPV6:
            name = f"net/ipv6/conf/{self.name}/{key}"
            try:
                before = read_setting(name)
                if before != value:
                    write_setting(name, value)
                    self._settings.append((name, before))
            except OSError:
                # A kernel without IPv6, or /proc/sys mounted read-only as in a container: the
                # interface then sends a few packets of its own, which the other side ignores.
                continue

    def remove(self) -> None:
        """Undo everything; quietly nothing where the interface has gone. May be called twice."""
        if self._namespace < 0:
            return
        try:
            in_namespace(self._namespace, self._undo)
        finally:
            os.close(self._namespace)
            self._namespace = -1

    def _undo(self) -> None:
        with IPRoute() as netlink:
            found = netlink.link_lookup(ifname=self.name)
            if not found:
                return
            for address in self._addresses:
                with contextlib.suppress(NetlinkError):  # somebody else was faster
                    netlink.addr(
                        "del",
                        index=found[0],
                        address=str(address.ip),
                        prefixlen=address.network.prefixlen,
                    )
            if self._link:
                with netlink_errors(f"interface '{self.name}' cannot be put back"):
                    netlink.link("set", index=found[0], **self._link)
        for name, before in self._settings:
            with contextlib.suppress(OSError):
                write_setting(name, before)


def configure_interface(
    name: str,
    *,
    mtu: int | None = None,
    addresses: Iterable[str] = (),
    up: bool = True,
    txqueuelen: int | None = None,
) -> Configured:
    """Set up the kernel's side of the interface `name` in the calling thread's namespace.

    `mtu` in bytes, `addresses` as "ip/prefix", `txqueuelen` in packets (of a TUN: how many packets
    may wait to be read); None leaves a value alone. Also works inside a running event loop.
    Raises DeviceError, having undone what was done; ValueError for a malformed address.
    """
    wanted = list(addresses)
    for text in wanted:
        ipaddress.ip_interface(text)
    configured = Configured(name)
    try:
        in_thread(configured.apply, mtu, wanted, up, txqueuelen)
    except BaseException:
        configured.remove()
        raise
    return configured
