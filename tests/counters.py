"""docs/counters.md: every counter, what it counts, whether the kernel has it, and a test of it.

    python -m tests.counters       # writes the tables anew

Names and meanings are `mptcp.mib`'s. A test says which counters it sees raised with
`@pytest.mark.mib("TcpOutRsts")`, and tests/conftest.py holds it to that; the markers are read from
the sources, nothing is run. What the sources raise is read from them as well.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

from mptcp.mib import GAUGES, KERNEL, NOT_HERE, OWN

TESTS = Path(__file__).parent
SOURCES = TESTS.parent / "mptcp"
DOCUMENT = TESTS.parent / "docs" / "counters.md"
BEGIN = "<!-- counters: made by python -m tests.counters -->"
NAME = re.compile(r"(MPTcpExt|TcpExt|IpExt|Tcp|Ip|Icmp|Scheduler|Engine)[A-Z]\w+")
NOT_THE_HOSTS = ("sim", "tun", "bench", "daemon")
"""Routers of the simulator have counters of their own, by the same names."""


def raised() -> set[str]:
    """Names that the sources use as the key of a counter."""
    names: set[str] = set()
    for path in sorted(SOURCES.rglob("*.py")):
        if path.relative_to(SOURCES).parts[0] in (*NOT_THE_HOSTS, "mib.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.update(name for name in [node.value] if NAME.fullmatch(name))
    return names - {"EngineLike"}


def marks() -> dict[str, list[str]]:
    """Counter -> the tests that say they see it raised."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        name = path.relative_to(TESTS).with_suffix("").as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for decorator in node.decorator_list:
                if (
                    isinstance(decorator, ast.Call)
                    and ast.unparse(decorator.func) == "pytest.mark.mib"
                ):
                    for argument in decorator.args:
                        found[ast.literal_eval(argument)].append(f"{name}: {node.name}")
    return found


def table() -> str:
    """The tables as Markdown."""
    by_name = marks()
    lines = []
    for title, names in (
        ("States, worked out when somebody asks", GAUGES),
        ("As in Linux", KERNEL),
        ("What Linux does not count", OWN),
    ):
        lines += [f"## {title}", "", "| counter | what it counts | tests |", "|---|---|---|"]
        for name, meaning in names.items():
            tests = "; ".join(f"`{test}`" for test in by_name[name])
            lines.append(f"| `{name}` | {meaning} | {tests} |")
        lines.append("")
    lines += ["## Linux's that are not here", "", "| MPTcpExt… | why |", "|---|---|"]
    lines += [f"| {names} | {why} |" for names, why in NOT_HERE.items()]
    return "\n".join(lines) + "\n"


def written() -> str:
    """The tables as they stand in the document."""
    return DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].lstrip("\n")


if __name__ == "__main__":
    text = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[0]
    DOCUMENT.write_text(f"{text}{BEGIN}\n\n{table()}", encoding="utf-8")
