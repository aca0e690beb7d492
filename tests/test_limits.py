"""docs/limits.md: the table of limits is complete, and what it says of counters is true."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

from mptcp.config import Config

ROOT = Path(__file__).parents[1]
LIMIT = re.compile(
    r"max_(?!rto)\w+|\w+_per_second|\w*(receive|send)_buffer|backlog|fast_open(_cookies)?"
)


def rows() -> dict[str, list[str]]:
    """The cells of the table by field."""
    text = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    found = {}
    for line in text.splitlines():
        if match := re.match(r"\| `(\w+)` \|", line):
            assert match[1] not in found, f"{match[1]} stands there twice"
            found[match[1]] = [cell.strip() for cell in line.strip("|").split("|")]
    return found


def strings(folder: str) -> set[str]:
    """Every string literal in the Python files of a folder, but in this file."""
    found = set()
    for file in (ROOT / folder).rglob("*.py"):
        if file.resolve() == Path(__file__).resolve():
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_every_limit_has_its_row() -> None:
    """Each field of `Config` that bounds something, with its default, and no other."""
    fields = {field.name: field.default for field in dataclasses.fields(Config)}
    limits = {name: value for name, value in fields.items() if LIMIT.fullmatch(name)}
    assert {name: cells[1] for name, cells in rows().items()} == {
        name: f"`{value}`" for name, value in limits.items()
    }


def test_every_counter_is_raised_by_the_stack_and_seen_by_a_test() -> None:
    """What the table names is counted somewhere, and some test looks at it."""
    named = {name for cells in rows().values() for name in re.findall(r"`(\w+)`", cells[4])}
    assert len(named) > 15
    assert named - strings("mptcp") == set()
    assert named - strings("tests") == set()
