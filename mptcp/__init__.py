"""Multipath TCP v1 (RFC 8684) in user space.

    async with mptcp.Engine([mptcp.Interface("tun1", "10.9.1.2/24")]) as engine:
        reader, writer = await engine.open_connection("10.1.0.2", 5001)

`open_connection()` and `start_server()` of the module itself go through a running mptcpd and need
no engine and no rights. What needs devices is loaded at its first use, so that the protocol core
and the simulator can be imported where there are none.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from mptcp import compiled

compiled.use(__path__)

from mptcp import errors  # noqa: E402 (the choice comes first)
from mptcp.config import Config  # noqa: E402

if TYPE_CHECKING:
    from mptcp.daemon.client import DaemonServer
    from mptcp.engine import Engine, run
    from mptcp.engine_interfaces import Interface
    from mptcp.policies import Policies
    from mptcp.streams import ClientConnected, LocalAddress

__version__ = "0.1.0"
__all__ = [
    "Config",
    "Engine",
    "Interface",
    "Policies",
    "__version__",
    "errors",
    "open_connection",
    "run",
    "start_server",
]

_LAZY = {
    "Engine": "mptcp.engine",
    "Interface": "mptcp.engine_interfaces",
    "Policies": "mptcp.policies",
    "run": "mptcp.engine",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'mptcp' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


async def open_connection(
    host: str,
    port: int,
    *,
    local_addr: LocalAddress | None = None,
    limit: int = 65536,
    policies: Policies | None = None,
    path: str | os.PathLike[str] | None = None,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect through the running mptcpd; as asyncio.open_connection().

    `local_addr`: an address of the daemon's stack, or (address, port). `limit`: bytes the reader
    holds. `policies`: of this connection, where they are not the daemon's. `path`: the daemon's
    Unix socket, None for the usual one.
    Raises OSError with one line that says what failed.
    """
    from mptcp.daemon import client

    return await client.open_connection(
        host, port, local_addr=local_addr, limit=limit, policies=policies, path=path
    )


async def start_server(
    client_connected_cb: ClientConnected,
    host: str | None = None,
    port: int = 0,
    *,
    backlog: int | None = None,
    limit: int = 65536,
    policies: Policies | None = None,
    path: str | os.PathLike[str] | None = None,
) -> DaemonServer:
    """Listen through the running mptcpd; as asyncio.start_server().

    `host` None: all addresses of the daemon's stack. `backlog`: half-open
    connections kept. `limit`, `policies`, `path`: as `open_connection`.
    Raises OSError with one line that says what failed.
    """
    from mptcp.daemon import client

    return await client.start_server(
        client_connected_cb,
        host,
        port,
        backlog=backlog,
        limit=limit,
        policies=policies,
        path=path,
    )
