"""docs/rfc8684.md: each rule of RFC 8684, the tests that hold us to it, and what we do otherwise.

    python -m tests.rfc8684        # writes the tables anew

The rules are `rfc8684_rows.ROWS`; a test names the rows it checks with `@pytest.mark.row("D11")`,
and `kernel=True` when it does so with a Linux kernel as the other end. Nothing is imported or run:
the markers are read from the sources. `tests/test_rfc8684.py` compares.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.rfc8684_rows import PARTS, ROWS, Row

TESTS = Path(__file__).parent
DOCUMENT = TESTS.parent / "docs" / "rfc8684.md"
HEAD = "| row | level | § | rule | tests | kernel |"
BEGIN = "<!-- rows: made by python -m tests.rfc8684 -->"


@dataclass(frozen=True, slots=True)
class Mark:
    """A row named by a test."""

    row: str
    path: str
    """Of the file, from the folder of the tests, without suffix."""
    test: str
    kernel: bool


def marks(tests: Path = TESTS) -> Iterator[Mark]:
    """Every row that a test names, in the order of the files.

    Raises AssertionError when a marker has anything but literals, or stands on what is no test.
    """
    for path in sorted(tests.rglob("test_*.py")):
        name = path.relative_to(tests).with_suffix("").as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                for decorator in node.decorator_list:
                    yield from _mark(decorator, name, node.name)


def _mark(decorator: ast.expr, path: str, test: str) -> Iterator[Mark]:
    if not (isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.row"):
        return
    where = f"{path}.{test}"
    assert test.startswith("test_"), where
    kernel = False
    for keyword in decorator.keywords:
        assert keyword.arg == "kernel", where
        kernel = ast.literal_eval(keyword.value) is True
    assert decorator.args, where
    for argument in decorator.args:
        row = ast.literal_eval(argument)
        assert isinstance(row, str), where
        yield Mark(row, path, test, kernel)


def table() -> str:
    """The tables as Markdown, one for each part of the checklist."""
    by_row: dict[str, list[Mark]] = defaultdict(list)
    for mark in marks():
        by_row[mark.row].append(mark)
    lines = []
    for letter, title in PARTS.items():
        lines += [f"## {title}", "", HEAD, "|" + "---|" * 6]
        rows = [row for row in ROWS if row.id[0] == letter]
        lines += [_line(row, by_row[row.id]) for row in rows]
        lines.append("")
        lines += [f"- **{row.id}**: {row.note}" for row in rows if row.note]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _line(row: Row, found: list[Mark]) -> str:
    files: dict[str, list[str]] = defaultdict(list)
    for mark in found:
        files[mark.path].append(mark.test.removeprefix("test_"))
    tests = "; ".join(
        f"`{path}`: " + ", ".join(f"`{test}`" for test in names) for path, names in files.items()
    )
    kernel = "yes" if any(mark.kernel for mark in found) else ""
    return f"| {row.id} | {row.level} | {row.section} | {row.rule} | {tests} | {kernel} |"


def written() -> str:
    """The tables as they stand in the document."""
    return DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].lstrip("\n")


if __name__ == "__main__":
    text = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[0]
    DOCUMENT.write_text(f"{text}{BEGIN}\n\n{table()}", encoding="utf-8")
