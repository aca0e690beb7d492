"""Active opens: connections and subflows that this host begins, and how either comes to be.

A connection has a key and a token from here on (RFC 8684 §3.1), a subflow its ISN (RFC 6528) and
its place in the demultiplexer, whoever opens it: `accepting` makes them here too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp import keys
from mptcp.addressing import can_be_source, format_address, parse_address
from mptcp.config import Config
from mptcp.errors import AddressInUseError, FallbackReason, LocalError, NoRouteError
from mptcp.fallback import fall_back
from mptcp.meta_socket import MetaSocket
from mptcp.path_manager.base import EndpointId, Path
from mptcp.policies import Policies
from mptcp.ports import take_local_port
from mptcp.subflow import Role, Subflow
from mptcp.tcp.fastopen import ClientFastOpen
from mptcp.tcp.host import Interface

if TYPE_CHECKING:
    from mptcp.accepting import Listener
    from mptcp.stack import Stack


def connect(
    stack: Stack,
    remote: str | bytes,
    port: int,
    *,
    local_addr: tuple[str | bytes, int] | None = None,
    data: bytes = b"",
    fast_open: bool = False,
    policies: Policies | None = None,
) -> MetaSocket:
    """See `Stack.connect`."""
    config = policies.applied(stack.config) if policies is not None else stack.config
    if len(data) > stack.config.send_buffer:
        raise ValueError(f"{len(data)} bytes do not fit into the send buffer: send() the rest")
    destination = parse_address(remote)
    if not 1 <= port <= 65535:
        raise ValueError(f"port {port} is not in 1..65535")
    if not can_be_source(destination):  # RFC 1122 §4.2.3.10
        raise ValueError(f"{format_address(destination)} is not the address of one host")
    if destination in stack.book.owner:
        raise NoRouteError(
            f"{format_address(destination)} is an address of this stack, which has no "
            "loopback: connect to the service itself"
        )
    local = parse_address(local_addr[0]) if local_addr and local_addr[0] else None
    source, interface = stack.book.choose(destination, local)
    if len(stack.metas) >= stack.config.max_connections:
        raise LocalError(f"{len(stack.metas)} connections are open: raise max_connections")
    wanted = local_addr[1] if local_addr else 0
    local_port, isn = take_local_port(stack, source, wanted, destination, port)
    meta = new_meta(stack, None, config=config)
    if not meta.fallback and stack.blackholes.blocks(destination, stack.now):
        stack.counters["MPTcpExtMPCapableSYNTXDisabled"] += 1
        fall_back(meta, FallbackReason.BLACKHOLE)
    subflow = new_subflow(
        stack, meta, Role.INITIAL_ACTIVE, interface, source, local_port, destination, port, isn
    )
    meta.fendpoint = EndpointId(source, local_port, destination, port)
    if data:
        meta.send(data)
    if fast_open:
        subflow.fast_open = ClientFastOpen(stack.fast_open_cache, destination, stack.now)
    if subflow.mptcp:
        stack.counters["MPTcpExtMPCapableSYNTX"] += 1
    subflow.open_active(stack.now)
    return meta


def join(stack: Stack, meta: MetaSocket, path: Path) -> None:
    """Open one more subflow of `meta` on `path` (RFC 8684 §3.2)."""
    endpoint = path.endpoint
    first = meta.fendpoint
    wanted = endpoint.local_port
    if not wanted and not path.failures and not path.established:
        # RFC 8684 §3.9.1: the first subflow's port, where it can be had; not again on a path that
        # has failed: whatever it met may remember the port.
        key = stack.flow_key(
            endpoint.local, first.local_port, endpoint.remote, endpoint.remote_port
        )
        wanted = 0 if key in stack.connections else first.local_port
    interface = stack.book.owner.get(endpoint.local)
    if interface is None:
        stack.counters["MPTcpExtMPJoinSynTxBindErr"] += 1
        meta.paths.manager.on_subflow_closed(path.index, refused=False, now=stack.now)
        return
    try:
        port, isn = take_local_port(
            stack,
            endpoint.local,
            wanted,
            endpoint.remote,
            endpoint.remote_port,
        )
    except AddressInUseError:
        stack.counters["MPTcpExtMPJoinSynTxBindErr"] += 1
        meta.paths.manager.on_subflow_closed(path.index, refused=True, now=stack.now)
        return
    subflow = new_subflow(
        stack,
        meta,
        Role.JOIN_ACTIVE,
        interface,
        endpoint.local,
        port,
        endpoint.remote,
        endpoint.remote_port,
        isn,
    )
    subflow.path_index = path.index
    subflow.local_id = path.local_id
    subflow.remote_id = path.remote_id
    subflow.backup_request = path.backup or meta.options.priorities.wanted(
        endpoint.local, interface
    )
    subflow.local_nonce = stack.entropy(4)
    stack.counters["MPTcpExtMPJoinSynTx"] += 1
    subflow.open_active(stack.now)


def new_meta(
    stack: Stack, listener: Listener | None, key: bytes = b"", *, config: Config
) -> MetaSocket:
    """A connection with a key of its own, or with `key`, whose token must not be in use.

    `config`: the stack's, with the connection's own policies.
    """
    if stack.config.mptcp and not key:
        key = stack.entropy(8)
        while keys.token(key) in stack.tokens:
            key = stack.entropy(8)  # RFC 8684 §3.1: the token must be unique here
    stack.numbers += 1
    meta = MetaSocket(stack, stack.numbers, listener, key, config)
    stack.metas.add(meta)
    if key:
        stack.tokens[meta.token] = meta
    return meta


def new_subflow(
    stack: Stack,
    meta: MetaSocket,
    role: Role,
    interface: Interface,
    local: bytes,
    local_port: int,
    remote: bytes,
    remote_port: int,
    isn: int | None = None,
) -> Subflow:
    """A subflow of `meta`, entered in the demultiplexer; `isn` None for RFC 6528's."""
    key = stack.flow_key(local, local_port, remote, remote_port)
    iss = stack.isn(key) if isn is None else isn
    ts_offset = stack.timestamp_offset(key)
    subflow = Subflow(
        stack, meta, role, interface, local, local_port, remote, remote_port, iss, ts_offset
    )
    subflow.mptcp = subflow.mptcp and not meta.fallback
    meta.subflows.append(subflow)
    stack.connections[key] = subflow
    return subflow
