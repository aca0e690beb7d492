"""What the documents say of modules, tests and settings is there."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from mptcp.config import Config

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
WHOLE_TCP = """
    9293 1122 5681 6298 6582 6675 2018 2883 8985 5682 3522 4015 6937 7323 3168 5961 6528 6691 6928
    3042 3465 9406 9438 2861 1191 8201 4821 5482 7413 4987 5927 6191 6633
"""
POINTER = re.compile(r"`(?:((?:tests/wire/)?test_\w+)(?:: )?)?([^`]*)`")
SETTING = re.compile(r"`(\w+)=([^`]+)`")


@pytest.mark.parametrize("document", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    """Files that are linked exist, and so do the headings within a document."""
    text = document.read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("#"):
            assert link[1:] in headings, f"{document.name} links to {link}"
        elif "://" not in link:
            assert (DOCS / link.split("#")[0]).exists(), f"{document.name} links to {link}"


def test_the_contract_lists_every_setting_and_its_default() -> None:
    """docs/stack-api.md: each field of `Config` stands there once, with its default."""
    text = (DOCS / "stack-api.md").read_text(encoding="utf-8")
    section = text.split("## Configuration\n")[1].split("\n## ")[0]
    told = [f"{name}={value}".replace("_", "") for name, value in re.findall(SETTING, section)]
    fields = dataclasses.fields(Config)
    assert sorted(told) == sorted(_setting(field.name, field.default) for field in fields)


def _setting(name: str, default: object) -> str:
    return f"{name}={default!r}".replace("'", '"').replace("_", "")


def _rfc_rows() -> list[list[str]]:
    text = (DOCS / "tcp.md").read_text(encoding="utf-8")
    section = text.split("## RFC by RFC\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if re.match(r"\| \d", line)]
    assert all(len(row) == 4 for row in rows)
    return rows


def test_every_rfc_has_its_row() -> None:
    """docs/tcp.md says of each RFC of TCP where it lives and what is otherwise."""
    first = " ".join(row[0] for row in _rfc_rows())
    assert not set(WHOLE_TCP.split()) - set(re.findall(r"\b\d{4}\b", first))


@pytest.mark.parametrize("row", _rfc_rows(), ids=lambda row: row[0].strip())
def test_a_row_names_what_exists(row: list[str]) -> None:
    """Modules and test files of docs/tcp.md's table, and that they know the RFC they stand for."""
    number = re.findall(r"\d{4}", row[0])[0]
    modules = [
        ROOT / "mptcp" / ("" if above else "tcp") / f"{name}.py"
        for name, above in re.findall(r"`(\w+)`(↑?)", row[1])
    ]
    plain, _, scripts = row[2].partition("**c**")
    tests = [
        ROOT / f"{name}.py" if "/" in name else ROOT / folder / f"test_{name}.py"
        for part, folder in ((plain, "tests/tcp"), (scripts, "tests/conformance"))
        for name in re.findall(r"`([\w/]+)`", part)
    ]
    assert tests
    for path in modules + tests:
        assert path.is_file(), path
    assert any(f"{number}" in path.read_text(encoding="utf-8") for path in tests), number
    if modules:
        assert any(f"{number}" in path.read_text(encoding="utf-8") for path in modules), number


def test_the_rows_of_rfc_1122_name_tests() -> None:
    """docs/tcp.md: what a row of RFC 1122 §4.2.5 points to is a test, or a file of tests."""
    text = (DOCS / "tcp.md").read_text(encoding="utf-8")
    names = 0
    for line in text.split("row by row\n")[1].splitlines():
        source = ""
        for file, name in re.findall(POINTER, line):
            if file:
                path = file if "/" in file else f"tests/tcp/{file}"
                source = (ROOT / f"{path}.py").read_text(encoding="utf-8")
            if source and re.fullmatch(r"\w+", name):
                assert f"def test_{name}" in source, f"{line}: {name}"
                names += 1
    assert names > 40
