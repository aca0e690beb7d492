"""Links, addresses, routes, rules, counters and MPTCP endpoints, in the calling thread's namespace.

Thin functions over pyroute2 with one kind of error, DeviceError. pyroute2's synchronous calls are
refused inside a running event loop, so these are called from a thread of their own
(`Namespace.call`).
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Any, Final

from pyroute2 import MPTCP, IPRoute

from .interface import add_addresses, link_index, netlink_errors

MPTCP_ENDPOINT_FLAGS: Final = {
    "signal": 0x01,
    "subflow": 0x02,
    "backup": 0x04,
    "fullmesh": 0x08,
    "implicit": 0x10,
    "laminar": 0x20,
}
_RT_TABLE_MAIN: Final = 254
_FAMILY: Final = {4: 2, 6: 10}  # IP version -> AF_INET, AF_INET6


def add_veth(name: str, peer: str, peer_namespace: int, mtu: int) -> None:
    """A veth pair: `name` here, `peer` in the namespace with the descriptor `peer_namespace`."""
    with IPRoute() as netlink, netlink_errors(f"veth pair '{name}'-'{peer}' cannot be made"):
        netlink.link(
            "add",
            ifname=name,
            kind="veth",
            mtu=mtu,
            peer={"ifname": peer, "net_ns_fd": peer_namespace, "mtu": mtu},
        )


def set_link(name: str, **changes: Any) -> None:
    """pyroute2's `link("set", …)` by name."""
    with IPRoute() as netlink, netlink_errors(f"interface '{name}' cannot be changed"):
        netlink.link("set", index=link_index(netlink, name), **changes)


def delete_link(name: str) -> None:
    """Delete the interface `name`."""
    with IPRoute() as netlink, netlink_errors(f"interface '{name}' cannot be deleted"):
        netlink.link("del", index=link_index(netlink, name))


def add_link_addresses(name: str, addresses: list[str]) -> None:
    """Add "ip/prefix" addresses to the interface `name`."""
    with IPRoute() as netlink:
        add_addresses(netlink, link_index(netlink, name), addresses)


def delete_link_address(name: str, text: str) -> None:
    """Take the address "ip/prefix" from the interface `name`."""
    address = ipaddress.ip_interface(text)
    with IPRoute() as netlink, netlink_errors(f"address {text} cannot be removed"):
        netlink.addr(
            "del",
            index=link_index(netlink, name),
            address=str(address.ip),
            prefixlen=address.network.prefixlen,
        )


def add_route(
    prefix: str,
    *,
    via: str | None,
    device: str | None,
    source: str | None,
    table: int | None,
    metric: int | None,
) -> None:
    """Add one route; `prefix` is "default" (IPv4), "default6" or "net/len"."""
    if prefix in ("default", "default6"):
        prefix = "0.0.0.0/0" if prefix == "default" else "::/0"
    network = ipaddress.ip_network(prefix)
    options: dict[str, Any] = {"table": _RT_TABLE_MAIN if table is None else table}
    if via is not None:
        options["gateway"] = via
    if source is not None:
        options["prefsrc"] = source
    if metric is not None:
        options["priority"] = metric
    with IPRoute() as netlink, netlink_errors(f"route to {prefix} cannot be added"):
        if device is not None:
            options["oif"] = link_index(netlink, device)
        netlink.route("add", dst=str(network), family=_FAMILY[network.version], **options)


def add_blackhole(prefix: str) -> None:
    """Packets to `prefix` ("net/len") are dropped without a word."""
    network = ipaddress.ip_network(prefix)
    with IPRoute() as netlink, netlink_errors(f"black hole {prefix} cannot be added"):
        netlink.route("add", dst=str(network), family=_FAMILY[network.version], type="blackhole")


def add_source_rule(source: str, table: int, priority: int | None) -> None:
    """Packets from `source` are routed by `table`."""
    network = ipaddress.ip_network(source)
    options = {} if priority is None else {"priority": priority}
    with IPRoute() as netlink, netlink_errors(f"rule for {source} cannot be added"):
        netlink.rule(
            "add",
            src=str(network.network_address),
            src_len=network.prefixlen,
            table=table,
            family=_FAMILY[network.version],
            **options,
        )


def read_counters() -> dict[str, int]:
    """/proc/net/snmp, snmp6 and netstat, by the names nstat uses."""
    counters: dict[str, int] = {}
    for file in ("snmp", "netstat"):
        with open(f"/proc/thread-self/net/{file}", encoding="ascii") as lines:
            # Two lines a group: "Tcp: RtoAlgorithm …" then "Tcp: 1 …".
            for names, values in zip(lines, lines, strict=True):
                group, *keys = names.split()
                prefix = group.rstrip(":")
                for key, value in zip(keys, values.split()[1:], strict=True):
                    counters[prefix + key] = int(value)
    try:
        with open("/proc/thread-self/net/snmp6", encoding="ascii") as lines:
            for line in lines:
                key, value = line.split()
                counters[key] = int(value)
    except FileNotFoundError:
        return counters  # a kernel without IPv6
    return counters


def add_mptcp_endpoint(
    address: str,
    *,
    flags: tuple[str, ...],
    endpoint_id: int | None,
    device: str | None,
    port: int | None,
) -> None:
    """An endpoint of the kernel's path manager. Raises ValueError for an unknown flag."""
    unknown = set(flags) - MPTCP_ENDPOINT_FLAGS.keys()
    if unknown:
        raise ValueError(f"unknown endpoint flags {sorted(unknown)}: {list(MPTCP_ENDPOINT_FLAGS)}")
    bits = 0
    for flag in flags:
        bits |= MPTCP_ENDPOINT_FLAGS[flag]
    key = "addr4" if ipaddress.ip_address(address).version == 4 else "addr6"
    options: dict[str, Any] = {key: address, "flags": bits}
    if endpoint_id is not None:
        options["id"] = endpoint_id
    if port is not None:
        options["port"] = port
    if device is not None:
        with IPRoute() as netlink:
            # pyroute2 declares this attribute as raw bytes.
            options["if_idx"] = struct.pack("=i", link_index(netlink, device))
    with MPTCP() as manager, netlink_errors(f"MPTCP endpoint {address} cannot be added"):
        manager.endpoint("add", **options)


def delete_mptcp_endpoint(endpoint_id: int) -> None:
    """Delete an endpoint by its id; the kernel closes the subflows that use it."""
    with MPTCP() as manager, netlink_errors(f"MPTCP endpoint {endpoint_id} cannot be deleted"):
        manager.endpoint("del", id=endpoint_id)


def mptcp_endpoints() -> dict[int, tuple[str, frozenset[str]]]:
    """The kernel's endpoints: id -> (address, names of the flags)."""
    endpoints = {}
    with MPTCP() as manager, netlink_errors("MPTCP endpoints cannot be listed"):
        for message in manager.endpoint("show"):
            entry = message.get_attr("MPTCP_PM_ATTR_ADDR")
            address = entry.get_attr("MPTCP_PM_ADDR_ATTR_ADDR4") or entry.get_attr(
                "MPTCP_PM_ADDR_ATTR_ADDR6"
            )
            bits = entry.get_attr("MPTCP_PM_ADDR_ATTR_FLAGS") or 0
            names = frozenset(name for name, bit in MPTCP_ENDPOINT_FLAGS.items() if bits & bit)
            endpoints[int(entry.get_attr("MPTCP_PM_ADDR_ATTR_ID"))] = (str(address), names)
    return endpoints


def set_mptcp_limits(subflows: int, add_addr_accepted: int) -> None:
    """How many more subflows a connection may have, and ADD_ADDR it acts on (each 0 to 8)."""
    with MPTCP() as manager, netlink_errors("MPTCP limits cannot be set"):
        manager.limits("set", subflows=subflows, add_addr_accepted=add_addr_accepted)
