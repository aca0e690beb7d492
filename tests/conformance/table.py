"""The table of differences in docs/conformance.md, made of the scripts' `differs` calls.

    python -m tests.conformance.table        # writes it anew

One row for each call: where it is, what ours and the kernel do, and why. A test compares.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
DOCUMENT = HERE.parent.parent / "docs" / "conformance.md"
BEGIN = "<!-- differences: made by python -m tests.conformance.table -->"


def differences() -> Iterator[tuple[str, str, str, str]]:
    """(script, why, ours, kernel) of each `differs` call, in the order of the files.

    Raises AssertionError when a call gives its reason otherwise than as a literal.
    """
    for path in sorted(HERE.glob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in tree.body:
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr == "differs"
                ):
                    why = node.args[0]
                    assert isinstance(why, ast.Constant), f"{path.name}:{node.lineno}"
                    values = {k.arg: ast.unparse(k.value) for k in node.keywords}
                    name = f"{path.stem}.{function.name}"
                    yield name, str(why.value), values["ours"], values["kernel"]


def table() -> str:
    """The table as Markdown."""
    rows = ["| script | ours | kernel | why |", "|---|---|---|---|"]
    rows += [
        f"| `{name}` | `{_cell(ours)}` | `{_cell(kernel)}` | {_cell(why)} |"
        for name, why, ours, kernel in differences()
    ]
    return "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def written() -> str:
    """The table as it stands in the document."""
    return DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].lstrip("\n")


if __name__ == "__main__":
    text = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[0]
    DOCUMENT.write_text(f"{text}{BEGIN}\n\n{table()}", encoding="utf-8")
