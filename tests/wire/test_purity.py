"""The codecs do no I/O, read no clock and draw no randomness: their imports show it."""

import ast
from pathlib import Path

import pytest

import mptcp.keys
import mptcp.wire

ALLOWED = {
    "collections",
    "dataclasses",
    "enum",
    "hashlib",
    "hmac",
    "mptcp",
    "struct",
    "typing",
}


@pytest.mark.interpreted
def test_imports() -> None:
    """Only the standard library's pure parts, and nothing of the project above `wire`."""
    sources = sorted(Path(mptcp.wire.__path__[0]).glob("*.py"))
    assert len(sources) > 5
    for source in [*sources, Path(mptcp.keys.__file__)]:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, source.name
                names = [node.module or ""]
            else:
                continue
            for name in names:
                assert name.split(".")[0] in ALLOWED, f"{source.name} imports {name}"
                if name.startswith("mptcp"):
                    assert name.startswith("mptcp.wire"), f"{source.name} imports {name}"
