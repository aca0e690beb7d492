"""The daemon as one object: engine, rules and control socket, from start to orderly end.

Order of life: control socket (so that a second daemon is told at once), engine with its devices,
rules, then clients. The end is the reverse: nothing new is accepted, what is open is reset, the
devices go, the socket file goes; also when the start fails half way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from mptcp.addressing import format_address, parse_address
from mptcp.daemon.configuration import Settings
from mptcp.daemon.control import STATUS_LIMIT, ControlServer, ControlSocket
from mptcp.daemon.messages import own_socket_path
from mptcp.daemon.rules import (
    EngineLike,
    RateLimit,
    ServerLike,
    Service,
    connection_log,
    log,
    make_rules,
)
from mptcp.daemon.splice import ErrorWatch
from mptcp.info import MptcpInfo

__all__ = ["Daemon", "EngineLike", "ServerLike"]

PROTOCOL_VERSION: Final = 1
"""Of the control socket; raised when an old client could no longer understand the answers."""
MAX_SPLICES: Final = 65536
INFO_LIMIT: Final = 1000
"""Connections in one reply with everything: each takes some thousand bytes a subflow."""


class Daemon:
    """mptcpd without its command line."""

    def __init__(self, settings: Settings, engine: EngineLike) -> None:
        self.settings = settings
        self.engine = engine
        self.services: list[Service] = []
        """The rules, in the order of the file, then the clients of the control socket."""
        self.socket_path = settings.daemon.socket or own_socket_path()

    async def run(self, stop: asyncio.Event, ready: Callable[[], None] | None = None) -> None:
        """Serve until `stop` is set; `ready` is called when everything is up.

        Raises OSError or ValueError, each with one line, when it cannot start.
        """
        table = self.settings.daemon
        control = ControlSocket(self.socket_path, table.mode, table.group)
        control.open()
        limit = RateLimit()
        connection_log.addFilter(limit)
        try:
            async with self.engine:
                await self._serve(control, stop, ready)
        finally:
            connection_log.removeFilter(limit)
            control.close()

    async def _serve(
        self, control: ControlSocket, stop: asyncio.Event, ready: Callable[[], None] | None
    ) -> None:
        watch = ErrorWatch()
        clients = Service("clients", watch, MAX_SPLICES)
        rules = make_rules(self.engine, watch, self.settings)
        self.services = [*rules, clients]
        server: asyncio.Task[None] | None = None
        try:
            for rule in rules:
                try:
                    await rule.start()
                except OSError as error:
                    raise OSError(error.errno, f"{rule.title}: {_reason(error)}") from None
            server = asyncio.get_running_loop().create_task(
                ControlServer(
                    control.socket,
                    self.engine,
                    clients,
                    self._queries(),
                    self.settings.daemon.max_clients,
                ).serve()
            )
            log.info("ready; control socket %s", self.socket_path)
            if ready is not None:
                ready()
            stopping = asyncio.ensure_future(stop.wait())
            try:
                await asyncio.wait((stopping, server), return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopping.cancel()
            if server.done():
                server.result()  # it never ends by itself: raise why it did
        finally:
            log.info("ending")
            for service in self.services:
                service.abort()
            for service in self.services:
                await service.close()
            if server is not None:
                server.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await server
            for service in self.services:  # what came in meanwhile
                service.abort()
            await asyncio.sleep(0)  # the halves' connection_lost
            watch.close()

    # What clients may ask

    def _queries(self) -> dict[str, Callable[[dict[str, Any]], dict[str, Any]]]:
        return {
            "ping": lambda _request: {},
            "version": lambda _request: self._version(),
            "status": self._status,
            "info": self._info,
            "counters": lambda _request: self._counters(),
            "paths": self._paths,
            "blackholes": self._blackholes,
        }

    def _version(self) -> dict[str, Any]:
        try:
            number = version("mptcp")
        except PackageNotFoundError:  # run from a checkout that is not installed
            number = "unknown"
        return {"version": number, "protocol": PROTOCOL_VERSION, "pid": os.getpid()}

    def _status(self, request: dict[str, Any]) -> dict[str, Any]:
        limit = request.get("limit", STATUS_LIMIT)
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
            raise ValueError("limit is no number of connections; send e.g. 1000")
        connections = self.engine.connections()
        shown = connections[: min(limit, STATUS_LIMIT)]
        return {
            **self._version(),
            "interfaces": [
                {"name": each.name, "address": each.address, "mtu": each.mtu}
                for each in self.settings.interface
            ],
            "connections_total": len(connections),
            "connections": [info.brief() for info in shown],
        }

    def _info(self, request: dict[str, Any]) -> dict[str, Any]:
        wanted = request.get("id")
        if wanted is not None and (isinstance(wanted, bool) or not isinstance(wanted, int | str)):
            raise ValueError('id is no number and no token; send e.g. 7 or "0x1234abcd"')
        connections = self.engine.connections()
        if wanted is not None:
            connections = _select(connections, str(wanted))
        return {
            "connections_total": len(connections),
            "connections": [info.to_dict() for info in connections[:INFO_LIMIT]],
        }

    def _blackholes(self, request: dict[str, Any]) -> dict[str, Any]:
        """Destinations that get plain SYNs; `clear` forgets one, or all of them."""
        stack = self.engine.stack
        clear = request.get("clear", False)
        cleared = 0
        if isinstance(clear, str):
            cleared = stack.blackholes.clear(parse_address(clear))
        elif clear is True:
            cleared = stack.blackholes.clear()
        elif clear is not False:
            raise ValueError('clear is neither true nor an address; send e.g. "192.0.2.1"')
        return {
            "blackholes": [
                {
                    "address": format_address(entry.address),
                    "failures": entry.failures,
                    "age_us": stack.now - entry.since,
                    "left_us": max(0, entry.until - stack.now),
                }
                for entry in stack.blackholes.table()
            ],
            "cleared": cleared,
        }

    def _counters(self) -> dict[str, Any]:
        return {
            "counters": self.engine.stack.mib(),
            "services": [service.counters() for service in self.services],
        }

    def _paths(self, request: dict[str, Any]) -> dict[str, Any]:
        status = self._status(request)
        kept = ("number", "fallback", "token", "local", "local_port", "remote", "remote_port")
        return {
            "connections_total": status["connections_total"],
            "connections": [
                {**{key: info[key] for key in kept}, "paths": info["paths"]}
                for info in status["connections"]
            ],
        }


def _select(connections: list[MptcpInfo], wanted: str) -> list[MptcpInfo]:
    """The connection of that number, or else of that token in hexadecimal digits."""
    found = [info for info in connections if str(info.number) == wanted]
    if not found:
        token = wanted.lower().removeprefix("0x").zfill(8)
        found = [info for info in connections if f"{info.token:08x}" == token]
    if not found:
        raise ValueError(f"there is no connection {wanted}; mptcpctl status lists those there are")
    return found


def _reason(error: OSError) -> str:
    return " ".join(str(error.strerror or error).split())
