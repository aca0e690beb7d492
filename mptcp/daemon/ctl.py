"""mptcpctl: asks a running mptcpd, and prints tables for people or JSON for programs.

    mptcpctl [--socket PATH] status|info|paths|counters|monitor|ping|version [--json]

Exit status: 0, or 2 with one line on standard error when there is no daemon to ask, or it says no.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any, Final, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from mptcp.daemon.ctl_info import select_counters, show_info
from mptcp.daemon.ctl_monitor import monitor
from mptcp.daemon.messages import (
    MAX_REPLY,
    DaemonError,
    decode,
    encode,
    find_socket_path,
    to_exception,
    unavailable,
)

PATIENCE_S: Final = 10.0
_WIDE: Final = 200
"""Columns when the output is no terminal: a pipe must not lose text."""


def ask(path: str, request: dict[str, Any]) -> dict[str, Any]:
    """The daemon's reply. Raises OSError (DaemonError without a daemon), one line each."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(PATIENCE_S)
            sock.connect(path)
            sock.sendall(encode(request))
            reply = bytearray()
            while not reply.endswith(b"\n"):
                data = sock.recv(1 << 20)
                if not data or len(reply) > MAX_REPLY:
                    raise DaemonError(f"mptcpd at {path} hung up; see its log")
                reply += data
    except DaemonError:
        raise
    except OSError as error:
        raise unavailable(path, error) from None
    try:
        message = decode(reply)
    except ValueError:
        raise DaemonError(f"what runs at {path} is no mptcpd of this project") from None
    if message.get("ok") is not True:
        raise to_exception(message)
    return message


def main(argv: Sequence[str] | None = None) -> int:
    """Run mptcpctl with the arguments `argv`; returns the exit status."""
    options = _parser().parse_args(argv)
    # Both may stand before or after the command; absent, argparse leaves them out (SUPPRESS).
    path = getattr(options, "socket", None) or find_socket_path()
    as_json: bool = getattr(options, "json", False)
    request: dict[str, Any] = {"op": options.command}
    if options.command == "info" and options.id is not None:
        request["id"] = options.id
    if options.command == "blackholes":
        request["clear"] = options.clear
    try:
        if options.command == "monitor":
            return monitor(path, as_json=as_json)
        reply = ask(path, request)
    except BrokenPipeError:
        return _reader_gone()
    except OSError as error:
        print(f"mptcpctl: {error.strerror or error}", file=sys.stderr)
        return 2
    reply.pop("ok")
    if options.command == "counters":
        reply["counters"] = select_counters(
            reply["counters"], options.pattern, nonzero=options.nonzero
        )
    console = Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False)
    try:
        if as_json:
            print(json.dumps(reply, indent=2))
        else:
            _SHOW[options.command](console, reply)
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_gone()
    return 0


def _reader_gone() -> int:
    """`mptcpctl … | head`: what is still in Python's buffer must not complain at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--socket",
        metavar="PATH",
        default=argparse.SUPPRESS,
        help="of the daemon; by default $XDG_RUNTIME_DIR/mptcp-us/control if it is there, "
        "else /run/mptcp-us/control",
    )
    common.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="for programs"
    )
    parser = argparse.ArgumentParser(
        prog="mptcpctl", description="Ask a running mptcpd.", parents=[common]
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("status", "connections and their subflows"),
        ("paths", "the path manager's mapping tables"),
        ("info", "everything there is to know of connections"),
        ("counters", "what was counted since the start"),
        ("blackholes", "destinations where MPTCP's SYNs were lost, and how long ago"),
        ("monitor", "what happens to connections, until Ctrl-C"),
        ("ping", "whether the daemon answers"),
        ("version", "of the daemon"),
    ):
        command = commands.add_parser(name, help=text, description=text, parents=[common])
        if name == "info":
            command.add_argument(
                "id",
                metavar="ID",
                nargs="?",
                help="number or token (hexadecimal) of one connection; all by default",
            )
        elif name == "blackholes":
            command.add_argument(
                "--clear",
                metavar="ADDRESS",
                nargs="?",
                const=True,
                default=False,
                help="try MPTCP there again at once; without an address everywhere",
            )
        elif name == "counters":
            command.add_argument(
                "--nonzero", action="store_true", help="only those that have counted something"
            )
            command.add_argument(
                "pattern",
                metavar="PATTERN",
                nargs="?",
                help="part of a name, or a pattern with * and ?",
            )
    return parser


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        justify: Literal["left", "right"] = "left" if column in _WORDS else "right"
        table.add_column(column, justify=justify, overflow="fold")
    return table


_WORDS: Final = frozenset(
    ("local", "remote", "mode", "end", "interface", "state", "flags", "name", "counter")
)


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _ends(entry: dict[str, Any]) -> tuple[str, str]:
    return (
        _endpoint(entry["local"], entry["local_port"]),
        _endpoint(entry["remote"], entry["remote_port"]),
    )


def _mode(info: dict[str, Any]) -> str:
    if not info["fallback"]:
        return f"mptcp {info['token']:08x}"
    reason = info.get("fallback_reason")
    return f"tcp ({reason})" if reason else "tcp"


def _show_status(console: Console, reply: dict[str, Any]) -> None:
    connections = _table("Connections", "#", "local", "remote", "mode", "queued", "unread", "end")
    subflows = _table(
        "Subflows",
        *("#", "path", "interface", "local", "remote", "state", "flags"),
        *("srtt ms", "cwnd", "sent", "acked", "resent", "received"),
    )
    for info in reply["connections"]:
        number = str(info["number"])
        connections.add_row(
            *(number, *_ends(info), _mode(info)),
            *(str(info["send_queued"]), str(info["receive_queued"])),
            info["ended"] or ("half-closed" if info["eof"] else ""),
        )
        for flow in info["subflows"]:
            flags = [name for name in ("backup", "stale") if flow[name]]
            subflows.add_row(
                *(number, str(flow["path_index"]), flow["interface"], *_ends(flow)),
                *(flow["state"].lower().replace("_", "-"), " ".join(flags)),
                *(f"{flow['srtt'] / 1000:.1f}", str(flow["cwnd"]), str(flow["bytes_sent"])),
                *(str(flow["bytes_acked"]), str(flow["bytes_retransmitted"])),
                str(flow["bytes_received"]),
            )
    if reply["connections"]:
        console.print(connections)
        console.print(subflows)
    else:
        console.print("no connections")
    _tell_rest(console, reply)


def _show_paths(console: Console, reply: dict[str, Any]) -> None:
    table = _table("Paths", "#", "path", "local", "remote", "established", "failures")
    for info in reply["connections"]:
        for path in info["paths"]:
            table.add_row(
                *(str(info["number"]), str(path["index"]), path["local"]),
                _endpoint(path["remote"], path["remote_port"]),
                "yes" if path["established"] else "no",
                str(path["failures"]),
            )
    console.print(table if table.row_count else "no connections")
    _tell_rest(console, reply)


def _tell_rest(console: Console, reply: dict[str, Any]) -> None:
    rest = reply["connections_total"] - len(reply["connections"])
    if rest > 0:
        console.print(f"and {rest} connections more")


def _show_counters(console: Console, reply: dict[str, Any]) -> None:
    services = _table(
        "Services",
        *("name", "active", "connections", "failures", "refused", "bytes out", "bytes in"),
    )
    for entry in reply["services"]:
        numbers = ("active", "connections", "failures", "refused", "bytes_out", "bytes_in")
        services.add_row(entry["name"], *(str(entry[key]) for key in numbers))
    console.print(services)
    if not reply["counters"]:
        console.print("no such counter, or nothing counted")
        return
    stack = _table("Stack", "counter", "value")
    for name, value in reply["counters"].items():
        stack.add_row(name, str(value))
    console.print(stack)


def _show_blackholes(console: Console, reply: dict[str, Any]) -> None:
    if reply["cleared"]:
        console.print(f"{reply['cleared']} cleared")
    table = _table("Plain TCP only", "address", "failures", "age", "MPTCP again in")
    for entry in reply["blackholes"]:
        age, left = (f"{entry[key] // 1_000_000} s" for key in ("age_us", "left_us"))
        table.add_row(entry["address"], str(entry["failures"]), age, left)
    console.print(table)


def _show_version(console: Console, reply: dict[str, Any]) -> None:
    console.print(f"mptcpd {reply['version']}, pid {reply['pid']}")


_SHOW: Final = {
    "status": _show_status,
    "info": show_info,
    "paths": _show_paths,
    "counters": _show_counters,
    "blackholes": _show_blackholes,
    "ping": lambda console, _reply: console.print("mptcpd answers"),
    "version": _show_version,
}


if __name__ == "__main__":
    sys.exit(main())
