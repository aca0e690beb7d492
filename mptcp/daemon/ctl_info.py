"""`mptcpctl info` and `mptcpctl counters`: tables of everything there is."""

from __future__ import annotations

import fnmatch
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

_NESTED: Final = ("mptcp_info", "subflows", "paths", "tcp_info")


def select_counters(
    values: dict[str, int], pattern: str | None, *, nonzero: bool
) -> dict[str, int]:
    """The counters whose name has `pattern` in it, or matches it where it has wildcards.

    Upper and lower case are the same.
    """
    if pattern is not None:
        pattern = pattern.lower()
        if not set(pattern) & set("*?["):
            pattern = f"*{pattern}*"
        values = {k: v for k, v in values.items() if fnmatch.fnmatchcase(k.lower(), pattern)}
    return {name: value for name, value in values.items() if value or not nonzero}


def show_info(console: Console, reply: dict[str, Any]) -> None:
    """One table for each connection, and one with a column for each of its subflows."""
    if not reply["connections"]:
        console.print("no connections")
    for info in reply["connections"]:
        table = Table(
            title=f"Connection {info['number']}",
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        table.add_column("field")
        table.add_column("value", overflow="fold")
        for name, value in _plain(info).items():
            table.add_row(name, f"{value:08x}" if name.endswith("token") else _text(value))
        for name, value in info["mptcp_info"].items():
            table.add_row(f"mptcpi_{name}", f"{value:08x}" if name == "token" else _text(value))
        console.print(table)
        if info["subflows"]:
            console.print(_subflows(info["subflows"]))
    rest = reply["connections_total"] - len(reply["connections"])
    if rest > 0:
        console.print(f"and {rest} connections more")


def _subflows(flows: list[dict[str, Any]]) -> Table:
    table = Table(title="Subflows", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("field")
    for flow in flows:
        table.add_column(f"path {flow['path_index']}", justify="right", overflow="fold")
    for name in _plain(flows[0]):
        table.add_row(name, *(_text(flow[name]) for flow in flows))
    for name in flows[0]["tcp_info"]:
        table.add_row(f"tcpi_{name}", *(_text(flow["tcp_info"][name]) for flow in flows))
    return table


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in _NESTED}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
